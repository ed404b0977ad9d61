"""The filtered rows of a run, by number: kept and rejected, read from their files on demand.

An index of offsets, ids and rules is in memory, texts are not. The files that were there at the start are the ones that are
read, even when the filter writes new ones meanwhile: `outdated` says so.
"""

import json
import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from seqdistill.errors import UsageError
from seqdistill.records import Sample
from seqdistill.runs import Run

_ID = re.compile(rb'\{"id": "([^"\\]+)", .*\}\n')
FILES = ("rejected.jsonl", "train.jsonl", "validation.jsonl")


@dataclass(frozen=True)
class Row:
    """One sample and what the filter said of it."""

    number: int
    sample: Sample
    file: str  # rejected | train | validation
    rule: str | None
    reason: str | None
    kept_by: str | None  # the id of the row kept in its place
    would_keep: list[str]  # the settings that together would have kept it


class FilteredRows:
    """The rows of a run's filter stage, rejected ones first. A context manager; may be read from several threads."""

    def __init__(self, run: Run) -> None:
        """Indexes the files. Raises UsageError when filter has not run, or naming a line that is no row."""
        self._paths = [run.need("filter", name) for name in FILES]
        self._files: list[int] = []
        self._place = array("Q")  # file number << 56 | offset
        self._length = array("Q")
        self.ids: list[str] = []
        self.rules: list[str] = []  # "" for a kept row
        for number, path in enumerate(self._paths):
            self._files.append(os.open(path, os.O_RDONLY))
            self._index(number)
        self._numbers = {name: number for number, name in enumerate(self.ids)}
        self._stamps = self._stamp()

    def _index(self, number: int) -> None:
        offset, rejected = 0, FILES[number] == "rejected.jsonl"
        with os.fdopen(os.dup(self._files[number]), "rb") as file:
            for at, line in enumerate(file, 1):
                try:
                    head = None if rejected else _ID.match(line)  # as filter writes it: no need to parse it all
                    row = {"id": head[1].decode()} if head else json.loads(line)
                    self.ids.append(row["id"])
                    self.rules.append(row["rule"] if rejected else "")
                except (ValueError, TypeError, KeyError):
                    raise UsageError(
                        f"{self._paths[number]}:{at}: not a row of the filter", "run `seqdistill filter` again"
                    ) from None
                self._place.append(number << 56 | offset)
                self._length.append(len(line))
                offset += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(number)
        name = self.file_of(number)
        row = json.loads(self.line(number))
        sample = Sample.from_row(row, f"{name}.jsonl, id {self.ids[number]}")
        return Row(
            number, sample, name, row.get("rule"), row.get("reason"), row.get("kept_by"), would_keep=row.get("would_keep", [])
        )

    def line(self, number: int) -> bytes:
        """The row as it is in its file."""
        place = self._place[number]
        return os.pread(self._files[place >> 56], self._length[number], place & (1 << 56) - 1)

    def file_of(self, number: int) -> str:
        """rejected, train or validation."""
        return FILES[self._place[number] >> 56].removesuffix(".jsonl")

    def number_of(self, name: str) -> int | None:
        """The number of the row with this id."""
        return self._numbers.get(name)

    def outdated(self) -> bool:
        """Whether the filter has written other files since."""
        return self._stamp() != self._stamps

    def _stamp(self) -> list[tuple[int, int] | None]:
        return [(path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None for path in self._paths]
