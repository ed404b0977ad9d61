"""Which model learns: a hub id, a folder, layers cut from the teacher, or what another run trained.

Decides and prepares the untrained student. Does not choose layers (shrink.py) and does not train.
"""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines.chat_templates import with_own_template
from seqdistill.engines.loading import files_of
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import HUB_ID, Message, file_sha256, fingerprint, json_if_whole, read_json, write_json
from seqdistill.runs import Run
from seqdistill.stages.train.ranks import rank
from seqdistill.stages.train.shrink import INFLUENCE_PROMPTS, shrink

COMING = ".base"  # the folder of a cut student that is being trained


@dataclass(frozen=True)
class Student:
    """The untrained student, named but not read."""

    source: ModelConfig  # whose weights are read: the student's own, or the teacher's when it is cut from it
    layers: int | None  # how many of the source's layers are kept; None: all
    identity: str  # for the fingerprint
    vocabulary: str = "all"  # "task": only the tokens of the run's texts are kept
    width: float = 1.0  # the share of each feed-forward layer's neurons that is kept
    origins: tuple[int, ...] | None = None  # the teacher's layers that the source's are, where the source was cut from it
    cut: dict[str, Any] = field(default_factory=dict)  # what was cut of the source besides, see Base

    @property
    def is_cut(self) -> bool:
        """Whether it is made of its source, and is in train/base until it is trained."""
        return self.layers is not None or self.vocabulary != "all" or self.width < 1


def find_student(recipe: Recipe) -> Student:
    """What [student] model means. Raises UsageError for a missing, unknown or unreachable model."""
    return replace(_named(recipe), vocabulary=recipe.train.vocabulary, width=recipe.train.width)


def check_not_itself(run: Run, recipe: Recipe) -> None:
    """Raises UsageError for a student or teacher that is what this run trains: it would be replaced by what is made of it."""
    for table in ("student", "teacher"):
        name = getattr(recipe, table).model or ""
        if name.startswith("run:") and Path(name.removeprefix("run:")).resolve() == run.path.resolve():
            raise UsageError(
                f"[{table}] model = {name!r}: that is this run itself, whose training would replace it",
                "train in a run of its own, or copy RUN/train/model and name the copy",
            )


def _named(recipe: Recipe) -> Student:
    name = recipe.student.model
    if not name:
        raise UsageError(
            "no student is configured", "pass --student, or set model in the recipe's [student]: shrink:8, a hub id, a folder"
        )
    if (base := recipe.student.base_model) is not None and not HUB_ID.fullmatch(base):
        raise UsageError(f"[student] base_model = {base!r}: not a hub id", "write OWNER/NAME, or leave it out")
    kind, colon, rest = name.partition(":")
    if colon and kind == "shrink":
        if not (rest.isascii() and rest.isdigit() and int(rest) > 0):
            raise UsageError(f"[student] model = {name!r}: expected shrink:N, N layers of the teacher", "for example shrink:8")
        if not recipe.teacher.model:
            raise UsageError(
                "no teacher is configured to cut the student from", "pass --teacher, or set model in the recipe's [teacher]"
            )
        source = _weights(recipe.teacher)
        if recipe.teacher.engine == "openai" and "/" not in recipe.teacher.model and not Path(recipe.teacher.model).exists():
            raise UsageError(
                f"[student] model = {name!r}: the teacher {recipe.teacher.model!r} is at an endpoint: its layers are not here",
                "name a student of its own: a hub id or a folder",
            )
        return Student(source, int(rest), f"shrink:{rest} of {identity(source)}")
    if colon and kind == "run":
        model = Run(Path(rest)).need("train", "model")
        source = replace(_weights(recipe.student), model=str(model), revision=None)
    else:
        source = _weights(recipe.student)
    return Student(source, None, identity(with_own_template(source)))


def _weights(model: ModelConfig) -> ModelConfig:
    """The same model as files, whatever runs it elsewhere."""
    return replace(model, engine="transformers")


def weights_of(student: Student) -> ModelConfig:
    """The model that the student's tokenizer, template and layers come from: a folder or hub id. Converts a .gguf once."""
    return replace(student.source, model=files_of(student.source))


@dataclass(frozen=True)
class Base:
    """The student before training: a model to load, and which of the teacher's layers it has when it was cut from it."""

    model: ModelConfig
    layers: list[int] | None = None
    cut: dict[str, Any] = field(default_factory=dict)  # "kept" and "of" of what else was cut: vocabulary, width
    note: dict[str, Any] | None = None  # of a model that was cut just now and is not in its place yet


def untrained(
    student: Student,
    run: Run,
    choice: str,
    prompts: Iterable[list[Message]],
    progress: Progress,
    kept: Sequence[int] | None,
) -> Base:
    """The student before training. Nothing that an earlier training left is touched: see `move_to_run`.

    A cut student is in train/.base while it is trained, and in train/base from then on, because eval compares with it. It is
    cut again only when the teacher, the number, the
    choice, the width, the tokens that are `kept` or, where the choice depends on them, the prompts are others.
    """
    source = weights_of(student)
    if not student.is_cut:
        return Base(source)
    new = run.file("train", ".base.new")
    measures = (choice == "influence" and student.layers is not None) or student.width < 1
    measured = list(islice(prompts, INFLUENCE_PROMPTS)) if measures else []
    more = [] if kept is None and student.width == 1 else [kept, student.width]
    key = fingerprint([student.identity, choice, measured, *more])
    for name in ("base", COMING):
        base, note = run.file("train", name), json_if_whole(run.file("train", f"{name}.json"))
        if note and note["key"] == key and base.is_dir() and file_sha256(base) == note["sha256"]:
            return _base(student, replace(source, model=str(base), revision=None), note)
    shutil.rmtree(new, ignore_errors=True)
    how: dict[str, Any] = {"kept": kept, "width": student.width}
    how |= {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    layers = shrink(student.source.model or "", new, student.layers, choice, measured, progress, **how)
    note = {"key": key, "layers": layers, "sha256": file_sha256(new)}
    return replace(_base(student, replace(source, model=str(new), revision=None), note), note=note)


def _base(student: Student, model: ModelConfig, note: dict[str, Any]) -> Base:
    """The cut student in a folder, with what its shrink.json says of it."""
    facts = read_json(Path(str(model.model)) / "shrink.json")
    cut = {"vocabulary": student.vocabulary != "all", "width": student.width < 1}
    layers = None if student.layers is None else list(note["layers"])
    if layers is not None and student.origins is not None:
        layers = [student.origins[layer] for layer in layers]
    return Base(model, layers, student.cut | {name: facts[name] for name, was_cut in cut.items() if was_cut})


def move_to_run(base: Base, run: Run) -> Base:
    """Moves a student that was cut just now to where it stays while it is trained; the student with its files there."""
    if base.note is None:
        return base
    folder, note = run.file("train", COMING), run.file("train", f"{COMING}.json")
    note.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    Path(str(base.model.model)).rename(folder)
    write_json(note, base.note)
    return replace(base, model=replace(base.model, model=str(folder)), note=None)


def put_in_place(base: Base, run: Run) -> Base:
    """The same student, now trained, with its files in train/base, in place of an earlier one."""
    coming = run.file("train", COMING)
    if base.model.model == str(coming):
        folder, note = run.file("train", "base"), run.file("train", "base.json")
        note.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        coming.rename(folder)
        run.file("train", f"{COMING}.json").rename(note)
        return replace(base, model=replace(base.model, model=str(folder)))
    shutil.rmtree(coming, ignore_errors=True)
    run.file("train", f"{COMING}.json").unlink(missing_ok=True)
    return base


def discard(run: Run) -> None:
    """Removes a student that was cut, and a folder that was made, for a training that was refused or only checked."""
    if rank() > 0:
        return
    shutil.rmtree(run.file("train", ".base.new"), ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or it holds checkpoints
        run.file("train", ".work").rmdir()
