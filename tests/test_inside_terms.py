"""Terms over the teacher's inside: features, attention, relations and distances, beside their formulas and in trainings."""

from pathlib import Path
from typing import Any

import pytest
from architectures import make_architecture
from chat_tokenizers import chat_tokenizer
from conftest import CHATML, make_tiny_model
from train_runs import ARGS, SGD, a_recipe, a_run, sample, trainer_of, weights

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import train


def softmax(row: list[float]) -> list[float]:
    from math import exp

    top = max(row)
    shares = [exp(value - top) for value in row]
    return [share / sum(shares) for share in shares]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def kl(p: list[float], q: list[float]) -> float:
    from math import log

    return sum(a * log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def test_features_are_the_cosine_or_the_mean_squared_difference_of_two_vectors() -> None:
    import torch

    from seqdistill.stages.train.methods.hidden import features_loss

    torch.manual_seed(0)
    teacher, student = torch.randn(5, 7), torch.randn(5, 7)
    pairs = list(zip(teacher.double().tolist(), student.double().tolist(), strict=True))
    cosine = [1 - dot(t, s) / (dot(t, t) * dot(s, s)) ** 0.5 for t, s in pairs]
    squared = [sum((a - b) ** 2 for a, b in zip(t, s, strict=True)) / 7 for t, s in pairs]
    assert features_loss(teacher, student, "cosine").tolist() == pytest.approx(cosine, abs=1e-6)
    assert features_loss(teacher, student, "mse").tolist() == pytest.approx(squared, abs=1e-6)


def test_attention_is_compared_head_by_head() -> None:
    import torch

    from seqdistill.stages.train.methods.hidden import attention_loss

    torch.manual_seed(0)
    teacher, student = (torch.randn(4, 3, 6).softmax(-1) for _ in range(2))
    teacher[0, 0, 3:] = 0  # a causal mask
    teacher[0, 0] /= teacher[0, 0].sum()
    t, s = teacher.double().tolist(), student.double().tolist()
    divergence = [sum(kl(t[n][h], s[n][h]) for h in range(3)) / 3 for n in range(4)]
    squared = [sum((a - b) ** 2 for h in range(3) for a, b in zip(t[n][h], s[n][h], strict=True)) / 3 for n in range(4)]
    assert attention_loss(teacher, student, "kl").tolist() == pytest.approx(divergence, abs=1e-6)
    assert attention_loss(teacher, student, "mse").tolist() == pytest.approx(squared, abs=1e-6)


def test_relations_are_softmax_of_scaled_products_without_the_padding() -> None:
    import torch

    from seqdistill.stages.train.methods.hidden import relations_loss

    torch.manual_seed(0)
    teacher, student = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)  # rows, heads, tokens, width of a head
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    found = relations_loss(teacher, student, mask)
    for row, length in enumerate((4, 3)):
        for token in range(length):
            wanted = 0.0
            for head in range(3):
                p, q = (
                    softmax([dot(part[row][head][token], part[row][head][other]) / 8**0.5 for other in range(length)])
                    for part in (teacher.double().tolist(), student.double().tolist())
                )
                wanted += kl(p, q) / 3
            assert found[row, token].item() == pytest.approx(wanted, abs=1e-5)


def test_distances_are_between_rows_each_over_their_mean() -> None:
    from itertools import combinations

    import torch

    from seqdistill.stages.train.methods.hidden import distances_loss

    torch.manual_seed(0)
    teacher, student = torch.randn(4, 6) * 3, torch.randn(4, 6)

    def distances(vectors: list[list[float]]) -> list[float]:
        found = [sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 for a, b in combinations(vectors, 2)]
        return [one / (sum(found) / len(found)) for one in found]

    apart = [
        abs(a - b) for a, b in zip(distances(teacher.double().tolist()), distances(student.double().tolist()), strict=True)
    ]
    huber = sum(0.5 * one**2 if one < 1 else one - 0.5 for one in apart) / len(apart)
    assert distances_loss(teacher, student).item() == pytest.approx(huber, abs=1e-6)
    assert distances_loss(teacher * 5, teacher).item() == pytest.approx(0, abs=1e-7)
    assert distances_loss(teacher[:1], student[:1]).item() == 0


def inside_losses(student: Path, teacher: Path, layers: list[int]) -> dict[str, float]:
    """Each term between two models on held-out rows, from the models themselves."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from seqdistill.stages.train.methods import Step
    from seqdistill.stages.train.methods.hidden import TERMS, Watched, term_losses

    config = TrainConfig(features=1, attention=1, relations=1, distances=1)
    ones = dict.fromkeys(TERMS, 1.0)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    texts = [f"<|im_start|>user\nNotice {n}<|im_end|>\n<|im_start|>assistant\nThe pool is shut." for n in range(4)]
    batch = dict(tokenizer(texts, return_tensors="pt"))
    trained = torch.zeros_like(batch["input_ids"], dtype=torch.bool)[:, 1:]
    trained[:, -10:] = True
    watched = []
    for folder, kept in ((teacher, layers), (student, range(len(layers)))):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        watched.append(Watched(model, list(kept), ones))
        with torch.no_grad():
            model(**batch)
    step = Step(batch, trained, batch["input_ids"][:, 1:][trained], None, {})
    found = term_losses(watched[0].take(), watched[1].take(), step, config)
    return {name: float(found[name].mean()) for name in TERMS}


@pytest.mark.parametrize("term", ["features", "attention", "relations", "distances"])
def test_a_term_brings_the_student_s_inside_nearer_to_its_teacher_s(tmp_path: Path, term: str) -> None:
    teacher = make_tiny_model(tmp_path / "teacher", seed=3)
    args = {**ARGS, "num_train_epochs": 16, "learning_rate": 0.003, "per_device_train_batch_size": 8}
    found = {}
    for name, settings in {"text": {}, "term": {term: 20.0}}.items():
        run = a_run(tmp_path / name)
        recipe = a_recipe("shrink:2", teacher=str(teacher), args=args, layers="0,3", **settings)
        result = train(run, recipe, Silent())
        found[name] = inside_losses(result.path, teacher, [0, 3])[term]
    found["untrained"] = inside_losses(run.file("train", "base"), teacher, [0, 3])[term]
    assert found["term"] < found["untrained"] and found["term"] < 0.8 * found["text"], found


def test_terms_are_the_same_under_accumulation(tmp_path: Path) -> None:
    import torch

    teacher, models = make_tiny_model(tmp_path / "teacher", seed=3), []
    for name, more in {"one": {}, "four": {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1}}.items():
        recipe = a_recipe("shrink:2", str(teacher), {**SGD, **more}, layers="0,3", features=1.0, attention=1.0, relations=1.0)
        models.append(weights(train(a_run(tmp_path / name), recipe, Silent()).path))
    for name, weight in models[0].items():
        torch.testing.assert_close(weight, models[1][name], atol=2e-5, rtol=1e-4)


def test_a_student_that_seqdistill_shrink_made_is_compared_too(tmp_path: Path) -> None:
    from seqdistill.stages.train.shrink import shrink

    teacher = make_tiny_model(tmp_path / "teacher", seed=3)
    shrink(str(teacher), tmp_path / "student", "1,3")
    recipe = a_recipe(tmp_path / "student", str(teacher), {**ARGS, "max_steps": 1}, features=1.0)
    train(a_run(tmp_path / "run"), recipe, Silent())
    other = a_recipe(tmp_path / "student", str(make_tiny_model(tmp_path / "small", layers=2)), ARGS, features=1.0)
    with pytest.raises(UsageError, match="of another teacher than"):
        train(a_run(tmp_path / "other"), other, Silent())


@pytest.mark.parametrize(("teacher", "layers"), [("whole", [0, 5]), ("middle", [0, 3]), ("other", None)])
def test_a_student_that_was_cut_twice_is_compared_with_the_layers_of_the_teacher_that_is_named(
    tmp_path: Path, teacher: str, layers: list[int] | None
) -> None:
    from seqdistill.engines.loading import load
    from seqdistill.stages.train.methods.hidden import recorded_cut
    from seqdistill.stages.train.shrink import shrink

    for name, count in (("whole", 6), ("other", 5)):
        make_tiny_model(tmp_path / name, layers=count)
    shrink(str(tmp_path / "whole"), tmp_path / "middle", "0,1,2,5")
    shrink(str(tmp_path / "middle"), tmp_path / "student", "0,3")
    recipe = a_recipe(tmp_path / "student", str(tmp_path / teacher), {**ARGS, "max_steps": 1}, features=1.0)
    if layers is None:
        with pytest.raises(UsageError, match=r"layers 0,3 of another teacher than .* which has 5 layers of width 32, not 4"):
            train(a_run(tmp_path / "run"), recipe, Silent())
        return
    cut = recorded_cut(recipe, load("AutoConfig", recipe.teacher))
    assert cut is not None and cut.layers == layers
    trainer = trainer_of(a_run(tmp_path / "run"), recipe)
    assert trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).isfinite()


@pytest.mark.parametrize(
    ("kind", "terms"),
    [
        ("gemma4_text", {"features": 1.0, "relations": 1.0}),  # no one head size in its config
        ("mamba", {"features": 1.0}),
        ("gemma3n_text", {"features": 1.0, "distances": 1.0}),  # several streams of hidden states
        ("deepseek_v4", {"features": 1.0, "distances": 1.0}),
    ],
)
def test_terms_of_a_family_that_keeps_its_inside_in_another_form(tmp_path: Path, kind: str, terms: dict[str, float]) -> None:
    tokenizer = chat_tokenizer(CHATML, eos="<|im_end|>")
    teacher = make_architecture(kind, tokenizer, tmp_path / kind, [tokenizer.eos_token_id])
    run = a_run(tmp_path / "run", [sample(n) for n in range(3)], [])
    recipe = a_recipe("shrink:2", str(teacher), {"max_steps": 1}, layers="0,3", **terms)
    assert check(run, recipe, Silent()).steps == 1
    plain = train(
        a_run(tmp_path / "plain", [sample(n) for n in range(3)], []),
        a_recipe("shrink:2", str(teacher), {"max_steps": 1}, layers="0,3"),
        Silent(),
    )
    assert train(run, recipe, Silent()).train_loss > plain.train_loss


@pytest.mark.parametrize(
    ("student", "settings", "message"),
    [
        ("{teacher}", {"features": 1.0}, r"features compares .* was not cut from its teacher"),
        ("shrink:2", {"attention": 1.0, "args": {**ARGS, "packing": True}}, r"packing with \[train\] attention"),
        ("shrink:2", {"attention": 1.0, "args": {**ARGS, "eval_packing": True}}, r"eval_packing with \[train\] attention"),
        ("shrink:2", {"relations": 1.0, "args": {**ARGS, "gradient_checkpointing": True}}, r"gradient_checkpointing with"),
        ("shrink:2", {"distances": 1.0, "args": {**ARGS, "per_device_train_batch_size": 2}}, r"at least 3|per_device_train"),
        ("shrink:2", {"distances": 1.0, "batch_tokens": 150, "args": {}}, r"batch_tokens = 150: .*, which has 1"),
        ("shrink:2", {"features": 1.0, "args": {"loss_type": "dft"}}, r"loss_type = 'dft' with \[train\] features"),
        ("shrink:2", {"relations": 1.0, "args": {"label_smoothing_factor": 0.1}}, r"label_smoothing_factor = 0.1 with"),
        ("shrink:2", {"method": "soft", "features": 1.0}, r"--logprobs|has none"),
    ],
)
def test_a_term_that_cannot_be_computed_is_refused_with_the_reason(
    tiny_model: Path, tmp_path: Path, student: str, settings: dict[str, Any], message: str
) -> None:
    run, cut = a_run(tmp_path), {"layers": "0,3"} if student.startswith("shrink:") else {}
    recipe = a_recipe(student.format(teacher=tiny_model), str(tiny_model), **{"args": ARGS, **cut, **settings})
    with pytest.raises(UsageError, match=message):
        train(run, recipe, Silent())
    assert not run.file("train", "model").exists()
