"""The openai engine: any OpenAI-compatible chat endpoint, hosted or `vllm serve`; several base URLs share the load.

What goes into a request, and what a reply's choice is as a completion. How requests are sent is `dispatch`'s, the exchange
`endpoints`', what a refusal means `refusals`'. Keys come from the environment alone and appear nowhere.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request
from seqdistill.engines.dialect import Dialect
from seqdistill.engines.dispatch import Dispatcher
from seqdistill.engines.endpoints import Endpoint, OnChunk, Reply
from seqdistill.engines.live import LiveEndpoints
from seqdistill.engines.options import DEFAULT_URL, PLACEHOLDER, Address, addresses, check_options, fields_of, without_secrets
from seqdistill.engines.pace import Throttle
from seqdistill.engines.refusals import Who
from seqdistill.engines.replies import choices_in, chosen, parse_choice, says_end
from seqdistill.errors import UsageError
from seqdistill.fences import unfenced
from seqdistill.recipe.tables import ModelConfig


class OpenAIEngine:
    """One model behind one or more base URLs. Options are sent verbatim in every request; `omit` names keys to leave out."""

    def __init__(self, model: ModelConfig, pace: Pace) -> None:
        """Sends nothing yet. Raises UsageError for a missing model or key, a wrong URL, and fields that the engine owns."""
        if not model.model:
            raise UsageError("no model is configured", "pass --teacher, or set model in the recipe's [teacher]")
        check_options(model)
        self._model, self.pace = model, pace
        self.addresses = addresses(model)
        self.fields, self._omitted = fields_of(model)
        self._live: LiveEndpoints | None = None
        self._dialects = {address.url: _first_dialect(address) for address in self.addresses}

    async def stream(self, requests: Sequence[Request], meter: Meter = UNMETERED) -> AsyncGenerator[Completion, None]:
        """Yields one completion for each request as it arrives. Raises SeqdistillError for what none can survive."""
        if not requests:
            return
        async with contextlib.AsyncExitStack() as stack:
            endpoints = await self._endpoints(stack)
            groups = _grouped(requests, self.pace.samples_per_request)
            dispatcher = Dispatcher(self._parse_reply, groups, endpoints, self.pace, meter)
            try:
                async for completion in dispatcher.completions():
                    yield completion
            finally:
                await dispatcher.stop()

    async def answer(self, request: Request, meter: Meter = UNMETERED, on_chunk: OnChunk | None = None) -> Completion | None:
        """One request that somebody waits for, on connections that stay open; None while the meter has no room for it.

        `on_chunk` receives the chunks of the answer as they come. What is tried again is `live`'s to decide.
        """
        if self._live is None:
            self._live_stack = contextlib.AsyncExitStack()
            self._live = LiveEndpoints(await self._endpoints(self._live_stack), self._parse_reply, self.pace)
        return await self._live.answer(request, meter, on_chunk)

    async def _endpoints(self, stack: contextlib.AsyncExitStack) -> list[Endpoint]:
        """The model's endpoints, whose connections live as long as the stack."""
        return [
            Endpoint(
                who=Who(address.name, self._model.model or "", address.key_env),
                client=await stack.enter_async_context(self.client(address)),
                throttle=Throttle(self.pace),
                engine=self,
                pace=self.pace,
                dialect=self._dialects[address.url],
                secrets=address.secrets,
            )
            for address in self.addresses
        ]

    def client(self, address: Address, timeout: Any = None) -> Any:
        """An openai.AsyncOpenAI that reaches one address. `timeout` is an openai.Timeout, by default the pace's."""
        import httpx2
        import openai

        pace = self.pace
        timeout = timeout or openai.Timeout(pace.timeout, connect=pace.connect_timeout, read=pace.read_timeout or pace.timeout)
        limits = httpx2.Limits(max_connections=pace.concurrency, max_keepalive_connections=pace.concurrency)
        named = {name.lower() for name in address.headers}
        bare = address.has_key_header and "authorization" not in named
        hooks = [_headers_stay_at(httpx2.URL(address.url), address.headers), *([_without_placeholder] if bare else [])]
        return openai.AsyncOpenAI(
            api_key=address.key or PLACEHOLDER,
            base_url=address.url,
            default_headers=address.headers,
            default_query=address.query,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(
                timeout=timeout,
                limits=limits,
                verify=_certificates(),
                event_hooks={"request": hooks},
            ),
        )

    async def close(self) -> None:
        """Closes the connections that `answer` keeps open; nothing is held between two streams."""
        live, self._live = self._live, None
        if live is not None:
            await self._live_stack.aclose()

    def own_fields(self, request: Request, n: int = 1, *, stream: bool = False) -> dict[str, Any]:
        """What the engine itself puts into the body of a request for n answers; the token limit is under max_tokens."""
        body = {
            "model": self._model.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **({"top_p": request.top_p} if request.top_p < 1 else {}),
            **({"n": n} if n > 1 else {}),
            **({} if request.logprobs is None else {"logprobs": True, "top_logprobs": request.logprobs}),
            **_response_format(request),
            **({"stream": True, "stream_options": {"include_usage": True}} if stream or self._model.stream else {}),
        }
        return {key: value for key, value in body.items() if key not in self._omitted}

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request that is sent alone and not streamed, as in a batch."""
        own_fields = {key: value for key, value in self.own_fields(request).items() if key not in ("stream", "stream_options")}
        return {**self.fields, **self._dialects[self.addresses[0].url].put(own_fields)}

    def learn(self, request: Request, error: Mapping[str, Any]) -> str | None:
        """What a refusal of a request's `body`, made at whatever time, says of the bodies to come: see `Dialect.learn`."""
        address = self.addresses[0]
        return self._dialects[address.url].learn(_first_dialect(address).put(self.own_fields(request)), error)

    def parse(self, request: Request, raw: dict[str, Any], seconds: float, number: int = 0) -> Completion:
        """The completion in one choice of the reply to a request."""
        completion = parse_choice(request.id, raw, number, seconds, self._model.reasoning_tags)
        if completion.finish_reason == "unknown" and not says_end(completion.raw["choices"][0]) and not completion.uncounted:
            at_limit = completion.completion_tokens >= request.max_tokens
            completion = replace(completion, finish_reason="length" if at_limit else "stop")
        if request.choices:
            return replace(completion, content=chosen(completion.content))
        return replace(completion, content=unfenced(completion.content)) if request.schema else completion

    def _parse_reply(self, request: Request, reply: Reply, seconds: float, number: int) -> Completion:
        completion = self.parse(request, reply.raw, seconds, number)
        if completion.billed_usd is None and reply.billed_usd is not None:
            completion = replace(completion, billed_usd=reply.billed_usd / len(choices_in(reply.raw)))
        return replace(completion, first_token_seconds=reply.first_token_seconds)

    def without_secrets(self, text: str) -> str:
        """What an endpoint said, without the keys, which some repeat."""
        return without_secrets(text, [secret for address in self.addresses for secret in address.secrets])


def _first_dialect(address: Address) -> Dialect:
    """OpenAI's newer models know only the new name of the limit, many other servers only the old one; vLLM knows both."""
    return Dialect("max_completion_tokens" if address.url == DEFAULT_URL else "max_tokens")


def _headers_stay_at(place: Any, headers: Mapping[str, str]) -> Callable[[Any], Awaitable[None]]:
    """Takes headers, which may hold a key, out of a request that was redirected away from a place, an httpx2.URL.

    The library does so with its own header alone.
    """

    async def without_headers(request: Any) -> None:
        url = request.url
        if (url.scheme, url.host, url.port) != (place.scheme, place.host, place.port):
            for name in headers:
                request.headers.pop(name, None)

    return without_headers


async def _without_placeholder(request: Any) -> None:
    """Takes the client's own header out of a request that has another with the key: some refuse two."""
    request.headers.pop("Authorization", None)


def _grouped(requests: Sequence[Request], most: int) -> list[list[Request]]:
    """Requests that follow each other and are the same but for id and seed, at most `most` together."""
    groups: list[list[Request]] = []
    for request in requests:
        same = groups and len(groups[-1]) < most and replace(request, id="", seed=0) == replace(groups[-1][0], id="", seed=0)
        groups[-1].append(request) if same else groups.append([request])
    return groups


def _response_format(request: Request) -> dict[str, Any]:
    """The field that makes the answer keep to a form: `response_format`, which all endpoints that can do it know.

    Choices are requested as {"choice": ...}, because strict schemas must be objects; `chosen` takes the choice out.
    """
    schema = request.schema
    if request.response_format is not None:
        return {"response_format": request.response_format}
    if request.choices:
        choice = {"type": "string", "enum": request.choices}
        schema = {"type": "object", "properties": {"choice": choice}, "required": ["choice"], "additionalProperties": False}
    if schema is None:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}}


@cache
def _certificates() -> Any:
    """The certificates that connections are checked with: reading them takes 30 ms."""
    import httpx2

    return httpx2.create_ssl_context()
