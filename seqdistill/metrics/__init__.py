"""Metrics: how one answer is scored, as records. Text in, percent out: no runs, no models, no intervals.

A metric is one entry in the `METRICS` of its file; the recipe check, the table, the report, the verdict and the card read
that entry. Metrics against another answer are measured twice: against the teacher's answer and against the reference.
"""

from seqdistill.metrics import behaviour, classes, faithfulness, formulas, structured, text
from seqdistill.metrics.metric import Item, Measure, Metric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *text.METRICS,
        *formulas.METRICS,
        *structured.METRICS,
        *classes.METRICS,
        *faithfulness.METRICS,
        *behaviour.METRICS,
    )
}
OWN = "own"  # the user's own metric, a Python function: [eval] metric

_DECIDING = [metric.name for metric in METRICS.values() if metric.against]
PRIMARY = (*_DECIDING, OWN, *(f"{name}_{against}" for against in ("teacher", "reference") for name in (*_DECIDING, OWN)))


def measures(kind: str, own: Metric | None = None, primary: str | None = None) -> list[Measure]:
    """The columns of a task whose answers are of a kind: "text", "choices" or "schema". In the order of the tables.

    A metric that needs an extra is one only where `primary` names it.
    """
    found: list[Measure] = []
    named = (primary or "").removesuffix("_teacher").removesuffix("_reference")
    for metric in (*([own] if own else []), *METRICS.values()):
        if kind in metric.kinds and (metric.needs is None or metric.name == named):
            found += [Measure(metric, against) for against in (("teacher", "reference") if metric.against else (None,))]
    return found


def default_metric(kind: str, *, own: bool = False) -> str:
    """The metric that decides where none is named: the user's own, or else by the kind of answers."""
    return OWN if own else {"choices": "accuracy", "schema": "field_f1"}.get(kind, "chrf")


__all__ = ["METRICS", "OWN", "PRIMARY", "Item", "Measure", "Metric", "default_metric", "measures"]
