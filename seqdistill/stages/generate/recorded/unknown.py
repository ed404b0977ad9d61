"""What the error about a row of no known shape says: its keys, and the shape that they come nearest to."""

import difflib
from collections.abc import Mapping
from typing import Any

from seqdistill.tasks.messages import is_conversation
from seqdistill.tasks.prompt_files import likely_columns

SHAPES = {  # the keys by which people know a shape
    "a request and its response": ("request", "response"),
    "a line of a batch input": ("custom_id", "body"),
    "a line of a batch output": ("custom_id", "response"),
    "a chat completion with its messages": ("messages", "choices"),
    "a response with its input": ("input", "output"),
    "prompt and completion": ("prompt", "completion"),
    "prompt and response": ("prompt", "response"),
    "question and answer": ("question", "answer"),
    "a conversation": ("messages",),
    "ShareGPT": ("conversations",),
    "Alpaca": ("instruction", "input", "output"),
    "Dolly": ("instruction", "context", "response"),
    "a preference for fine-tuning": ("input", "preferred_output"),
}


def unknown(row: Mapping[str, Any]) -> str:
    """What is wrong with a row of no known shape: its keys, and the shape that they come nearest to."""
    keys = [key for key in row if key not in ("id",)]

    def nearness(key: str) -> float:
        return max((difflib.SequenceMatcher(None, key, name.casefold()).ratio() for name in keys), default=0.0)

    def fit(shape: tuple[str, ...]) -> tuple[float, int]:
        return sum(max(0.0, nearness(key) - 0.5) for key in shape) / len(shape), len(shape)

    if next((row[key] for key in ("messages", "conversations", "conversation") if is_conversation(row.get(key))), None):
        return "a conversation without an assistant's answer: a prompt for `generate`, nothing to import"
    said = f"not a line that can be read; its keys are {', '.join(keys) or 'none'}"[:300]
    prompt, answer = likely_columns(row)
    if prompt and answer:
        return f'{said}; name its columns: [task] columns = {{ prompt = "{prompt}", completion = "{answer}" }}'
    name, shape = max(SHAPES.items(), key=lambda one: fit(one[1]))
    if fit(shape)[0] < 0.1:
        return said
    missing = []
    for key in shape:
        if key not in row:
            close = difflib.get_close_matches(key, keys, n=1)
            missing.append(f"{key!r}" + (f" (is it {close[0]!r}?)" if close else ""))
    wanted = f"without {', '.join(missing)}" if missing else "but its values are of another kind"
    return f"{said}; nearest is {name} ({', '.join(shape)}), {wanted}"
