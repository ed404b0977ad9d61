"""The result as Markdown for a pull request: decision, table, slices. No model's text is quoted."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from seqdistill.files import write_text
from seqdistill.records import visible
from seqdistill.stages.evaluate.compare import Comparison
from seqdistill.stages.evaluate.recommendation import recommend
from seqdistill.stages.evaluate.result import EvalResult
from seqdistill.stages.evaluate.shown import run_name


def write_markdown(path: Path, result: EvalResult, name: str) -> None:
    """Writes the file."""
    write_text(path, markdown(result, name))


def markdown(result: EvalResult, name: str) -> str:
    """The decision and the sentences behind it, the table of contestants, and that of slices."""
    return "\n".join(_lines(result, name)) + "\n"


def write_comparison(path: Path, found: Comparison) -> None:
    """Writes the file."""
    write_text(path, "\n".join(_comparison_lines(found)) + "\n")


def _comparison_lines(found: Comparison) -> Iterator[str]:
    """The decision between two students, their table, that of slices, and the ids of the prompts that moved."""
    headline, *rest = found.verdict
    yield f"### {_text(headline)}\n"
    yield from _table(found.columns, found.rows)
    if found.slice_rows:
        yield from _table(found.slice_columns, found.slice_rows)
    yield from (f"- {_text(line)}" for line in rest)
    for what in ("worse", "better"):
        if items := found.scores[what]:
            yield f"\n<details><summary>{what}: {len(items)} prompts</summary>\n"
            scores = [[f"{item['scores'][role]:.0f}" for role in ("student", "other")] for item in items]
            rows = [[item["id"], item["slice"] or "–", *pair] for item, pair in zip(items, scores, strict=True)]
            yield from _table(("prompt", "slice", *found.scores["compared"].values()), rows)
            yield "</details>"


def _lines(result: EvalResult, name: str) -> Iterator[str]:
    headline, *rest = result.verdict
    yield f"### {_text(name)}: {_text(headline)}\n"
    yield from _advice(result)
    yield from _table(result.columns, [[_called(result.scores, row[0]), *row[1:]] for row in result.rows])
    if result.slice_rows:
        yield from _table(result.slice_columns, result.slice_rows)
    if result.cost_rows:
        yield from _table(result.cost_columns, result.cost_rows)
        yield from (f"- {_text(note)}" for note in result.cost_notes)
        yield ""
    if result.safety_rows:
        yield from _table(result.safety_columns, result.safety_rows)
    if result.regressions:
        yield f"<details><summary>Regressions: {_text(result.regressed)}</summary>\n"
        yield from _table(("prompt", "slice", "student", "others", "why", "nearest training row"), _regressions(result))
        yield "</details>\n"
    yield "<details><summary>What the numbers say</summary>\n"
    yield from (f"- {_text(line)}" for line in rest)
    yield "\n</details>"


def _advice(result: EvalResult) -> Iterator[str]:
    """Whether to ship, what it saves and the first thing to do."""
    advice = recommend(result.scores, shlex.quote(run_name(result.run)))
    yield f"- **Ship it?** {_text(f'{advice.ship.short}. {advice.ship.more}')}"
    yield f"- **Saves** {_text(f'{advice.saves.short}. {advice.saves.more}')}"
    for step in advice.next[:1]:
        command = f" `{' '.join(visible(step.command).replace('`', '').split())}`" if step.command else ""
        yield f"- **Next** {_text(step.text)}{command}"
    yield ""


def _regressions(result: EvalResult) -> list[list[str]]:
    """A row for each regression: no text of a prompt or a model, but ids, scores and the reason."""
    rows = []
    for item in result.regressions:
        others = ", ".join(f"{role} {item['scores'][role]:.0f}" for role in item["better"])
        near = item["training"][0] if item["training"] else None
        nearest = f"{near['id']} ({near['similarity']:.2f})" if near else "–"
        rows.append([item["id"], item["slice"] or "–", f"{item['scores']['student']:.0f}", others, item["why"], nearest])
    return rows


def _called(scores: dict[str, Any], role: str) -> str:
    facts = scores["models"][role]
    return f"{facts['called']} ({facts['name']})" if "name" in facts else str(facts["called"])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_text, columns))} |"
    yield f"|{'|'.join([' --- ', *[' ---: '] * (len(columns) - 1)])}|"
    yield from (f"| {' | '.join(map(_text, row))} |" for row in rows)
    yield ""


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", " ".join(visible(text).split()))
