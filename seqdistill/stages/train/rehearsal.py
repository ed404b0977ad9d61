"""A step of training with the recipe's [train.args] before there are rows: by TRL's own trainer, on a tiny model.

Finds what TRL's config class takes, and its trainer refuses or fails on. What depends on the student itself, on the rows or on
several processes is left to the training, and so is what is compiled: that takes half a minute.
"""

import copy
import tempfile
import warnings
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.rendering import PROBE

USUAL = frozenset(  # of [train.args]: their values are seen to be right without a trainer
    (
        *("learning_rate", "num_train_epochs", "max_steps", "max_length", "max_completion_length", "warmup_steps"),
        *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        *("lr_scheduler_type", "lr_scheduler_kwargs", "optim", "weight_decay", "max_grad_norm", "bf16", "fp16", "use_cpu"),
        *("logging_steps", "report_to", "eval_strategy", "eval_steps", "packing", "shuffle_dataset", "model_init_kwargs"),
        *("train_sampling_strategy", "beta", "gradient_checkpointing", "deepspeed", "fsdp", "fsdp_config", "run_name"),
    )
)
ROWS = 2
ROW = {  # by TRL's config class: what it trains on
    "SFTConfig": {"input_ids": [0, 0, 0], "labels": [-100, 0, 0]},
    "DPOConfig": {"prompt": "Say yes.", "chosen": "yes", "rejected": "no"},
    "DistillationConfig": {"prompt": PROBE},
}
BESIDE = {"DPOConfig": "ref_model", "DistillationConfig": "teacher_model"}  # the trainer's argument for a second model


def rehearse(arguments: Any, config: TrainConfig, tokenizer: Any) -> None:
    """Raises UsageError where TRL cannot train and validate with these arguments. They stay as they are."""
    spread = config.processes > 1 or config.accelerate_config or arguments.fsdp or arguments.deepspeed
    if spread or arguments.torch_compile or not config.args.keys() - USUAL:
        return
    import torch
    import trl
    from datasets import Dataset

    kind = type(arguments).__name__
    rows = Dataset.from_list([ROW[kind]] * ROWS)
    model, beside = _tiny(len(tokenizer)), {} if kind == "SFTConfig" else {BESIDE[kind]: _tiny(len(tokenizer))}
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = _short(arguments, folder)
        try:
            trainer = getattr(trl, kind.replace("Config", "Trainer"))(
                model=model,
                args=short,
                train_dataset=rows,
                eval_dataset=rows,
                processing_class=copy.deepcopy(tokenizer),
                **beside,
            )
            trainer.remove_callback(_printer())
            trainer.train()
            trainer.evaluate()
        except Exception as error:  # TRL, transformers and torch raise what they like; all of it is about these arguments
            listed = ", ".join(sorted(config.args))
            raise UsageError(
                f"[train.args] {listed}: training is not possible with these: {' '.join(str(error).split())}",
                f"see TRL's page on {kind}",
            ) from error


def _short(arguments: Any, folder: str) -> Any:
    """The same arguments for one step on two rows, which nobody hears of."""
    short = copy.copy(arguments)
    for name, value in {
        "output_dir": folder,
        "max_steps": 1,
        "per_device_train_batch_size": ROWS,
        "per_device_eval_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 2,
        "report_to": [],
        "logging_strategy": type(arguments.eval_strategy)("no"),
        "eval_strategy": type(arguments.eval_strategy)("no"),
        "model_init_kwargs": None,
        "precompute_ref_log_probs": False,
        "router_aux_loss_coef": None,
        "use_vllm": False,
    }.items():
        if hasattr(short, name):
            setattr(short, name, value)
    return short


def _tiny(vocabulary: int) -> Any:
    """A random model of one layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8
        )
    )


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback
