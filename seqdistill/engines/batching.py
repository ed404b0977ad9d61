"""How several prompts are answered by one call of transformers' `generate`, and how far the loaded model supports it.

Owns padding, the cache of a shared beginning, rows that leave when their answer has ended, and the measurement that decides
which of these leave the model's answers as they are. No architecture is named: the cache says what it is made of, and the
model is run on a few prompts both ways. Does not know requests, text or sampling.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.engines.logits import Step

SHARED_ROWS, SHARED_TOKENS = 4, 16  # a shared beginning is cached from this many rows and tokens on
# Mean difference of logits over their spread that is rounding, by bytes of a weight. Measured: 110 tiny architectures reach
# 9e-6 in float32 and 5e-3 in bfloat16, a 30-layer model 1e-6 and 5e-2; a state that read the padding is off by 1 from the
# second token on. What the padding is filled with changes no number in the same places, or else from 9e-2 on.
TOLERANCE, FILLING_TOLERANCE = {4: 1e-4, 2: 0.25}, {4: 1e-4, 2: 0.02}


@dataclass(frozen=True)
class Batching:
    """What may be done to a batch without changing its answers."""

    several: bool  # more than one row
    padding: bool  # rows of different lengths, padded on the left
    leaving: bool  # rows that have ended are dropped from the cache, and the others continue
    sharing: int  # what all rows begin with is read once, in batches up to this width in tokens; 0: never


def begin(model: Any, rows: Sequence[list[int]], pad: int, sharing: int, max_tokens: int) -> dict[str, Any]:
    """A padded batch as `generate` takes it, with the cache of what all its rows begin with, computed once.

    A task's instructions begin every prompt: on the demo they are half of what the teacher reads.
    """
    import torch

    first, last = min(rows), max(rows)  # in lexical order, what these two share, all share
    shortest, longest = min(map(len, rows)), max(map(len, rows))
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), shortest)
    shared = first[: min(same, shortest - 1)]
    if len(rows) < SHARED_ROWS or len(shared) < SHARED_TOKENS or longest + max_tokens > sharing:
        shared = []
    # shared beginning, padding, rest: the positions follow the mask, so the padding takes none
    padding = [longest - len(row) for row in rows]
    tokens = [[*shared, *[pad] * room, *row[len(shared) :]] for row, room in zip(rows, padding, strict=True)]
    mask = [[1] * len(shared) + [0] * room + [1] * (longest - len(shared) - room) for room in padding]
    cache = None
    if shared:
        with torch.inference_mode():
            cache = model(input_ids=torch.tensor([shared], device=model.device), use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rows))
    return {
        "input_ids": torch.tensor(tokens, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
        "past_key_values": cache,
    }


def write(
    model: Any,
    inputs: dict[str, Any],
    steps: Sequence[Step],
    max_tokens: int,
    stops: Sequence[int],
    pad: int,
    *,
    beams: int = 1,
    leaving: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """What the model writes to each row: up to a stop token, then padding; at most max_tokens tokens.

    With `leaving`, whenever a quarter of the rows have ended, the others continue without them.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    width = inputs["input_ids"].shape[1]
    ends = torch.tensor(stops, device=model.device)

    def ended(tokens: Any) -> Any:  # (B, T) -> (B)
        return torch.isin(tokens[:, width:], ends).any(dim=1)

    def pause(tokens: Any, _scores: Any, **_: Any) -> Any:  # (B, T) -> (B): at once for all rows, or for none
        now = cancelled() or (leaving and int(ended(tokens).sum()) >= max(1, len(tokens) // 4))
        return torch.full((len(tokens),), now, dtype=torch.bool, device=model.device)

    written: list[list[int]] = [[]] * len(inputs["input_ids"])
    left = list(range(len(written)))
    while left:
        before = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                do_sample=False,
                num_beams=beams,
                max_new_tokens=max_tokens - (before - width),
                eos_token_id=list(stops),
                pad_token_id=pad,
                logits_processor=LogitsProcessorList(list(steps)),
                stopping_criteria=StoppingCriteriaList([pause]),
                return_dict_in_generate=True,
            )
        tokens = output.sequences
        for row, new in zip(left, tokens[:, width:].tolist(), strict=True):
            written[row] = new
        whole = not leaving or cancelled() or tokens.shape[1] - width >= max_tokens
        going = (~ended(tokens)).nonzero()[:, 0][: 0 if whole else None]
        left = [left[row] for row in going.tolist()]
        for step in steps:
            step.keep(tokens, going.tolist())
        if left:
            mask, cache = inputs["attention_mask"], output.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1] - before)], dim=1)
            cache.reorder_cache(going)
            inputs = {"input_ids": tokens[going], "attention_mask": mask[going], "past_key_values": cache}
    return written


# --- the measurement --------------------------------------------------------------------------------------------------

WRITTEN = 3  # tokens to each prompt of the measurement
RESTS = (9, 4, 4, 2)  # lengths of the prompts behind their shared beginning
SHARED = SHARED_TOKENS + 1


def measure(model: Any, tokens: Sequence[int], stops: Sequence[int], pad: int) -> Batching:
    """What the loaded model allows, found by running it on short prompts made of `tokens`, in about 20 small steps.

    Where a model keeps a state of a kind that short prompts cannot test, only rows of equal length share a batch.
    """
    pool = [token for token in tokens if token not in stops] or [pad]
    pool = (pool * (200 // len(pool) + 1))[:200]
    shared, rest = pool[:SHARED], pool[SHARED:]
    rows = [shared + rest[12 * at : 12 * at + length] for at, length in enumerate(RESTS)]
    texts = [rest[60 + 7 * at : 60 + 7 * at + WRITTEN] for at in range(len(rows))]
    for text in texts[:2]:
        text[1:] = [stops[0]]  # ends early, so that it leaves where rows may leave
    window, known, droppable, plain = _cache_kind(model, pool[0])

    def logits(at: Sequence[int], *, fill: int = pad, leaving: bool = False, sharing: int = 0) -> list[Any]:
        inputs = begin(model, [rows[row] for row in at], pad, sharing, WRITTEN)
        inputs["input_ids"] = inputs["input_ids"].where(inputs["attention_mask"] == 1, fill)
        forced = Forced([texts[row] for row in at], inputs["input_ids"].shape[1], stops[0])
        write(model, inputs, [forced], WRITTEN, stops, pad, leaving=leaving)
        return forced.seen

    everyone = range(len(rows))
    alone = {row: logits([row])[0] for row in (2, 3)}  # the two that are padded and written to the end

    def as_alone(at: Sequence[int], **how: Any) -> list[Any] | None:
        """The logits of a batch of these rows; None where they are not those of the rows alone."""
        try:
            found = dict(zip(at, logits(at, **how), strict=True))
        except (RuntimeError, AttributeError, IndexError, TypeError, ValueError):  # a cache that cannot do it says so
            return None
        checked = [row for row in at if row in alone]
        same = all(_are_alike(alone[row], found[row], TOLERANCE, model.dtype) for row in checked)
        return [found[row] for row in checked] if same else None

    fillings = [as_alone(everyone), as_alone(everyone, fill=rest[-1])] if known else [None]
    padding = None not in fillings and all(
        _are_alike(one, other, FILLING_TOLERANCE, model.dtype) for one, other in zip(*fillings, strict=True)
    )
    several = padding or as_alone([1, 2]) is not None
    leaving = several and droppable and as_alone(everyone if padding else [1, 2], leaving=True) is not None
    wide = max(map(len, rows)) + WRITTEN <= window
    sharing = padding and leaving and plain and wide and as_alone(everyone, leaving=True, sharing=window) is not None
    return Batching(several, padding, leaving, window if sharing else 0)


class Forced:
    """Makes a batch write known texts, and keeps the model's own logits before each of their tokens."""

    def __init__(self, texts: list[list[int]], width: int, stop: int) -> None:
        """`width` is the prompts' length; behind its text a row writes `stop`."""
        self._texts, self._width, self._stop = texts, width, stop
        self._left = list(range(len(texts)))
        self.seen: list[list[Any]] = [[] for _ in texts]  # by row and place: (V)

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        place = input_ids.shape[1] - self._width
        forced = scores.new_full(scores.shape, float("-inf"))
        for row, text in enumerate(self._left):
            inside = place < len(self._texts[text])
            forced[row, self._texts[text][place] if inside else self._stop] = 0
            if inside:
                self.seen[text].append(scores[row].float())
        return forced

    def keep(self, _tokens: Any, rows: list[int]) -> None:
        self._left = [self._left[row] for row in rows]


def _are_alike(one: list[Any], other: list[Any], tolerance: Mapping[int, float], dtype: Any) -> bool:
    """Whether the logits of two texts, place by place, are the same but for rounding."""
    import torch

    a, b = torch.stack(one), torch.stack(other)  # (T, V)
    allowed = tolerance[4 if dtype.itemsize >= 4 else 2]
    return bool((a - b).abs().mean(-1).max() <= allowed * a.std())


def _cache_kind(model: Any, token: int) -> tuple[int, bool, bool, bool]:
    """A model's cache: (its smallest window in tokens, made of known kinds, of kinds that drop rows, of keys and values alone).

    A model without a cache object counts as known: its state shows from the first tokens on.
    """
    import torch
    from transformers import DynamicCache, cache_utils

    with torch.inference_mode():
        output = model(input_ids=torch.tensor([[token]], device=model.device), use_cache=True)
    cache: Any = getattr(output, "past_key_values", None)
    config = model.config.get_text_config(decoder=True).to_dict()
    windows = [
        value
        for name, value in config.items()
        if isinstance(value, int) and value > 0 and ("window" in name or "attention_chunk" in name) and "layers" not in name
    ]
    if type(cache) is not DynamicCache:
        return min(windows, default=1 << 30), cache is None, False, False
    windows += [layer.sliding_window for layer in cache.layers if getattr(layer, "is_sliding", False)]
    kinds = {type(layer) for layer in cache.layers}
    plain = {cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer}
    linear = {
        cache_utils.LinearAttentionLayer,
        cache_utils.LinearAttentionAndFullAttentionLayer,
        cache_utils.LinearAttentionAndSlidingWindowAttentionLayer,
    }
    known = kinds <= plain | linear
    return min(windows, default=1 << 30), known, known, kinds <= plain
