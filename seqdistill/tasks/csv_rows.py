"""Rows of CSV and TSV files, whatever the encoding, the delimiter and the quoting."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.records import NOT_UTF8
from seqdistill.tasks.brought_files import opened, start_of, wide_encoding
from seqdistill.tasks.json_rows import Row, Unread

CHUNK = 1 << 20  # bytes
DELIMITERS = ",;\t|"


def csv_rows(path: Path, progress: Progress, unread: Unread) -> Iterator[Row]:
    """The rows of a CSV or TSV file by its head, with their places; `unread` takes what cannot be read."""
    csv.field_size_limit(1 << 30)  # the default of 128 KiB is less than one long prompt
    encoding = _csv_encoding(path, progress)
    with opened(path) as binary, io.TextIOWrapper(binary, encoding, "surrogatepass", newline="") as file:
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
                if len(header) == 1:  # a column of texts without quotes
                    fields = [delimiter.join(fields)]
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
    if wide := wide_encoding(start_of(path)):
        return wide
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    read = 0
    try:
        with opened(path) as file:
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
    with opened(path) as file:
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
