"""One run, its commands in any order, with settings that change in between: what the endpoint's own ledger says of it.

The ledger bills by its own rules and reports as vendors do. It is never over the cap, nothing that was answered is paid again
under the same settings, and the run says that it paid what the ledger has.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from chat_server import Body, answer, stream_of

from seqdistill import api
from seqdistill.errors import SeqdistillError
from seqdistill.journal import batches
from seqdistill.journal.storage import Journal
from seqdistill.runs import STAGES

PRICES: dict[str, Body] = {
    "cheap": {"prompt": 1000.0, "completion": 10000.0, "cached_prompt": 100.0, "request": 0.05, "batch": 0.5},
    "dear": {"prompt": 3000.0, "completion": 30000.0, "cached_prompt": 3000.0, "request": 0.0, "batch": 0.25},
    "judge": {"prompt": 1000.0, "completion": 10000.0, "tiers": [{"above": 200, "prompt": 2000.0, "completion": 15000.0}]},
}
Reported = Callable[[int, int, int, int, float], Body]  # prompt, of it cached, written, thought, USD
USAGES: dict[str, Reported] = {
    "reasoning within": lambda prompt, cached, written, thought, _: {
        "prompt_tokens": prompt,
        "completion_tokens": written + thought,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    },
    "reasoning beside": lambda prompt, cached, written, thought, _: {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written + thought,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    },
    "cache beside": lambda prompt, cached, written, thought, _: {
        "input_tokens": prompt - cached,
        "output_tokens": written + thought,
        "cache_read_input_tokens": cached,
    },
    "a bill": lambda prompt, cached, written, thought, usd: {
        "prompt_tokens": prompt,
        "completion_tokens": written + thought,
        "prompt_tokens_details": {"cached_tokens": cached},
        "cost": usd,
    },
    "nothing": lambda *_: {},
}
LOST = ("reset", "truncated", "malformed", "504")  # billed, without an answer
REFUSED = ("429", "500")
FAULTY = (0.0, 0.0, 0.3)


class Ledger(BatchServer):
    """An endpoint that bills what it computes, delivered or not. A batch is billed when it is made."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(model=None, looks=2, reply=self._batched)
        self.chance, self.faulty = chance, chance.choice(FAULTY)
        self.usages_of = {model: chance.choice(list(USAGES)) for model in PRICES}
        self.usd = self.unreported_usd = 0.0
        self.most_usd = 0.0  # that the ledger may ever hold: the cap of the command under way
        self.broken: list[str] = []
        self.delivered = Counter[str]()

    def _computed(self, body: Body, *, batched: bool) -> tuple[Body, float]:
        """The reply and what it costs."""
        reply, chance, price = answer(body), self.chance, PRICES[body["model"]]
        if body["model"] == "judge":
            reply["choices"][0]["message"]["content"] = json.dumps({"score": 1 + len(str(body["messages"])) % 10})
        prompt = reply["usage"]["prompt_tokens"]
        written = sum(len(choice["message"]["content"].split()) for choice in reply["choices"])
        thought = chance.randint(0, max(0, min(9, body["max_tokens"] * len(reply["choices"]) - written)))
        cached = chance.randint(0, prompt // 2)
        rates = next((tier for tier in price.get("tiers", ()) if prompt > tier["above"]), price)
        tokens = (prompt - cached) * rates["prompt"] + cached * rates.get("cached_prompt", rates["prompt"])
        share = price.get("batch", 0.5) if batched else 1.0
        usd = (tokens + (written + thought) * rates["completion"]) / 1e6 * share + price.get("request", 0.0)
        reply["usage"] = USAGES[self.usages_of[body["model"]]](prompt, cached, written, thought, usd)
        return reply, usd

    def _bill(self, usd: float, *, is_reported: bool) -> None:
        self.usd += usd
        self.unreported_usd += 0.0 if is_reported else usd
        if self.usd > self.most_usd * (1 + 1e-9):
            self.broken.append(f"{self.usd:.4f} USD are billed, {self.most_usd:g} is the cap")

    def _deliver(self, body: Body) -> None:
        key = json.dumps({name: value for name, value in body.items() if not name.startswith("stream")}, sort_keys=True)
        if self.delivered[key]:
            self.broken.append(f"paid twice: {key}")
        self.delivered[key] += 1

    def _batched(self, body: Body) -> Body:
        reply, usd = self._computed(body, batched=True)
        self._bill(usd, is_reported=bool(reply["usage"]))
        self._deliver(body)
        return reply

    async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
        fault = self.chance.choice((*LOST, *REFUSED)) if self.chance.random() < self.faulty else None
        self.fault = lambda *_: fault
        if fault in REFUSED:
            return await super()._chat(writer, number, body)
        reply, usd = self._computed(body, batched=False)
        self._bill(usd, is_reported=bool(reply["usage"]) and fault is None)
        if fault == "504":
            return await self._send(writer, 504, {"error": {"message": "the gateway gave up"}})
        if fault:
            return await super()._chat(writer, number, body)
        self._deliver(body)
        if body.get("stream"):
            return await self._send_stream(writer, stream_of(reply, body), cut=False)
        return await self._send(writer, 200, reply)


CHANGES: dict[str, Callable[[random.Random, dict[str, Any]], None]] = {
    "more prompts": lambda chance, recipe: recipe["prompts"].append(f"further question {chance.random()}"),
    "fewer prompts": lambda _, recipe: recipe["prompts"].pop() if len(recipe["prompts"]) > 3 else None,
    "samples": lambda chance, recipe: recipe["generate"].update(samples=chance.choice((1, 3))),
    "at once": lambda _, recipe: recipe["generate"].update(batch=False, samples=2, samples_per_request=2),
    "batch": lambda _, recipe: recipe["generate"].update(batch=True, samples_per_request=1),
    "seed": lambda chance, recipe: recipe["generate"].update(seed=chance.choice((0, 1))),
    "longer": lambda chance, recipe: recipe["generate"].update(retry_truncated=chance.choice((40, None))),
    "budget": lambda chance, recipe: recipe["generate"].update(budget=chance.choice((0.5, 3.0, 20.0, 80.0))),
    "teachers": lambda chance, recipe: recipe.update(teachers=chance.choice((["cheap"], ["dear"], ["cheap", "dear"]))),
    "stream": lambda chance, recipe: recipe["model"].update(stream=chance.choice((True, False))),
    "options": lambda chance, recipe: recipe["model"].update(options=chance.choice(({"top_k": 1}, {"top_k": 5}))),
    "judge": lambda chance, recipe: recipe.update(by=chance.choice(("judge", "none"))),
}
COMMANDS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "generate": lambda run, recipe: api.generate(run, recipe),
    "once more": lambda run, recipe: (api.generate(run, recipe), api.generate(run, recipe)),
    "estimate": lambda run, recipe: api.estimate(run, recipe),
    "probe": lambda run, recipe: api.estimate(run, recipe, probe=3),
    "filter": lambda run, recipe: api.filter(run, recipe),
}


def spent_usd(run: Path) -> tuple[float, float]:
    """What the run's journals hold: paid, and perhaps billed."""
    paid = held = 0.0
    for path in (run / stage / "journal.jsonl" for stage in STAGES):
        if path.is_file():
            with Journal(path, writable=False) as journal:
                paid, held = paid + journal.spending.paid_usd, held + journal.spending.held_usd
    return paid, held


def written_out(settings: dict[str, Any], url: str, prompts: Path) -> dict[str, Any]:
    """The settings as a recipe."""
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in settings["prompts"]))
    model = {"engine": "openai", "base_url": [url]}
    teachers = [{**model, **settings["model"], "model": name, "price": PRICES[name]} for name in settings["teachers"]]
    return {
        "task": {"prompts": str(prompts)},
        **({"teacher": teachers[0]} if len(teachers) == 1 else {"teachers": teachers}),
        "generate": {name: value for name, value in settings["generate"].items() if value is not None},
        "judge": {**model, "model": "judge", "price": PRICES["judge"], "max_tokens": 60},
        "filter": {"score": {"by": settings["by"]}},
    }


@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_is_never_over_the_cap_and_is_what_the_run_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.001)
    chance, run = random.Random(seed), tmp_path / "run"
    settings: dict[str, Any] = {
        "prompts": [f"question {n}" for n in range(6)],
        "teachers": ["cheap"],
        "model": {},
        "by": "none",
    }
    settings["generate"] = {"max_tokens": 20, "temperature": 1.0, "budget": 20.0, "retries": 0}
    with Ledger(chance) as ledger:
        for step in range(10):
            changes = chance.choices(list(CHANGES), k=chance.randint(1, 4))
            for name in changes:
                CHANGES[name](chance, settings)
            recipe = written_out(settings, ledger.url, tmp_path / "prompts.jsonl")
            ledger.most_usd = max(settings["generate"]["budget"], ledger.usd)  # a lower cap does not undo what was paid
            command = chance.choice(list(COMMANDS))
            with contextlib.suppress(SeqdistillError):
                COMMANDS[command](run, recipe)
            where, (paid, held) = f"step {step}: {command} after {changes}", spent_usd(run)
            assert ledger.broken == [], where
            assert paid + held >= ledger.usd - 1e-6, where
            if not ledger.unreported_usd:
                assert paid == pytest.approx(ledger.usd), where
        assert ledger.usd > 0
