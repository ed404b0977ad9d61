"""The recipe: read from TOML or from `--set`, checked against the tables of `config`, laid over one another, resolved.

Errors name the file or flag, the table, the key and the nearest known name. Does not know runs.
"""

import difflib
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import Field, is_dataclass, replace
from datetime import date, time
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_args, get_origin

from seqdistill.errors import UsageError
from seqdistill.recipe.secrets import TABLES_OF_VALUES, check_no_secret
from seqdistill.recipe.tables import (
    TABLES,
    ModelConfig,
    OneOfTeachers,
    Recipe,
    StudentConfig,
    TeacherConfig,
    parts_of,
    settings_of,
)
from seqdistill.records import is_hub_source


def read_recipe(path: Path) -> dict[str, Any]:
    """The tables of a TOML recipe, checked for unknown tables and keys and for wrong values. Paths stay as written.

    Raises UsageError naming the file, the table, the key and the nearest known name.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe", "pass an existing file with -c, or leave -c out") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}", "save the file as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}", "pass a TOML file with -c") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", "see the recipe reference in the README") from None
    check_tables(raw, str(path))
    return raw


def as_written(value: Any) -> Any:
    """A value of Python as TOML has it: a path as text, a tuple as a list, a number of numpy's as a plain one."""
    if isinstance(value, Mapping):
        return {name: as_written(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_written(part) for part in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, (bool, int, float)) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_tables(tables: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for an unknown table or key, or a wrong value, naming the place it came from."""
    for table, content in tables.items():
        if table == "teachers":
            _check_teachers(content, place)
        elif table in TABLES:
            _check_table(TABLES[table], table, content, place)
        elif not isinstance(content, (Mapping, list)):
            of = [f"[{name}]" for name, kind in TABLES.items() if table in parts_of(kind)]
            known = f"it is a key of {' and of '.join(of)}" if of else f"tables are {', '.join(TABLES)}"
            raise UsageError(f"{place}: {table} = {content!r} is in no table", f"write it below the head of its table; {known}")
        else:
            raise UsageError(f"{place}: unknown table [{table}]{nearest(table, TABLES)}", f"tables are {', '.join(TABLES)}")


def check_secrets(tables: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for a secret written out in a model's table, wherever it came from; it would be kept in files."""
    for table, content in tables.items():
        if table in TABLES and issubclass(TABLES[table], ModelConfig):
            check_no_secret(content, f"{place}: [{table}]")


def _check_teachers(content: Any, place: str) -> None:
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise UsageError(f"{place}: teachers is not a list of tables", "write [[teachers]] above the keys of each teacher")
    for number, one in enumerate(content, 1):
        _check_table(OneOfTeachers, "teachers", one, f"{place}: teacher {number}")
        if "model" not in one:
            raise UsageError(f"{place}: teacher {number}: [[teachers]] has no model", "name each teacher's model")
    weighted = [one for one in content if "weight" in one]
    if weighted and (len(weighted) < len(content) or not sum(one["weight"] for one in content)):
        raise UsageError(f"{place}: [[teachers]]: set a weight for every teacher, or for none", "weight = 2.0")


def _check_table(kind: Any, table: str, content: Any, place: str) -> None:
    parts = parts_of(kind)
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{place}: {table} = {content!r} is not a table", f"write [{table}] on a line of its own, keys: {', '.join(parts)}"
        )
    for name, value in content.items():
        if name not in parts:
            stage = table.partition(".")[0]
            meant = nearest(name, [*_dotted(kind), *parts]) or nearest(name, _dotted(TABLES.get(stage, kind), stage))
            raise UsageError(
                f"{place}: unknown key {name!r} in [{table}]{meant}",
                f"keys of [{table}]: {', '.join(parts)}",
            )
        setting, of = parts[name]
        if is_dataclass(of):
            _check_table(of, f"{table}.{name}", value, place)
        else:
            check_value(setting, of, value, f"{place}: [{table}] {name}")
    if issubclass(kind, ModelConfig):
        check_no_secret(content, f"{place}: [{table}]")


def _dotted(kind: Any, *above: str) -> list[str]:
    return [".".join(setting.names) for setting in settings_of(kind, *above)]


def check_value(setting: "Field[Any]", kind: Any, value: Any, place: str) -> None:
    """Raises UsageError for a value that one setting cannot take; `place` is its flag, or file, table and key."""
    accepted = [part for part in get_args(kind) if part is not type(None)] if is_union(kind) else [kind]
    if value is None and type(None) in get_args(kind):
        return
    accepted = [part for part in accepted if get_origin(part) is list and isinstance(value, list)] or accepted
    origin = get_origin(accepted[0]) or accepted[0]
    _check_plain(value, place)
    if origin is list:
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f"{place} = {value!r}: expected a list of strings", 'write ["one", "two"]')
        return
    fits = isinstance(value, (int, float) if origin is float else origin) and not (
        isinstance(value, bool) and origin is not bool
    )
    if not fits:
        raise UsageError(f"{place} = {value!r}: expected {_KIND_NAMES.get(origin, origin.__name__)}", setting.metadata["help"])
    choices, low, high = (setting.metadata[name] for name in ("choices", "low", "high"))
    if choices and value not in choices:
        raise UsageError(f"{place} = {value!r}{nearest(str(value), choices)}", f"one of: {', '.join(choices)}")
    bounds = f"{low} or more" if high is None else f"{low} to {high}"
    if low is not None and value < low:
        raise UsageError(f"{place} = {value!r}: less than {low}", f"set {bounds}: {setting.metadata['help']}")
    if high is not None and value > high:
        raise UsageError(f"{place} = {value!r}: more than {high}", f"set {bounds}: {setting.metadata['help']}")


def _plain_form(value: Any) -> str:
    if isinstance(value, float):
        return "leave it out for no limit, or set a number"
    return "write a date in quotes" if isinstance(value, (date, time)) else "leave it out for the default, or set a value"


def _check_plain(value: Any, place: str) -> None:
    """Raises UsageError for what this TOML reader takes and JSON or 64 bits cannot hold: a date, a number without bounds."""
    if isinstance(value, dict):
        for name, part in value.items():
            _check_plain(part, f"{place}.{name}")
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, place)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise UsageError(f"{place} = {value}: more than 64 bits"[:200], "leave it out for no limit, or set a smaller number")
    elif not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{place} = {value}: not text, true, false or a finite number", _plain_form(value))


_KIND_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


def is_union(kind: Any) -> bool:
    """Whether a setting may be of several types, as `int | None`."""
    return get_origin(kind) in (types.UnionType, typing.Union)


def nearest(word: str, known: Any, cutoff: float = 0.5) -> str:
    """ ", did you mean 'that'?" for a word that ends a dotted name, is close to a known one or begins one, else nothing."""
    close = (
        [one for one in known if one.endswith(f".{word}")]
        or difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
        or [one for one in known if one.startswith(word)]
    )
    return f", did you mean {close[0]!r}?" if close else ""


Layer = Mapping[str, Any]  # table -> key -> value; [[teachers]] is a list of such tables


def merge(*layers: Layer) -> dict[str, Any]:
    """The tables of several layers laid over one another, the last one on top; nested tables are merged by key.

    A price is that of the model beside it, or else of the model below: where another one is named last, it is nobody's.
    """
    merged: dict[str, Any] = {}
    last, named = dict[str, Any](), dict[str, Any]()
    for layer in layers:
        last |= _models_in(layer)
    for layer in layers:
        named |= _models_in(layer)
        for table, content in layer.items():
            if isinstance(content, list):
                merged[table] = content
                continue
            target = merged.setdefault(table, {})
            for name, value in content.items():
                if name == "price" and table in named and named[table] != last[table]:
                    continue
                if isinstance(value, Mapping) and isinstance(target.get(name), Mapping):
                    target[name] = {**target[name], **value}
                else:
                    target[name] = value
    return merged


def _models_in(layer: Layer) -> dict[str, Any]:
    """The models that a layer names, by table."""
    return {table: of["model"] for table, of in layer.items() if isinstance(of, Mapping) and of.get("model")}


def resolve(tables: Layer) -> Recipe:
    """The recipe with every default filled in. `tables` must have been checked."""
    several = [_filled(OneOfTeachers, one) for one in tables.get("teachers", ())]
    single = {table: _filled(TABLES[table], content) for table, content in tables.items() if table != "teachers"}
    if several and not single.get("teacher", TeacherConfig()).model:
        single["teacher"] = several[0]
    return replace(Recipe(), **single, teachers=several)


def _filled(kind: Any, content: Mapping[str, Any]) -> Any:
    """A table's dataclass; one text where a list of texts is wanted is a list of one."""
    parts = parts_of(kind)

    def value_of(name: str, value: Any) -> Any:
        of = parts[name][1]
        if is_dataclass(of):
            return _filled(of, value)
        return [value] if get_origin(of) is list and isinstance(value, str) else value

    return kind(**{name: value_of(name, value) for name, value in content.items()})


def with_paths(tables: Layer, folder: Path, known: Layer | None = None, also: Path | None = None) -> dict[str, Any]:
    """The tables with each relative path that exists under `folder`, or else under `also`, made absolute; other names stay.

    A prompts or test file is always a path unless it is a hub name (`hf:`); a template or model may be a plain name. What an
    endpoint calls its model is never a path; `known` holds all tables, as another layer may name the engine.
    """
    known = tables if known is None else known
    return {
        table: [_with_paths(OneOfTeachers, one, folder, one, also) for one in content]
        if isinstance(content, list)
        else _with_paths(TABLES[table], content, folder, known.get(table, content), also)
        for table, content in tables.items()
    }


def _with_paths(
    kind: Any, content: Mapping[str, Any], folder: Path, known: Mapping[str, Any], also: Path | None
) -> dict[str, Any]:
    absolute = dict(content)
    served = known.get("engine") == "openai" and not issubclass(kind, StudentConfig)  # a student is files, whoever serves it
    for name, (setting, of) in parts_of(kind).items():
        value = content.get(name)
        if is_dataclass(of):
            if name in content:
                absolute[name] = _with_paths(of, content[name], folder, content[name], also)
        elif setting.metadata["path"] and isinstance(value, str) and not (served and name == "model"):
            absolute[name] = placed(value, folder, name, also)
        elif setting.metadata["path"] and isinstance(value, list):
            absolute[name] = [placed(item, folder, name, also) for item in value]
    return absolute


def placed(value: str, folder: Path, name: str = "model", also: Path | None = None) -> str:
    """A path that exists under a folder made absolute, and so is that of run:RUN; any other name as it is.

    One that exists under `also` alone is taken from there.
    """
    file, _, function = value.rpartition(":")
    path = value[4:] if value.startswith("run:") else file if file.endswith(".py") else value
    if also is not None and not (folder / path).exists() and (also / path).exists():
        folder = also
    if value.startswith("run:"):
        return f"run:{(folder / value[4:]).absolute()}"
    if file.endswith(".py") and (folder / file).exists():  # the user's own metric, FILE.py:FUNCTION
        return f"{(folder / file).absolute()}:{function}"
    file_alone = (name in ("prompts", "test", "against") and not is_hub_source(value)) or value.endswith(".toml")
    if (folder / value).exists() or file_alone:
        return str((folder / value).absolute())
    return value


def relative_path(path: Path, folder: Path) -> str:
    """The path from a folder, as the file system follows it: above a link's folder is not the folder that the link is in."""
    lexical = os.path.relpath(path, folder)
    leads_there = os.path.realpath(folder / lexical) == os.path.realpath(path)
    return lexical if leads_there else os.path.relpath(os.path.realpath(path), os.path.realpath(folder))


def parse_assignment(text: str) -> tuple[str, dict[str, Any]]:
    """The table and content of one `--set table.key=value`; value is TOML, or else a plain string.

    Nested keys work: `train.args.learning_rate=1e-4`. Raises UsageError for a bad form, table, key or value.
    """
    left, equals, right = text.partition("=")
    parts = [part.strip() for part in left.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise UsageError(f"--set {text!r}: not of the form table.key=value", "for example --set train.args.learning_rate=1e-4")
    try:
        value = tomllib.loads(f"value = {right.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = right.strip()
    table, *names = parts
    for name in reversed(names[1:]):
        value = {name: value}
    content = {names[0]: value}
    may_be_secret = names[0] in (*TABLES_OF_VALUES, "base_url")
    check_tables({table: content}, f"--set {left.strip() if may_be_secret else repr(text)}")
    return table, content
