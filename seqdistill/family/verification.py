"""`verify` of a run and of what sweep and curve made in it: each student's run, and the tables that compare them.

A table is computed again from the runs of its students. The reports beside the tables are not checked: they only show them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.family import parts, sweep
from seqdistill.family.members import Member
from seqdistill.family.outlook import outlook
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import read_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate import verification
from seqdistill.stages.evaluate.recomputed import difference, is_in_our_words
from seqdistill.stages.evaluate.verification import Verification

FOLDERS = (sweep.FOLDER, parts.FOLDER)


def verify(run: Run, progress: Progress) -> Verification:
    """Checks every finished stage of a run, and every family in it. Raises UsageError where no stage is finished."""
    found = verification.verify(run, progress)
    problems, files = list(found.problems), found.files
    for folder in FOLDERS:
        if not run.file(folder, "scores.json").is_file():
            continue
        of_family: list[str] = []
        members = _members(run, folder)
        for member in members:
            try:
                of_member = verification.verify(member.run, progress, linked=False)
            except UsageError:
                of_family.append(f"{member.run.path}: missing, and {run.file(folder, 'scores.json')} compares it")
                continue
            files += of_member.files
            of_family += of_member.problems
        if not of_family:
            of_family = [f"{path}: {problem}" for path, problem in _table(run, folder, members)]
            files += not of_family
        problems += of_family
    return Verification(not problems, files, found.stages, problems)


def _members(run: Run, folder: str) -> list[Member]:
    """The students that a table compares, in the order in which they were trained; their names are the table's."""
    scores = read_json(run.file(folder, "scores.json"))
    if folder == parts.FOLDER:
        paths = {Path(one["path"]).name: one["path"] for one in (*scores["points"], *scores["repeats"])}
        paths = {part.name: paths[part.name] for part in parts.parts_of(len(scores["repeats"]))}
    else:
        paths = scores["students"]
    return [Member(name, Run(run.path / path), _recipe(run.path / path)) for name, path in paths.items()]


def _recipe(path: Path) -> Recipe:
    """Of a student's recipe what a table says of it: its seed."""
    config = (Run(path).manifest("train") or {}).get("config", {}).get("train", {})
    return Recipe(train=TrainConfig(seed=config.get("seed", TrainConfig.seed)))


def _table(run: Run, folder: str, members: list[Member]) -> Iterator[tuple[Path, str]]:
    """Where a table differs from what the runs of its students say."""
    path = run.file(folder, "scores.json")
    written = read_json(path)
    try:
        found = _compared(run, folder, members)
    except (SeqdistillError, KeyError, OSError) as error:
        yield path, f"cannot be computed again: {error}"
        return
    if not all(is_in_our_words(member.run) for member in members):
        found.pop("verdict")
    if place := difference(json.loads(json.dumps(found)), written):
        yield path, f"does not follow from the runs in {path.parent}: {place}"


def _compared(run: Run, folder: str, members: list[Member]) -> dict[str, Any]:
    if folder == sweep.FOLDER:
        return sweep.compare(run, [(member.name, member) for member in members])
    by_part = {member.name: member for member in members}
    return outlook(run, members[0].recipe, parts.parts_of(len(members) - len(parts.NESTED)), by_part)
