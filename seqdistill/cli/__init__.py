"""The command line: flags -> recipe -> one call -> printed result. No logic."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from seqdistill.cli import stages, tools  # noqa: F401 - they register their commands
from seqdistill.cli.flags import app, interrupted
from seqdistill.console import Console, open_streams
from seqdistill.errors import UsageError
from seqdistill.version import __version__


def _version(show: bool) -> None:
    if show:
        print(f"seqdistill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Runs before every command; the options here are the program's own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 done, 1 failed but resumable, 2 usage, 130 Ctrl-C."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries read it when imported: the one progress bar is ours
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or log that is not in UTF-8 loses a dash, not the result
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(args=words, prog_name="seqdistill", standalone_mode=False)
    except TyperException as error:
        wrong: Any = error
        wrong.show()
        Console(as_json="--json" in words).json_result(UsageError(wrong.format_message(), "see --help").as_dict())
        code = UsageError.exit_code
    except KeyboardInterrupt:  # before the command began, or behind it
        code = interrupted(Console(as_json="--json" in words))
    return code if isinstance(code, int) else 0


def run_from_shell() -> None:
    """The console script."""
    open_streams()
    sys.exit(main())
