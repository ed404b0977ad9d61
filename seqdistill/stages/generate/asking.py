"""Requests to the teachers for what the journal lacks: how hard, within which budget, and once more for what was cut off.

Decides which requests are sent. What was answered is in the journal when this returns.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from seqdistill.engines import Completion, Pace, Request
from seqdistill.engines.openai_batch import BatchEndpoint
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.journal.asking import Asker, Missing, answer, missing_requests, run_async
from seqdistill.journal.batches import BatchAsking, Ledger
from seqdistill.journal.budget import Budget
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import GenerateConfig
from seqdistill.stages.generate.first_answers import CheckFirst, FirstAnswers
from seqdistill.stages.generate.plan import Planned, Teacher, repeats


@dataclass
class Outcome:
    """What came of the requests."""

    new: int = 0
    failed: dict[str, Completion] = field(default_factory=dict)  # by request id
    stopped: SeqdistillError | None = None  # what ended the work before everything was requested


def ask_teachers(
    journal: Journal,
    plan: Sequence[Planned],
    config: GenerateConfig,
    budget: Budget,
    progress: Progress,
    others: Sequence[Journal] = (),
    check_first: CheckFirst | None = None,
) -> Outcome:
    """Requests what neither the journal nor another run's has. Raises UsageError for what no request can survive.

    Raises what `check_first` says of the first answers, before the others are requested; they are in the journal.
    """
    asker = Asker(journal, budget, replace(pace_of(config), on_note=progress.note))
    asking = _Asking(asker, config, progress, Ledger(journal), FirstAnswers(plan, check_first))
    run_async(asking.rounds(plan, others))
    return asking.result


def pace_of(config: GenerateConfig) -> Pace:
    """How hard the teachers' engines may push."""
    return Pace(
        concurrency=config.concurrency,
        timeout=config.timeout,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        retries=config.retries,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        samples_per_request=config.samples_per_request,
        capped=config.budget is not None,
    )


@dataclass
class _Asking:
    asker: Asker
    config: GenerateConfig
    progress: Progress
    ledger: Ledger
    first: FirstAnswers
    result: Outcome = field(default_factory=Outcome)

    async def rounds(self, plan: Sequence[Planned], others: Sequence[Journal]) -> None:
        """Requests every planned sample, and then once more what is to be repeated."""
        async with self.asker:
            await self._try_first(plan, others)
            if self.result.stopped is None:
                await self._round(plan, others, in_batches=self.config.batch)
            if self.result.stopped is None and not self.result.failed and not self.first.is_decided:
                self.first.decide()
            if self.first.problem:
                raise self.first.problem
            current = list(plan)
            rounds = repeats(self.config)
            for repeat in rounds:
                if self.result.stopped is None:
                    changed = {n: repeat.again(one) for n, one in enumerate(current) if repeat.applies(self._answer(one))}
                    if not changed and self.config.ask_again and repeat is rounds[0]:
                        self.progress.note(f"ask_again: no answer ended by {' or '.join(self.config.ask_again)}")
                    await self._round(list(changed.values()), others, in_batches=self.config.batch)
                    current = [changed.get(n, one) for n, one in enumerate(current)]

    async def _try_first(self, plan: Sequence[Planned], others: Sequence[Journal]) -> None:
        """Has the first answers seen: the journal's, or else an endpoint's, before the others are requested.

        What a model in this process writes costs nothing to wait for, and is seen as it comes. Raises what is wrong with them.
        """
        journal = self.asker.journal
        if len(journal):
            self.first.see_known(lambda one: self._answer(one) if journal.holds(one.teacher.identity, one.request) else None)
        if not self.first.is_decided and not self.ledger.open and any(one.teacher.config.engine == "openai" for one in plan):
            trial = self.first.trial
            if self.config.batch:
                self.progress.note(
                    f"generate: the first {len(trial)} are requested at once, and not in a batch: only answers show whether "
                    "they can be trained on"
                )
            await self._round(trial, others, in_batches=False)
            for planned in trial:
                self.first.see(self._answer(planned))
        if self.first.problem:
            raise self.first.problem

    def _answer(self, planned: Planned) -> Completion:
        return answer(self.asker.journal, planned.teacher.identity, planned.request, self.result.failed)

    async def _round(self, plan: Sequence[Planned], others: Sequence[Journal], *, in_batches: bool) -> None:
        """One request for each planned sample: teacher by teacher, or all their batches at once."""
        todo: list[tuple[Teacher, Missing]] = []
        for teacher in {planned.teacher.name: planned.teacher for planned in plan}.values():
            requests = [planned.request for planned in plan if planned.teacher is teacher]
            if missing := missing_requests(self.asker.journal, teacher.identity, requests, others):
                todo.append((teacher, missing))
        if in_batches:
            await self._in_batches(todo)
            return
        for _, missing in todo:
            self.ledger.refuse_live(missing)
        for teacher, missing in todo:
            if self.result.stopped is None and self.first.problem is None:
                await self._at_once(teacher, [request for _, request in missing])

    async def _at_once(self, teacher: Teacher, requests: Sequence[Request]) -> None:
        self.progress.start(f"prompting {teacher.name}", len(requests), "answers")
        try:
            await self._take(self.asker.ask(teacher, requests), _Tally(self.asker.budget, len(requests)))
        finally:
            self.progress.end()

    async def _in_batches(self, todo: Sequence[tuple[Teacher, Missing]]) -> None:
        endpoints = [BatchEndpoint(teacher.config, self.asker.pace, self.asker.endpoint(teacher)) for teacher, _ in todo]
        tally, turn = _Tally(self.asker.budget, sum(len(missing) for _, missing in todo)), asyncio.Lock()
        asking = [
            BatchAsking(self.asker, self.ledger, teacher, dict(missing), endpoint, self.progress, turn)
            for (teacher, missing), endpoint in zip(todo, endpoints, strict=True)
        ]
        self.progress.start("prompting in batches", tally.total, "answers")
        try:
            await asyncio.gather(*(self._take(one.completions(), tally) for one in asking))
        finally:
            self.progress.end()

    async def _take(self, answers: AsyncGenerator[Completion, None], tally: "_Tally") -> None:
        """Counts what comes. Raises UsageError; any other error ends the work and is kept."""
        try:
            async with aclosing(answers) as completions:
                async for completion in completions:
                    if completion.error is None:
                        self.result.new += 1
                    else:
                        self.result.failed[completion.id] = completion
                    tally.done += 1
                    self.progress.advance(1, tally.cost())
                    self.first.see(completion)
                    if self.first.problem:
                        return
        except UsageError:
            raise
        except SeqdistillError as error:
            self.result.stopped = error


class _Tally:
    """What is shown beside the bar: paid so far, and what it will be at this rate."""

    def __init__(self, budget: Budget, total: int) -> None:
        self._budget, self._paid_before = budget, budget.paid_usd
        self.total, self.done = total, 0

    def cost(self) -> dict[str, str]:
        if not self._budget.is_priced:
            return {}
        paid = self._budget.paid_usd
        projected = self._paid_before + (paid - self._paid_before) * self.total / self.done
        return {"cost": f"{paid:.4f} of {projected:.4f} USD"}
