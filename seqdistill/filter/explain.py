"""One row's story: what the filter decided on it, why, and what would have decided otherwise. Reads the stage's files only."""

from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.filter.report import RULES, STEPS, setting_of
from seqdistill.records import Sample, read_jsonl
from seqdistill.runs import Run


@dataclass(frozen=True)
class Story:
    """What became of one row."""

    sample: Sample
    where: str  # train | validation | rejected
    passed: list[str]  # the steps it came through, in order
    rule: str | None = None
    reason: str | None = None
    setting: str | None = None  # what would have kept it, where there is such a setting
    flag: str | None = None  # the same on the command line
    kept_by: Sample | None = None  # the row kept instead
    instead_of: list[dict[str, Any]] = field(default_factory=list)  # id, rule and reason of the rows it was kept instead of


def explain(run: Run, name: str) -> Story:
    """The story of the row with this id. Raises UsageError when the filter has not run or knows no such row."""
    row = better = None
    where, instead_of = "", []
    for file in ("train", "validation", "rejected"):
        for place, found in read_jsonl(run.need("filter", f"{file}.jsonl")):
            if found["id"] == name:
                row, where = (found, place), file
            elif found.get("kept_by") == name:
                instead_of.append({key: found[key] for key in ("id", "rule", "reason")})
    if row is None:
        raise UsageError(f"{run.path}: no sample has the id {name!r}", "ids stand in generate/samples.jsonl")
    rule, reason = row[0].get("rule"), row[0].get("reason")
    if row[0].get("kept_by"):
        better = _find(run, row[0]["kept_by"])
    passed = list(STEPS[: STEPS.index(RULES[rule][0])] if rule else STEPS)
    told = setting_of(rule) if rule else {}
    return Story(Sample.from_row(*row), where, passed, rule, reason, kept_by=better, instead_of=instead_of, **told)


def _find(run: Run, name: str) -> Sample | None:
    for file in ("train", "validation", "rejected"):
        for place, found in read_jsonl(run.file("filter", f"{file}.jsonl")):
            if found["id"] == name:
                return Sample.from_row(found, place)
    return None
