"""The training itself, by TRL's SFTTrainer: rows in, a model folder out. Knows no run, recipe or manifest."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import load
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import read_jsonl
from seqdistill.train.checkpoints import checkpointing, stopping
from seqdistill.train.loss_log import last_losses, loss_log
from seqdistill.train.preflight import Checked, check_batches
from seqdistill.train.rendering import Row
from seqdistill.train.saving import write_model

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
    loads_in: str  # the versions of transformers that load the model


def prepared(base: ModelConfig, tokenizer: Any, checked: Checked, arguments: Any, log: Path, progress: Progress) -> Any:
    """The trainer of `base`, with its model loaded and its batches checked; nothing is trained or written yet.

    Raises UsageError for what TRL refuses, and SeqdistillError when memory runs out or TRL would train on something else
    than the rows.
    """
    import torch
    from transformers import PrinterCallback

    loading, arguments.model_init_kwargs = arguments.model_init_kwargs, None
    model = load("AutoModelForCausalLM", base, **{"dtype": "float32", **(loading or {})})  # TRL would not see missing weights
    try:
        trainer = completion_trainer()(
            model=model,
            args=arguments,
            train_dataset=_dataset(checked.train),
            eval_dataset=_dataset(checked.validation) if checked.validation else None,
            processing_class=tokenizer,
            callbacks=[loss_log(log, progress), checkpointing(Path(arguments.output_dir))],
        )
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(error) from error
    except (ImportError, RuntimeError, ValueError) as error:
        raise _refused(error) from error
    arguments.model_init_kwargs = loading
    trainer.remove_callback(PrinterCallback)  # it prints on stdout
    check_batches(trainer.train_dataset, trainer.data_collator, checked.train, checked.end_of_turn, arguments.packing)
    return trainer


def fit(
    trainer: Any, base: ModelConfig, end_of_turn: int, checkpoint: Path | None, log: Path, out: Path, progress: Progress
) -> Fitted:
    """Trains from the checkpoint on, if there is one, and writes the model to the folder `out`.

    Raises UsageError when no step can be done with [train.args], and SeqdistillError when the training diverges, when memory
    or the disk runs out, and on SIGTERM.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with stopping(trainer, progress):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        loads_in = write_model(trainer, base, end_of_turn, out)
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
        loads_in=loads_in,
    )


def _refused(error: Exception) -> UsageError:
    return UsageError(f"[train.args]: no training with these: {str(error).strip()}", "see TRL's page on SFTConfig")


def _out_of_memory(error: Exception) -> SeqdistillError:
    return SeqdistillError(
        f"out of memory: {str(error).splitlines()[0]}",
        "in [train.args], halve per_device_train_batch_size and double gradient_accumulation_steps, then run again",
    )


def completion_trainer() -> Any:
    """TRL's SFTTrainer, and on a CPU the LM head at trained positions only: 2.1 times less work on short answers.

    TRL skips the other positions on GPUs alone. The loss is the same (a test compares the two).
    """
    import torch
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):  # type: ignore[misc]  # trl is read untyped
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            plain = self.args.loss_type == "nll" and self.args.label_smoothing_factor == 0 and not self.aux_loss_enabled
            if return_outputs or not plain or self.args.device.type != "cpu":
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs["labels"][:, 1:]
            trained = labels != -100

            def keep_trained(_: Any, hidden: tuple[Any, ...]) -> Any:
                return hidden[0][:, :-1][trained]  # (B, T, H) -> (N, H)

            hook = model.get_output_embeddings().register_forward_pre_hook(keep_trained)
            try:
                given = {name: value for name, value in inputs.items() if name != "labels"}
                logits = model(**given, use_cache=False).logits  # (N, V)
            finally:
                hook.remove()
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[trained], reduction="sum")
            return loss / (trained.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)

    return CompletionTrainer


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [row.tokens for row in rows], "labels": [row.labels for row in rows]})


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
