"""Stage 1: prompts -> samples.jsonl. Loads the prompts, requests what the journal lacks, writes the samples.

Everything paid for is in the journal before it is looked at; the samples are that journal read in the plan's order, so an
interrupted and resumed run equals an uninterrupted one byte for byte.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines import PERMANENT_ERRORS
from seqdistill.engines.loading import neutralised_settings
from seqdistill.errors import Incomplete
from seqdistill.journal.budget import Source, spending, spent_since
from seqdistill.journal.repeated import cost_of_repeats
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.rights import check_training_allowed, rights_of, teachers_in, unknown_rights
from seqdistill.run_prompts import rounds_of
from seqdistill.runs import Run
from seqdistill.stages.generate.asking import Outcome, ask_teachers
from seqdistill.stages.generate.estimate import compare, places
from seqdistill.stages.generate.first_answers import CheckFirst
from seqdistill.stages.generate.inputs import Inputs
from seqdistill.stages.generate.plan import Planned
from seqdistill.stages.generate.samples import LOGPROBS, write_samples, write_token_logprobs


@dataclass(frozen=True)
class GenerateResult:
    """What the stage did, in counts; `path` is samples.jsonl."""

    prompts: int
    samples: int
    new: int
    reused: int  # from the journal, without a request
    failed: int
    finish_reasons: dict[str, int]
    think_only: int  # answers that are reasoning alone
    prompt_tokens: int
    completion_tokens: int
    usd: float | None  # what these samples cost, whenever they were paid; None: not known
    spent_usd: float | None  # what the run has paid in all: every stage, setting and teacher
    assumed_usd: float | None  # the upper bound of what may have been billed for answers that were lost
    seconds: float
    up_to_date: bool
    path: Path
    empty: int = 0  # answers without content, those that are reasoning alone included
    without_logprobs: int = 0  # answers for which log-probabilities were requested in vain


def generate(run: Run, recipe: Recipe, progress: Progress, check_first: CheckFirst | None = None) -> GenerateResult:
    """Prompts the teacher and writes samples.jsonl, failures.jsonl and the manifest.

    Raises UsageError for bad input before any request, what `check_first` says of the first answers before the others are
    requested, and Incomplete when more requests failed than may, or the budget is reached: the others are written, and
    running again requests only what is missing.
    """
    if is_imported(run, recipe):
        return _result(run, up_to_date=True)
    check_training_allowed(teachers_in(recipe))
    inputs = Inputs.of(run, recipe)
    if inputs.record.up_to_date():
        return _result(run, up_to_date=True, teachers=inputs.teachers)
    with run.locked("generate"), ExitStack() as stack:
        for difference in inputs.record.differences():
            progress.note(f"generate: {difference}")
        if run.manifest("generate") is None and (unknown := unknown_rights(teachers_in(recipe))):
            progress.note(f"generate: {unknown}")
        plan, others = inputs.plan(progress), inputs.others(stack)
        journal = stack.enter_context(Journal(run.file("generate", "journal.jsonl")))
        budget = stack.enter_context(
            spending(run, journal, inputs.teachers, recipe.generate.budget, progress, note_spent=False)
        )
        place = places({planned.prompt.id for planned in plan})
        wanted = ((planned.teacher, planned.request) for planned in plan)
        if again := cost_of_repeats(journal, wanted, place, batched=recipe.generate.batch):
            progress.note(f"generate: {again}")
        outcome = ask_teachers(journal, plan, recipe.generate, budget, progress, others, check_first)
        if error := _keeping_earlier(run, journal, plan, recipe, outcome):
            raise error
        with inputs.record.new_files(LOGPROBS) as new:
            counts = write_samples(new, journal, plan, recipe.generate, outcome.failed)
            logprobs = write_token_logprobs(new, journal, plan, recipe.generate)
        counts.without_logprobs = counts.samples - logprobs if recipe.generate.logprobs is not None else 0
        prompts = len({planned.prompt.id for planned in plan})
        incomplete = counts.failed > (0 if outcome.stopped else recipe.generate.may_fail * len(plan))
        inputs.record.finish(
            {
                "samples.jsonl": counts.samples,
                "failures.jsonl": counts.failed,
                **({LOGPROBS: logprobs} if logprobs else {}),
            },
            status="incomplete" if incomplete else "complete",
            config=asdict(recipe),
            counts={"prompts": prompts, "new": outcome.new, "reused": max(0, counts.samples - outcome.new), **asdict(counts)},
            spent_usd=budget.paid_usd if budget.is_priced else None,
            assumed_usd=budget.held_usd if budget.is_priced else None,
            teacher=_about(inputs),
            **({"pool": rounds} if (rounds := rounds_of(run)) else {}),
        )
        compare(run, inputs.record.fingerprint, counts, progress)
    if incomplete:
        raise _incomplete(run, outcome, counts.failed, len(plan))
    if counts.failed:
        progress.note(f"generate: {counts.failed} of {len(plan)} requests have no answer, as may_fail allows")
    return _result(run, up_to_date=False)


def _keeping_earlier(
    run: Run, journal: Journal, plan: Sequence[Planned], recipe: Recipe, outcome: Outcome
) -> Incomplete | None:
    """The error of an unfinished attempt with fewer answers than the finished run before it, whose samples then stay."""
    manifest = run.manifest("generate") or {}
    if manifest.get("status") != "complete":
        return None
    answered = sum(journal.holds(planned.teacher.identity, planned.request) for planned in plan)
    failed, earlier = len(plan) - answered, int(manifest["counts"].get("samples", 0))
    if failed <= (0 if outcome.stopped else recipe.generate.may_fail * len(plan)) or answered >= earlier:
        return None
    reason = outcome.stopped or next(iter(outcome.failed.values()))
    return Incomplete(
        f"{failed} of {len(plan)} requests have no answer; the first reason: {reason.message}; the {earlier} samples of the "
        "finished run before it are kept",
        (outcome.stopped.hint if outcome.stopped else "") or f"run again to retry {failed}",
    )


def is_up_to_date(run: Run, recipe: Recipe) -> bool:
    """Whether generate has nothing to do. Raises UsageError as it does."""
    return is_imported(run, recipe) or Inputs.of(run, recipe).record.up_to_date()


def is_imported(run: Run, recipe: Recipe) -> bool:
    """Whether `import` has done this stage: the recipe has nothing to send, no prompts or no teacher."""
    nothing_to_send = recipe.task.prompts is None or not (recipe.teacher.model or recipe.teachers)
    return nothing_to_send and bool((run.manifest("generate") or {}).get("imported"))


def _about(inputs: Inputs) -> dict[str, Any]:
    """The teachers as the manifest and the cards name them; of several, the names together and each alone."""
    each: list[dict[str, Any]] = [
        {"name": one.name, "identity": one.identity, "engine": one.config.engine, **asdict(rights_of(one.config))}
        | ({"neutralised": neutralised} if (neutralised := neutralised_settings(one.config)) else {})
        for one in inputs.teachers
    ]
    joined = {key: ", ".join(str(one[key]) for one in each) for key in ("name", "identity", "engine")}
    if len(each) > 1:
        return {**joined, "each": each}
    return each[0] | joined


def _incomplete(run: Run, outcome: Outcome, failed: int, planned: int) -> Incomplete:
    reason = outcome.stopped.message if outcome.stopped else next(iter(outcome.failed.values())).message
    hint = f"run again to retry {failed}"
    if all(completion.error in PERMANENT_ERRORS for completion in outcome.failed.values()):
        share = math.ceil(failed / planned * 1e4) / 1e4
        hint += f"; the same requests fail again: change prompts or settings first, or go without them: --may-fail {share:g}"
    hint = outcome.stopped.hint if outcome.stopped else hint
    where = run.file("generate", "failures.jsonl")
    return Incomplete(f"{failed} of {planned} requests have no answer ({where}); the first reason: {reason}", hint)


def _result(run: Run, *, up_to_date: bool, teachers: Sequence[Source] = ()) -> GenerateResult:
    """The result as the manifest holds it."""
    manifest: Mapping[str, Any] = run.manifest("generate") or {}
    counts = {key: value for key, value in manifest["counts"].items() if key != "errors"}
    if up_to_date:
        counts.update(new=0, reused=counts["samples"])
    facts: dict[str, Any] = {name: manifest.get(name) for name in ("spent_usd", "assumed_usd", "seconds")}
    if up_to_date and facts["spent_usd"] is not None:
        facts |= spent_since(run, "generate", {teacher.identity: teacher.price for teacher in teachers})
    return GenerateResult(**counts, **facts, up_to_date=up_to_date, path=run.file("generate", "samples.jsonl"))
