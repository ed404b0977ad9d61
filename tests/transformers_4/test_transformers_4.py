"""A trained folder answers in the newest transformers 4 as it does in 5: `make test-transformers-4`.

The folders are written here and read by a process of the environment .venv-transformers-4.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from answering import answers
from architectures import ARCHITECTURES, architecture
from chat_tokenizers import chat_tokenizer
from conftest import CHATML
from test_vocabulary import bpe_model, bpe_tokenizer
from train_runs import a_recipe, a_run

from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig
from seqdistill.stages.train.saving import BOTH, FIVE, SAME_IN_4, write_for_both
from seqdistill.stages.train.stage import train

PYTHON_4 = Path(__file__).parents[2] / ".venv-transformers-4" / "bin" / "python"
REFUSED = ("does not recognize this architecture", "layer_types must be", "clamp() received")  # loud, whatever we write
OTHER_ANSWERS = ("qwen2_moe", "recurrent_gemma")  # where the two versions compute differently from the same settings
TRAINED: dict[str, dict[str, Any]] = {  # how, and from which base
    "sequence": {"base": "llama"},
    "vocabulary": {"base": "llama", "vocabulary": "task"},
    "vocabulary-qwen2": {"base": "qwen2", "vocabulary": "task"},
    "lora": {"base": "llama", "lora": LoraConfig(r=4)},
}
CLASSES = ("Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "CohereTokenizer", "LlamaTokenizer", "GemmaTokenizer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Folder and what is said of it, by architecture, by way of training, and by class of tokenizer."""
    root = tmp_path_factory.mktemp("models")
    made = {f"class-{name}": _tokenizer_of(name, root / f"class-{name}") for name in CLASSES}
    bases = {"llama": bpe_model(root / "base"), "qwen2": _tokenizer_of("Qwen2Tokenizer", root / "base-qwen2", "qwen2")[0]}
    for name, settings in TRAINED.items():
        run = a_run(root / f"run-{name}")
        how = {one: value for one, value in settings.items() if one != "base"}
        recipe = a_recipe(bases[settings["base"]], args={"max_steps": 2, "learning_rate": 0.05}, **how)
        folder = train(run, recipe, Silent()).path
        made[f"train-{name}"] = folder, (run.manifest("train") or {})["student"]["loads_in"]
    tokenizer = chat_tokenizer(CHATML)
    for kind in ARCHITECTURES:
        made[kind] = _saved(kind, tokenizer, root / kind)
    return made


def _saved(kind: str, tokenizer: Any, folder: Path) -> tuple[Path, str]:
    """A model with this tokenizer, which is loaded and saved again as training does."""
    from transformers import AutoTokenizer

    architecture(kind, tokenizer, [tokenizer.eos_token_id, 85]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder, write_for_both(folder)


def _tokenizer_of(name: str, folder: Path, kind: str = "llama") -> tuple[Path, str]:
    """A model with a tokenizer of one of transformers' own classes."""
    import transformers

    learnt = bpe_tokenizer(fallback=name in ("LlamaTokenizer", "GemmaTokenizer"))
    model = json.loads(learnt.backend_tokenizer.to_str())["model"]
    ends = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    made = getattr(transformers, name)(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **ends)
    made.chat_template = CHATML
    return _saved(kind, made, folder)


@pytest.fixture(scope="module")
def in_4(folders: dict[str, tuple[Path, str]]) -> dict[str, dict[str, Any]]:
    """What transformers 4 answers, by the same names."""
    command = [str(PYTHON_4), str(Path(__file__).with_name("answering.py")), *(str(folder) for folder, _ in folders.values())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[str(folder)] for name, (folder, _) in folders.items()}


SAID_BOTH = sorted([*SAME_IN_4, *(f"train-{name}" for name in TRAINED), *(f"class-{name}" for name in CLASSES)])


@pytest.mark.parametrize("name", SAID_BOTH)
def test_transformers_4_answers_as_5_does(
    name: str, folders: dict[str, tuple[Path, str]], in_4: dict[str, dict[str, Any]]
) -> None:
    folder, said = folders[name]
    assert said == BOTH
    four, five = in_4[name], answers(str(folder))
    assert "error" not in four, four
    assert four.pop("logits") == pytest.approx(five.pop("logits"), abs=1e-3)
    assert four == five


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - SAME_IN_4))
def test_of_the_others_the_folder_says_5_and_they_load_there(
    name: str, folders: dict[str, tuple[Path, str]], in_4: dict[str, dict[str, Any]]
) -> None:
    folder, said = folders[name]
    assert said == FIVE and answers(str(folder))["answer"]
    four = in_4[name]
    assert name in OTHER_ANSWERS or any(words in four["error"] for words in REFUSED), "it may join SAME_IN_4"
