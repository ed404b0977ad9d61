"""Integrity: what is wrong with a completion on its own, whatever the other rows say.

Each rule returns its reason. Does not judge quality.
"""

import math
import re
from typing import Any

from seqdistill.engines.reasoning import leftover_reasoning
from seqdistill.personal_data import hidden
from seqdistill.recipe.tables import IntegrityConfig
from seqdistill.records import Sample
from seqdistill.stages.filter.verdict import Verdict, setting


def integrity(sample: Sample, config: IntegrityConfig) -> Verdict | None:
    """The first rule that a completion breaks, or None."""

    def broken(rule: str, reason: str, key: str, value: Any) -> Verdict:
        return Verdict(rule, reason, (setting(f"integrity.{key}", value),))

    text, ended, wanted = sample.text, sample.finish_reason, config.finish_reasons
    length = len(text.strip())
    if wanted and ended not in wanted:
        return broken(
            "finish_reason", f"finish_reason is {ended!r}, not {' or '.join(wanted)}", "finish_reasons", [*wanted, ended]
        )
    if not length:
        return Verdict("empty", "the completion is empty")
    if length < config.min_chars:
        return broken("too_short", f"{length} characters, fewer than {config.min_chars}", "min_chars", length)
    if config.max_chars is not None and len(text) > config.max_chars:
        return broken("too_long", f"{len(text)} characters, more than {config.max_chars}", "max_chars", len(text))
    if config.markup and (fault := broken_markup(text, sample.prompt_text)):
        return broken("markup", fault, "markup", False)
    if (share := repetition(text)) > config.max_repetition:
        reason = f"{share:.0%} of it repeats earlier text, more than {config.max_repetition:.0%}"
        return broken("repetition", reason, "max_repetition", math.ceil(share * 100) / 100)
    if config.self_naming and (named := self_naming(text, sample.prompt_text)):
        return broken("self_naming", f"the teacher speaks of itself: {named!r}", "self_naming", False)
    if config.refusals == "drop" and refusal(text) and (refused := refusal(hidden(text))):
        return broken("refusal", f"a refusal: {refused!r}", "refusals", "annotate")
    return None


# --- repetition -----------------------------------------------------------------------------------------------------------

_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.):]|#{1,6})\s+")
RUN = 3  # lines: a line repeats when it and the two before it, in this order, stood in the text already


def repetition(text: str) -> float:
    """The share (0 to 1) of a text that repeats what stood in it before, as a model does that is caught in a loop.

    Within a line it is the share of 4-grams of words (of characters where there are no spaces) that an earlier one equals;
    a line counts whole where it and the lines before it stood there already. Tables, code and lists repeat words and single
    lines by their nature, not runs of lines. Lines without letters do not count.
    """
    total, repeated = 0, 0.0
    seen: set[tuple[str, ...]] = set()
    before: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        bare = " ".join(_BULLET.sub("", line, count=1).split())
        if not any(map(str.isalpha, bare)):
            continue
        before = [*before[1 - RUN :], bare]
        size = max(1, len(_units(bare)))
        total += size
        run = tuple(before)
        if len(run) == RUN and run in seen:
            repeated += size
        elif not (fenced or bare.startswith("|") or bare.count("|") > 1):
            repeated += size * _repeated_grams(_units(bare))
        seen.add(run)
    return repeated / total if total else 0.0


def _units(line: str) -> list[str] | str:
    """The words of a line; its characters where most of them are of a script without spaces."""
    units = line.split()
    return "".join(units) if len(line) > 20 * len(units) and not line.isascii() else units


def _repeated_grams(units: list[str] | str) -> float:
    total = len(units) - 3
    if total < 4:
        return 0.0
    return 1 - len(set(zip(units, units[1:], units[2:], units[3:], strict=False))) / total


# --- markup ---------------------------------------------------------------------------------------------------------------

# Turn marks of the common chat templates, and words that look like a special token.
_SPECIAL = re.compile(
    r"<\|[A-Za-z0-9_▁|/ -]{1,40}\|>|<｜[^｜\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|(?m:^#{2,3} (?:Instruction|Response|Human|Assistant):)"
)
# What has a meaning of its own elsewhere, as in HTML or in a text about tokenizers, is a token only at an edge.
_AT_AN_EDGE = r"<(?:bos|eos|pad|unk)>|\[(?:CLS|SEP|PAD|UNK|BOS|EOS)\]"
_EDGE = re.compile(rf"\A\s*(?:{_AT_AN_EDGE})|(?:{_AT_AN_EDGE})\s*\Z")
_TURNS = re.compile(r"<(/?)s>")
_REASONING = re.compile(
    r"<(/?)(think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|inner_?(?:thoughts?|monologue)|chain_of_thought|analysis)>",
    re.IGNORECASE,
)
_UNFILLED = re.compile(r"\A\s*\{\{\s{0,9}\w[\w. ]{0,99}\}\}\s*\Z")
_CODE = re.compile(r"(?ms:^[ \t]*(?P<fence>```+|~~~+).*?^[ \t]*(?P=fence))|`[^`\n]{1,400}`")
_FENCE = re.compile(r"^ {0,9}(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)$", re.MULTILINE)


def broken_markup(text: str, prompt: str = "") -> str | None:
    """A special token, reasoning left in the answer, or an open code fence in a text, in words; None when there is none.

    Code is not looked into, and a token that the prompt speaks of is part of the answer.
    """
    if "<" in text or "[" in text or "#" in text:
        prose = _CODE.sub(" ", text)
        found = _SPECIAL.search(prose) or _EDGE.search(prose)
        if found and (token := found[0].strip()) not in prompt:
            return f"a chat template's token is in the text: {token!r}"
        turns = [match[1] for match in _TURNS.finditer(prose)]
        if turns.count("") != turns.count("/") and "<s>" not in prompt:
            return f"a chat template's token is in the text: {'</s>' if '/' in turns else '<s>'!r}"
        if fault := _left_reasoning(prose, prompt):
            return fault
    if _is_fence_open(text):
        return "a code fence is not closed"
    if _UNFILLED.match(text):
        return f"a template variable was not filled: {text.strip()[:40]!r}"
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
    """Whether a code fence is left open: both by the rules of CommonMark and by counting, as fences in fences are common."""
    if "```" not in text and "~~~" not in text:
        return False
    fences = [(match["fence"], match["info"].strip()) for match in _FENCE.finditer(text)]
    opened = ""
    for fence, info in fences:
        if not opened:
            opened = fence
        elif fence.startswith(opened) and not info:
            opened = ""
    return bool(opened) and len(fences) % 2 == 1


# --- the teacher, of itself ---------------------------------------------------------------------------------------------

_MODEL = (
    r"(?:(?:large |text-based |helpful |virtual |conversational )*(?:ai|artificial intelligence|language model|llm|chatbot)"
    r"(?: (?:language |based )?(?:model|assistant|system|chatbot|program))?)"
)
_SELF = re.compile(
    rf"\b(?:as an? {_MODEL}\b(?:,|[^.!?\n]{{0,60}}\bi\b|(?= (?:i|my)\b))"
    rf"|i(?:'|’| a)m (?:just |only |merely |simply |actually )?an? {_MODEL}\b"
    r"(?! (?:engineer|researcher|developer|scientist|expert))"
    r"|i(?:'|’| a)m (?:chatgpt|gpt-?\d|claude|gemini|llama|qwen|mistral|deepseek|smollm)\w*"
    r"|(?:my|i have a) (?:knowledge|training) cut-?off"
    r"|i was (?:trained|created|developed|made) by (?:openai|anthropic|google|meta|alibaba|mistral|deepseek|hugging ?face)\w*"
    r"|als (?:ein )?ki-?(?:sprach)?(?:modell|assistent)|en tant qu(?:'|’)(?:ia|intelligence artificielle|assistant ia)\b"
    r"|como (?:una? )?(?:modelo de lenguaje|inteligencia artificial|ia)\b|как (?:языковая модель|искусственный интеллект))"
    r"|作为(?:一个|一名)?(?:ai|人工智能|大?语言模型)|(?:ai|人工知能|言語モデル)(?:アシスタント)?として",
    re.IGNORECASE,
)
_ABOUT_IT = re.compile(
    r"\b(?:who are you|what are you|your name|are you (?:an? )?(?:ai|human|robot|bot)|language models?|chatgpt|llms?|chatbots?"
    r"|ai)\b|人工智能|语言模型|人工知能",
    re.IGNORECASE,
)


def self_naming(text: str, question: str) -> str | None:
    """The words in which a completion speaks of the model that wrote it, unless the prompt invites it."""
    found = _SELF.search(text)
    return found[0][:80] if found and not _ABOUT_IT.search(question) else None


# --- refusals -------------------------------------------------------------------------------------------------------------

_REFUSAL = re.compile(
    r"\A\W*(?:(?:i(?:'|’| a)m )?(?:very |so )?sorry,?(?: but)?|unfortunately,?|i apologi[sz]e,?(?: but)?|my apologies,?)?\W*"
    r"(?:i (?:can(?:no|'|’)t|can not|won(?:'|’)t|am (?:not able|unable)|must (?:decline|refuse)|don(?:'|’)t feel comfortable)"
    r"|i(?:'|’)m (?:not able|unable)|it(?:'|’)s not (?:appropriate|possible) for me)[^.!?\n]{0,80}",
    re.IGNORECASE,
)


def refusal(text: str) -> str | None:
    """The words in which a completion refuses, when it begins with that; None when it answers."""
    found = _REFUSAL.match(text[:400])
    return found[0].strip()[:60] if found else None
