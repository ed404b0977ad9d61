"""Low-rank adapters in place of all weights (LoRA, https://arxiv.org/abs/2106.09685), by peft; merged when the model is saved.

Owns how the student is loaded for it, what gets an adapter, the merge, and the adapters' own folder. Does not train.
"""

import importlib.util
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqdistill.engines.loading import load, plain_weights, with_adapters
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import LoraConfig, ModelConfig
from seqdistill.records import read_json, write_json

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # what configs call their number


def check_lora(config: LoraConfig) -> None:
    """Raises UsageError for keys that have no effect without a rank, and for a quantised base that cannot be here."""
    if config.r is None:
        if config != LoraConfig():
            raise UsageError("[train.lora] has no r, so all weights are trained and its other keys have no effect", "r = 16")
        return
    if config.alpha == 0:
        raise UsageError("[train.lora] alpha = 0: the adapters would have no effect", "leave it out: 2 r")
    if importlib.util.find_spec("peft") is None:
        raise UsageError("[train.lora] needs the package peft, which is not installed", "pip install peft")
    if config.quantize is None:
        return
    import torch

    place = f"[train.lora] quantize = {config.quantize!r}"
    if not torch.cuda.is_available():
        raise UsageError(f"{place}: needs a CUDA GPU, and there is none", "leave quantize out: plain LoRA trains on a CPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"{place}: needs the package bitsandbytes, which is not installed", "pip install bitsandbytes")


def loaded_student(base: ModelConfig, config: LoraConfig, loading: dict[str, Any]) -> Any:
    """The student's model, ready to be trained: as it is, or with adapters that alone are trained.

    Raises UsageError for a model that cannot be loaded, and for target modules that it does not have.
    """
    how = plain_weights(base) | ({} if config.r is None else _quantized(config))
    try:
        model = load("AutoModelForCausalLM", base, f"student {base.model!r}", **{"dtype": "float32", **how, **loading})
    except UsageError as error:
        raise with_loading(error, loading) from error
    _name_experts(model.config.get_text_config(decoder=True))
    if config.r is None:
        return model
    import peft

    return adapted(peft.prepare_model_for_kbit_training(model) if config.quantize else model, config)


def _name_experts(config: Any) -> None:
    """Gives a text config the number of its experts by the name that TRL reads; without experts, no weight of their balance.

    Granite and DeepSeek V4 call it otherwise, and Granite 4's dense models have that weight too.
    """
    if hasattr(config, "output_router_logits"):
        if not (count := next((found for name in EXPERTS if (found := getattr(config, name, None))), 0)):
            config.router_aux_loss_coef = 0.0
        elif getattr(config, "num_experts", None) is None:
            config.num_experts = count


def with_loading(error: UsageError, loading: Mapping[str, Any]) -> UsageError:
    """An error of loading the student, which the [train.args] that it is loaded with may have caused."""
    if not loading:
        return error
    return UsageError(f"[train.args] model_init_kwargs = {loading}: {error.message}", f"leave them out; else {error.hint}")


def adapted(model: Any, config: LoraConfig) -> Any:
    """The model with adapters. Raises UsageError for target modules that it does not have."""
    import peft

    rank = config.r or 0
    adapters = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if config.alpha is None else config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
    )
    try:
        with warnings.catch_warnings():  # of tied tables, which are refused
            warnings.simplefilter("ignore", UserWarning)
            found = peft.get_peft_model(model, adapters)
    except ValueError as error:
        wanted = {"target_modules": ", ".join(config.target_modules), "dropout": config.dropout}
        listed = ", ".join(f"{name} = {value}" for name, value in wanted.items() if value)
        reason = str(error).strip().splitlines()[0]
        hint = "leave it out" if config.dropout else "leave it out: all linear layers"
        raise UsageError(f"[train.lora] {listed or f'r = {rank}'}: {reason}", hint) from error
    tables = model.get_input_embeddings(), model.get_output_embeddings()
    if model.config.get_text_config(decoder=True).tie_word_embeddings and any(hasattr(table, "base_layer") for table in tables):
        raise UsageError(
            f"[train.lora] target_modules = {', '.join(config.target_modules)}: embedding and head of this student are one "
            "table, and an adapter of one of them cannot be merged",
            "leave the embedding and the head out",
        )
    return found


def _quantized(config: LoraConfig) -> dict[str, Any]:
    if config.quantize is None:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if config.quantize == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": four}


def without_adapters(model: Any) -> Any:
    """The model that transformers knows, without peft's wrapper."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def move_base(model: Any, base: str) -> None:
    """Notes in the adapters where their base is now; peft reads it there whenever it saves."""
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = base


def save_adapters(model: Any, folder: Path) -> None:
    """Writes the adapters alone, in peft's format, in place of earlier ones; removes these where there are none now."""
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form


def name_base(folder: Path, base: str) -> None:
    """Names the model that a folder of adapters belongs to; nothing where there are none."""
    path = folder / "adapter_config.json"
    if path.exists():
        write_json(path, {**read_json(path), "base_model_name_or_path": base})


def merged(model: Any, base: ModelConfig) -> Any:
    """A plain model that computes what the adapters do; the same model where there are none.

    Adapters of a quantised base are merged into the base as it was before it was quantised.
    """
    if not hasattr(model, "peft_config"):
        return model
    if not getattr(without_adapters(model), "is_quantized", False):
        return model.merge_and_unload()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        whole = load("AutoModelForCausalLM", base, dtype="float32", **plain_weights(base))
        whole.generation_config = without_adapters(model).generation_config
        return with_adapters(whole, Path(folder)).merge_and_unload()
