"""Checkpoints of an unfinished training: when one is written, which one can be trusted, when they are deleted.

One is also written when a person or a scheduler stops the training (Ctrl-C, SIGTERM), or its terminal ends (SIGHUP), at the end
of the step.

A checkpoint counts once its list of files, written last, agrees with what is there: one torn by a crash is ignored.
"""

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqdistill.errors import Stopped
from seqdistill.files import apply_umask
from seqdistill.progress import Progress
from seqdistill.records import json_if_whole, write_json
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.ranks import anywhere, rank, wait

SAVE_SECONDS = 60.0  # at most this much work is lost
SAVE_SHARE = 0.05  # at most this share of the time goes into checkpoints
COMPLETE = "complete.json"
SETTINGS = "settings.json"  # what the checkpoints are of, for a person
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def work_folder(run: Run) -> Path:
    """Where a training is until it is finished: checkpoints, log, model. What an earlier one left stays as it is until then."""
    return run.file("train", ".work")


def is_unfinished(run: Run) -> bool:
    """Whether a training was begun and not finished, after the one that the run's student is of."""
    owner, manifest = work_folder(run) / "fingerprint", run.manifest("train")
    return manifest is not None and owner.is_file() and owner.read_text(encoding="utf-8") != manifest["fingerprint"]


def open_work(work: Path, record: StageRecord, progress: Progress) -> Path | None:
    """The newest whole checkpoint in `work`, None without one. Those of other settings or inputs are noted and removed."""
    owner = work / "fingerprint"
    if not owner.exists() or owner.read_text(encoding="utf-8") != record.fingerprint:
        if whole := [*filter(_is_whole, _checkpoints(work))]:
            recorded = json_if_whole(work / SETTINGS)
            differences = record.differences_from(recorded) if recorded else ["other settings or rows"]
            progress.note(
                f"train: cannot resume the training stopped at step {_step(whole[-1])}, starting over; changed: "
                f"{'; '.join(differences)}"
            )
        record.begin_anew()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(work / SETTINGS, record.described())
        owner.write_text(record.fingerprint, encoding="utf-8")
    for checkpoint in reversed(_checkpoints(work)):
        if _is_whole(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _checkpoints(work: Path) -> list[Path]:
    """The checkpoints, whole or not, oldest first."""
    return sorted(work.glob("checkpoint-[0-9]*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE)
    return {str(file.relative_to(checkpoint)): file.stat().st_size for file in sorted(files)}


def _is_whole(checkpoint: Path) -> bool:
    return json_if_whole(checkpoint / COMPLETE) == _sizes(checkpoint)


def _is_over(state: Any) -> bool:
    """Whether the last step is done, within an epoch: resumed there, the trainer would do one step too many."""
    return bool(state.global_step >= state.max_steps and not float(state.epoch).is_integer())


def checkpointing(work: Path) -> Any:
    """A trainer callback that writes a checkpoint every SAVE_SECONDS and keeps the newest only.

    Not on an epoch's last step but after it: what is done between epochs (validation) is not done again on resuming.
    Each epoch begins with a seed of its own, so that every sampler, also the one that groups rows by length, gives a
    resumed epoch the order it had.
    """
    from transformers import TrainerCallback, set_seed

    class Checkpointing(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def __init__(self) -> None:
            self._saved = time.monotonic()
            self._save_requested = self._cost = 0.0

        def _save_when_due(self, control: Any) -> Any:
            self._save_requested = time.monotonic()
            due = self._save_requested - self._saved >= max(SAVE_SECONDS, self._cost / SAVE_SHARE)
            if anywhere(due and rank() == 0):
                control.should_save = True
            return control

        def on_epoch_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            set_seed(args.seed + int(state.epoch))

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
            at_epoch_end = float(state.epoch).is_integer()
            return control if at_epoch_end or _is_over(state) else self._save_when_due(control)

        def on_epoch_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
            return control if _is_over(state) else self._save_when_due(control)

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            wait()  # every process writes a part of it
            newest = work / f"checkpoint-{state.global_step}"
            if rank() == 0:
                self._finish(newest)
            self._saved = time.monotonic()
            self._cost = self._saved - self._save_requested

        def _finish(self, newest: Path) -> None:
            apply_umask(newest)
            write_json(newest / COMPLETE, _sizes(newest))
            for checkpoint in _checkpoints(work):
                if checkpoint != newest:
                    shutil.rmtree(checkpoint)

    return Checkpointing()


@contextlib.contextmanager
def stopping(trainer: Any, progress: Progress) -> Iterator[None]:
    """While it lasts, SIGINT, SIGTERM and SIGHUP let the step end and save a checkpoint; a second SIGINT acts at once.

    Then raises KeyboardInterrupt for SIGINT and Stopped for the others. A signal that is ignored stays so, as under `nohup`.
    Outside the main thread signals cannot be caught, and nothing changes.
    """
    from transformers import TrainerCallback

    caught: list[int] = []

    def catch(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    class Stopping(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
            if anywhere(bool(caught)) and not _is_over(state):
                progress.note(f"train: stopping after step {state.global_step}; a second Ctrl-C stops at once")
                control.should_save = control.should_save or not float(state.epoch).is_integer()
            return control

        def on_epoch_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_save = control.should_save or (anywhere(bool(caught)) and not _is_over(state))
            return control

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if anywhere(signal.SIGINT in caught):
                raise KeyboardInterrupt
            if anywhere(bool(caught)):
                by = signal.Signals(caught[0]).name if caught else "a signal"  # that another process has caught
                raise Stopped(
                    f"train: stopped by {by}; step {state.global_step} is saved",
                    "run the same command again: it resumes there",
                )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    trainer.add_callback(Stopping())
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, catch)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
