"""Integrity: what is wrong with a completion on its own, whatever the other rows say.

Each rule returns its reason. What counts as a repetition or a refusal is defined in `metrics`, for eval too. Does not
judge quality.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from seqdistill.metrics.behaviour import repetition
from seqdistill.metrics.refusals import refusal
from seqdistill.personal_data import hidden
from seqdistill.reasoning import leftover_reasoning
from seqdistill.recipe.tables import IntegrityConfig
from seqdistill.records import Sample
from seqdistill.stages.filter.checks.self_naming import self_naming
from seqdistill.stages.filter.rejection import Rejection, setting


def integrity(sample: Sample, config: IntegrityConfig) -> Rejection | None:
    """The first rule that a completion breaks, or None."""

    def broken(rule: str, reason: str, key: str, value: Any) -> Rejection:
        return Rejection(rule, reason, (setting(f"integrity.{key}", value),))

    text, ended, wanted = sample.text, sample.finish_reason, config.finish_reasons
    length = len(text.strip(NO_WIDTH))
    if wanted and ended not in wanted:
        return broken(
            "finish_reason", f"finish_reason is {ended!r}, not {' or '.join(wanted)}", "finish_reasons", [*wanted, ended]
        )
    if not length:
        return Rejection("empty", "the completion is empty")
    if length < config.min_chars:
        return broken("too_short", f"{length} characters, fewer than {config.min_chars}", "min_chars", length)
    if config.max_chars is not None and len(text) > config.max_chars:
        return broken("too_long", f"{len(text)} characters, more than {config.max_chars}", "max_chars", len(text))
    if config.markup and (fault := broken_markup(text, sample.prompt_text)):
        return broken("markup", fault, "markup", False)
    if (share := repetition(text)) > config.max_repetition and not _WANTS_REPETITION.search(sample.prompt_text):
        reason = f"{share:.0%} of it repeats earlier text, more than {config.max_repetition:.0%}"
        return broken("repetition", reason, "max_repetition", math.ceil(share * 100) / 100)
    if config.self_naming and (named := self_naming(text, sample.prompt_text)):
        return broken("self_naming", f"the teacher speaks of itself: {named!r}", "self_naming", False)
    if config.refusals == "drop" and refusal(text) and (refused := refusal(hidden(text))):
        return broken("refusal", f"a refusal: {refused!r}", "refusals", "annotate")
    return None


NO_WIDTH = " \t\n\r\v\f\u00a0\u200b\u200c\u200d\u2060\ufeff\u3000"  # white space, and what takes up none
_WANTS_REPETITION = re.compile(
    r"\brepeat(?:ed|ing)?\b|\b(?:say|write|print|type|sing|output)\b[^.\n]{0,80}\btimes\b|\bover and over\b|重复|繰り返",
    re.IGNORECASE,
)


# --- markup ---------------------------------------------------------------------------------------------------------------

# Turn marks of the common chat templates, and words that look like a special token.
_SPECIAL = re.compile(
    r"<\|(?! )[A-Za-z0-9_▁|/ -]{1,40}\|>|<｜[^｜\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|(?m:^#{2,3} (?:Instruction|Human|Assistant):)"
    r"|<0x[0-9A-F]{2}>|◁/?think▷|\[\|(?:end\w*|start\w*|human|user|assistant|system|[be]os|pad)\|\]|<extra_id_\d{1,2}>"
    r"|\[gMASK\](?:<sop>)?|<reserved_\d{1,3}>|<eod>"
)
_OF_THE_ANSWER = re.compile(r"\A\s*(?:Assistant:\s|#{2,3} Response:[ \t]*\n)")  # its own turn mark, before it
_ABOUT_HTML = re.compile(r"\b(?:html|tags?|elements?)\b|标签|тег", re.IGNORECASE)

_ABOUT_TOKENS = re.compile(
    r"\b(?:chatml|alpaca|special tokens?|(?:chat|prompt) (?:template|format)s?"
    r"|(?:end|start|stop|eos|bos|pad)[ -](?:of[ -]\w+ )?tokens?"
    r"|tokenizers?)\b",
    re.IGNORECASE,
)
_NEXT_TURN = re.compile(
    r"(?m:^(?:User|USER|Human|HUMAN|用户|用戶) ?[:：] ?.*\n++(?:.*\n++)??(?:Assistant|ASSISTANT|AI|Bot|助手) ?[:：])"
    r"|\bUSER: [^\n]{1,400}? ASSISTANT:|\n(?:user|<\|user\|>)\n++(?:.* .*\n++){1,2}?(?:assistant|model)(?=\n|\s*\Z)"
    r"|(?<=[.!?)。！？])assistant(?=\n\n|\s*\Z)"
)
_OF_A_TURN = ("ser:", "SER:", "uman:", "UMAN:", "用户", "用戶", "\nuser\n", "assistant")  # one is in each further turn
_DIALOGUE = re.compile(
    r"\b(?:dialog(?:ue)?s?|conversations?|chat|transcript|script|interview|user|human|assistant)\b|对话|對話|会話|диалог"
    r"|gespräch|diálogo|dialogo",
    re.IGNORECASE,
)
# Text in UTF-8 that was read in Windows-1252 or Latin-1: "CafÃ©", "itâ€™s", "ÐŸÑ€", "Â£20", "ðŸ˜€". A character of two to
# four bytes, but not an accented letter before what is set after a word ("É »", "ß“", "é…»"), nor a unit or a power ("Å²").
_LATER = r"[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_SET_AFTER = r"[\xa0«»“”‘’…–—‹›€°]"
_MISREAD = re.compile(
    rf"(?:Â|â€){_LATER}"
    rf"|×[\x90‘’“”•–—˜™š›œ\x9džŸ\xa0-\xaa](?<!×{_SET_AFTER})"
    rf"|[Ã-ÖØ-ß]{_LATER}(?<![Ã-ß]{_SET_AFTER})(?<![ÅØ][²³])"
    rf"|[à-ï]{_LATER}{{2}}(?<![à-ï]{_SET_AFTER}{{2}})|[ð-ô]{_LATER}{{3}}"
)
FEWEST_MISREAD = 2  # characters: one may be an example of it
_PIECES = re.compile(r"(?:(?<=\s)|\A)[Ġ▁][a-zA-Z]")  # a tokenizer's marks for spaces
FEWEST_PIECES = 3
_API_ERROR = re.compile(  # what a script writes where the answer should be
    r"\A\s*(?:(?:error|exception)?:? ?(?:error code: )?\d{3} - \{|\{\"error\": ?\{"
    r"|<html>(?:(?!</title>).){0,80}<title>(?:429|50\d)\b)",
    re.IGNORECASE | re.DOTALL,
)
_NAME_OF_ERROR = re.compile(  # the same where the name of the error ends the text, or its message follows
    r"\A\s*(?:openai\.\w+Error|(?:openai\.|anthropic\.)?(?:RateLimit|APIConnection|APITimeout|InternalServer|APIStatus)Error"
    r"|(?:error:? ?)?(?:429 too many requests|500 internal server error|502 bad gateway|503 service unavailable"
    r"|504 gateway time-?out))(?=\s*(?:\Z|[:({<\n]|- \{|\.\s*(?:\Z|please|retry|try)))",
    re.IGNORECASE,
)
_ABOUT_ERRORS = re.compile(r"error|exception|http|status|gateway|rate.?limit|\b(?:codes?|api|sdk|[45]\d\d)\b", re.IGNORECASE)
# What has a meaning of its own elsewhere, as in HTML or in a text about tokenizers, is a token only at an edge.
_AT_AN_EDGE = r"<(?:bos|eos|pad|unk)>|\[(?:CLS|SEP|PAD|UNK|BOS|EOS)\]"
_EDGE = re.compile(rf"\A\s*(?:{_AT_AN_EDGE})|(?:{_AT_AN_EDGE})\s*\Z")
_TURNS = re.compile(r"<(/?)s>")
_REASONING = re.compile(
    r"<(/?)(think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|inner_?(?:thoughts?|monologue)|chain_of_thought|analysis)>",
    re.IGNORECASE,
)
_NO_TEXT = re.compile(r"[\ud800-\udfff\x00\ufffd]")  # half a character, NUL, and the replacement character
_UNFILLED = re.compile(
    r"\A\s*(?:\{\{\s{0,9}\w[\w. ]{0,99}\}\}|\{(?:completion|response|answer|output|text|input|question|prompt)\}"
    r"|\[object Object\]|\[(?:insert|your)\b[^\]\n]{0,60}\])\s*\Z",
    re.IGNORECASE,
)
_ABOUT_TEMPLATES = re.compile(
    r"\b(?:jinja2?|handlebars|mustache|vue|angular|twig|liquid|django|helm|ansible|templates?|interpolat\w+|placeholders?"
    r"|variables?)\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"(?ms:(?P<fence>```+|~~~+)(?=[^`\n]*$).*?^[ \t]*(?P=fence))|`[^`\n]{1,400}`")
_FENCE = re.compile(  # a list or a label may begin its line
    r"^(?P<before>[^`\n]{0,200}?(?=`)|(?: {0,9}(?:[-*+>]|\d{1,3}[.)]))? {0,9}(?=~))(?P<fence>`{3,}"
    r"|~{3,})(?P<info>[^\n`]*)$",
    re.MULTILINE,
)


def broken_markup(text: str, prompt: str = "") -> str | None:
    """A special token, reasoning left, an open code fence or a broken character in a text, in words; None when there is none.

    Code is not looked into, and a token that the prompt mentions is part of the answer.
    """
    if (broken := _NO_TEXT.search(text)) and broken[0] not in prompt and not (broken[0] == "\ufffd" and "U+FFFD" in text):
        return f"a broken character is in the text: {broken[0]!r}"
    if not text.isascii() and (fault := _not_decoded(text, prompt)):
        return fault
    if error := _api_error(text[:400], prompt):
        return f"an API's error is in the place of an answer: {error!r}"
    if any(map(text.__contains__, _OF_A_TURN)) and (turn := _NEXT_TURN.search(text)) and not _DIALOGUE.search(prompt):
        return f"further turns follow the answer: {turn[0][:40]!r}"
    if (mark := _OF_THE_ANSWER.match(text)) and not _DIALOGUE.search(prompt) and not _ABOUT_TOKENS.search(prompt):
        return f"a chat template's token is in the text: {mark[0].strip()!r}"
    if "<" in text or "[" in text or "#" in text or "◁" in text:
        prose = _CODE.sub(" ", text)
        found = _SPECIAL.search(prose) or _EDGE.search(prose)
        if found and (token := found[0].strip()) not in prompt and not _ABOUT_TOKENS.search(prompt):
            return f"a chat template's token is in the text: {token!r}"
        turns = [match[1] for match in _TURNS.finditer(prose)]
        if turns.count("") != turns.count("/") and "<s>" not in prompt and not _ABOUT_HTML.search(prompt):
            return f"a chat template's token is in the text: {'</s>' if '/' in turns else '<s>'!r}"
        if fault := _left_reasoning(prose, prompt):
            return fault
    if _is_fence_open(text):
        return "a code fence is not closed"
    if _UNFILLED.match(text) and not _ABOUT_TEMPLATES.search(prompt):
        return f"a template variable was not filled: {text.strip()[:40]!r}"
    return None


def _api_error(text: str, prompt: str) -> str | None:
    """The words of an API's error that a text begins with; none where the prompt mentions errors."""
    found = _API_ERROR.match(text)
    if not found or "error" in prompt.lower():
        found = _NAME_OF_ERROR.match(text)
        found = None if found and _ABOUT_ERRORS.search(prompt) else found
    return found[0].strip()[:60] if found else None


def _not_decoded(text: str, prompt: str) -> str | None:
    """Characters in place of bytes or a tokenizer's pieces, in words; a prompt that has them too may request them."""
    misread = _MISREAD.findall(text)
    if len(misread) >= FEWEST_MISREAD and not _MISREAD.search(prompt):
        return f"UTF-8 that was read in another encoding: {misread[0]!r}"
    pieces = _PIECES.findall(text)
    if len(pieces) >= max(FEWEST_PIECES, len(text.split()) // 2) and not _PIECES.search(prompt):
        return f"a tokenizer's pieces are not joined: {pieces[0]!r}"
    return None


def _left_reasoning(prose: str, prompt: str) -> str | None:
    tags = [match for match in _REASONING.finditer(prose) if match[2].lower() not in prompt.lower()]
    opened, closed = (sum(tag[1] == slash for tag in tags) for slash in ("", "/"))
    if opened != closed:
        return f"{opened} reasoning tags are opened and {closed} closed"
    if tags and not prose[: tags[0].start()].strip():
        return f"reasoning is left in the answer: {tags[0][0]!r}"
    left = leftover_reasoning(prose)
    return f"reasoning is left in the answer: {left!r}" if left and left.lower() not in prompt.lower() else None


def _is_fence_open(text: str) -> bool:
    """Whether a code fence is left open, be tildes as long as the line before them a heading's or fences themselves."""
    if "```" not in text and "~~~" not in text:
        return False
    fences = list(_FENCE.finditer(text))
    without_headings = [fence for fence in fences if not _is_underline(text, fence.start(), fence["fence"])]
    return _is_last_open(fences) and _is_last_open(without_headings)


def _is_last_open(fences: Sequence[re.Match[str]]) -> bool:
    """Whether the last fence is open: both by the rules of CommonMark and by counting, as fences in fences are common."""
    opened = ""
    for match in fences:
        fence, beside = match["fence"], match["info"].strip() or match["before"].strip()
        if not opened:
            opened = fence
        elif fence.startswith(opened) and not beside:
            opened = ""
    return bool(opened) and len(fences) % 2 == 1


def _is_underline(text: str, start: int, fence: str) -> bool:
    """Whether tildes are as long as the line before them: a heading of reStructuredText."""
    before = text[text.rfind("\n", 0, max(0, start - 1)) + 1 : start].strip()
    return fence[0] == "~" and len(fence) > 3 and 0 < len(before) <= len(fence)
