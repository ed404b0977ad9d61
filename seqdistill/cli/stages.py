"""The commands that do stages: each one calls the library and shows what it returns."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from seqdistill import api, show
from seqdistill.cli.flags import BUDGET, MARKDOWN, OF_EVAL, SHARED, STAGE_TABLES, argument, command, option
from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import placed
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import STAGES, Run


@command(
    "generate",
    (*SHARED, "generate"),
    "Get the teacher's answers; nothing is paid for twice.\n\n"
    "Every answer is journalled before it is parsed. After a crash, or with more prompts, only what is missing is requested.",
    [
        option("dry_run", bool, False, "show the first prompt, tokens, cost and time; send nothing"),
        option("probe", int, 0, "send N requests and estimate tokens, cost and time from the answers", "N", min=0),
        option("pool", str, None, "first choose prompts from this file: new ones, on which the student is unsure", "FILE"),
        option("next_", int, None, "with --pool: how many to choose, within the budget", "N", min=1),
        option("pick", str, None, "with --pool: uncertain | random [uncertain]", "HOW", choices=("uncertain", "random")),
    ],
    examples="seqdistill generate runs/mine -c mytask/recipe.toml --dry-run\n"
    "seqdistill generate runs/mine -c mytask/recipe.toml --budget 25\n"
    "seqdistill generate runs/mine --ask-again empty",
    creates_run=True,
    is_remembered=lambda options: not (options["dry_run"] or options["probe"]),
)
def _generate(
    run: Run,
    recipe: Recipe,
    console: Console,
    dry_run: bool = False,
    probe: int = 0,
    pool: str | None = None,
    next_: int | None = None,
    pick: str | None = None,
) -> dict[str, Any]:
    if (pool is None) != (next_ is None) or (pick and pool is None):
        raise UsageError("--pool, --next and --pick belong together", "for example: --pool more.jsonl --next 200")
    if dry_run or probe:
        if pool is not None:
            raise UsageError("--pool with --dry-run or --probe: choosing prompts changes the run", "leave one of them out")
        expected = api.estimate(run.path, recipe, probe=probe, progress=console)
        show.show_estimate(console, expected)
        return asdict(expected)

    picked = None
    if pool is not None and next_ is not None:
        picked = api.pick(run.path, pool, recipe, count=next_, by=pick or "uncertain", progress=console)
        show.show_picked(console, picked)
    result = api.generate(run.path, recipe, progress=console)
    show.show_generate(console, result)
    return asdict(result) | ({"picked": asdict(picked)} if picked else {})


@command(
    "import",
    (*SHARED, "generate"),
    "Use recorded completions as the teacher's answers.\n\n"
    "Reads logs, batch files, fine-tuning files, chat exports. Adds to earlier imports; never replaces generated samples.",
    [argument("files", list[Path], "FILE...", "JSONL, JSON, CSV or Parquet: logs, exports, data sets")],
    examples="seqdistill import runs/recorded requests-and-responses.jsonl\n"
    "seqdistill import runs/recorded batch-input.jsonl batch-output.jsonl",
    creates_run=True,
)
def _import(run: Run, recipe: Recipe, console: Console, files: list[Path]) -> dict[str, Any]:
    result = api.import_recorded(run.path, files, recipe, progress=console)
    show.show_import(console, result)
    return asdict(result)


@command(
    "filter",
    ("task", "filter", "judge", BUDGET),
    "Keep the samples worth training on; each rejection has a reason.",
    [option("explain", str, None, "only explain one row, or the rows of one prompt: which rule rejected it, and why", "ID")],
    examples="seqdistill filter runs/mine\n"
    "seqdistill filter runs/mine --score-by reference\n"
    "seqdistill filter runs/mine --explain ID",
    is_remembered=lambda options: not options["explain"],
)
def _filter(run: Run, recipe: Recipe, console: Console, explain: str | None = None) -> dict[str, Any]:
    if explain is not None:
        stories = api.explain(run.path, explain, recipe, progress=console)
        for explained in stories:
            show.show_explanation(console, explained)
        return asdict(stories[0]) if len(stories) == 1 else {"stories": [asdict(explained) for explained in stories]}

    result = api.filter(run.path, recipe, progress=console)
    show.show_filter(console, result)
    return asdict(result)


@command(
    "targets",
    ("task", "teacher"),
    "Store a teacher's token distributions, for train --method soft.\n\n"
    "For rows that came without log-probabilities; the teacher runs on this machine.",
    [
        option("top", int, 20, "likeliest tokens to store for each token [20]", "K", min=1),
        option("model", str, None, "the teacher's files, where the recipe's teacher is an endpoint", "MODEL"),
    ],
    examples="seqdistill targets runs/recorded --model Qwen/Qwen3-8B",
)
def _targets(run: Run, recipe: Recipe, console: Console, top: int, model: str | None) -> dict[str, Any]:
    result = api.targets(run.path, recipe, top=top, model=model, progress=console)
    show.show_targets(console, result)
    return asdict(result)


@command(
    "train",
    ("task", "teacher", "student", "train"),
    "Train the student on the rows that filter kept.\n\nCtrl-C saves the current step; the same command resumes there.",
    [option("preflight", bool, False, "check and show what would be trained on, with memory and time; train nothing")],
    examples="seqdistill train runs/mine --preflight\n"
    "seqdistill train runs/mine --student shrink:8 --method soft\n"
    "seqdistill train runs/mine --set train.args.learning_rate=1e-4",
    is_remembered=lambda options: not options["preflight"],
)
def _train(run: Run, recipe: Recipe, console: Console, preflight: bool = False) -> dict[str, Any]:
    if preflight:
        found = api.preflight(run.path, recipe, progress=console)
        show.show_preflight(console, found)
        return asdict(found)

    if int(os.environ.get("RANK", "0")) > 0:  # torchrun's or accelerate's: the first process speaks for all
        api.train(run.path, recipe, progress=Silent())
        raise typer.Exit
    result = api.train(run.path, recipe, progress=console)
    show.show_train(console, result)
    return asdict(result)


@command(
    "eval",
    (*SHARED, "student", "judge", "eval", BUDGET),
    "Compare base, student, teacher and ceiling on the test prompts.\n\n"
    "The base is the student before training, the ceiling the teacher prompted again. Prints tables and a verdict, and writes "
    "RUN/eval/report.html.",
    [
        option("markdown", Path, None, MARKDOWN, "FILE"),
        option(
            "compare",
            Path,
            None,
            "only compare the students of two evaluated runs, paired by prompt",
            "OTHER_RUN",
        ),
        option(
            "shadow",
            Path,
            None,
            "only check the promise of --target on a server's log, RUN/serve/log.jsonl; exit 1 where it is broken",
            "LOG",
        ),
    ],
    examples="seqdistill eval runs/mine --target 0.9\n"
    "seqdistill eval runs/mine --fail-under kept=0.9 --markdown result.md\n"
    "seqdistill eval runs/new --compare runs/old",
    is_remembered=lambda options: not (options["compare"] or options["shadow"]),
    reads_finished={
        "compare": ("task.primary", "eval.margin", "eval.fail_under", "eval.resamples", "eval.seed"),
        "shadow": ("eval.metric",),
    },
)
def _eval(
    run: Run,
    recipe: Recipe,
    console: Console,
    markdown: Path | None = None,
    compare: Path | None = None,
    shadow: Path | None = None,
) -> dict[str, Any]:
    from seqdistill.stages.evaluate.conditions import check_result
    from seqdistill.stages.evaluate.markdown import write_comparison

    if shadow is not None and (compare or markdown):
        other = "--compare" if compare else "--markdown"
        raise UsageError(
            f"--shadow with {other}: it reads a server's log alone, and {other} would do nothing", "leave one of them out"
        )
    if shadow is not None:
        drift = api.drift(run.path, shadow, recipe, progress=console)
        show.show_drift(console, drift)
        if drift.state == "broken":
            raise SeqdistillError(drift.says, "the promise is in eval/deferral.json", asdict(drift))
        return asdict(drift)

    if compare is not None:
        found = api.compare(run.path, compare, recipe, progress=console)
        show.show_comparison(console, found)
        if markdown:
            write_comparison(markdown, found)
        check_result(found.scores, recipe.eval.fail_under, found.scores)
        return found.scores

    result = api.evaluate(run.path, recipe, progress=console)
    show.show_eval(console, result)
    if markdown:
        api.write_results(run.path, markdown=markdown)
    named = result.named | asdict(result)
    check_result(result.scores, recipe.eval.fail_under, named)
    return named


@command(
    "run",
    (*SHARED, "student", BUDGET),
    "Run all four stages; skip what is up to date.\n\nAll stages are checked before the first request is paid.",
    [
        option("limit", int, None, "only the first N prompts and N test prompts", "N", min=1),
        option("from_", str, STAGES[0], f"first stage: {' | '.join(STAGES)} [{STAGES[0]}]", "STAGE", choices=STAGES),
        option("until", str, STAGES[-1], f"last stage: {' | '.join(STAGES)} [{STAGES[-1]}]", "STAGE", choices=STAGES),
        option("force", bool, False, "redo stages that are up to date; pays for no answer again"),
        option(
            "smoke",
            int,
            None,
            "N prompts through all stages, at most 10 training steps; then estimate the whole run's time, cost, disk, memory",
            "N",
            min=1,
        ),
    ],
    examples="seqdistill run runs/notices -c notices\n"
    "seqdistill run runs/smoke -c mytask/recipe.toml --smoke 20\n"
    "seqdistill run runs/mine -c mytask/recipe.toml --budget 25",
    reads=STAGE_TABLES,
    creates_run=True,
    sets={"limit": ("generate", "eval")},
)
def _run(
    run: Run,
    recipe: Recipe,
    console: Console,
    from_: str,
    until: str,
    force: bool,
    smoke: int | None,
) -> dict[str, Any]:
    from seqdistill.stages.evaluate.conditions import check_result

    shown: dict[str, Callable[[Console, Any], None]] = {
        "generate": show.show_generate,
        "filter": show.show_filter,
        "train": show.show_train,
        "eval": show.show_eval,
        "forecast": show.show_forecast,
    }
    results = api.run(
        run.path,
        recipe,
        first=from_,
        last=until,
        force=force,
        smoke=smoke,
        on_result=lambda name, result: shown[name](console, result),
        progress=console,
    )
    named = {name: (result.named if name == "eval" else {}) | asdict(result) for name, result in results.items()}
    if "eval" in results:
        check_result(results["eval"].scores, recipe.eval.fail_under, named)
    return named


@command(
    "sweep",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train several students; name the cheapest that passes.\n\n"
    "All learn from the same answers; nothing is requested of the teacher twice.",
    [
        argument("more", list[str], "MODEL...", "further students", None),
        option("student", list[str], None, "a student: shrink:N, hub id, folder, or run:RUN; takes several", "MODEL"),
        option("form", list[str], None, "also evaluate each student in this form of export, as gguf:q4_0; repeatable", "FORM"),
    ],
    examples="seqdistill sweep runs/mine --student shrink:4 shrink:8 shrink:12",
    reads=STAGE_TABLES,
)
def _sweep(
    run: Run,
    recipe: Recipe,
    console: Console,
    more: list[str] | None,
    student: list[str] | None,
    form: list[str] | None,
) -> dict[str, Any]:
    students = [placed(name, Path.cwd()) for name in (*(student or ()), *(more or ()))]
    result = api.sweep(run.path, recipe, students=students, forms=form or (), progress=console)
    show.show_sweep(console, result)
    if result.failed:
        reasons = "\n".join(f"{name} failed: {reason}" for name, reason in result.failed.items())
        raise SeqdistillError(reasons, "fix it, or leave it out; run again: what is finished is skipped", asdict(result))
    return asdict(result)


@command(
    "curve",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train on 1/8 to all of the rows: would more data help?",
    [option("repeats", int, 2, "further trainings on other eighths: how much one varies by chance [2]", "N", min=0, max=7)],
    examples="seqdistill curve runs/mine",
    reads=STAGE_TABLES,
)
def _curve(run: Run, recipe: Recipe, console: Console, repeats: int) -> dict[str, Any]:
    result = api.curve(run.path, recipe, repeats=repeats, progress=console)
    show.show_curve(console, result)
    return asdict(result)
