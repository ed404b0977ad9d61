"""A streamed answer: its server-sent events put together as the one reply that the endpoint would have sent without a stream.

https://html.spec.whatwg.org/multipage/server-sent-events.html, as chat endpoints use it: one JSON object a `data:` line.
"""

import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from seqdistill.engines.replies import REASONING, as_dict, as_list, reasoning_in, refusal_in, says_end, text_of
from seqdistill.engines.usage import added_up, count, merged, reported
from seqdistill.records import from_json

LINE_END = re.compile(r"\r\n|\n|\r")  # U+2028 and its like, at which str.splitlines splits, are text
_LINE_END = re.compile(LINE_END.pattern.encode())


async def lines_of(parts: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """The lines of an event stream, which is UTF-8 whatever its header says. Raises ValueError for what is not."""
    begun: list[bytes] = []  # of the line that is not whole yet: a line may be megabytes, in thousands of parts
    after_cr = False
    async for part in parts:
        if after_cr:
            part = part.removeprefix(b"\n")  # the other half of the line's end
        after_cr = part.endswith(b"\r")
        first, *others = _LINE_END.split(part)
        begun.append(first)
        for line in others:
            yield b"".join(begun).decode("utf-8", "surrogatepass")
            begun = [line]
    yield b"".join(begun).decode("utf-8", "surrogatepass")


class Joined:
    """The reply so far. Add its lines in their order."""

    def __init__(self) -> None:
        self.done = False  # the endpoint said so
        self.begun_at: float | None = None  # when something of an answer came first, by time.perf_counter
        self.error: dict[str, Any] | None = None  # the JSON of an error event
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._usages: dict[int, dict[str, Any]] = {}  # reported in a choice, by its index
        self._choices: dict[int, dict[str, Any]] = {}
        self._event = ""  # the name of the event whose lines come
        self._part = ""  # of its data, while that is not JSON yet

    @property
    def begun(self) -> bool:
        """Whether something of an answer has come."""
        return self.begun_at is not None

    def add(self, line: str) -> dict[str, Any] | None:
        """One line of the stream; returns its chunk, if it ends one. Raises ValueError for an event that is not JSON."""
        line = line.removeprefix("\ufeff")
        if not line.strip():
            part, self._event, self._part = self._part, "", ""
            from_json(part or "null")
            return None
        name, colon, value = line.partition(":")
        if colon and name.strip() == "event":
            self._event = value.strip()
        if not colon or name.strip() != "data":  # a comment, which keeps a connection open, or an event's name
            return None
        if value.strip() == "[DONE]":
            from_json(self._part or "null")
            self.done = True
            return None
        if not value.strip():
            return None
        try:
            chunk = as_dict(from_json(self._part + value))
        except ValueError:
            self._part += value  # one event may have several lines of data
            return None
        self._part = ""
        self.add_chunk({"error": chunk} if self._event == "error" and not chunk.get("error") else chunk)
        return chunk

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """One chunk of the stream."""
        error = chunk.get("error") or as_dict(chunk.get("x_groq")).get("error")
        if error or chunk.get("object") == "error":
            if not self._all_ended:  # what comes behind a whole answer does not undo it
                self.error = {**chunk, "error": error} if error else chunk
            return
        self._head = {**{key: part for key, part in chunk.items() if key not in ("choices", "usage", "object")}, **self._head}
        self._usage = merged(self._usage, reported({**chunk, "choices": None}))
        for choice in as_list(chunk.get("choices")):
            self._add_choice(as_dict(choice))

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = count(choice.get("index")) or 0
        if usage := reported({"choices": [choice]}):
            self._usages[index] = merged(self._usages.get(index), usage) or usage
        whole = self._choices.setdefault(index, {"text": "", "thoughts": "", "calls": {}})
        delta = as_dict(choice.get("delta"))
        if not delta and not whole["text"]:  # some send an answer as one, and some repeat it so at the end
            delta = as_dict(choice.get("message"))
        text = text_of(delta.get("content")) or text_of(choice.get("text"))
        thoughts, refused = _thoughts(delta), refusal_in(delta)
        whole["text"] += text
        whole["thoughts"] += thoughts
        if refused:
            whole["refusal"] = whole.get("refusal", "") + refused
        calls, function = as_list(delta.get("tool_calls")), as_dict(delta.get("function_call"))
        if not calls and any(function.values()):  # of the older API, which knows one call; some send an empty one beside text
            calls = [{"index": 0, "function": function}]
        for call in calls:
            self._add_call(whole["calls"], as_dict(call))
        if self.begun_at is None and (text or thoughts or refused or calls):
            self.begun_at = time.perf_counter()
        for key in ("native_finish_reason", "stop_reason", "error", "content_filter_results"):
            if choice.get(key) is not None:
                whole[key] = choice[key]
        if says_end(choice):
            whole["finish_reason"] = choice["finish_reason"]
        places = as_dict(choice.get("logprobs")).get("content")
        if isinstance(places, list):
            whole.setdefault("logprobs", []).extend(places)

    def _add_call(self, calls: dict[Any, dict[str, Any]], call: dict[str, Any]) -> None:
        function = as_dict(call.get("function"))
        begins = call.get("id") or function.get("name")
        index = call.get("index")
        if index is None:  # without a number a call continues the last one, until another begins
            index = len(calls) if begins or not calls else list(calls)[-1]
        whole = calls.setdefault(
            str(index), {"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}}
        )
        for key in ("name", "arguments"):
            whole["function"][key] += text_of(function.get(key))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing: the endpoint said that it was done, or every choice has a reason to end."""
        return self.done or (self._all_ended and not self._part)

    @property
    def _all_ended(self) -> bool:
        return bool(self._choices) and all("finish_reason" in one for one in self._choices.values())

    def reply(self) -> dict[str, Any]:
        """The reply as one."""
        choices = [_choice(index, self._choices[index]) for index in sorted(self._choices)]
        reports = merged(self._usage, added_up([*self._usages.values()]))
        usage = {} if reports is None else {"usage": reports}
        return {**self._head, "object": "chat.completion", "choices": choices, **usage}


def joined(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The reply that chunks are the stream of."""
    whole = Joined()
    for chunk in chunks:
        whole.add_chunk(chunk)
    return whole.reply()


def _thoughts(delta: dict[str, Any]) -> str:
    """The reasoning in a delta, as it is: a blank at its end belongs to it."""
    plain = next((delta[key] for key in REASONING if key in delta and isinstance(delta[key], str) and delta[key]), None)
    return plain if isinstance(plain, str) else reasoning_in(delta)


def _choice(index: int, whole: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": whole["text"]}
    if whole["thoughts"]:
        message["reasoning"] = whole["thoughts"]
    if "refusal" in whole:
        message["refusal"] = whole["refusal"]
    if whole["calls"]:
        message["tool_calls"] = list(whole["calls"].values())
    extra = {key: part for key, part in whole.items() if key not in ("text", "thoughts", "calls", "refusal", "logprobs")}
    logprobs = {"logprobs": {"content": whole["logprobs"]}} if "logprobs" in whole else {}
    return {"index": index, "message": message, "finish_reason": None, **extra, **logprobs}
