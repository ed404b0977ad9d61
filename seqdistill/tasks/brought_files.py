"""The bytes of a file that people bring: which kind it is, unpacked where it is packed, refused where it is something else.

Does not know rows.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from seqdistill.errors import UsageError
from seqdistill.records import NO_FILE

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
WANTED = f"expected {', '.join(KINDS)}, the text ones also as {', '.join(PACKED)}, or hf:OWNER/NAME[/CONFIG][:SPLIT]"
_PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_PACKINGS |= {bytes([low, 0x2A, 0x4D, 0x18]): "zstd" for low in range(0x50, 0x60)}  # its first frame is to be skipped
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
    ".tar": "unpack it: tar -xf",
    ".tgz": "unpack it: tar -xf",
    ".7z": "unpack it",
    ".arrow": "convert it to .parquet",
    ".feather": "convert it to .parquet",
}


def kind_of(path: Path) -> str:
    """The suffix of a file's kind, without that of its packing; lower case."""
    name = Path(path.name.lower())
    return name.with_suffix("").suffix if name.suffix in PACKED else name.suffix


def kind_within(path: Path) -> str:
    """The kind of a file, or of the only one in an archive whose name does not say it."""
    if kind_of(path) in KINDS or path.suffix.lower() != ".zip" or not path.is_file() or packing(path) != "zip":
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
        raise UsageError(f"{path}: no such file", NO_FILE)


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


class Damaged(OSError):
    """A packed file whose content cannot be unpacked."""


def _instead(path: Path) -> str:
    """What to do with a file of another kind."""
    return f"{_SHEETS[path.suffix.lower()]}; {WANTED}" if path.suffix.lower() in _SHEETS else WANTED


def packing(path: Path) -> str:
    """How a file is packed, by its first bytes; empty for a file that is not."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for sign, name in _PACKINGS.items() if start.startswith(sign)), "")


def opened(path: Path) -> IO[bytes]:
    """The content of a file, unpacked where its first bytes say that it is packed.

    Raises UsageError for a pipe, and for what is another format under this name.
    """
    check_readable(path)
    match packing(path):
        case "gzip":
            with gzip.open(path) as packed:
                _check_format(path, packed.read(300))
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
    with path.open("rb") as plain:
        _check_format(path, plain.read(300))
    return path.open("rb")


def _check_format(path: Path, start: bytes) -> None:
    """Raises UsageError for a file that begins as another format than rows are read from."""
    other = next((said for sign, said in _OTHER_FORMATS.items() if start.startswith(sign)), None)
    if other is None and _WEB_PAGE.match(start):
        other = ("a web page", "download the file itself: the page's link to the raw file")
    if other is None and start[257:262] == b"ustar":
        other = ("a tar archive", "unpack it: tar -xf")
    if other is not None:
        raise UsageError(f"{path}: {other[0]}", other[1])


def _only_member(path: Path) -> IO[bytes]:
    """The content of the only file in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if any(name.startswith("xl/") for name in names):
            raise UsageError(f"{path}: an Excel workbook", "save the sheet as CSV UTF-8")
        if len(names) != 1:
            raise UsageError(f"{path}: {len(names)} files are in this archive: {', '.join(names)[:100]}", "unpack it: unzip")
        try:
            return archive.open(names[0])
        except RuntimeError as error:  # NotImplementedError is one
            reason = "packed by a method that Python lacks" if isinstance(error, NotImplementedError) else "encrypted"
            raise UsageError(f"{path}: {reason}", "unpack it: unzip, or 7z x") from None


class _Bunzipped(bz2.BZ2File):
    """A bzip2 stream whose errors say that the file is damaged."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            raise Damaged(str(error)) from None


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
            raise Damaged(str(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        super().close()
        self._stream.close()


def wide_encoding(start: bytes) -> str | None:
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


def start_of(path: Path) -> bytes:
    """The first bytes of a file's content, unpacked where it is compressed."""
    with opened(path) as file:
        return file.read(4096)
