"""The report's charts as numbers: scales, dots with intervals, curves, histograms, bars. The looks are the template's.

Everything is placed in percent of a chart's width and height, so that a chart fits a phone and a page without a script.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdistill.stages.evaluate.cost import usd_with_samples
from seqdistill.stages.evaluate.shown import count, percent, usd, usd_per_1000

Document = dict[str, Any]
BINS = 32  # of a histogram
LABEL_HEIGHT = 8.0  # percent of a plot's height below which two labels would overlap


@dataclass(frozen=True)
class Axis:
    """A scale with round ticks."""

    start: float
    end: float
    ticks: list[Document]

    def at(self, value: float) -> float:
        """The place of a value, in percent from the start."""
        return round(100 * (value - self.start) / (self.end - self.start), 2)

    def up(self, value: float) -> float:
        """The place of a value on an upright axis, in percent from the top."""
        return round(100 - 100 * (value - self.start) / (self.end - self.start), 2)


def axis(low: float, high: float, unit: str = "") -> Axis:
    """A scale that covers low to high."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / 4))
    step = next((step * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5), step * 10)
    start, end = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    end = end if end > start else start + step
    ticks = []
    for number in range(round((end - start) / step) + 1):
        value, at = start + number * step, 100 * number * step / (end - start)
        label = count(value) if step >= 1000 else f"{value:,.10g}" if abs(value) > 1e-12 else "0"
        ticks.append({"at": round(at, 2), "label": label + unit, "zero": abs(value) < 1e-9 and low < 0})
    return Axis(start, end, ticks)


# --- dots with intervals ----------------------------------------------------------------------------------------------


def levels(models: Mapping[str, Any], metric: str, title: str) -> Document:
    """Each contestant's score from 0 to 100."""
    scale = axis(0.0, 100.0)
    return {
        "title": title,
        "rows": [dot(model, model, facts[metric], scale) for model, facts in models.items() if facts.get(metric)],
        "ticks": scale.ticks,
    }


def gaps(comparisons: Sequence[Document], metric: str, title: str) -> Document:
    """The student less each other contestant."""
    cells = [cell for cell in comparisons if cell["metric"] == metric and cell["value"] is not None]
    ends = [cell[name] for cell in cells for name in ("value", "low", "high") if cell[name] is not None]
    scale = axis(min([0.0, *ends]), max([1.0, *ends]))
    return {
        "title": title,
        "rows": [dot(cell["other"], f"vs {cell['other']}", cell, scale, "+") for cell in cells],
        "ticks": scale.ticks,
    }


def dot(model: str, label: str, cell: Document | None, scale: Axis, sign: str = "") -> Document:
    """One row: a dot with its interval, hollow where the interval of a difference holds zero."""

    def at(value: float | None) -> float | None:
        return None if value is None else scale.at(value)

    value, low, high = (cell[name] if cell else None for name in ("value", "low", "high"))
    return {
        "model": model,
        "label": label,
        "at": at(value),
        "low": at(low),
        "high": at(high),
        "hollow": sign != "" and (low is None or low <= 0 <= (high or 0)),
        "number": "–" if value is None else f"{value:{sign}.1f}",
        "range": "" if low is None else f"[{low:{sign}.1f}, {high:{sign}.1f}]",
        "text": percent(cell, sign),
    }


# --- curves -----------------------------------------------------------------------------------------------------------


def _line(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.at(a):g},{y.up(b):g}" for a, b in points if math.isfinite(b))


def _plot(label: str, x: Axis, y: Axis, x_name: str, y_name: str, **more: Any) -> Document:
    y_ticks = [{**tick, "at": round(100 - tick["at"], 2)} for tick in y.ticks]
    empty: Document = {"lines": [], "marks": [], "upright": []}
    return {"label": label, "x": x.ticks, "y": y_ticks, "x_name": x_name, "y_name": y_name, **empty, **more}


def loss(log: Sequence[Document]) -> Document | None:
    """The curves of train/log.jsonl; None without one."""
    curves = {
        name: [(float(row["step"]), float(row[key])) for row in log if row.get(key) is not None and "step" in row]
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
    }
    curves = {name: [point for point in curve if math.isfinite(point[1])] for name, curve in curves.items()}
    if len(curves["training"]) < 2:
        return None
    points = [point for curve in curves.values() for point in curve]
    x, y = axis(0.0, max(step for step, _ in points)), axis(0.0, max(value for _, value in points))
    found = [{"name": name, "points": _line(curve, x, y)} for name, curve in curves.items() if curve]
    marks = [{"model": "validation", "x": x.at(step), "y": y.up(value)} for step, value in curves["validation"]]
    first, last = curves["training"][0][1], curves["training"][-1][1]
    said = f"training loss from {first:.2f} to {last:.2f} in {x_steps(curves['training'])} steps"
    if curves["validation"]:
        said += f", validation loss {curves['validation'][-1][1]:.2f}"
    return _plot(said, x, y, "step", "loss", lines=found, marks=marks)


def quality(log: Sequence[Document]) -> Document | None:
    """The student's score on validation prompts while it trained; None where it was not measured at least twice."""
    points = [(float(row["step"]), float(row["quality"])) for row in log if row.get("quality") is not None]
    if len(points) < 2:
        return None
    x, y = (
        axis(0.0, max(step for step, _ in points)),
        axis(min(score for _, score in points), max(score for _, score in points)),
    )
    said = f"score on validation prompts from {points[0][1]:.1f} to {points[-1][1]:.1f}"
    marks = [{"model": "training", "x": x.at(step), "y": y.up(score)} for step, score in points]
    lines = [{"name": "quality", "points": _line(points, x, y)}]
    return _plot(said, x, y, "step", "score on validation prompts, against the teacher", lines=lines, marks=marks)


def x_steps(curve: Sequence[tuple[float, float]]) -> str:
    """The last step of a curve."""
    return f"{curve[-1][0]:,.0f}"


def deferral(found: Document) -> Document | None:
    """The curve of a fallback: quality against the share sent to the teacher, with its table; None without one."""
    points = found.get("curve", [])
    if not points:
        return None
    values = [point[name] for point in points for name in ("quality", "random", "oracle")]
    x, y = axis(0.0, 100.0, "%"), axis(min(values), max([*values, min(values) + 1.0]))
    lines = [
        {"name": name, "points": _line(((100 * point["sent"], point[name]) for point in points), x, y)}
        for name in ("oracle", "random", "quality")
    ]
    priced = points[-1].get("usd_per_1000") is not None
    auroc = "–" if found["auroc"] is None else format(found["auroc"], ".2f")
    first, last = points[0]["quality"], points[-1]["quality"]
    return {
        "plot": _plot(
            f"quality from {first:.1f} with the student alone to {last:.1f} with the teacher alone",
            x,
            y,
            "share sent to the teacher",
            "quality",
            lines=lines,
            upright=[] if found["threshold"] is None else [{"at": x.at(100 - 100 * found["kept"]), "label": "threshold"}],
        ),
        "note": f"{found['n']} prompts, {100 * found['good']:.1f}% of the student's answers good enough. Confidence tells good "
        f"from bad with an AUROC of {auroc} (0.5 is chance); its calibration error is {found['ece']:.2f}.",
        "columns": ["sent to the teacher", "from a confidence of", "quality", "kept and good", *(["USD per 1,000"] * priced)],
        "rows": [
            [
                f"{100 * point['sent']:.0f}%",
                "–" if point["threshold"] is None else f"{point['threshold']:.3f}",
                f"{point['quality']:.1f}",
                "–" if point["good"] is None else f"{100 * point['good']:.1f}%",
                *([f"{point['usd_per_1000']:.4f}"] if priced else []),
            ]
            for point in points
            if round(100 * point["sent"]) % 10 == 0
        ],
    }


def quality_and_cost(scores: Document) -> Document | None:
    """Each model's primary score against USD for 1,000 requests, or else against its size; None for fewer than two points."""
    primary, models = scores["primary"], scores["models"]
    costs = {role: usd_per_1000(scores, role) for role in models}
    if (own := costs.get("student")) is not None:
        costs["student"] = usd_with_samples(own, (scores.get("cost") or {}).get("terms", {}))
    name, unit = "USD for 1,000 requests", usd
    if sum(value is not None for value in costs.values()) < 2:
        costs = {role: facts.get("parameters") for role, facts in models.items()}
        name, unit = "parameters (no prices are known)", count
    found = []
    for role, value in costs.items():
        cell = models[role].get(primary) or (models.get("ceiling", {}).get(primary) if role == "teacher" else None)
        if value is not None and cell and cell["value"] is not None and role != "ceiling":
            found.append((role, float(value), cell))
    if len({value for _, value, _ in found}) < 2:
        return None
    x = axis(0.0, max(value for _, value, _ in found))
    ends = [cell[end] for _, _, cell in found for end in ("value", "low", "high") if cell[end] is not None]
    y = axis(max(0.0, min(ends) - 2), max(ends))
    marks = [
        {
            "model": role,
            "x": x.at(value),
            "y": y.up(cell["value"]),
            "low": y.up(cell["low"] if cell["low"] is not None else cell["value"]),
            "high": y.up(cell["high"] if cell["high"] is not None else cell["value"]),
            "label": role,
            "note": unit(value),
            "before": x.at(value) > 70,
        }
        for role, value, cell in found
    ]
    _spread(marks)
    said = "; ".join(f"{role}: {cell['value']:.1f} at {unit(value)}" for role, value, cell in found)
    return _plot(f"{name}: {said}", x, y, name, scores["measures"][primary]["heading"], marks=marks)


def _spread(marks: list[Document]) -> None:
    """Moves the labels of points that lie close together apart."""
    taken: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda one: one["y"]):
        place = mark["y"]
        while any(abs(place - y) < LABEL_HEIGHT and abs(mark["x"] - x) < 30 for x, y in taken):
            place += 1.0
        taken.append((mark["x"], place))
        mark["label_y"] = round(place, 2)


# --- distributions and shares -----------------------------------------------------------------------------------------


def histograms(values: Mapping[str, Sequence[float]], unit: str, form: str = ",.0f") -> Document | None:
    """A histogram for each contestant on one scale, with its median and 95th percentile; None without values."""
    values = {role: found for role, found in values.items() if found}
    everything = [value for found in values.values() for value in found]
    if not everything or max(everything) <= 0:
        return None
    scale = axis(0.0, max(float(np.quantile(everything, 0.995)), 1e-6))
    rows = []
    for role, found in values.items():
        counts = [0] * BINS
        for value in found:
            counts[min(BINS - 1, int(BINS * max(value, 0.0) / scale.end))] += 1
        most = max(counts)
        steps = [(number, round(20 - 20 * seen / most, 2)) for number, seen in enumerate(counts)]
        line = " ".join(f"{number},{height:g} {number + 1},{height:g}" for number, height in steps)
        median, high = np.quantile(found, (0.5, 0.95)).tolist()
        rows.append(
            {
                "model": role,
                "label": role,
                "points": f"0,20 {line} {BINS},20",
                "median": scale.at(median),
                "number": f"{median:{form}}",
                "range": f"p95 {high:{form}}",
                "text": f"median {median:{form}} {unit}, 95% are at most {high:{form}}",
            }
        )
    return {"rows": rows, "ticks": scale.ticks, "bins": BINS}


def judge(found: Document | None) -> Document | None:
    """What the judge preferred: shares of wins, ties and losses, and the win rates; None without a judge that spoke."""
    if not found or found.get("reason"):
        return None
    n = found["n"]
    ticks = [{"at": float(at), "label": f"{at}%", "zero": at == 50} for at in (0, 25, 50, 75, 100)]
    scale = Axis(0.0, 100.0, ticks)
    parts, start = [], 0.0
    for name, label in (("wins", "student preferred"), ("ties", "tie"), ("losses", "teacher preferred")):
        width = 100 * found[name] / n
        parts.append({"name": name, "label": label, "number": found[name], "at": round(start, 2), "width": round(width, 2)})
        start += width
    rates = [
        ("win rate", "a tie is half a win", found["win_rate"]),
        ("length-controlled", "as if both answers were equally long", found["length_controlled"]),
        ("corrected", f"by {found['labels']} human labels", found.get("corrected")),
        ("not worse", "corrected share of prompts", found.get("not_worse")),
        ("position consistency", "same choice in both orders", found["consistency"]),
    ]
    rows = [
        {**dot("consistency" if name.startswith("position") else "student", name, cell, scale), "note": note}
        for name, note, cell in rates
        if cell and cell["value"] is not None
    ]
    more = [f"{found['same']} pairs were the same text, a tie without a request"] if found.get("same") else []
    if found.get("unreadable") or found.get("failed"):
        more.append(f"{found['unreadable']} replies could not be read and {found['failed']} failed: they are not counted")
    if found.get("family"):
        more.append(found["family"])
    labels = found.get("next_labels", [])
    return {"name": found["name"], "n": n, "parts": parts, "rows": rows, "ticks": ticks, "more": more, "next": labels}


def confusion(scores: Document) -> Document | None:
    """The confusion table with shades by share of the row; None where answers are not choices."""
    if "confusion" not in scores:
        return None
    table = scores["confusion"]
    rows = []
    for place, (name, counts, recall) in enumerate(zip(table["labels"], table["rows"], table["recall"], strict=True)):
        cells = [
            {
                "number": number,
                "shade": round(4 * number / max(sum(counts), 1)) if number else 0,
                "right": column == place,
            }
            for column, number in enumerate(counts)
        ]
        rows.append({"name": name, "cells": cells, "recall": "–" if recall is None else f"{recall:.0f}%"})
    truth = "the reference" if table["against"] == "reference" else "the teacher's answer"
    return {
        "columns": [*table["labels"], "no choice"],
        "rows": rows,
        "note": f"A row is a class of {truth}, a column what the student said.",
    }
