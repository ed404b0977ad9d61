"""Processes that look at hostile text: started without a shell, held to time and memory, and ended with all they started.

Limits, not a sandbox: a command that runs code written by a model needs one of its own (a container, bubblewrap, nsjail).
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

# Takes on its limits and then becomes the command, so that nothing of the command runs without them. A preexec_fn would do
# the same, but forks a Python that has threads.
_LIMITED = """
import os, resource, sys
infinite = resource.RLIM_INFINITY
for what, most in zip((resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE), sys.argv[1:5]):
    hard, most = resource.getrlimit(what)[1], int(most)
    if most >= 0:
        most = most if hard == infinite else min(most, hard)
        resource.setrlimit(what, (most, most))
os.execvp(sys.argv[5], sys.argv[5:])
"""
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")  # no keys


def start_limited(command: Sequence[str], megabytes: int, cpu_seconds: int = -1, **streams: Any) -> "subprocess.Popen[bytes]":
    """A process with limits, in a process group of its own. Each of its processes may hold `megabytes` and write as much.

    It sees only harmless environment variables: no keys. End it with `end_group`.
    """
    size = str(megabytes << 20)
    launcher = [sys.executable, "-I", "-S", "-c", _LIMITED, str(cpu_seconds), size, size, "0", *command]
    environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith("LC_")}
    return subprocess.Popen(launcher, env=environment, stderr=subprocess.DEVNULL, process_group=0, **streams)


def end_group(process: "subprocess.Popen[bytes]") -> int:
    """Kills what is left of a process's group and returns its exit code; negative for a signal."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # until wait() the id cannot be another group's
    return process.wait()


def run_limited(command: Sequence[str], text: str, seconds: float, megabytes: int) -> int | None:
    """The exit code of a command that reads `text` from its standard input; None when it ran longer than `seconds`.

    Its output goes nowhere. Whatever it started in its process group is killed when it ends.
    """
    with tempfile.TemporaryFile() as stdin:  # not a pipe: a command that does not read cannot block us
        stdin.write(text.encode())
        stdin.seek(0)
        process = start_limited(command, megabytes, int(seconds) + 1, stdin=stdin, stdout=subprocess.DEVNULL)
        try:
            ended = _ends_within(process, seconds)
        finally:
            code = end_group(process)
    return code if ended else None


def _ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether a process ends in time; it is not reaped, so that its group's id stays its own."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if (left := deadline - time.monotonic()) <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(0.02, pause * 2)
    return True
