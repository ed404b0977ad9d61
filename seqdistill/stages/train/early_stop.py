"""Ending a training when the validation loss no longer falls, and taking the weights of its lowest.

The loss on the teacher's text is not the task: a student can get better at it while this loss rises. Off by default.
"""

from pathlib import Path
from typing import Any

from seqdistill.stages.train.ranks import rank, wait

BEST = "best.pt"  # in the folder of the checkpoints


def validations(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, validation loss) of each validation in a trainer's log."""
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]


def lowest(history: list[dict[str, Any]]) -> tuple[int, float] | None:
    """(step, loss) of the lowest validation loss, of equals the earlier; None before the first validation."""
    return min(validations(history), key=lambda at: at[1], default=None)


def early_stop(work: Path, patience: int) -> Any:
    """A trainer callback that keeps the weights of the lowest validation loss and stops `patience` validations after it.

    A new lowest is followed by a checkpoint, so that a resumed training knows it.
    """
    import torch
    from transformers import TrainerCallback

    class EarlyStop(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_evaluate(self, _args: Any, state: Any, control: Any, model: Any, **_: Any) -> Any:
            best = lowest(state.log_history)
            if best is None:
                return control
            if best[0] == state.global_step:
                if rank() == 0:
                    torch.save(model.state_dict(), work / f"{BEST}.new")
                    (work / f"{BEST}.new").replace(work / BEST)
                control.should_save = True
            since = sum(step > best[0] for step, _ in validations(state.log_history))
            control.should_training_stop = control.should_training_stop or since >= patience
            return control

    return EarlyStop()


def take_best(trainer: Any, work: Path) -> int | None:
    """Puts the weights of the lowest validation loss into the trainer's model; returns their step, None without validation."""
    import torch

    best = lowest(trainer.state.log_history)
    if best is None:
        return None
    wait()
    if best[0] != trainer.state.global_step:
        trainer.model.load_state_dict(torch.load(work / BEST, map_location=trainer.model.device, weights_only=True))
    return best[0]
