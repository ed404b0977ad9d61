"""The learning curve's fit, against SciPy's and by simulation with known truth: its intervals cover, its rows are right."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from seqdistill.family.fit import Curve, Measured, best_curves, fit

ROWS = 800 * np.array([1 / 8, 1 / 4, 1 / 2, 1])
TRUTHS = {"slow": (2.0, 60.0, 0.35), "fast": (15.0, 2000.0, 1.0)}
PROMPTS, RESAMPLES = 100, 200
MARGIN = 5.0


def errors(truth: tuple[float, float, float], rng: np.random.Generator, run: float, repeats: int) -> Measured:
    """What trainings would be measured at on the same prompts: prompts differ, and so does each training by itself."""
    a, b, c = truth
    expected = a + b * ROWS**-c
    hard = rng.normal(0, 12, (PROMPTS, 1))

    def measured(means: Any) -> Any:
        return means + hard + rng.normal(0, 8, (PROMPTS, len(means))) + run * rng.standard_normal(len(means))

    return Measured(ROWS, measured(expected), measured(np.full(repeats, expected[0])) if repeats else None)


@cache
def simulated(name: str, repeats: int, times: int = 60) -> dict[str, float]:
    """How often the intervals of a fit cover, with trainings that move by 1.5 points on their own."""
    a, b, c = truth = TRUTHS[name]
    rng, found = np.random.default_rng(7), {"all from half": 0, "four times": 0, "margin": 0}
    for seed in range(times):
        measured = errors(truth, rng, 1.5, repeats)
        predicted = fit(measured.smaller(), 0.0, RESAMPLES, seed).of_one_training(ROWS[-1], seed)
        found["all from half"] += predicted.low <= measured.errors[:, -1].mean() <= predicted.high
        whole = fit(measured, 0.0, RESAMPLES, seed)
        beyond = whole.at(4 * ROWS[-1])
        found["four times"] += beyond.low <= a + b * (4 * ROWS[-1]) ** -c <= beyond.high
        found["margin"] += whole.chance(1000 * ROWS[-1], MARGIN) >= 0.975
    return {key: number / times for key, number in found.items()}


@pytest.mark.parametrize("name", TRUTHS)
def test_a_fit_on_half_the_rows_covers_the_score_at_all_of_them(name: str) -> None:
    assert simulated(name, repeats=2)["all from half"] >= 0.9


@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_at_four_times_the_rows_covers_the_truth(name: str) -> None:
    assert simulated(name, repeats=2)["four times"] >= 0.9


def test_without_a_repeated_training_the_intervals_are_too_narrow() -> None:
    """Test prompts do not show how much a training moves by chance: why `repeats` is there, and 2 by default."""
    assert simulated("fast", repeats=0)["all from half"] < 0.85


def test_an_asymptote_above_the_margin_is_not_taken_for_one_below_it() -> None:
    assert simulated("fast", repeats=2)["margin"] <= 0.025, "of the draws whose truth stays at 15 points"


def test_it_finds_the_least_squares_of_scipy() -> None:
    from scipy.optimize import curve_fit

    rng, rows = np.random.default_rng(3), np.array([100.0, 200, 400, 800, 1600])
    sigma = np.array([2.0, 1.5, 1.0, 0.7, 0.5])
    for a, b, c in ((5.0, 100.0, 0.5), (10.0, 900.0, 0.9)):
        seen = a + b * rows**-c + 0.2 * sigma * rng.standard_normal(len(rows))
        ours = best_curves(rows, seen[None, :], 1 / sigma**2, 0.0)[0]
        bounds = ([0, 0, 0.05], [np.inf, np.inf, 2.0])
        theirs, _ = curve_fit(lambda n, a, b, c: a + b * n**-c, rows, seen, (a, b, c), sigma, bounds=bounds, maxfev=20000)

        def squares(p: Any, seen: Any = seen) -> float:
            return float((((seen - p[0] - p[1] * rows ** -p[2]) / sigma) ** 2).sum())

        assert squares(ours) <= squares(theirs) * 1.02 + 1e-9
        assert ours[0] + ours[1] * 6400 ** -ours[2] == pytest.approx(theirs[0] + theirs[1] * 6400 ** -theirs[2], abs=0.1)


def exactly(a: float, b: float, c: float) -> Curve:
    """The fit of a curve without any noise."""
    return fit(Measured(ROWS, np.tile(a + b * ROWS**-c, (PROMPTS, 1))), 0.0, RESAMPLES, 0)


def test_the_rows_to_the_margin_are_those_of_the_curve() -> None:
    curve = exactly(2.0, 60.0, 0.35)
    wanted = (60.0 / (MARGIN - 2.0)) ** (1 / 0.35)
    rows = curve.rows_for(MARGIN, 0.8, 1e9)
    assert rows == pytest.approx(wanted, rel=0.05)
    assert curve.rows_for(MARGIN, 0.8, wanted / 2) is None, "beyond what is asked about"
    assert (curve.chance(wanted / 2, MARGIN), curve.chance(wanted * 2, MARGIN)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("truth", "least", "chance"),
    [((9.0, 60.0, 0.35), 0.0, 0.0), ((0.0, 0.0, 1.0), 0.0, 1.0), ((-3.0, 0.0, 1.0), -20.0, 1.0), ((30.0, 0.0, 1.0), 0.0, 0.0)],
)
def test_what_stays_above_the_margin_is_never_reached_and_what_is_below_is_there(
    truth: tuple[float, float, float], least: float, chance: float
) -> None:
    a, b, c = truth
    curve = fit(Measured(ROWS, np.tile(a + b * ROWS**-c, (PROMPTS, 1))), least, RESAMPLES, 0)
    assert curve.chance(1000 * ROWS[-1], MARGIN) == chance
    assert (curve.rows_for(MARGIN, 0.8, 1e9) is None) == (chance == 0.0)


def test_a_student_that_gets_no_better_with_rows_has_a_flat_curve() -> None:
    rng = np.random.default_rng(0)
    curve = fit(Measured(ROWS, 20 + rng.normal(0, 1, (PROMPTS, 4)) + np.array([0, 0.1, 0.2, 0.3])), 0.0, RESAMPLES, 0)
    assert curve.b == 0 and curve.a == pytest.approx(20, abs=0.5) and curve.at(1e6).value == curve.a


def test_grouped_prompts_widen_the_intervals() -> None:
    measured = errors(TRUTHS["slow"], np.random.default_rng(1), 0.0, 0)
    doubled = Measured(ROWS, np.repeat(measured.errors, 4, axis=0), groups=[f"g{n // 4}" for n in range(4 * PROMPTS)])
    alone = Measured(ROWS, doubled.errors)
    grouped, apart = (fit(one, 0.0, RESAMPLES, 0).at(800.0) for one in (doubled, alone))
    assert grouped.high - grouped.low > 1.5 * (apart.high - apart.low)
