"""Training on a GPU: every method, adapters on a quantised base, packing, FSDP and DeepSpeed, and estimates that hold."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import filter_runs
import pytest
import torch
from conftest import make_tiny_model
from test_every_method import METHODS, prepared
from test_preflight import a_recipe, a_run, rows
from train_runs import Listener, weights

from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig
from seqdistill.runs import Run
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import train

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.filterwarnings("default"),  # what other packages' CUDA parts warn of is not ours to fix
]

EXACT = {"max_steps": 4, "learning_rate": 0.01, "bf16": False, "gradient_checkpointing": False}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "teacher", seed=7)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 8 layers, 90M parameters, in float32: large enough for memory and time to be its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(folder / "tiny"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    return folder / "llama"


def losses(run: Run) -> list[float]:
    lines = [json.loads(line) for line in run.file("train", "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["loss"] is not None]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_in_bfloat16(tiny_model: Path, teacher: Path, tmp_path: Path, name: str) -> None:
    run, recipe = prepared(tmp_path, name, tiny_model, teacher)
    result = train(run, recipe, Silent())
    before = weights(run.file("train", "base") if "student" in METHODS[name] else tiny_model)
    assert any((before[key] != value).any() for key, value in weights(result.path).items())
    assert (run.manifest("train") or {})["arguments"]["bf16"] is True


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("on_policy", "preference")])
def test_in_float32_a_method_s_loss_is_that_of_the_cpu(tiny_model: Path, teacher: Path, tmp_path: Path, name: str) -> None:
    run, recipe = prepared(tmp_path / "gpu", name, tiny_model, teacher, further=EXACT)
    train(run, recipe, Silent())
    beside, recipe = prepared(tmp_path / "cpu", name, tiny_model, teacher, further={**EXACT, "use_cpu": True})
    train(beside, recipe, Silent())
    assert losses(run) == pytest.approx(losses(beside), rel=2e-3)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_adapters_of_a_quantised_base_are_trained_and_merged_into_the_whole_one(llama: Path, tmp_path: Path, kind: str) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    steps = {"max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    run, recipe = a_run(tmp_path, rows(16)), a_recipe(llama, steps, lora=LoraConfig(r=8, quantize=kind))
    result = train(run, recipe, Silent())
    before, after = weights(llama), weights(result.path)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert before.keys() == after.keys()
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    assert all(value.dtype == torch.float32 for value in after.values())
    assert sum(losses(run)[-3:]) < sum(losses(run)[:3])


def test_packed_rows_are_kept_apart(tiny_model: Path, tmp_path: Path) -> None:
    recipe = a_recipe(tiny_model, {"max_steps": 2, "packing": True, "max_length": 512})
    assert check(a_run(tmp_path, rows(16)), recipe, Silent()).packing_isolated


FSDP = """compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: 'no'
num_processes: 1
fsdp_config:
  fsdp_version: {version}
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  {more}
  fsdp_state_dict_type: FULL_STATE_DICT
"""
ZERO = """compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
mixed_precision: 'no'
num_processes: 1
deepspeed_config:
  zero_stage: {stage}
  gradient_accumulation_steps: 1
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero3_save_16bit_model: true
"""
CONFIGS = {
    "fsdp 1": FSDP.format(version=1, more="fsdp_sharding_strategy: FULL_SHARD"),
    "fsdp 2": FSDP.format(version=2, more="fsdp_reshard_after_forward: true"),
    "zero 2": ZERO.format(stage=2),
    "zero 3": ZERO.format(stage=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_accelerate_config_trains_as_without(tiny_model: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    config = tmp_path / "accelerate.yaml"
    config.write_text(CONFIGS[name])
    run, alone = a_run(tmp_path / "run", rows(16)), a_run(tmp_path / "alone", rows(16))
    result = train(run, a_recipe(tiny_model, EXACT, accelerate_config=str(config)), Listener())
    other = train(alone, a_recipe(tiny_model, EXACT), Listener())
    assert losses(run) == pytest.approx(losses(alone), rel=2e-3)
    ours, theirs = weights(result.path), weights(other.path)
    assert ours.keys() == theirs.keys()
    for key, weight in theirs.items():
        torch.testing.assert_close(ours[key], weight, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("args", [{}, {"bf16": False}, {"gradient_checkpointing": False}, {"optim": "sgd"}], ids=str)
def test_the_preflight_s_memory_is_what_a_training_takes(llama: Path, tmp_path: Path, args: dict[str, Any]) -> None:
    recipe = a_recipe(llama, {"max_steps": 3, "per_device_train_batch_size": 8, **args})
    run = a_run(tmp_path, [filter_runs.sample(f"{n}? " + "word " * 120, "An answer. " * 12) for n in range(16)])
    expected = check(run, recipe, Silent()).memory_bytes
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(run, recipe, Silent())
    taken = torch.cuda.max_memory_allocated()
    print(f"memory of {args}: expected {expected / 1e9:.2f} GB, taken {taken / 1e9:.2f} GB")
    assert 0.7 < expected / taken < 1.6


def test_the_preflight_s_time_is_not_that_of_the_launches(llama: Path, tmp_path: Path) -> None:
    steps = {"max_steps": 60, "per_device_train_batch_size": 16}
    run, recipe = a_run(tmp_path, rows(64)), a_recipe(llama, steps)
    expected = check(run, recipe, Silent()).seconds
    began = time.perf_counter()
    train(run, recipe, Silent())
    taken = time.perf_counter() - began
    print(f"60 steps: expected {expected:.1f} s, the stage took {taken:.1f} s")
    assert expected is not None and expected > 0.1


def test_killed_and_run_again_it_ends_as_without(tiny_model: Path, tmp_path: Path) -> None:
    from forked import train_and_kill

    settings = {**EXACT, "max_steps": 6}
    whole, run = a_run(tmp_path / "whole", rows(8)), a_run(tmp_path / "run", rows(8))
    recipe = a_recipe(tiny_model, settings)
    result = train(whole, recipe, Silent())
    train_and_kill(run, recipe, at_step=4)
    resumed = train(run, recipe, Silent())
    for key, weight in weights(result.path).items():
        torch.testing.assert_close(weights(resumed.path)[key], weight, rtol=1e-3, atol=1e-4)
