"""A learning curve: the run's student trained on 1/8, 1/4, 1/2 and all rows, and what more rows would do at what price.

RUN/curve/NAME/ is each training's run directory; RUN/curve/scores.json and report.html hold what was found. The parts are
nested: prompts are ordered by a hash, and each part takes the first of them. `repeats` train on other eighths: how much they
differ is the noise of a training, which the test prompts cannot show.

Keys of scores.json (errors are points from the teacher, less is better; a cell is value, low, high):
  verdict                 sentences, the headline first
  points, repeats         each training: part, path, rows, steps, epochs, score, error
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

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.family.fit import Curve, Measured, fit
from seqdistill.family.members import Member, adopt_training, finish, link, open_member, read_json
from seqdistill.family.sweep import groups_of_prompts, read_scores
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_jsonl, write_json, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate import inputs as eval_inputs
from seqdistill.stages.evaluate.shown import percent
from seqdistill.stages.evaluate.statistics.intervals import FEWEST, Interval
from seqdistill.stages.train import ready

FOLDER = "curve"
EIGHTHS = (8, 4, 2, 1)  # of the rows: the sizes that are trained on, the whole first
WEIGHTS_OF_A_CUT = ("features", "attention", "relations", "distances")  # of [train]: they need the layers' origins
TIMES = (2, 4, 8, 16)  # times the rows at hand, for the outlook
MOST_TIMES = 1000.0  # no statement reaches further
LIKELY = 0.8  # a chance that is named as one


@dataclass(frozen=True)
class CurveResult:
    """What a curve found. `scores` is the content of curve/scores.json."""

    scores: dict[str, Any]
    paths: dict[str, Path]  # scores, report

    @property
    def verdict(self) -> list[str]:
        """What it says, in sentences, the headline first."""
        return list(self.scores["verdict"])

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`."""
        return ["part", "rows", "steps", self.scores["heading"], "less the teacher"]

    @property
    def rows(self) -> list[list[str]]:
        """One row a training, ready to print."""
        return [
            [one["part"], f"{one['rows']:,}", f"{one['steps']:,}", percent(one["score"]), percent(one["error"])]
            for one in [*self.scores["points"], *self.scores["repeats"]]
        ]

    @property
    def outlook_columns(self) -> list[str]:
        """The heads of `outlook_rows`."""
        return ["with", "rows", "less the teacher", "chance", "USD more"]

    @property
    def outlook_rows(self) -> list[list[str]]:
        """What further rows would do, ready to print."""
        return [
            [
                f"{one['times']} x",
                f"{one['rows']:,}",
                percent(one["error"]),
                f"{one['chance']:.0%}",
                "–" if one["usd"] is None else f"{one['usd']:,.2f}",
            ]
            for one in self.scores["outlook"]
        ]


@dataclass(frozen=True)
class Part:
    """Which eighths of the prompts a training gets: from `first` on, up to `end`."""

    name: str  # of its directory
    first: int
    end: int

    @property
    def share(self) -> str:
        """As people say it."""
        count = self.end - self.first
        share = {1: "1/8", 2: "1/4", 4: "1/2", 8: "all"}[count]
        return f"{share}, part {self.first + 1}" if self.first else share


def parts_of(repeats: int) -> list[Part]:
    """The whole first, because it decides what is held fixed; then its nested parts, and as many other eighths."""
    nested = [Part("all" if count == 8 else f"eighths-{count}", 0, count) for count in EIGHTHS]
    return nested + [Part(f"again-{number}", number, number + 1) for number in range(1, repeats + 1)]


def curve(run: Run, recipe: Recipe, repeats: int, progress: Progress) -> CurveResult:
    """Trains and evaluates the student on each part, in a directory of its own within the run, and fits the curve.

    What is up to date is skipped, and so is the training on all rows where the run has it. Raises UsageError, before the first
    training, for what train or eval would refuse and for a run with too few prompts.
    """
    from seqdistill.family.report import write_curve_report

    parts = parts_of(repeats)
    prompts = _check(run, recipe)
    with run.locked(FOLDER):
        members: dict[str, Member] = {}
        for number, part in enumerate(parts, 1):
            progress.note(f"curve: {part.share} of the rows, training {number} of {len(parts)}")
            if part.name == "all":
                member = open_member(run, recipe, FOLDER, part.name)
                adopt_training(member, run)
            else:
                member = open_member(run, _for_part(recipe, part, members["all"]), FOLDER, part.name, linked=["generate"])
                _write_part(run, member.run, part, prompts)
            finish(member, progress)
            members[part.name] = member
        document = fitted(run, recipe, parts, members)
        paths = {"scores": run.file(FOLDER, "scores.json"), "report": run.file(FOLDER, "report.html")}
        write_json(paths["scores"], document)
        write_curve_report(paths["report"], run, document)
    return CurveResult(document, paths)


def _check(run: Run, recipe: Recipe) -> list[str]:
    """The prompts of the training rows, in the order by hash."""
    files = [run.need("filter", f"{name}.jsonl") for name in ("train", "validation")]
    eval_inputs.check(run, recipe)
    ready.check_settings(recipe)
    if recipe.train.limit is not None:
        raise UsageError("[train] limit has no part in a curve: it decides itself how many rows are trained on", "leave it out")
    cut = recipe.train.vocabulary != "all" or recipe.train.width < 1
    if recipe.train.steps or (cut and any(getattr(recipe.train, name) for name in WEIGHTS_OF_A_CUT)):
        raise UsageError(
            "a curve needs one untrained student for all its parts, and this one is cut by the rows it is trained on",
            "leave out [train] steps, or with vocabulary and width the weights of hidden states",
        )
    found = dict.fromkeys(str(row["prompt_id"]) for _, row in read_jsonl(files[0]))
    if len(found) < 2 * EIGHTHS[0]:
        raise UsageError(
            f"{files[0]}: rows of {len(found)} prompts are too few for a curve", f"at least {2 * EIGHTHS[0]} are needed"
        )
    return sorted(found, key=lambda name: hashlib.sha256(f"curve {name}".encode()).hexdigest())


def _for_part(recipe: Recipe, part: Part, whole: Member) -> Recipe:
    """The recipe for a part: as many epochs, and the same untrained student, although the rows choose what is cut."""
    student, config = recipe.student, recipe.train
    if config.vocabulary != "all" or config.width < 1:
        student = replace(student, model=str(whole.run.file("train", "base").absolute()), revision=None)
        config = replace(config, vocabulary="all", width=1.0)
    elif layers := ((whole.run.manifest("train") or {}).get("student") or {}).get("layers"):
        config = replace(config, layers=",".join(map(str, layers)))
    if (steps := int(config.args.get("max_steps", -1))) > 0:
        config = replace(config, args={**config.args, "max_steps": max(1, round(steps * (part.end - part.first) / EIGHTHS[0]))})
    return replace(recipe, student=student, train=config)


def _write_part(run: Run, member: Run, part: Part, prompts: Sequence[str]) -> None:
    """The filter stage of a part: the rows of its prompts in the run's order, and all validation rows."""
    files = {name: run.file("filter", f"{name}.jsonl") for name in ("train", "validation")}
    record = StageRecord(member, "filter", {"curve.first": part.first, "curve.end": part.end}, files)
    if run.file("filter", "journal.jsonl").is_file():
        link(member.file("filter", "journal.jsonl"), run.file("filter", "journal.jsonl"))
    if record.up_to_date():
        return
    first, end = (len(prompts) * eighths // EIGHTHS[0] for eighths in (part.first, part.end))
    wanted = set(prompts[first:end])
    record.begin()
    rows = write_jsonl(
        member.file("filter", "train.jsonl"), (r for _, r in read_jsonl(files["train"]) if r["prompt_id"] in wanted)
    )
    held_back = write_jsonl(member.file("filter", "validation.jsonl"), (row for _, row in read_jsonl(files["validation"])))
    record.finish({"train.jsonl": rows, "validation.jsonl": held_back}, config={}, part=asdict(part))


# --- what was found ---------------------------------------------------------------------------------------------------


def fitted(run: Run, recipe: Recipe, parts: Sequence[Part], members: dict[str, Member]) -> dict[str, Any]:
    """The content of curve/scores.json, from what the trainings and evals wrote."""
    import numpy as np

    whole = read_json(members["all"].run.file("eval", "scores.json"))
    primary, top = whole["primary"], (whole["judged"] or {}).get("other")
    by_role, groups = read_scores(members["all"].run, primary)
    students = {name: read_scores(member.run, primary)[0]["student"] for name, member in members.items()}
    best = by_role[top] if top else dict.fromkeys(groups, 100.0)
    ids = [name for name in groups if name in best and all(name in scores for scores in students.values())]
    if len(ids) < FEWEST:
        raise UsageError(f"{len(ids)} test prompts are too few for a curve", f"at least {FEWEST} are needed")
    teacher = np.array([best[name] for name in ids])
    sign = 1.0 if whole["measures"][primary]["higher_is_better"] else -1.0
    errors = {name: sign * (teacher - np.array([scores[one] for one in ids])) for name, scores in students.items()}
    nested = sorted((part for part in parts if not part.first), key=lambda part: part.end)
    again = [part for part in parts if part.first]
    points_ = {part.name: _point(part, members[part.name], primary) for part in parts}
    measured = Measured(
        np.array([float(points_[part.name]["rows"]) for part in nested]),
        np.stack([errors[part.name] for part in nested], axis=1),
        np.stack([errors[part.name] for part in again], axis=1) if again else None,
        groups_of_prompts(groups, ids),
    )
    least = float(teacher.mean()) - 100.0 if sign > 0 else -float(teacher.mean())
    settings = whole["resamples"], whole["seed"]
    found, half = fit(measured, least, *settings), fit(measured.smaller(), least, *settings)
    rows, margin, per_row = int(measured.rows[-1]), whole["margin"], _usd_per_row(run)
    for place, part in enumerate(nested):
        points_[part.name]["error"] = _cell(_seen(measured, place, settings))
    for place, part in enumerate(again):
        points_[part.name]["error"] = _cell(_seen(measured, len(nested) + place, settings))
    document = {
        "run": run.path.absolute().name,
        "primary": primary,
        "heading": whole["measures"][primary]["heading"],
        "phrase": whole["measures"][primary]["phrase"],
        "n": len(ids),
        "margin": margin,
        "compared_with": top,
        "rows": rows,
        "usd_per_row": per_row,
        "held_fixed": list(_held_fixed(recipe, whole)),
        "points": [points_[part.name] for part in nested],
        "repeats": [points_[part.name] for part in again],
        "noise": _round(float(np.median(found.noise))) if again else None,
        "fit": {name: _cell(interval) for name, interval in found.parameters().items()},
        "half": _half(half, measured, settings),
        "chance_now": found.chance(rows, margin),
        "chance_ever": found.chance(MOST_TIMES * rows, margin),
        "needed": [_needed(found, chance, rows, margin, per_row) for chance in (0.5, LIKELY, 0.95)],
        "outlook": [_outlook(found, times, rows, margin, per_row) for times in TIMES],
        "drawn": [_drawn(found, at) for at in np.geomspace(measured.rows[0], rows * TIMES[-1], 60).tolist()],
        "machine": whole["machine"],
    }
    return {"verdict": list(_sentences(document)), **document}


def _point(part: Part, member: Member, primary: str) -> dict[str, Any]:
    scores, counts = read_json(member.run.file("eval", "scores.json")), (member.run.manifest("train") or {})["counts"]
    return {
        "part": part.share,
        "path": f"{FOLDER}/{part.name}",
        "rows": counts["rows"],
        "steps": counts["steps"],
        "epochs": counts["epochs"],
        "score": scores["models"]["student"][primary],
    }


def _seen(measured: Measured, place: int, settings: tuple[int, int]) -> Interval | None:
    """The measured mean of one training's errors."""
    import numpy as np

    from seqdistill.stages.evaluate.statistics.intervals import column, resample

    columns = measured.errors if measured.repeats is None else np.concatenate([measured.errors, measured.repeats], axis=1)
    return resample(columns[:, place : place + 1], *settings, measured.groups).interval(column(0))


def _usd_per_row(run: Run) -> float | None:
    """What a kept row cost the teacher; None where no price is known."""
    usd = ((run.manifest("generate") or {}).get("counts") or {}).get("usd")
    outputs = {Path(one["path"]).name: one["rows"] for one in (run.manifest("filter") or {})["outputs"]}
    kept = (outputs.get("train.jsonl") or 0) + (outputs.get("validation.jsonl") or 0)
    return round(usd / kept, 8) if usd is not None and kept else None


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
        "predicted": _cell(predicted),
        "measured": _round(seen),
        "covers": low is not None and high is not None and low <= seen <= high,
    }


def _needed(found: Curve, chance: float, rows: int, margin: float, per_row: float | None) -> dict[str, Any]:
    total = found.rows_for(margin, chance, MOST_TIMES * rows)
    more = None if total is None else max(round(total) - rows, 0)
    usd = None if more is None or per_row is None else round(more * per_row, 6)
    return {"chance": chance, "rows": None if more is None else rows + more, "more": more, "usd": usd}


def _outlook(found: Curve, times: int, rows: int, margin: float, per_row: float | None) -> dict[str, Any]:
    return {
        "times": times,
        "rows": times * rows,
        "error": _cell(found.at(times * rows)),
        "chance": found.chance(times * rows, margin),
        "usd": None if per_row is None else round((times - 1) * rows * per_row, 6),
    }


def _drawn(found: Curve, rows: float) -> dict[str, Any]:
    return {"rows": round(rows, 1), **_cell(found.at(rows))}


def _sentences(document: dict[str, Any]) -> Iterator[str]:
    """What the curve says, the headline first."""
    rows, margin, ever = document["rows"], f"{document['margin']:g} points", document["chance_ever"]
    likely = next(one for one in document["needed"] if one["chance"] == LIKELY)
    even = document["needed"][0]
    whom = "the teacher" if document["compared_with"] else "a perfect score"
    if document["chance_now"] >= LIKELY:
        now = f"with a chance of {document['chance_now']:.0%}"
        yield f"ENOUGH: with its {rows:,} rows the student is within {margin} of {whom}, {now}."
    elif likely["more"] is not None:
        half = "" if even["more"] is None else f", {even['more']:,} more with one of 50%"
        yield (
            f"MORE ROWS WILL DO: {likely['more']:,} more{_priced(likely, document)} bring the student within {margin} of "
            f"{whom} with a chance of {LIKELY:.0%}{half}."
        )
    elif ever <= 1 - LIKELY:
        rest = percent(document["fit"]["a"])
        yield (
            f"MORE ROWS WILL NOT DO: however many there are, about {rest} points to {whom} stay, and the margin is {margin}; "
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
            f"{len(document['repeats']) + 1} trainings), which is in the intervals."
        )
    if document["usd_per_row"] is None:
        yield "What a row costs is not known: [teacher] price says it."


def _priced(needed: dict[str, Any], document: dict[str, Any]) -> str:
    if needed["usd"] is None:
        return ""
    return f" ({needed['usd']:,.2f} USD at {document['usd_per_row']:.4g} a kept row)"


def _cell(interval: Interval | None) -> dict[str, Any]:
    return {name: None if interval is None else _round(getattr(interval, name)) for name in ("value", "low", "high")}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6) + 0.0
