"""Ways to distil: each changes what it should, and each refusal names what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import chat_tokenizer, tiny_chat_model
from conftest import BRACKETS, CHATML, make_tiny_model, without_template
from filter_runs import filtered_run
from test_chat_templates import template_of
from train_runs import ARGS, SGD, a_recipe, a_run, sample, trainer_of, weights

from seqdistill.decisions import HUMAN
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig, TrainConfig
from seqdistill.records import Sample, read_jsonl, read_samples, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.train.early import check_settings
from seqdistill.stages.train.mixing import RATIONALE, mixed
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import train

GROUPED = {"train_sampling_strategy": "group_by_length"}


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


def test_references_take_no_place_of_a_row_that_a_person_edited() -> None:
    edited = rows()
    edited["train"][1] = replace(edited["train"][1], finish_reason=HUMAN)
    found = mixed(edited, TrainConfig(reference_weight=1.0, references="replace", edited_weight=2.0))
    assert texts(found.train) == ["Answer 1.", "Reference p0.", "Reference p1."]
    assert found.weights == {"p0:t1:0": 2.0} and found.counts == {"edited": 1, "references": 2}


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
    ("settings", "weights"),
    [
        ({"teacher_weights": {"t1": 0}}, {"t0": 1, "t1": 0}),
        ({"teacher_weights": {"t0": 3.0, "t1": 0.5}, "rationale_weight": 0.5}, {"t0": 1.5, "t1": 0.25}),
        ({"teacher_weights": {"t1": 2.0}, "reference_weight": 4.0}, {"t0": 1, "t1": 2.0}),
        ({"edited_weight": 3.0}, {"t0": 1, "t1": 1}),
    ],
    ids=str,
)
def test_a_rationale_counts_as_its_teacher_does(settings: dict[str, Any], weights: dict[str, float]) -> None:
    found = mixed(rows(), TrainConfig(rationale="multitask", **settings))
    rationales = [row for row in found.train if row.id.endswith(":rationale")]
    assert len(rationales) == 4
    assert {row.teacher: found.weights.get(row.id, 1) for row in rationales} == weights


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"reference_weight": 0.5}, {"reference": None}, "no row has a reference"),
        ({"rationale": "multitask"}, {"reasoning": None}, "no row has reasoning"),
        ({"teacher_weights": {"t3": 1.0}}, {}, "no row is of the teacher 't3'"),
        ({"teacher_weights": {"t1": "much"}}, {}, "has the weight 'much'"),
        ({"teacher_weights": {"t0": 0, "t1": 0.0}}, {}, "all rows have the weight 0"),
        ({"reference_weight": 0.5}, {"reference": " \n"}, "no row has a reference"),
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


def test_references_and_rationales_are_trained_on_beside_the_answers(tiny_model: Path, tmp_path: Path) -> None:
    found = [sample(n, reasoning="It is wet.", reference="Shut.") for n in range(4)]
    runs = {name: a_run(tmp_path / name, found, [sample(n, answer="Shut.") for n in range(2)]) for name in ("text", "mixed")}
    args = {**ARGS, "num_train_epochs": 8}
    plain = train(runs["text"], a_recipe(tiny_model, args=args), Silent())
    settings = {"reference_weight": 2.0, "rationale": "multitask", "rationale_weight": 0.25}
    mixed_in = train(runs["mixed"], a_recipe(tiny_model, args=args, **settings), Silent())
    assert (plain.rows, mixed_in.rows) == (4, 12)
    assert (runs["mixed"].manifest("train") or {})["method"] == {"name": "sequence", "references": 4, "rationales": 4}
    assert mixed_in.validation_loss is not None and plain.validation_loss is not None
    assert mixed_in.validation_loss < 0.7 * plain.validation_loss, "the references are learnt"


def test_a_key_of_another_method_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[train\] alpha = 0.25 does not apply to method = 'sequence'"):
        train(a_run(tmp_path), a_recipe(tiny_model, alpha=0.25), Silent())


def test_sft_is_another_word_for_sequence(tiny_model: Path, tmp_path: Path) -> None:
    run, args = a_run(tmp_path), {**ARGS, "max_steps": 1}
    train(run, a_recipe(tiny_model, args=args, method="sft"), Silent())
    assert train(run, a_recipe(tiny_model, args=args, method="sequence"), Silent()).up_to_date


# --- learning from what the student writes -----------------------------------------------------------------------------------


def test_fewer_prompts_than_a_step_of_on_policy_takes_are_named_with_what_to_lower(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path, [sample(n) for n in range(3)], [])
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    with pytest.raises(UsageError, match=r"no training step: 3 rows, batches of 4, and the trainer drops") as caught:
        train(run, a_recipe(tiny_model, str(tiny_model), size, method="on_policy"), Silent())
    assert "per_device_train_batch_size" in caught.value.hint


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_on_policy_brings_the_student_s_distribution_to_its_teacher_s(tiny_model: Path, tmp_path: Path, beta: float) -> None:
    from test_soft_targets import divergence

    teacher, run = make_tiny_model(tmp_path / "teacher", seed=7), a_run(tmp_path / "run")
    args = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 0.01, "beta": beta, "max_completion_length": 12}
    result = train(run, a_recipe(tiny_model, str(teacher), args, method="on_policy"), Silent())
    held_out = [sample(20), sample(21)]
    assert divergence(result.path, teacher, held_out) < 0.9 * divergence(tiny_model, teacher, held_out)
    assert (run.manifest("train") or {})["method"] == {"name": "on_policy"}


def test_rows_that_are_left_out_prompt_no_student(tmp_path: Path) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    student = tiny_chat_model(tmp_path / "student", chat_tokenizer(strict))
    rows = [sample(n) for n in range(8)]
    rows[3] = replace(rows[3], prompt=[{"role": "system", "content": "Be brief."}, *rows[3].prompt])
    rows[5] = replace(rows[5], prompt=[{"role": "user", "content": "word " * 300}])
    run = a_run(tmp_path / "run", rows, rows[3:6])
    args = {"max_steps": 1, "per_device_train_batch_size": 2, "max_completion_length": 4}
    recipe = a_recipe(student, str(student), args, method="on_policy", unfit="drop")
    trainer = trainer_of(run, recipe)
    assert trainer.train_dataset["prompt"] == [rows[n].prompt for n in (0, 1, 2, 4, 6, 7)]
    assert trainer.eval_dataset["prompt"] == [rows[4].prompt]
    assert train(run, recipe, Silent()).rows == 6


@pytest.mark.parametrize(
    ("template", "words", "refused"),
    [
        ("qwen2_5", 60, None),
        ("qwen2_5", 1, "2 of the student's 2 own answers were cut"),
        ("gemma4_31b", 1, "the student's chat template renders a prompt differently"),
    ],
)
def test_reference_probabilities_in_advance_are_of_the_tokens_that_are_trained(
    tmp_path: Path, template: str, words: int, refused: str | None
) -> None:
    text = template_of(template)
    student = tiny_chat_model(tmp_path / "student", chat_tokenizer(text))
    args = {"max_steps": 1, "per_device_train_batch_size": 2, "precompute_ref_log_probs": True}
    run = a_run(tmp_path / "run", [sample(n, "word " * words) for n in range(2)], [])
    recipe = a_recipe(student, None, args, method="preference")
    if refused is None:
        assert train(run, recipe, Silent()).steps == 1
        return
    with pytest.raises(UsageError, match=f"precompute_ref_log_probs: {refused}"):
        train(run, recipe, Silent())


def test_on_policy_computes_its_loss_in_bfloat16_where_that_is_wanted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    teacher = str(make_tiny_model(tmp_path / "teacher", seed=7))
    once = {"max_steps": 1, "per_device_train_batch_size": 4, "max_completion_length": 4}
    settings = {"method": "on_policy", "lora": LoraConfig(r=2)}  # what is sampled is computed in float32
    losses = [
        train(a_run(tmp_path / str(bf16)), a_recipe(tiny_model, teacher, {**once, "bf16": bf16}, **settings), Silent())
        for bf16 in (False, True)
    ]
    whole, half = (result.train_loss for result in losses)
    assert half == pytest.approx(whole, rel=0.05) and half != whole


def test_preference_raises_the_teacher_s_answer_over_the_student_s_own(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from test_soft_targets import logits_at_answer, model_of

    run = a_run(tmp_path / "run")
    args = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 0.001}
    result = train(run, a_recipe(tiny_model, "gpt-9", args, method="preference"), Silent())
    pairs = [pair for _, pair in read_jsonl(run.file("train", "pairs.jsonl"))]
    assert len(pairs) == 18 and (run.manifest("train") or {})["method"]["pairs"] == {"train": 16, "same_answer": 0}

    def margin(folder: Path) -> float:
        model, total = model_of(folder), 0.0
        for pair in pairs[:4]:
            for side, sign in (("chosen", 1), ("rejected", -1)):
                with torch.no_grad():
                    logits, answer = logits_at_answer(
                        model, folder, replace(sample(0), prompt=pair["prompt"], completion=pair[side])
                    )
                total += sign * float(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum())
        return total

    assert margin(result.path) > margin(tiny_model) + 1
    other = a_recipe(tiny_model, "gpt-9", args, method="preference", seed=5)  # a check leaves the pairs of the student alone
    assert check(run, other, Silent()).method["pairs"]["train"] == 16
    assert [pair for _, pair in read_jsonl(run.file("train", "pairs.jsonl"))] == pairs


@pytest.mark.parametrize(("args", "limit"), [({}, 1024), ({"max_length": 1000}, 1000)])
def test_a_long_prompt_leaves_the_student_less_room_and_its_pair_is_not_clipped(
    tiny_model: Path, tmp_path: Path, args: dict[str, Any], limit: int
) -> None:
    long = replace(sample(0), prompt=[{"role": "user", "content": "x " * 440}])
    run = a_run(tmp_path / "run", [long, sample(1, "The road is shut, " * 10)], [])
    trainer = trainer_of(run, a_recipe(tiny_model, args={"max_steps": 1, **args}, method="preference"))
    sizes = [len(row["prompt_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset]
    assert len(sizes) == 2 and max(sizes) == limit


@pytest.mark.parametrize("base", [True, False])
def test_a_student_with_a_configured_template_is_prompted_as_its_pairs_are_trained(
    tiny_model: Path, tmp_path: Path, prompted: list[str], base: bool
) -> None:
    student = without_template(tiny_model, tmp_path / "base") if base else tiny_model
    own = tmp_path / "brackets.jinja"
    own.write_text(BRACKETS, encoding="utf-8")
    run, once = a_run(tmp_path / "run", [sample(n) for n in range(2)], []), {"max_steps": 1}
    recipe = a_recipe(student, args=once, method="preference")
    trainer = trainer_of(run, replace(recipe, student=replace(recipe.student, chat_template=str(own))))
    trained = [trainer.processing_class.decode(row["prompt_ids"]) for row in trainer.train_dataset]
    assert prompted == trained and all(text.endswith("<|im_start|>(assistant) ") for text in trained)


@pytest.mark.parametrize(
    ("settings", "teacher", "message"),
    [
        ({"method": "on_policy"}, {"engine": "openai"}, r"is an endpoint"),
        ({"method": "on_policy"}, {"model": None}, r"\[teacher\] names none"),
        ({"features": 0.5}, {}, r"was not cut from its teacher"),
        ({"method": "on_policy", "student": "shrink:2"}, {}, r"cut from a larger model and was not trained"),
        ({"method": "preference", "student": "shrink:2"}, {}, r"cut from a larger model and was not trained"),
        ({"method": "preference", "width": 0.5}, {}, r"of width 0.5 is cut from a larger model and was not trained"),
        ({"method": "on_policy", "reference_weight": 0.5}, {}, r"reference_weight = 0.5 does not apply"),
        ({"method": "preference", "features": 0.5}, {}, r"features = 0.5 does not apply"),
        ({"method": "preference", "args": {"beta": -1.0}}, {}, r"beta = -1: the teacher's answer would not be preferred"),
        ({"method": "preference", "args": {"label_smoothing": 0.6}}, {}, r"label_smoothing = 0.6: the teacher's answer"),
        (
            {"method": "preference", "args": {"label_smoothing": 0.1}},
            {},
            r"label_smoothing = 0.1: TRL's loss 'sigmoid' has none",
        ),
        ({"method": "on_policy", "args": {"temperature": 0.0}}, {}, r"temperature = 0: the student samples"),
        ({"method": "on_policy", "args": {"use_vllm": True}}, {}, r"use_vllm: the package is not installed"),
        ({"method": "on_policy", "args": {"log_completions": True}}, {}, r"log_completions: seqdistill sets it"),
        ({"method": "preference", "reasoning": True}, {}, r"reasoning = True"),
        ({"method": "preference", "args": {"padding_free": True}}, {}, r"padding_free = true with method = 'preference'"),
        ({"method": "preference", "args": {"sync_ref_model": True}}, {}, r"sync_ref_model = true with method = 'preference'"),
        ({"method": "preference", "args": {"activation_offloading": True}}, {}, r"activation_offloading = true"),
        ({"method": "on_policy", "args": {"label_smoothing_factor": 0.1}}, {}, r"no part of method = 'on_policy'"),
        ({"method": "preference", "args": {"label_smoothing_factor": 0.1}}, {}, r"no part of method = 'preference'"),
        ({"method": "preference", "args": {"loss_type": "ipo"}}, {}, r"expected list"),
        ({"method": "preference", "args": GROUPED}, {}, r"= 'group_by_length' with method = 'preference': a pair has two"),
        ({"method": "on_policy", "args": GROUPED}, {}, r"= 'group_by_length' with method = 'on_policy': TRL draws"),
        ({"method": "preference", "lora": LoraConfig(r=2, dropout=0.2)}, {}, r"dropout = 0.2 with method = 'preference'"),
        ({"edited_weight": 2.0, "args": {"packing": True}}, {}, r"packing = True with weights of rows"),
        ({"args": {"router_aux_loss_coef": 0.1}}, {}, r"router_aux_loss_coef = 0.1: .* has no experts"),
        ({"teacher_weights": {"t": 0.5}, "args": {"loss_type": "dft"}}, {}, r"loss_type = 'dft' with weights of rows"),
        (
            {"method": "on_policy", "args": {"chat_template_kwargs": {"enable_thinking": True}}},
            {},
            r"chat_template_kwargs: seqd",
        ),
        ({"method": "on_policy", "args": {"teacher_model_name_or_path": "x"}}, {}, r"teacher_model_name_or_path: seqd"),
        ({"method": "on_policy", "args": {"betta": 1.0}}, {}, r"DistillationConfig has no such argument.*beta"),
    ],
)
def test_a_method_that_lacks_something_says_what(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], teacher: dict[str, Any], message: str
) -> None:
    student = settings.pop("student", tiny_model)
    recipe = a_recipe(student, str(tiny_model), **{"args": {}, **settings})
    recipe = replace(recipe, teacher=replace(recipe.teacher, **teacher))
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), recipe, Silent())
    with pytest.raises(UsageError, match=message):
        check_settings(recipe)  # in a run of all four stages, before the teacher is prompted


# --- chains ------------------------------------------------------------------------------------------------------------------


def test_what_a_run_trained_is_a_teacher_that_writes_scores_and_is_cut(tiny_model: Path, tmp_path: Path) -> None:
    from seqdistill.recipe.tables import GenerateConfig, TaskConfig
    from seqdistill.stages.generate.stage import generate
    from seqdistill.stages.train.scored_targets import score_targets

    first = a_run(tmp_path / "first")
    trained = train(first, a_recipe(tiny_model, args={**ARGS, "max_steps": 2}), Silent())
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [{"id": f"p{n}", "prompt": f"Notice {n}: the pool is shut."} for n in range(4)])
    chained = a_recipe("shrink:2", f"run:{first.path}", {**ARGS, "max_steps": 1}, layers="0,3", method="soft", features=1.0)
    chained = replace(
        chained,
        task=TaskConfig(prompts=str(prompts)),
        generate=GenerateConfig(choices=["The pool is shut.", "No."], max_tokens=40),
    )
    second = Run(tmp_path / "second")
    generate(second, chained, Silent())
    samples = list(read_samples(second.file("generate", "samples.jsonl")))
    assert {row.teacher for row in samples} == {"first"}
    filtered_run(second.path, {"train.jsonl": samples, "validation.jsonl": []})
    assert score_targets(second, chained, 5, None, Silent()).rows == 4
    train(second, chained, Silent())
    norm = "model.layers.{}.mlp.up_proj.weight".format
    assert (weights(second.file("train", "base"))[norm(1)] == weights(trained.path)[norm(3)]).all()
    with pytest.raises(UsageError, match="not there yet"):
        generate(Run(tmp_path / "third"), replace(chained, teacher=replace(chained.teacher, model="run:/nowhere")), Silent())


def test_a_model_learns_to_do_without_its_own_instructions(tiny_model: Path, tmp_path: Path) -> None:
    """Self-distillation: teacher and student are one model, and the teacher alone is shown the long instructions."""
    import torch
    from test_soft_targets import logits_at_answer, model_of

    from seqdistill.recipe.tables import TaskConfig
    from seqdistill.stages.train.scored_targets import score_targets

    template, prompts = tmp_path / "task.toml", tmp_path / "prompts.jsonl"
    template.write_text('[teacher]\nsystem = "Be brief."\nuser = "{{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    rows = [sample(n) for n in range(12)]
    write_jsonl(prompts, [{"id": row.prompt_id, "prompt": row.prompt[0]["content"]} for row in rows])
    run = a_run(tmp_path / "run", rows, [])
    recipe = a_recipe(tiny_model, str(tiny_model), {**ARGS, "learning_rate": 0.003}, method="soft", alpha=0.0)
    recipe = replace(recipe, task=TaskConfig(prompts=str(prompts), template=str(template)))
    score_targets(run, recipe, 20, None, Silent())
    result = train(run, recipe, Silent())

    def apart(student: Path) -> float:
        with torch.no_grad():
            shown = replace(rows[0], prompt=[{"role": "system", "content": "Be brief."}, *rows[0].prompt])
            p = logits_at_answer(model_of(tiny_model), tiny_model, shown)[0].log_softmax(-1)
            q = logits_at_answer(model_of(student), tiny_model, rows[0])[0].log_softmax(-1)
        return float((p.exp() * (p - q)).sum(-1).mean())

    assert apart(result.path) < 0.7 * apart(tiny_model)
