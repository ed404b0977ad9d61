"""Explains one row: what the filter decided on it, why, and which settings would have changed that. Reads files only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.personal_data import REGIONS, mask
from seqdistill.records import Sample, read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.filter.report import RULES, STEPS

FILES = ("train", "validation", "rejected")


@dataclass(frozen=True)
class Explanation:
    """What became of one row. Personal data in its texts is masked."""

    sample: Sample
    where: str  # train | validation | rejected
    passed: list[str]  # the steps it came through, in order
    rule: str | None = None
    reason: str | None = None
    would_keep: list[str] = field(default_factory=list)  # the settings that together would have kept it
    kept_by: Sample | None = None  # the row kept instead
    instead_of: list[dict[str, Any]] = field(default_factory=list)  # id, rule and reason of the rows it was kept instead of


def explain(run: Run, name: str, regions: Sequence[str] = REGIONS) -> list[Explanation]:
    """The explanation of the row with this id, or of each row of the prompt with this id, in the order of the files.

    Raises UsageError when the filter has not run or knows no such row. `regions` are those whose phone numbers are known.
    """
    found: dict[str, tuple[dict[str, Any], str, str]] = {}
    for file in FILES:
        for place, row in read_jsonl(run.need("filter", f"{file}.jsonl")):
            if name in (row["id"], row["prompt_id"]):
                found[row["id"]] = row, place, file
    if not found:
        raise UsageError(
            f"{run.path}: no sample and no prompt has the id {name!r}", "ids and prompt ids are in generate/samples.jsonl"
        )
    instead_of: dict[str, list[dict[str, Any]]] = {}
    better: dict[str, Sample] = {}
    wanted = {row.get("kept_by") for row, _, _ in found.values()}
    for file in FILES:
        for place, row in read_jsonl(run.file("filter", f"{file}.jsonl")):
            if row.get("kept_by") in found:
                instead_of.setdefault(row["kept_by"], []).append({key: row[key] for key in ("id", "rule", "reason")})
            if row["id"] in wanted:
                better[row["id"]] = mask(Sample.from_row(row, place), regions)[0]
    return [
        Explanation(
            mask(Sample.from_row(row, place), regions)[0],
            file,
            passed=list(STEPS[: STEPS.index(RULES[row["rule"]])] if row.get("rule") else STEPS),
            rule=row.get("rule"),
            reason=row.get("reason"),
            would_keep=row.get("would_keep", []),
            kept_by=better.get(row.get("kept_by", "")),
            instead_of=instead_of.get(row["id"], []),
        )
        for row, place, file in found.values()
    ]
