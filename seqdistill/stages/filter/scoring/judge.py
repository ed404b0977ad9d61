"""The judge: a language model that scores each sample by a rubric, through any engine and journalled like the teacher.

Owns the requests and what an unreadable reply means: no score, counted, not requested again. The rubric and how a reply is
read are `tasks.rubrics`', the cap is `journal.budget`'s.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines import PERMANENT_ERRORS, Completion, Pace, Request
from seqdistill.engines.models import identity
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.journal.asking import Asker, answers, failures, missing_requests, run_async
from seqdistill.journal.budget import Price, Source, price_of, spending
from seqdistill.journal.repeated import cost_of_repeats
from seqdistill.journal.storage import Journal
from seqdistill.personal_data import hidden
from seqdistill.progress import Progress
from seqdistill.recipe.tables import JudgeConfig, Recipe
from seqdistill.records import Sample, conversation_text
from seqdistill.runs import Run
from seqdistill.tasks.rubrics import Rubric, load_rubric

SAMPLES_AT_ONCE = 4096  # planned and requested together, after the first TRIAL of them
TRIAL = 20  # replies: when none of the first can be read, no more are paid for
REFUSED = ("http 400", "http 422")
FORMED = ("openai", "vllm")  # engines that hold a reply to a schema


@dataclass
class Judged:
    """Every sample's score, and what the scores cost. A None in `scores` is in `unreadable` or in `failed`."""

    scores: dict[str, float | None] = field(default_factory=dict)  # by sample id
    new: int = 0  # judgements requested in this run
    unreadable: int = 0  # replies that are not in the rubric's form
    failed: int = 0  # requests that the judge cannot take: too long, refused
    prompt_tokens: int = 0  # of all judgements, the journal's included
    completion_tokens: int = 0
    usd: float | None = None  # of all judgements at the configured price; None without a price
    first_unreadable: str | None = None  # the first unreadable reply, cut short; a model's text
    cut_off: int = 0  # of the unreadable, those that ended at max_tokens


def judge_settings(config: JudgeConfig) -> dict[str, Any]:
    """What decides the scores, for a stage's fingerprint. Raises UsageError for a missing model or a bad rubric."""
    _check(config)
    rubric = load_rubric(config.rubric)
    return {"judge.model": identity(config), "judge.rubric": rubric.sha256, "judge.max_tokens": config.max_tokens}


def judge(run: Run, recipe: Recipe, journal: Journal, samples: Iterable[Sample], total: int, progress: Progress) -> Judged:
    """The score of every sample; what the journal has is not requested again. `total` is their number, for the progress bar.

    `samples` can be iterated twice.

    Raises UsageError for bad settings before any request, and Incomplete when the budget is reached or requests
    failed: the answers are in the journal, and judging again resumes from there.
    """
    config = recipe.judge
    _check(config)
    rubric = load_rubric(config.rubric)
    if rubric.scale is None:
        raise UsageError(f"{rubric.path}: a rubric for scores needs a scale", "scale = [1, 10]")
    if bare := next((sample for sample in samples if sample.reference is None), None):
        _request(bare, rubric, config, None)  # a rubric that cannot do without a reference: found before anything is paid
    source = Source(config.model or "", identity(config), config, price_of(config.price, "judge"))
    with spending(run, journal, [source], recipe.generate.budget, progress, own_cap_usd=config.budget) as budget:
        pace = Pace(config.concurrency, on_note=progress.note, capped=budget.is_capped)
        if len(journal):
            schema = _schema(config, rubric)
            if again := cost_of_repeats(journal, ((source, _request(sample, rubric, config, schema)) for sample in samples)):
                progress.note(f"filter: {again}")
        progress.start("prompting the judge", total, "answers")
        try:
            return run_async(_judge(Asker(journal, budget, pace), source, config, rubric, samples, progress))
        finally:
            progress.end()


def _check(config: JudgeConfig) -> None:
    if not config.model:
        raise UsageError(
            "filter.score.by = 'judge': no judge is configured", "pass --judge, or set model in the recipe's [judge]"
        )
    price_of(config.price, "judge")
    if config.budget is not None and not config.price:
        raise UsageError(f"[judge] budget = {config.budget:g} needs a price", "price = { prompt = 0.10, completion = 0.40 }")


async def _judge(
    asker: Asker, source: Source, config: JudgeConfig, rubric: Rubric, samples: Iterable[Sample], progress: Progress
) -> Judged:
    judged = Judged(usd=0.0 if source.price else None)
    everything = iter(samples)
    missing: list[Completion] = []
    size, schema = TRIAL, _schema(config, rubric)
    async with asker:
        while part := list(itertools.islice(everything, size)):
            size = SAMPLES_AT_ONCE
            requests, failed = await _answered(asker, source, config, rubric, schema, part, judged)
            if schema and len(failed) == len(part) and all(one.error in REFUSED for one in failed.values()):
                schema = None  # an endpoint that takes no schema: the rubric says in words what to reply
                requests, failed = await _answered(asker, source, config, rubric, schema, part, judged)
            for request, completion in answers(asker.journal, source.identity, requests, failed):
                if completion.error is not None and completion.error not in PERMANENT_ERRORS:
                    missing.append(completion)
                else:
                    _note(judged, rubric, request, completion, source.price)
            _check_readable(judged, rubric)
            progress.advance(len(part), {} if judged.usd is None else {"cost": f"{judged.usd:.2f} USD"})
    if missing:
        raise Incomplete(
            f"{len(missing)} samples are not judged; the first reason: {missing[0].message}",
            f"run again to judge {len(missing)}; what was answered is kept",
        )
    return judged


def _schema(config: JudgeConfig, rubric: Rubric) -> dict[str, Any] | None:
    return rubric.schema if config.engine in FORMED else None


async def _answered(
    asker: Asker,
    source: Source,
    config: JudgeConfig,
    rubric: Rubric,
    schema: dict[str, Any] | None,
    samples: Sequence[Sample],
    judged: Judged,
) -> tuple[list[Request], dict[str, Completion]]:
    """Requests the judgements that the journal lacks, and returns all the requests and the failures by id."""
    requests = [_request(sample, rubric, config, schema) for sample in samples]
    missing = len(missing_requests(asker.journal, source.identity, requests))
    failed = await failures(asker, source, requests)
    judged.new += missing - len(failed)
    return requests, failed


def _check_readable(judged: Judged, rubric: Rubric) -> None:
    """Stops a judge none of whose replies can be read, before more of them are paid for."""
    if judged.unreadable >= TRIAL and not any(score is not None for score in judged.scores.values()):
        raise SeqdistillError(
            f"none of the judge's first {judged.unreadable} replies has a score, {judged.cut_off} were cut off at "
            f"judge.max_tokens; the first is {judged.first_unreadable!r}",
            f"expected a JSON object with one, as {rubric.path} says: change the rubric, raise judge.max_tokens "
            "(--judge-max-tokens) for a judge that thinks first, or use another judge; nothing more was requested",
        )


def _request(sample: Sample, rubric: Rubric, config: JudgeConfig, schema: dict[str, Any] | None) -> Request:
    values = {"prompt": conversation_text(sample.prompt), "completion": sample.text, "reference": sample.reference}
    return Request(sample.id, rubric.messages(values, sample.id), config.max_tokens, schema=schema)


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
        judged.cut_off += completion.finish_reason == "length"
        judged.first_unreadable = judged.first_unreadable or hidden(completion.content)[:200]
    judged.scores[request.id] = None if score is None else float(score)
