"""A training that has been checked and lacks only its steps; and the report of these checks, for a person.

Finds what is wrong before anything that an earlier training left is touched. Does not train and writes nothing but a student
that is cut from its teacher.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqdistill.engines.chat_templates import set_defaults
from seqdistill.engines.loading import folder_here, load
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Sample, read_samples
from seqdistill.runs import Run
from seqdistill.stages.train.arguments import check_arguments, check_usable, environment_kept, trl_arguments
from seqdistill.stages.train.checkpoints import work_folder
from seqdistill.stages.train.fit import prepared, quiet
from seqdistill.stages.train.launch import processes_of
from seqdistill.stages.train.lora import check_lora
from seqdistill.stages.train.measured import Cost, check_isolated, cost, make_savable, try_row
from seqdistill.stages.train.methods import Method, TrainingSetup, check_used, method_of
from seqdistill.stages.train.methods.sequence import trained_tokens
from seqdistill.stages.train.mixing import mixed
from seqdistill.stages.train.preflight import Checked, preflight
from seqdistill.stages.train.ranks import launched, shared
from seqdistill.stages.train.reading import Read, read_student
from seqdistill.stages.train.rendering import Row, Template, Unfit
from seqdistill.stages.train.steps import first_step, layers_of_steps
from seqdistill.stages.train.student import Base, Student, check_not_itself, discard, find_student, untrained
from seqdistill.stages.train.task_texts import run_texts, test_texts
from seqdistill.stages.train.validation_answers import check as check_answering
from seqdistill.stages.train.validation_answers import is_spread
from seqdistill.stages.train.vocabulary import before_cuts, cut_tokenizer, task_vocabulary

FEW_JOINED = 0.8  # of the rows: with more packed sequences than this, packing hardly joins any
JOINING = ("packing", "padding_free", "eval_packing")  # TRL's arguments that make one sequence of several rows
SHOWN = 3  # rows shown with their loss mask


@dataclass(frozen=True)
class Ready:
    """Everything that the steps need."""

    read: Read
    checked: Checked
    arguments: Any  # TRL's
    base: Base
    trainer: Any
    cost: Cost
    notes: list[str]
    method: dict[str, Any]  # its name, and what it found
    same_template: bool | None = None  # whether the teacher's chat template writes the first prompt alike; None: not compared
    packed: int | None = None  # sequences that the rows are packed into; None: they are not packed


def make_ready(
    run: Run,
    recipe: Recipe,
    student: Student,
    method: Method,
    files: Mapping[str, Path],
    progress: Progress,
    *,
    measure: bool = False,
) -> Ready:
    """Reads, checks and loads all that is trained with. With `measure`, a step is timed.

    Raises UsageError for a student, rows or [train.args] that cannot be trained with; nothing is left behind then.
    """
    read, setup = _training_setup(run, recipe, student, method, files, progress)
    checked, arguments, samples = setup.checked, setup.arguments, setup.samples
    prompts = {row.prompt_id: row.prompt for row in samples["train"]}
    try:
        base = shared(lambda: untrained(student, run, recipe.train.layers, prompts.values(), progress, read.kept))
        trainer = prepared(method, replace(setup, base=base), work_folder(run) / "log.jsonl")
        packed = len(trainer.train_dataset) if getattr(arguments, "packing", False) else None
        if joining := next((name for name in JOINING if getattr(arguments, name, False)), None):
            check_isolated(trainer, checked.train, joining)
        if not is_spread(arguments):
            try_row(trainer, checked.train[0])
        unlike = _template_notes(recipe, read, samples["train"][0].prompt)
        notes = [*checked.notes, *read.notes, *make_savable(trainer.model), *(unlike or [])]
        expected = _expected(trainer, setup, method, packed=packed is not None, measure=measure)
    except BaseException:
        discard(run)
        raise
    notes += _cost_notes(arguments, expected, 1 if launched() else processes_of(recipe.train))
    if packed is not None and packed > FEW_JOINED * len(checked.train):
        notes.append(
            f"packing makes {packed:,} sequences of {len(checked.train):,} rows: raise max_length in [train.args], the most "
            f"tokens of a sequence (it is {arguments.max_length})"
        )
    same_template = None if unlike is None else not unlike
    found = {"name": method.name, **setup.found}
    return Ready(read, checked, arguments, base, trainer, expected, notes, found, same_template, packed)


def _training_setup(
    run: Run, recipe: Recipe, student: Student, method: Method, files: Mapping[str, Path], progress: Progress
) -> tuple[Read, TrainingSetup]:
    """The student's files, and the setup that the trainer is built from, both checked. Raises UsageError."""
    check_lora(recipe.train.lora)
    check_used(recipe.train, student)
    check_arguments(recipe.train.args, method.config_class())
    method.check(run, recipe, student)
    rows = mixed({name: list(islice(read_samples(path), recipe.train.limit)) for name, path in files.items()}, recipe.train)
    samples = {"train": rows.train, "validation": rows.validation}
    read = read_student(student, recipe)
    if student.vocabulary == "task":
        read = _with_task_vocabulary(read, run, recipe, student, [*rows.train, *rows.validation], progress)
    checked = preflight(
        read.tokenizer,
        samples["train"],
        samples["validation"],
        recipe.train,
        read.limit,
        progress,
        stops=read.stops,
        vocabulary=read.vocabulary,
    )
    kind, defaults, work = method.config_class(), method.defaults(recipe.train), work_folder(run)
    arguments = trl_arguments(recipe.train, kind, defaults, checked.max_length, bool(checked.validation), work)
    method.check_arguments(arguments, recipe.train)
    check_usable(arguments)
    if recipe.train.edited_weight != 1 and not rows.counts.get("edited"):
        checked.notes.append(f"edited_weight = {recipe.train.edited_weight:g}: a person edited none of the rows")
    stops = list(dict.fromkeys((checked.end_of_turn, *read.stops)))
    of_rows: dict[str, Any] = {"weights": rows.weights, "before_cuts": read.before_cuts}
    setup = TrainingSetup(
        run, recipe, student, read.tokenizer, samples, checked, arguments, progress, stops, read.limit, **of_rows
    )
    check_answering(setup)
    setup.found.update(rows.counts)
    return read, replace(setup, material=method.gather(setup))


def _expected(trainer: Any, setup: TrainingSetup, method: Method, *, packed: bool, measure: bool) -> Cost:
    """What the training takes, from the longest sequences that it trains on."""
    config = setup.recipe.train
    sizes = [(len(row.tokens), len(row.tokens) - row.start) for row in setup.checked.train]
    if packed:
        sizes = [(len(one["input_ids"]), trained_tokens(one)) for one in trainer.train_dataset]
    longest, completion = (method.sequences * max(counts) for counts in zip(*sizes, strict=True))
    coming = 1 if launched() else processes_of(config)
    timed = measure and method.timed
    return cost(trainer, longest, completion, config.batch_tokens, measure=timed, beside=setup.beside, processes=coming)


def _cost_notes(arguments: Any, expected: Cost, processes: int) -> Iterator[str]:
    """What is wrong with the length of the training, with the memory that it needs, or with the GPUs that it leaves out."""
    import torch

    if arguments.device.type == "cuda" and not launched() and (gpus := torch.cuda.device_count()) > processes:
        yield f"{processes} of {gpus} GPUs is used: [train] processes = {gpus} uses all"
    if (warming := arguments.get_warmup_steps(expected.steps)) >= expected.steps:
        yield (
            f"all of {expected.steps} steps are warm-up ({warming} steps): learning_rate is never reached, and little is "
            "learnt; lower warmup_steps in [train.args]"
        )
    if expected.available_bytes is not None and expected.memory_bytes > expected.available_bytes:
        yield (
            f"training needs about {expected.memory_bytes / 2**30:.1f} GiB, and {expected.available_bytes / 2**30:.1f} GiB are "
            "free: halve per_device_train_batch_size and double gradient_accumulation_steps, or gradient_checkpointing = true"
        )


def _with_task_vocabulary(
    read: Read, run: Run, recipe: Recipe, student: Student, rows: Sequence[Sample], progress: Progress
) -> Read:
    """The student with only the tokens of the run's texts. Raises UsageError where these would be segmented differently."""
    template, source = Template(read.tokenizer, read.stops), student.source
    texts, test = run_texts(run, recipe, template, rows), test_texts(recipe, template, progress)
    without_test, for_test = (set(task_vocabulary(source, read.tokenizer, some)) for some in (texts, test))
    kept = sorted(without_test | for_test)
    tokenizer = cut_tokenizer(load("AutoConfig", source), read.tokenizer, kept, [*texts, *test])
    tokenizer.chat_template = read.tokenizer.chat_template
    number = {old: new for new, old in enumerate(kept)}
    note = f"the vocabulary is cut to {len(kept):,} of {len(read.tokenizer):,} tokens"
    if alone := len(kept) - len(without_test):
        note += f", {alone:,} of them for the test prompts alone"
    return replace(
        read,
        tokenizer=tokenizer,
        stops=[number[stop] for stop in read.stops if stop in number],
        vocabulary=len(kept),
        kept=kept,
        before_cuts=before_cuts(source, kept),
        notes=(note,),
    )


def _template_notes(recipe: Recipe, read: Read, prompt: list[dict[str, str]]) -> list[str] | None:
    """A note when the teacher is another model and its template writes the same prompt otherwise; None: it is not here."""
    if recipe.teacher.engine == "openai" or not recipe.teacher.model:
        return None
    try:
        if folder_here(recipe.teacher) is None:
            return None
        teacher = load("AutoTokenizer", recipe.teacher)
        set_defaults(teacher, recipe.teacher.chat_template_kwargs)
        theirs = Template(teacher).prompt_text(prompt)
    except (UsageError, Unfit):  # its template refuses what the student is shown
        return None
    ours = Template(read.tokenizer, read.stops).prompt_text(prompt)
    if theirs == ours:
        return []
    same = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    parts = [repr(text[max(0, same - 10) : same + 50]) for text in (theirs, ours)]
    return [
        f"teacher and student have different chat templates: the first prompt is {parts[0]} to the teacher, {parts[1]} here"
    ]


# --- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lengths:
    """Tokens of one part of the rows."""

    p50: int
    p95: int
    most: int


@dataclass(frozen=True)
class Preflight:
    """What is known of a training before its first step."""

    rows: int
    validation_rows: int
    unfit: dict[str, int]  # reason -> rows left out
    prompt_tokens: Lengths
    completion_tokens: Lengths
    limit: int  # tokens that a row may have; longer rows are unfit, none is clipped
    end_of_turn: str
    pad: str | None
    parameters: int
    trained_parameters: int
    packing_isolated: bool | None  # measured; None: rows are not packed
    packed_sequences: int | None  # that the rows are packed into
    largest_id: int  # of the rows' tokens
    embeddings: int  # ids that the model knows; no token has a larger one
    reasoning_rows: int  # whose reasoning is trained, and was found in the row's tokens before the answer
    same_template: bool | None  # whether the teacher's chat template writes the first prompt alike; None: it is not here
    method: dict[str, Any]  # its name, and what it found: rows with targets, pairs, rows that were mixed in
    steps: int
    memory_bytes: int
    available_bytes: int | None
    seconds: float | None
    first_rows: list[dict[str, str]]  # id, what the student is prompted with, what it is trained to write
    notes: list[str] = field(default_factory=list)


def check(run: Run, recipe: Recipe, progress: Progress) -> Preflight:
    """All checks of a training, a step of it timed; trains nothing and changes nothing. Raises UsageError as train does.

    Where the student is cut in steps, the first of them is checked: the others start from what it trains.
    """
    check_not_itself(run, recipe)
    steps, recipe = layers_of_steps(recipe), first_step(run, recipe)
    student, method = find_student(recipe), method_of(recipe.train)
    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    with _place_for(run) as place, quiet(), environment_kept():
        try:
            ready = make_ready(place, recipe, student, method, files, progress, measure=True)
            if steps:
                listed = ",".join(map(str, steps))
                ready.notes.append(f"this is the first of the steps {listed}; each of them takes as many steps of training")
            return report(ready)
        finally:
            discard(place)


@contextlib.contextmanager
def _place_for(run: Run) -> Iterator[Run]:
    """Where the checks can make what they need: the run, held meanwhile, or a folder with links to a read-only one."""
    train = run.file("train", "")
    if os.access(train if train.exists() else run.path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        with run.locked("train"):
            yield run
        return
    with TemporaryDirectory() as folder:
        place = Run(Path(folder))
        place.file("train", "").mkdir()
        for part in (*run.path.iterdir(), *train.glob("base*")):
            if part != train:
                (place.path / part.relative_to(run.path)).symlink_to(part.absolute())
        yield place


def report(ready: Ready) -> Preflight:
    """The checks' findings."""
    checked, tokenizer, model = ready.checked, ready.read.tokenizer, ready.trainer.model
    reasons: dict[str, int] = {}
    for reason in checked.unfit.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return Preflight(
        rows=len(checked.train),
        validation_rows=len(checked.validation),
        unfit=reasons,
        prompt_tokens=_lengths([row.start for row in checked.train]),
        completion_tokens=_lengths([len(row.tokens) - row.start for row in checked.train]),
        limit=ready.read.limit,
        end_of_turn=tokenizer.decode([checked.end_of_turn]),
        pad=tokenizer.pad_token,
        parameters=model.num_parameters(),
        trained_parameters=model.num_parameters(only_trainable=True),
        packing_isolated=None if ready.packed is None else True,
        packed_sequences=ready.packed,
        largest_id=max(token for row in [*checked.train, *checked.validation] for token in row.tokens),
        embeddings=ready.read.vocabulary,
        reasoning_rows=checked.with_reasoning,
        same_template=ready.same_template,
        method=ready.method,
        first_rows=[example(row, tokenizer) for row in checked.train[:SHOWN]],
        notes=ready.notes,
        **asdict(ready.cost),
    )


def example(row: Row, tokenizer: Any) -> dict[str, str]:
    """One row as the student sees it: what it is prompted with, and what it learns to write."""
    return {
        "id": row.id,
        "given": tokenizer.decode(row.tokens[: row.start]),
        "trained": tokenizer.decode(row.tokens[row.start :]),
    }


def _lengths(counts: list[int]) -> Lengths:
    ordered = sorted(counts)
    p50, p95 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95))
    return Lengths(p50, p95, ordered[-1])
