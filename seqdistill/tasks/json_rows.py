"""Rows of JSONL and JSON files: one a line, a list of them, or a list within an object; event streams too."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from seqdistill.errors import UsageError
from seqdistill.records import JSON_SPACE, first_json, read_row
from seqdistill.tasks.brought_files import kind_within, opened, start_of, wide_encoding
from seqdistill.tasks.messages import ROLES, is_conversation, role_of

Row = tuple[str, dict[str, Any]]  # ("file:line", the row)
Unread = Callable[[str, UsageError], None]  # takes the place of a row that cannot be read and the reason

LISTS = (
    "results",
    "data",
    "rows",
    "observations",
    "generations",
    "trace",
    "examples",
    "items",
    "samples",
    "prompts",
    "testCases",
)
IN_A_ROW = {"prompt", "messages", "conversations", "instruction", "request", "response", "choices", "custom_id", "input"}
CHUNK = 1 << 20  # bytes


def json_rows(path: Path, unread: Unread) -> Iterator[Row]:
    """Lines of JSON; or, by how the file begins, the items of one array or objects over several lines."""
    start = start_of(path)
    wide = wide_encoding(start)
    text = start.decode(wide or "utf-8", "replace").lstrip("\ufeff" + JSON_SPACE)
    first, _, more = text.partition("\n")
    one_a_line = first.rstrip().endswith("}") and more.strip() != "" if kind_within(path) == ".json" else first.strip() != "{"
    if text.startswith("[") or (text.startswith("{") and not one_a_line):
        yield from _json_values(path, wide, unread)
        return
    with opened(path) as file:
        wrapped = io.TextIOWrapper(file, wide, newline="\n") if wide else None
        lines = (line.encode("utf-8", "surrogatepass") for line in wrapped) if wrapped else file
        for number, line in enumerate(lines, 1):
            if content := _sse_data(line.strip(_AROUND)):
                place = f"{path}:{number}"
                try:
                    values = _values_in(content, place)
                except UsageError as error:
                    unread(place, error)
                else:
                    for value in values:
                        yield from _objects(place, value, _page(value) if isinstance(value, dict) else None, unread)


_AROUND = b" \t\r\n\x1e,\xef\xbb\xbf"  # of a line: also a mark of UTF-8, a separator of JSON text sequences, an array's comma


def _values_in(line: bytes, place: str) -> list[Any]:
    """The values in one line, mostly one: some writers leave the line ends between objects out."""
    try:
        return [read_row(line, place)]
    except UsageError:
        text = line.decode("utf-8", "surrogatepass") if line[:1] == b"[" or b"}{" in line or b"} {" in line else ""
        values, at = [], 0
        try:
            while at < len(text):
                value, at = first_json(text, at)
                values.append(value)
                while text[at : at + 1] and text[at] in JSON_SPACE + ",":
                    at += 1
        except ValueError:
            values = []
        if not values or not all(isinstance(one, dict) or is_conversation(one) for one in values):
            raise
        return values


def _sse_data(line: bytes) -> bytes:
    """The JSON in a line, which may be one of a recorded event stream: its data, or nothing for its other lines."""
    if not line.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        return line
    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
    return b"" if data == b"[DONE]" else data


def _json_values(path: Path, wide: str | None, unread: Unread) -> Iterator[Row]:
    """The objects of one array, or of one after the other; an object that holds a list of rows gives those."""
    with opened(path) as file, io.TextIOWrapper(file, wide or "utf-8-sig", "surrogatepass", newline="\n") as text:
        for place, value, in_array in _values(text, path):
            inner = None if in_array or not isinstance(value, dict) else inner_rows(value)
            yield from _objects(place, value, inner, unread)


def _objects(place: str, value: Any, inner: list[Any] | None, unread: Unread) -> Iterator[Row]:
    """A value as a row, or the rows that it holds; what is not an object goes to `unread`."""
    rows = [(place, value)] if inner is None else [(f"{place}: row {n}", row) for n, row in enumerate(inner, 1)]
    for where, row in rows:
        if isinstance(row, dict) or is_conversation(row):
            yield where, row if isinstance(row, dict) else {"messages": row}
        else:
            hint = 'write each as {"prompt": "..."}' if isinstance(row, str) else "an array of objects"
            unread(where, UsageError(f"{where}: not a JSON object: {row!r}"[:200], hint))


def _page(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of a page as OpenAI's API lists them, or of a table with a list for each column; None for any other object."""
    if value.get("object") == "list" and isinstance(page := value.get("data"), list):
        return page
    columns = list(value.values())
    if not columns or not IN_A_ROW & value.keys() or not all(isinstance(one, list) and one for one in columns):
        return None
    if len({len(one) for one in columns}) > 1 or any(isinstance(one[0], dict) for one in columns):
        return None  # a row: of messages, or of lists that have nothing to do with each other
    first = columns[0][0]
    texts = isinstance(first, str) and len(columns[0]) > 1 and "conversations" not in value  # those may be one row's turns
    if len(columns) == 1 and not is_conversation(first) and not texts:
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


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


def _is_message_next(text: str, at: int) -> bool:
    """Whether a message is the first in an array: the array is a conversation, and not one of rows.

    Rows may have a column `role` or `from`, too: of persons, or of mails.
    """
    while text[at : at + 1] and text[at] in JSON_SPACE:
        at += 1
    try:
        first = first_json(text, at)[0]
    except ValueError:
        return False
    return is_conversation([first]) and role_of(first) in ROLES.values() and not first.keys() & {"id", "message_id", *IN_A_ROW}


def _values(text: IO[str], path: Path) -> Iterator[tuple[str, Any, bool]]:
    """(place, value, whether in an array) of each item of arrays and each value between them, read piece by piece."""
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
        if not in_array and buffer[at] == "[" and not _is_message_next(buffer, at + 1):
            in_array, at = True, at + 1
            continue
        if in_array and buffer[at] == "]":
            in_array, at = False, at + 1
            continue
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
