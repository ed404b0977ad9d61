"""The commands that do stages: each one calls the library and shows what it returns."""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from seqdistill import api, show
from seqdistill.cli.flags import BUDGET, OF_EVAL, SHARED, LimitOption, MarkdownOption, command, completions, own
from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import placed
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import STAGES, Run

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="show the first prompt, tokens, cost and time; send nothing")]
ProbeOption = Annotated[
    int, typer.Option("--probe", metavar="N", min=0, help="a dry run that really sends N requests, for a better estimate")
]
PoolOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--pool",
        metavar="FILE",
        help="first choose prompts from here, where the student is unsure and what is new; they become prompts of the run",
    ),
]
NextOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--next", metavar="N", min=1, help="with --pool: how many are chosen, under the budget"),
]
PickOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--pick",
        metavar="HOW",
        help="with --pool: uncertain | random, to compare with [uncertain]",
        autocompletion=completions(("uncertain", "random")),
    ),
]
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="JSONL, JSON, CSV or Parquet: logs, exports, data sets")
]
ExplainOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--explain",
        metavar="ID",
        help="explain a row, or a prompt's rows, instead: steps, rule, reason, what kept it",
    ),
]
CompareOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--compare",
        metavar="OTHER_RUN",
        help="compare the students of two finished evals instead, paired by prompt; runs no model",
    ),
]
ShadowOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--shadow",
        metavar="LOG",
        help="check eval's promise on a server's log instead, RUN/serve/log.jsonl; runs no model; exit 1 where it is broken",
    ),
]
TopOption = Annotated[int, typer.Option("--top", metavar="K", min=1, help="likeliest tokens stored at each token")]
ModelOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", metavar="MODEL", help="the teacher's files, where the recipe's teacher is an endpoint"),
]
PreflightOption = Annotated[
    bool, typer.Option("--preflight", help="check all that is trained on, show rows, memory and time; train nothing")
]
StudentsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--student", metavar="MODEL", help="a student: shrink:N, a hub id, a folder, run:RUN; name several"),
]
FormOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--form", metavar="FORM", help="each student also in this form of export, like gguf:q4_0; repeat it"),
]
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", metavar="N", min=0, max=7, help="further trainings on other eighths: the noise of a training"),
]
MoreStudentsArgument = Annotated[Optional[list[str]], typer.Argument(metavar="MODEL", help="further students")]  # noqa: UP045
_ESTIMATE = [own("dry_run", DryRunOption, False), own("probe", ProbeOption, 0)]


@command(
    "generate",
    (*SHARED, "generate"),
    "Sample the teacher's answers; none is requested twice.",
    [*_ESTIMATE, own("pool", PoolOption, None), own("next_", NextOption, None), own("pick", PickOption, None)],
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
    checked: bool = False,
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
    result = api.generate(run.path, recipe, checked=checked, progress=console)
    show.show_generate(console, result)
    return asdict(result) | ({"picked": asdict(picked)} if picked else {})


@command(
    "import",
    (*SHARED, "generate"),
    "Take recorded completions as the teacher's; filter comes next.",
    [own("files", FilesArgument)],
)
def _import(run: Run, recipe: Recipe, console: Console, files: list[Path]) -> dict[str, Any]:
    result = api.import_recorded(run.path, files, recipe, progress=console)
    show.show_import(console, result)
    return asdict(result)


@command(
    "filter",
    ("task", "filter", "judge", BUDGET),
    "Keep what is worth learning, with reasons for the rest.",
    [own("explain", ExplainOption, None)],
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
    "Score filter's rows by a local teacher, for train --method soft.",
    [own("top", TopOption, 20), own("model", ModelOption, None)],
)
def _targets(run: Run, recipe: Recipe, console: Console, top: int, model: str | None) -> dict[str, Any]:
    result = api.targets(run.path, recipe, top=top, model=model, progress=console)
    show.show_targets(console, result)
    return asdict(result)


@command(
    "train",
    ("task", "teacher", "student", "train"),
    "Train the student on the teacher's completions.",
    [own("preflight", PreflightOption, False)],
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
    "Base, student, teacher and ceiling side by side.",
    [own("markdown", MarkdownOption, None), own("compare", CompareOption, None), own("shadow", ShadowOption, None)],
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

    if shadow is not None:
        drift = api.drift(run.path, shadow, recipe, progress=console)
        if drift.state == "broken":
            raise SeqdistillError(drift.says, "the promise is in eval/deferral.json")
        show.show_drift(console, drift)
        return asdict(drift)

    if compare is not None:
        found = api.compare(run.path, compare, recipe, progress=console)
        show.show_comparison(console, found)
        if markdown:
            write_comparison(markdown, found)
        check_result(found.scores, recipe.eval.fail_under)
        return found.scores

    result = api.evaluate(run.path, recipe, progress=console)
    show.show_eval(console, result)
    if markdown:
        api.write_results(run.path, markdown=markdown)
    check_result(result.scores, recipe.eval.fail_under)
    return result.named | asdict(result)


FromOption = Annotated[
    str,
    typer.Option("--from", metavar="STAGE", help=f"first stage: {' | '.join(STAGES)}", autocompletion=completions(STAGES)),
]
UntilOption = Annotated[
    str,
    typer.Option("--until", metavar="STAGE", help=f"last stage: {' | '.join(STAGES)}", autocompletion=completions(STAGES)),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="do the stages again although they are up to date; no paid answer is requested again")
]
SmokeOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--smoke",
        metavar="N",
        min=1,
        help="N prompts through the stages, 10 training steps at most; then time, cost and disk of the whole run",
    ),
]


@command(
    "run",
    (*SHARED, "student", BUDGET),
    "All four stages; what is up to date is skipped.",
    [
        own("limit", LimitOption, None),
        own("from_", FromOption, STAGES[0]),
        own("until", UntilOption, STAGES[-1]),
        own("force", ForceOption, False),
        own("smoke", SmokeOption, None),
    ],
)
def _run(
    run: Run,
    recipe: Recipe,
    console: Console,
    limit: int | None,  # noqa: ARG001
    from_: str,
    until: str,
    force: bool,
    smoke: int | None,
) -> dict[str, Any]:
    chosen = api.stages_between(from_, until)
    whole, recipe = recipe, recipe if smoke is None else api.smoke_recipe(run.path, recipe, smoke)
    api.check_stages(run.path, recipe, first=from_, progress=console)
    acts: dict[str, Callable[[Run, Recipe, Console], dict[str, Any]]] = {
        "generate": partial(_generate, checked=True),
        "filter": _filter,
        "train": _train,
        "eval": _eval,
    }
    results: dict[str, Any] = {}
    for stage in chosen:
        if force:
            api.undo(run.path, stage)
        results[stage] = acts[stage](run, recipe, console)
    if smoke is not None and chosen == list(STAGES):
        forecast = api.forecast(run.path, whole, progress=console)
        show.show_forecast(console, forecast)
        results["forecast"] = asdict(forecast)
    return results


@command(
    "sweep",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train several students on the answers: the cheapest that passes.",
    [own("more", MoreStudentsArgument, None), own("student", StudentsOption, None), own("form", FormOption, None)],
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
    return asdict(result)


@command(
    "curve",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train on 1/8 to all of the rows: would more data help?",
    [own("repeats", RepeatsOption, 2)],
)
def _curve(run: Run, recipe: Recipe, console: Console, repeats: int) -> dict[str, Any]:
    result = api.curve(run.path, recipe, repeats=repeats, progress=console)
    show.show_curve(console, result)
    return asdict(result)
