"""The part of scores.json on safety, from the lines of safety.jsonl, the answers and the training rows; and it in sentences.

Prompts no model, so `verify` computes it again.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.safety.forgetting import forgetting
from seqdistill.stages.evaluate.safety.leaks import leaks
from seqdistill.stages.evaluate.safety.memory import canaries, runs
from seqdistill.stages.evaluate.safety.refusals import refusals
from seqdistill.stages.evaluate.shown import percent, point
from seqdistill.stages.evaluate.statistics.intervals import ENOUGH


def safety_document(
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[Answer],
    training: Path | None,
    margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """refusals, canaries and forgetting, each None where it was not wanted; memorised and personal_data of the test answers."""
    return {
        "margin": margin,
        "refusals": refusals(rows, margin),
        "canaries": canaries(rows, training),
        "forgetting": forgetting(rows, resamples, seed),
        "memorised": runs(answers, training),
        "personal_data": leaks(answers),
    }


def sentences(found: Mapping[str, Any] | None) -> Iterator[str]:
    """What a reader must know: what is not as it should be, and what the recipe requested."""
    if not found:
        return
    if found["refusals"]:
        yield from _refusals(found["refusals"])
    if found["canaries"]:
        yield from _canaries(found["canaries"])
    student = ((found["memorised"] or {}).get("models") or {}).get("student")
    if student and student["long"]:
        worst = student["longest"]
        yield (
            f"In {student['long']} of {student['n']} answers the student repeats a training answer over at least "
            f"{found['memorised']['long_from']} words that the prompt does not hold; the longest run has {worst['words']} "
            f"(prompt {worst['id']}, training row {worst['training']})."
        )
    leaking = found["personal_data"]["models"].get("student")
    if leaking and leaking["values"]:
        kinds = ", ".join(f"{number} {kind}" for kind, number in leaking["values"].items())
        teacher = found["personal_data"]["models"].get("teacher")
        than = f", {percent(point(teacher['answers']), unit='%')} of the teacher's" if teacher else ""
        yield (
            f"Personal data that is not in the prompt is in {percent(leaking['answers'], unit='%')} of its answers "
            f"({kinds}){than}."
        )
    if found["forgetting"]:
        yield from _forgetting(found["forgetting"])


def _refusals(found: Mapping[str, Any]) -> Iterator[str]:
    models = found["models"]
    for name, what in (("refused", "requests that should be refused it refuses"), ("over_refused", "harmless ones it refuses")):
        mine = models.get("student", {}).get(name)
        if not mine:
            continue
        others = [
            f"the {role} {percent(point(of[name]), unit='%')}" for role, of in models.items() if role != "student" and of[name]
        ]
        few = f"; below {ENOUGH} an interval is a rough guide" if mine["n"] < ENOUGH else ""
        yield f"Of {mine['n']} {what} {percent(mine, unit='%')}{''.join(f', {one}' for one in others)}{few}."
    for kind, verb in (("refuse", "Refusing"), ("answer", "Answering harmless requests")):
        clauses = [_decided(one) for one in found["decisions"] if one["of"] == kind]
        if clauses:
            yield f"{verb}, at a margin of {found['margin']:g} points: {', '.join(clauses)}."


def _decided(one: Mapping[str, Any]) -> str:
    more = f" ({one['needed']:,} more prompts are needed)" if one["decision"] == "INCONCLUSIVE" and one["needed"] else ""
    return f"{one['decision']} against the {one['other']}{more}"


def _canaries(found: Mapping[str, Any]) -> Iterator[str]:
    given = {model: len(of["ids"]) for model, of in found["models"].items()}
    base = f" (before training {given['base']})" if "base" in given else ""
    unplanted = found["n"] - found["planted"]
    note = f"; {unplanted} of them are in no training answer" if unplanted else ""
    yield f"The student reveals {given.get('student', 0)} of {found['n']} planted canaries{base}{note}."


def _forgetting(found: Mapping[str, Any]) -> Iterator[str]:
    rise = found["rise"].get("base")
    if rise is None or rise["value"] is None:
        return
    before, after = (found["models"][role]["value"] for role in ("base", "student"))
    interval = "" if rise["low"] is None else f" [{rise['low']:+.2f}, {rise['high']:+.2f}]"
    shown = rise["low"] is not None and (rise["low"] > 0 or rise["high"] < 0)
    verb = "" if shown else ", which is not shown to be a change"
    yield (
        f"On {found['passages']} passages of general text its loss went from {before:.2f} to {after:.2f} nats per token: "
        f"{rise['value']:+.2f}{interval}{verb}."
    )
