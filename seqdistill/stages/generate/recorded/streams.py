"""Recorded streams: the chunks of one answer put together as the reply that would have come without streaming.

Chunks of Chat Completions, Ollama, Gemini and Anthropic, and the closing event of a Responses stream: as objects, or as text
that is an event stream, a JSON array or an object a line. Does not know files or requests.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.engines.streams import LINE_END, Joined
from seqdistill.records import from_json

NO_END = "unknown"  # the finish_reason of a stream that stopped without one
FIELDS = ("data:", "event:", "id:", "retry:", ":")  # begin the lines of an event stream; the last is a comment
GEMINI_NAMES = {  # as Google's packages for Python write them
    **{f"{name}_token_count": f"{name}TokenCount" for name in ("prompt", "candidates", "thoughts", "total")},
    "cached_content_token_count": "cachedContentTokenCount",
    "usage_metadata": "usageMetadata",
    "model_version": "modelVersion",
    "finish_reason": "finishReason",
    "function_call": "functionCall",
    "inline_data": "inlineData",
    "file_data": "fileData",
    "executable_code": "executableCode",
    "code_execution_result": "codeExecutionResult",
}
EVENTS = ("message_start", "content_block_", "message_delta", "message_stop", "ping", "response.")


def is_chunk(row: Any) -> bool:
    """Whether an object is a piece of a stream. Ollama's only reply, where it did not stream, is a stream of one."""
    if not isinstance(row, Mapping):
        return False
    if row.get("object") == "chat.completion.chunk" or (isinstance(kind := row.get("type"), str) and kind.startswith(EVENTS)):
        return True
    choices = row.get("choices")
    if (
        isinstance(choices, list)
        and choices
        and isinstance(choices[0], Mapping)
        and isinstance(choices[0].get("delta"), Mapping)
    ):
        return True
    requests = row.keys() & {"messages", "prompt", "input", "request"}
    return not requests and isinstance(row.get("done"), bool) and bool(row.keys() & {"message", "response"})


def is_last(row: Mapping[str, Any]) -> bool:
    """Whether a chunk certainly ends its stream. After the last text of Chat Completions, usage may still follow."""
    return row.get("done") is True or row.get("type") in (
        "message_stop",
        "response.completed",
        "response.incomplete",
        "response.failed",
    )


def assembled(stream: Any) -> dict[str, Any] | None:
    """The reply that a list of chunks, or the text of a stream, amounts to; None for anything else."""
    if isinstance(stream, str):
        found = _events(stream) if stream.lstrip("\ufeff \r\n").startswith(FIELDS) else _objects_in(stream)
        errors_alone = bool(found) and all(map(_is_error, found)) and is_event_stream(stream)
        return _error_in(found) if errors_alone else assembled(found)
    if isinstance(stream, Mapping):
        inner = next((stream[key] for key in ("streamed_data", "chunks", "events") if stream.get(key)), None)
        return assembled(inner) if inner is not None else None
    if not isinstance(stream, list):
        return None
    chunks = [in_camel_case(one) for one in stream if not _is_error(one)]
    if any(_has_candidates(one) for one in chunks) and all(
        _has_candidates(one) or "usageMetadata" in as_dict(one) for one in chunks
    ):
        whole: dict[str, Any] | None = _gemini(chunks)
    elif not chunks or not all(map(is_chunk, chunks)):
        return None
    elif any(str(one.get("type")).startswith("response.") for one in chunks):
        whole = _responses(chunks)
    elif any(one.get("type") in ("message_start", "message_delta", "content_block_delta") for one in chunks):
        whole = _anthropic(chunks)
    else:
        return _chat(stream) if any("choices" in one for one in chunks) else _error_in(stream) or _ollama(chunks)
    return _error_in(stream) or whole


def is_event_stream(text: str) -> bool:
    """Whether a text is the body of an event stream, of whichever API."""
    if not text.lstrip("\ufeff \r\n").startswith(FIELDS):
        return False
    lines = [line.strip() for line in LINE_END.split(text.lstrip("\ufeff")) if line.strip()]
    fields = {line.partition(":")[0] for line in lines}
    has_data = {"event", "data"} <= fields or any(re.match(r"data: ?(?:\{|\[DONE\])", line) for line in lines)
    return has_data and all(line.startswith(FIELDS) for line in lines)


def _is_error(one: Any) -> bool:
    """Whether an object in a stream is an error: no chunk has one alone."""
    if not isinstance(one, Mapping) or "choices" in one or "response" in one:
        return False
    return isinstance(one.get("error"), (str, Mapping)) or (one.get("type") == "error" and "message" in one)


def _error_in(stream: Sequence[Any]) -> dict[str, Any] | None:
    error = next((one for one in stream if _is_error(one)), None)
    return None if error is None else {"error": error.get("error") or dict(error)}


def _objects_in(text: str) -> list[Any]:
    """The objects of a text that is a JSON array of them, or has one a line; a line cut off at the end is left out."""
    lines = [line for line in LINE_END.split(text) if line.strip()]
    found: list[Any] = []
    try:
        if text.lstrip().startswith("["):
            found = from_json(text)
        elif text.lstrip().startswith("{"):
            found += (from_json(line) for line in lines)
    except ValueError:
        found = found if len(found) == len(lines) - 1 else []
    return found if len(found) > 1 or (found and ("model" in as_dict(found[0]) or _has_candidates(found[0]))) else []


def _has_candidates(one: Any) -> bool:
    return any(
        candidate.keys() & {"content", "finishReason", "finish_reason"} for candidate in objects(as_dict(one).get("candidates"))
    )


def in_camel_case(reply: Any) -> Any:
    """A reply of Gemini with the names of its API in place of those of Google's Python packages; other values as they are."""
    return _renamed(reply) if _has_candidates(reply) or as_dict(reply).get("usage_metadata") else reply


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        GEMINI_NAMES.get(key, key): one if key == "args" else _renamed(one) for key, one in value.items() if one is not None
    }


def _events(text: str) -> list[Any]:
    """The objects in the data lines of an event stream; a line cut off at the end is left out."""
    found = []
    for line in LINE_END.split(text.lstrip("\ufeff")):
        data = line.strip().removeprefix("data:").strip()
        if line.lstrip().startswith("data:") and data.startswith("{"):
            try:
                found.append(from_json(data))
            except ValueError:
                break
    return found


def _chat(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined = Joined()
    for chunk in chunks:
        joined.add_chunk(dict(chunk))
    if joined.error:
        return joined.error
    reply = joined.reply()
    ended = [{**choice, "finish_reason": choice["finish_reason"] or NO_END} for choice in reply["choices"]]
    return {**reply, "choices": ended}


def _ollama(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = dict(chunks[-1])
    if not last.get("done"):
        last["done_reason"] = NO_END
    if any(isinstance(chunk.get("message"), Mapping) for chunk in chunks):
        parts = [chunk["message"] for chunk in chunks if isinstance(chunk.get("message"), Mapping)]
        message: dict[str, Any] = {key: "".join(str(part.get(key) or "") for part in parts) for key in ("content", "thinking")}
        message["tool_calls"] = [call for part in parts for call in objects(part.get("tool_calls"))]
        return {**last, "message": message}
    whole = {key: "".join(str(chunk.get(key) or "") for chunk in chunks) for key in ("response", "thinking")}
    return {**last, **whole}


def _gemini(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for one in objects(chunk.get("candidates")):
            parts = whole.get(_index(one), {}).get("parts", []) + objects(as_dict(one.get("content")).get("parts"))
            whole[_index(one)] = {"finishReason": NO_END, **whole.get(_index(one), {}), **one, "parts": parts}
    candidates = [{**one, "content": {"role": "model", "parts": one.pop("parts")}} for _, one in sorted(whole.items())]
    return {key: value for chunk in chunks for key, value in chunk.items()} | {"candidates": candidates}


def _anthropic(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    reply: dict[str, Any] = {"type": "message", "stop_reason": NO_END, "usage": {}}
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "message_start" and isinstance(event.get("message"), Mapping):
            begun = event["message"]
            reply |= {key: begun[key] for key in ("id", "model") if key in begun}
            reply["usage"] |= as_dict(begun.get("usage"))
        elif event["type"] == "content_block_start" and isinstance(event.get("content_block"), Mapping):
            blocks[_index(event)] = {**event["content_block"]}
        elif event["type"] == "content_block_delta" and isinstance(event.get("delta"), Mapping):
            block = blocks.setdefault(_index(event), {"type": "text"})
            for key, piece in event["delta"].items():
                if key in ("text", "thinking", "partial_json") and isinstance(piece, str):
                    old = block.get(key)
                    block[key] = (old if isinstance(old, str) else "") + piece
        elif event["type"] == "message_delta":
            reply["usage"] |= as_dict(event.get("usage"))
            reply["stop_reason"] = as_dict(event.get("delta")).get("stop_reason") or reply["stop_reason"]
    for block in blocks.values():
        if "partial_json" in block:
            block["input"] = block.pop("partial_json")
    return {**reply, "content": [block for _, block in sorted(blocks.items())]}


def _index(piece: Mapping[str, Any]) -> int:
    index = piece.get("index")
    return index if isinstance(index, int) else 0


def _responses(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    whole = [event["response"] for event in events if is_last(event) and isinstance(event.get("response"), Mapping)]
    return dict(whole[-1]) if whole else None
