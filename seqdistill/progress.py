"""What a stage reports while it works. Stages call this protocol; `console` shows it, tests collect it."""

from typing import Protocol


class Progress(Protocol):
    """A listener for one stage. Every call is cheap; none may raise."""

    def start(self, what: str, total: int, unit: str) -> None:
        """Begin a task of `total` units; `what` is a verb phrase ("prompting the teacher")."""

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        """`count` more units are done; `facts` are shown beside the bar (cost so far, loss)."""

    def note(self, text: str) -> None:
        """A line worth reading once: a hint, a warning, what was skipped. It may hold a model's text."""

    def end(self) -> None:
        """The task begun last is over."""


class Silent:
    """Says nothing; for library use and tests."""

    def start(self, what: str, total: int, unit: str) -> None: ...
    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None: ...
    def note(self, text: str) -> None: ...
    def end(self) -> None: ...
