"""Which weights a training keeps: the last, or the best by validation loss or by generated quality; and when it stops early.

The loss on the teacher's text is not the task: a student can get better at it while this loss rises. Generated quality is
what the student writes to validation prompts, measured by `validation_answers`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqdistill.stages.train.ranks import rank, wait

BEST = "best.pt"  # in the folder of the checkpoints
LOGGED = {"loss": "eval_loss", "quality": "quality"}  # by [train] best: its key in a trainer's log
LOWER_IS_BETTER = ("loss",)


def validations(history: Sequence[dict[str, Any]], by: str) -> list[tuple[int, float]]:
    """(step, validation loss or quality) of each validation in a trainer's log."""
    name = LOGGED[by]
    return [(entry["step"], entry[name]) for entry in history if entry.get(name) is not None]


def best_of(history: Sequence[dict[str, Any]], by: str) -> tuple[int, float] | None:
    """(step, value) of the best validation, of equals the earlier; None before the first validation."""
    sign = 1 if by in LOWER_IS_BETTER else -1
    return min(validations(history, by), key=lambda at: sign * at[1], default=None)


def keep_best(work: Path, by: str, patience: int | None) -> Any:
    """A trainer callback that keeps the weights of the best validation, and stops `patience` validations after it.

    A new best is followed by a checkpoint, so that a resumed training knows it.
    """
    import torch
    from transformers import TrainerCallback

    class KeepBest(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_evaluate(self, _args: Any, state: Any, control: Any, model: Any, **_: Any) -> Any:
            best = best_of(state.log_history, by)
            if best is None:
                return control
            if best[0] == state.global_step:
                if rank() == 0:
                    torch.save(model.state_dict(), work / f"{BEST}.new")
                    (work / f"{BEST}.new").replace(work / BEST)
                control.should_save = True
            since = sum(step > best[0] for step, _ in validations(state.log_history, by))
            control.should_training_stop = control.should_training_stop or (patience is not None and since >= patience)
            return control

    return KeepBest()


def take_best(trainer: Any, work: Path, by: str) -> int | None:
    """Puts the best validation's weights into the trainer's model; returns their step, None without validation."""
    import torch

    best = best_of(trainer.state.log_history, by)
    if best is None:
        return None
    wait()
    if best[0] != trainer.state.global_step:
        trainer.model.load_state_dict(torch.load(work / BEST, map_location=trainer.model.device, weights_only=True))
    return best[0]
