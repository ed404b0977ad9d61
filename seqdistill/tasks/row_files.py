"""Rows of the files that people bring: JSONL, JSON, CSV, TSV and Parquet, packed or not, and hub data sets.

Every reader streams: memory does not grow with the file, except for a .json file that is one object. Text may be UTF-8 or
UTF-16, a CSV file also Windows-1252, its fields separated by commas, semicolons, tabs or bars. Does not know what a row means.
"""

import gzip
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.records import NO_FILE, NOT_UTF8
from seqdistill.tasks.brought_files import Damaged, check_readable, kind_within, packing
from seqdistill.tasks.csv_rows import csv_rows
from seqdistill.tasks.json_rows import Row, Unread, json_rows

__all__ = ["Row", "Unread", "hub_rows", "read_rows"]


def read_rows(path: Path, progress: Progress | None = None, unread: Unread | None = None) -> Iterator[Row]:
    """Each row of a file with its place. A row that cannot be read goes to `unread`, without which it is an error.

    Raises UsageError naming file and line for a missing, damaged or wrongly encoded file.
    """
    unread = unread or _raise
    try:
        check_readable(path)
        match kind_within(path):
            case ".parquet":
                yield from _parquet_rows(path, progress or Silent())
            case ".csv" | ".tsv":
                yield from csv_rows(path, progress or Silent(), unread)
            case _:
                yield from json_rows(path, unread)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", NO_FILE) from None
    except (IsADirectoryError, PermissionError) as error:
        raise UsageError(f"{path}: {error.strerror}", "pass a readable file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, Damaged) as error:
        raise UsageError(f"{path}: not a whole {packing(path)} file: {error}", "copy or download the file again") from None
    except UnicodeError as error:
        raise UsageError(f"{path}: not text in the encoding it begins with: {error}"[:300], NOT_UTF8) from None


def _raise(_: str, error: UsageError) -> None:
    raise error


def _parquet_rows(path: Path, progress: Progress) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            classes = _classes(_features_in(table.schema_arrow.metadata), str(path), progress)
            number = 0
            for batch in table.iter_batches(batch_size=256):
                for row in _rows_of(batch, f"{path}:rows {number + 1} to {number + batch.num_rows}"):
                    number += 1
                    yield f"{path}:row {number}", _with_classes(_from_arrow(row), classes)
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path}: not Parquet: {error}", "pass a Parquet file") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UsageError(f"{path}: damaged: {error}", "copy or download the file again") from None


def _rows_of(batch: Any, place: str) -> list[dict[str, Any]]:
    try:
        return cast(list[dict[str, Any]], batch.to_pylist())
    except (OverflowError, ValueError) as error:  # a date before year 1 or after 9999
        raise UsageError(f"{place}: a value that Python does not have: {error}", "write the column as text") from None


def _features_in(metadata: Mapping[bytes, bytes] | None) -> Any:
    """What `datasets` wrote of the columns into a Parquet file; empty for any other file."""
    try:
        return json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}


def _classes(features: Any, source: str, progress: Progress) -> dict[str, list[str]]:
    """The names of the classes that columns hold by number, as features of `datasets` in JSON give them; says so."""
    found: dict[str, list[str]] = {}
    for column, feature in (features if isinstance(features, dict) else {}).items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else None
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[column] = inner["names"]
            shown = ", ".join(map(str, inner["names"][:5]))
            progress.note(
                f"{source}: the column {column!r} holds classes by number, which are read as their names: {shown}"[:200]
            )
    return found


def _with_classes(row: dict[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """The row with the names of its classes; a number that is none of them, as -1 where no class is known, is null."""

    def named(value: Any, names: list[str]) -> Any:
        if isinstance(value, list):
            return [named(one, names) for one in value]
        if not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None

    return {key: named(value, classes[key]) if key in classes else value for key, value in row.items()}


def hub_rows(source: str, progress: Progress) -> Iterator[Row]:
    """The rows of hf:OWNER/NAME[/CONFIG][:SPLIT], streamed; without a split, those of `train`."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name, _, split = source.removeprefix("hf:").partition(":")
    owner, _, rest = name.partition("/")
    dataset, _, config = rest.partition("/")
    split = split or "train"
    if not owner or not dataset or "/" in config:
        raise UsageError(f"{source}: not the name of a hub data set", "hf:OWNER/NAME[/CONFIG][:SPLIT]")
    try:
        rows = load_dataset(f"{owner}/{dataset}", config or None, split=split, streaming=True)
        classes = _classes(rows.features.to_dict() if rows.features else {}, source, progress)
        for number, row in enumerate(rows, 1):
            yield f"{source}:row {number}", _with_classes(_from_arrow(row), classes)
    except (DatasetsError, ValueError, OSError) as error:
        raise UsageError(
            f"{source}: split {split!r}{f' of {config!r}' if config else ''} cannot be read: {error}"[:600],
            "check name, configuration and split (hf:OWNER/NAME/CONFIG:SPLIT) and the network",
        ) from None


def _from_arrow(value: Any, inside: bool = False) -> Any:
    """An Arrow value as JSON has it: NaN is null, dates and decimals are text.

    Arrow puts None under the keys that only other objects have: within a row they are left out.
    """
    if isinstance(value, Mapping):
        return {str(key): _from_arrow(one, inside=True) for key, one in value.items() if one is not None or not inside}
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):  # a map
        return {str(key): _from_arrow(one, inside=True) for key, one in value if one is not None}
    if isinstance(value, (list, tuple)):
        return [_from_arrow(one, inside=True) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
