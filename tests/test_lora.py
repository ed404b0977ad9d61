"""Low-rank adapters: they alone are trained, what is saved is a plain model that computes the same, resuming included."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from architectures import make_architecture
from test_preflight import a_recipe, a_run, rows
from test_vocabulary import bpe_model
from train_runs import Impatient, sha256, weights

from seqdistill import api
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig
from seqdistill.stages.train import checkpoints
from seqdistill.stages.train.early import check_settings
from seqdistill.stages.train.lora import loaded_student, merged, without_adapters
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import train

ARGS = {"max_steps": 16, "per_device_train_batch_size": 2, "learning_rate": 0.05}


def test_adapters_alone_are_trained_and_a_plain_model_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model, ARGS, lora=LoraConfig(r=4))
    found = check(run, recipe, Silent())
    assert found.trained_parameters < found.parameters / 2
    result = train(run, recipe, Silent())
    before, after = weights(tiny_model), weights(result.path)
    assert before.keys() == after.keys()
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    losses = [json.loads(line)["loss"] for line in run.file("train", "log.jsonl").read_text().splitlines()]
    trained = [loss for loss in losses if loss is not None]
    assert sum(trained[-4:]) < 0.8 * sum(trained[:4])
    assert not list(result.path.glob("adapter*")), "they lie beside it"
    assert (run.manifest("train") or {})["settings"]["train.lora.r"] == 4


def test_the_merged_model_gives_the_adapters_logits(tiny_model: Path) -> None:
    import torch

    base = a_recipe(tiny_model).student
    model = loaded_student(base, LoraConfig(r=4, alpha=16.0, dropout=0.1), {}).eval()
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(part, std=0.2)
    tokens = torch.arange(5, 45)[None]
    with torch.inference_mode():
        plain = loaded_student(base, LoraConfig(), {}).eval()(tokens).logits
        adapted = model(tokens).logits.clone()
        one = merged(model, base)(tokens).logits
    torch.testing.assert_close(one, adapted, rtol=1e-4, atol=1e-4)
    assert float((adapted - plain).abs().max()) > 0.1
    assert without_adapters(plain) is plain


def test_exported_adapters_on_their_base_answer_as_the_merged_model(tmp_path: Path) -> None:
    """The base of one run is a folder of the user's, of the other the student that the run has cut."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, GenerationConfig

    base, tokens = bpe_model(tmp_path / "base model"), torch.arange(5, 45)[None]
    for vocabulary in ("all", "task"):
        run = a_run(tmp_path / vocabulary)
        merged_model = train(
            run, a_recipe(base, {**ARGS, "max_steps": 4}, lora=LoraConfig(r=4), vocabulary=vocabulary), Silent()
        ).path
        done = api.export(run.path, "adapter", out=tmp_path / f"adapter {vocabulary}")
        named = json.loads((done.path / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(named) == (base if vocabulary == "all" else run.file("train", "base"))
        words = shlex.split(done.serve)
        assert words[:3] == ["vllm", "serve", named] and f"{vocabulary}={done.path}" in words
        with torch.inference_mode():
            found = AutoPeftModelForCausalLM.from_pretrained(done.path).eval()(tokens).logits
            wanted = AutoModelForCausalLM.from_pretrained(merged_model).eval()(tokens).logits
            untrained = AutoModelForCausalLM.from_pretrained(named).eval()(tokens).logits
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert float((wanted - untrained).abs().max()) > 0.1
        stops = [GenerationConfig.from_pretrained(folder).eos_token_id for folder in (done.path, merged_model)]
        assert stops[0] == stops[1] and not list(done.path.glob("model*"))
        assert "AutoPeftModelForCausalLM" in (done.path / "README.md").read_text()
    train(run, a_recipe(base, {**ARGS, "max_steps": 1}), Silent())
    assert not run.file("train", "adapter").exists()
    with pytest.raises(UsageError, match="has no adapters"):
        api.export(run.path, "adapter")


def test_new_adapters_are_trained_on_a_trained_student_and_found_again(tiny_model: Path, tmp_path: Path) -> None:
    """What peft's users do with a model's folder."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    folder = train(a_run(tmp_path), a_recipe(tiny_model, {**ARGS, "max_steps": 1}, lora=LoraConfig(r=4)), Silent()).path
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), peft.LoraConfig(task_type="CAUSAL_LM", r=2))
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(part, std=0.2)
    model.save_pretrained(tmp_path / "more")
    tokens = torch.arange(5, 45)[None]
    with torch.inference_mode():
        again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "more").eval()(tokens).logits
        torch.testing.assert_close(again, model.eval()(tokens).logits)


@pytest.mark.parametrize("method", ["sequence", "preference"])
def test_a_stopped_training_of_adapters_ends_with_the_same_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", float("inf"))
    adapters = LoraConfig(r=2, dropout=0.0 if method == "preference" else 0.2)
    recipe = a_recipe(tiny_model, ARGS, lora=adapters, method=method)
    whole = train(a_run(tmp_path / "whole", rows(8)), recipe, Silent())
    run = a_run(tmp_path / "stopped", rows(8))
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=6))
    (resumed,) = run.file("train", ".work").glob("checkpoint-*/adapter_model.safetensors")
    assert resumed.stat().st_mode & 0o777 == 0o644, "also by others"
    assert sha256(train(run, recipe, Silent()).path / "model.safetensors") == sha256(whole.path / "model.safetensors")
    files = {file.name: file.stat().st_mode & 0o777 for file in run.file("train", "adapter").iterdir()}
    assert files == dict.fromkeys(("adapter_model.safetensors", "adapter_config.json"), 0o644), (
        "no copy of them for a reference"
    )


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (LoraConfig(alpha=32.0), "has no r"),
        (LoraConfig(r=4, target_modules=["q_prj"]), "target_modules = q_prj: "),
        (LoraConfig(r=4, quantize="4bit"), "quantize = '4bit': needs (a CUDA GPU|the package bitsandbytes)"),
    ],
)
def test_adapters_that_cannot_be_trained_are_refused(tiny_model: Path, tmp_path: Path, lora: LoraConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), a_recipe(tiny_model, ARGS, lora=lora), Silent())


def test_adapters_of_experts_are_trained_and_a_dropout_that_they_do_not_take_is_named_before_the_teacher_is_prompted(
    tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = make_architecture("qwen3_moe", tokenizer, tmp_path / "experts", [tokenizer.eos_token_id])
    recipe = a_recipe(model, ARGS, lora=LoraConfig(r=2, dropout=0.2))
    for refusing in (lambda: train(a_run(tmp_path / "run"), recipe, Silent()), lambda: check_settings(recipe)):
        with pytest.raises(UsageError, match=r"\[train.lora\] dropout = 0.2: "):
            refusing()
    once = a_recipe(model, {"max_steps": 1}, lora=LoraConfig(r=2))
    after, before = weights(train(a_run(tmp_path / "run"), once, Silent()).path), weights(model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert any(".experts." in name for name in changed) and not any("norm" in name or "embed" in name for name in changed)


def test_without_a_rank_the_fingerprint_knows_no_adapters(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    train(run, a_recipe(tiny_model, {**ARGS, "max_steps": 1}), Silent())
    settings: dict[str, Any] = (run.manifest("train") or {})["settings"]
    assert not [name for name in settings if "lora" in name]
