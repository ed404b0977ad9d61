"""Which objects and texts of a row are an API's, and which are what a model wrote: an answer may itself be JSON.

Does not know rows; `replies` reads what is an API's.
"""

import json
from collections.abc import Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.stages.generate.recorded.replies import finish_of, is_call, is_item, is_output, is_part
from seqdistill.stages.generate.recorded.streams import assembled, is_chunk
from seqdistill.tasks.messages import ROLES, is_assistant, is_conversation, role_of
from seqdistill.tasks.prompt_files import value_text

OF_TEXT = {
    "content",
    "text",
    "generated_text",
    "generation",
    "message",
    "output",
    "outputText",
    "response",
    "parts",
    "completion",
}
OF_TEXT |= {"answer", "value"}
BESIDE = {  # what an API's object has beside its text
    *("id", "object", "created", "created_at", "model", "provider", "usage", "usage_metadata", "token_usage", "tokens", "meta"),
    *("metadata", "response_metadata", "additional_kwargs", "finish_reason", "stop_reason", "done_reason", "finishReason"),
    *(
        "stopReason",
        "completionReason",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking",
        "details",
        "logprobs",
        "index",
    ),
    *("tool_calls", "function_call", "annotations", "audio", "error", "done", "seed", "cost", "latency", "tokenCount"),
    *("prompt_token_count", "generation_token_count", "inputTextTokenCount", "results", "outputs", "messages", "model_id"),
    *("stop", "stop_type", "stopped_limit", "stopped_eos", "stopped_word", "stopping_word", "truncated", "timings"),
    *("tokens_predicted", "tokens_evaluated", "tokens_cached", "generation_settings", "id_slot", "prompt", "has_new_line"),
}


def is_reply(value: Any) -> bool:
    """Whether an object is an API's reply or a message of the assistant, and not an answer that is itself JSON."""
    if not isinstance(value, Mapping):
        return False
    message = as_dict(value.get("message")) or as_dict(as_dict(value.get("output")).get("message"))
    choices, candidates = objects(value.get("choices")), objects(value.get("candidates"))
    return (
        any(one.keys() & {"message", "delta", "finish_reason"} or ("text" in one and "model" in value) for one in choices)
        or any(one.keys() & {"content", "finishReason", "finish_reason"} for one in candidates)
        or any(is_assistant(one) and one.keys() & {"content", "value", "parts", "text"} for one in (value, message))
        or (value.get("object") == "response" and isinstance(value.get("output"), list))
        or ("stop_reason" in value and bool(value.keys() & OF_TEXT))
        or (is_conversation(value.get("messages")) and any(map(is_assistant, value["messages"])))
    )


def is_reply_in_text(held: Any) -> bool:
    """Whether what a text holds, as of a cell of CSV, is an API's reply or a stream of it, and not an answer that is JSON.

    Stricter than for an object of the row's own, of which somebody who keeps texts would have kept the text alone.
    """
    if isinstance(held, list):
        if is_conversation(held):
            return any(map(is_assistant, held))
        return bool(held) and all(isinstance(one, dict) and _is_of_api(one) and not is_call(one) for one in held)
    if not isinstance(held, Mapping) or isinstance(held.get("message"), str):  # an API's message is an object
        return False
    ended = finish_of(held) is not None and _is_wrapper(held)
    generated = any("generated_text" in one for one in objects(held.get("results")))  # watsonx's
    streamed = is_chunk(held) or assembled(held.get("stream")) is not None
    return ended or generated or streamed or is_reply(held) or is_reply(held.get("body")) or _is_logged(held, "output")


def _is_logged(value: Mapping[str, Any], what: str) -> bool:
    """Whether an object is the input or the output of a call as Bedrock's log or LangWatch keeps it."""
    return f"{what}BodyJson" in value or value.get("type") == "chat_messages"


def is_request(value: Any) -> bool:
    """Whether an object is a request to an API, its messages or one of them, and not a prompt that is itself JSON."""
    if not isinstance(value, Mapping):
        return False
    contents = objects(value.get("contents"))
    return (
        is_conversation(value.get("messages"))
        or any("parts" in one for one in contents)
        or (str(value.get("role")).lower() in ROLES and bool(value.keys() & {"content", "parts"}))
        or {"raw", "label"} <= value.keys()  # Promptfoo's
        or _is_logged(value, "input")
    )


def written(answer: Any, *, is_output: bool = False) -> Any:
    """An answer as text, where a row holds it as a number, a truth, an object of no API, or alone in a list.

    The output of a program (`is_output`) is an object with the answer in it, whatever else it holds.
    """
    if isinstance(answer, list) and len(answer) == 1 and not isinstance(answer[0], (dict, list)):
        return written(answer[0])
    if isinstance(answer, list) and answer and all(isinstance(one, dict) for one in answer):
        return answer if any(map(_is_of_api, answer)) else json.dumps(answer, ensure_ascii=False)
    if isinstance(answer, (bool, int, float)):
        return value_text({"answer": answer}, "answer", "") or ""
    if not isinstance(answer, dict) or not answer or is_reply(answer) or is_chunk(answer) or _is_wrapper(answer):
        return answer
    return answer if is_output and OF_TEXT & answer.keys() else json.dumps(answer, ensure_ascii=False)


def _is_of_api(one: Mapping[str, Any]) -> bool:
    """Whether an object in a list is an API's: a message or an item, a part of its content, a choice, a call, a chunk."""
    return (
        (str(role_of(one)) in ROLES and bool(one.keys() & {"content", "value", "parts", "text", "tool_calls"}))
        or is_part(one)
        or is_call(one)
        or is_item(one)
        or is_output(one)
        or is_reply(one)
        or is_chunk(one)
        or isinstance(one.get("generated_text"), (str, list))
        or is_assistant(one.get("message"))
        or {"value", "status"} <= one.keys()  # Argilla's
    )


def left_out(reply: Any) -> list[str]:
    """The fields of a recorded object beside the text that is taken of it, where it is of no known API; mostly none."""
    if not isinstance(reply, Mapping) or is_reply(reply) or is_chunk(reply) or _is_wrapper(reply):
        return []
    return sorted(map(str, reply.keys() - OF_TEXT - BESIDE))


def _is_wrapper(answer: Mapping[str, Any]) -> bool:
    """Whether an object is no more than a text with what an API or a tool has beside it."""
    if answer.keys() & {"streamed_data", "chunks", "events"} or assembled(answer.get("stream")) or is_part(answer):
        return True
    if answer.get("type") == "message" and "content" in answer:
        return True
    if isinstance(answer.get("error"), dict) or answer.keys() <= {"error"} or isinstance(answer.get("usage"), dict):
        return True
    texts = [answer[key] for key in OF_TEXT & answer.keys() if answer[key] not in (None, "", [], {})]
    if any(isinstance(one, Mapping) and not is_reply(one) and not _is_wrapper(one) for one in texts):
        return False
    named = bool(OF_TEXT & answer.keys()) and len(texts) <= 1
    return named and (finish_of(answer) is not None or not answer.keys() - OF_TEXT - BESIDE)
