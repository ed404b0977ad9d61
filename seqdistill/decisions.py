"""What people decided about samples: the file RUN/review/decisions.jsonl, and what a decision does to a sample.

A line is {"id", "decision", "completion", "seen", "reviewer", "time"}; the last line of an id holds. An undo is a line too,
so the file is the full history and is append-only. Does not know the rules that people overrule, nor the page.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.records import Sample, fingerprint, to_line
from seqdistill.runs import Run

DECISIONS = ("accept", "edit", "reject", "undo")
RULE = "review"  # the rule of a row that a person rejected
HUMAN = "human"  # the finish_reason of a completion that a person wrote
FINAL = ("contamination",)  # rules that nobody overrules: what is in the test set is never trained on


@dataclass(frozen=True)
class Decision:
    """What one person decided about one sample."""

    id: str  # the sample's
    decision: str  # accept | edit | reject | undo
    completion: str | None  # the text in the teacher's place, of an edit
    seen: str  # `hash_of_text` of the completion that was judged: an answer made anew is not judged by it
    reviewer: str
    time: str  # UTC, ISO 8601


def hash_of_text(text: str) -> str:
    """The short hash by which a decision knows the completion it was made on."""
    return fingerprint(text)[:12]


def seen_text(sample: Sample, before: Decision | None) -> str:
    """The hash that a new decision on this row of the filter's files carries: of the teacher's text, under an edit too."""
    return before.seen if before and sample.finish_reason == HUMAN else hash_of_text(sample.text)


def now() -> str:
    """The time of a decision made now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def decisions_file(run: Run) -> Path:
    """Where a run's decisions are; the file may not be there.

    Not in a stage's folder, which is deleted to start over.
    """
    return run.file("review", "decisions.jsonl")


def read_decisions(run: Run) -> dict[str, Decision]:
    """The decisions that hold, by sample id; those undone are left out. No file, no decisions.

    A last line without an end, of a process that died while writing, does not count. Raises UsageError naming the line of
    any other that is no decision.
    """
    path = decisions_file(run)
    return holding(decision for decision, _ in read_from(path, 0)) if path.exists() else {}


def holding(decisions: Iterator[Decision], before: dict[str, Decision] | None = None) -> dict[str, Decision]:
    """What holds after these decisions, in their order, on top of what held `before`."""
    held = dict(before or {})
    for decision in decisions:
        held.pop(decision.id, None)
        if decision.decision != "undo":
            held[decision.id] = decision
    return held


def read_from(path: Path, offset: int) -> Iterator[tuple[Decision, int]]:
    """The decisions from a byte offset on, each with the offset after it."""
    with path.open("rb") as file:
        before = file.read(offset).count(b"\n")
        for number, line in enumerate(file, before + 1):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if line.strip():
                yield parse(line, f"{path}:{number}"), offset


def parse(line: bytes, place: str) -> Decision:
    """The decision in one line. Raises UsageError naming the place."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{place}: not JSON: {error}", "fix or remove that line; the last line of an id holds") from None
    try:
        return checked(Decision(**row))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: not a decision: {error}", "fix or remove that line; the last line of an id holds") from None


def checked(decision: Decision) -> Decision:
    """The same decision. Raises ValueError saying what is wrong with it."""
    for name, value in asdict(decision).items():
        if not isinstance(value, str) and not (name == "completion" and value is None):
            raise ValueError(f"{name} is {value!r}")
    if decision.decision not in DECISIONS:
        raise ValueError(f"decision is {decision.decision!r}, not one of {', '.join(DECISIONS)}")
    if (decision.decision == "edit") != (decision.completion is not None):
        raise ValueError("a completion belongs to an edit, and to nothing else")
    if decision.completion is not None and not decision.completion.strip():
        raise ValueError("the edited completion is empty: reject the row instead")
    if not decision.id:
        raise ValueError("id is empty")
    datetime.fromisoformat(decision.time)
    return decision


@contextmanager
def appending(run: Run) -> Iterator[Callable[[Decision], None]]:
    """Gives the function that appends a decision. It returns when the line is on the disk.

    Several processes may append to one file. Raises SeqdistillError when the disk takes no more; no part of a line stays.
    """
    path = decisions_file(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def append(decision: Decision) -> None:
        line = to_line(checked(decision)).encode()
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _whole_lines(file)
        try:
            written = os.write(file, line)
            os.fsync(file)
            if written < len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            os.ftruncate(file, end)
            raise SeqdistillError(
                f"{path}: cannot be written: {error.strerror}", "make room; the decisions before this one are kept"
            ) from error
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    try:
        yield append
    finally:
        os.close(file)


def _whole_lines(file: int) -> int:
    """Cuts off a torn last line; returns where the file ends."""
    end = size = os.fstat(file).st_size
    while end and os.pread(file, 1, end - 1) != b"\n":
        end -= 1
    if end < size:
        os.ftruncate(file, end)
    return end


# --- what a decision does -------------------------------------------------------------------------------------------------


def apply(decision: Decision, sample: Sample) -> tuple[Sample, str | None]:
    """The sample after a person's decision, and the reason when it is to be rejected (under the rule RULE), else None.

    An accepted sample is kept whatever rule had rejected it. An edited one carries the person's text under the teacher's
    name with finish_reason HUMAN, and without the reasoning, which led to another text; its token counts stay those paid
    for. The caller leaves out decisions that are `stale` or that do not `overrules`.
    """
    match decision.decision:
        case "accept":
            return sample, None
        case "edit":
            assert decision.completion is not None
            message = {"role": "assistant", "content": decision.completion}
            completion = [*sample.completion[:-1], message]
            return replace(sample, completion=completion, reasoning=None, finish_reason=HUMAN), None
    return sample, f"rejected by {decision.reviewer}"


def overrules(decision: Decision, rule: str | None) -> bool:
    """Whether a person may decide so about a row that this rule rejected (None: a kept row)."""
    return rule not in FINAL or decision.decision in ("reject", "undo")


def stale(decision: Decision, sample: Sample) -> bool:
    """Whether the completion is another than the one that was accepted or rejected. An edit holds: its text is the person's."""
    return decision.decision != "edit" and decision.seen != hash_of_text(sample.text)


def summary(decisions: dict[str, Decision]) -> dict[str, int]:
    """How many rows are accepted, edited and rejected."""
    kinds = [decision.decision for decision in decisions.values()]
    return {"accepted": kinds.count("accept"), "edited": kinds.count("edit"), "rejected": kinds.count("reject")}
