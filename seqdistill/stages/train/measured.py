"""What is measured on the loaded student before the first step: steps, memory, seconds, and that nothing is lost later.

Owns the checks that need the model itself. Does not check rows (preflight.py) and does not train.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.stages.train.lora import without_adapters
from seqdistill.stages.train.methods.sequence import MODEL_INPUTS
from seqdistill.stages.train.reading import READS_FORWARD
from seqdistill.stages.train.rendering import Row

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
TRIED_TOKENS = 64  # of a row, on which a student is seen to read forward alone
OPTIMIZER_BYTES = {"adamw": 8, "adam": 8, "lion": 4, "sgd": 0, "rmsprop": 4, "adagrad": 4, "adafactor": 0}  # a parameter, fp32


def out_of_memory(error: Exception) -> SeqdistillError:
    """The error for a training that does not fit into memory."""
    return SeqdistillError(
        f"out of memory: {str(error).splitlines()[0]}",
        "in [train.args], halve per_device_train_batch_size and double gradient_accumulation_steps, then run again",
    )


def try_row(trainer: Any, row: Row) -> None:
    """Computes the loss of one row and its gradients, which shows what the processor or the weights cannot do.

    Raises UsageError for an operation that is not there, for weights that are not finite and for a student that reads later
    tokens too, SeqdistillError when memory runs out. The trainer stays as it was.
    """
    import torch

    model, training = trainer.model, trainer.model.training
    tokens, labels = (torch.tensor([part], device=model.device) for part in (row.tokens, row.labels))
    model.train()
    try:
        with trainer.compute_loss_context_manager():
            loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error) from error
    except (NotImplementedError, ImportError) as error:
        raise UsageError(
            f"[train.args]: training is not possible with these on this machine: {str(error).strip()}",
            "another attn_implementation in model_init_kwargs, or another machine",
        ) from error
    finally:
        model.zero_grad()
        model.train(training)
    if not math.isfinite(loss.item()):
        raise UsageError(
            f"the untrained student's loss on row {row.id!r} is {loss.item()}: its weights are not finite numbers, or overflow",
            "use other weights, or in [train.args] model_init_kwargs another dtype",
        )
    model.eval()
    try:
        with trainer.compute_loss_context_manager(), torch.no_grad():
            _check_causal(model, tokens[:, :TRIED_TOKENS])
    finally:
        model.train(training)


def _check_causal(model: Any, tokens: Any) -> None:  # (1, T)
    """Raises UsageError where another last token changes the logits before it: such a model reads the answer that it learns."""
    import torch

    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % model.get_input_embeddings().weight.shape[0]
    before, after = (model(input_ids=one, use_cache=False).logits[0, :-1].float() for one in (tokens, other))
    if not torch.allclose(before, after, rtol=0.05, atol=0.05 * float(before.abs().max())):
        raise UsageError(
            f"the student, {type(without_adapters(model)).__name__}, reads the tokens that follow: it would see the answer "
            "that it is to write, and learn nothing",
            READS_FORWARD,
        )


def planned_steps(trainer: Any, processes: int = 1) -> int:
    """How many optimizer steps the training takes in as many processes, each of which takes a batch of its own.

    Raises UsageError when there would be none, and for an optimizer, schedule or batch that cannot be made.
    """
    arguments = trainer.args
    try:
        batches = _batches(trainer, processes)
        trainer.create_optimizer_and_scheduler(num_training_steps=1)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"[train.args]: {str(error).strip()}", f"see TRL's page on {type(arguments).__name__}") from error
    trainer.optimizer = trainer.lr_scheduler = None  # the training makes its own, with its own number of steps
    if batches == 0:
        rows, size = len(trainer.train_dataset), arguments.train_batch_size
        why, hint = "dataloader_drop_last drops the rest", "use smaller batches, or leave dataloader_drop_last out"
        if not arguments.dataloader_drop_last:  # a sampler of the trainer's own, which takes whole steps
            size *= processes * arguments.gradient_accumulation_steps
            why, hint = "the trainer drops the rest", "lower per_device_train_batch_size or gradient_accumulation_steps"
        raise UsageError(f"[train.args] leave no training step: {rows} rows, batches of {size}, and {why}", hint)
    per_epoch = _steps_per_epoch(trainer, batches)
    return int(arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * per_epoch))


def planned_validations(trainer: Any, steps: int, processes: int = 1) -> int:
    """How often a training of N steps validates."""
    arguments = trainer.args
    if trainer.eval_dataset is None or arguments.eval_strategy.value == "no":
        return 0
    if arguments.eval_strategy.value == "steps":
        every: float = arguments.eval_steps if arguments.eval_steps >= 1 else math.ceil(steps * arguments.eval_steps)
    else:
        every = _steps_per_epoch(trainer, _batches(trainer, processes))
    return math.ceil(steps / every) + bool(arguments.eval_on_start)  # the last one is at the end


def _batches(trainer: Any, processes: int) -> int:
    return math.ceil(len(trainer.get_train_dataloader()) / processes)


def _steps_per_epoch(trainer: Any, batches: int) -> int:
    accumulated: int = trainer.args.gradient_accumulation_steps
    return max(1, math.ceil(batches / accumulated))


def make_savable(model: Any) -> list[str]:
    """Makes the model's generation config one that can be saved, or the finished training could not be; returns what changed.

    transformers saves no sampling setting without do_sample; there it has no effect, so it goes. What else it refuses to save
    is replaced by the token ids alone.
    """
    from transformers import GenerationConfig

    notes: list[str] = []
    model = without_adapters(model)
    config = model.generation_config
    if config is None or _can_be_saved(config):
        return notes
    if not config.do_sample:
        dropped = {name: value for name in SAMPLING if (value := getattr(config, name, None)) is not None}
        for name in dropped:
            setattr(config, name, None)
        listed = ", ".join(f"{name} = {value}" for name, value in dropped.items())
        notes.append(f"the student's generation config has {listed} without do_sample: without effect, left out of train/model")
    if not _can_be_saved(config):
        kept = {name: value for name in IDS if (value := getattr(config, name, None)) is not None}
        model.generation_config = GenerationConfig(**kept)
        notes = ["the student's generation config cannot be saved: train/model keeps its token ids alone"]
    return notes


def _can_be_saved(config: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            config.save_pretrained(folder)
        except ValueError:
            return False
    return True


def check_isolated(trainer: Any, rows: Sequence[Row], argument: str) -> None:
    """Raises UsageError when a packed row changes what the model computes for the row after it; `argument` packs the rows.

    Measured by the trainer's own collator and model, as nothing else shows it: with some attention implementations and with
    recurrent layers, rows packed together attend to one another, and the loss alone looks right.
    """
    import torch

    row = rows[0].tokens
    other = [*reversed(rows[-1].tokens)]
    model, training = trainer.model, trainer.model.training
    model.eval()
    try:
        with torch.inference_mode():
            alone, packed = (_logits(trainer, parts)[-len(row) :].float() for parts in ([row], [other, row]))
    finally:
        model.train(training)
    if not torch.allclose(packed, alone, rtol=0.05, atol=0.05 * float(alone.abs().max())):
        apart = float((packed - alone).abs().max())
        raise UsageError(
            f"[train.args] {argument}: with this student, packed rows attend to one another (logits move by up to {apart:.3g})",
            f"leave {argument} out, or set attn_implementation in model_init_kwargs to one that keeps rows apart",
        )


def _logits(trainer: Any, parts: Sequence[list[int]]) -> Any:
    """The logits (T, V) of rows packed into one."""
    tokens = [token for part in parts for token in part]
    example = {"input_ids": tokens, "labels": [-100] * len(tokens), "seq_lengths": [len(part) for part in parts], "row": 0}
    batch = _on_device(trainer.data_collator([example]), trainer.model.device)
    passed = {name: value for name, value in batch.items() if name in MODEL_INPUTS}
    return trainer.model(**passed, use_cache=False).logits[0]


def _on_device(batch: Mapping[str, Any], device: Any) -> dict[str, Any]:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}


@dataclass(frozen=True)
class Cost:
    """What the training will take, estimated."""

    steps: int
    memory_bytes: int  # weights, gradients, optimizer and activations of one batch, and the models beside the student
    available_bytes: int | None  # free where the models are, without them; None where that is not known
    seconds: float | None  # None: not measured


def cost(
    trainer: Any,
    longest: int,
    completion: int,
    tokens: int | None,
    *,
    measure: bool,
    beside: Sequence[Any] = (),
    processes: int = 1,
) -> Cost:
    """The estimate; `longest` and `completion` are the tokens of the longest row and of the longest completion, `tokens` of a
    batch where [train] batch_tokens says it.

    `beside` are models that are loaded beside the student. `processes` will be started; on a CPU they share its memory and its
    cores. With `measure`, one batch is computed forward and backward, twice, and the faster one counts.
    """
    steps, device = planned_steps(trainer, processes), trainer.args.device
    shared = processes if device.type == "cpu" else 1
    loaded = [_weight_bytes(model) for model in (trainer.model, *beside)]
    available = _available(device)
    seconds = _seconds(trainer, steps, planned_validations(trainer, steps, processes)) if measure else None
    return Cost(
        steps=steps,
        memory_bytes=shared * (_memory(trainer, longest, completion, tokens) + sum(loaded[1:])),
        available_bytes=None if available is None else available + sum(loaded),
        seconds=None if seconds is None else shared * seconds,
    )


def _weight_bytes(model: Any) -> int:
    return sum(part.numel() * part.element_size() for part in model.parameters())


def _memory(trainer: Any, longest: int, completion: int, tokens: int | None) -> int:
    """Bytes at the peak of a step. On small Llamas on a CPU, three shapes, it is 0.96 to 0.98 of what was measured."""
    model, arguments = trainer.model, trainer.args
    text = model.config.get_text_config(decoder=True)
    weights = _weight_bytes(model)
    trained = [part for part in model.parameters() if part.requires_grad]
    gradients = sum(part.numel() * part.element_size() for part in trained)
    kind = str(getattr(arguments.optim, "value", arguments.optim)).split("_")[0]
    optimizer = sum(part.numel() for part in trained) * OPTIMIZER_BYTES.get(kind, 8)
    width = tokens or arguments.per_device_train_batch_size * longest  # in a batch
    head_tokens = tokens or arguments.per_device_train_batch_size * completion
    wide = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    wide = max(wide) if isinstance(wide, list) else wide  # of each layer
    layers = 1 if arguments.gradient_checkpointing else text.num_hidden_layers
    each = 4 if not (arguments.bf16 or arguments.fp16) else 2
    kept = width * each * (layers * (16 * text.hidden_size + 4 * wide) + text.num_hidden_layers * text.hidden_size)
    head = head_tokens * text.vocab_size * 4 * 3  # logits, their gradient, log-softmax
    return int(weights + gradients + optimizer + kept + head)


def _available(device: Any) -> int | None:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    memory = Path("/proc/meminfo")
    if device.type == "cpu" and memory.exists():
        lines = dict(line.split(":", 1) for line in memory.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    return None


def _seconds(trainer: Any, steps: int, validations: int) -> float:
    import torch

    model = trainer.model
    batch = next(iter(trainer.get_train_dataloader()))
    batch = _on_device(batch, model.device)
    taken = []
    model.train()
    for _ in range(2):
        began = time.perf_counter()
        trainer.compute_loss(model, dict(batch)).backward()
        if model.device.type != "cpu":
            torch.accelerator.synchronize(model.device)
        taken.append(time.perf_counter() - began)
        model.zero_grad()
    validation = 0.0
    if validations:  # forward only, a third of a step
        validation = len(trainer.get_eval_dataloader()) * min(taken) / 3 * validations
    return float(steps * trainer.args.gradient_accumulation_steps * min(taken) + validation)
