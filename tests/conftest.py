"""Shared fixtures: a tiny random chat model made on the spot. No network, no downloads."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from seqdistill.runs import Run

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


BRACKETS = (  # another chat template, with the same special tokens
    "{% for message in messages %}<|im_start|>({{ message['role'] }}) {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>(assistant) {% endif %}"
)


def make_tiny_model(folder: Path, seed: int = 0, layers: int = 4) -> Path:
    """A random Llama of 4 layers with a byte-level tokenizer and the ChatML template: a real model, 30 kB."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(special + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    fast.chat_template = CHATML
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=fast.eos_token_id,
        bos_token_id=fast.bos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=fast.eos_token_id, bos_token_id=fast.bos_token_id, pad_token_id=fast.pad_token_id
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random chat model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> "Run":
    """A run whose generate, filter and train stages are done."""
    from finished_runs import finished_run

    return finished_run(tmp_path / "run", tiny_model)


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """A run that was trained on the tiny model, what train returned, and the listener that heard it."""
    from train_runs import Listener, a_recipe, a_run

    from seqdistill.stages.train.stage import train

    run, listener = a_run(tmp_path_factory.mktemp("trained")), Listener()
    return run, train(run, a_recipe(tiny_model), listener), listener


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no keys and no settings of the person who runs them."""
    for name in list(os.environ):
        if name.startswith(("SEQDISTILL_", "OPENAI_")) and name != "SEQDISTILL_CACHE":
            monkeypatch.delenv(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that has never answered is given up at once."""
    from seqdistill.engines import dispatch

    monkeypatch.setattr(dispatch, "DOWN_SECONDS", {False: 0.5, True: 600.0})


@pytest.fixture
def prompted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the transformers engine prompts models with, as text, in the order of the requests."""
    from seqdistill.engines import transformers_local

    seen: list[str] = []
    rendered = transformers_local.prompt_tokens

    def seeing(tokenizer: Any, *how: Any) -> Any:
        tokens = rendered(tokenizer, *how)
        seen.append(tokenizer.decode(tokens))
        return tokens

    monkeypatch.setattr(transformers_local, "prompt_tokens", seeing)
    return seen


def without_template(model: Path, folder: Path) -> Path:
    """A copy of a model as a base model comes: without a chat template."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").unlink()
    return folder
