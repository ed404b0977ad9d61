"""Metrics of an answer by itself: how it ended, whether it has its form, repeats itself or refuses.

Owns what counts as a repetition, `refusals` what as a refusal: filter drops by the same definitions.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from seqdistill.metrics.metric import Item, Metric
from seqdistill.metrics.refusals import refusal

MOST_REPEATED = 0.5  # share of an answer that repeats earlier text, from which it "repeats itself"

_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.):]|#{1,6})\s+")
_WORD = re.compile(r'"[^"]*[^\W\d_]')  # of a JSON text: a string with a letter
_STUCK = re.compile(r"(\S)\1{199,}")  # one character, longer than any rule or bar is drawn
AGAIN = 50  # times that a line without letters may follow itself: no table or grid has as many
LABEL = 15  # characters of a label, at most
_JSON = re.compile(r"^[ \t]*(?=[\[{])", re.MULTILINE)
TRIES = 100  # lines that begin as JSON and are not, before the rest is taken for text
RUN = 3  # lines: a line repeats when it and the two before it, in this order, were in the text already


def repetition(text: str) -> float:
    """The share (0 to 1) of a text that repeats what was in it before, as a model does that is caught in a loop.

    Within a line it is the share of 4-grams of words (of characters where there are no spaces) that an earlier one equals;
    a line counts whole where it and the lines before it were there already. Tables, code and lists repeat words and single
    lines by their nature, not runs of lines. Lines without letters do not count, and a line of labels is not looked into.
    JSON repeats its keys: in it, what counts are items of a list that equal an earlier one whole, and loops within a string.
    """
    if stuck := sum(match.end() - match.start() for match in _STUCK.finditer(text)):
        return stuck / len(text)
    total, repeated = 0, 0.0
    text, shares = _json_in_lines(text)
    lines = text.splitlines()
    if len(lines) > AGAIN and _most_in_a_row(lines) > max(AGAIN, MOST_REPEATED * len(lines)):
        return 1.0
    seen: set[tuple[str, ...]] = set()
    before: list[str] = []
    fenced = False
    for line in lines:
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        bullet = _BULLET.match(line)
        bare = " ".join(line[bullet.end() if bullet else 0 :].split())
        if not any(map(str.isalpha, bare)):
            continue
        before = [*before[1 - RUN :], bare]
        size = max(1, len(_units(bare)))
        total += size
        run = tuple(before)
        if len(run) == RUN and run in seen:
            repeated += size
        elif bare in shares:
            repeated += size * shares[bare]
        elif not (fenced or bare.startswith("|") or bare.count("|") > 1):
            repeated += size * _repeated_grams(_units(bare))
        seen.add(run)
    return repeated / total if total else 0.0


def _json_in_lines(text: str) -> tuple[str, dict[str, float]]:
    """The text with each JSON document that begins a line in one line, and for each such line how much of it repeats."""
    if '"' not in text or not ("{" in text or "[" in text):
        return text, {}
    parts, shares, end, failed = list[str](), dict[str, float](), 0, 0
    read = json.JSONDecoder().raw_decode
    for begin in _JSON.finditer(text):
        if begin.start() < end or failed == TRIES:
            continue
        try:
            value, after = read(text, begin.end())
            line = " ".join(json.dumps(value, ensure_ascii=False).split())
            shares[line] = sum(_repeats(value)) / len(line)
        except (ValueError, RecursionError):
            failed += 1
            continue
        parts += [text[end : begin.start()], line]
        end = after
    return "".join([*parts, text[end:]]), shares


def _repeats(value: Any) -> Iterator[float]:
    """How many characters of a JSON value repeat what was in it before."""
    if isinstance(value, str):
        yield len(value) * repetition(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _repeats(part)
    elif isinstance(value, list):
        seen = set[str]()
        for item in value:
            written = json.dumps(item, ensure_ascii=False)
            if written not in seen:
                seen.add(written)
                yield from _repeats(item)
            elif len(written) > LABEL and _WORD.search(written):
                yield len(written)


def _most_in_a_row(lines: list[str]) -> int:
    """How often the line that follows itself most often does so; empty lines do not count, where there are others."""
    bare = [line.strip() for line in lines]
    only_empty = not any(bare)
    return max(sum(1 for _ in run) for line, run in itertools.groupby(bare) if line or only_empty)


def _units(line: str) -> list[str] | str:
    """The words of a line; its characters where most of them are of a script without spaces."""
    units = line.split()
    return "".join(units) if len(line) > 20 * len(units) and not line.isascii() else units


def _repeated_grams(units: list[str] | str) -> float:
    total = len(units) - 3
    if total < 4 or _are_labels(units):
        return 0.0
    return 1 - len(set(zip(units, units[1:], units[2:], units[3:], strict=False))) / total


def _are_labels(units: list[str] | str) -> bool:
    """Whether a line is one short label for each of several things, as in O O B-PER O: few of them, and in no loop."""
    kinds = set(units)
    if isinstance(units, str) or 3 * len(kinds) > len(units) or any(len(kind) > LABEL or kind[-1] in ".:!?" for kind in kinds):
        return False
    return _looping_end(units) < 2 / 3 * len(units)


def _looping_end(units: list[str]) -> int:
    """How many of the last units repeat those up to eight places before them, in a loop."""
    backwards = units[::-1]
    return max(
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(backwards, backwards[period:], strict=False)))
        for period in range(1, 9)
    )


def _ended(item: Item, *reasons: str) -> float | None:
    return None if item.finish_reason is None else 100.0 * (item.finish_reason in reasons)


METRICS = (
    Metric(
        "stopped",
        "stops by itself",
        "answers that stop by themselves",
        lambda item: _ended(item, "stop"),
        "percent of answers that ended by the end-of-turn token, not at max_tokens",
        against=False,
        share=True,
    ),
    Metric(
        "truncated",
        "cut off",
        "answers cut off at max_tokens",
        lambda item: _ended(item, "length"),
        "percent of answers cut off at max_tokens",
        against=False,
        share=True,
        higher_is_better=False,
    ),
    Metric(
        "valid",
        "has the form",
        "answers with the task's form",
        lambda item: 100.0 * (item.fault is None),
        "percent of answers that have the task's form; base and student are prompted without naming it",
        against=False,
        kinds=("choices", "schema"),
        share=True,
    ),
    Metric(
        "repeats",
        "repeats itself",
        "answers that repeat themselves",
        lambda item: 100.0 * (repetition(item.text) > MOST_REPEATED),
        f"percent of answers of which more than {MOST_REPEATED:.0%} repeats earlier text: 4-grams within a line, runs of lines",
        against=False,
        kinds=("text", "schema"),
        share=True,
        higher_is_better=False,
    ),
    Metric(
        "refused",
        "refuses",
        "refusals",
        lambda item: 100.0 * (refusal(item.text) is not None),
        "percent of answers that begin with a refusal, in sixteen languages",
        against=False,
        kinds=("text",),
        share=True,
        higher_is_better=False,
    ),
)
