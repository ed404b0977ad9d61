"""The judge: a language model that scores each sample by a rubric, asked through any engine and journalled like the teacher.

Owns the requests, the reading of the replies and the spending limit. The rubric is `rubrics`'. A reply that cannot be read is
no score, and is counted; it is not asked again.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines import Completion, Engine, Pace, Request, open_engine
from seqdistill.engines.models import identity
from seqdistill.errors import Incomplete, UsageError
from seqdistill.filter.checks.personal_data import hidden
from seqdistill.journal.budget import Price, Purse, ask_within, price_of
from seqdistill.journal.storage import Journal, answers, lacking
from seqdistill.progress import Progress
from seqdistill.recipe.tables import JudgeConfig
from seqdistill.records import Sample, conversation_text
from seqdistill.tasks.rubrics import Rubric, load_rubric

SAMPLES_AT_ONCE = 4096  # so many are planned and asked together
FOR_GOOD = ("too long", "template", "http 400", "http 413", "http 422")  # failures that asking again will not mend


@dataclass
class Judged:
    """Every sample's score, and what the scores cost. A None in `scores` is in `unreadable` or in `failed`."""

    scores: dict[str, float | None] = field(default_factory=dict)  # by sample id
    new: int = 0  # judgements asked for now
    unreadable: int = 0  # replies that are not what the rubric asked for
    failed: int = 0  # requests that the judge cannot take: too long, refused
    prompt_tokens: int = 0  # of all judgements, the journal's included
    completion_tokens: int = 0
    usd: float | None = None  # of all judgements at the configured price; None without a price
    first_unreadable: str | None = None  # the first unreadable reply, cut short; a model's text


def judge_settings(config: JudgeConfig) -> dict[str, Any]:
    """What decides the scores, for a stage's fingerprint. Raises UsageError for a missing model or a bad rubric."""
    _check(config)
    rubric = load_rubric(config.rubric)
    return {"judge.model": identity(config), "judge.rubric": rubric.sha256, "judge.max_tokens": config.max_tokens}


def judge(journal: Journal, config: JudgeConfig, samples: Iterable[Sample], total: int, progress: Progress) -> Judged:
    """The score of every sample; what the journal has is not asked again. `total` is their number, for the progress bar.

    Raises UsageError for bad settings before anything is asked, and Incomplete when the budget is reached or requests
    failed: the answers are in the journal, and judging again goes on from there.
    """
    _check(config)
    rubric = load_rubric(config.rubric)
    if rubric.scale is None:
        raise UsageError(f"{rubric.path}: a rubric for scores needs a scale", "scale = [1, 10]")
    progress.start("asking the judge", total, "answers")
    try:
        return asyncio.run(_judge(journal, config, rubric, samples, progress))
    finally:
        progress.end()


def _check(config: JudgeConfig) -> None:
    if not config.model:
        raise UsageError("filter.score.by = 'judge': no judge is named", "give --judge, or model in the recipe's [judge]")
    price_of(config.price, "judge")
    if config.budget is not None and not config.price:
        raise UsageError(f"[judge] budget = {config.budget:g} needs a price", "price = { prompt = 0.10, completion = 0.40 }")


async def _judge(
    journal: Journal, config: JudgeConfig, rubric: Rubric, samples: Iterable[Sample], progress: Progress
) -> Judged:
    asking = _Asking(journal, config)
    judged = Judged(usd=0.0 if asking.price else None)
    everything = iter(samples)
    missing: list[Completion] = []
    try:
        while part := list(itertools.islice(everything, SAMPLES_AT_ONCE)):
            requests = [_request(sample, rubric, config) for sample in part]
            failed = await asking.ask(requests)
            for request, completion in answers(journal, asking.model, requests, failed):
                if completion.error is not None and completion.error not in FOR_GOOD:
                    missing.append(completion)
                else:
                    _note(judged, rubric, request, completion, asking.price)
            progress.advance(len(part), {} if judged.usd is None else {"cost": f"{judged.usd:.2f} USD"})
    finally:
        await asking.close()
    judged.new = asking.new
    if missing:
        raise Incomplete(
            f"{len(missing)} samples are not judged; the first reason: {missing[0].message}",
            f"run again to ask for {len(missing)}; what was answered is kept",
        )
    return judged


def _request(sample: Sample, rubric: Rubric, config: JudgeConfig) -> Request:
    values = {"prompt": conversation_text(sample.prompt), "completion": sample.text, "reference": sample.reference}
    return Request(sample.id, rubric.messages(values, sample.id), config.max_tokens)


def _note(judged: Judged, rubric: Rubric, request: Request, completion: Completion, price: Price | None) -> None:
    """Adds one answer, or one failure for good."""
    judged.prompt_tokens += completion.prompt_tokens
    judged.completion_tokens += completion.completion_tokens
    if judged.usd is not None and price:
        judged.usd += price.usd(completion)
    score = None if completion.error else rubric.read(completion.content)
    if completion.error:
        judged.failed += 1
    elif score is None:
        judged.unreadable += 1
        judged.first_unreadable = judged.first_unreadable or hidden(completion.content)[:200]
    judged.scores[request.id] = None if score is None else float(score)


class _Asking:
    """An engine, opened when something must be asked, and the purse it is paid from."""

    def __init__(self, journal: Journal, config: JudgeConfig) -> None:
        self.model, self.new, self.price = identity(config), 0, price_of(config.price, "judge")
        self._journal, self._config = journal, config
        self._engine: Engine | None = None
        self._purse = Purse({self.model: self.price}, config.budget)
        self._purse.count(journal)

    async def ask(self, requests: Sequence[Request]) -> dict[str, Completion]:
        """Asks for what the journal lacks; returns the failures by request id. Raises Incomplete at the budget."""
        missing, failed = lacking(self._journal, self.model, requests), dict[str, Completion]()
        if not missing:
            return failed
        if self._engine is None:  # a lost answer may be billed: with a budget, none is asked for twice
            self._engine = open_engine(self._config, Pace(self._config.concurrency, resend=self._config.budget is None))
        async with aclosing(ask_within(self._purse, self._journal, self.model, missing, self._engine)) as completions:
            async for completion in completions:
                if completion.error is None:
                    self.new += 1
                else:
                    failed[completion.id] = completion
        return failed

    async def close(self) -> None:
        """Ends the engine, if one was opened."""
        if self._engine:
            await self._engine.close()
