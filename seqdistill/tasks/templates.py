"""Task templates: find one, load it, render the teacher's and the student's view of a prompt.

A template is a TOML file with a [teacher] table and, where the student's prompt is shorter, a [student] table; each has `user`
and optionally `system`, both Jinja2. Prompts are data: they are values of a template, never part of its code.
"""

import functools
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from numbers import Number
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.records import Message, file_sha256

VIEWS = ("teacher", "student")
SHOWN = 300  # characters of what went wrong


@dataclass(frozen=True)
class Template:
    """A loaded task template. `sha256` goes into the manifest."""

    path: Path | None
    sha256: str | None
    teacher: dict[str, str]
    student: dict[str, str]


PROMPT_TEMPLATE = "prompt_template.json"  # the student's view, in the folder of the trained model
PLAIN = Template(None, None, {"user": "{{ prompt }}"}, {"user": "{{ prompt }}"})


def prompts_folder() -> Path:
    """The folder of the task and judge templates that come with seqdistill: in the wheel, or at the repository's root."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "prompts", package.parent / "prompts"):
        if folder.is_dir():
            return folder
    raise UsageError("the prompts/ folder that comes with seqdistill is missing", "reinstall seqdistill")


def recipe_file(path: Path | None) -> Path | None:
    """A recipe by its path, that of its folder, or the name of a folder in prompts/ that has one; any other path as it is.

    Raises UsageError listing the known names for a name that is neither.
    """
    if path is not None and path.is_dir():
        if not (path / "recipe.toml").is_file():
            raise UsageError(f"-c {path}: a folder without recipe.toml", "pass a TOML file, or the folder of a recipe.toml")
        return path / "recipe.toml"
    if path is None or path.exists() or path.name != str(path) or path.suffix:
        return path
    shipped = sorted(file.parent.name for file in prompts_folder().glob("*/recipe.toml"))
    if path.name not in shipped:
        raise UsageError(
            f"-c {path}: no such recipe{nearest(path.name, shipped)}", f"pass a TOML file, or one of: {', '.join(shipped)}"
        )
    return prompts_folder() / path.name / "recipe.toml"


def find_template(name: str) -> Path:
    """The file of a template: a path, or the name of a folder in prompts/. Raises UsageError listing the known names."""
    path = Path(name)
    if path.suffix == ".toml" and path.exists():
        return path
    if (path / "task.toml").exists():
        return path / "task.toml"
    known = sorted(folder.parent.name for folder in prompts_folder().glob("*/task.toml"))
    if name in known:
        return prompts_folder() / name / "task.toml"
    again = "; where the recipe was moved, pass it again: -c RECIPE" if path.is_absolute() else ""
    raise UsageError(f"task template {name!r}: no such file", f"pass a .toml file or one of: {', '.join(known)}{again}")


def load_template(name: str | None) -> Template:
    """The template of that name or path; without one, the prompt itself is the user message.

    Raises UsageError naming the file and key for a missing table, an unknown key or a Jinja2 syntax error.
    """
    if name is None:
        return PLAIN
    path = find_template(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "a task template has [teacher] and [student] tables") from None
    if "teacher" not in raw or not set(raw) <= set(VIEWS):
        raise UsageError(
            f"{path}: tables are {', '.join(raw) or 'missing'}", "expected [teacher] and, if it differs, [student]"
        )
    for view, texts in raw.items():
        if not isinstance(texts, dict) or not {"user"} <= set(texts) <= {"user", "system"}:
            raise UsageError(f"{path}: [{view}] must have the key user and may have system", 'user = "Summarize: {{ prompt }}"')
        for key, text in texts.items():
            if not isinstance(text, str):
                raise UsageError(f"{path}: [{view}] {key} is not a string", 'user = "Summarize: {{ prompt }}"')
            check_text(text, f"{path}: [{view}] {key}")
    return Template(path, file_sha256(path), raw["teacher"], raw.get("student", raw["teacher"]))


def check_text(text: str, place: str) -> None:
    """Raises UsageError naming the place for a text that Jinja2 cannot compile."""
    import jinja2

    try:
        _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"{place}, line {error.lineno}: {error.message}", "fix the template") from None
    except Exception as error:  # nested too deeply for Python, a number of thousands of digits ...  # noqa: BLE001
        raise UsageError(f"{place}: {type(error).__name__}: {error}"[:SHOWN], "fix the template") from None


def render(template: Template, view: str, row: Mapping[str, Any], place: str) -> list[Message]:
    """The messages of one view of a prompt row (its `prompt` or `messages`, and any further keys as variables).

    A row with `messages` keeps its earlier turns: the template renders the last user turn, and its system text is in
    front unless the row brings its own. Raises UsageError naming the place for a variable that the row lacks.
    """
    texts: dict[str, str] = getattr(template, view)
    earlier: list[Message] = []
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        *earlier, last = prompt
        prompt = last["content"]
    values = {**row, "prompt": prompt}
    rendered = {key: render_text(text, values, f"{place}: {template.path}: [{view}] {key}") for key, text in texts.items()}
    if not rendered["user"]:
        raise UsageError(f"{place}: the {view}'s view of this prompt is empty", "remove the row or fix the template")
    system = [{"role": "system", "content": rendered["system"]}] if rendered.get("system") else []
    if earlier and earlier[0]["role"] == "system":
        system = []
    return [*system, *earlier, {"role": "user", "content": rendered["user"]}]


def render_text(text: str, values: Mapping[str, Any], place: str) -> str:
    """A Jinja2 text with its variables filled in. Raises UsageError naming the place for a variable that is not there."""
    import jinja2

    if "{" not in text and "\r" not in text:  # nothing in it is Jinja's
        return text.strip()
    try:
        return str(_compiled(text).render(values)).strip()
    except jinja2.UndefinedError as error:
        hint = _without_null(text, values) if error.message == NULL else f"this row has: {', '.join(sorted(values))}"
        raise UsageError(f"{place}: {error.message}", hint) from None
    except jinja2.TemplateError as error:
        raise UsageError(f"{place}: {error}", "fix the template or this row") from None
    except Exception as error:  # a template is a program: what it computes fails as it likes  # noqa: BLE001
        raise UsageError(f"{place}: {type(error).__name__}: {error}"[:SHOWN], "fix the template or this row") from None


def _without_null(text: str, values: Mapping[str, Any]) -> str:
    """What to write in a text instead of a value that is null."""
    null = [name for name, value in sorted(values.items()) if value is None and name in text]
    found = f"null in this row: {', '.join(null)}; " if null else ""
    return f"{found}write {{{{ {null[0] if null else 'name'} or '' }}}}, or remove the row"


def variables(template: Template) -> set[str]:
    """The names of the row's keys that a template uses, in either view."""
    from jinja2 import Environment, meta

    texts = [text for view in VIEWS for text in getattr(template, view).values()]
    return {name for text in texts for name in meta.find_undeclared_variables(Environment(autoescape=True).parse(text))}


@functools.cache
def _compiled(text: str) -> Any:
    """A text as Jinja2 compiles it. What `~`, format and join put together is written as what is printed."""
    from jinja2 import nodes

    environment = _environment()
    tree = environment.parse(text)

    def as_text(node: Any, name: str = "written", *args: Any) -> Any:
        return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)

    for joined in tree.find_all(nodes.Concat):
        joined.nodes = [as_text(node) for node in joined.nodes]
    for found in list(tree.find_all(nodes.Filter)):
        if found.name == "format":
            found.args = [as_text(argument) for argument in found.args]
        by_attribute = len(found.args) > 1 or any(pair.key == "attribute" for pair in found.kwargs)
        if found.name == "join" and found.node and not by_attribute:
            found.node = as_text(found.node, "map", nodes.Const("written"))
    return environment.from_string(tree)


@functools.cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Text for a model, not HTML: escaping would change the prompt. The sandbox keeps a shared template harmless.
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False, finalize=written
    )
    environment.filters |= {name: _of_text(environment.filters[name]) for name in TEXTUAL} | {"written": written}
    return environment


NULL = "a value is null"
TEXTUAL = ("capitalize", "center", "indent", "lower", "replace", "string", "title", "trim", "truncate", "upper", "wordwrap")


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja2 that takes a value as `written` writes it."""
    first = int(hasattr(function, "jinja_pass_arg"))  # such a filter's first argument is the environment

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:first], written(args[first]), *args[first + 1 :], **kwargs)

    return filtered


def written(value: Any) -> Any:
    """A value as text for a model: lists, mappings and truths as JSON.

    Raises UndefinedError for null, and TemplateRuntimeError for what is no value of a row: a method, an object of Jinja2.
    """
    from jinja2 import TemplateRuntimeError, Undefined, UndefinedError

    if isinstance(value, (list, tuple, dict, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, (str, Number, date, time, timedelta, Undefined)):
        return value
    if value is None:
        raise UndefinedError(NULL)
    if callable(value):
        name = getattr(value, "__name__", "items")
        raise TemplateRuntimeError(f"{name!r} is a method or a function here: for a key of that name write row['{name}']")
    raise TemplateRuntimeError(f"no value of a row, but a {type(value).__name__}")
