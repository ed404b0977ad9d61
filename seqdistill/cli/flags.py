"""Flags from the recipe's tables, and what makes a command of a function: recipe, console, result, error.

The flags of a stage are the keys of its tables, so a setting has one name, one default and one help text.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from difflib import get_close_matches
from functools import cache, partial
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


def _check_effect(option: str, effective: Sequence[str], tables: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raises UsageError for a flag that would do nothing beside an option that only reads what is finished."""
    for table, setting in _settings_in(tables):
        passed = values.get(_name(table, setting)) not in (None, [])
        if passed and ".".join((table, *setting.names)) not in effective:
            useless = flag(table, *setting.names)
            raise UsageError(
                f"--{option} with {useless}: it reads what is finished, and {useless} would do nothing",
                f"leave one of them out; beside --{option}: " + ", ".join(flag(*one.split(".")) for one in effective),
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
    short: str = "",
    panel: str | None = None,
    choices: Sequence[str] = (),
    **bounds: float,
) -> inspect.Parameter:
    """An option that is no setting: `--name`. Its help text names the default, `choices` are completed by the shell."""
    names = ["--" + name.strip("_").replace("_", "-"), *([short] if short else [])]
    completed = completions(choices) if choices else None
    found = typer.Option(
        *names,
        metavar=metavar,
        help=text,
        rich_help_panel=panel,
        autocompletion=completed,
        **bounds,  # type: ignore[arg-type]
    )
    return parameter(name, Annotated[kind if default is not None else kind | None, found], default)


def argument(name: str, kind: Any, metavar: str, text: str, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A positional argument of one command alone; with a default it may be left out."""
    return parameter(
        name, Annotated[kind if default is not None else kind | None, typer.Argument(metavar=metavar, help=text)], default
    )


RUN = argument("run", Path, "RUN", "run directory")
NEW_RUN = argument("run", Path, "RUN", "run directory; created when missing")
CONFIG = option(
    "config",
    Path,
    None,
    "recipe: a TOML file, or the name of a shipped one (notices, extract, chain ...); the run keeps a copy",
    "RECIPE",
    short="-c",
)
SET = option(
    "set_",
    list[str],
    None,
    "set any recipe key: train.args.learning_rate=1e-4; repeatable",
    "TABLE.KEY=VALUE",
    panel=COMMON,
)
JSON = option("json_", bool, False, "print exactly one JSON object on stdout", panel=GENERAL)
QUIET = option("quiet", bool, False, "no progress and no notes on stderr", short="-q", panel=GENERAL)


def command(
    name: str,
    tables: Sequence[str],
    text: str,
    extra: Sequence[inspect.Parameter] = (),
    *,
    examples: str,
    reads: Sequence[str] = (),
    creates_run: bool = False,
    sets: Mapping[str, Sequence[str]] | None = None,
    is_remembered: Callable[[dict[str, Any]], bool] = lambda _: True,
    reads_finished: Mapping[str, Sequence[str]] | None = None,
) -> Decorator:
    """A decorator: makes a command RUN [flags of the tables] of a function (run, recipe, console, **extra) -> result.

    `reads`: tables without flags here, whose variables and --set count. `sets`: an option that is this key of several tables.
    `is_remembered`: whether the run keeps the settings, by the options of the command. `reads_finished`: options that only read
    what is finished, and the settings that change what they say.
    """

    def decorate(act: Act) -> Act:
        def run_command(run: Path, **values: Any) -> None:
            console = Console(as_json=values["json_"], quiet=values["quiet"])
            extras = {parameter.name: values.pop(parameter.name) for parameter in extra}

            def work() -> dict[str, Any]:
                directory = Run(run)
                _check_environment()
                for option, effective in (reads_finished or {}).items():
                    if extras.get(option) is not None:
                        _check_effect(option, effective, tables, values)
                flags = passed_flags((*tables, *reads), values, values["set_"] or ())
                for key, several in (sets or {}).items():
                    if (value := extras.pop(key)) is not None:
                        flags = merge(flags, {table: {key: value} for table in several})
                file, keep = recipe_file(values["config"]), is_remembered(extras)
                with resolved_recipe(directory.path, file, flags, console.note, keep=keep) as recipe:
                    return act(directory, recipe, console, **extras)

            guarded(console, run, work)

        named = [parameter.name for parameter in extra]
        flags = [parameter for name in tables for parameter in _parameters(name) if parameter.name not in named]
        _register(
            run_command, name, [NEW_RUN if creates_run else RUN, CONFIG, *extra, *flags, SET, JSON, QUIET], text, examples
        )
        return act

    return decorate


def tool(name: str, place: str, text: str, parameters: Sequence[inspect.Parameter], *, examples: str) -> Decorator:
    """A decorator: makes a command that takes no settings of a function (console, **parameters) -> result.

    `place` names the parameter with the path that an error is about where it names none.
    """

    def decorate(act: Act) -> Act:
        def run_command(**values: Any) -> None:
            console = Console(as_json=values.pop("json_"), quiet=values.pop("quiet", False))
            guarded(console, values[place] or Path(), partial(act, console, **values))

        _register(run_command, name, parameters, text, examples)
        return act

    return decorate


def _register(
    run_command: Callable[..., None], name: str, parameters: Sequence[inspect.Parameter], text: str, examples: str
) -> None:
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=text, epilog=examples, cls=PanelCommand)(run_command)


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
STAGE_TABLES = ("generate", "filter", "judge", "train", "eval")
BUDGET = "generate.budget"  # the run's: every command that can pay takes it
MARKDOWN = "also write the result as Markdown, for a pull request"
