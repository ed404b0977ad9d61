"""The texts that end an answer, `stop` of a request: where an answer is cut, and what of a part of it must wait."""

from typing import NamedTuple


class Stopped(NamedTuple):
    """An answer up to the first of its stops."""

    text: str
    at_stop: bool


def until_stop(text: str, stops: tuple[str, ...], *, whole: bool = True) -> Stopped:
    """The text up to the first of its stops; of a part, less what may still become one."""
    if places := [at for stop in stops if (at := text.find(stop)) >= 0]:
        return Stopped(text[: min(places)], True)
    held = 0 if whole else max(map(len, stops), default=1) - 1
    return Stopped(text[: len(text) - held], False)
