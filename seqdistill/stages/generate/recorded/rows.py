"""Which rows of recorded answers are understood, and what each says: prompt, answer, and what is known beside them.

Knows the shapes in which people hold answers: logs of requests and replies, data sets, exports of Langfuse, Promptfoo, Helicone
and LiteLLM. Does not pair rows with each other; `pairs` does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import as_dict
from seqdistill.errors import UsageError
from seqdistill.records import Message
from seqdistill.stages.generate.recorded.answers import is_reply, is_request, left_out, written
from seqdistill.stages.generate.recorded.exports import FAILED, is_beside, rewritten, rows_within
from seqdistill.stages.generate.recorded.replies import (
    PRINTED,
    Reply,
    api_reply,
    chat_reply,
    completions_of,
    finish_of,
    messages_in,
    usage_in,
    whole_reply,
)
from seqdistill.stages.generate.recorded.unknown import unknown
from seqdistill.tasks.beside_prompt import check_options, check_whole
from seqdistill.tasks.marked_turns import prompted_turns
from seqdistill.tasks.messages import (
    chat_messages,
    continued,
    has_turns,
    is_assistant,
    is_conversation,
    joined,
    role_of,
    structured,
    with_system,
)
from seqdistill.tasks.prompt_files import column_value, has_column, value_text
from seqdistill.tasks.row_columns import check_only_text, ends_with, has_input, history_turns, instruction_text, system_of

Row = dict[str, Any]

HINT = (
    'a line is {"request": {...}, "response": {...}}, a line of a batch input or output file, '
    '{"prompt": ..., "completion": ...}, {"messages": [...]} or one of the other kinds in the README'
)
CONVERSATIONS = ("messages", "conversations", "conversation", "chosen_messages", "chat_messages", "contents")
REQUESTS = (
    *("request", "request_body", "requestBody", "modelInput", "proxy_server_request", "params", "body"),
    *("function_kwargs", "reqPayload", "full_request"),
)
REPLIES = (
    *("response", "response_body", "responseBody", "modelOutput", "reply", "result", "request_response"),
    *("respPayload", "completion_message", "full_response"),
)
TEXTS = ("question", "query", "input_text", "problem", "user_input", "user_prompt", "user_message", "text_input")  # are text
PROMPTS = ("prompt", "question", "query", "input", "inputs", *TEXTS[2:])
ANSWERS = (
    *("completion", "response", "output", "outputs", "chosen", "generated_text", "generation", "answer", "output_text"),
    *("targets", "solution", "actual_output", "model_output", "model_response", "model_answer", "prediction"),
    "generated_solution",
)
EXPECTED = (
    "expected_output",
    "expectedOutput",
    "expected",
    "ideal",
    "target",
    "ground_truth",
)  # where there is no other answer
GOLD = ("ground_truth", "expected_output", "expectedOutput", "expected", "ideal", "gold", "correct_answer", "expected_answer")
THOUGHTS = (
    "reasoning",
    "reasoning_content",
    "thinking",
    "Complex_CoT",
    "complex_cot",
    "reasoning_trace",
    "think",
    "thought",
    "cot",
)
LEAST_REPEATED = 16  # characters of a prompt with which no answer begins by chance
NO_REASONING = (
    "on",
    "off",
    "yes",
    "no",
    "true",
    "false",
    "low",
    "medium",
    "high",
    "none",
)  # what a column of that name says of it
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
MODELS = (
    *("model", "teacher", "providedModelName", "provided_model_name", "internalModel", "request_model", "modelId"),
    *("model_name", "ai_model"),
)


@dataclass(frozen=True)
class Exchange:
    """One recorded answer and what it answers."""

    place: str  # "file:line"
    model: str | None
    messages: list[Message]  # the prompt as it was logged
    completion: Completion  # finish_reason is NONE_RECORDED where the log has none
    prompt_id: str | None = None  # the row's own
    reference: str | None = None
    slice: str | None = None
    group: str | None = None
    left_out: tuple[str, ...] = ()  # fields of the answer's object that are not in its text


def opened(raw: Mapping[str, Any], columns: Mapping[str, str]) -> list[Row]:
    """The rows in a row of a file, mostly one: names as `columns` maps them, exports rewritten.

    Where the answer's column is named, the row is no more than what is named and what is known beside it.
    """
    row = _plain(raw, columns)
    if "completion" in row and "completion" in columns:
        return [row]
    within = rows_within(row)
    return [rewritten(row)] if within is None else [rewritten(_plain(one, {})) for one in within]


def _plain(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """The row with names as `columns` maps them, plain keys also in upper case, and lists and objects that a text holds.

    A prompt stays text, unless it is a list of messages.
    """
    row = {str(key).strip(): value for key, value in raw.items()}
    row |= {key.casefold(): row[key] for key in reversed(row) if key.casefold() in PLAIN - row.keys()}
    named = {key: column_value(row, column) for key, column in columns.items() if has_column(row, column)}
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
        return is_reply(held) or (is_conversation(held) and any(map(is_assistant, held)))
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
    asked = next((row[name] for name in (*PROMPTS, "instruction", "ctx") if isinstance(row.get(name), str)), None)
    check_options(row, asked, place)
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
    if request is None and (conversation := _conversation(row)) is not None:
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


def has_tools(row: Row) -> bool:
    """Whether the request in a row, or a row that is one, names tools."""
    request = as_dict(request_of(row))
    places = (row, request, as_dict(request.get("config")))
    return any(held[key] not in ("[]", "{}") for held in places for key in ("tools", "functions") if held.get(key))


def request_of(row: Row) -> Any:
    """The request in a row that keeps it under a key of its own; None for any other row."""
    request = next((row[key] for key in REQUESTS if isinstance(row.get(key), dict) and row[key]), None)
    inner = structured(request.get("body")) if request else None
    return inner if isinstance(inner, dict) else request


def reply_of(row: Row) -> Any:
    """The reply that a row keeps under a key of its own: an object, a stream's chunks, or text; None for any other row."""
    reply = next((row[key] for key in REPLIES if row.get(key) not in (None, "", {}, [])), None)
    if isinstance(reply, dict) and isinstance(structured(reply.get("body")), dict):
        return structured(reply["body"])
    if isinstance(reply, dict) and reply.get("type") == "succeeded":  # a line of an Anthropic batch
        return reply.get("message")
    return reply


def _is_request(row: Row) -> bool:
    return "model" in row and bool(row.keys() & {"messages", "input", "contents", "prompt"})


def exchanges(
    messages: list[Message] | None, reply: Reply | None, row: Row, place: str, raw: Any = None, *, plain: bool = False
) -> list[Exchange]:
    """The exchange of each choice of a reply; `plain` rows may name their prompt by an id of their own."""
    if reply is None:
        raise UsageError(f"{place}: the reply has no answer in it: {json.dumps(raw)[:120]}")
    if messages and messages[-1]["role"] == "assistant" and isinstance(raw, dict) and "stop_reason" in raw:
        messages, reply = _with_prefill(messages, reply)
    if not messages or messages[-1]["role"] != "user":
        raise UsageError(f"{place}: there is no prompt: no user message before the answer")
    reply = _without_prompt(reply, row, raw)
    if not any(isinstance(tokens, int) for tokens in reply["usage"].values()):
        reply = {**reply, "usage": usage_in(row)}
    completions = completions_of(reply, raw if isinstance(raw, dict) else row)
    said = [text for one in completions for text in (one.content, one.reasoning)]
    check_whole([*(str(one["content"]) for one in messages), *said], place)
    if printed := next((one.content for one in completions if PRINTED.match(one.content)), None):
        raise UsageError(f"{place}: an object as Python prints it, and not its JSON: {printed[:60]}", "log its model_dump()")
    if not any(one.content.strip() or one.reasoning or one.tool_calls for one in completions) and plain:
        raise UsageError(f"{place}: the answer is empty")
    model = reply.get("model") or next((row[key] for key in MODELS if row.get(key)), None) or _request_model(row)
    name = value_text(row, "prompt_id", place) or value_text(row, "id", place) if plain else value_text(row, "prompt_id", place)
    group = None if isinstance(row.get("group"), (dict, list)) else value_text(row, "group", place)  # what a log has is its own
    others = tuple(left_out(raw)) if raw is not row else ()
    known = (name, _reference(row, place), value_text(row, "slice", place), group, others)
    return [Exchange(place, str(model) if model else None, messages, completion, *known) for completion in completions]


def _reference(row: Row, place: str) -> str | None:
    if row.get("reference") is not None:
        return value_text(row, "reference", place)
    keys = GOLD if (messages := _conversation(row)) is None else (*GOLD, "answer", "target")
    gold = next((row[key] for key in keys if isinstance(row.get(key), (str, int, float))), None)
    has_answer = messages is not None or row.keys() & {*ANSWERS, *REPLIES, "choices", "candidates", "message"}
    return value_text({"reference": gold}, "reference", place) if has_answer else None


def _beside(row: Row) -> dict[str, Any]:
    """The reasoning that a row has beside its answer."""
    found = next(((key, row[key]) for key in THOUGHTS if row.get(key) and not _is_switch(row[key])), None)
    return {found[0] if found[0] in THOUGHTS[:3] else "reasoning": found[1]} if found else {}


def _is_switch(value: Any) -> bool:
    """Whether a column of reasoning only says whether there was any, or how much: a model's thoughts are a text."""
    return not isinstance(value, (str, list, dict)) or str(value).strip().lower() in NO_REASONING


def _request_model(row: Row) -> Any:
    beside = next((as_dict(row.get(key)) for key in ("metadata", "prompt") if as_dict(row.get(key)).get("model")), {})
    return as_dict(request_of(row)).get("model") or beside.get("model")


def _with_prefill(messages: list[Message], reply: Reply) -> tuple[list[Message], Reply]:
    """The prompt without the beginning of the answer that a request to Anthropic may hold, and the whole answer."""
    begun = messages[-1]["content"]
    choices = [{**one, "message": {**one["message"], "content": begun + one["message"]["content"]}} for one in reply["choices"]]
    return messages[:-1], {**reply, "choices": choices}


def _without_prompt(reply: Reply, row: Row, raw: Any) -> Reply:
    """The reply without the prompt in front of its texts, which transformers' pipelines and the option `echo` put there."""
    request = as_dict(request_of(row)) or row
    asked = next((request[key] for key in ("prompt", "inputs", "input") if isinstance(request.get(key), str)), "")
    wanted = request.get("echo") is True or as_dict(request.get("parameters")).get("return_full_text") is True
    holders = (row, raw, *_listed(raw))
    is_likely = len(asked) >= LEAST_REPEATED and any("generated_text" in as_dict(one) for one in holders)
    if not asked or not (wanted or is_likely):
        return reply
    choices = [
        {**one, "message": {**one["message"], "content": text.removeprefix(asked)}}
        if isinstance(text := one["message"].get("content"), str) and text != asked
        else one
        for one in reply["choices"]
    ]
    return {**reply, "choices": choices}


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
    checks = [*_listed(as_dict(row.get("testCase")).get("assert")), *_listed(row.get("assert"))]
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


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _conversation(row: Row) -> list[Any] | None:
    """The messages of a row that has the assistant's answer among them, and no other answer."""
    value = next((row[key] for key in CONVERSATIONS if row.get(key)), None)
    chosen = row.get("chosen") if "rejected" in row else None
    if (
        value is not None
        and isinstance(chosen, list)
        and has_turns(chosen)
        and role_of(chosen[0]) != "assistant"
        and is_assistant(chosen[-1])
    ):
        value = chosen  # what was preferred, and not the conversation as it was
    value = row.get("chosen") if value is None and "prompt" not in row else value
    value = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(value, list):
        return None
    elsewhere = row.keys() & {"completion", "choices", "candidates"} or isinstance(row.get("message"), dict)
    beside = any(row.get(key) not in (None, "", [], {}) for key in (*ANSWERS, *EXPECTED))
    elsewhere = elsewhere or reply_of(row) is not None or (beside and not is_assistant(value[-1]))
    return value if not elsewhere and any(is_assistant(one) for one in value) else None


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
        asked = prompted_turns(instruction) or [{"role": "user", "content": instruction}]
        prompt = messages_in(joined(history_turns(row, place), asked), place)
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
