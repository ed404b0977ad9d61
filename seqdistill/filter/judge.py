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

from seqdistill.config import JudgeConfig
from seqdistill.engines import Completion, Engine, Pace, Request, open_engine
from seqdistill.engines.models import identity
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal import Journal, answers, ask_engine, lacking
from seqdistill.progress import Progress
from seqdistill.records import Message, Sample
from seqdistill.rubrics import Rubric, load_rubric

SAMPLES_AT_ONCE = 4096  # so many are planned and asked together
FOR_GOOD = ("too long", "template", "http 400", "http 413", "http 422")  # failures that asking again will not mend
TOKENS_OF_A_TEMPLATE = 200  # more than a chat template adds to a request


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
        raise UsageError("score = judge: no judge is named", "give --judge, or model in the recipe's [judge]")
    for name, value in config.price.items():
        if name not in ("prompt", "completion") or isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise UsageError(
                f"[judge] price: {name} = {value!r}", "price = { prompt = 0.10, completion = 0.40 }, in USD per million"
            )
    if config.budget is not None and not config.price:
        raise UsageError(f"[judge] budget = {config.budget:g} needs a price", "price = { prompt = 0.10, completion = 0.40 }")


async def _judge(
    journal: Journal, config: JudgeConfig, rubric: Rubric, samples: Iterable[Sample], progress: Progress
) -> Judged:
    judged, asking = Judged(usd=0.0 if config.price else None), _Asking(journal, config)
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
                    _note(judged, rubric, request, completion, config.price)
            progress.advance(len(part), {} if judged.usd is None else {"cost": f"{judged.usd:.2f} USD"})
    finally:
        await asking.close()
    judged.new = asking.new
    if missing:
        reason = f"the budget of {config.budget:g} USD is reached" if asking.over_budget else missing[0].message
        raise Incomplete(
            f"{len(missing)} samples are not judged; the first reason: {reason}",
            "raise budget in [judge], or use fewer samples" if asking.over_budget else f"run again to ask for {len(missing)}",
        )
    return judged


def _request(sample: Sample, rubric: Rubric, config: JudgeConfig) -> Request:
    values = {"prompt": _conversation(sample.prompt), "completion": sample.text, "reference": sample.reference}
    return Request(sample.id, rubric.messages(values, sample.id), config.max_tokens)


def _conversation(messages: Sequence[Message]) -> str:
    """A prompt as one text: the user's message, or each message under its role where there are several."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _note(judged: Judged, rubric: Rubric, request: Request, completion: Completion, price: dict[str, Any]) -> None:
    """Adds one answer, or one failure for good."""
    judged.prompt_tokens += completion.prompt_tokens
    judged.completion_tokens += completion.completion_tokens
    if judged.usd is not None:
        judged.usd += _usd(completion.prompt_tokens, completion.completion_tokens, price)
    score = None if completion.error else rubric.read(completion.content)
    if completion.error:
        judged.failed += 1
    elif score is None:
        judged.unreadable += 1
        judged.first_unreadable = judged.first_unreadable or completion.content[:200]
    judged.scores[request.id] = None if score is None else float(score)


def _usd(prompt_tokens: int, completion_tokens: int, price: dict[str, Any]) -> float:
    return float(prompt_tokens * price.get("prompt", 0.0) + completion_tokens * price.get("completion", 0.0)) / 1e6


class _Asking:
    """An engine, opened when something must be asked, and the money left for it."""

    def __init__(self, journal: Journal, config: JudgeConfig) -> None:
        self.model, self.new, self.over_budget = identity(config), 0, False
        self._journal, self._config = journal, config
        self._engine: Engine | None = None
        self._left = float("inf")
        if config.budget is not None:
            used = (row["completion"] for row in journal.rows())
            self._left = config.budget - sum(_usd(c["prompt_tokens"], c["completion_tokens"], config.price) for c in used)

    async def ask(self, requests: Sequence[Request]) -> dict[str, Completion]:
        """Asks for what the journal lacks, as far as the money goes; returns the failures by request id."""
        missing, failed = lacking(self._journal, self.model, requests), dict[str, Completion]()
        while missing and not self.over_budget:
            most = {request.id: self._most(request) for _, request in missing}
            affordable = sum(usd <= self._left for usd in itertools.accumulate(most.values()))
            if not affordable:
                self.over_budget = True
                break
            if self._engine is None:  # a lost answer may be billed: with a budget, none is asked for twice
                pace = Pace(self._config.concurrency, resend=self._config.budget is None)
                self._engine = open_engine(self._config, pace)
            async with aclosing(ask_engine(self._journal, self.model, missing[:affordable], self._engine)) as completions:
                async for completion in completions:
                    self._left -= self._cost(completion, most[completion.id])
                    if completion.error is None:
                        self.new += 1
                    else:
                        failed[completion.id] = completion
            missing = missing[affordable:]
        return failed

    async def close(self) -> None:
        """Ends the engine, if one was opened."""
        if self._engine:
            await self._engine.close()

    def _most(self, request: Request) -> float:
        """USD that a request can cost at most: no tokenizer makes more tokens than there are bytes."""
        size = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in request.messages)
        return _usd(size + TOKENS_OF_A_TEMPLATE, request.max_tokens, self._config.price)

    def _cost(self, completion: Completion, most: float) -> float:
        """USD that a finished request may have cost; an answer without a token count is taken to have cost the most."""
        counted = completion.error is not None or completion.prompt_tokens + completion.completion_tokens > 0
        usd = _usd(completion.prompt_tokens, completion.completion_tokens, self._config.price) if counted else most
        return usd + completion.lost * most
