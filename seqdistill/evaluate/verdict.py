"""What the numbers say, in sentences: nothing is claimed that an interval does not show.

Reads the document of scores.json. Counts nothing itself.
"""

from typing import Any

from seqdistill.evaluate.intervals import FEWEST
from seqdistill.evaluate.table import percent

MEASURES = {
    "chrf_teacher": "chrF against the teacher's answers",
    "chrf_reference": "chrF against the references",
    "exact_teacher": "answers equal to the teacher's",
    "exact_reference": "answers equal to the reference",
}
OTHERS = {
    "base": "the untrained student",
    "copy": "copying the prompt",
    "ceiling": "the teacher's own second try",
    "teacher": "the teacher",
}
STOPS_WANTED = 98.0  # percent


def verdict(scores: dict[str, Any]) -> list[str]:
    """The sentences, the headline first."""
    primary = scores["primary"]
    lines = [f"The student {_judged(scores, primary)}."]
    lines.append(_behaviour(scores))
    lines += [
        f"Slice {part['slice'] or 'without a name'} ({_prompts(part['n'])}): {_judged(part, primary, short=True)}."
        for part in scores["slices"]
    ]
    failed = {model: facts["failed"] for model, facts in scores["models"].items() if facts.get("failed")}
    if failed:
        told = ", ".join(f"{model} {number}" for model, number in failed.items())
        lines.append(f"Failed requests: {told}; their prompts are in no score. Run again to retry them.")
    if scores["n"] < FEWEST:
        lines.append(f"{_prompts(scores['n'])} are too few for intervals; at least {FEWEST} are wanted.")
    return lines


def _judged(part: dict[str, Any], metric: str, short: bool = False) -> str:
    kept = next((cell for cell in part["kept"] if cell["metric"] == metric), None)
    gaps = {cell["other"]: cell for cell in part["comparisons"] if cell["metric"] == metric}
    if not gaps:
        return f"cannot be judged by {MEASURES[metric]}: no test prompt has a reference"
    if kept is None or kept["value"] is None:
        told = f"reaches {percent(part['models']['student'][metric])} percent {MEASURES[metric]}"
    else:
        of = "" if short else f" of {'what the teacher reaches' if kept['of'] == 'teacher' else 'the teacher'}"
        told = f"keeps {percent(kept)} percent{of}"
        if not short:
            told += f" ({MEASURES[metric]}, {_prompts(kept['n'])})"
    return f"{told}; " + "; ".join(_gap(gaps[other], other) for other in ("base", "copy"))


def _gap(cell: dict[str, Any], other: str) -> str:
    match cell["verdict"]:
        case "higher":
            return f"it beats {OTHERS[other]} by {percent(cell)}"
        case "lower":
            return f"it is worse than {OTHERS[other]}: {percent(cell, '+')}"
    if cell["low"] is None:
        return f"too few prompts to tell it from {OTHERS[other]}: {percent(cell, '+')}"
    return f"no difference from {OTHERS[other]} is shown: {percent(cell, '+')}"


def _behaviour(scores: dict[str, Any]) -> str:
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    stopped = student["stopped"]
    parts = []
    if stopped:
        low = f", less than the {STOPS_WANTED:g} wanted" if stopped["value"] < STOPS_WANTED else ""
        parts.append(f"stops by itself on {percent(stopped)} percent of the prompts{low}")
    if student["length_ratio"]:
        parts.append(f"writes {student['length_ratio']['value']:.2f} times the teacher's length")
    if student["parameters"] and teacher["parameters"]:
        parts.append(f"has {100 * student['parameters'] / teacher['parameters']:.0f} percent of its parameters")
    if speedup := faster(scores):
        parts.append(f"is {speedup:.1f} times as fast")
    return f"It {', '.join(parts)}."


def faster(scores: dict[str, Any]) -> float | None:
    """The student's tokens/s over the teacher's; None when they were not measured under the same conditions."""
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    if student["speed_basis"] != teacher["speed_basis"] or not (student["tokens_per_second"] and teacher["tokens_per_second"]):
        return None
    return float(student["tokens_per_second"] / teacher["tokens_per_second"])


def _prompts(n: int) -> str:
    return f"{n} held-out prompt{'s' * (n != 1)}"
