"""The journal: every completion ever paid for, one appended line each, and the rule that nothing is asked twice.

A line is {"key", "id", "model", "request", "completion"}; the key is a hash of the whole request and of the model's
identity. Lines are written before anything is parsed or filtered. Failures cost nothing to lose and are not in it.
The lines of one local batch (`batch_left` counts down to 0) stand whole or not at all: a batch cut short is asked again
whole, so that its make-up, and with it its bf16 arithmetic, is that of an uninterrupted run.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Engine, Request
from seqdistill.errors import SeqdistillError
from seqdistill.records import fingerprint, to_line

SYNC_SECONDS = 1.0


def request_key(request: Request, model: str) -> str:
    """The key of a request to a model (its identity): 32 hex digits over everything but the request's id."""
    asked = {name: value for name, value in asdict(request).items() if name != "id"}
    return fingerprint({"model": model, **asked})[:32]


class Journal:
    """One journal file, open for one process. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, drops a torn last line, and indexes what is there by key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b")
        self._offsets: dict[str, int] = {}
        self._synced = time.monotonic()
        self._read_index()

    def _read_index(self) -> None:
        self._file.seek(0)
        offset = whole = 0
        batch: dict[str, int] = {}
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                batch[row["key"]] = offset
                left = row["completion"]["batch_left"]
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
                raise SeqdistillError(
                    f"{self.path}:{number}: not a journal line",
                    "the file was edited or damaged; mend or remove that line",
                ) from None
            offset += len(line)
            if left == 0:
                self._offsets.update(batch)
                batch, whole = {}, offset
        self._file.truncate(whole)  # a torn tail: the process died while writing a line or a batch

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, key: str, request_id: str) -> Completion:
        """The completion stored under a key, under today's request id. Raises KeyError."""
        self._file.seek(self._offsets[key])
        stored: dict[str, Any] = json.loads(self._file.readline())["completion"]
        return Completion(id=request_id, **stored)

    def append(self, key: str, model: str, request: Request, completion: Completion) -> None:
        """Stores a completion; on the disk within a second, and at once when the file is closed."""
        asked, got = asdict(request), asdict(completion)
        row = {"key": key, "id": asked.pop("id"), "model": model, "request": asked, "completion": got}
        del got["id"]
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(to_line(row).encode())
        self._file.flush()
        self._offsets[key] = offset
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        self._sync()
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def ask(
    journal: Journal, model: str, requests: Sequence[Request], open_engine: Callable[[], Engine]
) -> AsyncIterator[Completion]:
    """Asks for what the journal lacks and yields each new completion, failures included, after it is stored.

    `model` is the model's identity. The engine is opened only when something must be asked. Requests with the same key
    are asked once.
    """
    missing: dict[str, Request] = {}
    for request in requests:
        key = request_key(request, model)
        if key not in journal:
            missing.setdefault(key, request)
    if not missing:
        return
    keys = {request.id: key for key, request in missing.items()}
    by_id = {request.id: request for request in missing.values()}
    engine = open_engine()
    try:
        async for completion in engine.stream(list(missing.values())):
            if completion.error is None:
                journal.append(keys[completion.id], model, by_id[completion.id], completion)
            yield completion
    finally:
        await engine.close()


def answers(
    journal: Journal, model: str, requests: Sequence[Request], failed: dict[str, Completion]
) -> Iterator[tuple[Request, Completion]]:
    """Each request with its completion, in the order of the requests: from the journal, or else from `failed` by id."""
    for request in requests:
        key = request_key(request, model)
        if key in journal:
            yield request, journal.read(key, request.id)
        else:
            yield request, failed[request.id]
