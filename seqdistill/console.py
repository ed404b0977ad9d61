"""The output of one command: progress and notes on stderr, results on stdout as tables or as exactly one JSON object.

Text that came from a model or a file passes `visible` first: a terminal obeys escape sequences, whoever wrote them.
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError
from seqdistill.records import visible

HEAD_WIDTH = 9  # of a column; what is longer is broken unless the cells are as wide
FIRST_WIDTH = 12  # of a table's first column where the others leave no more
BAR_WIDTH = 20  # of the bar at its shortest, the time left and the gaps beside it
HEARTBEAT_SECONDS = 30.0  # without a terminal there is no bar, but a log should show life


class Console:
    """The output of one command. Implements `progress.Progress`."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self._quiet = as_json, quiet
        self._bar: Any = None
        self._what, self._unit, self._total, self._done = "", "", 0, 0
        self._began = 0.0
        self._facts: dict[str, str] = {}
        self._over = threading.Event()

    # --- progress, on stderr ---

    def start(self, what: str, total: int, unit: str) -> None:
        self.end()
        self._what, self._unit, self._total, self._done, self._facts = what, unit, total, 0, {}
        self._began = time.monotonic()
        if self._quiet:
            return
        if not sys.stderr.isatty():
            self._over = threading.Event()
            threading.Thread(target=self._heartbeat, args=(self._over,), daemon=True).start()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        self._bar = Progress(*columns, console=RichConsole(stderr=True), transient=True, expand=True)
        self._task = self._bar.add_task(total=total, **self._line())
        self._bar.start()

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        self._done += count
        self._facts.update(facts or {})
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, **self._line())

    def _line(self) -> dict[str, str]:
        """The bar's texts, fitted to the terminal: the rate goes first, then the last facts, then the end of the name."""
        what, numbers, facts = visible(self._what), [self._place(), self._rate()], self._fact_texts()
        room = self._bar.console.width - BAR_WIDTH
        while len("  ".join([what, *numbers, *facts])) > room and (numbers[1:] or facts):
            (numbers if numbers[1:] else facts).pop()
        left = max(room - len("  ".join(["", *numbers, *facts])), 1)
        what = what if len(what) <= left else what[: left - 1] + "…"
        return {"description": what, "numbers": "  ".join(numbers), "facts": "  ".join(facts)}

    def _heartbeat(self, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            left = "time left not known yet"
            if self._done:
                left = seconds((self._total - self._done) * (time.monotonic() - self._began) / self._done) + " left"
            self._say(f"{self._what}: {', '.join([self._place(), self._rate(), left, *self._fact_texts()])}")

    def _place(self) -> str:
        if self._unit == "B":
            return f"{size(self._done)}/{size(self._total)}"
        return f"{self._done:,}/{self._total:,}"

    def _rate(self) -> str:
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        return f"{size(rate)}/s" if self._unit == "B" else f"{rate:,.1f} {self._unit}/s"

    def _fact_texts(self) -> list[str]:
        return [visible(f"{name} {value}") for name, value in self._facts.items()]

    def note(self, text: str) -> None:
        if not self._quiet:
            self._say(text)

    def end(self) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(visible(text), markup=False, highlight=False)
        else:
            print(visible(text), file=sys.stderr, flush=True)

    # --- results, on stdout ---

    def json_result(self, value: Mapping[str, Any]) -> None:
        """The one JSON object of a --json command; without --json nothing."""
        if self.as_json:
            with to_stdout():
                print(json.dumps(value, default=_plain))

    def facts(self, title: str, facts: Mapping[str, Any]) -> None:
        """A few labelled values. None is left out."""
        if self.as_json:
            return
        known = {name: value for name, value in facts.items() if value is not None}
        width = max(map(len, known), default=0)
        with to_stdout():
            print(visible(title))
            for name, value in known.items():
                print(f"  {name.ljust(width)}  {visible(str(value))}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is text, the others are numbers. Where these would be broken, each row is a list."""
        if self.as_json:
            return
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1),
            collapse_padding=True,  # two intervals a row must fit into 80 columns
        )
        for number, column in enumerate(columns):
            widest = max((len(row[number]) for row in rows), default=0)
            head = textwrap.fill(column, max(widest, HEAD_WIDTH), break_long_words=False)  # a long head squeezes no number
            table.add_column(Text(head), justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        terminal = RichConsole()
        if rows and _unbroken_width(table.columns, rows) > terminal.width:
            self._lists(title, columns, rows)
            return
        with terminal.capture() as shown:  # printed by itself, it ends the program where its reader has left
            terminal.print(table)
        with to_stdout():
            print(shown.get(), end="")

    def _lists(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for a narrow terminal: below each first cell the others, each behind its head."""
        first, *others = columns
        with to_stdout():
            print(visible(f"{title}\n" if title else ""))
            for name, *cells in rows:
                print(visible(f"{first} {name}"))
                for head, cell in zip(others, cells, strict=True):
                    print(wrapped(visible(cell), f"  {head}: "))
                print()

    def error(self, error: SeqdistillError) -> None:
        """What happened and the next action, on stderr; with --json also as the one object on stdout."""
        self.end()
        print(f"error: {visible(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  next: {visible(error.hint)}", file=sys.stderr)
        with contextlib.suppress(SeqdistillError):  # of a stdout that takes nothing: the first error is the one that counts
            self.json_result(error.as_dict())


class _Notes(io.FileIO):
    """A stream of notes: what it does not take, where its reader has left, say, is dropped, and the work continues."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def open_streams() -> None:
    """Makes stdin, stdout and stderr usable whatever the program was started with; its own process only.

    A closed one discards: otherwise the next file that is opened takes its number, and a library's warnings go into it. What
    stderr does not take, as where `tee` was ended by the same Ctrl-C, ends no work, whoever writes it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free, also in children
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
    notes = io.BufferedWriter(_Notes(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(notes, encoding, "backslashreplace", line_buffering=True)


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Writes to stdout and flushes it; a reader that has left, like `head -1`, ends the output and not the work.

    Raises SeqdistillError for a stdout that takes nothing more, as on a full disk.
    """
    try:
        yield
        if sys.stdout is not None:  # None: it was closed before the program began
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more at its end
        if not isinstance(error, BrokenPipeError):
            hint = "free space; what was done is kept, and `seqdistill show` prints results again"
            raise SeqdistillError(f"stdout: {error.strerror}", hint) from None


def seconds(value: float) -> str:
    """A duration as a person says it: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def size(value: float) -> str:
    """An amount of data as a person says it: 290.6 MB."""
    from rich.filesize import decimal

    return decimal(int(value))


def wrapped(text: str, before: str = "") -> str:
    """The text broken at words to the terminal's width, behind a label and indented under itself.

    An interval, [63.1, 69.8], stays on one line, and so does what is in backticks, a command.
    """
    unbroken = re.sub(r"(\[[^\s\]]+,) ", "\\1\u00a0", text)
    unbroken = re.sub(r"`[^`]+`", lambda match: match[0].replace(" ", "\u00a0"), unbroken)
    width, below = shutil.get_terminal_size().columns, " " * len(before)
    return textwrap.fill(
        unbroken, width, initial_indent=before, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    ).replace("\u00a0", " ")


def line(text: str, before: str = "") -> str:
    """Text from anywhere on one line of the terminal: escaped, its white space single blanks, what does not fit cut off."""
    from rich.cells import cell_len, set_cell_size

    room = max(shutil.get_terminal_size().columns - cell_len(before), 2)
    shown = " ".join(visible(text).split())
    return before + (shown if cell_len(shown) <= room else set_cell_size(shown, room - 1).rstrip() + "…")


def _unbroken_width(columns: Sequence[Any], rows: Sequence[Sequence[str]]) -> int:
    """The columns of the terminal that a table needs for its heads and numbers to stay whole; its first column may fold."""
    from rich.cells import cell_len

    heads = [max(cell_len(part) for part in column.header.plain.split("\n")) for column in columns]
    cells = [max(cell_len(visible(row[number])) for row in rows) for number in range(len(columns))]
    needed = list(map(max, heads, cells))
    return min(needed[0], FIRST_WIDTH) + sum(needed[1:]) + 2 * len(columns)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else repr(value)
