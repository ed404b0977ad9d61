"""What may be shown of a reply that is still being written: its answer, without reasoning, and nothing that changes later.

What is reasoning in a whole reply is decided in `reasoning`. Knows no server and no model.
"""

import re
from collections.abc import Sequence

from seqdistill.reasoning import ANSWER_OPENINGS, split_reasoning, tag_pairs

CHANNELS = ("<|channel|>", "<|start|>")
BARE_CHANNEL = "analysis"  # a channel's name where its tokens were not decoded
_TORN_TAG = re.compile(r"<(?:\|\w*\|?)?\Z")


class Shown:
    """One reply as it comes: `add` and `end` return what is new of its answer. What was shown is not taken back."""

    def __init__(self, tags: Sequence[str] = (), *, opened: bool = False) -> None:
        """`tags` are those of `split_reasoning`; `opened`: the prompt has opened a block of reasoning."""
        self.text, self.beside = "", ""  # `beside`: reasoning that came in a field of its own
        self._tags, self._opened = tuple(tags), opened
        self._passed_on = ""
        self._is_plain = False  # it began as an answer: all that follows is shown at once

    def add(self, text: str) -> str:
        """What may be shown now that some text was added."""
        self.text += text
        if self._is_plain:
            return text
        part = shown_part(self.text, self._tags, opened=self._opened)
        self._is_plain = part == self.text and not self._opened
        return self._new(part)

    def end(self) -> str:
        """What is left to show of a reply that is whole."""
        return "" if self._is_plain else self._new(split_reasoning(self.text, self.beside, self._tags)[0])

    def _new(self, answer: str) -> str:
        if not answer.startswith(self._passed_on):
            return ""
        new, self._passed_on = answer[len(self._passed_on) :], answer
        return new


def shown_part(text: str, tags: Sequence[str] = (), *, opened: bool = False) -> str:
    """The answer in a reply that is not whole, as far as it is certain: empty while its text may still become reasoning.

    `opened`: the prompt has opened a block, so that only the closing tag of the reply says where the answer begins.
    """
    pairs, rest = tag_pairs(tuple(tags)), text
    openings = [*(pair.name.lower() for pair in pairs), *CHANNELS]
    if opened and not any(pair.open_at_start.match(text) for pair in pairs):
        closed = next(filter(None, (pair.closed_without_opening(text) for pair in pairs)), None)
        if closed is None:
            return ""
        rest = text[closed.end() :]
    while True:
        head = rest.lstrip()
        if any(tag.startswith(head.lower()) for tag in openings) or BARE_CHANNEL.startswith(head):
            return ""
        found = next(((pair, match) for pair in pairs if (match := pair.open_at_start.match(rest))), None)
        if found is None:
            break
        pair, match = found
        inside = rest[match.end() :]
        thought, rest = pair.until_closed(inside)
        is_balanced = len(pair.opening.findall(thought)) == len(pair.closing.findall(thought))
        if thought == inside or not is_balanced:  # the block is not closed yet, or another one within it
            return ""
    if rest is text and not head.startswith((*CHANNELS, BARE_CHANNEL)):
        return text
    if any(head.lower().startswith(tag) or tag.startswith(head.lower()) for tag in ANSWER_OPENINGS):
        return ""  # what is around the answer ends with it
    answer = split_reasoning(text, tags=tags)[0]
    return "" if answer == text else _TORN_TAG.sub("", answer)


def opens_before(text: str, beside: str = "", tags: Sequence[str] = ()) -> bool:
    """Whether a whole reply closes a block of reasoning that it did not open: the prompt did.

    Where other reasoning stood `beside` it, the tag is part of the answer.
    """
    pairs = tag_pairs(tuple(tags))
    if beside or any(pair.open_at_start.match(text) for pair in pairs):
        return False
    return any(pair.closed_without_opening(text) for pair in pairs)
