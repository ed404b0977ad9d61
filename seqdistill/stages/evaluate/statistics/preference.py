"""Win rates from a judge's preferences: raw, for answers of equal length, and corrected by human labels.

A preference is 1 where the student's answer is preferred, 0 where the teacher's is, and one half for a tie. Where prompts come
in groups, errors are those of groups. Sends no requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from seqdistill.stages.evaluate.statistics.intervals import CONFIDENCE, FEWEST, Array, Flags, Interval, expanded_z, unseen
from seqdistill.stages.evaluate.statistics.paired import effective

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
FEWEST_LABELS = 10  # for a correction
DRAWN = 0.05  # the level at which labels are said not to be drawn at random
RIDGE = 1e-6  # keeps the fit finite where length alone separates wins from losses


@dataclass(frozen=True)
class Corrected:
    """A share corrected for a judge's errors, in percent, and the errors."""

    share: Interval
    sensitivity: float  # 0 to 1: how often the judge says so where people do
    specificity: float  # how often it denies it where people do


def length_controlled(
    preferences: Array, lengths: Array, others: Array, groups: Sequence[str] | None = None
) -> Interval | None:
    """The win rate, in percent, that a logistic model predicts for answers of equal length.

    AlpacaEval's formula without its table of instruction difficulties ("length_controlled_minimal" there): the logit of a win
    is a constant plus a multiple of tanh(length difference / its standard deviation). Dubois et al. 2024,
    https://arxiv.org/abs/2404.04475. The interval is the sandwich estimator's, clustered by group; where the model leaves
    hardly a preference unexplained, as where all are wins, it is at least as wide as that of a share of which every prompt is a
    hit. None for fewer than `FEWEST` prompts or groups, and where all lengths differ equally.
    """
    from scipy.special import expit

    gap = lengths - others
    independent = len(gap) if groups is None else len(set(groups))
    if independent < FEWEST or not (spread := gap.std(ddof=1)) > 0:
        return None
    design = np.stack([np.ones(len(gap)), np.tanh(gap / spread)], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's method
        expected = expit(np.clip(design @ weights, -35, 35))
        slope = design.T @ (preferences - expected) - RIDGE * weights
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    influence = (design * (preferences - expected)[:, None]) @ np.linalg.inv(curvature)[0]
    error = math.sqrt(_variance(influence, groups))
    value, low, high = (100 * float(expit(weights[0] + side * Z * error)) for side in (0, -1, 1))
    if np.abs(preferences - expected).sum() < FEWEST:
        apart = 100 * unseen(independent)
        low, high = max(0.0, min(low, value - apart)), min(100.0, max(high, value + apart))
    return Interval(value, low, high)


def prediction_powered(labels: Array, judged: Array) -> tuple[float, float]:
    """The mean label and its variance: the judge's mean on what is not labelled, corrected by its errors where it is.

    `labels` is NaN where there is none. Prediction-powered inference with power tuning, PPI++: Angelopoulos, Duchi and Zrnic
    2023, https://arxiv.org/abs/2311.01453; as `ppi_mean_ci` of ppi_py computes it.
    """
    value, influences = _influences(labels, judged)
    return value, _variance(influences)


def _influences(labels: Array, judged: Array) -> tuple[float, Array]:
    """The prediction-powered mean, and by how much each prompt moves it."""
    known = ~np.isnan(labels)
    n, others = int(known.sum()), int((~known).sum())
    tuning, of_known = 0.0, labels[known]
    if others and (spread := np.cov(judged)) > 0:
        together = ((of_known - of_known.mean()) * (judged[known] - judged[known].mean())).mean()
        tuning = float(np.clip(together / ((1 + n / others) * spread), 0, 1))
    errors, alone = of_known - tuning * judged[known], tuning * judged[~known]
    influences = np.empty(len(labels))
    influences[known] = (errors - errors.mean()) / n
    influences[~known] = (alone - alone.mean()) / others if others else 0.0
    return float(errors.mean() + (alone.mean() if others else 0.0)), influences


def _variance(influences: Array, groups: Sequence[str] | None = None) -> float:
    """The variance of a sum of prompts' influences, (n,); of groups, where these vary together, more."""
    alone = float((influences**2).sum())
    if groups is None:
        return alone
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(group, weights=influences)
    return max(alone, float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1))


def corrected_mean(
    labels: Array, preferences: Array, strata: Sequence[int], groups: Sequence[str] | None = None
) -> Interval | None:
    """The mean preference of people, in percent; `labels` is NaN where there is none. None with too few labels.

    Labels must be drawn at random within a stratum, not over all: each stratum is corrected by its own labels and counts by
    its size. Where one of them has fewer than `FEWEST_LABELS`, and not all of its labels, they are taken as one: for that the
    labels must be drawn at random over all. In each, the interval is at least as wide as Wilson's of labels that are all equal.
    No interval where labels are of fewer than `FEWEST` groups.
    """
    known, of = ~np.isnan(labels), np.asarray(strata)
    if int(known.sum()) < FEWEST_LABELS:
        return None
    if any(int(known[of == one].sum()) < min(FEWEST_LABELS, int((of == one).sum())) for one in np.unique(of)):
        if not drawn_over_all(known, strata):
            return None
        of = np.zeros(len(of), dtype=int)
    value = alike = 0.0
    influences, means = np.zeros(len(labels)), np.zeros(len(labels))
    for one in np.unique(of):
        mine, weight = of == one, float((of == one).mean())
        mean, of_mine = _influences(labels[mine], preferences[mine])
        if (mine & ~known).any():  # their spread is estimated from few labels
            of_mine *= expanded_z((1 + CONFIDENCE) / 2, int((mine & known).sum())) / Z
        worth = effective(labels[mine & known], groups_at(groups, mine & known))
        least = (unseen(worth) / Z) ** 2  # n labels that are alike do not show that all are
        alike += weight**2 * max(0.0, least - _variance(of_mine, groups_at(groups, mine)))
        value += weight * mean
        influences[mine], means[mine] = weight * of_mine, mean
    influences += (means - value) / len(labels)  # how many prompts are of each kind is a draw, too
    labelled = groups_at(groups, known)
    if labelled is not None and len(set(labelled)) < FEWEST:
        return Interval(100 * value, None, None)
    half = Z * math.sqrt(_variance(influences, groups) + alike)
    return Interval(100 * value, 100 * max(0.0, value - half), 100 * min(1.0, value + half))


def drawn_over_all(known: Flags, strata: Sequence[int]) -> bool:
    """Whether labels may be a draw from all prompts: no stratum of two, 0 and 1, has more of them than chance gives."""
    from scipy.stats import binomtest

    of = np.asarray(strata)
    number = int(known.sum())
    return not number or bool(binomtest(int(of[known].sum()), number, float(of.mean())).pvalue > DRAWN)


def among_ties(found: Interval | None, differ: Flags, tie: float, groups: Sequence[str] | None = None) -> Interval | None:
    """The rate over all pairs, in percent, from that of those that differ: one of the same text counts `tie` for certain."""
    if found is None or found.low is None or found.high is None:
        return found and Interval(tie + float(differ.mean()) * (found.value - tie), None, None)
    part, n = float(differ.mean()), effective(differ.astype(float), groups)
    of_part = Z * math.sqrt(part * (1 - part) / n) * abs(found.value - tie)
    value = tie + part * (found.value - tie)
    low, high = (math.hypot(part * (found.value - end), of_part) for end in (found.low, found.high))
    return Interval(value, max(0.0, value - low), min(100.0, value + high))


def groups_at(groups: Sequence[str] | None, which: Flags) -> list[str] | None:
    """The groups of some of the prompts; None where no two of them share one."""
    found = [group for group, wanted in zip(groups or (), which, strict=groups is not None) if wanted]
    return found if len(set(found)) < len(found) else None


def corrected_share(
    labels: Flags,
    judged_labelled: Flags,
    judged: Flags,
    groups: Sequence[str] | None = None,
    groups_labelled: Sequence[str] | None = None,
) -> Corrected | None:
    """The share of prompts of which people would say so, from what the judge says of all; None where it cannot be corrected.

    Rogan and Gladen 1978, https://doi.org/10.1093/oxfordjournals.aje.a112510, with the interval of Lang and Reiczigel 2014,
    https://doi.org/10.1016/j.prevetmed.2013.09.015. The labelled prompts must be drawn at random. `groups` are those of
    `judged`, `groups_labelled` those of the labels: counts are divided by the design effects of what the judge says, and of its
    errors.
    """
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative or positive + negative < FEWEST_LABELS:
        return None
    hits, rejections = int((labels & judged_labelled).sum()), int((~labels & ~judged_labelled).sum())
    sensitivity, specificity = hits / positive, rejections / negative
    seen = float(judged.mean())
    if sensitivity + specificity <= 1:
        return None  # the judge is no better than a coin
    value = min(1.0, max(0.0, (seen + specificity - 1) / (sensitivity + specificity - 1)))
    scale = effective((labels != judged_labelled).astype(float), groups_labelled) / len(labels)
    n = effective(judged.astype(float), groups)
    p = (n * seen + Z * Z / 2) / (n + Z * Z)
    positives, negatives = positive * scale + 2, negative * scale + 2
    se, sp = (hits * scale + 1) / positives, (rejections * scale + 1) / negatives
    slope = se + sp - 1
    center = (p + sp - 1) / slope
    se_error, sp_error = se * (1 - se) / positives, sp * (1 - sp) / negatives
    half = Z / slope * math.sqrt(p * (1 - p) / (n + Z * Z) + center**2 * se_error + (1 - center) ** 2 * sp_error)
    shift = 2 * Z * Z * (center * se_error - (1 - center) * sp_error)
    low, high = (min(1.0, max(0.0, center + shift + side * half)) for side in (-1, 1))
    return Corrected(Interval(100 * value, 100 * min(low, value), 100 * max(high, value)), sensitivity, specificity)
