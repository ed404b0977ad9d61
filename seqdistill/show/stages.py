"""How the results of generate, import, filter, targets and train are printed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqdistill.console import Console, seconds

if TYPE_CHECKING:
    from seqdistill.picking import Picked
    from seqdistill.stages.filter.explain import Explanation
    from seqdistill.stages.filter.stage import FilterResult
    from seqdistill.stages.generate.extrapolation import Estimate
    from seqdistill.stages.generate.recorded import ImportResult
    from seqdistill.stages.generate.stage import GenerateResult
    from seqdistill.stages.train.scored_targets import TargetsResult
    from seqdistill.stages.train.stage import TrainResult


def show_generate(console: Console, result: "GenerateResult") -> None:
    tokens = f"{result.prompt_tokens:,} prompt + {result.completion_tokens:,} completion"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.finish_reasons.items())
    console.facts(
        "generate: up to date" if result.up_to_date else f"generate: done in {seconds(result.seconds)}",
        {
            "prompts": f"{result.prompts:,}",
            "samples": f"{result.samples:,} ({result.new:,} new, {result.reused:,} from the journal)",
            "failed": f"{result.failed:,}" if result.failed else None,
            "finished by": reasons,
            "empty": _empty_fact(result),
            "log-probabilities": None
            if not result.without_logprobs
            else f"{result.without_logprobs:,} of {result.samples:,} answers have none: the endpoint omits them, "
            "and soft targets cannot be made of these",
            "tokens": tokens,
            "cost": None if result.usd is None else f"{result.usd:.4f} USD for these samples",
            "spent": None if result.spent_usd is None else f"{result.spent_usd:.4f} USD paid by this run in all",
            "lost": f"up to {result.assumed_usd:.4f} USD may be billed for answers that were lost, filtered or not counted"
            if result.assumed_usd
            else None,
            "file": result.path,
        },
    )


def _empty_fact(result: "GenerateResult") -> str | None:
    """How many answers hold nothing, and what to do about it."""
    empty = max(result.empty, result.think_only)
    if not empty:
        return None
    alone = f", {result.think_only:,} of them reasoning alone" if result.think_only else ""
    action = "raise --max-tokens" if "length" in result.finish_reasons else "look at their raw replies in the journal"
    return f"{empty:,} answers{alone}: {action}, or run again with --ask-again empty"


def show_picked(console: Console, picked: "Picked") -> None:
    if picked.resumes:
        return

    def shares(chosen: float | None, of_all: float | None) -> str | None:
        if chosen is None:
            return None
        return f"{chosen:.2f} on average" + ("" if of_all is None else f", of all candidates {of_all:.2f}")

    left_out = ", ".join(
        f"{count:,} {why}"
        for count, why in (
            (picked.prompted, "prompted already"),
            (picked.tested, "hold a test item"),
            (picked.unanswered, "not answered by the student"),
        )
        if count
    )
    how = "at random" if picked.by == "random" else "unsure and new" if picked.confidence is not None else "new"
    console.facts(
        f"generate: choice {picked.round} from the pool",
        {
            "chosen": f"{picked.prompts:,} of {picked.pool:,} prompts, {how}",
            "left out": left_out or None,
            "confidence": shares(picked.confidence, picked.confidence_of_all),
            "novelty": shares(picked.novelty, picked.novelty_of_all),
        },
    )


def show_estimate(console: Console, estimate: "Estimate") -> None:
    basis = f"from {estimate.answers:,} real answers" if estimate.answers else "if every answer were as long as max_tokens"
    for message in estimate.first_prompt:
        console.facts(f"first prompt, {message['role']}", {"": message["content"]})
    console.facts(
        "generate: estimate",
        {
            "prompts": f"{estimate.prompts:,}",
            "requests": f"{estimate.requests:,} ({estimate.missing:,} not answered yet)",
            "tokens": f"{estimate.prompt_tokens:,} prompt + {estimate.completion_tokens:,} completion, {basis}",
            "cost": None if estimate.usd is None else f"{estimate.usd:.4f} USD ({estimate.missing_usd:.4f} still to be paid)",
            "time": None if estimate.missing_seconds is None else f"{seconds(estimate.missing_seconds)} to go",
        },
    )


def show_import(console: Console, result: "ImportResult") -> None:
    unended = result.without_finish_reason
    console.facts(
        "import: done",
        {
            "read": f"{result.read:,}",
            "new": f"{result.new:,} ({result.known:,} were known"
            + (f", {result.updated:,} of them updated)" if result.updated else ")"),
            "matched": None if result.matched is None else f"{result.matched:,} to the task's prompts or template",
            "skipped": f"{result.skipped:,} marked as bad or with nothing to learn from" if result.skipped else None,
            "withdrawn": f"{result.taken_back:,}, corrected or rated below 0" if result.taken_back else None,
            "no finish reason": f"{unended:,}, counted as stop" if unended else None,
            "unreadable": f"{result.unread:,}, see failures.jsonl" if result.unread else None,
            "teachers": ", ".join(result.teachers),
            "samples": f"{result.samples:,}",
            "file": result.path,
        },
    )


def show_filter(console: Console, result: "FilterResult") -> None:
    rules = ", ".join(f"{count:,} {rule}" for rule, count in result.by_rule.items() if count)
    console.facts(
        "filter: up to date" if result.up_to_date else "filter: done",
        {
            "read": f"{result.read:,}",
            "kept": f"{result.kept:,} ({result.train:,} train, {result.validation:,} validation)",
            "rejected": f"{result.rejected:,}" + (f": {rules}" if rules else ""),
            "references": _difference_fact(result.references),
            "labels": ", ".join(f"{name} {of['read']:,} -> {of['kept']:,}" for name, of in result.labels.items()) or None,
            "file": result.path,
        },
    )
    steps = [[step["step"], *(f"{step[name]:,}" for name in ("read", "rejected", "kept"))] for step in result.funnel]
    if result.rejected:
        console.table("", ("step", "read", "rejected", "kept"), steps)


def _difference_fact(references: Mapping[str, Any]) -> str | None:
    """How often the teacher's answers differ from the references; None where none could be compared."""
    compared, kept = references["compared"], references["kept"]
    if not compared:
        return None
    share = f"{references['differ'] / compared:.1%}"
    return f"the teacher differs from {references['differ']:,} of {compared:,} ({share}), of the kept from {kept['differ']:,}"


def show_explanation(console: Console, explained: "Explanation") -> None:
    from seqdistill.stages.filter.rejection import in_words

    instead = ", ".join(f"{row['id']} ({row['rule']})" for row in explained.instead_of)
    console.facts(
        f"{explained.sample.id}: in {explained.where}.jsonl",
        {
            "prompt": explained.sample.prompt[-1]["content"],
            "completion": explained.sample.text,
            "passed": ", ".join(explained.passed) or None,
            "rejected by": explained.rule,
            "reason": explained.reason,
            "setting": f"{in_words(explained.would_keep)} would have kept it" if explained.would_keep else None,
            "kept instead": explained.kept_by and f"{explained.kept_by.id}: {explained.kept_by.text}",
            "kept instead of": instead or None,
        },
    )


def show_targets(console: Console, result: "TargetsResult") -> None:
    console.facts(
        "targets: up to date" if result.up_to_date else f"targets: done in {seconds(result.seconds)}",
        {
            "rows": f"{result.rows:,}",
            "tokens": f"{result.tokens:,}",
            "left out": f"{result.left_out:,}" if result.left_out else None,
            "file": result.path,
        },
    )


BEST = {"loss": "lowest validation loss", "quality": "best answers to validation prompts", None: "best validation"}


def show_train(console: Console, result: "TrainResult") -> None:
    losses = {"train": result.train_loss, "validation": result.validation_loss}
    console.facts(
        "train: up to date" if result.up_to_date else f"train: done in {seconds(result.seconds)}",
        {
            "rows": f"{result.rows:,}",
            "steps": f"{result.steps:,} ({result.epochs:g} epochs)",
            "best step": f"{result.best_step:,} ({BEST[result.best_by]})" if result.best_step else None,
            "longest row": f"{result.max_length:,} tokens",
            "parameters": f"{result.parameters:,}",
            "loss": ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items() if loss is not None) or "not logged",
            "model": result.path,
        },
    )
