"""RUN/serve/log.jsonl: what the teacher answered, what it says to answers of the student, and what people corrected.

A line is a conversation as fine-tuning files hold it, so `seqdistill import` reads the log: {"id", "prompt_id", "time", "kind",
"messages", "model", "finish_reason", "student", "confidence", "decided_on", "rating", "usd"}. `messages` are the teacher's view
and an answer of `model`, whose weight is 0 where it is not to be learnt, as is that of earlier answers. Kinds:
teacher   the teacher answered the caller; `student` is what the student would have said, where that is known
shadow    the student answered the caller; `messages` hold what the teacher says
feedback  a caller's correction, or with weight 0 its rating of what was answered
An import takes a correction in place of the answers of that id, and leaves out an answer that was rated below 0.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from seqdistill.records import Message, prompt_id, to_line

KINDS = ("teacher", "shadow", "feedback")
MOST_REMEMBERED = 64 << 20  # characters of answers that feedback can name
PEOPLE = "people"  # the model of a correction


def answer_id(reply: str, number: int) -> str:
    """The id of one choice of a reply, by the reply's own."""
    return reply if number == 0 else f"{reply}:{number}"


class Exchange(NamedTuple):
    """One answer to a caller's request."""

    id: str  # an `answer_id`
    prompt: list[Message]  # the teacher's view
    text: str
    model: str
    by: str  # student | teacher
    finish_reason: str
    confidence: float | None
    usd: float | None
    student: str | None = None  # what the student would have said
    decided_on: int = 0  # first tokens of a stream, in which `confidence` is; 0: in the whole answer


class Log:
    """The log, open for appending, and the latest answers by id. Close it."""

    def __init__(self, path: Path, on_note: Callable[[str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._on_note = path, on_note
        self._file = self._opened()
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # the process died while writing a line
        self._latest: OrderedDict[str, Exchange] = OrderedDict()
        self._remembered = 0
        self._noted = False

    def answered(self, exchange: Exchange) -> None:
        """There is an answer to a caller's request."""
        if known := self._latest.get(exchange.id):
            self._remembered -= _size(known)
        self._latest[exchange.id] = exchange
        self._remembered += _size(exchange)
        while self._remembered > MOST_REMEMBERED:
            self._remembered -= _size(self._latest.popitem(last=False)[1])
        if exchange.by == "teacher" and exchange.text:
            self._note("teacher", exchange, exchange.text, exchange.model, student=exchange.student)

    def shadowed(self, exchange: Exchange, text: str, model: str, finish_reason: str, usd: float | None) -> None:
        """What the teacher says to what the student answered."""
        self._note("shadow", exchange, text, model, student=exchange.text, finish_reason=finish_reason, usd=usd)

    def feedback(self, name: str, completion: str | None, rating: float | None) -> bool:
        """A correction or rating of an answer; whether the answer is known. Raises OSError where it cannot be written."""
        exchange = self._latest.get(name)
        if exchange is None:
            return False
        student = exchange.text if exchange.by == "student" else exchange.student
        answer = (exchange.text, exchange.model) if completion is None else (completion, PEOPLE)
        self._write("feedback", exchange, *answer, student=student, weight=int(completion is not None), rating=rating, usd=None)
        return True

    def _note(self, *about: Any, **other: Any) -> None:
        """Writes a line if it can be written: the caller has its answer, which must not be taken away."""
        try:
            self._write(*about, **other)
        except OSError as error:
            if not self._noted:
                self._on_note(f"{self.path}: cannot be written, answers are not logged: {error.strerror}")
            self._noted = True
        else:
            self._noted = False

    def _write(self, kind: str, exchange: Exchange, text: str, model: str, weight: int = 1, **other: Any) -> None:
        row: dict[str, Any] = {
            "id": exchange.id,
            "prompt_id": prompt_id(exchange.prompt),
            "time": round(time.time(), 3),
            "kind": kind,
            "messages": [*map(_not_learnt, exchange.prompt), {"role": "assistant", "content": text, "weight": weight}],
            "model": model,
            "finish_reason": exchange.finish_reason,
            "student": None,
            "confidence": exchange.confidence,
            "decided_on": exchange.decided_on,
            "rating": None,
            "usd": exchange.usd,
        }
        self._append(to_line({**row, **other}).encode())

    def _opened(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _follow(self) -> None:
        """Begins a new file where this one was moved away or removed, as logrotate does. Raises OSError."""
        with suppress(FileNotFoundError):
            if os.path.samestat(self.path.stat(), os.fstat(self._file)):
                return
        earlier, self._file = self._file, self._opened()
        os.close(earlier)

    def _append(self, line: bytes) -> None:
        """The whole line or, where there is no room for it, nothing of it. Raises OSError."""
        self._follow()
        end, rest = os.fstat(self._file).st_size, memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            raise

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _not_learnt(message: Message) -> dict[str, Any]:
    return {**message, "weight": 0} if message["role"] == "assistant" else dict(message)


def _size(exchange: Exchange) -> int:
    return 500 + len(exchange.text) + sum(len(message["content"]) for message in exchange.prompt)
