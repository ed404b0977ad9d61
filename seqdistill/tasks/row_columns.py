"""What the columns of a row say of its prompt, in prompt files and recorded answers: instruction, earlier turns, images.

Does not know prompts, samples or files; `messages` reads what a column holds.
"""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message
from seqdistill.tasks.marked_turns import marked_turns
from seqdistill.tasks.messages import chat_messages, plain_messages, structured

HISTORIES = (
    *("history", "chat_history", "conversation_history", "dialog_history", "dialogue_history", "message_history"),
    *("previous_messages", "previous_turns"),
)
SYSTEMS = (
    *("system", "instructions", "system_prompt", "systemInstruction", "system_instruction", "preamble", "system_message"),
    *("systemPrompt", "system_instructions"),
)
TOOLS = ("tools", "functions", "xml_tools", "python_tools")
MEDIA_COLUMN = re.compile(
    r"(image|img|audio|video)s?(?:_?(?:path|file|name|filename|base64|b64|bytes|data|url)s?|_?\d+)?", re.IGNORECASE
)
MEDIA_FILE = re.compile(
    r"\Adata:|\.(?:jpe?g|png|webp|gif|bmp|tiff?|mp3|wav|flac|ogg|m4a|mp4|webm|avi|mov|mkv)(?:\?\S*)?\Z", re.IGNORECASE
)
LONGEST_NAME = 400  # characters; what is longer and without a space is the file itself
PAIRS = (("question", "answer"), ("query", "response"), ("prompt", "response"), ("user", "assistant"), ("user", "bot"))


def check_only_text(row: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for a row with images, sound or videos beside its text."""
    for name, value in row.items():
        if not value or not (match := MEDIA_COLUMN.fullmatch(str(name))):
            continue
        beside = _is_media(value) and not name.casefold().rstrip("s").endswith("url")  # text has illustrations, too
        if beside or _has_placeholder(row, match[1]):
            kind = {"img": "image"}.get(match[1].lower(), match[1].lower())
            raise UsageError(
                f"{place}: the row holds {kind}s, in {name!r}, and only text can be learnt",
                "remove the row, or the column if the answer does not depend on it",
            )


def system_of(row: Mapping[str, Any], used: Set[str] = frozenset()) -> Any:
    """The system text or its parts beside the messages of a row or a request, unless its column is `used`; None for none."""
    found = next((row[key] for key in SYSTEMS if row.get(key) and key not in used), None)
    if found is None and isinstance(config := row.get("config"), Mapping):  # of a call of Google's package for Python
        found = config.get("system_instruction") or config.get("systemInstruction")
    settings = structured(row.get("chat_template_kwargs"))  # SmolTalk 2's
    return found or (settings.get("custom_instructions") if isinstance(settings, Mapping) else None)


def tools_in(row: Mapping[str, Any]) -> list[Any]:
    """The tools that a row or a request names, in whatever form; mostly none."""
    kwargs, config = structured(row.get("chat_template_kwargs")), row.get("config")  # SmolTalk 2; Google's package
    places = [one for one in (row, config, kwargs) if isinstance(one, Mapping)]
    held = [structured(place.get(key)) for place in places for key in TOOLS]
    return [tool for one in held if one for tool in (one if isinstance(one, list) else [one])]


def has_tools_beside(tools: Iterable[Any], messages: Iterable[Message]) -> bool:
    """Whether any of the tools is not described in the messages: whoever reads these does not know it."""
    said = "\n".join(message["content"] for message in messages)
    return any(not _is_described(name, said) for tool in tools for name in _tool_names(tool))


def _is_described(name: str, text: str) -> bool:
    """Whether a text speaks of a function, in quotes or with a parenthesis: its name may be a common word."""
    return name in text and re.search(rf"[\"'`]{re.escape(name)}[\"'`]|{re.escape(name)}\(", text) is not None


def _tool_names(tool: Any) -> list[str]:
    """The names of a tool's functions; its text, where it is no more than that."""
    if not isinstance(tool, Mapping):
        return [str(tool)]
    declared = tool.get("functionDeclarations", tool.get("function_declarations"))  # Gemini's
    inner = declared if isinstance(declared, list) else [tool.get("function")]
    found = [one["name"] for one in (*inner, tool) if isinstance(one, Mapping) and isinstance(one.get("name"), str)]
    return found or [str(tool)]


def _is_media(value: Any) -> bool:
    """Whether a value is an image, a recording or a video: its bytes, its file or its address, or a list of those."""
    if isinstance(value, list):
        return any(value)
    if isinstance(value, Mapping):
        return bool(value.keys() & {"bytes", "path", "url", "array", "data", "image_url"})
    if not isinstance(value, str) or any(space in value.strip() for space in " \n\t"):
        return False
    return MEDIA_FILE.search(value) is not None or len(value) > LONGEST_NAME


def _has_placeholder(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a text of a row says where its image, recording or video was."""
    mark = re.compile(rf"<\|?{kind}(?:_?\d+|_pad)?\|?>|<\|vision_start\|>", re.IGNORECASE)
    return any(mark.search(str(value)) for key, value in row.items() if isinstance(value, (str, list)))


def instruction_text(row: Mapping[str, Any]) -> str | None:
    """The prompt of an Alpaca (`instruction`, `input`) or Dolly (`instruction`, `context`) row; None for any other row."""
    instruction = row.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        return None
    return "\n\n".join([instruction, *_asked_in(row, instruction)])


def has_input(row: Mapping[str, Any]) -> bool:
    """Whether a row has beside its prompt, in `input`, what the prompt is about and does not hold."""
    prompt, text = row.get("prompt"), row.get("input")
    if not isinstance(prompt, str) or not isinstance(text, str) or not text.strip():
        return False
    return text.strip() not in prompt and prompt.strip() not in text and "{" not in prompt


def _asked_in(row: Mapping[str, Any], instruction: str) -> list[str]:
    """What an instruction is about: its input, or else a question or a text, and the context.

    A text that holds the instruction is the whole row, as is Alpaca's `text` beside its `input`.
    """
    answers = _texts(row, ("output", "response", "answer", "completion"))
    others = ("question", "query", "problem", *(() if "input" in row else ("text", "sentence")))
    beside = [text for text in _texts(row, others) if instruction.strip() not in text and text not in answers]
    beside = [text for text in beside if text.strip() not in instruction]
    return [*(_texts(row, ("input",)) or beside[:1]), *_texts(row, ("context",))]


def history_turns(row: Mapping[str, Any], place: str, used: Set[str] = frozenset()) -> list[Message]:
    """The turns before the prompt in a column of their own: messages, pairs of a question and its answer, or a transcript.

    Mostly none, and none from a column that is `used` elsewhere. Raises UsageError for a list of another kind: without its
    earlier turns, a prompt is another prompt.
    """
    key = next((key for key in HISTORIES if row.get(key) and key not in used), None)
    history = structured(row.get(key or ""))
    if isinstance(history, str):
        return marked_turns(history)
    if key is None or not isinstance(history, list) or not history:
        return []
    turns: list[Any] = plain_messages(history)
    pairs = [] if turns else _pairs(history)
    turns += [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    if not turns:
        raise UsageError(
            f"{place}: {key!r} is not messages and no pairs of a question and its answer: {history!r}"[:200],
            "write earlier turns as messages, or remove the column if the prompt does not continue from them",
        )
    return chat_messages(turns, place, key)


def _pairs(history: list[Any]) -> list[list[str]]:
    """The questions and answers in a list of lists of two texts, or of objects with both; else empty."""
    if all(isinstance(one, Mapping) for one in history):
        names = next((names for names in PAIRS if all(name in one for name in names for one in history)), ())
        history = [[one[name] for name in names] for one in history]
    is_pairs = all(isinstance(one, list) and len(one) == 2 and all(isinstance(text, str) for text in one) for one in history)
    return history if is_pairs else []


def ends_with(prompt: Any, answer: Any) -> bool:
    """Whether a prompt is the whole text of a training row, its answer at the end."""
    texts = isinstance(prompt, str) and isinstance(answer, str)
    return texts and bool(answer.strip()) and prompt.rstrip().endswith(answer.strip())


def _texts(row: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [text for key in keys if isinstance(text := row.get(key), str) and text.strip()]
