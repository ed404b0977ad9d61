"""Win rates: planted judges, AlpacaEval's formula, and ppi_py's numbers."""

import numpy as np
import pytest

from seqdistill.stages.evaluate.statistics.intervals import FEWEST, share
from seqdistill.stages.evaluate.statistics.preference import (
    corrected_mean,
    corrected_share,
    length_controlled,
    prediction_powered,
)

SENSITIVITY, SPECIFICITY = 0.9, 0.7


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.8])
def test_of_a_planted_judge_the_corrected_intervals_cover_the_truth_where_the_raw_one_fails(truth: float) -> None:
    rng, trials, n, labelled = np.random.default_rng(7), 600, 800, 200
    covered = {"raw": 0, "rogan-gladen": 0, "prediction-powered": 0}
    for _ in range(trials):
        people = rng.random(n) < truth
        judge = np.where(people, rng.random(n) < SENSITIVITY, rng.random(n) >= SPECIFICITY)
        known = np.arange(n) < labelled
        labels = np.where(known, people.astype(float), np.nan)
        raw = share(int(judge.sum()), n)
        one = corrected_share(people[known], judge[known], judge)
        other = corrected_mean(labels, judge.astype(float), [0] * n)
        assert one is not None and other is not None
        for name, found in (("raw", raw), ("rogan-gladen", one.share), ("prediction-powered", other)):
            assert found.low is not None and found.high is not None
            covered[name] += found.low <= 100 * truth <= found.high
    assert covered["rogan-gladen"] >= 0.93 * trials and covered["prediction-powered"] >= 0.93 * trials, covered
    if truth != 0.8:  # at .75 its errors cancel
        assert covered["raw"] < 0.5 * trials, covered


def test_labels_bought_where_the_orders_disagree_do_not_bend_the_correction() -> None:
    rng, trials, n, covered = np.random.default_rng(8), 400, 600, 0
    truth = 0.25 * 0.2 + 0.75 * 0.7
    for _ in range(trials):
        strata = np.repeat([0, 1], [n // 4, n - n // 4])
        people = rng.random(n) < np.where(strata == 0, 0.2, 0.7)
        judge = np.where(strata == 0, 0.5, np.where(people, rng.random(n) < SENSITIVITY, rng.random(n) >= SPECIFICITY))
        known = rng.random(n) < np.where(strata == 0, 0.7, 0.2)
        found = corrected_mean(np.where(known, people.astype(float), np.nan), judge, strata.tolist())
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= 100 * truth <= found.high
    assert covered >= 0.93 * trials


def test_of_prompts_in_groups_the_intervals_cover_the_truth() -> None:
    """A group shares its difficulty. As independent prompts, 72% and 81% of the intervals held the truth."""
    rng, trials, groups, size = np.random.default_rng(9), 150, 20, 6
    names = [f"group {n // size}" for n in range(groups * size)]
    truth = 100 * (1 / (1 + np.exp(-rng.normal(0, 1.5, 100_000)))).mean()
    covered = {"equal lengths": 0, "corrected": 0}
    for _ in range(trials):
        people = rng.random(len(names)) < 1 / (1 + np.exp(-np.repeat(rng.normal(0, 1.5, groups), size)))
        judge = np.where(rng.random(len(names)) < 0.8, people, ~people).astype(float)
        known = rng.permutation(len(names)) < 60
        found = {
            "equal lengths": length_controlled(people.astype(float), *rng.normal(100, 20, (2, len(names))), names),
            "corrected": corrected_mean(np.where(known, people, np.nan), judge, [0] * len(names), names),
        }
        for name, one in found.items():
            assert one is not None and one.low is not None and one.high is not None
            covered[name] += one.low <= truth <= one.high
    assert min(covered.values()) >= 0.9 * trials, covered
    few = corrected_mean(
        np.where(known, people, np.nan), judge, [0] * len(names), [f"group {n % 5}" for n in range(len(names))]
    )
    assert few is not None and few.low is None, "five groups show nothing"


def test_a_coin_cannot_be_corrected_and_few_labels_are_none() -> None:
    labels, coin = np.array([True, False] * 20), np.array([True, True, False, False] * 10)
    assert corrected_share(labels, coin, coin) is None
    assert corrected_share(labels[:6], labels[:6], coin) is None
    assert corrected_mean(np.array([1.0] * 5 + [np.nan] * 20), np.ones(25), [0] * 25) is None


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths, others = rng.integers(50, 400, 120).astype(float), rng.integers(50, 400, 120).astype(float)
    wins = rng.random(120) < 1 / (1 + np.exp(-(-0.4 + 1.5 * np.tanh((lengths - others) / 140))))
    preferences = np.where(rng.random(120) < 0.2, 0.5, wins.astype(float))
    return preferences, lengths, others


def test_the_rate_for_equal_lengths_undoes_a_judge_that_likes_long_answers() -> None:
    rng = np.random.default_rng(9)
    long, short = rng.normal(300, 40, 4000), rng.normal(200, 40, 4000)
    gap = long - short
    preferences = (rng.random(4000) < 1 / (1 + np.exp(-(-0.5 + 2 * np.tanh(gap / gap.std(ddof=1)))))).astype(float)
    found = length_controlled(preferences, long, short)
    assert found is not None and found.low is not None and found.high is not None
    assert preferences.mean() > 0.65 and found.low < 100 / (1 + np.exp(0.5)) < found.high
    assert length_controlled(preferences, long, long - 5) is None
    separated = length_controlled((gap > 100).astype(float), long, short)
    assert separated is not None and np.isfinite([separated.value, separated.low, separated.high]).all()


def test_the_rate_for_equal_lengths_is_scikit_learns_and_its_interval_is_statsmodels() -> None:
    """scikit-learn 1.x: LogisticRegression on each pair twice, weighted by its preference, as alpaca_eval fits it, without a
    penalty: 36.85402299724796. statsmodels: GLM, Binomial, cov_type="HC0": [28.98881875, 45.48628271].
    """
    found = length_controlled(*drawn())
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((36.85402299724796, 28.98881875, 45.48628271), abs=1e-4)


def test_the_prediction_powered_mean_is_ppi_pys() -> None:
    """ppi_py: ppi_mean_ci(Y, Yhat, Yhat_unlabeled, alpha=0.05) and ppi_mean_pointestimate on these numbers."""
    rng = np.random.default_rng(2)
    labels = (rng.random(60) < 0.6).astype(float)
    judged = np.where(rng.random(60) < 0.8, labels, 1 - labels)
    alone = (rng.random(300) < 0.55).astype(float)
    value, variance = prediction_powered(np.append(labels, np.full(300, np.nan)), np.append(judged, alone))
    half = 1.959963984540054 * np.sqrt(variance)
    assert value == pytest.approx(0.55462027, abs=1e-7)
    assert (value - half, value + half) == pytest.approx((0.45161366, 0.65762689), abs=1e-7)


@pytest.mark.parametrize("n", [FEWEST, 40, 200])
@pytest.mark.parametrize("won", [1.0, 0.0])
def test_where_all_preferences_are_equal_the_rates_are_no_more_certain_than_a_share(n: int, won: float) -> None:
    rng = np.random.default_rng(5)
    whole = share(won * n, n)
    long, short = rng.integers(10, 200, (2, n)).astype(float)
    found = length_controlled(np.full(n, won), long, short)
    labels = np.concatenate([np.full(n, won), np.full(90, np.nan)])
    for judge in (np.full(n + 90, won), np.concatenate([np.full(n, won), rng.integers(0, 2, 90)])):
        corrected = corrected_mean(labels, judge, [0] * (n + 90))
        for one in (found, corrected):
            assert one is not None and one.low is not None and one.high is not None and whole.low is not None
            assert one.value == pytest.approx(whole.value, abs=0.1)
            assert (one.low, one.high) == (pytest.approx(whole.low, abs=0.1), pytest.approx(whole.high, abs=0.1))


def test_few_preferences_give_no_rate_for_equal_lengths() -> None:
    preferences, lengths, others = drawn()
    for n in (2, 3, FEWEST - 1):
        assert length_controlled(preferences[:n], lengths[:n], others[:n]) is None
    assert length_controlled(preferences[:FEWEST], lengths[:FEWEST], others[:FEWEST]) is not None


def test_a_judge_that_agrees_with_few_labels_is_not_taken_to_be_perfect() -> None:
    labels = np.concatenate([np.repeat([1.0, 0.0], 10), np.full(2000, np.nan)])
    judge = np.concatenate([np.repeat([1.0, 0.0], 10), np.repeat([1.0, 0.0], 1000)])
    found = corrected_mean(labels, judge, [0] * 2020)
    assert found is not None and found.low is not None and found.high is not None
    assert found.high - found.value == pytest.approx(100 * 1.959963984540054**2 / (20 + 1.959963984540054**2))


@pytest.mark.parametrize("torn", [0, 4, 10])
def test_labels_of_one_kind_alone_do_not_correct_the_rate(torn: int) -> None:
    """People side with the student on .6 of what the judge is sure of, the judge on .84; its orders disagree on the rest.

    Labels of the rest alone said 50%, in a quarter of all draws with an interval below the truth of 57%.
    """
    rng, trials, n, found = np.random.default_rng(8), 200, 300, 0
    missed = 0
    for _ in range(trials):
        sure = rng.random(n) < 0.7
        people = np.where(sure, rng.random(n) < 0.6, rng.random(n) < 0.5).astype(float)
        judge = np.where(sure, np.where(rng.random(n) < 0.6, 1.0, people), 0.5)
        labels = np.full(n, np.nan)
        for kind, number in ((False, 30), (True, torn)):
            which = rng.permutation(np.flatnonzero(sure == kind))[:number]
            labels[which] = people[which]
        if (interval := corrected_mean(labels, judge, sure.astype(int).tolist())) is not None:
            assert interval.low is not None and interval.high is not None
            found += 1
            missed += not interval.low <= 57 <= interval.high
    assert found == (trials if torn == 10 else 0)
    assert missed <= 0.1 * trials


def test_a_student_that_nearly_always_wins_has_a_length_controlled_rate() -> None:
    """Where length alone tells wins from losses the fit has no error that a float holds."""
    rng = np.random.default_rng(1)
    for trial in range(200):
        mine, others = rng.normal(100, 30, (2, 20))
        wins = (rng.random(20) < 1 / (1 + np.exp(-3))) if trial % 2 else mine > others
        found = length_controlled(wins.astype(float), mine, others)
        assert found is not None and found.low is not None and found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 100
