"""What answers cost, and the hard cap on it: only what fits even at its worst is sent.

Counts every try that may be billed, lost answers included. Prices are the recipe's; it knows none itself.
"""

import contextlib
import heapq
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Engine, Request
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal.storage import Journal, Missing, ask_engine
from seqdistill.records import write_json

PRICE_KEYS = ("prompt", "cached_prompt", "completion", "batch")
BATCH_SHARE = 0.5  # of the price, where the recipe does not say


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    prompt: float
    completion: float
    cached_prompt: float
    batch: float = BATCH_SHARE  # the share of these prices that a Batch endpoint takes

    def usd(self, completion: Completion) -> float:
        """What one answer cost."""
        fresh = completion.prompt_tokens - completion.cached_tokens
        tokens = (
            fresh * self.prompt + completion.cached_tokens * self.cached_prompt + completion.completion_tokens * self.completion
        )
        return tokens / 1e6 * self._share(completion.batched)

    def worst(self, request: Request, *, batched: bool = False) -> float:
        """The most that one try of a request can cost: a token is at least one byte, and a chat template adds a few."""
        prompt = sum(len(message["content"].encode(errors="replace")) + 16 for message in request.messages) + 256
        prompt += len(json.dumps(request.schema or request.choices or ""))  # some endpoints show it to the model, and bill it
        most = (prompt * max(self.prompt, self.cached_prompt) + request.max_tokens * self.completion) / 1e6
        return most * self._share(batched)

    def _share(self, batched: bool) -> float:
        return self.batch if batched else 1.0


def price_of(table: Mapping[str, Any], owner: str = "teacher") -> Price | None:
    """The price in the `price` table of a recipe's [teacher] or [judge]; None for an empty one.

    Raises UsageError for a wrong key or value.
    """
    if not table:
        return None
    for key, value in table.items():
        if key not in PRICE_KEYS or isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise UsageError(
                f"[{owner}.price] {key} = {value!r}: not a price",
                f"USD per million tokens (batch: a share of them), under: {', '.join(PRICE_KEYS)}",
            )
    if "prompt" not in table or "completion" not in table:
        raise UsageError(f"[{owner}.price] needs both prompt and completion", "price = { prompt = 0.10, completion = 0.40 }")
    prompt = float(table["prompt"])
    cached, batch = table.get("cached_prompt", prompt), table.get("batch", BATCH_SHARE)
    return Price(prompt, float(table["completion"]), float(cached), float(batch))


class Purse:
    """What a run has paid so far and what it may pay in all. Without a price nothing is counted; without a cap all may go."""

    def __init__(self, prices: Mapping[str, Price | None], cap_usd: float | None = None) -> None:
        """`prices` are by model identity. Raises UsageError for a cap while a price is not known."""
        if cap_usd is not None and None in prices.values():
            raise UsageError(
                "a budget needs the teacher's price", "add to [teacher]: price = { prompt = 0.10, completion = 0.40 }"
            )
        self.prices = {model: price for model, price in prices.items() if price is not None}
        self.cap_usd, self.spent_usd = cap_usd, 0.0
        self.reserved_usd = 0.0  # the worst of what is under way in batches
        self._note: Path | None = None  # see `under_way`
        self._abandoned_usd = 0.0  # part of what is spent

    def count(self, journal: Journal) -> None:
        """Adds what a journal says was paid, and the worst of what was under way when a process that kept it was stopped.

        Answers that were copied from another run or imported are free.
        """
        if not self.prices:
            return
        self._note = journal.path.with_name("under_way.json")
        if self._note.exists():
            self._abandoned_usd = float(json.loads(self._note.read_bytes())["usd"])
            self.spent_usd += self._abandoned_usd
        for row in journal.rows():
            if row.get("paid", True):
                self.pay(row["model"], Request(id="", **row["request"]), Completion(id="", **row["completion"]))

    def pay(self, model: str, request: Request, completion: Completion) -> None:
        """Counts one answer, or one failure whose tries may be billed."""
        if price := self.prices.get(model):
            self.spent_usd += price.usd(completion) + completion.lost * price.worst(request, batched=completion.batched)

    @contextlib.contextmanager
    def under_way(self, model: str, requests: Iterable[Request], engine: Engine) -> Iterator[None]:
        """While an engine is asked, a file beside the journal holds the worst of what may be billed before it is known.

        A process that is killed leaves it to the next one; one that is stopped leaves the worst of what it has abandoned.
        """
        price = self.prices.get(model)
        worst = heapq.nlargest(engine.most_under_way, map(price.worst, requests)) if price else []
        self._keep(self._abandoned_usd + sum(worst))
        try:
            yield
        finally:
            abandoned = sum(worst[: engine.abandoned])
            self._abandoned_usd += abandoned
            self.spent_usd += abandoned
            with contextlib.suppress(OSError):  # on a full disk what was kept before stays
                self._keep(self._abandoned_usd)

    def _keep(self, usd: float) -> None:
        if self._note and usd:
            write_json(self._note, {"usd": usd})
        elif self._note:
            self._note.unlink(missing_ok=True)

    def reserve(self, model: str, requests: Iterable[Request]) -> float:
        """Sets aside the worst that a batch of requests can cost; returns it in USD, to be given back when it has ended."""
        price = self.prices.get(model)
        usd = sum(price.worst(request, batched=True) for request in requests) if price else 0.0
        self.reserved_usd += usd
        return usd

    def affordable(self, model: str, missing: Iterable[tuple[str, Request]], *, batched: bool = False) -> Missing:
        """The first requests that fit under the cap together, even if each costs its worst."""
        if self.cap_usd is None:
            return list(missing)
        left, fitting = self.cap_usd - self.spent_usd - self.reserved_usd, []
        for key, request in missing:
            left -= self.prices[model].worst(request, batched=batched)
            if left < 0:
                break
            fitting.append((key, request))
        return fitting

    def reached(self) -> Incomplete:
        """The error for a next request that could break the cap."""
        return Incomplete(
            f"the budget of {self.cap_usd:g} USD is reached: {self.spent_usd:.4f} USD are spent, "
            "and the next request could go over it",
            "raise --budget (a judge's: --judge-budget) and run again; what was answered is kept",
        )


async def ask_within(
    purse: Purse, journal: Journal, model: str, missing: Missing, engine: Engine
) -> AsyncGenerator[Completion, None]:
    """Asks for all that is missing and yields as `journal.ask_engine` does; never has more under way than the cap allows.

    Raises Incomplete when the next request could break the cap.
    """
    asked = 0
    while asked < len(missing):
        batch = purse.affordable(model, islice(missing, asked, None))
        if not batch:
            raise purse.reached()
        asked += len(batch)
        requests = {request.id: request for _, request in batch}
        with purse.under_way(model, requests.values(), engine):
            async with contextlib.aclosing(ask_engine(journal, model, batch, engine)) as completions:
                async for completion in completions:
                    purse.pay(model, requests[completion.id], completion)
                    yield completion
