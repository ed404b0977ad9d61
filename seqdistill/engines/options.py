"""What a recipe says about an endpoint: its address, key and headers, and the fields that go into every request.

Checks them without sending anything. How requests are sent is `openai_api`'s.
"""

import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.reasoning import tag_pairs
from seqdistill.recipe.secrets import check_no_secret, check_url, shown_url, with_variables
from seqdistill.recipe.tables import ModelConfig

DEFAULT_URL = "https://api.openai.com/v1"
PATH = "/chat/completions"  # behind a base URL
PLACEHOLDER = "none"  # local servers take any key, but the client wants one
KEY_HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
OWNED = {  # fields of a request that are the engine's, and what sets them
    **dict.fromkeys(("model", "models"), "[teacher] model"),
    "messages": "the prompts and the task's template",
    "n": "[generate] samples",
    "best_of": "[generate] samples",
    **dict.fromkeys(("stream", "stream_options"), "[teacher] stream"),
    **dict.fromkeys(
        (
            *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_length", "max_gen_len"),
            *("max_tokens_to_sample", "num_predict", "n_predict"),  # llama.cpp reads the last before max_tokens
        ),
        "[generate] max_tokens",
    ),
    **dict.fromkeys(("num_return_sequences", "num_completions", "candidate_count", "n_cmpl"), "[generate] samples"),
    "n_probs": "[generate] logprobs",
    **{name: f"[generate] {name}" for name in ("seed", "temperature", "top_p", "logprobs")},
    "top_logprobs": "[generate] logprobs",
    "extra_body": "its keys, written without it",
    **dict.fromkeys(("prompt", "input", "contents"), "the prompts and the task's template"),
    "fallbacks": "[[teachers]], each with its price",
}
_OWNED = {name.replace("_", ""): setting for name, setting in OWNED.items()}
WRAPPERS = ("options", "parameters", "generationconfig", "inferenceconfig", "samplingparams")  # some servers look into these
NEVER_OMITTED = ("model", "messages", "n", "stream", "max_tokens", "max_completion_tokens")
SENDING_KEYS = ("headers", "query", "body", "stream")  # of a model's table: they have no effect on an engine on this machine


@dataclass(frozen=True)
class Address:
    """One base URL and what is sent with every request to it. `name` may be shown; the other fields may be secret."""

    url: str
    name: str
    key: str
    key_env: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # what of all this may never be shown

    @property
    def has_key_header(self) -> bool:
        """Whether a header of the recipe's takes the place of the key."""
        return any(name.lower() in KEY_HEADERS for name in self.headers)


def check_options(model: ModelConfig) -> None:
    """Raises UsageError for fields that the engine owns, secrets written out, and settings of the wrong form.

    Reads neither files nor environment, so a recipe can be checked before anything is opened.
    """
    table = {"JudgeConfig": "judge", "StudentConfig": "student"}.get(type(model).__name__, "teacher")
    if model.engine != "openai":
        if name := next((name for name in SENDING_KEYS if getattr(model, name)), None):
            raise UsageError(
                f"{name} with the {model.engine} engine, which sends no requests", f'leave {name} out, or use engine = "openai"'
            )
        return
    for part, fields in (("options", model.options), ("body", model.body)):
        for name, setting in _owned_in(fields):
            raise UsageError(f"[{table}] {part}: {name} is set by the engine", f"leave it out and set {setting}")
    if "omit" in model.body:
        raise UsageError(f"[{table}] body: omit is an option, no field of a request", f"write it in [{table}.options]")
    if (kwargs := model.options.get("chat_template_kwargs")) is not None and not isinstance(kwargs, dict):
        raise UsageError(f"[{table}.options] chat_template_kwargs = {kwargs!r}: not a table", "{ enable_thinking = false }")
    omitted = model.options.get("omit", [])
    if not isinstance(omitted, list) or not all(isinstance(name, str) for name in omitted):
        raise UsageError(f"[{table}.options] omit = {omitted!r}: not a list of field names", 'omit = ["seed"]')
    if name := next((name for name in omitted if name in NEVER_OMITTED), None):
        raise UsageError(
            f"[{table}.options] omit: {name} goes out with every request",
            "leave it out of omit: which of the two names an endpoint knows is found by trying"
            if name.startswith("max")
            else f"leave {name!r} out of omit",
        )
    if isinstance(model.api_key_env, list) and len(model.api_key_env) not in (1, len(model.base_url)):
        raise UsageError(
            f"api_key_env names {len(model.api_key_env)} variables for {len(model.base_url)} base URLs",
            "name one for each base URL in their order, or one for all",
        )
    tag_pairs(tuple(model.reasoning_tags))
    check_no_secret({name: getattr(model, name) for name in ("base_url", "headers", "query", "options", "body")}, f"[{table}]")
    for part in ("headers", "query"):
        for name, value in getattr(model, part).items():
            if not isinstance(value, (str, int, float)) or not (name.isascii() and name.isprintable() and ":" not in name):
                raise UsageError(f"[{table}] {part}: {name!r} is not a name with a text", f'{part} = {{ "x-name" = "value" }}')
            if any(mark in str(value) for mark in "\r\n\0"):
                raise UsageError(f"[{table}] {part}: {name!r} holds a line break", "write it on one line")


def _owned_in(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields that are the engine's, however they are spelled (maxTokens, max-tokens), and what sets each."""
    for name, value in fields.items():
        plain = name.lower().replace("_", "").replace("-", "")
        if plain == "extrabody" and isinstance(value, dict) and set(value) == {"google"}:  # Gemini reads it so, literally
            yield from _owned_in(value["google"] if isinstance(value["google"], dict) else {})
        elif plain in _OWNED:
            yield name, _OWNED[plain]
        elif plain in WRAPPERS and isinstance(value, dict):
            yield from ((f"{name}.{inner}", setting) for inner, setting in _owned_in(value))


def fields_of(model: ModelConfig) -> tuple[dict[str, Any], frozenset[str]]:
    """What the recipe adds to every request's body, and the fields that it leaves out."""
    fields = {name: value for name, value in model.options.items() if name != "omit"} | model.body
    if model.chat_template_kwargs:
        fields["chat_template_kwargs"] = {**fields.get("chat_template_kwargs", {}), **model.chat_template_kwargs}
    return fields, frozenset(model.options.get("omit", ()))


def addresses(model: ModelConfig) -> list[Address]:
    """Where the model is reached, with keys from the environment. Raises UsageError for a missing key or a wrong URL."""
    urls = [url for url in model.base_url if url] or [url for url in [os.environ.get("OPENAI_BASE_URL")] if url]
    names = [model.api_key_env] if isinstance(model.api_key_env, str) else model.api_key_env
    headers, query = (with_variables(getattr(model, table), f"[teacher] {table}") for table in ("headers", "query"))
    variables = [
        sent[name]
        for table, sent in ((model.headers, headers), (model.query, query))
        for name in table
        if "$" in str(table[name])
    ]
    found = []
    for number, url in enumerate(urls or [DEFAULT_URL]):
        if not _is_http(url):
            raise UsageError(f"base URL {shown_url(url)!r}: not an http or https URL", "for example http://localhost:8000/v1")
        check_url(url, "base URL")
        parts = urllib.parse.urlsplit(url)
        if (path := parts.path.rstrip("/")).endswith(PATH):  # the whole URI, as Azure's portal shows it
            parts = parts._replace(path=path.removesuffix(PATH))
        name = names[number] if len(names) > 1 else names[0]
        key = _key(name)
        address = Address(
            url=urllib.parse.urlunsplit(parts._replace(query="", fragment="")),
            name=shown_url(urllib.parse.urlunsplit(parts)),
            key=key,
            key_env=name,
            query={**dict(urllib.parse.parse_qsl(parts.query)), **query},
            headers=headers,
            secrets=tuple(secret for text in (key, *variables) for secret in text.split() if secret not in ("Bearer", "Basic")),
        )
        if not address.key and not urls and not address.has_key_header:
            raise UsageError(
                f"no key for {DEFAULT_URL}: the environment variable {name} is not set",
                f"set {name}, or pass the endpoint's --teacher-base-url",
            )
        found.append(address)
    return found


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """What an endpoint said, without the keys, which some repeat."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            f"the environment variable {name} holds no key: characters that no header can carry", "set it to the key alone"
        )
    return key


def _is_http(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        return False
