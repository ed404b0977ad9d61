"""Arguments that TRL takes and a training would not survive, and students with broken files: named, and nothing is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import make_architecture
from chat_tokenizers import chat_tokenizer
from conftest import CHATML
from preflight_runs import a_recipe, a_run

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.stages.train.stage import train


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ({"packing": True, "packing_strategy": "wrapped"}, "cuts rows in two", "bfd"),
        ({"fp16": True, "use_cpu": True}, "fp16 = true: there is no GPU", "leave fp16 out"),
        ({"use_peft": True}, "use_peft: TRL's SFTConfig has no such argument$", "train.lora"),
        ({"lora_r": 8}, "lora_r: TRL's SFTConfig has no such argument$", "train.lora"),
        ({"load_in_4bit": True}, "load_in_4bit: TRL's SFTConfig has no such argument$", "train.lora"),
        ({"lr": 1e-3}, "lr: TRL's SFTConfig has no such argument$", "learning_rate"),
        ({"batch_size": 4}, "batch_size: TRL's SFTConfig has no such argument$", "per_device_train_batch_size"),
        ({"per_device_train_batch_size": 64, "dataloader_drop_last": True}, "no training step", "smaller batches"),
        ({"learning_rate": -1.0}, r"\[train.args\]: .*-1.0", "SFTConfig"),
        ({"optim": "adamw_8bit"}, r"\[train.args\]: .*bitsandbytes", "install the package"),
        ({"per_device_train_batch_size": 0}, r"batch_size = 0: less than 1", "1 or more"),
        ({"per_device_eval_batch_size": 0}, r"eval_batch_size = 0: less than 1", "1 or more"),
        ({"gradient_accumulation_steps": 0}, r"accumulation_steps = 0: less than 1", "1 or more"),
        ({"max_length": 0}, r"max_length = 0: less than 1", "1 or more"),
        ({"max_steps": 0}, r"max_steps = 0: nothing would be learnt", "leave it out"),
        ({"learning_rate": 0.0}, r"learning_rate = 0: nothing would be learnt", "leave it out"),
        ({"metric_for_best_model": "bleu"}, r"metric_for_best_model: seqdistill sets it", "best"),
        ({"report_to": "comet_ml"}, r"'comet_ml' is not installed", "leave report_to out"),
        ({"use_liger_kernel": True}, r"use_liger_kernel: the package is not installed", "pip install"),
        ({"model_init_kwargs": {"attn_implementation": "sdpaa"}}, r"model_init_kwargs = .*: student .*sdpaa", "leave them out"),
    ],
)
def test_a_refused_argument_leaves_the_earlier_student_as_it_was(
    tiny_model: Path, tmp_path: Path, args: dict[str, Any], message: str, hint: str
) -> None:
    run, recipe = a_run(tmp_path / "run"), a_recipe("shrink:2", teacher=tiny_model, layers="0,1")
    train(run, recipe, Silent())
    with pytest.raises(UsageError, match=message) as caught:
        train(run, a_recipe("shrink:2", args, teacher=tiny_model, layers="0,3"), Silent())
    assert hint in caught.value.hint
    assert train(run, recipe, Silent()).up_to_date
    assert not run.file("train", ".base.new").exists()


def _changed(folder: Path, name: str, **values: Any) -> None:
    known = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**known, **values}))


def _nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    found = load_file(folder / "model.safetensors")
    save_file({name: part * float("nan") for name, part in found.items()}, folder / "model.safetensors", {"format": "pt"})


def _adapters_alone(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: _changed(one, "generation_config.json", eos_token_id="2"), r"its eos_token_id is \['2'\]"),
        (lambda one: _changed(one, "tokenizer_config.json", eos_token=None, pad_token=None), r"no padding token, and no end"),
        (lambda one: (one / "chat_template.jinja").write_text("{{ range(1000000) | random }}"), r"refuses .* Range too big"),
        (_nan, r"loss on row .* is nan"),
        (_adapters_alone, r"the folder holds only adapters"),
    ],
)
def test_a_broken_student_is_named_before_the_first_step(
    tiny_model: Path, tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    shutil.copytree(tiny_model, tmp_path / "student")
    change(tmp_path / "student")
    run = a_run(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        train(run, a_recipe(tmp_path / "student"), Silent())
    assert not run.file("train", ".work").exists()


@pytest.mark.parametrize(
    ("kind", "config", "settings"),
    [
        ("gemma3n_text", {}, {}),  # a width for each layer
        ("granitemoe", {}, {"method": "preference"}),  # no num_experts in its config
        ("granitemoehybrid", {"num_local_experts": 0}, {}),  # Granite 4's dense models, with the settings of experts
        ("llama4_text", {}, {}),
    ],
)
def test_a_family_whose_config_has_other_keys_is_trained_and_its_config_stays(
    tmp_path: Path, kind: str, config: dict[str, Any], settings: dict[str, Any]
) -> None:
    tokenizer = chat_tokenizer(CHATML)
    student = make_architecture(kind, tokenizer, tmp_path / "student", [tokenizer.eos_token_id], **config)
    args = {"max_steps": 1, "per_device_train_batch_size": 2}
    result = train(a_run(tmp_path / "run"), a_recipe(student, args, **settings), Silent())
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (student, result.path))
    of_experts = ("num_experts", "router_aux_loss_coef", "output_router_logits")
    assert [before.get(name) for name in of_experts] == [after.get(name) for name in of_experts]


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("roberta", {}, "roberta is an encoder"),
        ("bart", {"is_encoder_decoder": True}, "bart has an encoder"),
        (
            "gemma3_text",
            {"use_bidirectional_attention": True, "num_key_value_heads": 2, "head_dim": 8},
            "Gemma3ForCausalLM, reads the tokens that follow",
        ),
    ],
)
def test_a_student_that_reads_the_answer_before_it_writes_it_is_refused(
    tmp_path: Path, kind: str, config: dict[str, Any], message: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = chat_tokenizer(CHATML)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.4,
    }
    known = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=300, **sizes, **config)
    AutoModelForCausalLM.from_config(known).save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    made = json.loads((tmp_path / "student" / "config.json").read_text())
    (tmp_path / "student" / "config.json").write_text(json.dumps({**made, **config}))
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path / "run"), a_recipe(tmp_path / "student"), Silent())
