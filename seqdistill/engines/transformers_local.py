"""The transformers engine: a Hugging Face folder, hub id or .gguf file, run in this process on the CPU or a GPU.

Length-sorted large batches, which answers leave when they have ended; what all prompts of a batch begin with is read once.
Sampling draws each request's noise from its own seed, so that neither order nor batch decides what is sampled.
"""

import asyncio
import json
import time
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import cached_property
from typing import Any

from seqdistill.engines import UNMETERED, Completion, Meter, Request, check_able, split_reasoning, take_size
from seqdistill.engines.loading import files_of, load, named
from seqdistill.engines.logits import JsonSchema, OneOf, SeededSampling, Step, TopLogprobs
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig

BATCH_SIZE = 64  # on 2 cores, 64 is twice as fast as 16
BATCH_TOKENS = 65_536  # prompt and completion tokens held by one batch's KV cache at most
SHARED_ROWS, SHARED_TOKENS = 4, 16  # a shared beginning is cached from this many rows and tokens on

Encoded = tuple[Request, "array[int]"]  # a request and its prompt's tokens, 4 bytes each


class TransformersEngine:
    """A causal language model with a chat template. Options: batch_size, batch_tokens, dtype, device."""

    def __init__(self, model: ModelConfig) -> None:
        """Loads the model. Raises UsageError for an unknown model, a bad option or a model without a chat template."""
        files_of(model)  # first: a wrong name shows before torch is loaded
        import torch

        options = dict(model.options)
        self._batch_size = take_size(options, "batch_size", BATCH_SIZE)
        self._batch_tokens = take_size(options, "batch_tokens", BATCH_TOKENS)
        dtype, device = options.pop("dtype", "auto"), options.pop("device", None)
        if options:
            known = "batch_size, batch_tokens, dtype, device"
            raise UsageError(f"unknown option {next(iter(options))!r} for the transformers engine", f"options are {known}")
        if dtype != "auto" and not isinstance(getattr(torch, str(dtype), None), torch.dtype):
            raise UsageError(f"the engine's option dtype = {dtype!r}: torch has none of this name", "for example float32")
        try:
            self._device = torch.empty(0, device=device or ("cuda" if torch.cuda.is_available() else "cpu")).device
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"the engine's option device = {device!r}: {reason}", "cpu, cuda or cuda:1") from error
        self._tokenizer = load("AutoTokenizer", model, padding_side="left")
        if not self._tokenizer.chat_template:
            raise UsageError(f"{named(model)} has no chat template", "use an instruct model")
        self._model = load("AutoModelForCausalLM", model, dtype=dtype)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.to(self._device).eval()
        stops = self._model.generation_config.eos_token_id
        stops = [stops] if isinstance(stops, int) else list(stops or [])
        self._stops = list(dict.fromkeys([*stops, self._tokenizer.eos_token_id]))
        self._cancelled = False
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30

    @property
    def parameters(self) -> int:
        """How many parameters the model has; tied ones count once."""
        return int(self._model.num_parameters())

    async def stream(
        self,
        requests: Sequence[Request],
        meter: Meter = UNMETERED,  # noqa: ARG002 - nothing is billed
    ) -> AsyncGenerator[Completion, None]:
        """Yields one completion for each request, batch by batch, longest prompts first."""
        encoded = []
        for request in requests:
            check_able("transformers", request)
            tokens = self._encode(request)
            if len(tokens) + request.max_tokens > self._longest:
                yield Completion(
                    request.id,
                    error="too long",
                    message=f"{len(tokens)} prompt tokens + max_tokens {request.max_tokens} exceed the model's {self._longest}",
                )
            else:
                encoded.append((request, array("i", tokens)))
        for batch in self._batches(encoded):
            try:
                completions = await asyncio.to_thread(self._generate, batch)
            except asyncio.CancelledError:
                self._cancelled = True  # the batch's thread stops at its next token
                raise
            for completion in completions:
                yield completion

    async def close(self) -> None:
        """Frees the model's memory."""
        import torch

        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _encode(self, request: Request) -> list[int]:
        encoding = self._tokenizer.apply_chat_template(
            request.messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(encoding["input_ids"])

    def _batches(self, encoded: list[Encoded]) -> Iterator[list[Encoded]]:
        """Batches of requests that one `generate` call can answer, longest first: what does not fit shows at once."""

        def kind(item: Encoded) -> tuple[int, float, float, int, int, str]:
            request = item[0]
            logprobs = -1 if request.logprobs is None else request.logprobs
            form = json.dumps(request.schema or request.choices)
            return request.max_tokens, request.temperature, request.top_p, request.beams, logprobs, form

        ordered = sorted(encoded, key=lambda item: (kind(item), -len(item[1])))
        batch: list[Encoded] = []
        for item in ordered:
            width = len(batch[0][1]) + item[0].max_tokens if batch else 0
            beams = item[0].beams
            full = (len(batch) + 1) * beams > self._batch_size or (len(batch) + 1) * beams * width > self._batch_tokens
            if batch and (full or kind(item) != kind(batch[0])):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    @cached_property
    def _plain_cache(self) -> bool:
        """Whether the model keeps every token's keys and values and nothing else, so that rows can be copied and dropped."""
        import torch
        from transformers import DynamicCache

        token = torch.tensor([[self._stops[0]]], device=self._device)
        with torch.inference_mode():
            cache = getattr(self._model(input_ids=token, use_cache=True), "past_key_values", None)
        return isinstance(cache, DynamicCache) and not any(cache.is_sliding)  # a window would count the padding

    @cached_property
    def _grammar_tokens(self) -> Any:
        """The tokenizer as llguidance wants it."""
        from llguidance.hf import from_tokenizer

        try:
            return from_tokenizer(self._tokenizer, self._model.config.get_text_config().vocab_size)
        except ValueError as error:
            raise UsageError(
                f"[generate.schema]: the model's tokenizer has no grammars: {error}", "use another engine"
            ) from error

    def _begin(self, rows: list[list[int]], beams: int) -> dict[str, Any]:
        """A padded batch as `generate` takes it, with the cache of what all its rows begin with, computed once.

        A task's instructions stand before every prompt: on the demo they are half of what the teacher reads.
        """
        import torch

        first, last = min(rows), max(rows)  # in lexical order, what these two share, all share
        same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, rows)))
        shared = first[: min(same, min(map(len, rows)) - 1)]
        if len(rows) < SHARED_ROWS or len(shared) < SHARED_TOKENS or beams > 1 or not self._plain_cache:
            shared = []  # with beams, `generate` copies rows, but no cache
        rests = self._tokenizer.pad({"input_ids": [row[len(shared) :] for row in rows]}, return_tensors="pt").to(self._device)
        if not shared:
            return {**rests, "past_key_values": None}
        beginning = torch.tensor([shared], device=self._device)
        with torch.inference_mode():
            cache = self._model(input_ids=beginning, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(rows))
        # shared beginning, padding, rest: the positions follow the mask, so the padding takes none
        tokens = torch.cat([beginning.expand(len(rows), -1), rests["input_ids"]], dim=1)
        mask = torch.cat([torch.ones_like(beginning).expand(len(rows), -1), rests["attention_mask"]], dim=1)
        return {"input_ids": tokens, "attention_mask": mask, "past_key_values": cache}

    def _steps(self, batch: list[Encoded], width: int) -> tuple[list[Step], TopLogprobs | None]:
        """What is done to the logits of a batch whose prompts are `width` tokens wide, and what notes log-probabilities."""
        first = batch[0][0]
        noted = None if first.logprobs is None else TopLogprobs(first.logprobs, len(batch))
        steps: list[Step] = [] if noted is None else [noted]  # first, so that it sees the model's own
        if first.choices:
            texts = [self._tokenizer.encode(choice, add_special_tokens=False) for choice in first.choices]
            steps.append(OneOf(texts, self._stops, width))
        if first.schema is not None:
            steps.append(JsonSchema(self._grammar_tokens, first.schema, len(batch)))
        if first.temperature > 0:
            steps.append(SeededSampling([request for request, _ in batch]))
        return steps, noted

    def _write(self, inputs: dict[str, Any], steps: list[Step], asked: Request) -> list[list[int]]:
        """What the model writes to each row: up to a stop token, then padding; at most max_tokens tokens.

        Whenever a quarter of the rows have ended, the others go on without them.
        """
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        width = inputs["input_ids"].shape[1]
        stops = torch.tensor(self._stops, device=self._device)
        may_leave = asked.beams == 1 and self._plain_cache

        def ended(tokens: Any) -> Any:  # (B, T) -> (B)
            return torch.isin(tokens[:, width:], stops).any(dim=1)

        def pause(tokens: Any, _scores: Any, **_: Any) -> Any:  # (B, T) -> (B): at once for all rows, or for none
            now = self._cancelled or (may_leave and int(ended(tokens).sum()) >= max(1, len(tokens) // 4))
            return torch.full((len(tokens),), now, dtype=torch.bool, device=self._device)

        written: list[list[int]] = [[]] * len(inputs["input_ids"])
        left = list(range(len(written)))
        while left:
            before = inputs["input_ids"].shape[1]
            with torch.inference_mode():
                output = self._model.generate(
                    **inputs,
                    do_sample=False,
                    num_beams=asked.beams,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=asked.max_tokens - (before - width),
                    eos_token_id=self._stops,
                    pad_token_id=self._tokenizer.pad_token_id,
                    logits_processor=LogitsProcessorList(steps),
                    stopping_criteria=StoppingCriteriaList([pause]),
                    return_dict_in_generate=True,
                )
            tokens = output.sequences
            for row, new in zip(left, tokens[:, width:].tolist(), strict=True):
                written[row] = new
            whole = not may_leave or self._cancelled or tokens.shape[1] - width >= asked.max_tokens
            going = (~ended(tokens)).nonzero()[:, 0][: 0 if whole else None]
            left = [left[row] for row in going.tolist()]
            for step in steps:
                step.keep(tokens, going.tolist())
            if left:
                mask, cache = inputs["attention_mask"], output.past_key_values
                mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1] - before)], dim=1)
                cache.batch_select_indices(going)
                inputs = {"input_ids": tokens[going], "attention_mask": mask[going], "past_key_values": cache}
        return written

    def _generate(self, batch: list[Encoded]) -> list[Completion]:
        began = time.perf_counter()
        inputs = self._begin([tokens.tolist() for _, tokens in batch], batch[0][0].beams)
        steps, noted = self._steps(batch, inputs["input_ids"].shape[1])
        written = self._write(inputs, steps, batch[0][0])
        seconds = (time.perf_counter() - began) / len(batch)
        completions: list[Completion] = []
        for place, ((request, tokens), row) in enumerate(zip(batch, written, strict=True)):
            stop = next((at for at, token in enumerate(row) if token in self._stops), None)
            text = self._tokenizer.decode(row[:stop], skip_special_tokens=True)
            content, reasoning = split_reasoning(text)
            said = row if stop is None else row[: stop + 1]
            raw = {"text": text, "stop_token": None if stop is None else row[stop]}
            completions.append(
                Completion(
                    id=request.id,
                    content=content,
                    reasoning=reasoning,
                    finish_reason="length" if stop is None else "stop",
                    prompt_tokens=len(tokens),
                    completion_tokens=len(said),
                    seconds=seconds,
                    raw=raw if noted is None else {**raw, "logprobs": noted.of(place, said)},
                    batch_left=len(batch) - place - 1,
                )
            )
        return completions
