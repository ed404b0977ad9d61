"""The view of the journal for today's plan: samples.jsonl, and failures.jsonl for what has no answer.

Decides what a sample's line holds and what is counted. Does not ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines import Completion, Request
from seqdistill.generate.plan import Planned
from seqdistill.journal import Journal, answers
from seqdistill.records import Sample, atomic_write, to_line
from seqdistill.runs import Run


@dataclass
class Counts:
    """What was written."""

    samples: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def write_samples(run: Run, journal: Journal, model: str, plan: list[Planned], failed: Mapping[str, Completion]) -> Counts:
    """Writes both files in the plan's order and counts; `model` is the teacher's identity, `failed` is by request id."""
    counts = Counts()
    requests = [planned.request for planned in plan]
    with (
        atomic_write(run.file("generate", "samples.jsonl")) as samples,
        atomic_write(run.file("generate", "failures.jsonl")) as failures,
    ):
        for planned, (request, completion) in zip(plan, answers(journal, model, requests, failed), strict=True):
            if completion.error is None:
                samples.write(to_line(_sample(planned, request, completion)))
                counts.samples += 1
                counts.prompt_tokens += completion.prompt_tokens
                counts.completion_tokens += completion.completion_tokens
                _add(counts.finish_reasons, completion.finish_reason)
            else:
                failures.write(to_line(_failure(planned, request, completion)))
                counts.failed += 1
                _add(counts.errors, completion.error)
    return counts


def _add(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def _sample(planned: Planned, request: Request, completion: Completion) -> Sample:
    return Sample(
        id=request.id,
        prompt_id=planned.prompt.id,
        sample=planned.number,
        teacher=planned.teacher,
        prompt=planned.prompt.messages,
        completion=[{"role": "assistant", "content": completion.content}],
        reasoning=completion.reasoning,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        reference=planned.prompt.reference,
        slice=planned.prompt.slice,
    )


def _failure(planned: Planned, request: Request, completion: Completion) -> dict[str, Any]:
    return {
        "id": request.id,
        "prompt_id": planned.prompt.id,
        "sample": planned.number,
        "error": completion.error,
        "message": completion.message,
    }
