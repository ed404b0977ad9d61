"""Training: a tiny random model really learns, on its completions only, to the end of the turn."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from architectures import make_architecture
from chat_tokenizers import chat_tokenizer
from conftest import CHATML
from train_runs import ARGS, Listener, a_recipe, a_run, sample, sha256, weights

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.train.stage import TrainResult, train


def test_training_moves_every_weight_and_lowers_the_loss(trained: tuple[Run, TrainResult, Listener], tiny_model: Path) -> None:
    run, result, _ = trained
    before, after = weights(tiny_model), weights(result.path)
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)
    losses = [row["loss"] for _, row in read_jsonl(run.file("train", "log.jsonl")) if row["loss"] is not None]
    assert len(losses) == result.steps == 16
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert result.train_loss == pytest.approx(sum(losses[-4:]) / 4)


def test_the_model_folder_is_complete_and_stops_where_it_was_trained_to(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, result, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    model = AutoModelForCausalLM.from_pretrained(result.path)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.use_cache
    assert not list(result.path.glob("*.bin"))
    assert {file.stat().st_mode & 0o777 for file in result.path.iterdir()} == {0o644}


def test_the_manifest_says_what_was_trained_on_and_how(trained: tuple[Run, TrainResult, Listener], tiny_model: Path) -> None:
    run, result, listener = trained
    manifest = run.manifest("train") or {}
    assert manifest["example"]["trained"] == "The road is shut.<|im_end|>"
    assert manifest["example"]["given"].endswith("Say it short.<|im_end|>\n<|im_start|>assistant\n")
    assert manifest["arguments"]["learning_rate"] == 0.02
    assert manifest["student"]["loads_in"] == "transformers 4 and 5"
    assert "transformers 4 and 5" in (result.path / "README.md").read_text(encoding="utf-8")
    assert (run.path / manifest["student"]["base"]).resolve() == tiny_model
    assert result.max_length == manifest["counts"]["max_length"] == manifest["arguments"]["max_length"]
    assert str(run.path) not in json.dumps(manifest["arguments"])
    assert not run.file("train", ".work").exists()
    assert (listener.done, listener.total) == (16, 16)
    assert any("loss" in facts for facts in listener.facts)


def test_a_second_call_is_up_to_date_without_the_heavy_packages(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path
) -> None:
    run, result, _ = trained
    code = f"""
import sys
from pathlib import Path
from train_runs import a_recipe
from seqdistill.progress import Silent
from seqdistill.runs import Run
from seqdistill.stages.train.stage import train
result = train(Run(Path({str(run.path)!r})), a_recipe({str(tiny_model)!r}), Silent())
assert result.up_to_date and result.steps == 16
assert not set(sys.modules) & {{"torch", "transformers", "trl", "datasets"}}, "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    assert replace(train(run, a_recipe(tiny_model), Silent()), up_to_date=False) == result


def test_the_loss_at_trained_positions_alone_is_trl_s_own_loss(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from seqdistill.stages.train.methods.sequence import completion_trainer

    torch.manual_seed(0)
    rows = [{"input_ids": [5] * 4 + [7, 8, 9][:n], "labels": [-100] * 4 + [7, 8, 9][:n]} for n in (1, 3)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    own, trl_s = _trainer(completion_trainer(), tiny_model), _trainer(None, tiny_model)
    for total in (None, 7):
        ours = own.compute_loss(own.model, dict(batch), num_items_in_batch=total)
        theirs = trl_s.compute_loss(trl_s.model, dict(batch), num_items_in_batch=total)
        plain = AutoModelForCausalLM.from_pretrained(tiny_model)(**batch).loss * (4 / total if total else 1)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_experts_are_balanced_as_trl_does_where_the_loss_is_ours(tmp_path: Path, coefficient: float) -> None:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from seqdistill.stages.train.methods.sequence import completion_trainer, text_loss

    tokenizer = chat_tokenizer(CHATML)
    model = make_architecture("qwen3_moe", tokenizer, tmp_path / "moe", [tokenizer.eos_token_id])
    rows = [{"input_ids": [5] * 4 + [7, 8, 9][:n], "labels": [-100] * 4 + [7, 8, 9][:n]} for n in (1, 3)]
    batch, balance = DataCollatorForLanguageModeling(pad_token_id=0)(rows), {"router_aux_loss_coef": coefficient}
    own, trl_s = (_trainer(kind, model, **balance) for kind in (completion_trainer(text_loss), None))
    for total in (None, 7):
        losses = []
        for trainer in (own, trl_s):
            trainer.current_gradient_accumulation_steps = 2
            loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=total)
            loss.backward()
            losses.append(loss)
        torch.testing.assert_close(*losses)
    for (name, ours), (_, theirs) in zip(own.model.named_parameters(), trl_s.model.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def _trainer(kind: Any, model: Path, **options: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from seqdistill.stages.train.fit import quiet

    with quiet():
        out = str(model.parent / "out")
        config = SFTConfig(output_dir=out, bf16=False, report_to="none", dataloader_pin_memory=False, **options)
        data = Dataset.from_dict({"input_ids": [[5, 7]], "labels": [[-100, 7]]})
        return (kind or SFTTrainer)(model=str(model), args=config, train_dataset=data)


def test_our_rows_are_trl_s_own_rendering_less_the_line_end_behind_the_end_of_turn(tiny_model: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from seqdistill.stages.train.fit import quiet
    from seqdistill.stages.train.preflight import preflight

    samples = [sample(n) for n in range(3)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    checked = preflight(tokenizer, samples, [], TrainConfig(), 1024, Silent())
    with quiet():
        config = SFTConfig(output_dir=str(tiny_model.parent / "out"), bf16=False, report_to="none", dataloader_pin_memory=False)
        data = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in samples])
        theirs = SFTTrainer(model=str(tiny_model), args=config, train_dataset=data).train_dataset
    line_end = tokenizer.encode("\n")
    assert [[*row.tokens, *line_end] for row in checked.train] == theirs["input_ids"]
    assert [[*row.labels, *line_end] for row in checked.train] == theirs["labels"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, r"(loss|grad_norm) is (nan|inf) at step \d"),
        ({"logging_strategy": "no"}, r"train_loss is (nan|inf) at step 4"),
        ({"logging_steps": 50}, r"train_loss is (nan|inf) at step 4"),
        ({"max_steps": 1, "learning_rate": 1e39}, r"weight has values that are not finite numbers after step 1"),
    ],
    ids=str,
)
def test_a_training_that_diverges_ends_and_says_what_to_do(
    tiny_model: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    run, args = a_run(tmp_path, validation=[]), {**ARGS, "num_train_epochs": 1, "learning_rate": 1e38, "max_grad_norm": 0.0}
    with pytest.raises(SeqdistillError, match=f"training diverged: .*{said}") as error:
        train(run, a_recipe(tiny_model, args={**args, **more}), Silent())
    assert "lower learning_rate" in error.value.hint and not run.file("train", "model").exists()


def test_a_training_that_logs_nothing_is_done_without_a_loss(tiny_model: Path, tmp_path: Path) -> None:
    result = train(a_run(tmp_path), a_recipe(tiny_model, args={**ARGS, "max_steps": 1, "logging_strategy": "no"}), Silent())
    assert (result.steps, result.train_loss) == (1, None)


def test_a_student_can_start_from_another_run(trained: tuple[Run, TrainResult, Listener], tmp_path: Path) -> None:
    other, first, _ = trained
    run = a_run(tmp_path)
    result = train(run, a_recipe(f"run:{other.path}", args={**ARGS, "max_steps": 1}), Silent())
    assert (run.path / (run.manifest("train") or {})["student"]["base"]).resolve() == first.path.resolve()
    assert sha256(result.path / "model.safetensors") != sha256(first.path / "model.safetensors")


def test_a_student_cut_from_the_teacher_is_cut_once_and_kept(tiny_model: Path, tmp_path: Path) -> None:
    run, args = a_run(tmp_path), {**ARGS, "max_steps": 2}
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args=args), Silent())
    manifest = run.manifest("train") or {}
    base, layers = run.path / manifest["student"]["base"], manifest["student"]["layers"]
    assert base == run.file("train", "base")
    assert len(layers) == 2
    norm = "model.layers.{}.mlp.up_proj.weight".format
    for new, old in enumerate(layers):
        assert (weights(base)[norm(new)] == weights(tiny_model)[norm(old)]).all()
        assert (weights(base)[norm(new)] != weights(run.file("train", "model"))[norm(new)]).any()
    assert {file.stat().st_mode & 0o777 for file in base.iterdir()} == {0o644}
    cut = (base / "model.safetensors").stat().st_ino
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args={**args, "learning_rate": 0.01}), Silent())
    assert (base / "model.safetensors").stat().st_ino == cut
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args=args, layers="0,3"), Silent())
    assert (run.manifest("train") or {})["student"]["layers"] == [0, 3]


def test_bfloat16_trains_on_a_cpu_that_has_it_and_is_refused_on_one_that_does_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    args = {**ARGS, "max_steps": 2, "pad_to_multiple_of": 32}
    run, single = a_run(tmp_path / "bf16"), a_run(tmp_path / "fp32")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    with pytest.raises(UsageError, match=r"bf16 = true: this processor has no bfloat16 arithmetic"):
        train(run, a_recipe(tiny_model, args={**args, "bf16": True}), Silent())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    half = train(run, a_recipe(tiny_model, args={**args, "bf16": True}), Silent())
    whole = train(single, a_recipe(tiny_model, args=args), Silent())
    assert half.train_loss == pytest.approx(whole.train_loss, rel=0.02) and half.train_loss != whole.train_loss
    assert weights(half.path)["model.norm.weight"].dtype == torch.float32, "the weights themselves stay as they came"
