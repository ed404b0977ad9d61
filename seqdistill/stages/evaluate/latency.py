"""How long a model takes to answer: one request at a time, and at the most requests at once that keep a limit.

A measurement is a completion in eval's journal: a test prompt's request, repeated (`Request.again` tells it apart). So it is
paid within the cap, and taken again only where the model or the request changed. Does not know prices per hour.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from seqdistill.engines import Completion, Request
from seqdistill.journal.asking import Asker, failures, missing_requests
from seqdistill.journal.budget import Source
from seqdistill.journal.prices import FREE
from seqdistill.journal.storage import Journal, request_key
from seqdistill.progress import Progress
from seqdistill.recipe.tables import EvalConfig

WARM_UP = 1_000_001  # the first `again` of requests that are sent before a measurement, and not counted


@dataclass(frozen=True)
class Latency:
    """What requests took, sent `at_once` at a time. Seconds; each time is of one request."""

    basis: str  # how it was measured: numbers on different bases must not be compared
    requests: int
    at_once: int | None  # None: as many as the answers of eval happened to be
    p50: float
    p95: float
    first_token_p50: float | None  # None where the engine does not report it
    first_token_p95: float | None
    tokens_per_second: float  # of one request, while it is answered
    requests_per_second: float | None  # of all that are answered at once; None where they were not sent in step

    def row(self) -> dict[str, Any]:
        """It in scores.json."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Latencies:
    """One model's."""

    latency: Latency | None = None  # of one request at a time, or else of an endpoint's answers in eval
    at_limit: Latency | None = None  # None also where even one request at a time is over the limit


def is_measured(source: Source, config: EvalConfig) -> bool:
    """Whether requests are sent to measure a model: not where they cost money, unless a limit asks for it."""
    local = source.config.engine != "openai"
    return bool(config.latency_requests) and (local or source.price == FREE or config.p95_limit is not None)


def levels(requests: Sequence[Request], config: EvalConfig) -> list[int]:
    """How many requests at once are tried: 1, then 2, 4, 8 ... where there is a limit to keep."""
    if config.p95_limit is None:
        return [1]
    most = min(config.concurrency, len(requests))
    return list(itertools.takewhile(lambda level: level <= most, (1 << step for step in itertools.count())))


def groups(requests: Sequence[Request], config: EvalConfig, level: int) -> list[list[Request]]:
    """The requests of a measurement, `level` in each group; a group is sent at once, the next when it is answered."""
    number = max(1, min(-(-config.latency_requests // level), len(requests) // level))
    step = max(1, len(requests) // (number * level))  # spread over the prompts
    taken = [
        replace(request, id=f"{request.id}:{level} at once", again=level, logprobs=None)
        for request in requests[::step][: number * level]
    ]
    return [taken[start : start + level] for start in range(0, len(taken), level)]


async def measure(asker: Asker, source: Source, requests: Sequence[Request], config: EvalConfig, progress: Progress) -> None:
    """Sends what the journal lacks of a model's measurement. A request that fails is not measured.

    Raises Incomplete when the budget is reached.
    """
    if not is_measured(source, config):
        return
    if source.config.engine == "openai":  # streamed, so that the first token is seen; all of a group at once
        source = replace(source, config=replace(source.config, stream=True))
    warm = False
    for level in levels(requests, config):
        missing = [
            group for group in groups(requests, config, level) if missing_requests(asker.journal, source.identity, group)
        ]
        if missing:
            progress.start(f"timing {source.name}, {level} at once", sum(map(len, missing)), "requests")
            try:
                async with _GroupAsker(asker, source, level) as mine:
                    if not warm:
                        await failures(mine, source, [_warm_up(asker.journal, source, requests[0])])
                    for group in missing:
                        await failures(mine, source, group, progress.advance)
            finally:
                progress.end()
            warm = True
        found = _latency_at(asker.journal, source, requests, config, level)
        if found is None or (config.p95_limit is not None and found.p95 > config.p95_limit):
            return


def latencies(
    journal: Journal,
    source: Source,
    requests: Sequence[Request],
    config: EvalConfig,
    answers: Sequence[Completion],
) -> Latencies:
    """What the journal says; where nothing was measured, what an endpoint's answers took."""
    seen = _of_answers(source, answers, config) if config.latency_requests else None
    if not is_measured(source, config):
        return Latencies(seen)
    tried = [_latency_at(journal, source, requests, config, level) for level in levels(requests, config)]
    within = [one for one in tried if one is not None and config.p95_limit is not None and one.p95 <= config.p95_limit]
    return Latencies(tried[0] or seen, max(within, key=lambda one: one.requests_per_second or 0.0, default=None))


# --- sending ----------------------------------------------------------------------------------------------------------


class _GroupAsker:
    """The asker for groups of `level` requests: an endpoint gets them all at once, without a second try."""

    def __init__(self, asker: Asker, source: Source, level: int) -> None:
        self._own = source.config.engine == "openai"
        pace = replace(asker.pace, concurrency=level, first_limit=level, retries=0, capped=False)
        self._asker = Asker(asker.journal, asker.budget, pace) if self._own else asker

    async def __aenter__(self) -> Asker:
        return self._asker

    async def __aexit__(self, *_: object) -> None:
        if self._own:
            await self._asker.close()


def _warm_up(journal: Journal, source: Source, request: Request) -> Request:
    """A request that was not sent yet: the first one of a process is slow, and is not counted."""
    tries = (replace(request, id=f"{request.id}:warm-up", again=again, logprobs=None) for again in itertools.count(WARM_UP))
    return next(one for one in tries if request_key(one, source.identity) not in journal)


# --- reading ----------------------------------------------------------------------------------------------------------


def _latency_at(
    journal: Journal, source: Source, requests: Sequence[Request], config: EvalConfig, level: int
) -> Latency | None:
    measured = [group for group in _answered(journal, source, groups(requests, config, level)) if group]
    if not measured:
        return None
    local = source.config.engine != "openai"
    seconds, walls, rates, first = [], [], [], []
    for group in measured:
        wall = sum(one.seconds for one in group) if local else max(one.seconds for one in group)
        walls.append(wall)
        for one in group:
            took = wall if local else one.seconds  # a local batch is answered as a whole; `seconds` is its time over its size
            seconds.append(took)
            rates.append(one.completion_tokens / took if took > 0 else 0.0)
            first.append(one.first_token_seconds)
    where = "in this process" if local else "at an endpoint, streamed, the network included"
    how = "one request at a time" if level == 1 else f"{level} requests at once"
    return _latency(
        f"{how}, {source.config.engine} {where}", level, seconds, first, rates, len(seconds) / max(sum(walls), 1e-9)
    )


def _answered(journal: Journal, source: Source, groups: Sequence[Sequence[Request]]) -> Iterator[list[Completion]]:
    for group in groups:
        keys = [request_key(request, source.identity) for request in group]
        yield [journal.read(key, request.id) for key, request in zip(keys, group, strict=True) if key in journal]


def _of_answers(source: Source, answers: Sequence[Completion], config: EvalConfig) -> Latency | None:
    """From an endpoint's answers themselves, which pays nothing. A local answer's time is a batch's."""
    whole = [one for one in answers if one.error is None and not one.batched and one.seconds > 0]
    if source.config.engine != "openai" or not whole:
        return None
    basis = f"the answers at an endpoint, up to {config.concurrency} in flight, the network included"
    rates = [one.completion_tokens / one.seconds for one in whole]
    return _latency(basis, None, [one.seconds for one in whole], [one.first_token_seconds for one in whole], rates, None)


def _latency(
    basis: str,
    level: int | None,
    seconds: Sequence[float],
    first: Sequence[float | None],
    rates: Sequence[float],
    requests_per_second: float | None,
) -> Latency:
    known = [one for one in first if one is not None]
    p50, p95 = np.percentile(seconds, (50, 95)).tolist()
    first_p50, first_p95 = np.percentile(known, (50, 95)).tolist() if len(known) == len(first) else (None, None)
    return Latency(
        basis,
        len(seconds),
        level,
        p50,
        p95,
        first_p50,
        first_p95,
        sum(rates) / len(rates),
        requests_per_second,
    )
