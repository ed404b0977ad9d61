"""Chat messages as people and APIs write them, as messages with exactly `role` and `content`.

Text parts are joined, other keys are left out, `developer` is `system`, ShareGPT's from/value is read. Tool turns become text
in the Hermes form, which is what Qwen's chat templates write: a call is <tool_call>, a result is a user's <tool_response>.
Does not know prompts, samples or files.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import ROLES as KEPT_ROLES
from seqdistill.records import Message, check_messages, from_json

ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "developer": "system",
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(
        ("gpt", "chatgpt", "chatbot", "bard", "bing", "model", "ai", "bot", "function_call", "tool_call"), "assistant"
    ),
    **dict.fromkeys(("function", "ipython", "observation", "tool_response", "function_response"), "tool"),
}
CALL_ROLES = ("function_call", "tool_call")  # of ShareGPT and ms-swift: a turn whose text is a call
TEXT_PARTS = (None, "text", "input_text", "output_text", "refusal")
THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")  # what an earlier turn thought is not sent again
FILES = ("images", "audios", "videos", "files", "experimental_attachments")
LONGEST_LITERAL = 1 << 20  # characters of a Python literal that are parsed


def chat_messages(value: Any, place: str, key: str) -> list[Message]:
    """The messages of a conversation, tool turns as text. Raises UsageError naming place, key and message.

    A system message without text is left out, as APIs and chat templates do.
    """
    if _is_plain(value):
        plain = [{"role": one["role"], "content": one["content"]} for one in value]
        return check_messages([one for one in plain if not _is_blank_system(one)], place, key)
    value = structured(value)
    value = plain_messages(value) or value
    if not isinstance(value, list) or not value:
        return check_messages(value, place, key)
    messages: list[Message] = []
    results = False  # whether the last message holds tool results
    for number, one in enumerate(value, 1):
        where = f"{place}: message {number} of {key!r}"
        if not isinstance(one, Mapping) or one.get("type") == "reasoning":
            if not isinstance(one, Mapping):
                check_messages([one], place, key)
            continue
        role, content = role_of(one), message_text(one, where)
        if role == "tool":
            content = _tagged(content, "tool_response")
            if results:
                messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n{content}"}
            else:
                messages.append({"role": "user", "content": content})
        else:
            messages.append({"role": role, "content": content})
        results = role == "tool"
    return check_messages([one for one in messages if not _is_blank_system(one)], place, key)


def _is_blank_system(message: Message) -> bool:
    return message["role"] == "system" and isinstance(message["content"], str) and not message["content"].strip()


def _is_plain(value: Any) -> bool:
    """Whether messages are written as they are kept, as nearly all are: then there is nothing to look for in them."""
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == {"role", "content"}
        and one["role"] in KEPT_ROLES
        and isinstance(one["content"], str)
        for one in value
    )


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, each with a role (or ShareGPT's `from`)."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) and _written_role(one) for one in value)


def plain_messages(value: Any) -> list[Any]:
    """Messages as LangChain writes them, or pairs of a question and its answer, with roles and contents; else empty."""
    value = structured(value)
    if isinstance(value, Mapping) and value.keys() & {"role", "from"}:  # a list for each key, as `datasets` keeps sequences
        columns = list(value.values())
        if not all(isinstance(one, list) for one in columns) or len({len(one) for one in columns}) != 1:
            return []
        value = [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        return []
    for roles in ((("user", "input"), ("assistant", "output")), (("user", "human"), ("assistant", "assistant"))):
        if all(isinstance(one.get(key), str) for one in value for _, key in roles):
            turns = [{"role": role, "content": one[key]} for one in value for role, key in roles]
            system = value[0].get("system")  # XTuner's
            return [{"role": "system", "content": system}, *turns] if isinstance(system, str) and system.strip() else turns
    plain = [_from_langchain(one) for one in value]
    return plain if is_conversation(plain) else []


def _from_langchain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(inner := message.get("kwargs"), Mapping) and isinstance(name := message.get("id"), list) and name:
        kind = str(name[-1]).removesuffix("Chunk").removesuffix("Message").lower()
        return {**inner, "role": inner.get("role") or kind}
    if message.get("type") in ("human", "ai", "system", "tool", "function", "chat") and not _written_role(message):
        inner = data if isinstance(data := message.get("data"), Mapping) else message
        return {**inner, "role": inner.get("role") or message["type"]}
    return message


def is_tree_message(row: Mapping[str, Any]) -> bool:
    """Whether a row is one message of a tree, as OpenAssistant publishes them."""
    named = all(isinstance(row.get(key), str) for key in ("message_id", "text", "role"))
    return named and isinstance(row.get("parent_id"), (str, type(None)))


def is_assistant(message: Any) -> bool:
    """Whether a message as it was written is the assistant's."""
    return isinstance(message, Mapping) and role_of(message) == "assistant"


def has_turns(value: Any) -> bool:
    """Whether a value is a conversation in which the assistant is not the only one to speak."""
    return is_conversation(value) and not all(map(is_assistant, value)) and any(map(is_assistant, value))


def continued(before: list[Any], turns: list[Any]) -> list[Any]:
    """The conversation `before` an answer and the turns that lead to it, which may repeat it whole or its last turns.

    Turns that begin with a system or user message and repeat nothing are a whole conversation.
    """
    together = joined(before, turns)
    is_whole = bool(turns) and _said(turns[0])[0] in ("system", "user")
    return turns if is_whole and len(together) == len(before) + len(turns) else together


def joined(before: list[Any], turns: list[Any]) -> list[Any]:
    """Two parts of a conversation, of which the second may begin with the last turns of the first."""
    first, second = [_said(one) for one in before], [_said(one) for one in turns]
    start = next((at for at in range(len(first)) if first[at:] == second[: len(first) - at]), len(first))
    return [*before[:start], *turns]


def _said(message: Any) -> tuple[Any, str]:
    """The role and the text of a message as it was written, to compare it with another."""
    if not isinstance(message, Mapping):
        return None, str(message)
    content = _content(message)
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text", part.get("content")) if isinstance(part, Mapping) else part for part in parts]
    return role_of(message), "".join(str(text) for text in texts if text is not None).strip()


def message_text(message: Mapping[str, Any], where: str) -> Any:
    """The text of one message as it was written, its tool calls included; what is no text comes back for `check_messages`.

    Raises UsageError for a part that is not text.
    """
    check_no_files(message, where)
    if message.get("type") == "function_call_output":  # an item of the Responses API
        return content_text(message.get("output"), where)
    content = content_text(_content(message), where)
    if is_call_turn(message):
        return _tagged(content, "tool_call")
    if not isinstance(content, str):
        return content
    calls = [text for call in tool_calls(message) if (text := call_text(call)) not in content]  # LangChain has both
    return "\n".join([*([content] if content.strip() or not calls else []), *calls])


def check_no_files(message: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for a message with images or files beside its text, as Ollama and chat programs keep them."""
    for key in FILES:
        if isinstance(held := message.get(key), list) and held:
            raise UsageError(f"{where} holds {key}, and only text can be learnt", "remove the row")


def _tagged(content: Any, tag: str) -> str:
    """A tool turn's text in its tag, where it is not in one already, as data sets in the Hermes form have it."""
    text = str(content).strip()
    return text if text.startswith(f"<{tag}>") and text.endswith(f"</{tag}>") else f"<{tag}>\n{content}\n</{tag}>"


def content_text(content: Any, where: str) -> Any:
    """The text in a message's content: text, parts, or nothing. Anything else is returned for `check_messages`."""
    if content is None:
        return ""
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return content
    return "".join(_part_text(part, where) for part in content)


def _part_text(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise UsageError(f"{where} holds a part that is not text: {part!r}"[:200], 'a part is {"type": "text", "text": "..."}')
    kind = part.get("type") or part.get("content_type")
    texts = [text for key in ("text", "value", "content", "refusal") if isinstance(text := part.get(key), str)]
    if kind in TEXT_PARTS and texts:
        return texts[0]
    if kind in THOUGHT_PARTS or part.get("thought") is True or part.keys() & {"reasoningContent", "cachePoint"}:
        return ""
    if (call := call_in(part)) is not None:
        return call_text(call)
    if kind == "tool_result":
        return f"<tool_response>\n{content_text(part.get('content'), where)}\n</tool_response>"
    called = part.get("functionResponse") or part.get("function_response")  # Gemini's
    if kind == "tool_call_response" or isinstance(called, Mapping):  # OpenTelemetry's
        held = called if isinstance(called, Mapping) else part
        result = held.get("response", held.get("result"))
        return _tagged(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False), "tool_response")
    raise UsageError(
        f"{where} holds a part of type {str(kind or ', '.join(map(str, part)))!r}: only text can be learnt",
        "remove the part or the row",
    )


def tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls of an assistant's message, each with name and arguments, whatever API wrote them."""
    if message.get("type") == "function_call":  # an item of the Responses API
        return [dict(message)]
    if is_call_turn(message):  # its text is the call, or a list of calls
        held = structured(_content(message))
        return [
            call for one in (held if isinstance(held, list) else [held]) if isinstance(one, Mapping) and (call := _call(one))
        ]
    listed = message.get("tool_calls")
    calls = listed if isinstance(listed, list) else []
    return [call for one in calls or [message.get("function_call")] if isinstance(one, Mapping) and (call := _call(one))]


def is_call_turn(message: Mapping[str, Any]) -> bool:
    """Whether a message's role says that its text is a call of a tool, and not what the assistant answers."""
    return _written_role(message) in CALL_ROLES


def call_in(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call in a part of a message's content, whatever API wrote it; None for any other part."""
    inner = next((part[key] for key in ("functionCall", "function_call", "toolUse") if part.get(key)), None)
    if isinstance(inner, Mapping):  # Gemini's, Bedrock Converse's
        return {"name": inner.get("name"), "arguments": inner.get("input", inner.get("args"))}
    if part.get("type") not in ("tool_use", "tool_call", "tool-call"):
        return None
    value = structured(part.get("value"))  # as LLaMA-Factory writes it
    return _call(value if isinstance(value, Mapping) else part)


def _call(one: Mapping[str, Any]) -> dict[str, Any] | None:
    """A call with name and arguments, as OpenAI, LangChain, OpenInference or Vercel's SDK write it; None for no call."""
    for key in ("tool_call", "function"):
        one = inner if isinstance(inner := one.get(key), Mapping) else one
    name = one.get("name") or one.get("toolName")
    arguments = next((one[key] for key in ("arguments", "args", "input") if one.get(key) is not None), None)
    return {"name": name, "arguments": arguments} if name else None


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as text."""
    arguments = call.get("arguments")
    called = {"name": call.get("name"), "arguments": structured(arguments) if arguments else {}}
    return f"<tool_call>\n{json.dumps(called, ensure_ascii=False)}\n</tool_call>"


def tools_text(tools: Iterable[Any]) -> str:
    """The system text that describes tools to a model, in the words of Qwen's chat templates, which follow Hermes."""
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{signatures}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML "
        'tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def _written_role(message: Mapping[str, Any]) -> Any:
    by_type = {"function_call": "assistant", "function_call_output": "tool"}.get(str(message.get("type")))
    sender = next((name for key in ("author", "sender") if isinstance(name := message.get(key), str)), None)
    return message.get("role") or message.get("from") or sender or by_type


def role_of(message: Mapping[str, Any]) -> Any:
    """A message's role as we name it, whatever its key and word; an unknown one as it was written, None for none."""
    role = _written_role(message)
    return ROLES.get(role.strip().lower(), role) if isinstance(role, str) else role


def _content(message: Mapping[str, Any]) -> Any:
    return next((message[key] for key in ("content", "value", "parts", "text") if message.get(key) is not None), None)


_NUMPY_ARRAY = re.compile(r"\s*array\((\[.*\]),\s*dtype=object\)\s*", re.DOTALL)  # as pandas writes a cell that holds an array
_BETWEEN_OBJECTS = re.compile(r"\}\s*\n\s*\{")  # numpy prints no commas; a line end within a text is escaped


def structured(value: Any) -> Any:
    """The list or object that a text holds, as JSON or as Python prints it; any other value as it is."""
    if isinstance(value, str) and (array := _NUMPY_ARRAY.fullmatch(value)):
        value = array[1]
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return from_json(value)
    except ValueError:
        pass
    if len(value) <= LONGEST_LITERAL:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                literal = ast.literal_eval(_BETWEEN_OBJECTS.sub("}, {", value.strip()))
            return from_json(json.dumps(literal)) if isinstance(literal, (list, dict)) else value
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    return value


def with_system(messages: list[Message], system: Any, place: str) -> list[Message]:
    """The messages with a system text in front, unless there is none or they bring their own.

    The text may be in parts, as APIs write it. Raises UsageError naming the place for a part that is not text.
    """
    parts = system["parts"] if isinstance(system, Mapping) and "parts" in system else system
    text = content_text(parts, f"{place}: 'system'")
    if not isinstance(text, str) or not text.strip() or (messages[:1] and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": text}, *messages]
