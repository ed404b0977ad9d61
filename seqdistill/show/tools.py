"""How the results of the commands beside the stages are printed: status, smoke, sweep, curve, export, init, doctor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqdistill.console import Console, seconds, size, to_stdout, wrapped
from seqdistill.records import visible

if TYPE_CHECKING:
    from seqdistill.doctor import Check
    from seqdistill.export.draft import Draft
    from seqdistill.export.forms import Exported
    from seqdistill.family.curve import CurveResult
    from seqdistill.family.sweep import SweepResult
    from seqdistill.init import InitResult
    from seqdistill.smoke import Forecast
    from seqdistill.states import Status


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


def show_sweep(console: Console, result: "SweepResult") -> None:
    console.table("sweep: done", result.columns, result.rows)
    _print_verdict(console, result.verdict, result.paths["report"])


def show_curve(console: Console, result: "CurveResult") -> None:
    console.table("curve: done", result.columns, result.rows)
    console.table("what more rows would do", result.outlook_columns, result.outlook_rows)
    _print_verdict(console, result.verdict, result.paths["report"])


def _print_verdict(console: Console, sentences: Sequence[str], report: Any) -> None:
    if not console.as_json:
        with to_stdout():
            print("\n".join(wrapped(visible(line)) for line in sentences))
            print(visible(f"report: {report}"))


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
