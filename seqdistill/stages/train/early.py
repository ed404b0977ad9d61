"""Before there are rows: what recipe, prompts and the student's files show of a training that would be refused.

Each fact is checked by the function that train itself calls, or by one beside it with the same words. Loads no weights.
"""

from collections.abc import Sequence
from pathlib import Path

from seqdistill.engines.loading import check_weights, named, skeleton
from seqdistill.engines.models import locate, teacher_name
from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt
from seqdistill.rights import check_training_allowed, teachers_in
from seqdistill.runs import Run
from seqdistill.stages.train import validation_answers
from seqdistill.stages.train.arguments import check_arguments, check_usable, environment_kept, trl_arguments
from seqdistill.stages.train.cutting import decoder_layers, shortened
from seqdistill.stages.train.fit import quiet
from seqdistill.stages.train.launch import check_accelerate
from seqdistill.stages.train.lora import adapted, check_lora, with_loading
from seqdistill.stages.train.methods import Method, check_used, method_of
from seqdistill.stages.train.mixing import check_mixing
from seqdistill.stages.train.preflight import check_prompts
from seqdistill.stages.train.reading import Read, read_student
from seqdistill.stages.train.rehearsal import rehearse
from seqdistill.stages.train.shrink import listed_layers
from seqdistill.stages.train.steps import layers_of_steps
from seqdistill.stages.train.student import Student, find_student
from seqdistill.stages.train.token_batches import token_batches
from seqdistill.stages.train.width import check_can_be_narrowed

WORK = Path("RUN", "train", ".work")  # where checkpoints would be; nothing is written there


def check_settings(
    recipe: Recipe, run: Run | None = None, prompts: Sequence[Prompt] = (), progress: Progress | None = None
) -> None:
    """Raises UsageError for a student, a method or [train.args] that train would refuse on this machine.

    With the `run` that has the rows, what the method needs of it is checked in place of what generate would have to store.
    With `prompts`, that rows of them can be trained on.
    """
    check_training_allowed(teachers_in(recipe))
    student, method = _checked(recipe, prompts)
    if run is None:
        method.check_stored(recipe)
    else:
        method.check(run, recipe, student)
    with quiet(), environment_kept():
        check_lora(recipe.train.lora)
        check_accelerate(recipe.train)
        read = read_student(student, recipe)
        _check_values(recipe, method, read, prompts)
        _check_read(recipe, student, method, read, prompts, progress or Silent())
        check_weights(student.source)
        _check_parts(recipe, student)


def check_answers_wanted(recipe: Recipe, prompts: Sequence[Prompt], progress: Progress) -> None:
    """Raises UsageError where what generate alone is about to request could not be trained on as the recipe says.

    The training may be on another machine: what is here or not, a student to be downloaded or trained yet included, is no
    error, and targets that generate does not store can be had with `seqdistill targets`.
    """
    if not recipe.student.model:
        return
    if recipe.student.model.startswith("run:") and not _is_trained(recipe.student.model):
        progress.note(f"train: {named(recipe.student)} is not trained yet: the prompts are not checked against it")
        return
    student, method = _checked(recipe, prompts)
    try:
        method.check_stored(recipe)
    except UsageError as error:
        progress.note(f"train: {error.message}: {error.hint}")
    with quiet():
        try:
            read = read_student(student, recipe)
        except UsageError as error:
            if locate(student.source.model or "", named(student.source)) is not None:
                raise
            progress.note(f"train: {error.message}: the prompts are not checked against it")
            return
        _check_read(recipe, student, method, read, prompts, progress)


def _is_trained(name: str) -> bool:
    return Run(Path(name.removeprefix("run:"))).file("train", "model").is_dir()


def _checked(recipe: Recipe, prompts: Sequence[Prompt]) -> tuple[Student, Method]:
    """Student and method, with what the recipe and the prompts show."""
    config = recipe.train
    student, method = find_student(recipe), method_of(config)
    layers_of_steps(recipe)
    check_used(config, student)
    method.check_recipe(recipe, student)
    validation_answers.check_recipe(recipe, prompts)
    if prompts:
        check_mixing(config, prompts, {teacher_name(teacher) for teacher in teachers_in(recipe)})
    token_batches(config, [1])
    check_arguments(config.args, method.config_class())
    return student, method


def _check_values(recipe: Recipe, method: Method, read: Read, prompts: Sequence[Prompt]) -> None:
    """Raises UsageError for values in [train.args] that TRL does not take, or that do not go with others."""
    config = recipe.train
    arguments = trl_arguments(
        config,
        method.config_class(),
        method.defaults(config),
        read.limit,
        validation_answers.has_validation(recipe, prompts),
        WORK,
    )
    method.check_arguments(arguments, config)
    validation_answers.check_arguments(arguments, config)
    check_usable(arguments)
    rehearse(arguments, config, read.tokenizer)


def _check_read(
    recipe: Recipe, student: Student, method: Method, read: Read, prompts: Sequence[Prompt], progress: Progress
) -> None:
    """Raises UsageError for a tokenizer or chat template that is not fit for the method or for the prompts."""
    longest = check_prompts(
        read.tokenizer, prompts, recipe.train, read.limit, progress, stops=read.stops, vocabulary=read.vocabulary
    )
    token_batches(recipe.train, [longest])
    method.check_files(recipe, student, read)


def _check_parts(recipe: Recipe, student: Student) -> None:
    """Raises UsageError for a student that cannot be cut or get adapters so, as far as its modules without weights show."""
    config = recipe.train
    adapters = config.lora.r is not None and bool(config.lora.target_modules or config.lora.dropout)
    wanted = config.args.get("model_init_kwargs") or {}
    loading = {name: value for name, value in wanted.items() if name in ("attn_implementation", "dtype")}
    if not (student.is_cut or adapters or loading):
        return
    try:
        model = skeleton(student.source, **loading)
    except UsageError as error:
        raise with_loading(error, loading) from error
    if student.layers is not None:
        total = len(decoder_layers(model)[1])
        for count in layers_of_steps(recipe):
            listed_layers(str(count), config.layers, total)
        if chosen := listed_layers(str(student.layers), config.layers, total):
            shortened(model.config, chosen)
    if student.width < 1:
        check_can_be_narrowed(model, student.width)
    if adapters:
        adapted(model, config.lora)
