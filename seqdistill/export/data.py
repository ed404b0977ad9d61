"""The run's training data in the shapes that other trainers read. Copies text; adds only the tags around trained reasoning."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import generation_config, load
from seqdistill.errors import UsageError
from seqdistill.export.written import note_written, written_outside
from seqdistill.files import atomic_path, atomic_write, folder_beside
from seqdistill.progress import Progress
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import ModelConfig, Recipe, TrainConfig
from seqdistill.records import Sample, file_sha256, read_samples, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.train.mixing import mixed

SPLITS = ("train", "validation")
OF_THE_ROWS = (  # what in [train] says which rows are learnt, and what of them
    *("reasoning", "rationale", "rationale_weight", "reference_weight", "references", "teacher_weights", "edited_weight"),
)


@dataclass(frozen=True)
class Shape:
    """How one trainer wants its rows, and the files that tell it where they are and what to learn of them."""

    row: Callable[[Sample], dict[str, Any]]
    as_list: bool = False  # one JSON list instead of JSON lines
    configs: Mapping[str, Callable[[str | None], str]] = field(default_factory=dict)  # name: text, from the end-of-turn token
    takes: Callable[[Sample], bool] = lambda _: True  # whether the trainer reads the row, and does not skip it


def _conversation(sample: Sample) -> list[dict[str, str]]:
    return [{"role": one["role"], "content": one["content"]} for one in (*sample.prompt, *sample.completion)]


def _trl(sample: Sample) -> dict[str, Any]:
    """https://huggingface.co/docs/trl/dataset_formats: conversational prompt-completion."""
    return {"prompt": sample.prompt, "completion": sample.completion}


def _messages(sample: Sample) -> dict[str, Any]:
    return {"messages": _conversation(sample)}


def _axolotl_config(end: str | None) -> str:
    """https://docs.axolotl.ai/docs/dataset-formats/conversation.html: loss on the last turn alone, as here."""
    how = ["    type: chat_template", "    field_messages: messages", "    roles_to_train: []", "    train_on_eos: last"]
    how.append("    message_field_training: train")
    lines = ["# for an axolotl config: loss on the last answer only, as in this run", "datasets:"]
    lines += ["  - path: train.jsonl", *how, "test_datasets:", "  - path: validation.jsonl", "    split: train", *how]
    if end is not None:
        lines += ["# what ends a turn, which the student must learn to write", f"eot_tokens: [{json.dumps(end)}]"]
    return "\n".join(lines) + "\n"


def _axolotl(sample: Sample) -> dict[str, Any]:
    messages = _conversation(sample)
    last = len(messages) - 1
    return {"messages": [{**message, "train": number == last} for number, message in enumerate(messages)]}


def _dataset_info(_: str | None) -> str:
    """https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md: dataset_info.json, OpenAI format."""
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
    entry = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    return json.dumps({split: {"file_name": f"{split}.json", **entry} for split in SPLITS}, indent=2) + "\n"


def _llama_factory_config(_: str | None) -> str:
    lines = ["# for a LLaMA-Factory config: loss on the last answer only, as in this run", "stage: sft", "dataset_dir: ."]
    return "\n".join([*lines, "dataset: train", "eval_dataset: validation", "mask_history: true"]) + "\n"


def _takes_turns(sample: Sample) -> bool:
    """Whether user and assistant alternate behind at most one system message: LLaMA-Factory skips other rows."""
    roles = [message["role"] for message in _conversation(sample)]
    turns = roles[1:] if roles[0] == "system" else roles
    return len(turns) % 2 == 0 and turns == ["user", "assistant"] * (len(turns) // 2)


SHAPES = {
    "trl": Shape(_trl),
    "axolotl": Shape(_axolotl, configs={"axolotl.yaml": _axolotl_config}),
    "llama-factory": Shape(
        _messages,
        as_list=True,
        configs={"dataset_info.json": _dataset_info, "llama-factory.yaml": _llama_factory_config},
        takes=_takes_turns,
    ),
}


def export_data(run: Run, recipe: Recipe, name: str, out: Path | None, progress: Progress) -> dict[str, int]:
    """Writes train and validation, and what the trainer reads beside them; returns the rows of each file.

    Raises UsageError for an unknown shape, and for a folder of the user's own choice (`out`) with files under these names.
    """
    if name not in SHAPES:
        raise UsageError(f"--data {name!r}{nearest(name, SHAPES)}", f"one of: {', '.join(SHAPES)}")
    for split in SPLITS:
        run.need("filter", f"{split}.jsonl")
    folder = data_folder(run, name, out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, and export writes a folder", "name another one with --out")
    with folder_beside(folder / name) as made:
        counts = _write(run, name, made, _train_config(run, recipe), progress)
        files = sorted(made.iterdir())
        written = {str((folder / file.name).absolute()): file_sha256(file) for file in files}
        if out is not None:
            _check_kept(run, written)
        for file in files:
            with atomic_path(folder / file.name) as place:
                shutil.copyfile(file, place)
        if out is not None:
            note_written(run, written)
    return counts


def data_folder(run: Run, name: str, out: Path | None) -> Path:
    """Where the data of a shape goes."""
    return out or run.path / "export" / f"data-{name}"


def _check_kept(run: Run, wanted: Mapping[str, str]) -> None:
    """Raises UsageError where one of the files would take the place of another one, unless an export left that one so."""
    earlier = written_outside(run)
    for path, sha256 in wanted.items():
        place = Path(path)
        if place.exists() and (place.is_dir() or file_sha256(place) not in (sha256, earlier.get(path))):
            raise UsageError(
                f"{place}: is there already, with another content",
                "name another folder with --out, or remove this file if it is not needed",
            )


def _train_config(run: Run, recipe: Recipe) -> TrainConfig:
    """What says which rows the student was trained on, and how; before train ran, what it is to be trained on."""
    trained = (run.manifest("train") or {}).get("config", {}).get("train")
    if trained is None:
        return recipe.train
    return replace(TrainConfig(), **{name: trained[name] for name in OF_THE_ROWS if name in trained})


def _rows(run: Run, config: TrainConfig, progress: Progress) -> dict[str, list[Sample]]:
    """The rows of each split as train mixes them. What other trainers cannot be told, how much a row counts, is noted."""
    rows = mixed({split: list(read_samples(run.file("filter", f"{split}.jsonl"))) for split in SPLITS}, config)
    train = [row for row in rows.train if rows.weights.get(row.id, 1) > 0]
    if weighted := sum(rows.weights.get(row.id, 1) != 1 for row in train):
        progress.note(f"export: {weighted:,} rows count more or less than the others in [train]; here all count the same")
    return {"train": train, "validation": rows.validation}


def _with_reasoning(sample: Sample) -> Sample:
    """The row with its reasoning before the answer, in the tags in which train puts it."""
    thought = (sample.reasoning or "").strip()
    if not thought:
        return sample
    *before, answer = sample.completion
    content = f"<think>\n{thought}\n</think>\n\n{answer['content'].lstrip()}"
    return replace(sample, completion=[*before, {**answer, "content": content}])


def _write(run: Run, name: str, folder: Path, config: TrainConfig, progress: Progress) -> dict[str, int]:
    """Writes the files of a shape, with the reasoning or without it, and returns the rows of each split's."""
    shape, counts, reasoning = SHAPES[name], {}, config.trains_reasoning
    splits = _rows(run, config, progress)
    samples = [sample for split in SPLITS for sample in splits[split]]
    skipped = sum(not shape.takes(sample) for sample in samples)
    thoughts = sum(bool((sample.reasoning or "").strip()) for sample in samples)
    for split in SPLITS:
        rows = (shape.row(_with_reasoning(sample) if reasoning else sample) for sample in splits[split])
        file = f"{split}.json" if shape.as_list else f"{split}.jsonl"
        counts[file] = _write_list(folder / file, rows) if shape.as_list else write_jsonl(folder / file, rows)
    end = _end_of_turn(run)
    for file, text in shape.configs.items():
        (folder / file).write_text(text(end), encoding="utf-8", newline="\n")
    if thoughts and not reasoning and config.rationale == "off":
        progress.note(
            f"export: the reasoning of {thoughts:,} rows is left out: [train] reasoning = true puts it before the answer"
        )
    if skipped:
        progress.note(f"export: {name} will skip {skipped:,} rows, in which user and assistant do not alternate")
    return counts


def _end_of_turn(run: Run) -> str | None:
    """What ends a turn of the trained student, where that is not its tokenizer's own end; None without a student."""
    folder = run.file("train", "model")
    if run.manifest("train") is None or not folder.is_dir():
        return None
    model = ModelConfig(model=str(folder))
    try:
        tokenizer, settings = load("AutoTokenizer", model), generation_config(model)
    except UsageError:  # a tokenizer with code of its own; the rows are right without it
        return None
    stops = getattr(settings, "eos_token_id", None)
    first = stops[0] if isinstance(stops, list) else stops
    return None if first in (None, tokenizer.eos_token_id) else str(tokenizer.convert_ids_to_tokens(first))


def _write_list(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with atomic_write(path) as file:
        file.write("[")
        for row in rows:
            file.write((",\n" if count else "\n") + json.dumps(row, ensure_ascii=True))
            count += 1
        file.write("\n]\n")
    return count
