"""How big a model is: parameters and bytes, read from its files. Loads no tensor and needs no network."""

import math
from pathlib import Path

from seqdistill.engines.loading import folder_here
from seqdistill.recipe.tables import ModelConfig


def size_of(model: ModelConfig) -> tuple[int | None, int | None]:
    """(parameters, bytes of weights on the disk) as the model is run here; None where its weights are not safetensors here.

    Tied tensors are stored and counted once. A .gguf counts as what it was converted to.
    """
    folder = _folder(model)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return None, None
    from safetensors import safe_open

    parameters = 0
    for file in files:
        with safe_open(file, framework="np") as tensors:
            parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return parameters, sum(file.stat().st_size for file in files)


def _folder(model: ModelConfig) -> Path | None:
    name = model.model or ""
    if model.engine == "openai" and not Path(name).is_dir():
        return None  # the endpoint's name for it, not ours
    return folder_here(model)
