"""One view of a prompt from another: a template that puts one variable into fixed words is read backwards.

Does not know prompt files or logs.
"""

from collections.abc import Callable

from seqdistill.errors import UsageError
from seqdistill.records import Message, fingerprint
from seqdistill.tasks.templates import Template, render, variables

OtherView = Callable[[list[Message]], list[Message] | None]


def views_key(messages: list[Message]) -> str:
    """What two ways of writing the same messages share: white space around a text does not matter."""
    return fingerprint(_plain(messages))


def _plain(messages: list[Message]) -> list[list[str]]:
    return [[message["role"], message["content"].strip()] for message in messages]


def backwards(template: Template, written: str, wanted: str) -> OtherView | None:
    """From the messages of the view `written` to those of `wanted`; None for messages that it did not write.

    There is none for a template of more than one variable or with logic in it.
    """
    texts: dict[str, str] = getattr(template, written)
    split, system = _split(texts["user"]), _split(texts.get("system", ""))
    if split is None or split[1] is None or system is None or system[1] is not None:
        return None
    before, name, after = split[0].lstrip(), split[1], split[2].rstrip()
    if variables(template) != {name}:
        return None
    instructions = system[0].strip()

    def other(messages: list[Message]) -> list[Message] | None:
        *earlier, last = messages
        text = last["content"].strip()
        if not text.startswith(before) or not text.endswith(after) or len(text) < len(before) + len(after):
            return None
        value = text[len(before) : len(text) - len(after)]
        if instructions and earlier and earlier[0]["role"] == "system" and earlier[0]["content"].strip() == instructions:
            earlier = earlier[1:]
        if earlier and name != "prompt":
            return None
        row = {name: [*earlier, {"role": "user", "content": value}] if earlier else value}
        try:
            same = _plain(render(template, written, row, "log")) == _plain(messages)
            return render(template, wanted, row, "log") if same else None
        except UsageError:  # an empty view: nothing that this template wrote
            return None

    return other


def _split(text: str) -> tuple[str, str | None, str] | None:
    """(words, variable, words) of a template's text that is no more than that; None for any other."""
    from jinja2 import Environment, nodes

    parts = [part for node in Environment(autoescape=True).parse(text).body for part in getattr(node, "nodes", [None])]
    names = [part for part in parts if isinstance(part, nodes.Name)]
    if len(names) > 1 or not all(isinstance(part, (nodes.Name, nodes.TemplateData)) for part in parts):
        return None
    at = parts.index(names[0]) if names else len(parts)
    before, after = ("".join(part.data for part in some) for some in (parts[:at], parts[at + 1 :]))
    return before, names[0].name if names else None, after
