"""Asking through a Batch endpoint, for days if need be: submits what is missing, waits, and puts the answers in the journal.

Each step stands in generate/batches.jsonl, on the disk, before it is taken and after it: whatever is killed in between, no
request is submitted twice. What a batch asked lies in generate/batches/NAME.jsonl. Does not speak HTTP itself.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seqdistill.budget import Purse
from seqdistill.engines import Completion, Request
from seqdistill.engines.openai_batch import Batch, BatchEndpoint, NotNow, chunks
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.journal import REQUEST_KEYS, Journal, Missing
from seqdistill.progress import Progress
from seqdistill.records import atomic_write, fingerprint, read_jsonl, to_line

FIRST_PAUSE_SECONDS = 0.5  # between two looks at a batch; each pause is longer, up to the longest
LONGEST_PAUSE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 2.0
PATIENCE_LOOKS = 12  # in vain, one after the other


@dataclass
class UnderWay:
    """A batch that may be billed and is not collected. Without an id it is not known whether it was made."""

    name: str
    model: str  # identity
    endpoint: str
    file: str
    requests: dict[str, Request]  # by key
    id: str | None = None
    usd: float = 0.0  # set aside for it
    done: int = 0


class Ledger:
    """batches.jsonl of one run. Only appended to; `open` are the batches under way."""

    def __init__(self, path: Path, purse: Purse) -> None:
        """Reads what was under way and sets aside what it can cost. Raises SeqdistillError naming a damaged line."""
        self._path, self._purse = path, purse
        self.open: dict[str, UnderWay] = {}
        content = path.read_bytes() if path.exists() else b""
        self._end = content.rfind(b"\n") + 1  # after it: a line that was cut short, whose step was not taken
        for number, line in enumerate(content[: self._end].splitlines(), 1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise SeqdistillError(f"{path}:{number}: not a step of a batch", "mend or remove that line") from None

    def _apply(self, row: dict[str, Any]) -> None:
        name = row["name"]
        match row["step"]:
            case "submitting":
                rows = read_jsonl(self._requests(name))
                requests = {line["key"]: Request(id=line["id"], **line["request"]) for _, line in rows}
                batch = UnderWay(name, row["model"], row["endpoint"], row["file"], requests)
                batch.usd = self._purse.reserve(batch.model, requests.values())
                self.open[name] = batch
            case "submitted":
                self.open[name].id = row["batch"]
            case "collected" | "never submitted":
                self._purse.reserved_usd -= self.open.pop(name).usd

    def _requests(self, name: str) -> Path:
        return self._path.parent / "batches" / f"{name}.jsonl"

    def keep(self, name: str, part: Missing) -> None:
        """Writes what a batch is going to ask."""
        with atomic_write(self._requests(name)) as file:
            for key, request in part:
                asked = {field: getattr(request, field) for field in REQUEST_KEYS}
                file.write(to_line({"key": key, "id": request.id, "request": asked}))

    def step(self, name: str, step: str, **facts: Any) -> None:
        """Appends a step and waits until it is on the disk."""
        row = {"step": step, "name": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.truncate(self._end)
            file.write(to_line(row).encode())
            file.flush()
            os.fsync(file.fileno())
            self._end = file.tell()
        self._apply(row)

    def refuse_live(self, missing: Missing) -> None:
        """Raises UsageError when a request that is to be asked at once is in a batch already."""
        twice = next((batch for batch in self.open.values() if any(key in batch.requests for key, _ in missing)), None)
        if twice:
            raise UsageError(
                f"some of these requests are in a batch at {twice.endpoint} already (batch {twice.id or twice.name})",
                f"run again with --batch to collect it; to give it up and pay twice, remove {self._path}",
            )


async def ask_batched(
    journal: Journal, ledger: Ledger, model: str, missing: Missing, endpoint: BatchEndpoint, purse: Purse, progress: Progress
) -> AsyncGenerator[Completion, None]:
    """Asks for all that is missing and yields each completion after it is stored; never more than the cap allows.

    Batches of an earlier run are collected first or waited for; what failed is not submitted again in this run. Raises
    Incomplete when the next request could break the cap, SeqdistillError when the endpoint stays away.
    """
    wanted = dict(missing)
    try:
        async with endpoint:
            await _recover(ledger, model, endpoint)
            while wanted:
                flying = {key for batch in _of(ledger, model) for key in batch.requests}
                fresh = [(key, request) for key, request in wanted.items() if key not in flying]
                payable = purse.affordable(model, fresh, batched=True)
                for part in chunks(endpoint, payable):
                    await _submit(ledger, model, part, endpoint)
                if not payable and not any(key in flying for key in wanted):
                    raise purse.reached()
                async for completion in _ended(journal, ledger, model, endpoint, purse, progress, wanted):
                    yield completion
    finally:
        if left := _of(ledger, model):
            progress.note(f"{len(left)} batches go on at {endpoint.name}; run again with --batch to collect their answers")


def _of(ledger: Ledger, model: str) -> list[UnderWay]:
    return [batch for batch in ledger.open.values() if batch.model == model]


async def _recover(ledger: Ledger, model: str, endpoint: BatchEndpoint) -> None:
    """Finds out what came of the submissions that were cut short."""
    for under_way in _of(ledger, model):
        if under_way.endpoint != endpoint.name:
            raise UsageError(
                f"batch {under_way.id or under_way.name} is at {under_way.endpoint}, not at {endpoint.name}",
                "give that base URL first, so that it can be collected",
            )
        if under_way.id is None:
            await _settle(ledger, under_way, endpoint)


async def _settle(ledger: Ledger, under_way: UnderWay, endpoint: BatchEndpoint) -> None:
    """Whether a batch was made. Without its file, a submission that is still on its way cannot make it any more."""
    found = await endpoint.find(under_way.name, under_way.file)
    if found is None:
        await endpoint.delete(under_way.file)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        found = await endpoint.find(under_way.name, under_way.file)
    if found:
        ledger.step(under_way.name, "submitted", batch=found.id)
    else:
        ledger.step(under_way.name, "never submitted")


async def _submit(ledger: Ledger, model: str, part: Missing, endpoint: BatchEndpoint) -> None:
    name = uuid.uuid4().hex
    ledger.keep(name, part)
    file = await endpoint.upload(name, b"".join(endpoint.line(key, request) for key, request in part))
    ledger.step(name, "submitting", model=model, endpoint=endpoint.name, file=file, requests=len(part))
    try:
        batch = await endpoint.create(name, file)
    except NotNow:
        await _settle(ledger, ledger.open[name], endpoint)
        if name in ledger.open:
            return
        raise
    except SeqdistillError:
        ledger.step(name, "never submitted")
        raise
    ledger.step(name, "submitted", batch=batch.id)


async def _ended(
    journal: Journal,
    ledger: Ledger,
    model: str,
    endpoint: BatchEndpoint,
    purse: Purse,
    progress: Progress,
    wanted: dict[str, Request],
) -> AsyncIterator[Completion]:
    """Waits until a batch has ended and yields what it says of what is wanted, which is wanted no more."""
    pause, in_vain, ended = FIRST_PAUSE_SECONDS, 0, 0
    while True:
        for under_way in _of(ledger, model):
            assert under_way.id is not None
            try:
                batch = await endpoint.retrieve(under_way.id)
                in_vain = 0
            except NotNow:
                in_vain += 1
                if in_vain >= PATIENCE_LOOKS:
                    raise
                continue
            under_way.done = batch.done
            if batch.ended:
                ended += 1
                async for completion in _collect(journal, ledger, under_way, batch, endpoint, purse, wanted):
                    yield completion
        if ended:
            return
        waiting = _of(ledger, model)
        done = sum(one.done for one in waiting)
        asked = sum(len(one.requests) for one in waiting)
        progress.advance(0, {"batches": f"{len(waiting)} under way", "answered there": f"{done:,} of {asked:,}"})
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)


async def _collect(
    journal: Journal,
    ledger: Ledger,
    under_way: UnderWay,
    batch: Batch,
    endpoint: BatchEndpoint,
    purse: Purse,
    wanted: dict[str, Request],
) -> AsyncIterator[Completion]:
    """Stores what an ended batch says. Killed halfway, the next run reads the files again and stores the rest."""
    contents = [await endpoint.content(file) for file in batch.files]
    for key, request, completion in endpoint.completions(batch, contents, under_way.requests):
        place = fingerprint(["lost", key, under_way.name])[:32] if completion.error else key
        if (completion.error is None or completion.lost) and place not in journal:
            journal.append(under_way.model, [(place, request, completion)])
            purse.pay(under_way.model, request, completion)
        if today := wanted.pop(key, None):
            yield replace(completion, id=today.id)
    journal.sync()
    ledger.step(under_way.name, "collected", status=batch.status)
