"""Soft targets: exact in K + 1 buckets at every stored temperature, put to the right tokens, and refused where they are not."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import filter_runs
import pytest
from conftest import make_tiny_model, without_template
from train_runs import ARGS, Listener, a_run, sample, weights

from seqdistill.engines.logprob_file import read_logprob_rows, write_logprob_rows
from seqdistill.engines.logprobs import LOWEST, TEMPERATURES, TokenLogprobs
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import (
    GenerateConfig,
    OneOfTeachers,
    Recipe,
    StudentConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)
from seqdistill.records import Sample, read_samples, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.generate.stage import generate
from seqdistill.stages.train.early import check_settings
from seqdistill.stages.train.methods.soft import soft_loss
from seqdistill.stages.train.methods.targets import UNREASONED, _allocated, _write_row
from seqdistill.stages.train.rendering import Row
from seqdistill.stages.train.scored_targets import score_targets
from seqdistill.stages.train.stage import train

CHOICES = ["The road is shut.", "The bridge is shut on Monday.", "No library today.", "The pool opens at 9."]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "teacher", seed=7)


@pytest.fixture(scope="module")
def generated(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose teacher answered with log-probabilities; its samples stand as filter's rows."""
    folder = tmp_path_factory.mktemp("generated")
    prompts = folder / "prompts.jsonl"
    write_jsonl(prompts, [{"id": f"p{n}", "prompt": f"Notice {n}: say it short."} for n in range(12)])
    asked = GenerateConfig(choices=CHOICES, logprobs=8, temperature=1.0, max_tokens=40)
    model = TeacherConfig(model=str(teacher), options={"dtype": "float32"})
    run = Run(folder / "run")
    generate(run, Recipe(task=TaskConfig(prompts=str(prompts)), teacher=model, generate=asked), Silent())
    samples = list(read_samples(run.file("generate", "samples.jsonl")))
    filter_runs.filtered_run(run.path, {"train.jsonl": samples[:10], "validation.jsonl": samples[10:]})
    return run


def recipe(student: Path | str, teacher: Path | str, args: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=str(student)),
        teacher=TeacherConfig(model=str(teacher)),
        train=TrainConfig(**{"method": "soft", "args": {**ARGS, **(args or {})}, **settings}),
    )


def copied(run: Run, folder: Path, change: Callable[[list[Sample]], list[Sample]] = lambda rows: rows) -> Run:
    """A run with the same log-probabilities, whose rows filter or a person changed."""
    rows = {name: list(read_samples(run.file("filter", name))) for name in ("train.jsonl", "validation.jsonl")}
    other = filter_runs.filtered_run(folder, {**rows, "train.jsonl": change(rows["train.jsonl"])})
    other.file("generate", "logprobs.parquet").parent.mkdir(exist_ok=True)
    other.file("generate", "logprobs.parquet").write_bytes(run.file("generate", "logprobs.parquet").read_bytes())
    return other


def answered(row: Sample, text: str) -> Sample:
    return replace(row, completion=[{"role": "assistant", "content": text}])


def model_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").double().eval()


def logits_at_answer(model: Any, folder: Path, row: Sample) -> tuple[Any, list[int]]:
    """(float64 logits at each token of a row's answer, its end of turn included; the tokens), computed anew."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(row.prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = [*tokenizer(row.text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1], answer


def in_buckets(logits: Any, ids: Any, temperature: float) -> Any:
    """Probabilities (N, K + 1) of the ids and of everything else, from full logits, the plain way."""
    import torch

    shares = (logits / temperature).softmax(-1)
    listed = shares.gather(-1, ids)
    return torch.cat([listed, shares.sum(-1, keepdim=True) - listed.sum(-1, keepdim=True)], dim=-1)


@pytest.mark.parametrize("temperature", [1.0, *TEMPERATURES])
def test_the_loss_and_its_gradient_are_those_of_full_distributions_in_the_same_buckets(
    generated: Run, teacher: Path, tiny_model: Path, temperature: float
) -> None:
    import torch

    stored = dict(read_logprob_rows(generated.file("generate", "logprobs.parquet")))
    theirs, own = model_of(teacher), model_of(tiny_model)
    for row in read_samples(generated.file("filter", "validation.jsonl")):
        found = stored[row.id]
        with torch.no_grad():
            (full, answer), (logits, _) = logits_at_answer(theirs, teacher, row), logits_at_answer(own, tiny_model, row)
        assert found.token_ids == answer and found.top_token_ids is not None and found.log_normalizers is not None
        ids = torch.tensor(found.top_token_ids)
        exact = logits.clone().requires_grad_()
        p, q = in_buckets(full, ids, temperature), in_buckets(exact, ids, temperature)
        wanted = temperature**2 * (p * (p.log() - q.log())).sum(-1)
        wanted.sum().backward()
        normalizers = torch.zeros(len(answer), dtype=torch.float64)
        if temperature != 1:
            place = TEMPERATURES.index(temperature)
            normalizers = torch.tensor([values[place] for values in found.log_normalizers], dtype=torch.float64)
        at_temperature = torch.tensor(found.top_logprobs).double() / temperature - normalizers[:, None]
        single = logits.float().requires_grad_()
        loss = soft_loss(single, ids, at_temperature.float(), temperature)
        loss.sum().backward()
        assert single.grad is not None and exact.grad is not None
        torch.testing.assert_close(loss.double(), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(single.grad.double(), exact.grad, atol=1e-5, rtol=0)


def test_without_the_rest_the_loss_is_that_of_the_distributions_over_the_likeliest_tokens_alone() -> None:
    import torch

    torch.manual_seed(0)
    full, logits = torch.randn(5, 30).double() * 3, torch.randn(5, 30).double() * 3
    values, ids = full.log_softmax(-1).topk(6)
    p, q = ((part / 2.0).gather(-1, ids).log_softmax(-1) for part in (full, logits))
    wanted = 4 * (p.exp() * (p - q)).sum(-1)
    torch.testing.assert_close(soft_loss(logits, ids, values / 2.0, 2.0, rest=False), wanted)
    filled = torch.cat([ids, ids[:, :1].expand(5, 3)], -1), torch.cat([values / 2.0, torch.full((5, 3), -torch.inf)], -1)
    own = logits.clone().requires_grad_()
    loss = soft_loss(own, *filled, 2.0, rest=False)
    torch.testing.assert_close(loss, wanted, msg="where fewer are stored than at other tokens")
    loss.sum().backward()
    assert own.grad is not None and torch.isfinite(own.grad).all()


def test_the_loss_is_finite_where_fewer_tokens_are_stored_and_where_the_teacher_is_certain() -> None:
    import torch

    logits = torch.randn(2, 9, requires_grad=True)
    ids = torch.tensor([[3, 3, 3], [1, 2, 5]])
    logprobs = torch.tensor([[0.0, -torch.inf, -torch.inf], [-0.1, -3.0, LOWEST]])
    loss = soft_loss(logits, ids, logprobs, 1.0)
    loss.sum().backward()
    assert loss[0].item() == pytest.approx(-logits.log_softmax(-1)[0, 3].item(), abs=1e-6)
    assert torch.isfinite(loss).all() and logits.grad is not None and torch.isfinite(logits.grad).all()
    everything = torch.arange(9).expand(2, 9)
    assert soft_loss(logits, everything, logits.detach().log_softmax(-1), 1.0).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_answers_that_were_scored_without_the_reasoning_that_is_trained_before_them_have_no_targets(
    teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [sample(0), *(sample(n, reasoning="They say so.") for n in (1, 2))]
    run = filter_runs.filtered_run(tmp_path / "run", {"train.jsonl": rows, "validation.jsonl": []})
    score_targets(run, recipe(tiny_model, teacher), 8, None, Silent())
    thinking = recipe(tiny_model, teacher, {"max_steps": 1}, reasoning=True)
    train(run, thinking, Silent())
    assert (run.manifest("train") or {})["method"]["targets"] == {"rows": 1, "text_only": {UNREASONED: 2}}
    score_targets(run, thinking, 8, None, Silent())
    train(run, thinking, Silent())
    assert (run.manifest("train") or {})["method"]["targets"] == {"rows": 3, "text_only": {}}


@pytest.mark.parametrize("approximate", [False, True])
def test_a_place_where_a_cut_vocabulary_has_none_of_the_likeliest_leaves_the_gradient_whole(
    tmp_path: Path, approximate: bool
) -> None:
    import numpy
    import torch

    row = Row("a", [0, 1, 2], start=1, answer=1)
    targets = _allocated([row], 2, tmp_path)
    likeliest = [numpy.log([0.6, 0.3])] * 2
    _write_row(targets, 0, [[5, 6], [5, 7]], likeliest, numpy.array([0, 1, 2, 3, 4, 1, -1, 2]), cut=True)
    lost = _allocated([row], 2, tmp_path)
    _write_row(lost, 0, [[6, 8], [5, 7]], likeliest, numpy.array([0, 1, 2, 3, 4, 1, -1, 2, -1]), cut=True)
    assert targets.found.tolist() == [True, True] and lost.found.tolist() == [False, True]
    logits = torch.randn(2, 5, requires_grad=True)
    ids, logprobs, _ = lost.of(0, 2)
    soft_loss(logits, ids, logprobs, 1.0, rest=not approximate).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def divergence(student: Path, teacher: Path, rows: list[Sample]) -> float:
    """The mean KL(teacher || student) over the tokens of some answers."""
    import torch

    theirs, own, found = model_of(teacher), model_of(student), []
    for row in rows:
        with torch.no_grad():
            p, q = (logits_at_answer(m, teacher, row)[0].log_softmax(-1) for m in (theirs, own))
        found.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(found).mean())


def test_targets_bring_the_student_s_distribution_to_the_teacher_s_where_text_does_not(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    held_out = list(read_samples(generated.file("filter", "validation.jsonl")))
    apart = {"untrained": divergence(tiny_model, teacher, held_out)}
    for name, settings in {"sequence": {"method": "sequence"}, "soft": {"alpha": 0.0}, "both": {"temperature": 2.0}}.items():
        run = copied(generated, tmp_path / name)
        result = train(run, recipe(tiny_model, teacher, {"num_train_epochs": 20, "learning_rate": 0.01}, **settings), Silent())
        apart[name] = divergence(result.path, teacher, held_out)
        manifest = run.manifest("train") or {}
        assert manifest["method"] == {
            "name": settings.get("method", "soft"),
            **({} if name == "sequence" else {"targets": {"rows": 12, "text_only": {}}}),
        }
    assert apart["soft"] < 0.6 * min(apart["untrained"], apart["sequence"])
    assert apart["soft"] < apart["both"] < apart["sequence"]


@pytest.mark.parametrize(
    "args",
    [
        {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1},
        {"padding_free": True},
        {"pad_to_multiple_of": 32},
    ],
)
def test_neither_accumulation_nor_padding_changes_what_is_learnt(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path, args: dict[str, Any]
) -> None:
    import torch

    short = {"max_steps": 3, "shuffle_dataset": False, "optim": "sgd", "learning_rate": 0.05}
    one, other = (copied(generated, tmp_path / name) for name in ("one", "other"))
    first = train(one, recipe(tiny_model, teacher, short), Silent())
    second = train(other, recipe(tiny_model, teacher, {**short, **args}), Silent())
    for name, weight in weights(first.path).items():
        torch.testing.assert_close(weight, weights(second.path)[name], atol=2e-5, rtol=1e-4)


ANSWER = "The bridge is shut."
THOUGHT = "<think>\nHm, which?\n</think>\n\n"


@pytest.mark.parametrize("end", ["", "{end}"], ids=["without the end", "with the end"])
@pytest.mark.parametrize(
    ("template", "reasoning", "wrote", "skipped"),
    [
        ("qwen3", "Hm, which?", f"{THOUGHT}{ANSWER}", "<think>\n\n</think>\n\n"),
        ("qwen3", None, ANSWER, "<think>\n\n</think>\n\n"),  # a teacher that was told not to think
        ("qwen3", None, f"<think>\n\n</think>\n\n{ANSWER}", ""),
        ("qwen3_5_think", "Hm, which?", f"Hm, which?\n</think>\n\n{ANSWER}", "\n</think>\n\n"),
        ("qwen2_5", "Hm, which?", f"<think>Hm, which?</think>\n\n{ANSWER}", ""),
        ("glm4moe_training", "Hm, which?", f"\n<think>Hm, which?</think>\n{ANSWER}", "\n<think></think>\n"),
        ("qwen3", None, f"But {ANSWER}", None),  # no reasoning: a person took a part of the answer away
        ("qwen3", "Hm, which?", f"{THOUGHT}The bridge is open.", None),
    ],
)
def test_targets_of_an_answer_behind_reasoning_that_is_not_trained_on(
    template: str, reasoning: str | None, wrote: str, skipped: str | None, end: str
) -> None:
    from chat_tokenizers import chat_tokenizer
    from numpy import arange

    from seqdistill.engines.chat_templates import shipped_templates
    from seqdistill.engines.logprobs import TokenLogprobs, by_ids
    from seqdistill.stages.train.methods.targets import STALE, fitted_targets
    from seqdistill.stages.train.rendering import Template

    tokenizer = chat_tokenizer(shipped_templates()[template].read_text(encoding="utf-8"))
    rendering = Template(tokenizer)
    row = rendering.render(filter_runs.sample("Which one?", ANSWER, reasoning=reasoning), reasoning=False)
    ids = tokenizer(wrote + end.format(end=rendering.end), add_special_tokens=False)["input_ids"]
    stored = TokenLogprobs(**by_ids(ids, [-0.1] * len(ids), [[one] for one in ids], [[-0.1] for _ in ids], None))
    found = fitted_targets(row, stored, arange(len(tokenizer)), bool(reasoning), 1.0, False)
    if skipped is None:
        assert found == STALE
        return
    assert not isinstance(found, str)
    at = row.start + found[0]
    likeliest = [one for (one,) in found[1]]
    assert rendering.decode(row.tokens[row.start : at]) == skipped
    assert likeliest == row.tokens[at : at + len(likeliest)] and len(likeliest) >= len(row.tokens) - at - (not end)


CHANGES: dict[str, Callable[[Sample], Sample]] = {
    "edited by a person": lambda row: answered(row, f"Note: {row.text}"),
    "cut short": lambda row: answered(row, row.text[:-1]),
    "personal data masked": lambda row: answered(row, row.text.replace("is", "[NAME]")),
    "not the teacher's": lambda row: replace(row, id=f"{row.id}-new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_whose_text_is_no_longer_the_teacher_s_is_trained_on_its_text_alone(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path, change: str
) -> None:
    def changed(rows: list[Sample]) -> list[Sample]:
        at = next(at for at, row in enumerate(rows) if "is" in row.text)
        return [*rows[:at], CHANGES[change](rows[at]), *rows[at + 1 :]]

    run, listener = copied(generated, tmp_path / "run", changed), Listener()
    train(run, recipe(tiny_model, teacher, {"max_steps": 1}), listener)
    targets = (run.manifest("train") or {})["method"]["targets"]
    assert targets["rows"] == 11 and list(targets["text_only"].values()) == [1]
    assert any("1 of 12 rows have no targets" in note for note in listener.notes)


def test_text_alone_has_its_full_weight_in_a_row_without_targets() -> None:
    import torch

    from seqdistill.stages.train.methods.sequence import Step, text_loss
    from seqdistill.stages.train.methods.soft import mixed_loss

    torch.manual_seed(0)
    logits, labels = torch.randn(2, 9), torch.tensor([4, 5])
    columns = {"target_ids": torch.tensor([[1], [2]]), "target_logprobs": torch.tensor([[-0.5], [-0.5]])}
    step = Step({}, None, labels, logits, {**columns, "target_found": torch.tensor([True, False])})
    with_target, without = mixed_loss(0.25, 1.0, True)(step).tolist()
    text, soft = text_loss(step), soft_loss(logits, columns["target_ids"], columns["target_logprobs"], 1.0)
    assert without == pytest.approx(text[1].item())
    assert with_target == pytest.approx(0.25 * text[0].item() + 0.75 * soft[0].item())


def stored_with(run: Run, **changes: Any) -> Run:
    """The run with its stored log-probabilities changed, as another engine or version would have written them."""
    path = run.file("generate", "logprobs.parquet")
    rows = list(read_logprob_rows(path))
    write_logprob_rows(path, [(name, replace(found, **changes)) for name, found in rows])
    return run


TEXTS_ONLY = {"token_ids": None, "tokens": ["a"], "top_token_ids": None, "top_tokens": [["a"]]}


@pytest.mark.parametrize(
    ("stored", "settings", "message"),
    [
        ({}, {"temperature": 2.5}, r"no normaliser is stored at \[train\] temperature = 2.5"),
        ({"temperatures": None, "log_normalizers": None}, {"temperature": 2.0}, r"no normaliser is stored"),
        ({"token_ids": [5, 6]}, {}, r"not those that the teacher wrote"),
        (TEXTS_ONLY, {}, r"by their texts"),
        ({"top_token_ids": [], "top_logprobs": []}, {}, r"no likeliest tokens"),
        ({}, {"args": {**ARGS, "packing": True}}, r"packing = True with method = 'soft'"),
        ({}, {"args": {**ARGS, "label_smoothing_factor": 0.1}}, r"label_smoothing_factor"),
    ],
)
def test_targets_that_cannot_be_used_are_refused_with_the_reason_and_leave_the_run_as_it_was(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path, stored: dict[str, Any], settings: Any, message: str
) -> None:
    run = stored_with(copied(generated, tmp_path / "run"), **stored)
    with pytest.raises(UsageError, match=message):
        train(
            run,
            replace(recipe(tiny_model, teacher), train=TrainConfig(**{"method": "soft", "args": ARGS, **settings})),
            Silent(),
        )
    assert not run.file("train", "model").exists()


def test_any_temperature_is_taken_where_an_approximation_is_wanted(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = stored_with(copied(generated, tmp_path / "run"), temperatures=None, log_normalizers=None)
    train(run, recipe(tiny_model, teacher, {"max_steps": 1}, temperature=2.5, approximate=True), Silent())
    assert (run.manifest("train") or {})["settings"]["train.approximate"] is True


def test_missing_targets_are_named_with_the_commands_that_write_them(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        train(a_run(tmp_path / "run"), recipe(tiny_model, tiny_model), Silent())
    assert "--logprobs 20" in error.value.hint and "seqdistill targets" in error.value.hint


def with_other_tokens(folder: Path) -> Path:
    """A teacher of the same size whose tokenizer numbers two tokens the other way round."""
    import json

    make_tiny_model(folder, seed=7)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    return folder


def test_a_teacher_with_another_tokenizer_is_refused(generated: Run, tiny_model: Path, tmp_path: Path) -> None:
    other = with_other_tokens(tmp_path / "other")
    with pytest.raises(UsageError, match=r"another tokenizer than the student: its token \d+ is '[ab]'"):
        train(copied(generated, tmp_path / "run"), recipe(tiny_model, other), Silent())


def padded(folder: Path, source: Path, rows: int) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(model.config.vocab_size + rows)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("longer", ["student", "teacher"])
def test_an_embedding_longer_than_its_tokenizer_is_no_other_tokenizer(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path, longer: str
) -> None:
    student, run = tiny_model, copied(generated, tmp_path / "run")
    if longer == "student":
        student = padded(tmp_path / "student", tiny_model, 61)
    else:
        run = filter_runs.filtered_run(
            tmp_path / "scored",
            {name: list(read_samples(run.file("filter", name))) for name in ("train.jsonl", "validation.jsonl")},
        )
        teacher = padded(tmp_path / "teacher", teacher, 61)
        score_targets(run, recipe(student, teacher), 300, None, Silent())
    train(run, recipe(student, teacher, {"max_steps": 1}), Silent())
    assert (run.manifest("train") or {})["method"]["targets"]["rows"] == 12


# --- seqdistill targets ----------------------------------------------------------------------------------------------------


def test_a_teacher_s_scores_of_its_own_texts_are_those_that_it_stored_when_it_wrote_them(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = copied(generated, tmp_path / "run")
    result = score_targets(run, recipe(tiny_model, teacher), 8, None, Silent())
    assert (result.rows, result.left_out) == (12, 0)
    written = dict(read_logprob_rows(generated.file("generate", "logprobs.parquet")))
    scored = dict(read_logprob_rows(result.path))
    assert scored.keys() == written.keys()
    for name, found in scored.items():
        other = written[name]
        assert found.token_ids == other.token_ids
        assert found.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        for mine, theirs in ((found.top_logprobs, other.top_logprobs), (found.log_normalizers, other.log_normalizers)):
            assert mine is not None and theirs is not None
            assert list(chain(*mine)) == pytest.approx(list(chain(*theirs)), abs=1e-4)
    assert score_targets(run, recipe(tiny_model, teacher), 8, None, Silent()).up_to_date


def test_rows_that_a_person_edited_have_targets_again_once_they_are_scored(
    generated: Run, teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = copied(generated, tmp_path / "run", lambda rows: [answered(rows[0], "The road is open again."), *rows[1:]])
    score_targets(run, recipe(tiny_model, teacher), 8, None, Silent())
    train(run, recipe(tiny_model, teacher, {"max_steps": 1}), Silent())
    assert (run.manifest("train") or {})["method"]["targets"] == {"rows": 12, "text_only": {}}


def test_the_teacher_scores_with_its_own_view_of_the_prompt(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    import torch

    template, prompts = tmp_path / "task.toml", tmp_path / "prompts.jsonl"
    template.write_text('[teacher]\nuser = "Say it short: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    write_jsonl(prompts, [{"id": f"p{n}", "prompt": f"Notice {n}."} for n in range(2)])
    rows = [replace(sample(n), prompt=[{"role": "user", "content": text}]) for n, text in enumerate(("Notice 0.", "[NAME] 1."))]
    run = a_run(tmp_path / "run", rows, [])
    task = TaskConfig(prompts=str(prompts), template=str(template))
    result = score_targets(run, replace(recipe(tiny_model, teacher), task=task), 4, None, Silent())
    scored, model = dict(read_logprob_rows(result.path)), model_of(teacher)
    for row, view in zip(rows, ("Say it short: Notice 0.", "[NAME] 1."), strict=True):  # what is masked stays masked
        with torch.no_grad():
            logits, answer = logits_at_answer(model, teacher, replace(row, prompt=[{"role": "user", "content": view}]))
        wanted = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        assert scored[row.id].logprobs == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_scoring_that_was_stopped_continues_where_it_was(
    teacher: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seqdistill.stages.train import scored_targets

    monkeypatch.setattr(scored_targets, "PART_ROWS", 4)
    run, whole = a_run(tmp_path / "run"), a_run(tmp_path / "whole")

    class Stopped(Listener):
        def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
            super().advance(count, facts)
            if self.done >= 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_targets(run, recipe(tiny_model, teacher), 3, None, Stopped())
    assert len(list(run.file("targets", ".work").glob("*.parquet"))) == 2 and run.manifest("targets") is None
    resumed = score_targets(run, recipe(tiny_model, teacher), 3, None, Silent())
    uninterrupted = score_targets(whole, recipe(tiny_model, teacher), 3, None, Silent())
    assert resumed.path.read_bytes() == uninterrupted.path.read_bytes()
    assert not run.file("targets", ".work").exists()
    run.file("targets", ".work").mkdir()  # left by a process that was killed behind the manifest
    assert score_targets(run, recipe(tiny_model, teacher), 3, None, Silent()).up_to_date
    assert not run.file("targets", ".work").exists()


def test_nothing_is_scored_for_a_temperature_that_no_normaliser_is_stored_at(
    teacher: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"temperature = 2\.5: normalisers are stored at 1\.5, 2, 3, 4"):
        score_targets(run, recipe(tiny_model, teacher, temperature=2.5), 3, None, Silent())
    assert not run.file("targets", "").exists()


def test_an_endpoint_scores_nothing_and_its_files_do(tiny_model: Path, teacher: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    endpoint = replace(recipe(tiny_model, teacher), teacher=TeacherConfig(model="gpt-9", engine="openai"))
    with pytest.raises(UsageError, match="is an endpoint"):
        score_targets(run, endpoint, 5, None, Silent())
    assert score_targets(run, endpoint, 5, str(teacher), Silent()).rows == 18
    check_settings(endpoint, run)  # as sweep and curve do
    with pytest.raises(UsageError, match=r"\[generate\] logprobs is not set"):
        check_settings(endpoint)  # as a run of all four stages does before generate
    train(run, replace(endpoint, train=recipe(tiny_model, teacher, {"max_steps": 1}).train), Silent())


def test_of_several_teachers_the_first_scores_which_is_said_and_one_without_a_template_is_named(
    tiny_model: Path, teacher: Path, tmp_path: Path
) -> None:
    bare, listener = without_template(teacher, tmp_path / "bare"), Listener()
    several = replace(recipe(tiny_model, bare), teachers=[OneOfTeachers(model=str(one)) for one in (bare, teacher)])
    with pytest.raises(UsageError, match="the teacher has no chat template"):
        score_targets(a_run(tmp_path / "run"), several, 5, None, listener)
    assert listener.notes == [f"targets: {bare} scores all rows, those of 1 other teachers too; --model chooses"]


def test_stored_rows_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        (
            "a",
            TokenLogprobs(
                [1, 2], None, [-0.5, -1.0], [[1, 3], [2, 4]], None, [[-0.5, -2.0], [-1.0, -3.0]], [2.0], [[0.25], [0.5]]
            ),
        ),
        ("b", TokenLogprobs(None, ["x"], [-0.5], None, [["x"]], [[-0.5]])),
    ]
    write_logprob_rows(tmp_path / "rows.parquet", rows)
    assert list(read_logprob_rows(tmp_path / "rows.parquet")) == rows
