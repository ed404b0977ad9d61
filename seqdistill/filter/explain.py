"""One row's story: what the filter decided on it, why, and what would have decided otherwise. Reads the stage's files only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.filter.checks.personal_data import REGIONS, mask
from seqdistill.filter.report import RULES, STEPS
from seqdistill.records import Sample, read_jsonl
from seqdistill.runs import Run


@dataclass(frozen=True)
class Story:
    """What became of one row. Personal data in its texts is masked."""

    sample: Sample
    where: str  # train | validation | rejected
    passed: list[str]  # the steps it came through, in order
    rule: str | None = None
    reason: str | None = None
    would_keep: list[str] = field(default_factory=list)  # the settings that together would have kept it
    kept_by: Sample | None = None  # the row kept instead
    instead_of: list[dict[str, Any]] = field(default_factory=list)  # id, rule and reason of the rows it was kept instead of


def explain(run: Run, name: str, regions: Sequence[str] = REGIONS) -> Story:
    """The story of the row with this id. Raises UsageError when the filter has not run or knows no such row.

    `regions` are those whose phone numbers are known.
    """
    row = None
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
    better = _find(run, row[0]["kept_by"]) if row[0].get("kept_by") else None
    return Story(
        mask(Sample.from_row(*row), regions)[0],
        where,
        passed=list(STEPS[: STEPS.index(RULES[rule])] if rule else STEPS),
        rule=rule,
        reason=reason,
        would_keep=row[0].get("would_keep", []),
        kept_by=better and mask(better, regions)[0],
        instead_of=instead_of,
    )


def _find(run: Run, name: str) -> Sample | None:
    for file in ("train", "validation", "rejected"):
        for place, found in read_jsonl(run.file("filter", f"{file}.jsonl")):
            if found["id"] == name:
                return Sample.from_row(found, place)
    return None
