"""Asking the teachers for what the journal lacks: how hard, within which budget, and once more for what was cut off.

Decides which requests are sent. What was answered is in the journal when this returns.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from seqdistill.engines import Completion, Pace, open_engine
from seqdistill.engines.openai_batch import BatchEndpoint
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.generate.batches import BatchAsking, Ledger
from seqdistill.generate.plan import Planned, Teacher, with_more_tokens
from seqdistill.journal.budget import Purse, ask_within
from seqdistill.journal.storage import Journal, Missing, answer, lacking
from seqdistill.progress import Progress
from seqdistill.recipe.tables import GenerateConfig


@dataclass
class Asked:
    """What came of the asking."""

    new: int = 0
    failed: dict[str, Completion] = field(default_factory=dict)  # by request id
    stopped: SeqdistillError | None = None  # what ended the asking before all was asked


def ask_teachers(
    journal: Journal,
    plan: Sequence[Planned],
    asked: GenerateConfig,
    purse: Purse,
    progress: Progress,
    others: Sequence[Journal] = (),
) -> Asked:
    """Asks for what neither the journal nor another run's has. Raises UsageError for what no request can survive."""
    asking = _Asking(journal, asked, purse, progress, Ledger(journal.path.with_name("batches.jsonl"), purse))
    asking.round(plan, others)
    if asked.retry_truncated is not None and asking.result.stopped is None:
        asking.round([with_more_tokens(one, asked) for one in plan if cut_off(journal, one)], others)
    return asking.result


def cut_off(journal: Journal, planned: Planned) -> bool:
    """Whether the journal holds an answer that ended at the token limit."""
    return answer(journal, planned.teacher.identity, planned.request, {}).finish_reason == "length"


def pace_of(asked: GenerateConfig) -> Pace:
    """How hard the teachers' engines may push."""
    return Pace(
        concurrency=asked.concurrency,
        timeout=asked.timeout,
        connect_timeout=asked.connect_timeout,
        read_timeout=asked.read_timeout,
        retries=asked.retries,
        requests_per_minute=asked.requests_per_minute,
        tokens_per_minute=asked.tokens_per_minute,
        samples_per_request=asked.samples_per_request,
        resend=asked.budget is None,  # a lost answer may be billed, so within a hard cap it is not asked for twice at once
    )


@dataclass
class _Asking:
    journal: Journal
    asked: GenerateConfig
    purse: Purse
    progress: Progress
    ledger: Ledger
    result: Asked = field(default_factory=Asked)

    def round(self, plan: Sequence[Planned], others: Sequence[Journal]) -> None:
        """One request for each planned sample: teacher by teacher, or all their batches at once."""
        todo: list[tuple[Teacher, Missing]] = []
        for teacher in {planned.teacher.name: planned.teacher for planned in plan}.values():
            requests = [planned.request for planned in plan if planned.teacher is teacher]
            if missing := lacking(self.journal, teacher.identity, requests, others):
                todo.append((teacher, missing))
        if self.asked.batch:
            asyncio.run(self._in_batches(todo))
            return
        for _, missing in todo:
            self.ledger.refuse_live(missing)
        for teacher, missing in todo:
            if self.result.stopped is None:
                asyncio.run(self._at_once(teacher, missing))

    async def _at_once(self, teacher: Teacher, missing: Missing) -> None:
        engine = open_engine(teacher.config, pace_of(self.asked))
        self.progress.start(f"asking {teacher.name}", len(missing), "answers")
        try:
            completions = ask_within(self.purse, self.journal, teacher.identity, missing, engine)
            await self._take(completions, _Tally(self.purse, len(missing)))
        finally:
            self.progress.end()
            await engine.close()

    async def _in_batches(self, todo: Sequence[tuple[Teacher, Missing]]) -> None:
        endpoints = [BatchEndpoint(teacher.config, pace_of(self.asked)) for teacher, _ in todo]
        tally, turn = _Tally(self.purse, sum(len(missing) for _, missing in todo)), asyncio.Lock()
        asking = [
            BatchAsking(self.journal, self.ledger, one.identity, dict(missing), endpoint, self.purse, self.progress, turn)
            for (one, missing), endpoint in zip(todo, endpoints, strict=True)
        ]
        self.progress.start("asking in batches", tally.total, "answers")
        try:
            await asyncio.gather(*(self._take(one.completions(), tally) for one in asking))
        finally:
            self.progress.end()

    async def _take(self, answers: AsyncGenerator[Completion, None], tally: "_Tally") -> None:
        """Counts what comes. Raises UsageError; any other error ends the asking and is kept."""
        try:
            async with aclosing(answers) as completions:
                async for completion in completions:
                    if completion.error is None:
                        self.result.new += 1
                    else:
                        self.result.failed[completion.id] = completion
                    tally.done += 1
                    self.progress.advance(1, tally.cost())
        except UsageError:
            raise
        except SeqdistillError as error:
            self.result.stopped = error


class _Tally:
    """What is shown beside the bar: paid so far, and what it will be at this rate."""

    def __init__(self, purse: Purse, total: int) -> None:
        self._purse, self._paid_before = purse, purse.spent_usd
        self.total, self.done = total, 0

    def cost(self) -> dict[str, str]:
        if not self._purse.prices:
            return {}
        spent = self._purse.spent_usd
        projected = self._paid_before + (spent - self._paid_before) * self.total / self.done
        return {"cost": f"{spent:.4f} of {projected:.4f} USD"}
