"""Which chat template a model has: its own, or the one that the recipe puts in its place, with the recipe's defaults.

Who renders prompts for a student, to train it or to have it answer, takes the template from here. Renders nothing.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import ModelConfig, StudentConfig


def configured_template(model: ModelConfig) -> str | None:
    """The text of the template that the recipe puts in place of the model's own; None where it keeps its own.

    Raises UsageError as `chat_template` does.
    """
    name = model.chat_template if isinstance(model, StudentConfig) else None
    return None if name is None else chat_template(name, model.chat_template_kwargs)


def with_own_template(model: ModelConfig) -> ModelConfig:
    """The same model with the chat template of its files; those of a trained student hold the one that it was trained with."""
    return replace(model, chat_template=None) if isinstance(model, StudentConfig) else model


def chat_template(name: str, kwargs: Mapping[str, Any]) -> str:
    """The text of [student] chat_template, a file or the name of one in TRL's package, with [student] chat_template_kwargs.

    The kwargs become the template's defaults, so that whoever loads the trained folder renders as was trained.
    Raises UsageError for a name that is neither.
    """
    path = Path(name)
    if not path.is_file():
        known = shipped_templates()
        if name not in known:
            raise UsageError(
                f"[student] chat_template = {name!r}: no such file{nearest(name, known)}",
                "name a .jinja file, or one of the files in TRL's chat_templates: qwen3_training, llama3, gemma ...",
            )
        path = known[name]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"[student] chat_template = {name!r}: not UTF-8 text", "name a .jinja file") from error
    return with_defaults(text, kwargs)


def set_defaults(tokenizer: Any, kwargs: Mapping[str, Any]) -> None:
    """Gives the tokenizer's chat template, or each of several, other defaults for its variables. Raises as `with_defaults`."""
    own = tokenizer.chat_template
    if isinstance(own, str):
        tokenizer.chat_template = with_defaults(own, kwargs)
    elif own:
        tokenizer.chat_template = {name: with_defaults(one, kwargs) for name, one in own.items()}


def with_defaults(template: str, kwargs: Mapping[str, Any]) -> str:
    """The chat template with other defaults for its variables; what a caller passes still counts.

    Raises UsageError for a name that no template variable can have.
    """
    if odd := [name for name in kwargs if not (name.isascii() and name.isidentifier())]:
        raise UsageError(f"[student] chat_template_kwargs {odd[0]!r}: not a variable's name", "enable_thinking = false")
    lines = [f"{{% set {name} = {name} if {name} is defined else {value!r} %}}" for name, value in sorted(kwargs.items())]
    return "".join(lines) + template


def shipped_templates() -> dict[str, Path]:
    """The chat templates in TRL's package, by name. Does not import it."""
    package = importlib.util.find_spec("trl")
    places = (package.submodule_search_locations if package else None) or ()
    return {path.stem: path for place in places for path in sorted((Path(place) / "chat_templates").glob("*.jinja"))}
