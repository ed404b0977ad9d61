"""A real HTTP Batch API for tests: /v1/files and /v1/batches beside the chat endpoint; stateful; counts what is billed.

A request is billed when its batch is made, which is the strictest reading. State outlives `stop` and a second `with`.
"""

import asyncio
import email.parser
import email.policy
import json
import threading
from collections.abc import Callable
from typing import Any

from chat_server import Body, ChatServer, Wire

PAGE = 2  # batches a page of the list, so that the client must turn pages

# a request's body -> "fail" | "expire" | "silent" | "garbage", or what it is refused with; None: it is answered
Fate = Callable[[Body], str | Wire | None]
Hook = Callable[[str, str], None]  # (method and kind of path, "before" | "after" the work) -> called in the server's loop


class BatchServer(ChatServer):
    """`looks` is how often a batch must be looked at before it has ended."""

    def __init__(self, *, looks: int = 1, fate: Fate | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.looks, self.fate = looks, fate
        self.hook: Hook | None = None
        self.held: threading.Event | None = None  # between its arrival and its making, a new batch waits for this
        self.made_late = threading.Event()  # such a batch is through
        self.drop: str | None = None  # a call whose work is done but whose reply is lost, once
        self.invalid: str | None = None  # why batches fail in validation
        self.queue: int | None = None  # how many requests may wait in all
        self.listable = True
        self.uploads = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.seen: dict[str, int] = {}
        self.calls: list[str] = []

    async def handle(self, writer: asyncio.StreamWriter, method: str, path: str, content: bytes) -> bool:
        path, _, query = path.partition("?")
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] not in ("files", "batches"):
            return await super().handle(writer, method, path, content)
        call = f"{method} {'/'.join('ID' if n == 1 else part for n, part in enumerate(parts))}"
        self.calls.append(call)
        held = self.held if call == "POST batches" else None
        if self.hook:
            self.hook(call, "before")
        if held:
            await asyncio.to_thread(held.wait, 60)
        status, reply = self._do(call, parts, query, content)
        if held:
            self.made_late.set()
        if self.hook:
            self.hook(call, "after")
        if self.drop == call:
            self.drop = None
            writer.transport.abort()
            return False
        return await self._send(writer, status, reply)

    def _do(self, call: str, parts: list[str], query: str, content: bytes) -> tuple[int, Body | bytes]:
        match call:
            case "POST files":
                self.uploads += 1
                name = f"file-{self.uploads}"
                self.files[name] = _uploaded(content)
                return 200, {"id": name, "object": "file", "purpose": "batch", "bytes": 1, "created_at": 1, "filename": "x"}
            case "GET files/ID/content" if parts[1] in self.files:
                return 200, self.files[parts[1]]
            case "DELETE files/ID" if parts[1] in self.files:
                del self.files[parts[1]]
                return 200, {"id": parts[1], "object": "file", "deleted": True}
            case "POST batches":
                return self._make(json.loads(content))
            case "GET batches/ID" if parts[1] in self.batches:
                return 200, self._look(parts[1])
            case "GET batches":
                names = list(reversed(self.batches)) if self.listable else []
                after = dict(pair.split("=") for pair in query.split("&")).get("after")
                names = names[names.index(after) + 1 :] if after else names
                page = [self.batches[name] for name in names[:PAGE]]
                return 200, {"object": "list", "data": page, "has_more": len(names) > PAGE}
        return 404, {"error": {"message": f"no such thing: {call}"}}

    def _make(self, asked: Body) -> tuple[int, Body]:
        if asked["input_file_id"] not in self.files:
            return 400, {"error": {"message": "no such input file"}}
        assert (asked["endpoint"], asked["completion_window"]) == ("/v1/chat/completions", "24h")
        name = f"batch_{len(self.batches)}"
        batch = {"id": name, "object": "batch", "created_at": 1, "status": "in_progress", **asked}
        rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        self.batches[name] = batch
        if self.invalid:
            self.batches[name] |= {"status": "failed", "errors": {"data": [{"message": self.invalid}]}}
            return 200, batch
        batch["_size"] = len(rows)
        waiting = sum(one.get("_size", 0) for one in self.batches.values() if one["status"] == "in_progress")
        if self.queue is not None and waiting > self.queue:
            message = f"Enqueued token limit reached. Limit: {self.queue} enqueued tokens."
            batch |= {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": message}]}}
            return 200, batch
        good, bad = [], []
        for row in rows:
            assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
            fate = self.fate(row["body"]) if self.fate else None
            result = {"id": "r", "custom_id": row["custom_id"], "response": None, "error": None}
            if isinstance(fate, Wire):
                bad.append({**result, "response": {"status_code": fate.status, "body": fate.content}})
            elif fate == "fail":
                bad.append({**result, "response": {"status_code": 400, "body": {"error": {"message": "a bad request"}}}})
            elif fate == "expire":
                bad.append({**result, "error": {"code": "batch_expired", "message": "not done in time"}})
            elif fate is None or fate == "garbage":
                self.answered[json.dumps([row["body"]["messages"], row["body"].get("seed")])] += 1
                reply = self.reply(row["body"])
                self.usages.append(reply["usage"])
                good.append({**result, "response": {"status_code": 200, "body": {} if fate else reply}})
        expired = any((row["error"] or {}).get("code") == "batch_expired" for row in bad)
        batch["_end"] = "expired" if expired else "completed"
        for key, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[f"_{key}"] = f"{name}-{key}"
                self.files[f"{name}-{key}"] = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        batch["request_counts"] = {"total": len(rows), "completed": 0, "failed": 0}
        return 200, batch

    def _look(self, name: str) -> Body:
        batch = self.batches[name]
        self.seen[name] = self.seen.get(name, 0) + 1
        if self.seen[name] >= self.looks and batch["status"] == "in_progress":
            batch["status"] = batch["_end"]
            batch |= {key: batch[f"_{key}"] for key in ("output_file_id", "error_file_id") if f"_{key}" in batch}
        return batch


def _uploaded(content: bytes) -> bytes:
    """The file in a multipart form, which must be for a batch."""
    boundary = content.split(b"\r\n", 1)[0][2:].decode()
    head = f'Content-Type: multipart/form-data; boundary="{boundary}"\r\n\r\n'.encode()
    form: Any = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + content)
    fields = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in form.iter_parts()}
    assert fields["purpose"].strip() == b"batch"
    return bytes(fields["file"])
