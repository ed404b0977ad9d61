"""Which files a run's exports have left in folders of the user's choice: what is still as it was may be replaced."""

from collections.abc import Mapping
from contextlib import suppress

from seqdistill.records import json_if_whole, write_json
from seqdistill.runs import Run

WRITTEN = "export/written.json"


def written_outside(run: Run) -> dict[str, str]:
    """The SHA-256 of each file as an export left it, by its absolute path; empty where none is known."""
    return json_if_whole(run.path / WRITTEN) or {}


def note_written(run: Run, files: Mapping[str, str]) -> None:
    """Notes the SHA-256 of files, by their absolute paths; not in a run that cannot be written."""
    with suppress(OSError):
        write_json(run.path / WRITTEN, {**written_outside(run), **files})
