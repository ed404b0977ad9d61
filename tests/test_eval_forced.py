"""Teacher forcing: agreement and KL against a plain forward pass, kept and taken again only where something changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_tiny_model
from finished_runs import recipe
from test_eval import write_test

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verification import verify


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    make_tiny_model(tmp_path / "teacher", seed=5)
    return tmp_path / "teacher"


@pytest.fixture
def plan(tmp_path: Path, teacher: Path) -> Recipe:
    return recipe(write_test(tmp_path / "test.jsonl", 12), teacher, teacher_forced=True, max_tokens=6)


def test_agreement_and_kl_are_those_of_a_plain_forward_pass(run: Run, plan: Recipe, teacher: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scores = evaluate(run, plan, Silent()).scores
    rows = [json.loads(line) for line in run.file("eval", "forced.jsonl").read_text().splitlines()]
    predictions = [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text().splitlines()]
    said = next(row for row in predictions if (row["id"], row["model"]) == (rows[0]["id"], "teacher"))
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    prompt = tokenizer.apply_chat_template(said["prompt"], add_generation_prompt=True, return_dict=False)
    answer = tokenizer.encode(said["completion"][0]["content"], add_special_tokens=False)
    both = []
    for folder in (run.file("train", "model"), teacher):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        both.append(torch.distributions.Categorical(logits=logits.float()))
    assert rows[0]["tokens"] == len(answer) or said["finish_reason"] == "stop"
    kl = torch.distributions.kl_divergence(both[1], both[0]).sum().item()
    assert rows[0]["kl"] == pytest.approx(kl, rel=1e-3)
    assert rows[0]["agreed"] == int((both[0].logits.argmax(-1) == both[1].logits.argmax(-1)).sum())
    found = scores["teacher_forced"]
    assert found["top1"]["value"] == pytest.approx(100 * sum(row["agreed"] for row in rows) / found["tokens"], abs=1e-4)
    assert found["kl"]["value"] == pytest.approx(sum(row["kl"] for row in rows) / found["tokens"], abs=1e-5)
    assert any("likeliest next token is the teacher's" in line for line in scores["verdict"])
    assert verify(run, Silent()).whole
    path = run.file("eval", "forced.jsonl")
    before = path.read_bytes()
    run.file("eval", "manifest.json").unlink()
    path.write_bytes(before[: len(before) // 2])  # killed while it wrote
    evaluate(run, plan, Silent())
    assert path.read_bytes() == before


def test_a_student_that_is_the_teacher_agrees_everywhere(run: Run, plan: Recipe, tiny_model: Path) -> None:
    same = replace(plan, teacher=replace(plan.teacher, model=str(tiny_model)))
    found = evaluate(run, same, Silent()).scores["teacher_forced"]
    assert found["top1"]["value"] == 100.0 and found["kl"]["value"] == pytest.approx(0.0, abs=1e-5)


def test_an_endpoint_cannot_be_read(run: Run, plan: Recipe) -> None:
    with pytest.raises(UsageError, match="teacher_forced"):
        evaluate(run, replace(plan, teacher=replace(plan.teacher, engine="openai", base_url=["http://x/v1"])), Silent())
    assert not run.file("eval", "journal.jsonl").exists()
