"""One cap for a run: whatever is answered, lost, killed, changed or requested by another stage, the bill stays under it."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from chat_server import Body, ChatServer, answer
from generate_runs import priced, prompts_file, recipe

from seqdistill.engines import Pace, Request
from seqdistill.engines.models import identity
from seqdistill.errors import SeqdistillError
from seqdistill.journal import batches
from seqdistill.journal.asking import Asker
from seqdistill.journal.budget import Source, prompt_bound, spending
from seqdistill.journal.prices import price_of
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Message
from seqdistill.runs import Run
from seqdistill.stages.generate.stage import generate

PRICE = {"prompt": 1000.0, "cached_prompt": 100.0, "completion": 10000.0}  # dear, so that few requests matter
FAULTS = ("reset", "hang", "truncated", "malformed", "empty", "500", "429", "400", "504")
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"options": {"top_k": 1}},
    {"options": {"top_k": 2}},
    {"revision": "v2"},
    {"model": "other"},
)
TRIALS = 300


class Biller(ChatServer):
    """A chat server that bills each answer that it computes: delivered, lost, counted in its usage or not."""

    def __init__(self) -> None:
        super().__init__(model=None)
        self.hang = 0.3
        self.play(0, random.Random(0))

    def play(self, trial: int, chance: random.Random) -> None:
        """Forgets the bill, and draws what goes wrong from `chance`. Only requests that name this trial are billed."""
        self.chance, self.bill, self.faulty = chance, 0.0, chance.choice((0.0, 0.2, 0.6))
        self.trial = f"trial {trial}: "  # one that comes late is of an earlier one
        self.from_the_dead = False
        self.usages.clear()

    async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
        fault = self.chance.choice(FAULTS) if self.chance.random() < self.faulty else None
        usage = self._usage(body)
        mine = body["messages"][-1]["content"].startswith(self.trial) and not self.from_the_dead
        if mine and fault not in ("500", "429", "400"):  # these compute nothing
            written = usage["total_tokens"] - usage["prompt_tokens"]
            self.bill += (usage["prompt_tokens"] * PRICE["prompt"] + written * PRICE["completion"]) / 1e6
        if fault == "504":
            return await self._send(writer, 504, {"error": {"message": "the gateway gave up"}})
        self.fault = lambda *_: fault
        self.reply = lambda sent: {**answer(sent), "usage": {} if self.chance.random() < 0.1 else usage}
        return await super()._chat(writer, number, body)

    def _usage(self, body: Body) -> Body:
        """Up to the most that can be billed; some of what is written is not among the completion tokens."""
        request = Request("", body["messages"], body.get("max_tokens") or body["max_completion_tokens"])
        written = self.chance.randint(1, request.max_tokens * (body.get("n") or 1))
        prompt = self.chance.choice((30, prompt_bound(request)))
        return {"prompt_tokens": prompt, "completion_tokens": self.chance.randint(0, written), "total_tokens": prompt + written}


@dataclass(frozen=True)
class Step:
    """One command: a stage sends requests to one model, and is killed after some answers, or not."""

    stage: str
    source: Source
    requests: Sequence[Request]
    pace: Pace
    killed_after: int


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def steps_of(trial: int, chance: random.Random, url: str) -> list[Step]:
    def source() -> Source:
        changed = chance.choice(CHANGES)
        config = ModelConfig(**{"model": "teacher", "engine": "openai", "base_url": [url], **changed})
        return Source(str(config.model), identity(config), config, price_of(PRICE))

    def requests(stage: str) -> list[Request]:
        samples = chance.choice((1, 1, 3))
        return [
            Request(f"p{n}:{stage}:{k}", [user(f"trial {trial}: question {n}")], 20, temperature=1.0, seed=n * 10 + k)
            for n in range(chance.randint(1, 8))
            for k in range(samples)
        ]

    def step() -> Step:
        stage = chance.choice(("generate", "filter", "eval"))
        pace = Pace(chance.choice((1, 4, 16)), timeout=0.2, retries=0, capped=True, samples_per_request=chance.choice((1, 3)))
        return Step(stage, source(), requests(stage), pace, chance.choice((0, 1, 2, 5, 1000)))

    return [step() for _ in range(chance.randint(2, 5))]


def run_step(run: Run, step: Step, cap: float, server: Biller) -> None:
    """Runs it; a kill leaves the journal as it is at that moment, whatever the process would have written on its way out.

    What it sends on its way out a killed process would not have sent: it is not billed.
    """
    server.from_the_dead = False
    path = run.file(step.stage, "journal.jsonl")
    left_behind: list[bytes] = []

    async def work(asker: Asker) -> None:
        async with asker:
            answers = asker.ask(step.source, step.requests)
            done = 0
            while True:
                if done == step.killed_after:
                    pending = asyncio.ensure_future(anext(answers))
                    await asyncio.sleep(0.002)  # requests are under way
                    server.from_the_dead = True
                    left_behind.append(path.read_bytes())
                    pending.cancel()
                    await asyncio.gather(pending, return_exceptions=True)
                    break
                try:
                    await anext(answers)
                except StopAsyncIteration:
                    break
                done += 1
            await answers.aclose()

    reached = contextlib.suppress(SeqdistillError)
    with Journal(path) as journal, spending(run, journal, [step.source], cap, Silent()) as budget, reached:
        asyncio.run(work(Asker(journal, budget, step.pace)))
    if left_behind:
        path.write_bytes(left_behind[0])


def test_the_bill_never_exceeds_the_cap(tmp_path: Path) -> None:
    spent = 0.0
    with Biller() as server:
        for trial in range(TRIALS):
            chance = random.Random(trial)
            cap = chance.choice((0.3, 1.0, 3.0))
            server.play(trial, chance)
            for step in steps_of(trial, chance, server.url):
                run_step(Run(tmp_path / str(trial)), step, cap, server)
                assert server.bill <= cap * (1 + 1e-9), f"trial {trial}"
            spent += server.bill / cap
    assert spent > 0.2 * TRIALS, "caps are used, not only kept"


@pytest.mark.parametrize("trial", range(12))
def test_the_bill_of_batches_never_exceeds_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: int) -> None:
    """Over two runs of one directory, where each answer bills as many tokens more, or costs as much more, as one before it."""
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.001)
    chance = random.Random(trial)
    beyond, fee, fails = chance.choice((0, 100, 400)), chance.choice((0.0, 0.0, 3.0)), chance.choice((0.0, 0.3))
    reported = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 + beyond, "cost": fee}
    each = max(fee, (20 * PRICE["prompt"] + (5 + beyond) * PRICE["completion"]) / 1e6 / 2)
    with BatchServer(reply=lambda body: {**answer(body), "usage": reported}) as server:
        server.fate = lambda _: "fail" if chance.random() < fails else None
        for prompts, cap in ((chance.randint(1, 40), 15.0), (60, 30.0)):
            budgeted = recipe(server, prompts_file(tmp_path, range(prompts)), budget=cap, max_tokens=10, batch=True)
            with contextlib.suppress(SeqdistillError):
                generate(Run(tmp_path / "run"), priced(budgeted, PRICE), Silent())
            assert len(server.usages) * each <= cap
    assert len(server.usages) * each > 10.0 or len(server.usages) > 30, "caps are used, not only kept"
