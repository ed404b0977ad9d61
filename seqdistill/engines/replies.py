"""What a chat-completions reply says, whoever sent or recorded it. Reads what servers write in the fields; sends nothing."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.reasoning import split_reasoning
from seqdistill.records import from_json

REASONING = (  # the keys of a message under which servers put it
    "reasoning",
    "reasoning_content",
    "thinking",
    "reasoning_details",
    "reasoning_text",
    "thinking_blocks",
    "reasoning_summary",
    "summary",
)
_WORDS = {  # how servers report the end of an answer, in lower case
    "stop": "stop eos eos_token eos_found stop_token stop_sequence stop_str stop_word stop_words end end_turn end_of_turn eot "
    "complete completed finish finished done",
    "length": "length max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens max_tokens_reached "
    "model_length token_limit limit context_length context_window_exceeded model_context_window_exceeded truncated incomplete "
    "not_finished",
    "content_filter": "content_filter content_filtered safety image_safety recitation blocklist prohibited_content spii "
    "sensitive guardrail_intervened moderation content_policy error_toxic blocked",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "refusal": "refusal",
    # what is not an answer: the server broke it off
    "error": "error abort aborted cancel cancelled canceled timeout time_limit preempted interrupted "
    "insufficient_system_resource engine_error internal_error network_error server_error error_limit malformed_function_call",
}
FINISH_REASONS = {word: reason for reason, words in _WORDS.items() for word in words.split()}
_FENCED = re.compile(r"\A\s*(?P<fence>`{3,}|~{3,})[ \t]*[\w+-]*[ \t]*\n(?P<inside>.*?)\n?[ \t]*(?P=fence)\s*\Z", re.DOTALL)


def choices_in(reply: Any) -> list[dict[str, Any]]:
    """The choices of a chat-completions reply that hold a message; empty for anything else.

    A choice without a message that ended at a limit or a filter is an empty answer.
    """
    choices = as_dict(reply).get("choices")
    return [one for one in map(_with_message, choices) if one] if isinstance(choices, list) else []


def _with_message(raw: Any) -> dict[str, Any] | None:
    choice = as_dict(raw)
    if isinstance(choice.get("message"), dict):
        return choice
    if choice.get("message") is None and finish_reason(choice.get("finish_reason")) in ("length", "content_filter"):
        return {**choice, "message": {"role": "assistant", "content": None}}
    return None


def finish_reason(reported: Any) -> str:
    """How an answer ended, in our words: a value of FINISH_REASONS, "error" for what is not an answer; else "unknown"."""
    if not isinstance(reported, str):
        return "unknown"
    if reported in FINISH_REASONS:
        return FINISH_REASONS[reported]
    words = re.sub(
        r"(?<=[a-z])(?=[A-Z])", "_", reported.partition(":")[0].strip()
    )  # endTurn, content-filter, FinishReason.STOP
    word = re.sub(r"[^a-z0-9]+", "_", words.lower()).removeprefix("finish_reason_")
    return FINISH_REASONS.get(word, "unknown")


def error_in(content: bytes) -> dict[str, Any]:
    """The error in a reply: `message` (str), and code, type, param where they are known; empty for none."""
    try:
        reply = from_json(content)
    except ValueError:
        return {}
    return error_of(reply[0] if isinstance(reply, list) and reply else reply)


def error_of(reply: Any) -> dict[str, Any]:
    """The error in a reply's JSON, under `error` or by itself, in one form; empty for none."""
    body = as_dict(reply)
    error = body.get("error") or body.get("errors") or body
    if isinstance(error, list):
        error = error[0] if error else {}
    if not isinstance(error, dict):
        error = {"message": str(error), "code": body.get("code"), "type": body.get("type") or body.get("error_type")}
    if isinstance(error.get("message"), dict):
        error = {**error, **error["message"], "code": error.get("code")}
    detail = error.get("detail")
    if "message" not in error and isinstance(detail, list):  # pydantic's, as FastAPI replies
        faults = [as_dict(fault) for fault in detail]
        places = [[str(part) for part in fault.get("loc") or () if part != "body"] for fault in faults]
        said = [f"{'.'.join(place)}: {fault.get('msg')}" for place, fault in zip(places, faults, strict=True)]
        return {**error, "message": "; ".join(said), "param": places[0][0] if places and places[0] else None}
    message = error.get("message") or error.get("msg") or detail or error.get("error_msg")
    return {**error, "message": message if isinstance(message, str) else json.dumps(message)} if message else error


def thoughts_of(value: Any) -> str:
    """The text in a field of reasoning: a string, or parts of whichever form; empty without any."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(thoughts_of, value)))
    if not isinstance(value, dict):
        return value if isinstance(value, str) else ""
    return next((t for key in ("thinking", "text", "summary", "content", "reasoning") if (t := _inner(value.get(key)))), "")


def _inner(value: Any) -> str:
    """The text of one part: its own parts follow each other without a break."""
    return "".join(map(thoughts_of, value)) if isinstance(value, list) else thoughts_of(value)


def reasoning_in(message: Mapping[str, Any]) -> str:
    """The reasoning that a message holds beside or among the parts of its content."""
    beside = next((t for key in REASONING if key in message and (t := thoughts_of(message[key]))), "")
    content = message.get("content")
    among = [part for part in content if _is_thought(part)] if isinstance(content, list) else []
    return beside or thoughts_of(among)


def _is_thought(part: Any) -> bool:
    return any(word in str(as_dict(part).get("type")) for word in ("thinking", "reasoning", "thought"))


def parse_choice(request_id: str, raw: dict[str, Any], number: int, seconds: float, tags: Sequence[str] = ()) -> Completion:
    """The completion in one of `choices_in` a chat-completions reply; `tags` are those of `split_reasoning`.

    The prompt's tokens are counted with the first choice; completion tokens are shared evenly among the choices, and so are
    hidden ones: what the total holds beside prompt and completion. `raw` is the reply with this choice alone.
    """
    choices = choices_in(raw)
    choice, message = choices[number], choices[number]["message"]
    usage = as_dict(raw.get("usage"))
    prompted, generated = (
        next((tokens for key in keys if (tokens := count(usage.get(key))) is not None), None)
        for keys in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    cached = as_dict(usage.get("prompt_tokens_details")).get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
    written = generated or 0
    beside = count(as_dict(usage.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    hidden = max(
        (count(usage.get("total_tokens")) or 0) - (prompted or 0) - written,
        beside if beside > written else 0,  # more than all that was counted: it was not counted
    )
    content, reasoning = split_reasoning(text_of(message.get("content")), reasoning_in(message), tags)
    reason = finish_reason(choice.get("finish_reason"))
    if not content and (refusal := text_of(message.get("refusal"))):
        content, reason = refusal, "refusal"
    return Completion(
        id=request_id,
        content=content,
        reasoning=reasoning,
        finish_reason=reason,
        prompt_tokens=(prompted or 0) if number == 0 else 0,
        completion_tokens=_share(written, number, len(choices)),
        hidden_tokens=_share(max(0, hidden), number, len(choices)),
        cached_tokens=min(count(cached) or 0, prompted or 0) if number == 0 else 0,
        seconds=seconds,
        raw={**raw, "choices": [choice]},
        tool_calls=_tool_calls(message),
        uncounted=prompted is None or generated is None or (generated == 0 and bool(content or reasoning)),
    )


def _share(tokens: int, number: int, among: int) -> int:
    """The tokens of one choice among `among`; all of them add up to the whole."""
    return tokens * (number + 1) // among - tokens * number // among


def unfenced(content: str) -> str:
    """What is in the code fence of an answer that is one whole, as models write JSON; any other answer as it is."""
    fenced = _FENCED.match(content)
    return content if fenced is None or fenced["fence"] in fenced["inside"] else fenced["inside"].strip()


def chosen(content: str) -> str:
    """The choice in an answer of the form {"choice": ...} or "...", in a code fence or not; any other answer as it is."""
    try:
        value = json.loads(unfenced(content))
    except (ValueError, RecursionError):
        return unfenced(content)
    choice = as_dict(value).get("choice") if isinstance(value, dict) else value
    return choice if isinstance(choice, str) else content


def count(tokens: Any) -> int | None:
    """A reported count of tokens, also one written as text; None for what is not a count."""
    if isinstance(tokens, str) and tokens.isascii() and tokens.isdecimal() and len(tokens) < 13:
        return int(tokens)
    return int(tokens) if isinstance(tokens, (int, float)) and tokens is not True and 0 <= tokens < 1e12 else None


def as_dict(value: Any) -> dict[str, Any]:
    """The value, where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def _tool_calls(message: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The calls in a message by name, with their arguments as the text the model wrote; None without any."""
    listed = message.get("tool_calls")
    functions = [as_dict(call).get("function") for call in listed] if isinstance(listed, list) else []
    functions = functions or [message.get("function_call")]
    calls = [as_dict(function) for function in functions if function]
    return [{"name": text_of(call.get("name")), "arguments": _arguments(call.get("arguments"))} for call in calls] or None


def _arguments(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else text_of(value)


def text_of(value: Any) -> str:
    """The text of a message's field: a string, nothing, or a part or a list of parts without those of reasoning."""
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, dict) and not _is_thought(value):
        return text_of(value.get("text")) or text_of(value.get("value"))
    return value if isinstance(value, str) else ""
