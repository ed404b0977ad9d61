"""The process in which math-verify reads hostile formulas: one JSON line in, one word out, killed when it takes too long.

A process of its own because sympy can neither be interrupted within one large power nor held to a memory limit.
"""

import json
import re
import sys
from typing import Any

_COMMAND = re.compile(r"\\(?:text\s*\{[^}]*\}|[a-zA-Z]+|.)")  # \frac, \text{ cm}, \{
_WORD = re.compile(r"[^\W\d_]{2}")


def main() -> None:
    """Answers each line {"reference": str, "text": str}: "right", "wrong", or "unreadable" when the reference is no formula."""
    from math_verify import parse, verify

    def formulas(text: str) -> Any:
        return parse(text, parsing_timeout=None)  # whoever started this process keeps the time

    print("ready", flush=True)
    for line in sys.stdin:
        row = json.loads(line)
        bare = "$" not in row["reference"] and not _WORD.search(_COMMAND.sub("", row["reference"]))
        reference = formulas(f"${row['reference']}$" if bare else row["reference"])  # only $...$ is read as a whole
        if not reference:
            print("unreadable", flush=True)
            continue
        right = verify(reference, formulas(row["text"]), timeout_seconds=None)
        print("right" if right else "wrong", flush=True)


if __name__ == "__main__":
    main()
