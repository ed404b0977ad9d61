"""Trainings in processes of their own: killed in the middle, or two at once.

They are forked from one server process that has imported what a training needs, so that each costs a fraction of a second.
"""

import multiprocessing
import os
import signal
import socket
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run
from seqdistill.stages.train import checkpoints
from seqdistill.stages.train.stage import train

PRELOADED = ("trl", "trl.trainer.sft_trainer", "peft", "datasets", "pyarrow.parquet", __name__)
SECONDS = 300  # after which a process is taken for hung


class Killer(Silent):
    """Kills its process at a step of the training."""

    def __init__(self, at_step: int) -> None:
        self._at, self._steps = at_step, -1000

    def start(self, what: str, _total: int, _unit: str) -> None:
        self._steps = 0 if what.startswith("training") else -1000

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        self._steps += count
        if self._steps == self._at and count:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_kill(run: Run, recipe: Recipe, at_step: int) -> int | None:
    """Trains with a checkpoint after every step until the process kills itself; its exit code, -9 for SIGKILL."""
    (code,) = _ended([(_trained, (run.path, recipe, at_step, {}))])
    return code


def train_in_two(run: Run, recipe: Recipe) -> list[int | None]:
    """Trains in two processes as torchrun would start them; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(2)]
    return _ended([(_trained, (run.path, recipe, None, environment)) for environment in ranks])


def _trained(run: Path, recipe: Recipe, killed_at: int | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    if killed_at is not None:
        checkpoints.SAVE_SECONDS, checkpoints.SAVE_SHARE = 0.0, float("inf")
    try:
        train(Run(run), recipe, Silent() if killed_at is None else Killer(killed_at))
    except SeqdistillError as error:
        raise SystemExit(f"{error.message} ({error.hint})") from None


def _ended(calls: list[tuple[Any, tuple[Any, ...]]]) -> list[int | None]:
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    processes = [context.Process(target=target, args=arguments) for target, arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
