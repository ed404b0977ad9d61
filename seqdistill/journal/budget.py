"""The hard cap on what a run spends: a try is sent only when the upper bound of its cost fits.

The cap is the run's: it counts what all journals of the run hold, whatever stage, teacher or setting it was paid for. What
answers cost is `prices`'.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from seqdistill.engines import Completion, Request
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal.prices import FREE, Price, billed_by_call, known_usd
from seqdistill.journal.storage import Hold, Journal, completion_of
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig
from seqdistill.runs import STAGES, Run


@dataclass(frozen=True)
class Source:
    """A model that answers requests: its name and identity, how it is reached, what it costs. None: no price is known."""

    name: str
    identity: str
    config: ModelConfig
    price: Price | None

    def hold(self, requests: Sequence[Request], factor: float = 1.0, *, batched: bool = False) -> Hold:
        """The upper bound of one try of requests that are sent as one, `factor` times over."""
        first, config = requests[0], self.config
        fields = [config.options, config.body, config.chat_template_kwargs]  # tools, say: the model sees them, too
        beside = json.dumps(fields, default=str)
        prompt = (prompt_bound(first) + len(beside)) * (len(requests) if batched else 1)
        completion = sum(request.max_tokens for request in requests)
        if self.price is None:
            return Hold(None, prompt, completion, factor, first.id)
        usd = self.price.bound(prompt, completion, batched=batched, writes_cache="cache_control" in beside) * factor
        return Hold(usd, prompt, completion, factor, first.id)

    def cost(self, completion: Completion) -> float | None:
        """What one answer cost in USD; None where an endpoint's price is not known, and it does not report what it bills."""
        return 0.0 if self.is_free else known_usd(self.price, [completion])

    def is_same_model(self, identity: str) -> bool:
        """Whether an identity is this model's, perhaps with other options or of another revision."""
        name = self.config.model or self.identity
        return identity == self.identity or (identity.startswith(name) and identity[len(name) :][:1] in ("", "@", "+"))

    @property
    def is_free(self) -> bool:
        """Whether it runs in this process, and has no price."""
        return self.price is None and self.config.engine != "openai"


def prompt_bound(request: Request) -> int:
    """The most tokens a prompt can have: a token is at least one byte, and a chat template adds a few."""
    tokens = sum(len(message["content"].encode(errors="replace")) + 16 for message in request.messages) + 256
    return tokens + len(
        json.dumps(request.response_format or request.schema or request.choices or "")
    )  # some endpoints show it to the model, and bill it


@dataclass(frozen=True)
class OwnCap:
    """A cap on what one kind of work costs in the whole run: judging. The stage's journal is where it pays now."""

    usd: float
    paid_usd: float = 0.0  # for that work in other journals, less what the stage's holds of other work
    held_usd: float = 0.0  # the same of what may be billed


class Budget:
    """What the journals of a run say was spent, and what may still be."""

    def __init__(
        self,
        journals: Sequence[Journal],
        prices: Mapping[str, Price | None],
        cap_usd: float | None = None,
        own_cap: OwnCap | None = None,
    ) -> None:
        """`prices` are by model identity; what was requested without a price is taken at today's.

        `own_cap` is of the work that is paid for in the first journal.
        """
        self.cap_usd, self._own_cap = cap_usd, own_cap
        self._journals = journals
        self._prices = {model: price for model, price in prices.items() if price is not None}
        self._aside: dict[str, float] = {}  # USD, by the key of the request it is for
        self.unpriced_usd, self._unpriced_held_usd = self._unpriced()

    @property
    def is_priced(self) -> bool:
        """Whether anything is known of what answers cost: a price, or what an endpoint says that it bills."""
        return bool(self._prices) or self.paid_usd > 0

    @property
    def is_capped(self) -> bool:
        """Whether any cap limits what is spent."""
        return not (self.cap_usd is None and self._own_cap is None)

    @property
    def paid_usd(self) -> float:
        """What was paid for answers."""
        return sum(journal.spending.paid_usd for journal in self._journals) + self.unpriced_usd

    @property
    def held_usd(self) -> float:
        """The upper bound of what is under way, or may have been billed without an answer."""
        return sum(journal.spending.held_usd for journal in self._journals) + self._unpriced_held_usd

    def overrun(self, source: Source) -> float:
        """The most that an answer of a model cost over its upper bound, whatever its options were; 1 where none did."""
        known = [item for journal in self._journals for item in journal.spending.overruns.items()]
        return max((times for identity, times in known if source.is_same_model(identity)), default=1.0)

    def bound(self, source: Source, requests: Sequence[Request], *, batched: bool = False) -> Hold:
        """The upper bound of one try of requests that are sent as one, by what the model's answers were seen to cost."""
        return source.hold(requests, self.overrun(source), batched=batched)

    def fits(self, hold: Hold) -> bool:
        """Whether a try can be sent within the caps."""
        usd = (hold.usd or 0.0) + sum(self._aside.values())
        caps = [(self.cap_usd, self.paid_usd + self.held_usd)]
        caps += [(self._own_cap.usd, sum(self._own_spent(self._own_cap)))] if self._own_cap else []
        return all(cap is None or spent + usd <= cap * (1 + 1e-12) for cap, spent in caps)

    def _own_spent(self, own: OwnCap) -> tuple[float, float]:
        """What was paid for the work that has a cap of its own, and what may be billed for it."""
        here = self._journals[0].spending
        return own.paid_usd + here.paid_usd, own.held_usd + here.held_usd

    @contextmanager
    def reserve(self, holds: Mapping[str, Hold]) -> Iterator[bool]:
        """Keeps room for several tries, by key, until each draws its own; whether there is room for all of them."""
        usd = {key: hold.usd or 0.0 for key, hold in holds.items() if key not in self._aside}
        has_room = not usd or self.fits(Hold(sum(usd.values()), 0, 0))
        if has_room:
            self._aside |= usd
        try:
            yield has_room
        finally:
            for key in usd:
                self.unreserve(key)

    def unreserve(self, key: str) -> None:
        """Releases what was reserved under a key; its try takes its own hold next."""
        self._aside.pop(key, None)

    def spent(self) -> str:
        """What was spent, in words: what was paid, and apart from it what may have been billed."""
        return _spent(self.paid_usd, self.held_usd)

    def reached(self, source: Source) -> Incomplete:
        """The error for a next request to a model that could break a cap: the one that has less left."""
        left = float("inf") if self.cap_usd is None else self.cap_usd - self.paid_usd - self.held_usd
        own = self._own_cap
        if own is not None and own.usd - sum(spent := self._own_spent(own)) < left:
            return Incomplete(
                f"the judge's budget is reached: of its {own.usd:g} USD in this run {_spent(*spent)}, and "
                "the next request could go over it",
                "raise --judge-budget and run again; what was answered is kept",
            )
        overrun = self.overrun(source)
        over = f" ({source.name} bills up to {overrun:.1f} times what max_tokens allows)" if overrun > 1 else ""
        return Incomplete(
            f"the budget of {self.cap_usd:g} USD is reached: {self.spent()}, and the next request could go over it{over}",
            "raise --budget and run again; what was answered is kept",
        )

    def _unpriced(self) -> tuple[float, float]:
        """What lines without their cost come to at today's price: what was paid, and what may have been billed."""
        paid = held = 0.0
        if not self._prices:
            return paid, held
        for journal in self._journals:
            held += sum(
                self._any_price("").bound(one.prompt_tokens, one.completion_tokens)
                for one in journal.spending.holds.values()
                if one.usd is None
            )
            if journal.spending.unpriced:
                unpriced = (row for row in journal.rows() if row["usd"] is None and row.get("paid", True))
                paid += sum(self._any_price(row["model"]).usd(completion_of(row, "")) for row in unpriced)
        return paid, held

    def _any_price(self, model: str) -> Price:
        """The model's price, or for one that is not in the recipe any more the dearest known."""
        return self._prices.get(model) or max(self._prices.values(), key=lambda price: price.bound(1000, 1000))


def _spent(paid_usd: float, held_usd: float) -> str:
    paid, held = (
        f"{paid_usd:.4f} USD are paid",
        f"up to {held_usd:.4f} USD more may be billed for answers that were lost, filtered or not counted",
    )
    return f"{paid}, {held}" if held_usd > 5e-5 else paid


def check_prices(sources: Sequence[Source], progress: Progress, *, capped: bool) -> None:
    """Says what the price of a model leaves out. Raises UsageError for that, or no price, where a cap needs to know it."""
    unknown = next((one for one in sources if one.price is None and one.config.engine == "openai"), None)
    if capped and unknown is not None:
        raise UsageError(
            f"a budget needs the price of {unknown.name}",
            "add to its table: price = { prompt = 0.10, completion = 0.40 }, both 0 for a server of your own",
        )
    for source in sources:
        by_call = billed_by_call(source.config) if source.price and source.price.request is None else None
        if by_call and capped:
            raise UsageError(
                f"{source.name}: {by_call} is billed by the call, and a budget needs to know how much",
                "add the fee of one call in USD to its price: price = { ..., request = 0.025 }; 0 where there is none",
            )
        if by_call:
            progress.note(
                f"{source.name}: {by_call} is billed by the call, which the price leaves out: what is reported as paid is too "
                "low; add the fee of one call in USD: price = { ..., request = 0.025 }"
            )


@contextmanager
def spending(
    run: Run,
    journal: Journal,
    sources: Sequence[Source],
    cap_usd: float | None,
    progress: Progress,
    *,
    own_cap: OwnCap | None = None,
    note_spent: bool = True,
) -> Iterator[Budget]:
    """The budget of a stage whose journal is open, over all journals of the run. One process at a time spends in a run.

    `own_cap` is of the work that is paid for in this journal. A stage that spent something says at its end what the run has
    spent in all, unless its result does (`note_spent`). Raises UsageError for a cap while what an endpoint costs is not known.
    """
    check_prices(sources, progress, capped=cap_usd is not None or own_cap is not None)
    with ExitStack() as stack:
        if any(source.price not in (None, FREE) for source in sources):
            stack.enter_context(run.spending())
        journals = [journal]
        for stage in STAGES:
            path = run.file(stage, "journal.jsonl")
            if path != journal.path and path.is_file():
                journals.append(stack.enter_context(Journal(path, writable=False)))
        budget = Budget(journals, {source.identity: source.price for source in sources}, cap_usd, own_cap)
        if budget.unpriced_usd:
            progress.note(
                "answers that were requested without a price have no recorded cost: "
                f"{budget.unpriced_usd:.4f} USD at today's price"
            )
        before = budget.paid_usd, budget.held_usd
        yield budget
        if note_spent and budget.is_priced and before != (budget.paid_usd, budget.held_usd):
            progress.note(f"{journal.path.parent.name}: {budget.spent()} by this run in all")


def spent_since(run: Run, stage: str, prices: Mapping[str, Price | None] | None = None) -> dict[str, float]:
    """What the run's journals hold now, in USD, where one has grown since this stage's manifest was written; else nothing.

    Nothing either where they hold answers without their cost, and no price is known. `prices` are by model identity.
    """
    written = run.file(stage, "manifest.json").stat().st_mtime_ns
    paths = [path for one in STAGES if (path := run.file(one, "journal.jsonl")).is_file()]
    if all(path.stat().st_mtime_ns <= written for path in paths):
        return {}
    with ExitStack() as stack:
        journals = [stack.enter_context(Journal(path, writable=False)) for path in paths]
        budget = Budget(journals, prices or {}, None)
        if any(journal.spending.unpriced for journal in journals) and not any(price for price in (prices or {}).values()):
            return {}
        return {"spent_usd": budget.paid_usd, "assumed_usd": budget.held_usd}
