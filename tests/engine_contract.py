"""What every engine must do, as one test run against each of them with a real counterpart behind it."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from seqdistill.engines import UNMETERED, Completion, Engine, Meter, Request
from seqdistill.engines.logprobs import logprobs_in


class Holds:
    """A meter with money without end that keeps what was held: of open tries, and of those that brought an answer."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}  # name -> requests
        self._names = map(str, itertools.count())

    def hold(self, requests: Sequence[Request]) -> str:
        name = next(self._names)
        self.open[name] = len(requests)
        return name

    def release(self, hold: str) -> None:
        del self.open[hold]


def ask(engine: Engine, requests: list[Request], meter: Meter = UNMETERED) -> dict[str, Completion]:
    """The completions by request id; fails when one comes twice or is missing."""

    async def collect() -> list[Completion]:
        return [completion async for completion in engine.stream(requests, meter)]

    completions = asyncio.run(collect())
    assert sorted(c.id for c in completions) == sorted(r.id for r in requests), "one completion for each request"
    return {completion.id: completion for completion in completions}


def check_engine_contract(engine: Engine, *, longest: int) -> None:
    """Asks the engine in every way the stages do. `longest` is a prompt length, in words, that its model cannot take."""
    questions = [
        "Name a colour.",
        "Summarize in one sentence: The library on Mill Lane is shut on Monday because the roof is mended.",
        "Say \u2028 hello {{ 7 * 7 }} <b>$5</b> \\boxed{2}",
        "Hi",
        "What is the capital of France? " * 12,
    ]
    requests = [
        Request(
            f"p{n}:t:0", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}], max_tokens=24, seed=n
        )
        for n, text in enumerate(questions)
    ]

    greedy = ask(engine, requests)
    for completion in greedy.values():
        assert completion.error is None, completion.message
        assert completion.finish_reason in ("stop", "length")
        assert completion.prompt_tokens > 0
        assert 0 < completion.completion_tokens <= 24
        assert completion.seconds > 0
        assert completion.raw, "the raw reply is kept"
        json.dumps(asdict(completion), allow_nan=False)
    assert any(completion.content.strip() for completion in greedy.values())
    assert greedy["p4:t:0"].prompt_tokens > greedy["p0:t:0"].prompt_tokens

    short = ask(engine, [replace(requests[1], max_tokens=2)])["p1:t:0"]
    assert (short.finish_reason, short.completion_tokens) == ("length", 2)

    sampled = [replace(requests[1], id=f"p1:t:{n}", temperature=1.0, top_p=0.95, seed=100 + n) for n in range(4)]
    forward, backward = ask(engine, sampled), ask(engine, sampled[::-1])
    assert len({completion.content for completion in forward.values()}) > 1, "different seeds, different samples"
    same = [forward[r.id].content == backward[r.id].content for r in sampled]
    assert sum(same) >= 3, "the seed decides a sample, not its place in the order"

    noted = ask(engine, [replace(request, logprobs=3) for request in requests])
    for name, completion in noted.items():
        assert (completion.content, completion.finish_reason) == (greedy[name].content, greedy[name].finish_reason)
        found = logprobs_in(completion.raw)
        assert found is not None
        assert len(found.logprobs) == len(found.token_ids or found.tokens or []) == completion.completion_tokens
        for value, top in zip(found.logprobs, found.top_logprobs, strict=True):
            assert len(top) == 3 and top == sorted(top, reverse=True)
            assert value == top[0] <= 0, "the greedy token is the likeliest"
    assert logprobs_in(greedy["p0:t:0"].raw) is None, "what was not requested"
    bare = logprobs_in(ask(engine, [replace(requests[1], logprobs=0)])["p1:t:0"].raw)
    assert bare is not None and bare.logprobs and not any(bare.top_logprobs)

    mixed = ask(engine, [requests[0], replace(requests[1], messages=[{"role": "user", "content": "word " * longest}])])
    assert mixed["p0:t:0"].error is None
    assert mixed["p1:t:0"].error, "a prompt that does not fit is that request's failure, not the run's"
    assert mixed["p1:t:0"].finish_reason == "error"

    assert ask(engine, []) == {}
