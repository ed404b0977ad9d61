"""A threshold on a model's confidence with a guarantee: above it, the share of bad answers stays below a limit.

Fixed-sequence testing of Clopper-Pearson bounds, which is Learn-then-Test for one rate: Angelopoulos et al. 2021,
https://arxiv.org/abs/2110.01052; for selective prediction Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500.
Also how well a confidence is calibrated. Does not know models, metrics or files.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from seqdistill.stages.evaluate.statistics.intervals import Array, Flags

Places = NDArray[np.int64]

STEPS = 20  # thresholds that are tried, at most
BINS = 15  # of the calibration error, of equal width
POWER = 0.8  # with which the items needed would be enough
MOST = 1e6  # items in one half; where more would be needed, no number is named
SURE = 0.2  # the share of all items that the first threshold keeps at least
SEEN = 20  # items from which a share of bad answers is read


@dataclass(frozen=True)
class Threshold:
    """The lowest confidence for which the guarantee holds, and what was seen at it."""

    value: float
    kept: int  # calibration items at or above it
    broken: int  # of these, bad ones
    bound: float  # upper bound of the share of bad answers among kept ones, at the risk


def upper_bound(broken: int | Array, n: int | Array, risk: float) -> Array:
    """The one-sided Clopper-Pearson upper bound of a share: it lies below the true one with a probability of at most `risk`.

    Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404. It is 1 where all of `n` are broken, or n is 0.
    """
    from scipy.stats import beta

    broken, n = np.asarray(broken, dtype=np.float64), np.asarray(n, dtype=np.float64)
    found = beta.ppf(1 - risk, broken + 1, np.maximum(n - broken, 1e-9))
    return np.asarray(np.where(broken >= n, 1.0, found))


def candidates(confidence: Array, n: int, target: float, risk: float) -> Array:
    """The thresholds to try on `n` calibration items, strictest first, from the confidences of other items.

    They must not be chosen by the calibration items themselves. A confidence of 0 is never kept; equal ones are together, with
    as many kept as come nearest to what is wanted.
    """
    found = np.sort(confidence[confidence > 0])[::-1]
    if not len(found):
        return found
    places = np.ceil(np.linspace(first_share(n, target, risk), 1.0, STEPS) * len(confidence)).astype(int) - 1
    return np.unique(found[_whole(found, places)])[::-1]


def _whole(ordered: Array, places: Places) -> Places:
    """The places, in confidences that fall, moved to the nearest end of items of equal confidence."""
    places = np.clip(places, 0, len(ordered) - 1)
    above, last = (np.searchsorted(-ordered, -ordered[places], side=side) - 1 for side in ("left", "right"))
    return np.where((above >= 0) & (places - above < last - places), above, last)


def choose(confidence: Array, good: Flags, thresholds: Array, target: float, risk: float) -> Threshold | None:
    """The last threshold of the sequence before the first whose bound is above 1 - `target`; None where the first is.

    Over all draws of the calibration items, the share of bad answers at or above it exceeds 1 - target with a probability of
    at most `risk`, without a correction for the number of thresholds: the first one that breaks the promise ends the sequence
    with a probability of 1 - risk.
    """
    kept = confidence >= thresholds[:, None]  # (T, n)
    numbers, broken = kept.sum(axis=1), (kept & ~good).sum(axis=1)
    bounds = upper_bound(broken, numbers, risk)
    passed = int(np.argmin([*(bounds <= 1 - target), False]))
    if not passed:
        return None
    last = passed - 1
    return Threshold(float(thresholds[last]), int(numbers[last]), int(broken[last]), float(bounds[last]))


def first_share(n: int, target: float, risk: float) -> float:
    """The share of `n` items that the first threshold keeps: few, for they are the surest, and yet enough for a bound.

    Enough is what holds the guarantee with up to two bad answers, as far as half of the items allow it.
    """
    counts = [fewest(broken, target, risk) for broken in (2, 1, 0)]
    enough = next((count for count in counts if 2 * count <= n), counts[-1])
    return min(1.0, max(SURE, (enough + math.sqrt(enough)) / n)) if n else 1.0


@cache
def fewest(broken: int, target: float, risk: float) -> int:
    """The smallest number of kept answers that holds the guarantee with this number of bad ones among them."""
    from scipy.stats import binom

    low, high = broken, 16
    while binom.cdf(broken, high, 1 - target) > risk:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binom.cdf(broken, middle, 1 - target) <= risk else (middle, high)
    return high


def needed(confidence: Array, good: Flags, target: float, risk: float) -> int | None:
    """The items, both halves together, with which a threshold is found with a power of `POWER`; None: as it is, with none.

    One is found where the first of the sequence passes. The share of bad answers among the surest is taken to be as seen,
    half a bad and half a good answer added; that of fewer than `SEEN` items to be that of `SEEN`.
    """
    from scipy.stats import binom

    order = np.argsort(-confidence, kind="stable")
    order = order[confidence[order] > 0]
    if not len(order):
        return None
    rates = (np.cumsum(~good[order]) + 0.5) / (np.arange(len(order)) + 2)
    halves = np.unique(np.geomspace(8, MOST, 400).astype(np.int64))
    shares = np.array([first_share(int(half), target, risk) for half in halves])
    wanted = np.clip(np.ceil(shares * len(confidence)).astype(int), 1, len(order)) - 1
    places = _whole(confidence[order], wanted)
    kept = np.minimum(shares + (places - wanted) / len(confidence), len(order) / len(confidence)) * halves
    kept = np.floor(np.where(places == wanted, kept, np.maximum(kept - np.sqrt(kept), 0)))  # how many are equal is a draw
    places = np.maximum(places, min(SEEN, len(order)) - 1)
    most = binom.ppf(risk, kept, 1 - target)  # the most bad ones with which the bound holds, or one more
    most = np.where(binom.cdf(most, kept, 1 - target) <= risk, most, most - 1)
    enough = (most >= 0) & (rates[places] < 1 - target) & (binom.cdf(most, kept, rates[places]) >= POWER)
    return 2 * int(halves[np.argmax(enough)]) if enough.any() else None


def more_needed(broken: int, n: int, target: float, risk: float) -> int | None:
    """The further items with which a promise is shown to hold, or to be broken, with a power of `POWER`.

    The share of broken ones is taken to be as seen. None where it is so near to 1 - `target` that no number below `MOST` will
    do.
    """
    from scipy.stats import binom

    rate, allowed = (broken + 0.5) / (n + 1), 1 - target
    numbers = np.unique(np.geomspace(max(n, 8), MOST, 600).astype(np.int64))
    if rate < allowed:  # the most broken ones at which the upper bound is within what is allowed
        most = binom.ppf(risk, numbers, allowed)
        most = np.where(binom.cdf(most, numbers, allowed) <= risk, most, most - 1)
        power = np.where(most >= 0, binom.cdf(most, numbers, rate), 0.0)
    else:  # the fewest at which the lower bound is beyond it
        fewest_broken = binom.isf(risk, numbers, allowed) + 1
        power = binom.sf(fewest_broken - 1, numbers, rate)
    enough = power >= POWER
    return max(1, int(numbers[np.argmax(enough)]) - n) if enough.any() else None


def calibration_error(confidence: Array, good: Flags, bins: int = BINS) -> float:
    """The expected calibration error: the mean distance of confidence and share of good answers, over bins of equal width.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. From 0 to 1.
    """
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=confidence - good, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def ranking(confidence: Array, good: Flags) -> float | None:
    """The AUROC: how likely a good answer has a higher confidence than a bad one; None where all are good, or all bad."""
    from scipy.stats import rankdata

    first = int(good.sum())
    second = len(good) - first
    if not first or not second:
        return None
    return float((rankdata(confidence)[good].sum() - first * (first + 1) / 2) / (first * second))
