"""What a training reports while it runs: train/log.jsonl, the loss beside the bar, and an error when the loss is NaN.

Every line of log.jsonl has the same keys, null where they do not apply. A line is one of three: a training step (loss,
learning_rate, grad_norm), a validation (eval_loss), or what the student answered at that validation: `generations`, a list of
{"id", "teacher", "student", "finish_reason"} with the id of a row in filter/validation.jsonl, and `quality`, the mean score of
these answers in percent where [train] best = "quality".
"""

import math
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError
from seqdistill.progress import Progress
from seqdistill.records import to_line, write_jsonl

KEYS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "quality", "generations")
GENERATION_KEYS = ("id", "teacher", "student", "finish_reason")
REPORTED = ("loss", "eval_loss", "generations")  # a log entry with none of these is the trainer's own summary


def row(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The line of log.jsonl for one of the trainer's log entries; None for its summary of all steps."""
    if not any(name in entry for name in REPORTED):
        return None
    line = {key: entry.get(key) for key in KEYS}
    if line["generations"] is not None:  # a checkpoint keeps its entries with their keys in another order
        line["generations"] = [{key: one[key] for key in GENERATION_KEYS} for one in line["generations"]]
    return line


def append(path: Path, entry: dict[str, Any]) -> None:
    """Writes an entry's line to the end of log.jsonl."""
    with path.open("a", encoding="utf-8", newline="\n") as log:
        log.write(to_line(row(entry) or {}))


def last_losses(history: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """(training loss: the mean over the last epoch's steps, validation loss: the last); None where there is none."""
    trained = [(entry["epoch"], entry["loss"]) for entry in history if "loss" in entry]
    last = [loss for epoch, loss in trained if epoch > math.ceil(trained[-1][0]) - 1]
    validated = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    return (sum(last) / len(last) if last else None), (validated[-1] if validated else None)


def diverged(what: str, arguments: Any) -> SeqdistillError:
    """The error for a training whose loss or weights are no longer numbers."""
    return SeqdistillError(
        f"training diverged: {what}",
        f"lower learning_rate in [train.args] (it is {arguments.learning_rate:g}), then run again",
    )


def loss_log(path: Path, progress: Progress) -> Any:
    """A trainer callback that appends to `path` as the training goes. Resuming, it begins with the checkpoint's own entries.

    Raises SeqdistillError from within the training when a loss or, without fp16, a gradient is not a number.
    """
    from transformers import TrainerCallback

    class LossLog(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                write_jsonl(path, filter(None, map(row, state.log_history)))
            progress.start("training the student", state.max_steps, "steps")
            progress.advance(state.global_step)

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            progress.advance()

        def on_log(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            entry = state.log_history[-1]
            line = row(entry)
            watched = ("loss", "eval_loss") if args.fp16 else ("loss", "eval_loss", "grad_norm")
            for name in (*watched, "train_loss"):  # the last is of all steps, those that no other entry reports among them
                if entry.get(name) is not None and not math.isfinite(entry[name]):
                    raise diverged(f"{name} is {entry[name]} at step {state.global_step}", args)
            if line is None:
                return
            if state.is_world_process_zero:
                append(path, line)
            name = "loss" if line["loss"] is not None else "eval_loss"
            progress.advance(0, {name.replace("eval_", "validation "): f"{line[name]:.3f}"})

    return LossLog()
