"""Stock phrases: openings that a teacher falls into instead of answering ("The original message was rephrased ..."),
found from the data itself.

An opening of a task's own form ("The town council will ...") is as frequent, so frequency is not the sign. A stock phrase
recurs over many prompts, its words do not come from them, and what follows takes up less of its prompt than other
completions of the slice do.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seqdistill.records import Sample
from seqdistill.stages.filter.checks.words import Hashes, Ints, Words, is_alone, mix, spelled

OPENING = 4  # words; of a script without spaces OPENING_ALONE characters
OPENING_ALONE = 8
FEWEST_WORDS = 2 * OPENING  # of a completion: a shorter one is a label or a value, and repeats by its nature
FEWEST_PROMPTS = 5
LARGEST_SHARE = 0.2  # an opening of more than this is the task's form: dropping it is the user's decision, not ours
FROM_PROMPT = (
    0.2  # an opening counts as requested by the prompts when this share of its rows has one of its words in the prompt
)
COVERAGE = 0.75  # of the slice's usual: an answer takes up as much of its prompt as others do
READ = 400  # characters of a completion, to find its opening
LOOKED_AT = 100  # rows read to judge an opening or a slice

_PLAIN = frozenset(
    [
        "the",
        "a",
        "an",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "has",
        "have",
        "had",
        "will",
        "would",
        "can",
        "could",
        "may",
        "must",
        "of",
        "to",
        "in",
        "on",
        "at",
        "for",
        "from",
        "by",
        "with",
        "and",
        "or",
        "but",
        "not",
        "no",
        "as",
        "if",
        "all",
        "any",
        "some",
        "one",
        "there",
        "here",
        "their",
        "they",
        "you",
        "your",
        "we",
        "our",
        "he",
        "she",
        "his",
        "her",
        "i",
        "my",
        "的",
        "了",
        "是",
        "在",
        "和",
        "有",
        "我",
        "你",
        "他",
        "这",
        "那",
        "の",
        "は",
        "を",
        "に",
        "が",
        "と",
        "で",
        "も",
        "た",
        "て",
    ]
)
_CODE = re.compile(
    r"\A\s*(?:```|~~~|#include|#!|//|/\*|<\?|<!doctype|<html|@\w+|[{}\[(]"
    r"|(?:import|from|def|class|package|using|public|private|static|const|let|var|function|fn|func|async|struct|enum|module|return"
    r"|select|create|insert|update|with|if|for|while)\b[^.!?\n]{0,120}[;{(:=\n*])",
    re.IGNORECASE,
)


def opening_length(first_alone: bool) -> int:
    """How many words make an opening."""
    return OPENING_ALONE if first_alone else OPENING


def openings(texts: Sequence[str], found: Words) -> Hashes:
    """(n,) a hash of each completion's opening; 0 for one too short to have one, and for code. `found` is words(texts)."""
    lengths = np.diff(found.bounds)
    hashes = np.zeros(len(lengths), np.uint64)
    first_alone = np.zeros(len(lengths), bool)
    some = np.flatnonzero(lengths)
    first_alone[some] = found.alone[found.bounds[some]]
    needed = np.where(first_alone, OPENING_ALONE, OPENING)
    long = np.flatnonzero(lengths >= needed + FEWEST_WORDS - OPENING)
    long = long[[not _CODE.match(texts[row]) for row in long.tolist()]]
    for place in range(OPENING_ALONE):
        rows = long[needed[long] > place]
        hashes[rows] = mix(hashes[rows] + found.hashes[found.bounds[rows] + place])
    return hashes


@dataclass(frozen=True)
class StockPhrase:
    """An opening that takes the place of an answer."""

    opening: str
    rows: Ints
    share: float  # of all rows looked at


def stock_phrases(
    openings: Hashes,
    prompts: Hashes,
    groups: Sequence[Ints],
    smallest_share: float,
    read: Callable[[int], Sample],
) -> list[StockPhrase]:
    """The stock phrases among the rows of the groups (the slices): what is one in a group, or in all of them, is one anywhere.

    `openings` and `prompts` hold a hash a row (an opening's is 0 where there is none). Of an opening's
    and a group's rows a fixed choice is read, so that two runs and another order of rows judge alike.
    """
    together = np.concatenate(groups)
    found: dict[int, str] = {}
    for rows in (together, *groups) if len(groups) > 1 else groups:
        values, inverse, counts = np.unique(openings[rows], return_inverse=True, return_counts=True)
        frequent = (counts >= max(FEWEST_PROMPTS, smallest_share * len(rows))) & (counts <= LARGEST_SHARE * len(rows))
        usual: _Usual | None = None
        for number in np.flatnonzero(frequent & (values != 0)):
            mine = rows[inverse == number]
            if int(values[number]) in found or len(np.unique(prompts[mine])) < FEWEST_PROMPTS:
                continue
            looked = [read(row) for row in _some(mine)]
            opening = _opening(looked[0].text)
            content = set(opening) - _PLAIN
            if not content or np.mean([bool(content & _words(sample.prompt_text)) for sample in looked]) > FROM_PROMPT:
                continue
            usual = usual or _usual([read(row) for row in _some(rows)])
            if _are_alike(looked, usual):
                continue
            if np.mean([coverage(sample) for sample in looked]) <= COVERAGE * usual.coverage:
                found[int(values[number])] = _label(looked[0].text, opening)
    phrases = []
    for value, text in found.items():
        rows = together[openings[together] == np.uint64(value)]
        phrases.append(StockPhrase(text, rows, len(rows) / len(together)))
    return phrases


def coverage(sample: Sample) -> float:
    """The share of a completion's content words that its prompt has too."""
    content = _words(sample.text)
    return len(content & _words(sample.prompt_text)) / len(content) if content else 0.0


@dataclass(frozen=True)
class _Usual:
    """What a group's rows are like."""

    coverage: float
    template: frozenset[str]  # the words of most prompts


def _usual(samples: Sequence[Sample]) -> _Usual:
    counts = Counter(word for sample in samples for word in _words(sample.prompt_text))
    template = frozenset(word for word, count in counts.items() if count > len(samples) / 2)
    return _Usual(float(np.mean([coverage(sample) for sample in samples])), template)


def _are_alike(samples: Sequence[Sample], usual: _Usual) -> bool:
    """Whether the prompts are one said in several ways: most of their words, less the template's, are common to all."""
    own = [_words(sample.prompt_text) - usual.template for sample in samples]
    return len(set.intersection(*own)) > 0.5 * float(np.mean([len(words) for words in own]))


def _words(text: str) -> set[str]:
    return set(spelled(text)) - _PLAIN


def _opening(text: str) -> list[str]:
    found = spelled(text[:READ])
    return found[: opening_length(bool(found) and is_alone(found[0]))]


def _label(text: str, opening: Sequence[str]) -> str:
    """The opening as it is written in a text."""
    for end in range(1, min(len(text), READ) + 1):
        if spelled(text[:end]) == opening and (end == len(text) or spelled(text[: end + 1]) != opening):
            return text[:end].strip()
    return " ".join(opening)


def _some(rows: Ints) -> list[int]:
    """At most LOOKED_AT of the rows, evenly spread."""
    step = max(1, -(-len(rows) // LOOKED_AT))
    return [int(row) for row in rows[::step]]
