"""The cheapest that passes: a ladder of candidates, smallest first, each with one verdict at the margin, one of them confirmed.

The smallest that passes on one half of the prompts is tested on the other half, which had no part in choosing it: so it is
inferior and yet confirmed with a probability of at most ALPHA, however many candidates there are. Knows scores, not files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seqdistill.stages.evaluate.statistics.intervals import Array, Interval, resample
from seqdistill.stages.evaluate.statistics.paired import (
    ALPHA,
    BETTER,
    EQUIVALENT,
    INCONCLUSIVE,
    NON_INFERIOR,
    holm,
    needed,
    outcome,
)

PASSES = (NON_INFERIOR, EQUIVALENT, BETTER)


@dataclass(frozen=True)
class Trial:
    """How candidates are tested against the teacher: by which scores, and at which margin in points."""

    comparator: Array  # (n,) the teacher's score on each prompt, 0 to 100
    ids: Sequence[str]  # (n,) of the prompts
    groups: Sequence[str] | None  # (n,) prompts of one group are not independent
    shares: bool  # whether an answer is right or not; else scores are degrees
    margin: float
    resamples: int
    seed: int

    def of(self, places: Sequence[int]) -> "Trial":
        """The same on some of the prompts."""
        groups = None if self.groups is None else [self.groups[place] for place in places]
        return replace(self, comparator=self.comparator[list(places)], ids=[self.ids[place] for place in places], groups=groups)


@dataclass(frozen=True)
class Verdict:
    """What one candidate's scores show. `p` is one-sided, of "worse by the margin"; adjusted where it is one of a ladder."""

    n: int
    gap: Interval | None  # candidate less teacher, points
    decision: str
    p: float | None
    needed: int | None  # further prompts for a decision where there is none; None: no number would show that it passes

    @property
    def passes(self) -> bool:
        """Whether it is shown to be not inferior."""
        return self.decision in PASSES


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen on one half of the prompts, and its verdict on the other half."""

    chosen: int | None  # its place on the ladder; None: none passed on the choosing half
    choosing: list[Verdict]  # of each candidate on the choosing half, adjusted by Holm
    confirming: Verdict | None  # of the chosen one, on the other half
    halves: tuple[int, int]  # prompts to choose by, prompts to confirm on
    more: int | None  # further prompts with which the choice would likely be confirmed; 0: it is; None: no number would do

    @property
    def confirmed(self) -> bool:
        """Whether the chosen one passes on prompts that it was not chosen by."""
        return self.confirming is not None and self.confirming.passes


def verdict(scores: Array, trial: Trial) -> Verdict:
    """One candidate against the teacher, not adjusted for others."""
    n = len(scores)
    if not n:
        return Verdict(0, None, INCONCLUSIVE, None, None)
    drawn = None
    if not trial.shares:
        drawn = resample(np.stack([scores, trial.comparator], axis=1), trial.resamples, trial.seed, trial.groups)
    found = outcome(scores, trial.comparator, trial.margin, trial.groups, drawn)
    return Verdict(n, found.gap, found.decision, found.p, found.needed)


def enough(scores: Array, trial: Trial, candidates: int = 1) -> int | None:
    """The prompts in all with which one of so many candidates would likely pass, being as it is; None: no number would do."""
    return needed(scores - trial.comparator, trial.margin, trial.groups, shares=trial.shares, tests=candidates)


def verdicts(ladder: Sequence[Array], trial: Trial) -> list[Verdict]:
    """One verdict for each candidate. Holm over them all: what it does not bear is INCONCLUSIVE."""
    alone = [verdict(scores, trial) for scores in ladder]
    found = []
    for one, scores, p in zip(alone, ladder, holm([one.p for one in alone]), strict=True):
        decision = INCONCLUSIVE if one.passes and (p is None or p > ALPHA) else one.decision
        number = enough(scores, trial, len(ladder)) if decision == INCONCLUSIVE and one.n else None
        further = None if number is None else max(number - one.n, 1)
        found.append(replace(one, p=p, decision=decision, needed=further if decision == INCONCLUSIVE else one.needed))
    return found


def choose(ladder: Sequence[Array], trial: Trial) -> Choice:
    """The first of the ladder that passes on one half of the prompts, tested on the other half."""
    first, second = halves(trial.ids, trial.groups)
    choosing = verdicts([scores[first] for scores in ladder], trial.of(first))
    chosen = next((place for place, one in enumerate(choosing) if one.passes), None)
    sizes = len(first), len(second)
    if chosen is None:
        numbers = [number for scores in ladder if (number := enough(scores, trial, len(ladder))) is not None]
        return Choice(None, choosing, None, sizes, _more(min(numbers), trial) if numbers else None)
    confirming = verdict(ladder[chosen][second], trial.of(second))
    if confirming.passes:
        return Choice(chosen, choosing, confirming, sizes, 0)
    number = enough(ladder[chosen], trial)
    return Choice(chosen, choosing, confirming, sizes, None if number is None else _more(number, trial))


def _more(number: int, trial: Trial) -> int:
    """Further prompts so that each half has `number` of them."""
    return max(2 * number - len(trial.ids), 1)


def halves(ids: Sequence[str], groups: Sequence[str] | None) -> tuple[list[int], list[int]]:
    """The places of the prompts in two halves, by the hash of their group or else of their id: no group is in both."""
    names = list(groups) if groups is not None else list(ids)
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(f"half {name}".encode()).hexdigest())
    chosen = set(ranked[: len(ranked) // 2])
    first = [place for place, name in enumerate(names) if name in chosen]
    return first, [place for place, name in enumerate(names) if name not in chosen]
