"""The process in which math-verify reads hostile formulas: one JSON line in, one word out, killed when it takes too long.

A process of its own because sympy can neither be interrupted within one large power nor held to a memory limit.
"""

import json
import re
import sys
from typing import Any

from seqdistill.metrics.numbers import boxed, boxes_braced, has_alternatives, states, tagged, whole_number
from seqdistill.metrics.numerals import repeating_as_fractions

_COMMAND = re.compile(r"\\(?:(?:text|begin|end)\s*\{[^}]*\}|[a-zA-Z]+|.)")  # \frac, \text{ cm}, \begin{pmatrix}, \{
_WORD = re.compile(r"[^\W\d_]{2}")
_STATED = re.compile(r"(?:\banswer\s+is\b|\banswer\s*:|####|答案是|=)\s*\**\s*:?", re.IGNORECASE)
_LATEX = re.compile(r"\$|\\boxed|\\\(|\\\[")
_ROOT = re.compile(r"√\s?(?:\(([^()]{1,40})\)|(\w{1,20}))")
_DOLLARS = re.compile(r"\\\$\s?(?=[\d.])")  # an amount of money: \$18.90
_SPELLED = {"−": "-", "∞": r"\infty ", r"\varnothing": r"\emptyset", "∅": r"\emptyset"}
_IN_BASE = re.compile(r"(?P<digits>[\dA-F]{1,40})(?:_\{?(?P<base>\d{1,2})\}?)?")  # 1010_2
_COLONS = re.compile(r"\d{1,9}(?:\s?:\s?\d{1,9})+")  # a ratio, a time of day
_COLON = re.compile(r"\\(?:text\s?\{\s?:\s?\}|colon\b)")
_LETTER = r"(?:\\text(?:bf|rm)?\s?\{)?[\s*(]{0,4}(?P<letter>[A-J])(?=[\s*}$]{0,4}(?:[).:,\n]|\Z))"
_OPTION = re.compile(rf"[\s$*]{{0,4}}{_LETTER}[).}}*$\s]{{0,6}}")
_CHOSEN = re.compile(rf"(?:\A|(?<!not )\b(?:option|choice|answer)\b(?:\s+is\b)?)[\s$*:(]{{0,6}}{_LETTER}", re.IGNORECASE)
_IT_IS = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s)?(?:(?:it|that|this|there|the(?: \w+){1,4})\s(?:is|are|was)|it['’]s)\s", re.IGNORECASE
)
_WORDS = re.compile(r"(?:\\(?:text|textbf|mathrm|mbox)\s?\{)?\s*(?P<words>[^\W\d_](?:[^\W\d_]| ){1,39})\s*\}?\.?")


def main() -> None:
    """Answers each line {"reference": str, "text": str}: "right", "wrong", or "unreadable" when the reference is no formula."""
    from math_verify import parse, verify

    def formulas(text: str) -> Any:
        return parse(text, parsing_timeout=None)  # whoever started this process keeps the time

    print("ready", flush=True)
    for line in sys.stdin:
        row = json.loads(line)
        text = tagged(row["text"]) if boxed(row["text"]) is None else row["text"]
        if (word := _by_words(row["reference"], text)) is not None:
            print(word, flush=True)
            continue
        reference = formulas(delimited(row["reference"]))
        if not reference:
            print("unreadable", flush=True)
            continue
        right = verify(reference, formulas(delimited(text)), timeout_seconds=None)
        print("right" if right else "wrong", flush=True)


def _by_words(reference: str, text: str) -> str | None:
    """The verdict on a word (Tuesday), an option (B), a ratio or the same number in another style; None for other formulas."""
    if option := _OPTION.fullmatch(boxed(reference) or reference):
        chosen = [match["letter"] for match in _CHOSEN.finditer(boxed(text) or text) if match["letter"].isupper()]
        return None if not chosen else "right" if chosen[-1] == option["letter"] else "wrong"
    if _COLONS.fullmatch((boxed(reference) or reference).strip(" $")) is not None:
        parted = [re.split(r"\s?:\s?", one) for one in _COLONS.findall(_COLON.sub(":", boxed(text) or text))]
        if parted and [*map(int, parted[-1])] == [*map(int, _COLONS.findall(reference)[-1].split(":"))]:
            return "right"
    if (wanted := _WORDS.fullmatch((boxed(reference) or reference).strip())) is not None:
        box = boxed(text)
        stated = _STATED.split(text)[-1].strip() if box is None else box.strip()
        found = _WORDS.fullmatch(_IT_IS.sub("", stated.strip("*$. "), count=1).strip("*$. "))
        right = found is not None and found["words"].casefold().split() == wanted["words"].casefold().split()
        return "right" if right else "wrong" if found or box is not None else None
    if (of_base := _IN_BASE.fullmatch((boxed(reference) or reference).strip(" $"))) and of_base["base"]:
        stated = _IN_BASE.fullmatch((boxed(text) or _STATED.split(text)[-1]).strip(" $*."))  # the question may name the base
        same = stated is not None and stated["digits"] == of_base["digits"] and stated["base"] in (None, of_base["base"])
        return "right" if same else "wrong" if stated else None
    number = whole_number(reference)
    if number is not None and states(text, number, 0):
        return "right"
    return "wrong" if number is not None and not _LATEX.search(text) and has_alternatives(text) else None


def delimited(text: str) -> str:
    """The text as math-verify reads it best: a formula without delimiters, alone or stated at the end, gets them.

    It reads only what is within $...$ as a whole; outside of it, a pair is its last number, and a matrix is nothing.
    """
    for written, meant in _SPELLED.items():
        text = text.replace(written, meant)
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", _DOLLARS.sub("", text))
    text = repeating_as_fractions(boxes_braced(text))
    if _LATEX.search(text):
        return text
    stated = _STATED.split(text)[-1].strip().rstrip(".").strip(" *")
    for part in (text.strip(), stated):
        if part and not _WORD.search(_COMMAND.sub("", part)):
            return f"${part.removeprefix('+')}$"
    return text


if __name__ == "__main__":
    main()
