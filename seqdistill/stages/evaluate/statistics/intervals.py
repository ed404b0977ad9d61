"""Confidence intervals over prompts: how sure a mean, a share, a difference or a ratio of means is.

Where prompts come in groups (several questions on one document), groups are drawn, not prompts. Does not know what is
measured. Tests and the decision at a margin are in `paired`.

A bootstrap of scores that are all equal, or nearly all, knows nothing of prompts that it has not seen: there the score
interval of shares, Wilson's and Tango's, is added to it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Statistic = Callable[[Array], Array]

CONFIDENCE = 0.95
FEWEST = 10  # prompts, or groups; below, a bootstrap's interval is far too narrow and none is reported
ENOUGH = 20  # prompts, or groups; below, an interval carries a warning
CHUNK = 256  # resamples drawn at once: bounds the memory, not the result
EQUAL = 1e-9  # relative: what sums of floats of equal scores differ by
STEPS = 60  # halvings of [-1, 1]: the last bit


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

    means: Array  # (K,)
    replicates: Array  # (R, K)
    jackknife: Array  # (n, K)
    each: Array  # (n, K) the mean of each prompt, or group

    def of_columns(self, start: int, end: int) -> "Resampled":
        """The same of some of the columns."""
        return Resampled(*(of[..., start:end] for of in (self.means, self.replicates, self.jackknife, self.each)))

    def interval(self, statistic: Statistic) -> Interval | None:
        """The value of a statistic of the means, (..., K) -> (...), with its interval; None where it is undefined.

        BCa, bias-corrected and accelerated: Efron 1987, https://doi.org/10.2307/2289144; expanded for few prompts, or groups.
        Of a `ScoreMean` of which few prompts deviate, also that of `Deviations`. No interval for fewer than `FEWEST`, when
        some replicate is undefined (a ratio to nothing), or for another statistic that no replicate moves.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(self.means))
            replicates, left_out = statistic(self.replicates), statistic(self.jackknife)
        if not math.isfinite(value):
            return None
        if len(self.jackknife) < FEWEST or not (np.isfinite(replicates).all() and np.isfinite(left_out).all()):
            return Interval(value, None, None)
        ends: list[float] = []
        if _varies(replicates, value) and _varies(left_out, value):
            bias, acceleration = self._bias(value, replicates), _acceleration(left_out)
            shifted = [bias + expanded_z((1 + side * CONFIDENCE) / 2, len(left_out)) for side in (-1, 1)]
            quantiles = [NormalDist().cdf(bias + z / (1 - acceleration * z)) for z in shifted]
            ends += map(float, np.quantile(replicates, quantiles))
        if (few := self._deviations(statistic)) is not None:
            ends += few.ends()
        return Interval(value, min(value, *ends), max(value, *ends)) if ends else Interval(value, None, None)

    def below(self, statistic: Statistic, threshold: float) -> float | None:
        """The one-sided p of "the statistic is at most `threshold`", by the same BCa: small when it is shown to be higher.

        It is below (1 - CONFIDENCE) / 2 where the interval lies above the threshold. None without an interval.
        """
        found = self.interval(statistic)
        if found is None or found.low is None:
            return None
        replicates, left_out = statistic(self.replicates), statistic(self.jackknife)
        p: list[float] = []
        if _varies(replicates, found.value) and _varies(left_out, found.value):
            normal, edge = NormalDist(), 0.5 / len(replicates)
            share_below = float(np.count_nonzero(replicates <= threshold) / len(replicates))
            bias, acceleration = self._bias(found.value, replicates), _acceleration(left_out)
            length = normal.inv_cdf(min(max(share_below, edge), 1 - edge)) - bias  # BCa's quantile, solved for its z
            p.append(level_of(length / (1 + acceleration * length) - bias, len(left_out)))
        if (few := self._deviations(statistic)) is not None:
            p.append(few.below(threshold))
        return max(p)

    def hardly_varies(self, statistic: "ScoreMean") -> bool:
        """Whether a bootstrap alone says little of it: fewer than `FEWEST` prompts, or groups, deviate from all others."""
        return self._deviations(statistic) is not None

    def _deviations(self, statistic: Statistic) -> "Deviations | None":
        return Deviations.of(statistic(self.each), statistic.lowest) if isinstance(statistic, ScoreMean) else None

    def _bias(self, value: float, replicates: Array) -> float:
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


def _varies(values: Array, around: float) -> bool:
    return float(np.ptp(values)) > EQUAL * max(abs(around), 1.0)


def _acceleration(left_out: Array) -> float:
    spread = left_out.mean() - left_out
    return float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))


def resample(scores: Array, resamples: int, seed: int, groups: Sequence[str] | None = None) -> Resampled:
    """Bootstrap replicates of the column means of `scores`, (n prompts, K models). The same seed gives the same draw.

    `groups` names the group of each prompt: whole groups are drawn, and the jackknife leaves out one group at a time.
    """
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
    each = sums / sizes[:, None]
    return Resampled(total / sizes.sum(), np.concatenate(parts), (total - sums) / np.maximum(left, 1), each)


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


@dataclass(frozen=True)
class ScoreMean:
    """A statistic: the mean of column `k`, scores from 0 to 100, or what it is more than that of column `less`."""

    k: int
    less: int | None = None
    lowest: float = 0.0  # of a score, or of a difference; the highest is 100

    def __call__(self, means: Array) -> Array:
        found: Array = means[..., self.k]
        return found if self.less is None else found - means[..., self.less]


def unseen(n: float) -> float:
    """Up to which share of prompts may be unlike n that are all alike: Wilson's bound of 0 in n, from 0 to 1."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return z * z / (n + z * z)


def column(k: int) -> ScoreMean:
    """The mean of column k, of scores from 0 to 100."""
    return ScoreMean(k)


def difference(k: int, other: int) -> ScoreMean:
    """The mean of column k less that of another, both of scores from 0 to 100."""
    return ScoreMean(k, other, -100.0)


def ratio(k: int, other: int, scale: float = 1.0) -> Statistic:
    """The mean of column k over that of another; with scale 100, in percent."""
    return lambda means: scale * means[..., k] / means[..., other]


def gap_closed(k: int, base: int, top: int) -> Statistic:
    """How much of the way from the mean of column `base` to that of `top` column k has come, in percent."""
    return lambda means: 100.0 * (means[..., k] - means[..., base]) / (means[..., top] - means[..., base])


# --- score intervals: for shares, and for scores that hardly vary -------------------------------------------------------------


def tango_z(only_first: Any, only_second: Any, n: Any, difference: Any) -> Any:
    """Tango's score statistic for a difference of paired shares (-1 to 1); elementwise on arrays too.

    Tango 1998, Statistics in Medicine 17, 891: the discordant share is estimated under the hypothesis.
    """
    b, c, d = np.asarray(only_first, float), np.asarray(only_second, float), np.asarray(difference, float)
    linear = -b - c + (2 * n - b + c) * d
    constant = -c * d * (1 - d)
    second = (np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * np.maximum(2 * second + d * (1 - d), 0)
    distance = b - c - n * d
    with np.errstate(divide="ignore", invalid="ignore"):
        certain = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
        return np.where(variance > 0, distance / np.sqrt(variance), certain)


def tango(only_first: Any, only_second: Any, n: Any) -> tuple[Any, Any]:
    """Tango's score interval of the difference of two paired shares, first less second, from -1 to 1; elementwise."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    ends = []
    for target in (z, -z):
        low, high = np.full(np.shape(only_first), -1.0), np.full(np.shape(only_first), 1.0)
        for _ in range(STEPS):  # the statistic falls as the difference rises
            middle = (low + high) / 2
            above = tango_z(only_first, only_second, n, middle) > target
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]


@dataclass(frozen=True)
class Deviations:
    """Values of n prompts, or groups, of which nearly all are the same, by what the others deviate from it.

    Its interval is Tango's, the points above counted as whole prompts won, those below as lost: of n equal values
    z^2 / (n + z^2) on both sides, which is Wilson's of 0 in n; of values that are all 0, 100 or -100, that of shares.
    """

    n: int
    usual: float
    above: float  # points, in whole prompts
    below_usual: float
    lowest: float

    @classmethod
    def of(cls, values: Array, lowest: float = -100.0) -> "Deviations | None":
        """From scores or differences, (n,), of at most 100; None where at least `FEWEST` deviate, or half of them."""
        found, counts = np.unique(np.round(values, 6), return_counts=True)
        n, most = len(values), int(counts.max())
        if n - most >= min(FEWEST, n / 2):
            return None
        usual = float(found[counts.argmax()])
        apart = np.round(values, 6) - usual
        return cls(n, usual, float(apart.clip(0).sum()) / 100, float((-apart).clip(0).sum()) / 100, lowest)

    @classmethod
    def of_shares(cls, differences: Array) -> "Deviations":
        """From differences of shares, (n,): 100, 0 or -100. However many deviate, Tango's interval is theirs."""
        won, lost = float(differences.clip(0).sum()), float((-differences).clip(0).sum())
        return cls(len(differences), 0.0, won / 100, lost / 100, -100.0)

    def spread(self, threshold: float) -> float:
        """The standard deviation of a value, in points, under the hypothesis that the mean is `threshold`."""
        distance = max(-1.0, (threshold - self.usual) / 100)
        one = float(tango_z(self.above / self.n, self.below_usual / self.n, 1, distance))
        return 100 * ((self.above - self.below_usual) / self.n - distance) / one

    def ends(self) -> tuple[float, float]:
        """The ends of the interval."""
        low, high = tango(self.above, self.below_usual, self.n)
        return max(self.usual + 100 * float(low), self.lowest), min(self.usual + 100 * float(high), 100.0)

    def below(self, threshold: float) -> float:
        """The one-sided p of "the mean is at most `threshold`"."""
        distance = max(-1.0, min(1.0, (threshold - self.usual) / 100))
        z = float(tango_z(self.above, self.below_usual, self.n, distance))
        return 1 - NormalDist().cdf(z) if math.isfinite(z) else float(z < 0)
