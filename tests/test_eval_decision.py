"""The decision at a margin: against published values, other libraries, and simulations whose truth is known."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from evaluated_runs import KINDS, evaluated_run, read_scores
from scipy.optimize import minimize_scalar

from seqdistill.stages.evaluate.statistics.intervals import (
    FEWEST,
    Interval,
    column,
    difference,
    expanded_z,
    level_of,
    resample,
    tango,
    tango_z,
)
from seqdistill.stages.evaluate.statistics.paired import ALPHA, PairedShares, decide, effective, holm, needed


def pair(both: int, first: int, second: int, neither: int) -> PairedShares:
    """From a fourfold table."""
    ours = np.repeat([True, True, False, False], [both, first, second, neither])
    theirs = np.repeat([True, False, True, False], [both, first, second, neither])
    return PairedShares.of(ours, theirs)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((1, 1, 7, 12), -0.517, -0.026),  # airway reactivity before and after stem cell transplantation
        ((59, 6, 16, 80), -0.124, -0.0054),  # complete response before and after consolidation therapy
    ],
)
def test_tangos_interval_is_the_published_one(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850: Tango's asymptotic score interval."""
    found = pair(*table).difference()
    assert found.low is not None and found.high is not None
    assert (found.low / 100, found.high / 100) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


def test_the_interval_of_a_ratio_is_the_published_one() -> None:
    """MOVER Wilson score interval of the ratio of paired probabilities, complete response before and after consolidation.

    Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables, chapter 8, as their R package
    contingencytables tests it: MOVER_Wilson_score_CI_paired_2x2: 0.8667 (0.7592 to 0.9866). It takes the
    correlation as it is; ours has Newcombe's correction of it, and is a little wider.
    """
    found = pair(59, 6, 16, 80)
    ours = found.ratio()
    assert ours is not None and ours.low is not None and ours.high is not None and ours.value == pytest.approx(86.67, abs=0.005)
    plain = (59 * 80 - 6 * 16) / math.sqrt(65 * 96 * 75 * 86)
    theirs = replace(found, phi=plain).ratio()
    assert theirs is not None and (theirs.low, theirs.high) == (
        pytest.approx(75.92, abs=0.005),
        pytest.approx(98.66, abs=0.005),
    )
    assert 0 < plain - found.phi < 0.02 and 75.6 < ours.low < 75.92 and 98.66 < ours.high < 99.0


@pytest.mark.parametrize("delta", [-0.4, -0.1, -0.02, 0.05, 0.3])
@pytest.mark.parametrize(("first", "second", "n"), [(1, 7, 21), (6, 16, 161), (0, 3, 40), (5, 0, 30)])
def test_tangos_statistic_is_that_of_the_constrained_maximum_likelihood(first: int, second: int, n: int, delta: float) -> None:
    def loss(q: float) -> float:  # of the discordant share of the second, the difference being delta
        shares = (q + delta, q, 1 - 2 * q - delta)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip((first, second, n - first - second), shares, strict=True) if k)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    expected = (first - second - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))
    assert float(tango_z(first, second, n, delta)) == pytest.approx(expected, rel=2e-4)


def test_at_no_difference_tangos_statistic_is_mcnemars() -> None:
    for first, second, n in ((1, 7, 21), (6, 16, 161), (40, 20, 160)):
        assert float(tango_z(first, second, n, 0.0)) ** 2 == pytest.approx((first - second) ** 2 / (first + second))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(1, 7, 0.0703125), (6, 16, 0.052478790283203125), (0, 4, 0.125), (40, 20, 0.01348929373119186), (0, 0, 1.0)],
)
def test_the_mcnemar_test_is_the_exact_one(first: int, second: int, p: float) -> None:
    """statsmodels 0.15.0: mcnemar(table, exact=True)."""
    assert pair(10, first, second, 10).p() == pytest.approx(p)


def test_holms_adjusted_p_values_are_those_of_statsmodels() -> None:
    """statsmodels 0.15.0: multipletests([.01, .04, .03, .005, .5], method="holm"). A None is no test."""
    assert holm([0.01, 0.04, None, 0.03, 0.005, 0.5]) == pytest.approx([0.04, 0.09, None, 0.09, 0.025, 0.5])


@pytest.mark.parametrize(("others", "decision"), [(1, "BETTER"), (4, "NON-INFERIOR")])
def test_a_slice_is_called_better_only_as_far_as_the_number_of_slices_bears(tmp_path: Path, others: int, decision: str) -> None:
    """In one slice of 40 the student is right alone on 9 and wrong alone on 1 (McNemar p = .021); in the others they agree."""
    says = {
        "base": lambda n: "none",
        "student": lambda n: KINDS[(n + (n == 39)) % 3],
        "teacher": lambda n: KINDS[(n + (n < 9)) % 3],
    }
    run = evaluated_run(tmp_path / "run", says, 40 + 10 * others, slices=lambda n: "0" if n < 40 else f"{1 + n % others}")
    first = next(part for part in read_scores(run)["slices"] if part["slice"] == "0")
    assert first["n"] == 40 and first["judged"]["decision"] == decision


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (1.0, 3.0, "BETTER"),
        (0.5, 9.0, "BETTER"),
        (-4.0, 4.0, "EQUIVALENT"),
        (-4.0, -1.0, "EQUIVALENT"),
        (-4.0, 6.0, "NON-INFERIOR"),
        (-6.0, 2.0, "INCONCLUSIVE"),
        (-9.0, -1.0, "INCONCLUSIVE"),
        (-9.0, -5.5, "INFERIOR"),
        (None, None, "INCONCLUSIVE"),
    ],
)
def test_the_decision_follows_the_interval(low: float | None, high: float | None, decision: str) -> None:
    assert decide(Interval(0.0, low, high), 5.0) == decision


def shares(
    rng: np.random.Generator, trials: int, n: int, both: float, first: float, second: float
) -> tuple[np.ndarray, np.ndarray]:
    """Discordant counts of simulated comparisons."""
    counts = rng.multinomial(n, [both, first, second, 1 - both - first - second], size=trials)
    return counts[:, 1], counts[:, 2]


@pytest.mark.parametrize(("n", "discordant"), [(60, 0.2), (120, 0.1), (400, 0.1)])
def test_two_equal_students_are_called_different_about_5_percent_of_the_time(n: int, discordant: float) -> None:
    first, second = shares(np.random.default_rng(11), 20_000, n, 0.6, discordant / 2, discordant / 2)
    low, high = tango(first, second, n)
    assert 0.03 <= float(((low > 0) | (high < 0)).mean()) <= 0.065


@pytest.mark.parametrize(
    ("n", "margin", "discordant"), [(60, 0.10, 0.2), (120, 0.05, 0.1), (250, 0.05, 0.15), (800, 0.03, 0.1)]
)
def test_a_student_worse_by_the_margin_is_called_non_inferior_at_most_at_alpha(
    n: int, margin: float, discordant: float
) -> None:
    first, second = shares(np.random.default_rng(12), 40_000, n, 0.6, (discordant - margin) / 2, (discordant + margin) / 2)
    low, _ = tango(first, second, n)
    assert float((low > -margin).mean()) <= ALPHA + 0.004  # the score test is asymptotic; three standard errors are .0025


def test_a_student_worse_by_the_margin_in_chrf_is_called_non_inferior_at_most_at_alpha() -> None:
    rng, trials, n, margin = np.random.default_rng(13), 1200, 60, 3.0
    called = different = 0
    for trial in range(trials):
        ease = rng.normal(60, 15, n)
        scores = np.stack([ease - margin + rng.normal(0, 8, n), ease + rng.normal(0, 8, n)], axis=1)
        drawn = resample(scores, 300, trial)
        gap = drawn.interval(difference(0, 1))
        assert gap is not None and gap.low is not None
        called += decide(gap, margin) in ("NON-INFERIOR", "EQUIVALENT", "BETTER")
        below = drawn.below(difference(0, 1), -margin)
        assert (below is not None and (below < ALPHA) == (gap.low > -margin)) or abs(gap.low + margin) < 0.2
        different += gap.low > -margin or (gap.high is not None and gap.high < -margin)  # which is the truth
    assert called / trials <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / trials)
    assert 0.035 <= different / trials <= 0.07


@pytest.mark.parametrize("n", [10, 20, 40])
def test_a_bootstrap_of_few_prompts_covers_as_students_interval_does(n: int) -> None:
    rng, trials = np.random.default_rng(n), 600
    covered = naive = 0
    for trial in range(trials):
        drawn = resample(rng.normal(50, 10, (n, 1)), 400, trial)
        found = drawn.interval(column(0))
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= 50 <= found.high
        naive += np.quantile(drawn.replicates, 0.025) <= 50 <= np.quantile(drawn.replicates, 0.975)
    assert 0.92 <= covered / trials <= 0.97
    assert covered > naive + 0.005 * trials, "the percentile interval is too narrow"


@pytest.mark.parametrize("level", [0.005, 0.025, 0.5, 0.975])
@pytest.mark.parametrize("n", [10, 40, 10_000])
def test_the_expanded_quantile_is_that_of_hesterbergs_expand_probs(level: float, n: int) -> None:
    """R package resample 0.6, ExpandProbs: pnorm(qt(probs, n - 1) * sqrt(n / (n - 1))), of which this is the qnorm."""
    from scipy.stats import t

    assert expanded_z(level, n) == pytest.approx(float(t.ppf(level, n - 1)) * math.sqrt(n / (n - 1)), abs=1e-9)
    assert level_of(expanded_z(level, n), n) == pytest.approx(level)


def test_the_mean_of_normal_scores_gets_students_interval() -> None:
    from scipy.stats import norm, t

    scores = norm.ppf((np.arange(12) + 0.5) / 12)[:, None] * 10 + 50  # symmetric: no bias, no acceleration
    found = resample(scores, 40_000, 0).interval(column(0))
    theirs = t.interval(0.95, 11, loc=50, scale=scores.std(ddof=1) / math.sqrt(12))
    assert found is not None and (found.low, found.high) == (
        pytest.approx(theirs[0], abs=0.35),
        pytest.approx(theirs[1], abs=0.35),
    )


@pytest.mark.parametrize(
    ("margin", "won", "lost", "number"),
    [
        (5.0, 0.05, 0.05, 350),  # 314 by the variance seen, with a power of .76; a one-sided alpha of .05 would need 247
        (5.0, 0.01, 0.01, 140),  # 73 and .54
        (5.0, 0.0, 0.02, 331),
        (5.0, 0.02, 0.0, 80),
        (10.0, 0.0125, 0.0375, 120),  # 69 and .57
        (2.0, 0.0, 0.01, 1283),
        (5.0, 0.15, 0.17, 2794),
    ],
)
def test_with_the_prompts_needed_non_inferiority_is_shown_with_the_stated_power(
    margin: float, won: float, lost: float, number: int
) -> None:
    """Exactly, over all tables of as many prompts: also where few of them are discordant."""
    from scipy.stats import multinomial

    seen = [round(2400 * share) for share in (won, lost)]
    assert needed(np.repeat([100.0, -100.0, 0.0], [*seen, 2400 - sum(seen)]), margin, shares=True) == number
    most = [int(number * share + 7 * math.sqrt(number * share)) + 1 for share in (won, lost)]
    tables = np.array([(b, c, number - b - c) for b in range(most[0]) for c in range(most[1]) if b + c <= number])
    shown = tango_z(tables[:, 0], tables[:, 1], number, -margin / 100) > NormalDist().inv_cdf(1 - ALPHA)
    power = float(multinomial.pmf(tables[shown], number, [won, lost, 1 - won - lost]).sum())
    assert power >= 0.77 and (power <= 0.93 or not lost), "where none is lost one more prompt makes it certain"


def test_no_number_of_prompts_is_named_where_the_student_is_worse_than_the_margin() -> None:
    assert needed(np.full(40, -6.0) + np.arange(40) % 2, 5.0, shares=False) is None
    assert needed(np.zeros(40), 5.0, shares=True) == 73  # Tango's interval without a discordant prompt: z^2 / (n + z^2)
    low, _ = tango(0, 0, 73)
    assert low > -0.05 > tango(0, 0, 72)[0]
    assert needed(np.zeros(40), 5.0, shares=False) == 73, "degrees that are all equal show no more than shares"
    assert needed(np.eye(40)[0], 5.0, shares=False) >= 72, "nor where one prompt differs by a point"
    assert needed(np.zeros(5), 50.0, shares=True) == FEWEST, "below, there is no interval"


@pytest.mark.parametrize(
    ("won", "lost", "margin", "number"),
    [(15, 9, 0.0, 438), (15, 9, 5.0, 156), (9, 15, 0.0, None), (9, 9, 0.0, None), (1, 0, 0.0, 657)],
)
def test_a_student_that_is_ahead_can_be_shown_so_with_more_prompts_at_any_margin(
    won: int, lost: int, margin: float, number: int | None
) -> None:
    differences = np.repeat([100.0, -100.0, 0.0], [won, lost, 84 - won - lost])
    assert needed(differences, margin, shares=True) == number


def test_prompts_of_one_group_count_as_what_they_are_worth() -> None:
    values = np.repeat(np.random.default_rng(15).normal(0, 1, 30), 5)  # five times the same
    groups = [str(n // 5) for n in range(150)]
    assert effective(values, groups) == pytest.approx(30, abs=1.5)
    assert effective(values, None) == 150
    alone = np.random.default_rng(16).normal(0, 1, 150)
    assert 90 <= effective(alone, groups) <= 150
    assert effective(np.zeros(150), groups) == 30
    assert effective(np.eye(150)[0] + np.eye(150)[7], groups) == 30, "two prompts say nothing of how groups vary together"


@pytest.mark.parametrize(("size", "alike"), [(20, 0.7), (5, 0.7), (20, 0.3), (20, 0.0)])
def test_of_few_groups_a_student_worse_by_the_margin_is_seldom_called_non_inferior(size: int, alike: float) -> None:
    """Ten groups of up to `size` prompts; on a tenth of them it fails alone, and `alike` of a group go as the group does.

    A design effect from the few groups in which anything went wrong said "independent" where whole groups fail: up to 26%.
    """
    rng, trials, called = np.random.default_rng(19), 400, 0
    for _ in range(trials):
        sizes = rng.integers(1, size + 1, 10)
        of_group = np.repeat(rng.random(10) < 0.1, sizes)
        n = len(of_group)
        fails = np.where(rng.random(n) < alike, of_group, rng.random(n) < 0.1)
        gap = PairedShares.of(~fails, np.ones(n, bool), [str(k) for k in np.repeat(np.arange(10), sizes)]).difference()
        assert gap.low is not None
        called += gap.low > -10
    assert called / trials <= ALPHA + 0.016  # two standard errors


def test_the_interval_of_grouped_prompts_covers_the_truth_where_that_of_single_prompts_does_not() -> None:
    rng, trials = np.random.default_rng(17), 600
    covered = {"mean": 0, "share": 0, "naive": 0}
    groups = [str(n // 6) for n in range(240)]
    for trial in range(trials):
        of_group = rng.normal(0, 10, 40)
        scores = (50 + np.repeat(of_group, 6) + rng.normal(0, 5, 240))[:, None]
        for name, by in (("mean", groups), *([("naive", None)] if trial % 6 == 0 else [])):
            found = resample(scores, 250, trial, by).interval(column(0))
            assert found is not None and found.low is not None and found.high is not None
            covered[name] += found.low <= 50 <= found.high
        easy = np.repeat(rng.random(40) < 0.5, 6)  # a group goes wrong as a whole, for one or the other
        gap = PairedShares.of(easy, ~easy, groups).difference()
        assert gap.low is not None and gap.high is not None
        covered["share"] += gap.low <= 0 <= gap.high
    assert covered["mean"] / trials >= 0.92 and covered["share"] / trials >= 0.935 and covered["naive"] / (trials / 6) < 0.75
