"""A real OpenAI-compatible HTTP server for tests: answers from the messages and the seed alone, counts, breaks on demand.

Run by itself it serves until killed: `python tests/chat_server.py PORT`.
"""

import asyncio
import collections
import email.utils
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

WORDS = [
    "river",
    "stone",
    "amber",
    "north",
    "quiet",
    "lantern",
    "seven",
    "maple",
    "harbour",
    "signal",
    "winter",
    "copper",
    "field",
    "bright",
    "ladder",
    "song",
]
CONTEXT_WORDS = 1500

Body = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """What an endpoint was seen to send, to the byte; nothing is computed and nothing billed for it."""

    status: int
    content: Body | bytes | list[Any]
    headers: dict[str, str] = field(default_factory=dict)


Fault = Callable[[int, Body], str | Wire | None]  # (number of this request, its body) -> a fault's name or a reply, or None


def usage(prompt: int, completion: int) -> Body:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def answer(body: Body) -> Body:
    """The reply to a chat request: for each of `n` choices, words drawn by a hash of messages and, when sampling, seed."""
    choices = [choice(body, number) for number in range(body.get("n") or 1)]
    prompt = sum(len(message["content"].split()) + 4 for message in body["messages"])
    written = sum(len(one["message"]["content"].split()) for one in choices)
    return {
        "id": f"chatcmpl-{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:12]}",
        "object": "chat.completion",
        "model": body["model"],
        "choices": choices,
        "usage": usage(prompt, written),
    }


def choice(body: Body, number: int) -> Body:
    seed = body.get("seed") if body.get("temperature") else None
    seen = json.dumps([body["messages"], seed, *([number] if number else [])], sort_keys=True)
    digest = hashlib.sha256(seen.encode()).digest()
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    words = [WORDS[byte % len(WORDS)] for byte in digest[1 : 4 + digest[0] % 12]]
    kept = words[:most]
    chosen = {
        "index": number,
        "message": {"role": "assistant", "content": " ".join(kept)},
        "finish_reason": "length" if len(kept) < len(words) else "stop",
    }
    if body.get("logprobs"):
        tops = [[{"token": w, "logprob": -0.25 - rank} for rank, w in enumerate([word, *WORDS])] for word in kept]
        top = body.get("top_logprobs") or 0
        chosen["logprobs"] = {"content": [{**likeliest[0], "top_logprobs": likeliest[:top]} for likeliest in tops]}
    return chosen


def stream_of(reply: Body, body: Body) -> list[Body]:
    """The events of a reply as a stream: a word a delta, tool calls and reasoning in parts, the usage last where requested."""
    head = {"id": reply["id"], "object": "chat.completion.chunk", "model": reply["model"]}
    events = []
    for number, one in enumerate(reply["choices"]):
        message, places = one["message"], (one.get("logprobs") or {}).get("content")
        deltas: list[Body] = [{"role": "assistant", "content": ""}]
        for name in ("reasoning", "reasoning_content"):
            deltas += [{name: part} for part in _parts(message.get(name))]
        deltas += [{"content": part} for part in _parts(message.get("content"))]
        for index, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            deltas.append(
                {"tool_calls": [{"index": index, "id": call["id"], "function": {"name": function["name"], "arguments": ""}}]}
            )
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in _parts(function["arguments"])
            ]
        words = 0
        for delta in deltas:
            choice: Body = {"index": number, "delta": delta, "finish_reason": None}
            if places and delta.get("content"):
                choice["logprobs"] = {"content": [places[words]]}
                words += 1
            events.append({**head, "choices": [choice]})
        events.append({**head, "choices": [{"index": number, "delta": {}, "finish_reason": one["finish_reason"]}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({**head, "choices": [], "usage": reply["usage"]})
    return events


def _parts(text: str | None) -> list[str]:
    return re.findall(r"\s*\S+", text or "")


class ChatServer:
    """The server in a thread of its own; a context manager. `url` is its base URL."""

    def __init__(
        self,
        fault: Fault | None = None,
        *,
        seconds: float = 0.0,
        model: str | None = "teacher",  # None: it serves any
        reply: Callable[[Body], Body] = answer,
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.fault, self.seconds, self.model, self.reply, self.key, self.port = fault, seconds, model, reply, key, port
        self.requests: list[Body] = []  # every body received
        self.times: list[float] = []  # when each came, by the monotonic clock
        self.answered: collections.Counter[str] = collections.Counter()  # good answers, by messages and seed
        self.usages: list[Body] = []  # of every answer that was computed, delivered or not: what a bill would count
        self.in_flight = self.most_in_flight = 0
        self.paths: list[str] = []  # of every chat request, with its query
        self.headers: list[dict[str, str]] = []
        self.stream_pause = 0.0  # seconds between two events of a stream
        self.hang = 3600.0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def billed_usd(self, price: dict[str, float]) -> float:
        """The bill at a price in USD per million tokens."""
        return (
            sum(u["prompt_tokens"] * price["prompt"] + u["completion_tokens"] * price["completion"] for u in self.usages) / 1e6
        )

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the server stops
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether the connection stays open."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        request_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = request_line.split(" ")
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            sent = headers.get("authorization")
            return await self._send(
                writer, 401, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}}
            )
        if path.partition("?")[0].endswith("/chat/completions"):
            self.paths.append(path)
            self.headers.append(headers)
        return await self.handle(writer, method, path, content)

    async def handle(self, writer: asyncio.StreamWriter, method: str, path: str, content: bytes) -> bool:
        plain = path.partition("?")[0]
        if method == "GET" and plain == "/v1/models":
            return await self._send(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if method != "POST" or plain not in ("/v1/chat/completions", "/openai/deployments/teacher/chat/completions"):
            return await self._send(writer, 404, {"error": {"message": f"no {method} {path} here"}})
        body = json.loads(content)
        number = len(self.requests)
        self.requests.append(body)
        self.times.append(time.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            return await self._chat(writer, number, body)
        finally:
            self.in_flight -= 1

    async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
        fault = self.fault(number, body) if self.fault else None
        if isinstance(fault, Wire):
            data = fault.content if isinstance(fault.content, bytes) else json.dumps(fault.content).encode()
            return await self._send(writer, fault.status, data, fault.headers)
        name, _, argument = (fault or "").partition(" ")
        match name:
            case "429" | "500" | "503":
                headers = {}
                if argument == "date":
                    headers["Retry-After"] = email.utils.formatdate(time.time() + 2, usegmt=True)
                elif argument:
                    headers["Retry-After"] = argument
                return await self._send(writer, int(name), {"error": {"message": f"planned {name}", "code": None}}, headers)
            case "quota":
                return await self._send(
                    writer, 429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
                )
            case "400":
                return await self._send(writer, 400, {"error": {"message": "a bad request", "code": None}})
            case "filtered":
                return await self._send(writer, 400, {"error": {"message": "filtered", "code": "content_filter"}})
            case "renamed":
                message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                return await self._send(writer, 400, {"error": {"message": message, "param": "max_tokens"}})
            case "reset":
                self.usages.append(answer(body)["usage"])
                writer.transport.abort()
                return False
            case "hang":
                self.usages.append(answer(body)["usage"])
                await asyncio.sleep(self.hang)
                return False
            case "truncated":
                text = json.dumps(answer(body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(f"Content-Length: {len(text)}\r\n\r\n".encode() + text[: len(text) // 2])
                await writer.drain()
                return False
            case "malformed":
                return await self._send(writer, 200, b'{"choices": [{"message": ')
            case "html":
                return await self._send(writer, 200, b"<html>gateway</html>", {"Content-Type": "text/html"})
            case "empty":
                return await self._send(writer, 200, {"id": "x", "choices": []})
        if self.model is not None and body["model"] != self.model:
            return await self._send(
                writer, 404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}}
            )
        if sum(len(message["content"].split()) for message in body["messages"]) > CONTEXT_WORDS:
            message = f"This model's maximum context length is {CONTEXT_WORDS} tokens."
            return await self._send(writer, 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})
        self.answered[json.dumps([body["messages"], body.get("seed")])] += 1
        reply = self.reply(body)
        self.usages.append(reply["usage"])
        if body.get("stream"):
            return await self._send_stream(writer, stream_of(reply, body), cut=name == "cut")
        return await self._send(writer, 200, reply)

    async def _send_stream(self, writer: asyncio.StreamWriter, events: list[Body], *, cut: bool) -> bool:
        """The events in chunks, as servers that keep the connection open do it; a cut one ends with the connection."""
        how = "Connection: close" if cut else "Transfer-Encoding: chunked"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{how}\r\n\r\n".encode())
        lines = [b"data: " + json.dumps(event).encode() for event in events[: len(events) // 2 if cut else None]]
        for line in [b": hello", *lines, *([] if cut else [b"data: [DONE]"])]:
            await asyncio.sleep(self.stream_pause if line.startswith(b"data: {") else 0)
            writer.write(line + b"\n\n" if cut else b"%x\r\n%s\n\n\r\n" % (len(line) + 2, line))
            await writer.drain()
        if not cut:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return not cut

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, content: Body | bytes, headers: dict[str, str] | None = None
    ) -> bool:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Planned\r\n{head}\r\n".encode() + data)
        await writer.drain()
        return True


if __name__ == "__main__":
    with ChatServer(port=int(sys.argv[1])) as server:
        print(server.url, flush=True)
        threading.Event().wait()
