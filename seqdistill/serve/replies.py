"""An answer as its caller gets it: headers, a whole reply, the events of a stream. Knows no connection and decides nothing."""

import json
from collections.abc import Sequence
from typing import Any

from seqdistill.engines.replies import text_of
from seqdistill.records import from_json
from seqdistill.serve.cascade import Head
from seqdistill.serve.chat import Chat
from seqdistill.serve.student import Chunk

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encoded(value: Any) -> str:
    """A value as JSON; a number that no float holds, as a student may send it, is null."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(from_json(json.dumps(value)))


def headers_of(head: Head, chat: Chat) -> dict[str, str]:
    """Who answers, how sure the student was, what it costs, and which of the request's fields had no effect."""
    found = {"x-seqdistill-model": head.by}
    if head.confidence is not None:
        found["x-seqdistill-confidence"] = f"{head.confidence:.6f}"
    if head.usd is not None:
        found["x-seqdistill-usd"] = f"{head.usd:.8f}"
    if head.reason:
        found["x-seqdistill-reason"] = head.reason
    if chat.ignored:
        found["x-seqdistill-ignored"] = ", ".join(chat.ignored)
    return found


def whole(reply: dict[str, Any], head: Head, envelope: dict[str, Any], logprobs: bool) -> dict[str, Any]:
    """A reply in the caller's envelope, with its log-probabilities where the caller wants them."""
    choices = [
        {
            **choice,
            "finish_reason": choice.get("finish_reason") or "stop",
            "logprobs": choice.get("logprobs") if logprobs else None,
        }
        for choice in reply["choices"]
    ]
    usage = {"usage": reply["usage"]} if reply.get("usage") else {}
    return {**envelope, "object": "chat.completion", "model": head.model, "choices": choices, **usage}


def written_choices(reply: dict[str, Any]) -> list[tuple[str, str]]:
    """Text and finish reason of each choice of a reply."""
    return [(text_of(one["message"].get("content")), one.get("finish_reason") or "stop") for one in reply["choices"]]


class Events:
    """The events of one stream, what its choices have written so far, and the usage.

    What needs no write of its own waits for the next: the roles for the first text, the end for the end of the stream.
    """

    def __init__(self, chat: Chat, head: Head, envelope: dict[str, Any]) -> None:
        self.texts, self.finish_reasons = [""] * chat.n, ["stop"] * chat.n
        self.usage: Any = None
        self._chat, self._head = chat, head
        kind, model = "chat.completion.chunk", encoded(head.model)
        self._start = f'data: {{"id":"{envelope["id"]}","created":{envelope["created"]},"object":"{kind}","model":{model},'
        role = '{"role":"assistant","content":""}'
        self._waiting = self._event(",".join(_choice(number, role) for number in range(chat.n)))
        self._unended = set(range(chat.n))

    def of(self, chunks: Sequence[Chunk]) -> str:
        """What is to be written now that some chunks are there; empty where it can wait."""
        events, ready = [self._waiting], False
        for chunk in chunks:
            for choice in chunk["choices"]:
                index, finish = choice["index"], choice.get("finish_reason")
                shown = {name: part for name, part in choice["delta"].items() if part and name != "role"}
                if not (shown or finish) or index >= len(self.texts):
                    continue
                text = shown.get("content")
                if isinstance(text, str) and len(shown) == 1:  # nearly all: a text is encoded faster than an object
                    delta = f'{{"content":{_encode(text)}}}'
                else:
                    delta, text = encoded(shown), text_of(text)
                logprobs = choice.get("logprobs") if self._chat.logprobs else None
                events.append(self._event(_choice(index, delta, logprobs, finish)))
                self.texts[index] += text
                if finish:
                    self._unended.discard(index)
                    self.finish_reasons[index] = finish
                ready = ready or bool(shown)
            if usage := chunk.get("usage"):
                self.usage = usage
                if self._chat.include_usage:
                    about = encoded({"model": self._head.by, "usd": chunk.get("usd", self._head.usd)})
                    events.append(self._event("", f',"usage":{encoded(usage)},"seqdistill":{about}'))
        self._waiting = "" if ready else "".join(events)
        return "".join(events) if ready else ""

    def end(self) -> str:
        """What is written at the end: a choice that ended without a reason has one, which clients wait for."""
        if self._unended:
            self._waiting += self._event(",".join(_choice(number, "{}", None, "stop") for number in sorted(self._unended)))
        return f"{self._waiting}data: [DONE]\n\n"

    def broken_off(self, error: str) -> str:
        """What is written at the end of an answer that broke off: `error` is JSON."""
        return f"{self._waiting}data: {error}\n\n"

    def _event(self, choices: str, more: str = "") -> str:
        return f'{self._start}"choices":[{choices}]{more}}}\n\n'


def _choice(index: int, delta: str, logprobs: Any = None, finish: Any = None) -> str:
    """A choice of an event as JSON; `delta` is JSON already."""
    found = encoded(logprobs) if logprobs else "null"
    ended = encoded(finish) if finish else "null"
    return f'{{"index":{index},"delta":{delta},"logprobs":{found},"finish_reason":{ended}}}'
