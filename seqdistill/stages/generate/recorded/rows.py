"""Which rows of recorded answers are understood, and what each says: prompt, answer, and what is known beside them.

Knows the shapes in which people hold answers: logs of requests and replies, data sets, exports of Langfuse, Promptfoo, Helicone
and LiteLLM. Does not pair rows with each other; `pairs` does.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, as_list
from seqdistill.errors import UsageError
from seqdistill.stages.generate.recorded.answers import is_reply, is_reply_in_text, is_request, written
from seqdistill.stages.generate.recorded.exchange import (
    ANSWERS,
    CONVERSATIONS,
    EXPECTED,
    REPLIES,
    REQUESTS,
    Exchange,
    Row,
    conversation_of,
    exchanges,
    reply_of,
    request_of,
)
from seqdistill.stages.generate.recorded.exports import is_beside, rewritten, rows_within
from seqdistill.stages.generate.recorded.failures import FAILED, failure_of
from seqdistill.stages.generate.recorded.replies import api_reply, chat_reply, finish_of, messages_in, usage_in, whole_reply
from seqdistill.stages.generate.recorded.unknown import unknown
from seqdistill.tasks.beside_prompt import check_options
from seqdistill.tasks.marked_turns import prompted_turns
from seqdistill.tasks.messages import (
    chat_messages,
    continued,
    has_turns,
    is_assistant,
    is_conversation,
    joined,
    structured,
    with_system,
)
from seqdistill.tasks.prompt_files import column_value, has_column
from seqdistill.tasks.row_columns import check_only_text, ends_with, has_input, history_turns, instruction_text, system_of

HINT = (
    'a line is {"request": {...}, "response": {...}}, a line of a batch input or output file, '
    '{"prompt": ..., "completion": ...}, {"messages": [...]} or one of the other kinds in the README'
)
TEXTS = ("question", "query", "input_text", "problem", "user_input", "user_prompt", "user_message", "text_input")  # are text
PROMPTS = ("prompt", "question", "query", "input", "inputs", *TEXTS[2:])
THOUGHTS = (
    *("reasoning", "reasoning_content", "thinking", "Complex_CoT", "complex_cot", "reasoning_trace", "think", "thought", "cot"),
    *("thoughts", "thinking_content", "thinking_trace", "thinking_trajectories", "reasoning_text", "chain_of_thought"),
)
# what a column of that name says of it
NO_REASONING = ("on", "off", "yes", "no", "true", "false", "low", "medium", "high", "none")
NULLS = {*ANSWERS} - {"chosen", "targets"}  # keys that say something also where they are null: the answer is empty
NULLS |= {"prompt_json", "response_json"}  # the log is that of the package `llm`
PLAIN = {
    *PROMPTS,
    *ANSWERS,
    "messages",
    "conversations",
    "instruction",
    "context",
    "system",
    "reference",
    "slice",
    "group",
    "id",
    "model",
}


def opened(raw: Mapping[str, Any], columns: Mapping[str, str]) -> list[Row]:
    """The rows in a row of a file, mostly one: names as `columns` maps them, exports rewritten.

    Where the answer's column is named, the row is no more than what is named and what is known beside it.
    """
    row = _plain(raw, columns)
    if "completion" in row and "completion" in columns:
        failure = failure_of(row)
        return [row if failure is None else {FAILED: failure}]
    within = rows_within(row)
    return [rewritten(row)] if within is None else [rewritten(_plain(one, {})) for one in within]


def _plain(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """The row with names as `columns` maps them, plain keys also in upper case, and lists and objects that a text holds.

    A prompt stays text, unless it is a list of messages. What is null is not there, as a table has a column for whatever any
    row of it holds; but an answer that is null is an empty one, and a column that is named is no other.
    """
    row = {str(key).strip(): value for key, value in raw.items()}
    row |= {key.casefold(): row[key] for key in reversed(row) if key.casefold() in PLAIN - row.keys()}
    named = {key: column_value(row, column) for key, column in columns.items() if has_column(row, column)}
    row = {key: value for key, value in row.items() if value is not None or key in NULLS}
    if "completion" in named:
        named["completion"] = "" if named["completion"] is None else named["completion"]
        rivals = {*ANSWERS, *REPLIES, *REQUESTS, "choices", "message"}
        if named.keys() & {"prompt", "messages"}:
            rivals |= {*PROMPTS, *CONVERSATIONS, "instruction", "context"}
        row = {key: value for key, value in row.items() if key not in rivals}
    row |= named
    for key, value in row.items():
        if isinstance(value, str) and value.lstrip()[:6].startswith(("[", "{", "array(")):
            held = structured(value)
            if _is_structure(key, held) or (key == "response" and "call_type" in row):  # the latter is LiteLLM's reply
                row[key] = held
    return row


def _is_structure(key: str, held: Any) -> bool:
    """Whether what a text under `key` holds is a list or an object of the row's, and not a prompt or an answer in JSON."""
    if key in ANSWERS:
        return is_reply_in_text(held)
    loose = key in (*PROMPTS, "reference", "context", "instruction", "system")
    return not loose or is_conversation(held) or is_request(held) or is_reply(held)


def columns_in(raw: Mapping[str, Any], columns: Mapping[str, str]) -> set[str]:
    """The keys of `columns` that a row has, in their column or under their own name."""
    row = {str(key).strip(): value for key, value in raw.items()}
    folded = {name.casefold() for name in row}
    return {key for key, column in columns.items() if has_column(row, column) or key in folded}


def call_in(row: Row) -> str | None:
    """The id of the request that a line of `serve`'s log is about; None for any other row."""
    in_log = row.get("kind") in ("teacher", "shadow", "feedback") and isinstance(row.get("id"), str) and "prompt_id" in row
    return str(row["id"]) if in_log else None


def takes_back(row: Row) -> bool | str:
    """Whether feedback in `serve`'s log takes back what was answered before: all, or the text that was rated below 0."""
    messages, rating = row.get("messages"), row.get("rating")
    if call_in(row) is None or row["kind"] != "feedback" or not is_conversation(messages) or messages is None:
        return False
    if _weight(messages[-1]) != 0:
        return True
    return str(messages[-1].get("content")) if isinstance(rating, (int, float)) and rating < 0 else False


def exchanges_in(row: Row, place: str) -> list[Exchange] | None:
    """The answers in a row; none where it holds nothing to be learnt; None where it holds only one half of an exchange.

    Raises UsageError for what is of no known shape, or whose shape is known and broken.
    """
    if is_beside(row):
        return []
    if FAILED in row:
        raise UsageError(f"{place}: the call failed: {row[FAILED][:200]}")
    check_only_text(row, place)
    text = next((row[name] for name in (*PROMPTS, "instruction", "ctx") if isinstance(row.get(name), str)), None)
    check_options(row, text, place)
    _check_status(row, place)
    if isinstance(prompt := row.get("prompt"), Mapping) and "raw" in prompt:
        return _promptfoo(row, place)
    if "preferred_output" in row:
        messages, preferred = messages_in(row.get("input"), place), row["preferred_output"]
        if has_turns(preferred):
            return list(_conversations_answer(row, continued(messages or [], preferred), place))
        return exchanges(messages, chat_reply(preferred, place), row, place)
    if row.get("traceId", row.get("trace_id")) and row.get("output", 0) is None:
        raise UsageError(f"{place}: no output: {str(row.get('statusMessage') or row.get('level') or 'empty')[:200]}")
    request, reply = request_of(row), reply_of(row)
    if request is not None and reply is not None:
        held = structured(reply)
        reply = held if isinstance(as_dict(held).get("error"), dict) else reply  # the body of an error, as text
        if has_turns(turns := as_dict(reply).get("messages", reply)):
            facts = {key: value for key, value in as_dict(reply).items() if key != "messages"}
            messages = continued(messages_in(request, place) or [], turns)
            return list(_conversations_answer({**row, **facts}, messages, place))
        return exchanges(messages_in(request, place), chat_reply(reply, place), row, place, reply)
    whole = api_reply({key: value for key, value in row.items() if key != "error"}, place)
    if whole is not None and (messages := messages_in(request or row, place)):
        return exchanges(messages, whole, row, place, row)
    if request is None and (conversation := conversation_of(row)) is not None:
        return list(_conversations_answer(row, conversation, place))
    if request is None and (found := _prompt_and_answer(row, place)) is not None:
        return found
    if whole is not None or request is not None or _is_request(row):
        return None
    if any(row.get(key) for key in (*PROMPTS, "instruction")) and any(row[key] is None for key in ANSWERS if key in row):
        raise UsageError(f"{place}: the answer is empty")
    raise UsageError(f"{place}: {unknown(row)}", HINT)


def _check_status(row: Row, place: str) -> None:
    """Raises UsageError for a row whose request failed: its status of HTTP says so."""
    held: Row = next((row[key] for key in REPLIES if isinstance(row.get(key), dict)), {})
    found = (row.get("status_code"), row.get("response_status"), held.get("status"))
    status = next((one for one in found if isinstance(one, int) and 400 <= one < 600), None)
    if status is not None:
        said = as_dict(held.get("body")) or held or reply_of(row)
        raise UsageError(f"{place}: the reply is an error of status {status}: {json.dumps(said, default=str)[:200]}")


def _is_request(row: Row) -> bool:
    return "model" in row and bool(row.keys() & {"messages", "input", "contents", "prompt"})


def _beside(row: Row) -> dict[str, Any]:
    """The reasoning that a row has beside its answer."""
    found = next(((key, row[key]) for key in THOUGHTS if row.get(key) and not _is_switch(row[key])), None)
    return {found[0] if found[0] in THOUGHTS[:3] else "reasoning": found[1]} if found else {}


def _is_switch(value: Any) -> bool:
    """Whether a column of reasoning only says whether there was any, or how much: a model's thoughts are a text."""
    return not isinstance(value, (str, list, dict)) or str(value).strip().lower() in NO_REASONING


# --- the shapes -------------------------------------------------------------------------------------------------------


def _promptfoo(row: Row, place: str) -> list[Exchange]:
    raw, response = row["prompt"]["raw"], as_dict(structured(row.get("response")))
    output = response.get("output")
    if output in (None, ""):
        raise UsageError(f"{place}: no output: {str(response.get('error') or row.get('error') or 'empty')[:200]}")
    held = _chat_in(raw)
    output = written(output) if isinstance(output, list) else output
    content = output if isinstance(output, (str, list)) else json.dumps(output, ensure_ascii=False)
    if isinstance(content, list) and (reply := chat_reply(content, place)) is not None:  # calls of tools
        reply = {**reply, "usage": usage_in(response)}
    else:
        said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        reply = chat_reply(
            {**response, "output": None, "content": said, "role": "assistant", "finish_reason": finish_of(response)}, place
        )
    provider = row.get("provider")
    model = provider.get("id") if isinstance(provider, dict) else provider
    checks = [*as_list(as_dict(row.get("testCase")).get("assert")), *as_list(row.get("assert"))]
    wanted = next((one.get("value") for one in checks if as_dict(one).get("type") == "equals"), None)
    facts = {"reference": row.get("reference") or (wanted if isinstance(wanted, str) else None)}
    facts |= {key: row.get(key) for key in ("slice", "group")}
    messages = messages_in(held if is_conversation(held) or is_request(held) else {"prompt": raw}, place)
    return exchanges(messages, reply, {**row, "model": model, "id": None, **facts}, place)


def _chat_in(raw: Any) -> Any:
    """The messages or the request that a prompt of Promptfoo holds as JSON or YAML; a prompt that is a text as it is."""
    if not isinstance(raw, str) or not raw.lstrip().startswith("- role:"):
        return structured(raw)
    import yaml

    try:
        held = yaml.safe_load(raw)
    except yaml.YAMLError:
        return raw
    return held if is_conversation(held) and all("content" in one for one in held) else raw


def _conversations_answer(row: Row, messages: list[Any], place: str) -> Iterator[Exchange]:
    """The last answer that is to be trained on: a message of weight 0 is not, nor is what comes after the answer."""
    trained = [n for n, one in enumerate(messages) if is_assistant(one) and _weight(one) != 0]
    if not trained:
        return
    last = trained[-1]
    prompt = with_system(chat_messages(messages[:last], place, "messages"), system_of(row), place) if last else []
    ended = {"finish_reason": reason} if (reason := finish_of(row)) else {}
    reply = chat_reply({**ended, **_beside(row), **messages[last]}, place)
    yield from exchanges(prompt, reply, row, place, plain=True)


def _weight(message: Mapping[str, Any]) -> float:
    if any(message.get(key) is not None and not message[key] for key in ("train", "loss")):  # axolotl's, ms-swift's
        return 0.0
    weight = message.get("weight", message.get("loss_weight", 1))
    return float(weight) if isinstance(weight, (int, float)) else 1.0


def _prompt_and_answer(row: Row, place: str) -> list[Exchange] | None:
    """A row with the prompt under one key and the answer under another, each as text, messages or an API's object."""
    key = next((key for key in ("messages", "conversations", *PROMPTS) if row.get(key) not in (None, "", [])), None)
    instruction = instruction_text(row)
    names = ANSWERS if row.keys() & {*ANSWERS, *REPLIES} - {key} else EXPECTED
    answer = next((row[name] for name in names if row.get(name) not in (None, "") and name != key), None)
    answer = written(answer, is_output=bool(row.get("traceId", row.get("trace_id"))))
    reply = whole_reply(reply_of(row) if answer is None else answer, place)
    if (key or instruction) is None:
        return None
    if (error := row.get("error")) and not isinstance(error, bool) and reply is not None:
        raise UsageError(f"{place}: the answer is that of an error: {json.dumps(error, default=str)[:200]}")
    if reply is None:
        if any(row.get(name) == "" for name in ANSWERS):
            raise UsageError(f"{place}: the answer is empty")
        return None
    if instruction is not None and not row.get("messages") and (not row.get("prompt") or ends_with(row["prompt"], answer)):
        turns = prompted_turns(instruction) or [{"role": "user", "content": instruction}]
        prompt = messages_in(joined(history_turns(row, place), turns), place)
        prompt = with_system(prompt or [], system_of(row), place)
    else:
        name = "prompt" if key in TEXTS else str(key)
        elsewhere = {one: row[one] for one in ("previous_response_id", "suffix") if one in row}
        text = f"{row[key]}\n\n{row['input']}" if key == "prompt" and has_input(row) else row[str(key)]
        prompt = messages_in({name: text, **elsewhere}, place)
        earlier = history_turns(row, place) if isinstance(row[str(key)], str) else []
        prompt = with_system(joined(earlier, prompt or []), system_of(row), place)
    if has_turns(reply):  # preference data repeat the prompt in what was chosen
        return list(_conversations_answer(row, continued(prompt or [], reply), place))
    if isinstance(reply, list) and is_conversation(reply) and len(reply) != 1:
        raise UsageError(f"{place}: the last message is not the assistant's answer to the prompt: {len(reply)} answers")
    is_text = isinstance(reply, str) or (isinstance(reply, list) and is_conversation(reply))
    beside = {**_beside(row), **({"tool_calls": row["tool_calls"]} if row.get("tool_calls") else {})}
    if is_text:
        message = {"content": reply} if isinstance(reply, str) else reply[0]
        reply = {"role": "assistant", "finish_reason": finish_of(row), **beside, **message}
    plain = is_text and not row.get("traceId", row.get("trace_id"))
    return exchanges(prompt, chat_reply(reply, place), row, place, None if is_text else reply, plain=plain)
