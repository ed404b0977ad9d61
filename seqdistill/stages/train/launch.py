"""Starts one training in several processes on this machine, by torch's own launcher, and forwards what the first one reports.

What a process does is in worker.py. Across machines, and for FSDP or DeepSpeed, use `accelerate launch -m seqdistill train RUN`
instead: the stage sees that it was launched.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run

MARK = "seqdistill "  # begins a line of the first process that is meant for us
LAST_LINES = 20  # of what the processes wrote, shown when they fail without a reason of ours


def launch(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Trains in as many processes as [train] says. Raises what the first one raised; on a signal they save and end."""
    count = recipe.train.processes
    threads = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order.json"
        order.write_text(
            json.dumps({"run": str(run.path.absolute()), "recipe": asdict(recipe), "argv": sys.argv}), encoding="utf-8"
        )
        arguments = ["--standalone", "--nproc_per_node", str(count), "-m", "seqdistill.stages.train.worker", str(order)]
        said: deque[str] = deque(maxlen=LAST_LINES)
        with subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *arguments],
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal comes to us alone, and is passed on once
        ) as process:
            reader = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
            reader.start()
            error = _followed(process, progress)
            reader.join()
    progress.end()
    if error is not None:
        raise error
    if process.returncode:
        raise SeqdistillError(
            f"a training process ended with code {process.returncode}:\n{''.join(said)}", "run again: it resumes"
        )


def _followed(process: "subprocess.Popen[str]", progress: Progress) -> BaseException | None:
    """Passes on the first process's progress until all have ended; returns the error it reported."""
    error: BaseException | None = None

    def pass_on(number: int, _frame: Any) -> None:
        process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        for line in process.stdout or ():
            if not line.startswith(MARK):
                continue
            what, values = json.loads(line.removeprefix(MARK))
            if what == "interrupted":
                error = KeyboardInterrupt()
            elif what == "error":
                kind = UsageError if values.pop("usage") else SeqdistillError
                error = kind(**values)
            else:
                getattr(progress, what)(**values)
        process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return error
