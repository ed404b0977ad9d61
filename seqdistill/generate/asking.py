"""Asking the teachers for what the journal lacks: how hard, within which budget, and once more for what was cut off.

Decides which requests are sent. What was answered is in the journal when this returns.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from seqdistill.budget import Purse, ask_within
from seqdistill.config import GenerateConfig
from seqdistill.engines import Completion, Pace, open_engine
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.generate.plan import Planned, Teacher, with_more_tokens
from seqdistill.journal import Journal, Missing, answer, lacking
from seqdistill.progress import Progress


@dataclass
class Asked:
    """What came of the asking."""

    new: int = 0
    failed: dict[str, Completion] = field(default_factory=dict)  # by request id
    stopped: SeqdistillError | None = None  # what ended the asking before all was asked


def ask_teachers(
    journal: Journal,
    plan: Sequence[Planned],
    asked: GenerateConfig,
    purse: Purse,
    progress: Progress,
    others: Sequence[Journal] = (),
) -> Asked:
    """Asks for what neither the journal nor another run's has. Raises UsageError for what no request can survive."""
    result = Asked()
    _round(journal, plan, asked, purse, progress, others, result)
    if asked.retry_truncated is not None and result.stopped is None:
        again = [with_more_tokens(one, asked) for one in plan if cut_off(journal, one)]
        _round(journal, again, asked, purse, progress, others, result)
    return result


def cut_off(journal: Journal, planned: Planned) -> bool:
    """Whether the journal holds an answer that ended at the token limit."""
    return answer(journal, planned.teacher.identity, planned.request, {}).finish_reason == "length"


def pace_of(asked: GenerateConfig) -> Pace:
    """How hard the teachers' engines may push."""
    return Pace(
        concurrency=asked.concurrency,
        timeout=asked.timeout,
        connect_timeout=asked.connect_timeout,
        retries=asked.retries,
        requests_per_minute=asked.requests_per_minute,
        tokens_per_minute=asked.tokens_per_minute,
        resend=asked.budget is None,  # a lost answer may be billed, so within a hard cap it is not asked for twice at once
    )


def _round(
    journal: Journal,
    plan: Sequence[Planned],
    asked: GenerateConfig,
    purse: Purse,
    progress: Progress,
    others: Sequence[Journal],
    result: Asked,
) -> None:
    """One request for each planned sample, teacher by teacher."""
    for teacher in {planned.teacher.name: planned.teacher for planned in plan}.values():
        requests = [planned.request for planned in plan if planned.teacher is teacher]
        missing = lacking(journal, teacher.identity, requests, others)
        if missing and result.stopped is None:
            asyncio.run(_ask(journal, teacher, missing, asked, purse, progress, result))


async def _ask(
    journal: Journal,
    teacher: Teacher,
    missing: Missing,
    asked: GenerateConfig,
    purse: Purse,
    progress: Progress,
    result: Asked,
) -> None:
    engine = open_engine(teacher.config, pace_of(asked))
    progress.start(f"asking {teacher.name}", len(missing), "answers")
    paid_before, done = purse.spent_usd, 0
    try:
        async with aclosing(ask_within(purse, journal, teacher.identity, missing, engine)) as completions:
            async for completion in completions:
                done += 1
                if completion.error is None:
                    result.new += 1
                else:
                    result.failed[completion.id] = completion
                progress.advance(1, _cost(purse, paid_before, done, len(missing)))
    except UsageError:
        raise
    except SeqdistillError as error:
        result.stopped = error
    finally:
        progress.end()
        await engine.close()


def _cost(purse: Purse, paid_before: float, done: int, total: int) -> dict[str, str]:
    """What is shown beside the bar: paid so far, and what it will be at this rate."""
    if not purse.prices:
        return {}
    projected = paid_before + (purse.spent_usd - paid_before) * total / done
    return {"cost": f"{purse.spent_usd:.4f} USD", "projected": f"{projected:.4f} USD"}
