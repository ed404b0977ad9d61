"""The decision at a margin in one sentence: of student and teacher, of two students, of two forms of one student."""

from collections.abc import Mapping
from typing import Any

from seqdistill.stages.evaluate.shown import points, prompts
from seqdistill.stages.evaluate.statistics.intervals import FEWEST


def headline(judged: Mapping[str, Any], margin: float, first: str, second: str, number: str | None = None) -> str:
    """What `judged` decides of "first less second" at a margin in points, with its number: else the difference."""
    number = number or f"the difference is {points(dict(judged))}"
    return f"{judged['decision']}: {_decided(judged, f'{margin:g} points', first, second)}; {number}."


def _decided(judged: Mapping[str, Any], within: str, first: str, second: str) -> str:
    match judged["decision"]:
        case "BETTER":
            return f"{first} beats {second}"
        case "EQUIVALENT":
            return f"{first} is within {within} of {second}, up or down"
        case "NON-INFERIOR":
            return f"{first} is at most {within} worse than {second}"
        case "INFERIOR":
            return f"{first} is more than {within} worse than {second}"
    if judged["low"] is None:
        few = (
            f"{prompts(judged['n'])} {'is' if judged['n'] == 1 else 'are'}"
            if judged["n"] < FEWEST
            else "the groups of prompts are"
        )
        return f"{few} too few for an interval"
    open_ = f"{first} is not shown to be within {within} of {second}"
    if judged["needed"] is None:
        return f"{open_}, and more prompts would not show it"
    return f"{open_}; {judged['needed']:,} more prompt{'s are' if judged['needed'] != 1 else ' is'} needed"
