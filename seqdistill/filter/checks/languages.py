"""Writing systems and languages: completions that slip into another than their prompt's, found by being rare in their slice.

In translation most completions change language, so the change alone is no fault.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

FEWEST_ROWS = 20  # a smaller slice does not show what is usual
READ = 2000  # characters of a text
SURE = 0.9  # a language told with less confidence is not told


def script(text: str) -> str:
    """The writing system of most of a text's letters, as Unicode names it ("LATIN", "CYRILLIC", "CJK"); "" without letters."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters = [character for character in text[:READ] if character.isalpha()]
    if not letters:
        return ""
    names = Counter(unicodedata.name(letter, "?").partition(" ")[0] for letter in letters)
    japanese = names["HIRAGANA"] + names["KATAKANA"]
    if japanese:
        names["CJK"] += japanese
        del names["HIRAGANA"], names["KATAKANA"]
    return max(sorted(names), key=names.__getitem__)


def language(text: str) -> str:
    """The language of a text, of 97, as ISO 639 codes it ("en"); "" where it cannot be told for sure, as of a few words."""
    told: str = _identifier().classify(text[:READ].encode(errors="replace"))[0]
    return "" if told == "und" else told


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=SURE)


def slips(written: Sequence[tuple[str, str]], slices: Sequence[str], smallest_share: float) -> dict[int, str]:
    """The reason for each row whose completion is written in another than its prompt, where fewer than `smallest_share` are.

    `written` holds each row's (prompt's, completion's) script or language, "" where it has none.
    """
    like = Counter(zip(slices, (completion for _, completion in written), strict=True))
    rows = Counter(slices)
    return {
        row: f"written in {completion}, its prompt in {prompt}; like {like[name, completion]} of {rows[name]} of its slice"
        for row, ((prompt, completion), name) in enumerate(zip(written, slices, strict=True))
        if prompt
        and completion
        and prompt != completion
        and rows[name] >= FEWEST_ROWS
        and like[name, completion] < smallest_share * rows[name]
    }
