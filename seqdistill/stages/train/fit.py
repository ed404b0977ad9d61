"""The training itself, by the method's TRL trainer: a setup in, a model folder out. Writes no manifest."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import read_jsonl
from seqdistill.stages.train.arguments import logged_beside
from seqdistill.stages.train.best import keep_best, take_best, validations
from seqdistill.stages.train.checkpoints import checkpointing, stopping
from seqdistill.stages.train.lora import loaded_student, move_base
from seqdistill.stages.train.loss_log import last_losses, loss_log
from seqdistill.stages.train.measured import out_of_memory
from seqdistill.stages.train.methods import Method, TrainingSetup
from seqdistill.stages.train.saving import write_model
from seqdistill.stages.train.validation_answers import answering

UNWRITABLE = {  # what errors of writing contain: what it means
    "(os error 27)": "the process may not write files this large (ulimit -f)",
    "(os error 28)": "the disk is full",
    "(os error 122)": "the disk quota is used up",
    "inline_container.cc": "a file could not be written whole: disk, quota or file-size limit",
}
FULL_DISK_BYTES = 16 << 20  # a write that failed with less than this left, failed for want of room


@dataclass(frozen=True)
class Fitted:
    """A finished training, in numbers."""

    steps: int
    epochs: float
    train_loss: float | None
    validation_loss: float | None
    parameters: int
    log_rows: int
    best_step: int | None  # whose weights were taken, where the best are; None: the last one's
    best_by: str | None  # by what they are the best: "loss" or "quality"
    loads_in: str  # the versions of transformers that load the model


def prepared(method: Method, setup: TrainingSetup, log: Path) -> Any:
    """The method's trainer, with its model loaded and its batches checked; nothing is trained or written yet.

    Raises UsageError for what TRL refuses, and SeqdistillError when memory runs out or TRL would train on something else
    than the rows.
    """
    import torch
    from transformers import PrinterCallback, set_seed

    arguments, progress = setup.arguments, setup.progress
    loading, arguments.model_init_kwargs = arguments.model_init_kwargs, None
    set_seed(arguments.seed)  # adapters begin at random
    model = loaded_student(setup.base.model, setup.recipe.train.lora, loading or {})  # TRL would not see missing weights
    try:
        work, config = Path(arguments.output_dir), setup.recipe.train
        callbacks = [loss_log(log, progress), checkpointing(work)]
        if (answers := answering(setup)) is not None:
            callbacks.append(answers)
        if config.best_by is not None:  # behind the answers, which it may choose by
            callbacks.append(keep_best(work, config.best_by, config.early_stopping))
        with logged_beside(work):
            trainer = method.trainer(replace(setup, model=model), callbacks)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error) from error
    except (ImportError, RuntimeError, ValueError) as error:
        raise _refused(error, arguments) from error
    arguments.model_init_kwargs = loading
    trainer.remove_callback(PrinterCallback)  # it prints on stdout
    _validate_on_all(trainer)
    return trainer


def _validate_on_all(trainer: Any) -> None:
    """Has a trainer validate on every row: dataloader_drop_last is of training steps, and would leave rows out unmentioned."""
    loader = trainer.get_eval_dataloader

    def of_all_rows(*how: Any, **named: Any) -> Any:
        dropping, trainer.args.dataloader_drop_last = trainer.args.dataloader_drop_last, False
        try:
            return loader(*how, **named)
        finally:
            trainer.args.dataloader_drop_last = dropping

    trainer.get_eval_dataloader = of_all_rows


def fit(
    trainer: Any,
    base: ModelConfig,
    end_of_turn: int,
    checkpoint: Path | None,
    log: Path,
    out: Path,
    progress: Progress,
    *,
    best_by: str | None = None,
) -> Fitted:
    """Trains from the checkpoint on, if there is one, and writes the model to the folder `out`.

    With `best_by` ("loss", "quality") the weights are those of the best validation.

    Raises UsageError when no step can be done with [train.args], and SeqdistillError when the training diverges, when memory
    or the disk runs out, and on SIGTERM.
    """
    import torch
    from safetensors import SafetensorError

    move_base(trainer.model, str(base.model))
    try:
        with stopping(trainer, progress), _resuming(trainer, checkpoint):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        best = take_best(trainer, Path(trainer.args.output_dir), best_by) if best_by else None
        loads_in = write_model(trainer, base, end_of_turn, out)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error) from error
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report that they cannot write
        limited = next((reason for sign, reason in UNWRITABLE.items() if sign in str(error)), None)
        if shutil.disk_usage(log.parent).free <= FULL_DISK_BYTES:
            limited = "the disk is full"
        if limited is None:
            raise
        raise SeqdistillError(f"{log.parent}: {limited}", "make room, then run again: it resumes") from error
    except (ValueError, ZeroDivisionError) as error:
        if trainer.state.global_step:
            raise
        raise _refused(error, trainer.args) from error
    finally:
        progress.end()
    train_loss, validation_loss = last_losses(trainer.state.log_history)
    if best_by and best is None:
        progress.note("train: no validation was done before the training ended, so the last weights were kept")
    if best is not None:
        validation_loss = dict(validations(trainer.state.log_history, "loss"))[best]
    return Fitted(
        steps=trainer.state.global_step,
        epochs=round(trainer.state.epoch, 4),
        train_loss=train_loss,
        validation_loss=validation_loss,
        parameters=trainer.model.num_parameters(),
        log_rows=sum(1 for _ in read_jsonl(log)),
        best_step=best,
        best_by=None if best is None else best_by,
        loads_in=loads_in,
    )


@contextlib.contextmanager
def _resuming(trainer: Any, checkpoint: Path | None) -> Iterator[None]:
    """While it lasts, what fails before the first step is the checkpoint's fault, where there is one.

    The validation of eval_on_start was done before it, is in its log, and is not done again.
    """
    import torch
    from transformers import TrainerCallback

    begun: list[bool] = []

    class Begun(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begun.append(True)

    trainer.add_callback(Begun())
    on_start = trainer.args.eval_on_start
    trainer.args.eval_on_start = on_start and checkpoint is None
    try:
        yield
    except (SeqdistillError, MemoryError, OSError):
        raise
    except Exception as error:  # its pickles and JSON, damaged, make their readers raise anything
        if checkpoint is None or begun or isinstance(error, torch.OutOfMemoryError):
            raise
        raise SeqdistillError(
            f"{checkpoint}: the checkpoint cannot be read: {' '.join(str(error).split())}",
            f"remove {checkpoint.parent}, then run again: the training starts over",
        ) from error
    finally:
        trainer.args.eval_on_start = on_start


def _refused(error: Exception, arguments: Any) -> UsageError:
    return UsageError(
        f"[train.args]: training is not possible with these: {str(error).strip()}",
        f"see TRL's page on {type(arguments).__name__}",
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hugging Face's own bars and advice are off: progress is the caller's, and stdout is data."""
    import datasets
    import huggingface_hub.constants
    from transformers.utils import logging

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would report the training, its model and its GPU
    verbosity, bars, maps = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not datasets.are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():  # peft looks among modules for what it gives the ranks of experts' tensors
            warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if maps:
            datasets.enable_progress_bars()
