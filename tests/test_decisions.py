"""Decisions of reviewers: their file, what a decision does to a row, and the way through a spreadsheet."""

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest
from filter_runs import filtered_run, make_run
from filter_runs import sample as filter_sample
from review_rows import HOSTILE, ROWS, sample

from seqdistill.decisions import (
    HUMAN,
    Decision,
    appending,
    apply,
    decisions_file,
    hash_of_text,
    overrules,
    read_decisions,
    stale,
    summary,
)
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import to_line
from seqdistill.review.filtered_rows import FilteredRows
from seqdistill.review.spreadsheet import COLUMNS, export_csv, guard, import_csv, unguard
from seqdistill.runs import Run
from seqdistill.stages.filter.stage import filter_samples


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filtered_run(tmp_path / "notices", ROWS)


def made(name: str, word: str, completion: str | None = None, seen: str = "The road is closed.") -> Decision:
    return Decision(name, word, completion, hash_of_text(seen), "maria", "2026-01-01T00:00:00+00:00")


def test_the_last_line_of_an_id_holds(run: Run) -> None:
    with appending(run) as append:
        for decision in (
            made("a", "accept"),
            made("b", "reject"),
            made("a", "edit", "x"),
            made("b", "undo"),
            made("c", "accept"),
        ):
            append(decision)
    held = read_decisions(run)
    assert {name: decision.decision for name, decision in held.items()} == {"a": "edit", "c": "accept"}
    assert summary(held) == {"accepted": 1, "edited": 1, "rejected": 0}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "not JSON"),
        ("[]", "not a decision"),
        ('{"id": "a"}', "missing"),
        (to_line(made("a", "love")), "love"),
        (to_line(made("a", "edit")), "completion"),
        (to_line(made("a", "accept", "x")), "completion"),
        (to_line(replace(made("a", "accept"), time="noon")), "noon"),
        (to_line(made("a", "accept")).replace('"maria"', "7"), "reviewer is 7"),
    ],
)
def test_a_bad_line_is_named(run: Run, line: str, says: str) -> None:
    decisions_file(run).parent.mkdir()
    decisions_file(run).write_text(to_line(made("ok", "accept")) + line.rstrip() + "\n")
    with pytest.raises(UsageError, match=r"decisions\.jsonl:2") as error:
        read_decisions(run)
    assert says in error.value.message


def test_an_exported_sheet_is_never_written_over(run: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "rows.csv"
    export_csv(run, sheet)
    sheet.write_text("filled in")
    with pytest.raises(UsageError, match="exists already"):
        export_csv(run, sheet)
    assert sheet.read_text() == "filled in"


def test_a_torn_last_line_is_dropped_and_written_over(run: Run) -> None:
    whole, torn = to_line(made("a", "accept")), to_line(made("b", "accept"))[:-20]
    decisions_file(run).parent.mkdir()
    decisions_file(run).write_text(whole + torn)
    assert list(read_decisions(run)) == ["a"]
    with appending(run) as append:
        append(made("c", "accept"))
    assert list(read_decisions(run)) == ["a", "c"]


def test_a_full_disk_leaves_no_part_of_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    real = os.write
    with appending(run) as append:
        append(made("a", "accept"))
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(SeqdistillError, match="No space left"):
            append(made("b", "accept"))
        monkeypatch.undo()
        append(made("c", "accept"))
    assert list(read_decisions(run)) == ["a", "c"]


def test_an_edit_carries_the_persons_text_under_the_teachers_name(run: Run) -> None:
    before = replace(sample(0, "The road is closed."), reasoning="because")
    after, reason = apply(made(before.id, "edit", "Closed today."), before)
    assert reason is None
    assert (after.text, after.teacher, after.finish_reason, after.reasoning) == ("Closed today.", "teacher", HUMAN, None)
    assert (after.id, after.prompt, after.completion_tokens) == (before.id, before.prompt, before.completion_tokens)


def test_accept_keeps_the_sample_and_reject_gives_the_reason() -> None:
    before = sample(0, "The road is closed.")
    assert apply(made(before.id, "accept"), before) == (before, None)
    assert apply(made(before.id, "reject"), before) == (before, "rejected by maria")


def test_a_decision_on_another_completion_is_stale_but_an_edit_holds() -> None:
    before = sample(0, "The road is open.")
    assert stale(made(before.id, "accept"), before) and stale(made(before.id, "reject"), before)
    assert not stale(made(before.id, "edit", "x"), before)
    assert not stale(made(before.id, "accept", seen="The road is open."), before)
    assert not overrules(made(before.id, "accept"), "contamination")
    assert overrules(made(before.id, "accept"), "near_duplicate")


# --- the spreadsheet ---


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_cells(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def test_decisions_come_back_exactly_from_a_spreadsheet(run: Run, tmp_path: Path) -> None:
    with appending(run) as append:
        for row, word, text in [(0, "edit", HOSTILE), (2, "accept", None), (3, "reject", None), (5, "edit", "+1\r\n'quoted\n")]:
            with FilteredRows(run) as rows:
                shown = rows[row].sample
            append(made(shown.id, word, text, seen=shown.text))
    table = tmp_path / "rows.csv"
    assert export_csv(run, table) == 7
    other = filtered_run(tmp_path / "other", ROWS)
    assert import_csv(other, table, "someone else") == 4
    assert read_decisions(other) == read_decisions(run)
    assert import_csv(other, table, "someone else") == 0, "what holds already is not written again"


def test_no_cell_is_a_formula_and_every_text_comes_back() -> None:
    letters = random.Random(1)
    texts = ["=1+1", "+x", "-", "@a", "'", "''", "'=1", "'a", "\t=1", "\r", "\n=1", "＝1", "plain", ""]
    texts += ["".join(letters.choices("=+-@'\t\r\na, \"", k=letters.randrange(6))) for _ in range(2000)]
    for text in texts:
        assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
        assert unguard(guard(text)) == text


def test_a_reviewer_decides_in_the_spreadsheet(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    export_csv(run, table)
    rows = {row["id"]: row for row in cells(table)}
    rows["p0:teacher:0"]["decision"] = " Reject "
    rows["p2:teacher:0"] |= {"decision": "edit", "completion": "- three\n- items", "reviewer": "jan"}
    rows["p6:teacher:0"]["decision"] = "accept"
    write_cells(table, list(rows.values()), delimiter=";")
    assert import_csv(run, table, "maria") == 3
    held = read_decisions(run)
    assert {name: (d.decision, d.completion, d.reviewer) for name, d in held.items()} == {
        "p0:teacher:0": ("reject", None, "maria"),
        "p2:teacher:0": ("edit", "- three\n- items", "jan"),
        "p6:teacher:0": ("accept", None, "maria"),
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decision": "love"}, "love"),
        ({"id": "p9:teacher:0", "decision": "accept"}, "no row of this run"),
        ({"id": "p1:teacher:0", "decision": "edit"}, "is in the file twice"),
        ({"completion": "changed"}, "write edit"),
        ({"completion": "changed", "decision": "accept"}, "write edit"),
        ({"completion": " ", "decision": "edit"}, "empty"),
        ({"decision": "accept", "time": "noon"}, "noon"),
    ],
)
def test_a_wrong_spreadsheet_names_the_line_and_changes_nothing(
    run: Run, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    table = tmp_path / "rows.csv"
    export_csv(run, table)
    rows = cells(table)
    target = next(row for row in rows if row["id"] == "p0:teacher:0")
    target |= change
    rows[-1]["decision"] = "accept"
    write_cells(table, rows)
    with pytest.raises(UsageError, match=r"rows\.csv:\d+: ") as error:
        import_csv(run, table, "maria")
    assert says in error.value.message + error.value.hint
    assert read_decisions(run) == {}


SHEETS: list[tuple[dict[str, str], dict[str, str], tuple[str, str | None] | None]] = [  # of two reviewers, exported at once
    ({"decision": "edit", "completion": "Better."}, {}, ("edit", "Better.")),
    ({"decision": "edit", "completion": "Better."}, {"decision": "accept"}, ("edit", "Better.")),
    ({"decision": "edit", "completion": "Better."}, {"decision": "reject"}, ("reject", None)),
    ({"decision": "edit", "completion": "Better."}, {"decision": "edit", "completion": "Best."}, ("edit", "Best.")),
    ({"decision": "accept"}, {}, ("accept", None)),
    ({"decision": "reject"}, {"decision": "edit", "completion": "Best."}, ("edit", "Best.")),
    ({"decision": "accept"}, {"decision": "accept"}, ("accept", None)),
]


@pytest.mark.parametrize(("first", "second", "holds"), SHEETS)
@pytest.mark.parametrize("filtered", [False, True], ids=["", "filter in between"])
def test_sheets_that_were_written_before_the_others_came_back_are_taken(
    first: dict[str, str], second: dict[str, str], holds: tuple[str, str | None], filtered: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [filter_sample(f"Name the river number {n}.", f"It is river {n}.") for n in range(6)])
    filter_samples(run, Recipe(), Silent())
    with FilteredRows(run) as rows:
        name = rows[0].sample.id
    tables = [tmp_path / "jan.csv", tmp_path / "maria.csv"]
    for table, change in zip(tables, (first, second), strict=True):
        export_csv(run, table)
        write_cells(table, [{**row, **(change if row["id"] == name else {})} for row in cells(table)])
    import_csv(run, tables[0], "jan")
    if filtered:
        filter_samples(run, Recipe(), Silent())
    import_csv(run, tables[1], "maria")
    held = read_decisions(run)[name]
    assert (held.decision, held.completion) == holds


def test_a_sheet_does_not_bring_back_what_was_decided_otherwise_since(run: Run, tmp_path: Path) -> None:
    table, other = tmp_path / "rows.csv", tmp_path / "later.csv"
    with appending(run) as append:
        append(made("p0:teacher:0", "accept"))
    export_csv(run, table)
    export_csv(run, other)
    rejected = {"p0:teacher:0": {"decision": "reject", "time": ""}}
    write_cells(other, [{**row, **rejected.get(row["id"], {})} for row in cells(other)])
    assert (import_csv(run, other, "jan"), import_csv(run, table, "maria")) == (1, 0)
    assert read_decisions(run)["p0:teacher:0"].decision == "reject"


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"id,decision,completion\n1\n", b"\xff\xfe\x00", b'id,decision,completion\n"a']
)
def test_a_file_that_is_no_such_table_is_named(run: Run, tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "rows.csv"
    table.write_bytes(content)
    with pytest.raises(UsageError, match=r"rows\.csv"):
        import_csv(run, table, "maria")
    with pytest.raises(UsageError, match="no such file"):
        import_csv(run, tmp_path / "none.csv", "maria")
