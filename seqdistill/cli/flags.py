"""Flags from the recipe's tables, and what makes a command of a function: recipe, console, result, error.

The flags of a stage are the keys of its tables, so a setting has one name, one default and one help text.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.help_panels import COMMON, GENERAL, PanelCommand, PanelGroup
from seqdistill.recipe.reading import check_value, is_union, merge, parse_assignment
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.recipe.tables import TABLES, Recipe, Setting, flag, settings_of
from seqdistill.runs import Run
from seqdistill.tasks.templates import recipe_file

app = typer.Typer(
    name="seqdistill",
    cls=PanelGroup,
    help="Distil a language model into a small one that does one task: generate, filter, train, evaluate.\n\n"
    "RUN is a directory. It holds all that a run reads and writes.",
    epilog="seqdistill run runs/notices -c notices   # the demo; no key, no GPU\n"
    "seqdistill init mytask --kind extract    # a folder for your own task",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


NUMBERS: dict[Any, Any] = {int: _whole_number, float: _number}
Flags = dict[str, dict[str, Any]]
Act = Callable[..., dict[str, Any]]
Decorator = Callable[[Act], Act]


class Interrupted(SeqdistillError):
    """Ctrl-C."""

    exit_code = 130


# --- flags from the recipe's tables ---------------------------------------------------------------------------------------


def _settings_in(tables: Sequence[str]) -> Iterator[tuple[str, Setting]]:
    """Each table with its settings; "generate.budget" means this one of its settings alone."""
    for name in tables:
        table, _, only = name.partition(".")
        for setting in settings_of(TABLES[table]):
            if not only or setting.names == (only,):
                yield table, setting


@cache
def _parameters(table_or_key: str) -> list[inspect.Parameter]:
    """One optional parameter for each key of a table, or for one key; what is not passed stays None."""
    parameters = []
    for table, setting in _settings_in([table_or_key]):
        plain: Any = _plain(setting)
        if plain is None:
            continue
        default, choices = setting.default, setting.field.metadata["choices"]
        dashed, name = flag(table, *setting.names), _name(table, setting)
        text = setting.field.metadata["help"] + (f": {' | '.join(setting.field.metadata['shown'])}" if choices else "")
        if default not in (None, False, [], ""):
            on = f"on; off with {dashed.replace('--', '--no-', 1)}"
            text += f" [{on if default is True else ' '.join(default) if isinstance(default, list) else default}]"
        found = typer.Option(
            f"{dashed}/--no-{dashed[2:]}" if plain is bool else dashed,
            help=text,
            show_default=False,
            autocompletion=completions(choices) if choices else None,
            rich_help_panel=COMMON if setting.field.metadata["common"] else f"[{'.'.join((table, *setting.names[:-1]))}]",
            metavar=None if plain is bool else {int: "N", float: "X"}.get(plain, "TEXT"),
            parser=NUMBERS.get(plain),
        )
        annotation = Annotated[plain | None, found]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return parameters


def _plain(setting: Setting) -> Any:
    """The type of a setting's flag; None for a free-form table, which is written in the recipe or with --set."""
    kind = setting.kind
    plain: Any = next(part for part in get_args(kind) if part is not type(None)) if is_union(kind) else kind
    free = (get_origin(plain) or plain) is dict or (get_origin(plain) is list and get_args(plain) != (str,))
    return None if free else plain


def completions(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """What the shell offers for a value that was begun."""

    def matching(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return matching


def _name(table: str, setting: Setting) -> str:
    """The parameter behind a flag."""
    return flag(table, *setting.names)[2:].replace("-", "_")


def passed_flags(tables: Sequence[str], values: dict[str, Any], assignments: Sequence[str]) -> Flags:
    """The flags that were passed, or else their SEQDISTILL_* variables, by table, checked by `recipe.reading`."""
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


def _check_environment() -> None:
    """Raises UsageError for a variable that is nearly a setting's: what was meant, a budget say, would not hold."""
    known = {_name(table, setting).upper() for table, setting in _settings_in(tuple(TABLES))}
    for variable in sorted(os.environ):
        prefix, _, name = variable.partition("_")
        if prefix != "SEQDISTILL" or name in known or name.endswith(("_KEY", "_TOKEN")):  # a key may have any name
            continue
        if close := get_close_matches(name, known, 1, 0.75):
            raise UsageError(
                f"the environment variable {variable}: no such setting, did you mean SEQDISTILL_{close[0]}?",
                "rename or unset it",
            )


def _check_effect(tables: Sequence[str], values: Mapping[str, Any], options: Sequence[str]) -> None:
    """Raises UsageError for a flag that would do nothing beside one of these options, which only read what is finished."""
    for name in options:
        for table, setting in _settings_in(tables):
            passed = values.get(_name(table, setting)) not in (None, [])
            if passed and ".".join((table, *setting.names)) not in READ_BY[name]:
                useless = flag(table, *setting.names)
                raise UsageError(
                    f"--{name} with {useless}: it reads what is finished, and {useless} would do nothing",
                    f"leave one of them out; beside --{name}: " + ", ".join(flag(*one.split(".")) for one in READ_BY[name]),
                )


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


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="run directory")]
NewRunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="run directory; created when missing")]
CREATES_RUN = ("generate", "import", "run")  # commands that begin a run
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="RECIPE",
        help="recipe: a TOML file, or the name of a shipped one (notices, extract, chain ...); the run keeps a copy",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=COMMON,
        metavar="TABLE.KEY=VALUE",
        help="set any recipe key: train.args.learning_rate=1e-4; repeatable",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=GENERAL, help="print exactly one JSON object on stdout")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=GENERAL, help="no progress and no notes on stderr")]
TOOLS = ("export", "serve")  # commands after which the run remembers what it did before, unless they --record its data
ONLY_SHOWS = ("dry_run", "probe", "preflight", "explain", "compare", "shadow")  # options of stages that change nothing
READ_BY = {  # options that read what is finished, and the settings that change what they say
    "compare": ("task.primary", "eval.margin", "eval.fail_under", "eval.resamples", "eval.seed"),
    "shadow": ("eval.metric",),
}
SEVERAL_STAGES = ("run", "sweep", "curve")  # commands that do not take the flags of all their stages


def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A parameter of a command that is no setting of a table."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def option(
    name: str,
    kind: Any,
    default: Any,
    text: str,
    metavar: str | None = None,
    *,
    choices: Sequence[str] = (),
    **bounds: float,
) -> inspect.Parameter:
    """An option of one command alone: `--name`. Its help text names the default, `choices` are completed by the shell."""
    flag_ = "--" + name.strip("_").replace("_", "-")
    completed = completions(choices) if choices else None
    found = typer.Option(flag_, metavar=metavar, help=text, autocompletion=completed, **bounds)  # type: ignore[arg-type]
    return parameter(name, Annotated[kind if default is not None else kind | None, found], default)


def argument(name: str, kind: Any, metavar: str, text: str, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A positional argument of one command alone; with a default it may be left out."""
    return parameter(
        name, Annotated[kind if default is not None else kind | None, typer.Argument(metavar=metavar, help=text)], default
    )


def command(
    name: str, tables: Sequence[str], text: str, extra: Sequence[inspect.Parameter] = (), *, examples: str
) -> Decorator:
    """A decorator: makes a command RUN [flags of the tables] of a function (run, recipe, console, **extra) -> result."""

    def decorate(act: Act) -> Act:
        def run_command(run: Path, **values: Any) -> None:
            console = Console(as_json=values["json_"], quiet=values["quiet"])
            extras = {parameter.name: values.pop(parameter.name) for parameter in extra}

            def work() -> dict[str, Any]:
                directory = Run(run)
                reached = (*tables, "generate", "filter", "judge", "train", "eval") if name in SEVERAL_STAGES else tables
                _check_environment()
                if extras.get("budget", 0.0) is None:  # serve's own
                    extras["budget"] = passed_flags((BUDGET,), {}, ()).get("generate", {}).get("budget")
                _check_effect(reached, values, [one for one in READ_BY if extras.get(one) is not None])
                flags = passed_flags(reached, values, values["set_"] or ())
                for stage in ("generate", "eval"):
                    if name == "run" and extras.get("limit") is not None:
                        flags = merge(flags, {stage: {"limit": extras["limit"]}})
                only_shows = name in TOOLS or any(extras.get(one) for one in ONLY_SHOWS)
                keep = bool(extras.get("record")) or not only_shows
                file = recipe_file(values["config"])
                with resolved_recipe(directory.path, file, flags, console.note, keep=keep) as recipe:
                    return act(directory, recipe, console, **extras)

            guarded(console, run, work)

        place = NewRunArgument if name in CREATES_RUN else RunArgument
        positional = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=place)
        named = [parameter.name for parameter in extra]
        flags = [parameter for name in tables for parameter in _parameters(name) if parameter.name not in named]
        general = [
            parameter("set_", SetOption, None),
            parameter("json_", JsonOption, False),
            parameter("quiet", QuietOption, False),
        ]
        parameters = [positional, parameter("config", ConfigOption, None), *extra, *flags, *general]
        run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=text, epilog=examples, cls=PanelCommand)(run_command)
        return act

    return decorate


def recipe_of_run(run: Path, config: Path | None, console: Console) -> AbstractContextManager[Recipe]:
    """The recipe as `run` would have it, SEQDISTILL_* variables included; nothing of it is kept."""
    _check_environment()
    variables = passed_flags(tuple(TABLES), {}, ())
    return resolved_recipe(Run(run).path, recipe_file(config), variables, console.note, keep=False)


def interrupted(console: Console) -> int:
    """Says that a Ctrl-C ended the command; returns its exit code."""
    error = Interrupted("interrupted; what was finished is kept", "run the same command again to resume")
    console.error(error)
    return error.exit_code


def guarded(console: Console, place: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Runs one command's work on `place`: its result as JSON with --json, its error as a message and exit code."""
    try:
        console.json_result(work())
    except KeyboardInterrupt:
        raise typer.Exit(interrupted(console)) from None
    except SeqdistillError as error:
        console.error(error)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        console.error(
            SeqdistillError(
                f"{error.filename2 or error.filename or place}: {error.strerror}",
                "free space or fix the path, then run again: it resumes",
            )
        )
        raise typer.Exit(1) from None
    finally:
        console.end()


SHARED = ("task", "teacher")
OF_EVAL = ("eval.margin", "eval.also")  # of the commands that do several stages; the other keys of theirs with --set
BUDGET = "generate.budget"  # the run's: every command that can pay takes it
MARKDOWN = "also write the result as Markdown, for a pull request"
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help=MARKDOWN)]
