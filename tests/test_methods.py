"""Ways to distil: each changes what it should, and each refusal names what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_train import ARGS, a_recipe, a_run, sample, weights

from seqdistill.decisions import HUMAN
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Sample
from seqdistill.train.mixing import RATIONALE, mixed
from seqdistill.train.stage import train

SGD = {**ARGS, "max_steps": 2, "optim": "sgd", "learning_rate": 0.05, "shuffle_dataset": False}


def rows(**keys: Any) -> dict[str, list[Sample]]:
    """Four rows of two prompts and two teachers, with references and reasoning."""
    train_rows = [
        replace(sample(n // 2, answer=f"Answer {n}."), id=f"p{n // 2}:t{n % 2}:0", teacher=f"t{n % 2}") for n in range(4)
    ]
    changed = [replace(row, reference=f"Reference {row.prompt_id}.", reasoning="Because.", **keys) for row in train_rows]
    return {"train": changed, "validation": [sample(9)]}


def texts(found: list[Sample]) -> list[str]:
    return [row.text for row in found]


def test_references_are_extra_rows_or_take_the_place_of_the_teacher_s() -> None:
    extra = mixed(rows(), TrainConfig(reference_weight=0.5))
    assert texts(extra.train) == ["Answer 0.", "Answer 1.", "Answer 2.", "Answer 3.", "Reference p0.", "Reference p1."]
    assert extra.weights == {"p0:reference": 0.5, "p1:reference": 0.5} and extra.counts == {"references": 2}
    alone = mixed(rows(), TrainConfig(reference_weight=1.0, references="replace"))
    assert texts(alone.train) == ["Reference p0.", "Reference p1."] and not alone.weights


def test_weights_are_those_of_teacher_and_edit_together() -> None:
    edited = rows()
    edited["train"][1] = replace(edited["train"][1], finish_reason=HUMAN)
    found = mixed(edited, TrainConfig(teacher_weights={"t1": 0.5}, edited_weight=4.0))
    assert found.weights == {"p0:t1:0": 2.0, "p1:t1:0": 0.5} and found.counts == {"edited": 1}
    assert len(found.train) == 4


def test_a_rationale_is_a_task_of_its_own_beside_the_answer() -> None:
    found = mixed(rows(), TrainConfig(rationale="multitask", rationale_weight=0.25))
    answer, rationale = found.train[0], found.train[4]
    assert rationale.prompt[-1]["content"] == RATIONALE + answer.prompt[-1]["content"]
    assert (rationale.text, rationale.reasoning, found.weights[rationale.id]) == ("Because.", None, 0.25)
    assert answer.prompt == rows()["train"][0].prompt and len(found.train) == 8


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"reference_weight": 0.5}, {"reference": None}, "no row has a reference"),
        ({"rationale": "multitask"}, {"reasoning": None}, "no row has reasoning"),
        ({"teacher_weights": {"t3": 1.0}}, {}, "no row is of the teacher 't3'"),
        ({"teacher_weights": {"t1": "much"}}, {}, "has the weight 'much'"),
    ],
)
def test_a_mixture_without_rows_is_refused(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    part = rows()
    part["train"] = [replace(row, **changes) for row in part["train"]]
    with pytest.raises(UsageError, match=message):
        mixed(part, TrainConfig(**settings))


def test_a_row_s_weight_is_how_often_it_counts(tiny_model: Path, tmp_path: Path) -> None:
    """Twice the weight is twice the row, in a batch of as many tokens."""
    import torch

    twice = [sample(0, answer="Shut."), sample(0, answer="Shut."), sample(1, answer="Open.")]
    twice = [replace(row, id=f"r{n}") for n, row in enumerate(twice)]
    once = [replace(sample(0, answer="Shut."), finish_reason=HUMAN), sample(1, answer="Open.")]
    args = {**SGD, "per_device_train_batch_size": 3, "max_steps": 1, "max_grad_norm": 0.0}
    first = train(a_run(tmp_path / "twice", twice, []), a_recipe(tiny_model, args=args), Silent())
    # the loss is a mean over tokens: 3 rows of equal length there, 2 here
    second = train(
        a_run(tmp_path / "once", once, []),
        a_recipe(tiny_model, args={**args, "learning_rate": 0.05 * 2 / 3}, edited_weight=2.0),
        Silent(),
    )
    before, one, other = weights(tiny_model), weights(first.path), weights(second.path)
    assert any((before[name] != one[name]).any() for name in one)
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5)


def test_inline_rationales_are_the_reasoning_before_the_answer(tiny_model: Path, tmp_path: Path) -> None:
    found = [sample(n, reasoning="It is shut.") for n in range(4)]
    run = a_run(tmp_path, found, [])
    train(run, a_recipe(tiny_model, args={**ARGS, "max_steps": 1}, rationale="inline"), Silent())
    assert (run.manifest("train") or {})["example"]["trained"].startswith("<think>\nIt is shut.\n</think>")


def test_a_key_of_another_method_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[train\] alpha = 0.25 has no part in method = 'sequence'"):
        train(a_run(tmp_path), a_recipe(tiny_model, alpha=0.25), Silent())


def test_sft_is_another_word_for_sequence(tiny_model: Path, tmp_path: Path) -> None:
    run, args = a_run(tmp_path), {**ARGS, "max_steps": 1}
    train(run, a_recipe(tiny_model, args=args, method="sft"), Silent())
    assert train(run, a_recipe(tiny_model, args=args, method="sequence"), Silent()).up_to_date
