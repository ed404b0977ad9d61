"""The loop that sends: which request goes to which endpoint when, what is tried again, and when all of it ends.

One dispatcher sends what the throttles and the meter allow. Does not know what a reply says.
"""

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from seqdistill.engines import Completion, Meter, Request
from seqdistill.engines.pace import Throttle, backoff, retry_after
from seqdistill.engines.refusals import LONGEST_PAUSE_SECONDS, PERHAPS_BILLED, TOO_LONG, Failure
from seqdistill.engines.replies import as_dict, choices_in, error_in
from seqdistill.errors import SeqdistillError
from seqdistill.records import from_json

if TYPE_CHECKING:
    from seqdistill.engines.openai_api import OpenAIEngine

REFUSALS_PER_RETRY = 5  # an answer of 429 says "later", not "broken": it may come this many times as often
PATIENCE_SECONDS = {False: 4.0, True: 120.0}  # how long an endpoint may be away: at the start, and once it has answered


@dataclass
class Endpoint:
    name: str
    client: Any  # openai.AsyncOpenAI
    throttle: Throttle
    answers: int = 0
    bad_requests: int = 0
    away_since: float | None = None
    away_at: float = 0.0
    away_tries: int = 0


@dataclass(order=True)
class _Try:
    """Requests that are sent as one, on their way to an answer: how often they were sent, and when they may be again."""

    due: float
    number: int
    requests: list[Request] = field(compare=False)  # the same but for id and seed: one request with the first one's seed
    failures: int = field(default=0, compare=False)
    refusals: int = field(default=0, compare=False)

    @property
    def most_tokens(self) -> int:
        """A generous count of what the request can use: text has about 4 bytes a token."""
        asked = self.requests[0]
        return sum(len(m["content"]) for m in asked.messages) // 3 + asked.max_tokens * len(self.requests)


class Dispatcher:
    """One `stream` at work: one dispatcher sends what the throttles allow; tries that must wait hold no place."""

    def __init__(self, engine: "OpenAIEngine", groups: list[list[Request]], endpoints: list[Endpoint], meter: Meter) -> None:
        self._engine, self._endpoints, self._pace, self._meter = engine, endpoints, engine.pace, meter
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

        An error that ends all is raised once what is under way, and paid, has come too.
        """
        dispatching = self._start(self._dispatch())
        while self._left and (self._fatal is None or self._tasks or not self._done.empty()):
            done = await self._done.get()
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
                if all(endpoint.away_since is not None for endpoint in self._endpoints):
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
            waits = [(endpoint.throttle.wait(attempt.most_tokens, now), endpoint) for endpoint in self._endpoints]
            free = [endpoint for wait, endpoint in waits if wait <= 0]
            if not free:
                soonest = min(wait for wait, _ in waits)
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
            raw = await self._send(attempt.requests, endpoint)
            seconds = time.perf_counter() - began
            completions = [self._parse(request, raw, seconds, number) for number, request in enumerate(attempt.requests)]
        except Failure as failure:
            if not failure.lost:
                self._meter.release(hold)
            self._failed(attempt, endpoint, failure, sent_at)
        except SeqdistillError:  # a status that no request survives: it was not billed
            self._meter.release(hold)
            raise
        else:
            used = sum(completion.prompt_tokens + completion.completion_tokens for completion in completions)
            endpoint.answers += 1
            endpoint.throttle.answered(seconds)
            self._report([replace(completion, hold=hold) for completion in completions])
        finally:
            endpoint.throttle.finished(attempt.most_tokens - used)
            self._wake.set()

    def _parse(self, request: Request, raw: dict[str, Any], seconds: float, number: int) -> Completion:
        answers = len(choices_in(raw))
        if number < answers:
            return self._engine.parse(request, raw, seconds, number)
        return Completion(
            request.id,
            error="fewer answers",
            message=f"the endpoint gave {answers} answers where more were asked for at once; "
            "does it know `n`? Run again without --samples-per-request",
        )

    def _report(self, completions: Sequence[Completion]) -> None:
        """Hands on what came of one try, to be stored together."""
        for left, completion in zip(range(len(completions))[::-1], completions, strict=True):
            self._done.put_nowait(replace(completion, batch_left=left))

    async def _send(self, requests: list[Request], endpoint: Endpoint) -> dict[str, Any]:
        """The reply's JSON. Raises Failure, or SeqdistillError for what no request can survive."""
        import aiohttp
        import httpx2
        import openai

        try:
            async with asyncio.timeout(self._pace.timeout):
                response = await endpoint.client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=self._engine.body(requests[0], len(requests))
                )
        except openai.APIStatusError as error:
            endpoint.away_since = None
            raise self._refusal(endpoint, error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__.__cause__ if error.__cause__ else None  # httpx2's error, and aiohttp's beneath it
            if isinstance(cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
                raise Failure("unreachable", f"{endpoint.name} cannot be reached: {cause}", away=True) from None
            if isinstance(cause, TimeoutError):
                raise self._timeout() from None
            raise Failure("connection lost", f"{endpoint.name}: {cause!r}", lost=True) from None
        except TimeoutError:
            raise self._timeout() from None
        except aiohttp.ClientError as error:
            raise Failure("malformed reply", f"{endpoint.name}: {error!r}", lost=True) from None
        endpoint.away_since = None
        try:
            raw = from_json(response.content)
        except ValueError as error:
            raise Failure("malformed reply", f"{endpoint.name} answered with what is not JSON: {error}", lost=True) from None
        if not choices_in(raw):
            said = self._engine.without_key(str(as_dict(raw).get("error") or raw))[:300]
            raise Failure("no answer", f"{endpoint.name} answered without a choice: {said}", lost=True)
        return as_dict(raw)

    def _timeout(self) -> Failure:
        within = min(self._pace.timeout, self._pace.read_timeout or self._pace.timeout)
        return Failure("timeout", f"no answer within {within:g} s", lost=True)

    def _refusal(self, endpoint: Endpoint, error: Any) -> Exception:
        """What an HTTP status outside 2xx means."""
        status: int = error.status_code
        body = error_in(error.response.content)
        text = self._engine.without_key(str(body.get("message") or error.message))[:500]
        body = {**body, "message": text}
        if status in (400, 422):
            endpoint.bad_requests += 1
            if self._engine.renamed_limit(body):
                return Failure(f"http {status}", text)
            if "content_filter" in (body.get("code"), body.get("type")):
                return Failure("content filter", text, again=False, reply=body)
        if fatal := self._engine.fatal(endpoint, status, body):
            return fatal
        if status in (408, 409, 429) or status >= 500:
            pause = retry_after(error.response.headers, time.time())
            if pause is not None and pause > LONGEST_PAUSE_SECONDS:
                return SeqdistillError(
                    f"{endpoint.name} says {status} and asks to wait {pause / 3600:.1f} hours: {text}",
                    "run again then; nothing that was answered is lost",
                )
            lost = status in PERHAPS_BILLED
            return Failure(f"http {status}", text, refused=status in (429, 503), lost=lost, pause=pause)
        kind = "too long" if status in (400, 413, 422) and TOO_LONG.search(text) else f"http {status}"
        return Failure(kind, text, again=False)

    def _failed(self, attempt: _Try, endpoint: Endpoint, failure: Failure, sent_at: float) -> None:
        """Plans another try, or reports the failure."""
        now = time.monotonic()
        if failure.away:
            self._away(endpoint, failure, sent_at, now)
        elif failure.refused:
            attempt.refusals += 1
            endpoint.throttle.refused(sent_at, failure.pause or 0.0, now)
        else:
            attempt.failures += 1
            endpoint.throttle.pause(failure.pause or 0.0, now)
        again = failure.again and not (self._pace.capped and failure.lost)
        if attempt.failures > self._pace.retries or attempt.refusals > self._pace.retries * REFUSALS_PER_RETRY or not again:
            filtered = failure.kind == "content filter"  # the endpoint's verdict on this prompt, not a fault: an answer
            failed = Completion(
                "",
                finish_reason="content_filter" if filtered else "error",
                error=None if filtered else failure.kind,
                message=failure.message,
                raw=failure.reply,
            )
            self._report([replace(failed, id=request.id) for request in attempt.requests])
            return
        self._unsettled -= 1
        tries = attempt.failures + attempt.refusals
        attempt.due = now + (0.0 if failure.away else failure.pause or backoff(tries))
        heapq.heappush(self._waiting, attempt)

    def _away(self, endpoint: Endpoint, failure: Failure, sent_at: float, now: float) -> None:
        """Leaves an endpoint alone for a while. Raises SeqdistillError when all of them have been away for too long."""
        if endpoint.away_since is None:
            endpoint.away_since, endpoint.away_tries = now, 0
        if sent_at >= endpoint.away_at:  # requests that were on their way together count as one try
            endpoint.away_tries += 1
            endpoint.away_at = now
            endpoint.throttle.lost(min(15.0, backoff(endpoint.away_tries)), now)
        patience = PATIENCE_SECONDS[any(other.answers for other in self._endpoints)]
        if all(other.away_since is not None and now - other.away_since >= patience for other in self._endpoints):
            raise SeqdistillError(
                failure.message, "check the base URL and that the server runs, then run again; no answer is lost"
            )
