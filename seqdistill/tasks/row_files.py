"""Rows of the files that people bring: JSONL, JSON, CSV, TSV and Parquet, packed or not, and hub data sets.

Every reader streams: memory does not grow with the file, except for a .json file that is one object. Text may be UTF-8 or
UTF-16, a CSV file also Windows-1252, its fields separated by commas, semicolons, tabs or bars. Does not know what a row means.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import math
import re
import zipfile
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
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
WANTED = f"expected {', '.join(KINDS)}, the text ones also as {', '.join(PACKED)}, or hf:OWNER/NAME[/CONFIG][:SPLIT]"
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
        check_readable(path)
        match _kind_within(path):
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
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, _Damaged) as error:
        raise UsageError(f"{path}: not a whole {_packing(path)} file: {error}", "copy or download the file again") from None
    except UnicodeError as error:
        raise UsageError(f"{path}: not text in the encoding it begins with: {error}"[:300], NOT_UTF8) from None


def _raise(_: str, error: UsageError) -> None:
    raise error


def kind_of(path: Path) -> str:
    """The suffix of a file's kind, without that of its packing; lower case."""
    name = Path(path.name.lower())
    return name.with_suffix("").suffix if name.suffix in PACKED else name.suffix


def _kind_within(path: Path) -> str:
    """The kind of a file, or of the only one in an archive whose name does not say it."""
    if kind_of(path) in KINDS or path.suffix.lower() != ".zip" or not path.is_file() or _packing(path) != "zip":
        return kind_of(path)
    with _only_member(path) as member:
        return Path(member.name.lower()).suffix if member.name else ""


def check_file(path: Path) -> None:
    """Raises UsageError for a missing file, a folder, or another kind of file than rows are read from."""
    check_readable(path)
    if kind_of(path) not in KINDS and path.name.lower().endswith(".zip"):
        return  # its member says what it is
    if kind_of(path) not in KINDS:
        raise UsageError(f"{path}: not a kind of file that holds rows", _instead(path))
    if not path.is_file():
        raise UsageError(f"{path}: no such file", "check the path; a path in a recipe is relative to the recipe")


def check_readable(path: Path) -> None:
    """Raises UsageError for a pipe, a folder and an address of the web or the hub."""
    if str(path) == "-" or path.is_fifo() or path.is_char_device():
        raise UsageError(f"{path}: a pipe, and files are read more than once", "save it to a file first")
    if str(path).startswith(("http:/", "https:/")):
        raise UsageError(f"{path}: an address of the web", "download the file first")
    if path.is_dir():
        inside = sorted(one for one in path.iterdir() if kind_of(one) in KINDS)
        example = f", for example {inside[0]}" if inside else ""
        raise UsageError(f"{path}: a folder", f"name the files in it{example}")
    if str(path).startswith("hf:"):
        raise UsageError(f"{path}: a data set of the hub, and a file is read here", "download it first: hf download")


# --- bytes and text ---------------------------------------------------------------------------------------------------


_PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_OTHER_FORMATS = {  # by their first bytes: what people call .csv or .jsonl and is not
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV UTF-8"),
    b"PAR1": ("Parquet", "call it .parquet"),
    b"ARROW1": (
        "an Arrow file",
        'convert it: pyarrow.parquet.write_table(datasets.Dataset.from_file(NAME).data.table, "x.parquet")',
    ),
    b"%PDF": ("a PDF", "export the rows as CSV or JSONL"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file", "fetch it: git lfs pull"),
}
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype html|html)\b", re.IGNORECASE)
_SHEETS = {
    ".xlsx": "save the sheet as CSV UTF-8",
    ".xls": "save the sheet as CSV UTF-8",
    ".ods": "save the sheet as CSV",
    ".txt": 'write one {"prompt": "..."} a line, as .jsonl',
    ".yaml": "convert it to .json",
    ".yml": "convert it to .json",
}


class _Damaged(OSError):
    """A packed file whose content cannot be unpacked."""


def _instead(path: Path) -> str:
    """What to do with a file of another kind."""
    return f"{_SHEETS[path.suffix.lower()]}; {WANTED}" if path.suffix.lower() in _SHEETS else WANTED


def _packing(path: Path) -> str:
    """How a file is packed, by its first bytes; empty for a file that is not."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for sign, name in _PACKINGS.items() if start.startswith(sign)), "")


def _opened(path: Path) -> IO[bytes]:
    """The content of a file, unpacked where its first bytes say that it is packed.

    Raises UsageError for a pipe, and for what is another format under this name.
    """
    check_readable(path)
    match _packing(path):
        case "gzip":
            return cast(IO[bytes], gzip.open(path))
        case "bzip2":
            return cast(IO[bytes], _Bunzipped(path))
        case "xz":
            return cast(IO[bytes], lzma.open(path))
        case "zstd":
            import pyarrow

            return cast(IO[bytes], io.BufferedReader(_Unzstd(pyarrow.CompressedInputStream(str(path), "zstd"))))
        case "zip":
            return _only_member(path)
    file = path.open("rb")
    start = file.read(200)
    file.seek(0)
    other = next((said for sign, said in _OTHER_FORMATS.items() if start.startswith(sign)), None)
    if other is None and _WEB_PAGE.match(start):
        other = ("a web page", "download the file itself: the page's link to the raw file")
    if other is not None:
        file.close()
        raise UsageError(f"{path}: {other[0]}", other[1])
    return file


def _only_member(path: Path) -> IO[bytes]:
    """The content of the only file in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if any(name.startswith("xl/") for name in names):
            raise UsageError(f"{path}: an Excel workbook", "save the sheet as CSV UTF-8")
        if len(names) != 1:
            raise UsageError(f"{path}: {len(names)} files are in this archive: {', '.join(names)[:100]}", "unpack it: unzip")
        return archive.open(names[0])


class _Bunzipped(bz2.BZ2File):
    """A bzip2 stream whose errors say that the file is damaged."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            raise _Damaged(str(error)) from None


class _Unzstd(io.RawIOBase):
    """A zstd stream as Python reads files."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise _Damaged(str(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        super().close()
        self._stream.close()


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
    one_a_line = first.rstrip().endswith("}") and more.strip() != "" if _kind_within(path) == ".json" else first.strip() != "{"
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
            hint = 'write each as {"prompt": "..."}' if isinstance(row, str) else "an array of objects"
            unread(where, UsageError(f"{where}: not a JSON object: {row!r}"[:200], hint))


def _page(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of a page as OpenAI's API lists them; None for any other object."""
    return value["data"] if value.get("object") == "list" and isinstance(value.get("data"), list) else None


def inner_rows(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows that an API's page or an export holds in a list; None for an object that is itself a row."""
    if (page := _page(value)) is not None:
        return page
    if IN_A_ROW & value.keys() and not isinstance(value.get("observations"), list):
        return _of_table(value)
    for key in LISTS:
        inner = value.get(key)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return [row["row"] if isinstance(row, dict) and isinstance(row.get("row"), dict) else row for row in inner]
        if isinstance(inner, dict) and (found := inner_rows(inner)) is not None:
            return found
    return _of_table(value)


def _of_table(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of a table as pandas writes it: columns of cells by index, columns and data, or rows by index."""
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, columns), row, strict=False)) for row in data]
    cells = list(value.values())
    if len(cells) > 1 and all(isinstance(one, dict) for one in cells):
        keys = cells[0].keys()
        if keys and all(key.isdecimal() for key in keys) and all(one.keys() == keys for one in cells):
            return [{name: column[key] for name, column in value.items()} for key in keys]
        if not value.keys() & (IN_A_ROW | {"inputs", "outputs", "output"}) and all(IN_A_ROW & one.keys() for one in cells):
            return cells
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
        bare = delimiter == "\t" and not _is_quoted(start)
        reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL)
        if named:
            next(reader)
        try:
            header = _header(next(reader, []), path)
            for fields in reader:
                place = f"{path}:{reader.line_num}"
                if not any(field.strip() for field in fields):
                    continue
                while len(fields) > len(header) and not fields[-1].strip():
                    fields.pop()
                if len(fields) != len(header):
                    problem = f"{place}: the row and the header differ in the number of fields: {len(fields)}, {len(header)}"
                    missing = " and write empty cells too" if len(fields) < len(header) else ""
                    unread(place, UsageError(problem, f"quote fields that hold {delimiter!r} or line ends{missing}"))
                    continue
                yield place, {name: field for name, field in zip(header, fields, strict=True) if name}
        except csv.Error as error:
            raise UsageError(
                f"{path}:{reader.line_num}: not CSV: {error}", 'quote commas, quotes and line ends; a quote within quotes is ""'
            ) from None


def _is_quoted(start: str) -> bool:
    """Whether a table of tabs has quoted fields: it is whole with quotes read as such, or it is not without."""
    widths = []
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        try:
            rows = [
                len(row)
                for row in csv.reader(io.StringIO(start, newline=""), delimiter="\t", strict=True, quoting=quoting)
                if row
            ]
            widths.append(len(set(rows[:-1] if len(start) >= 1 << 16 else rows)))
        except csv.Error:
            widths.append(0)
    return widths[0] == 1 or widths[1] != 1


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
