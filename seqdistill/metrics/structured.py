"""Metrics of answers that are JSON: whether they are, and how many of the wanted fields they have.

Owns how an answer is read as JSON and when two are the same: filter's vote and verify read and compare them so, too.
"""

import json
import re
from collections import Counter
from typing import Any

from seqdistill.fences import unfenced
from seqdistill.metrics.metric import Item, Metric
from seqdistill.records import from_json

_CONSTANT = re.compile("NaN|Infinity")
MOST_PAIRS = 100_000  # of items of two lists; items of longer ones are compared in their order


def parsed(text: str) -> Any:
    """The value of a text that is JSON as a whole, alone or as one fenced block. Raises ValueError; NaN is not JSON."""
    text = unfenced(text.strip())
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


def field_f1(text: str, wanted: str) -> float | None:
    """F1 of the fields of two JSON texts, in percent: 0 for a text that is not JSON, None where the wanted one is not.

    A field counts within its object: each item of a list is compared with one of the other's, whatever their order, in the
    pairing that has most in common.
    """
    try:
        want = _spelled(parsed(wanted))
    except ValueError:
        return None
    try:
        have = _spelled(parsed(text))
    except ValueError:
        return 0.0
    return 200.0 * _shared(have, want) / (_leaves(have) + _leaves(want))


def _spelled(value: Any) -> Any:
    """A JSON value with one spelling for each leaf: 1 is 1.0, white space is one space. Empty objects and lists are leaves."""
    if isinstance(value, dict) and value:
        return {key: _spelled(part) for key, part in value.items()}
    if isinstance(value, list) and value:
        return [_spelled(part) for part in value]
    return json.dumps(" ".join(value.split()) if isinstance(value, str) else whole_numbers(value))


def _leaves(spelled: Any) -> int:
    if isinstance(spelled, str):
        return 1
    return sum(map(_leaves, spelled.values() if isinstance(spelled, dict) else spelled))


def _shared(one: Any, other: Any) -> int:
    """The leaves that two spelled values have in common."""
    if isinstance(one, dict) and isinstance(other, dict):
        return sum(_shared(part, other[key]) for key, part in one.items() if key in other)
    if isinstance(one, list) and isinstance(other, list):
        return _shared_items(one, other)
    return int(isinstance(one, str) and one == other)


def _shared_items(one: list[Any], other: list[Any]) -> int:
    """The same of two lists. Equal items are paired first: no other pairing has more in common."""
    names, others = ([json.dumps(item, sort_keys=True) for item in items] for items in (one, other))
    equal = Counter(names) & Counter(others)
    left, right = _without(one, names, equal), _without(other, others, equal)
    shared = sum(map(_leaves, one)) - sum(map(_leaves, left))
    if len(left) * len(right) > MOST_PAIRS:
        return shared + sum(map(_shared, left, right))
    counts: list[list[int]] = [[_shared(item, two) for two in right] for item in left]
    if not any(map(any, counts)):
        return shared
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts, maximize=True)
    return shared + sum(counts[int(i)][int(j)] for i, j in zip(rows, columns, strict=True))


def _without(items: list[Any], names: list[str], equal: Counter[str]) -> list[Any]:
    """The items less as many of each name as are equal."""
    left, rest = Counter(equal), []
    for item, name in zip(items, names, strict=True):
        if left[name] > 0:
            left[name] -= 1
        else:
            rest.append(item)
    return rest


def _is_json(item: Item) -> float:
    return 100.0 * (normal_json(item.text) is not None)


METRICS = (
    Metric(
        "field_f1",
        "field F1",
        "field F1",
        lambda item: field_f1(item.text, item.wanted),
        "mean F1 of the fields of the parsed JSON, items of lists paired so that most agree; 0 where the answer is not JSON",
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
