"""Metrics of an answer by itself: how it ended, whether it has its form, repeats itself or refuses."""

import re

from seqdistill.metrics.metric import Item, Metric

MOST_REPEATED = 0.5  # share of 4-grams that repeat an earlier one

_REFUSAL = re.compile(
    r"\A\W*(?:(?:i(?:'|’| a)m )?(?:very |so )?sorry,?(?: but)?|unfortunately,?|i apologi[sz]e,?(?: but)?|my apologies,?)?\W*"
    r"(?:as an? (?:ai|language)[^,.]{0,40}, )?"
    r"(?:i (?:can(?:no|'|’)t|can not|won(?:'|’)t|am (?:not able|unable)|must (?:decline|refuse)|don(?:'|’)t feel comfortable)"
    r"|i(?:'|’)m (?:not able|unable)|it(?:'|’)s not (?:appropriate|possible) for me)",
    re.IGNORECASE,
)


def repeated(text: str) -> float:
    """The share (0 to 1) of 4-grams that repeat an earlier one; of words, or of characters where there are few spaces."""
    units: list[str] | str = text.split()
    if len(text) > 20 * max(1, len(units)):
        units = "".join(units)
    total = len(units) - 3
    if total < 4:
        return 0.0
    return 1 - len(set(zip(units, units[1:], units[2:], units[3:], strict=False))) / total


def refuses(text: str) -> bool:
    """Whether a text begins by refusing, in English."""
    return _REFUSAL.match(text[:400]) is not None


def _ended(item: Item, *reasons: str) -> float | None:
    return None if item.finish_reason is None else 100.0 * (item.finish_reason in reasons)


METRICS = (
    Metric(
        "stopped",
        "stops by itself",
        "answers that stop by themselves",
        lambda item: _ended(item, "stop"),
        "percent of answers that ended by the end-of-turn token, not at max_tokens",
        against=False,
        share=True,
    ),
    Metric(
        "truncated",
        "cut off",
        "answers cut off at max_tokens",
        lambda item: _ended(item, "length"),
        "percent of answers cut off at max_tokens",
        against=False,
        share=True,
        higher_is_better=False,
    ),
    Metric(
        "valid",
        "has the form",
        "answers with the task's form",
        lambda item: 100.0 * (item.fault is None),
        "percent of answers that have the task's form; base and student are prompted without naming it",
        against=False,
        kinds=("choices", "schema"),
        share=True,
    ),
    Metric(
        "repeats",
        "repeats itself",
        "answers that repeat themselves",
        lambda item: 100.0 * (repeated(item.text) > MOST_REPEATED),
        f"percent of answers in which more than {MOST_REPEATED:.0%} of the 4-grams repeat an earlier one",
        against=False,
        kinds=("text", "schema"),
        share=True,
        higher_is_better=False,
    ),
    Metric(
        "refused",
        "refuses",
        "refusals",
        lambda item: 100.0 * refuses(item.text),
        "percent of answers that begin with a refusal, in English",
        against=False,
        kinds=("text",),
        share=True,
        higher_is_better=False,
    ),
)
