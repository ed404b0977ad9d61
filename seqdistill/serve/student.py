"""The student as a server reaches it: what it is sent, and its answer as the chunks of a chat-completions stream.

Here is the student at an OpenAI-compatible endpoint; the one in this process is `local`. Decides nothing.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from seqdistill.engines.options import Address
from seqdistill.engines.refusals import SHOWN
from seqdistill.engines.replies import as_dict, choices_in, error_in
from seqdistill.errors import SeqdistillError
from seqdistill.records import Message, from_json

if TYPE_CHECKING:
    import aiohttp

MOST_LINE = 4 << 20  # bytes

Chunk = dict[str, Any]


class StudentFailed(Exception):
    """The student gave no answer; the message says why."""


@dataclass(frozen=True)
class Wanted:
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
        """A chat-completions reply with log-probabilities, where the student reports them."""

    def stream(self, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
        """Its chunks as they are written, the last one with the usage. Closing the generator stops the work."""

    async def close(self) -> None:
        """Frees what it holds."""


class EndpointStudent:
    """The student at an endpoint, `vllm serve` say, through one pool of connections."""

    def __init__(self, name: str, address: Address, fields: dict[str, Any], timeout: float, concurrency: int) -> None:
        """`fields` are sent with every request; `timeout` in seconds is that of one answer."""
        self.name, self._fields, self._timeout = name, fields, timeout
        self._url, self._query = f"{address.url.rstrip('/')}/chat/completions", dict(address.query)
        self._headers = {"Authorization": f"Bearer {address.key}"} if address.key and not address.has_key_header else {}
        self._headers |= dict(address.headers)
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None

    async def answer(self, wanted: Wanted) -> dict[str, Any]:
        """Raises StudentFailed."""
        import aiohttp

        try:
            async with self._post(self._body(wanted)) as response:
                content = await response.read()
                if response.status != 200:
                    raise StudentFailed(_refusal(response.status, content))
                reply = from_json(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StudentFailed(_broken(error)) from None
        except ValueError:
            raise StudentFailed("its reply is not JSON") from None
        if not choices_in(reply):
            raise StudentFailed("its reply holds no answer")
        return as_dict(reply)

    async def stream(self, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
        """Raises StudentFailed."""
        import aiohttp

        body = self._body(wanted) | {"stream": True, "stream_options": {"include_usage": True}}
        done, ended = False, 0
        try:
            async with self._post(body) as response:
                if response.status != 200:
                    raise StudentFailed(_refusal(response.status, await response.read()))
                rest = b""
                async for data in response.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if not line.startswith(b"data:"):
                            continue
                        if line[5:].strip() == b"[DONE]":
                            done = True
                            continue
                        chunk = as_dict(from_json(line[5:]))
                        if chunk.get("error"):
                            raise StudentFailed(str(chunk["error"])[:SHOWN])
                        ended += sum(bool(as_dict(choice).get("finish_reason")) for choice in chunk.get("choices") or ())
                        yield chunk
                    if done:
                        break
                    if len(rest) > MOST_LINE:
                        raise StudentFailed(f"a line of its stream is longer than {MOST_LINE} bytes")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StudentFailed(_broken(error)) from None
        except ValueError:
            raise StudentFailed("an event of its stream is not JSON") from None
        if not done and ended < wanted.n:
            raise StudentFailed("its stream ended before the answer did")

    def _post(self, body: dict[str, Any]) -> Any:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._concurrency)
            timeout = aiohttp.ClientTimeout(total=self._timeout, connect=10.0)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, read_bufsize=1 << 14, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session.post(self._url, json=body, headers=self._headers, params=self._query)

    def _body(self, wanted: Wanted) -> dict[str, Any]:
        return {
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

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()


def _refusal(status: int, content: bytes) -> str:
    said = error_in(content).get("message") or content.decode("utf-8", "replace")
    return f"its endpoint answers {status}: {str(said)[:SHOWN]}"


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
    return [str(one["id"]) for one in listed or () if isinstance(one, dict) and "id" in one]
