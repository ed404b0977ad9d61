"""What a run will cost, before it is paid: counts, tokens, money and time, from a few real answers with a probe.

Decides what is extrapolated from what. The real answers are in the journal: they are not paid for again.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import as_dict
from seqdistill.errors import SeqdistillError
from seqdistill.journal.asking import answer
from seqdistill.journal.budget import spending, typical
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import GenerateConfig, Recipe
from seqdistill.records import Message, write_json
from seqdistill.runs import Run
from seqdistill.stages.generate.asking import ask_teachers
from seqdistill.stages.generate.first_answers import CheckFirst
from seqdistill.stages.generate.inputs import Inputs
from seqdistill.stages.generate.plan import Planned
from seqdistill.stages.generate.samples import Counts

BYTES_A_TOKEN = 4  # of English text; used only while no answer has reported the real count
MOST_ANSWERS_READ = 1000


@dataclass(frozen=True)
class Estimate:
    """The whole run before it starts; money and time of the whole and, separately, of what is still to be requested."""

    prompts: int
    requests: int
    missing: int  # requests that no journal answers yet
    first_prompt: list[Message]  # as the teacher will see it
    answers: int  # real answers that the figures rest on; 0: every answer is taken to be as long as max_tokens allows
    prompt_tokens: int
    completion_tokens: int
    usd: float | None  # None without a price
    missing_usd: float | None
    missing_seconds: float | None  # None without real answers, and for batches


def estimate(run: Run, recipe: Recipe, progress: Progress, probe: int = 0, check_first: CheckFirst | None = None) -> Estimate:
    """The estimate; kept beside the samples, so that the run can say how wrong it was.

    With `probe`, that many requests, evenly spread over the plan, are really sent first, within the budget; raises what
    `check_first` says of the first answers.
    """
    inputs = Inputs.of(run, recipe)
    plan = inputs.plan(progress)
    path = run.file("generate", "journal.jsonl")
    with ExitStack() as stack:
        journals = inputs.others(stack)
        if probe:
            stack.enter_context(run.locked("generate"))
        if probe or path.exists():
            journals.insert(0, stack.enter_context(Journal(path, writable=probe > 0)))
        if probe:
            some = _spread([one for one in plan if not _holding(journals, one)], probe)
            _probe(run, journals[0], inputs, some, progress, check_first)
        known = [
            (one, answer(journal, one.teacher.identity, one.request, {}))
            for one in _spread([one for one in plan if _holding(journals, one)], MOST_ANSWERS_READ)
            for journal in _holding(journals, one)[:1]
        ]
        missing = [one for one in plan if not _holding(journals, one)]
    result = _extrapolate(plan, missing, known, recipe.generate)
    write_json(run.file("generate", "estimate.json"), {"fingerprint": inputs.record.fingerprint, **asdict(result)})
    return result


def compare(run: Run, fingerprint: str, counts: Counts, progress: Progress) -> None:
    """Says how far an earlier estimate of this very run was off."""
    estimated = _read(run.file("generate", "estimate.json"))
    if counts.failed or estimated.get("fingerprint") != fingerprint:
        return
    pairs = [
        ("completion tokens", estimated["completion_tokens"], counts.completion_tokens),
        ("USD", estimated["usd"], counts.usd),
    ]
    errors = [
        f"{was:.6g} {unit} estimated, {now:.6g} used ({abs(was / now - 1):.0%} too {'high' if was > now else 'low'})"
        for unit, was, now in pairs
        if was is not None and now
    ]
    progress.note(f"generate: {'; '.join(errors)}; the estimate was based on {estimated['answers']} answers")


def _read(path: Path) -> dict[str, Any]:
    """An earlier estimate; empty without one. Nothing rests on it, so a damaged file is as good as none."""
    try:
        return as_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def place(request_id: str) -> tuple[str, int]:
    """The prompt's id and the sample's number in a request's id, PROMPT:TEACHER:N."""
    rest, _, number = request_id.rpartition(":")
    return rest.partition(":")[0], int(number) if number.isdecimal() else -1


def _holding(journals: Sequence[Journal], planned: Planned) -> list[Journal]:
    """The journals that answer a request: this run's, and those whose answers are taken with --reuse."""
    return [journal for journal in journals if journal.holds(planned.teacher.identity, planned.request)]


def _probe(
    run: Run, journal: Journal, inputs: Inputs, some: Sequence[Planned], progress: Progress, check_first: CheckFirst | None
) -> None:
    at_once = replace(inputs.recipe.generate, batch=False)  # a probe is not waited for a day
    with spending(run, journal, inputs.teachers, at_once.budget, progress) as budget:
        outcome = ask_teachers(journal, some, at_once, budget, progress, check_first=check_first)
    if outcome.stopped:
        raise outcome.stopped
    if some and not outcome.new:
        failure = next(iter(outcome.failed.values()))
        raise SeqdistillError(
            f"none of the {len(some)} probe requests was answered: {failure.message}", "fix the cause and try again"
        )


def _spread(plan: Sequence[Planned], count: int) -> list[Planned]:
    """`count` requests of a plan, evenly spread over it."""
    if len(plan) <= count:
        return list(plan)
    return [plan[place * len(plan) // count] for place in range(count)]


def _extrapolate(
    plan: Sequence[Planned], missing: Sequence[Planned], known: Sequence[tuple[Planned, Completion]], config: GenerateConfig
) -> Estimate:
    """Prompt tokens by the bytes of each prompt, at the ratio of the known; completion tokens at the mean of the known, hidden
    ones too.

    Samples that come in one request share the prompt's tokens; an answer without prompt tokens is such a sharer.
    """
    reported = [(one, completion.prompt_tokens) for one, completion in known if completion.prompt_tokens]
    ratio = sum(tokens for _, tokens in reported) / sum(_bytes(one) for one, _ in reported) if reported else 1 / BYTES_A_TOKEN
    ratio *= ceil(config.samples / config.samples_per_request) / config.samples
    length = fmean(completion.completion_tokens for _, completion in known) if known else config.max_tokens
    each = typical([completion for _, completion in known]) if known else Completion("", completion_tokens=round(length))

    def usd(some: Sequence[Planned]) -> float | None:
        if not plan or any(one.teacher.price is None for one in plan):
            return None
        return sum(
            price.usd(replace(each, prompt_tokens=round(_bytes(one) * ratio), batched=config.batch))
            for one in some
            if (price := one.teacher.price)
        )

    return Estimate(
        prompts=len({one.prompt.id for one in plan}),
        requests=len(plan),
        missing=len(missing),
        first_prompt=plan[0].request.messages,
        answers=len(known),
        prompt_tokens=round(sum(_bytes(one) for one in plan) * ratio),
        completion_tokens=round(len(plan) * length),
        usd=usd(plan),
        missing_usd=usd(missing),
        missing_seconds=_seconds(missing, fmean(c.seconds for _, c in known), ratio, length, config)
        if known and not config.batch
        else None,
    )


def _seconds(missing: Sequence[Planned], each: float, ratio: float, length: float, config: GenerateConfig) -> float:
    """How long the missing will take: at the configured concurrency and limits a minute."""
    at_once = {"openai": min(config.concurrency, max(1, len(missing)))}
    tokens = sum(_bytes(one) for one in missing) * ratio + len(missing) * length
    return max(
        sum(each / at_once.get(one.teacher.config.engine, 1) for one in missing),
        60 * len(missing) / config.requests_per_minute if config.requests_per_minute else 0.0,
        60 * tokens / config.tokens_per_minute if config.tokens_per_minute else 0.0,
    )


def _bytes(planned: Planned) -> int:
    return sum(len(message["content"].encode(errors="replace")) for message in planned.request.messages)
