"""Selection: which of the scored rows stay, and why the others go.

Works on ids and scores, of one prompt's samples or of the whole set. The result does not depend on the order of the rows:
equal scores are ordered by id. Does not score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seqdistill.records import fingerprint

BASELINES = ("random", "longest")


@dataclass(frozen=True)
class Rule:
    """How rows are chosen, and what their score is called in a reason."""

    select: str  # all | best | share | threshold
    score: str  # chrf, vote, judge ...
    best_n: int = 1
    top_share: float = 0.5
    min_score: float = 0.0
    unscored: str = "drop"  # drop | keep: what becomes of a row that could not be scored


@dataclass(frozen=True)
class Rejected:
    """Why one row goes."""

    rule: str
    reason: str
    kept_by: str | None  # the id of the best row that stays
    would_keep: str  # the setting that would have kept it


def select(ids: Sequence[str], scores: Sequence[float | None], rule: Rule) -> list[Rejected | None]:
    """For each row None, if it stays, or why it goes. Where `unscored` is keep, unscored rows rank after all others."""
    ranked = sorted(
        (place for place, score in enumerate(scores) if score is not None or rule.unscored == "keep"),
        key=lambda place: (_merit(scores[place]), ids[place]),
    )
    count = _how_many(len(ranked), rule)
    kept = [place for rank, place in enumerate(ranked, 1) if rank <= count and _reaches(scores[place], rule)]
    winner = ids[kept[0]] if kept else None
    unscored = Rejected("unscored", f"{rule.score} could not score it", winner, 'unscored = "keep"')
    verdicts: list[Rejected | None] = [unscored] * len(ids)
    worst = scores[kept[-1]] if kept else None
    for rank, place in enumerate(ranked, 1):
        verdicts[place] = _rejected(scores[place], worst, rank, len(ranked), winner, rule)
    for place in kept:
        verdicts[place] = None
    return verdicts


def _merit(score: float | None) -> tuple[bool, float]:
    """Sorts the best score first and no score last."""
    return (True, 0.0) if score is None else (False, -score)


def _how_many(rows: int, rule: Rule) -> int:
    """How many rows may stay at most."""
    return {"best": rule.best_n, "share": math.ceil(rule.top_share * rows - 1e-9)}.get(rule.select, rows)


def _reaches(score: float | None, rule: Rule) -> bool:
    return rule.select != "threshold" or score is None or score >= rule.min_score


def _rejected(score: float | None, worst: float | None, rank: int, rows: int, winner: str | None, rule: Rule) -> Rejected:
    """The verdict on a ranked row that does not stay; `worst` is the lowest score that does."""
    this = "has no score" if score is None else f"{score:.4g}"
    if score is not None and score == worst:
        this += " too, with a later id"
    kept = "no score" if worst is None else f"{worst:.4g}"
    match rule.select:
        case "threshold":
            return Rejected(
                "threshold", f"{rule.score} {this} is less than {rule.min_score:g}", winner, f"min_score = {score!r}"
            )
        case "share":
            reason = f"top {rule.top_share:.4g} of {rows} by {rule.score}: {kept} and up, this one {this}"
            return Rejected("share", reason, winner, f"top_share = {math.ceil(rank / rows * 1e6) / 1e6:g}")
    best = (
        f"best of {rows} by {rule.score}: {kept}"
        if rule.best_n == 1
        else f"best {rule.best_n} of {rows} by {rule.score}: {kept} and up"
    )
    return Rejected("best", f"{best}, this one {this}", winner, f"best_n = {rank}")


def baseline(kind: str, ids: Sequence[str], lengths: Sequence[int], size: int, seed: int) -> set[str]:
    """The ids of `size` rows chosen without looking at quality, to compare a selection with.

    `random` goes by a hash of seed and id, `longest` by length in characters. Give it the rows the selection chose from and
    the size of what it chose, group by group: then only the choice differs.
    """
    if kind == "random":
        ranked = sorted(ids, key=lambda row: (fingerprint([seed, row]), row))
    else:
        ranked = [row for _, row in sorted(zip(lengths, ids, strict=True), key=lambda pair: (-pair[0], pair[1]))]
    return set(ranked[:size])
