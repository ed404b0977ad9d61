"""Stage 3: train.jsonl -> model/. Finds the student, checks what it is trained on, trains it with TRL, writes the manifest.

A training that was stopped, however it was stopped, goes on from its last checkpoint and ends with the same weights.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.cards import write_model_card
from seqdistill.engines.loading import load, named
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe, TrainConfig, settings
from seqdistill.records import read_samples
from seqdistill.runs import Run, StageRecord
from seqdistill.train.arguments import check_arguments, resolved, trl_arguments
from seqdistill.train.checkpoints import open_work
from seqdistill.train.fit import Fitted, fit, prepared, quiet
from seqdistill.train.preflight import Checked, Row, preflight
from seqdistill.train.shrink import listed_layers
from seqdistill.train.student import Student, find_student, untrained


@dataclass(frozen=True)
class TrainResult:
    """What the stage did; `path` is the trained model's folder."""

    rows: int
    steps: int
    epochs: float
    train_loss: float | None  # mean over the last epoch's steps
    validation_loss: float | None
    max_length: int  # tokens of the longest row
    parameters: int
    seconds: float
    up_to_date: bool
    path: Path


def train(run: Run, recipe: Recipe, progress: Progress) -> TrainResult:
    """Trains the student and writes model/, log.jsonl and the manifest.

    Raises UsageError, before the first step, for a student, rows or [train.args] that cannot be trained with, and
    SeqdistillError when the training diverges or runs out of memory. What is refused leaves an earlier student as it is.
    """
    student = find_student(recipe)
    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    with run.locked("train"):
        record = StageRecord(run, "train", _settings(recipe, student), files)
        if record.up_to_date():
            return _result(run, up_to_date=True)
        for difference in record.differences():
            progress.note(f"train: {difference}")
        check_arguments(recipe.train.args)
        samples = {name: list(islice(read_samples(path), recipe.train.limit)) for name, path in files.items()}
        work, log, out = (run.file("train", name) for name in (".work", "log.jsonl", "model"))
        with quiet():
            tokenizer, longest = _read_student(student, recipe.train)
            checked = preflight(tokenizer, samples["train"], samples["validation"], recipe.train, longest, progress)
            arguments = trl_arguments(recipe.train, checked.max_length, bool(checked.validation), work)
            prompts = {row.prompt_id: row.prompt for row in samples["train"]}
            base, layers = untrained(student, run, recipe.train.layers, prompts.values(), progress, record.begin)
            trainer = prepared(base, tokenizer, checked, arguments, log, progress)
            record.begin()
            checkpoint = open_work(work, record.fingerprint)
            _tell(checked, tokenizer, checkpoint, progress)
            fitted = fit(trainer, base, checked.end_of_turn, checkpoint, log, out, progress)
        record.finish(
            {"model": None, "log.jsonl": fitted.log_rows, **({"base": None} if layers else {})},
            config=asdict(recipe),
            student={
                "base": _named(base, student, run),
                "identity": student.identity,
                **({"layers": layers} if layers else {}),
            },
            counts={"rows": len(checked.train), "max_length": checked.max_length, **_numbers(fitted)},
            unfit=checked.unfit,
            example=_example(checked.train[0], tokenizer),
            arguments=resolved(arguments),
        )
        write_model_card(run)
        shutil.rmtree(work)
    return _result(run, up_to_date=False)


def _settings(recipe: Recipe, student: Student) -> dict[str, Any]:
    own = {f"train.{name}": value for name, value in settings(recipe.train).items()}
    if student.layers is None:
        del own["train.layers"]
    return {**own, "student.identity": student.identity}


def _read_student(student: Student, config: TrainConfig) -> tuple[Any, int]:
    """(tokenizer, the most tokens a row may have). Raises UsageError for a model that cannot be loaded, or cut so."""
    what = named(student.source)
    tokenizer = load("AutoTokenizer", student.source, what)
    text = load("AutoConfig", student.source, what).get_text_config(decoder=True)
    if student.layers is not None:
        listed_layers(str(student.layers), config.layers, text.num_hidden_layers)
    positions = getattr(text, "max_position_embeddings", tokenizer.model_max_length)  # some kinds of model have no limit
    return tokenizer, min(positions, config.args.get("max_length", positions))


def _tell(checked: Checked, tokenizer: Any, checkpoint: Path | None, progress: Progress) -> None:
    """What a person should know before the first step."""
    if checked.unfit:
        sample, reason = next(iter(checked.unfit.items()))
        progress.note(f"train: {len(checked.unfit)} rows left out, the first is {sample!r}: {reason}")
    if checked.without_reasoning:
        progress.note(f"train: {checked.without_reasoning} rows have no reasoning and are trained on their answer alone")
    progress.note(f"train: the loss is on {_example(checked.train[0], tokenizer)['trained']!r} in the first row")
    if checkpoint:
        progress.note(f"train: resuming at step {checkpoint.name.removeprefix('checkpoint-')}")


def _example(row: Row, tokenizer: Any) -> dict[str, str]:
    """One row as the student sees it: what it is given, and what it learns to say."""
    return {
        "id": row.id,
        "given": tokenizer.decode(row.tokens[: row.start]),
        "trained": tokenizer.decode(row.tokens[row.start :]),
    }


def _named(base: ModelConfig, student: Student, run: Run) -> str:
    """The untrained student for the manifest, which eval reads: a path relative to the run, or the model's name."""
    name = student.source.model if student.layers is None else base.model
    return os.path.relpath(name, run.path) if name and Path(name).exists() else str(name)


def _numbers(fitted: Fitted) -> dict[str, Any]:
    return {name: value for name, value in asdict(fitted).items() if name != "log_rows"}


def _result(run: Run, *, up_to_date: bool) -> TrainResult:
    """The result as the manifest tells it."""
    manifest: Mapping[str, Any] = run.manifest("train") or {}
    return TrainResult(
        **manifest["counts"], seconds=manifest["seconds"], up_to_date=up_to_date, path=run.file("train", "model")
    )
