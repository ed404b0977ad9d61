"""The training itself, by the method's TRL trainer: a lesson in, a model folder out. Writes no manifest."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import read_jsonl
from seqdistill.train.checkpoints import checkpointing
from seqdistill.train.loss_log import last_losses, loss_log
from seqdistill.train.methods import Lesson, Method

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


def prepared(method: Method, lesson: Lesson, log: Path) -> Any:
    """The method's trainer, with its model loaded and its batches checked; nothing is trained or written yet.

    Raises UsageError for what TRL refuses, and SeqdistillError when memory runs out or TRL would train on something else
    than the rows.
    """
    import torch
    from transformers import PrinterCallback

    base, arguments = lesson.base, lesson.arguments
    loading = {"use_safetensors": True, **({"revision": base.revision} if base.revision else {})}
    arguments.model_init_kwargs = {**loading, **(arguments.model_init_kwargs or {})}
    arguments.trust_remote_code = base.trust_remote_code
    try:
        trainer = method.trainer(lesson, [loss_log(log, lesson.progress), checkpointing(Path(arguments.output_dir))])
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(error) from error
    except (ImportError, RuntimeError, ValueError) as error:
        raise _refused(error) from error
    trainer.remove_callback(PrinterCallback)  # it prints on stdout
    return trainer


def fit(
    trainer: Any, base: ModelConfig, end_of_turn: int, checkpoint: Path | None, log: Path, out: Path, progress: Progress
) -> Fitted:
    """Trains from the checkpoint on, if there is one, and writes the model to the folder `out`.

    Raises UsageError when no step can be done with [train.args], and SeqdistillError when the training diverges, or memory
    or the disk runs out.
    """
    import torch
    from safetensors import SafetensorError

    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _write_model(trainer, base, end_of_turn, out)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(error) from error
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a full disk
        if shutil.disk_usage(log.parent).free > FULL_DISK_BYTES:
            raise
        raise SeqdistillError(f"{log.parent}: the disk is full", "make room, then run again: it resumes") from error
    except (ValueError, ZeroDivisionError) as error:
        if trainer.state.global_step:
            raise
        raise _refused(error) from error
    finally:
        progress.end()
    train_loss, validation_loss = last_losses(trainer.state.log_history)
    return Fitted(
        steps=trainer.state.global_step,
        epochs=round(trainer.state.epoch, 4),
        train_loss=train_loss,
        validation_loss=validation_loss,
        parameters=trainer.model.num_parameters(),
        log_rows=sum(1 for _ in read_jsonl(log)),
    )


def _refused(error: Exception) -> UsageError:
    return UsageError(f"[train.args]: no training with these: {str(error).strip()}", "see TRL's page on SFTConfig")


def _out_of_memory(error: Exception) -> SeqdistillError:
    return SeqdistillError(
        f"out of memory: {str(error).splitlines()[0]}",
        "in [train.args], halve per_device_train_batch_size and double gradient_accumulation_steps, then run again",
    )


def _write_model(trainer: Any, base: ModelConfig, end_of_turn: int, out: Path) -> None:
    """The folder `out`, replaced at once: weights in the precision the student came in, tokenizer, template, stop tokens."""
    from transformers import AutoConfig

    came_in = AutoConfig.from_pretrained(base.model, revision=base.revision, trust_remote_code=base.trust_remote_code)
    half, old = (out.with_name(f".{out.name}.{part}") for part in ("new", "old"))
    for folder in (half, old):
        shutil.rmtree(folder, ignore_errors=True)
    if came_in.dtype is not None:
        trainer.model.to(came_in.dtype)
    trainer.model.config.use_cache = getattr(came_in, "use_cache", True)  # the trainer switches it off
    stops = trainer.model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    stops = [end_of_turn, *(stop for stop in stops if stop != end_of_turn)]
    trainer.model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    trainer.save_model(str(half))
    (half / "training_args.bin").unlink(missing_ok=True)  # a pickle with this machine's paths
    for file in half.iterdir():
        file.chmod(0o644)
    if out.exists():
        out.rename(old)
    half.rename(out)
    shutil.rmtree(old, ignore_errors=True)


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
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if maps:
            datasets.enable_progress_bars()
