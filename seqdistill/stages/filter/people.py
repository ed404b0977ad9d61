"""The steps about people: personal data in the rows, and what reviewers decided about rows.

`personal_data` defines what personal data is, `decisions` what a decision means; this module applies both to the rejections.
"""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from seqdistill import personal_data
from seqdistill.decisions import RULE, Decision, apply, stale, summary
from seqdistill.recipe.tables import PersonalDataConfig
from seqdistill.records import Sample
from seqdistill.stages.filter.rejection import Rejection, setting
from seqdistill.stages.filter.report import Rejections
from seqdistill.stages.filter.scan import Facts, Rows, hashes_of


@dataclass(frozen=True)
class Reviewed:
    """What people decided that counts, and how often, for the report."""

    rejected: dict[int, str]  # by row: the reason
    kept: dict[int, Decision]
    counts: dict[str, int]

    @property
    def edited(self) -> set[int]:
        """The rows whose completion a person wrote."""
        return {row for row, decision in self.kept.items() if decision.decision == "edit"}

    def reject(self, rejections: Rejections) -> None:
        """Rejects what people rejected, so that the next best of its prompt can be chosen."""
        for row, reason in self.rejected.items():
            rejections.reject(row, Rejection(RULE, reason))

    def keep(self, rejections: Rejections, read: Rows) -> None:
        """Keeps what people accepted or edited, whatever rule rejected it."""
        for row, decision in self.kept.items():
            rejections.accept(row)
            if decision.decision == "edit":
                read.change(row, partial(_edited, decision=decision))


def reviewed_rows(
    decisions: dict[str, Decision], final: Container[int], facts: Facts, config: PersonalDataConfig, read: Rows
) -> Reviewed:
    """What people decided about rows.

    Left out and counted: decisions on a completion that has changed since, on ids that are not there, and those that would
    bring a test item (the rows in `final`) into training. A completion that is masked now, or no longer, is the same one.
    """
    counts = summary(decisions) | {"stale": 0, "unknown": 0, "refused": 0}
    found = Reviewed({}, {}, counts)
    rows = _rows_of(decisions, facts, read)
    for name, decision in sorted(decisions.items()):
        row = rows.get(name)
        if row is None:
            counts["unknown"] += 1
        elif row in final and decision.decision != "reject":
            counts["refused"] += 1
        elif all(stale(decision, shown) for shown in (read(row), _masked(read(row), config))):
            counts["stale"] += 1
        elif (reason := apply(decision, read(row))[1]) is not None:
            found.rejected[row] = reason
        else:
            found.kept[row] = decision
    return found


def _rows_of(decisions: dict[str, Decision], facts: Facts, read: Rows) -> dict[str, int]:
    """The row of each decision's sample, where it is there."""
    places = np.flatnonzero(np.isin(facts.ids, hashes_of(sorted(decisions)))) if decisions else ()
    return {read(int(row)).id: int(row) for row in places}


def drop_personal_data(facts: Facts, rejections: Rejections, config: PersonalDataConfig) -> None:
    """Rejects the rows with personal data, where that is configured; a person may accept them again."""
    for row, counts in sorted(facts.personal.items()) if config.action == "drop" else ():
        why = personal_data.reason(counts)
        rejections.reject(row, Rejection("personal_data", why, (setting("personal_data.action", "annotate"),)))


def mask_personal_data(facts: Facts, reviewed: Reviewed, config: PersonalDataConfig, read: Rows) -> dict[str, Any]:
    """Has the rows with personal data read masked, where that is configured; returns what to report: kinds and counts only."""
    values: Counter[str] = Counter()
    for counts in facts.personal.values():
        values.update(counts)
    if config.action == "mask":
        for row in {*facts.personal, *reviewed.edited}:
            read.change(row, partial(_masked, config=config))
    return {"action": config.action, "rows": len(facts.personal), "values": dict(sorted(values.items()))}


def _edited(sample: Sample, decision: Decision) -> Sample:
    return apply(decision, sample)[0]


def _masked(sample: Sample, config: PersonalDataConfig) -> Sample:
    return personal_data.mask(sample, config.phone_regions)[0]
