"""A model without some of its decoder layers: its config shortened, its weights taken over, its function seen to be the same.

Owns everything that knows a layer by its number. Does not choose layers by what they do (shrink.py).
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.records import Message

PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))
INDEX_LISTS = ("_layers", "_idxs", "_ids", "_indices")  # names of lists that hold layers' numbers end so
NO_LAYERS = ("multipliers", "limit", "token_id", "token_ids", "section")  # and those that are as long as the model by chance
ENDS_WHOLE = ("gemma4",)  # model types whose config makes the last layer one of full attention, whatever it was
UNBUILT = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)  # how transformers refuses a config
TRIED_TOKENS = 24  # on which the cut model is compared with the whole one
CLOSE = 1e-3  # the share of the largest logit by which float32 may move them


def decoder_layers(model: Any) -> tuple[str, Any]:
    """The name and the ModuleList of a causal LM's decoder layers. Raises UsageError where there is not exactly one."""
    from torch.nn import ModuleList

    total = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, ModuleList) and len(part) == total]
    if len(found) > 1:  # a short list of something else is as long by chance
        found = [(name, part) for name, part in found if name.rpartition(".")[2] in ("layers", "h", "blocks")]
    if len(found) != 1:
        raise UsageError(
            f"{type(model).__name__}: {len(found)} lists of {total} layers, expected one",
            "only plain decoder models can be cut",
        )
    return found[0]


# --- which layers need others -------------------------------------------------------------------------------------------


def layer_kinds(config: Any) -> list[str] | None:
    """The kind of each layer ("full_attention", "linear_attention" ...) in a text config; None where all are of one kind."""
    for name in ("layer_types", "layers_block_type"):
        kinds = getattr(config, name, None)
        if isinstance(kinds, (list, tuple)) and len(kinds) == config.num_hidden_layers:
            return [str(kind) for kind in kinds]
    return None


def attends(kind: str) -> bool:
    """Whether a layer of this kind looks at all tokens before it, rather than at a state."""
    return kind == "hybrid" or ("attention" in kind and "linear" not in kind)


def missing_layer(config: Any, chosen: Sequence[int]) -> tuple[list[int], str] | None:
    """(layers of which one must be among the chosen, why); None where the chosen can stand alone."""
    kinds = layer_kinds(config)
    if kinds is None:
        return None
    total = len(kinds)
    attending = [layer for layer in range(total) if attends(kinds[layer])]
    if attending and not set(attending) & set(chosen):
        whole = [layer for layer in attending if kinds[layer] == "full_attention"]
        return whole or attending, "without an attention layer a hybrid model does not work"
    if chosen and str(config.model_type).startswith(ENDS_WHOLE) and kinds[chosen[-1]] != "full_attention":
        later = [layer for layer in attending if layer > chosen[-1] and kinds[layer] == "full_attention"]
        return later or [total - 1], "the last layer of this family attends to all tokens"
    own = total - (getattr(config, "num_kv_shared_layers", None) or 0)  # the later layers read an earlier one's keys and values
    for layer in chosen:
        if layer >= own:
            source = max(earlier for earlier in range(own) if kinds[earlier] == kinds[layer])
            if source not in chosen:
                return [source], f"layer {layer} reads the keys and values of layer {source}"
    return None


def completed(config: Any, chosen: Sequence[int], scores: Sequence[float] | None = None) -> list[int]:
    """As many layers as were chosen, with those that others need: each takes the place of the nearest that nobody needs.

    Among several that would do, the one of the highest score, or without scores the one nearest to the middle. Where there is
    no place left, a layer that needs another one gives way to it.
    """
    layers, needed = list(chosen), set[int]()
    own = config.num_hidden_layers - (getattr(config, "num_kv_shared_layers", None) or 0)
    while missing := missing_layer(config, layers):
        middle = (config.num_hidden_layers - 1) / 2
        best = max(missing[0], key=lambda layer: scores[layer] if scores else -abs(layer - middle))
        unneeded = [layer for layer in layers if layer not in needed] or layers
        free = [layer for layer in unneeded if layer < own] or unneeded
        layers.remove(min(free, key=lambda layer: (abs(layer - best), layer)))
        layers = sorted({*layers, best})
        needed.add(best)
    return layers


# --- cutting ------------------------------------------------------------------------------------------------------------


def cut(model: Any, path: str, chosen: Sequence[int]) -> Any:
    """A new model of the same class that holds only the chosen layers, renumbered from 0; the weights are shared copies.

    The model is built anew from a shortened config, so that everything that knows its layer's number (the KV cache, layer
    types, rotary layers) is right; on a few tokens it computes what the whole model does without the other layers. Raises
    UsageError where the chosen layers cannot stand alone, are not interchangeable, or would compute something else.
    """
    total = model.config.get_text_config(decoder=True).num_hidden_layers
    smaller = _built(type(model), shortened(model.config, chosen), chosen)
    numbers = {str(old): str(new) for new, old in enumerate(chosen)}
    start = f"{path}."
    weights, wanted = {}, smaller.state_dict()
    for name, weight in model.state_dict().items():
        if name.startswith(start):
            number, rest = name.removeprefix(start).split(".", 1)
            if number not in numbers:
                continue
            name = f"{start}{numbers[number]}.{rest}"
        weights[name] = _chosen_parts(weight, wanted[name].shape if name in wanted else weight.shape, total, chosen)
    try:
        smaller.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"the model's layers are of different kinds: {reason}", "choose layers so that each kind keeps its place"
        ) from error
    store_in(smaller, {name: weight.dtype for name, weight in weights.items()})
    smaller.generation_config = model.generation_config
    smaller.eval()
    _check_same(model, path, chosen, smaller)
    return smaller


def _built(kind: Any, config: Any, chosen: Sequence[int]) -> Any:
    """A model of this config, which must mean the same when it is read from a file. Raises UsageError where there is none."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        read = type(config).from_dict(config.to_dict())
        same = layer_kinds(read.get_text_config(decoder=True)) == layer_kinds(config.get_text_config(decoder=True))
        model = kind(config) if same else None
        reason = "its config would make layers of another kind of them"
    except (StrictDataclassError, *UNBUILT) as error:
        model, reason = None, str(error).strip().splitlines()[-1].strip()
    if model is None:
        listed = ",".join(map(str, chosen))
        raise UsageError(f"{kind.__name__} cannot be made of layers {listed} alone: {reason}", "choose other layers")
    return model


def shortened(config: Any, chosen: Sequence[int]) -> Any:
    """A model's config with the chosen layers alone. Raises UsageError where they cannot stand alone."""
    if missing := missing_layer(config.get_text_config(decoder=True), chosen):
        some = " or ".join(map(str, missing[0][:4]))
        raise UsageError(f"layers {','.join(map(str, chosen))}: {missing[1]}", f"keep layer {some} too")
    config = copy.deepcopy(config)
    shorten(config.get_text_config(decoder=True), chosen)
    return config


def store_in(model: Any, dtypes: Mapping[str, Any]) -> None:
    """Stores each parameter and buffer in its dtype. Others stay: frequencies of rotary positions are never rounded."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(dtypes.get(name, tensor.dtype))


def watched(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], hooks: Sequence[Any], what: str, progress: Progress
) -> int:
    """The layers read prompts, rendered as a chat, while hooks watch; removes the hooks. Returns the number of tokens."""
    import torch

    decoder, tokens = model.get_decoder(), 0
    progress.start(what, len(prompts), "prompts")
    try:
        with in_float32(model), torch.inference_mode():
            for messages in prompts:
                encoded = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
                decoder(**encoded.to(model.device), use_cache=False)
                tokens += int(encoded["input_ids"].shape[1])
                progress.advance()
    finally:
        progress.end()
        for hook in hooks:
            hook.remove()
    return tokens


@contextlib.contextmanager
def in_float32(*models: Any) -> Iterator[None]:
    """While it lasts, the models compute in float32, which holds what narrower types hold. Many CPUs have no bfloat16."""
    import torch

    stored = [
        {name: part.dtype for name, part in [*one.named_parameters(), *one.named_buffers()] if part.is_floating_point()}
        for one in models
    ]
    for model, dtypes in zip(models, stored, strict=True):
        store_in(model, dict.fromkeys(dtypes, torch.float32))
    try:
        yield
    finally:
        for model, dtypes in zip(models, stored, strict=True):
            store_in(model, dtypes)


def shorten(text: Any, chosen: Sequence[int]) -> None:
    """Makes a text config one of the chosen layers alone: lists with one entry a layer, lists of layers' numbers, periods.

    Raises UsageError where the config has no words for this choice.
    """
    total, count = text.num_hidden_layers, len(chosen)
    new = {old: number for number, old in enumerate(chosen)}
    kinds = layer_kinds(text)
    changes: dict[str, Any] = {}
    for name, value in text.to_dict().items():
        if not isinstance(value, list) or not value:
            continue
        if _holds_numbers(name, value, total):
            changes[name] = [new[layer] for layer in value if layer in new]
        elif name == "block_types" and kinds:  # a cycle of kinds
            changes[name] = [kinds[layer] for layer in chosen]
        elif len(value) == total and not name.endswith(
            NO_LAYERS
        ):  # one entry a layer: layer_types, no_rope_layers, intermediate_size ...
            changes[name] = [value[layer] for layer in chosen]
    if getattr(text, "decoder_sparse_step", None) is not None and hasattr(text, "mlp_only_layers"):
        step, dense = text.decoder_sparse_step, text.mlp_only_layers or ()
        changes["mlp_only_layers"] = [new[layer] for layer in chosen if layer in dense or (layer + 1) % step]
        changes["decoder_sparse_step"] = 1
    if getattr(text, "first_k_dense_replace", None) is not None:
        changes["first_k_dense_replace"] = sum(layer < text.first_k_dense_replace for layer in chosen)
    if getattr(text, "num_kv_shared_layers", None):
        changes["num_kv_shared_layers"] = sum(layer >= total - text.num_kv_shared_layers for layer in chosen)
    for period, offset in PERIODS:
        if getattr(text, period, None) is not None:
            own = [layer % getattr(text, period) == getattr(text, offset) for layer in chosen]
            changes[period], changes[offset] = _period(own, period)
    apart = text.to_dict().get("per_layer_config")  # what some layers have otherwise than the config says
    if apart:
        text.per_layer_config = None
    for name, value in changes.items():
        setattr(text, name, value)
    if text.num_hidden_layers != count:
        text.num_hidden_layers = count
    if apart:
        text.per_layer_config = {new[int(layer)]: own for layer, own in apart.items() if int(layer) in new}


def _holds_numbers(name: str, value: list[Any], total: int) -> bool:
    """Whether a config's list holds layers' numbers, as mlp_only_layers does, and not one entry a layer."""
    if name == "no_rope_layers" or not name.endswith(INDEX_LISTS) or not all(type(one) is int for one in value):
        return False
    return value == sorted(set(value)) and value[0] >= 0 and value[-1] < total


def _period(own: Sequence[bool], name: str) -> tuple[int, int]:
    """(period, offset) that name exactly these layers."""
    for period in range(1, len(own) + 2):
        for offset in range(period):
            if [number % period == offset for number in range(len(own))] == list(own):
                return period, offset
    raise UsageError(
        f"the chosen layers do not repeat regularly, and the model's config names layers by {name}",
        "choose a list of layers in which each kind comes at equal distances",
    )


def _chosen_parts(weight: Any, wanted: Any, total: int, chosen: Sequence[int]) -> Any:
    """A weight outside the layers that holds a part for each of them, as Gemma-3n's embeddings do: the chosen parts."""
    differing = [place for place, (old, new) in enumerate(zip(weight.shape, wanted, strict=True)) if old != new]
    if len(differing) != 1 or weight.shape[differing[0]] % total:
        return weight
    place = differing[0]
    parts = weight.unflatten(place, (total, weight.shape[place] // total))
    return parts[(slice(None),) * place + (list(chosen),)].flatten(place, place + 1)


def _check_same(model: Any, path: str, chosen: Sequence[int], smaller: Any) -> None:
    """Raises UsageError unless the smaller model computes what the whole one does when the other layers pass on their input."""
    kept = set(chosen)

    def pass_on(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        unchanged = args[0] if args else kwargs["hidden_states"]
        return (unchanged, *output[1:]) if isinstance(output, tuple) else unchanged

    layers = model.get_submodule(path)
    hooks = [
        layer.register_forward_hook(pass_on, with_kwargs=True) for number, layer in enumerate(layers) if number not in kept
    ]
    check_hooked(
        model, hooks, smaller, "the chosen layers", "choose other layers, or use a smaller model of this family as it is"
    )


def check_hooked(model: Any, hooks: Sequence[Any], smaller: Any, what: str, hint: str) -> None:
    """Raises UsageError unless a cut model computes what the whole one does under these hooks, which are removed."""
    import torch

    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    tokens = torch.arange(TRIED_TOKENS, device=model.device)[None] * 7 % vocabulary
    try:
        with in_float32(model, smaller), torch.inference_mode():
            whole, part = (one(tokens, use_cache=False).logits.float() for one in (model.eval(), smaller))
    finally:
        for hook in hooks:
            hook.remove()
    check_close(model, whole, part, what, hint)


def check_close(model: Any, whole: Any, part: Any, what: str, hint: str) -> None:
    """Raises UsageError unless a cut model's logits are those of the whole one, both computed in float32."""
    import torch

    if not torch.allclose(whole, part, rtol=CLOSE, atol=CLOSE * float(whole.abs().max())):
        raise UsageError(
            f"{type(model).__name__}: it computes something else with {what} alone "
            f"(logits move by up to {float((whole - part).abs().max()):.3g})",
            hint,
        )
