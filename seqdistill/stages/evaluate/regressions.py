"""Regressions: test prompts that base or teacher answered better than the student, the largest loss first, and why.

Each comes with the training rows that are nearest to it, the nearest ones that filter removed, and whether the teacher is
wrong by the reference. Prompts no model, so `verify` computes it again. How rows are compared is owned by `likeness`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

from seqdistill.decisions import FINAL
from seqdistill.likeness import largest, similarities, whole_text
from seqdistill.records import read_jsonl
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.shown import counterpart
from seqdistill.stages.evaluate.table import comparator_of

NEAREST = 3  # rows quoted of each kind
FAR = 0.3  # cosine below which no row is called near
CHARACTERS = 600  # of a quoted text
QUOTED = ("base", "student", "teacher")

OfPrompt = Mapping[str, Answer]  # the answers to one prompt, by role


@dataclass(frozen=True)
class Sources:
    """What regressions are explained with: filter's files, None where there are none, and the number explained."""

    training: Path | None
    rejected: Path | None
    most: int


def regressions(answers: Sequence[Answer], primary: str, sources: Sources, *, share: bool) -> dict[str, Any]:
    """The regressions by the primary metric: how many there are, and the first `sources.most` of them explained.

    With a metric that is a share, the student is wrong and another is right; with a mean, another scores higher. The other is
    the base, and the one whom the student is to equal. Personal data in quoted rows is named by its kind alone.
    """
    by_prompt: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.scores is not None:
            by_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer
    found = [
        (lost, better, of_prompt)
        for of_prompt in by_prompt.values()
        if (lost := _lost(of_prompt, primary, share)) and (better := _better(of_prompt, primary))
    ]
    found.sort(key=lambda one: (-one[0], "base" not in one[1], -len(one[1]), one[2]["student"].prompt.id))
    shown = found[: sources.most]
    queries = [whole_text(of_prompt["student"].prompt.messages) for _, _, of_prompt in shown]
    rows = _nearest(queries, (sources.training, sources.rejected))
    items = [
        _item(of_prompt, lost, better, primary, near, gone, share=share)
        for (lost, better, of_prompt), (near, gone) in zip(shown, rows, strict=True)
    ]
    return {"metric": primary, "found": len(found), "most": sources.most, "items": items}


def _comparators(of_prompt: OfPrompt, primary: str) -> list[str]:
    """Whom the student is compared with: the base, and the teacher's second try or else its answers."""
    comparator = comparator_of(primary) if comparator_of(primary) in of_prompt else "teacher"
    return [role for role in ("base", comparator) if role in of_prompt]


def _score(of_prompt: OfPrompt, role: str, measure: str | None) -> float | None:
    answer = of_prompt.get(role)
    return None if answer is None or measure is None else (answer.scores or {}).get(measure)


def _lost(of_prompt: OfPrompt, primary: str, share: bool) -> float:
    """How many points below the best of the others the student is; 0 where it is not below."""
    mine = _score(of_prompt, "student", primary)
    scores = [score for role in _comparators(of_prompt, primary) if (score := _score(of_prompt, role, primary)) is not None]
    if mine is None or not scores or (share and (mine > 50 or max(scores) <= 50)):
        return 0.0
    return round(max(0.0, max(scores) - mine), 6)


def _better(of_prompt: OfPrompt, primary: str) -> list[str]:
    mine = _score(of_prompt, "student", primary) or 0.0
    return [role for role in _comparators(of_prompt, primary) if (_score(of_prompt, role, primary) or 0.0) > mine]


# --- one of them ------------------------------------------------------------------------------------------------------


def _item(
    of_prompt: OfPrompt,
    lost: float,
    better: list[str],
    primary: str,
    training: list[dict[str, Any]],
    removed: list[dict[str, Any]],
    *,
    share: bool,
) -> dict[str, Any]:
    prompt = of_prompt["student"].prompt
    erred = _teacher_erred(of_prompt, primary, share)
    return {
        "id": prompt.id,
        "slice": prompt.slice,
        "lost": lost,
        "better": better,
        "scores": {role: _score(of_prompt, role, primary) for role in of_prompt},
        "teacher_erred": erred,
        "why": _why(of_prompt, primary, training, removed, erred, share=share),
        "prompt": cut(prompt.messages[-1]["content"]),
        "reference": None if prompt.reference is None else cut(prompt.reference),
        "answers": {role: cut(of_prompt[role].text) for role in QUOTED if role in of_prompt},
        "training": training,
        "removed": removed,
    }


def _teacher_erred(of_prompt: OfPrompt, primary: str, share: bool) -> bool | None:
    """Whether the teacher is wrong by the reference; for a mean, whether it is no nearer to it than the student."""
    measure = counterpart(primary) if primary.endswith("_teacher") else primary
    teacher, mine = _score(of_prompt, "teacher", measure), _score(of_prompt, "student", measure)
    if teacher is None or mine is None:
        return None
    return teacher <= 50 if share else teacher <= mine


def _why(
    of_prompt: OfPrompt,
    primary: str,
    training: list[dict[str, Any]],
    removed: list[dict[str, Any]],
    erred: bool | None,
    *,
    share: bool,
) -> str:
    """What most likely explains it, in a sentence: the first of these that holds."""
    if erred:
        return (
            "the teacher is wrong by the reference" if share else "the teacher is no nearer to the reference than the student"
        )
    nearest = training[0]["similarity"] if training else 0.0
    missed = [row for row in removed if row["rule"] not in FINAL and row["kept_by"] is None]
    if missed and missed[0]["similarity"] > max(nearest, FAR):
        return f"filter removed a nearer row than any that was trained on: rule {missed[0]['rule']}"
    if not training:
        return "there are no training rows"
    if nearest < FAR:
        return f"no similar row was trained on: the nearest has a similarity of {nearest:.2f}"
    copied, mine = _score(of_prompt, "nearest", primary), _score(of_prompt, "student", primary)
    if copied is not None and mine is not None and copied > mine:
        return "the nearest training answer is better than the student's: it was trained on, and not learnt"
    if copied is not None:
        return "the nearest training answer would be wrong here, too" if share else "the nearest training answer is no better"
    return "near rows were trained on"


def _nearest(queries: Sequence[str], files: Sequence[Path | None]) -> list[list[list[dict[str, Any]]]]:
    """For each query the rows of each file whose prompts are nearest, with what filter wrote about them.

    All files are one collection: what is rare in one of them is not what is rare in both, and similarities are compared.
    """
    texts = [[whole_text(row["prompt"]) for _, row in read_jsonl(path)] if path else [] for path in files]
    ends = list(accumulate(map(len, texts), initial=0))
    near = [
        [
            [(place, float(similar[start + place])) for place in largest(similar[start:end], NEAREST)]
            for start, end in pairwise(ends)
        ]
        for similar in (similarities(queries, list(chain(*texts))) if queries and ends[-1] else ())
    ] or [[[] for _ in files] for _ in queries]
    quoted: list[dict[int, Mapping[str, Any]]] = []
    for number, path in enumerate(files):
        wanted = {place for found in near for place, _ in found[number]}
        quoted.append({place: row for place, (_, row) in enumerate(read_jsonl(path)) if place in wanted} if path else {})
    return [
        [
            [_quoted(rows[place], similarity) for place, similarity in of_file]
            for rows, of_file in zip(quoted, found, strict=True)
        ]
        for found in near
    ]


def _quoted(row: Mapping[str, Any], similarity: float) -> dict[str, Any]:
    from seqdistill.personal_data import hidden

    rejection = {key: row.get(key) for key in ("rule", "reason", "kept_by")} if "rule" in row else {}
    texts = {"prompt": row["prompt"][-1]["content"], "completion": row["completion"][-1]["content"]}
    return {
        "id": row["id"],
        "similarity": round(similarity, 6),
        **rejection,
        **{key: cut(hidden(text)) for key, text in texts.items()},
    }


def cut(text: str) -> str:
    """A text as it is quoted: its first CHARACTERS."""
    return text if len(text) <= CHARACTERS else text[:CHARACTERS] + " …"
