"""Which files a run's exports have left in folders of the user's choice: what is still as it was may be replaced."""

import json
from collections.abc import Mapping
from contextlib import suppress

from seqdistill.records import write_json
from seqdistill.runs import Run

WRITTEN = "export/written.json"


def written_outside(run: Run) -> dict[str, str]:
    """The SHA-256 of each file as an export left it, by its absolute path; empty where none is known."""
    try:
        found = json.loads((run.path / WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_written(run: Run, files: Mapping[str, str]) -> None:
    """Notes the SHA-256 of files, by their absolute paths; not in a run that cannot be written."""
    with suppress(OSError):
        write_json(run.path / WRITTEN, {**written_outside(run), **files})
