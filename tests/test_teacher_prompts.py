"""A teacher that is beside the student as it trains reads its own view of the prompts, with all their instructions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_tiny_model
from train_runs import a_recipe, a_run, sample

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, TaskConfig, TrainConfig
from seqdistill.records import write_jsonl
from seqdistill.stages.train.methods.teacher_prompts import OwnView
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import record_of, train

ARGS = {"max_steps": 1, "per_device_train_batch_size": 4, "max_completion_length": 8}


def on_policy(model: Path, folder: Path, teacher: str, **settings: object) -> Recipe:
    """A recipe whose teacher is the student's own weights, with these lines of its view in the template."""
    rows = [sample(n) for n in range(4)]
    write_jsonl(folder / "prompts.jsonl", [{"id": row.prompt_id, "prompt": row.prompt[-1]["content"]} for row in rows])
    template = f"[teacher]\n{teacher}\n" + 'user = "{{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n'
    (folder / "task.toml").write_text(template)
    task = TaskConfig(template=str(folder / "task.toml"), prompts=str(folder / "prompts.jsonl"))
    return replace(a_recipe(model, str(model), {**ARGS, **settings}, method="on_policy"), task=task)


@pytest.mark.parametrize(("teacher", "learns"), [("", False), ('system = "Say it in ten words."', True)])
def test_on_policy_learns_what_the_teacher_s_instructions_change(
    tiny_model: Path, tmp_path: Path, teacher: str, learns: bool
) -> None:
    run = a_run(tmp_path / "run", [sample(n) for n in range(4)], [sample(3)])
    train(run, recipe := on_policy(tiny_model, tmp_path, teacher), Silent())
    lines = [json.loads(line) for line in run.file("train", "log.jsonl").read_text().splitlines()]
    losses = [line[name] for line in lines for name in ("loss", "eval_loss") if line[name] is not None]
    assert len(losses) == 2 and all((loss > 1e-4) == learns for loss in losses)
    assert record_of(run, recipe).up_to_date()
    (tmp_path / "task.toml").write_text((tmp_path / "task.toml").read_text().replace("ten", "two"))
    assert record_of(run, recipe).up_to_date() != learns


@pytest.mark.parametrize(("teacher", "noted"), [("", False), ('system = "Say it in ten words."', True)])
def test_terms_over_the_teacher_s_inside_say_that_it_reads_the_student_s_prompt(
    tiny_model: Path, tmp_path: Path, teacher: str, noted: bool
) -> None:
    recipe = on_policy(tiny_model, tmp_path, teacher)
    terms = TrainConfig(features=1.0, attention=0.5, layers="0,3", args={"max_steps": 1})
    recipe = replace(recipe, student=replace(recipe.student, model="shrink:2"), train=terms)
    notes = check(a_run(tmp_path / "run", [sample(n) for n in range(4)], []), recipe, Silent()).notes
    assert any(note.startswith("features, attention: compared with the teacher as it reads") for note in notes) == noted


def test_the_teacher_s_answer_is_computed_behind_its_own_prompt_and_no_other(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    teacher = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "teacher", seed=7)).eval()
    prompts, answers = {(5, 6): [8, 9, 10, 11], (7, 8, 9): [12, 13]}, [[20, 21, 22], [23]]

    def behind(prompt: list[int], answer: list[int]) -> torch.Tensor:
        return teacher.base_model(torch.tensor([[*prompt, *answer]])).last_hidden_state[0, len(prompt) - 1 :]

    with torch.no_grad():
        wanted = [behind(prompt, answer) for prompt, answer in zip(prompts.values(), answers, strict=True)]
        view = OwnView(teacher, prompts, answer_tokens=3)
        prompt_ids, completion_ids = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[20, 21, 22], [23, 0, 0]])
        prompt_mask, completion_mask = torch.tensor([[0, 1, 1], [1, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
        view.begin({"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": completion_ids})
        tokens, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
        found = teacher.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state[:, -4:]
    for hidden, one, answer in zip(found, wanted, answers, strict=True):
        assert torch.allclose(hidden[: len(answer) + 1], one, atol=1e-5)


def test_instructions_that_do_not_fit_into_the_teacher_are_refused_before_a_step(tiny_model: Path, tmp_path: Path) -> None:
    recipe = on_policy(tiny_model, tmp_path, f'system = "{"word " * 600}"')
    with pytest.raises(UsageError, match=r"the teacher.s longest prompt has .* more than its context of"):
        train(a_run(tmp_path / "run", [sample(n) for n in range(4)], []), recipe, Silent())
