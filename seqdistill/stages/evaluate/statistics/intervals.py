"""Confidence intervals over prompts: how sure a mean, a share, a difference or a ratio of means is.

Where prompts come in groups (several questions on one document), groups are drawn, not prompts. Does not know what is
measured. Tests and the decision at a margin are in `paired`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]

CONFIDENCE = 0.95
FEWEST = 10  # prompts, or groups; below, a bootstrap's interval is far too narrow and none is reported
ENOUGH = 20  # prompts, or groups; below, an interval carries a warning
CHUNK = 256  # resamples drawn at once: bounds the memory, not the result


@dataclass(frozen=True)
class Interval:
    """A number and its 95% interval; `low` and `high` are None where the data cannot give one."""

    value: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 when the whole interval lies above zero, -1 when below, 0 when it holds zero or is unknown."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def group_names(prompts: Iterable[tuple[str, str | None]]) -> list[str]:
    """The name of each prompt's group, from its id and its group; a prompt without one is a group of its own."""
    return [f"group {group}" if group is not None else f"prompt {name}" for name, group in prompts]


def shared_groups(prompts: Iterable[tuple[str, str | None]]) -> list[str] | None:
    """The same; None where no two prompts share a group."""
    names = group_names(prompts)
    return names if len(set(names)) < len(names) else None


def row_of(interval: Interval | None) -> dict[str, float | None]:
    """An interval as JSON holds it."""
    values = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip(("value", "low", "high"), map(rounded, values), strict=True))


def rounded(value: float | None) -> float | None:
    """Six decimals: what sums of floats in another order on another machine cannot move; never -0."""
    return None if value is None else round(value, 6) + 0.0


@dataclass(frozen=True)
class Resampled:
    """Bootstrap replicates of several models' mean scores on the same prompts.

    Every replicate draws prompts, not answers, so a statistic of two columns is paired: what makes a prompt hard for both
    models cancels.
    """

    means: "Array"  # (K,)
    replicates: "Array"  # (R, K)
    jackknife: "Array"  # (n, K)

    def interval(self, statistic: "Statistic") -> Interval | None:
        """The value of a statistic of the means, (..., K) -> (...), with its interval; None where it is undefined.

        BCa, bias-corrected and accelerated: Efron 1987, https://doi.org/10.2307/2289144; expanded for few prompts, or groups.
        No interval for fewer than `FEWEST`, or when some replicate is undefined (a ratio to nothing).
        """
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(self.means))
            replicates, left_out = statistic(self.replicates), statistic(self.jackknife)
        if not math.isfinite(value):
            return None
        if len(self.jackknife) < FEWEST or not (np.isfinite(replicates).all() and np.isfinite(left_out).all()):
            return Interval(value, None, None)
        spread = left_out.mean() - left_out
        if not np.ptp(replicates) > 0 or not np.any(spread):
            return Interval(value, value, value)
        normal = NormalDist()
        bias, acceleration = self._bias(value, replicates), _acceleration(spread)
        shifted = [bias + expanded_z((1 + side * CONFIDENCE) / 2, len(left_out)) for side in (-1, 1)]
        quantiles = [normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
        low, high = np.quantile(replicates, quantiles)
        return Interval(value, float(low), float(high))

    def below(self, statistic: "Statistic", threshold: float) -> float | None:
        """The one-sided p of "the statistic is at most `threshold`", by the same BCa: small when it is shown to be higher.

        It is below (1 - CONFIDENCE) / 2 where the interval lies above the threshold. None without an interval.
        """
        import numpy as np

        found = self.interval(statistic)
        if found is None or found.low is None:
            return None
        if found.low == found.high:
            return float(found.value <= threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates, left_out = statistic(self.replicates), statistic(self.jackknife)
        normal, edge = NormalDist(), 0.5 / len(replicates)
        share_below = float(np.count_nonzero(replicates <= threshold) / len(replicates))
        bias, acceleration = self._bias(found.value, replicates), _acceleration(left_out.mean() - left_out)
        length = normal.inv_cdf(min(max(share_below, edge), 1 - edge)) - bias  # BCa's quantile, solved for its z
        return level_of(length / (1 + acceleration * length) - bias, len(left_out))

    def _bias(self, value: float, replicates: "Array") -> float:
        import numpy as np

        below = (np.count_nonzero(replicates < value) + np.count_nonzero(replicates == value) / 2) / len(replicates)
        edge = 0.5 / len(replicates)
        return NormalDist().inv_cdf(min(max(below, edge), 1 - edge))


def expanded_z(level: float, n: int) -> float:
    """The normal quantile to read a bootstrap of n prompts, or groups, at, so that a mean's interval is Student's.

    A bootstrap is too narrow by sqrt((n - 1) / n), and takes the normal's quantile for Student's: Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789; `ExpandProbs` in his R package resample.
    """
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, level)) * math.sqrt(n / (n - 1))


def level_of(z: float, n: int) -> float:
    """The level whose `expanded_z` is z."""
    from scipy.special import stdtr

    return float(stdtr(n - 1, z / math.sqrt(n / (n - 1))))


def _acceleration(spread: "Array") -> float:
    return float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))


def resample(scores: "Array", resamples: int, seed: int, groups: Sequence[str] | None = None) -> Resampled:
    """Bootstrap replicates of the column means of `scores`, (n prompts, K models). The same seed gives the same draw.

    `groups` names the group of each prompt: whole groups are drawn, and the jackknife leaves out one group at a time.
    """
    import numpy as np

    sums, sizes = scores, np.ones(len(scores))
    if groups is not None:
        names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        at = np.array([names[name] for name in groups], dtype=np.int64)
        sizes = np.bincount(at, minlength=len(names)).astype(np.float64)
        sums = np.zeros((len(names), scores.shape[1]))
        np.add.at(sums, at, scores)
    n = len(sums)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, CHUNK):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, resamples - start))  # (R, n): times each was drawn
        parts.append(counts @ sums / (counts @ sizes)[:, None])
    total = sums.sum(axis=0)
    left = (sizes.sum() - sizes)[:, None]
    return Resampled(total / sizes.sum(), np.concatenate(parts), (total - sums) / np.maximum(left, 1))


def share(hits: float, n: float) -> Interval:
    """A share in percent with Wilson's score interval: a bootstrap of 120 hits in 120 would claim certainty.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953. The counts of grouped prompts are effective ones, which need
    not be whole.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = hits / n
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = (0.0 if hits == 0 else center - half), (1.0 if hits == n else center + half)
    return Interval(100 * rate, 100 * low, 100 * high)


def column(k: int) -> "Statistic":
    """The mean of column k."""
    return lambda means: means[..., k]


def difference(k: int, other: int) -> "Statistic":
    """The mean of column k less that of another."""
    return lambda means: means[..., k] - means[..., other]


def ratio(k: int, other: int, scale: float = 1.0) -> "Statistic":
    """The mean of column k over that of another; with scale 100, in percent."""
    return lambda means: scale * means[..., k] / means[..., other]


def gap_closed(k: int, base: int, top: int) -> "Statistic":
    """How much of the way from the mean of column `base` to that of `top` column k has come, in percent."""
    return lambda means: 100.0 * (means[..., k] - means[..., base]) / (means[..., top] - means[..., base])
