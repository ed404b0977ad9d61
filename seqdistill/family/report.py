"""The pages of sweep and curve: what was found, a table, pictures. One self-contained HTML file each, no script."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from seqdistill.family.curve import CurveResult
from seqdistill.family.picture import Level, Mark, Picture
from seqdistill.family.sweep import cells_of
from seqdistill.files import write_text
from seqdistill.runs import Run
from seqdistill.stages.evaluate.report.page import environment_of, hash_of
from seqdistill.stages.evaluate.shown import percent, times
from seqdistill.version import __version__


def write_sweep_report(path: Path, run: Run, document: dict[str, Any]) -> None:
    """Writes the page of a sweep, from the content of its scores.json."""
    cheapest, cells = document["cheapest"], cells_of(document)
    _write(
        path,
        run,
        what="students of several sizes",
        document=document,
        columns=["student", *cells[0]],
        rows=[[one["candidate"], *row.values()] for one, row in zip(document["candidates"], cells, strict=True)],
        pictures=[picture.drawn() for picture in _sweep_pictures(document)],
        note="Candidates, the smallest first. A hollow point is not shown to pass; whiskers are 95% intervals over prompts. "
        "The decision is of all prompts, by the interval of the paired difference at the margin, with Holm's correction over "
        "the candidates. The cheapest is chosen on one half of the prompts and tested on the other half.",
        facts=[
            ("compared with", document["compared_with"] or "nothing: no ceiling and no reference"),
            ("prompts", f"{document['n']}, {cheapest['choose_on']} to choose by, {cheapest['confirm_on']} to confirm on"),
            ("one-sided alpha", f"{document['alpha']:g}"),
            ("speed", document["speed_basis"] or "not comparable: measured under different conditions"),
        ],
    )


def _sweep_pictures(document: dict[str, Any]) -> list[Picture]:
    """Quality against size, speed and cost; those of which two candidates at least have a value."""
    kinds = (
        ("disk_bytes", "size on disk", "B"),
        ("tokens_per_second", "speed, tokens/s", ""),
        ("usd_per_1000", "cost, USD per 1,000 requests", ""),
    )
    teacher, levels = document["teacher"], []
    if teacher and teacher["score"]:
        levels = [
            Level("teacher", teacher["score"]["value"], "zero"),
            Level(f"less {document['margin']:g}", teacher["score"]["value"] - document["margin"], "margin"),
        ]
    for one in document["candidates"]:
        if one["role"] == "nearest" and one["score"]["value"] is not None:
            levels.append(Level("nearest training answer", one["score"]["value"], "margin"))
    pictures = []
    for key, name, unit in kinds:
        marks = [
            Mark(
                one["candidate"],
                one[key],
                one["score"]["value"],
                one["score"]["low"],
                one["score"]["high"],
                hollow=one["decision"] in ("INCONCLUSIVE", "INFERIOR"),
            )
            for one in document["candidates"]
            if one[key] is not None and one["score"]["value"] is not None
        ]
        if len(marks) > 1:
            pictures.append(Picture(f"{document['heading']} against {name.partition(',')[0]}", name, marks, levels, unit=unit))
    return pictures


def write_curve_report(path: Path, run: Run, document: dict[str, Any]) -> None:
    """Writes the page of a curve, from the content of its scores.json."""
    shape, result = document["fit"], CurveResult(document, {})
    further = result.outlook_rows
    _write(
        path,
        run,
        what="one student on growing data",
        document=document,
        columns=result.columns,
        rows=[
            *result.rows,
            *([f"{more}, expected", rows, "–", "–", f"{gap}, chance {chance}"] for more, rows, gap, chance, _ in further),
        ],
        pictures=[_curve_picture(document).drawn()],
        note="Points from the teacher, less is better: what was measured with 95% intervals over prompts, and the fitted curve "
        "with its 95% band. Hollow points are trainings on other rows of the same number. Held fixed: "
        + "; ".join(document["held_fixed"])
        + ".",
        facts=[
            ("error", f"a + b n^-c, a {percent(shape['a'])}, b {shape['b']['value']:.4g}, c {times(shape['c'])}"),
            ("USD a kept row", "not known" if document["usd_per_row"] is None else f"{document['usd_per_row']:.4g}"),
        ],
    )


def _curve_picture(document: dict[str, Any]) -> Picture:
    marks = [
        Mark(one["part"], one["rows"], one["error"]["value"], one["error"]["low"], one["error"]["high"], bool(place), not place)
        for place, ones in enumerate((document["points"], document["repeats"]))
        for one in ones
    ]
    return Picture(
        "points from the teacher against training rows",
        "training rows",
        marks,
        [Level(f"margin, {document['margin']:g}", document["margin"], "margin")],
        logarithmic=True,
        curve=[(one["rows"], one["value"]) for one in document["drawn"]],
        band=[(one["rows"], one["low"], one["high"]) for one in document["drawn"]],
    )


def _write(
    path: Path,
    run: Run,
    *,
    what: str,
    document: dict[str, Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    pictures: Sequence[dict[str, Any]],
    note: str,
    facts: Sequence[tuple[str, str]],
) -> None:
    from markupsafe import Markup

    packages = "seqdistill.stages.evaluate.report", "seqdistill.family"
    style = "".join((files(package) / "report.css").read_text(encoding="utf-8") for package in packages)
    page = (
        environment_of("seqdistill.family")
        .get_template("report.html.jinja")
        .render(
            style=Markup(style),  # noqa: S704 - our own files
            style_hash=hash_of(style),
            title=run.path.absolute().name,
            what=what,
            headline=document["verdict"][0],
            said=document["verdict"][1:],
            names=[("measured by", document["phrase"]), ("margin", f"{document['margin']:g} points")],
            columns=columns,
            rows=rows,
            pictures=pictures,
            note=note,
            facts=[*facts, ("machine", document["machine"]["gpu"] or document["machine"]["processor"])],
            version=__version__,
        )
    )
    write_text(path, page)
