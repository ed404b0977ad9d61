"""Checks: whether a completion is right, 1 or 0, by what is known about the task; None where that is undecided.

Owns the kinds of check and where each finds its answer. Does not choose. Completions are hostile text: they are data on a
standard input, never part of a command line.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.limits import run_limited
from seqdistill.metrics.formulas import MathChecker
from seqdistill.metrics.numbers import reference_value, states
from seqdistill.recipe.tables import VerifyConfig
from seqdistill.records import Sample
from seqdistill.stages.filter.scoring.answers import REGEX_SECONDS, Extract, compiled, extractor, json_in, normal
from seqdistill.stages.filter.scoring.scores import Scores

Check = Callable[[Sequence[Sample]], Scores]


@contextmanager
def verifier(config: VerifyConfig, extract: str | None = None) -> Iterator[Check]:
    """The check that the settings name, ready for the samples of one prompt after the other; `extract` names the answer.

    Raises UsageError for a bad pattern, a command that is not there or an `extract` that the check has no use for,
    MissingExtra without math-verify.
    """
    kind, _, pattern = config.by.partition(":")
    match kind:
        case "number":
            number = None if extract in (None, "number") else extractor(extract)
            yield lambda samples: by_number(samples, number, config.tolerance)
        case "json":
            answer = extractor(extract) if extract else None
            yield lambda samples: by_json(samples, answer)
        case "regex":
            found = compiled(pattern, "filter.verify.by", any_case=extract is not None)
            part = extractor(extract) if extract else None
            yield lambda samples: by_pattern(samples, found, part)
        case "command":
            command = checked_command(config.command)
            _check_no_extract(extract, "'command' reads the whole sample and finds the answer itself")
            yield lambda samples: by_command(samples, command, config.seconds, config.mb)
        case "math":
            _check_no_extract(extract, "'math' finds the formula itself")
            checker = MathChecker(config.seconds, config.mb, "filter.verify.by = 'math'")
            try:
                yield lambda samples: by_math(samples, checker)
            finally:
                checker.close()
        case _:
            raise UsageError(
                f"filter.verify.by = {config.by!r}: no such check", "one of: number, json, math, command or regex:PATTERN"
            )


def _check_no_extract(extract: str | None, why: str) -> None:
    if extract:
        raise UsageError(f"filter.score.extract = {extract!r}: filter.verify.by = {why}", "remove extract (--score-extract)")


def by_number(samples: Sequence[Sample], extract: Extract | None, tolerance: float) -> Scores:
    """Whether a text, or what `extract` finds in it, states the reference's number. None where that is not one number."""

    def check(sample: Sample) -> float | None:
        wanted = reference_value(sample.reference or "")
        if wanted is None:
            return None
        return float(states(sample.text if extract is None else extract(sample.text) or "", wanted, tolerance))

    return [check(sample) for sample in samples]


def by_math(samples: Sequence[Sample], checker: MathChecker) -> Scores:
    """Whether the completion's formula equals the reference's. None without a readable one, or when it takes too long."""

    def check(sample: Sample) -> float | None:
        if sample.reference is None:
            return None
        return {"right": 1.0, "wrong": 0.0}.get(checker.compare(sample.reference, sample.text) or "")

    return [check(sample) for sample in samples]


def by_json(samples: Sequence[Sample], extract: Extract | None = None) -> Scores:
    """Whether the completion is JSON equal to the reference. None where the reference is not JSON.

    With an `extract`, whether their extracted answers are equal; a reference that has none to extract is the answer.
    """

    def value(text: str) -> str | None:
        read = json_in(text)
        return read[1] if read else None

    def check(sample: Sample) -> float | None:
        reference = sample.reference or ""
        if extract is None:
            wanted, found = value(reference), value(sample.text)
        else:
            answer = extract(sample.text)
            wanted = _json_or_text(extract(reference) or normal(reference))
            found = _json_or_text(answer)
        return None if wanted is None else float(found == wanted)

    return [check(sample) for sample in samples]


def _json_or_text(answer: str | None) -> str | None:
    """An extracted answer: what it means as JSON, or else its text."""
    read = json_in(answer) if answer else None
    return read[1] if read else answer


def by_pattern(samples: Sequence[Sample], pattern: Any, extract: Extract | None = None) -> Scores:
    """Whether a pattern of the package `regex` is found in the completion, or in the answer that `extract` finds in it.

    None when looking takes too long.
    """

    def check(sample: Sample) -> float | None:
        text = sample.text if extract is None else extract(sample.text)
        if text is None:
            return 0.0
        try:
            return float(pattern.search(text, timeout=REGEX_SECONDS) is not None)
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
