"""What the numbers say, in sentences: nothing is claimed that an interval does not show.

Reads the document of scores.json. Counts nothing itself.
"""

from typing import Any

from seqdistill.evaluate.intervals import FEWEST
from seqdistill.evaluate.metrics import SHARES
from seqdistill.evaluate.table import percent, upper

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
    if not any(cell["metric"] == primary for cell in scores["comparisons"]):
        reason = "no test prompt has a reference"
        return [f"The student cannot be judged by {MEASURES[primary]}: {reason}.", *_form(scores), _behaviour(scores)]
    lines = [
        f"The student {_judged(scores, primary)}.",
        f"Measured by {_measure(scores)} on {_prompts(scores['n'])}, with 95% intervals over prompts.",
        *_form(scores),
        _behaviour(scores),
    ]
    lines += [
        f"Slice {part['slice'] or 'without a name'} ({part['n']} prompts): {_judged(part, primary)}."
        for part in scores["slices"]
        if any(cell["metric"] == primary for cell in part["comparisons"])
    ]
    failed = {model: facts["failed"] for model, facts in scores["models"].items() if facts.get("failed")}
    if failed:
        told = ", ".join(f"{model} {number}" for model, number in failed.items())
        lines.append(f"Failed requests: {told}; their prompts are in no score. Run again to retry them.")
    if scores["n"] < FEWEST:
        lines.append(f"{_prompts(scores['n'])}: too few for intervals; at least {FEWEST} are wanted.")
    return lines


def _judged(part: dict[str, Any], metric: str) -> str:
    kept = next((cell for cell in part["kept"] if cell["metric"] == metric), None)
    gaps = {cell["other"]: cell for cell in part["comparisons"] if cell["metric"] == metric}
    if kept is None or kept["value"] is None:
        clauses = [f"reaches {percent(part['models']['student'][metric], unit='%')}"]
    else:
        clauses = [f"keeps {percent(kept, unit='%')} of the teacher"]
    beaten = {other: gaps[other] for other in ("base", "copy") if gaps[other]["verdict"] == "higher"}
    if beaten:
        clauses.append("beats " + " and ".join(f"{OTHERS[other]} by {percent(cell)}" for other, cell in beaten.items()))
    for other in ("base", "copy"):
        if gaps[other]["verdict"] == "lower":
            clauses.append(f"is worse than {OTHERS[other]}: {percent(gaps[other], '+')}")
        elif other not in beaten and gaps[other]["low"] is None:
            clauses.append(f"cannot be told from {OTHERS[other]} by so few prompts: {percent(gaps[other], '+')}")
        elif other not in beaten:
            clauses.append(f"is not shown to differ from {OTHERS[other]}: {percent(gaps[other], '+')}")
    return _listed(clauses)


def _measure(scores: dict[str, Any]) -> str:
    """What was measured; where it is a share, an accuracy, also how large it is."""
    primary = scores["primary"]
    if primary not in SHARES:
        return MEASURES[primary]
    shares = (f"{model} {percent(scores['models'][model][primary], unit='%')}" for model in ("student", upper(primary)))
    return f"{MEASURES[primary]} ({', '.join(shares)})"


def _form(scores: dict[str, Any]) -> list[str]:
    """How many answers have the task's form; nothing where it has none."""
    if "form" not in scores:
        return []
    models = scores["models"]
    gives = "gives one of the choices" if "choices" in scores["form"] else "keeps to the schema"
    held = ", held to that," if {"schema", "choices"} & models["teacher"].get("asked_with", {}).keys() else ""
    student = percent(models["student"]["valid"], unit="%")
    base, teacher = (percent({**models[role]["valid"], "low": None}, unit="%") for role in ("base", "teacher"))
    others = f"the untrained student in {base}, the teacher{held} in {teacher}"
    return [f"Asked freely it {gives} in {student} of its answers; {others}."]


def _behaviour(scores: dict[str, Any]) -> str:
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    stopped = student["stopped"]
    parts = []
    if stopped:
        low = f" (less than the {STOPS_WANTED:g}% wanted)" if stopped["value"] < STOPS_WANTED else ""
        parts.append(f"stops by itself on {percent(stopped, unit='%')} of the prompts{low}")
    if student["length_ratio"]:
        parts.append(f"writes {student['length_ratio']['value']:.2f} times the teacher's length")
    if student["parameters"] and teacher["parameters"]:
        parts.append(f"has {100 * student['parameters'] / teacher['parameters']:.0f}% of its parameters")
    if speedup := faster(scores):
        parts.append(f"is {speedup:.1f} times as fast")
    return f"It {_listed(parts)}."


def _listed(clauses: list[str]) -> str:
    return " and ".join(clauses) if len(clauses) < 3 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def faster(scores: dict[str, Any]) -> float | None:
    """The student's tokens/s over the teacher's; None when they were not measured under the same conditions."""
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    if student["speed_basis"] != teacher["speed_basis"] or not (student["tokens_per_second"] and teacher["tokens_per_second"]):
        return None
    return float(student["tokens_per_second"] / teacher["tokens_per_second"])


def _prompts(n: int) -> str:
    return f"{n} held-out prompt{'s' * (n != 1)}"
