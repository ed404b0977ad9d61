"""Low-rank adapters in place of all weights (LoRA, https://arxiv.org/abs/2106.09685), by peft; merged when the model is saved.

Owns how the student is loaded for it, what gets an adapter, and the merge. Does not train.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqdistill.engines.loading import load, with_adapters
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import LoraConfig, ModelConfig


def check_lora(config: LoraConfig) -> None:
    """Raises UsageError for keys that mean nothing without a rank, and for a quantised base that cannot be here."""
    if config.r is None:
        if config != LoraConfig():
            raise UsageError("[train.lora] has no r, so all weights are trained and its other keys mean nothing", "r = 16")
        return
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
    if config.r is None:
        return load("AutoModelForCausalLM", base, **{"dtype": "float32", **loading})
    import peft

    model = load("AutoModelForCausalLM", base, **{"dtype": "float32", **_quantized(config), **loading})
    return adapted(peft.prepare_model_for_kbit_training(model) if config.quantize else model, config)


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
        return peft.get_peft_model(model, adapters)
    except ValueError as error:
        listed = ", ".join(config.target_modules) or "all linear layers"
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"[train.lora] target_modules = {listed}: {reason}", "leave it out: all linear layers") from error


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
        whole = load("AutoModelForCausalLM", replace(base), dtype="float32")
        whole.generation_config = without_adapters(model).generation_config
        return with_adapters(whole, Path(folder)).merge_and_unload()
