"""The teacher compared with the references: how often its answers differ from them, and which labels it chose.

Compares only what can be compared for certain: choices, JSON under a schema, a reference that is one number, and short answers
with short references. What a solution says in the end is a verifier's to find, and eval scores longer references.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.metrics.classes import label as choice_of
from seqdistill.metrics.numbers import reference_value, states
from seqdistill.records import Sample
from seqdistill.stages.filter.checks.words import Ints
from seqdistill.stages.filter.scoring.answers import json_in, normal
from seqdistill.tasks.answer_form import AnswerForm

SHORT = 5  # words
NOT_COMPARED, DIFFERS, AGREES = -1, 0, 1


def agreement(sample: Sample, form: AnswerForm) -> int:
    """Whether a completion says what its reference says: AGREES, DIFFERS, or NOT_COMPARED."""
    reference = sample.reference
    if reference is None or not reference.strip():
        return NOT_COMPARED
    if form.schema and (wanted := json_in(reference)):
        found = json_in(sample.text)
        return AGREES if found and found[1] == wanted[1] else DIFFERS
    if form.choices:
        choice = choice_of(reference, form.choices)
        return NOT_COMPARED if choice is None else AGREES if choice_of(sample.text, form.choices) == choice else DIFFERS
    if normal(sample.text) == normal(reference):
        return AGREES
    if (number := reference_value(reference)) is not None:
        return AGREES if states(sample.text, number) else DIFFERS
    is_short = all(len(text.split()) <= SHORT for text in (reference, sample.text))
    return DIFFERS if is_short else NOT_COMPARED


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
