"""A member: a run directory within a run, for one student more. It has the run's answers and its recipe, and its own training.

Its generate and filter are links to the run's, and so are its eval journal and its locks. So no request is sent twice, a member
spends from the run's budget, and every command works on a member as on any run. Does not compare members.
"""

import gc
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.reading import relative_path
from seqdistill.recipe.remembered import inherit
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import seal, write_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate.result import EvalResult
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.train.stage import TrainResult, train

SHARED_FILES = ("eval/journal.jsonl", "eval/.lock", ".spending.lock")  # one process pays, and writes the journal, at a time
TRAINED_BY = ("teacher", "student", "train")  # the tables that decide a training; what else does, its fingerprint knows


@dataclass(frozen=True)
class Member:
    """One student of the family."""

    name: str  # of its directory
    run: Run
    recipe: Recipe


def member_name(student: str) -> str:
    """The name of a student's directory, which depends on nothing else: shrink-8, Qwen-Qwen3-0.6B; of a path its last part."""
    absolute = Path(student.removeprefix("run:")).is_absolute()
    plain = re.sub(r"[^\w.-]+", "-", Path(student).name if absolute else student).strip("-.")
    return f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:6]}" if absolute else plain


def open_member(run: Run, recipe: Recipe, folder: str, name: str, *, linked: Iterable[str] = ("generate", "filter")) -> Member:
    """Makes RUN/`folder`/`name` a run with this recipe, and with these stages of the run; what it has already stays.

    `recipe` is the member's own. A training of the run that is the same is taken over.
    """
    member = Member(name, Run(run.path / folder / name), recipe)
    for stage in (*linked, "targets"):
        if run.file(stage, "").is_dir():
            link(member.run.path / stage, run.path / stage)
    run.file("eval", "").mkdir(parents=True, exist_ok=True)
    for file in SHARED_FILES:
        link(member.run.path / file, run.path / file)
    inherit(run.path, member.run.path, recipe)
    return member


def check_runs_here(recipe: Recipe) -> None:
    """Raises UsageError for a student at an endpoint, which serves none of the students that are about to be trained."""
    if recipe.student.engine == "openai":
        raise UsageError(
            "[student] engine = 'openai': several students are trained here, and an endpoint serves none of them yet",
            "pass --student-engine transformers, or vllm: each is evaluated on this machine",
        )


def finish(member: Member, progress: Progress) -> tuple[TrainResult, EvalResult]:
    """Trains and evaluates the member; what is up to date is skipped, what was stopped resumes."""
    trained = train(member.run, member.recipe, progress)
    gc.collect()  # a trainer refers to itself: without this its model may be in memory beside the next ones
    return trained, evaluate(member.run, member.recipe, progress)


def adopt_training(member: Member, run: Run) -> None:
    """Copies the run's training to a member without one, where the settings are the same: train then finds it up to date."""
    manifest = run.manifest("train") or {}
    target = member.run.file("train", "")
    if manifest.get("status") != "complete" or target.exists():
        return
    wanted = json.loads(json.dumps({table: asdict(member.recipe)[table] for table in TRAINED_BY}))
    if any(manifest.get("config", {}).get(table) != wanted[table] for table in TRAINED_BY):
        return
    half = target.with_name(".train.new")
    with run.locked("train"):
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(run.file("train", ""), half, ignore=shutil.ignore_patterns(".*"))
        student = manifest["student"]
        paths = {name: run.path / student[name] for name in ("base", "cut_from") if name in student}
        for name, path in paths.items():
            if path.exists() and not Path(os.path.normpath(path)).is_relative_to(run.path):  # a path, relative to its run
                student[name] = relative_path(path, member.run.path)
                write_json(half / "manifest.json", manifest | {"seal": seal(manifest)})
        half.rename(target)


def with_student(recipe: Recipe, student: str) -> Recipe:
    """The recipe with another student; revision and base model are of the recipe's own, but all that are cut have one base.

    What [train] says of the layers that are kept is of those that are cut.
    """
    own = recipe.student.model or ""
    if student == own:
        return recipe
    both_cut = own.startswith("shrink:") and student.startswith("shrink:")
    base = recipe.student.base_model if both_cut else None
    layers = recipe.train.layers if student.startswith("shrink:") else TrainConfig.layers
    own_student = replace(recipe.student, model=student, revision=None, base_model=base)
    return replace(recipe, student=own_student, train=replace(recipe.train, layers=layers))


def link(path: Path, target: Path) -> None:
    """A relative link, which a copy of the whole run keeps. A real file in its place, as in a copy without links, stays."""
    wanted = os.path.relpath(target.absolute(), path.parent.absolute())
    if path.is_symlink():
        if str(path.readlink()) == wanted:
            return
        path.unlink()
    elif path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(wanted)
