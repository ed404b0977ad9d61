"""Preference: the teacher's answer over the student's own, for teachers that are reachable by text only.

By TRL's DPOTrainer (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290). The student samples one answer to each prompt
before the training; a row whose answers are the same has nothing to prefer. The pairs are in train/pairs.jsonl.
"""

from collections.abc import Sequence
from typing import Any

from seqdistill.engines import Completion, Request, open_engine
from seqdistill.engines.loading import load
from seqdistill.errors import UsageError
from seqdistill.journal.asking import run_async
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import Sample, request_seed, write_jsonl
from seqdistill.stages.train.checkpoints import work_folder
from seqdistill.stages.train.methods import Lesson, Method, check_can_answer, check_smoothing, check_unmixed
from seqdistill.stages.train.student import Student

TEMPERATURE = 1.0  # the student's own distribution
PAIR_KEYS = ("prompt", "chosen", "rejected")  # what TRL reads of a pair


def check_recipe(recipe: Recipe, student: Student) -> None:
    """Raises UsageError for a student that cannot answer yet."""
    check_unmixed(recipe.train)
    check_can_answer(recipe, student)


def check_arguments(arguments: Any, _config: TrainConfig) -> None:
    """Raises UsageError for values with which the student's own answer would be preferred, or neither."""
    check_smoothing(arguments, "preference")
    for name, fits, wanted in (
        ("beta", arguments.beta > 0, "more than 0"),
        ("label_smoothing", 0 <= arguments.label_smoothing < 0.5, "from 0, and less than 0.5"),
    ):
        if not fits:
            raise UsageError(
                f"[train.args] {name} = {getattr(arguments, name):g}: the teacher's answer would not be preferred",
                f"give {wanted}",
            )


def gather(lesson: Lesson) -> dict[str, list[dict[str, Any]]]:
    """The pairs, by file: train, validation. Raises UsageError where no row has a pair."""
    fitting = {row.id for row in [*lesson.checked.train, *lesson.checked.validation]}
    rows = {name: [sample for sample in part if sample.id in fitting] for name, part in lesson.samples.items()}
    longest = max(len(row.tokens) - row.start for row in lesson.checked.train)
    answers = run_async(_answers(lesson, [sample for part in rows.values() for sample in part], longest))
    pairs = {name: [pair for sample in part if (pair := _pair(sample, answers[sample.id]))] for name, part in rows.items()}
    lesson.found["pairs"] = {"train": len(pairs["train"]), "same_answer": len(rows["train"]) - len(pairs["train"])}
    if not pairs["train"]:
        raise UsageError(
            f"[train] method = 'preference': the student already answers all {len(rows['train'])} rows as its teacher does",
            "there is nothing left to prefer: evaluate it",
        )
    return pairs


def _keeping(lesson: Lesson) -> Any:
    """A trainer callback that writes pairs.jsonl when the training begins, where its log is."""
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                pairs = (pair for part in lesson.material.values() for pair in part)
                write_jsonl(work_folder(lesson.run) / "pairs.jsonl", pairs)

    return Keeping()


async def _answers(lesson: Lesson, samples: Sequence[Sample], longest: int) -> dict[str, Completion]:
    """By row id, what the untrained student answers. Raises UsageError where it cannot."""
    engine, seed = open_engine(lesson.student.source), lesson.recipe.train.seed
    requests = [
        Request(row.id, row.prompt, longest, temperature=TEMPERATURE, seed=request_seed(seed, row.prompt_id, row.sample))
        for row in samples
    ]
    lesson.progress.start("the student answers", len(requests), "rows")
    found: dict[str, Completion] = {}
    try:
        async for completion in engine.stream(requests):
            found[completion.id] = completion
            lesson.progress.advance()
    finally:
        lesson.progress.end()
        await engine.close()
    if failed := next((one for one in found.values() if one.error), None):
        raise UsageError(f"row {failed.id!r}: the student cannot answer: {failed.message}", "reject the row in filter")
    return found


def _pair(sample: Sample, answer: Completion) -> dict[str, Any] | None:
    """The teacher's answer and the student's; None where they are the same."""
    if answer.content.strip() == sample.text.strip():
        return None
    return {
        "id": sample.id,
        "prompt": sample.prompt,
        "chosen": sample.completion,
        "rejected": [{"role": "assistant", "content": answer.content}],
    }


def build(lesson: Lesson, callbacks: Sequence[Any]) -> Any:
    """TRL's trainer on the pairs, the untrained student beside it as the reference."""
    from datasets import Dataset
    from trl import DPOTrainer

    arguments = lesson.arguments
    if "max_length" not in lesson.recipe.train.args:
        arguments.max_length = None  # the student's answers may be longer than the rows
    parts = {
        name: Dataset.from_list([{key: pair[key] for key in PAIR_KEYS} for pair in pairs]) if pairs else None
        for name, pairs in lesson.material.items()
    }
    if parts["validation"] is None:
        if lesson.recipe.train.best_by is not None and lesson.checked.validation:
            raise UsageError(
                "[train] best and early_stopping need validation pairs, and the student answers all validation rows as its "
                "teacher does",
                "leave them out",
            )
        arguments.eval_strategy = type(arguments.eval_strategy)("no")
    reference = None  # a model with adapters is its own, without them
    if not hasattr(lesson.model, "peft_config"):
        reference = load("AutoModelForCausalLM", lesson.base.model, dtype=str(lesson.model.dtype).removeprefix("torch."))
        lesson.beside.append(reference)
    return DPOTrainer(
        model=lesson.model,
        ref_model=reference,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        processing_class=lesson.tokenizer,
        callbacks=[*callbacks, _keeping(lesson)],
    )


METHOD = Method(
    "preference",
    "DPOConfig",
    build,
    check=lambda _run, recipe, student: check_recipe(recipe, student),
    check_recipe=check_recipe,
    check_arguments=check_arguments,
    gather=gather,
    sequences=2,
)
