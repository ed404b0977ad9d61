"""The transformers engine: a Hugging Face folder, hub id or .gguf file, run in this process on the CPU or a GPU.

Length-sorted large batches, which answers leave when they have ended; what all prompts of a batch begin with is read once.
Sampling draws each request's noise from its own seed, so that neither order nor batch decides what is sampled.
"""

import asyncio
import json
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from seqdistill.engines import UNMETERED, Completion, Meter, Request, check_supported, take_size
from seqdistill.engines.answer_markup import answer_markup, answer_so_far, read_answer, turn_end
from seqdistill.engines.attention import share_heads
from seqdistill.engines.batching import Batching, begin, measure, write
from seqdistill.engines.chat_prompt import check_not_all_refused, prompt_tokens
from seqdistill.engines.chat_templates import configured_template
from seqdistill.engines.generation_config import neutralise, stop_ids
from seqdistill.engines.loading import default_device, files_of, load, longest_input, named
from seqdistill.engines.logits import FirstToken, Heard, JsonSchema, OneOf, SeededSampling, Step, TopLogprobs, Written
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig

BATCH_SIZE = 64  # on 2 cores, 64 is twice as fast as 16
BATCH_TOKENS = 65_536  # prompt and completion tokens held by one batch's KV cache at most
MEASURED_ON = (
    "The library on Mill Lane is shut on Monday, because the roof is repaired; books can be returned at the town hall."
)
ALONE = Batching(several=False, padding=False, leaving=False, sharing=0)

Encoded = tuple[Request, "array[int]"]  # a request and its prompt's tokens, 4 bytes each


class TransformersEngine:
    """A causal language model with a chat template. Options: batch_size, batch_tokens, dtype, device.

    `neutralised` names the settings of its generation_config.json that would bend its answers and do not act.
    """

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
            raise UsageError(f"the engine's option dtype = {dtype!r}: torch has no such dtype", "for example float32")
        try:
            self._device = torch.empty(0, device=default_device({"device": device})).device
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"the engine's option device = {device!r}: {reason}", "cpu, cuda or cuda:1") from error
        self._tokenizer = load("AutoTokenizer", model, padding_side="left")
        if (template := configured_template(model)) is not None:
            self._tokenizer.chat_template = template
        if not self._tokenizer.chat_template:
            raise UsageError(f"{named(model)} has no chat template", "use an instruct model")
        self._model = load("AutoModelForCausalLM", model, dtype=dtype)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.to(self._device).eval()
        share_heads(self._model)
        self._what = named(model)
        stops = stop_ids(self._model.generation_config.eos_token_id)
        self._template = model.chat_template_kwargs
        self._markup = answer_markup(self._tokenizer, self._template, model.reasoning_tags)
        ends = [self._tokenizer.eos_token_id, turn_end(self._tokenizer, self._markup)]
        self._stops = [stop for stop in dict.fromkeys([*stops, *ends]) if stop is not None]
        self.neutralised = neutralise(self._model)
        self._cancelled = False
        self._longest = longest_input(self._model.config)

    @property
    def parameters(self) -> int:
        """How many parameters the model has; tied ones count once."""
        return int(self._model.num_parameters())

    async def stream(
        self,
        requests: Sequence[Request],
        meter: Meter = UNMETERED,  # noqa: ARG002 - nothing is billed
    ) -> AsyncGenerator[Completion, None]:
        """Yields one completion for each request, batch by batch, longest prompts first; texts to be scored come last."""
        scored = [request for request in requests if request.score]
        encoded, failed = self._encoded(request for request in requests if not request.score)
        check_not_all_refused(self._what, [*failed, *encoded])
        for completion in failed:
            yield completion
        able = await asyncio.to_thread(lambda: self.batching) if len(encoded) > 1 else ALONE
        for batch in _batches(encoded, self._batch_size, self._batch_tokens, able):
            try:
                completions = await asyncio.to_thread(self._generate, batch)
            except asyncio.CancelledError:
                self._cancelled = True  # the batch's thread stops at its next token
                raise
            for completion in completions:
                yield completion
        for request in scored:
            yield await asyncio.to_thread(self._score, request)

    def answer_all(
        self,
        requests: Sequence[Request],
        heard: Heard,
        done: Callable[[Completion], None],
        unwanted: Callable[[Sequence[str]], bool],
    ) -> None:
        """Answers requests in this thread, for somebody who waits: `heard` receives each answer's tokens as they are written.

        `done` receives each completion, its failure included. A batch ends early once all its ids are `unwanted`.
        """
        encoded, failed = self._encoded(requests)
        for completion in failed:
            done(completion)
        able = self.batching if len(encoded) > 1 else ALONE
        for batch in _batches(encoded, self._batch_size, self._batch_tokens, able):
            names = [request.id for request, _ in batch]
            if not unwanted(names):
                for completion in self._generate(batch, heard, lambda names=names: unwanted(names)):  # type: ignore[misc]
                    done(completion)

    def _encoded(self, requests: Iterable[Request]) -> tuple[list[Encoded], list[Completion]]:
        """The requests with their prompts' tokens, and the failures of those that the model cannot be sent."""
        encoded: list[Encoded] = []
        failed: list[Completion] = []
        for request in requests:
            check_supported("transformers", request)
            tokens = prompt_tokens(self._tokenizer, request, self._template, self._longest, self._markup.lead)
            if isinstance(tokens, Completion):
                failed.append(tokens)
            else:
                encoded.append((request, array("i", tokens)))
        return encoded, failed

    def text_of(self, tokens: Sequence[int], request: Request) -> str:
        """The answer in the tokens that were written so far, as far as it is certain, without what ends it."""
        written = [token for token in tokens if token not in self._stops]
        return answer_so_far(self._tokenizer, self._markup, written, formed=request.has_form)

    def token_text(self, token: int) -> str:
        """A token by itself."""
        return str(self._tokenizer.decode([token]))

    async def close(self) -> None:
        """Frees the model's memory."""
        import torch

        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def batching(self) -> Batching:
        """What may be done to a batch of this model without changing its answers; measured once."""
        words = self._tokenizer.encode(MEASURED_ON, add_special_tokens=False)
        return measure(self._model, words, self._stops, self._tokenizer.pad_token_id)

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

    def _score(self, request: Request) -> Completion:
        """The text's negative log-likelihood in nats, `raw["nll"]`, and the number of tokens it is summed over, all but the
        first. One text at a time: the others in a batch cannot change its score.
        """
        import torch

        began = time.perf_counter()
        tokens = self._tokenizer(request.messages[-1]["content"], return_tensors="pt")["input_ids"]  # (1, T)
        length = tokens.shape[1]
        if not 2 <= length <= self._longest:
            message = f"{length} tokens to be scored; the model takes 2 to {self._longest}"
            return Completion(request.id, error="too long", message=message)
        tokens = tokens.to(self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=tokens).logits[0, :-1].float()  # (T - 1, V)
            nll = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
        raw = {"nll": round(nll, 6), "tokens": length - 1}
        seconds = time.perf_counter() - began
        return Completion(request.id, finish_reason="stop", prompt_tokens=length, seconds=seconds, raw=raw)

    def _generate(
        self,
        batch: list[Encoded],
        heard: Heard | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        began, first_token = time.perf_counter(), FirstToken()
        first, pad = batch[0][0], self._tokenizer.pad_token_id
        able = self.batching if len(batch) > 1 and first.beams == 1 else ALONE  # beams: `generate` copies rows, but no cache
        rows = [tokens.tolist() for _, tokens in batch]
        inputs = begin(self._model, rows, pad, able.sharing, first.max_tokens)
        steps, noted = self._steps(batch, width := inputs["input_ids"].shape[1])
        if heard is not None:
            steps.insert(
                int(noted is not None), Written([request.id for request, _ in batch], width, self._stops, noted, heard)
            )
        written = write(
            self._model,
            inputs,
            [*steps, first_token],
            first.max_tokens,
            self._stops,
            pad,
            beams=first.beams,
            leaving=able.leaving,
            cancelled=cancelled or (lambda: self._cancelled),
        )
        seconds = (time.perf_counter() - began) / len(batch)
        completions: list[Completion] = []
        for place, ((request, tokens), row) in enumerate(zip(batch, written, strict=True)):
            stop = next((at for at, token in enumerate(row) if token in self._stops), None)
            content, reasoning, text = read_answer(self._tokenizer, self._markup, row[:stop], formed=request.has_form)
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
                    first_token_seconds=first_token.seconds if len(batch) == 1 else None,
                    raw=raw if noted is None else {**raw, "logprobs": noted.of(place, said)},
                    batch_left=len(batch) - place - 1,
                )
            )
        return completions


def _batches(encoded: list[Encoded], rows: int, tokens: int, able: Batching) -> Iterator[list[Encoded]]:
    """Batches of requests that one `generate` call can answer, longest first: what does not fit shows at once.

    `rows` and `tokens` bound a batch.
    """

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
        full = (len(batch) + 1) * beams > rows or (len(batch) + 1) * beams * width > tokens
        unlike = batch and not able.padding and len(item[1]) != len(batch[0][1])
        if batch and (full or unlike or not able.several or kind(item) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
