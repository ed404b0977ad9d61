"""Checks: whether a completion is right, 1 or 0, by what is known about the task; None where that is undecided.

Owns the kinds of check and where each finds its answer. Does not choose. Completions are hostile text: they are data on a
standard input, never part of a command line.
"""

import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from seqdistill.errors import MissingExtra, UsageError
from seqdistill.recipe.tables import VerifyConfig
from seqdistill.records import Sample
from seqdistill.stages.filter.scoring.answers import (
    REGEX_SECONDS,
    Extract,
    answer_value,
    compiled,
    extractor,
    read_json,
    reference_value,
)
from seqdistill.stages.filter.scoring.limits import end_group, run_limited, start_limited
from seqdistill.stages.filter.scoring.scores import Scores

Check = Callable[[Sequence[Sample]], Scores]

START_SECONDS = 120.0  # sympy's import, on a busy machine


@contextmanager
def verifier(config: VerifyConfig, extract: str | None = None) -> Iterator[Check]:
    """The check that the settings name, ready for the samples of one prompt after the other; `extract` finds a number.

    Raises UsageError for a bad pattern or a command that is not there, MissingExtra without math-verify.
    """
    kind, _, pattern = config.by.partition(":")
    match kind:
        case "number":
            answer = extractor(extract or "number")
            yield lambda samples: by_number(samples, answer, config.tolerance)
        case "json":
            yield by_json
        case "regex":
            found = compiled(pattern, "filter.verify.by")
            yield lambda samples: by_pattern(samples, found)
        case "command":
            command = checked_command(config.command)
            yield lambda samples: by_command(samples, command, config.seconds, config.mb)
        case "math":
            checker = MathChecker(config.seconds, config.mb)
            try:
                yield checker.check
            finally:
                checker.close()
        case _:
            raise UsageError(
                f"filter.verify.by = {config.by!r}: no such check", "one of: number, json, math, command or regex:PATTERN"
            )


def by_number(samples: Sequence[Sample], extract: Extract, tolerance: float) -> Scores:
    """Whether the answer is the reference's number, see `is_equal`. None where the reference is not one number."""

    def check(sample: Sample) -> float | None:
        wanted = reference_value(sample.reference or "")
        if wanted is None:
            return None
        found = answer_value(extract(sample.text) or "")
        return float(found is not None and is_equal(found, wanted, tolerance))

    return [check(sample) for sample in samples]


def is_equal(one: Fraction, other: Fraction, tolerance: float) -> bool:
    """Whether two numbers are equal within a relative tolerance.

    Whole numbers are compared exactly, unless the tolerance is larger than the default: they are counts, not measurements.
    """
    if one == other:
        return True
    if one.denominator == other.denominator == 1 and tolerance <= VerifyConfig.tolerance:
        return False
    size = max(abs(one), abs(other)) if one and other else 1  # nothing but itself is near zero, relatively
    return abs(one - other) <= Fraction(tolerance) * size


def by_json(samples: Sequence[Sample]) -> Scores:
    """Whether the completion is JSON equal to the reference. None where the reference is not JSON."""

    def check(sample: Sample) -> float | None:
        wanted = read_json(sample.reference or "")
        if wanted is None:
            return None
        found = read_json(sample.text)
        return float(found is not None and found[1] == wanted[1])

    return [check(sample) for sample in samples]


def by_pattern(samples: Sequence[Sample], pattern: Any) -> Scores:
    """Whether a pattern of the package `regex` is found in the completion. None when looking takes too long."""

    def check(sample: Sample) -> float | None:
        try:
            return float(pattern.search(sample.text, timeout=REGEX_SECONDS) is not None)
        except TimeoutError:
            return None

    return [check(sample) for sample in samples]


def checked_command(command: Sequence[str]) -> list[str]:
    """The command, if it can be started. Raises UsageError."""
    if not command:
        raise UsageError(
            "filter.verify.by = 'command' needs a command",
            'give its program and arguments: [filter.verify] command = ["python", "check.py"]',
        )
    if shutil.which(command[0]) is None:
        raise UsageError(f"filter.verify.command = {list(command)!r}: no such program: {command[0]}", "check the path")
    return list(command)


def by_command(samples: Sequence[Sample], command: Sequence[str], seconds: float, megabytes: int) -> Scores:
    """Whether a command that reads the sample as one JSON line says yes: exit code 0 is right, 1 is wrong.

    A command that runs too long or is killed (by its memory limit, say) says wrong; another exit code says that it failed
    itself, and gives None.
    """

    def check(sample: Sample) -> float | None:
        code = run_limited(command, json.dumps(asdict(sample)) + "\n", seconds, megabytes)
        return 1.0 if code == 0 else 0.0 if code is None or code == 1 or code < 0 else None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(check, samples))


class MathChecker:
    """math-verify in a process of its own, started anew when a formula takes too long or too much memory."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        """Starts nothing yet. Raises MissingExtra."""
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("math-verify", "math", "filter.verify.by = 'math'")
        self._seconds, self._megabytes = seconds, megabytes
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, samples: Sequence[Sample]) -> Scores:
        """Whether the completion's formula equals the reference's. None without a readable one, or when it takes too long.

        https://github.com/huggingface/Math-Verify
        """
        return [None if sample.reference is None else self._check(sample.reference, sample.text) for sample in samples]

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

    def _check(self, reference: str, text: str) -> float | None:
        said = self._said(json.dumps({"reference": reference, "text": text}).encode() + b"\n")
        if said is None:
            self.close()
        return {"right": 1.0, "wrong": 0.0}.get(said or "")

    def _said(self, line: bytes) -> str | None:
        """The process's answer to a line; None when it gave none in time."""
        if self._process is None:
            command = [sys.executable, "-m", "seqdistill.stages.filter.scoring.math_worker"]
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
