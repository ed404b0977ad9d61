"""Prompt files: from rows of a file or hub data set to prompts with their ids and both views rendered.

A row has `prompt` or `messages`, under these names or those of [task] columns, or it is a ShareGPT, Alpaca or Dolly row.
Strict, because it runs before the first paid token. Does not prompt a model and does not know run directories.
"""

import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.reasoning import split_reasoning
from seqdistill.recipe.reading import nearest
from seqdistill.records import Message, Prompt, is_hub_source, prompt_id
from seqdistill.tasks.beside_prompt import check_kept_elsewhere, check_whole, options_beside
from seqdistill.tasks.brought_files import check_file
from seqdistill.tasks.marked_turns import marked_turns, prompted_turns
from seqdistill.tasks.messages import (
    chat_messages,
    content_text,
    is_assistant,
    is_conversation,
    is_tree_message,
    joined,
    plain_messages,
    structured,
    with_system,
)
from seqdistill.tasks.row_columns import (
    TOOLS,
    check_only_text,
    ends_with,
    has_input,
    has_tools_beside,
    history_turns,
    instruction_text,
    system_of,
    tools_in,
)
from seqdistill.tasks.row_files import hub_rows, read_rows
from seqdistill.tasks.templates import Template, render, variables

KEYS = ("prompt", "messages", "system", "reference", "slice", "id", "group")
RECORDED_KEYS = ("completion", "reasoning")  # that only the rows of an import have
ROW_HINT = 'a prompt is {"prompt": "text"} or {"messages": [...]}, with "id", "reference", "slice" and "group" where known'
NO_TYPOS = {"preference", "preferences"}  # keys of other data that only look like ours
QUESTIONS = (
    *("question", "query", "problem", "text", "input", "inputs", "sentence", "document", "article", "dialogue", "body"),
    *("message", "ticket", "email", "review", "comment", "description", "content"),
)
# without which a question may mean nothing
BESIDE_QUESTIONS = ("input", "context", "contexts", "passage", "choices", "options")
REFERENCES = (
    *("answer", "completion", "response", "output", "expected", "expected_output", "expectedOutput", "ground_truth", "target"),
    *("targets", "label", "solution", "summary", "highlights", "gold", "answers"),
)
REQUESTS = ("body", "params", "request", "modelInput", "input")  # of a batch's line; the last, of OpenAI's preferences
ANSWERS_TO = ("output", "response", "answer", "completion")  # of an instruction
NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


def load_prompts(
    source: str,
    template: Template,
    limit: int | None = None,
    progress: Progress | None = None,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> list[Prompt]:
    """The prompts of a file or hub data set, in its order; with `limit`, the first N.

    `columns` maps our keys to the columns that hold them. A prompt without an id is named by the hash of the teacher's view,
    and one that equals an earlier one is left out and counted in a note. A trailing assistant message is the
    reference. Raises UsageError naming file and line for a missing file, a bad row, an unknown role, an empty prompt, a
    missing template variable, a mistyped key or an id used twice.
    """
    return [prompt for prompt, _ in load_rows(source, template, limit, progress, columns)]


def load_rows(
    source: str,
    template: Template,
    limit: int | None = None,
    progress: Progress | None = None,
    columns: Mapping[str, str] = NO_COLUMNS,
    *,
    may_lack: bool = False,
) -> list[tuple[Prompt, dict[str, Any]]]:
    """`load_prompts`, each prompt with the row that it is made of. `may_lack`: columns are used where they are found."""
    check_source(source)
    check_columns(columns)
    prompts: dict[str, tuple[Prompt, dict[str, Any]]] = {}
    places: dict[str, str] = {}
    counts = Counter[str]()
    otherwise: list[str] = []  # places of repeated prompts with another reference than the first
    tools: list[str] = []  # their column in each row whose prompt lacks them
    found: set[str] = set()
    used = variables(template)
    rows = hub_rows(source, progress or Silent()) if is_hub_source(source) else read_rows(Path(source), progress)
    for place, raw in rows:
        row = {str(key).strip(): value for key, value in raw.items()}
        if is_tree_message(row) and (row.get("parent_id") or row["role"] == "assistant"):
            counts["replies"] += 1
            continue
        known = _known(row, columns, found)
        _check_keys(row, known, used | set(columns.values()), place)
        prompt = _prompt(row, known, template, used, place)
        if column := _unsent_tools(row, prompt, used):
            tools.append(column)
        if prompt.id not in prompts:
            prompts[prompt.id] = prompt, row
            places[prompt.id] = place
            if len(prompts) == limit:
                break
        elif value_text(known, "id", place) is None:
            counts["repeated"] += 1
            first, its_row = prompts[prompt.id]
            if first.reference is None and prompt.reference is not None:
                prompts[prompt.id] = replace(first, reference=prompt.reference), its_row
            elif prompt.reference not in (None, first.reference):
                otherwise.append(place)
        else:
            raise UsageError(
                f"{place}: the id {prompt.id!r} is also that of {places[prompt.id]}", "give each prompt its own id"
            )
    if not prompts:
        raise UsageError(f"{source}: no prompts in it", ROW_HINT)
    if not may_lack:
        check_found({key: column for key, column in columns.items() if key not in RECORDED_KEYS}, found, row, source)
    say = (progress or Silent()).note
    for note in _notes(counts, otherwise, tools):
        say(f"{source}: {note}")
    if columns_left_out := _left_out(row, prompt, used | set(columns.values())):
        say(f"{source}: {columns_left_out}")
    if not any(prompt.reference for prompt, _ in prompts.values()) and (column := _likely(row, REFERENCES, used)):
        say(f'{source}: no row has a reference; is it the column {column!r}? [task] columns = {{ reference = "{column}" }}')
    return list(prompts.values())


def _notes(counts: Counter[str], otherwise: Sequence[str], tools: Sequence[str]) -> Iterator[str]:
    """What was left out of the rows: places of other references for repeated prompts, and the column of each row's tools."""
    if counts["repeated"]:
        yield f"{counts['repeated']} rows repeat an earlier prompt and are sent once; give rows an id to send each of them"
    if otherwise:
        yield f"{len(otherwise)} of them have another reference than the first, which counts; see {otherwise[0]}"
    if tools:
        yield f"{len(tools)} rows come with tools, which are not sent: write them into the template, {{{{ {tools[0]} }}}}"
    if counts["replies"]:
        yield f"{counts['replies']} messages further down in trees are no prompts by themselves and left out"


def _unsent_tools(row: Mapping[str, Any], prompt: Prompt, used: Set[str]) -> str | None:
    """The column with a row's tools, or its path, where neither the template nor the prompt has them."""
    requests = {f"{key}.": row[key] for key in REQUESTS if isinstance(row.get(key), Mapping)}
    columns = [(above + key, held[key]) for above, held in {"": row, **requests}.items() for key in TOOLS if held.get(key)]
    unused = [(name, tools_in({"tools": held})) for name, held in columns if name.partition(".")[0] not in used]
    return next((name for name, tools in unused if has_tools_beside(tools, prompt.teacher_messages)), None)


def _likely(row: Mapping[str, Any], names: tuple[str, ...], used: Set[str]) -> str | None:
    """The first of the row's columns that are often called so and that nothing uses."""
    columns = {name.casefold(): name for name in row if name not in used and isinstance(row[name], (str, int, float))}
    return next((columns[name.casefold()] for name in names if name.casefold() in columns), None)


def likely_columns(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The columns of a row that are often the prompt's and the answer's; None for none."""
    return _likely(row, QUESTIONS, set()), _likely(row, REFERENCES, set())


def _left_out(row: Mapping[str, Any], prompt: Prompt, used: Set[str]) -> str | None:
    """What to know of a row's options or text that a question may need and its prompt lacks; None for nothing."""
    options, texts = options_beside(row)
    names = options.split(", ") if texts and not all(text in prompt.teacher_messages[-1]["content"] for text in texts) else []
    names = [] if used & {"row", *names} else names
    names = names or [name for name in BESIDE_QUESTIONS if _is_unused(row, name, used)][:1]
    if not names:
        return None
    written = " ".join(f"{{{{ {name} }}}}" for name in names)
    are = f"columns {', '.join(map(repr, names))} are" if len(names) > 1 else f"column {names[0]!r} is"
    return f"the {are} in no prompt; if the question needs it, write it into the template: {written}"


def _is_unused(row: Mapping[str, Any], name: str, used: Set[str]) -> bool:
    """Whether a row has something in a column that neither the template nor an instruction's prompt uses."""
    held = row.get(name)
    is_text = (isinstance(held, str) and held.strip()) or (isinstance(held, list) and any(isinstance(one, str) for one in held))
    is_in = name == "input" and not has_input(row)
    return bool(is_text) and name not in used and not is_in and instruction_text(row) is None


def check_source(source: str) -> None:
    """Raises UsageError for what prompts cannot be read from: a missing file, a folder, another kind of file."""
    if not is_hub_source(source):
        check_file(Path(source))


def check_columns(columns: Mapping[str, Any]) -> None:
    """Raises UsageError for a [task] columns that names no key of ours or maps it to what is not a column's name."""
    example = '[task] columns = { prompt = "question", reference = "answer" }'
    keys = (*KEYS, *RECORDED_KEYS)
    for key, column in columns.items():
        if key not in keys:
            raise UsageError(
                f"[task] columns: unknown key {key!r}{nearest(key, keys)}", f"keys are {', '.join(keys)}: {example}"
            )
        if not isinstance(column, str) or not column.strip():
            raise UsageError(f"[task] columns: {key} = {column!r} is not the name of a column", example)


def has_column(row: Mapping[str, Any], column: str) -> bool:
    """Whether a row has the column that [task] columns names: by its name, or by its path as in `reward_model.ground_truth`."""
    return column_value(row, column, row) is not row


def column_value(row: Mapping[str, Any], column: str, without: Any = None) -> Any:
    """What a row has in a column that [task] columns names; `without` where it has no such column."""
    value: Any = row
    name = column.strip()
    parts = [name] if name in row else name.split(".")
    if not name:
        return without
    for part in parts:
        held = structured(value)
        if isinstance(held, list) and part.isdecimal() and int(part) < len(held):
            value = held[int(part)]
        elif isinstance(held, Mapping) and part in held:
            value = held[part]
        else:
            return without
    return value


def check_found(columns: Mapping[str, str], found: Set[str], row: Mapping[str, Any], source: str) -> None:
    """Raises UsageError for a column of [task] columns that no row had; `row` is the last one read."""
    if lost := sorted(columns.keys() - found):
        raise UsageError(
            f"{source}: no row has the column {columns[lost[0]]!r}, which [task] columns gives for {lost[0]!r}"
            f"{nearest(columns[lost[0]].strip(), row)}",
            f"the last row read has: {', '.join(row)}",
        )


# --- one row ----------------------------------------------------------------------------------------------------------


def _known(row: Mapping[str, Any], columns: Mapping[str, str], found: set[str]) -> dict[str, Any]:
    """The row's values under our keys: from the columns that are mapped, else by name, upper case or lower."""
    known: dict[str, Any] = {}
    folded = {name.casefold(): name for name in reversed(list(row))}
    if is_tree_message(row):
        known["prompt"] = row["text"]
    for key in KEYS:
        column = columns.get(key, "")
        name = key if key in row else folded.get(key)
        if has_column(row, column):
            known[key] = column_value(row, column)
        elif name is not None:
            known[key] = row[name]
        if has_column(row, column) or name is not None:
            found.add(key)
    if "messages" in columns and "prompt" not in columns:
        known.pop("prompt", None)
    return known


def _check_keys(row: Mapping[str, Any], known: Mapping[str, Any], used: Set[str], place: str) -> None:
    """Raises UsageError for a key that nothing uses and that is close to one of ours which the row lacks."""
    has_prompt = bool({"prompt", "messages"} & known.keys())  # then a column `message` is not a prompt that was mistyped
    lacking = [key for key in KEYS if key not in known and not (has_prompt and key in ("prompt", "messages"))]
    for name in row.keys() - used - set(KEYS) - NO_TYPOS:
        meant = difflib.get_close_matches(name.casefold(), lacking, n=1, cutoff=0.85)
        if meant == ["messages"] and isinstance(row[name], str) and not isinstance(structured(row[name]), list):
            continue  # `message`, a text: a column of the prompt, which is lacking, not mistyped
        if meant and name.casefold() != meant[0]:
            raise UsageError(
                f"{place}: unknown key {name!r}, did you mean {meant[0]!r}?",
                f'rename it; or, if it is meant: [task] columns = {{ {meant[0]} = "{name}" }}, or use it in the template',
            )


def _prompt(row: Mapping[str, Any], known: Mapping[str, Any], template: Template, used: Set[str], place: str) -> Prompt:
    check_only_text(row, place)
    content, reference = _prompt_of(row, known, used, place)
    check_whole([content] if isinstance(content, str) else [turn["content"] for turn in content], place)
    values = {**row, **known, "prompt": content, "reference": reference}
    teacher = render(template, "teacher", values, place)
    student = teacher if template.student == template.teacher else render(template, "student", values, place)
    prompt = Prompt(
        id=value_text(known, "id", place) or prompt_id(teacher),
        teacher_messages=teacher,
        messages=student,
        reference=reference,
        slice=value_text(known, "slice", place),
        group=value_text(known, "group", place),
    )
    try:
        json.dumps(vars(prompt), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{place}: half a character, \\u{ord(error.object[error.start]):04x}, which no model can read",
            "the text was cut in the middle of a character: fix the row",
        ) from None
    return prompt


def _prompt_of(
    row: Mapping[str, Any], known: Mapping[str, Any], used: Set[str], place: str
) -> tuple[str | list[Message], str | None]:
    """A row's prompt, as text or as messages that end with the user's, and its reference answer."""
    reference = value_text(known, "reference", place)
    own = {"system": known["system"]} if "system" in known else row
    system = system_of(own, used | {"instructions", "preamble"}) if not {"system", "system_prompt"} & used else None
    key = next((key for key in ("prompt", "messages") if known.get(key) is not None), "messages")
    value = known.get(key)
    body = next((row[name] for name in REQUESTS if isinstance(row.get(name), Mapping)), row if "contents" in row else None)
    if value is None and body is not None:
        check_kept_elsewhere(body, place)
        value, system = _requested(body), system_of(body) or system
        key = "prompt" if isinstance(value, str) else "messages"
    if value is None and "rejected" in row and (chosen := structured(row.get("chosen"))):  # a preference: its conversation
        value = marked_turns(chosen) if isinstance(chosen, str) else plain_messages(chosen)
    for name in ("conversations", "conversation"):
        if value is None and plain_messages(row.get(name)):
            key, value = name, plain_messages(row[name])
    if isinstance(value, Mapping) and (turns := plain_messages(value)):
        value = turns
    if isinstance(value, Mapping) and (inner := value.get("messages", [value] if value.get("role") else None)):
        value = inner
    if value is None and (instruction := instruction_text(row)):
        key, value = "prompt", instruction
        reference = reference or next((t for key in ANSWERS_TO if (t := value_text(row, key, place))), None)
    answer = row.get("output", row.get("response"))
    if key == "prompt" and (instruction := instruction_text(row)) and ends_with(value, answer):
        value, reference = instruction, reference or value_text({"answer": answer}, "answer", place)
    held = structured(value)
    if key == "messages" and isinstance(value, str) and not isinstance(held, list):
        raise UsageError(f"{place}: key 'messages' is text that is not a list of messages: {value[:60]!r}", ROW_HINT)
    if isinstance(value, str) and not is_conversation(held):
        if not value.strip():
            raise UsageError(f"{place}: the prompt is empty", "write it or remove the row")
        earlier = history_turns(row, place, used)
        turns = prompted_turns(value) or [{"role": "user", "content": value}]
        messages = with_system(joined(earlier, turns), system, place)
        return (messages if len(messages) > 1 else messages[0]["content"]), reference
    if not isinstance(held, list):
        column, answers = likely_columns(row)
        named = f'prompt = "{column or "..."}"' + (f', reference = "{answers}"' if answers else "")
        hint = f"{ROW_HINT}; name other columns with [task] columns = {{ {named} }}"
        key = "prompt" if "prompt" in row else key
        if key in row:
            raise UsageError(f"{place}: key {key!r} is {json.dumps(row[key], default=str)[:60]}, no text and no messages", hint)
        raise UsageError(f"{place}: the row has no prompt; its keys are {', '.join(map(str, row))[:300] or 'none'}", hint)
    messages = with_system(chat_messages(held, place, key), system, place)
    if messages[-1]["role"] == "assistant":
        *messages, answer = messages
        reference = reference or split_reasoning(answer["content"])[0].strip() or None
    if not messages or messages[-1]["role"] != "user":
        raise UsageError(f"{place}: key {key!r} has no prompt: no user message before the answer", ROW_HINT)
    return messages, reference


def _requested(body: Mapping[str, Any]) -> Any:
    """The messages or the text in a request to an API: a line of a batch's input, or of a preference."""
    value = next((body[key] for key in ("messages", "input", "contents", "prompt") if body.get(key)), None)
    if not isinstance(value, list):
        return value
    return [{"role": "user", **one} if isinstance(one, Mapping) and "parts" in one else one for one in value]  # Gemini's


def value_text(row: Mapping[str, Any], key: str, place: str) -> str | None:
    """The value under an optional key as text; None for none, for NaN and for blank text.

    A whole number is written without a fraction also where a table holds it as 42.0; a truth is `true` or `false`; an object
    is its JSON.
    """
    value = _accepted_first(row.get(key))
    if isinstance(value, list) and len(value) < 2 and key in ("reference", *ANSWERS_TO):
        value = next(iter(value), None)
    if isinstance(value, dict) and is_assistant(value) and key == "reference":
        value = content_text(value.get("content"), place)
    if isinstance(value, bool) or (isinstance(value, dict) and key == "reference"):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, float):
        value = None if math.isnan(value) else str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    elif isinstance(value, int):
        value = str(value)
    if value is not None and not isinstance(value, str):
        ours = key if key in KEYS else "reference"
        several = f'of several answers, name one by its place: [task] columns = {{ {ours} = "COLUMN.0" }}'
        raise UsageError(f"{place}: key {key!r} is not text: {value!r}"[:200], several if isinstance(value, list) else ROW_HINT)
    return value if value and value.strip() else None


def _accepted_first(value: Any) -> Any:
    """The first of the answers that SQuAD, DROP and TriviaQA accept, where a value is theirs; any other value as it is."""
    if not isinstance(value, dict):
        return value
    for key, beside in (("text", "answer_start"), ("spans", "types")):
        if isinstance(value.get(key), list) and beside in value:
            return next(iter(value[key]), None)
    return value["value"] if isinstance(value.get("value"), str) and "aliases" in value else value
