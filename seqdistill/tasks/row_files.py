"""Rows of the files that people bring: JSONL, JSON, CSV, TSV and Parquet, gzipped or not, and hub data sets.

Every reader streams: memory does not grow with the file, except for a .json file that is one object. Text may be UTF-8 or
UTF-16, a CSV file also Windows-1252, its fields separated by commas, semicolons, tabs or bars. Does not know what a row means.
"""

import codecs
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.records import JSON_SPACE, NOT_UTF8, first_json, read_row

Row = tuple[str, dict[str, Any]]  # ("file:line", the row)
Unread = Callable[[str, UsageError], None]  # takes the place of a row that cannot be read and the reason

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
WANTED = f"expected {', '.join(KINDS)}, the text ones also as .gz, or hf:OWNER/NAME[/CONFIG][:SPLIT]"
LISTS = ("results", "data", "rows", "observations", "generations", "trace", "examples", "items", "samples", "prompts")
IN_A_ROW = {"prompt", "messages", "conversations", "instruction", "request", "response", "choices", "custom_id", "input"}
CHUNK = 1 << 20  # bytes
DELIMITERS = ",;\t|"


def read_rows(path: Path, progress: Progress | None = None, unread: Unread | None = None) -> Iterator[Row]:
    """Each row of a file with its place. A row that cannot be read goes to `unread`, without which it is an error.

    Raises UsageError naming file and line for a missing, damaged or wrongly encoded file.
    """
    unread = unread or _raise
    try:
        match kind_of(path):
            case ".parquet":
                yield from _parquet_rows(path)
            case ".csv" | ".tsv":
                yield from _csv_rows(path, progress or Silent(), unread)
            case _:
                yield from _json_rows(path, unread)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "check the path; a path in a recipe is relative to the recipe") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UsageError(f"{path}: {error.strerror}", "pass a readable file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path}: not a whole gzip file: {error}", "copy or download the file again") from None
    except UnicodeError as error:
        raise UsageError(f"{path}: not text in the encoding it begins with: {error}"[:300], NOT_UTF8) from None


def _raise(_: str, error: UsageError) -> None:
    raise error


def kind_of(path: Path) -> str:
    """The suffix of a file's kind, without `.gz`; lower case."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def check_file(path: Path) -> None:
    """Raises UsageError for a missing file, a folder, or another kind of file than rows are read from."""
    if kind_of(path) not in KINDS:
        raise UsageError(f"{path}: not a kind of file that holds rows", WANTED)
    if path.is_dir():
        raise UsageError(f"{path}: a folder", "name the files in it")
    if not path.is_file():
        raise UsageError(f"{path}: no such file", "check the path; a path in a recipe is relative to the recipe")


# --- bytes and text ---------------------------------------------------------------------------------------------------


def _opened(path: Path) -> IO[bytes]:
    """The content of a file, unpacked when it is gzip by its first bytes."""
    file = path.open("rb")
    packed = file.read(4)
    file.seek(0)
    if packed == b"\x28\xb5\x2f\xfd":
        file.close()
        raise UsageError(f"{path}: packed by zstd", f"unpack it first: zstd -d {path}")
    if packed[:2] != b"\x1f\x8b":
        return file
    return cast(IO[bytes], _Gunzipped(file))


class _Gunzipped(gzip.GzipFile):
    """A gzip stream that closes the file beneath it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._beneath = file

    def close(self) -> None:
        super().close()
        self._beneath.close()


def _wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32, by the mark at the start or, for UTF-16, by the NULs between ASCII letters; None for other text."""
    for mark, encoding in ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")):
        if start.startswith(mark):
            return encoding
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = start[0:200:2], start[1:200:2]
    if len(start) >= 4 and odd.count(0) > len(odd) * 0.8 and not even.count(0):
        return "utf-16-le"
    if len(start) >= 4 and even.count(0) > len(even) * 0.8 and not odd.count(0):
        return "utf-16-be"
    return None


def _start(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(4096)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json_rows(path: Path, unread: Unread) -> Iterator[Row]:
    """Lines of JSON; or, by how the file begins, the items of one array or objects over several lines."""
    start = _start(path)
    wide = _wide_encoding(start)
    text = start.decode(wide or "utf-8", "replace").lstrip("\ufeff" + JSON_SPACE)
    first, _, more = text.partition("\n")
    one_a_line = first.rstrip().endswith("}") and more.strip() != "" if kind_of(path) == ".json" else first.strip() != "{"
    if text.startswith("[") or (text.startswith("{") and not one_a_line):
        yield from _json_values(path, wide, unread)
        return
    with _opened(path) as file:
        wrapped = io.TextIOWrapper(file, wide, newline="\n") if wide else None
        lines = (line.encode("utf-8", "surrogatepass") for line in wrapped) if wrapped else file
        for number, line in enumerate(lines, 1):
            if content := _sse_data(line.strip()):
                place = f"{path}:{number}"
                try:
                    row = read_row(content, place)
                except UsageError as error:
                    unread(place, error)
                else:
                    yield from _objects(place, row, _page(row), unread)


def _sse_data(line: bytes) -> bytes:
    """The JSON in a line, which may be one of a recorded event stream: its data, or nothing for its other lines."""
    if not line.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        return line
    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
    return b"" if data == b"[DONE]" else data


def _json_values(path: Path, wide: str | None, unread: Unread) -> Iterator[Row]:
    """The objects of one array, or of one after the other; an object that holds a list of rows gives those."""
    with _opened(path) as file, io.TextIOWrapper(file, wide or "utf-8-sig", "surrogatepass", newline="\n") as text:
        for place, value, in_array in _values(text, path):
            inner = None if in_array or not isinstance(value, dict) else inner_rows(value)
            yield from _objects(place, value, inner, unread)


def _objects(place: str, value: Any, inner: list[Any] | None, unread: Unread) -> Iterator[Row]:
    """A value as a row, or the rows that it holds; what is not an object goes to `unread`."""
    rows = [(place, value)] if inner is None else [(f"{place}: row {n}", row) for n, row in enumerate(inner, 1)]
    for where, row in rows:
        if isinstance(row, dict):
            yield where, row
        else:
            unread(where, UsageError(f"{where}: not a JSON object: {row!r}"[:200], "an array of objects"))


def _page(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of a page as OpenAI's API lists them; None for any other object."""
    return value["data"] if value.get("object") == "list" and isinstance(value.get("data"), list) else None


def inner_rows(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows that an API's page or an export holds in a list; None for an object that is itself a row."""
    if (page := _page(value)) is not None:
        return page
    if IN_A_ROW & value.keys() and not isinstance(value.get("observations"), list):
        return None
    for key in LISTS:
        inner = value.get(key)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return [row["row"] if isinstance(row, dict) and isinstance(row.get("row"), dict) else row for row in inner]
        if isinstance(inner, dict) and (found := inner_rows(inner)) is not None:
            return found
    return None


def _values(text: IO[str], path: Path) -> Iterator[tuple[str, Any, bool]]:
    """(place, value, whether in an array) of each item of an array, or of each value of a sequence, read piece by piece."""
    hint = "expected one array of objects, or one object a line"
    buffer, at, line, number = "", 0, 1, 0
    ended = in_array = False
    while True:
        while at < len(buffer) and buffer[at] in JSON_SPACE + ",":
            line += buffer[at] == "\n"
            at += 1
        if at == len(buffer):
            buffer, at = text.read(CHUNK), 0
            if not buffer:
                if in_array:
                    raise UsageError(f"{path}: ends before its array does", "the file is cut short: copy or download it again")
                return
            continue
        if number == 0 and not in_array and buffer[at] == "[":
            in_array, at = True, at + 1
            continue
        if in_array and buffer[at] == "]":
            return
        try:
            value, end = first_json(buffer, at)
        except json.JSONDecodeError as error:
            # What is cut off fails at its very end, or in a string that has no end yet; anything else is wrong for good.
            if not ended and (error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated")):
                more = text.read(max(CHUNK, len(buffer) - at))
                buffer, at, ended = buffer[at:] + more, 0, not more
                continue
            where = line + buffer.count("\n", at, error.pos)
            raise UsageError(f"{path}:{where}: not JSON: {error.msg}", hint) from None
        except ValueError as error:
            raise UsageError(f"{path}:{line}: not JSON: {error}", hint) from None
        number += 1
        yield (f"{path}:item {number}" if in_array and line <= number else f"{path}:{line}"), value, in_array
        line += buffer.count("\n", at, end)
        at = end
        if at > CHUNK:
            buffer, at = buffer[at:], 0


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv_rows(path: Path, progress: Progress, unread: Unread) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # the default of 128 KiB is less than one long prompt
    encoding = _csv_encoding(path, progress)
    with _opened(path) as binary, io.TextIOWrapper(binary, encoding, "surrogatepass", newline="") as file:
        start = file.read(1 << 16)
        named = start.lower().startswith("sep=") and len(start.splitlines()[0]) == 5  # as Excel writes it
        delimiter = start[4] if named else _delimiter(start)
        lines = _lines(start, file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        if named:
            next(reader)
        try:
            header = _header(next(reader, []), path)
            for fields in reader:
                place = f"{path}:{reader.line_num}"
                if not fields:
                    continue
                if len(fields) != len(header):
                    problem = f"{place}: the row and the header differ in the number of fields: {len(fields)}, {len(header)}"
                    unread(place, UsageError(problem, f"quote fields that hold {delimiter!r} or line ends"))
                    continue
                yield place, {name: field for name, field in zip(header, fields, strict=True) if name}
        except csv.Error as error:
            raise UsageError(f"{path}:{reader.line_num}: not CSV: {error}", "quote commas, quotes and line ends") from None


def _header(fields: list[str], path: Path) -> list[str]:
    header = [field.strip().removeprefix("\ufeff") for field in fields]
    if twice := next((name for name in header if name and header.count(name) > 1), None):
        raise UsageError(f"{path}:1: two columns are called {twice!r}", "give each column its own name")
    return header


def _lines(start: str, file: IO[str]) -> Iterator[str]:
    """The lines of a file of which the start was read."""
    whole = io.StringIO(start, newline="")
    for line in whole:
        if whole.tell() < len(start) or line.endswith("\n"):
            yield line
        else:
            yield line + file.readline()
    yield from file


def _delimiter(start: str) -> str:
    """The separator with which the first rows have the most fields, the same number in each; a comma when none has two."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        rows = []
        try:
            for row in csv.reader(io.StringIO(start, newline=""), delimiter=delimiter, strict=True):
                if row:
                    rows.append(len(row))
                if len(rows) == 20:
                    break
        except csv.Error:  # also where the start ends within quotes
            pass
        whole = rows[:-1] if len(rows) > 2 else rows
        if whole and whole[0] > most and whole.count(whole[0]) >= 0.8 * len(whole):
            best, most = delimiter, whole[0]
    return best


def _csv_encoding(path: Path, progress: Progress) -> str:
    """UTF-8 or UTF-16, or Windows-1252 where the bytes that are not ASCII look like the letters of a Western text."""
    if wide := _wide_encoding(_start(path)):
        return wide
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    read = 0
    try:
        with _opened(path) as file:
            while chunk := file.read(CHUNK):
                decoder.decode(chunk)
                read += len(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        if not _looks_western(path):
            raise UsageError(f"{path}: not UTF-8: {error.reason} near byte {read + error.start}", NOT_UTF8) from None
        progress.note(f"{path}: not UTF-8; read as Windows-1252, as spreadsheets in Western Europe write it")
        return "cp1252"
    return "utf-8-sig"


def _looks_western(path: Path) -> bool:
    """Whether a file is Windows-1252 text: few characters beyond ASCII, most of them beside an ASCII letter, not in rows."""
    beyond = runs = within = size = 0
    with _opened(path) as file:
        while chunk := file.read(CHUNK):
            try:
                text = chunk.decode("cp1252")
            except UnicodeDecodeError:
                return False
            size += len(text)
            beyond += len(re.findall("[^\x00-\x7f]", text))
            runs += len(re.findall("[^\x00-\x7f]{3}", text))
            within += len(re.findall("[a-zA-Z][^\x00-\x7f]|[^\x00-\x7f][a-zA-Z]", text))
    return beyond < 0.2 * size and runs <= 0.02 * beyond and within >= 0.5 * beyond


# --- Parquet and the hub ----------------------------------------------------------------------------------------------


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:row {number}", _from_arrow(row)
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path}: not Parquet: {error}", "pass a Parquet file") from None


def hub_rows(source: str) -> Iterator[Row]:
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
        for number, row in enumerate(rows, 1):
            yield f"{source}:row {number}", _from_arrow(row)
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
    if isinstance(value, (list, tuple)):
        return [_from_arrow(one, inside=True) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
