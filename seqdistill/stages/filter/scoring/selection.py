"""Selection: which of the scored rows are kept, and why the others are rejected.

Works on ids and scores, of one prompt's samples or of the whole set. The result does not depend on the order of the rows:
equal scores are ordered by a hash of prompt and teacher, so that no teacher's name wins, and then by id. Does not score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seqdistill.recipe.tables import SelectConfig
from seqdistill.records import fingerprint
from seqdistill.stages.filter.rejection import setting

BASELINES = ("random", "longest")


@dataclass(frozen=True)
class Rejected:
    """Why one row is rejected."""

    rule: str
    reason: str
    kept_by: str | None  # the id of the best row that is kept
    would_keep: tuple[str, ...]  # the settings that together would have kept it


def select(ids: Sequence[str], scores: Sequence[float | None], kind: str, config: SelectConfig) -> list[Rejected | None]:
    """For each row None, if it is kept, or why it is rejected. Where `unscored` is keep, unscored rows rank after all others.

    A row below `min_score` is kept under no rule. `kind` is what the scores are called in a reason: chrf, vote, judge ...
    """
    ranked = sorted(
        (place for place, score in enumerate(scores) if score is not None or config.unscored == "keep"),
        key=lambda place: (_merit(scores[place]), _drawn(ids[place]), ids[place]),
    )
    enough = [place for place in ranked if _reaches(scores[place], config)]
    kept = enough[: most_kept(len(ranked), config)]
    winner = ids[kept[0]] if kept else None
    rejections: list[Rejected | None] = [None] * len(ids)
    worst, last = (scores[kept[-1]], _drawn(ids[kept[-1]])) if kept else (None, "")
    for rank, place in enumerate(enough, 1):
        tie = "with a later id" if _drawn(ids[place]) == last else "later in an order by hash"
        reason = _reason(scores[place], worst, tie, len(ranked), kind, config)
        rejections[place] = Rejected(config.keep, reason, winner, (_rank_setting(rank, len(ranked), config),))
    for place in kept:
        rejections[place] = None
    for rank, place in enumerate((place for place in ranked if scores[place] is not None), 1):
        score = scores[place]
        if score is not None and not _reaches(score, config):
            would_keep = [setting("select.min_score", score)]
            if rank > most_kept(len(ranked), config):
                would_keep.append(_rank_setting(rank, len(ranked), config))
            reason = f"{kind} {score:.4g} is less than {config.min_score:g}"
            rejections[place] = Rejected("threshold", reason, winner, tuple(would_keep))
    unscored = sorted(set(range(len(ids))).difference(ranked), key=lambda place: ids[place])
    for rank, place in enumerate(unscored, len(enough) + 1):  # the rank it would have
        would_keep = [setting("select.unscored", "keep")]
        if rank > most_kept(len(ids), config):
            would_keep.append(_rank_setting(rank, len(ids), config))
        rejections[place] = Rejected("unscored", f"{kind} could not score it", winner, tuple(would_keep))
    return rejections


def _drawn(sample: str) -> str:
    """Sorts equal rows: the same for all samples of one teacher to one prompt."""
    return fingerprint(sample.rpartition(":")[0])


def _merit(score: float | None) -> tuple[bool, float]:
    """Sorts the best score first and no score last."""
    return (True, 0.0) if score is None else (False, -score)


def most_kept(rows: int, config: SelectConfig) -> int:
    """How many rows may stay at most."""
    return {"best": config.best_n, "share": math.ceil(config.top_share * rows - 1e-9)}.get(config.keep, rows)


def _reaches(score: float | None, config: SelectConfig) -> bool:
    return config.min_score is None or score is None or score >= config.min_score


def _rank_setting(rank: int, rows: int, config: SelectConfig) -> str:
    """The setting that keeps a row of this rank."""
    if config.keep == "share":
        return setting("select.top_share", math.ceil(rank / rows * 1e6) / 1e6)
    return setting("select.best_n", rank)


def _reason(score: float | None, worst: float | None, tie: str, rows: int, kind: str, config: SelectConfig) -> str:
    """Why a ranked row does not stay; `worst` is the lowest score that stays, `tie` why it stays before an equal one."""
    this = "has no score" if score is None else f"{score:.4g}"
    if score is not None and score == worst:
        this += f" too, {tie}"
    kept = "no score" if worst is None else f"{worst:.4g}"
    match config.keep:
        case "share":
            return f"top {config.top_share:.4g} of {rows} by {kind}: {kept} and up, this one {this}"
    best = (
        f"best of {rows} by {kind}: {kept}"
        if config.best_n == 1
        else f"best {config.best_n} of {rows} by {kind}: {kept} and up"
    )
    return f"{best}, this one {this}"


def baseline(kind: str, ids: Sequence[str], lengths: Sequence[int], size: int, seed: int) -> set[str]:
    """The ids of `size` rows chosen without looking at quality, to compare a selection with.

    `random` ranks by a hash of seed and id, `longest` by length in characters. Pass the rows the selection chose from and
    the size of what it chose, group by group: then only the choice differs.
    """
    if kind == "random":
        ranked = sorted(ids, key=lambda row: (fingerprint([seed, row]), row))
    else:
        ranked = [row for _, row in sorted(zip(lengths, ids, strict=True), key=lambda pair: (-pair[0], pair[1]))]
    return set(ranked[:size])
