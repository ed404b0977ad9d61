"""TRL's arguments: [train.args] verbatim, what the stage itself decides, and the few defaults of TRL's that hurt here.

Does not re-declare TRL's options; its config classes know them.
"""

import contextlib
import os
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.launch import PRECISIONS, launcher_arguments
from seqdistill.stages.train.ranks import processes

_RENDERED = "rows are rendered with the student's own chat template, and the loss is on the completion"
_CHECKPOINTS = "the stage keeps its own checkpoints: an interrupted run resumes by itself"
_PUBLISH = "publish the finished folder train/model yourself"
OURS = {
    "output_dir": "the model goes to the run directory, train/model",
    "seed": "set [train] seed",
    "trust_remote_code": "set [student] trust_remote_code",
    "load_best_model_at_end": "set [train] early_stopping; a student can get better at its task while this loss gets worse",
    "logging_nan_inf_filter": "a loss that is not a number ends the training",
    "disable_tqdm": "progress is the command's own; see --quiet",
    **dict.fromkeys(
        (
            *("resume_from_checkpoint", "save_strategy", "save_steps", "save_total_limit", "save_only_model"),
            *("save_on_each_node", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint"),
        ),
        _CHECKPOINTS,
    ),
    **dict.fromkeys(
        ("log_completions", "num_completions_to_print", "log_unique_prompts"),
        "set [train] generations: the student's answers to validation prompts are in train/log.jsonl",
    ),
    "ignore_data_skip": "a training that was interrupted resumes with the rows that it has not seen yet",
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss", "chat_template_path", "eos_token", "pad_token"), _RENDERED),
    "chat_template_kwargs": "set [student] chat_template_kwargs",
    **dict.fromkeys(("teacher_model_name_or_path", "teacher_model_init_kwargs"), "set [teacher] model and its options"),
    "teacher_model_revision": "set [teacher] revision",
    **dict.fromkeys(("dataset_text_field", "dataset_kwargs", "truncation_mode"), _RENDERED),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better"), "set [train] best, and for a quality [task] primary"),
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_model_id", "hub_token", "hub_strategy"),
            *("hub_private_repo", "hub_always_push", "hub_revision"),
        ),
        _PUBLISH,
    ),
}
LORA = "set r, alpha, dropout or target_modules in [train.lora]"
ELSEWHERE = {
    **dict.fromkeys(
        ("use_peft", "peft_config", "r", "alpha", "dropout", "target_modules", "modules_to_save", "use_rslora", "use_dora"),
        LORA,
    ),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_config"), "set quantize in [train.lora]"),
    "lr": "it is called learning_rate",
    "epochs": "it is called num_train_epochs",
    "batch_size": "it is called per_device_train_batch_size",
    "max_seq_length": "it is called max_length",
    "evaluation_strategy": "it is called eval_strategy",
    "warmup_ratio": "it is called warmup_steps, where a number below 1 is a share of the steps: warmup_steps = 0.1",
    "group_by_length": 'it is called train_sampling_strategy = "group_by_length"; [train] batch_tokens does it too',
    "no_cuda": "it is called use_cpu",
    "max_prompt_length": "leave it out: no prompt is clipped, and rows that are too long are named",
    **dict.fromkeys(("dtype", "attn_implementation"), "set it in model_init_kwargs"),
    "torch_dtype": "set it in model_init_kwargs, as dtype",
}  # what people write who know it from another place
NOT_LOADED_WITH = {  # of model_init_kwargs: what would make the weights others than the student that everything else is of
    "torch_dtype": "it is called dtype",
    "revision": "set [student] revision",
    "trust_remote_code": "set [student] trust_remote_code",
    "token": "set HF_TOKEN in the environment",
    **dict.fromkeys(("subfolder", "gguf_file", "variant"), "name the files themselves in [student] model"),
    **dict.fromkeys(("quantization_config", "load_in_4bit", "load_in_8bit"), "set quantize in [train.lora]"),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), "cut layers with --student shrink:N"),
    **dict.fromkeys(
        (
            *("hidden_size", "d_model", "n_embd", "intermediate_size"),
            *("num_attention_heads", "num_key_value_heads", "head_dim"),
            *("vocab_size", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "layer_types"),
            *("tie_word_embeddings", "ignore_mismatched_sizes", "config", "state_dict"),
        ),
        "leave it out: the student's weights are as its config.json says",
    ),
    **dict.fromkeys(("use_safetensors", "output_loading_info"), "leave it out: weights are read whole, from safetensors"),
}

FROM_ONE = (  # arguments that TRL takes below 1 too, and then fails late or trains on nothing
    *("max_length", "max_completion_length", "gradient_accumulation_steps"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "pad_to_multiple_of"),
)
WITHOUT_EFFECT = frozenset(  # on the weights: these say what is reported, and how fast rows are read
    (
        *("report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("logging_steps", "logging_strategy", "logging_first_step", "log_level", "log_level_replica", "log_on_each_node"),
        *("include_num_input_tokens_seen", "skip_memory_metrics", "ddp_timeout", "torch_empty_cache_steps"),
        *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "dataset_num_proc"),
    )
)
ONE_OF = {  # arguments whose other values transformers takes for the first of these, or fails on with no word
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "packing_strategy": ("bfd", "bfd_split", "bfd-requeue", "wrapped"),
    "log_level": ("passive", "debug", "info", "warning", "error", "critical"),
    "log_level_replica": ("passive", "debug", "info", "warning", "error", "critical"),
}
NEED_A_MODEL = ("galore", "apollo", "lomo")  # optimizers


def check_arguments(arguments: dict[str, Any], kind: Any) -> None:
    """Raises UsageError for an argument that TRL's config class `kind` lacks, that the stage sets, or of a wrong type."""
    hints = get_type_hints(kind)
    known = {name for name, field in kind.__dataclass_fields__.items() if field.init}
    for name, value in arguments.items():
        place = f"[train.args] {name}"
        if name in OURS:
            raise UsageError(f"{place}: seqdistill sets it", OURS[name])
        if name not in known:
            hint = ELSEWHERE.get(name) or (LORA if name.startswith("lora_") else None)
            close = "" if hint else nearest(name, known, 0.75)
            raise UsageError(
                f"{place}: TRL's {kind.__name__} has no such argument{close}", hint or f"see TRL's page on {kind.__name__}"
            )
        allowed = get_args(hints[name]) if get_origin(hints[name]) in (types.UnionType, typing.Union) else (hints[name],)
        kinds = {get_origin(kind) or kind for kind in allowed}
        accepted = kinds | ({int} if float in kinds else set())
        if kinds <= {bool, int, float, str, list, dict, type(None)} and type(value) not in accepted:
            wanted = " or ".join(sorted(kind.__name__ for kind in kinds if kind is not type(None)))
            listed = kinds - {type(None)} == {list}
            hint = f"in brackets: [{value!r}]" if listed else "TOML writes 1e-5, true and 16 without quotes"
            raise UsageError(f"{place} = {value!r}: expected {wanted}", hint)
        if value not in ONE_OF.get(name, (value,)):
            raise UsageError(f"{place} = {value!r}: unknown{nearest(value, ONE_OF[name])}", f"one of {', '.join(ONE_OF[name])}")
        if name in FROM_ONE and type(value) is int and value < 1:
            raise UsageError(f"{place} = {value}: less than 1", "set 1 or more, or leave it out")
        if (name, value) in (("learning_rate", 0), ("max_steps", 0)):
            raise UsageError(f"{place} = 0: nothing would be learnt", "set it higher, or leave it out")
    _check_loading(arguments.get("model_init_kwargs"))
    _check_validations(arguments)


def _check_loading(loading: Any) -> None:
    """Raises UsageError for model_init_kwargs that are no table, or that are set in another place."""
    place = "[train.args] model_init_kwargs"
    if isinstance(loading, str):
        raise UsageError(f"{place} = {loading!r}: expected a table", 'model_init_kwargs = { dtype = "bfloat16" }')
    if name := next((name for name in loading or () if name in NOT_LOADED_WITH), None):
        raise UsageError(f"{place}: {name} = {loading[name]!r} does not belong here", NOT_LOADED_WITH[name])


def _check_validations(arguments: Mapping[str, Any]) -> None:
    """Raises UsageError where eval_strategy and eval_steps do not say together when to validate."""
    strategy, steps = (arguments.get(name) for name in ("eval_strategy", "eval_steps"))
    if strategy == "steps" and not steps:
        raise UsageError("[train.args] eval_strategy = 'steps' without eval_steps", "set eval_steps: validate every N steps")
    if steps and strategy in ("no", "epoch"):
        raise UsageError(
            f"[train.args] eval_steps = {steps} with eval_strategy = {strategy!r}: without effect", "leave one of them out"
        )


def _check_usable(passed: Mapping[str, Any], validate: bool) -> None:
    if passed.get("packing_strategy") == "wrapped":
        raise UsageError(
            '[train.args] packing_strategy = "wrapped": cuts rows in two, and their halves are trained apart', 'use "bfd"'
        )
    validating = [
        name for name in ("eval_strategy", "eval_steps", "eval_on_start") if passed.get(name) not in (None, False, "no")
    ]
    if validating and not validate:
        name = validating[0]
        raise UsageError(
            f"[train.args] {name} = {passed[name]!r} needs validation rows, and there are none",
            f"leave {name} out, or hold back more prompts with [filter] validation",
        )


def _check_cpu(passed: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for what only a GPU can do; `place` is where the precision is configured."""
    if passed.get("fp16"):
        raise UsageError(f"{place} fp16 = true: there is no GPU, and CPUs do not train in fp16", "leave fp16 out")
    if passed.get("activation_offloading"):
        raise UsageError(
            "[train.args] activation_offloading = true: there is no GPU whose memory it would save",
            "leave activation_offloading out",
        )
    if passed.get("bf16") and not _has_bfloat16():
        raise UsageError(
            f"{place} bf16 = true: this processor has no bfloat16 arithmetic and would emulate it, many times slower",
            "leave bf16 out: the training is in float32",
        )


def trl_arguments(
    config: TrainConfig, kind: Any, defaults: Mapping[str, Any], max_length: int, validate: bool, work: Path
) -> Any:
    """TRL's config `kind` of this training; `work` holds its checkpoints. Raises UsageError for values that it does not take.

    `defaults` are the method's own, for what [train.args] leaves open.

    On a CPU: float32 unless [train.args] say bf16, which is emulated where the CPU lacks it (70 times slower on AVX2) and 1.7
    times as fast where it has it (Xeon with AMX, the demo's student; padding to few shapes made no difference); and no
    gradient checkpointing, which trades time for GPU memory. On a GPU TRL's own choice, bf16 where the GPU has it.
    """
    import torch

    launched = launcher_arguments(config)
    passed = {**launched, **config.args}
    place = "accelerate's mixed_precision:" if launched.keys() & {*PRECISIONS} else "[train.args]"
    _check_usable(passed, validate)
    if passed.get("use_cpu") or not torch.accelerator.is_available():
        _check_cpu(passed, place)
        device = {"bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
        if processes() > 1 or passed.get("bf16"):
            device["use_cpu"] = True  # or accelerate would train in each of them alone, and refuse bfloat16
    else:
        device = {"bf16": not passed.get("fp16") and (not torch.cuda.is_available() or torch.cuda.is_bf16_supported())}
    unpacked = passed.get("padding_free") and not passed.get("packing")  # there TRL takes no length; no row is clipped either
    ours = {
        "output_dir": str(work),
        "seed": config.seed,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
    if unpacked:
        passed.pop("max_length", None)
    usual = {
        **device,
        **({"max_length": None if unpacked else max_length} if "max_length" in kind.__dataclass_fields__ else {}),
        "eval_strategy": ("steps" if "eval_steps" in passed else "epoch") if validate else "no",
        "logging_steps": 1,
        "report_to": "none",
        "run_name": work.parents[1].name,  # in W&B, MLflow and the like
    }
    try:
        arguments = kind(**{**usual, **defaults, **passed, **ours})
    except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:  # OSError: a file that an argument names
        raise refused(error, kind) from error
    if arguments.max_steps <= 0 and arguments.num_train_epochs <= 0:
        raise UsageError(
            f"[train.args] num_train_epochs = {arguments.num_train_epochs:g}: no training step", "train for longer"
        )
    return arguments


def refused(error: Exception, kind: Any) -> UsageError:
    """The error for [train.args] that TRL's config class, or what is made of it, does not take."""
    missing = "install the package that is missing, or leave out the argument that needs it"
    return UsageError(
        f"[train.args]: {str(error).strip()}",
        missing if isinstance(error, ImportError) else f"see TRL's page on {kind.__name__}",
    )


def check_usable(arguments: Any) -> None:
    """Raises UsageError for an optimizer, a schedule or a tracker that TRL's arguments name and that cannot be made here.

    Found without a model. GaLore, APOLLO and LOMO need one, and are left to the trainer.
    """
    import torch
    from transformers import Trainer, get_scheduler
    from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks
    from transformers.utils import is_liger_kernel_available

    kind = str(getattr(arguments.optim, "value", arguments.optim))
    try:
        get_reporting_integration_callbacks(arguments.report_to)
        if not any(name in kind for name in NEED_A_MODEL):
            optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
            get_scheduler(
                arguments.lr_scheduler_type,
                optimizer=optimizer([torch.nn.Parameter(torch.zeros(1))], **settings),
                num_warmup_steps=arguments.get_warmup_steps(1),
                num_training_steps=1,
                scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
            )
    except (ImportError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise refused(error, type(arguments)) from error
    if arguments.use_liger_kernel and not is_liger_kernel_available():
        raise UsageError("[train.args] use_liger_kernel: the package is not installed", "pip install liger-kernel")
    installed = {*get_available_reporting_integrations(), "flyte"}  # of which transformers does not say whether it is
    if missing := [name for name in arguments.report_to if name not in installed]:
        raise UsageError(
            f"[train.args] report_to: the package of {missing[0]!r} is not installed", "install it, or leave report_to out"
        )


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; true where torch cannot say."""
    import torch

    known = getattr(torch.cpu, "get_capabilities", lambda: None)()
    return known is None or any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


@contextlib.contextmanager
def logged_beside(work: Path) -> Iterator[None]:
    """While a trainer is made: TensorBoard's files go beside its checkpoints, which are removed, unless said otherwise."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(work.with_name("tensorboard"))
    try:
        yield
    finally:
        del os.environ[name]


def resolved(arguments: Any) -> dict[str, Any]:
    """Every argument as TRL understood it, for the manifest: no paths of this machine, no token."""
    hidden = ("output_dir", "logging_dir", "run_name", "hub_token", "push_to_hub_token")
    simple = (str, int, float, bool, type(None), list, dict)
    values = {name: value for name, value in arguments.to_dict().items() if name not in hidden}
    return {name: value if isinstance(value, simple) else str(value) for name, value in sorted(values.items())}
