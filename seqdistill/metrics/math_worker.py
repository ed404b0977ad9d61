"""The process in which math-verify reads hostile formulas: one JSON line in, one word out, killed when it takes too long.

A process of its own because sympy can neither be interrupted within one large power nor held to a memory limit.
"""

import json
import re
import sys
from typing import Any

_COMMAND = re.compile(r"\\(?:(?:text|begin|end)\s*\{[^}]*\}|[a-zA-Z]+|.)")  # \frac, \text{ cm}, \begin{pmatrix}, \{
_WORD = re.compile(r"[^\W\d_]{2}")
_STATED = re.compile(r"(?:\banswer\s+is\b|\banswer\s*:|####|答案是|=)\s*\**\s*:?", re.IGNORECASE)
_LATEX = re.compile(r"\$|\\boxed|\\\(|\\\[")
_ROOT = re.compile(r"√\s?(?:\(([^()]{1,40})\)|(\w{1,20}))")
_DOLLARS = re.compile(r"\\\$\s?(?=[\d.])")  # an amount of money: \$18.90


def main() -> None:
    """Answers each line {"reference": str, "text": str}: "right", "wrong", or "unreadable" when the reference is no formula."""
    from math_verify import parse, verify

    def formulas(text: str) -> Any:
        return parse(text, parsing_timeout=None)  # whoever started this process keeps the time

    print("ready", flush=True)
    for line in sys.stdin:
        row = json.loads(line)
        reference = formulas(delimited(row["reference"]))
        if not reference:
            print("unreadable", flush=True)
            continue
        right = verify(reference, formulas(delimited(row["text"])), timeout_seconds=None)
        print("right" if right else "wrong", flush=True)


def delimited(text: str) -> str:
    """The text as math-verify reads it best: a formula without delimiters, alone or stated at the end, gets them.

    It reads only what is within $...$ as a whole; outside of it, a pair is its last number, and a matrix is nothing.
    """
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", _DOLLARS.sub("", text.replace("−", "-")))
    if _LATEX.search(text):
        return text
    stated = _STATED.split(text)[-1].strip().rstrip(".").strip(" *")
    for part in (text.strip(), stated):
        if part and not _WORD.search(_COMMAND.sub("", part)):
            return f"${part.removeprefix('+')}$"
    return text


if __name__ == "__main__":
    main()
