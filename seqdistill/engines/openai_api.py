"""The openai engine: any OpenAI-compatible chat endpoint, hosted or `vllm serve`; several base URLs share the load.

Retries what may pass, raises what no request can survive, and returns every other failure as that request's completion.
The pace is `pace.Throttle`'s. Keys come from the environment alone and appear nowhere.
"""

import contextlib
import os
import urllib.parse
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request
from seqdistill.engines.dispatch import Dispatcher, Endpoint
from seqdistill.engines.pace import Throttle
from seqdistill.engines.replies import chosen, parse_choice
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.tables import ModelConfig

DEFAULT_URL = "https://api.openai.com/v1"
PLACEHOLDER = "none"  # local servers take any key, but the client wants one
BAD_REQUESTS_AT_START = 10


class OpenAIEngine:
    """One model behind one or more base URLs. Options are sent verbatim in every request; `omit` names keys to leave out."""

    def __init__(self, model: ModelConfig, pace: Pace) -> None:
        """Sends nothing yet. Raises UsageError for a missing model or key and for a base URL that is none."""
        if not model.model:
            raise UsageError("no model is named", "give --teacher, or model in the recipe's [teacher]")
        urls = [url for url in model.base_url if url] or [url for url in [os.environ.get("OPENAI_BASE_URL")] if url]
        key = os.environ.get(model.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"the environment variable {model.api_key_env} holds no key: characters that no header can carry",
                "set it to the key alone",
            )
        if not key and not urls:
            raise UsageError(
                f"no key for {DEFAULT_URL}: the environment variable {model.api_key_env} is not set",
                f"set {model.api_key_env}, or give the endpoint's --teacher-base-url",
            )
        for url in urls:
            if not _is_http(url):
                raise UsageError(
                    f"base URL {shown_url(url)!r}: not an http or https URL", "for example http://localhost:8000/v1"
                )
        self._model, self.urls, self.pace = model, urls or [DEFAULT_URL], pace
        self.key = key or PLACEHOLDER
        self._fields: dict[str, Any] = dict(model.options)
        self._omitted = set(self._fields.pop("omit", ()))
        # OpenAI's newer models know only the new name, many other servers only the old one; vLLM knows both.
        self._limit_name = "max_tokens" if urls else "max_completion_tokens"

    async def stream(self, requests: Sequence[Request], meter: Meter = UNMETERED) -> AsyncGenerator[Completion, None]:
        """Yields one completion for each request as it arrives. Raises SeqdistillError for what none can survive."""
        import httpx2
        import openai

        if not requests:
            return
        silence = self.pace.read_timeout or self.pace.timeout
        timeout = openai.Timeout(self.pace.timeout, connect=self.pace.connect_timeout, read=silence)
        limits = httpx2.Limits(max_connections=self.pace.concurrency, max_keepalive_connections=self.pace.concurrency)
        async with contextlib.AsyncExitStack() as stack:
            endpoints = []
            for url in self.urls:
                client = openai.AsyncOpenAI(
                    api_key=self.key,
                    base_url=url,
                    max_retries=0,
                    http_client=openai.DefaultAioHttpClient(timeout=timeout, limits=limits, verify=_certificates()),
                )
                endpoints.append(Endpoint(shown_url(url), await stack.enter_async_context(client), Throttle(self.pace)))
            dispatcher = Dispatcher(self, _grouped(requests, self.pace.samples_per_request), endpoints, meter)
            try:
                async for completion in dispatcher.completions():
                    yield completion
            finally:
                await dispatcher.stop()

    async def close(self) -> None:
        """Nothing is held between two streams."""

    def body(self, request: Request, n: int = 1) -> dict[str, Any]:
        """The JSON body of a request for n answers."""
        body = {
            "model": self._model.model,
            "messages": request.messages,
            self._limit_name: request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **({"top_p": request.top_p} if request.top_p < 1 else {}),
            **({"n": n} if n > 1 else {}),
            **({} if request.logprobs is None else {"logprobs": True, "top_logprobs": request.logprobs}),
            **_response_format(request),
            **self._fields,
        }
        return {key: value for key, value in body.items() if key not in self._omitted}

    def parse(self, request: Request, raw: dict[str, Any], seconds: float, number: int = 0) -> Completion:
        """The completion in one choice of the reply to a request."""
        completion = parse_choice(request.id, raw, number, seconds)
        return replace(completion, content=chosen(completion.content)) if request.choices else completion

    def renamed_limit(self, error: Mapping[str, Any]) -> bool:
        """Whether a 400 came because the endpoint knows the token limit by its other name, which is used from now on."""
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(str(error.get("param")))
        if other and other in str(error["message"]):
            self._limit_name = other
            return True
        return False

    def without_key(self, text: str) -> str:
        """What an endpoint said, without the key, which some repeat."""
        return text if self.key == PLACEHOLDER else text.replace(self.key, "***")

    def fatal(self, endpoint: Endpoint, status: int, error: Mapping[str, Any]) -> SeqdistillError | None:
        """The error to raise for a status that the other requests would get too; None when it is this request's own."""
        said = f"{endpoint.name} says {status}: {str(error['message'])[:300]}"
        if status == 401:
            return UsageError(said, f"check the key in the environment variable {self._model.api_key_env}")
        if status == 429 and error.get("code") == "insufficient_quota":
            return SeqdistillError(said, "top up the account, then run again; nothing that was answered is lost")
        if endpoint.answers:
            return None
        if status in (403, 404):
            return UsageError(said, f"check the model name {self._model.model!r} and the base URL (it often ends in /v1)")
        if status in (400, 422) and endpoint.bad_requests >= BAD_REQUESTS_AT_START:
            return UsageError(
                f"{said}; the first {endpoint.bad_requests} requests all failed so",
                'a key the endpoint does not know can be left out with [teacher.options] omit = ["seed"]',
            )
        return None


def _grouped(requests: Sequence[Request], most: int) -> list[list[Request]]:
    """Requests that follow each other and are the same but for id and seed, at most so many together."""
    groups: list[list[Request]] = []
    for request in requests:
        same = groups and len(groups[-1]) < most and replace(request, id="", seed=0) == replace(groups[-1][0], id="", seed=0)
        groups[-1].append(request) if same else groups.append([request])
    return groups


def _response_format(request: Request) -> dict[str, Any]:
    """The field that makes the answer keep to a form: `response_format`, which all endpoints that can do it know.

    Choices are asked for as {"choice": ...}, because strict schemas must be objects; `chosen` takes the choice out.
    """
    schema = request.schema
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


def _is_http(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def shown_url(url: str) -> str:
    """A base URL without user, password and query, which may be secret."""
    scheme, slashes, rest = url.split("?")[0].rpartition("//")
    return scheme + slashes + rest.split("@")[-1]
