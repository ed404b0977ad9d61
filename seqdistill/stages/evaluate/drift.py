"""`eval --shadow LOG`: whether what eval promised for the student's answers still holds for those that a server gave.

The log holds pairs: what the student answered to a caller, and what the teacher says to the same. Each is scored by the run's
primary metric, and the share of bad ones is bounded as the promise was. Eval could compare with a reference or with a second
answer of the teacher, which traffic lacks: what that makes of the promise is measured on eval's own answers. Runs no model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.metrics import Item, Metric
from seqdistill.metrics.own import own_metric
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_jsonl, text_without_system
from seqdistill.runs import Run
from seqdistill.stages.evaluate.shown import counterpart
from seqdistill.stages.evaluate.statistics.guarantee import more_needed, upper_bound
from seqdistill.stages.evaluate.statistics.intervals import group_names, tango
from seqdistill.stages.evaluate.written import document_of, form_in, measures_in

HOLDS, BROKEN, OPEN = "holds", "broken", "undecided"
MOST = 0.999  # that can be promised
TARGET, RISK = 0.9, 0.05  # of a run whose eval had none: named in the result
OWN = "own"
NO_CONFIDENCE: Mapping[str, Any] = {"confidence": None, "decided_on": 0}


@dataclass(frozen=True)
class Drift:
    """What the log says of the promise. Shares are from 0 to 1, scores those of the primary metric."""

    state: str  # holds | broken | undecided
    n: int  # answers of the student that the teacher checked
    good: int
    low: float  # of the share of good ones, each one-sided at `risk`
    high: float
    target: float
    holds_from: float  # the share of good ones, as they are counted here, from which the promise holds: the target, or near it
    broken_below: float  # and below which it is broken; between the two eval's answers leave it open
    risk: float
    metric: str
    good_enough: float  # score from which an answer is good
    mean: float  # score
    needed: int | None  # further checked answers for a decision; None: as it is, none will do
    below: int  # further pairs that were not kept at today's threshold, and are not counted; of streams it is not known
    earlier: int  # further pairs of a student before the latest training, which are not counted either
    says: str


def drift(run: Run, recipe: Recipe, log: Path) -> Drift:
    """Scores a server's log. Raises UsageError for a log without pairs, and before eval has run."""
    for name in ("deferral.json", "scores.json"):
        run.need("eval", name)
    deferral, scores = document_of(run, "deferral.json"), document_of(run, "scores.json")
    metric, form = _metric(scores, recipe), form_in(scores)
    target, risk = deferral["target"] or TARGET, deferral["risk"] or RISK
    evaluated = _Evaluated.of(run, scores, deferral)
    least = evaluated.least
    bars = evaluated.bars(target)
    pairs, earlier = _of_today_s_student(run, log)
    kept = [row for row in pairs if not _is_below(row, deferral["threshold"])]
    below = len(pairs) - len(kept)
    found: list[float] = []
    for row in kept:
        *prompt, wanted = row["messages"]
        said = row["student"]
        fault = form.fault(said) if form else None
        item = Item(said, wanted["content"], form.kind, form.choices, fault, prompt=text_without_system(prompt))
        score = metric.score(item)
        if score is not None:
            found.append(score)
    of_earlier = f"{earlier} of an earlier student, before it was trained again" if earlier else ""
    if not found:
        others = " and ".join(filter(None, (f"{below} below the threshold" if below else "", of_earlier)))
        raise UsageError(
            f"{log}: no answer of the student that the teacher checked{f', but {others}' if others else ''}",
            f"serve with --shadow 0.02 first; its log is {run.file('serve', 'log.jsonl')}",
        )
    good = sum(score >= least for score in found)
    judged = _judged(len(found), good, target, bars, risk, metric.name, least, sum(found) / len(found), below)
    if earlier:
        judged = replace(judged, earlier=earlier, says=f"{judged.says} Not counted: {of_earlier}.")
    if deferral["target"] is None:
        assumed = f"Eval made no promise, so {target:.0%} with a risk of {risk:g} is assumed: `eval --target` makes one."
        judged = replace(judged, says=f"{judged.says} {assumed}")
    return judged


def _judged(
    n: int, good: int, target: float, bars: tuple[float, float], risk: float, metric: str, least: float, mean: float, below: int
) -> Drift:
    low, high = 1 - float(upper_bound(n - good, n, risk)), float(upper_bound(good, n, risk))
    broken_below, holds_from = bars
    state = HOLDS if low >= holds_from else BROKEN if high < broken_below else OPEN
    needed = None if state == OPEN else 0
    if state == OPEN and not broken_below * n <= good < holds_from * n:
        needed = more_needed(n - good, n, holds_from if good >= holds_from * n else broken_below, risk)
    counted = f"{good} of {n} checked answers of the student are good enough ({metric} from {least:.1f})"
    bounds = f"at least {low:.1%}, at most {high:.1%} of all, with a risk of {risk:g} each"
    promised = f"promised are {target:.1%}"
    if bars != (target, target):
        promised += f", which of eval's own answers, compared as here, are {broken_below:.1%} to {holds_from:.1%}"
    more = "so near to it that no number of answers will decide" if needed is None else f"about {needed:,} more are needed"
    says = {
        HOLDS: f"The promise holds: {counted}: {bounds}; {promised}.",
        BROKEN: f"The promise no longer holds: {counted}: {bounds}; {promised}. Send everything to the teacher "
        "(--threshold 1), and train and eval again with what the log holds.",
        OPEN: f"Not decided yet: {counted}: {bounds}; {promised}: {more}.",
    }[state]
    low, high, least, mean, broken_below, holds_from = (
        round(value, 6) for value in (low, high, least, mean, broken_below, holds_from)
    )
    return Drift(state, n, good, low, high, target, holds_from, broken_below, risk, metric, least, mean, needed, below, 0, says)


def _of_today_s_student(run: Run, log: Path) -> tuple[list[Mapping[str, Any]], int]:
    """The pairs of the student as it was last trained, and how many others there are."""
    finished = (run.manifest("train") or {}).get("finished")
    trained = datetime.fromisoformat(finished).timestamp() if finished else 0.0
    pairs = [*_pairs(log)]
    of_today = [row for row in pairs if not isinstance(row["time"], (int, float)) or row["time"] >= trained]
    return of_today, len(pairs) - len(of_today)


def _is_below(row: Mapping[str, Any], threshold: float | None) -> bool:
    confidence = None if row["decided_on"] else row["confidence"]
    return threshold is not None and confidence is not None and confidence < threshold


def _pairs(log: Path) -> Iterator[Mapping[str, Any]]:
    for place, row in read_jsonl(log):
        if row.get("kind") != "shadow":
            continue
        messages = row.get("messages")
        whole = isinstance(row.get("student"), str) and isinstance(messages, list) and len(messages) > 1
        whole = whole and all(isinstance(row.get(key), (int, float, type(None))) for key in ("confidence", "decided_on"))
        if not whole or not all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in messages or ()):
            raise UsageError(f"{place}: not a pair of answers as a server logs it", "pass RUN/serve/log.jsonl")
        yield {**NO_CONFIDENCE, "time": None, **row}


def _metric(scores: Mapping[str, Any], recipe: Recipe) -> Metric:
    """The primary metric, which here compares with the teacher's answer."""
    name = str(scores["primary"]).removesuffix("_teacher").removesuffix("_reference")
    if name == OWN:
        if not recipe.eval.metric:
            raise UsageError("the run was evaluated with your own metric", "pass it again: --metric FILE.py:FUNCTION")
        return own_metric(recipe.eval.metric)
    return next(measure.metric for measure in measures_in(scores) if measure.metric.name == name)


@dataclass(frozen=True)
class _Evaluated:
    """What eval found of the answers that the student kept: whether each is good by its measure, and by the one used here."""

    least: float  # the score from which an answer is good here
    pairs: list[tuple[bool, bool]]  # one of each group, as deferral counts; none where both are the same measure

    @classmethod
    def of(cls, run: Run, scores: Mapping[str, Any], deferral: Mapping[str, Any]) -> "_Evaluated":
        primary, margin, fixed = str(scores["primary"]), float(scores["margin"]), deferral["good_enough"]
        comparator = (scores.get("judged") or {}).get("other") or "teacher"
        here = primary if primary.endswith("_teacher") else counterpart(primary) or primary
        best: dict[str, float] = {}
        mine: list[tuple[str, str | None, float | None, float | None]] = []
        for _, row in read_jsonl(run.need("eval", "predictions.jsonl")):
            found = row["scores"] or {}
            if row["model"] == comparator and found.get(primary) is not None:
                best[row["id"]] = found[primary]
            elif row["model"] == "student" and not _is_below({**NO_CONFIDENCE, **row}, deferral["threshold"]):
                mine.append((row["id"], row.get("group"), found.get(primary), found.get(here)))
        if fixed is None and not best:
            raise UsageError("eval has no score of the teacher to compare with", "run eval with --good-enough SCORE")
        least = fixed if fixed is not None else sum(best.values()) / len(best) - margin
        if here == primary and (fixed is not None or comparator == "teacher"):
            return cls(least, [])
        known: dict[str, tuple[bool, bool]] = {}
        for name, group, a, b in mine:
            enough = fixed if fixed is not None else best[name] - margin if name in best else None
            if a is not None and b is not None and enough is not None:
                (counted,) = group_names([(name, group)])
                known.setdefault(counted, (a >= enough, b >= least))
        return cls(least, list(known.values()))

    def bars(self, target: float) -> tuple[float, float]:
        """Below which share of good ones by this measure the promise is broken, and from which it holds.

        The target less what eval's measure finds good more often: Tango's interval of it.
        """
        if not self.pairs:
            return target, target
        only_eval, only_here = (sum(a != b and a == which for a, b in self.pairs) for which in (True, False))
        low, high = tango(only_eval, only_here, len(self.pairs))
        return max(0.0, target - float(high)), min(MOST, target - float(low))
