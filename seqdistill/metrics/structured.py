"""Metrics of answers that are JSON: whether they are, and how many of the wanted fields they have.

Owns how an answer is read as JSON and when two are the same: filter's vote and verify read and compare them so, too.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from seqdistill.metrics.metric import Item, Metric
from seqdistill.records import from_json

_FENCED = re.compile(r"\A```[\w-]*\n(?P<inside>.*)\n```\Z", re.DOTALL)
_CONSTANT = re.compile("NaN|Infinity")


def parsed(text: str) -> Any:
    """The value of a text that is JSON as a whole, alone or as one fenced block. Raises ValueError; NaN is not JSON."""
    text = text.strip()
    fenced = _FENCED.match(text)
    text = fenced["inside"] if fenced else text
    value = from_json(text)
    if _CONSTANT.search(text):
        json.loads(text, parse_constant=_refuse)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def normal_json(text: str) -> str | None:
    """One spelling for all texts of the same JSON value: key order does not matter, 1 is 1.0. None for other text."""
    try:
        return json.dumps(whole_numbers(parsed(text)), sort_keys=True)
    except ValueError:
        return None


def whole_numbers(value: Any) -> Any:
    """A JSON value in which a whole number is an int: 1 is 1.0, and true is not 1."""
    if isinstance(value, dict):
        return {key: whole_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a JSON value as (path, value): items of a list share one path, so that their order does not matter."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from fields(part, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for part in value:
            yield from fields(part, f"{path}[]")
    else:
        yield path, json.dumps(" ".join(value.split()) if isinstance(value, str) else whole_numbers(value))


def field_f1(text: str, wanted: str) -> float | None:
    """F1 of the fields of two JSON texts, in percent: 0 for a text that is not JSON, None where the wanted one is not."""
    try:
        want = Counter(fields(parsed(wanted)))
    except ValueError:
        return None
    try:
        have = Counter(fields(parsed(text)))
    except ValueError:
        return 0.0
    return 200.0 * (want & have).total() / (want.total() + have.total())


def _is_json(item: Item) -> float:
    return 100.0 * (normal_json(item.text) is not None)


METRICS = (
    Metric(
        "field_f1",
        "field F1",
        "field F1",
        lambda item: field_f1(item.text, item.wanted),
        "mean F1 of (path, value) pairs of the parsed JSON; an answer that is not JSON scores 0",
        kinds=("schema",),
    ),
    Metric(
        "json",
        "JSON",
        "answers that are JSON",
        _is_json,
        "percent of answers that parse as JSON, alone or as one fenced block",
        against=False,
        kinds=("schema",),
        share=True,
    ),
)
