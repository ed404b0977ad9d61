"""`verify` of one run: every file is what its stage wrote and read, and eval's numbers follow from it. Runs no model.

How numbers are computed again is `recomputed`'s. Cards are people's to edit, and are not checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.remembered import changed_by_hand
from seqdistill.recipe.tables import Recipe
from seqdistill.records import content_files, file_sha256, is_sealed
from seqdistill.runs import STAGES, Run, start_sha256
from seqdistill.stages.evaluate.contestants import is_evaluated
from seqdistill.stages.evaluate.recomputed import differing


@dataclass(frozen=True)
class Verification:
    """What was checked, and every file that is not what the run says it is, with the reason."""

    whole: bool
    files: int
    stages: list[str]
    problems: list[str]


def verify(run: Run, progress: Progress, *, linked: bool = True) -> Verification:
    """Checks every finished stage of a run; not `linked`: without those that are another run's. Raises UsageError for none."""
    stages = [
        stage
        for stage in STAGES
        if run.file(stage, "manifest.json").exists() and (linked or not run.file(stage, "").is_symlink())
    ]
    if not stages:
        raise UsageError(f"{run.path}: no finished stage in it", "name a run directory")
    problems: list[str] = []
    files = 0
    for stage in stages:
        progress.start(f"checking {stage}", 1, "stages")
        found = list(_stage(run, stage))
        files += sum(1 for _, problem in found if problem is None)
        problems += [f"{path}: {problem}" for path, problem in found if problem is not None]
        progress.advance()
        progress.end()
    problems += [f"{path}: changed by hand since the last command on the run" for path in changed_by_hand(run.path)]
    if "eval" in stages and not problems:
        try:
            problems += [f"{path}: {problem}" for path, problem in differing(run)]
        except KeyError as error:
            problems.append(f"{run.file('eval', 'scores.json')}: cannot be computed again: key {error} is missing")
        if is_evaluated(run, Recipe()) is False:
            problems.append(f"{run.file('eval', 'scores.json')}: of an earlier student: train/model was trained again since")
    return Verification(not problems, files, stages, problems)


def _stage(run: Run, stage: str) -> Iterator[tuple[str, str | None]]:
    """(path, what is wrong with it or None) of a stage's manifest, outputs, and inputs that lie within the run."""
    path = run.file(stage, "manifest.json")
    try:
        manifest = run.manifest(stage) or {}
    except UsageError as error:
        yield str(path), error.message.removeprefix(f"{path}: ")
        return
    if not is_sealed(path, manifest):
        yield str(path), "not what the stage wrote"  # what it says of other files is not to be relied on
        return
    yield str(path), None
    for output in manifest["outputs"]:
        yield from _hashed(run.path / output["path"], output, "not what the stage wrote")
    if journal := manifest.get("journal"):
        path = run.file(stage, "journal.jsonl")
        there = path.is_file() and start_sha256(path, journal["bytes"]) == journal["sha256"]
        yield str(path), None if there else "not what the stage wrote, or missing"
    for entry in manifest.get("inputs", {}).values():
        source = run.path / entry["path"]
        if not entry["path"].startswith("..") and not Path(entry["path"]).is_absolute() and source.exists():
            yield from _hashed(source, entry, f"changed since {stage} read it")


def _hashed(path: Path, entry: Mapping[str, Any], problem: str) -> Iterator[tuple[str, str | None]]:
    if not path.exists():
        yield str(path), "missing"
    elif file_sha256(path) == entry["sha256"]:
        yield str(path), None
    elif path.is_dir() and entry.get("files"):
        there = {str(part.relative_to(path)): part for part in content_files(path)}
        for name in sorted({*there, *entry["files"]}):
            if name not in there:
                yield str(path / name), "missing"
            elif name not in entry["files"] or file_sha256(there[name]) != entry["files"][name]:
                yield str(there[name]), problem
    else:
        yield str(path), problem
