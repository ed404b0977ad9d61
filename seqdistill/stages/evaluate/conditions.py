"""What must hold for a check to pass, `--fail-under METRIC=VALUE`: read before anything is prompted, checked at the end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.metrics import Measure
from seqdistill.recipe.reading import nearest
from seqdistill.stages.evaluate.statistics.paired import DECISIONS

OF_THE_RUN = ("kept", "gap_closed", "decision")
OF_CHOICES = ("macro_f1", "kappa")  # where answers are one of some choices
EXAMPLE = "for example kept=0.9 or decision=NON-INFERIOR"


class BelowCondition(SeqdistillError):
    """The student is below what --fail-under wants. Everything was written."""


def check_conditions(conditions: Sequence[str], measures: Sequence[Measure], of_choices: Sequence[str] = OF_CHOICES) -> None:
    """Raises UsageError for a condition that is not METRIC=VALUE, names no metric of this task or no value of it."""
    names = [measure.metric.name for measure in measures]
    known = [*OF_THE_RUN, *(of_choices if "accuracy" in names else ()), *names, *(measure.name for measure in measures)]
    lower_is_better = {name for one in measures if not one.metric.higher_is_better for name in (one.name, one.metric.name)}
    for condition in conditions:
        place = f"[eval] fail_under = {condition!r}"
        name, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or not value:
            raise UsageError(f"{place}: not of the form METRIC=VALUE", EXAMPLE)
        if name not in known:
            raise UsageError(
                f"{place}: {name!r} is no metric of this task{nearest(name, known)}",
                f"{EXAMPLE}; metrics: {', '.join(dict.fromkeys(known))}",
            )
        if name == "decision":
            if value.upper() not in DECISIONS:
                raise UsageError(f"{place}: no such decision{nearest(value, DECISIONS)}", f"one of: {', '.join(DECISIONS)}")
            continue
        try:
            number = float(value)
        except ValueError:
            raise UsageError(f"{place}: {value!r} is not a number", EXAMPLE) from None
        if not math.isfinite(number):
            raise UsageError(f"{place}: {value} is not a finite number", EXAMPLE)
        if name != "kappa" and name not in lower_is_better and 1 < number < 2:
            raise UsageError(
                f"{place}: {value} may be {number:g}%, or {100 * number:g}%", f"write {name}={100 * number:g} for the latter"
            )


def check_result(scores: Mapping[str, Any], conditions: Sequence[str], result: Mapping[str, Any] | None = None) -> None:
    """Raises BelowCondition, with the result, naming every condition that does not hold. A value of 1 or less is a share.

    Where lower is better, 1 is one percent: an upper bound of 100% would be no condition.
    """
    broken = [said for condition in conditions if (said := _broken(scores, condition))]
    if broken:
        raise BelowCondition(
            f"--fail-under: {'; '.join(broken)}", "train on more or better data, or lower the condition", result
        )


def _broken(scores: Mapping[str, Any], condition: str) -> str | None:
    name, _, text = (part.strip() for part in condition.partition("="))
    if name == "decision":
        found, text = scores["decision"], text.upper()
        return None if DECISIONS.index(found) >= DECISIONS.index(text) else f"the decision is {found}, below {text}"
    value, wanted = _value(scores, name), float(text)
    lower_is_better = not scores["measures"].get(name, {}).get("higher_is_better", True)
    if name != "kappa" and (-1 < wanted < 1 if lower_is_better else -1 < wanted <= 1):
        wanted *= 100
    if value is None:
        return f"{name} has no value in this run"
    if lower_is_better:
        return f"{name} is {value:.4g}, above {wanted:g}" if value > wanted else None
    return f"{name} is {value:.4g}, below {wanted:g}" if value < wanted else None


def _value(scores: Mapping[str, Any], name: str) -> float | None:
    """The student's value of a metric; without _teacher or _reference, against what decides, or else what there is."""
    primary, student = scores["primary"], scores["models"]["student"]
    if name in ("kept", "gap_closed"):
        cell = next((cell for cell in scores[name] if cell["metric"] == primary), None)
    elif name in ("kappa", "macro_f1"):
        cell = scores.get(name)
    else:
        against = primary.rpartition("_")[2]
        order = (name, f"{name}_{against}", f"{name}_reference", f"{name}_teacher")
        cell = next((student[one] for one in order if student.get(one)), None)
    return None if cell is None else cell["value"]
