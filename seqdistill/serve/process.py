"""What a server needs of its process: imports, open files, a port, signals. Does not know what is served."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.serve.routing import Switch

if TYPE_CHECKING:
    from aiohttp import web

FILES_A_REQUEST, OTHER_FILES = 2, 256  # a connection to the caller and one to the model


def import_what_requests_need() -> None:
    """Imports that take a second in all: during a request no other would continue."""
    import jsonschema.validators  # noqa: F401
    import openai  # noqa: F401


def connections(concurrency: int, on_note: Callable[[str], None]) -> int:
    """How many requests the process has files for, at most `concurrency`; its soft limit of open files is raised for them."""
    import resource

    needed = FILES_A_REQUEST * concurrency + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most == needed:
        return concurrency
    fit = max(1, (most - OTHER_FILES) // FILES_A_REQUEST)
    on_note(f"serve: at most {fit} requests at once: the process may open {hard} files (`ulimit -Hn`)")
    return fit


async def check_free(host: str, port: int) -> None:
    """Raises UsageError for an address that is taken, before a model is loaded to listen on it."""
    with _free(host, port):
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    server.close()


async def listen(runner: "web.AppRunner", host: str, port: int) -> int:
    """Starts to listen; returns the port. Raises UsageError for one that is taken."""
    from aiohttp import web

    with _free(host, port):
        await web.TCPSite(runner, host, port).start()
    return int(runner.addresses[0][1])


@contextlib.contextmanager
def _free(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "choose another --port, or --host"
        ) from None


@contextlib.asynccontextmanager
async def stopping(switch: Switch, progress: Progress) -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT, SIGTERM and the end of the terminal set, unless `nohup` had the latter ignored.

    SIGUSR1 sends everything to the teacher, and a second one no longer.
    """
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def toggle() -> None:
        switch.signalled = not switch.signalled
        progress.note(f"serve: {'everything goes to the teacher' if switch.signalled else 'the student answers again'}")

    actions: dict[int, Any] = {signal.SIGINT: stopped.set, signal.SIGTERM: stopped.set, signal.SIGUSR1: toggle}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        actions[signal.SIGHUP] = stopped.set
    added = []
    for number, action in actions.items():
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # in a thread, signals are the main thread's
            loop.add_signal_handler(number, action)
            added.append(number)
    try:
        yield stopped
    finally:
        for number in added:
            loop.remove_signal_handler(number)
