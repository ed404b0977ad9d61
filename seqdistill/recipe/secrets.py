"""Secrets in a recipe: where they may not be, and how an environment variable is named in their place.

A header or query value names variables as $NAME or ${NAME}; `$$` is a dollar sign.
"""

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from seqdistill.errors import UsageError

_NAME = re.compile(
    r"(?:^|[-_.])(?:key|token|secret|password|passwd|pwd|auth|authorization|cookie|credentials?|sig|signature)(?:$|[-_.])"
    r"|apikey|accesskey",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(?:Bearer|Basic|Token) +[^\s$]|(?:\b|_)(?:sk|pk|gsk|hf|xai|nvapi|ghp|r8|fw|csk)[-_][A-Za-z0-9_-]{12,}"
    r"|\bAIza\w{20,}|\beyJ[\w-]{10,}\."
)
_VARIABLE = re.compile(r"\$(?:\$|(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})")
TABLES_OF_VALUES = ("headers", "query")


def check_no_secret(model: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for a secret written out in the keys of a model's table; `place` is file and table. Never shows it."""
    urls = model.get("base_url") or ()
    for url in [urls] if isinstance(urls, str) else urls:
        check_url(str(url), f"{place} base_url")
    for table in TABLES_OF_VALUES:
        values = model.get(table)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if not _VARIABLE.search(str(value)) and (_NAME.search(name) or _VALUE.search(str(value))):
                raise UsageError(
                    f"{place} {table}: {name!r} holds a secret, which would be kept in the run's files",
                    f'put it into an environment variable and name that: {table} = {{ "{name}" = "$MY_KEY" }}',
                )
    for table in ("options", "body"):
        if name := next((name for name, text in _texts(model.get(table)) if _VALUE.search(text)), None):
            raise UsageError(
                f"{place} {table}: {name!r} looks like a key, which would be kept in the run's files",
                "keys come from the environment: api_key_env, or headers",
            )


def check_url(url: str, place: str) -> None:
    """Raises UsageError for a base URL with a password or a key in it."""
    try:
        parts = urllib.parse.urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:  # not a URL: reported where it is used
        return
    if user or password:
        raise UsageError(
            f"{place}: {shown_url(url)} is written with a user and password, which would be kept in the run's files",
            'put "Basic ..." into an environment variable and name that: headers = { Authorization = "$MY_AUTH" }',
        )
    if name := next((name for name, _ in urllib.parse.parse_qsl(parts.query) if _NAME.search(name)), None):
        raise UsageError(
            f"{place}: {shown_url(url)} is written with a key in its query ({name}), which would be kept in the run's files",
            f'put it into an environment variable and name that: query = {{ {name} = "$MY_KEY" }}',
        )


def with_variables(values: Mapping[str, Any], place: str) -> dict[str, str]:
    """The values with each environment variable's content for its name. Raises UsageError for one that is not set."""

    def content(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"]
        if name is None:
            return "$"
        value = os.environ.get(name, "").strip()
        if not value or not (value.isascii() and value.isprintable()):
            state = "holds characters that no header can carry" if value else "is not set"
            raise UsageError(f"{place}: the environment variable {name} {state}", f"set {name} to the value alone")
        return value

    return {name: _VARIABLE.sub(content, str(value)) for name, value in values.items()}


def shown_url(url: str) -> str:
    """A base URL without user, password and query, which may be secret."""
    scheme, slashes, rest = url.split("?")[0].rpartition("//")
    return scheme + slashes + rest.split("@")[-1]


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each text in a table, with its name."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)
    elif isinstance(value, str):
        yield name, value
