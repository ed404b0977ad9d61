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

from seqdistill.filter.checks.words import Hashes, Ints
from seqdistill.records import Sample

OPENING = 4  # words
FEWEST_PROMPTS = 5
LARGEST_SHARE = 0.2  # an opening of more than this is the task's form: dropping it is the user's decision, not ours
FROM_PROMPT = 0.2  # an opening is asked for when this share of its rows has one of its words in the prompt
COVERAGE = 0.75  # of the slice's usual: an answer takes up as much of its prompt as others do
LOOKED_AT = 100  # rows read to judge an opening or a slice

_WORD = re.compile(r"\w+")
_PLAIN = frozenset(
    _WORD.findall(
        "the a an this that these those it its is are was were be been has have had will would can could may must of to in on "
        "at for from by with and or but not no as if all any some one there here their they you your we our he she his her i my"
    )
)


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

    `openings` and `prompts` hold a hash a row (an opening's is 0 where there are fewer than OPENING words). Of an opening's
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
            opening = _WORD.findall(looked[0].text)[:OPENING]
            content = {word for word in _folded(opening) if word not in _PLAIN}
            if not content or np.mean([bool(content & _words(sample.prompt_text)) for sample in looked]) > FROM_PROMPT:
                continue
            usual = usual or _usual([read(row) for row in _some(rows)])
            if _alike(looked, usual):
                continue
            if np.mean([coverage(sample) for sample in looked]) <= COVERAGE * usual.coverage:
                found[int(values[number])] = " ".join(opening)
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


def _alike(samples: Sequence[Sample], usual: _Usual) -> bool:
    """Whether the prompts are one said in several ways: most of their words, less the template's, are common to all."""
    own = [_words(sample.prompt_text) - usual.template for sample in samples]
    return len(set.intersection(*own)) > 0.5 * float(np.mean([len(words) for words in own]))


def _words(text: str) -> set[str]:
    return set(_folded(_WORD.findall(text))) - _PLAIN


def _folded(found: Sequence[str]) -> list[str]:
    return [word.casefold() for word in found]


def _some(rows: Ints) -> list[int]:
    """At most LOOKED_AT of the rows, evenly spread."""
    step = max(1, -(-len(rows) // LOOKED_AT))
    return [int(row) for row in rows[::step]]
