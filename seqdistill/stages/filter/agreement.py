"""The teacher compared with the references: how often its answers differ from them, and which labels it chose.

Compares only what can be compared word for word: choices, JSON under a schema, and short references. eval scores longer ones.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.records import Sample
from seqdistill.stages.filter.checks.words import Ints
from seqdistill.stages.filter.scoring.answers import json_in, normal
from seqdistill.tasks.answer_form import AnswerForm

SHORT_REFERENCE = 5  # words
NOT_COMPARED, DIFFERS, AGREES = -1, 0, 1


def agreement(sample: Sample, form: AnswerForm) -> int:
    """Whether a completion says what its reference says: AGREES, DIFFERS, or NOT_COMPARED."""
    reference = sample.reference
    if reference is None or not reference.strip():
        return NOT_COMPARED
    if form.schema and (wanted := json_in(reference)):
        found = json_in(sample.text)
        return AGREES if found and found[1] == wanted[1] else DIFFERS
    if form.choices or len(reference.split()) <= SHORT_REFERENCE:
        return AGREES if normal(sample.text) == normal(reference) else DIFFERS
    return NOT_COMPARED


def label(sample: Sample, form: AnswerForm) -> str:
    """The choice that a completion makes; "" where it makes none, or there are no choices."""
    return sample.text.strip() if form.choices and form.fault(sample.text) is None else ""


def agreement_report(agreements: NDArray[np.int8], labels: Sequence[str], slices: Sequence[str], kept: Ints) -> dict[str, Any]:
    """For the report: rows compared with their references and those that differ, and each label's rows, before and after."""

    def counted(rows: NDArray[np.int8]) -> dict[str, int]:
        return {"compared": int((rows != NOT_COMPARED).sum()), "differ": int((rows == DIFFERS).sum())}

    names = np.array(slices)
    before, after = Counter(filter(None, labels)), Counter(filter(None, (labels[row] for row in kept.tolist())))
    return {
        "references": counted(agreements)
        | {"kept": counted(agreements[kept])}
        | {"by_slice": {name: counted(agreements[names == name]) for name in sorted(set(slices))}},
        "labels": {name: {"read": count, "kept": after[name]} for name, count in sorted(before.items())},
    }
