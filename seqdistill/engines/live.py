"""Single requests that somebody waits for, at endpoints that are kept open: which one takes it, and what is tried again.

An endpoint that is out of reach, down or full is left alone for some seconds, and a request that no endpoint can take now
fails at once: whoever waits has another way, or wants to know. `dispatch` is for many requests that nobody waits for.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from seqdistill.engines import Completion, Meter, Pace, Request
from seqdistill.engines.dialect import ADAPTIONS
from seqdistill.engines.endpoints import Endpoint, OnChunk, Reply
from seqdistill.engines.pace import backoff
from seqdistill.engines.refusals import Failure
from seqdistill.engines.replies import choices_in

TRIES = 3  # of one request, where an endpoint says that it may be sent again
LONGEST_REST_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 2.0  # before another try: somebody waits


class LiveEndpoints:
    """The endpoints of one model, and until when each is left alone."""

    def __init__(
        self, endpoints: Sequence[Endpoint], parse: Callable[[Request, Reply, float, int], Completion], pace: Pace
    ) -> None:
        self._endpoints, self._parse, self._pace = endpoints, parse, pace
        self._rests: dict[str, tuple[float, int, Failure]] = {}  # by name: until when, how many failures, the last one
        self._loads = dict.fromkeys((endpoint.name for endpoint in endpoints), 0)
        self._places = asyncio.Semaphore(pace.concurrency)

    async def answer(self, request: Request, meter: Meter, on_chunk: OnChunk | None) -> Completion | None:
        """The request's completion, its failure included; None while the meter has no room for it."""
        async with self._places:
            tries = adaptions = 0
            while True:
                endpoint, rest = self._free()
                if endpoint is None:
                    return _failed(request, rest)
                hold = meter.hold([request])
                if hold is None:
                    return None
                try:
                    return await self._send(endpoint, request, meter, hold, on_chunk)
                except Failure as failure:
                    adaptions += failure.is_adapted
                    tries += not failure.is_adapted
                    self._note(endpoint, failure)
                    lost = failure.may_be_billed and self._pace.capped
                    over = tries >= TRIES or adaptions > ADAPTIONS or failure.scope == "request"
                    if lost or over or failure.is_content_filtered or (failure.pause or 0) > LONGEST_WAIT_SECONDS:
                        return _failed(request, failure)
                    if not (failure.is_adapted or failure.is_unreachable or failure.scope == "endpoint"):
                        await asyncio.sleep(min(failure.pause or backoff(tries), LONGEST_WAIT_SECONDS))

    async def _send(
        self, endpoint: Endpoint, request: Request, meter: Meter, hold: str, on_chunk: OnChunk | None
    ) -> Completion:
        began, passed_on = time.perf_counter(), False

        def pass_on(chunk: dict[str, object]) -> None:
            nonlocal passed_on
            passed_on = True
            assert on_chunk is not None
            on_chunk(chunk)

        self._loads[endpoint.name] += 1
        try:
            reply = await endpoint.send([request], None if on_chunk is None else pass_on)
            completion, *beyond = [
                self._parse(request, reply, time.perf_counter() - began, number) for number in range(len(choices_in(reply.raw)))
            ]
            completion = completion.also_billed(beyond)
            if completion.finish_reason == "error" and completion.error is None:
                raise Failure("broken off", f"{endpoint.name} broke the answer off", may_be_billed=True)
        except Failure as failure:
            if not failure.may_be_billed:
                meter.release(hold)
            if passed_on and not failure.is_adapted:
                failure.scope = "request"  # its beginning was passed on: another answer would have another
            raise
        finally:
            self._loads[endpoint.name] -= 1
        endpoint.answers += 1
        self._rests.pop(endpoint.name, None)
        return replace(completion, hold=hold)

    def _free(self) -> tuple[Endpoint | None, Failure]:
        """The endpoint that takes the next request; None with the reason while all of them are left alone."""
        now = time.monotonic()
        free = [endpoint for endpoint in self._endpoints if self._rests.get(endpoint.name, (0.0,))[0] <= now]
        if free:
            return min(free, key=lambda endpoint: self._loads[endpoint.name]), Failure("", "")
        until, _, failure = min(self._rests.values(), key=lambda rest: rest[0])
        failure.pause = until - now
        return None, failure

    def _note(self, endpoint: Endpoint, failure: Failure) -> None:
        """Leaves an endpoint alone that cannot take requests now."""
        if failure.is_unreachable or failure.is_down or failure.is_rate_limited or failure.scope == "endpoint":
            count = self._rests.get(endpoint.name, (0.0, 0))[1] + 1
            rest = max(failure.pause or 0.0, min(LONGEST_REST_SECONDS, backoff(count)))
            self._rests[endpoint.name] = (time.monotonic() + rest, count, failure)


def _failed(request: Request, failure: Failure) -> Completion:
    if failure.is_content_filtered:  # an answer, not a fault
        return Completion(request.id, finish_reason="content_filter", raw=failure.reply)
    message = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
    return Completion(request.id, error=failure.kind, message=message, raw=failure.reply)
