"""`eval --shadow LOG`: whether what eval promised for the student's answers still holds for those that a server gave.

The log holds pairs: what the student answered to a caller, and what the teacher says to the same. Each is scored by the run's
primary metric, and the share of bad ones is bounded as the promise was. Runs no model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.metrics import Item, Metric
from seqdistill.metrics.own import own_metric
from seqdistill.reasoning import split_reasoning
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_jsonl, text_without_system
from seqdistill.runs import Run
from seqdistill.stages.evaluate.statistics.guarantee import more_needed, upper_bound
from seqdistill.stages.evaluate.written import document_of, form_in, measures_in

HOLDS, BROKEN, OPEN = "holds", "broken", "undecided"
TARGET, RISK = 0.9, 0.05  # of a run whose eval had none: named in the result
OWN = "own"


@dataclass(frozen=True)
class Drift:
    """What the log says of the promise. Shares are from 0 to 1, scores those of the primary metric."""

    state: str  # holds | broken | undecided
    n: int  # answers of the student that the teacher checked
    good: int
    low: float  # of the share of good ones, each one-sided at `risk`
    high: float
    target: float
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
    least = deferral["good_enough"]
    if least is None:
        comparator = (scores.get("judged") or {}).get("other") or "teacher"
        least = _mean(run, comparator, scores["primary"]) - float(scores["margin"])
    target, risk = deferral["target"] or TARGET, deferral["risk"] or RISK
    pairs, earlier = _of_today_s_student(run, log)
    kept = [row for row in pairs if not _is_below(row, deferral["threshold"])]
    below = len(pairs) - len(kept)
    found: list[float] = []
    for row in kept:
        *prompt, wanted = row["messages"]
        said = split_reasoning(row["student"])[0]  # an older version logged an endpoint's reasoning, too
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
    judged = _judged(len(found), good, target, risk, metric.name, least, sum(found) / len(found), below)
    if earlier:
        judged = replace(judged, earlier=earlier, says=f"{judged.says} Not counted: {of_earlier}.")
    if deferral["target"] is None:
        assumed = f"Eval made no promise, so {target:.0%} with a risk of {risk:g} is assumed: `eval --target` makes one."
        judged = replace(judged, says=f"{judged.says} {assumed}")
    return judged


def _judged(n: int, good: int, target: float, risk: float, metric: str, least: float, mean: float, below: int) -> Drift:
    low, high = 1 - float(upper_bound(n - good, n, risk)), float(upper_bound(good, n, risk))
    state = HOLDS if low >= target else BROKEN if high < target else OPEN
    needed = 0 if state != OPEN else more_needed(n - good, n, target, risk)
    counted = f"{good} of {n} checked answers of the student are good enough ({metric} from {least:.1f})"
    bounds = f"at least {low:.1%}, at most {high:.1%} of all, with a risk of {risk:g} each"
    more = "so near to it that no number of answers will decide" if needed is None else f"about {needed:,} more are needed"
    says = {
        HOLDS: f"The promise holds: {counted}: {bounds}; promised are {target:.1%}.",
        BROKEN: f"The promise no longer holds: {counted}: {bounds}; promised are {target:.1%}. Send everything to the teacher "
        "(--threshold 1), and train and eval again with what the log holds.",
        OPEN: f"Not decided yet: {counted}: {bounds}; promised are {target:.1%}: {more}.",
    }[state]
    low, high, least, mean = (round(value, 6) for value in (low, high, least, mean))
    return Drift(state, n, good, low, high, target, risk, metric, least, mean, needed, below, 0, says)


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
        if row["messages"][-1]["content"].strip():  # an older version logged a teacher's answer without text, too
            yield {"confidence": None, "decided_on": 0, "time": None, **row}


def _metric(scores: Mapping[str, Any], recipe: Recipe) -> Metric:
    """The primary metric, which here compares with the teacher's answer."""
    name = str(scores["primary"]).removesuffix("_teacher").removesuffix("_reference")
    if name == OWN:
        if not recipe.eval.metric:
            raise UsageError("the run was evaluated with your own metric", "pass it again: --metric FILE.py:FUNCTION")
        return own_metric(recipe.eval.metric)
    return next(measure.metric for measure in measures_in(scores) if measure.metric.name == name)


def _mean(run: Run, role: str, primary: str) -> float:
    """The mean score of the model that eval compared the student's answers with."""
    rows = (row for _, row in read_jsonl(run.need("eval", "predictions.jsonl")) if row["model"] == role)
    found = [score for row in rows if (score := (row["scores"] or {}).get(primary)) is not None]
    if not found:
        raise UsageError("eval has no score of the teacher to compare with", "run eval with --good-enough SCORE")
    return float(sum(found) / len(found))
