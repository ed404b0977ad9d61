"""What the columns of a row say of its prompt, in prompt files and recorded answers: instruction, earlier turns, images.

Does not know prompts, samples or files; `messages` reads what a column holds.
"""

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
PAIRS = (("question", "answer"), ("query", "response"), ("prompt", "response"), ("user", "assistant"), ("user", "bot"))


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
