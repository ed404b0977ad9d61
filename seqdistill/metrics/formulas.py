"""Formulas: whether two are equal, by math-verify in a process that hostile ones cannot harm.

Owns that process. filter's check and eval's metric both use it.
"""

import atexit
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache

from seqdistill.errors import MissingExtra, UsageError
from seqdistill.limits import end_group, start_limited
from seqdistill.metrics.metric import Metric

START_SECONDS = 120.0  # sympy's import, on a busy machine
SECONDS = 10.0  # of one comparison
MEGABYTES = 1024


class MathChecker:
    """math-verify in a process of its own, started anew when a formula takes too long or too much memory."""

    def __init__(self, seconds: float, megabytes: int, needed_by: str) -> None:
        """Starts nothing yet. `needed_by` is the setting that wants it. Raises MissingExtra."""
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("math-verify", "math", needed_by)
        self._seconds, self._megabytes = seconds, megabytes
        self._process: subprocess.Popen[bytes] | None = None

    def compare(self, reference: str, text: str) -> str | None:
        """Whether a text's formula equals the reference's: "right", "wrong", or "unreadable" for a reference without one.

        None when it took too long or too much memory. https://github.com/huggingface/Math-Verify
        """
        word = self._reply(json.dumps({"reference": reference, "text": text}).encode() + b"\n")
        if word is None:
            self.close()
        return word

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            assert self._process.stdin
            assert self._process.stdout
            end_group(self._process)
            self._process.stdout.close()
            with suppress(BrokenPipeError):  # what it no longer reads
                self._process.stdin.close()
            self._process = None

    def _reply(self, line: bytes) -> str | None:
        """The process's reply to a line; None when there was none in time."""
        if self._process is None:
            command = [sys.executable, "-m", "seqdistill.metrics.math_worker"]
            self._process = start_limited(command, self._megabytes, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if _line(self._process, START_SECONDS) != "ready":
                self.close()
                raise UsageError(
                    "math-verify cannot be started", f"raise filter.verify.mb (--verify-mb), which is {self._megabytes}"
                )
        assert self._process.stdin
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return _line(self._process, self._seconds)


def _line(process: "subprocess.Popen[bytes]", seconds: float) -> str | None:
    """The next line of a process's output; None when it ends or takes longer."""
    assert process.stdout
    deadline, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(process.stdout.fileno(), 64) if ready else b""
        if not part:
            return None
        line += part
    return line.decode().strip()


# --- the metric -----------------------------------------------------------------------------------------------------------


@cache
def _checker() -> MathChecker:
    """The process of the metric, which ends with this one. Raises MissingExtra."""
    checker = MathChecker(SECONDS, MEGABYTES, "[task] primary = 'math'")
    atexit.register(checker.close)
    return checker


def formula(text: str, wanted: str) -> float | None:
    """100 when the formulas of two texts are equal, else 0: also for one that nobody can work out in time.

    None where the wanted text has no formula.
    """
    word = _checker().compare(wanted, text)
    return None if word == "unreadable" else 100.0 * (word == "right")


METRICS = (
    Metric(
        "math",
        "formula",
        "right formulas",
        lambda item: formula(item.text, item.wanted),
        "percent whose formula equals the one wanted (math-verify); only prompts where one is wanted",
        kinds=("text",),
        share=True,
        needs=_checker,
    ),
)
