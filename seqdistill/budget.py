"""What answers cost, and the hard cap on it: only what fits even at its worst is sent.

Counts every try that may be billed, lost answers included. Prices are the recipe's; it knows none itself.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from seqdistill.engines import Completion, Engine, Request
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal import Journal, Missing, ask_engine

PRICE_KEYS = ("prompt", "cached_prompt", "completion")


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    prompt: float
    completion: float
    cached_prompt: float

    def usd(self, completion: Completion) -> float:
        """What one answer cost."""
        fresh = completion.prompt_tokens - completion.cached_tokens
        tokens = (
            fresh * self.prompt + completion.cached_tokens * self.cached_prompt + completion.completion_tokens * self.completion
        )
        return tokens / 1e6

    def worst(self, request: Request) -> float:
        """The most that one try of a request can cost: a token is at least one byte, and a chat template adds a few."""
        prompt = sum(len(message["content"].encode(errors="replace")) + 16 for message in request.messages) + 256
        return (prompt * max(self.prompt, self.cached_prompt) + request.max_tokens * self.completion) / 1e6


def price_of(table: Mapping[str, Any], owner: str = "teacher") -> Price | None:
    """The price in the `price` table of a recipe's [teacher] or [judge]; None for an empty one.

    Raises UsageError for a wrong key or value.
    """
    if not table:
        return None
    for key, value in table.items():
        if key not in PRICE_KEYS or isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise UsageError(
                f"[{owner}.price] {key} = {value!r}: not a price", f"USD per million tokens, under: {', '.join(PRICE_KEYS)}"
            )
    if "prompt" not in table or "completion" not in table:
        raise UsageError(f"[{owner}.price] needs both prompt and completion", "price = { prompt = 0.10, completion = 0.40 }")
    prompt = float(table["prompt"])
    return Price(prompt, float(table["completion"]), float(table.get("cached_prompt", prompt)))


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

    def count(self, journal: Journal) -> None:
        """Adds what a journal says was paid; answers that were copied from another run or imported are free."""
        if not self.prices:
            return
        for row in journal.rows():
            if row.get("paid", True):
                self.pay(row["model"], Request(id="", **row["request"]), Completion(id="", **row["completion"]))

    def pay(self, model: str, request: Request, completion: Completion) -> None:
        """Counts one answer, or one failure whose tries may be billed."""
        if price := self.prices.get(model):
            self.spent_usd += price.usd(completion) + completion.lost * price.worst(request)

    def affordable(self, model: str, missing: Iterable[tuple[str, Request]]) -> Missing:
        """The first requests that fit under the cap together, even if each costs its worst."""
        if self.cap_usd is None:
            return list(missing)
        left, fitting = self.cap_usd - self.spent_usd, []
        for key, request in missing:
            left -= self.prices[model].worst(request)
            if left < 0:
                break
            fitting.append((key, request))
        return fitting


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
            raise Incomplete(
                f"the budget of {purse.cap_usd:g} USD is reached: {purse.spent_usd:.4f} USD are spent, "
                "and the next request could go over it",
                "raise --budget (a judge's: --judge-budget) and run again; what was answered is kept",
            )
        asked += len(batch)
        requests = {request.id: request for _, request in batch}
        async with aclosing(ask_engine(journal, model, batch, engine)) as completions:
            async for completion in completions:
                purse.pay(model, requests[completion.id], completion)
                yield completion
