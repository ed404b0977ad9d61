"""A streamed answer: its server-sent events put together as the one reply that the endpoint would have sent without a stream.

https://html.spec.whatwg.org/multipage/server-sent-events.html, as chat endpoints use it: one JSON object a `data:` line.
"""

from collections.abc import Iterable
from typing import Any

from seqdistill.engines.replies import REASONING, as_dict, count, reasoning_in, text_of
from seqdistill.records import from_json


class Joined:
    """The reply so far. Add its lines in their order."""

    def __init__(self) -> None:
        self.done = False  # the endpoint said so
        self.begun = False  # something of an answer has come
        self.error: dict[str, Any] | None = None  # the JSON of an error event
        self._head: dict[str, Any] = {}
        self._usage: Any = None
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, line: str) -> dict[str, Any] | None:
        """One line of the stream; returns its chunk, if it holds one. Raises ValueError for a `data:` line that is not JSON."""
        name, colon, value = line.removeprefix("\ufeff").partition(":")
        if not colon or name.strip() != "data":  # a comment, which keeps a connection open, or an event's name
            return None
        if value.strip() == "[DONE]":
            self.done = True
            return None
        if not value.strip():
            return None
        chunk = as_dict(from_json(value.encode()))
        self.add_chunk(chunk)
        return chunk

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """One chunk of the stream."""
        if chunk.get("error") and not chunk.get("choices"):
            self.error = chunk
            return
        self._head = {**{key: part for key, part in chunk.items() if key not in ("choices", "usage", "object")}, **self._head}
        usage = chunk.get("usage") or as_dict(chunk.get("x_groq")).get("usage")
        if _tokens(usage) >= _tokens(self._usage):  # some end with one that counts nothing
            self._usage = usage or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            self._add_choice(as_dict(choice))

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        whole = self._choices.setdefault(index if isinstance(index, int) else 0, {"text": "", "thoughts": "", "calls": {}})
        delta = as_dict(choice.get("delta"))
        if not delta and not whole["text"]:  # some send an answer as one, and some repeat it so at the end
            delta = as_dict(choice.get("message"))
        text, thoughts, refused = text_of(delta.get("content")), _thoughts(delta), text_of(delta.get("refusal"))
        whole["text"] += text
        whole["thoughts"] += thoughts
        if refused:
            whole["refusal"] = whole.get("refusal", "") + refused
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            self._add_call(whole["calls"], as_dict(call))
        self.begun = self.begun or bool(text or thoughts or refused or calls)
        for key in ("finish_reason", "native_finish_reason", "stop_reason", "error", "content_filter_results"):
            if choice.get(key) is not None:
                whole[key] = choice[key]
        places = as_dict(choice.get("logprobs")).get("content")
        if isinstance(places, list):
            whole.setdefault("logprobs", []).extend(places)

    def _add_call(self, calls: dict[Any, dict[str, Any]], call: dict[str, Any]) -> None:
        index = call.get("index", len(calls))
        whole = calls.setdefault(
            str(index), {"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}}
        )
        function = as_dict(call.get("function"))
        for key in ("name", "arguments"):
            whole["function"][key] += text_of(function.get(key))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing: the endpoint said that it was done, or every choice has a reason to end."""
        return self.done or (bool(self._choices) and all("finish_reason" in one for one in self._choices.values()))

    def reply(self) -> dict[str, Any]:
        """The reply as one."""
        choices = [_choice(index, self._choices[index]) for index in sorted(self._choices)]
        usage = {} if self._usage is None else {"usage": self._usage}
        return {**self._head, "object": "chat.completion", "choices": choices, **usage}


def joined(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The reply that chunks are the stream of."""
    whole = Joined()
    for chunk in chunks:
        whole.add_chunk(chunk)
    return whole.reply()


def _tokens(usage: Any) -> int:
    """How many tokens a usage counts."""
    return sum(count(as_dict(usage).get(key)) or 0 for key in ("prompt_tokens", "completion_tokens"))


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
