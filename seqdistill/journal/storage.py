"""The journal: every completion ever paid for, one appended line each, and the rule that nothing is asked twice.

A line is {"key", "left", "id", "model", "request", "completion"}; the key is a hash of the whole request and of the model's
identity. Lines are written before anything is filtered and hold the reply as it came. Failures are not in it, except that
a try whose answer never came may be billed: it stands under a key of its own that no request has.
The lines of one local batch (`left` counts down to 0) stand whole or not at all: a batch cut short is asked again whole, so
that its make-up, and with it its bf16 arithmetic, is that of an uninterrupted run.
A line is with the operating system before its completion is reported, so a killed process loses nothing; it is on the
disk within a second.
"""

import asyncio
import contextlib
import json
import os
import re
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Engine, Request
from seqdistill.errors import SeqdistillError
from seqdistill.records import fingerprint, to_line

SYNC_SECONDS = 1.0
FOLD_LINES = 1 << 16  # new lines are indexed in a dict, and folded into the arrays when there are this many
HEAD = re.compile(rb'\{"key": "([0-9a-f]{32})", "left": (\d+), ')

NOT_PAID = b'"paid": false, '  # in a line that was copied from another run or imported

REQUEST_KEYS = [f.name for f in fields(Request) if f.name != "id"]
COMPLETION_KEYS = [f.name for f in fields(Completion) if f.name not in ("id", "batch_left")]
_DEFAULTS = {f.name: f.default for f in fields(Request)}


def request_key(request: Request, model: str) -> str:
    """The key of a request to a model (its identity): 32 hex digits over everything but the request's id.

    Settings at their default are left out, so that a new kind of setting changes no old key.
    """
    return fingerprint({"model": model, **_settings(request)})[:32]


def _settings(request: Request) -> dict[str, Any]:
    asked = {name: getattr(request, name) for name in REQUEST_KEYS}
    return {name: value for name, value in asked.items() if value != _DEFAULTS[name]}


class Journal:
    """One journal file. Close it, or use it as a context manager. One process writes; others may read."""

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        """Opens or creates the file, drops a torn end, and indexes what is there by key, in 24 bytes a line.

        Raises SeqdistillError naming the line of a damaged file.
        """
        self.path = path
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        else:
            self._file = -1
        self._reader = path.open("rb")
        self._index = _Index()
        self._unsynced = False
        try:
            self._end = self._read_index()
        except SeqdistillError:
            self.close()
            raise
        if writable and path.stat().st_size > self._end:  # a torn end: the process died while writing a line or a batch
            os.ftruncate(self._file, self._end)

    def _read_index(self) -> int:
        """Indexes the whole lines and batches; returns where they end."""
        offset = end = 0
        batch: list[tuple[str, int]] = []
        for number, line in enumerate(self._reader, 1):
            if not line.endswith(b"\n"):
                break
            head = HEAD.match(line)
            if head is None or not line.endswith(b"}\n"):
                raise SeqdistillError(
                    f"{self.path}:{number}: not a journal line",
                    "the file was edited or damaged; mend or remove that line",
                )
            batch.append((head[1].decode(), offset))
            offset += len(line)
            if head[2] == b"0":
                for key, at in batch:
                    self._index.add(key, at)
                batch, end = [], offset
        return end

    def __contains__(self, key: str) -> bool:
        return self._index.find(key) is not None

    def __len__(self) -> int:
        return len(self._index)

    def holds(self, model: str, request: Request) -> bool:
        """Whether a request to a model (its identity) was answered."""
        return request_key(request, model) in self

    def read(self, key: str, request_id: str) -> Completion:
        """The completion stored under a key, under today's request id. Raises KeyError."""
        return Completion(id=request_id, **json.loads(self._line(key))["completion"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every line, in file order."""
        self._reader.seek(0)
        offset = 0
        while offset < self._end:
            line = self._reader.readline()
            offset += len(line)
            yield json.loads(line)
            self._reader.seek(offset)

    def append(self, model: str, batch: Sequence[tuple[str, Request, Completion]], *, paid: bool = True) -> None:
        """Stores completions that belong together, under their keys: all of them or none.

        `paid` is whether this run paid for them. Raises SeqdistillError when the disk is full.
        """
        lines = []
        for left, (key, request, completion) in zip(range(len(batch))[::-1], batch, strict=True):
            asked = _settings(request)
            got = {name: getattr(completion, name) for name in COMPLETION_KEYS}
            owner = {} if paid else {"paid": False}
            row = {"key": key, "left": left, **owner, "id": request.id, "model": model, "request": asked, "completion": got}
            lines.append((key, to_line(row).encode()))
        self._write(lines)

    def adopt(self, other: "Journal", key: str) -> None:
        """Copies a completion from another run's journal."""
        line = other._line(key)
        head = HEAD.match(line)
        assert head is not None
        rest = line[head.end() :].removeprefix(NOT_PAID)
        self._write([(key, f'{{"key": "{key}", "left": 0, '.encode() + NOT_PAID + rest)])

    def _line(self, key: str) -> bytes:
        offset = self._index.find(key)
        if offset is None:
            raise KeyError(key)
        self._reader.seek(offset)
        return self._reader.readline()

    def _write(self, lines: Sequence[tuple[str, bytes]]) -> None:
        data = memoryview(b"".join(line for _, line in lines))
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise SeqdistillError(
                f"{self.path}: cannot be written: {error.strerror}",
                "make room and run again; what stands in the journal is kept and not asked again",
            ) from error
        for key, line in lines:
            self._index.add(key, self._end)
            self._end += len(line)
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


Missing = list[tuple[str, Request]]  # requests with their keys


def lacking(journal: Journal, model: str, requests: Sequence[Request], others: Sequence[Journal] = ()) -> Missing:
    """What a journal lacks of the requests to a model (its identity), each key once.

    What stands in another run's journal is copied first.
    """
    missing: dict[str, Request] = {}
    for request in requests:
        key = request_key(request, model)
        if key in journal or key in missing:
            continue
        if other := next((other for other in others if key in other), None):
            journal.adopt(other, key)
        else:
            missing[key] = request
    return list(missing.items())


async def ask(
    journal: Journal, model: str, requests: Sequence[Request], open_engine: Callable[[], Engine]
) -> AsyncGenerator[Completion, None]:
    """Asks for what the journal lacks and yields each new completion, failures included, after it is stored.

    `model` is the model's identity. The engine is opened only when something must be asked. Requests with the same key
    are asked once.
    """
    if not (missing := lacking(journal, model, requests)):
        return
    engine = open_engine()
    try:
        async with contextlib.aclosing(ask_engine(journal, model, missing, engine)) as completions:
            async for completion in completions:
                yield completion
    finally:
        await engine.close()


async def ask_engine(journal: Journal, model: str, missing: Missing, engine: Engine) -> AsyncGenerator[Completion, None]:
    """Asks an open engine and yields each completion, failures included, after it is stored."""
    by_id = {request.id: (key, request) for key, request in missing}
    batch: list[tuple[str, Request, Completion]] = []
    syncing = asyncio.create_task(_sync_each_second(journal))
    try:
        async with contextlib.aclosing(engine.stream([request for _, request in missing])) as completions:
            async for completion in completions:
                batch.append((*by_id[completion.id], completion))
                if completion.batch_left == 0:
                    journal.append(model, [item for item in batch if item[2].error is None])
                    journal.append(model, [(_lost_key(*item), *item[1:]) for item in batch if item[2].error and item[2].lost])
                    for _, _, stored in batch:
                        yield stored
                    batch = []
    finally:
        syncing.cancel()


def _lost_key(key: str, request: Request, _: Completion) -> str:
    return fingerprint(["lost", key, request.id, time.time_ns()])[:32]


async def _sync_each_second(journal: Journal) -> None:
    while True:
        await asyncio.sleep(SYNC_SECONDS)
        await asyncio.to_thread(journal.sync)


def answer(journal: Journal, model: str, request: Request, failed: Mapping[str, Completion]) -> Completion:
    """A request's completion: from the journal, or else from `failed` by id.

    A request that is in neither was not reached: its completion's error is "not asked".
    """
    key = request_key(request, model)
    if key in journal:
        return journal.read(key, request.id)
    return failed.get(request.id) or Completion(request.id, error="not asked", message="the run stopped before")


def answers(
    journal: Journal, model: str, requests: Sequence[Request], failed: Mapping[str, Completion]
) -> Iterator[tuple[Request, Completion]]:
    """Each request with its `answer`, in the order of the requests."""
    return ((request, answer(journal, model, request, failed)) for request in requests)
