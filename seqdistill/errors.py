"""The errors a user can act on, each with its exit code. Anything else that escapes is a bug and keeps its traceback."""

import re
from collections.abc import Mapping
from typing import Any


class SeqdistillError(Exception):
    """Something failed while running; what was done is kept and the command can be run again.

    `message` says what happened, with the value and the place (file:line, table and key); `hint` is the next action;
    `result` is what a check that did not pass has found.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.result = result or {}

    def as_dict(self) -> dict[str, Any]:
        """The error as `--json` prints it, with what the check has found."""
        return {**self.result, "error": self.message, "next": self.hint, "exit_code": self.exit_code}


class UsageError(SeqdistillError):
    """A flag, a recipe or an input file is wrong. Raised before any money or GPU time is spent."""

    exit_code = 2


class Busy(SeqdistillError):
    """Another process is at work on what a command would change; it changed nothing."""


class Stopped(SeqdistillError):
    """A person or a scheduler stopped the work; what was done is saved."""


class MissingExtra(UsageError):
    """A feature needs a package that is not installed; `hint` is the pip command, right in a checkout and for the wheel."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        from importlib import metadata  # 20 ms that `--help` does not need

        wanted = [one for one in metadata.requires("seqdistill") or [] if re.search(rf"extra == ['\"]{extra}['\"]", one)]
        names = " ".join(f"'{one.partition(';')[0].strip()}'" for one in wanted)
        super().__init__(f"{why} needs the package {package}, which is not installed", f"pip install {names or package}")


class Incomplete(SeqdistillError):
    """The stage stopped with work left (failed requests, a cap). Running it again continues."""
