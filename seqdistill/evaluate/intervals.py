"""Confidence intervals over prompts: how sure a mean, a difference or a ratio of means is.

Owns the statistics of eval. Does not know what is measured.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]

CONFIDENCE = 0.95
FEWEST = 10  # prompts; below, a bootstrap's interval is far too narrow and none is given
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

        BCa, bias-corrected and accelerated: Efron 1987, https://doi.org/10.2307/2289144. No interval for fewer than
        `FEWEST` prompts, or when some replicate is undefined (a ratio to nothing).
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
        below = (np.count_nonzero(replicates < value) + np.count_nonzero(replicates == value) / 2) / len(replicates)
        edge = 0.5 / len(replicates)
        bias = normal.inv_cdf(min(max(below, edge), 1 - edge))
        acceleration = float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))
        shifted = [bias + normal.inv_cdf((1 + side * CONFIDENCE) / 2) for side in (-1, 1)]
        quantiles = [normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
        low, high = np.quantile(replicates, quantiles)
        return Interval(value, float(low), float(high))


def resample(scores: "Array", resamples: int, seed: int) -> Resampled:
    """Bootstrap replicates of the column means of `scores`, (n prompts, K models). The same seed gives the same draw."""
    import numpy as np

    n = len(scores)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, CHUNK):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, resamples - start))  # (R, n): times each was drawn
        parts.append(counts @ scores / n)
    total = scores.sum(axis=0)
    return Resampled(total / n, np.concatenate(parts), (total - scores) / max(n - 1, 1))


def share(hits: int, n: int) -> Interval:
    """A share in percent with Wilson's score interval: a bootstrap of 120 hits in 120 would claim certainty.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = hits / n
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = (0.0 if hits == 0 else center - half), (1.0 if hits == n else center + half)
    return Interval(100 * rate, 100 * low, 100 * high)


@dataclass(frozen=True)
class PairedShares:
    """Two shares, in percent, of the same prompts: each with Wilson's interval, and phi, how much they go together.

    Their difference and ratio get intervals from these. A bootstrap would again claim certainty where all or none hit.
    """

    first: Interval
    second: Interval
    phi: float
    n: int

    @classmethod
    def of(cls, first: "NDArray[np.bool_]", second: "NDArray[np.bool_]") -> "PairedShares":
        """From whether each prompt is a hit, (n,) both."""
        n, hits, others = len(first), int(first.sum()), int(second.sum())
        both = int((first & second).sum())
        together = float(both * n - hits * others)  # ad - bc of the fourfold table
        if together > 0:
            together = max(together - n / 2, 0.0)  # Newcombe's correction for continuity
        spread = math.sqrt(hits * (n - hits) * others * (n - others))
        return cls(share(hits, n), share(others, n), together / spread if spread else 0.0, n)

    def difference(self) -> Interval:
        """First less second. Newcombe 1998, method 10, Statistics in Medicine 17, 2635. None below `FEWEST` prompts."""
        (below, above), (other_below, other_above) = _arms(self.first), _arms(self.second)
        value = self.first.value - self.second.value
        if self.n < FEWEST:
            return Interval(value, None, None)
        return Interval(value, value - self._length(below, other_above), value + self._length(above, other_below))

    def _length(self, one: float, other: float) -> float:
        return math.sqrt(max(one * one + other * other - 2 * self.phi * one * other, 0.0))

    def ratio(self) -> Interval | None:
        """First over second, in percent; None where second is 0.

        MOVER: where the interval of first - R * second meets zero. Donner and Zou 2012,
        https://doi.org/10.1177/0962280210383082.
        """
        one, two = self.first.value, self.second.value
        if not two:
            return None
        if self.n < FEWEST:
            return Interval(100 * one / two, None, None)
        (below, above), (other_below, other_above) = _arms(self.first), _arms(self.second)

        def meets(arm: float, other_arm: float, side: int) -> float:
            square, half = two * two - other_arm * other_arm, one * two - self.phi * arm * other_arm
            root = math.sqrt(max(half * half - square * (one * one - arm * arm), 0.0))
            if side < 0:  # the same root as (half - root) / square, also where square is 0
                return (one * one - arm * arm) / (half + root) if half + root else 0.0
            return (half + root) / square

        return Interval(100 * one / two, 100 * meets(below, other_above, -1), 100 * meets(above, other_below, 1))


def _arms(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None and interval.high is not None  # Wilson's always has both
    return interval.value - interval.low, interval.high - interval.value


def column(k: int) -> "Statistic":
    """The mean of column k."""
    return lambda means: means[..., k]


def difference(k: int, other: int) -> "Statistic":
    """The mean of column k less that of another."""
    return lambda means: means[..., k] - means[..., other]


def ratio(k: int, other: int, scale: float = 1.0) -> "Statistic":
    """The mean of column k over that of another; with scale 100, in percent."""
    return lambda means: scale * means[..., k] / means[..., other]
