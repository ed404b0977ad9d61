"""The student as a server reaches it: what it is sent, and its answer as the chunks of a chat-completions stream.

Here is the student at an OpenAI-compatible endpoint; the one in this process is `local`. Decides nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jiter

from seqdistill.engines import Completion
from seqdistill.engines.options import Address
from seqdistill.engines.refusals import SHOWN, TOO_LONG
from seqdistill.engines.replies import (
    answer_in,
    as_dict,
    choices_in,
    content_in,
    error_in,
    finish_reason,
    objects,
    reasoning_in,
    refusal_in,
    says_end,
    text_of,
    written_in,
)
from seqdistill.engines.usage import count
from seqdistill.errors import SeqdistillError
from seqdistill.partial_answers import Shown, opens_before
from seqdistill.records import Message, from_json

if TYPE_CHECKING:
    import aiohttp

MOST_LINE = 4 << 20  # bytes
LAST_SECONDS = 0.1  # for the end of a stream that is done

Chunk = dict[str, Any]  # of a stream; each of its `choices`, which may be empty, has an `index` and a `delta`


class StudentFailed(Exception):
    """The student gave no answer; the message says why."""


class TooLong(StudentFailed):
    """A prompt does not fit into the student's context together with the tokens that its answer may have."""


class Wanted(NamedTuple):
    """What the student is sent."""

    messages: list[Message]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    n: int = 1
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = 0  # None: no log-probabilities
    response_format: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None  # the same, read


class Student(Protocol):
    """A student. Both calls raise StudentFailed."""

    name: str

    async def answer(self, wanted: Wanted) -> dict[str, Any]:
        """A chat-completions reply, each choice with a message, and with log-probabilities where the student reports them."""

    def stream(self, wanted: Wanted) -> AsyncGenerator[list[Chunk], None]:
        """Its chunks as they are written, in lists of those that are there at once, the last one with the usage.

        Closing the generator stops the work.
        """

    async def close(self) -> None:
        """Frees what it holds."""


class EndpointStudent:
    """The student at an endpoint, `vllm serve` say, through one pool of connections."""

    def __init__(
        self,
        name: str,
        address: Address,
        fields: dict[str, Any],
        omit: Collection[str],
        timeout: float,
        concurrency: int,
        tags: Sequence[str] = (),
    ) -> None:
        """`fields` are sent with every request, those of `omit` are not.

        `timeout` in seconds is that of one answer; `tags` are around reasoning.
        """
        self._tags, self._opened = tuple(tags), False  # whether its prompts open the block of reasoning: its answers show it
        self.name, self._fields, self._omit, self._timeout = name, fields, omit, timeout
        self._url, self._query = f"{address.url.rstrip('/')}/chat/completions", dict(address.query)
        self._headers = {"Authorization": f"Bearer {address.key}"} if address.key and not address.has_key_header else {}
        self._headers |= dict(address.headers)
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None

    def learn(self, completion: Completion) -> None:
        """Sees in an answer whether the prompts open the block of reasoning, so that a stream begins within it."""
        self._opened = opens_before(*written_in(completion.raw), self._tags)

    async def answer(self, wanted: Wanted) -> dict[str, Any]:
        """Raises StudentFailed."""
        reply = await self._reply(wanted)
        missing = range(len(reply["choices"]), wanted.n)  # an endpoint that does not know `n` gives one choice
        if not missing:
            return reply
        others = [self._reply(wanted._replace(n=1, seed=wanted.seed + number)) for number in missing]
        return _together([reply, *await asyncio.gather(*others)])

    async def _reply(self, wanted: Wanted) -> dict[str, Any]:
        """The reply to one request, with at least one choice and at most as many as are wanted."""
        import aiohttp

        try:
            async with self._post(self._body(wanted)) as response:
                content = await response.read()
                if response.status != 200:
                    raise _refused(response.status, content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StudentFailed(_broken(error)) from None
        return self._read(content, wanted)

    def _read(self, content: bytes, wanted: Wanted) -> dict[str, Any]:
        """The reply in a body. Raises StudentFailed for one without an answer."""
        try:
            reply = _json(content)
        except ValueError:
            raise StudentFailed("its reply is not JSON") from None
        choices = choices_in(reply)
        if not choices:
            raise StudentFailed("its reply holds no answer")
        return {**reply, "choices": [self._without_reasoning(one) for one in choices[: wanted.n]]}

    def _without_reasoning(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice whose content is the answer alone; reasoning in its text goes beside it."""
        message, finish = choice["message"], _finish(choice)
        if finish == "error":
            raise StudentFailed(f"its endpoint broke its answer off: {choice['finish_reason']}")
        if text := text_of(content_in(message)):
            self._opened = opens_before(text, reasoning_in(message), self._tags)
        answer, thought = answer_in(message, self._tags)
        if answer != text:
            message = {**message, "content": answer, **({"reasoning": thought} if thought else {})}
        return {**choice, "message": message, "finish_reason": finish}

    async def stream(self, wanted: Wanted) -> AsyncGenerator[list[Chunk], None]:
        """Raises StudentFailed, once what came before it was yielded."""
        import aiohttp

        body = self._body(wanted) | {"stream": True, "stream_options": {"include_usage": True}}
        events = _Events(wanted.n, [Shown(self._tags, opened=self._opened) for _ in range(wanted.n)])
        try:
            async with self._post(body) as response:
                if response.status != 200:
                    raise _refused(response.status, await response.read())
                async for data in response.content.iter_any():
                    if chunks := events.read(data):
                        yield chunks
                    if events.failure:
                        raise StudentFailed(events.failure)
                    if events.done:
                        await _ended(response)
                        break
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StudentFailed(_broken(error)) from None
        if not events.is_whole:
            if not events.left.lstrip().startswith(b"{"):
                raise StudentFailed("its stream ended before the answer did")
            yield [events.unstreamed(self._read(events.left, wanted))]  # an endpoint that does not know `stream`
        if events.shown and events.shown[0].text:
            self._opened = opens_before(events.shown[0].text, events.shown[0].beside, self._tags)
        if last := events.rest():
            yield last
        if events.silent:
            raise StudentFailed(f"its endpoint streams {wanted.n - len(events.silent)} of {wanted.n} choices")

    def _post(self, body: dict[str, Any]) -> Any:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._concurrency)
            timeout = aiohttp.ClientTimeout(total=self._timeout, sock_connect=10.0)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, read_bufsize=1 << 14, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session.post(self._url, json=body, headers=self._headers, params=self._query)

    def _body(self, wanted: Wanted) -> dict[str, Any]:
        body = {
            **self._fields,
            "model": self.name,
            "messages": wanted.messages,
            "max_tokens": wanted.max_tokens,
            "temperature": wanted.temperature,
            "seed": wanted.seed,
            **({"top_p": wanted.top_p} if wanted.top_p < 1 else {}),
            **({"n": wanted.n} if wanted.n > 1 else {}),
            **({"stop": list(wanted.stop)} if wanted.stop else {}),
            **({} if wanted.top_logprobs is None else {"logprobs": True, "top_logprobs": wanted.top_logprobs}),
            **({"response_format": wanted.response_format} if wanted.response_format else {}),
        }
        return {name: value for name, value in body.items() if name not in self._omit} if self._omit else body

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()


class _Events:
    """The events of one stream of `n` choices, which are passed on without the reasoning in their text."""

    def __init__(self, n: int, shown: list[Shown]) -> None:
        self.shown = shown  # by choice
        self.done = False  # the endpoint said so
        self.failure = ""
        self.silent = set(range(n))  # choices that have not begun
        self.left, self._endings = b"", n  # `left`: the beginning of a line that has not ended
        self._usage: Any = None  # some endpoints report it in every chunk

    @property
    def is_whole(self) -> bool:
        """Whether the endpoint said that it was done, or every choice has a reason to end."""
        return self.done or self._endings <= 0

    def read(self, data: bytes) -> list[Chunk]:
        """The chunks that are complete with the next bytes, up to a failure."""
        *lines, self.left = (self.left + data).split(b"\n")
        chunks: list[Chunk] = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            content = line[5:].strip()
            if content == b"[DONE]":
                self.done = True
                return chunks
            try:
                chunk = as_dict(_json(content))
            except ValueError:
                self.failure = "an event of its stream is not JSON"
                return chunks
            if chunk.get("error"):
                self.failure = str(chunk["error"])[:SHOWN]
                return chunks
            chunk["choices"] = objects(chunk.get("choices"))
            for choice in chunk["choices"]:
                if not (type(index := choice.get("index")) is int and index >= 0):
                    choice["index"] = 0
                if not isinstance(choice.get("delta"), dict):
                    choice["delta"] = {}
                self.silent.discard(choice["index"])
                reason, choice["finish_reason"] = choice.get("finish_reason"), _finish(choice)
                if choice["finish_reason"] == "error":
                    self.failure = f"its endpoint broke its answer off: {reason}"
                    return chunks
                self._endings -= bool(choice["finish_reason"])
                if choice["index"] < len(self.shown):
                    _pass_on(choice, self.shown[choice["index"]])
            self._usage = chunk.pop("usage", None) or self._usage
            chunks.append(chunk)
        if len(self.left) > MOST_LINE:
            self.failure = f"a line of its stream is longer than {MOST_LINE} bytes"
        return chunks

    def unstreamed(self, reply: dict[str, Any]) -> Chunk:
        """A whole reply as the one chunk of a stream."""
        choices = []
        for number, one in enumerate(reply["choices"]):
            self.silent.discard(number)
            delta = {name: part for name, part in one["message"].items() if name != "role"}
            choices.append({"index": number, "delta": delta, **{key: one.get(key) for key in ("finish_reason", "logprobs")}})
        return {"choices": choices, **({"usage": reply["usage"]} if reply.get("usage") else {})}

    def rest(self) -> list[Chunk]:
        """What is left once the stream has ended: text of choices that gave no reason to end, and the usage."""
        texts = [(number, text) for number, one in enumerate(self.shown) if (text := one.end())]
        choices = [{"index": number, "delta": {"content": text}, "finish_reason": None} for number, text in texts]
        usage = {"usage": self._usage} if self._usage else {}
        return [{"choices": choices, **usage}] if choices or usage else []


def _pass_on(choice: dict[str, Any], shown: Shown) -> None:
    """Leaves of a chunk's text what may be shown by now, and at the end of its choice all that is left."""
    delta = choice["delta"]
    text = text_of(delta.get("content"))
    shown.beside += reasoning_in(delta)
    if not text and not choice["finish_reason"]:
        return
    new = (shown.add(text) if text else "") + (shown.end() if choice["finish_reason"] else "")
    if new != (delta.get("content") or ""):
        choice["delta"] = {**delta, "content": new}


def _finish(choice: dict[str, Any]) -> str | None:
    """The finish reason as OpenAI writes it, "error" for an answer that was broken off; None while there is none."""
    if not says_end(choice):
        return None
    reason = finish_reason(choice["finish_reason"])
    return reason if reason in ("length", "content_filter", "tool_calls", "error") else "stop"


def texts_in(reply: dict[str, Any]) -> list[str]:
    """The answers in a reply, without reasoning."""
    messages = [one["message"] for one in reply["choices"]]
    return [answer_in(message)[0] or refusal_in(message) for message in messages]


def _together(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """Replies to one prompt as one: their choices, and what all of them used; the prompt's tokens are those of the first."""
    choices = [choice for reply in replies for choice in reply["choices"]]
    usages = [as_dict(reply.get("usage")) for reply in replies]
    prompt = count(usages[0].get("prompt_tokens")) or 0
    written = sum(count(usage.get("completion_tokens")) or 0 for usage in usages)
    usage = {**usages[0], "completion_tokens": written, "total_tokens": prompt + written}
    return {**replies[0], "choices": [{**one, "index": number} for number, one in enumerate(choices)], "usage": usage}


def _json(content: bytes) -> Any:
    """What `from_json` reads, in a quarter of its time where it is plain JSON. Raises ValueError."""
    try:
        return jiter.from_json(content, allow_inf_nan=False)
    except ValueError:
        return from_json(content)


async def _ended(response: "aiohttp.ClientResponse") -> None:
    """Reads the end of a stream that is done, so that its connection can be used again."""
    import aiohttp

    if response.content.at_eof():
        return
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LAST_SECONDS):
            await response.content.readany()


def _refused(status: int, content: bytes) -> StudentFailed:
    message = str(error_in(content).get("message") or content.decode("utf-8", "replace"))
    failure = TooLong if status in (400, 413, 422) and TOO_LONG.search(message) else StudentFailed
    return failure(f"its endpoint answers {status}: {message[:SHOWN]}")


def _broken(error: BaseException) -> str:
    return "its endpoint does not answer in time" if isinstance(error, TimeoutError) else f"its endpoint: {error}"


async def served_names(address: Address) -> list[str]:
    """The models that an endpoint lists; empty where it has no list. Raises SeqdistillError for one out of reach."""
    import aiohttp

    headers = {"Authorization": f"Bearer {address.key}"} if address.key and not address.has_key_header else {}
    url = f"{address.url.rstrip('/')}/models"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20.0)) as session,
            session.get(url, headers=headers | dict(address.headers), params=dict(address.query)) as response,
        ):
            listed = as_dict(from_json(await response.read())).get("data") if response.status == 200 else None
    except ValueError:
        return []
    except (aiohttp.ClientError, TimeoutError) as error:
        raise SeqdistillError(
            f"the student at {address.name} cannot be reached: {error or 'no answer'}", "start it first, or check the base URL"
        ) from None
    return [str(one["id"]) for one in objects(listed) if "id" in one]
