"""A learning curve: error = a + b n^-c fitted to a few sizes of the data, and what it says of more data.

a is what no amount of data takes away, c how fast the rest falls. Hestness et al. 2017, https://arxiv.org/abs/1712.00409; for
fitting on small sizes to predict larger ones Figueroa et al. 2012, https://doi.org/10.1186/1472-6947-12-8.
Uncertainty is of the test prompts, by a bootstrap that draws the same prompts at every size, and of the training itself, where
trainings on other rows of the same number say how much a repetition moves. Pure: numbers in, numbers out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqdistill.stages.evaluate.statistics.intervals import CONFIDENCE, Array, Interval, resample

SLOWEST, FASTEST = 0.05, 2.0  # of c; published learning curves of tasks lie between
POWERS = 120  # values of c that are tried
LEAST_VARIANCE = 1e-6  # of a point, in squared points: an equal score on all prompts is not known without error


@dataclass(frozen=True)
class Measured:
    """Errors at several sizes of the training data: how far the student is from the teacher, in points, on each test prompt."""

    rows: Array  # (K,) training rows, rising
    errors: Array  # (n, K)
    repeats: Array | None = None  # (n, M) of further trainings on as many other rows as the smallest size
    groups: Sequence[str] | None = None  # of the prompts

    def smaller(self) -> "Measured":
        """The same without the largest size."""
        return Measured(self.rows[:-1], self.errors[:, :-1], self.repeats, self.groups)


@dataclass(frozen=True)
class Curve:
    """The fitted curve, and its replicates: as many curves, drawn as the uncertainty is."""

    a: float
    b: float
    c: float
    replicates: Array  # (R, 3) a, b, c
    noise: Array  # (R,) standard deviation of a training, in points, as unsure as it is; 0 where none was repeated
    deviation: float | None = None  # the same as it was seen

    def at(self, rows: float) -> Interval:
        """The expected error after training on this many rows."""
        return _interval(self.a + self.b * rows**-self.c, self._replicated(rows))

    def of_one_training(self, rows: float, seed: int) -> Interval:
        """What one training on this many rows is expected to be measured at, on these prompts or others like them."""
        chance = self.noise * np.random.default_rng(seed).standard_normal(len(self.noise))
        return _interval(self.a + self.b * rows**-self.c, self._replicated(rows) + chance)

    def chance(self, rows: float, error: float) -> float:
        """How likely the expected error is at most `error` after training on this many rows."""
        return float((self._replicated(rows) <= error).mean())

    def rows_for(self, error: float, chance: float, most: float) -> float | None:
        """The fewest rows after which the expected error is at most `error` with this chance; None: not within `most` rows."""
        found = float(np.quantile(self._rows_to(error), chance, method="inverted_cdf"))
        return found if found <= most else None

    def parameters(self) -> dict[str, Interval]:
        """a, b and c with their intervals."""
        return {
            name: _interval(value, self.replicates[:, k])
            for k, (name, value) in enumerate((("a", self.a), ("b", self.b), ("c", self.c)))
        }

    def _replicated(self, rows: float) -> Array:
        a, b, c = self.replicates.T
        found: Array = a + b * rows**-c
        return found

    def _rows_to(self, error: float) -> Array:
        """(R,) the rows that each replicate needs; infinite where its asymptote lies above."""
        a, b, c = self.replicates.T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rows = np.where(b > 0, (b / np.maximum(error - a, 0)) ** (1 / c), 0.0)
        return np.where(a < error, rows, np.where((a == error) & (b == 0), 0.0, np.inf))


def fit(measured: Measured, least: float, resamples: int, seed: int) -> Curve:
    """The curve through the means of the points, each weighted by how sure it is; a is at least `least`, b at least 0."""
    count = measured.errors.shape[1]
    columns = measured.errors
    if measured.repeats is not None:
        columns = np.concatenate([columns, measured.repeats], axis=1)
    drawn = resample(columns, resamples, seed, measured.groups)
    means, replicates = drawn.means[:count].copy(), drawn.replicates[:, :count].copy()
    noise, deviation = np.zeros(resamples), None
    variances = replicates.var(axis=0)
    if measured.repeats is not None and measured.repeats.shape[1]:
        alike = [0, *range(count, columns.shape[1])]  # all trainings on as many rows as the smallest
        means[0], replicates[:, 0] = drawn.means[alike].mean(), drawn.replicates[:, alike].mean(axis=1)
        scale = np.sqrt([1 / len(alike), *[1.0] * (count - 1)])
        rng = np.random.default_rng(seed + 1)
        deviation, noise = _noise(drawn.means[alike], drawn.replicates[:, alike], rng)
        variances = replicates.var(axis=0) + deviation**2 * scale**2
        replicates += noise[:, None] * scale * rng.standard_normal((resamples, count))
    weights = 1 / np.maximum(variances, LEAST_VARIANCE)
    (a, b, c), *_ = best_curves(measured.rows, means[None, :], weights, least)
    return Curve(float(a), float(b), float(c), best_curves(measured.rows, replicates, weights, least), noise, deviation)


def _noise(means: Array, replicates: Array, rng: np.random.Generator) -> tuple[float, Array]:
    """How much a training moves by itself, in points, from trainings on as many rows each: as seen, and (R,) draws of it.

    Their variance, which few trainings leave unsure, less what the test prompts alone make of it.
    """
    freedom = len(means) - 1
    of_prompts = float((replicates - replicates.mean(axis=1, keepdims=True)).var(axis=0).sum() / freedom)
    seen = float(np.var(means, ddof=1))
    drawn = seen * freedom / rng.chisquare(freedom, len(replicates))
    return max(seen - of_prompts, 0.0) ** 0.5, np.sqrt(np.maximum(drawn - of_prompts, 0.0))


def best_curves(rows: Array, errors: Array, weights: Array, least: float) -> Array:
    """(R, 3) a, b, c of the least weighted squares for each row of errors (R, K), with b >= 0 and a >= `least`.

    For a given c the curve is linear in a and b, so each of `POWERS` values of c is solved exactly, and the best one is taken.
    """
    powers = np.geomspace(SLOWEST, FASTEST, POWERS)
    x = rows[None, :] ** -powers[:, None]  # (C, K)
    mean, centre = errors @ weights / weights.sum(), x @ weights / weights.sum()  # (R,), (C,)
    from_centre = x - centre[:, None]
    b = np.maximum((errors * weights) @ from_centre.T / (from_centre**2 @ weights), 0.0)  # (R, C)
    a = mean[:, None] - b * centre
    along_edge = np.maximum(((errors - least) * weights) @ x.T / (x**2 @ weights), 0.0)  # the slope where a is `least`
    a, b = np.where(a < least, least, a), np.where(a < least, along_edge, b)
    squares = (errors[:, None, :] - a[..., None] - b[..., None] * x) ** 2 @ weights
    best = squares.argmin(axis=1)
    at = np.arange(len(errors))
    return np.stack([a[at, best], b[at, best], powers[best]], axis=1)


def _interval(value: float, replicates: Array) -> Interval:
    low, high = np.quantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))
