"""Writing systems: completions that slip into another one than their prompt's, found by being rare in their slice.

In translation most completions change script, so the change alone is no fault.
"""

from collections import Counter
from collections.abc import Sequence

FEWEST_ROWS = 20  # a smaller slice does not show what is usual


def foreign_scripts(scripts: Sequence[tuple[str, str]], slices: Sequence[str], smallest_share: float) -> dict[int, str]:
    """The reason for each row whose completion is in another script than its prompt, where fewer than `smallest_share` are.

    `scripts` holds each row's (prompt's script, completion's script), "" for a text without letters.
    """
    written = Counter(zip(slices, (completion for _, completion in scripts), strict=True))
    rows = Counter(slices)
    return {
        row: f"written in {completion}, its prompt in {prompt}; like {written[name, completion]} of {rows[name]} of its slice"
        for row, ((prompt, completion), name) in enumerate(zip(scripts, slices, strict=True))
        if prompt
        and completion
        and prompt != completion
        and rows[name] >= FEWEST_ROWS
        and written[name, completion] < smallest_share * rows[name]
    }
