"""The threshold with a guarantee: against SciPy, published values, and simulated calibrations whose truth is known."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest

from seqdistill.stages.evaluate.statistics.guarantee import (
    calibration_error,
    candidates,
    choose,
    fewest,
    more_needed,
    needed,
    ranking,
    upper_bound,
)


@pytest.mark.parametrize(("broken", "n", "risk"), [(0, 29, 0.05), (1, 46, 0.05), (3, 40, 0.1), (12, 12, 0.05), (7, 300, 0.01)])
def test_the_bound_is_scipys_exact_one(broken: int, n: int, risk: float) -> None:
    theirs = binomtest(broken, n, alternative="less").proportion_ci(confidence_level=1 - risk, method="exact").high
    assert float(upper_bound(broken, n, risk)) == pytest.approx(theirs, abs=1e-12)


def test_nothing_kept_promises_nothing() -> None:
    assert float(upper_bound(0, 0, 0.05)) == 1.0


@pytest.mark.parametrize(("target", "risk", "n"), [(0.95, 0.05, 59), (0.9, 0.05, 29), (0.99, 0.05, 299), (0.95, 0.1, 45)])
def test_the_fewest_without_a_bad_answer_are_wilks_numbers(target: float, risk: float, n: int) -> None:
    """Wilks 1941: 59 items without a failure show 95/95, 299 show 99/95, 29 show 90/95, 45 show 95/90."""
    assert fewest(0, target, risk) == n


# share of good answers at a confidence c, which is uniform: several shapes, the worst ones included
MODELS: dict[str, Callable[[float], float]] = {
    "calibrated": lambda c: 0.5 + 0.5 * c,
    "sharp": lambda c: min(1.0, 0.5 + 0.8 * c),
    "over-confident": lambda c: c**2,
    "hardly ranked": lambda c: 0.86 + 0.04 * c,
    "worst where it is surest": lambda c: 0.97 - 0.2 * (c > 0.9),
    "just at the limit": lambda _: 0.8999,
}


def true_good(share_good: Callable[[float], float], threshold: float) -> float:
    """The share of good answers among all that lie at or above a threshold."""
    edges = [threshold, *(kink for kink in (0.625, 0.9) if kink > threshold), 1.0]
    area = sum(quad(share_good, low, high)[0] for low, high in pairwise(edges))
    return area / (1 - threshold)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_of_1000_calibrations_at_most_the_stated_risk_break_the_promise(name: str, risk: float) -> None:
    rng, target, n, trials = np.random.default_rng(11), 0.9, 250, 1000
    good_at = np.vectorize(MODELS[name])
    broken = tuned_broken = found = 0
    for _ in range(trials):
        confidence, other = rng.random(n), rng.random(n)
        good = rng.random(n) < good_at(confidence)
        threshold = choose(confidence, good, candidates(other, n, target, risk), target, risk)
        if threshold is not None:
            found += 1
            broken += true_good(MODELS[name], threshold.value) < target
        order = np.argsort(-confidence)  # the threshold that a look at the same items suggests
        rates = np.cumsum(good[order]) / np.arange(1, n + 1)
        if (rates >= target).any():
            last = int(np.flatnonzero(rates >= target)[-1])
            tuned_broken += true_good(MODELS[name], float(confidence[order][last])) < target
    allowed = trials * risk + 3 * np.sqrt(trials * risk * (1 - risk))  # three standard deviations of the simulation itself
    assert broken <= allowed
    if name == "sharp":
        assert found > 0.8 * trials, "a guarantee that never finds a threshold is worth nothing"
    if name in ("calibrated", "hardly ranked", "sharp"):
        assert tuned_broken > 0.3 * trials, "without the bound the promise is broken often: the test can fail"


def test_the_items_needed_are_enough_four_times_in_five_and_an_eighth_of_them_is_not() -> None:
    rng, target, risk = np.random.default_rng(3), 0.9, 0.05
    good_at = MODELS["calibrated"]
    found = []
    for _ in range(15):  # it is an estimate from the items seen
        confidence = rng.random(4000)
        found.append(needed(confidence, rng.random(4000) < np.vectorize(good_at)(confidence), target, risk) or 0)
    number = int(np.median(found))

    def passes(items: int) -> float:
        half, times = items // 2, 0
        for _ in range(400):
            mine, other = rng.random(half), rng.random(half)
            good = rng.random(half) < 0.5 + 0.5 * mine
            times += choose(mine, good, candidates(other, half, target, risk), target, risk) is not None
        return times / 400

    assert passes(number) > 0.7
    assert passes(number // 8) < 0.5


@pytest.mark.parametrize(("target", "risk"), [(0.9, 0.05), (0.95, 0.1)])
@pytest.mark.parametrize(
    ("confidences", "likely", "rates"),
    [
        ([0.99, 0.5], [0.3, 0.7], [0.995, 0.7]),  # only the upper ones are good enough
        ([1.0, 0.8, 0.6, 0.4, 0.2], [0.2] * 5, [0.99, 0.912, 0.834, 0.756, 0.678]),  # the agreement of five samples
        ([0.8], [1.0], [0.97]),
    ],
)
def test_where_confidences_are_equal_the_promise_holds_and_the_items_needed_are_enough(
    confidences: list[float], likely: list[float], rates: list[float], target: float, risk: float
) -> None:
    """A first threshold within the second kind kept all of it: the items that were named found one in a third of draws."""
    rng, trials = np.random.default_rng(6), 300

    def draw(items: int) -> tuple[np.ndarray, np.ndarray]:
        kinds = rng.choice(len(likely), items, p=likely)
        return np.array(confidences)[kinds], rng.random(items) < np.array(rates)[kinds]

    def true_rate(threshold: float) -> float:
        kept = np.array(confidences) >= threshold
        return float(np.average(np.array(rates)[kept], weights=np.array(likely)[kept]))

    number = needed(*draw(100_000), target, risk)
    assert number is not None
    half, found, broken = number // 2, 0, 0
    for _ in range(trials):
        threshold = choose(*draw(half), candidates(draw(half)[0], half, target, risk), target, risk)
        if threshold is not None:
            found += 1
            broken += true_rate(threshold.value) < target
    assert found / trials >= 0.72 and broken / trials <= risk + 3 * math.sqrt(risk * (1 - risk) / trials)


def test_where_no_confidence_is_good_enough_no_number_of_items_is_named() -> None:
    rng = np.random.default_rng(4)
    assert needed(rng.random(300), rng.random(300) < 0.7, 0.95, 0.05) is None
    assert needed(np.zeros(30), np.ones(30, dtype=bool), 0.9, 0.05) is None


def test_an_answer_without_confidence_is_never_kept() -> None:
    confidence = np.repeat([0.0, 0.9], [50, 150])
    good = confidence > 0
    found = choose(confidence, good, candidates(confidence, 200, 0.9, 0.05), 0.9, 0.05)
    assert found is not None
    assert (found.value, found.kept, found.broken) == (0.9, 150, 0)


def test_the_calibration_error_is_the_published_one() -> None:
    """The example in the documentation of torchmetrics.classification.BinaryCalibrationError, norm l1 and 2 bins."""
    confidence, good = np.array([0.25, 0.25, 0.55, 0.75, 0.75]), np.array([False, False, True, True, True])
    assert calibration_error(confidence, good, bins=2) == pytest.approx(0.29)


def test_the_ranking_is_the_published_auroc_and_scipys_u() -> None:
    """The example in the documentation of sklearn.metrics.roc_auc_score's user guide."""
    from scipy.stats import mannwhitneyu

    assert ranking(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    rng = np.random.default_rng(5)
    confidence, good = rng.integers(0, 8, 80) / 8, rng.random(80) < 0.6
    u = mannwhitneyu(confidence[good], confidence[~good]).statistic
    assert ranking(confidence, good) == pytest.approx(u / (good.sum() * (~good).sum()))
    assert ranking(confidence, np.ones(80, dtype=bool)) is None


@pytest.mark.parametrize(("broken", "n"), [(0, 10), (2, 100), (6, 100), (16, 100)])
def test_the_further_items_of_a_promise_decide_it_as_often_as_said(broken: int, n: int) -> None:
    target, risk = 0.9, 0.05
    more = more_needed(broken, n, target, risk)
    assert more is not None
    rate, total = (broken + 0.5) / (n + 1), n + more
    drawn = np.random.default_rng(1).binomial(total, rate, size=20_000)
    decided = upper_bound(drawn, total, risk) <= 1 - target
    if rate > 1 - target:
        decided = upper_bound(total - drawn, total, risk) < target
    assert 0.78 <= decided.mean() <= 0.93


def test_no_number_of_items_decides_a_share_that_is_just_what_is_allowed() -> None:
    assert more_needed(99_999, 1_000_000, 0.9, 0.05) is None
