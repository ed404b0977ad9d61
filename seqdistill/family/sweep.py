"""A sweep: students of several sizes on one teacher's answers, each trained and evaluated, and the cheapest that passes.

RUN/sweep/NAME/ is each student's run directory; RUN/sweep/scores.json and report.html compare them. The teacher's answers are
the run's: see `members`. A candidate is any row of a member's eval that could be shipped: its student, the nearest training
answer, what [eval] also names; and its student in each form that was exported and proven, as a quantised one.

Keys of scores.json:
  verdict        sentences, the headline first
  candidates     the smallest first: candidate, role, path, parameters, disk_bytes, tokens_per_second (null where not measured
                 alike), usd_per_1000, score, kept; on all prompts, Holm over the candidates: decision, gap (points to the
                 teacher), p (one-sided, of "worse by the margin"), needed (further prompts), n; choosing: the same on one half
  smallest       the first of them that passes on all prompts, or null
  cheapest       candidate (the smallest that passes on one half, or null), confirmed, confirming (its verdict on the other
                 half), needed (further prompts for a confirmation; null: no number would do), choose_on, confirm_on (prompts)
  compared_with  whose scores the candidates are held against: ceiling, teacher, or null; teacher: these scores, size, cost
  students       the path of each student's run, by its name, in the order in which they were trained
  run, primary, heading, phrase, n, margin (points), alpha (one-sided), speed_basis, machine
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqdistill.errors import Incomplete, SeqdistillError, Stopped, UsageError
from seqdistill.export.forms import check_quantised, export, proofs
from seqdistill.family.ladder import Choice, Trial, Verdict, choose, verdicts
from seqdistill.family.members import Member, adopt_training, check_runs_here, finish, member_name, open_member, with_student
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_json, read_jsonl, write_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate import inputs as eval_inputs
from seqdistill.stages.evaluate.shown import count, percent, point, points
from seqdistill.stages.evaluate.statistics.intervals import rounded, row_of, shared_groups
from seqdistill.stages.evaluate.statistics.paired import ALPHA, INCONCLUSIVE
from seqdistill.stages.train.early import check_settings

FOLDER = "sweep"
GAP = "gap to teacher"  # the column that a terminal has no room for
OF_EVERY_EVAL = ("base", "teacher", "ceiling", "copy", "majority")  # rows of a member's eval that nobody would ship


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found. `scores` is the content of sweep/scores.json."""

    scores: dict[str, Any]
    paths: dict[str, Path]  # scores, report
    members: dict[str, Path]  # each student's run directory, of those that were evaluated
    failed: dict[str, str] = field(default_factory=dict)  # student -> why it was not

    @property
    def verdict(self) -> list[str]:
        """What the comparison says, in sentences."""
        return list(self.scores["verdict"])

    @property
    def cheapest(self) -> str | None:
        """The smallest candidate that passed and was confirmed on prompts it was not chosen by."""
        found = self.scores["cheapest"]
        return str(found["candidate"]) if found["confirmed"] else None

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`."""
        return ["student", *(name for name in cells_of(self.scores)[0] if name != GAP)]

    @property
    def rows(self) -> list[list[str]]:
        """One row a candidate, the smallest first, ready to print."""
        names = [one["candidate"] for one in self.scores["candidates"]]
        cells = [[cell for column, cell in row.items() if column != GAP] for row in cells_of(self.scores)]
        return [[name, *row] for name, row in zip(names, cells, strict=True)]


def cells_of(document: dict[str, Any]) -> list[dict[str, str]]:
    """Of each candidate in a sweep's scores.json, what a table shows beside its name, by the head of the column."""
    priced = any(one["usd_per_1000"] is not None for one in document["candidates"])

    def cells(one: dict[str, Any]) -> dict[str, str]:
        speed, usd = one["tokens_per_second"], one["usd_per_1000"]
        return {
            document["heading"]: percent(one["score"]),
            "kept %": percent(point(one["kept"])),
            GAP: percent(one["gap"], "+"),
            "size": count(one["parameters"]),
            "disk": count(one["disk_bytes"], "B"),
            "tok/s": f"{speed:.0f}" if speed else "–",
            **({"USD/1,000": "–" if usd is None else f"{usd:.4g}"} if priced else {}),
            "decision": one["decision"].lower(),
        }

    return [cells(one) for one in document["candidates"]]


def sweep(run: Run, recipe: Recipe, students: Sequence[str], forms: Sequence[str], progress: Progress) -> SweepResult:
    """Trains and evaluates each student in a directory of its own within the run, and compares them.

    What is up to date is skipped. A student that fails is noted, and the others are compared. Raises UsageError, before the
    first training, for a student that cannot be trained, and the error of the first where all fail.
    """
    from seqdistill.family.report import write_sweep_report

    students = list(dict.fromkeys(students))
    if not students:
        raise UsageError("no student is named", "for example --student shrink:4 --student shrink:8")
    _check(run, recipe, students)
    check_quantised(forms)
    with run.locked(FOLDER):
        members, failed = list[tuple[str, Member]](), dict[str, SeqdistillError]()
        for number, student in enumerate(students, 1):
            progress.note(f"sweep: {student}, {number} of {len(students)}")
            try:
                members.append((student, _finished(run, recipe, student, forms, progress)))
            except (Incomplete, Stopped):  # the others would get no further
                raise
            except SeqdistillError as error:
                failed[student] = error
                progress.end()
                progress.note(f"sweep: {student} failed: {error.message}")
        if not members:
            raise next(iter(failed.values()))
        document = compare(run, members)
        paths = {"scores": run.file(FOLDER, "scores.json"), "report": run.file(FOLDER, "report.html")}
        write_json(paths["scores"], document)
        write_sweep_report(paths["report"], run, document)
    reasons = {student: error.message for student, error in failed.items()}
    return SweepResult(document, paths, {student: member.run.path for student, member in members}, reasons)


def _finished(run: Run, recipe: Recipe, student: str, forms: Sequence[str], progress: Progress) -> Member:
    """A student's member, trained and evaluated, and exported in each form."""
    member = open_member(run, with_student(recipe, student), FOLDER, member_name(student))
    adopt_training(member, run)
    finish(member, progress)
    for form in dict.fromkeys(forms):
        export(member.run, member.recipe, form, None, progress)
    return member


def _check(run: Run, recipe: Recipe, students: Sequence[str]) -> None:
    """Raises UsageError for what would be refused later: of the run's data, of any student, of the test set."""
    for name in ("train", "validation"):
        run.need("filter", f"{name}.jsonl")
    eval_inputs.check(run, recipe, Silent())
    check_runs_here(recipe)
    names: dict[str, str] = {}
    for student in students:
        if (other := names.setdefault(member_name(student), student)) != student:
            raise UsageError(
                f"students {other!r} and {student!r} would have one directory", "pass one of them by its full path"
            )
        check_settings(with_student(recipe, student), run)


# --- comparison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One row of a member's eval that could be shipped."""

    name: str
    role: str  # in the member's eval
    path: str  # of the member, from the run's
    evaluated: dict[str, Any] = field(repr=False)  # the content of its scores.json
    scores: dict[str, float] = field(repr=False)  # by prompt id, of the measure that decides

    @property
    def facts(self) -> dict[str, Any]:
        """Its row of the member's table."""
        return dict(self.evaluated["models"][self.role])

    @property
    def size(self) -> tuple[float, float, str]:
        """By what the ladder is ordered: bytes on disk, then parameters; a baseline has neither, an unknown size is last."""
        if self.role == "nearest":
            return 0.0, 0.0, self.name
        unknown = float("inf")
        return (self.facts.get("disk_bytes") or unknown), (self.facts.get("parameters") or unknown), self.name


def compare(run: Run, members: Sequence[tuple[str, Member]]) -> dict[str, Any]:
    """The content of sweep/scores.json, from what the evals of the members wrote."""
    candidates: list[Candidate] = []
    groups: dict[str, str | None] = {}
    comparator_scores: dict[str, float] = {}
    whole = read_json(members[0][1].run.file("eval", "scores.json"))
    primary, comparator = whole["primary"], (whole["judged"] or {}).get("other")
    for student, member in members:
        evaluated, path = read_json(member.run.file("eval", "scores.json")), str(member.run.path.relative_to(run.path))
        by_role, found = read_scores(member.run, primary)
        groups |= found
        comparator_scores = comparator_scores or by_role.get(comparator or "", {})
        for role in evaluated["models"]:
            name = student if role == "student" else role
            if role not in OF_EVERY_EVAL and by_role.get(role) and name not in [one.name for one in candidates]:
                candidates.append(Candidate(name, role, path, evaluated, by_role[role]))
        candidates += _forms(student, member, evaluated, path, primary)
    candidates.sort(key=lambda one: one.size)
    wanted = [one.scores for one in candidates] + ([comparator_scores] if comparator_scores else [])
    ids = [name for name in groups if all(name in scores for scores in wanted)]
    measure = whole["measures"][primary]
    found_all: list[Verdict | None] = [None] * len(candidates)
    choice = None
    if comparator_scores:
        settings = measure["share"], whole["margin"], whole["resamples"], whole["seed"]
        shared = shared_groups((name, groups[name]) for name in ids)
        trial = Trial(np.array([comparator_scores[name] for name in ids]), ids, shared, *settings)
        ladder = [np.array([one.scores[name] for name in ids]) for one in candidates]
        found_all, choice = [*verdicts(ladder, trial)], choose(ladder, trial)
    choosing = choice.choosing if choice else [None] * len(candidates)
    speeds = {one.facts.get("speed_basis") for one in candidates if one.role == "student"}
    document = {
        "run": run.path.absolute().name,
        "primary": primary,
        "heading": measure["heading"],
        "phrase": measure["phrase"],
        "n": len(ids),
        "margin": whole["margin"],
        "alpha": round(ALPHA, 6),
        "compared_with": comparator,
        "teacher": _facts(whole["models"][comparator], primary) if comparator else None,
        "speed_basis": next(iter(speeds)) if len(speeds) == 1 else None,
        "candidates": [
            _row(one, speeds) | _shown(on_all) | {"choosing": _shown(on_half)}
            for one, on_all, on_half in zip(candidates, found_all, choosing, strict=True)
        ],
        "smallest": next((one.name for one, v in zip(candidates, found_all, strict=True) if v and v.passes), None),
        "cheapest": _cheapest(choice, candidates),
        "students": {student: str(member.run.path.relative_to(run.path)) for student, member in members},
        "machine": whole["machine"],
    }
    return {"verdict": list(_sentences(document)), **document}


def _forms(student: str, member: Member, evaluated: dict[str, Any], path: str, primary: str) -> Iterator[Candidate]:
    """The forms in which a student was exported and has answered the test prompts."""
    own = evaluated["models"]["student"]
    for proof in proofs(member.run):
        if proof["primary"] == primary:
            unknown = dict.fromkeys(("tokens_per_second", "speed_basis", "usd_per_1000"))
            facts = {**proof["models"]["student"], "parameters": own.get("parameters"), "disk_bytes": proof["bytes"], **unknown}
            scores = {name: score for name, score in proof["scores"].items() if score is not None}
            of_form = {**evaluated, "models": {**evaluated["models"], proof["form"]: facts}}
            yield Candidate(f"{student} {proof['form']}", proof["form"], path, of_form, scores)


def read_scores(run: Run, measure: str) -> tuple[dict[str, dict[str, float]], dict[str, str | None]]:
    """One measure's scores in a run's predictions, by role and prompt id, and each prompt's group."""
    scores: dict[str, dict[str, float]] = {}
    groups: dict[str, str | None] = {}
    for _, row in read_jsonl(run.file("eval", "predictions.jsonl")):
        groups[row["id"]] = row.get("group")
        if (value := (row["scores"] or {}).get(measure)) is not None:
            scores.setdefault(row["model"], {})[row["id"]] = value
    return scores, groups


def _facts(facts: dict[str, Any], primary: str) -> dict[str, Any]:
    names = ("parameters", "disk_bytes", "tokens_per_second", "usd_per_1000")
    return {"score": facts.get(primary), **{name: facts.get(name) for name in names}}


def _row(one: Candidate, speeds: set[str | None]) -> dict[str, Any]:
    """What is known of a candidate apart from its verdicts."""
    primary = one.evaluated["primary"]
    row = {"candidate": one.name, "role": one.role, "path": one.path, **_facts(one.facts, primary)}
    if len(speeds) > 1 or one.facts.get("speed_basis") not in speeds:
        row["tokens_per_second"] = None
    kept = next((cell for cell in one.evaluated["kept"] if cell["metric"] == primary), None)
    if kept and one.role != "student":
        level = one.evaluated["models"][kept["of"]][primary]["value"]
        kept = {"value": rounded(100 * row["score"]["value"] / level) if level else None, "low": None, "high": None}
    return row | {"kept": kept}


def _shown(one: Verdict | None) -> dict[str, Any]:
    """A verdict as the document holds it."""
    if one is None:
        return {"decision": INCONCLUSIVE, "gap": None, "p": None, "needed": None, "n": 0}
    return {"decision": one.decision, "gap": row_of(one.gap), "p": rounded(one.p), "needed": one.needed, "n": one.n}


def _cheapest(choice: Choice | None, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The smallest that passed on one half of the prompts, and what the other half says of it."""
    if choice is None:
        empty: dict[str, Any] = dict.fromkeys(("candidate", "confirming", "needed", "choose_on", "confirm_on"))
        return {**empty, "confirmed": False}
    return {
        "candidate": None if choice.chosen is None else candidates[choice.chosen].name,
        "confirmed": choice.confirmed,
        "confirming": _shown(choice.confirming) if choice.confirming else None,
        "needed": choice.more,
        "choose_on": choice.halves[0],
        "confirm_on": choice.halves[1],
    }


def _sentences(document: dict[str, Any]) -> Iterator[str]:
    """What the comparison says, the headline first."""
    margin, cheapest = f"{document['margin']:g} points", document["cheapest"]
    if document["compared_with"] is None:
        yield "There is no second answer of the teacher to compare with: no student has a verdict."
        return
    name, halves = cheapest["candidate"], f"{cheapest['choose_on']} prompts"
    further = (
        "more prompts would not change that"
        if cheapest["needed"] is None
        else f"about {cheapest['needed']:,} more prompts are needed"
    )
    if name is None:
        yield f"NONE PASSES: on the {halves} to choose by, none is shown to be within {margin} of the teacher; {further}."
    else:
        confirming = cheapest["confirming"]
        seen = f"{confirming['decision']}, {points(confirming['gap'])}"
        others = f"the {confirming['n']} other prompts"
        if cheapest["confirmed"]:
            yield f"CONFIRMED: {name} is the cheapest that passes at {margin}, chosen on {halves}; on {others}: {seen}."
        else:
            yield (
                f"NOT CONFIRMED: {name} is the smallest that passes at {margin} on the {halves} it was chosen by, but not on "
                f"{others}: {seen}; {further}."
            )
    many = len(document["candidates"])
    smallest = document["smallest"]
    which = f"the smallest that is not inferior is {smallest}" if smallest else "none is shown to be not inferior"
    yield f"On all {document['n']} prompts {which} (Holm over {many}); measured by {document['phrase']}."
