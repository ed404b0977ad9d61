"""How long a stage was at work, in all its attempts: those that were interrupted or killed too.

Kept as the second line of the stage's lock file, whose first line names the process that holds it. An attempt that wrote
nothing does not count. Locks nothing itself, and does not know what a stage does.
"""

import contextlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

LOCK = ".lock"


@dataclass
class Clock:
    """The clock of a stage's folder, for the process that holds the stage's lock."""

    folder: Path
    earlier: float = 0.0  # seconds, where the lock file has none: of a copied run's result
    newest: int = 0  # modification time (ns) of the folder's newest file when the attempt began

    def start(self) -> None:
        """Begins an attempt. One before it that was killed ended when it wrote its last file."""
        done, began = self._read()
        self.newest = self._newest()
        if began is not None:
            done += max(0.0, self.newest / 1e9 - began)
        self._write(done, time.time())

    def stop(self) -> None:
        """Ends the attempt."""
        done, began = self._read()
        if began is not None and self._newest() > self.newest:
            done += max(0.0, time.time() - began)
        with contextlib.suppress(OSError):  # of a full disk, which the stage itself reports
            self._write(done, None)

    def reset(self) -> None:
        """Forgets the attempts before this one: what they did is not continued."""
        _, began = self._read()
        if began is not None:
            self._write(0.0, began)

    def seconds(self) -> float | None:
        """The seconds of all attempts until now; None outside of an attempt."""
        done, began = self._read()
        return None if began is None else done + max(0.0, time.time() - began)

    def _read(self) -> tuple[float, float | None]:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, IndexError):
            kept = json.loads((self.folder / LOCK).read_text(encoding="utf-8").splitlines()[1])
            return float(kept["seconds"]), None if kept["began"] is None else float(kept["began"])
        return self.earlier, None

    def _write(self, seconds: float, began: float | None) -> None:
        kept = json.dumps({"seconds": round(seconds, 3), "began": began})
        (self.folder / LOCK).write_text(f"{holder()}\n{kept}\n", encoding="utf-8")

    def _newest(self) -> int:
        found = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a file that goes meanwhile
                found = max(found, 0 if path.name == LOCK else path.lstat().st_mtime_ns)
        return found


def holder() -> str:
    """This process, as a lock file names it."""
    return f"pid {os.getpid()} on {platform.node()}"
