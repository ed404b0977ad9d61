"""What a chat-completions reply says, whoever sent or recorded it. Reads what servers write in the fields; sends nothing."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.usage import count, usage_of
from seqdistill.fences import unfenced
from seqdistill.reasoning import split_reasoning
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
    "stop": "stop eos eos_token eos_token_id eos_found stop_token stop_sequence stop_str stop_word stop_words end end_turn "
    "end_of_turn end_of_text end_of_message endoftext im_end eot eom "
    "complete completed finish finished done normal",
    "length": "length max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens max_tokens_reached "
    "model_length token_limit limit context_length context_window_exceeded model_context_window_exceeded truncated incomplete "
    "not_finished max_output max_output_reached pause_turn length_limit length_capped max_context_length out_of_tokens "
    "repetition",  # vLLM ended it because it repeats itself
    "content_filter": "content_filter content_filtered safety image_safety recitation blocklist prohibited_content spii "
    "sensitive guardrail_intervened guardrails moderation content_policy error_toxic blocked "
    "model_armor language",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "refusal": "refusal",
    # what is not an answer: the server broke it off
    "error": "error abort aborted cancel cancelled canceled timeout time_limit preempted interrupted "
    "insufficient_system_resource engine_error internal_error network_error server_error error_limit malformed_function_call "
    "malformed_model_output malformed_tool_use unexpected_tool_call too_many_tool_calls user_cancel "
    "function_call_filter malformed_response missing_thought_signature "
    "load unload",  # the last two: Ollama did no more than that
}
FINISH_REASONS = {word: reason for reason, words in _WORDS.items() for word in words.split()}


def choices_in(reply: Any) -> list[dict[str, Any]]:
    """The choices of a chat-completions reply that hold a message; empty for anything else.

    A choice without a message that ended at a limit or a filter is an empty answer.
    """
    return [one for one in map(_with_message, as_list(as_dict(reply).get("choices"))) if one]


def _with_message(raw: Any) -> dict[str, Any] | None:
    """A choice with its message, which may be a text alone, and in older or streaming forms has another name."""
    choice = as_dict(raw)
    if isinstance(choice.get("message"), dict):
        return choice
    message = next((choice[key] for key in ("message", "delta", "text") if choice.get(key) is not None), None)
    if isinstance(message, str):
        message = {"role": "assistant", "content": message}
    if message is None and finish_reason(choice.get("finish_reason")) in ("length", "content_filter"):
        message = {"role": "assistant", "content": None}
    return {**choice, "message": message} if isinstance(message, dict) else None


def broken_off(reply: Mapping[str, Any], choice: Mapping[str, Any]) -> str | None:
    """Why a choice is no whole answer, where an error says so in it or beside it; None where none does."""
    ended = finish_reason(choice.get("finish_reason"))
    beside = reply.get("error") if ended in ("unknown", "error") else None
    if error := choice.get("error") or beside:
        return str(error_of({"error": error}).get("message") or json.dumps(error))
    return str(choice.get("finish_reason")) if ended == "error" else None


def is_error_alone(reply: Any) -> bool:
    """Whether a reply has an error beside its choices, and nothing in them."""
    body = as_dict(reply)
    error = body.get("error") or _minimax_error(body)
    return bool(error) and not any(has_answer(choice["message"]) for choice in choices_in(reply))


ERROR_KEYS = ("error", "errors", "detail", "msg", "fault", "error_msg")


def has_error(reply: Mapping[str, Any]) -> bool:
    """Whether a reply of status 200 reports an error of its own."""
    return any(reply.get(key) for key in ERROR_KEYS) or bool(_minimax_error(reply))


def has_answer(message: Mapping[str, Any]) -> bool:
    """Whether anything in a message was generated."""
    return bool(text_of(content_in(message)) or reasoning_in(message) or refusal_in(message) or _tool_calls(message))


def says_end(choice: Mapping[str, Any]) -> bool:
    """Whether a choice says how it ended: "", null and "null", as some write in a stream's every chunk, do not."""
    return choice.get("finish_reason") not in (None, "", "null")


def finish_reason(reported: Any) -> str:
    """How an answer ended, in our words: a value of FINISH_REASONS, "error" for what is not an answer; else "unknown"."""
    if isinstance(reported, dict):  # SGLang's own form
        reported = reported.get("type")
    if not isinstance(reported, str):
        return "unknown"
    if reported in FINISH_REASONS:
        return FINISH_REASONS[reported]
    words = re.sub(
        r"(?<=[a-z])(?=[A-Z])", "_", reported.partition(":")[0].strip()
    )  # endTurn, content-filter, FinishReason.STOP
    word = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_").removeprefix("finish_reason_")
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
    error = body.get("error") or body.get("errors") or body.get("fault") or _minimax_error(body) or body
    if isinstance(error, list):
        error = error[0] if error else {}
    if error is True:
        error = {name: value for name, value in body.items() if name != "error"}
    if not isinstance(error, dict):
        beside = body.get("message")
        words = str(error) if not isinstance(beside, str) or str(error) in beside else f"{error}: {beside}"
        error = {"message": words, "code": body.get("code"), "type": body.get("type") or body.get("error_type")}
    if isinstance(error.get("message"), dict):
        error = {**error, **error["message"], "code": error.get("code")}
    detail = error.get("detail")
    if "message" not in error and isinstance(detail, list):  # pydantic's, as FastAPI replies
        faults = [as_dict(fault) for fault in detail]
        places = [_place(fault.get("loc")) for fault in faults]
        messages = [f"{'.'.join(place)}: {fault.get('msg')}" for place, fault in zip(places, faults, strict=True)]
        return {**error, "message": "; ".join(messages), "param": places[0][0] if places and places[0] else None}
    keys = ("message", "Message", "msg", "faultstring", "error_msg", "detail", "title")
    message = next((error[key] for key in keys if error.get(key)), None)
    if not message:
        return error
    return _with_inner({**error, "message": message if isinstance(message, str) else json.dumps(message)})


def _place(loc: Any) -> list[str]:
    """The path to a field in pydantic's `loc`."""
    return [str(part) for part in as_list(loc) if part != "body"]


def _with_inner(error: dict[str, Any]) -> dict[str, Any]:
    """An error with what it hands on of the one behind it, in `metadata.raw` as OpenRouter does: its words, field and type."""
    raw = as_dict(error.get("metadata")).get("raw")
    inner = error_in(raw.encode(errors="replace")) if isinstance(raw, str) else error_of(raw)
    message = inner.get("message") or (raw if isinstance(raw, str) and not raw.lstrip().startswith("<") else None)
    if not message:
        return error
    kind = inner.get("code") or inner.get("type") or error.get("type")
    return {**error, "message": f"{error['message']}: {message}", "param": inner.get("param"), "type": kind}


MINIMAX = {  # https://platform.minimaxi.com/document/ChatCompletion: its errors come with a 200
    **dict.fromkeys((1002, 1039, 1041), 429),
    **dict.fromkeys((1004, 2049), 401),
    1008: 402,
    **dict.fromkeys((1026, 1027), "sensitive"),
    1001: 504,
    **dict.fromkeys((1000, 1013, 1024, 1033), 500),
    2013: 400,
}


def _minimax_error(body: Mapping[str, Any]) -> dict[str, Any]:
    status = as_dict(body.get("base_resp"))
    code = count(status.get("status_code"))
    return {"message": status.get("status_msg") or f"status {code}", "code": MINIMAX.get(code, code)} if code else {}


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
    return beside or thoughts_of([part for part in as_list(message.get("content")) if _is_thought(part)])


def content_in(message: Mapping[str, Any]) -> Any:
    """A message's content: a text, or parts. What a server has parsed already, as JSON of an answer, is text again."""
    content = message.get("content")
    parsed = isinstance(content, dict) and not content.keys() & {"type", "text", "value"}
    return json.dumps(content, ensure_ascii=False) if parsed or isinstance(content, (bool, int, float)) else content


def refusal_in(message: Mapping[str, Any]) -> str:
    """The refusal that a message holds beside its content, or as a part of it."""
    parts = [text_of(as_dict(part).get("refusal")) for part in as_list(message.get("content"))]
    return text_of(message.get("refusal")) or "".join(parts)


def _is_thought(part: Any) -> bool:
    return any(word in str(as_dict(part).get("type")) for word in ("thinking", "reasoning", "thought"))


def answer_in(message: Mapping[str, Any], tags: Sequence[str] = ()) -> tuple[str, str | None]:
    """(answer, reasoning) of a message; `tags` are those of `split_reasoning`."""
    return split_reasoning(text_of(content_in(message)), reasoning_in(message), tags)


def parse_choice(request_id: str, raw: dict[str, Any], number: int, seconds: float, tags: Sequence[str] = ()) -> Completion:
    """The completion in one of `choices_in` a chat-completions reply; `tags` are those of `split_reasoning`.

    The prompt's tokens are counted with the first choice; completion tokens are shared evenly among the choices, and so are
    hidden ones, what the total holds beside prompt and completion, and what the endpoint says that it bills.
    `raw` is the reply with this choice alone.
    """
    choices = choices_in(raw)
    choice, message = choices[number], choices[number]["message"]
    usage, calls = usage_of(raw), _tool_calls(message)
    content, reasoning = answer_in(message, tags)
    reason = "error" if broken_off(raw, choice) else finish_reason(choice.get("finish_reason"))
    if not content and (refusal := refusal_in(message)):
        content, reason = refusal, "refusal"
    return Completion(
        id=request_id,
        content=content,
        reasoning=reasoning,
        finish_reason=reason,
        prompt_tokens=(usage.prompt or 0) if number == 0 else 0,
        completion_tokens=_share(usage.completion or 0, number, len(choices)),
        hidden_tokens=_share(usage.hidden, number, len(choices)),
        billed_usd=None if usage.billed_usd is None else usage.billed_usd / len(choices),
        cached_tokens=usage.cached if number == 0 else 0,
        cache_write_tokens=usage.cache_writes if number == 0 else 0,
        cache_write_1h_tokens=usage.cache_writes_1h if number == 0 else 0,
        seconds=seconds,
        raw={**raw, "choices": [choice]},
        tool_calls=calls,
        uncounted=not usage.prompt
        or usage.completion is None
        or (usage.completion == 0 and bool(content or reasoning or calls)),
    )


def _share(tokens: int, number: int, among: int) -> int:
    """The tokens of one choice among `among`; all of them add up to the whole."""
    return tokens * (number + 1) // among - tokens * number // among


def chosen(content: str) -> str:
    """The choice in an answer of the form {"choice": ...} or "...", in a code fence or not; any other answer as it is."""
    try:
        value = json.loads(unfenced(content))
    except (ValueError, RecursionError):
        return unfenced(content)
    choice = as_dict(value).get("choice") if isinstance(value, dict) else value
    return choice if isinstance(choice, str) else content


def as_dict(value: Any) -> dict[str, Any]:
    """The value, where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value, where it is a list; else an empty one."""
    return value if isinstance(value, list) else []


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _tool_calls(message: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The calls in a message by name, with their arguments as the text the model wrote; None without any."""
    functions = [as_dict(call).get("function") for call in as_list(message.get("tool_calls"))]
    functions = functions or [message.get("function_call")]
    calls = [call for call in map(as_dict, functions) if any(call.values())]
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


def written_in(raw: Mapping[str, Any]) -> tuple[str, str]:
    """What a model wrote, reasoning in its text included, and the reasoning beside it, by its endpoint's or engine's reply."""
    if choices := choices_in(raw):
        return text_of(content_in(choices[0]["message"])), reasoning_in(choices[0]["message"])
    return str(raw.get("text") or ""), ""
