"""How each command's result is printed for a person: one function a result. `console` owns the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqdistill.console import Console, line, seconds, size, to_stdout, wrapped
from seqdistill.records import visible

if TYPE_CHECKING:
    from seqdistill.doctor import Check
    from seqdistill.export.draft import Draft
    from seqdistill.export.forms import Exported
    from seqdistill.family.curve import CurveResult
    from seqdistill.family.sweep import SweepResult
    from seqdistill.init import InitResult
    from seqdistill.picking import Picked
    from seqdistill.smoke import Forecast
    from seqdistill.stages.evaluate.compare import Comparison
    from seqdistill.stages.evaluate.drift import Drift
    from seqdistill.stages.evaluate.result import EvalResult
    from seqdistill.stages.filter.explain import Explanation
    from seqdistill.stages.filter.stage import FilterResult
    from seqdistill.stages.generate.estimate import Estimate
    from seqdistill.stages.generate.recorded import ImportResult
    from seqdistill.stages.generate.stage import GenerateResult
    from seqdistill.stages.train.ready import Preflight
    from seqdistill.stages.train.scored_targets import TargetsResult
    from seqdistill.stages.train.stage import TrainResult
    from seqdistill.status import Status


MIXED = ("references", "rationales", "edited")  # of the rows that train mixes in or weighs otherwise
BEST = {"loss": "lowest validation loss", "quality": "best answers to validation prompts", None: "best validation"}


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
            "empty": _empty(result),
            "log-probabilities": None
            if not result.without_logprobs
            else f"{result.without_logprobs:,} of {result.samples:,} answers have none: the endpoint leaves them out, "
            "and soft targets cannot be made of these",
            "tokens": tokens,
            "cost": None if result.usd is None else f"{result.usd:.4f} USD for these samples",
            "spent": None if result.spent_usd is None else f"{result.spent_usd:.4f} USD paid by this run in all",
            "lost": f"up to {result.assumed_usd:.4f} USD may be billed for answers that were lost or not counted"
            if result.assumed_usd
            else None,
            "file": result.path,
        },
    )


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
            "skipped": f"{result.skipped:,} with nothing to be learnt" if result.skipped else None,
            "no finish reason": f"{unended:,}, counted as stop" if unended else None,
            "not taken": f"{result.unread:,}, see failures.jsonl" if result.unread else None,
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
            "references": _differences(result.references),
            "labels": ", ".join(f"{name} {of['read']:,} -> {of['kept']:,}" for name, of in result.labels.items()) or None,
            "file": result.path,
        },
    )
    steps = [[step["step"], *(f"{step[name]:,}" for name in ("read", "rejected", "kept"))] for step in result.funnel]
    if result.rejected:
        console.table("", ("step", "read", "rejected", "kept"), steps)


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
            "stands for": instead or None,
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


def show_preflight(console: Console, found: "Preflight") -> None:
    _masked(console, found.first_rows)
    prompt, completion = found.prompt_tokens, found.completion_tokens
    memory = f"about {size(found.memory_bytes)}"
    if found.available_bytes is not None:
        memory += f" ({size(found.available_bytes)} free)"
    trained = "" if found.trained_parameters == found.parameters else f", {found.trained_parameters:,} of them trained"
    console.facts(
        "preflight: ready to train",
        {
            "rows": f"{found.rows:,} ({found.validation_rows:,} validation)",
            "left out": "; ".join(f"{count:,}: {reason}" for reason, count in found.unfit.items()) or None,
            "clipped": f"none; a row may have {found.limit:,} tokens",
            "prompt tokens": f"p50 {prompt.p50:,}, p95 {prompt.p95:,}, longest {prompt.most:,}",
            "answer tokens": f"p50 {completion.p50:,}, p95 {completion.p95:,}, longest {completion.most:,}",
            "each row": "an exact prompt, then the answer: both are in its tokens",
            "end of turn": f"{found.end_of_turn} (trained in every row)",
            "reasoning": f"trained before the answer in {found.reasoning_rows:,} rows" if found.reasoning_rows else None,
            "padding": found.pad or "none of its own",
            "token ids": f"up to {found.largest_id:,}; the model has embeddings for {found.embeddings:,}",
            "chat template": _templates(found.same_template),
            "generation config": "can be saved with the student",
            "method": found.method["name"],
            "targets": f"of {targets['rows']:,} rows" if (targets := found.method.get("targets")) else None,
            "mixed in": ", ".join(f"{count:,} {name}" for name in MIXED if (count := found.method.get(name))) or None,
            "pairs": f"{pairs['train']:,} to train on" if (pairs := found.method.get("pairs")) else None,
            "parameters": f"{found.parameters:,}{trained}",
            "packed rows": f"in {found.packed_sequences:,} sequences, and do not read one another (measured)"
            if found.packing_isolated
            else None,
            "steps": f"{found.steps:,}",
            "memory": memory,
            "time": "not measured with this method" if found.seconds is None else f"about {seconds(found.seconds)}",
        },
    )
    for note in found.notes:
        console.note(f"train: {note}")


def _templates(same: bool | None) -> str:
    if same is None:
        return "not compared: the teacher's is not here"
    return f"the teacher's writes the first prompt {'alike' if same else 'otherwise: see below'}"


def _masked(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Rows with what is trained in green and, where there is no colour, between >>> and <<<."""
    if console.as_json:
        return
    from rich.console import Console as RichConsole
    from rich.text import Text

    terminal = RichConsole()
    marks = ("", "") if terminal.color_system and not terminal.no_color else (">>>", "<<<")
    with to_stdout():
        terminal.print(Text.assemble("the loss is on ", (f"{marks[0]}this text{marks[1]}", "bold green"), " only"))
        for row in rows:
            print(visible(row["id"]))
            trained = f"{marks[0]}{visible(row['trained'])}{marks[1]}"
            terminal.print(Text.assemble((visible(row["given"]), "dim"), (trained, "bold green")), soft_wrap=True)


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


def show_export(console: Console, exported: "Exported") -> None:
    """What was written, how to serve it, and what its answers show."""
    share = exported.bytes / exported.student_bytes
    speed = exported.tokens_per_second
    console.facts(
        f"export: {exported.form}",
        {
            "file": exported.path,
            "size": f"{size(exported.bytes)}, {share:.0%} of the student as trained",
            "speed": None if speed is None else f"{speed:.0f} tokens/s for one of several requests at once, by llama.cpp here",
            "serve": exported.serve,
        },
    )
    if exported.proof and not console.as_json:
        with to_stdout():
            print("\n".join(wrapped(visible(line)) for line in exported.proof["verdict"]))


def show_draft(console: Console, draft: "Draft") -> None:
    """What the student saves its teacher as a draft model."""
    share = draft.assisted_passes / max(1, draft.passes)
    console.facts(
        f"export: draft model, on {draft.prompts:,} test prompts",
        {
            "same text": f"{draft.same:,} of {draft.prompts:,}",
            "teacher passes": f"{draft.assisted_passes:,} instead of {draft.passes:,} ({share:.0%})",
            "time": f"{seconds(draft.assisted_seconds)} instead of {seconds(draft.seconds)}, transformers on this machine",
            "vllm": draft.vllm,
        },
    )


def show_init(console: Console, result: "InitResult") -> None:
    prompts = f"{result.prompts:,}, {result.test_prompts:,} of them to test on" if result.run else None
    facts = {"files": ", ".join(result.files), "recorded prompts": prompts, "run": result.run, "next": result.next}
    console.facts(f"init: {result.folder}", facts)


def show_checks(console: Console, checks: "Sequence[Check]") -> None:
    """One finding after another: its state, what was found, and below it the fix."""
    if console.as_json:
        return
    width = min(max(len(one.name) for one in checks), 24)
    with to_stdout():
        for one in checks:
            print(f"{one.state:<4}  {visible(one.name):<{width}}  {visible(one.found)}")
            if one.fix:
                print(f"{'':<{width + 8}}-> {visible(one.fix)}")


def show_forecast(console: Console, forecast: "Forecast") -> None:
    """The whole run, from a smoke run."""
    rows = [
        [
            one.stage,
            seconds(one.smoke_seconds),
            "–" if one.seconds is None else seconds(one.seconds),
            "–" if one.usd is None else f"{one.usd:.4f}",
            size(one.bytes),
        ]
        for one in forecast.stages
    ]
    console.table("by stage", ["stage", f"these {forecast.smoke:,}", "all", "USD", "disk"], rows)
    console.facts(
        "the whole run, estimated",
        {
            "prompts": f"{forecast.prompts:,}, and {forecast.test_prompts:,} to test on",
            "time": seconds(forecast.seconds),
            "cost": None if forecast.usd is None else f"{forecast.usd:.4f} USD",
            "disk": size(forecast.bytes),
            "memory": f"{size(forecast.memory_bytes)} at the peak of a training step",
        },
    )


def show_eval(console: Console, result: "EvalResult") -> None:
    """The result of eval."""
    show_scores(console, "eval: up to date" if result.up_to_date else f"eval: done in {seconds(result.seconds)}", result)
    show_advice(console, result)


def show_scores(console: Console, title: str, result: "EvalResult") -> None:
    """The tables and the verdict."""
    console.table(title, result.columns, result.rows)
    if result.slice_rows:
        console.table(f"by slice, {result.columns[1]}", result.slice_columns, result.slice_rows)
    if result.cost_rows:
        console.table("latency and cost", result.cost_columns, result.cost_rows)
    if result.safety_rows:
        console.table("safety", result.safety_columns, result.safety_rows)
    if not console.as_json:
        with to_stdout():
            print("\n".join(_regressions(result)), end="")
            notes = result.cost_notes if result.cost_rows else []
            print("\n".join(wrapped(visible(line)) for line in (*notes, *result.verdict)))


def show_advice(console: Console, result: "EvalResult") -> None:
    """Where the report is, what to make of the scores, and, last, what to do."""
    if console.as_json:
        return
    advice = result.advice
    lines = [
        ("ship", f"{advice.ship.short}. {advice.ship.more}"),
        ("slices", ", ".join(f"{one.name} {one.decision}" for one in advice.slices)),
        ("saves", f"{advice.saves.short}. {advice.saves.more}"),
        *(("next", f"{step.text}{f' `{step.command}`' if step.command else ''}") for step in advice.next),
    ]
    with to_stdout():
        print(visible(f"report: {result.paths['report']}"))
        for name, text in lines:
            if text:
                print(wrapped(visible(text), f"{name}: "))


def show_status(console: Console, status: "Status", run: str) -> None:
    """A line for each stage, what is stale or failed below it, and the next command."""
    if console.as_json:
        return
    with to_stdout():
        print(visible(run))
        for one in status.stages:
            when = one.finished[:16].replace("T", " ") if one.finished else ""
            print(visible(f"  {one.stage:<8}  {one.state:<10}  {when:<16}  {one.facts}".rstrip()))
            for why in one.why:
                print(wrapped(visible(why), " " * 12))
        print(visible(f"next: {status.next}") if status.next else "next: nothing, everything is up to date")


def show_sweep(console: Console, result: "SweepResult") -> None:
    console.table("sweep: done", result.columns, result.rows)
    _said(console, result.verdict, result.paths["report"])


def show_curve(console: Console, result: "CurveResult") -> None:
    console.table("curve: done", result.columns, result.rows)
    console.table("what more rows would do", result.outlook_columns, result.outlook_rows)
    _said(console, result.verdict, result.paths["report"])


def _said(console: Console, sentences: Sequence[str], report: Any) -> None:
    if not console.as_json:
        with to_stdout():
            print("\n".join(wrapped(visible(line)) for line in sentences))
            print(visible(f"report: {report}"))


def show_drift(console: Console, found: "Drift") -> None:
    """What a server's log says of eval's promise."""
    console.facts(
        f"promise: {found.state}",
        {
            "checked": f"{found.n:,} answers of the student",
            "good enough": f"{found.good / found.n:.1%} [{found.low:.1%}, {found.high:.1%}], promised {found.target:.1%}",
            "mean": f"{found.mean:.1f} {found.metric}",
            "not counted": f"{found.below:,} below the threshold" if found.below else None,
        },
    )
    console.note(found.says)


def show_comparison(console: Console, found: "Comparison") -> None:
    console.table("compare: two students on the same prompts", found.columns, found.rows)
    if found.slice_rows:
        console.table(f"by slice, {found.columns[1]}", found.slice_columns, found.slice_rows)
    if not console.as_json:
        with to_stdout():
            for what in ("worse", "better"):
                print("\n".join(_moved(found, what)), end="")
            print("\n".join(wrapped(visible(line)) for line in found.verdict))


def _moved(found: "Comparison", what: str) -> Iterator[str]:
    """The prompts that moved most; ends with an empty line where there are any."""
    items, names = found.scores[what], found.scores["compared"]
    if not items:
        return
    yield f"{what}: {len(items)} of {found.scores['n']} prompts, the first {min(len(items), WORST)}"
    for item in items[:WORST]:
        yield ""
        named = f"{item['id']} ({item['slice']})" if item["slice"] else item["id"]
        scores = ", ".join(f"{names[role]} {score:.0f}" for role, score in item["scores"].items())
        yield line(f"{named}: {scores}", " ")
        texts = {"prompt": item["prompt"], "reference": item["reference"]}
        texts |= {names[role]: text for role, text in item["answers"].items()}
        yield from (line(text, f"   {visible(name)[:16]:<10} ") for name, text in texts.items() if text is not None)
    yield ""
    yield ""


WORST = 3  # regressions printed; the others are in scores.json and in the report


def _regressions(result: "EvalResult") -> Iterator[str]:
    """The worst regressions, each in a few lines of the terminal's width; ends with an empty line where there are any."""
    worst = result.regressions[:WORST]
    if not worst:
        return
    yield from wrapped(f"regressions: {result.regressed}; the worst {len(worst)}").split("\n")
    for item in worst:
        scores = ", ".join(f"{role} {item['scores'][role]:.0f}" for role in ("student", *item["better"]))
        yield ""
        named = f"{item['id']} ({item['slice']})" if item["slice"] else item["id"]
        yield line(f"{named}: {scores}", " ")
        texts = {"prompt": item["prompt"], "reference": item["reference"], **item["answers"]}
        for row in item["training"][:1]:
            texts["trained on"] = f"{row['similarity']:.2f} {row['prompt']} -> {row['completion']}"
        for row in item["removed"][:1]:
            texts["removed"] = f"{row['similarity']:.2f} by {row['rule']} ({row['reason']}): {row['prompt']}"
        yield from (line(text, f"   {name:<10} ") for name, text in texts.items() if text is not None)
        yield wrapped(visible(item["why"]), "   why        ")
    yield ""
    yield ""


def _differences(references: Mapping[str, Any]) -> str | None:
    """How often the teacher's answers differ from the references; None where none could be compared."""
    compared, kept = references["compared"], references["kept"]
    if not compared:
        return None
    share = f"{references['differ'] / compared:.1%}"
    return f"the teacher differs from {references['differ']:,} of {compared:,} ({share}), of the kept from {kept['differ']:,}"


def _empty(result: "GenerateResult") -> str | None:
    """How many answers hold nothing, and what to do about it."""
    empty = max(result.empty, result.think_only)
    if not empty:
        return None
    alone = f", {result.think_only:,} of them reasoning alone" if result.think_only else ""
    action = "raise --max-tokens" if "length" in result.finish_reasons else "look at their raw replies in the journal"
    return f"{empty:,} answers{alone}: {action}, or run again with --ask-again empty"
