"""What a chat-completions request says, read and checked. Knows neither models nor HTTP."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from seqdistill.engines.models import FIELDS_WITHOUT_EFFECT
from seqdistill.errors import UsageError
from seqdistill.records import Message, from_json, shortened
from seqdistill.tasks.answer_form import schema_fault
from seqdistill.tasks.messages import chat_messages, message_text

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
CALLED_BY = {"tool_choice": "tools", "function_call": "functions"}  # what says whether the functions of a request are called
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {  # fields that change nothing at these values
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (0,)),
    "repetition_penalty": (1,),
    **dict.fromkeys(CALLED_BY.values(), ([],)),
    **dict.fromkeys(CALLED_BY, ("none", "auto")),
    "parallel_tool_calls": (True, False),
    "logit_bias": ({},),
    "modalities": (["text"],),
    **dict.fromkeys(("min_tokens", "no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("best_of", "length_penalty", "typical_p"), (1,)),
    **dict.fromkeys(("ignore_eos", "echo", "use_beam_search", "include_stop_str_in_output", "return_token_ids"), (False,)),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens", "add_generation_prompt"), (True,)),
    **dict.fromkeys(("audio", "web_search_options"), ()),
    **dict.fromkeys(("plugins", "documents", "data_sources"), ([],)),
    **dict.fromkeys(("continue_final_message", "enable_search"), (False,)),
    "extra_body": ({},),
}
SURROGATES = (b"\\ud", b"\\uD", b"\xed")  # what is in the bytes of half a character, and of some whole ones
OF_THE_RECIPE = (  # for the model that answered before: the recipe decides them, and the student has learnt what they did
    *("reasoning_effort", "reasoning", "thinking", "verbosity", "prediction", "top_k", "min_p", "chat_template_kwargs"),
    *("enable_thinking", "thinking_budget", "include_reasoning", "separate_reasoning", "reasoning_format", "prompt_mode"),
)
OF_THE_SERVICE = (  # for the service that answered before: where and how it computes, and what it reports beside the answer
    *("provider", "usage", "route", "session_id", "keep_alive", "cache_prompt", "caching", "timings_per_token"),
    *("return_progress", "truncation", "trace", "models", "transforms", "providerOptions", "safe_prompt"),
)


class BadRequest(Exception):
    """A request that no model is sent. `param` is the field that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


class Chat(NamedTuple):
    """One request. None: the caller leaves it to the server."""

    messages: list[Message]
    model: str | None = None
    stream: bool = False
    include_usage: bool = False  # in a last chunk of a stream
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    schema: dict[str, Any] | None = None  # from response_format
    response_format: dict[str, Any] | None = None  # as it was written
    values: Mapping[str, str] = MappingProxyType({})  # `metadata`: further variables of the task's template
    ignored: tuple[str, ...] = ()  # the fields that have no effect here


def read_chat(content: bytes) -> Chat:
    """The request in a body. Raises BadRequest naming the field."""
    try:
        body = from_json(content)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    if any(sign in content for sign in SURROGATES):
        _check_characters(body)
    messages = _messages(body.pop("messages", None))
    for choice, functions in CALLED_BY.items():
        if body.get(choice) == "none":
            body.pop(functions, None)  # none of them is called
    fields: dict[str, Any] = {}
    ignored = []
    for name, value in body.items():
        if value is None:
            continue
        if read := _FIELDS.get(name):
            fields[name] = read(name, value)
        elif name in OF_THE_RECIPE or name in OF_THE_SERVICE:
            ignored.append(name)
        elif name not in FIELDS_WITHOUT_EFFECT and value not in WITHOUT_EFFECT.get(name, ()):
            known = f"{name} is not supported: the student has not learnt it" if name in WITHOUT_EFFECT else None
            raise BadRequest(known or f"unknown field: {name}", name)
    limits = [fields.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
    top = fields.pop("top_logprobs", None)
    return Chat(
        messages=messages,
        include_usage=bool(fields.pop("stream_options", {}).get("include_usage")),
        max_tokens=limits[1] if limits[0] is None else limits[0],
        logprobs=fields.pop("logprobs", top is not None),
        top_logprobs=top or 0,
        schema=_schema(fields.get("response_format")),
        values=fields.pop("metadata", {}),
        ignored=tuple(ignored),
        **fields,
    )


def _messages(value: Any) -> list[Message]:
    try:
        messages = chat_messages(_saying(value), "the request", "messages")
    except UsageError as error:
        raise BadRequest(f"{error.message}; {error.hint}", "messages") from None
    if messages[-1]["role"] != "user":
        raise BadRequest("the last message is not the user's", "messages")
    return messages


def _saying(value: Any) -> Any:
    """The messages that say something; chat clients also keep an answer that was stopped before its first word.

    A refusal is what its message says. Raises UsageError for a part that is not text.
    """
    if not isinstance(value, list):
        return value
    spoken = [{**one, "content": one["refusal"]} if _is_refusal(one) else one for one in value]
    return [one for one in spoken if not _is_empty(one)]


def _is_refusal(message: Any) -> bool:
    return isinstance(message, dict) and not message.get("content") and isinstance(message.get("refusal"), str)


def _is_empty(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return False
    text = message_text(message, "the request: a message")
    return isinstance(text, str) and not text.strip()


def _check_characters(body: Mapping[str, Any]) -> None:
    """Raises BadRequest for half a character, which no model can read."""
    for name, value in body.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise BadRequest(f"{half} is half a character: a text was cut in the middle of it", name) from None


Read = Callable[[str, Any], Any]  # a field's value by its name and what the body holds. Raises BadRequest


def _a(kind: type) -> Read:
    def read(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise BadRequest(f"{name} is {shortened(value)}, expected {kind.__name__}", name)
        return value

    return read


def _number(low: float, high: float, kind: type = float) -> Read:
    def read(name: str, value: Any) -> Any:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        if not fits or kind(value) != value:
            noun = "an integer" if kind is int else "a number"
            raise BadRequest(f"{name} is {shortened(value)}, expected {noun} from {low:g} to {high:g}", name)
        return kind(value)

    return read


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts) or len(texts) > MOST_STOPS:
        raise BadRequest(f"{name} is {shortened(value)}, expected a text or up to {MOST_STOPS} texts", name)
    return tuple(text for text in texts if text)


def _limit(name: str, value: Any) -> int | None:
    """The most tokens of an answer; None where the caller leaves it to the server, as llama.cpp's clients do by -1."""
    return None if value == -1 and type(value) is int else int(_number(1, 1e9, int)(name, value))


def _seed(name: str, value: Any) -> int | None:
    """The seed; None for -1, by which vLLM's and llama.cpp's clients want another answer each time."""
    if value == -1 and type(value) is int:
        return None
    return int(_number(-(2**63), 2**63, int)(name, value)) & 0x7FFFFFFF


def _values(name: str, value: Any) -> dict[str, str]:
    """The texts in an object, by name: further variables of the template, beside those that the messages are."""
    return {
        key: one for key, one in _a(dict)(name, value).items() if isinstance(one, str) and key not in ("prompt", "messages")
    }


def _form(name: str, value: Any) -> dict[str, Any] | None:
    """The response format, checked; None for text."""
    written = _a(dict)(name, value)
    if written.get("type") == "text":
        return None
    schema = _schema(written)
    if not isinstance(schema, dict):
        raise BadRequest("response_format is not text, json_object or json_schema with a schema", name)
    if fault := schema_fault(schema):
        raise BadRequest(f"response_format: not a JSON schema: {fault.strip()}", name)
    return dict(written)


def _schema(written: dict[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema that an answer must keep to, by its response format."""
    if written is None:
        return None
    if written.get("type") == "json_object":
        return {"type": "object"} if written.get("schema") is None else written["schema"]  # as Together and llama.cpp take it
    inside = written.get("json_schema")
    return inside.get("schema") if written.get("type") == "json_schema" and isinstance(inside, dict) else None


_FIELDS: dict[str, Read] = {
    "model": _a(str),
    "stream": _a(bool),
    "stream_options": _a(dict),
    "n": _number(1, MOST_CHOICES, int),
    "max_tokens": _limit,
    "max_completion_tokens": _limit,
    "temperature": _number(0, 5),
    "top_p": _number(0, 1),
    "seed": _seed,
    "stop": _texts,
    "logprobs": _a(bool),
    "top_logprobs": _number(0, MOST_TOP_LOGPROBS, int),
    "response_format": _form,
    "metadata": _values,
}
