"""On-policy distillation: the student writes, the teacher's distribution at each of its tokens is the target.

Where the task's template gives the teacher a view of its own, the teacher reads that before what the student wrote.

By TRL's DistillationTrainer (Agarwal et al. 2023, https://arxiv.org/abs/2306.13649). [train.args] beta chooses the divergence:
0 is forward KL, 1 reverse KL. The student must be able to answer: an untrained cut student agrees with its teacher on 1% of
the tokens, and what it writes teaches nothing.
"""

import copy
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import load
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import Sample
from seqdistill.run_prompts import view_files
from seqdistill.runs import Run
from seqdistill.stages.train.methods import Method, TrainingSetup, check_can_answer, check_order, check_smoothing, check_unmixed
from seqdistill.stages.train.methods.targets import student_numbering
from seqdistill.stages.train.methods.teacher_prompts import OwnView, teacher_prompts
from seqdistill.stages.train.reading import Read
from seqdistill.stages.train.student import Student
from seqdistill.stages.train.vocabulary import restrict_teacher
from seqdistill.tasks.templates import load_template


def check_recipe(recipe: Recipe, student: Student) -> None:
    """Raises UsageError for a teacher that is not files, and for a student that cannot answer yet."""
    check_unmixed(recipe.train)
    if not recipe.teacher.model:
        raise UsageError(
            "[train] method = 'on_policy' needs one teacher that reads what the student writes, and [teacher] names none",
            "set model in [teacher] to the teacher's files",
        )
    if recipe.teacher.engine == "openai":
        raise UsageError(
            f"[train] method = 'on_policy' needs the teacher's distribution at every token that the student writes, and "
            f"{recipe.teacher.model!r} is an endpoint",
            "name the teacher's files, with engine = transformers; for a teacher of text alone use method = 'preference'",
        )
    check_can_answer(recipe, student)


def check_files(recipe: Recipe, _student: Student, read: Read) -> None:
    """Raises UsageError for a teacher whose tokens, or the number of them in its embedding, are not the student's."""
    student_numbering(recipe, read.tokenizer, read.before_cuts)
    if recipe.train.vocabulary == "all" and read.before_cuts is None:  # of a teacher, the tokens of a cut student are left
        _check_sizes(load("AutoConfig", recipe.teacher).get_text_config(decoder=True).vocab_size, read.vocabulary)


def _check_sizes(teacher: int, student: int) -> None:
    if teacher != student:
        raise UsageError(
            f"[train] method = 'on_policy': the teacher's embedding has {teacher} tokens and the student's {student}",
            "use method = 'soft', which compares the tokens that both have",
        )


def gather(setup: TrainingSetup) -> None:
    """Raises UsageError for a teacher whose tokens are not the student's. Notes which of several teachers it is."""
    if len(setup.recipe.teachers) > 1:
        setup.progress.note(
            f"train: of {len(setup.recipe.teachers)} teachers, on_policy learns from {setup.recipe.teacher.model}"
        )
    student_numbering(setup.recipe, setup.tokenizer, setup.before_cuts)


def check_arguments(arguments: Any, _config: TrainConfig) -> None:
    """Raises UsageError for [train.args] that TRL takes and has no use for, or fails on once the student answers."""
    check_smoothing(arguments, "on_policy")
    check_order(arguments, "on_policy", "TRL draws the prompts itself; shuffle_dataset = false keeps their order")
    if arguments.temperature <= 0:
        raise UsageError(
            f"[train.args] temperature = {arguments.temperature:g}: the student samples its answers", "give more than 0"
        )
    if arguments.use_vllm and importlib.util.find_spec("vllm") is None:
        raise UsageError("[train.args] use_vllm: the package is not installed", "leave use_vllm out, or pip install vllm")


def build(setup: TrainingSetup, callbacks: Sequence[Any]) -> Any:
    """TRL's trainer on the prompts of the rows, the teacher beside it.

    An answer of the student ends at the latest where the longest one of the rows does, unless [train.args] says otherwise.
    """
    arguments, checked = setup.arguments, setup.checked
    if "max_completion_length" not in setup.recipe.train.args:
        arguments.max_completion_length = max(len(row.tokens) - row.start for row in checked.train)
    positions = getattr(setup.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = max(row.start for row in checked.train)
    if positions and longest + arguments.max_completion_length > positions:
        raise UsageError(
            f"[train.args] max_completion_length = {arguments.max_completion_length}: with the {longest} tokens of the longest "
            f"prompt that is more than the student's context of {positions}",
            f"at most {positions - longest}, or leave it out",
        )
    dtype = "float32" if arguments.device.type == "cpu" else "auto"
    teacher = load("AutoModelForCausalLM", setup.recipe.teacher, dtype=dtype)
    restrict_teacher(teacher, setup.recipe.teacher, setup.before_cuts)
    _check_sizes(*(model.config.get_text_config(decoder=True).vocab_size for model in (teacher, setup.model)))
    setup.beside.append(teacher)
    tokenizer = copy.deepcopy(setup.tokenizer)
    tokenizer.padding_side = "left"
    prompts = teacher_prompts(setup)
    own_view = OwnView(teacher, prompts, arguments.max_completion_length) if prompts else None
    trainer = _trainer(own_view)(
        model=setup.model,
        teacher_model=teacher,
        args=arguments,
        train_dataset=_prompts(setup.fitting["train"]),
        eval_dataset=_prompts(setup.fitting["validation"]) if checked.validation else None,
        processing_class=tokenizer,
        callbacks=[*callbacks, _order_by_epoch()],
    )
    tokenizer.padding_side = setup.tokenizer.padding_side  # it is saved with the student
    return trainer


def _trainer(own_view: OwnView | None) -> Any:
    """TRL's trainer, whose loss is computed in bfloat16 where the arguments say so: it goes around the model's own autocast.

    With `own_view` the teacher reads its own prompts.
    """
    from trl import DistillationTrainer

    class OnPolicyTrainer(DistillationTrainer):  # type: ignore[misc]  # trl is read untyped
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if own_view is not None:
                own_view.begin(inputs)
            with self.accelerator.autocast():
                return super().compute_loss(model, inputs, *args, **kwargs)

    return OnPolicyTrainer


def _inputs(run: Run, recipe: Recipe) -> dict[str, Path]:
    """The files that the teacher's prompts come from, where they are not the student's."""
    template = load_template(recipe.task.template)
    return view_files(run, recipe) if template.teacher != template.student else {}


def _order_by_epoch() -> Any:
    """A trainer callback that begins each epoch's order of prompts with a seed of its own.

    TRL's sampler draws all epochs from one generator, so that a resumed training would begin again with the first order.
    """
    from transformers import TrainerCallback

    class OrderByEpoch(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_epoch_begin(self, args: Any, state: Any, _control: Any, train_dataloader: Any, **_: Any) -> None:
            part = train_dataloader
            while (inner := getattr(part, "batch_sampler", None) or getattr(part, "sampler", None)) is not None:
                part = inner  # with several processes, one wraps the other
            if (generator := getattr(part, "generator", None)) is not None:
                generator.manual_seed(args.seed + int(state.epoch))

    return OrderByEpoch()


def _prompts(samples: Sequence[Sample]) -> Any:
    """Each prompt once, in the order of the rows."""
    from datasets import Dataset

    prompts = {sample.prompt_id: sample.prompt for sample in samples}
    return Dataset.from_list([{"prompt": prompt} for prompt in prompts.values()])


METHOD = Method(
    "on_policy",
    "DistillationConfig",
    build,
    check=lambda _run, recipe, student: check_recipe(recipe, student),
    check_recipe=check_recipe,
    check_files=check_files,
    check_arguments=check_arguments,
    gather=gather,
    inputs=_inputs,
    timed=False,
    reads_teacher=lambda _recipe, _student: True,
)
