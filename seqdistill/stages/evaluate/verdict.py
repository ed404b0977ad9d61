"""What the numbers say, in sentences: nothing is claimed that an interval does not show.

Reads the document of scores.json. Counts nothing itself.
"""

from collections.abc import Iterator
from typing import Any

from seqdistill.metrics import OWN
from seqdistill.stages.evaluate.cost import usd_with_samples
from seqdistill.stages.evaluate.headline import headline
from seqdistill.stages.evaluate.safety.document import sentences
from seqdistill.stages.evaluate.shown import counterpart, listed, p_value, percent, point, points, prompts, times, usd
from seqdistill.stages.evaluate.statistics.intervals import FEWEST
from seqdistill.stages.evaluate.statistics.paired import EQUIVALENT, NON_INFERIOR
from seqdistill.stages.evaluate.statistics.preference import FEWEST_LABELS
from seqdistill.stages.evaluate.table import comparator_of

STOPS_WANTED = 98.0  # percent
Scores = dict[str, Any]


def verdict(scores: Scores) -> list[str]:
    """The sentences, the headline first."""
    primary = scores["primary"]
    if not any(cell["metric"] == primary for cell in scores["comparisons"]):
        reason = "no test prompt has a reference" if primary.endswith("_reference") else "it applies to no answer"
        unjudged = f"The student cannot be judged by {_phrase(scores, primary)}: {reason}."
        return [unjudged, *_form(scores), *_behaviour(scores), *sentences(scores.get("safety")), *_absent(scores)]
    return [
        _headline(scores),
        *_trivial(scores),
        *_trained_on(scores),
        *_other_way(scores),
        *_empty(scores),
        _measured(scores),
        *_difference(scores),
        *_baselines(scores),
        *_classes(scores),
        *_form(scores),
        *_behaviour(scores),
        *_judge(scores),
        *_forced(scores),
        *_fallback(scores),
        *_cost(scores),
        *sentences(scores.get("safety")),
        *_slices(scores),
        *_absent(scores),
        *_failed(scores),
        *_few(scores),
    ]


def _headline(scores: Scores) -> str:
    """The decision in one sentence, with one interval."""
    judged, kept = scores["judged"], _kept_cell(scores)
    if judged is None:
        level = f"it reaches {percent(scores['models']['student'][scores['primary']], unit='%')}"
        return f"INCONCLUSIVE: there is no second answer of the teacher to compare the student with; {level}."
    share = f"it keeps {percent(kept, unit='%')} of the teacher" if kept and kept["value"] is not None else None
    return headline(judged, scores["margin"], "the student", "the teacher", share)


def trivially_within(scores: Scores) -> float | None:
    """The score of whom the student is compared with, where it is so low that no student could be worse by the margin."""
    judged = scores["judged"]
    if judged is None or judged["decision"] not in (EQUIVALENT, NON_INFERIOR):
        return None
    reached: float = scores["models"][judged["other"]][judged["metric"]]["value"]
    return reached if reached <= scores["margin"] else None


def _trivial(scores: Scores) -> Iterator[str]:
    reached = trivially_within(scores)
    if reached is not None:
        yield (
            f"That shows nothing: {scores['models'][scores['judged']['other']]['phrase']} reaches only {reached:.1f}, and no "
            f"student can be worse than that by {scores['margin']:g} points."
        )


def _trained_on(scores: Scores) -> Iterator[str]:
    if both := scores.get("trained_on"):
        yield (
            f"{both} of the {scores['prompts']} test prompts were trained on, so the scores flatter the student: hold others "
            'out, or leave [filter.contamination] action at "drop".'
        )


def _kept_cell(part: Scores, metric: str | None = None) -> dict[str, Any] | None:
    metric = metric or part["primary"]
    return next((cell for cell in part["kept"] if cell["metric"] == metric), None)


def _phrase(scores: Scores, metric: str) -> str:
    return str(scores["measures"][metric]["phrase"])


def _difference(scores: Scores) -> Iterator[str]:
    """The difference behind the decision, and how much of the way from the base to the teacher it is."""
    judged = scores["judged"]
    if judged is None:
        return
    other = scores["models"][judged["other"]]["phrase"]
    cell = next(c for c in scores["comparisons"] if (c["metric"], c["other"]) == (judged["metric"], judged["other"]))
    line = f"The student minus {other}: {points(judged)}"
    if "only_student" in cell:
        line += (
            f"; right alone on {cell['only_student']} and wrong alone on {cell['only_other']} prompts, "
            f"McNemar {p_value(cell['p'])}"
        )
    yield f"{line}."
    closed = next((c for c in scores["gap_closed"] if c["metric"] == judged["metric"]), None)
    base, top = (scores["models"].get(role, {}).get(judged["metric"]) for role in ("base", judged["other"]))
    if not (base and top and base["value"] < top["value"]):
        return  # a teacher that is no better than the untrained student leaves no way to go
    if closed and closed["value"] is not None and closed["low"] is not None:
        yield f"Training closed {percent(closed, unit='%')} of the gap from the untrained student to {other}."


def _measured(scores: Scores) -> str:
    """By what and on how many prompts; where it is a share, an accuracy, also how large it is."""
    primary = scores["primary"]
    line = f"Measured by {_phrase(scores, primary)}"
    models = scores["models"]
    if scores["measures"][primary]["share"]:
        other = (scores["judged"] or {}).get("other", "teacher")
        shares = [f"{role} {percent(models[role][primary], unit='%')}" for role in ("student", other) if models[role][primary]]
        line += f" ({', '.join(shares)})"
    if not scores["primary_named"] and primary.partition("_")[0] != OWN:
        line += ", the default for this kind of answers ([task] primary names another)"
    n = models["student"][primary]["n"]
    which = prompts(n) if n == scores["n"] else f"{n} of {prompts(scores['n'])}, those to which it applies"
    over = f"{scores['groups']:,} groups of prompts" if scores.get("groups") else "prompts"
    return f"{line}, on {which}, with 95% intervals over {over}."


def _baselines(scores: Scores) -> Iterator[str]:
    clauses = _against(scores, scores)
    if clauses:
        yield f"It {listed(clauses)}."


def _against(part: Scores, scores: Scores) -> list[str]:
    """How the student compares with all but the teacher."""
    gaps = {
        cell["other"]: cell
        for cell in part["comparisons"]
        if cell["metric"] == scores["primary"] and cell["other"] not in ("teacher", "ceiling")
    }
    names = {role: scores["models"][role]["phrase"] for role in gaps}
    few = f"so few {_units(scores)}"
    beaten = [other for other, cell in gaps.items() if cell["verdict"] == "higher"]
    clauses = []
    if beaten:
        clauses.append("beats " + listed([f"{names[other]} by {percent(gaps[other])}" for other in beaten]))
    for other, cell in gaps.items():
        if cell["verdict"] == "lower":
            clauses.append(f"is worse than {names[other]}: {percent(cell, '+')}")
        elif other not in beaten and cell["low"] is None:
            clauses.append(f"cannot be compared with {names[other]} on {few}: {percent(cell, '+')}")
        elif other not in beaten:
            clauses.append(f"is not shown to differ from {names[other]}: {percent(cell, '+')}")
    return clauses


def _units(scores: Scores) -> str:
    """What intervals are over, where there are too few of them."""
    return "groups of prompts" if scores.get("groups") and scores["n"] >= FEWEST else "prompts"


def _other_way(scores: Scores) -> Iterator[str]:
    """The same metric against the references, where the teacher's answers decide, and the other way round."""
    other = counterpart(scores["primary"])
    if other is None or not scores["models"]["student"].get(other):
        return
    comparator = comparator_of(other)
    gap = next((c for c in scores["comparisons"] if (c["metric"], c["other"]) == (other, comparator)), None)
    if gap is None or gap["value"] is None:
        return
    whom = scores["models"][comparator]["phrase"]
    few = gap["low"] is None and gap["verdict"] == "not shown"
    says = {"higher": f"it beats {whom} by", "lower": f"it is worse than {whom} by"}.get(
        gap["verdict"],
        f"it cannot be compared with {whom} on so few {_units(scores)}:" if few else f"it is not shown to differ from {whom}:",
    )
    value = percent({**gap, **_absolute(gap)}) if gap["verdict"] != "not shown" else percent(gap, "+")
    yield f"Judged by {_phrase(scores, other)} {says} {value}."


def _absolute(gap: dict[str, Any]) -> dict[str, Any]:
    if gap["value"] >= 0:
        return gap
    low, high = gap["low"], gap["high"]
    return {"value": -gap["value"], "low": None if high is None else -high, "high": None if low is None else -low}


def _classes(scores: Scores) -> Iterator[str]:
    if "confusion" not in scores:
        return
    line = f"Macro F1 {percent(scores['macro_f1'])}"
    agreement = scores.get("kappa")
    if agreement and agreement["agreement"]["value"] is not None:
        value = "" if agreement["value"] is None else f" (Cohen's kappa {agreement['value']:.2f})"
        line += f"; it agrees with the teacher on {percent(agreement['agreement'], unit='%')}{value}"
        split = [
            f"{percent({**agreement[key]['agreement'], 'low': None}, unit='%')} where the teacher is {key[8:]}"
            for key in ("teacher_right", "teacher_wrong")
            if key in agreement and agreement[key]["agreement"]["value"] is not None
        ]
        line += f", {' and '.join(split)}" if split else ""
    yield f"{line}."
    missed = [
        (recall, name)
        for recall, name in zip(scores["confusion"]["recall"], scores["confusion"]["labels"], strict=True)
        if recall is not None
    ]
    if missed:
        recall, name = min(missed)
        yield f"The class with the lowest recall is {name!r}: {recall:.0f}% of its prompts."


def _form(scores: Scores) -> list[str]:
    """How many answers have the task's form; nothing where it has none."""
    if "form" not in scores:
        return []
    models = scores["models"]
    gives = "gives one of the choices" if "choices" in scores["form"] else "keeps to the schema"
    held = ", held to that," if {"schema", "choices"} & models["teacher"].get("asked_with", {}).keys() else ""
    student = percent(models["student"]["valid"], unit="%")
    others = [
        f"{who} in {percent(point(models[role]['valid']), unit='%')}"
        for role, who in (("base", "the untrained student"), ("teacher", f"the teacher{held}"))
        if models[role]["valid"]
    ]
    return [f"Prompted without the form it {gives} in {student} of its answers{'; ' * bool(others)}{', '.join(others)}."]


def _empty(scores: Scores) -> Iterator[str]:
    """How many answers of student and teacher hold nothing, and are scored so."""
    models = scores["models"]
    empty = [
        f"{models[role]['phrase']} {models[role]['empty']}" for role in ("student", "teacher") if models[role].get("empty")
    ]
    if empty:
        yield (
            f"Empty answers to {prompts(scores['n'])}: {listed(empty)}. Where reasoning uses up the tokens, raise [eval] "
            "max_tokens; their raw replies are in eval/journal.jsonl."
        )


def _behaviour(scores: Scores) -> Iterator[str]:
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    stopped = student["stopped"]
    parts = []
    if stopped:
        low = f" (less than the {STOPS_WANTED:g}% wanted)" if stopped["value"] < STOPS_WANTED else ""
        parts.append(f"stops by itself on {percent(stopped, unit='%')} of the prompts{low}")
    if student["length_ratio"] and student["length_ratio"]["value"] is not None:
        parts.append(f"writes {student['length_ratio']['value']:.2f} times the teacher's length")
    if student["parameters"] and teacher.get("parameters"):
        parts.append(f"has {100 * student['parameters'] / teacher['parameters']:.0f}% of its parameters")
    if speedup := faster(scores):
        parts.append(f"is {speedup:.1f} times as fast")
    if parts:
        yield f"It {listed(parts)}."
    for measure, name in (("repeats", "repeats itself"), ("refused", "refuses")):
        cell = student.get(measure)
        if cell and cell["value"]:
            against = teacher.get(measure)
            than = "" if not against or against["value"] is None else f", the teacher in {against['value']:.1f}%"
            yield f"It {name} in {percent(cell, unit='%')} of its answers{than}."


def _judge(scores: Scores) -> Iterator[str]:
    """The judge's win rate, corrected by people's labels where there are, and what to make of it."""
    found = scores.get("judge")
    if not found:
        return
    if found["reason"]:
        yield f"The judge gives no result: {found['reason']}."
        return
    rate = percent(found["win_rate"], unit="%")
    line = f"The judge {found['name']} prefers the student to the teacher in {rate}, a tie counting half"
    if found["length_controlled"]["value"] is not None:
        line += f", {percent(found['length_controlled'], unit='%')} for answers of equal length"
    if found["consistency"]["value"] is not None:
        line += f"; it keeps to its choice in the other order on {percent(found['consistency'], unit='%')} of the pairs it read"
    if found.get("same"):
        line += f"; {found['same']} of {found['n']} pairs are the same text, a tie that it did not read"
    yield f"{line}."
    if found["labels"]:
        cell = found["corrected"]
        what = "too few to correct the judge" if cell["value"] is None else f"the corrected rate is {percent(cell, unit='%')}"
        if cell["value"] is None and found["labels"] >= FEWEST_LABELS:
            what += ": too few of those on which its orders agree, or of those on which they do not"
        yield f"With {found['labels']} human labels {what}; the next to get are in scores.json, judge.next_labels."
    else:
        yield "No human labels correct the judge ([eval] labels); the first to get are in scores.json, judge.next_labels."
    if found["unreadable"] or found["failed"]:
        yield f"Of the judge's replies {found['unreadable']} could not be read, {found['failed']} failed; none is counted."
    if found["family"]:
        yield f"{found['family'][:1].upper()}{found['family'][1:]}."


def _forced(scores: Scores) -> Iterator[str]:
    """How near the student's next-token distributions are to the teacher's, on the teacher's answers."""
    found = scores.get("teacher_forced")
    if not found:
        return
    if found["top1"] is None:
        yield f"Student and teacher are not compared token by token: {found['reason']}."
        return
    yield (
        f"Reading {found['prompts']} of the teacher's answers, its likeliest next token is the teacher's at "
        f"{percent(found['top1'], unit='%')} of {found['tokens']:,} tokens; KL divergence {times(found['kl'])} nats a token."
    )


def _fallback(scores: Scores) -> Iterator[str]:
    """The threshold of a fallback and its promise; nothing where no target was named."""
    found = scores.get("deferral")
    if not found or found["target"] is None:
        return
    promise = f"at least {found['target']:.4g} of the kept answers are good enough, at a risk of {found['risk']:g}"
    if found["reason"]:
        yield f"No threshold can be chosen: {found['reason']}."
    elif found["threshold"] is not None:
        held = found["held_out"]
        seen = f"{held['kept']} of {held['n']} kept, {percent(held['good_percent'], unit='%')} of them good enough"
        yield (
            f"From a confidence of {found['threshold']:.4g} on the student can be trusted: {promise}; on the other half of the "
            f"prompts {seen}. The rest goes to the teacher."
        )
    elif found["needed"] is None:
        yield f"No confidence is found from which {promise}, and more prompts would not change that."
    else:
        yield f"Not with {found['n']} prompts: about {found['needed']:,} more are needed to show that {promise}."


def _cost(scores: Scores) -> Iterator[str]:
    """What 1,000 requests cost at both, and when the run is earned back; nothing where nothing is priced."""
    found = scores.get("cost")
    if not found:
        return
    prices = {role: scores["models"][role].get("usd_per_1000") for role in ("student", "teacher")}
    if None in prices.values():
        return
    terms = found["terms"]
    several = terms.get("answers_a_request", 1)
    line = (
        f"1,000 requests cost {usd(usd_with_samples(prices['student'], terms))} USD at the student"
        f"{f', of {several} answers each,' if several > 1 else ''} and {usd(prices['teacher'])} at the teacher"
    )
    if scores["break_even_requests"] is None:
        yield f"{line}; no break-even: {found['reason']}."
        return
    shares = [
        f"{terms[name]:.0%} {what}"
        for name, what in (("fallback_share", "falling back to the teacher"), ("shadow_share", "answered by both"))
        if terms[name]
    ]
    requests = scores["break_even_requests"]
    yield (
        f"{line}; what the run cost, {usd(found['upfront_usd'])} USD, is earned back after "
        f"{requests:,} request{'s' * (requests != 1)}{', ' if shares else ''}{' and '.join(shares)}."
    )


def faster(scores: Scores) -> float | None:
    """The student's tokens/s over the teacher's; None when they were not measured under the same conditions."""
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    if student["speed_basis"] != teacher.get("speed_basis"):
        return None
    if not (student["tokens_per_second"] and teacher["tokens_per_second"]):
        return None
    return float(student["tokens_per_second"] / teacher["tokens_per_second"])


def _slices(scores: Scores) -> Iterator[str]:
    for part in scores["slices"]:
        if not any(cell["metric"] == scores["primary"] for cell in part["comparisons"]):
            continue
        kept = _kept_cell(part, scores["primary"])
        share = f"keeps {percent(kept, unit='%')} of the teacher" if kept and kept["value"] is not None else ""
        share = share or f"reaches {percent(part['models']['student'][scores['primary']], unit='%')}"
        decision = f"{part['judged']['decision']}, " if part["judged"] else ""
        few = ", too few for more than a rough guide" if part.get("warning") else ""
        yield f"Slice {part['slice'] or 'without a name'} ({prompts(part['n'])}{few}): {decision}{share}."


def _absent(scores: Scores) -> Iterator[str]:
    for role, facts in scores["models"].items():
        if "absent" in facts:
            yield f"The row {role} is empty: {facts['absent']}."


def _failed(scores: Scores) -> Iterator[str]:
    models = scores["models"]
    if lacking := models["teacher"].get("not_recorded"):
        yield f"The recorded answers have none to {lacking} of {scores['prompts']} test prompts, which are in no score."
    unanswerable = {role: facts["unanswerable"] for role, facts in models.items() if facts.get("unanswerable")}
    failed = {role: number for role, facts in models.items() if (number := to_retry(facts))}
    for what, numbers, then in (
        ("Failed requests", failed, " Run again to retry them."),
        ("Requests that no further try can answer", unanswerable, ""),
    ):
        if numbers:
            counts = ", ".join(f"{role} {number}" for role, number in numbers.items())
            yield f"{what}: {counts}; their prompts are in no score.{then}"


def to_retry(facts: Scores) -> int:
    """How many requests of a model failed that another run would send again."""
    return int(facts.get("failed", 0) - facts.get("unanswerable", 0))


def _few(scores: Scores) -> Iterator[str]:
    n = scores["models"]["student"][scores["primary"]]["n"]
    if n < FEWEST:
        yield f"{prompts(n)}: too few for intervals; at least {FEWEST} are needed."
    elif n < scores["few"]:
        yield f"{prompts(n)}: below {scores['few']} an interval is a rough guide; add test prompts."
    elif scores.get("warning"):  # enough prompts, of few groups
        yield f"{scores['warning']}; below {FEWEST} a difference has none. Add test prompts of other groups."
