"""Two contestants on the same prompts: tests of their difference, the decision at a margin, the prompts still needed.

Shares (each answer is right or not) get Tango's score interval and the exact McNemar test; means get the bootstrap of
`intervals`. Does not know what is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from seqdistill.stages.evaluate.statistics.intervals import (
    CONFIDENCE,
    FEWEST,
    Array,
    Deviations,
    Flags,
    Interval,
    Resampled,
    difference,
    share,
    tango,
    tango_z,
)

ALPHA = (1 - CONFIDENCE) / 2  # one-sided, of a claim that the student is not worse
POWER = 0.8  # with which the number of prompts needed would decide

BETTER, EQUIVALENT, NON_INFERIOR, INCONCLUSIVE, INFERIOR = (
    "BETTER",
    "EQUIVALENT",
    "NON-INFERIOR",
    "INCONCLUSIVE",
    "INFERIOR",
)
DECISIONS = (INFERIOR, INCONCLUSIVE, NON_INFERIOR, EQUIVALENT, BETTER)  # from the worst to the best for a student


def decide(gap: Interval | None, margin: float) -> str:
    """What an interval of "student less other" shows at a margin; all in percentage points.

    BETTER: all of it above 0. EQUIVALENT: within the margin on both sides. NON-INFERIOR: not worse by the margin. INFERIOR:
    worse by more than the margin. Else INCONCLUSIVE.
    """
    if gap is None or gap.low is None or gap.high is None:
        return INCONCLUSIVE
    if gap.low > 0:
        return BETTER
    if gap.low > -margin:
        return EQUIVALENT if gap.high < margin else NON_INFERIOR
    return INFERIOR if gap.high < -margin else INCONCLUSIVE


def needed(
    differences: Array, margin: float, groups: Sequence[str] | None = None, *, shares: bool, tests: int = 1
) -> int | None:
    """The prompts, those of this run included, with which non-inferiority would be shown with a chance of POWER.

    Of several `tests` it is shown at alpha over their number, as Holm asks of the first.

    (z_alpha s0 + z_beta s1)^2 / (margin + mean difference)^2, the differences being as seen: s1 is their standard deviation, s0
    that of the test. It is s1 of means; of shares, and where few prompts differ, it is that of the score interval, which is
    larger where few prompts are discordant: Liu et al. 2002, https://doi.org/10.1002/sim.1012. None where the difference seen
    is not within the margin: no number of prompts would show what is not so. With groups, as many more as the prompts are
    worth less than independent ones.
    """
    room = margin + float(differences.mean())
    if room <= 0:
        return None
    normal = NormalDist()
    spread = of_test = float(differences.std())
    few = Deviations.of_shares(differences) if shares else Deviations.of(differences)
    if few is not None:
        of_test = max(0.0 if shares else spread, few.spread(-margin))
    number = ((normal.inv_cdf(1 - ALPHA / tests) * of_test + normal.inv_cdf(POWER) * spread) / room) ** 2
    if not math.isfinite(number):
        return None
    number = max(number, FEWEST)  # below, there is no interval
    return round(math.ceil(number) * len(differences) / effective(differences, groups))


@dataclass(frozen=True)
class Outcome:
    """What the difference of two contestants on the same prompts shows at a margin, in percentage points."""

    gap: Interval | None  # first less second
    p: float | None  # one-sided, of "worse by the margin"
    decision: str
    needed: int | None  # further prompts for a decision where there is none; None: no number would do


def outcome(
    first: Array,
    second: Array,
    margin: float,
    groups: Sequence[str] | None = None,
    drawn: Resampled | None = None,
    columns: tuple[int, int] = (0, 1),
) -> Outcome:
    """Of scores from 0 to 100, (n,) both: of whether each is right; of degrees where their replicates are `drawn`."""
    if drawn is None:
        pair = PairedShares.of(first > 50, second > 50, groups)
        gap: Interval | None = pair.difference()
        p = pair.below(-margin)
    else:
        between = difference(*columns)
        gap, p = drawn.interval(between), drawn.below(between, -margin)
    decision, number = decide(gap, margin), needed(first - second, margin, groups, shares=drawn is None)
    further = None if number is None else max(number - len(first), 1)
    return Outcome(gap, p, decision, further if decision == INCONCLUSIVE else 0)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values adjusted for their number; None stays, and is not counted. Holm 1979, https://jstor.org/stable/4615733."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


# --- shares -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedShares:
    """Two shares, in percent, of the same prompts: each with Wilson's interval, and phi, how much they go together.

    Their difference and ratio get intervals from these. A bootstrap would again claim certainty where all or none hit.
    Where prompts come in groups, counts are divided by the design effect of the difference: Rao and Scott 1992,
    https://doi.org/10.2307/2532311.
    """

    first: Interval
    second: Interval
    phi: float
    n: float  # effective
    only_first: int
    only_second: int
    groups: int  # prompts, or groups of prompts
    scale: float = field(default=1.0)  # effective over real number of prompts

    @classmethod
    def of(cls, first: Flags, second: Flags, groups: Sequence[str] | None = None) -> "PairedShares":
        """From whether each prompt is a hit, (n,) both."""
        n, hits, others = len(first), int(first.sum()), int(second.sum())
        both = int((first & second).sum())
        together = float(both * n - hits * others)  # ad - bc of the fourfold table
        if together > 0:
            together = max(together - n / 2, 0.0)  # Newcombe's correction for continuity
        spread = math.sqrt(hits * (n - hits) * others * (n - others))
        scale = effective(first.astype(float) - second.astype(float), groups) / n
        return cls(
            share(hits * scale, n * scale),
            share(others * scale, n * scale),
            together / spread if spread else 0.0,
            n * scale,
            hits - both,
            others - both,
            n if groups is None else len(set(groups)),
            scale,
        )

    def difference(self) -> Interval:
        """First less second, by Tango's score interval. No interval below `FEWEST` prompts or groups."""
        value = self.first.value - self.second.value
        if self.groups < FEWEST:
            return Interval(value, None, None)
        low, high = tango(self.only_first * self.scale, self.only_second * self.scale, self.n)
        return Interval(value, 100 * float(low), 100 * float(high))

    def below(self, threshold: float) -> float | None:
        """The one-sided p of "the difference is at most `threshold`" points, by the same statistic."""
        if self.groups < FEWEST:
            return None
        z = tango_z(self.only_first * self.scale, self.only_second * self.scale, self.n, threshold / 100)
        return 1 - NormalDist().cdf(float(z)) if math.isfinite(z) else float(z < 0)

    def p(self) -> float:
        """The exact McNemar test's two-sided p; of grouped prompts, of the effective counts, rounded."""
        from scipy.stats import binomtest

        one, other = (round(count * self.scale) for count in (self.only_first, self.only_second))
        return float(binomtest(one, one + other).pvalue) if one + other else 1.0

    def ratio(self) -> Interval | None:
        """First over second, in percent; None where second is 0.

        MOVER: where the interval of first - R * second meets zero. Donner and Zou 2012,
        https://doi.org/10.1177/0962280210383082.
        """
        one, two = self.first.value, self.second.value
        if not two:
            return None
        if self.groups < FEWEST:
            return Interval(100 * one / two, None, None)
        (below, above), (other_below, other_above) = _arms(self.first), _arms(self.second)

        def meets(arm: float, other_arm: float, side: int) -> float:
            square, half = two * two - other_arm * other_arm, one * two - self.phi * arm * other_arm
            root = math.sqrt(max(half * half - square * (one * one - arm * arm), 0.0))
            if side < 0:  # the same root as (half - root) / square, also where square is 0
                return (one * one - arm * arm) / (half + root) if half + root else 0.0
            return (half + root) / square

        return Interval(100 * one / two, 100 * meets(below, other_above, -1), 100 * meets(above, other_below, 1))


def effective(values: Array, groups: Sequence[str] | None) -> float:
    """How many independent prompts the values (n,) are worth: n over the design effect.

    What they are worth more than one a group rests on a design effect that the groups estimate: it is reduced by the squared
    ratio of Student's quantiles, Korn and Graubard 1998, Survey Methodology 24, 193. Where few groups deviate from all others
    nothing is estimated, and each group counts as one prompt.
    """
    from scipy.special import stdtrit

    n = len(values)
    if groups is None:
        return float(n)
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(at)
    many = len(sizes)
    if Deviations.of(100 * np.bincount(at, weights=values) / sizes) is not None:
        return float(many)
    centred = values - values.mean()
    sums = np.bincount(at, weights=centred)
    design = float((sums * sums).sum()) / float((centred * centred).sum()) * many / max(many - 1, 1)
    worth, level = n / max(design, 1.0), (1 + CONFIDENCE) / 2
    if many > 1 and worth > many:
        worth = max(many, worth * float(stdtrit(n - 1, level) / stdtrit(many - 1, level)) ** 2)
    return max(worth, 1.0)


def share_of(hits: Flags, groups: Sequence[str] | None) -> Interval:
    """The share of prompts that are hits, (n,), in percent, with Wilson's interval; of grouped prompts by effective counts."""
    n = effective(hits.astype(float), groups)
    return share(int(hits.sum()) * n / len(hits), n)


def _arms(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None  # Wilson's always has both
    return interval.value - interval.low, interval.high - interval.value
