"""Review in a spreadsheet: a run's rows as CSV, and the decisions that come back in it.

Cells that a spreadsheet would take for a formula get a leading apostrophe, and so do cells that begin with one; import takes
it off again, so that text comes back as it went. Does not decide what a decision does.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from seqdistill.decisions import (
    Decision,
    appending,
    checked,
    decisions_file,
    hash_of_text,
    now,
    overrules,
    read_decisions,
    read_from,
    seen_text,
)
from seqdistill.errors import UsageError
from seqdistill.files import atomic_write
from seqdistill.records import conversation_text
from seqdistill.review.filtered_rows import FilteredRows, Row
from seqdistill.runs import Run

COLUMNS = ("decision", "id", "file", "rule", "reason", "slice", "prompt", "reference", "completion", "reviewer", "time")
# https://owasp.org/www-community/attacks/CSV_Injection
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def export_csv(run: Run, path: Path) -> int:
    """Writes every row of the run's filter files, with the decisions so far; returns how many.

    The reviewer fills the column `decision` (accept, edit or reject; undo takes a decision back) and, for an edit, changes
    the text in `completion`. Raises UsageError for a file that is there: it may be filled in.
    """
    if path.exists():
        raise UsageError(
            f"--export {path}: the file exists already, and may be filled in",
            "import it first, then name another file or remove it",
        )
    decisions = read_decisions(run)
    with FilteredRows(run) as rows, atomic_write(path) as file:
        file.write("\ufeff")  # or else a spreadsheet guesses the encoding
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for row in rows:
            decision = decisions.get(row.sample.id)
            cells = {
                "decision": decision.decision if decision else "",
                "id": row.sample.id,
                "file": row.file,
                "rule": row.rule,
                "reason": row.reason,
                "slice": row.sample.slice,
                "prompt": conversation_text(row.sample.prompt),
                "reference": row.sample.reference,
                "completion": reviewed_text(row, decision),
                "reviewer": decision.reviewer if decision else "",
                "time": decision.time if decision else "",
            }
            writer.writerow([guard(cells[column] or "") for column in COLUMNS])
        return len(rows)


def import_csv(run: Run, path: Path, reviewer: str) -> int:
    """Appends the decisions of a CSV file that differ from those that hold; returns how many.

    `reviewer` is used for rows that name none. Nothing is appended unless every row is right. Raises UsageError naming the
    line of a wrong one: an unknown id or decision, or a changed completion whose decision is not edit.
    """
    with FilteredRows(run) as rows:
        held, file = read_decisions(run), decisions_file(run)
        history = {_stamp(one.id, one) for one, _ in read_from(file, 0)} if file.exists() else set()
        found = [decision for decision in _decisions(path, rows, held, history, reviewer) if decision is not None]
    with appending(run) as append:
        for decision in found:
            append(decision)
    return len(found)


def _stamp(name: str, decision: Decision) -> tuple[str, ...]:
    """By what a row of a sheet is known as a decision that was there when the sheet was written."""
    return name, decision.decision, _comparable(decision.completion or ""), decision.reviewer, decision.time


def _decisions(
    path: Path, rows: FilteredRows, held: dict[str, Decision], history: set[tuple[str, ...]], reviewer: str
) -> Iterator[Decision | None]:
    """The decision of each row of the sheet; None where it holds none, or an earlier one that may be overruled since."""
    seen_ids: set[str] = set()
    for place, cells in _cells(path):
        word, name = cells["decision"].strip().lower(), cells["id"]
        number = rows.number_of(name)
        if number is None:
            raise UsageError(f"{place}: no row of this run has the id {name!r}", "import into the run that was exported")
        if name in seen_ids:
            raise UsageError(f"{place}: the id {name!r} is in the file twice", "remove one of the two rows")
        seen_ids.add(name)
        row, before = rows[number], held.get(name)
        cell = _comparable(cells["completion"])
        changed = cell != _comparable(reviewed_text(row, before))
        if changed and word != "edit" and not _was_shown(cell, row, before):
            raise UsageError(
                f"{place}: the completion was changed, but the decision is {word or 'empty'}",
                "write edit in the column decision, or export again and leave the text as it was",
            )
        kept_edit = word == "accept" and before is not None and before.decision == "edit"  # of what is shown: the edit
        if not word or kept_edit or (word == "undo" and before is None):
            yield None
            continue
        decision = Decision(
            id=name,
            decision=word,
            completion=cells["completion"] if word == "edit" else None,
            seen=seen_text(row.sample, before),
            reviewer=cells["reviewer"].strip() or reviewer,
            time=cells["time"].strip() or now(),
        )
        if _stamp(name, decision) in history:
            yield None
            continue
        if before and word == before.decision and not changed:
            decision = replace(decision, completion=before.completion, seen=before.seen)
        elif before and decision.time == before.time:
            decision = replace(decision, time=now())
        if not overrules(decision, row.rule):
            raise UsageError(f"{place}: the rule {row.rule!r} cannot be overruled", "empty the cell in the column decision")
        try:
            yield None if decision == before else checked(decision)
        except ValueError as error:
            raise UsageError(f"{place}: {error}", "decision is accept, edit, reject, undo or empty") from None


def _was_shown(cell: str, row: Row, before: Decision | None) -> bool:
    """Whether a sheet showed this text before another reviewer's edit: the teacher's own, be it in the row yet or not."""
    return cell == _comparable(row.sample.text) or (before is not None and hash_of_text(cell) == before.seen)


def _cells(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", cells by column) of each row; the commas may be semicolons, as some spreadsheets save them."""
    csv.field_size_limit(1 << 30)
    needed = {"decision", "id", "completion"}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = ";" if file.readline().count(";") >= len(needed) - 1 else ","
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            if missing := needed - set(reader.fieldnames or ()):
                raise UsageError(f"{path}: no column {', '.join(sorted(missing))}", "the first line names the columns")
            for cells in reader:
                place = f"{path}:{reader.line_num}"
                if None in cells or None in cells.values():
                    raise UsageError(f"{place}: more or fewer cells than columns", "save the file as CSV with quoted cells")
                yield place, {"reviewer": "", "time": ""} | {column: unguard(cell) for column, cell in cells.items()}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "pass the file that --export wrote") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}", "save the file as CSV UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{path}: not CSV: {error}", "save the file as CSV UTF-8") from None


def reviewed_text(row: Row, decision: Decision | None) -> str:
    """The completion that a reviewer sees: the edited one where there is one."""
    return decision.completion if decision and decision.completion is not None else row.sample.text


def guard(text: str) -> str:
    """The cell in which a spreadsheet shows this text and runs nothing."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8
    return "'" + text if text.startswith(_GUARDED) else text


def unguard(cell: str) -> str:
    """The text of a cell."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_GUARDED) else cell


def _comparable(text: str) -> str:
    """The text less what a spreadsheet may change by saving: the kind of line ends."""
    return re.sub(r"\r\n?", "\n", text.encode("utf-8", "replace").decode())
