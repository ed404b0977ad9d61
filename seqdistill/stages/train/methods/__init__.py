"""Ways to distil: what each trains with, what it needs beforehand, how its trainer is built. One record a method.

Owns the choice by [train] method. What a method does is in the module of its name.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe, TrainConfig
from seqdistill.records import Sample
from seqdistill.runs import Run
from seqdistill.stages.train.preflight import Checked
from seqdistill.stages.train.reading import Read
from seqdistill.stages.train.student import Base, Student


@dataclass(frozen=True)
class TrainingSetup:
    """What a trainer is built from: the rows, TRL's arguments, and then the untrained student."""

    run: Run
    recipe: Recipe
    student: Student
    tokenizer: Any
    samples: dict[str, list[Sample]]  # by file: train, validation
    checked: Checked
    arguments: Any  # of the method's TRL config class
    progress: Progress
    stops: Sequence[int]  # tokens that end an answer
    limit: int  # the most tokens that a row may have
    weights: dict[str, float] = field(default_factory=dict)  # of rows that count more or less than 1, by id
    before_cuts: list[int] | None = None  # the ids that the student's tokens had before its vocabulary was cut, if it was
    base: Base = field(default_factory=lambda: Base(ModelConfig()))  # the untrained student
    model: Any = None  # the same, loaded
    beside: list[Any] = field(default_factory=list)  # models that are loaded beside it: a teacher, a reference
    material: Any = None  # what the method's `gather` found
    found: dict[str, Any] = field(default_factory=dict)  # what the method reports of itself, for the manifest

    @property
    def fitting(self) -> dict[str, list[Sample]]:
        """The samples of the checked rows, by file: those that do not fit are left out."""
        fitting = {row.id for row in [*self.checked.train, *self.checked.validation]}
        return {name: [sample for sample in part if sample.id in fitting] for name, part in self.samples.items()}


@dataclass(frozen=True)
class Step:
    """One batch as the loss terms see it. Its N trained tokens are in the order of the rows."""

    inputs: dict[str, Any]  # what the model was called with
    trained: Any  # (B, T - 1) bool: the places whose next token is trained
    labels: Any  # (N) the tokens that are learnt there
    logits: Any  # (N, V) the student's
    extras: dict[str, Any]  # what the collator added
    balance: Any = None  # a mixture of experts' load-balancing loss, where it is trained with


@dataclass(frozen=True)
class Method:
    """One way to distil.

    `check`, before anything is loaded, and `gather`, before the student is cut, raise UsageError for what the run, the rows
    or the teacher lack. The other checks are made before generate too, of what is known then: `check_recipe` of what the recipe
    shows, `check_stored` of what its generate would not store, `check_files` of tokenizers and configs of teacher and student,
    `check_arguments` of TRL's arguments.
    """

    name: str
    config: str  # the name of TRL's config class, which [train.args] go to
    trainer: Callable[[TrainingSetup, Sequence[Any]], Any]  # (setup, callbacks) -> trainer
    check: Callable[[Run, Recipe, Student], None] = lambda _run, _recipe, _student: None
    gather: Callable[[TrainingSetup], Any] = lambda _setup: None  # what the trainer needs beside the rows
    inputs: Callable[[Run, Recipe], dict[str, Path]] = lambda _run, _recipe: {}  # files beside filter's that decide the result
    defaults: Callable[[TrainConfig], dict[str, Any]] = lambda _config: {}  # of TRL's arguments, where [train.args] has none
    sequences: int = 1  # that a row of a batch makes: of a pair two
    timed: bool = True  # whether a batch of its data can be computed by itself, to estimate the time
    keys: frozenset[str] = frozenset()  # the keys of [train] that change what it does, of those that not every method has
    check_recipe: Callable[[Recipe, Student], None] = lambda _recipe, _student: None
    check_stored: Callable[[Recipe], None] = lambda _recipe: None
    check_files: Callable[[Recipe, Student, Read], None] = lambda _recipe, _student, _read: None
    check_arguments: Callable[[Any, TrainConfig], None] = lambda _arguments, _config: None
    reads_teacher: Callable[[Recipe, Student], bool] = lambda _recipe, _student: False  # [teacher] itself, as it trains

    def config_class(self) -> Any:
        """TRL's config class."""
        import trl

        return getattr(trl, self.config)


METHOD_KEYS = frozenset(
    (
        "alpha",
        "temperature",
        "approximate",
        "features",
        "features_loss",
        "attention",
        "attention_loss",
        "relations",
        "distances",
        "batch_tokens",
    )
)  # keys of [train] that belong to some methods only
SHARED_WORDS = frozenset(("temperature",))  # of these, those whose environment variable is also another stage's


def method_of(config: TrainConfig) -> Method:
    """The method that [train] names. Raises UsageError for a key of another method that was set."""
    from seqdistill.stages.train.methods import on_policy, preference, sequence, soft

    match config.method:
        case "sequence" | "sft":
            method = sequence.METHOD
        case "soft":
            method = soft.METHOD
        case "on_policy":
            method = on_policy.METHOD
        case "preference":
            method = preference.METHOD
        case _:
            raise UsageError(f"[train] method = {config.method!r}: not known", "see `seqdistill train --help`")
    default = TrainConfig()
    for key in sorted(METHOD_KEYS - SHARED_WORDS - method.keys):
        if getattr(config, key) != getattr(default, key):
            raise UsageError(
                f"[train] {key} = {getattr(config, key)!r} does not apply to method = {config.method!r}",
                f"leave {key} out, or choose the method that has it",
            )
    return method


def check_used(config: TrainConfig, student: Student) -> None:
    """Raises UsageError for a setting that has no effect without another one."""
    default = TrainConfig()
    for name, needs, used in (
        ("rationale_weight", 'rationale = "multitask"', config.rationale == "multitask"),
        ("references", "reference_weight", config.reference_weight > 0),
        ("features_loss", "features", config.features > 0),
        ("attention_loss", "attention", config.attention > 0),
        ("best_prompts", 'best = "quality"', config.best == "quality"),
        ("layers", "[student] model = shrink:N", student.layers is not None),
    ):
        if not used and getattr(config, name) != getattr(default, name):
            raise UsageError(
                f"[train] {name} = {getattr(config, name)!r} has no effect without {needs}", f"set {needs}, or leave {name} out"
            )


def check_can_answer(recipe: Recipe, student: Student) -> None:
    """Raises UsageError for a student that was only just cut: what it writes is noise, and nothing is learnt from that."""
    if student.layers is not None or student.width < 1:
        named = f"{recipe.student.model!r}{f' of width {student.width:g}' if student.width < 1 else ''}"
        raise UsageError(
            f"[train] method = {recipe.train.method!r} learns from what the student writes, and {named} is cut from a larger "
            "model and was not trained",
            'train it first with method = "sequence", in a run of its own, then name it here: --student run:THAT_RUN',
        )


def check_smoothing(arguments: Any, method: str) -> None:
    """Raises UsageError for label smoothing, which this method's trainer takes and never applies."""
    if arguments.label_smoothing_factor:
        raise UsageError(
            f"[train.args] label_smoothing_factor = {arguments.label_smoothing_factor:g}: no part of method = {method!r}",
            "leave label_smoothing_factor out",
        )


def check_order(arguments: Any, method: str, reason: str, kept: Collection[str] = ("random",)) -> None:
    """Raises UsageError for an order of the rows other than the `kept` ones, which this method's trainer does not have."""
    if (order := arguments.train_sampling_strategy) not in kept:
        raise UsageError(
            f"[train.args] train_sampling_strategy = {order!r} with method = {method!r}: {reason}",
            "leave train_sampling_strategy out",
        )


def check_unmixed(config: TrainConfig) -> None:
    """Raises UsageError for references, rationales or weights where a method does not learn from the rows' text."""
    default = TrainConfig()
    for key in ("reference_weight", "reasoning", "rationale", "rationale_weight", "teacher_weights", "edited_weight"):
        if getattr(config, key) != getattr(default, key):
            raise UsageError(
                f"[train] {key} = {getattr(config, key)!r} does not apply to method = {config.method!r}",
                f"leave {key} out, or use method = 'sequence' or 'soft'",
            )
