"""Stage 1: prompts -> samples.jsonl. Loads the prompts, asks the teacher for what the journal lacks, writes the view of it.

Everything paid for is in the journal before it is looked at; the samples are that journal read in the plan's order, so an
interrupted and resumed run equals an uninterrupted one byte for byte.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqdistill.config import Recipe, settings
from seqdistill.engines import Completion, Pace, open_engine
from seqdistill.engines.models import identity
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.generate.plan import Planned, plan_requests, teacher_name
from seqdistill.generate.samples import write_samples
from seqdistill.journal import Journal, ask_engine, lacking
from seqdistill.progress import Progress
from seqdistill.prompt_files import load_prompts
from seqdistill.runs import Run, StageRecord
from seqdistill.templates import Template, load_template


@dataclass(frozen=True)
class GenerateResult:
    """What the stage did, in counts; `path` is samples.jsonl."""

    prompts: int
    samples: int
    new: int
    reused: int  # from the journal, without asking
    failed: int
    finish_reasons: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float
    up_to_date: bool
    path: Path


def generate(run: Run, recipe: Recipe, progress: Progress) -> GenerateResult:
    """Asks the teacher and writes samples.jsonl, failures.jsonl and the manifest.

    Raises UsageError for bad input before anything is asked, and Incomplete when requests failed: the others are written,
    and running again asks only for those.
    """
    source, template = _prompts_file(recipe), load_template(recipe.task.template)
    with run.locked("generate"):
        record, model = _record(run, recipe, source, template)
        if record.up_to_date():
            return _result(run, up_to_date=True)
        for difference in record.differences():
            progress.note(f"generate: {difference}")
        prompts = load_prompts(source, template, recipe.generate.limit, progress)
        plan = plan_requests(prompts, recipe)
        record.begin()
        with Journal(run.file("generate", "journal.jsonl")) as journal:
            asked = asyncio.run(_ask(journal, model, plan, recipe, progress))
            counts = write_samples(run, journal, model, plan, asked.failed)
        record.finish(
            {"samples.jsonl": counts.samples, "failures.jsonl": counts.failed},
            status="incomplete" if counts.failed else "complete",
            config=asdict(recipe),
            counts={"prompts": len(prompts), "new": asked.new, "reused": counts.samples - asked.new, **asdict(counts)},
            teacher={"name": teacher_name(recipe.teacher), "identity": model, "engine": recipe.teacher.engine},
        )
    if counts.failed:
        reason = asked.stopped.message if asked.stopped else next(iter(asked.failed.values())).message
        raise Incomplete(
            f"{counts.failed} of {len(plan)} requests have no answer; the first reason: {reason}",
            f"see {run.file('generate', 'failures.jsonl')}; run again to retry {counts.failed}",
        )
    return _result(run, up_to_date=False)


def _prompts_file(recipe: Recipe) -> str:
    if recipe.task.prompts is None:
        raise UsageError("no prompts are given", "give --prompts FILE, or prompts in the recipe's [task]")
    return recipe.task.prompts


def _record(run: Run, recipe: Recipe, source: str, template: Template) -> tuple[StageRecord, str]:
    """What the stage's outputs depend on, and the teacher's identity."""
    model = identity(recipe.teacher)
    inputs = {"template": template.path} if template.path else {}
    named = {"task.prompts": source} if source.startswith("hf:") else {}
    if not named:
        if not Path(source).is_file():
            raise UsageError(f"{source}: no such file", "check the path; a path in a recipe is relative to the recipe")
        inputs["prompts"] = Path(source)
    own = {f"generate.{name}": value for name, value in settings(recipe.generate).items()}
    names = {"teacher.name": teacher_name(recipe.teacher), "teacher.identity": model}
    return StageRecord(run, "generate", {**own, **names, **named}, inputs), model


@dataclass
class _Asked:
    new: int
    failed: dict[str, Completion]  # by request id
    stopped: SeqdistillError | None  # what ended the asking before all was asked


async def _ask(journal: Journal, model: str, plan: list[Planned], recipe: Recipe, progress: Progress) -> _Asked:
    """Asks for what the journal lacks."""
    asked = _Asked(0, {}, None)
    settings = recipe.generate
    pace = Pace(
        concurrency=settings.concurrency,
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
        retries=settings.retries,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )

    missing = lacking(journal, model, [planned.request for planned in plan])
    if not missing:
        return asked
    engine = open_engine(recipe.teacher, pace)
    progress.start("asking the teacher", len(missing), "answers")
    try:
        async with aclosing(ask_engine(journal, model, missing, engine)) as completions:
            async for completion in completions:
                progress.advance()
                if completion.error is None:
                    asked.new += 1
                else:
                    asked.failed[completion.id] = completion
    except UsageError:
        raise
    except SeqdistillError as error:
        asked.stopped = error
    finally:
        progress.end()
        await engine.close()
    return asked


def _result(run: Run, *, up_to_date: bool) -> GenerateResult:
    """The result as the manifest tells it."""
    manifest: Mapping[str, Any] = run.manifest("generate") or {}
    counts = {key: value for key, value in manifest["counts"].items() if key != "errors"}
    if up_to_date:
        counts.update(new=0, reused=counts["samples"])
    path = run.file("generate", "samples.jsonl")
    return GenerateResult(**counts, usd=None, seconds=manifest["seconds"], up_to_date=up_to_date, path=path)
