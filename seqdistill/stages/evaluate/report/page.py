"""Puts the page together: one self-contained HTML file of what scores.json and predictions.jsonl say.

Models' text is hostile: everything is escaped, invisible characters are shown as escapes, and the page's policy forbids outside
resources and every style and script but its own, by their hashes. A part whose data a run does not have is left out.
"""

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdistill.files import write_text
from seqdistill.records import read_jsonl, visible
from seqdistill.runs import Run
from seqdistill.stages.evaluate.recommendation import recommend
from seqdistill.stages.evaluate.report import charts, items, origin
from seqdistill.stages.evaluate.result import EvalResult
from seqdistill.stages.evaluate.safety.document import sentences
from seqdistill.stages.evaluate.shown import count, counterpart, percent, run_name, speed, times
from seqdistill.stages.evaluate.statistics.paired import DECISIONS
from seqdistill.stages.evaluate.verdict import faster
from seqdistill.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

Document = dict[str, Any]
GENERATIONS = 3  # validation prompts whose answers are shown, step by step


def write_report(
    path: Path, run: Run, scores: Document, rows: Iterable[Mapping[str, Any]], predictions: Path | None = None
) -> None:
    """Writes the page. `rows` are the lines of predictions.jsonl, which is in `predictions` while eval is not finished."""
    write_text(path, render(run, scores, list(rows), predictions))


def environment_of(package: str, *, trim: bool = False) -> "Environment":
    """A package's templates, whose texts are escaped and show invisible characters; `trim`: lines of logic leave no space."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=trim,
        lstrip_blocks=trim,
    )


def render(run: Run, scores: Document, rows: list[Mapping[str, Any]], predictions: Path | None = None) -> str:
    """The page as text."""
    from markupsafe import Markup

    environment = environment_of("seqdistill.stages.evaluate.report", trim=True)
    style, script = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    found, log = items.items_of(rows, scores), _log(run)
    values: Document = {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "style_hash": hash_of(style),
        "script_hash": hash_of(script),
        "data": Markup(items.browser_data(found, scores)),  # noqa: S704 - holds no markup, by its making
        "version": __version__,
        **_first_screen(run, scores),
        **_of_scores(scores),
        "lengths": charts.histograms(_lengths(rows), "characters"),
        "latencies": charts.histograms(_seconds(rows, scores), "s", ".2f"),
        "loss": charts.loss(log),
        "quality": charts.quality(log),
        "generations": _generations(log),
        "count": len(found),
        "regressed": sum(item.regressed for item in found),
        "regressions": items.regressions(found, scores),
        "listed": [items.case(item, scores) for item in found[: items.LISTED]],
        "slice_names": sorted({item.student["slice"] for item in found if item.student["slice"] is not None}),
        "confident": any(item.student.get("confidence") is not None for item in found),
        "funnel": origin.funnel_bars(run),
        "lineage": origin.lineage(run, scores, predictions or run.file("eval", "predictions.jsonl")),
        "provenance": origin.provenance(run, scores, finished=predictions is None),
    }
    return environment.get_template("page.html.jinja").render(values)


def hash_of(text: str) -> str:
    """What the page's content security policy names a style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _log(run: Run) -> list[Document]:
    path = run.file("train", "log.jsonl")
    return [row for _, row in read_jsonl(path)] if path.exists() else []


# --- the first screen -------------------------------------------------------------------------------------------------


def _first_screen(run: Run, scores: Document) -> Document:
    """The verdict, whom it is about, and what to do next."""
    decision, _, headline = scores["verdict"][0].partition(": ")
    if decision not in DECISIONS:
        decision, headline = "", scores["verdict"][0]
    return {
        "title": run.path.absolute().name,
        "date": (run.manifest("train") or {}).get("finished", "")[:10],
        "names": _names(run, scores),
        "decision": decision,
        "headline": f"{headline[:1].upper()}{headline[1:]}",
        "said": scores["verdict"][1:],
        "advice": recommend(scores, shlex.quote(run_name(run.path))),
        "figures": _figures(scores),
    }


def _names(run: Run, scores: Document) -> list[tuple[str, str]]:
    """Who was compared on what: the page's first lines."""
    models = scores["models"]
    student, teacher = models["student"], models["teacher"]
    layers = (run.manifest("train") or {}).get("student", {}).get("layers")
    name = f"{len(layers)} layers of its teacher" if layers else models["base"]["name"]
    size = f", {count(student['parameters'])} parameters" if student.get("parameters") else ""
    held_out = f"{scores['n']} of {scores['prompts']} prompts" if scores["n"] < scores["prompts"] else f"{scores['n']} prompts"
    return [
        ("student", f"{name}, trained{size}"),
        ("teacher", _teacher(teacher)),
        ("test set", held_out),
        ("decided by", f"{scores['measures'][scores['primary']]['phrase']}, margin {scores['margin']:g} points"),
    ]


def _teacher(facts: Document) -> str:
    """The teacher's name; for one inside a package, the file's."""
    name = str(facts.get("name", facts["called"]))
    return str(facts["identity"]).partition("@")[0] if name.startswith("package:") else name


def _figures(scores: Document) -> list[dict[str, str]]:
    primary, models = scores["primary"], scores["models"]
    figures = []

    def add(name: str, cell: Document | None, form: str, unit: str = "") -> None:
        if cell and cell["value"] is not None:
            span = "" if cell["low"] is None else f"{cell['low']:{form}} to {cell['high']:{form}}"
            figures.append({"name": name, "value": f"{cell['value']:{form}}{unit}", "note": span})

    if scores["measures"][primary]["share"]:
        add(scores["measures"][primary]["phrase"], models["student"][primary], ".1f", "%")
    for kept in scores["kept"]:
        if kept["metric"] == primary:
            add(f"of the {kept['of']} kept", kept, ".1f", "%")
    for closed in scores["gap_closed"]:
        if closed["metric"] == primary and closed["low"] is not None:
            add("of the gap to it closed", closed, ".1f", "%")
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


# --- tables and distributions -----------------------------------------------------------------------------------------


def _of_scores(scores: Document) -> Document:
    """What scores.json alone says, as charts and tables."""
    primary, measures, student = scores["primary"], scores["measures"], scores["models"]["student"]
    metrics = [m for m in (primary, counterpart(primary), "valid") if m and (m == primary or student.get(m))]
    result = EvalResult(scores, {}, 0.0, up_to_date=True)
    return {
        "scores": scores,
        "measure": measures[primary]["phrase"],
        "levels": [charts.levels(scores["models"], metric, measures[metric]["heading"]) for metric in metrics],
        "gaps": [charts.gaps(scores["comparisons"], metric, measures[metric]["heading"]) for metric in metrics],
        "slices": [_slice(part, primary) for part in scores["slices"]],
        "classes": charts.confusion(scores),
        "judge": charts.judge(scores.get("judge")),
        "deferral": charts.deferral(scores.get("deferral") or {}),
        "cost": charts.quality_and_cost(scores),
        "prices": {"columns": result.cost_columns, "rows": result.cost_rows, "notes": result.cost_notes},
        "safety": {
            "columns": result.safety_columns,
            "rows": result.safety_rows,
            "said": list(sentences(scores.get("safety"))),
        },
        "facts": _facts(scores),
    }


def _slice(part: Document, metric: str) -> Document:
    title = f"{(part['slice'] or 'no slice')[:100]} · {part['n']} prompts"
    few = [part["warning"].partition(": ")[2]] if part["warning"] else []
    parts = [f"keeps {percent(cell, unit='%')} of the {cell['of']}" for cell in part["kept"] if cell["metric"] == metric]
    if valid := part["models"]["student"].get("valid"):
        parts.append(f"has the form in {percent(valid, unit='%')}")
    decided = part["judged"]["decision"] if part["judged"] else ""
    return {**charts.levels(part["models"], metric, title), "decision": decided, "summary": ", ".join([*parts, *few])}


def _facts(scores: Document) -> Document:
    columns = ["model", "stops by itself, %", "length, × teacher", "tokens/s", "parameters", "on disk", "USD", "failed"]
    rows = []
    for role, facts in scores["models"].items():
        cells = [percent(facts["stopped"]), times(facts["length_ratio"]) if role != "teacher" else "1"]
        if "identity" in facts:
            usd = facts["usd"]
            cells += [speed(scores, facts), count(facts["parameters"]), count(facts["disk_bytes"], "B")]
            cells += ["–" if usd is None else f"{usd:.4f}", str(facts["failed"])]
        rows.append([facts["called"], *cells, *["–"] * (len(columns) - 1 - len(cells))])
    machine = scores["machine"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['cpus']} CPUs"
    basis = scores["models"]["student"]["speed_basis"]
    note = f"Speed on {where}: {basis}. A dash: not measured under the same conditions, so not comparable."
    return {"columns": columns, "rows": rows, "note": note}


def _lengths(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Characters of each answer, by contestant."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["scores"] is not None and row["model"] not in ("copy", "majority"):
            found.setdefault(row["model"], []).append(float(len(items.texts_of(row))))
    return found


def _seconds(rows: Iterable[Mapping[str, Any]], scores: Document) -> dict[str, list[float]]:
    """Seconds of each answer of the contestants that were measured one request at a time, at an endpoint."""
    alone = {role for role, facts in scores["models"].items() if facts.get("engine") == "openai"}
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["model"] in alone and row["seconds"] and row["error"] is None:
            found.setdefault(row["model"], []).append(float(row["seconds"]))
    return found


def _generations(log: Iterable[Document]) -> list[Document]:
    """For the first validation prompts, the teacher's answer and what the student wrote at each validation."""
    found: dict[str, Document] = {}
    for row in log:
        for one in row.get("generations") or ():
            entry = found.setdefault(one["id"], {"id": one["id"], "teacher": items.cut(one["teacher"]), "steps": []})
            parts = items.difference(one["teacher"], items.cut(one["student"]))
            entry["steps"].append({"step": f"{row['step']:,}", "parts": parts, "quality": row.get("quality")})
    return list(found.values())[:GENERATIONS]
