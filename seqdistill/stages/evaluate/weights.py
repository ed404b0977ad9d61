"""How big a model is: parameters and bytes, read from its files. Loads no tensor and needs no network."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from seqdistill.engines.loading import folder_here
from seqdistill.recipe.tables import ModelConfig

WIDTHS = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float64": 8}  # bytes, of the option dtype


@dataclass(frozen=True)
class Size:
    """How big a model is, as it is run here; None where its weights are not safetensors here."""

    parameters: int | None = None
    disk_bytes: int | None = None
    memory_bytes: int | None = None  # of the weights when loaded, without the cache of what is being answered


def size_of(model: ModelConfig) -> Size:
    """A model's size. Tied tensors are stored and counted once. A .gguf counts as what it was converted to."""
    folder = _folder(model)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return Size()
    from safetensors import safe_open

    parameters = in_memory = 0
    width = WIDTHS.get(str(model.options.get("dtype")))
    for file in files:
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                part = tensors.get_slice(name)
                count = math.prod(part.get_shape())
                parameters += count
                in_memory += count * (width or int(re.sub(r"\D", "", part.get_dtype().partition("_")[0]) or 8) // 8)
    return Size(parameters, sum(file.stat().st_size for file in files), in_memory)


def _folder(model: ModelConfig) -> Path | None:
    name = model.model or ""
    if model.engine == "openai" and not Path(name).is_dir():
        return None  # the endpoint's name for it, not ours
    return folder_here(model)
