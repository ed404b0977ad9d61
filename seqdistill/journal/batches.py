"""Requests through a Batch endpoint, for days if need be: submits what is missing, waits, and puts the answers in the journal.

Each step is in batches.jsonl beside the journal, on the disk, before it is taken and after it: whatever is killed in between,
no request is submitted twice. A batch's requests are in batches/NAME.jsonl. Does not speak HTTP itself.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Request
from seqdistill.engines.openai_batch import Batch, BatchEndpoint, NotNow
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.files import atomic_write
from seqdistill.journal.asking import Asker, Missing
from seqdistill.journal.budget import Source
from seqdistill.journal.storage import REQUEST_KEYS, Hold, Journal
from seqdistill.progress import Progress
from seqdistill.records import read_jsonl, to_line

FIRST_PAUSE_SECONDS = 0.5  # between two looks at a batch; each pause is longer, up to the longest
LONGEST_PAUSE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 2.0
PATIENCE_LOOKS = 12  # in vain, one after the other
TRIAL = 8  # answers of a model that show what it bills


@dataclass
class OpenBatch:
    """A batch that may be billed and is not collected. Without an id it is not known whether it was made."""

    name: str
    model: str  # identity
    endpoint: str
    file: str
    requests: dict[str, Request]  # by key
    hold: str  # the budget's
    id: str | None = None
    done: int = 0


class Ledger:
    """batches.jsonl of one run. Only appended to; `open` are the batches under way."""

    def __init__(self, journal: Journal) -> None:
        """Reads what is under way at the endpoints. Raises SeqdistillError naming a damaged line."""
        path = journal.path.with_name("batches.jsonl")
        self._path, self._journal = path, journal
        self.open: dict[str, OpenBatch] = {}
        content = path.read_bytes() if path.exists() else b""
        self._end = content.rfind(b"\n") + 1  # after it: a line that was cut short, whose step was not taken
        for number, line in enumerate(content[: self._end].splitlines(), 1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise SeqdistillError(f"{path}:{number}: not a step of a batch", "repair or remove that line") from None

    def _apply(self, row: dict[str, Any]) -> None:
        name = row["name"]
        match row["step"]:
            case "submitting":
                rows = read_jsonl(self._requests(name))
                requests = {line["key"]: Request(id=line["id"], **line["request"]) for _, line in rows}
                self.open[name] = OpenBatch(name, row["model"], row["endpoint"], row["file"], requests, row["hold"])
            case "submitted":
                self.open[name].id = row["batch"]
            case "collected" | "never submitted":
                del self.open[name]

    def _requests(self, name: str) -> Path:
        return self._path.parent / "batches" / f"{name}.jsonl"

    def keep(self, name: str, part: Missing) -> None:
        """Writes the requests of a batch."""
        with atomic_write(self._requests(name)) as file:
            for key, request in part:
                settings = {field: getattr(request, field) for field in REQUEST_KEYS}
                file.write(to_line({"key": key, "id": request.id, "request": settings}))

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
        """Raises UsageError when a request that is to be sent live is in a batch already."""
        twice = next((batch for batch in self.open.values() if any(key in batch.requests for key, _ in missing)), None)
        if twice:
            raise UsageError(
                f"some of these requests are in a batch at {twice.endpoint} already (batch {twice.id or twice.name})",
                f"run again with --batch to collect it; to give it up and pay twice, remove {self._path}",
            )

    def end(self, name: str, step: str, **facts: Any) -> None:
        """A batch is over, and so is its hold."""
        hold = self.open[name].hold
        self.step(name, step, **facts)
        self._journal.release(hold)


@dataclass
class BatchAsking:
    """Everything that is missing of one model, requested in batches; `wanted` is what is still to come, by key.

    Models that are prompted side by side share a `turn`, so that each sees what the others hold of the budget.
    """

    asker: Asker
    ledger: Ledger
    source: Source
    wanted: dict[str, Request]
    endpoint: BatchEndpoint
    progress: Progress
    turn: asyncio.Lock
    first_sizes: list[int] = field(default_factory=lambda: [1, TRIAL])  # under a cap, while it is not known what answers cost

    async def completions(self) -> AsyncGenerator[Completion, None]:
        """Yields each completion after it is stored; never has more under way than the cap allows.

        Batches of an earlier run are collected first or waited for; what failed is not submitted again in this run, unless the
        endpoint named a field that can be left out. Raises Incomplete when the next request could break the cap,
        SeqdistillError when the endpoint stays away.
        """
        try:
            async with self.endpoint:
                await self._recover()
                while before := len(self.wanted):
                    await self._submit_payable()
                    async for completion in self._ended():
                        yield completion
                    if len(self.wanted) < before:
                        self.first_sizes = self.first_sizes[1:]
        finally:
            if left := self._under_way():
                self.progress.note(
                    f"{len(left)} batches continue at {self.endpoint.name}; run again with --batch to collect their answers"
                )

    def _under_way(self) -> list[OpenBatch]:
        return [batch for batch in self.ledger.open.values() if batch.model == self.source.identity]

    async def _recover(self) -> None:
        """Finds out what came of the submissions that were cut short."""
        for under_way in self._under_way():
            if under_way.endpoint != self.endpoint.name:
                raise UsageError(
                    f"batch {under_way.id or under_way.name} is at {under_way.endpoint}, not at {self.endpoint.name}",
                    "pass that base URL first, so that it can be collected",
                )
            if under_way.id is None:
                await self._settle(under_way)

    def _hold(self, requests: Sequence[Request]) -> str:
        """Holds the upper bound of a batch of requests; returns the hold's name."""
        each = [self._bound(request) for request in requests]
        usd = None if self.source.price is None else sum(one.usd or 0.0 for one in each)
        prompt, completion = sum(one.prompt_tokens for one in each), sum(one.completion_tokens for one in each)
        whole = Hold(usd, prompt, completion, self.asker.budget.overrun(self.source), requests[0].id)
        return self.asker.journal.hold(self.source.identity, len(requests), whole)

    def _bound(self, request: Request) -> Hold:
        return self.asker.budget.bound(self.source, [request], batched=True)

    async def _settle(self, under_way: OpenBatch) -> None:
        """Whether a batch was made. Without its file, a submission that is still on its way cannot make it any more."""
        found = await self.endpoint.find(under_way.name, under_way.file)
        if found is None:
            await self.endpoint.delete(under_way.file)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            found = await self.endpoint.find(under_way.name, under_way.file)
        if found:
            self.ledger.step(under_way.name, "submitted", batch=found.id)
        else:
            self.ledger.end(under_way.name, "never submitted")

    async def _submit_payable(self) -> None:
        """Submits what is in no batch yet, as far as the cap allows. Raises Incomplete when there is nothing to wait for."""
        async with self.turn:
            flying = {key for batch in self._under_way() for key in batch.requests}
            fresh = [(key, request) for key, request in self.wanted.items() if key not in flying]
            payable = self._affordable(fresh)
            if not payable and len(fresh) == len(self.wanted):
                raise self.asker.budget.reached(self.source)
            for part in self.endpoint.parts(self._first_of(payable)):
                await self._submit(part)

    def _first_of(self, payable: Missing) -> Missing:
        """What of it can be submitted before it is known what answers really cost: a few, and no more while they are out."""
        if self._is_cost_known() or not self.first_sizes:
            return payable
        if self._under_way():
            return []
        size = self.first_sizes[0]
        self.progress.note(
            f"{self.endpoint.name}: the first {size} of {len(payable):,} are in a batch of their own: only answers show what "
            "is billed beside max_tokens, and the budget is kept by that"
        )
        return payable[:size]

    def _is_cost_known(self) -> bool:
        """Whether a cap needs no more answers first: one is enough where it cost no more than its upper bound."""
        budget = self.asker.budget
        if not budget.is_capped:
            return True
        rows = self.asker.journal.rows()
        answers = sum(1 for _ in islice((row for row in rows if row["model"] == self.source.identity and row["hold"]), TRIAL))
        return answers == TRIAL or (answers > 0 and budget.overrun(self.source) == 1)

    def _affordable(self, fresh: Missing) -> Missing:
        """The first requests that fit under the cap together, even if each costs its upper bound."""
        usd, fitting = 0.0, []
        for key, request in fresh:
            usd += self._bound(request).usd or 0.0
            if not self.asker.budget.fits(Hold(usd, 0, 0)):
                break
            fitting.append((key, request))
        return fitting

    async def _submit(self, part: Missing) -> None:
        name = uuid.uuid4().hex
        self.ledger.keep(name, part)
        file = await self.endpoint.upload(name, b"".join(self.endpoint.line(key, request) for key, request in part))
        hold = self._hold([request for _, request in part])
        facts = {"model": self.source.identity, "endpoint": self.endpoint.name, "file": file, "requests": len(part)}
        self.ledger.step(name, "submitting", **facts, hold=hold)
        try:
            batch = await self.endpoint.create(name, file)
        except NotNow:
            await self._settle(self.ledger.open[name])
            if name in self.ledger.open:
                return
            raise
        except SeqdistillError:
            self.ledger.end(name, "never submitted")
            raise
        self.ledger.step(name, "submitted", batch=batch.id)

    async def _ended(self) -> AsyncIterator[Completion]:
        """Waits until a batch has ended and yields what it says of what is wanted, which is wanted no more."""
        pause, in_vain, ended = FIRST_PAUSE_SECONDS, 0, 0
        while True:
            for under_way in self._under_way():
                assert under_way.id is not None
                try:
                    batch = await self.endpoint.retrieve(under_way.id)
                    in_vain = 0
                except NotNow:
                    in_vain += 1
                    if in_vain >= PATIENCE_LOOKS:
                        raise
                    continue
                under_way.done = batch.done
                if batch.ended:
                    ended += 1
                    async for completion in self._collect(under_way, batch):
                        yield completion
            if ended:
                return
            waiting = self._under_way()
            done = sum(one.done for one in waiting)
            total = sum(len(one.requests) for one in waiting)
            self.progress.advance(0, {"batches": f"{len(waiting)} under way", "answered there": f"{done:,} of {total:,}"})
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    async def _collect(self, under_way: OpenBatch, batch: Batch) -> AsyncIterator[Completion]:
        """Stores the results of an ended batch. Killed halfway, the next run reads the files again and stores the rest."""
        contents = [await self.endpoint.content(file) for file in batch.files]
        journal = self.asker.journal
        for key, request, completion in self.endpoint.completions(batch, contents, under_way.requests):
            bound = self._bound(request)
            if key not in journal:
                self.asker.store(self.source, [(key, request, completion)], settles=None if completion.uncounted else bound)
            if completion.uncounted:  # may have been billed, and nobody knows for how much
                journal.hold(self.source.identity, 1, bound)
            if today := self.wanted.pop(key, None):
                yield replace(completion, id=today.id)
        journal.sync()
        self.ledger.end(under_way.name, "collected", status=batch.status)
