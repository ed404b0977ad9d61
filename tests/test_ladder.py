"""The cheapest that passes: chosen on one half, confirmed on the other; errors of the choice by simulation with known truth."""

import numpy as np
import pytest

from seqdistill.family.ladder import Trial, choose, halves, verdict, verdicts
from seqdistill.stages.evaluate.statistics.paired import ALPHA

MARGIN = 5.0


def trial(top: "np.ndarray", *, shares: bool = False, groups: list[str] | None = None, resamples: int = 100) -> Trial:
    return Trial(top, [f"p{n}" for n in range(len(top))], groups, shares, MARGIN, resamples, 0)


def degrees(rng: np.random.Generator, n: int, gaps: list[float]) -> tuple["np.ndarray", list["np.ndarray"]]:
    """The teacher's scores, and those of candidates that are worse by these gaps, on the same prompts."""
    top = rng.normal(80, 8, n)
    return top, [top - gap + rng.normal(0, 10, n) for gap in gaps]


def right_or_wrong(rng: np.random.Generator, n: int, gaps: list[float]) -> tuple["np.ndarray", list["np.ndarray"]]:
    """The same where an answer is right or not: the teacher is right on 80%."""
    ease = rng.random(n)
    found = [100.0 * (np.where(rng.random(n) < 0.7, ease, rng.random(n)) < 0.8 - gap / 100) for gap in [0.0, *gaps]]
    return found[0], found[1:]


KINDS = pytest.mark.parametrize(("draw", "shares"), [(degrees, False), (right_or_wrong, True)])


@KINDS
def test_a_candidate_that_is_worse_by_the_margin_is_chosen_and_confirmed_at_most_alpha_of_the_time(draw, shares) -> None:
    """Every candidate is worse by exactly the margin: the hardest case. Without a second half, the luckiest would pass."""
    rng, times, confirmed, lucky = np.random.default_rng(0), 60, 0, 0
    for _ in range(times):
        top, ladder = draw(rng, 120, [MARGIN] * 3)
        tested = trial(top, shares=shares)
        confirmed += choose(ladder, tested).confirmed
        lucky += min(verdict(scores, tested).p for scores in ladder) <= ALPHA
    assert confirmed / times <= ALPHA
    assert lucky / times > 1.5 * ALPHA


@KINDS
def test_a_candidate_that_was_chosen_by_luck_is_confirmed_at_most_alpha_of_the_time(draw, shares) -> None:
    """It is worse by exactly the margin, but right on every prompt it is chosen by: the other half knows nothing of that."""
    rng, times, confirmed = np.random.default_rng(1), 120, 0
    ids = [f"p{n}" for n in range(200)]
    first, _ = halves(ids, None)
    for _ in range(times):
        top, ladder = draw(rng, 200, [MARGIN])
        ladder[0][first] = top[first]
        choice = choose(ladder, trial(top, shares=shares))
        assert choice.chosen == 0
        confirmed += choice.confirmed
    assert 0 < confirmed / times <= ALPHA + 0.0125, "and not never: the simulation is at the edge"


def test_the_smallest_good_one_is_chosen_and_confirmed() -> None:
    top, ladder = degrees(np.random.default_rng(2), 400, [15.0, 1.0, 0.0])
    choice = choose(ladder, trial(top))
    assert (choice.chosen, choice.confirmed, choice.more) == (1, True, 0)
    assert choice.halves == (200, 200) and choice.confirming is not None and choice.confirming.n == 200
    assert choice.choosing[0].decision == "INFERIOR"


def test_what_does_not_pass_says_how_many_more_prompts_or_that_none_would_do() -> None:
    rng = np.random.default_rng(5)
    top, (nearly, bad) = degrees(rng, 40, [3.0, 20.0])
    choice = choose([bad, nearly], trial(top))
    assert choice.chosen is None and choice.more is not None and choice.more > 40
    assert choose([bad], trial(top)).more is None
    loss, confirmed = float(np.mean(top) - np.mean(nearly)), 0
    for _ in range(60):
        top, ladder = degrees(rng, 40 + choice.more, [loss])
        confirmed += choose(ladder, trial(top)).confirmed
    assert confirmed / 60 > 0.5, "each half passes with a power of .8"


@KINDS
def test_with_as_many_more_prompts_the_one_of_several_that_may_pass_is_chosen_with_the_stated_power(draw, shares) -> None:
    """By the number for a single test it was chosen in half of the draws only."""
    rng = np.random.default_rng(6)
    top, ladder = draw(rng, 40, [25.0] * 5 + [1.0])
    if shares:  # a tenth is discordant
        ladder[-1] = np.where(np.arange(40) < 2, 0.0, np.where(np.arange(40) < 4, 100.0, top))
        top[:4] = 100 - ladder[-1][:4]
    more, gap = choose(ladder, trial(top, shares=shares)).more, float((top - ladder[-1]).mean())
    spread = float((top - ladder[-1]).std())
    assert more is not None
    chosen, times, n = 0, 50, 40 + more
    for _ in range(times):
        if shares:
            top, ladder = right_or_wrong(rng, n, [25.0] * 5)
            kind = rng.random(n)
            top[kind < 0.1] = 100.0 * (kind[kind < 0.1] < 0.05)
            ladder.append(np.where(kind < 0.1, 100 - top, top))
        else:
            top, ladder = degrees(rng, n, [25.0] * 5)
            ladder.append(top - gap + rng.normal(0, spread, n))
        chosen += choose(ladder, trial(top, shares=shares, resamples=1000)).chosen == 5
    assert chosen / times >= 0.66, "a power of .8, less two standard errors"


def test_holm_takes_back_what_one_of_many_passed_by_chance() -> None:
    rng = np.random.default_rng(4)
    for seed in range(1000):
        top, (scores,) = degrees(np.random.default_rng(seed), 60, [1.6])
        alone = verdict(scores, trial(top))
        if alone.p is not None and ALPHA / 4 < alone.p < ALPHA:
            break
    assert alone.passes
    ladder = [scores, *degrees(rng, 60, [12.0] * 5)[1]]
    found = verdicts(ladder, trial(top))[0]
    assert (alone.needed, found.decision) == (0, "INCONCLUSIVE") and found.needed, "and that needs more prompts than alone"


def test_halves_are_the_same_whatever_the_order_and_split_no_group() -> None:
    ids = [f"p{n}" for n in range(50)]
    first, second = halves(ids, None)
    turned, _ = halves(ids[::-1], None)
    assert sorted(first + second) == list(range(50)) and len(first) == 25
    assert {ids[place] for place in first} == {ids[::-1][place] for place in turned}
    groups = [f"g{n // 3}" for n in range(50)]
    first, second = halves(ids, groups)
    assert not {groups[place] for place in first} & {groups[place] for place in second}


def test_too_few_prompts_pass_nothing() -> None:
    top = np.full(12, 90.0)
    choice = choose([top.copy()], trial(top))
    assert choice.chosen is None and not choice.confirmed and choice.choosing[0].decision == "INCONCLUSIVE"
