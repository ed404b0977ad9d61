"""Metrics of an answer by itself: how it ended, whether it has its form, repeats itself or refuses.

Owns what counts as a repetition and as a refusal: filter drops by the same definitions.
"""

import re

from seqdistill.metrics.metric import Item, Metric

MOST_REPEATED = 0.5  # share of an answer that repeats earlier text, from which it "repeats itself"

_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.):]|#{1,6})\s+")
RUN = 3  # lines: a line repeats when it and the two before it, in this order, were in the text already


def repetition(text: str) -> float:
    """The share (0 to 1) of a text that repeats what was in it before, as a model does that is caught in a loop.

    Within a line it is the share of 4-grams of words (of characters where there are no spaces) that an earlier one equals;
    a line counts whole where it and the lines before it were there already. Tables, code and lists repeat words and single
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


_REFUSAL = re.compile(
    r"\A\W*(?:(?:i(?:'|’| a)m )?(?:very |so )?sorry,?(?: but)?|unfortunately,?|i apologi[sz]e,?(?: but)?|my apologies,?)?\W*"
    r"(?:as an? (?:ai|language)[^,.]{0,40}, )?"
    r"(?:i (?:can(?:no|'|’)t|can not|won(?:'|’)t|am (?:not able|unable)|must (?:decline|refuse)|don(?:'|’)t feel comfortable)"
    r"|i(?:'|’)m (?:not able|unable)|it(?:'|’)s not (?:appropriate|possible) for me)[^.!?\n]{0,80}",
    re.IGNORECASE,
)


def refusal(text: str) -> str | None:
    """The words in which a completion refuses, when it begins with that; None when it answers."""
    found = _REFUSAL.match(text[:400])
    return found[0].strip()[:60] if found else None


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
        lambda item: 100.0 * (repetition(item.text) > MOST_REPEATED),
        f"percent of answers of which more than {MOST_REPEATED:.0%} repeats earlier text: 4-grams within a line, runs of lines",
        against=False,
        kinds=("text", "schema"),
        share=True,
        higher_is_better=False,
    ),
    Metric(
        "refused",
        "refuses",
        "refusals",
        lambda item: 100.0 * (refusal(item.text) is not None),
        "percent of answers that begin with a refusal, in English",
        against=False,
        kinds=("text",),
        share=True,
        higher_is_better=False,
    ),
)
