"""What the columns of a row say of its prompt, in prompt files and recorded answers: instruction, earlier turns, images.

Does not know prompts, samples or files; `messages` reads what a column holds.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message, check_messages
from seqdistill.tasks.messages import structured


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


def history_turns(row: Mapping[str, Any], place: str) -> list[Message]:
    """The earlier turns of an Alpaca row as LLaMA-Factory has them: pairs of an instruction and its answer; mostly none."""
    history = structured(row.get("history"))
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in history
    ):
        return []
    turns = [
        {"role": role, "content": text} for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return check_messages(turns, place, "history") if turns else []


def ends_with(prompt: Any, answer: Any) -> bool:
    """Whether a prompt is the whole text of a training row, its answer at the end."""
    texts = isinstance(prompt, str) and isinstance(answer, str)
    return texts and bool(answer.strip()) and prompt.rstrip().endswith(answer.strip())


def _texts(row: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [text for key in keys if isinstance(text := row.get(key), str) and text.strip()]
