"""Answers: a completion's final answer, extracted from its text so that two completions can be compared.

Owns the ways to find an answer and its normal form; numbers are read by `metrics.numbers`. Does not judge it. A completion is
hostile text: no way of reading it may hang, and a completion that has no answer has None.
"""

import json
from collections.abc import Callable
from typing import Any

import regex  # a user's pattern runs on a model's text: this package has a time limit

from seqdistill.errors import UsageError
from seqdistill.metrics.numbers import answer_number, boxed, normal_form, whole_number
from seqdistill.metrics.structured import parsed, whole_numbers
from seqdistill.metrics.text import bare

Extract = Callable[[str], str | None]

EXTRACTS = "text, number, boxed, json:PATH or regex:PATTERN"
REGEX_SECONDS = 1.0


def extractor(extract: str) -> Extract:
    """The function text -> answer in normal form, or None, that a setting names.

    `text` takes the whole completion, `number` the number that it states as its answer, `boxed` the last \\boxed{...},
    `json:a.0.b` a value of a completion that is JSON, `regex:PATTERN` the last match (its first group, where it has one).
    Raises UsageError.
    """
    kind, _, rest = extract.partition(":")
    match kind:
        case "text" if not rest:
            return normal
        case "number" if not rest:
            return answer_number
        case "boxed" if not rest:
            return lambda text: normal(found) if (found := boxed(text)) is not None else None
        case "json":
            path = [part for part in rest.split(".") if part]
            return lambda text: _at_path(text, path)
        case "regex" if rest:
            pattern = compiled(rest, "filter.score.extract")
            return lambda text: _last_match(pattern, text)
    raise UsageError(f"filter.score.extract = {extract!r}: unknown", f"one of: {EXTRACTS}")


def compiled(pattern: str, key: str, any_case: bool = False) -> Any:
    """The user's pattern, compiled; `any_case` is for answers in normal form. Raises UsageError naming the key."""
    try:
        return regex.compile(pattern, regex.IGNORECASE if any_case else 0)
    except regex.error as error:
        raise UsageError(f"{key} = {pattern!r}: not a regular expression: {error}", "fix the pattern") from None


def normal(text: str) -> str | None:
    """A text in normal form, as eval's normalised match compares it; a number as `number` writes it."""
    folded = bare(text)
    value = whole_number(folded)
    return (folded if value is None else normal_form(value)) or None


def json_in(text: str) -> tuple[Any, str] | None:
    """The value of a text that is JSON as a whole, as eval's metrics read it, and its normal form; None for other text."""
    try:
        value = whole_numbers(parsed(text))
    except ValueError:
        return None
    return value, json.dumps(value, sort_keys=True)


def _at_path(text: str, path: list[str]) -> str | None:
    read = json_in(text)
    if read is None:
        return None
    value = read[0]
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return normal(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _last_match(pattern: Any, text: str) -> str | None:
    found = None
    try:
        for match in pattern.finditer(text, timeout=REGEX_SECONDS):
            found = match
    except TimeoutError:
        return None
    if found is None:
        return None
    return normal(found[1] if pattern.groups and found[1] is not None else found[0])
