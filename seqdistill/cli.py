"""The command line: flags -> recipe -> one call -> printed result. No logic.

The flags of a stage are the keys of its tables in `config`, so a setting has one name, one default and one help text.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Optional, Union, get_args, get_origin

import typer
from typer.exceptions import TyperException

from seqdistill import api, show
from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.help_panels import COMMON as COMMON_PANEL
from seqdistill.help_panels import PanelCommand
from seqdistill.progress import Silent
from seqdistill.recipe.reading import check_value, merge, parse_assignment, placed
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.recipe.tables import TABLES, Recipe, Setting, flag, settings_of
from seqdistill.runs import STAGES, Run
from seqdistill.tasks.templates import recipe_file
from seqdistill.version import __version__

app = typer.Typer(
    name="seqdistill",
    help="Distil an expensive model into a small one, in four stages. RUN is a directory.",
    epilog="Start: seqdistill run runs/notices -c notices",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Flags = dict[str, dict[str, Any]]
Act = Callable[..., dict[str, Any]]
Decorator = Callable[[Act], Act]


class Interrupted(SeqdistillError):
    """Ctrl-C."""

    exit_code = 130


# --- flags from the config tables ---------------------------------------------------------------------------------------


def _settings_in(tables: Sequence[str]) -> Iterator[tuple[str, Setting]]:
    """Each table with its settings; "generate.budget" means this one of its settings alone."""
    for name in tables:
        table, _, only = name.partition(".")
        for setting in settings_of(TABLES[table]):
            if not only or setting.names == (only,):
                yield table, setting


def _parameters(tables: Sequence[str]) -> list[inspect.Parameter]:
    """One optional parameter for each key of the tables; what is not passed stays None."""
    parameters = []
    for table, setting in _settings_in(tables):
        plain: Any = _plain(setting)
        if plain is None:
            continue
        default, choices = setting.default, setting.field.metadata["choices"]
        text = setting.field.metadata["help"] + (f": {' | '.join(setting.field.metadata['shown'])}" if choices else "")
        if default not in (None, False, [], ""):
            text += f" [{' '.join(default) if isinstance(default, list) else default}]"
        dashed, name = flag(table, *setting.names), _name(table, setting)
        option = typer.Option(
            f"{dashed}/--no-{dashed[2:]}" if plain is bool else dashed,
            help=text,
            show_default=False,
            autocompletion=_completions(choices) if choices else None,
            rich_help_panel=COMMON_PANEL if setting.field.metadata["common"] else f"[{'.'.join((table, *setting.names[:-1]))}]",
            metavar=None if plain is bool else {int: "N", float: "X"}.get(plain, "TEXT"),
        )
        annotation = Annotated[Optional[plain], option]  # noqa: UP045 - a runtime value, not an annotation
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return parameters


def _plain(setting: Setting) -> Any:
    """The type of a setting's flag; None for a free-form table, which is written in the recipe or with --set."""
    kind = setting.kind
    plain: Any = next(part for part in get_args(kind) if part is not type(None)) if _optional(kind) else kind
    free = (get_origin(plain) or plain) is dict or (get_origin(plain) is list and get_args(plain) != (str,))
    return None if free else plain


def _completions(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """What the shell offers for a value that was begun."""

    def completions(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return completions


def _name(table: str, setting: Setting) -> str:
    """The parameter behind a flag."""
    return flag(table, *setting.names)[2:].replace("-", "_")


def _optional(kind: Any) -> bool:
    return get_origin(kind) in (UnionType, Union)


def _flags(tables: Sequence[str], values: dict[str, Any], assignments: Sequence[str]) -> Flags:
    """The flags that were passed, or else their SEQDISTILL_* variables, by table, checked by the rules of `config`."""
    flags: Flags = {}
    for table, setting in _settings_in(tables):
        value, place = values.get(_name(table, setting)), flag(table, *setting.names)
        if value is None or value == []:
            variable = f"SEQDISTILL_{_name(table, setting).upper()}"
            value, place = _from_environment(variable, setting), f"the environment variable {variable}"
        if value is None:
            continue
        check_value(setting.field, setting.kind, value, place)
        for name in reversed(setting.names):
            value = {name: value}
        flags = merge(flags, {table: value})
    for assignment in assignments:
        table, content = parse_assignment(assignment)
        flags = merge(flags, {table: content})
    return flags


def _from_environment(variable: str, setting: Setting) -> Any:
    """The value of a setting's environment variable, as the text itself where it does not fit; None for an unset one."""
    text, plain = os.environ.get(variable), _plain(setting)
    if not text or plain is None:
        return None
    if get_origin(plain) is list:
        return text.split()
    if plain is bool:
        return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}.get(
            text.lower(), text
        )
    for kind in {int: (int,), float: (int, float)}.get(plain, ()):
        with suppress(ValueError):
            return kind(text)
    return text


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="run directory; created when missing")]
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config",
        "-c",
        rich_help_panel=COMMON_PANEL,
        metavar="RECIPE",
        help="recipe (TOML), or the name of a shipped one: notices; the run keeps a copy, so pass it once",
    ),
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        rich_help_panel=COMMON_PANEL,
        metavar="TABLE.KEY=VALUE",
        help="any recipe key, also nested: train.args.learning_rate=1e-4",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print exactly one JSON object on stdout")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no notes on stderr")]
SEVERAL_STAGES = ("run", "sweep", "curve")  # commands that do not take the flags of all their stages
COMMON = {
    "config": (ConfigOption, None),
    "set_": (SetOption, None),
    "json_": (JsonOption, False),
    "quiet": (QuietOption, False),
}


def _command(name: str, tables: Sequence[str], text: str, extra: Sequence[inspect.Parameter] = ()) -> Decorator:
    """A decorator: makes a command RUN [flags of the tables] of a function (run, recipe, console, **extra) -> result."""

    def decorate(act: Act) -> Act:
        def command(run: Path, **values: Any) -> None:
            console = Console(as_json=values["json_"], quiet=values["quiet"])
            own = {parameter.name: values.pop(parameter.name) for parameter in extra}

            def work() -> dict[str, Any]:
                directory = Run(run)
                reached = (*tables, "generate", "filter", "judge", "train", "eval") if name in SEVERAL_STAGES else tables
                flags = _flags(reached, values, values["set_"] or ())
                for stage in ("generate", "eval"):
                    if name == "run" and own.get("limit") is not None:
                        flags = merge(flags, {stage: {"limit": own["limit"]}})
                keep = own.get("record", True) and not any(own.get(one) for one in ("dry_run", "probe", "compare", "shadow"))
                file = recipe_file(values["config"])
                with resolved_recipe(directory.path, file, flags, console.note, keep=keep) as recipe:
                    return act(directory, recipe, console, **own)

            _guarded(console, run, work)

        positional = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=RunArgument)
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in COMMON.items()
        ]
        named = [parameter.name for parameter in extra]
        flags = [parameter for parameter in _parameters(tables) if parameter.name not in named]
        parameters = [positional, *extra, *flags, *common]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=text, cls=PanelCommand)(command)
        return act

    return decorate


def _guarded(console: Console, place: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Runs one command's work on `place`: its result as JSON with --json, its error as a message and exit code."""
    try:
        result = work()
    except KeyboardInterrupt:
        error = Interrupted("interrupted; what was finished is kept", "run the same command again to resume")
        console.error(error)
        raise typer.Exit(error.exit_code) from None
    except SeqdistillError as error:
        console.error(error)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        console.error(
            SeqdistillError(
                f"{error.filename or place}: {error.strerror}", "free space or fix the path, then run again: it resumes"
            )
        )
        raise typer.Exit(1) from None
    finally:
        console.end()
    console.json_result(result)


# --- the stages -----------------------------------------------------------------------------------------------------------

SHARED = ("task", "teacher")
OF_EVAL = ("eval.margin", "eval.also")  # of the commands that do several stages; the other keys of theirs with --set
BUDGET = "generate.budget"  # the run's: every command that can pay takes it


def _own(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A parameter of one command alone, which is no setting of a table."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="show the first prompt, tokens, cost and time; send nothing")]
ProbeOption = Annotated[
    int, typer.Option("--probe", metavar="N", min=0, help="a dry run that really sends N requests, for a better estimate")
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
MarkdownOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--markdown", metavar="FILE", help="write the result as Markdown too, for a pull request"),
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
LimitOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--limit", metavar="N", min=1, help="a smoke run: only N prompts and N test prompts"),
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
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", metavar="N", min=0, max=7, help="further trainings on other eighths: the noise of a training"),
]
MoreStudentsArgument = Annotated[Optional[list[str]], typer.Argument(metavar="MODEL", help="further students")]  # noqa: UP045
_ESTIMATE = [_own("dry_run", DryRunOption, False), _own("probe", ProbeOption, 0)]


@_command("generate", (*SHARED, "generate"), "Sample the teacher's answers; none is requested twice.", _ESTIMATE)
def _generate(run: Run, recipe: Recipe, console: Console, dry_run: bool = False, probe: int = 0) -> dict[str, Any]:
    if dry_run or probe:
        expected = api.estimate(run.path, recipe, probe=probe, progress=console)
        show.show_estimate(console, expected)
        return asdict(expected)

    result = api.generate(run.path, recipe, progress=console)
    show.show_generate(console, result)
    return asdict(result)


@_command(
    "import",
    (*SHARED, "generate"),
    "Take recorded completions as the teacher's; filter comes next.",
    [_own("files", FilesArgument)],
)
def _import(run: Run, recipe: Recipe, console: Console, files: list[Path]) -> dict[str, Any]:
    result = api.import_recorded(run.path, files, recipe, progress=console)
    show.show_import(console, result)
    return asdict(result)


@_command(
    "filter",
    ("task", "filter", "judge", BUDGET),
    "Keep what is worth learning, with reasons for the rest.",
    [_own("explain", ExplainOption, None)],
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


@_command(
    "targets",
    ("task", "teacher"),
    "Have a local teacher score the rows of filter, for train --method soft.",
    [_own("top", TopOption, 20), _own("model", ModelOption, None)],
)
def _targets(run: Run, recipe: Recipe, console: Console, top: int, model: str | None) -> dict[str, Any]:
    result = api.targets(run.path, recipe, top=top, model=model, progress=console)
    show.show_targets(console, result)
    return asdict(result)


@_command(
    "train",
    ("task", "teacher", "student", "train"),
    "Train the student on the teacher's completions.",
    [_own("preflight", PreflightOption, False)],
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


@_command(
    "eval",
    (*SHARED, "student", "judge", "eval", BUDGET),
    "Base, student, teacher and ceiling side by side.",
    [_own("markdown", MarkdownOption, None), _own("compare", CompareOption, None), _own("shadow", ShadowOption, None)],
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
    return asdict(result)


FromOption = Annotated[
    str,
    typer.Option("--from", metavar="STAGE", help=f"first stage: {' | '.join(STAGES)}", autocompletion=_completions(STAGES)),
]
UntilOption = Annotated[
    str,
    typer.Option("--until", metavar="STAGE", help=f"last stage: {' | '.join(STAGES)}", autocompletion=_completions(STAGES)),
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


@_command(
    "run",
    (*SHARED, "student", BUDGET),
    "All four stages; what is up to date is skipped.",
    [
        _own("limit", LimitOption, None),
        _own("from_", FromOption, STAGES[0]),
        _own("until", UntilOption, STAGES[-1]),
        _own("force", ForceOption, False),
        _own("smoke", SmokeOption, None),
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
    api.check_stages(run.path, recipe, progress=console)
    acts = {"generate": _generate, "filter": _filter, "train": _train, "eval": _eval}
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


@_command(
    "sweep",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train several students on the answers: the cheapest that passes.",
    [_own("more", MoreStudentsArgument, None), _own("student", StudentsOption, None)],
)
def _sweep(run: Run, recipe: Recipe, console: Console, more: list[str] | None, student: list[str] | None) -> dict[str, Any]:
    students = [placed(name, Path.cwd()) for name in (*(student or ()), *(more or ()))]
    result = api.sweep(run.path, recipe, students=students, progress=console)
    show.show_sweep(console, result)
    return asdict(result)


@_command(
    "curve",
    (*SHARED, "student", *OF_EVAL, BUDGET),
    "Train on 1/8 to all of the rows: will more data do it?",
    [_own("repeats", RepeatsOption, 2)],
)
def _curve(run: Run, recipe: Recipe, console: Console, repeats: int) -> dict[str, Any]:
    result = api.curve(run.path, recipe, repeats=repeats, progress=console)
    show.show_curve(console, result)
    return asdict(result)


ToOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--to", metavar="FORM", help="gguf:q8_0 | gguf:q4_0 | safetensors | merged | vllm; gguf also f16, q4_1, q5_0, q5_1"
    ),
]
DataOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--data", metavar="SHAPE", help="the training data instead, as trl | axolotl | llama-factory read it"),
]
DraftOption = Annotated[
    bool, typer.Option("--draft", help="measure the student as its teacher's draft model: same text, fewer teacher passes")
]
OutOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", metavar="FOLDER", help="where to write; default: RUN/export/FORM"),
]
PushOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--push", metavar="OWNER/NAME", help="upload what was written to this hub repository; the key is HF_TOKEN"),
]
_EXPORT = [
    _own("to", ToOption, None),
    _own("data", DataOption, None),
    _own("draft", DraftOption, False),
    _own("out", OutOption, None),
    _own("push", PushOption, None),
    _own("limit", LimitOption, None),
]


@_command("export", (), "The student in the form in which it is deployed; or the data for other trainers.", _EXPORT)
def _export(
    run: Run,
    recipe: Recipe,
    console: Console,
    to: str | None,
    data: str | None,
    draft: bool,
    out: Path | None,
    push: str | None,
    limit: int | None,
) -> dict[str, Any]:
    if sum((to is not None, data is not None, draft)) != 1:
        raise UsageError("export takes one of --to, --data and --draft", "for example --to gguf:q8_0")
    if data is not None:
        counts = api.export_data(run.path, data, out=out)
        console.facts(f"export: {data}", {name: f"{count:,} rows" for name, count in counts.items()})
        return dict(counts)
    if draft:
        found = api.draft(run.path, recipe, limit=limit or 20, progress=console)
        show.show_draft(console, found)
        return asdict(found)
    exported = api.export(run.path, str(to), recipe, out=out, progress=console)
    show.show_export(console, exported)
    if push:
        console.facts("", {"pushed": api.push(exported.path, push)})
    return asdict(exported)


# --- tools ----------------------------------------------------------------------------------------------------------------


@app.command("verify")
def _verify(run: RunArgument, json_: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check a run's hashes, scores and verdict again, with no GPU and no teacher: exit 0 whole, 1 names the file."""
    console = Console(as_json=json_, quiet=quiet)

    def work() -> dict[str, Any]:
        found = api.verify(run, progress=console)
        console.facts("verify: whole" if found.whole else "verify: not whole", {"checked": f"{found.files} files"})
        if found.problems:
            raise SeqdistillError("\n".join(found.problems), "run the stage of the first file again, or restore the file")
        return asdict(found)

    _guarded(console, run, work)


@app.command("status")
def _status(run: RunArgument, json_: JsonOption = False) -> None:
    """The stages of a run: done, stale and by which key, running, failed; and the next command."""
    console = Console(as_json=json_)

    def work() -> dict[str, Any]:
        found = api.status(run, progress=console)
        show.show_status(console, found, str(run))
        return {"run": str(run), **asdict(found)}

    _guarded(console, run, work)


@app.command("show")
def _show(
    run: RunArgument,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--report", metavar="FILE", help="write the HTML report to FILE: of a run of an older version, today's"),
    ] = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """What a run has found so far: its stages, the table, the verdict and what to do next. Reads files alone."""
    console = Console(as_json=json_)

    def work() -> dict[str, Any]:
        found, result = api.status(run, progress=console), api.results(run)
        show.show_status(console, found, str(run))
        if result is None:
            if report or markdown:
                raise UsageError(f"{run}: not evaluated yet", f"run `{found.next or f'seqdistill eval {run}'}` first")
            return {"run": str(run), **asdict(found), "scores": None, "advice": None}
        show.show_scores(console, "", result)
        show.show_advice(console, result)
        api.write_results(run, report=report, markdown=markdown)
        return {"run": str(run), **asdict(found), "scores": result.scores, "advice": asdict(result.advice)}

    _guarded(console, run, work)


@app.command("init")
def _init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new folder")],
    kind: Annotated[
        str, typer.Option("--kind", help="the task: classify | extract | summarize | maths | rewrite", show_default=True)
    ] = "summarize",
    from_: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--from", metavar="LOG", help="recorded completions to learn from instead, as `import` reads; repeat it"),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write a recipe, a template, ten prompts, a test set and a page to start from; asks nothing."""
    console = Console(as_json=json_)

    def work() -> dict[str, Any]:
        result = api.init(folder, kind, from_ or (), progress=console)
        show.show_init(console, result)
        return asdict(result)

    _guarded(console, folder, work)


@app.command("doctor")
def _doctor(
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="[RUN]", help="run directory whose models and endpoints are checked too", show_default=False),
    ] = None,
    config: ConfigOption = None,
    json_: JsonOption = False,
) -> None:
    """Check Python, GPU, torch, vLLM, disk, models, endpoints and keys, and say how to fix what fails: exit 1.

    Sends no prompt: an endpoint is asked for its list of models alone.
    """
    console = Console(as_json=json_)

    def work() -> dict[str, Any]:
        checks.extend(api.doctor(run or ".", config, progress=console))
        show.show_checks(console, checks)
        return {"checks": [asdict(one) for one in checks]}

    checks: list[Any] = []
    _guarded(console, run or Path(), work)
    if any(one.state == "fail" for one in checks):
        raise typer.Exit(1)


def _serve_parameters() -> list[inspect.Parameter]:
    """The flags of `serve`, which are no settings of a recipe: they change no file of the run."""

    def number(flag_: str, text: str, metavar: str, **bounds: Any) -> Any:
        return typer.Option(flag_, metavar=metavar, help=text, show_default=False, **bounds)

    text, usd = Optional[str], Optional[float]  # noqa: UP045
    return [
        _own("port", Annotated[int, number("--port", "port; 0 is a free one [8080]", "N", min=0, max=65535)], 8080),
        _own(
            "host",
            Annotated[str, typer.Option("--host", help="address to listen on [127.0.0.1]", show_default=False)],
            "127.0.0.1",
        ),
        _own(
            "api_key_env",
            Annotated[
                text, typer.Option("--api-key-env", metavar="NAME", help="environment variable with the key that clients send")
            ],
            None,
        ),
        _own(
            "no_key",
            Annotated[bool, typer.Option("--no-key", help="listen on another host than this one without a key")],
            False,
        ),
        _own(
            "budget",
            Annotated[usd, number("--budget", "hard cap in USD on this server's teacher, over restarts", "X", min=0)],
            None,
        ),
        _own(
            "share",
            Annotated[float, number("--share", "share of the requests that the student may answer [1]", "X", min=0, max=1)],
            1.0,
        ),
        _own(
            "shadow",
            Annotated[
                float,
                number("--shadow", "share of the student's answers that the teacher checks afterwards [0]", "X", min=0, max=1),
            ],
            0.0,
        ),
        _own(
            "decide_on",
            Annotated[int, number("--decide-on", "tokens of a stream on which it is decided; 0: all of them [16]", "N", min=0)],
            16,
        ),
        _own(
            "threshold",
            Annotated[
                usd, number("--threshold", "confidence to keep answers from, in place of eval's; no promise", "X", min=0, max=1)
            ],
            None,
        ),
        _own(
            "without_teacher",
            Annotated[
                str,
                typer.Option(
                    "--without-teacher",
                    help="when the teacher cannot answer, or its budget is reached: error | student [error]",
                    show_default=False,
                    autocompletion=_completions(("error", "student")),
                ),
            ],
            "error",
        ),
        _own(
            "record",
            Annotated[bool, typer.Option("--record", help="no student: the teacher answers, and the log is data to import")],
            False,
        ),
        _own(
            "concurrency",
            Annotated[int, number("--concurrency", "most requests under way at once; more get a 429 [1024]", "N", min=1)],
            1024,
        ),
    ]


@_command(
    "serve",
    ("task.template", "teacher", "student"),
    "Serve the student at an OpenAI-compatible endpoint, the teacher behind it.",
    _serve_parameters(),
)
def _serve(run: Run, recipe: Recipe, console: Console, **flags: Any) -> dict[str, Any]:
    from seqdistill.serve.server import ServeOptions

    result = api.serve(run.path, recipe, options=ServeOptions(**flags), progress=console)
    console.facts("serve: stopped", asdict(result))
    return asdict(result)


@app.command("shrink")
def _shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="model to cut: hub id, folder, .gguf or package:NAME")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the smaller model; must not exist")],
    layers: Annotated[str, typer.Option("--layers", help="how many layers to keep, or which: 8, or 0,1,2,20, or all")] = "8",
    choice: Annotated[str, typer.Option("--choice", help="how a number chooses: influence | even")] = "influence",
    width: Annotated[
        float, typer.Option("--width", min=0.01, max=1.0, help="share of each feed-forward layer's neurons to keep")
    ] = 1.0,
    vocabulary: Annotated[
        str, typer.Option("--vocabulary", help="tokens to keep: all | task, those of --prompts and --texts")
    ] = "all",
    prompts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--prompts", help="prompts of the task: influence is measured on them (JSONL)"),
    ] = None,
    texts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--texts", help="further texts of the task, for its vocabulary: RUN/filter/train.jsonl"),
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cut a smaller model from a model's own layers."""
    console = Console(as_json=json_, quiet=quiet)

    def work() -> dict[str, Any]:
        from seqdistill.stages.train.shrink import shrink_from_files

        count = None if layers == "all" else layers
        return shrink_from_files(model, out, count, choice, prompts, console, vocabulary=vocabulary, texts=texts, width=width)

    _guarded(console, out, work)


@app.command("review")
def _review(
    run: RunArgument,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, show_default=False, help="port of 127.0.0.1 [a free one]")
    ] = 0,
    export: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--export", metavar="FILE", help="write the rows as CSV, to be reviewed in a spreadsheet"),
    ] = None,
    import_: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--import", metavar="FILE", help="take the decisions from a CSV that --export wrote"),
    ] = None,
    reviewer: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--reviewer", metavar="NAME", help="who decides [the login name]"),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Accept, edit or reject rows by hand, on a page in your browser.

    Filter then applies the decisions.
    """
    console = Console(as_json=json_)

    def work() -> dict[str, Any]:
        from seqdistill.review.page import review

        result = review(Run(run), port, export, import_, reviewer, console)
        console.facts("review: done", result)
        return result

    _guarded(console, run, work)


def _version(show: bool) -> None:
    if show:
        print(f"seqdistill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Runs before every command; the options here are the program's own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 done, 1 failed but resumable, 2 usage, 130 Ctrl-C."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries read it when imported: the one progress bar is ours
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(args=words, prog_name="seqdistill", standalone_mode=False)
    except TyperException as error:
        wrong: Any = error
        wrong.show()
        Console(as_json="--json" in words).json_result(UsageError(wrong.format_message(), "see --help").as_dict())
        code = UsageError.exit_code
    return code if isinstance(code, int) else 0


def run_from_shell() -> None:
    """The console script."""
    sys.exit(main())
