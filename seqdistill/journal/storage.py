"""The journal file: every completion ever paid for, and every hold of money, one appended line each.

A completion is {"key", "left", "usd", "hold", ("paid": false,) "id", "model", "request", "completion"}: the key is a hash of
the whole request and of the model's identity; `usd` what it cost at the price of then, null without a price; `hold` the hold
that it settles; "paid": false in what was copied from another run or imported. Lines are written before anything is filtered
and keep the raw reply. Failures are not in it.
A hold is {"hold", "usd", "most", "factor", "model", "requests", "request"}: written before its try is sent, for the upper
bound of what that can cost: `most` prompt and completion tokens, `factor` times; `requests` are sent as one, `request` is the
first one's id. It is settled by the completion that names it or by {"release"}; one that is neither may have been billed
without an answer.
The lines of one local batch (`left` counts down to 0) are kept whole or not at all: a batch cut short is requested again whole,
so that its make-up, and with it its bf16 arithmetic, is that of an uninterrupted run.
A line is with the operating system before its completion is reported, so a killed process loses nothing; it is on the
disk within a second.
"""

import contextlib
import itertools
import json
import os
import re
import secrets
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Request
from seqdistill.errors import SeqdistillError
from seqdistill.records import fingerprint, to_line

FOLD_LINES = 1 << 16  # new lines are indexed in a dict, and folded into the arrays when there are this many
HEAD = re.compile(
    rb'\{"key": "(?P<key>[0-9a-f]{32})", "left": (?P<left>\d+), '
    rb'"usd": (?P<usd>null|[-+.e\d]+), "hold": (?:null|"(?P<hold>[^"]*)"), (?P<unpaid>"paid": false, )?'
)
HOLD = re.compile(
    rb'\{"hold": "(?P<hold>[^"]+)", "usd": (?P<usd>null|[-+.e\d]+), '
    rb'"most": \[(?P<prompt>\d+), (?P<completion>\d+)\], "factor": (?P<factor>[-+.e\d]+), '
    rb'"model": (?P<model>"(?:[^"\\]|\\.)*")'
    rb'(?:, "requests": \d+, "request": (?P<request>"(?:[^"\\]|\\.)*"))?'  # of one written before 2026-11-27 it is not known
)
RELEASE = re.compile(rb'\{"release": "(?P<hold>[^"]+)"\}')

REQUEST_KEYS = [f.name for f in fields(Request) if f.name != "id"]
COMPLETION_KEYS = [f.name for f in fields(Completion) if f.name not in ("id", "batch_left", "hold")]
_DEFAULTS = {f.name: f.default for f in fields(Request)}


def request_key(request: Request, model: str) -> str:
    """The key of a request to a model (its identity): 32 hex digits over everything but the request's id.

    Settings at their default are left out, so that a new kind of setting changes no old key.
    """
    return fingerprint({"model": model, **_settings(request)})[:32]


def _settings(request: Request) -> dict[str, Any]:
    settings = {name: getattr(request, name) for name in REQUEST_KEYS}
    return {name: value for name, value in settings.items() if value != _DEFAULTS[name]}


@dataclass(frozen=True)
class Hold:
    """The upper bound of what one try can cost."""

    usd: float | None  # None: no price was known
    prompt_tokens: int
    completion_tokens: int
    factor: float = 1.0  # in `usd`: how much more than for these tokens an answer was seen to cost
    request: str = ""  # the id of the first request; empty where it is not known
    model: str = ""  # identity, once it is in a journal


@dataclass
class Spending:
    """What a journal says was spent, in USD."""

    paid_usd: float = 0.0  # for completions
    held_usd: float = 0.0  # in `holds`
    holds: dict[str, Hold] = field(default_factory=dict)  # neither settled nor released, by name
    unpriced: int = 0  # completions that this run paid for while no price was known
    # By model identity, the most that answers cost over their hold: more than 1 where tokens beyond max_tokens are billed
    overruns: dict[str, float] = field(default_factory=dict)

    def hold(self, name: str, hold: Hold) -> None:
        """A try is to be sent."""
        self.holds[name] = hold
        self.held_usd += hold.usd or 0.0

    def release(self, name: str) -> Hold | None:
        """The hold is over; returns it, None for one that is not known."""
        if hold := self.holds.pop(name, None):
            self.held_usd = self.held_usd - (hold.usd or 0.0) if self.holds else 0.0
        return hold

    def settle(self, hold: str | None, costs: Sequence[float | None]) -> None:
        """One try's answers cost so much; without a price, None."""
        paid = sum(usd for usd in costs if usd is not None)
        self.paid_usd += paid
        self.unpriced += sum(usd is None for usd in costs)
        if hold and (bound := self.release(hold)) and bound.usd:
            self.overruns[bound.model] = max(self.overruns.get(bound.model, 1.0), paid / bound.usd * bound.factor)


class Journal:
    """One journal file. Close it, or use it as a context manager. One process writes; others may read."""

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        """Opens or creates the file, drops a torn end, and indexes what is there by key, in 24 bytes a line.

        Raises SeqdistillError naming the line of a damaged file.
        """
        self.path = path
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        else:
            self._file = -1
        self._reader = path.open("rb")
        self._index = _Index()
        self.spending = Spending()
        self._unsynced = False
        try:
            self._end = self._read_index()
        except SeqdistillError:
            self.close()
            raise
        if writable and path.stat().st_size > self._end:  # a torn end: the process died while writing a line or a batch
            os.ftruncate(self._file, self._end)

    def _read_index(self) -> int:
        """Indexes the whole lines and batches, and adds up what they cost; returns where they end."""
        offset = end = 0
        batch: list[tuple[re.Match[bytes], int]] = []
        for number, line in enumerate(self._reader, 1):
            if not line.endswith(b"\n"):
                break
            head = HEAD.match(line)
            try:
                if not line.endswith(b"}\n") or not (head or self._note_hold(line)):
                    raise self._damaged(number)
                if head:
                    batch.append((head, offset))
                offset += len(line)
                if head is None or head["left"] == b"0":
                    self._note_completions(batch)
                    batch, end = [], offset
            except ValueError:  # a number or a name that is none
                raise self._damaged(number) from None
        return end

    def _damaged(self, number: int) -> SeqdistillError:
        problem = f"{self.path}:{number}: not a journal line"
        return SeqdistillError(problem, "the file was edited or damaged; repair or remove that line")

    def _row(self, line: bytes, at: int) -> dict[str, Any]:
        """A completion's line at an offset. Raises SeqdistillError naming it where it is damaged behind its head."""
        row = row_in(line)
        if row is None:
            self._reader.seek(0)
            ends = itertools.accumulate(map(len, self._reader))
            raise self._damaged(next(number for number, end in enumerate(ends, 1) if end > at))
        return row

    def _note_hold(self, line: bytes) -> bool:
        """Whether a line is a hold or its release, which is taken note of."""
        if hold := HOLD.match(line):
            usd = None if hold["usd"] == b"null" else float(hold["usd"])
            most = int(hold["prompt"]), int(hold["completion"])
            request, model = json.loads(hold["request"] or '""'), json.loads(hold["model"])
            self.spending.hold(hold["hold"].decode(), Hold(usd, *most, float(hold["factor"]), request, model))
        elif release := RELEASE.match(line):
            self.spending.release(release["hold"].decode())
        return bool(hold or release)

    def _note_completions(self, batch: Sequence[tuple[re.Match[bytes], int]]) -> None:
        """Indexes completions that belong together, at their offsets, and settles their hold."""
        for head, offset in batch:
            self._index.add(head["key"].decode(), offset)
        paid = [head for head, _ in batch if head["unpaid"] is None]
        held = next((head["hold"].decode() for head in paid if head["hold"]), None)
        self.spending.settle(held, [None if head["usd"] == b"null" else float(head["usd"]) for head in paid])

    def __contains__(self, key: str) -> bool:
        return self._index.find(key) is not None

    def __len__(self) -> int:
        return len(self._index)

    def holds(self, model: str, request: Request) -> bool:
        """Whether a request to a model (its identity) was answered."""
        return request_key(request, model) in self

    def read(self, key: str, request_id: str) -> Completion:
        """The completion stored under a key, under today's request id. Raises KeyError, SeqdistillError for a damaged line."""
        line, at = self._line(key)
        return completion_of(self._row(line, at), request_id)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every completion's line, in file order. Raises SeqdistillError naming a damaged one."""
        self._reader.seek(0)
        offset = 0
        while offset < self._end:
            line = self._reader.readline()
            at, offset = offset, offset + len(line)
            if line.startswith(b'{"key"'):
                yield self._row(line, at)
                self._reader.seek(offset)

    def append(
        self,
        model: str,
        batch: Sequence[tuple[str, Request, Completion]],
        *,
        usd: Sequence[float | None] | None = None,
        paid: bool = True,
        settles: Hold | None = None,
    ) -> None:
        """Stores completions that belong together, under their keys: all of them or none. Settles the holds they name.

        `usd` is what each cost, `paid` whether this run paid for them. `settles` is a hold that is written and settled with
        them. Raises SeqdistillError when the disk is full.
        """
        lines = []
        if settles is not None:
            name, line = _hold_line(model, len(batch), settles)
            batch = [(key, request, replace(completion, hold=name)) for key, request, completion in batch]
            lines.append(line)
        costs = usd or [None] * len(batch)
        for left, cost, (key, request, completion) in zip(range(len(batch))[::-1], costs, batch, strict=True):
            sent = _settings(request)
            got = {name: getattr(completion, name) for name in COMPLETION_KEYS}
            owner = {} if paid else {"paid": False}
            row: dict[str, Any] = {"key": key, "left": left, "usd": cost, "hold": completion.hold or None, **owner}
            row |= {"id": request.id, "model": model, "request": sent, "completion": got}
            lines.append(to_line(row).encode())
        self._write(lines)

    def adopt(self, other: "Journal", key: str) -> None:
        """Copies a completion from another run's journal: this run has not paid for it."""
        line, at = other._line(key)
        other._row(line, at)
        head = HEAD.match(line)
        assert head is not None
        start = f'{{"key": "{key}", "left": 0, "usd": {head["usd"].decode()}, "hold": null, "paid": false, '
        self._write([start.encode() + line[head.end() :]])

    def hold(self, model: str, requests: int, hold: Hold) -> str:
        """Writes the hold of one try of `requests` requests, before it is sent; returns its name."""
        name, line = _hold_line(model, requests, hold)
        self._write([line])
        return name

    def release(self, hold: str) -> None:
        """Gives a hold back, whose try was certainly not billed."""
        self._write([to_line({"release": hold}).encode()])

    def _line(self, key: str) -> tuple[bytes, int]:
        """A completion's line and its offset."""
        offset = self._index.find(key)
        if offset is None:
            raise KeyError(key)
        self._reader.seek(offset)
        return self._reader.readline(), offset

    def _write(self, lines: Sequence[bytes]) -> None:
        """Appends lines that belong together: all or nothing."""
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise SeqdistillError(
                f"{self.path}: cannot be written: {error.strerror}",
                "make room and run again; what is in the journal is kept and not requested again",
            ) from error
        completions = []
        for line in lines:
            if head := HEAD.match(line):
                completions.append((head, self._end))
            else:
                self._note_hold(line)
            self._end += len(line)
        self._note_completions(completions)
        self._unsynced = True

    def sync(self) -> None:
        """Waits until everything that was appended is on the disk."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file)

    def close(self) -> None:
        """Syncs and closes."""
        self._reader.close()
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hold_line(model: str, requests: int, hold: Hold) -> tuple[str, bytes]:
    """A new name for a hold, and its line."""
    name = secrets.token_hex(6)
    most = [hold.prompt_tokens, hold.completion_tokens]
    row: dict[str, Any] = {"hold": name, "usd": hold.usd, "most": most, "factor": hold.factor}
    row |= {"model": model, "requests": requests, "request": hold.request}
    return name, to_line(row).encode()


def row_in(line: bytes) -> dict[str, Any] | None:
    """What a completion's line holds; None for one that is damaged."""
    try:
        row = json.loads(line)
        return row if isinstance(row["request"], dict) and isinstance(row["completion"], dict) else None
    except (ValueError, KeyError, TypeError):
        return None


def completion_of(row: dict[str, Any], request_id: str) -> Completion:
    """The completion in a journal's line; a key that the line lacks was added later, and has its default."""
    return Completion(id=request_id, **{name: row["completion"][name] for name in COMPLETION_KEYS if name in row["completion"]})


class _Index:
    """Key -> offset: three arrays sorted by key, 24 bytes a line, and a small dict of what came lately."""

    def __init__(self) -> None:
        self._high, self._low, self._at = array("Q"), array("Q"), array("Q")  # 64 bits of the key, the other 64, the offset
        self._late: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._at) + len(self._late)

    def add(self, key: str, offset: int) -> None:
        self._late[key] = offset
        if len(self._late) >= FOLD_LINES:
            self._fold()

    def find(self, key: str) -> int | None:
        if key in self._late:
            return self._late[key]
        high, low = int(key[:16], 16), int(key[16:], 16)
        place = bisect_left(self._high, high)
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return self._at[place]
            place += 1
        return None

    def _fold(self) -> None:
        import numpy

        self._high.extend(int(key[:16], 16) for key in self._late)
        self._low.extend(int(key[16:], 16) for key in self._late)
        self._at.extend(self._late.values())
        self._late.clear()
        order = numpy.argsort(numpy.frombuffer(self._high, dtype="u8"), kind="stable")  # nearly sorted: close to linear
        self._high, self._low, self._at = (
            array("Q", numpy.frombuffer(column, dtype="u8")[order].tobytes()) for column in (self._high, self._low, self._at)
        )
