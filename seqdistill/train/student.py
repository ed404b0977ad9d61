"""Which model learns: a hub id, a folder, layers cut from the teacher, or what another run trained.

Decides and prepares the untrained student. Does not choose layers (shrink.py) and does not train.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import files_of
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Message, file_sha256, fingerprint, write_json
from seqdistill.runs import Run
from seqdistill.train.shrink import INFLUENCE_PROMPTS, shrink


@dataclass(frozen=True)
class Student:
    """The untrained student, named but not read."""

    source: ModelConfig  # whose weights are read: the student's own, or the teacher's when it is cut from it
    layers: int | None  # how many of the source's layers are kept; None: all
    identity: str  # for the fingerprint


def find_student(recipe: Recipe) -> Student:
    """What [student] model means. Raises UsageError for a missing, unknown or unreachable model."""
    name = recipe.student.model
    if not name:
        raise UsageError(
            "no student is named", "give --student, or model in the recipe's [student]: shrink:8, a hub id, a folder"
        )
    kind, colon, rest = name.partition(":")
    if colon and kind == "shrink":
        if not (rest.isascii() and rest.isdigit() and int(rest) > 0):
            raise UsageError(f"[student] model = {name!r}: want shrink:N, N layers of the teacher", "for example shrink:8")
        if not recipe.teacher.model:
            raise UsageError(
                "no teacher is named to cut the student from", "give --teacher, or model in the recipe's [teacher]"
            )
        source = _weights(recipe.teacher)
        if recipe.teacher.engine == "openai" and "/" not in recipe.teacher.model and not Path(recipe.teacher.model).exists():
            raise UsageError(
                f"[student] model = {name!r}: the teacher {recipe.teacher.model!r} is an endpoint's, its layers are not here",
                "name a student of its own: a hub id or a folder",
            )
        return Student(source, int(rest), f"shrink:{rest} of {identity(source)}")
    if colon and kind == "run":
        model = Run(Path(rest)).need("train", "model")
        source = replace(_weights(recipe.student), model=str(model), revision=None)
    else:
        source = _weights(recipe.student)
    return Student(source, None, identity(source))


def _weights(model: ModelConfig) -> ModelConfig:
    """The same model as files, whatever runs it elsewhere."""
    return replace(model, engine="transformers")


def weights_of(student: Student) -> ModelConfig:
    """The model that the student's tokenizer, template and layers come from: a folder or hub id. Converts a .gguf once."""
    return replace(student.source, model=files_of(student.source))


def untrained(
    student: Student,
    run: Run,
    choice: str,
    prompts: Iterable[list[Message]],
    progress: Progress,
    replacing: Callable[[], None],
) -> tuple[ModelConfig, list[int] | None]:
    """(the student before training, the numbers of its layers in the teacher when it was cut from it).

    A cut student is kept in train/base, because eval compares with it. It is cut again only when the teacher, the number,
    the choice or, where the choice depends on them, the prompts are others; `replacing` is called before that.
    """
    source = weights_of(student)
    if student.layers is None:
        return source, None
    base, note = run.file("train", "base"), run.file("train", "base.json")
    measured = list(islice(prompts, INFLUENCE_PROMPTS)) if choice == "influence" else []
    key = fingerprint([student.identity, choice, measured])
    if not ((kept := _read(note)) and kept["key"] == key and base.is_dir() and file_sha256(base) == kept["sha256"]):
        replacing()
        note.unlink(missing_ok=True)
        shutil.rmtree(base, ignore_errors=True)
        loading: dict[str, Any] = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
        layers = shrink(student.source.model or "", base, student.layers, choice, measured, progress, **loading)
        kept = {"key": key, "layers": layers, "sha256": file_sha256(base)}
        write_json(note, kept)
    return replace(source, model=str(base), revision=None), list(kept["layers"])


def _read(note: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
