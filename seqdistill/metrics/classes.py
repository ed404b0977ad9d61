"""Metrics of answers that are one of some choices: accuracy by item, and counts of a confusion table.

Macro F1, recall and kappa are functions of a table of counts, (..., K, K + 1): true class by predicted class, the last column
for answers that are not one of the choices. Leading axes are bootstrap replicates.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqdistill.metrics.metric import Item, Metric
from seqdistill.metrics.text import QUOTES, STOPS, bare

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def label(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text says: as it is, or else but for case and signs around it, where that names one only, or None."""
    said = text.strip()
    if said in choices:
        return said
    loose = _loose(said)
    alike = [choice for choice in choices if loose and _loose(choice) == loose]
    return alike[0] if len(alike) == 1 else None


_ITEM = re.compile(r"\A\s*(?:[-+](?!\s*\d)|[*•]|#{1,6})\s+")  # of a list, or a heading; "- 1" is a number


def _loose(text: str) -> str:
    return bare(_ITEM.sub("", text)).strip(f"{QUOTES}{STOPS}!?()[]:,;_ ")


def confusion(wanted: Sequence[str | None], said: Sequence[str | None], choices: Sequence[str]) -> "Array":
    """(n, K, K + 1): one table of a single count for each item. An item with a wanted label outside the choices is zero."""
    import numpy as np

    place = {choice: number for number, choice in enumerate(choices)}
    table = np.zeros((len(wanted), len(choices), len(choices) + 1))
    for row, (true, predicted) in enumerate(zip(wanted, said, strict=True)):
        if true is not None:
            table[row, place[true], place.get(predicted or "", len(choices))] = 1.0
    return table


def macro_f1(table: "Array") -> "Array":
    """Mean F1 in percent over the classes that are wanted or said at all. (..., K, K + 1) -> (...)"""
    import numpy as np

    right = np.diagonal(table[..., :-1], axis1=-2, axis2=-1)
    total = table.sum(axis=-1) + table[..., :-1].sum(axis=-2)  # 2 TP + FN + FP, an answer without a class in FN alone
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(total > 0, 2 * right / total, np.nan)
        present = (total > 0).sum(axis=-1)
        return np.asarray(100.0 * np.nansum(scores, axis=-1) / present)


def kappa(table: "Array") -> "Array":
    """Cohen's kappa, -1 to 1; an answer that is not one of the choices agrees with none. (..., K, K + 1) -> (...)

    Cohen 1960, https://doi.org/10.1177/001316446002000104. Undefined, nan, where chance alone agrees always.
    """
    import numpy as np

    n = table.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        agreed = np.diagonal(table[..., :-1], axis1=-2, axis2=-1).sum(axis=-1) / n
        chance = (table.sum(axis=-1) * table[..., :-1].sum(axis=-2)).sum(axis=-1) / (n * n)
        return np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)


def recalls(table: "Array") -> list[float | None]:
    """The share of each class that is said where it is wanted, in percent; None for a class that is never wanted."""
    totals = table.sum(axis=-1)
    return [100.0 * float(table[k, k]) / float(total) if total else None for k, total in enumerate(totals)]


def _right(item: Item) -> float | None:
    wanted = label(item.wanted, item.choices)
    return None if wanted is None else 100.0 * (label(item.text, item.choices) == wanted)


METRICS = (
    Metric(
        "accuracy",
        "accuracy",
        "accuracy",
        _right,
        "percent of answers that say the wanted choice, case and signs around it aside; only prompts where one is wanted",
        kinds=("choices",),
        share=True,
    ),
)
