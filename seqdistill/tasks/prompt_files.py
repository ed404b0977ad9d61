"""Prompt files: from JSONL, CSV, Parquet or a hub data set to prompts with their ids and both views rendered.

Strict, because it runs before the first paid token. Does not ask a model and does not know run directories.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.records import Message, Prompt, check_messages, prompt_id, read_jsonl
from seqdistill.tasks.templates import Template, render

KINDS = (".jsonl", ".csv", ".parquet")
Row = tuple[str, dict[str, Any]]  # ("file:line", the row)
ROW_HINT = 'a prompt is {"prompt": "text"} or {"messages": [...]}, with "id", "reference" and "slice" where known'


def load_prompts(source: str, template: Template, limit: int | None = None, progress: Progress | None = None) -> list[Prompt]:
    """The prompts of a file or hub data set, in its order; with `limit`, the first so many.

    A prompt without an id is named by the hash of the teacher's view, and one that says the same as an earlier one is left
    out and counted in a note. A trailing assistant message is the reference. Raises UsageError naming file and line for
    a missing file, a bad row, an unknown role, an empty prompt, a missing template variable or an id used twice.
    """
    prompts: dict[str, Prompt] = {}
    places: dict[str, str] = {}
    repeated = 0
    for place, row in _rows(source):
        prompt = _prompt(row, template, place)
        if prompt.id not in prompts:
            prompts[prompt.id] = prompt
            places[prompt.id] = place
            if len(prompts) == limit:
                break
        elif row.get("id") in (None, ""):
            repeated += 1
        else:
            raise UsageError(
                f"{place}: the id {prompt.id!r} is also that of {places[prompt.id]}", "give each prompt its own id"
            )
    if not prompts:
        raise UsageError(f"{source}: no prompts in it", ROW_HINT)
    if repeated:
        (progress or Silent()).note(
            f"{source}: {repeated} rows repeat an earlier prompt and are asked once; give rows an id to ask each of them"
        )
    return list(prompts.values())


def _prompt(row: Mapping[str, Any], template: Template, place: str) -> Prompt:
    asked, reference = _asked(row, place)
    values = {**row, "prompt": asked, "reference": reference}
    teacher = render(template, "teacher", values, place)
    student = teacher if template.student == template.teacher else render(template, "student", values, place)
    prompt = Prompt(
        id=_text(row, "id", place) or prompt_id(teacher),
        teacher_messages=teacher,
        messages=student,
        reference=reference,
        slice=_text(row, "slice", place),
    )
    try:
        json.dumps(vars(prompt), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{place}: half a character, \\u{ord(error.object[error.start]):04x}, which no model can read",
            "the text was cut in the middle of a character: mend the row",
        ) from None
    return prompt


def _asked(row: Mapping[str, Any], place: str) -> tuple[str | list[Message], str | None]:
    """What a row asks, as text or as messages that end with the user's, and its reference answer."""
    reference = _text(row, "reference", place)
    key = "prompt" if row.get("prompt") is not None else "messages"
    value = row.get(key)
    if isinstance(value, str):
        if not value.strip():
            raise UsageError(f"{place}: the prompt is empty", "write it or remove the row")
        return value, reference
    if not isinstance(value, list):
        raise UsageError(f"{place}: the row has no prompt; its keys are {', '.join(map(str, row)) or 'none'}", ROW_HINT)
    messages = check_messages(value, place, key)
    if messages[-1]["role"] == "assistant":
        *messages, answer = messages
        reference = reference or answer["content"]
    if not messages or messages[-1]["role"] != "user":
        raise UsageError(f"{place}: key {key!r} asks nothing: no user message before the answer", ROW_HINT)
    return messages, reference


def _text(row: Mapping[str, Any], key: str, place: str) -> str | None:
    """The text under an optional key; nothing for none and for blank text. A whole number is an id or a slice too."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and key != "reference":
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{place}: key {key!r} is not text: {value!r}"[:200], ROW_HINT)
    return value if value and value.strip() else None


# --- rows -------------------------------------------------------------------------------------------------------------


def check_source(source: str) -> None:
    """Raises UsageError for what prompts cannot be read from: a missing file, a folder, another kind of file."""
    if source.startswith("hf:"):
        return
    if Path(source).suffix not in KINDS:
        raise UsageError(
            f"{source}: not a kind of file that holds prompts", f"want {', '.join(KINDS)} or hf:OWNER/NAME[:SPLIT]"
        )
    if not Path(source).is_file():
        raise UsageError(f"{source}: no such file", "check the path; a path in a recipe is relative to the recipe")


def _rows(source: str) -> Iterator[Row]:
    check_source(source)
    if source.startswith("hf:"):
        return _hub_rows(source)
    path = Path(source)
    return {".jsonl": read_jsonl, ".csv": _csv_rows, ".parquet": _parquet_rows}[path.suffix](path)


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # the default of 128 KiB is less than one long prompt
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", strict=True)
        try:
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if "" in row or None in row.values():
                    raise UsageError(
                        f"{place}: the row and the header differ in the number of fields", "quote commas and line ends"
                    )
                yield place, dict(row)
        except csv.Error as error:
            raise UsageError(f"{path}:{reader.line_num}: not CSV: {error}", "quote commas, quotes and line ends") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: not UTF-8: {error.reason}", "save the file as UTF-8") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024)
        rows: Iterable[dict[str, Any]] = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{path}:row {number}", _without_nulls(row)
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not Parquet: {error}", "give a Parquet file") from None


def _hub_rows(source: str) -> Iterator[Row]:
    """The rows of hf:OWNER/NAME[:SPLIT], streamed; without a split, those of `train`."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name, _, split = source.removeprefix("hf:").partition(":")
    split = split or "train"
    try:
        rows = load_dataset(name, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{source}:row {number}", _without_nulls(row)
    except (DatasetsError, ValueError, OSError) as error:
        raise UsageError(
            f"{source}: split {split!r} cannot be read: {error}"[:600],
            "check the name and the split (hf:OWNER/NAME:SPLIT) and the network",
        ) from None


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without the None that Arrow puts under the keys that other messages have."""
    return {
        key: [{k: v for k, v in item.items() if v is not None} if isinstance(item, dict) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in row.items()
    }
