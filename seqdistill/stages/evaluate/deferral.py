"""When to trust the student: its confidence, what a fallback to the teacher gives and costs, a threshold with a guarantee.

The threshold is found on one half of the prompts and reported on the other. Prompts no model; the statistics are in
`statistics.guarantee`. What it finds is deferral.json, which a serving fallback reads, and a part of scores.json.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seqdistill.confidence import ABOUT
from seqdistill.engines import Completion
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt
from seqdistill.stages.evaluate.cost import usd_in_service
from seqdistill.stages.evaluate.statistics.guarantee import (
    Threshold,
    calibration_error,
    candidates,
    choose,
    needed,
    ranking,
    upper_bound,
)
from seqdistill.stages.evaluate.statistics.intervals import FEWEST, Array, Flags, group_names, rounded, row_of, share

POINTS = 20  # of the curve, beside its start


@dataclass(frozen=True)
class DeferralTarget:
    """What the answers that the student keeps must be."""

    target: float | None  # the share of them that is good enough; None: no threshold is looked for
    risk: float  # the probability with which the promise may be broken
    good_enough: float | None  # score of the primary metric; None: the teacher's less the margin
    samples: int = 0  # whose agreement is the confidence; 0: the log-probability is


class Scored(Protocol):
    """An answer as it is read here."""

    @property
    def prompt(self) -> Prompt: ...
    @property
    def group(self) -> str | None: ...
    @property
    def scores(self) -> Mapping[str, float | None] | None: ...
    @property
    def confidence(self) -> float | None: ...


def has_confidence(recipe: Recipe) -> bool:
    """Whether log-probabilities are requested of the student: always in this process, at an endpoint only for a target."""
    return not recipe.eval.agreement and (recipe.student.engine != "openai" or recipe.eval.target is not None)


def samples_of(completions: Mapping[str, Completion], prompt: str) -> list[str]:
    """What the student's further samples of a prompt say."""
    numbers = itertools.takewhile(lambda n: f"{prompt}:student:{n}" in completions, itertools.count(1))
    return [one.content for n in numbers if (one := completions[f"{prompt}:student:{n}"]).error is None]


def deferral(
    answers: Mapping[str, Sequence[Scored]],
    primary: str,
    comparator: str | None,
    margin: float,
    promise: DeferralTarget,
    seed: int,
) -> dict[str, Any]:
    """The document. `answers` are those of "student", "teacher" and `comparator`, with whose scores the student's are compared.

    Shares are from 0 to 1, scores those of the primary metric. Without confidences or scores `reason` says what is missing.
    """
    document: dict[str, Any] = {
        "confidence": (kind := "agreement" if promise.samples else "logprob"),
        "about": ABOUT[kind],
        "samples": promise.samples,
        "metric": primary,
        "good_enough": promise.good_enough,
        "target": promise.target,
        "risk": promise.risk,
        **dict.fromkeys(("n", "good", "ece", "auroc", "threshold", "kept", "bound", "calibration", "held_out", "needed")),
        "curve": [],
        "reason": None,
    }
    items = _Items.of(answers, primary, comparator, margin, promise, seed)
    if isinstance(items, str):
        return document | {"reason": items}
    document |= {
        "n": len(items.good),
        "good": rounded(float(items.good.mean())),
        "ece": rounded(calibration_error(items.confidence, items.good)),
        "auroc": rounded(ranking(items.confidence, items.good)),
        "curve": items.curve(),
    }
    return document | (items.guarantee(promise.target, promise.risk) if promise.target else {})


@dataclass(frozen=True)
class _Items:
    """The prompts in an order by hash, one of each group: two of a group are not independent."""

    confidence: Array  # (n,)
    good: Flags  # (n,)
    student: Array  # (n,) the primary metric
    teacher: Array  # (n,)

    @classmethod
    def of(
        cls,
        answers: Mapping[str, Sequence[Scored]],
        primary: str,
        comparator: str | None,
        margin: float,
        promise: DeferralTarget,
        seed: int,
    ) -> "_Items | str":
        """What is missing, in words, where there is nothing to work on."""
        if comparator is None and promise.good_enough is None:
            return "there is no answer to compare the student's with: [eval] good_enough names the score that is good enough"
        if not answers["teacher"]:
            return "there are no answers of the teacher to send a prompt to"
        other = answers[comparator or "teacher"]
        found: dict[str, tuple[float, bool, float, float]] = {}
        known = sum(one.confidence is not None for one in answers["student"])
        rows = zip(answers["student"], answers["teacher"], other, strict=True)
        for mine, teacher, best in sorted(rows, key=lambda row: _place(seed, row[0].prompt.id)):
            scores = [(one.scores or {}).get(primary) for one in (mine, teacher, best)]
            if mine.confidence is None or scores[0] is None or scores[1] is None:
                continue
            if promise.good_enough is None and scores[2] is None:
                continue
            least = promise.good_enough if promise.good_enough is not None else (scores[2] or 0.0) - margin
            (name,) = group_names([(mine.prompt.id, mine.group)])
            found.setdefault(name, (mine.confidence, scores[0] >= least, scores[0], scores[1]))
        if not known:
            return "no log-probabilities of the student's answers are known: its engine or endpoint reports none"
        if len(found) < FEWEST:
            return f"{len(found)} prompts with a confidence and a score: at least {FEWEST} are needed"
        confidence, good, student, teachers = (np.array(column) for column in zip(*found.values(), strict=True))
        return cls(confidence, good, student, teachers)

    def guarantee(self, target: float, risk: float) -> dict[str, Any]:
        """The threshold from the first half, and how its promise holds on the second."""
        half = len(self.good) // 2
        tried = candidates(self.confidence[half:], half, target, risk)
        found = choose(self.confidence[:half], self.good[:half], tried, target, risk)
        if found is None:
            number = needed(self.confidence, self.good, target, risk)
            return {"needed": None if number is None else max(1, number - len(self.good))}
        return {
            "threshold": found.value,
            "kept": rounded(found.kept / half),
            "bound": rounded(found.bound),
            "calibration": {"n": half, "kept": found.kept, "broken": found.broken},
            "held_out": self._held_out(half, found, risk),
            "needed": 0,
        }

    def _held_out(self, half: int, threshold: Threshold, risk: float) -> dict[str, Any]:
        kept = self.confidence[half:] >= threshold.value
        number, broken = int(kept.sum()), int((kept & ~self.good[half:]).sum())
        good = share(number - broken, number) if number else None
        bound = rounded(float(upper_bound(broken, number, risk)))
        return {"n": len(kept), "kept": number, "broken": broken, "bound": bound, "good_percent": {**row_of(good), "n": number}}

    def curve(self) -> list[dict[str, Any]]:
        """Quality against the share sent to the teacher: the least confident first, at random, and by an oracle that knows
        where the teacher gains most. `good` is the share of good answers among those that the student keeps. No point parts
        answers of equal confidence, as no threshold does.
        """
        n = len(self.good)
        by_confidence = np.argsort(self.confidence, kind="stable")
        ordered = self.confidence[by_confidence]
        places = {round(n * step / POINTS) for step in range(POINTS + 1)}
        by_gain = np.argsort(self.student - self.teacher, kind="stable")
        points = []
        for sent in sorted({n if place == n else int(np.searchsorted(ordered, ordered[place])) for place in places}):
            kept = by_confidence[sent:]
            points.append(
                {
                    "sent": rounded(sent / n),
                    "threshold": float(self.confidence[kept[0]]) if len(kept) else None,
                    "quality": rounded(self._quality(by_confidence, sent)),
                    "random": rounded(float(self.student.mean() + sent / n * (self.teacher.mean() - self.student.mean()))),
                    "oracle": rounded(self._quality(by_gain, sent)),
                    "good": rounded(float(self.good[kept].mean())) if len(kept) else None,
                }
            )
        return points

    def _quality(self, order: NDArray[np.int64], sent: int) -> float:
        return float((self.teacher[order[:sent]].sum() + self.student[order[sent:]].sum()) / len(order))


def with_cost(document: dict[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The document with USD per 1,000 requests at each point: the student answers all, the teacher those sent to it.

    None without the teacher's price, or that of a student at an endpoint. A student in this process costs 0 without an hourly
    rate.
    """
    student, teacher = (models.get(role, {}).get("usd_per_1000") for role in ("student", "teacher"))
    if student is None and models.get("student", {}).get("engine") != "openai":
        student = 0.0

    def usd(sent: float) -> float | None:
        if student is None or teacher is None:
            return None
        return round(
            usd_in_service(student, teacher, {"answers_a_request": 1 + document["samples"], "fallback_share": sent}), 6
        )

    return {**document, "curve": [{**point, "usd_per_1000": usd(point["sent"])} for point in document["curve"]]}


def _place(seed: int, name: str) -> str:
    return hashlib.sha256(f"deferral {seed} {name}".encode()).hexdigest()
