"""Who answers a request: the share of the traffic, the kill switch, the threshold. Decides from numbers alone."""

import hashlib
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message

TEACHER_ONLY = "teacher_only"  # the file in RUN/serve that sends everything to the teacher


@dataclass(frozen=True)
class ServedThreshold:
    """What eval found: from which confidence on the student's answers are kept, and what was promised for them."""

    threshold: float
    kind: str = "logprob"
    samples: int = 0  # whose agreement is the confidence
    decide_on: int = 0  # tokens of a stream after which it is decided; 0: the whole answer
    first_threshold: float | None = None  # of the confidence in these tokens
    target: float | None = None
    risk: float | None = None


def promise_in(document: dict[str, Any], by_hand: float | None, place: str, run: Path) -> ServedThreshold:
    """The promise in deferral.json, or the threshold that was set by hand. Raises UsageError where there is none."""
    kind, samples = document.get("confidence", "logprob"), int(document.get("samples") or 0)
    if by_hand is not None:
        return ServedThreshold(by_hand, kind, samples)
    threshold, target = document.get("threshold"), document.get("target")
    hint = "--threshold 0.9 keeps what the student is that sure of, --threshold 0 all that it says; neither is a promise"
    if not document:
        raise UsageError(
            f"{place}: not there yet", f"run `seqdistill eval {shlex.quote(str(run))} --target 0.9` first; or {hint}"
        )
    if threshold is None:
        needed = document.get("needed")
        missing = f"about {needed:,} more test prompts are needed" if needed else document.get("reason") or "eval had no target"
        if target is not None and not needed and not document.get("reason"):
            missing = f"no threshold holds the promise of {target:g}"
        again = f"run `seqdistill eval {shlex.quote(str(run))} --target 0.9`{' with them' if needed else ''}"
        raise UsageError(f"{place}: no threshold: {missing}", f"{again}; or {hint}")
    return ServedThreshold(float(threshold), kind, samples, target=target, risk=document.get("risk"))


def uniform_draw(purpose: str, messages: list[Message], name: str | None) -> float:
    """A number from 0 to 1 for a request, by a hash of its name or else its messages: the same request, the same number."""
    text = name if name is not None else json.dumps(messages, sort_keys=True)
    return int.from_bytes(hashlib.sha256(f"{purpose} {text}".encode(errors="replace")).digest()[:7]) / (1 << 56)


@dataclass
class Switch:
    """The kill switch: a file, or a signal; either sends everything to the teacher."""

    file: Path
    signalled: bool = False

    @property
    def teacher_only(self) -> bool:
        """Whether the teacher answers everything now."""
        return self.signalled or os.access(self.file, os.F_OK)
