"""How chat requests become completions: the protocol every engine answers, and `open_engine`, which picks one.

An engine knows nothing of runs, prompts or journals. It never raises for one request's failure: the failure is the
request's completion (`error` is set). It raises for what no request can survive: unknown model, missing package.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Message


@dataclass(frozen=True)
class Request:
    """One chat request. `id` is the caller's name for it; everything else is sent to the model."""

    id: str
    messages: list[Message]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    schema: dict[str, Any] | None = None  # the JSON schema that the answer must keep to
    response_format: dict[str, Any] | None = None  # `schema` in the words of a caller, which an endpoint is sent verbatim
    choices: list[str] | None = None  # the answer must be one of these
    beams: int = 1  # the answer is the likeliest found by a beam search of this width
    logprobs: int | None = None  # log-probabilities of the answer's tokens, and of the N likeliest tokens at each position
    score: bool = False  # no answer: the log-probability of the last message's text by itself, without the chat template
    again: int = 0  # how often the same was requested before: distinguishes a repeat from the first request, and is not sent

    @property
    def has_form(self) -> bool:
        """Whether the answer must keep to a schema or be one of some choices."""
        return self.schema is not None or bool(self.choices)


PROMPT_COUNTS = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens")  # with one choice of a reply


@dataclass(frozen=True)
class Completion:
    """What came back for one request."""

    id: str
    content: str = ""
    reasoning: str | None = None
    finish_reason: str = "error"  # stop | length | content_filter | tool_calls | refusal | unknown | error
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those the endpoint had in its cache
    seconds: float = 0.0  # from sending to the last byte; in a batch, the batch's time over its size
    first_token_seconds: float | None = (
        None  # from sending to the first token; of an answer that was streamed, or computed alone
    )
    tool_calls: list[dict[str, str]] | None = None  # name, and arguments as the model wrote them
    raw: dict[str, Any] = field(default_factory=dict)  # the raw reply, JSON-able
    error: str | None = None  # a failure's kind: "timeout", "http 500", "too long" ...
    message: str | None = None  # a failure in words
    hidden_tokens: int = 0  # billed like completion tokens, but not among them: reasoning that some endpoints leave out
    hold: str | None = None  # the `Meter`'s hold of the try that brought it
    uncounted: bool = False  # the reply does not report its tokens, so what it cost is not known
    cache_write_tokens: int = 0  # of the prompt tokens, those the endpoint put into its cache, which may cost more
    cache_write_1h_tokens: int = 0  # of those, the ones it keeps for an hour, which may cost more still
    batched: bool = False  # requested through a Batch endpoint, at its lower price
    batch_left: int = 0  # completions of the same batch that follow; a journal keeps a batch whole or not at all
    billed_usd: float | None = None  # what the endpoint says that it bills for it, where it does

    def also_billed(self, others: Sequence["Completion"]) -> "Completion":
        """The completion, charged also for other choices of the same reply: nobody requested them, or they are no answers."""
        hidden = self.hidden_tokens + sum(one.completion_tokens + one.hidden_tokens for one in others)
        of_prompt = {name: sum(getattr(one, name) for one in (self, *others)) for name in PROMPT_COUNTS}
        billed = [one.billed_usd for one in (self, *others) if one.billed_usd is not None]
        return replace(self, **of_prompt, hidden_tokens=hidden, billed_usd=sum(billed) if billed else None)


PERMANENT_ERRORS = (
    "too long",
    "over limit",
    "template",
    "http 400",
    "http 413",
    "http 422",
)  # failures that another try will not change

ENGINES_WITH = {
    "beams": ("transformers", "vllm"),
    "score": ("transformers",),
}  # the engines that can do what not every engine can


def supports(engine: str, setting: str) -> bool:
    """Whether the engine of this name supports a setting of a request."""
    return engine in ENGINES_WITH.get(setting, (engine,))


def check_supported(engine: str, request: Request) -> None:
    """Raises UsageError for a request with a setting that the engine of this name cannot do."""
    for name, engines in ENGINES_WITH.items():
        wanted = getattr(request, name)
        if (wanted is True or wanted not in (None, 0, 1)) and not supports(engine, name):
            raise UsageError(f"the {engine} engine cannot do [generate] {name}", f"engines that can: {', '.join(engines)}")
    if engine == "transformers" and request.schema is not None and request.beams > 1:
        raise UsageError("the transformers engine cannot do [generate] beams with a schema", "leave beams out, or use vllm")


def take_size(options: dict[str, Any], name: str, default: int) -> int:
    """Takes a whole number from 1 out of an engine's options. Raises UsageError for anything else."""
    size = options.pop(name, default)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UsageError(f"the engine's option {name} = {size!r}: not a whole number from 1", f"for example {default}")
    return size


class Meter(Protocol):
    """Who pays for what an engine sends. An engine that is billed by the request takes a hold before each try."""

    def hold(self, requests: Sequence[Request]) -> str | None:
        """Holds the upper bound of what one try of these requests, sent as one, can cost.

        Returns the hold's name, or None while the budget has no room for it. The completions of an answered try carry
        the name, and the journal settles it with them. A hold of a try that may have been billed without an answer stays.
        """

    def release(self, hold: str) -> None:
        """Gives a hold back: its try was certainly not billed."""


class Unmetered:
    """The meter of those who pay nothing."""

    def hold(self, requests: Sequence[Request]) -> str | None:  # noqa: ARG002
        """Always granted."""
        return ""

    def release(self, hold: str) -> None:
        """Nothing was held."""


UNMETERED = Unmetered()


class Engine(Protocol):
    """One model, ready for requests."""

    def stream(self, requests: Sequence[Request], meter: Meter = UNMETERED) -> AsyncGenerator[Completion, None]:
        """Yields exactly one completion for each request, in the order they finish.

        Ends early, without the rest, when the meter has no room for another try and nothing is under way.

        Local engines compute in batches, and in bf16 a batch's make-up can move its texts. They form batches from the
        requests in a fixed order and count `batch_left` down to 0, so that a resumed run forms the same batches.
        """

    async def close(self) -> None:
        """Frees what the engine holds. It is not used again."""


@runtime_checkable
class Answering(Protocol):
    """An engine that also takes single requests that somebody waits for, several at once."""

    async def answer(
        self, request: Request, meter: Meter, on_chunk: Callable[[dict[str, Any]], None] | None
    ) -> Completion | None:
        """One request's completion, its failure included; None while the meter has no room for it.

        `on_chunk` receives the answer's chunks, in the form of a chat-completions stream, as they come.
        """


def neutralised(engine: Engine) -> list[str]:
    """The settings of a model's generation_config.json that would bend its answers and do not act, as "name = value"."""
    return list(getattr(engine, "neutralised", ()))


@dataclass(frozen=True)
class Pace:
    """Concurrency, time limits and rate limits of an engine. Cannot change its answers."""

    concurrency: int = 64  # most requests in flight at one endpoint
    timeout: float = 600.0  # seconds for one try in all
    connect_timeout: float = 10.0  # seconds
    read_timeout: float | None = None  # seconds of silence; None: as long as `timeout`
    retries: int = 6  # further tries after a failure that may pass
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    first_limit: int = 8  # requests in flight until answers come: what a wrong setting can cost
    samples_per_request: int = 1  # answers to one prompt that one request may ask for, where the endpoint knows `n`
    on_note: Callable[[str], None] = field(default=lambda _: None, compare=False)  # receives what is new about an endpoint
    capped: bool = False  # money is limited: no second try of what may be billed, one request alone until the first answer


def open_engine(model: ModelConfig, pace: Pace | None = None) -> Engine:
    """The engine for one model. Raises UsageError for an unknown model, MissingExtra for a missing package."""
    pace = pace or Pace()
    match model.engine:
        case "transformers":
            from seqdistill.engines.transformers_local import TransformersEngine

            return TransformersEngine(model)
        case "openai":
            from seqdistill.engines.openai_api import OpenAIEngine

            return OpenAIEngine(model, pace)
        case "vllm":
            from seqdistill.engines.vllm_offline import VLLMEngine

            return VLLMEngine(model)
    raise UsageError(f"unknown engine {model.engine!r}", "one of: openai, vllm, transformers")
