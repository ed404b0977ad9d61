"""Requests and replies of the APIs that people log, in the one form that is parsed: messages and a chat-completions reply.

Knows Chat Completions and its older text form, Responses, Anthropic Messages, Ollama, Gemini, Bedrock Converse and plain text.
Does not know files, lines or which request a reply answers.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import (
    REASONING,
    as_dict,
    choices_in,
    content_in,
    is_error_alone,
    objects,
    parse_choice,
    refusal_in,
    thoughts_of,
)
from seqdistill.engines.usage import ANSWER_TOKENS, PROMPT_TOKENS, count, reported, usage_of
from seqdistill.errors import UsageError
from seqdistill.records import Message
from seqdistill.stages.generate.recorded.streams import assembled, in_camel_case, is_event_stream
from seqdistill.tasks.beside_prompt import check_kept_elsewhere
from seqdistill.tasks.marked_turns import prompted_turns
from seqdistill.tasks.messages import (
    TEXT_PARTS,
    call_in,
    call_text,
    chat_messages,
    check_no_files,
    is_assistant,
    is_conversation,
    structured,
    tool_calls,
    with_system,
)
from seqdistill.tasks.row_columns import check_only_text, system_of

Reply = dict[str, Any]  # {"model", "choices": [{"message", "finish_reason", ...}], "usage"}

NONE_RECORDED = ""  # the finish_reason of a completion whose log has none
PARTS = {  # of a message's content, each with what is in it
    "text": "text",
    "output_text": "text",
    "thinking": "thinking",
    "tool_use": "input",
    "redacted_thinking": "data",
    "refusal": "refusal",
    "reasoning": "reasoning",
}
SERVER_TOOLS = ("_tool_result", "server_tool_use", "mcp_tool_use")  # the API's own tools: the answer's text is behind them
PRINTED = re.compile(  # an SDK's object
    r"(?:ChatCompletion|Completion|ModelResponse|Message|Response|GenerateContentResponse|AIMessage)"
    r"\((?:id|choices|content|candidates)=|content='.*' (?:additional_kwargs|response_metadata)=\{",
    re.DOTALL,
)
GEMINI_FINISHES = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 6: "LANGUAGE", 7: "BLOCKLIST"}
GEMINI_FINISHES |= {8: "PROHIBITED_CONTENT", 9: "SPII", 10: "MALFORMED_FUNCTION_CALL"}
USAGES = ("usage", "usageDetails", "tokenUsage", "usage_details", "token_usage", "usage_metadata", "details")
LLAMA_CPP_FINISHES = {"eos": "stop", "word": "stop", "limit": "length"}
LOGGED_PROMPT_TOKENS = (
    *(*PROMPT_TOKENS, "prompt_token_count", "inputTextTokenCount", "inputTokenCount", "tokens_in"),
    *("tokens_evaluated", "input_token_count"),
)
LOGGED_ANSWER_TOKENS = (
    *(*ANSWER_TOKENS, "generation_token_count", "outputTokenCount", "tokens_out", "tokenCount"),
    *("tokens_predicted", "generated_token_count", "generated_tokens"),
)


# --- requests ---------------------------------------------------------------------------------------------------------


def messages_in(request: Any, place: str) -> list[Message] | None:
    """A request's messages; None for what is not a request. Raises UsageError for messages that are not text."""
    if is_conversation(request):
        return chat_messages(request, place, "messages")
    if isinstance(request, str):
        return [{"role": "user", "content": request}] if request.strip() else None
    if not isinstance(request, Mapping):
        return None
    check_only_text(request, place)
    check_kept_elsewhere(request, place)
    for key in (
        "messages",
        "conversations",
        "contents",
        "input",
        "inputs",
        "prompt",
        "query",
        "question",
        "inputText",
        "message",
    ):
        value = structured(request.get(key))
        if isinstance(value, Mapping) and key in ("messages", "prompt"):
            value = value.get("messages") or value.get("content")  # a prompt of a library's own, such as Langfuse's
        if value in (None, "", [], {}):
            continue
        text = request.get(key)
        if isinstance(text, str) and not is_conversation(value) and key not in ("messages", "conversations"):
            earlier = _cohere_turns(request.get("chat_history"), place) if key == "message" else []
            turns = (
                chat_messages(prompted_turns(text) or [{"role": "user", "content": text}], place, key) if text.strip() else []
            )
            messages: list[Message] | None = [*earlier, *turns]
        elif isinstance(value, Mapping):
            messages = messages_in(value, place)
        else:
            messages = chat_messages(_with_roles(value), place, key)
        if messages:
            return with_system(messages, system_of(request), place)
    alone = next(iter(request.values())) if len(request) == 1 else None
    return messages_in(alone, place) if isinstance(alone, str) else None


def _cohere_turns(history: Any, place: str) -> list[Message]:
    """The earlier turns of a request to Cohere's first chat API."""
    turns = [{"role": one.get("role"), "content": one.get("message")} for one in _listed(history) if isinstance(one, Mapping)]
    return chat_messages(turns, place, "chat_history") if turns else []


def _with_roles(value: Any) -> Any:
    """Gemini's contents may leave the user's role out."""
    if isinstance(value, list):
        return [{"role": "user", **one} if isinstance(one, Mapping) and "parts" in one else one for one in value]
    return value


# --- replies ----------------------------------------------------------------------------------------------------------


def chat_reply(reply: Any, place: str) -> Reply | None:
    """A recorded reply in chat-completions form; None for what is no reply. Raises UsageError for an error in its place."""
    if (found := api_reply(reply, place)) is not None:
        return found
    if isinstance(reply, str):
        return _reply({"content": reply}, None, {}) if reply.strip() else None
    if isinstance(reply, list):
        if reply and all(isinstance(one, Mapping) and is_part(one) and "role" not in one for one in reply):
            return _reply({"content": reply}, None, {})
        if reply and all(isinstance(one, Mapping) and is_call(one) for one in reply):
            return _reply({"tool_calls": reply}, "tool_calls", {})
        if reply and all(map(is_output, reply)):
            return _chat({"choices": reply})
        answers = [one for one in reply if is_assistant(one) or (isinstance(one, Mapping) and "generated_text" in one)]
        return chat_reply(answers[-1], place) if answers else None
    if not isinstance(reply, Mapping):
        return None
    if is_assistant(reply):
        facts = {**as_dict(reply.get("response_metadata")), **reply}  # the former is LangChain's
        return {"model": facts.get("model") or facts.get("model_name"), **_reply(reply, finish_of(facts), facts)}
    if isinstance(turns := reply.get("generated_text"), list):  # of a pipeline of transformers
        return chat_reply(turns, place)
    for key in ("generated_text", "generation", "text", "completion", "content", "answer", "output", "outputText"):
        if isinstance(text := reply.get(key), str) and text.strip():
            model = reply.get("model") or reply.get("model_id")
            return {"model": model, **_reply({**reply, "content": text}, finish_of(reply), reply)}
    if answers := [one for one in objects(reply.get("messages")) if is_assistant(one)]:
        return chat_reply({**{key: value for key, value in reply.items() if key != "messages"}, **answers[-1]}, place)
    for key in ("results", "outputs"):  # Titan, Mistral on Bedrock
        if isinstance(listed := reply.get(key), list) and len(listed) == 1 and isinstance(listed[0], Mapping):
            return chat_reply({**reply, key: None, **listed[0]}, place)
    return None


def api_reply(reply: Any, place: str) -> Reply | None:
    """The same for a whole reply object of one of the APIs, or its stream, and nothing looser than that."""
    reply = whole_reply(reply, place)
    if not isinstance(reply, Mapping):
        return None
    reply = in_camel_case(reply)
    for read in READERS:
        if (found := read(reply)) is not None:
            return {"model": reply.get("model") or reply.get("modelVersion"), **found}
    if reply.get("error") and not isinstance(reply["error"], bool):
        raise UsageError(f"{place}: the reply is an error: {json.dumps(reply['error'])[:200]}")
    return None


def whole_reply(reply: Any, place: str) -> Any:
    """The reply that a recorded stream amounts to; any other reply as it is.

    Raises UsageError for the text of an event stream that has no end or is of no known API: it is no answer.
    """
    if (stream := assembled(reply)) is not None:
        return stream
    if isinstance(reply, str) and is_event_stream(reply):
        said = " ".join(reply.split())[:120]
        raise UsageError(f"{place}: a recorded stream that has no end or is of no known API: {said}", "log the whole reply")
    return reply


def _chat(reply: Mapping[str, Any]) -> Reply | None:
    choices = [] if is_error_alone(reply) else choices_in(reply)
    read = [{**choice, "message": _message(choice["message"])} for choice in choices]
    error = {"error": reply["error"]} if reply.get("error") else {}
    return {"choices": read, "usage": usage_in(reply), **error} if read else None


def _responses(reply: Mapping[str, Any]) -> Reply | None:
    items = reply.get("output")
    if not isinstance(items, list) or not (reply.get("object") == "response" or any(map(is_item, objects(items)))):
        return None
    kinds = {str(kind) for one in items if (kind := as_dict(one).get("type"))}
    if not items:
        return None
    content = [part for one in items if as_dict(one).get("type") == "message" for part in _listed(one.get("content"))]
    if "image_generation_call" in kinds:
        raise UsageError("the answer holds an image, and only text can be learnt", "remove the row")
    kinds &= {"custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"}
    if kinds:
        raise UsageError(
            f"the answer is a call of type {min(kinds)!r}: only calls of functions can be learnt", "remove the row"
        )
    thoughts = [one for one in items if as_dict(one).get("type") == "reasoning"]
    calls = [one for one in items if as_dict(one).get("type") == "function_call"]
    message = {"content": content, "reasoning": thoughts, "tool_calls": [{"function": call} for call in calls]}
    reason = as_dict(reply.get("incomplete_details")).get("reason") or reply.get("status")
    return _reply(message, "tool_calls" if calls and reason == "completed" else reason, reply)


def _anthropic(reply: Mapping[str, Any]) -> Reply | None:
    if not isinstance(reply.get("content"), (list, str)) or not (reply.get("type") == "message" or "stop_reason" in reply):
        return None
    return _reply({"content": reply["content"]}, reply.get("stop_reason"), reply)


def _ollama(reply: Mapping[str, Any]) -> Reply | None:
    message = reply.get("message")
    if isinstance(message, Mapping) and "choices" not in reply and ("content" in message or "tool_calls" in message):
        return _reply(message, finish_of(reply), reply)
    if isinstance(reply.get("response"), str) and isinstance(reply.get("done"), bool):
        return _reply({"content": reply["response"], "thinking": reply.get("thinking")}, finish_of(reply), reply)
    return None


def _gemini(reply: Mapping[str, Any]) -> Reply | None:
    candidates = reply.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        return None
    choices = [
        {"message": _message({"content": as_dict(one.get("content")).get("parts")}), "finish_reason": _gemini_finish(one)}
        for one in candidates
        if isinstance(one, Mapping)
    ]
    return {"choices": choices, "usage": usage_in({"usage": reply.get("usageMetadata")})}


def _gemini_finish(candidate: Mapping[str, Any]) -> Any:
    """Why a candidate ended, also where it is the number that the older package for Python writes."""
    reason = candidate.get("finishReason")
    return GEMINI_FINISHES.get(reason, "other") if isinstance(reason, int) else reason


def _converse(reply: Mapping[str, Any]) -> Reply | None:
    message = as_dict(reply.get("output")).get("message")
    is_message = isinstance(message, Mapping) and (is_assistant(message) or "stopReason" in reply)
    return _reply(as_dict(message), reply.get("stopReason"), reply) if is_message else None


READERS: tuple[Callable[[Mapping[str, Any]], Reply | None], ...] = (
    _chat,
    _responses,
    _anthropic,
    _ollama,
    _gemini,
    _converse,
)


def _reply(message: Mapping[str, Any], reason: Any, facts: Mapping[str, Any]) -> Reply:
    """A reply of one choice, with the tokens that `facts` counts."""
    return {"choices": [{"message": _message(message), "finish_reason": reason}], "usage": usage_in(facts)}


def is_part(one: Mapping[str, Any]) -> bool:
    """Whether an object is a part of a message's content, and not of an answer that is JSON."""
    return PARTS.get(str(one.get("type")), "type") in one.keys() - {"type"}


def is_call(one: Mapping[str, Any]) -> bool:
    """Whether an object is a call of a function as the chat APIs and LangChain write it."""
    return bool(as_dict(one.get("function")).get("name")) or (
        {"name", "args", "id"} <= one.keys() and one.get("type") == "tool_call"
    )


def is_output(one: Any) -> bool:
    """Whether an object is one of the outputs of vLLM's own package: a text with its tokens."""
    return (
        isinstance(one, Mapping) and isinstance(one.get("text"), str) and bool(one.keys() & {"token_ids", "cumulative_logprob"})
    )


def is_item(one: Mapping[str, Any]) -> bool:
    """Whether an object is an item of the output of the Responses API."""
    kind = str(one.get("type"))
    beside = {"message": {"content"}, "reasoning": {"summary", "content", "encrypted_content"}}.get(kind, {"id", "call_id"})
    return bool(beside & one.keys()) and (
        kind in ("message", "reasoning", "compaction") or kind.endswith(("_call", "_call_output"))
    )


def finish_of(row: Mapping[str, Any]) -> Any:
    """The finish reason that a reply or a row has under any of its names; None for none."""
    keys = ("finish_reason", "stop_reason", "done_reason", "finishReason", "stopReason", "completionReason")
    if (found := next((row[key] for key in keys if row.get(key)), None)) is not None:
        return found
    if (ended := str(row.get("stop_type"))) in LLAMA_CPP_FINISHES or row.get("stopped_limit") is True:
        return LLAMA_CPP_FINISHES.get(ended, "length")
    return as_dict(row.get("details")).get("finish_reason")  # TGI's


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's message with `content` as text, its reasoning under one key and its calls in one form."""
    check_no_files(message, "the answer")
    content = next((message[key] for key in ("value", "parts", "text") if message.get(key) is not None), None)
    content = content if (said := content_in(message)) is None else said
    texts, thoughts, calls = [], [], tool_calls(message)
    beside_parts = len(calls)
    if message.get("from") == "function_call" and calls:
        content = ""
    for part in [content] if isinstance(content, str) else _listed(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            continue
        elif kind in ("thinking", "reasoning", "redacted_thinking") or part.get("thought") is True:
            thoughts.append(thoughts_of(part.get("value")) or thoughts_of(part))
        elif isinstance(held := part.get("reasoningContent"), Mapping):  # of Converse
            thoughts.append(thoughts_of(held.get("reasoningText")))
        elif (call := call_in(part)) is not None:
            calls += [call] if call_text(call) not in map(call_text, calls[:beside_parts]) else []  # LangChain has both
        elif not str(kind).endswith(SERVER_TOOLS):
            texts.append(_text_of_part(part))
    beside = next((thought for key in REASONING if (thought := thoughts_of(message.get(key)))), "")
    return {
        "content": "".join(texts),
        "reasoning_content": beside or "".join(thoughts) or None,
        "refusal": refusal_in(message),
        "tool_calls": [{"function": call} for call in calls] or None,
    }


def _text_of_part(part: Mapping[str, Any]) -> str:
    """Raises UsageError for a part that is not text: without it, the answer would be another one."""
    inner = [as_dict(one).get("value", one) for key in ("text", "value", "content") if (one := part.get(key)) is not None]
    if text := next((one for one in inner if isinstance(one, str)), None):
        return text
    kind = part.get("type") or ", ".join(sorted(map(str, part.keys() - {"thoughtSignature"})))
    if kind and kind not in TEXT_PARTS and not {"text", "cachePoint"} & part.keys():
        raise UsageError(
            f"the answer holds a part of type {str(kind)!r}: only text can be learnt", "remove the part or the row"
        )
    return ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def usage_in(facts: Mapping[str, Any]) -> dict[str, int | None]:
    """The counts of tokens that a reply or a row has, in `usage` or beside it."""
    own = reported(facts)
    places = [own] if own else [as_dict(facts[key]) for key in USAGES if facts.get(key)]

    def first(keys: tuple[str, ...], *short: str) -> int | None:
        beside = [facts[key] for key in keys if key in facts]
        found = [place[key] for place in places for key in (*keys, *short) if key in place]
        return next((tokens for value in (*found, *beside) if (tokens := count(value)) is not None), None)

    places += [as_dict(facts["meta"])] if facts.get("meta") else []  # Cohere's
    places += [as_dict(place["tokens"]) for place in places if place.get("tokens")]
    prompted, answered = first(LOGGED_PROMPT_TOKENS, "input", "prompt"), first(LOGGED_ANSWER_TOKENS, "output", "completion")
    if places and (counted := usage_of({"usage": places[0]}).prompt) is not None:
        prompted = counted
    details = as_dict(places[0].get("prompt_tokens_details")) if places else {}
    cached = {"prompt_tokens_details": details} if details else {}
    return {"prompt_tokens": prompted, "completion_tokens": answered, **cached}  # type: ignore[dict-item]


# --- completions ------------------------------------------------------------------------------------------------------


def completions_of(reply: Reply, raw: Mapping[str, Any]) -> list[Completion]:
    """One completion a choice; `raw` is the reply as it was recorded. Without a finish reason it is NONE_RECORDED."""
    written = raw.get("choices") if len(choices_in(raw)) == len(reply["choices"]) else None
    completions = []
    for number, choice in enumerate(reply["choices"]):
        parsed = parse_choice("", {**reply, "usage": reply["usage"]}, number, 0.0)
        if choice.get("finish_reason") in (None, "") and parsed.finish_reason == "unknown":
            parsed = replace(parsed, finish_reason=NONE_RECORDED)
        elif choice.get("finish_reason") == "human":  # a completion that a person wrote, in samples of ours
            parsed = replace(parsed, finish_reason="stop")
        own = {**raw, "choices": [written[number]]} if written else dict(raw)
        completions.append(
            replace(parsed, raw=own, hidden_tokens=0, billed_usd=None, uncounted=False)
        )  # nobody is billed for a record
    return completions
