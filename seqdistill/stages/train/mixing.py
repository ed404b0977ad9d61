"""Which rows a training mixes, and how much each counts: references, rationales, weights of teachers and of edited rows.

Owns what is made of filter's rows before they are rendered. A row's weight multiplies the loss of each of its tokens.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from seqdistill.decisions import HUMAN
from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Message, Prompt, Sample

RATIONALE = "[rationale] "  # before the last user text of a row that teaches the reasoning; answers keep the plain prompt


@dataclass(frozen=True)
class Mixed:
    """The rows that are trained on, and the weights of those that count more or less than 1."""

    train: list[Sample]
    validation: list[Sample]
    weights: dict[str, float]  # by row id
    counts: dict[str, int]  # what was added or weighted, for the manifest


def mixed(samples: Mapping[str, Sequence[Sample]], config: TrainConfig) -> Mixed:
    """The rows of `samples` (by file: train, validation) as [train] mixes them. Validation rows are as filter left them.

    A row that a person edited has finish_reason "human". Raises UsageError where a setting has no row to act on.
    """
    rows, weights, counts = list(samples["train"]), dict[str, float](), dict[str, int]()
    _check_teachers(config.teacher_weights, {row.teacher for row in rows})

    def of_teacher(row: Sample) -> float:
        return float(config.teacher_weights.get(row.teacher, 1.0))

    for row in rows:
        weights[row.id] = of_teacher(row) * (config.edited_weight if row.finish_reason == HUMAN else 1.0)
    counts["edited"] = sum(row.finish_reason == HUMAN for row in rows) if config.edited_weight != 1 else 0
    if config.reference_weight:
        rows, counts["references"] = _with_references(rows, weights, config)
    if config.rationale == "multitask":
        rationales = [_rationale(row) for row in samples["train"] if row.reasoning]
        if not rationales:
            raise UsageError('[train] rationale = "multitask", but no row has reasoning', "use a teacher that reasons")
        weights |= {row.id: config.rationale_weight * of_teacher(row) for row in rationales}
        rows, counts["rationales"] = [*rows, *rationales], len(rationales)
    if rows and not any(weights.get(row.id, 1) for row in rows):
        raise UsageError("[train]: all rows have the weight 0, and nothing would be learnt", "raise one of the weights")
    return Mixed(
        rows,
        list(samples["validation"]),
        {name: weight for name, weight in weights.items() if weight != 1},
        {name: count for name, count in counts.items() if count},
    )


def _with_references(rows: Sequence[Sample], weights: dict[str, float], config: TrainConfig) -> tuple[list[Sample], int]:
    """(the rows with the prompts' references, how many of these there are): one for each prompt that has one.

    What they replace are the teacher's answers: a row that a person edited stays.
    """
    first = {row.prompt_id: row for row in reversed(rows) if (row.reference or "").strip()}
    references = {
        name: replace(
            row,
            id=f"{name}:reference",
            completion=[{"role": "assistant", "content": row.reference or ""}],
            reasoning=None,
            finish_reason="stop",
        )
        for name, row in first.items()
    }
    if not references:
        raise _without_references(config, "row")
    weights |= {row.id: config.reference_weight for row in references.values()}
    if config.references == "replace":
        rows = [row for row in rows if row.prompt_id not in references or row.finish_reason == HUMAN]
    return [*rows, *(references[name] for name in sorted(references))], len(references)


def _rationale(row: Sample) -> Sample:
    """The row that teaches the teacher's reasoning as a task of its own (https://arxiv.org/abs/2305.02301)."""
    prompt: list[Message] = [dict(message) for message in row.prompt]
    last = max((at for at, message in enumerate(prompt) if message["role"] == "user"), default=len(prompt) - 1)
    prompt[last] = {**prompt[last], "content": RATIONALE + prompt[last]["content"]}
    text = (row.reasoning or "").strip()
    return replace(
        row, id=f"{row.id}:rationale", prompt=prompt, completion=[{"role": "assistant", "content": text}], reasoning=None
    )


def check_mixing(config: TrainConfig, prompts: Sequence[Prompt], teachers: Collection[str]) -> None:
    """Raises UsageError where a setting has nothing to act on in the rows that these teachers will write to these prompts."""
    _check_teachers(config.teacher_weights, teachers)
    if config.reference_weight and not any((prompt.reference or "").strip() for prompt in prompts):
        raise _without_references(config, "prompt")


def weighs_rows(config: TrainConfig) -> bool:
    """Whether rows may count more or less than 1: which of them people edit is not known before they are there."""
    weights = [config.reference_weight or 1, config.rationale_weight if config.rationale == "multitask" else 1]
    weights.append(config.edited_weight)
    return any(weight != 1 for weight in (*weights, *config.teacher_weights.values()))


def _without_references(config: TrainConfig, what: str) -> UsageError:
    return UsageError(
        f"[train] reference_weight = {config.reference_weight:g}, but no {what} has a reference",
        "add a reference to the prompts, or leave reference_weight out",
    )


def _check_teachers(weights: Mapping[str, object], teachers: Collection[str]) -> None:
    """Raises UsageError for a weight that is not a number from 0, or of a teacher that answered nothing."""
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0:
            raise UsageError(f"[train] teacher_weights: {name!r} has the weight {weight!r}", "a number from 0")
        if name not in teachers:
            raise UsageError(
                f"[train] teacher_weights: no row is of the teacher {name!r}{nearest(name, teachers)}",
                f"the rows' teachers are {', '.join(sorted(teachers))}",
            )
