"""Reasoning in a reply's text: found by its tags and taken out of the answer, whichever model family wrote them.

What a reply holds beside its text is in `replies`. The tags were read from model cards and chat templates.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from seqdistill.errors import UsageError

TAGS = (  # opening and closing
    "<think>...</think>",
    "<thinking>...</thinking>",
    "<thought>...</thought>",
    "<thoughts>...</thoughts>",
    "<reasoning>...</reasoning>",
    "<reason>...</reason>",
    "<seed:think>...</seed:think>",
    "<longcat_think>...</longcat_think>",
    "[THINK]...[/THINK]",
    "◁think▷...◁/think▷",
    "<|begin_of_thought|>...<|end_of_thought|>",
    "<|START_THINKING|>...<|END_THINKING|>",
    "<|channel>thought...<channel|>",
    "<unused94>thought...<unused95>",
    "Here is my thought process:...Here is my response:",
)
PLAIN_WORDS = ("<thinking>", "<thought>", "<thoughts>", "<reasoning>", "<reason>")  # elements of many an XML answer, too
_CHANNEL = re.compile(
    r"(?:<\|start\|>(?:assistant)?)?<\|channel\|>\s*(?P<name>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)"
    r"(?:<\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>)|(?=<\|channel\|>)|\Z)",
    re.DOTALL,
)
_BARE_CHANNELS = re.compile(
    r"\A\s*analysis(?P<thought>.+?)assistant\s*final(?P<answer>.*)\Z", re.DOTALL
)  # decoded without tokens
_ANSWER_TAGS = {  # around an answer that follows reasoning; the last two: Granite, ERNIE; Marco-o1
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
    "<response>": "</response>",
    "<output>": "</output>",
}
ANSWER_OPENINGS = tuple(opening.lower() for opening in _ANSWER_TAGS)
_AROUND_ANSWER = [
    re.compile(rf"\A\s*{re.escape(opening)}(.*?)(?:{re.escape(closing)}\s*)?\Z", re.DOTALL | re.IGNORECASE)
    for opening, closing in _ANSWER_TAGS.items()
]
_WHOLE_ANSWER = re.compile(
    r"\A\s*(<answer>).*</answer>\s*\Z", re.DOTALL | re.IGNORECASE
)  # Hunyuan's; many a prompt asks for it
_LEFT = re.compile(r"<\|channel\|>|\bassistantfinal(?=[A-Z*#\d])|<details type=")  # the last: as chat pages export it
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]{0,80}\"|“[^”\n]{0,80}”", re.DOTALL)
_MAY_HOLD = re.compile(r"[<\[◁]|\A\s*(?:analysis|here is my)", re.IGNORECASE)  # without any of these, none of TAGS is there
QUOTES = "`'\"“‘«"


def split_reasoning(text: str, reasoning: str | None = None, tags: Sequence[str] = ()) -> tuple[str, str | None]:
    """(answer, reasoning) of a reply: blocks of reasoning before the answer, closed or cut off, go to the reasoning.

    `reasoning` is what stood beside the text and comes first; `tags` are "OPEN...CLOSE", by default the common ones. A template
    that opens the block itself leaves only the closing tag in the text; where other reasoning stood beside the text, such a tag
    is part of the answer. A reply cut off in its reasoning has an empty answer. Tags after the answer has begun, and quoted
    ones, are text.
    """
    thoughts = [(reasoning or "").strip()]
    if not tags and not _MAY_HOLD.search(text):
        return text, thoughts[0] or None
    text, inline = _channels(text)
    thoughts += inline
    pairs = tag_pairs(tuple(tags))
    while True:
        opened = next(
            (
                (pair, match)
                for pair in pairs
                if (match := pair.open_at_start.match(text))
                and (pair.closing.search(text) or _is_cut_off(text[match.end() :], pair, reasoning, tags))
            ),
            None,
        )
        if opened is None:
            break
        pair, match = opened
        inside, text = pair.until_closed(text[match.end() :])
        thoughts.append(inside.strip())
    for pair in pairs:
        match = pair.closed_without_opening(text)
        if match and (not reasoning or text[: match.start()].strip() in reasoning):
            thoughts.append(text[: match.start()].strip())
            text = text[match.end() :].lstrip()
            break
    if len(thoughts) > 1:
        text = text.lstrip() if any(thoughts[1:]) or not text.strip() else text
        if wrapped := next(filter(None, (around.match(text) for around in _AROUND_ANSWER)), None):
            text = wrapped[1].strip()
    return text, "\n".join(dict.fromkeys(thought for thought in thoughts if thought)) or None


def _is_cut_off(text: str, pair: "_Pair", reasoning: str | None, tags: Sequence[str]) -> bool:
    """Whether what follows an opening that is never closed is reasoning.

    It is an answer where the opening is mere words, or where other reasoning stood beside it.
    """
    return text.strip() in reasoning if reasoning else pair.is_tag or bool(tags)


def leftover_reasoning(text: str) -> str | None:
    """The first mark of reasoning that is still in an answer, verbatim. Code and quotes are text.

    That holds for the tags of an answer, too, which follow reasoning.
    """
    if whole := _WHOLE_ANSWER.match(text):
        return whole[1]
    bare = _CODE.sub(" ", text)
    if found := _LEFT.search(bare):
        return found[0]
    for pair in tag_pairs(()):
        opening, closing = pair.opening.search(bare), pair.closing.search(bare)
        if pair.name in PLAIN_WORDS:
            if len(pair.opening.findall(bare)) == len(pair.closing.findall(bare)) and not pair.open_at_start.match(text):
                continue
        elif not pair.is_tag:
            continue
        if first := opening or closing:
            return first[0]
    return None


class _Pair:
    """One pair of tags; case does not matter."""

    def __init__(self, opening: str, closing: str) -> None:
        self.name = opening
        self.is_tag = not opening[0].isalpha()
        self.opening, self.closing = (re.compile(re.escape(tag), re.IGNORECASE) for tag in (opening, closing))
        self.open_at_start = re.compile(rf"\s*{re.escape(opening)}", re.IGNORECASE)
        self._either = re.compile(f"(?P<open>{re.escape(opening)})|{re.escape(closing)}", re.IGNORECASE)

    def until_closed(self, text: str) -> tuple[str, str]:
        """What is within an opened block, and what follows. Blocks within it belong to it, where all of them are closed."""
        depth = 1
        for match in self._either.finditer(text):
            depth += 1 if match["open"] else -1
            if depth == 0:
                return text[: match.start()], text[match.end() :].lstrip()
        if first := self.closing.search(text):
            return text[: first.start()], text[first.end() :].lstrip()
        return text, ""

    def closed_without_opening(self, text: str) -> re.Match[str] | None:
        """The closing tag of a block that the template opened; not one in code or quotes."""
        if not self.is_tag or self.opening.search(text):
            return None
        match = self.closing.search(text)
        if match is None or text[: match.start()].rstrip(" ")[-1:] in tuple(QUOTES) or text[: match.start()].count("```") % 2:
            return None
        return match


@lru_cache
def tag_pairs(tags: tuple[str, ...]) -> list[_Pair]:
    """The pairs in "OPEN...CLOSE" texts, the common ones without any. Raises UsageError for another form."""
    pairs = []
    for both in tags or TAGS:
        opening, _, closing = (part.strip() for part in both.partition("..."))
        if not opening or not closing:
            raise UsageError(f"reasoning_tags: {both!r} is not a pair of tags", 'for example "<plan>...</plan>"')
        pairs.append(_Pair(opening, closing))
    return pairs


def _channels(text: str) -> tuple[str, list[str]]:
    """(answer, reasoning) of a text in gpt-oss's channels, https://github.com/openai/harmony; any other text as it is."""
    start = text.lstrip()
    if start.startswith(("<|channel|>", "<|start|>")):
        parts = [(match["name"], match["text"]) for match in _CHANNEL.finditer(start)]
        if parts:
            final = "".join(part for name, part in parts if name == "final").strip()
            return final, [part.strip() for name, part in parts if name != "final"]
    if match := _BARE_CHANNELS.match(text):
        return match["answer"].strip(), [match["thought"].strip()]
    return text, []
