"""The transformers engine: a Hugging Face folder, hub id or .gguf file, run in this process on the CPU or a GPU.

Length-sorted large batches. Sampling draws each request's noise from its own seed, so that neither order nor batch
decides what is sampled.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from seqdistill.config import ModelConfig
from seqdistill.engines import Completion, Request, check_able, split_reasoning
from seqdistill.engines.models import local_model, quiet_transformers
from seqdistill.errors import UsageError

BATCH_SIZE = 64  # on 2 cores, 64 is twice as fast as 16
BATCH_TOKENS = 65_536  # prompt and completion tokens held by one batch's KV cache at most
SHARED_ROWS, SHARED_TOKENS = 4, 16  # a shared beginning is cached from this many rows and tokens on


class TransformersEngine:
    """A causal language model with a chat template. Options: batch_size, batch_tokens, dtype, device."""

    def __init__(self, model: ModelConfig) -> None:
        """Loads the model. Raises UsageError for an unknown model, a bad option or a model without a chat template."""
        import torch
        import transformers

        quiet_transformers()
        options = {"batch_size": BATCH_SIZE, "batch_tokens": BATCH_TOKENS, "dtype": "auto", "device": None, **model.options}
        self._batch_size, self._batch_tokens = int(options.pop("batch_size")), int(options.pop("batch_tokens"))
        dtype, device = options.pop("dtype"), options.pop("device")
        if options:
            known = "batch_size, batch_tokens, dtype, device"
            raise UsageError(f"unknown option {next(iter(options))!r} for the transformers engine", f"options are {known}")
        if not model.model:
            raise UsageError("no model is named", "give --teacher, or model in the recipe's [teacher]")
        source = local_model(model.model)
        loading: dict[str, Any] = {"revision": model.revision} if model.revision else {}
        loading["trust_remote_code"] = model.trust_remote_code
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(source, padding_side="left", **loading)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **loading
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"model {model.model!r} cannot be loaded: {reason}", "check the name; see `--teacher`") from error
        if not self._tokenizer.chat_template:
            raise UsageError(f"model {model.model!r} has no chat template", "use an instruct model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
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

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
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
                encoded.append((request, tokens))
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

    def _batches(self, encoded: list[tuple[Request, list[int]]]) -> Iterator[list[tuple[Request, list[int]]]]:
        """Batches of requests that one `generate` call can answer, longest first: what does not fit shows at once."""

        def kind(item: tuple[Request, list[int]]) -> tuple[int, float, float, int, list[str]]:
            request = item[0]
            return request.max_tokens, request.temperature, request.top_p, request.beams, request.choices or []

        ordered = sorted(encoded, key=lambda item: (kind(item), -len(item[1])))
        batch: list[tuple[Request, list[int]]] = []
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

    def _inputs(self, rows: list[list[int]], beams: int) -> tuple[dict[str, Any], Any]:
        """A padded batch for `generate`, and the cache of what all its rows begin with, computed once; None without one.

        A task's instructions stand before every prompt: on the demo they are half of what the teacher reads.
        """
        import torch
        from transformers import DynamicCache

        first, last = min(rows), max(rows)  # in lexical order, what these two share, all share
        same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, rows)))
        shared = first[: min(same, min(map(len, rows)) - 1)]
        if len(rows) < SHARED_ROWS or len(shared) < SHARED_TOKENS or beams > 1:  # `generate` copies rows for beams, no cache
            shared = []
        rests = [row[len(shared) :] for row in rows]
        inputs = self._tokenizer.pad({"input_ids": rests}, return_tensors="pt").to(self._device)
        if not shared:
            return dict(inputs), None
        beginning = torch.tensor([shared], device=self._device)
        with torch.inference_mode():
            cache = self._model(input_ids=beginning, use_cache=True, logits_to_keep=1).past_key_values
        if not isinstance(cache, DynamicCache) or any(cache.is_sliding):  # a window would count the padding in between
            return dict(self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)), None
        cache.batch_repeat_interleave(len(rows))
        # shared beginning, padding, rest: the positions follow the mask, so the padding takes none
        tokens = torch.cat([beginning.expand(len(rows), -1), inputs["input_ids"]], dim=1)
        mask = torch.cat([torch.ones_like(beginning).expand(len(rows), -1), inputs["attention_mask"]], dim=1)
        return {"input_ids": tokens, "attention_mask": mask}, cache

    def _stop_when_cancelled(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        import torch

        return torch.full((input_ids.shape[0],), self._cancelled, dtype=torch.bool, device=input_ids.device)

    def _generate(self, batch: list[tuple[Request, list[int]]]) -> list[Completion]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        first = batch[0][0]
        began = time.perf_counter()
        inputs, cache = self._inputs([tokens for _, tokens in batch], first.beams)
        width = inputs["input_ids"].shape[1]
        processors: list[Any] = []
        if first.choices:
            texts = [self._tokenizer.encode(choice, add_special_tokens=False) for choice in first.choices]
            processors.append(_OneOf(texts, self._stops, width))
        if first.temperature > 0:
            processors.append(_SeededSampling([request for request, _ in batch]))
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                past_key_values=cache,
                do_sample=False,
                num_beams=first.beams,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=first.max_tokens,
                eos_token_id=self._stops,
                pad_token_id=self._tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList([self._stop_when_cancelled]),
            )
        seconds = (time.perf_counter() - began) / len(batch)
        completions: list[Completion] = []
        for (request, tokens), row in zip(batch, output[:, width:].tolist(), strict=True):
            stop = next((at for at, token in enumerate(row) if token in self._stops), None)
            kept = row[: len(row) if stop is None else stop]
            text = self._tokenizer.decode(kept, skip_special_tokens=True)
            content, reasoning = split_reasoning(text)
            completions.append(
                Completion(
                    id=request.id,
                    content=content,
                    reasoning=reasoning,
                    finish_reason="length" if stop is None else "stop",
                    prompt_tokens=len(tokens),
                    completion_tokens=len(kept) + (stop is not None),
                    seconds=seconds,
                    raw={"text": text, "stop_token": None if stop is None else row[stop]},
                    batch_left=len(batch) - len(completions) - 1,
                )
            )
        return completions


class _OneOf:
    """A logits processor that lets through only the tokens of some texts, each with a stop token behind it."""

    def __init__(self, texts: list[list[int]], stops: list[int], width: int) -> None:
        """`width` is the prompts' length, from which on a row is compared with the texts."""
        self._stops, self._width = stops, width
        self._next: dict[tuple[int, ...], list[int]] = {}  # by what was written: what may follow
        for text in texts:
            for place, token in enumerate(text):
                self._next.setdefault(tuple(text[:place]), []).append(token)
            self._next.setdefault(tuple(text), []).extend(stops)

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        masked = scores.new_full(scores.shape, float("-inf"))
        for row, written in enumerate(input_ids[:, self._width :].tolist()):
            allowed = self._next.get(tuple(written), self._stops)  # what has ended goes on with padding
            masked[row, allowed] = scores[row, allowed]
        return masked


class _SeededSampling:
    """A logits processor that makes greedy decoding sample: Gumbel-max, with noise from each request's own seed.

    argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T): Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030.
    """

    def __init__(self, requests: list[Request]) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        self._temperature, self._top_p = requests[0].temperature, requests[0].top_p

    def __call__(self, _input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        import torch

        scores = scores.float() / self._temperature
        if self._top_p < 1:
            ranked, order = scores.sort(descending=True, dim=-1)
            share = ranked.softmax(-1)
            outside = share.cumsum(-1) - share > self._top_p
            scores = scores.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
        noise = torch.stack([torch.rand(scores.shape[-1], generator=generator) for generator in self._generators])
        return scores - torch.log(-torch.log(noise.clamp_min(1e-20))).to(scores.device)
