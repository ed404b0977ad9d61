"""What a chat-completions request says, read and checked. Knows neither models nor HTTP."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines.models import NEUTRAL
from seqdistill.errors import UsageError
from seqdistill.records import Message, from_json
from seqdistill.tasks.messages import chat_messages

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
READ = (  # fields that are understood
    *("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p"),
    *("seed", "stop", "logprobs", "top_logprobs", "response_format", "metadata"),
)
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {  # fields that change nothing at these values
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (0,)),
    "repetition_penalty": (1,),
    **dict.fromkeys(("tools", "functions"), ([],)),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    "parallel_tool_calls": (True, False),
    "logit_bias": ({},),
    "modalities": (["text"],),
}
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")  # half a character, or the escape of a whole one
OF_THE_RECIPE = (  # for the model that answered before: the recipe decides them, and the student has learnt what they did
    *("reasoning_effort", "reasoning", "thinking", "verbosity", "prediction", "top_k", "min_p"),
)


class BadRequest(Exception):
    """A request that no model is sent. `param` is the field that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


@dataclass(frozen=True)
class Chat:
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
    values: Mapping[str, str] = field(default_factory=dict)  # `metadata`: further variables of the task's template
    ignored: tuple[str, ...] = ()  # the fields that have no effect here


def read_chat(content: bytes) -> Chat:
    """The request in a body. Raises BadRequest naming the field."""
    try:
        body = from_json(content)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    if SURROGATE.search(content):
        _check_characters(body)
    _check_known(body)
    try:
        messages = chat_messages(body.get("messages"), "the request", "messages")
    except UsageError as error:
        raise BadRequest(f"{error.message}; {error.hint}", "messages") from None
    if messages[-1]["role"] != "user":
        raise BadRequest("the last message is not the user's", "messages")
    schema, written = _response_format(body)
    stops = _text_list(body, "stop")
    options = _value(body, "stream_options", dict, {})
    top = _number(body, "top_logprobs", 0, MOST_TOP_LOGPROBS, whole=True)
    metadata = _value(body, "metadata", dict, {})
    limits = [_number(body, name, 1, 1e9, whole=True) for name in ("max_completion_tokens", "max_tokens")]
    return Chat(
        messages=messages,
        model=_value(body, "model", str, None),
        stream=_value(body, "stream", bool, False),
        include_usage=bool(options.get("include_usage")),
        n=int(_number(body, "n", 1, MOST_CHOICES, whole=True) or 1),
        max_tokens=next((int(limit) for limit in limits if limit is not None), None),
        temperature=_number(body, "temperature", 0, 5),
        top_p=_number(body, "top_p", 0, 1),
        seed=None if (seed := _number(body, "seed", -(2**63), 2**63, whole=True)) is None else int(seed) & 0x7FFFFFFF,
        stop=stops,
        logprobs=_value(body, "logprobs", bool, False) or top is not None,
        top_logprobs=int(top or 0),
        schema=schema,
        response_format=written,
        ignored=tuple(name for name in OF_THE_RECIPE if body.get(name) is not None),
        values={
            name: value for name, value in metadata.items() if isinstance(value, str) and name not in ("prompt", "messages")
        },
    )


def _check_characters(body: Mapping[str, Any]) -> None:
    """Raises BadRequest for half a character, which no model can read."""
    for name, value in body.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise BadRequest(f"{half} is half a character: a text was cut in the middle of it", name) from None


def _check_known(body: Mapping[str, Any]) -> None:
    """Raises BadRequest for a field that would change the answer and is not understood."""
    for name, value in body.items():
        if name in READ or name in NEUTRAL or name in OF_THE_RECIPE or value is None or value in WITHOUT_EFFECT.get(name, ()):
            continue
        if name in WITHOUT_EFFECT:
            raise BadRequest(f"{name} is not supported: the student has not learnt it", name)
        raise BadRequest(f"unknown field: {name}", name)


def _value(body: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise BadRequest(f"{name} is {_short(value)}, expected {kind.__name__}", name)
    return value


def _number(body: Mapping[str, Any], name: str, low: float, high: float, *, whole: bool = False) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    if not fits or (whole and value != int(value)):
        raise BadRequest(
            f"{name} is {_short(value)}, expected {'an integer' if whole else 'a number'} from {low:g} to {high:g}", name
        )
    return float(value) if not whole else int(value)


def _text_list(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts) or len(texts) > MOST_STOPS:
        raise BadRequest(f"{name} is {_short(value)}, expected a text or up to {MOST_STOPS} texts", name)
    return tuple(text for text in texts if text)


def _response_format(body: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The JSON schema that the answer must keep to, and the field as it was written."""
    written = _value(body, "response_format", dict, None)
    if written is None or written.get("type") == "text":
        return None, None
    if written.get("type") == "json_object":
        return {"type": "object"}, written
    inside = written.get("json_schema")
    schema = inside.get("schema") if isinstance(inside, dict) else None
    if written.get("type") != "json_schema" or not isinstance(schema, dict):
        raise BadRequest("response_format is not text, json_object or json_schema with a schema", "response_format")
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise BadRequest(f"response_format: not a JSON schema: {error.message[:200]}", "response_format") from None
    return schema, written


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
