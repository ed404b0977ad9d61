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
    **dict.fromkeys(("gpt", "chatgpt", "chatbot", "bard", "bing", "model", "ai", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("function", "ipython", "observation", "tool_response", "function_response"), "tool"),
}
TEXT_PARTS = (None, "text", "input_text", "output_text", "refusal")
THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")  # what an earlier turn thought is not sent again
LONGEST_LITERAL = 1 << 20  # characters of a Python literal that are parsed


def chat_messages(value: Any, place: str, key: str) -> list[Message]:
    """The messages of a conversation, tool turns as text. Raises UsageError naming place, key and message."""
    if _is_plain(value):
        return check_messages([{"role": one["role"], "content": one["content"]} for one in value], place, key)
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
        role, content = _role(one), message_text(one, where)
        if role == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if results:
                messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n{content}"}
            else:
                messages.append({"role": "user", "content": content})
        else:
            messages.append({"role": role, "content": content})
        results = role == "tool"
    return check_messages(messages, place, key)


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
    """Messages as LangChain writes them, or pairs of input and output, with roles and contents; empty for anything else."""
    value = structured(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        return []
    if all(isinstance(one.get("input"), str) and isinstance(one.get("output"), str) for one in value):
        roles = (("user", "input"), ("assistant", "output"))
        return [{"role": role, "content": one[key]} for one in value for role, key in roles]
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


_TURN_MARKS = (
    (re.compile(r"(?:\A|\n)\s*### (Human|Assistant|System):|### (Human|Assistant):"), "### "),
    (re.compile(r"(?:\A|\n\n)(Human|Assistant|System): ?"), "Human:"),
    (re.compile(r"<\|im_start\|>(user|assistant|system)\n"), "<|im_start|>"),
    (re.compile(r"(?:\A|\n)\s*(USER|ASSISTANT|SYSTEM): ?"), "USER:"),
)
_TURN_END = re.compile(r"\s*(?:<\|im_end\|>|<\|endoftext\|>|</s>)?\s*\Z")


def marked_turns(text: str) -> list[Message]:
    """The turns of a conversation that is one text with a mark before each (`### Human:`, `Human:`, `USER:`, ChatML).

    Empty unless the text begins with a mark and has turns of both sides.
    """
    for mark, sign in _TURN_MARKS:
        if sign not in text or not (first := mark.search(text)) or text[: first.start()].strip():
            continue
        marks = list(mark.finditer(text))
        ends = [*(one.start() for one in marks[1:]), len(text)]
        turns = [
            {
                "role": ROLES[(one[1] or one[one.lastindex or 1]).lower()],
                "content": _TURN_END.sub("", text[one.end() : end]).strip(),
            }
            for one, end in zip(marks, ends, strict=True)
        ]
        if {"user", "assistant"} <= {turn["role"] for turn in turns} and all(turn["content"] for turn in turns):
            return turns
    return []


def is_assistant(message: Any) -> bool:
    """Whether a message as it was written is the assistant's."""
    return isinstance(message, Mapping) and _role(message) == "assistant"


def message_text(message: Mapping[str, Any], where: str) -> Any:
    """The text of one message as it was written, its tool calls included; what is no text comes back for `check_messages`.

    Raises UsageError for a part that is not text.
    """
    if message.get("type") == "function_call_output":  # an item of the Responses API
        return content_text(message.get("output"), where)
    content = content_text(_content(message), where)
    if _written_role(message) == "function_call":
        return f"<tool_call>\n{content}\n</tool_call>"
    calls = [call_text(call) for call in tool_calls(message)]
    if not isinstance(content, str):
        return content
    return "\n".join([*([content] if content.strip() or not calls else []), *calls])


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
    kind = part.get("type")
    texts = [text for key in ("text", "value", "content", "refusal") if isinstance(text := part.get(key), str)]
    if kind in TEXT_PARTS and texts:
        return texts[0]
    if kind in THOUGHT_PARTS or part.get("thought") is True:
        return ""
    if kind == "tool_use":
        return call_text({"name": part.get("name"), "arguments": part.get("input")})
    if kind == "tool_call" and isinstance(call := structured(part.get("value")), Mapping):  # as LLaMA-Factory writes it
        return call_text(call)
    if kind == "tool_result":
        return f"<tool_response>\n{content_text(part.get('content'), where)}\n</tool_response>"
    raise UsageError(
        f"{where} holds a part of type {str(kind or ', '.join(map(str, part)))!r}: only text can be learnt",
        "remove the part or the row",
    )


def tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls of an assistant's message, each with name and arguments, whatever API wrote them."""
    if message.get("type") == "function_call":  # an item of the Responses API
        return [dict(message)]
    listed = message.get("tool_calls")
    calls = [one.get("function", one) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    if isinstance(single := message.get("function_call"), Mapping):
        calls = calls or [single]
    return [dict(call) for call in calls if isinstance(call, Mapping) and call.get("name")]


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as text."""
    arguments = call.get("arguments")
    called = {"name": call.get("name"), "arguments": structured(arguments) if arguments else {}}
    return f"<tool_call>\n{json.dumps(called, ensure_ascii=False)}\n</tool_call>"


def _written_role(message: Mapping[str, Any]) -> Any:
    by_type = {"function_call": "assistant", "function_call_output": "tool"}.get(str(message.get("type")))
    sender = next((name for key in ("author", "sender") if isinstance(name := message.get(key), str)), None)
    return message.get("role") or message.get("from") or sender or by_type


def _role(message: Mapping[str, Any]) -> Any:
    role = _written_role(message)
    return ROLES.get(role.strip().lower(), role) if isinstance(role, str) else role


def _content(message: Mapping[str, Any]) -> Any:
    return next((message[key] for key in ("content", "value", "parts", "text") if message.get(key) is not None), None)


def structured(value: Any) -> Any:
    """The list or object that a text holds, as JSON or as Python prints it; any other value as it is."""
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
                literal = ast.literal_eval(value.strip())
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


def check_only_text(row: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for a row with images, sound or videos beside its text."""
    for key in ("images", "audios", "videos"):
        one = row.get(key[:-1])
        if (isinstance(row.get(key), list) and row[key]) or (
            isinstance(one, Mapping) and one.keys() & {"bytes", "path", "url"}
        ):
            raise UsageError(f"{place}: the row holds {key}, and only text can be learnt", "remove the row")


def instruction_text(row: Mapping[str, Any]) -> str | None:
    """The prompt of an Alpaca (`instruction`, `input`) or Dolly (`instruction`, `context`) row; None for any other row."""
    instruction = row.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        return None
    return "\n\n".join([instruction, *_texts(row, ("input", "context"))])


def ends_with(prompt: Any, answer: Any) -> bool:
    """Whether a prompt is the whole text of a training row, its answer at the end."""
    texts = isinstance(prompt, str) and isinstance(answer, str)
    return texts and bool(answer.strip()) and prompt.rstrip().endswith(answer.strip())


def _texts(row: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [text for key in keys if isinstance(text := row.get(key), str) and text.strip()]
