"""Code fences around a whole answer, as models put them around JSON. Does not know what is in them."""

import re

_FENCED = re.compile(
    r"\A\s*(?P<fence>`{3,}|~{3,})[ \t]*[\w+-]*[ \t]*\r?\n(?P<inside>.*?)(?:\r?\n)?[ \t]*(?P=fence)\s*\Z", re.DOTALL
)


def unfenced(content: str) -> str:
    """What is in the code fence of an answer that is one whole, as models write JSON; any other answer as it is."""
    fenced = _FENCED.match(content)
    if fenced is None or re.search(rf"^[ \t]*{fenced['fence']}", fenced["inside"], re.MULTILINE):
        return content
    return fenced["inside"].strip()
