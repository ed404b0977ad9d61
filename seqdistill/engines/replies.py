"""What a chat-completions reply says, whoever sent or recorded it. Takes whatever servers write in the fields; asks nobody."""

import json
from collections.abc import Mapping
from typing import Any

from seqdistill.engines import Completion, split_reasoning
from seqdistill.records import from_json

REASONING = ("reasoning", "reasoning_content", "thinking")  # the keys under which it stands beside an answer
FINISH_REASONS = {
    **{reason: reason for reason in ("stop", "length", "content_filter", "tool_calls")},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    "max_tokens": "length",
    "function_call": "tool_calls",
}


def choices_in(reply: Any) -> list[dict[str, Any]]:
    """The choices of a chat-completions reply that hold a message; none of what is no such reply."""
    choices = as_dict(reply).get("choices")
    return [one for one in choices if isinstance(as_dict(one).get("message"), dict)] if isinstance(choices, list) else []


def error_in(content: bytes) -> dict[str, Any]:
    """The error that a reply tells, under `error` or by itself; empty for what tells none."""
    try:
        told = as_dict(from_json(content))
    except ValueError:
        return {}
    error = told.get("error") or told
    return error if isinstance(error, dict) else {"message": str(error)}


def parse_choice(request_id: str, raw: dict[str, Any], number: int, seconds: float) -> Completion:
    """The completion in one of `choices_in` a chat-completions reply.

    The prompt's tokens are counted with the first choice; completion tokens are shared evenly among the choices, and so are
    hidden ones: what the total holds beside prompt and completion. `raw` is the reply with this choice alone.
    """
    choices = choices_in(raw)
    choice, message = choices[number], choices[number]["message"]
    usage = as_dict(raw.get("usage"))
    asked, generated = (count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens"))
    cached = as_dict(usage.get("prompt_tokens_details")).get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
    written = generated or 0
    hidden = max(0, (count(usage.get("total_tokens")) or 0) - (asked or 0) - written)
    thoughts = next((t for key in REASONING if (t := _text(message.get(key)))), None)
    content, reasoning = split_reasoning(_text(message.get("content")), thoughts)
    reason = FINISH_REASONS.get(str(choice.get("finish_reason")), "unknown")
    if not content and (refusal := _text(message.get("refusal"))):
        content, reason = refusal, "refusal"
    return Completion(
        id=request_id,
        content=content,
        reasoning=reasoning,
        finish_reason=reason,
        prompt_tokens=(asked or 0) if number == 0 else 0,
        completion_tokens=_share(written, number, len(choices)),
        hidden_tokens=_share(hidden, number, len(choices)),
        cached_tokens=min(count(cached) or 0, asked or 0) if number == 0 else 0,
        seconds=seconds,
        raw={**raw, "choices": [choice]},
        tool_calls=_tool_calls(message),
        uncounted=asked is None or generated is None,
    )


def _share(tokens: int, number: int, among: int) -> int:
    """The tokens of one of so many choices; all of them add up to the whole."""
    return tokens * (number + 1) // among - tokens * number // among


def chosen(content: str) -> str:
    """The choice in an answer that has the form {"choice": ...}; any other answer as it is."""
    try:
        choice = as_dict(json.loads(content)).get("choice")
    except (ValueError, RecursionError):
        return content
    return choice if isinstance(choice, str) else content


def count(tokens: Any) -> int | None:
    """A count of tokens as somebody told it; None for what is none."""
    return int(tokens) if isinstance(tokens, (int, float)) and 0 <= tokens < 1e12 else None


def as_dict(value: Any) -> dict[str, Any]:
    """The value, where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def _tool_calls(message: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The calls in a message by name, with their arguments as the text the model wrote; None without any."""
    listed = message.get("tool_calls")
    functions = [as_dict(call).get("function") for call in listed] if isinstance(listed, list) else []
    functions = functions or [message.get("function_call")]
    calls = [as_dict(function) for function in functions if function]
    return [{"name": _text(call.get("name")), "arguments": _arguments(call.get("arguments"))} for call in calls] or None


def _arguments(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    """The text of a message's field, which is a string, nothing, or a list of parts."""
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""
