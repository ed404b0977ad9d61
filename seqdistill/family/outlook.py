"""What a learning curve says, in numbers and words: the fitted curve, its check, what further rows would do at what price.

Reads what the trainings and evals of the parts wrote. Trains nothing.

Keys of scores.json (errors are points from the teacher, less is better; a cell is value, low, high):
  verdict                 sentences, the headline first
  points, repeats         each training: part, path, rows (that filter kept), steps, epochs, score, error
  noise                   standard deviation of a training, points; null without repeats
  fit                     a, b, c of error = a + b rows^-c
  half                    what a fit on the parts up to one half predicts for all rows, what was measured, whether it covers
  chance_now, chance_ever that the error is within the margin with all rows, or with any number up to 1,000 times as many
  needed                  for chances of .5, .8 and .95: rows, more (rows), usd; null where 1,000 times the rows do not do
  outlook                 for 2, 4, 8 and 16 times the rows: rows, error, chance, usd (of the further rows)
  drawn                   the curve as the picture shows it: rows, value, low, high
  held_fixed              what is the same for all trainings
  run, primary, heading, phrase, n (prompts), margin, compared_with, rows (all), usd_per_row, machine
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from seqdistill.errors import Incomplete
from seqdistill.family.fit import Curve, Measured, fit
from seqdistill.family.members import Member
from seqdistill.family.parts import FOLDER, Part
from seqdistill.family.sweep import read_scores
from seqdistill.funnel import rows_of
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate.shown import percent
from seqdistill.stages.evaluate.statistics.intervals import (
    FEWEST,
    Interval,
    ScoreMean,
    resample,
    rounded,
    row_of,
    shared_groups,
)

TIMES = (2, 4, 8, 16)  # times the rows of this run
MOST_TIMES = 1000.0  # no statement reaches further
LIKELY = 0.8  # a chance that is named as one


def outlook(run: Run, recipe: Recipe, parts: Sequence[Part], members: dict[str, Member]) -> dict[str, Any]:
    """The content of curve/scores.json, from what the trainings and evals wrote."""
    whole = read_json(members["all"].run.file("eval", "scores.json"))
    primary, comparator = whole["primary"], (whole["judged"] or {}).get("other")
    by_role, groups = read_scores(members["all"].run, primary)
    students = {name: read_scores(member.run, primary)[0]["student"] for name, member in members.items()}
    best = by_role[comparator] if comparator else dict.fromkeys(groups, 100.0)
    ids = [name for name in groups if name in best and all(name in scores for scores in students.values())]
    if len(ids) < FEWEST:
        raise Incomplete(f"only {len(ids)} test prompts were answered by all students", f"{FEWEST} are needed; run again")
    teacher = np.array([best[name] for name in ids])
    sign = 1.0 if whole["measures"][primary]["higher_is_better"] else -1.0
    errors = {name: sign * (teacher - np.array([scores[one] for one in ids])) for name, scores in students.items()}
    nested = sorted((part for part in parts if not part.first), key=lambda part: part.end)
    again = [part for part in parts if part.first]
    trained = {part.name: _point(part, members[part.name], primary) for part in parts}
    measured = Measured(
        np.array([float(trained[part.name]["rows"]) for part in nested]),
        np.stack([errors[part.name] for part in nested], axis=1),
        np.stack([errors[part.name] for part in again], axis=1) if again else None,
        shared_groups((name, groups[name]) for name in ids),
    )
    least = float(teacher.mean()) - 100.0 if sign > 0 else -float(teacher.mean())
    settings = whole["resamples"], whole["seed"]
    found, half = fit(measured, least, *settings), fit(measured.smaller(), least, *settings)
    rows, margin, per_row = int(measured.rows[-1]), whole["margin"], _usd_per_row(run)
    for place, part in enumerate(nested):
        trained[part.name]["error"] = row_of(_seen(measured, place, settings))
    for place, part in enumerate(again):
        trained[part.name]["error"] = row_of(_seen(measured, len(nested) + place, settings))
    document = {
        "run": run.path.absolute().name,
        "primary": primary,
        "heading": whole["measures"][primary]["heading"],
        "phrase": whole["measures"][primary]["phrase"],
        "n": len(ids),
        "margin": margin,
        "compared_with": comparator,
        "rows": rows,
        "usd_per_row": per_row,
        "held_fixed": list(_held_fixed(recipe, whole)),
        "points": [trained[part.name] for part in nested],
        "repeats": [trained[part.name] for part in again],
        "noise": rounded(found.deviation),
        "fit": {name: row_of(interval) for name, interval in found.parameters().items()},
        "half": _half(half, measured, settings),
        "chance_now": found.chance(rows, margin),
        "chance_ever": found.chance(MOST_TIMES * rows, margin),
        "needed": [_needed(found, chance, rows, margin, per_row) for chance in (0.5, LIKELY, 0.95)],
        "outlook": [_further(found, times, rows, margin, per_row) for times in TIMES],
        "drawn": [_drawn(found, at) for at in np.geomspace(measured.rows[0], rows * TIMES[-1], 60).tolist()],
        "machine": whole["machine"],
    }
    return {"verdict": list(_sentences(document)), **document}


def _point(part: Part, member: Member, primary: str) -> dict[str, Any]:
    """A training's numbers; rows that a training mixes in, as references, cost nothing and are not counted."""
    scores, counts = read_json(member.run.file("eval", "scores.json")), (member.run.manifest("train") or {})["counts"]
    return {
        "part": part.share,
        "path": f"{FOLDER}/{part.name}",
        "rows": _kept_rows(member.run)["train.jsonl"],
        "steps": counts["steps"],
        "epochs": counts["epochs"],
        "score": scores["models"]["student"][primary],
    }


def _seen(measured: Measured, place: int, settings: tuple[int, int]) -> Interval | None:
    """The measured mean of one training's errors."""
    columns = measured.errors if measured.repeats is None else np.concatenate([measured.errors, measured.repeats], axis=1)
    return resample(columns[:, place : place + 1], *settings, measured.groups).interval(ScoreMean(0, lowest=-100.0))


def _usd_per_row(run: Run) -> float | None:
    """What a kept row cost the teacher; None where no price is known."""
    usd = ((run.manifest("generate") or {}).get("counts") or {}).get("usd")
    kept = sum(_kept_rows(run).values())
    return round(usd / kept, 8) if usd is not None and kept else None


def _kept_rows(run: Run) -> dict[str, int]:
    """How many rows filter kept, by file: train.jsonl, validation.jsonl."""
    rows = rows_of(run, "filter")
    return {name: rows.get(name, 0) for name in ("train.jsonl", "validation.jsonl")}


def _held_fixed(recipe: Recipe, whole: dict[str, Any]) -> Iterator[str]:
    yield "the untrained student, its layers included"
    yield "the recipe and the number of epochs; so fewer rows are fewer steps"
    yield f"the seeds ({recipe.train.seed} of training), the validation rows and the {whole['prompts']} test prompts"


def _half(half: Curve, measured: Measured, settings: tuple[int, int]) -> dict[str, Any]:
    """What a fit on the parts up to one half predicts for all rows, and what was measured there."""
    predicted = half.of_one_training(float(measured.rows[-1]), settings[1])
    seen = float(measured.errors[:, -1].mean())
    low, high = predicted.low, predicted.high
    return {
        "predicted": row_of(predicted),
        "measured": rounded(seen),
        "covers": low is not None and high is not None and low <= seen <= high,
    }


def _needed(found: Curve, chance: float, rows: int, margin: float, per_row: float | None) -> dict[str, Any]:
    total = found.rows_for(margin, chance, MOST_TIMES * rows)
    more = None if total is None else max(round(total) - rows, 0)
    usd = None if more is None or per_row is None else round(more * per_row, 6)
    return {"chance": chance, "rows": None if more is None else rows + more, "more": more, "usd": usd}


def _further(found: Curve, times: int, rows: int, margin: float, per_row: float | None) -> dict[str, Any]:
    return {
        "times": times,
        "rows": times * rows,
        "error": row_of(found.at(times * rows)),
        "chance": found.chance(times * rows, margin),
        "usd": None if per_row is None else round((times - 1) * rows * per_row, 6),
    }


def _drawn(found: Curve, rows: float) -> dict[str, Any]:
    return {"rows": round(rows, 1), **row_of(found.at(rows))}


def _sentences(document: dict[str, Any]) -> Iterator[str]:
    """What the curve says, the headline first."""
    rows, margin, ever = document["rows"], f"{document['margin']:g} points", document["chance_ever"]
    likely = next(one for one in document["needed"] if one["chance"] == LIKELY)
    even = document["needed"][0]
    whom = "the teacher" if document["compared_with"] else "a perfect score"
    if document["chance_now"] >= LIKELY:
        now = f"with a chance of {document['chance_now']:.0%}"
        yield f"ENOUGH: with its {rows:,} rows the student is within {margin} of {whom}, {now}."
    elif not document["half"]["covers"]:
        yield (
            "NOT KNOWN: a fit on half of the rows does not predict the score at all of them, so this curve does not tell what "
            "more rows would do; more --repeats show how much a training varies by chance."
        )
    elif likely["more"] is not None:
        half = "" if even["more"] is None else f", {even['more']:,} more with one of 50%"
        yield (
            f"MORE ROWS SUFFICE: {likely['more']:,} more{_priced(likely, document)} bring the student within {margin} of "
            f"{whom} with a chance of {LIKELY:.0%}{half}."
        )
    elif ever <= 1 - LIKELY and document["fit"]["a"]["value"] <= document["margin"]:
        yield (
            f"NOT WITHIN REACH: {MOST_TIMES:,.0f} times the rows bring the student within {margin} of {whom} with a chance of "
            f"{ever:.0%} only; the fit leaves open what more do."
        )
    elif ever <= 1 - LIKELY:
        rest = percent(document["fit"]["a"])
        yield (
            f"MORE ROWS DO NOT SUFFICE: with any number of them about {rest} points to {whom} stay (margin: {margin}); "
            f"the chance that {MOST_TIMES:,.0f} times the rows reach it is {ever:.0%}."
        )
    else:
        yield (
            f"NOT KNOWN: {MOST_TIMES:,.0f} times the rows would bring the student within {margin} of {whom} with a chance of "
            f"{ever:.0%}; more test prompts, or more --repeats, make it surer."
        )
    twice = document["outlook"][0]
    now = document["points"][-1]["error"]
    yield (
        f"With {rows:,} rows it is {percent(now)} points from {whom}, on {document['n']} prompts by {document['phrase']}; "
        f"twice the rows are expected to leave {percent(twice['error'])}."
    )
    half = document["half"]
    yield (
        f"Checked: a fit on the parts up to one half predicts {percent(half['predicted'])} at all rows, and "
        f"{half['measured']:.1f} was measured, {'within' if half['covers'] else 'OUTSIDE of'} the interval."
    )
    if document["noise"] is None:
        yield "No training was repeated (--repeats): how much a training moves by chance is in none of the intervals."
    else:
        yield (
            f"Trainings on other rows of the same number differ by {document['noise']:.1f} points (standard deviation, from "
            f"{len(document['repeats']) + 1} trainings, less the variance from the test prompts), which is in the intervals."
        )
    if document["usd_per_row"] is None:
        yield "The cost of a row is not known: set [teacher] price."


def _priced(needed: dict[str, Any], document: dict[str, Any]) -> str:
    if needed["usd"] is None:
        return ""
    return f" ({needed['usd']:,.2f} USD at {document['usd_per_row']:.4g} a kept row)"
