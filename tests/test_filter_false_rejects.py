"""The default rules keep what is good: chat, code, other languages, labels, JSON and maths, alone and together.

`python tests/test_filter_false_rejects.py` prints the table: of each kind, what each rule takes.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from filter_runs import filtered, make_run, rows_of
from good_rows import KINDS, good_rows

ROWS = 400
LEAST = 0.995


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_rules_keep_good_rows(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path, good_rows(kind, ROWS))
    result = filtered(run)
    examples = [(row["rule"], row["reason"], row["completion"][-1]["content"][:80]) for row in rows_of(run, "rejected.jsonl")]
    assert result.kept >= LEAST * ROWS, examples[:5]
    assert result.warnings == []


def test_the_default_rules_keep_good_rows_of_all_kinds_together(tmp_path: Path) -> None:
    rows = [row for kind in KINDS for row in good_rows(kind, 150)]
    assert filtered(make_run(tmp_path / "one", rows)).kept >= LEAST * len(rows)
    rows = [replace(row, slice=kind) for kind in KINDS for row in good_rows(kind, 150)]
    assert filtered(make_run(tmp_path / "slices", rows)).kept >= LEAST * len(rows)


def table(rows: int) -> None:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            result = filtered(make_run(Path(folder), good_rows(kind, rows)))
            print(f"| {kind} | {result.read:,} | {result.kept / result.read:.2%} | {result.by_rule or '–'} |")


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
