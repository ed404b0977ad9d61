"""What is said of answers that are one of some choices: confusion, recall, macro F1, and agreement with the teacher.

Counts come from `metrics.classes`, intervals from `statistics`. Prompts no model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seqdistill.metrics.classes import confusion, kappa, label, macro_f1, recalls
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.statistics.intervals import Array, resample
from seqdistill.stages.evaluate.statistics.paired import share_of
from seqdistill.stages.evaluate.table import Settings, cell_of, groups_of


def class_table(answers: Sequence[Answer], settings: Settings, choices: Sequence[str], against: str) -> dict[str, Any]:
    """macro_f1 (each model's), confusion (the student's), kappa (student and teacher), majority (the most frequent class).

    The truth is the reference or, where `against` is "teacher", the teacher's answer.
    """
    scored = [answer for answer in answers if answer.scores is not None]
    by_role = {role: [answer for answer in scored if answer.model == role] for role in settings.roles}
    said = {role: [label(answer.text, choices) for answer in of_role] for role, of_role in by_role.items()}
    gold = [label(answer.prompt.reference or "", choices) for answer in by_role["student"]]
    truth = gold if against == "reference" else said.get("teacher", gold)
    groups = groups_of(by_role["student"])

    def kept_groups(keep: Sequence[bool]) -> list[str] | None:
        return [group for group, kept in zip(groups, keep, strict=True) if kept] if groups else None

    def interval(table: Array, statistic: Callable[[Array], Array], keep: Sequence[bool]) -> dict[str, Any]:
        """The value of a statistic of (n, K, K + 1) counts, with its interval over the prompts that are kept."""
        rows = table[list(keep)]
        if not len(rows):
            return cell_of(None, 0)
        drawn = resample(rows.reshape(len(rows), -1), settings.resamples, settings.seed, kept_groups(keep))
        return cell_of(drawn.interval(lambda means: statistic(means.reshape(*means.shape[:-1], *rows.shape[1:]))), len(rows))

    known = [one is not None for one in truth]
    macro = {
        role: interval(confusion(truth, labels, choices), macro_f1, known)
        for role, labels in said.items()
        if labels and not (role == "teacher" and against == "teacher")
    }
    table = confusion(truth, said["student"], choices).sum(axis=0)
    document: dict[str, Any] = {
        "macro_f1": macro.pop("student"),
        "macro_f1_of": macro,
        "confusion": {
            "against": against,
            "labels": list(choices),
            "rows": [[int(number) for number in row] for row in table],  # wanted by said; the last column: no choice
            "recall": [None if recall is None else round(recall, 6) for recall in recalls(table)],
        },
    }
    if said.get("teacher"):
        teacher = said["teacher"]
        agreement = confusion(teacher, said["student"], choices)
        agrees = [one is not None and one == other for one, other in zip(teacher, said["student"], strict=True)]
        counted = [one is not None for one in teacher]

        def agreed(keep: Sequence[bool]) -> dict[str, Any]:
            both = [kept and counts for kept, counts in zip(keep, counted, strict=True)]
            hits = np.array([agree for agree, kept in zip(agrees, both, strict=True) if kept], dtype=bool)
            shares = share_of(hits, kept_groups(both)) if any(both) else None
            return {**interval(agreement, kappa, both), "agreement": cell_of(shares, sum(both))}

        document["kappa"] = agreed(counted)
        if any(gold):
            right = [one is not None and one == other for one, other in zip(gold, teacher, strict=True)]
            wrong = [one is not None and one != other for one, other in zip(gold, teacher, strict=True)]
            document["kappa"] |= {"teacher_right": agreed(right), "teacher_wrong": agreed(wrong)}
    if by_role.get("majority"):
        document["majority"] = {"label": by_role["majority"][0].text}
    return document
