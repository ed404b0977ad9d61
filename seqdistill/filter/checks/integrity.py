"""Integrity: what is wrong with a completion on its own, whatever the other rows say.

Each rule returns its reason. Does not judge quality.
"""

import math
import re
from typing import Any

from seqdistill.filter.checks.personal_data import hidden
from seqdistill.filter.verdict import Verdict, setting
from seqdistill.recipe.tables import IntegrityConfig
from seqdistill.records import Sample


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
    if config.markup and (fault := broken_markup(text)):
        return broken("markup", fault, "markup", False)
    if (share := repetition(text)) > config.max_repetition:
        reason = f"{share:.0%} of its 4-grams repeat an earlier one, more than {config.max_repetition:.0%}"
        return broken("repetition", reason, "max_repetition", math.ceil(share * 100) / 100)
    if config.self_naming and (named := self_naming(text, sample.prompt_text)):
        return broken("self_naming", f"the teacher speaks of itself: {named!r}", "self_naming", False)
    if config.refusals == "drop" and refusal(text) and (refused := refusal(hidden(text))):
        return broken("refusal", f"a refusal: {refused!r}", "refusals", "annotate")
    return None


def repetition(text: str) -> float:
    """The share (0 to 1) of 4-grams that repeat an earlier one; of words, or of characters where there are few spaces."""
    units: list[str] | str = text.split()
    if len(text) > 20 * max(1, len(units)):
        units = "".join(units)
    total = len(units) - 3
    if total < 4:
        return 0.0
    return 1 - len(set(zip(units, units[1:], units[2:], units[3:], strict=False))) / total


# Turn marks of the common chat templates, and words that stand for a special token.
_SPECIAL = re.compile(
    r"<\|[A-Za-z0-9_▁|/ -]{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk)>|\[(?:CLS|SEP|PAD|UNK|BOS|EOS)\]|(?m:^#{2,3} (?:Instruction|Response|Human|Assistant):)"
)
_UNFILLED = re.compile(r"\{\{\s*\w[\w. ]*\}\}|\{%\s{0,9}\w[^\n]{0,200}?%\}")
_THINK = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)


def broken_markup(text: str) -> str | None:
    """A special token, an unbalanced think tag or an open code fence in a text, in words; None when there is none."""
    if "<" in text or "[" in text or "#" in text:
        if found := _SPECIAL.search(text):
            return f"a template's token stands in the text: {found[0]!r}"
        tags = [match[1] for match in _THINK.finditer(text)]
        if tags.count("") != tags.count("/"):
            return f"{tags.count('')} think tags are opened and {tags.count('/')} closed"
    if "```" in text and sum(line.lstrip().startswith("```") for line in text.splitlines()) % 2:
        return "a code fence is not closed"
    if "{" in text and "```" not in text and (found := _UNFILLED.search(text)):
        return f"a template variable was not filled: {found[0][:40]!r}"
    return None


_SELF = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence)\b(?: (?:language )?(?:model|assistant))?"
    r"|i(?:'|’| a)m an? (?:ai|artificial intelligence|large language model|language model)\b"
    r"|i(?:'|’| a)m (?:chatgpt|gpt-?\d|claude|gemini|llama|qwen|mistral|deepseek|smollm)\w*"
    r"|(?:my|i have a) (?:knowledge|training) cut-?off"
    r"|i was (?:trained|created|developed|made) by (?:openai|anthropic|google|meta|alibaba|mistral|deepseek|hugging ?face)\w*)",
    re.IGNORECASE,
)
_ABOUT_IT = re.compile(
    r"\b(?:who are you|your name|are you (?:an? )?(?:ai|human|robot|bot)|language model|chatgpt|\bai\b)", re.IGNORECASE
)


def self_naming(text: str, question: str) -> str | None:
    """The words in which a completion speaks of the model that wrote it, unless the prompt asks for that."""
    found = _SELF.search(text)
    return found[0] if found and not _ABOUT_IT.search(question) else None


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
