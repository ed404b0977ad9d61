"""What belongs to a prompt and is not in it: options of a question, a table, turns and documents that the API keeps elsewhere.

An answer to only a part of its prompt teaches what nobody can know, and costs money. Does not know how a prompt is written.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message

OPTIONS = ("choices", "options", "endings", "answer_choices")
OPTION_COLUMN = re.compile(r"(?:option|choice|ending|opt|op)[_ ]?(?:[a-e]|[0-5])|[a-e]", re.IGNORECASE)
KEPT_ELSEWHERE = (  # of a request: what the model saw of it is not in the log
    *("previous_response_id", "conversation", "suffix", "cachedContent", "cached_content", "documents", "data_sources"),
)


CUT = re.compile(  # what loggers write in the place of a text, or of its middle
    r"\(litellm_truncated (?:skipped )?\d+ chars|@@@langfuseMedia:"
    r"|\A\s*(?:redacted-by-litellm|redacted by litellm.*|<truncated due to size exceeding limit>|__REDACTED__"
    r"|\[Scrubbed due to '[^']*'\]|[\[<]redacted[\]>]|\[Filtered\])\s*\Z",
    re.IGNORECASE,
)
NO_PROMPTS = ("-", "--", "n/a", "nan", "none", "null")
MARKS_OF_CUT = ("litellm", "truncated", "langfuseMedia", "redacted", "REDACTED", "Redacted", "[Scrubbed", "[Filtered]")


def check_whole(texts: Iterable[str | None], place: str) -> None:
    """Raises UsageError for a text of which the log holds only a part, or a word in its place: it is not what was said."""
    for text in texts:
        if text and any(mark in text for mark in MARKS_OF_CUT) and (cut := CUT.search(text)):
            raise UsageError(
                f"{place}: the log does not hold the whole text: {cut[0].strip()[:80]}",
                "log it whole: in LiteLLM, MAX_STRING_LENGTH_PROMPT_IN_DB and turn_off_message_logging; elsewhere, no mask",
            )


def check_prompt(messages: list[Message], place: str) -> None:
    """Raises UsageError for a prompt that is no more than a mark for one that is kept elsewhere, as in OpenCodeReasoning."""
    said = messages[0]["content"].strip()
    if len(messages) == 1 and said.lower() in NO_PROMPTS:
        raise UsageError(f"{place}: the prompt is only {said!r}: the row does not hold it", "join it in from where it is kept")


def check_options(row: Mapping[str, Any], prompt: str | None, place: str) -> None:
    """Raises UsageError for a question whose options or table are beside it: one of them as the answer says nothing alone."""
    key, texts = options_beside(row)
    if prompt is not None and not all(text in prompt for text in texts):
        raise UsageError(
            f"{place}: the options in {key!r} are not in the prompt: {texts!r}"[:200], "write them into the prompt"
        )
    if prompt is not None and isinstance(table := row.get("table"), (dict, list)) and table:
        raise UsageError(f"{place}: the 'table' is not in the prompt: {table!r}"[:200], "write it into the prompt")


def options_beside(row: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The options of a question and the name of their column or columns; none for a row without any."""
    key = next((key for key in OPTIONS if row.get(key)), None)
    if key is None:
        columns = [str(one) for one in row if OPTION_COLUMN.fullmatch(str(one)) and isinstance(row[one], (str, int, float))]
        enough = len(columns) > (2 if all(len(one) == 1 for one in columns) else 1)  # single letters: A, B and C at least
        return ", ".join(columns), [str(row[one]) for one in columns if enough]
    held = row[key]
    if isinstance(held, Mapping):
        held = held["text"] if isinstance(held.get("text"), list) else list(held.values())
    return key, [text for one in held if (text := _text(one))] if isinstance(held, list) else []


def _text(option: Any) -> str | None:
    """An option's text; None for what is none, as the choices of a reply are not."""
    if isinstance(option, Mapping) and option.keys() & {"key", "label", "letter", "id"} and "finish_reason" not in option:
        option = next((option[key] for key in ("text", "value", "content", "option") if key in option), None)
    return option if isinstance(option, str) else None


def check_kept_elsewhere(request: Mapping[str, Any], place: str) -> None:
    """Raises UsageError for a request that names turns, a prompt or documents which are not in it."""
    held = {key: request[key] for key in KEPT_ELSEWHERE if request.get(key)}
    if "input" not in request or not isinstance(held.get("conversation", ""), (str, dict)):
        held.pop("conversation", None)  # the turns themselves, or a name in a data set
    context = request.get("context")
    if isinstance(context, list) and context and isinstance(context[0], int) and "done" not in request:
        held["context"] = context[:8]  # Ollama's earlier turns, as tokens; in a reply, those of this one, too
    stored = request.get("prompt")
    if isinstance(stored, Mapping) and "id" in stored and not stored.keys() & {"messages", "content", "prompt", "raw"}:
        held["prompt"] = stored
    if held:
        key, value = next(iter(held.items()))
        raise UsageError(
            f"{place}: a part of the prompt is not in this log: {key} is {value!r}"[:200],
            "log the whole prompt",
        )
