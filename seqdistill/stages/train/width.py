"""A narrower model: only some neurons of each feed-forward layer, those that are active most on the task's prompts.

Owns which tensors hold a feed-forward layer's neurons, how active these are, and the cut. What is cut is found by comparing
the model's tensors with those of the same model with a smaller `intermediate_size`, not by names.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.records import Message
from seqdistill.stages.train.cutting import check_hooked, decoder_layers, store_in, watched

SIZES = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")  # what configs call the number of neurons
MULTIPLE = 32  # of which the number stays one: quantised formats have blocks of it
HINT = "leave width out: this model is cut by layers and vocabulary alone"


@dataclass(frozen=True)
class Narrowed:
    """What a model with fewer neurons has of the whole one."""

    neurons: dict[str, list[int]]  # by the layer's name: the numbers of its neurons that are kept, rising
    of: int
    by: str  # how they were chosen: activation, magnitude

    @property
    def count(self) -> int:
        """The neurons that each layer keeps."""
        return max(map(len, self.neurons.values()))

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers, for files that say how a model was made."""
        return {"kept": self.count, "of": self.of, "by": self.by}


def neurons_kept(total: int, width: float) -> int:
    """How many of a layer's neurons a share of them is: at least one, and a multiple of 32 (or 8) where the whole is one."""
    step = next((step for step in (MULTIPLE, 8) if total % step == 0 and total > step), 1)
    return min(total, max(step, round(total * width / step) * step))


def narrow(
    model: Any, width: float, tokenizer: Any, prompts: Sequence[list[Message]], progress: Progress
) -> tuple[Any, Narrowed]:
    """A new model with this share of each feed-forward layer's neurons, which computes what the whole one does without them.

    Kept are those with the largest mean absolute activation over all tokens of the prompts; without prompts, or without a
    chat template, those with the largest weights. Raises UsageError for a model with experts, or whose neurons are not to be
    found.
    """
    smaller, total, places, outputs = _neuron_places(model, width)
    count = neurons_kept(total, width)
    by = "activation" if prompts and tokenizer.chat_template else "magnitude"
    if by == "activation":
        scores = _activations(model, outputs, tokenizer, prompts, progress)
    else:
        scores = {layer: _magnitudes(model, places[layer], total) for layer in places}
    kept = {layer: sorted(score.argsort(descending=True, stable=True)[:count].tolist()) for layer, score in scores.items()}
    _take(model, smaller, places, kept, total)
    _check_same(model, smaller, outputs, kept)
    return smaller, Narrowed(kept, total, by)


def check_can_be_narrowed(model: Any, width: float) -> None:
    """Raises UsageError where `narrow` would not find the neurons; needs no weights."""
    import torch

    with torch.device("meta"):
        _neuron_places(model, width)


def _neuron_places(model: Any, width: float) -> tuple[Any, int, dict[str, dict[str, int]], dict[str, str]]:
    """(a new model with this share of neurons, their number in the whole one, where they are by layer, what reads them)."""
    name, total = _size(model, model.config.get_text_config(decoder=True))
    config = copy.deepcopy(model.config)
    count = neurons_kept(total, width)
    setattr(config.get_text_config(decoder=True), name, count)
    smaller = type(model)(config)
    places = _places(model, smaller, total, count)
    return smaller, total, places, {layer: _output(model, layer, places[layer]) for layer in places}


def _size(model: Any, text: Any) -> tuple[str, int]:
    """The config's key for the number of neurons, and their number. Raises UsageError for models with experts and others."""
    if any("expert" in name for name, _ in model.named_modules()):
        raise UsageError(f"width: {type(model).__name__} has experts, of which each token uses a few", HINT)
    for name in SIZES:
        if type(value := getattr(text, name, None)) is int:
            return name, value
    if getattr(text, "n_inner", 0) is None:  # GPT-2's way to say four times as wide
        return "n_inner", 4 * int(text.hidden_size)
    raise UsageError(f"width: the config of {type(model).__name__} has no single number of neurons per layer", HINT)


def _places(model: Any, smaller: Any, total: int, count: int) -> dict[str, dict[str, int]]:
    """By the layer's name, the tensors in it that have a place for each neuron, and the dimension of these places."""
    path, stack = decoder_layers(model)
    wanted, found = smaller.state_dict(), {f"{path}.{number}": dict[str, int]() for number in range(len(stack))}
    for name, weight in model.state_dict().items():
        shapes = list(zip(weight.shape, wanted[name].shape, strict=True)) if name in wanted else []
        differing = [place for place, (old, new) in enumerate(shapes) if old != new]
        if not shapes or not differing:
            continue
        layer = next((layer for layer in found if name.startswith(f"{layer}.")), None)
        fused = shapes[differing[0]] == (2 * total, 2 * count)
        if layer is None or len(differing) > 1 or not (fused or shapes[differing[0]] == (total, count)):
            raise UsageError(
                f"width: {type(model).__name__} has {name} of {tuple(weight.shape)}, which is not one per neuron", HINT
            )
        found[layer][name] = differing[0]
    if not any(found.values()):
        raise UsageError(f"width: no tensor of {type(model).__name__} has a place for each of {total} neurons", HINT)
    return {layer: tensors for layer, tensors in found.items() if tensors}


def _output(model: Any, layer: str, tensors: Mapping[str, int]) -> str:
    """The name of the module that reads a layer's neurons. Raises UsageError where it is not one."""
    from transformers.pytorch_utils import Conv1D

    found = []
    for name, place in tensors.items():
        module = name.rpartition(".")[0]
        weight = model.get_parameter(name)
        if weight.dim() == 2 and place == (0 if isinstance(model.get_submodule(module), Conv1D) else 1):
            found.append(module)
    if len(found) != 1:
        raise UsageError(f"width: {layer} has {len(found)} modules that read its neurons, expected one", HINT)
    return found[0]


# --- which neurons ----------------------------------------------------------------------------------------------------


def _activations(
    model: Any, outputs: Mapping[str, str], tokenizer: Any, prompts: Sequence[list[Message]], progress: Progress
) -> dict[str, Any]:  # layer -> (neurons)
    """Each neuron's mean absolute activation over all tokens of the prompts, rendered as a chat."""

    sums: dict[str, Any] = {}

    def watch(layer: str, module: str) -> Any:
        def hook(_: Any, args: Any) -> None:  # args[0]: (1, T, neurons)
            sums[layer] = sums.get(layer, 0) + args[0].float().abs().flatten(0, -2).sum(0)

        return model.get_submodule(module).register_forward_pre_hook(hook)

    hooks = [watch(layer, module) for layer, module in outputs.items()]
    tokens = watched(model, tokenizer, prompts, hooks, "measuring neurons", progress)
    return {layer: total / tokens for layer, total in sums.items()}


def _magnitudes(model: Any, tensors: Mapping[str, int], total: int) -> Any:  # (neurons)
    """Each neuron's product of the norms of the weights that go into it and come out of it."""
    import torch

    product = torch.ones(total)
    for name, place in tensors.items():
        weight = model.get_parameter(name).detach().float().movedim(place, 0)
        if weight.dim() > 1:
            norms = weight.flatten(1).norm(dim=1)
            product *= norms.unflatten(0, (-1, total)).prod(0).cpu()
    return product


# --- the cut ----------------------------------------------------------------------------------------------------------


def _take(
    model: Any, smaller: Any, places: Mapping[str, Mapping[str, int]], kept: Mapping[str, Sequence[int]], total: int
) -> None:
    """Gives the smaller model the whole one's weights, of the kept neurons."""
    import torch

    weights = model.state_dict()
    for layer, tensors in places.items():
        for name, place in tensors.items():
            parts = weights[name].shape[place] // total  # 2 where gate and up are one tensor
            index = torch.tensor([part * total + neuron for part in range(parts) for neuron in kept[layer]])
            weights[name] = weights[name].index_select(place, index.to(weights[name].device))
    smaller.load_state_dict(weights)
    store_in(smaller, {name: weight.dtype for name, weight in weights.items()})
    smaller.generation_config = model.generation_config
    smaller.eval()


def _check_same(model: Any, smaller: Any, outputs: Mapping[str, str], kept: Mapping[str, Sequence[int]]) -> None:
    """Raises UsageError unless the smaller model computes what the whole one does with its other neurons at zero."""
    import torch

    def silence(neurons: Sequence[int]) -> Any:
        def hook(_: Any, args: Any) -> Any:
            silent = torch.zeros_like(args[0])
            silent[..., neurons] = args[0][..., neurons]
            return (silent, *args[1:])

        return hook

    hooks = [model.get_submodule(outputs[layer]).register_forward_pre_hook(silence(kept[layer])) for layer in outputs]
    check_hooked(model, hooks, smaller, "the chosen neurons", HINT)
