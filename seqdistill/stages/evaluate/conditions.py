"""What must hold for a check to pass, `--fail-under METRIC=VALUE`: read before anything is prompted, checked at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.metrics import Measure
from seqdistill.stages.evaluate.statistics.paired import DECISIONS

OF_THE_RUN = ("kept", "gap_closed", "macro_f1", "kappa", "decision")


class BelowCondition(SeqdistillError):
    """The student is below what --fail-under wants. Everything was written."""


def check_conditions(conditions: Sequence[str], measures: Sequence[Measure]) -> None:
    """Raises UsageError for a condition that is not METRIC=VALUE, names no metric of this task or no value of it."""
    known = [*OF_THE_RUN, *(measure.metric.name for measure in measures), *(measure.name for measure in measures)]
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"[eval] fail_under = {condition!r}: not METRIC=VALUE with a metric of this task",
                f"for example kept=0.9; metrics: {', '.join(dict.fromkeys(known))}",
            )
        if name == "decision":
            if value not in DECISIONS:
                raise UsageError(f"[eval] fail_under = {condition!r}: no such decision", f"one of: {', '.join(DECISIONS)}")
            continue
        try:
            float(value)
        except ValueError:
            raise UsageError(f"[eval] fail_under = {condition!r}: {value!r} is not a number", "for example kept=0.9") from None


def check_result(scores: Mapping[str, Any], conditions: Sequence[str]) -> None:
    """Raises BelowCondition naming every condition that does not hold. A value of 1 or less is a share: 0.9 is 90%."""
    broken = [said for condition in conditions if (said := _broken(scores, condition))]
    if broken:
        raise BelowCondition(f"--fail-under: {'; '.join(broken)}", "train on more or better data, or lower the condition")


def _broken(scores: Mapping[str, Any], condition: str) -> str | None:
    name, _, text = condition.partition("=")
    if name == "decision":
        found = scores["decision"]
        return None if DECISIONS.index(found) >= DECISIONS.index(text) else f"the decision is {found}, below {text}"
    value, wanted = _value(scores, name), float(text)
    if name != "kappa" and wanted <= 1:
        wanted *= 100
    if value is None:
        return f"{name} has no value in this run"
    measure = scores["measures"].get(name, {})
    if not measure.get("higher_is_better", True):
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
