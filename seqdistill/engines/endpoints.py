"""One endpoint at work: one HTTP exchange, streamed or not, and how the endpoint fares.

What comes back is a reply with choices, or a `Failure`. Decides neither what is sent when nor what is tried again.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seqdistill.engines import Pace, Request
from seqdistill.engines.dialect import Dialect
from seqdistill.engines.options import PATH, without_secrets
from seqdistill.engines.pace import Throttle, retry_after
from seqdistill.engines.refusals import SHOWN, Failure, Who, is_blocked, no_answer, not_json, refusal
from seqdistill.engines.replies import as_dict, choices_in, error_in, finish_reason, is_error_alone
from seqdistill.engines.streams import Joined, lines_of
from seqdistill.engines.usage import usage_of
from seqdistill.errors import SeqdistillError
from seqdistill.recipe.secrets import shown_url
from seqdistill.records import from_json

if TYPE_CHECKING:
    from seqdistill.engines.openai_api import OpenAIEngine

OnChunk = Callable[[dict[str, Any]], None]  # receives each chunk of a streamed answer as it comes
WHOLE_ANSWER_SECONDS = 10.0  # how long the rest of a stream is waited for, once every choice has ended
ADAPTABLE = ("http 400", "http 403", "http 404", "http 422")  # refusals that may be about a field
LONG_PROMPT_TOKENS = 500  # in shorter ones a wrong count is no sign
CUT_SHORT = 0.9  # of max_tokens: some servers stop a little before it
_WITHOUT_SPACES = re.compile(r"[\u3040-\u9fff\uf900-\ufaff]")  # Chinese and Japanese
BLOCKED = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}


@dataclass(frozen=True)
class Reply:
    """A reply with at least one choice. Without an answer where a safety filter took it, which the endpoint may not say."""

    raw: dict[str, Any]
    first_token_seconds: float | None = None
    blocked: bool = False


@dataclass
class Endpoint:
    """One base URL: its connection, its pace, what it was found to take, and its health."""

    who: Who
    client: Any  # openai.AsyncOpenAI
    throttle: Throttle
    engine: "OpenAIEngine"
    pace: Pace
    dialect: Dialect
    secrets: Sequence[str] = ()
    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by kind, since the last answer
    out: SeqdistillError | None = None  # why it is not used any more
    away_since: float | None = None  # since when it cannot be reached, or its model is down
    away_at: float = 0.0
    away_tries: int = 0
    refusing_since: float | None = None  # it refuses for load, with no answer in between
    noted_at: float = float("-inf")
    noted: set[str] = field(default_factory=set)  # what it cuts: a prompt, an answer
    served: set[str] = field(default_factory=set)  # the models that its replies name

    @property
    def name(self) -> str:
        """Its base URL, as it may be shown."""
        return self.who.endpoint

    async def send(self, requests: Sequence[Request], on_chunk: OnChunk | None = None) -> Reply:
        """One try of requests that are sent as one; with `on_chunk` its answer is streamed. Raises Failure."""
        import openai

        made = self.dialect.put(self.engine.own_fields(requests[0], len(requests), stream=on_chunk is not None))
        try:
            async with asyncio.timeout(self.pace.timeout):
                reply = await self._exchange({**self.engine.fields, **made}, on_chunk)
        except openai.APIStatusError as error:
            raise self._refusal(error, made) from None
        except TimeoutError:
            raise self._timeout() from None
        except Failure as failure:
            failure.message = without_secrets(failure.message, self.secrets)
            if error_of_reply := failure.reply if failure.kind in ADAPTABLE else None:
                raise self._adapted(made, error_of_reply) or failure from None
            raise
        self._note_cuts(requests, reply)
        return reply

    async def _exchange(self, body: dict[str, Any], on_chunk: OnChunk | None) -> Reply:
        import aiohttp
        import httpx2
        import openai

        try:
            if body.get("stream"):
                return await self._streamed(body, on_chunk)
            response = await self.client.post(PATH, cast_to=httpx2.Response, body=body)
            try:
                return self._read(response.content)
            except Failure as failure:
                failure.hint = _hint(failure, response)
                raise
        except openai.APIConnectionError as error:
            raise self._broken((error.__cause__ and error.__cause__.__cause__) or error.__cause__) from None
        except httpx2.TransportError as error:  # while a stream is read
            raise self._broken(error.__cause__ or error) from None
        except aiohttp.ClientError as error:
            raise Failure(
                "malformed reply", f"{self.name}: {shown_error(error)}", may_be_billed=True, is_permanent=True
            ) from None

    async def _streamed(self, body: dict[str, Any], on_chunk: OnChunk | None) -> Reply:
        """A streamed answer. An endpoint that answers without a stream all the same is understood."""
        import httpx2

        began, joined, plain = time.perf_counter(), Joined(), bytearray()
        create = self.client.chat.completions.with_streaming_response.create
        async with create(model=body["model"], messages=body["messages"], stream=True, extra_body=body) as response:
            try:
                await self._join(lines_of(response.iter_bytes()), joined, plain, on_chunk)
            except ValueError as error:
                raise Failure(
                    "malformed reply", f"{self.name}: an event of the stream is not JSON: {error}", may_be_billed=True
                ) from None
            except (TimeoutError, httpx2.TransportError):
                if not joined.is_whole:
                    raise
        if plain:
            return self._read(bytes(plain))
        if not joined.is_whole:
            raise Failure("connection lost", f"{self.name}: the stream ended before the answer did", may_be_billed=True)
        return self._checked(joined.reply(), None if joined.begun_at is None else joined.begun_at - began)

    async def _join(self, lines: AsyncIterator[str], joined: Joined, plain: bytearray, on_chunk: OnChunk | None) -> None:
        """Adds the lines of a stream to an answer, or to `plain` what is no stream. Raises Failure for an error in it.

        Behind a whole answer only its tokens are waited for, and not for long: some never end the stream.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as patience:
            async for line in lines:
                if plain or (not joined.begun and line.lstrip().startswith(("{", "[", "<"))):
                    plain += line.encode("utf-8", "surrogatepass") + b"\n"
                    continue
                chunk = joined.add(line)
                if joined.error:
                    failure = no_answer(self.who, joined.error, proven=bool(self.answers))
                    failure.may_be_billed = failure.may_be_billed or joined.begun
                    raise failure
                if on_chunk is not None and chunk is not None:
                    on_chunk(chunk)
                if joined.done:
                    return
                if joined.is_whole and patience.when() is None:
                    patience.reschedule(loop.time() + WHOLE_ANSWER_SECONDS)

    def _read(self, content: bytes) -> Reply:
        try:
            raw = from_json(content)
        except ValueError as error:
            raise not_json(self.who, content, str(error)) from None
        return self._checked(raw)

    def _checked(self, raw: Any, first_token_seconds: float | None = None) -> Reply:
        if isinstance(raw, list) and len(raw) == 1:
            raw = raw[0]
        self.away_since = None
        if choices_in(raw) and not is_error_alone(raw):
            self._note_model(raw)
            return Reply(as_dict(raw), first_token_seconds)
        if is_blocked(as_dict(raw)):
            return Reply({**raw, "choices": [BLOCKED]}, blocked=True)
        raise no_answer(self.who, raw, proven=bool(self.answers))

    def _note_model(self, reply: Mapping[str, Any]) -> None:
        """Notes once that an endpoint answers with a model of another name than was requested."""
        served = reply.get("model")
        if isinstance(served, str) and served not in self.served:
            self.served.add(served)
            if not _is_same_model(served, self.who.model or ""):
                self.pace.on_note(f"{self.name}: the replies name the model {served[:80]!r}; requested was {self.who.model!r}")

    def _note_cuts(self, requests: Sequence[Request], reply: Reply) -> None:
        """Notes once that a prompt or an answer was cut to the server's context length: Ollama and others do so silently."""
        usage, least, most = usage_of(reply.raw), least_tokens(requests[0]), requests[0].max_tokens
        raise_it = "the server's context length (for Ollama OLLAMA_CONTEXT_LENGTH)"
        if usage.prompt and usage.prompt < least and least >= LONG_PROMPT_TOKENS:
            self._note_once(
                "prompt",
                f"it counts {usage.prompt:,} tokens in a prompt of at least {least:,}: it seems to read only a part; "
                f"raise {raise_it}, or shorten the prompts",
            )
        written = (usage.completion or 0) + usage.hidden
        ended = {finish_reason(choice.get("finish_reason")) for choice in choices_in(reply.raw)}
        if len(requests) == 1 and ended == {"length"} and usage.prompt and 0 < written < most * CUT_SHORT:
            self._note_once(
                "answer",
                f"an answer was cut off after {written:,} tokens, though max_tokens allows {most:,}: raise {raise_it}, or "
                "shorten the prompts",
            )

    def _note_once(self, what: str, text: str) -> None:
        if what not in self.noted:
            self.noted.add(what)
            self.pace.on_note(f"{self.name}: {text}")

    def _broken(self, cause: BaseException | None) -> Failure:
        """What a connection's error means."""
        import aiohttp
        import httpx2

        if isinstance(cause, (aiohttp.ClientHttpProxyError, httpx2.ProxyError)):
            reason = f"the proxy in HTTPS_PROXY refuses the connection: {shown_error(cause)}"
            return Failure("unreachable", f"{self.name} cannot be reached: {reason}", is_unreachable=True)
        if isinstance(cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return Failure("unreachable", f"{self.name} cannot be reached: {cause}", is_unreachable=True)
        if isinstance(cause, (TimeoutError, httpx2.TimeoutException)):
            return self._timeout()
        return Failure("connection lost", f"{self.name}: {shown_error(cause)}", may_be_billed=True)

    def _timeout(self) -> Failure:
        within = min(self.pace.timeout, self.pace.read_timeout or self.pace.timeout)
        limit = "--read-timeout" if within < self.pace.timeout else "--timeout"
        hint = f"raise {limit}, or set stream = true in the model's table where a gateway cuts long silence"
        return Failure("timeout", f"no answer within {within:g} s", may_be_billed=True, hint=hint)

    def _refusal(self, error: Any, made: dict[str, Any]) -> Failure:
        """What an HTTP status outside 2xx means."""
        body = error_in(error.response.content)
        is_page = error.response.content.lstrip().startswith(b"<")
        if is_page:
            words = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", error.response.text, flags=re.S | re.I)
            body = {"message": " ".join(words.split())}
        body = {**body, "message": without_secrets(str(body.get("message") or error.message), self.secrets)}
        pause = retry_after(error.response.headers, time.time())
        failure = refusal(self.who, error.status_code, body, pause, proven=bool(self.answers), is_page=is_page)
        failure.hint = _hint(failure, error.response)
        if not failure.is_down:
            self.away_since = None
        return self._adapted(made, body) or failure if failure.kind in ADAPTABLE else failure

    def _adapted(self, made: dict[str, Any], error: dict[str, Any]) -> Failure | None:
        """The failure of a request that will be put in other words; None where the error names none."""
        change = self.dialect.learn(made, error)
        if change is None:
            return None
        if change:
            self.pace.on_note(f"{self.name}: {change} from now on, as the endpoint says: {str(error['message'])[:200]}")
        return Failure("adapted", str(error["message"]), is_adapted=True)


def least_tokens(request: Request) -> int:
    """The fewest tokens that a prompt can have: a token spans no two words, and few characters of writing without spaces."""
    text = " ".join(message["content"] for message in request.messages)
    return len(text.split()) + len(_WITHOUT_SPACES.findall(text)) // 4


def shown_error(error: BaseException | None) -> str:
    """What an error says, and of which type it is. The repr of one, and the text of some, hold a request's headers or URL."""
    message = str(getattr(error, "message", "") or ("" if hasattr(error, "request_info") else error))
    status = getattr(error, "status", None)
    return f"{type(error).__name__}: {f'{status}, ' if status else ''}{message[:SHOWN]}"


def _hint(failure: Failure, response: Any) -> str:
    """A failure's hint, with where the request was redirected to, which may turn a POST into a GET, and what a 202 means."""
    place = shown_url(str(response.url)).removesuffix(PATH)
    moved = f"the request was redirected: is {place} the base URL?" if response.history else ""
    later = "202 means that the answer is to be fetched later: use an endpoint that answers at once"
    return "; ".join(filter(None, (failure.hint, moved, later if response.status_code == 202 else "")))


def _is_same_model(served: str, requested: str) -> bool:
    """Whether one name is the other with more to it: an owner or a path before it, a date or a quantisation after it."""
    names = [re.sub(r"[^a-z0-9]", "", name.lower().rstrip("/").rpartition("/")[2]) for name in (served, requested)]
    return names[0] in names[1] or names[1] in names[0]
