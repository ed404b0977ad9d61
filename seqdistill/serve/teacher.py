"""The teacher behind the student: single requests through the asker, within the budget, kept in the journal.

The asker awaits what it has sent although nobody may wait for it any more: it is paid, and its answer is kept.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from seqdistill.engines import PERMANENT_ERRORS, Completion, Request
from seqdistill.engines.replies import as_dict, as_list, text_of, written_in
from seqdistill.errors import Incomplete, SeqdistillError
from seqdistill.journal.asking import Asker, missing_requests
from seqdistill.journal.budget import Source
from seqdistill.partial_answers import Shown, opens_before
from seqdistill.serve.stops import until_stop

OnText = Callable[[int, str], None]  # receives the number of a choice, and text that was added to it
Stored = Callable[[int, Completion, float | None], None]  # receives the number of a choice, its answer, and what it cost in USD


class TeacherFailed(Exception):
    """The teacher gave no answer. `status` is the HTTP status that says so; `is_passing`: it may well give one soon."""

    def __init__(self, status: int, code: str, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.is_passing = status, code, message, is_passing


class Teacher:
    """The teacher: `name` as it is shown."""

    def __init__(self, name: str, source: Source, asker: Asker) -> None:
        self.name, self._source, self._asker = name, source, asker
        self._tags = tuple(source.config.reasoning_tags)
        self._opened = False  # whether its prompts open the block of reasoning, which shows in its latest answer
        self._sent: set[asyncio.Task[Completion]] = set()  # also those that nobody waits for any more

    def bound_usd(self, requests: list[Request]) -> float | None:
        """The most that these requests can cost; None where no price is known."""
        if self._source.price is None:
            return 0.0 if self._source.is_free else None
        return sum(self._source.hold([one], self._asker.budget.overrun).usd or 0.0 for one in requests)

    async def answer(
        self, requests: list[Request], on_text: OnText | None = None, stored: Stored | None = None
    ) -> tuple[list[Completion], float | None]:
        """Their completions, and what they cost in USD; None where no price is known. Raises TeacherFailed.

        `on_text` receives the text as it comes, where the teacher's engine streams. `stored` receives each answer once it is in
        the journal, although the caller may have gone or another choice failed.
        """
        with self._room(requests) as has_room:
            if not has_room:
                raise TeacherFailed(503, "budget_reached", self._asker.budget.reached().message)
            completions = await self._completions(requests, on_text, stored)
        for one in completions:
            if one.error is not None:
                raise _failed(one)
        costs = [self._cost(one) for one in completions]
        return completions, None if None in costs else sum(cost or 0.0 for cost in costs)

    def learn(self, completion: Completion) -> None:
        """Sees in an answer whether the prompts open the block of reasoning, so that a stream begins within it."""
        if completion.error is None and completion.content:
            self._opened = opens_before(*written_in(completion.raw), self._tags)

    def _cost(self, one: Completion) -> float | None:
        return 0.0 if one.hold is None else self._source.cost(one)  # no hold: from the journal

    async def _completions(self, requests: list[Request], on_text: OnText | None, stored: Stored | None) -> list[Completion]:
        """Their completions, failures included."""
        listeners = [
            None if on_text is None or one.has_form else _Listener(n, on_text, Shown(self._tags, opened=self._opened)).chunk
            for n, one in enumerate(requests)
        ]
        work = [self._send(n, one, listeners[n], stored) for n, one in enumerate(requests)]
        try:
            return await asyncio.gather(*map(asyncio.shield, work))
        except Incomplete as error:
            raise TeacherFailed(503, "budget_reached", error.message) from None
        except SeqdistillError as error:
            raise TeacherFailed(502, "teacher_unavailable", f"the teacher gives no answer: {error.message}") from None

    def _send(
        self, number: int, request: Request, listener: Callable[[dict[str, Any]], None] | None, stored: Stored | None
    ) -> "asyncio.Task[Completion]":
        """Sends one request in a task that ends when its answer is stored and reported."""

        async def send() -> Completion:
            completion = await self._asker.answer(self._source, request, listener)
            self.learn(completion)
            if stored is not None and completion.error is None:
                stored(number, completion, self._cost(completion))
            return completion

        def ended(task: "asyncio.Task[Completion]") -> None:
            self._sent.discard(task)
            if not task.cancelled():
                task.exception()  # where the caller has gone, nobody else takes it

        task = asyncio.create_task(send())
        self._sent.add(task)
        task.add_done_callback(ended)
        return task

    def _room(self, requests: list[Request]) -> AbstractContextManager[bool]:
        """Whether the budget has room for all of several requests that the journal lacks, which is theirs then.

        They are paid all or none: nobody would see those that are paid.
        """
        several = requests if len(requests) > 1 else []
        missing = missing_requests(self._asker.journal, self._source.identity, several)
        budget = self._asker.budget
        return budget.reserve({key: self._source.hold([one], budget.overrun) for key, one in missing})

    async def finish(self, seconds: float) -> None:
        """Waits for what is under way, which is paid, at most this long."""
        await self._asker.finish(seconds)
        if self._sent:
            await asyncio.wait(self._sent)  # what they wait for has ended
        await self._asker.close()


def _failed(one: Completion) -> TeacherFailed:
    message = f"the teacher gives no answer: {one.message or one.error}"
    if one.error in PERMANENT_ERRORS:
        return TeacherFailed(400, "teacher_refuses", message)
    if one.error == "timeout":
        return TeacherFailed(504, "teacher_timeout", message)
    if one.error in ("http 429", "http 503", "long wait"):
        return TeacherFailed(503, "teacher_busy", message, is_passing=True)
    return TeacherFailed(502, "teacher_unavailable", message)


class _Listener:
    """One streamed answer: passes on its text as it may be shown, without the reasoning before it."""

    def __init__(self, number: int, on_text: OnText, shown: Shown) -> None:
        self._number, self._on_text, self._shown = number, on_text, shown

    def chunk(self, chunk: dict[str, Any]) -> None:
        for choice in as_list(chunk.get("choices")):
            added = text_of(as_dict(as_dict(choice).get("delta")).get("content"))
            if added and as_dict(choice).get("index", 0) == 0 and (new := self._shown.add(added)):
                self._on_text(self._number, new)


def cut(completion: Completion, stops: tuple[str, ...]) -> Completion:
    """The completion up to the first of some texts, which the teacher was not sent."""
    text, at_stop = until_stop(completion.content, stops)
    return replace(completion, content=text, finish_reason="stop") if at_stop else completion
