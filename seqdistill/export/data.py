"""The run's training data in the shapes that other trainers read. Copies text; changes none of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.records import Sample, atomic_write, read_samples, write_jsonl
from seqdistill.runs import Run

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Shape:
    """How one trainer wants its rows, and the file that tells it where they are."""

    row: Callable[[Sample], dict[str, Any]]
    as_list: bool  # one JSON list instead of JSON lines
    config: tuple[str, Callable[[], str]] | None  # its name, and its text


def _conversation(sample: Sample) -> list[dict[str, str]]:
    return [{"role": one["role"], "content": one["content"]} for one in (*sample.prompt, *sample.completion)]


def _trl(sample: Sample) -> dict[str, Any]:
    """https://huggingface.co/docs/trl/dataset_formats: conversational prompt-completion."""
    return {"prompt": sample.prompt, "completion": sample.completion}


def _messages(sample: Sample) -> dict[str, Any]:
    return {"messages": _conversation(sample)}


def _axolotl_config() -> str:
    """https://docs.axolotl.ai/docs/dataset-formats/conversation.html: loss on the last turn alone, as here."""
    lines = ["# for an axolotl config: loss on the last answer only, as in this run", "datasets:"]
    lines += ["  - path: train.jsonl", "    type: chat_template", "    field_messages: messages", "    roles_to_train: []"]
    lines += ["    train_on_eos: last", "    message_field_training: train", "test_datasets:", "  - path: validation.jsonl"]
    lines += ["    split: train", "    type: chat_template", "    field_messages: messages", "    roles_to_train: []"]
    return "\n".join([*lines, "    train_on_eos: last", "    message_field_training: train"]) + "\n"


def _axolotl(sample: Sample) -> dict[str, Any]:
    messages = _conversation(sample)
    last = len(messages) - 1
    return {"messages": [{**message, "train": number == last} for number, message in enumerate(messages)]}


def _llama_factory_config() -> str:
    """https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md: dataset_info.json, OpenAI format."""
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
    entry = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    return json.dumps({split: {"file_name": f"{split}.json", **entry} for split in SPLITS}, indent=2) + "\n"


SHAPES = {
    "trl": Shape(_trl, as_list=False, config=None),
    "axolotl": Shape(_axolotl, as_list=False, config=("axolotl.yaml", _axolotl_config)),
    "llama-factory": Shape(_messages, as_list=True, config=("dataset_info.json", _llama_factory_config)),
}


def export_data(run: Run, name: str, out: Path) -> dict[str, int]:
    """Writes train and validation, and what the trainer reads beside them; returns the rows of each file."""
    if name not in SHAPES:
        raise UsageError(f"--data {name!r}{nearest(name, SHAPES)}", f"one of: {', '.join(SHAPES)}")
    shape, counts = SHAPES[name], {}
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        samples = read_samples(run.need("filter", f"{split}.jsonl"))
        if shape.as_list:
            counts[f"{split}.json"] = _write_list(out / f"{split}.json", (shape.row(sample) for sample in samples))
        else:
            counts[f"{split}.jsonl"] = write_jsonl(out / f"{split}.jsonl", (shape.row(sample) for sample in samples))
    if shape.config:
        file, text = shape.config
        with atomic_write(out / file) as handle:
            handle.write(text())
    return counts


def _write_list(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with atomic_write(path) as file:
        file.write("[")
        for row in rows:
            file.write((",\n" if count else "\n") + json.dumps(row, ensure_ascii=True))
            count += 1
        file.write("\n]\n")
    return count
