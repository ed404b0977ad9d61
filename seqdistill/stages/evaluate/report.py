"""report.html: one self-contained page that shows what scores.json and predictions.jsonl say.

Owns geometry and choice of cases; the looks are in report.html.jinja and report.css. Models' text is hostile: everything is
escaped, invisible characters are shown as escapes, and the page's policy forbids scripts and outside resources.
"""

import base64
import difflib
import hashlib
import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seqdistill.funnel import funnel
from seqdistill.records import atomic_write, read_jsonl, visible
from seqdistill.runs import STAGES, Run
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.shown import count, other_way, percent, speed, times
from seqdistill.stages.evaluate.table import upper
from seqdistill.stages.evaluate.verdict import faster
from seqdistill.version import __version__

WORST, BEST = 6, 4
ALIKE = 0.3  # share of equal words below which marks on every word would help nobody
WORDS = 400  # of one text; what is longer is cut in the page, not in predictions.jsonl


def write_report(path: Path, run: Run, scores: dict[str, Any], answers: Sequence[Answer]) -> None:
    """Writes the page. `answers` are those of all models, in any order."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("seqdistill.stages.evaluate", ""), autoescape=True, undefined=StrictUndefined, finalize=shown
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    primary, measures = scores["primary"], scores["measures"]
    metrics = [
        metric
        for metric in (primary, other_way(primary), "valid")
        if metric and (metric == primary or scores["models"]["student"].get(metric))
    ]
    page = environment.get_template(
        "report.html.jinja"
    ).render(
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        title=run.path.absolute().name,
        version=__version__,
        scores=scores,
        names=_names(run, scores),
        classes=_confusion(scores),
        measure=measures[primary]["phrase"],
        headline=scores["verdict"][0],
        said=scores["verdict"][1:],
        figures=_figures(scores),
        charts=[_levels(scores["models"], metric, measures[metric]["heading"]) for metric in metrics],
        gaps=[_gaps(scores["comparisons"], metric, measures[metric]["heading"]) for metric in metrics],
        slices=[_slice(part, primary) for part in scores["slices"]],
        facts=_facts(scores),
        cases=_cases(answers, primary),
        funnel=_funnel(run),
        deferral=_deferral(scores.get("deferral") or {}),
        loss=_loss(run),
        provenance=_provenance(run, scores),
    )
    with atomic_write(path) as file:
        file.write(page)


def _names(run: Run, scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Who was compared on what, and when the student was trained: the page's first line. No clock of today's."""
    models, trained = scores["models"], (run.manifest("train") or {}).get("finished", "")
    student, teacher = models["student"], models["teacher"]
    size = f" ({count(student['parameters'])} parameters)" if student["parameters"] else ""
    return [
        ("student", f"{models['base']['name']}, trained{f' {trained[:10]}' if trained else ''}{size}"),
        ("teacher", teacher.get("name", teacher["called"])),
        (
            "test set",
            f"{scores['n']} of {scores['prompts']} prompts" if scores["n"] < scores["prompts"] else f"{scores['n']} prompts",
        ),
        ("decided by", f"{scores['measures'][scores['primary']]['phrase']}, margin {scores['margin']:g} points"),
    ]


def _confusion(scores: dict[str, Any]) -> dict[str, Any] | None:
    """The confusion table with shades by share of the row; None where answers are not choices."""
    if "confusion" not in scores:
        return None
    table = scores["confusion"]
    rows = []
    for name, counts, recall in zip(table["labels"], table["rows"], table["recall"], strict=True):
        shades = [round(4 * number / max(sum(counts), 1)) if number else 0 for number in counts]
        cells = [
            {"number": number, "shade": shade, "right": place == table["labels"].index(name)}
            for place, (number, shade) in enumerate(zip(counts, shades, strict=True))
        ]
        rows.append({"name": name, "cells": cells, "recall": "–" if recall is None else f"{recall:.0f}%"})
    columns = [*table["labels"], "no choice"]
    truth = "the reference" if table["against"] == "reference" else "the teacher's answer"
    return {"columns": columns, "rows": rows, "note": f"A row is a class of {truth}, a column what the student said."}


def _figures(scores: dict[str, Any]) -> list[dict[str, str]]:
    primary, models = scores["primary"], scores["models"]
    figures = []

    def add(name: str, cell: dict[str, Any] | None, form: str, unit: str = "") -> None:
        if cell and cell["value"] is not None:
            span = "" if cell["low"] is None else f"{cell['low']:{form}} to {cell['high']:{form}}"
            figures.append({"name": name, "value": f"{cell['value']:{form}}{unit}", "note": span})

    if scores["measures"][primary]["share"]:
        add(scores["measures"][primary]["phrase"], models["student"][primary], ".1f", "%")
    for kept in scores["kept"]:
        if kept["metric"] == primary:
            add(f"of the {kept['of']} kept", kept, ".1f", "%")
    for gap in scores["comparisons"]:
        if gap["metric"] == primary and gap["other"] in ("base", "copy", "majority", "nearest"):
            add(f"over {models[gap['other']]['phrase']}", gap, "+.1f")
    add("have the form", models["student"].get("valid"), ".1f", "%")
    add("stop by themselves", models["student"]["stopped"], ".1f", "%")
    if speedup := faster(scores):
        speeds = " vs ".join(f"{models[role]['tokens_per_second']:.0f}" for role in ("student", "teacher"))
        figures.append({"name": "the teacher's speed", "value": f"{speedup:.1f}×", "note": f"{speeds} tokens/s"})
    sizes = [models[role].get("parameters") for role in ("student", "teacher")]
    if all(sizes):
        note = f"{100 * sizes[0] / sizes[1]:.0f}% of the teacher's {count(sizes[1])}"
        figures.append({"name": "parameters", "value": count(sizes[0]), "note": note})
    return figures


# --- charts -----------------------------------------------------------------------------------------------------------


def _axis(low: float, high: float) -> tuple[float, float, dict[str, Any]]:
    """A scale with round ticks that covers low to high: (start, end, ticks at percent of the width)."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / 4))
    step = next((step * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5), step * 10)
    start, end = math.floor(low / step) * step, math.ceil(high / step) * step
    ticks = []
    for number in range(round((end - start) / step) + 1):
        value, at = start + number * step, 100 * number * step / (end - start)
        ticks.append({"at": _at(at), "label": f"{value:g}", "zero": abs(value) < 1e-9 and low < 0})
    return start, end, {"ticks": ticks}


def _at(value: float) -> float:
    return round(value, 2)


def _dot(model: str, label: str, cell: dict[str, Any] | None, axis: tuple[float, float, Any], sign: str = "") -> dict[str, Any]:
    start, end, _ = axis

    def at(value: float | None) -> float | None:
        return None if value is None else _at(100 * (value - start) / (end - start))

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


def _levels(models: dict[str, Any], metric: str, title: str) -> dict[str, Any]:
    axis = _axis(0.0, 100.0)
    rows = [_dot(model, model, facts[metric], axis) for model, facts in models.items() if facts[metric]]
    return {"title": title, "rows": rows, "axis": axis[2]}


def _gaps(comparisons: Sequence[dict[str, Any]], metric: str, title: str) -> dict[str, Any]:
    cells = [cell for cell in comparisons if cell["metric"] == metric and cell["value"] is not None]
    ends = [cell[name] for cell in cells for name in ("value", "low", "high") if cell[name] is not None]
    axis = _axis(min([0.0, *ends]), max([1.0, *ends]))
    rows = [_dot(cell["other"], f"vs {cell['other']}", cell, axis, "+") for cell in cells]
    return {"title": title, "rows": rows, "axis": axis[2]}


def _slice(part: dict[str, Any], metric: str) -> dict[str, Any]:
    title = f"{part['slice'] or 'no slice'} · {part['n']} prompts"
    few = [part["warning"].partition(": ")[2]] if part["warning"] else []
    parts = [f"keeps {percent(cell, unit='%')} of the {cell['of']}" for cell in part["kept"] if cell["metric"] == metric]
    if valid := part["models"]["student"].get("valid"):
        parts.append(f"has the form in {percent(valid, unit='%')}")
    decided = [part["judged"]["decision"]] if part["judged"] else []
    return {**_levels(part["models"], metric, title), "summary": ", ".join([*decided, *parts, *few])}


def _deferral(found: dict[str, Any]) -> dict[str, Any] | None:
    """The curve of a fallback in an 800 x 220 box: quality against the share sent to the teacher; None without one."""
    points = found.get("curve", [])
    if not points:
        return None
    values = [point[name] for point in points for name in ("quality", "random", "oracle")]
    y_start, y_end, y_axis = _axis(min(values), max([*values, min(values) + 1.0]))

    def x(sent: float) -> float:
        return round(46 + 744 * sent, 1)

    def line(name: str) -> str:
        ends = ((x(point["sent"]), 190 - 180 * (point[name] - y_start) / (y_end - y_start)) for point in points)
        return " ".join(f"{at},{round(level, 1)}" for at, level in ends)

    priced = points[-1]["usd_per_1000"] is not None
    rows = [point for point in points if round(100 * point["sent"]) % 10 == 0]
    return {
        "lines": {name: line(name) for name in ("oracle", "random", "quality")},
        "x": [{"at": x(step / 5), "label": f"{20 * step}%"} for step in range(6)],
        "y": [{"at": round(190 - 1.8 * tick["at"], 1), "label": tick["label"]} for tick in y_axis["ticks"]],
        "chosen": None if found["threshold"] is None else x(1 - found["kept"]),
        "note": f"{found['n']} prompts, {100 * found['good']:.1f}% of the student's answers good enough. Confidence tells good "
        f"from bad with an AUROC of {'–' if found['auroc'] is None else format(found['auroc'], '.2f')} (0.5 is chance); its "
        f"calibration error is {found['ece']:.2f}.",
        "columns": ["sent to the teacher", "from a confidence of", "quality", "kept and good", *(["USD per 1,000"] * priced)],
        "rows": [
            [
                f"{100 * point['sent']:.0f}%",
                "–" if point["threshold"] is None else f"{point['threshold']:.3f}",
                f"{point['quality']:.1f}",
                "–" if point["good"] is None else f"{100 * point['good']:.1f}%",
                *([f"{point['usd_per_1000']:.4f}"] if priced else []),
            ]
            for point in rows
        ],
    }


def _loss(run: Run) -> dict[str, Any] | None:
    """The curves of train/log.jsonl in an 800 x 220 box; None without a log."""
    path = run.file("train", "log.jsonl")
    rows = [row for _, row in read_jsonl(path)] if path.exists() else []
    curves = {
        name: [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None and "step" in row]
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
    }
    points = [point for curve in curves.values() for point in curve if math.isfinite(point[1])]
    if len(curves["training"]) < 2:
        return None
    x_start, x_end, x_axis = _axis(0.0, max(step for step, _ in points))
    y_start, y_end, y_axis = _axis(0.0, max(loss for _, loss in points))

    def x(value: float) -> float:
        return round(46 + 744 * (value - x_start) / (x_end - x_start), 1)

    def y(value: float) -> float:
        return round(190 - 180 * (value - y_start) / (y_end - y_start), 1)

    lines = {
        name: " ".join(f"{x(step)},{y(loss)}" for step, loss in curve if math.isfinite(loss)) for name, curve in curves.items()
    }
    return {
        **lines,
        "x": [{"at": round(46 + 7.44 * tick["at"], 1), "label": tick["label"]} for tick in x_axis["ticks"]],
        "y": [{"at": round(190 - 1.8 * tick["at"], 1), "label": tick["label"]} for tick in y_axis["ticks"]],
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def _facts(scores: dict[str, Any]) -> dict[str, Any]:
    columns = ["stops by itself, %", "length, × teacher", "tokens/s", "parameters", "on disk", "USD", "failed"]
    rows = []
    for role, facts in scores["models"].items():
        cells = [percent(facts["stopped"]), times(facts["length_ratio"]) if role != "teacher" else "1"]
        if "identity" in facts:
            usd = facts["usd"]
            cells += [speed(scores, facts), count(facts["parameters"]), count(facts["disk_bytes"], "B")]
            cells += ["–" if usd is None else f"{usd:.4f}", str(facts["failed"])]
        cells += ["–"] * (len(columns) - len(cells))
        rows.append([facts["called"], *zip(columns, cells, strict=True)])
    machine = scores["machine"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['cpus']} CPUs"
    basis = scores["models"]["student"]["speed_basis"]
    note = f"Speed on {where}: {basis}. A dash: not measured under the same conditions, so not comparable."
    return {"columns": columns, "rows": rows, "note": note}


def _funnel(run: Run) -> list[dict[str, Any]]:
    """What became of the teacher's answers, as bars; empty before filter is done."""
    steps = funnel(run) if run.manifest("filter") else []
    return [
        {
            "label": step.name,
            "number": f"{step.rows:,}",
            "share": f"{100 * step.rows / steps[0].rows:.1f}%",
            "width": _at(100 * step.rows / steps[0].rows),
            "lost": step.lost,
        }
        for step in steps
        if step.rows
    ]


def _provenance(run: Run, scores: dict[str, Any]) -> list[tuple[str, str]]:
    manifests = {stage: run.manifest(stage) or {} for stage in STAGES}
    found = [(role, f"{facts['name']} ({facts['identity']}), {facts['engine']}") for role, facts in _named(scores)]
    found.append(("teacher's license", str(scores["teacher_license"] or "not stated")))
    limits = f"temperature {scores['temperature']:g}, at most {scores['max_tokens']} new tokens"
    found.append(("decoding", limits))
    if asked_with := scores["models"]["teacher"].get("asked_with"):
        found.append(("teacher prompted with", json.dumps(asked_with, ensure_ascii=False)))
    if "form" in scores:
        found.append(("form", json.dumps(scores["form"], ensure_ascii=False)))
    found.append(("intervals", f"{scores['resamples']} resamples, seed {scores['seed']}"))
    took = [f"{stage} {manifest['seconds']:.0f} s" for stage, manifest in manifests.items() if "seconds" in manifest]
    if took:
        found.append(("earlier stages took", ", ".join(took)))
    found.append(("machine", json.dumps(scores["machine"], ensure_ascii=False)[1:-1].replace('"', "")))
    packages = manifests["train"].get("packages", {})
    if packages:
        found.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    if revision := manifests["train"].get("git"):
        found.append(("git", str(revision)))
    found.append(("command", f"seqdistill {shlex.join(sys.argv[1:])}"))
    return found


def _named(scores: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    return ((role, facts) for role, facts in scores["models"].items() if "identity" in facts and role != "ceiling")


# --- cases ------------------------------------------------------------------------------------------------------------


def _cases(answers: Sequence[Answer], metric: str) -> list[dict[str, Any]]:
    by_prompt: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.scores is not None and answer.scores[metric] is not None:
            by_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer

    def score(prompt: str) -> float:
        return float((by_prompt[prompt]["student"].scores or {})[metric] or 0.0)

    ordered = sorted(by_prompt, key=lambda prompt: (score(prompt), prompt))
    worst = ordered[: min(WORST, (len(ordered) + 1) // 2)]
    best = ordered[len(worst) :][::-1][:BEST]
    return [
        {"title": title, "cases": [_case(by_prompt[prompt], metric, score(prompt)) for prompt in prompts]}
        for title, prompts in (("Worst", worst), ("Best", best))
        if prompts
    ]


def _case(answers: dict[str, Answer], metric: str, score: float) -> dict[str, Any]:
    texts = {model: _cut(answer.completion.content) for model, answer in answers.items()}
    prompt, reason = answers["student"].prompt, answers["student"].completion.finish_reason
    other = upper(metric)
    against = (answers[other].scores or {}).get(metric) if other in answers else None
    wanted = texts.get("teacher", prompt.reference or "")
    notes = [] if reason == "stop" else [f"the student did not stop by itself ({reason})"]
    notes += ["the student's answer does not have the form"] if (answers["student"].scores or {}).get("valid") == 0 else []
    return {
        "id": prompt.id,
        "slice": prompt.slice,
        "score": f"student {score:.1f}" + ("" if against is None else f", {other} {against:.1f}"),
        "notes": notes,
        "prompt": _cut("\n\n".join(message["content"] for message in prompt.messages)),
        "reference": None if prompt.reference is None else _cut(prompt.reference),
        "teacher": texts.get("teacher"),
        "student": difference(wanted, texts["student"]),
        "base": difference(wanted, texts["base"]),
    }


def _cut(text: str) -> str:
    end = next((match.end() for number, match in enumerate(re.finditer(r"\S{1,100}", text), 1) if number == WORDS), len(text))
    return text if end >= len(text) else text[:end] + " …"


def difference(wanted: str, text: str) -> list[tuple[str, str]]:
    """The text as parts ("same" | "added" | "missing", words): what stands only here, and what only `wanted` has.

    A text that shares little with `wanted` comes back whole, unmarked.
    """
    old, new = re.findall(r"\S+\s*|\s+", wanted), re.findall(r"\S+\s*|\s+", text)
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False)
    parts: list[tuple[str, str]] = []
    if matcher.ratio() < ALIKE:
        return [("same", text)] if text else parts
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(new[new_from:new_to])))
            continue
        for name, words in (("missing", old[old_from:old_to]), ("added", new[new_from:new_to])):
            if words:
                run_of_words = "".join(words)
                parts.append((name, run_of_words.rstrip()))
                parts.append(("same", run_of_words[len(run_of_words.rstrip()) :] or " "))
    return parts
