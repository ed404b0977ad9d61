"""Faithfulness to the source: whether a text's numbers and names are in its prompt. Filter scores by it, eval reports it."""

import re

from seqdistill.metrics.metric import Metric

_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_STARTS = re.compile(r"[.!?:…\n\"“”«»(*#>-][\s\"'“”«»(*#>_-]*\Z")  # before a sentence, a line or a quotation


def faithfulness(source: str, text: str) -> float:
    """The share (0 to 1) of a text's numbers and names that its source has; 1 for a text that has none of them.

    A name is a word with a capital that is not at the start of a sentence or line. It is compared with every word
    of the source, whatever its case. Made for languages that capitalise names alone: in German it looks at every noun.
    """
    from seqdistill.metrics.numbers import mentioned  # its patterns take 10 ms: not for --help

    known = mentioned(source) | {_stem(word) for word in _WORD.findall(source)}
    claims = mentioned(text) | {_stem(name) for name in names(text)}
    return sum(claim in known for claim in claims) / len(claims) if claims else 1.0


def names(text: str) -> list[str]:
    """The words of a text that look like names, in order."""
    found = []
    end = 0
    for word in _WORD.finditer(text):
        between = text[max(end, word.start() - 40) : word.start()]
        starts = end == 0 or _STARTS.search(between)
        if len(word[0]) > 1 and word[0][0].isupper() and not starts:
            found.append(word[0])
        end = word.end()
    return found


def _stem(word: str) -> str:
    """A word without its case and its possessive."""
    return re.sub(r"['’]s?$", "", word.casefold())


METRICS = (
    Metric(
        "faithfulness",
        "faithful",
        "numbers and names that the prompt has",
        lambda item: 100.0 * faithfulness(item.source, item.text),
        "mean share of an answer's numbers and names (capitals inside a sentence) that its prompt has; 100 without any",
        against=False,
        kinds=("text",),
    ),
)
