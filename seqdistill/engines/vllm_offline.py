"""The vLLM engine: `vllm.LLM` in this process, for a GPU or for vLLM's CPU build.

Requests are put in batches of a fixed order, and nothing outside its batch moves an answer: the scheduler runs in this
process (vLLM's own setting for reproducible scheduling) and the prefix cache starts each batch empty. Within a batch vLLM
schedules as it likes, and completions are handed on as they finish. For a `vllm serve` elsewhere see `openai_api`.
"""

import asyncio
import contextlib
import gc
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from seqdistill.engines import UNMETERED, Completion, Meter, Request, take_size
from seqdistill.engines.answer_markup import answer_markup, read_answer, turn_end
from seqdistill.engines.chat_prompt import check_not_all_refused, prompt_tokens
from seqdistill.engines.chat_templates import configured_template
from seqdistill.engines.generation_config import active_settings
from seqdistill.engines.loading import files_of, load_failure, named
from seqdistill.engines.logprobs import by_ids
from seqdistill.errors import MissingExtra, UsageError
from seqdistill.recipe.tables import ModelConfig

BATCH_SIZE = 1024  # four times vLLM's usual max_num_seqs, so that the last stragglers of a batch cost little
BEAM_BATCH_SIZE = 64  # prompts searched together; nothing can be taken from a batch before its end
ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # its default, stdout, is for results
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # docs.vllm.ai/en/latest/usage/reproducibility
}


def load_llm(model: ModelConfig, options: dict[str, Any]) -> Any:
    """vLLM's `LLM` of a model, with these options. Raises MissingExtra without vLLM, UsageError for what it cannot load."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
    except ImportError as error:
        raise MissingExtra("vllm", "vllm", "the vllm engine") from error
    source = files_of(model)
    options = {"use_tqdm_on_load": False, "trust_remote_code": model.trust_remote_code, **options}
    if model.revision:
        options.setdefault("revision", model.revision)
    try:
        return LLM(model=source, **options)
    except Exception as error:  # vLLM, transformers and a model's own code raise what they like: it is about this model
        raise load_failure(error, model, f"vLLM: {named(model)}", "check the engine's options and the model's files") from error


class VLLMEngine:
    """One model in `vllm.LLM`. Options: batch_size; every other one goes to vllm.LLM as it is."""

    def __init__(self, model: ModelConfig) -> None:
        """Loads the model. Raises MissingExtra without vLLM, UsageError for what vLLM cannot load."""
        options = dict(model.options)
        self._batch_size = take_size(options, "batch_size", BATCH_SIZE)
        self._llm = load_llm(model, options)
        self._engine = self._llm.llm_engine
        self._tokenizer = self._llm.get_tokenizer()
        if (template := configured_template(model)) is not None:
            self._tokenizer.chat_template = template
        if not getattr(self._tokenizer, "chat_template", "built in"):  # Mistral's own tokenizers have no such attribute
            raise UsageError(f"{named(model)} has no chat template", "use an instruct model")
        self._what, self._template = named(model), model.chat_template_kwargs
        self._markup = answer_markup(self._tokenizer, self._template, model.reasoning_tags)
        self._turn_end = turn_end(self._tokenizer, self._markup)
        # not passed on: requests carry sampling settings of their own, and vLLM takes the stop tokens alone from the file
        self.neutralised = active_settings(self._llm.model_config.try_get_generation_config())
        self._longest: int = self._llm.model_config.max_model_len
        self._thread = ThreadPoolExecutor(1, "vllm")  # vLLM is not thread-safe: after loading, every call is made here

    async def stream(
        self,
        requests: Sequence[Request],
        meter: Meter = UNMETERED,  # noqa: ARG002 - nothing is billed
    ) -> AsyncGenerator[Completion, None]:
        """Yields one completion for each request: those that cannot be sent at once, the others batch by batch."""
        batch: list[tuple[Request, list[int]]] = []
        lead = self._markup.lead
        encoded = [prompt_tokens(self._tokenizer, request, self._template, self._longest, lead) for request in requests]
        check_not_all_refused(self._what, encoded)
        for request, tokens in zip(requests, encoded, strict=True):
            if isinstance(tokens, Completion):
                yield tokens
                continue
            most = self._batch_size if request.beams == 1 else min(self._batch_size, BEAM_BATCH_SIZE)
            if batch and (len(batch) == most or request.beams != batch[0][0].beams):
                async for completion in self._answers(batch):
                    yield completion
                batch = []
            batch.append((request, tokens))
        if batch:
            async for completion in self._answers(batch):
                yield completion

    async def close(self) -> None:
        """Ends vLLM's worker processes and frees the model's memory."""
        self._thread.shutdown()
        self._engine.engine_core.shutdown()  # vLLM hides what it loads from the garbage collector until then
        del self._engine, self._llm
        gc.collect()

    async def _answers(self, batch: list[tuple[Request, list[int]]]) -> AsyncIterator[Completion]:
        if batch[0][0].beams > 1:
            for completion in await asyncio.get_running_loop().run_in_executor(self._thread, self._search, batch):
                yield completion
        else:
            async for completion in self._answer(batch):
                yield completion

    def _search(self, batch: list[tuple[Request, list[int]]]) -> list[Completion]:
        """A beam search for requests of one width, which vLLM does for a list of prompts at once."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import BeamSearchParams

        began = time.perf_counter()
        self._llm.reset_prefix_cache()
        config = self._engine.vllm_config
        completions = []
        for part in _groups_of(batch):
            request, form = part[0][0], _form(part[0][0])
            search = BeamSearchParams(beam_width=request.beams, max_tokens=request.max_tokens, structured_outputs=form)
            prompts = [{"prompt_token_ids": tokens} for _, tokens in part]
            try:
                if form is not None:  # chooses the grammar's backend, which the search wants chosen
                    SamplingParams(structured_outputs=form).verify(
                        config.model_config, None, config.structured_outputs_config, self._tokenizer
                    )
                with self._ending_with_the_turn():
                    found = self._llm.beam_search(prompts, search)
            except (ValueError, VLLMError) as error:
                raise UsageError(
                    f"vLLM refuses the beam search: {error}",
                    "it needs [teacher.options] max_logprobs of at least twice beams"
                    if "logprobs" in str(error)
                    else "change [generate], or [teacher.options] for vllm.LLM",
                ) from error
            for (request, tokens), output in zip(part, found, strict=True):
                completions.append(self._best(request, tokens, output.sequences[0]))
        seconds = (time.perf_counter() - began) / len(batch)
        return [
            replace(completion, seconds=seconds, batch_left=len(completions) - place)
            for place, completion in enumerate(completions, 1)
        ]

    @contextlib.contextmanager
    def _ending_with_the_turn(self) -> Iterator[None]:
        """A beam ends at the tokenizer's end token alone; within, that is the token that ends a turn."""
        if self._turn_end is None or self._turn_end == self._tokenizer.eos_token_id:
            yield
            return
        usual = self._tokenizer.eos_token
        self._tokenizer.eos_token = self._tokenizer.convert_ids_to_tokens(self._turn_end)
        try:
            yield
        finally:
            self._tokenizer.eos_token = usual

    def _best(self, request: Request, tokens: list[int], beam: Any) -> Completion:
        written = list(beam.tokens[len(tokens) :])
        ended = written[-1:] == [self._tokenizer.eos_token_id if self._turn_end is None else self._turn_end]
        content, reasoning, text = read_answer(
            self._tokenizer, self._markup, written[: -1 if ended else None], formed=request.has_form
        )
        return Completion(
            request.id,
            content=content,
            reasoning=reasoning,
            finish_reason="stop" if ended or len(written) < request.max_tokens else "length",  # a form may end without a token
            prompt_tokens=len(tokens),
            completion_tokens=len(written),
            raw={"text": text, "cumulative_logprob": beam.cum_logprob},
        )

    async def _answer(self, batch: list[tuple[Request, list[int]]]) -> AsyncIterator[Completion]:
        waiting = {request.id: request for request, _ in batch}
        loop = asyncio.get_running_loop()
        before = time.perf_counter()
        try:
            await loop.run_in_executor(self._thread, self._enqueue, batch)
            while waiting:
                finished = [out for out in await loop.run_in_executor(self._thread, self._engine.step) if out.finished]
                now = time.perf_counter()
                for output in finished:
                    request = waiting.pop(output.request_id)
                    yield self._completion(output, request, (now - before) / len(finished), len(waiting))
                before = now if finished else before
        finally:
            if waiting:  # cancelled: the requests still running are dropped, behind the step that is under way
                self._thread.submit(self._engine.abort_request, list(waiting))

    def _enqueue(self, batch: list[tuple[Request, list[int]]]) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind

        self._llm.reset_prefix_cache()
        for request, tokens in batch:
            try:
                sampling = SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed,
                    stop_token_ids=None if self._turn_end is None else [self._turn_end],
                    logprobs=request.logprobs,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                    structured_outputs=_form(request),
                )
                self._engine.add_request(request.id, {"prompt_token_ids": tokens}, sampling)
            except (ValueError, VLLMError) as error:  # what its grammars cannot express, more logprobs than max_logprobs
                raise UsageError(
                    f"vLLM refuses the request: {error}", "change [generate], or [teacher.options] for vllm.LLM"
                ) from error

    def _completion(self, output: Any, request: Request, seconds: float, batch_left: int) -> Completion:
        (answer,) = output.outputs
        ended = answer.finish_reason in ("stop", "length")
        written = list(answer.token_ids)
        if answer.finish_reason == "stop" and written[-1:] and written[-1] in (answer.stop_reason, *self._markup.special):
            written.pop()  # the stop token
        content, reasoning, text = (
            read_answer(self._tokenizer, self._markup, written, formed=request.has_form) if ended else ("", None, answer.text)
        )
        return Completion(
            output.request_id,
            content=content,
            reasoning=reasoning,
            finish_reason=answer.finish_reason if ended else "error",
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(answer.token_ids),
            seconds=seconds,  # since completions were last handed on, so that a batch's seconds add up to its time
            raw={
                "text": text,
                "finish_reason": answer.finish_reason,
                "stop_reason": answer.stop_reason,
                **({} if request.logprobs is None else {"logprobs": _logprobs(answer, request.logprobs)}),
            },
            error=None if ended else f"vllm {answer.finish_reason}",
            message=None if ended else f"vLLM ended the request early: {answer.finish_reason}",
            batch_left=batch_left,
        )


def _groups_of(batch: list[tuple[Request, list[int]]]) -> list[list[tuple[Request, list[int]]]]:
    """The requests of a batch in groups of one token limit and one form, as one beam search takes them."""
    groups: dict[tuple[int, str], list[tuple[Request, list[int]]]] = {}
    for request, tokens in batch:
        groups.setdefault((request.max_tokens, json.dumps([request.schema, request.choices])), []).append((request, tokens))
    return list(groups.values())


def _form(request: Request) -> Any:
    """The form that the answer must keep to, for vLLM; None without one."""
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(json=request.schema, choice=request.choices or None) if request.has_form else None


def _logprobs(answer: Any, top: int) -> dict[str, Any]:
    """The log-probabilities at each place: of the answer's own token, and of the likeliest `top`, likeliest first."""
    ranked = [sorted(place.items(), key=lambda item: item[1].rank)[:top] for place in answer.logprobs]
    return by_ids(
        list(answer.token_ids),
        [place[token].logprob for place, token in zip(answer.logprobs, answer.token_ids, strict=True)],
        [[token for token, _ in place] for place in ranked],
        [[found.logprob for _, found in place] for place in ranked],
    )
