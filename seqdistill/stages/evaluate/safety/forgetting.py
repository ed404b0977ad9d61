"""What was forgotten: the loss on passages of general text, before training and after."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqdistill.stages.evaluate.safety.items import PASSAGE
from seqdistill.stages.evaluate.statistics.intervals import resample
from seqdistill.stages.evaluate.table import cell_of


def forgetting(rows: Sequence[Mapping[str, Any]], resamples: int, seed: int) -> dict[str, Any] | None:
    """Each model's negative log-likelihood in nats per token, and the student's less the others'; None without passages.

    All are counted in tokens of the base: models whose tokenizers cut the same text otherwise are comparable. Intervals are
    over passages, drawn together for all models.
    """
    scored: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == PASSAGE and row["nll"] is not None:
            scored.setdefault(row["model"], {})[row["id"]] = row
    if "student" not in scored:
        return None
    models = list(scored)
    counted = "base" if "base" in scored else "student"
    names = [name for name in scored["student"] if all(name in scored[model] for model in models)]
    if not names:
        return None
    columns = [[float(scored[model][name]["nll"]) for name in names] for model in models]
    tokens = [float(scored[counted][name]["tokens"]) for name in names]
    drawn = resample(np.array([*columns, tokens]).T, resamples, seed)
    last, mine = len(models), models.index("student")

    def level(k: int) -> Any:
        return drawn.interval(lambda means: means[..., k] / means[..., last])

    def gap(k: int) -> Any:
        return drawn.interval(lambda means: (means[..., mine] - means[..., k]) / means[..., last])

    rises = {model: cell_of(gap(k), len(names)) for k, model in enumerate(models) if model != "student"}
    return {
        "passages": len(names),
        "tokens": int(sum(tokens)),
        "counted_in": counted,
        "models": {model: cell_of(level(k), len(names)) for k, model in enumerate(models)},
        "rise": rises,  # nats per token; positive: worse than the other
        "perplexity_ratio": {model: _ratio(cell["value"]) for model, cell in rises.items()},
    }


def _ratio(rise: float | None) -> float | None:
    return None if rise is None else round(math.exp(min(rise, 700.0)), 6)
