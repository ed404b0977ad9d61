"""Win rates from a judge's preferences: raw, for answers of equal length, and corrected by human labels.

A preference is 1 where the student's answer is preferred, 0 where the teacher's is, and one half for a tie. Sends no requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from seqdistill.stages.evaluate.statistics.intervals import CONFIDENCE, FEWEST, Interval, unseen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
FEWEST_LABELS = 10  # for a correction
RIDGE = 1e-6  # keeps the fit finite where length alone separates wins from losses


@dataclass(frozen=True)
class Corrected:
    """A share corrected for a judge's errors, in percent, and the errors."""

    share: Interval
    sensitivity: float  # 0 to 1: how often the judge says so where people do
    specificity: float  # how often it denies it where people do


def length_controlled(preferences: "Array", lengths: "Array", others: "Array") -> Interval | None:
    """The win rate, in percent, that a logistic model predicts for answers of equal length.

    AlpacaEval's formula without its table of instruction difficulties ("length_controlled_minimal" there): the logit of a win
    is a constant plus a multiple of tanh(length difference / its standard deviation). Dubois et al. 2024,
    https://arxiv.org/abs/2404.04475. The interval is the sandwich estimator's; where the model leaves hardly a preference
    unexplained, as where all are wins, it is at least as wide as that of a share of which every prompt is a hit. None for fewer
    than `FEWEST`, and where all lengths differ equally.
    """
    import numpy as np

    gap = lengths - others
    if len(gap) < FEWEST or not (spread := gap.std(ddof=1)) > 0:
        return None
    design = np.stack([np.ones(len(gap)), np.tanh(gap / spread)], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's method
        expected = 1 / (1 + np.exp(-np.clip(design @ weights, -35, 35)))
        slope = design.T @ (preferences - expected) - RIDGE * weights
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    scores = design * (preferences - expected)[:, None]
    inverse = np.linalg.inv(curvature)
    error = math.sqrt(float((inverse @ (scores.T @ scores) @ inverse)[0, 0]))
    value, low, high = (100 / (1 + math.exp(-(float(weights[0]) + side * Z * error))) for side in (0, -1, 1))
    if np.abs(preferences - expected).sum() < FEWEST:
        apart = 100 * unseen(len(gap))
        low, high = max(0.0, min(low, value - apart)), min(100.0, max(high, value + apart))
    return Interval(value, low, high)


def prediction_powered(labels: "Array", judged: "Array", judged_alone: "Array") -> tuple[float, float]:
    """The mean label and its variance: the judge's mean on what is not labelled, corrected by its errors where it is.

    Prediction-powered inference with power tuning, PPI++: Angelopoulos, Duchi and Zrnic 2023,
    https://arxiv.org/abs/2311.01453; as `ppi_mean_ci` of ppi_py computes it.
    """
    import numpy as np

    n, others = len(labels), len(judged_alone)
    if not others:
        return float(labels.mean()), float(labels.var() / n)
    spread = np.cov(np.concatenate([judged, judged_alone]))
    together = ((labels - labels.mean()) * (judged - judged.mean())).mean()
    tuning = float(np.clip(together / ((1 + n / others) * spread), 0, 1)) if spread > 0 else 0.0
    value = tuning * judged_alone.mean() + (labels - tuning * judged).mean()
    return float(value), float((tuning * judged_alone).var() / others + (labels - tuning * judged).var() / n)


def corrected_mean(labels: "Array", preferences: "Array", strata: Sequence[int]) -> Interval | None:
    """The mean preference of people, in percent; `labels` is NaN where there is none. None with too few labels.

    Labels must be drawn at random within a stratum, not over all: each stratum is corrected by its own labels and counts by
    its size. Strata are taken as one where one of them has fewer than `FEWEST_LABELS`. In each, the interval is at
    least as wide as Wilson's of labels that are all equal.
    """
    import numpy as np

    known, of = ~np.isnan(labels), np.asarray(strata)
    if int(known.sum()) < FEWEST_LABELS:
        return None
    if any(int((known & (of == one)).sum()) < FEWEST_LABELS for one in np.unique(of)):
        of = np.zeros(len(of), dtype=int)
    value = variance = 0.0
    for one in np.unique(of):
        mine = of == one
        mean, error = prediction_powered(labels[mine & known], preferences[mine & known], preferences[mine & ~known])
        least = (unseen(int((mine & known).sum())) / Z) ** 2  # n labels that are alike do not show that all are
        weight = mine.mean()
        value, variance = value + weight * mean, variance + weight**2 * max(error, least)
    half = Z * math.sqrt(variance)
    return Interval(100 * value, 100 * max(0.0, value - half), 100 * min(1.0, value + half))


def corrected_share(labels: "Flags", judged_labelled: "Flags", judged: "Flags") -> Corrected | None:
    """The share of prompts of which people would say so, from what the judge says of all; None where it cannot be corrected.

    Rogan and Gladen 1978, https://doi.org/10.1093/oxfordjournals.aje.a112510, with the interval of Lang and Reiczigel 2014,
    https://doi.org/10.1016/j.prevetmed.2013.09.015. The labelled prompts must be drawn at random.
    """
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative or positive + negative < FEWEST_LABELS:
        return None
    hits, rejections = int((labels & judged_labelled).sum()), int((~labels & ~judged_labelled).sum())
    sensitivity, specificity, n = hits / positive, rejections / negative, len(judged)
    seen = float(judged.mean())
    if sensitivity + specificity <= 1:
        return None  # the judge is no better than a coin
    value = min(1.0, max(0.0, (seen + specificity - 1) / (sensitivity + specificity - 1)))
    p = (n * seen + Z * Z / 2) / (n + Z * Z)
    se, sp = (hits + 1) / (positive + 2), (rejections + 1) / (negative + 2)
    slope = se + sp - 1
    center = (p + sp - 1) / slope
    se_error, sp_error = se * (1 - se) / (positive + 2), sp * (1 - sp) / (negative + 2)
    half = Z / slope * math.sqrt(p * (1 - p) / (n + Z * Z) + center**2 * se_error + (1 - center) ** 2 * sp_error)
    shift = 2 * Z * Z * (center * se_error - (1 - center) * sp_error)
    low, high = (min(1.0, max(0.0, center + shift + side * half)) for side in (-1, 1))
    return Corrected(Interval(100 * value, 100 * min(low, value), 100 * max(high, value)), sensitivity, specificity)
