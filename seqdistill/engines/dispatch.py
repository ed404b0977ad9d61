"""The loop that sends: which request goes to which endpoint when, what is tried again, and when all of it ends.

One dispatcher sends what the throttles and the meter allow. Does not know what a reply says.
"""

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seqdistill.engines import Completion, Meter, Pace, Request
from seqdistill.engines.dialect import ADAPTIONS
from seqdistill.engines.endpoints import Endpoint, Reply
from seqdistill.engines.pace import backoff
from seqdistill.engines.refusals import SHOWN, Failure
from seqdistill.engines.replies import broken_off, choices_in
from seqdistill.errors import SeqdistillError

REFUSALS_PER_RETRY = 5  # an answer of 429 says "later", not "broken": it may come this many times as often
PATIENCE_SECONDS = {False: 4.0, True: 120.0}  # how long an endpoint may be out of reach: at the start, and once it has answered
DOWN_SECONDS = {False: 30.0, True: 600.0}  # how long a gateway may say that its model is down
REFUSING_SECONDS = 600.0  # how long it may refuse everything for load; longer where it names long pauses or answers take long
ALIKE_AT_START = 10  # failures of one kind, and no answer yet: the others would fail so, too
ALIKE_LATER = 50  # the same after answers
LONGEST_AWAY_PAUSE_SECONDS = 15.0
NOTE_EACH_SECONDS = 60.0
BLOCKED_HINT = (
    "a safety filter seems to take every answer: look into the prompts, or try one of them with another client; "
    "in generate, --ask-again content_filter sends these prompts once more"
)
TRIES_BEFORE_NOTE = 3


@dataclass(order=True)
class _Try:
    """Requests that are sent as one, on their way to an answer: how often they were sent, and when they may be again."""

    due: float
    number: int
    requests: list[Request] = field(compare=False)  # the same but for id and seed: one request with the first one's seed
    failures: int = field(default=0, compare=False)
    refusals: int = field(default=0, compare=False)
    adaptions: int = field(default=0, compare=False)

    @property
    def most_tokens(self) -> int:
        """A generous count of what the request can use: text has about 4 bytes a token."""
        first = self.requests[0]
        return sum(len(m["content"]) for m in first.messages) // 3 + first.max_tokens * len(self.requests)


class Dispatcher:
    """One `stream` at work: one dispatcher sends what the throttles allow; tries that must wait hold no place."""

    def __init__(
        self,
        parse: Callable[[Request, Reply, float, int], Completion],
        groups: list[list[Request]],
        endpoints: list[Endpoint],
        pace: Pace,
        meter: Meter,
    ) -> None:
        """`parse` makes a completion of one choice of a reply to a request, with the seconds that it took."""
        self._parse_one, self._endpoints, self._pace, self._meter = parse, endpoints, pace, meter
        self._fresh = (_Try(0.0, number, group) for number, group in enumerate(groups))
        self._left = sum(len(group) for group in groups)
        self._waiting: list[_Try] = []  # a heap by due time
        self._done: asyncio.Queue[Completion | BaseException | None] = asyncio.Queue()
        self._unsettled = 0  # tries whose completions are not stored yet
        self._fatal: BaseException | None = None  # what no request can survive
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def completions(self) -> AsyncIterator[Completion]:
        """Each completion as it comes; ends when the meter has no room for more and nothing is under way.

        What ends all, an error or a first Ctrl-C, is raised once what is under way, and paid, has come too.
        """
        dispatching = self._start(self._dispatch())
        while self._left and (self._fatal is None or self._tasks or not self._done.empty()):
            try:
                done = await self._done.get()
            except asyncio.CancelledError as stopped:
                dispatching.cancel()
                if self._fatal is None:
                    self._fatal = stopped
                    if self._unsettled:
                        self._pace.on_note(
                            f"stopping: waiting for {self._unsettled} requests that were sent, and may be billed; a second "
                            "Ctrl-C stops at once"
                        )
                    continue
                while not self._done.empty():  # what has come is handed on to be stored
                    if isinstance(left := self._done.get_nowait(), Completion):
                        yield left
                raise
            if isinstance(done, Completion):
                self._left -= 1
                yield done
                if done.batch_left == 0:  # stored by now, and its hold settled
                    self._unsettled -= 1
                    self._wake.set()
            elif done is None and self._fatal is None:
                return
            elif self._fatal is None:
                self._fatal = done
                dispatching.cancel()
                if (used := self._used()) and all(endpoint.away_since is not None for endpoint in used):
                    break
        if self._fatal:
            raise self._fatal

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dispatch(self) -> None:
        fresh = next(self._fresh, None)
        while True:
            now = time.monotonic()
            again = bool(self._waiting) and self._waiting[0].due <= now
            attempt = self._waiting[0] if again else fresh
            if attempt is None:
                await self._sleep(self._waiting[0].due - now if self._waiting else None)
                continue
            waits = [(endpoint.throttle.wait(attempt.most_tokens, now), endpoint) for endpoint in self._used()]
            free = [endpoint for wait, endpoint in waits if wait <= 0]
            if not free:
                soonest = min((wait for wait, _ in waits), default=float("inf"))
                await self._sleep(soonest if soonest < float("inf") else None)
                continue
            hold = self._meter.hold(attempt.requests)
            if hold is None:
                if not self._unsettled:  # nothing is under way that could cost less than its hold
                    self._done.put_nowait(None)
                    return
                await self._sleep(None)
                continue
            endpoint = min(free, key=lambda e: e.throttle.load)
            endpoint.throttle.sent(attempt.most_tokens, now)
            self._unsettled += 1
            self._start(self._try(attempt, endpoint, now, hold))
            if again:
                heapq.heappop(self._waiting)
            else:
                fresh = next(self._fresh, None)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error or self._fatal:
            self._done.put_nowait(error)  # None wakes `completions`, which may wait for the last one under way

    async def _sleep(self, seconds: float | None) -> None:
        """Waits for a request to finish, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _try(self, attempt: _Try, endpoint: Endpoint, sent_at: float, hold: str) -> None:
        began = time.perf_counter()
        used = attempt.most_tokens
        try:
            reply = await endpoint.send(attempt.requests)
            seconds = time.perf_counter() - began
            completions = [self._parse(request, reply, seconds, number) for number, request in enumerate(attempt.requests)]
            completions[0] = completions[0].also_billed(self._unread(attempt, reply))
            if all(completion.finish_reason == "error" for completion in completions) and completions[0].error is None:
                ended = str(broken_off(reply.raw, choices_in(reply.raw)[0]))[:SHOWN]
                raise Failure("broken off", f"{endpoint.name} broke the answer off: {ended}", may_be_billed=True)
        except Failure as failure:
            if not failure.may_be_billed:
                self._meter.release(hold)
            self._failed(attempt, endpoint, failure, sent_at)
        else:
            used = sum(completion.prompt_tokens + completion.completion_tokens for completion in completions)
            endpoint.throttle.answered(seconds)
            endpoint.refusing_since = None
            if not reply.blocked:
                endpoint.answers += 1
                endpoint.failures.clear()
            self._report(_settled(completions, hold))
            if reply.blocked:
                self._count_blocked(endpoint, f"{endpoint.name} answered without a choice")
        finally:
            endpoint.throttle.finished(attempt.most_tokens - used)
            self._wake.set()

    def _parse(self, request: Request, reply: Reply, seconds: float, number: int) -> Completion:
        answers = len(choices_in(reply.raw))
        if number < answers:
            return self._parse_one(request, reply, seconds, number)
        first = self._parse_one(request, reply, seconds, 0)
        if first.finish_reason == "content_filter" and not first.content:  # it took all of them; paid with the first
            return Completion(request.id, finish_reason="content_filter", seconds=seconds, raw=first.raw)
        return Completion(
            request.id,
            error="fewer answers",
            message=f"the endpoint gave {answers} answers where more were requested at once; "
            "does it know `n`? Run again without --samples-per-request",
        )

    def _unread(self, attempt: _Try, reply: Reply) -> list[Completion]:
        """The choices that nobody requested."""
        beyond = range(len(attempt.requests), len(choices_in(reply.raw)))
        return [self._parse_one(attempt.requests[0], reply, 0.0, number) for number in beyond]

    def _used(self) -> list[Endpoint]:
        """The endpoints that are not set aside."""
        return [endpoint for endpoint in self._endpoints if endpoint.out is None]

    def _report(self, completions: Sequence[Completion]) -> None:
        """Hands on what came of one try, to be stored together."""
        for left, completion in zip(range(len(completions))[::-1], completions, strict=True):
            self._done.put_nowait(replace(completion, batch_left=left))

    def _failed(self, attempt: _Try, endpoint: Endpoint, failure: Failure, sent_at: float) -> None:
        """Plans another try, or reports the failure. Raises SeqdistillError for what no request can survive."""
        now = time.monotonic()
        attempt.adaptions += failure.is_adapted
        if attempt.adaptions > ADAPTIONS:
            failure.is_adapted, failure.scope = False, "request"
        self._take_note(attempt, endpoint, failure, sent_at, now)
        if failure.scope == "endpoint":
            self._disable(endpoint, failure.fatal(proven=bool(endpoint.answers)))
        elif not (
            failure.is_rate_limited
            or failure.is_down
            or failure.is_unreachable
            or failure.is_adapted
            or failure.is_content_filtered
        ):
            self._count_alike(endpoint, failure)
        if self._may_try_again(attempt, endpoint, failure):
            self._unsettled -= 1
            at_once = failure.is_unreachable or failure.is_adapted or failure.scope == "endpoint"
            attempt.due = now + (0.0 if at_once else failure.pause or backoff(attempt.failures + attempt.refusals))
            heapq.heappush(self._waiting, attempt)
            return
        failed = Completion(
            "",
            finish_reason="content_filter" if failure.is_content_filtered else "error",
            error=None if failure.is_content_filtered else failure.kind,  # an answer, not a fault
            message=f"{failure.message}; {failure.hint}" if failure.hint else failure.message,
            raw=failure.reply,
        )
        self._report([replace(failed, id=request.id) for request in attempt.requests])
        if failure.is_content_filtered:
            self._count_blocked(endpoint, failure.message)

    def _take_note(self, attempt: _Try, endpoint: Endpoint, failure: Failure, sent_at: float, now: float) -> None:
        """What a failure means for the request's further tries and for the endpoint's pace."""
        if failure.is_adapted or failure.scope == "endpoint":
            return
        if failure.is_down or failure.is_unreachable:
            self._away(endpoint, failure, sent_at, now)
        elif failure.is_rate_limited:
            self._refused(endpoint, failure, now)
        if failure.is_rate_limited or failure.is_down:
            endpoint.throttle.refused(sent_at, failure.pause or 0.0, now)
        else:
            endpoint.throttle.pause(failure.pause or 0.0, now)
        attempt.refusals += failure.is_rate_limited
        attempt.failures += not (failure.is_rate_limited or failure.is_unreachable)
        waiting = attempt.refusals + attempt.failures >= TRIES_BEFORE_NOTE or endpoint.away_tries >= TRIES_BEFORE_NOTE
        if failure.scope == "try" and waiting and now - endpoint.noted_at >= NOTE_EACH_SECONDS:
            endpoint.noted_at = now
            self._pace.on_note(f"waiting for {endpoint.name}: {failure.message[:300]}")

    def _may_try_again(self, attempt: _Try, endpoint: Endpoint, failure: Failure) -> bool:
        if self._pace.capped and failure.may_be_billed:
            return False
        if failure.is_adapted or failure.scope == "endpoint":
            return True
        if failure.scope == "request" and not self._elsewhere(endpoint, failure):
            return False
        most = min(1, self._pace.retries) if failure.is_permanent and endpoint.answers else self._pace.retries
        return attempt.failures <= most and attempt.refusals <= self._pace.retries * REFUSALS_PER_RETRY

    def _elsewhere(self, endpoint: Endpoint, failure: Failure) -> bool:
        """Whether another endpoint may take what this one refuses, which has answered nothing yet."""
        others = [other for other in self._used() if other is not endpoint]
        return failure.kind.startswith("http") and not endpoint.answers and bool(others)

    def _count_alike(self, endpoint: Endpoint, failure: Failure) -> None:
        """Sets an endpoint aside that fails in one way again and again, with no answer in between."""
        if endpoint.answers and failure.kind in ("too long", "over limit"):
            return  # of the prompts, which may be sorted
        endpoint.failures[failure.kind] += 1
        most = ALIKE_LATER if endpoint.answers else ALIKE_AT_START
        if endpoint.failures[failure.kind] >= most:
            self._disable(endpoint, failure.fatal(most, proven=bool(endpoint.answers)))

    def _count_blocked(self, endpoint: Endpoint, message: str) -> None:
        """Sets an endpoint aside where a filter takes everything from the start: it may not be the prompts."""
        if not endpoint.answers:
            self._count_alike(endpoint, Failure("no answer", message, hint=BLOCKED_HINT))

    def _disable(self, endpoint: Endpoint, error: SeqdistillError) -> None:
        """Stops using an endpoint. Raises the error when it was the last one."""
        if endpoint.out is None:
            endpoint.out = error
            if self._used():
                self._pace.on_note(f"{endpoint.name} is no longer used, the other endpoints are: {error.message}; {error.hint}")
        if not self._used():
            raise error

    def _refused(self, endpoint: Endpoint, failure: Failure, now: float) -> None:
        """Sets an endpoint aside that refuses for load for so long, with no answer, that it is not the pace."""
        since = endpoint.refusing_since = now if endpoint.refusing_since is None else endpoint.refusing_since
        patience = max(REFUSING_SECONDS, 3 * (failure.pause or 0.0), self._pace.timeout)
        if now - since > patience:
            minutes = f"; it has answered nothing for {(now - since) / 60:.0f} minutes"
            hint = "its limit may be a longer one than it says: run again later; nothing that was answered is lost"
            self._disable(endpoint, SeqdistillError(failure.message + minutes, hint))

    def _away(self, endpoint: Endpoint, failure: Failure, sent_at: float, now: float) -> None:
        """Leaves an endpoint alone for a while. Raises SeqdistillError when all of them have been away for too long."""
        if endpoint.away_since is None:
            endpoint.away_since, endpoint.away_tries = now, 0
        if sent_at >= endpoint.away_at:  # requests that were on their way together count as one try
            endpoint.away_tries += 1
            endpoint.away_at = now
            if failure.is_unreachable or failure.may_be_billed or endpoint.away_tries > 1:
                endpoint.throttle.lost(min(LONGEST_AWAY_PAUSE_SECONDS, backoff(endpoint.away_tries)), now)
        proven = any(other.answers for other in self._endpoints)
        patience = (DOWN_SECONDS if failure.is_down else PATIENCE_SECONDS)[proven or failure.is_loading]
        if all(other.away_since is not None and now - other.away_since >= patience for other in self._used()):
            raise SeqdistillError(
                failure.message, "check the base URL and that the server runs, then run again; no answer is lost"
            )


def _settled(completions: list[Completion], hold: str) -> list[Completion]:
    """The completions of one try with its hold. What a choice cost that was broken off is counted with one that was not."""
    broken = [one for one in completions if one.finish_reason == "error" and one.error is None]
    beside, settled = broken, []
    for one in completions:
        if one in broken:
            one = replace(one, error="broken off", message="the endpoint broke this answer off")
        elif one.error is None:
            one, beside = one.also_billed(beside), []
        settled.append(replace(one, hold=hold))
    return settled
