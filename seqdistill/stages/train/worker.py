"""One of the processes that `launch` started: the first one writes its progress for the launcher, and each its error."""

import json
import sys
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import resolve
from seqdistill.records import read_json
from seqdistill.runs import Run
from seqdistill.stages.train.launch import MARK, REPORTED
from seqdistill.stages.train.ranks import rank
from seqdistill.stages.train.stage import train


class Written(Silent):
    """Progress as lines on stdout."""

    def start(self, what: str, total: int, unit: str) -> None:
        _write("start", {"what": what, "total": total, "unit": unit})

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        _write("advance", {"count": count, "facts": facts})

    def note(self, text: str) -> None:
        _write("note", {"text": text})

    def end(self) -> None:
        _write("end", {})


def _write(event: str, values: dict[str, Any]) -> None:
    print(f"{MARK}{json.dumps([event, values])}", flush=True)


def main() -> int:
    """Trains, and returns the process's exit code."""
    order = read_json(Path(sys.argv[1]))
    sys.argv = order["argv"]  # for the manifest
    first = rank() == 0
    try:
        train(Run(Path(order["run"])), resolve(order["recipe"]), Written() if first else Silent(), by_launcher=True)
    except KeyboardInterrupt:
        if first:
            _write("interrupted", {})
        return 130
    except SeqdistillError as error:  # written by each: the launcher ends the others as soon as one has ended
        kind = next((kind.__name__ for kind in REPORTED if isinstance(error, kind)), "")
        _write("error", {"message": error.message, "hint": error.hint, "kind": kind})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
