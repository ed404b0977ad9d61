"""The judge: a language model that scores each sample by a rubric, through any engine and journalled like the teacher.

Owns what the judge is shown and what an unreadable reply means: no score, counted, not requested again. How it is prompted
is `judges`'.
"""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines import Completion, Pace, Request
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.journal.asking import Asker, run_async
from seqdistill.journal.budget import Source, spending
from seqdistill.journal.prices import Price, known_usd, price_of
from seqdistill.journal.repeated import cost_of_repeats
from seqdistill.journal.storage import Journal
from seqdistill.judges import form_of, judgements, judging_cap
from seqdistill.judges import judge_settings as settings_of
from seqdistill.personal_data import hidden
from seqdistill.progress import Progress
from seqdistill.recipe.tables import JudgeConfig, Recipe
from seqdistill.records import Sample, conversation_text
from seqdistill.runs import Run
from seqdistill.tasks.rubrics import Rubric, load_rubric


@dataclass
class Judged:
    """Every sample's score, and what the scores cost. A None in `scores` is in `unreadable` or in `failed`."""

    scores: dict[str, float | None] = field(default_factory=dict)  # by sample id
    new: int = 0  # judgements requested in this run
    unreadable: int = 0  # replies that are not in the rubric's form
    failed: int = 0  # requests that the judge cannot take: too long, refused
    prompt_tokens: int = 0  # of all judgements, the journal's included
    completion_tokens: int = 0
    usd: float | None = None  # of all judgements at the configured price, or as billed; None where neither is known
    first_unreadable: str | None = None  # the first unreadable reply, cut short; a model's text
    cut_off: int = 0  # of the unreadable, those that ended at max_tokens


NEEDS_IT = "filter.score.by = 'judge'"


def judge_settings(config: JudgeConfig) -> dict[str, Any]:
    """What decides the scores, for a stage's fingerprint. Raises UsageError for a missing model or a bad rubric."""
    return settings_of(config, load_rubric(config.rubric), NEEDS_IT)


def judge(run: Run, recipe: Recipe, journal: Journal, samples: Iterable[Sample], total: int, progress: Progress) -> Judged:
    """The score of every sample; what the journal has is not requested again. `total` is their number, for the progress bar.

    `samples` can be iterated twice.

    Raises UsageError for bad settings before any request, and Incomplete when the budget is reached or requests
    failed: the answers are in the journal, and judging again resumes from there.
    """
    config, rubric = recipe.judge, load_rubric(recipe.judge.rubric)
    settings_of(config, rubric, NEEDS_IT)
    if rubric.scale is None:
        raise UsageError(f"{rubric.path}: a rubric for scores needs a scale", "scale = [1, 10]")
    if bare := next((sample for sample in samples if sample.reference is None), None):
        _request(bare, rubric, config, None)  # a rubric that cannot do without a reference: found before anything is paid
    source = Source(config.model or "", identity(config), config, price_of(config.price, "judge"))
    own = judging_cap(run, journal, config)
    with spending(run, journal, [source], recipe.generate.budget, progress, own_cap=own) as budget:
        pace = Pace(config.concurrency, on_note=progress.note, capped=budget.is_capped)
        if len(journal):
            schema = form_of(config, rubric)
            if again := cost_of_repeats(journal, ((source, _request(sample, rubric, config, schema)) for sample in samples)):
                progress.note(f"filter: {again}")
        progress.start("prompting the judge", total, "answers")
        try:
            return run_async(_judge(Asker(journal, budget, pace), source, config, rubric, samples, progress))
        finally:
            progress.end()


async def _judge(
    asker: Asker, source: Source, config: JudgeConfig, rubric: Rubric, samples: Iterable[Sample], progress: Progress
) -> Judged:
    judged = Judged(usd=0.0 if source.price else None)  # also where there is nothing to judge

    def requests_of(sample: Sample, schema: dict[str, Any] | None) -> list[Request]:
        return [_request(sample, rubric, config, schema)]

    async with aclosing(judgements(asker, source, config, rubric, samples, requests_of)) as parts:
        async for part in parts:
            judged.new += part.new
            for request, completion in part.replies:
                _note(judged, rubric, request, completion, source.price)
            progress.advance(len(part.items), {} if judged.usd is None else {"cost": f"{judged.usd:.2f} USD"})
    return judged


def _request(sample: Sample, rubric: Rubric, config: JudgeConfig, schema: dict[str, Any] | None) -> Request:
    values = {"prompt": conversation_text(sample.prompt), "completion": sample.text, "reference": sample.reference}
    return Request(sample.id, rubric.messages(values, sample.id), config.max_tokens, schema=schema)


def _note(judged: Judged, rubric: Rubric, request: Request, completion: Completion, price: Price | None) -> None:
    """Adds one answer, or one failure for good."""
    judged.prompt_tokens += completion.prompt_tokens
    judged.completion_tokens += completion.completion_tokens
    if (usd := known_usd(price, [completion])) is not None:
        judged.usd = (judged.usd or 0.0) + usd
    score = None if completion.error else rubric.read(completion.content)
    if completion.error:
        judged.failed += 1
    elif score is None:
        judged.unreadable += 1
        judged.cut_off += completion.finish_reason == "length"
        judged.first_unreadable = judged.first_unreadable or hidden(completion.content)[:200]
    judged.scores[request.id] = None if score is None else float(score)
