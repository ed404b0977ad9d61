"""What another trainer's own loader makes of exported data; a script in the environment .venv-trainers.

python reading.py axolotl|llama-factory STUDENT FOLDER   prints [[text of the row, text of what is learnt], ...] as JSON.
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from transformers import AutoTokenizer, Seq2SeqTrainingArguments


def axolotl(tokenizer: Any, folder: Path) -> list[dict[str, Any]]:
    """https://docs.axolotl.ai/docs/dataset-formats/conversation.html, with the settings of our axolotl.yaml."""
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault
    from datasets import load_dataset

    config = yaml.safe_load((folder / "axolotl.yaml").read_text(encoding="utf-8"))
    of_all = DictDefault({**config, "train_on_inputs": False, "sequence_len": 4096, "chat_template": "tokenizer_default"})
    strategy = load(tokenizer, of_all, ds_cfg=DictDefault(config["datasets"][0]))
    rows = load_dataset("json", data_files=str(folder / config["datasets"][0]["path"]), split="train")
    return [strategy.tokenize_prompt(row) for row in rows]


def llama_factory(tokenizer: Any, folder: Path) -> list[dict[str, Any]]:
    """https://llamafactory.readthedocs.io: get_dataset, with the settings of our llama-factory.yaml."""
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))  # for recordings, which no row holds
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments

    config = yaml.safe_load((folder / "llama-factory.yaml").read_text(encoding="utf-8"))
    names = ("dataset_dir", "dataset", "eval_dataset", "mask_history")
    data = DataArguments(**{name: config[name] for name in names}, cutoff_len=4096, overwrite_cache=True)
    os.chdir(folder)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    arguments = Seq2SeqTrainingArguments(output_dir=str(folder / "out"), use_cpu=True)
    model = ModelArguments(model_name_or_path=tokenizer.name_or_path)
    found = get_dataset(template, model, data, arguments, stage=config["stage"], tokenizer=tokenizer)
    return list(found["train_dataset"])


def main(trainer: str, student: str, folder: Path) -> None:
    """Prints the rows."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    rows = {"axolotl": axolotl, "llama-factory": llama_factory}[trainer](tokenizer, folder)
    learnt = [[label for label in row["labels"] if label != -100] for row in rows]
    print(
        json.dumps([[tokenizer.decode(row["input_ids"]), tokenizer.decode(of)] for row, of in zip(rows, learnt, strict=True)])
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).absolute())
