"""Rows of CSV and TSV files, whatever the encoding, the delimiter and the quoting."""

import codecs
import csv
import io
import re
from collections import Counter
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
EXCEL_CELL = 32_767  # https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3


def csv_rows(path: Path, progress: Progress, unread: Unread) -> Iterator[Row]:
    """The rows of a CSV or TSV file by its head, with their places; `unread` takes what cannot be read."""
    csv.field_size_limit(1 << 30)  # the default of 128 KiB is less than one long prompt
    encoding = _csv_encoding(path, progress)
    end = re.search(r"\r?\n|\r", start_of(path).decode(encoding, "replace"))
    newline = "" if end and end[0] == "\r" else "\n"  # a carriage return by itself ends no row where other rows end otherwise
    with opened(path) as binary, io.TextIOWrapper(binary, encoding, "surrogatepass", newline=newline) as file:
        start = file.read(1 << 16)
        named = start.lower().startswith("sep=") and len(start.splitlines()[0]) == 5  # as Excel writes it
        delimiter = start[4] if named else _delimiter(start)
        lines = _lines(start, file, newline)
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
                if cut := next((name for name, field in zip(header, fields, strict=True) if _is_cut(field)), None):
                    problem = (
                        f"{place}: the cell {cut!r} has {EXCEL_CELL:,} characters, the most that Excel keeps: it is cut off"
                    )
                    unread(place, UsageError(problem, "export the rows again and do not save them in Excel, or remove the row"))
                    continue
                yield place, {name: field for name, field in zip(header, fields, strict=True) if name}
        except csv.Error as error:
            raise UsageError(
                f"{path}:{reader.line_num}: not CSV: {error}", 'quote commas, quotes and line ends; a quote within quotes is ""'
            ) from None


def _is_cut(field: str) -> bool:
    """Whether a text has exactly the length at which Excel cuts one off, in its units of UTF-16."""
    may_be = EXCEL_CELL // 2 <= len(field) <= EXCEL_CELL
    return may_be and len(field.encode("utf-16-le", "surrogatepass")) == 2 * EXCEL_CELL


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


def _lines(start: str, file: IO[str], newline: str) -> Iterator[str]:
    """The lines of a file of which the start was read."""
    whole = io.StringIO(start, newline=newline)
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


_WORD_LETTER = "[a-zA-ZÀ-ÖØ-öø-ÿ]"
_SIGN_IN_WORD = re.compile(  # what Windows-1252 has for letters of Central European, Turkish or Macintosh files
    f"(?<={_WORD_LETTER})[¡¢£¤¥§©ª«¬®¯±³¶¹º»¼½¾¿†‡ˆ‰‹›„Ÿ](?={_WORD_LETTER})|(?<=[a-z])[ŠŽŸŒ](?=[a-z])"
)


def _looks_western(path: Path) -> bool:
    """Whether a file is Windows-1252 text: few characters beyond ASCII, most of them beside an ASCII letter, not in rows.

    Text of another part of the world or of an old Macintosh has signs within its words then, or letters that hardly meet.
    """
    found: Counter[str] = Counter()
    runs = within = signs = size = 0
    with opened(path) as file:
        while chunk := file.read(CHUNK):
            try:
                text = chunk.decode("cp1252")
            except UnicodeDecodeError:
                return False
            size += len(text)
            found.update(re.findall("[^\x00-\x7f]", text))
            runs += len(re.findall("[^\x00-\x7f]{3}", text))
            within += len(re.findall("[a-zA-Z][^\x00-\x7f]|[^\x00-\x7f][a-zA-Z]", text))
            signs += len(_SIGN_IN_WORD.findall(text))
    beyond = found.total()

    def share(letters: str) -> float:
        return sum(found[letter] for letter in letters) / max(1, beyond)

    is_slavic = share("šžŠŽ") > 0.1 and share("äöüõ") < 0.3  # Estonian has both
    is_hungarian = min(share("õû"), share("öü")) > 0.03 and share("áéíóú") > 0.2
    is_turkish = share("ýþðÝÞÐ") > 0.1 and share("çüÇÜ") > 0
    is_elsewhere = is_slavic or is_hungarian or is_turkish or signs > 0.03 * beyond
    return beyond < 0.2 * size and runs <= 0.02 * beyond and within >= 0.5 * beyond and not is_elsewhere
