"""The view of the journal for today's plan: samples.jsonl, and failures.jsonl for what has no answer.

Decides what a sample's line holds and what is counted. Sends no requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.logprob_file import write_logprobs
from seqdistill.files import atomic_write
from seqdistill.journal.asking import answer
from seqdistill.journal.storage import Journal
from seqdistill.recipe.tables import GenerateConfig
from seqdistill.records import Sample, to_line
from seqdistill.stages.generate.plan import Planned, is_empty, repeats

LOGPROBS = "logprobs.parquet"


@dataclass
class Counts:
    """What was written. `usd` is what the answers cost at today's price, whoever paid them, or else what was billed."""

    samples: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None  # None: not known
    empty: int = 0  # answers without content
    think_only: int = 0  # of these, those that are reasoning alone
    without_logprobs: int = 0  # answers for which log-probabilities were requested in vain
    finish_reasons: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def write_samples(
    folder: Path, journal: Journal, plan: Sequence[Planned], config: GenerateConfig, failed: Mapping[str, Completion]
) -> Counts:
    """Writes both files in the plan's order and counts; `failed` is by request id."""
    counts = Counts()
    with atomic_write(folder / "samples.jsonl") as samples, atomic_write(folder / "failures.jsonl") as failures:
        for planned in plan:
            completion = _final(journal, planned, config, failed, counts)
            if completion.error is None:
                samples.write(to_line(sample_of(planned, completion)))
                counts.samples += 1
                counts.empty += is_empty(completion)
                counts.think_only += is_empty(completion) and completion.reasoning is not None
                _add(counts.finish_reasons, completion.finish_reason)
            else:
                failures.write(to_line(_failure(planned, completion)))
                counts.failed += 1
                _add(counts.errors, completion.error)
    return counts


def write_token_logprobs(folder: Path, journal: Journal, plan: Sequence[Planned], config: GenerateConfig) -> int:
    """Writes logprobs.parquet, where any are configured; returns its rows."""
    if config.logprobs is None:
        return 0
    finals = (_final(journal, planned, config, {}, Counts()) for planned in plan)
    return write_logprobs(folder / LOGPROBS, ((completion.id, completion.raw) for completion in finals))


def _final(
    journal: Journal, planned: Planned, config: GenerateConfig, failed: Mapping[str, Completion], counts: Counts
) -> Completion:
    """The completion that counts for a sample: the last of its requests."""
    completion = answer(journal, planned.teacher.identity, planned.request, failed)
    _count(counts, planned, completion)
    for repeat in repeats(config):
        if repeat.applies(completion):
            planned = repeat.again(planned)
            completion = answer(journal, planned.teacher.identity, planned.request, failed)
            _count(counts, planned, completion)
    return completion


def _count(counts: Counts, planned: Planned, completion: Completion) -> None:
    counts.prompt_tokens += completion.prompt_tokens
    counts.completion_tokens += completion.completion_tokens
    price = planned.teacher.price
    usd = completion.billed_usd if price is None else price.usd(completion)
    if usd is not None:
        counts.usd = (counts.usd or 0.0) + usd


def _add(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def sample_of(planned: Planned, completion: Completion) -> Sample:
    """The line of samples.jsonl for one answer."""
    return Sample(
        id=planned.request.id,
        prompt_id=planned.prompt.id,
        sample=planned.number,
        teacher=planned.teacher.name,
        prompt=planned.prompt.messages,
        completion=[{"role": "assistant", "content": completion.content}],
        reasoning=completion.reasoning,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        reference=planned.prompt.reference,
        slice=planned.prompt.slice,
        tool_calls=completion.tool_calls,
        group=planned.prompt.group,
    )


def _failure(planned: Planned, completion: Completion) -> dict[str, Any]:
    return {
        "id": planned.request.id,
        "prompt_id": planned.prompt.id,
        "sample": planned.number,
        "error": completion.error,
        "message": completion.message,
    }
