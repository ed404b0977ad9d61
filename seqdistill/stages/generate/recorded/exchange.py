"""One recorded answer and what it answers: from the messages of a prompt, the reply to it, and the row that holds them.

Knows under which names rows keep a request, a reply and what is known beside them. `rows` knows the shapes of rows.
"""

import json
from dataclasses import dataclass
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import as_dict, as_list
from seqdistill.errors import UsageError
from seqdistill.records import Message
from seqdistill.stages.generate.recorded.answers import left_out
from seqdistill.stages.generate.recorded.replies import PRINTED, Reply, completions_of, usage_in
from seqdistill.tasks.beside_prompt import check_prompt, check_whole
from seqdistill.tasks.messages import has_turns, is_assistant, role_of, structured
from seqdistill.tasks.prompt_files import value_text
from seqdistill.tasks.row_columns import has_tools_beside, tools_in

Row = dict[str, Any]

CONVERSATIONS = ("messages", "conversations", "conversation", "chosen_messages", "chat_messages", "contents")
REQUESTS = (
    *("request", "request_body", "requestBody", "modelInput", "proxy_server_request", "params", "body"),
    *("function_kwargs", "reqPayload", "full_request"),
)
REPLIES = (
    *("response", "response_body", "responseBody", "modelOutput", "reply", "result", "request_response"),
    *("respPayload", "completion_message", "full_response"),
)
ANSWERS = (
    *("completion", "response", "output", "outputs", "chosen", "generated_text", "generation", "answer", "output_text"),
    *("targets", "solution", "actual_output", "model_output", "model_response", "model_answer", "prediction"),
    "generated_solution",
)
# what an answer should be: the answer itself where there is no other
EXPECTED = ("expected_output", "expectedOutput", "expected", "ideal", "target", "ground_truth")
# the same beside an answer
GOLD = ("ground_truth", "expected_output", "expectedOutput", "expected", "ideal", "gold", "correct_answer", "expected_answer")
LEAST_REPEATED = 16  # characters of a prompt with which no answer begins by chance
MODELS = (
    *("model", "teacher", "providedModelName", "provided_model_name", "internalModel", "request_model", "modelId"),
    *("model_name", "ai_model", "generation_model", "chosen_model", "generator"),
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


def has_tools(row: Row, messages: list[Message]) -> bool:
    """Whether the request in a row, or a row that is one, names tools of which its prompt's messages say nothing."""
    return has_tools_beside([*tools_in(row), *tools_in(as_dict(request_of(row)))], messages)


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
    check_prompt(messages, place)
    reply = _without_prompt(reply, row, raw)
    if not any(isinstance(tokens, int) for tokens in reply["usage"].values()):
        reply = {**reply, "usage": usage_in(row)}
    completions = completions_of(reply, raw if isinstance(raw, dict) else row)
    answered = [text for one in completions for text in (one.content, one.reasoning)]
    check_whole([*(str(one["content"]) for one in messages), *answered], place)
    if printed := next((one.content for one in completions if PRINTED.match(one.content)), None):
        raise UsageError(f"{place}: an object as Python prints it, and not its JSON: {printed[:60]}", "log its model_dump()")
    if not any(one.content.strip() or one.reasoning or one.tool_calls for one in completions) and plain:
        raise UsageError(f"{place}: the answer is empty")
    model = (
        reply.get("model")
        or next((row[key] for key in MODELS if isinstance(row.get(key), str) and row[key]), None)
        or _request_model(row)
    )
    name = value_text(row, "prompt_id", place) or value_text(row, "id", place) if plain else value_text(row, "prompt_id", place)
    group = None if isinstance(row.get("group"), (dict, list)) else value_text(row, "group", place)  # what a log has is its own
    others = tuple(left_out(raw)) if raw is not row else ()
    known = (name, _reference(row, place), value_text(row, "slice", place), group, others)
    return [Exchange(place, str(model) if model else None, messages, completion, *known) for completion in completions]


def _reference(row: Row, place: str) -> str | None:
    if row.get("reference") is not None:
        return value_text(row, "reference", place)
    keys = GOLD if (messages := conversation_of(row)) is None else (*GOLD, "answer", "target")
    gold = next((row[key] for key in keys if isinstance(row.get(key), (str, int, float))), None)
    has_answer = messages is not None or row.keys() & {*ANSWERS, *REPLIES, "choices", "candidates", "message"}
    return value_text({"reference": gold}, "reference", place) if has_answer else None


def _request_model(row: Row) -> Any:
    beside = next((as_dict(row.get(key)) for key in ("metadata", "prompt") if as_dict(row.get(key)).get("model")), {})
    request = as_dict(request_of(row))
    return request.get("model") or request.get("modelId") or beside.get("model")


def _with_prefill(messages: list[Message], reply: Reply) -> tuple[list[Message], Reply]:
    """The prompt without the beginning of the answer that a request to Anthropic may hold, and the whole answer."""
    begun = messages[-1]["content"]
    choices = [{**one, "message": {**one["message"], "content": begun + one["message"]["content"]}} for one in reply["choices"]]
    return messages[:-1], {**reply, "choices": choices}


def _without_prompt(reply: Reply, row: Row, raw: Any) -> Reply:
    """The reply without the prompt in front of its texts, which transformers' pipelines and the option `echo` put there."""
    request = as_dict(request_of(row)) or row
    prompt = next((request[key] for key in ("prompt", "inputs", "input") if isinstance(request.get(key), str)), "")
    wanted = request.get("echo") is True or as_dict(request.get("parameters")).get("return_full_text") is True
    holders = (row, raw, *as_list(raw))
    is_likely = len(prompt) >= LEAST_REPEATED and any("generated_text" in as_dict(one) for one in holders)
    if not prompt or not (wanted or is_likely):
        return reply
    choices = [
        {**one, "message": {**one["message"], "content": text.removeprefix(prompt)}}
        if isinstance(text := one["message"].get("content"), str) and text != prompt
        else one
        for one in reply["choices"]
    ]
    return {**reply, "choices": choices}


def conversation_of(row: Row) -> list[Any] | None:
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
    others = [row[key] for key in ("completion", "choices", "candidates") if key in row]
    elsewhere = any(one is not None or not is_assistant(value[-1]) for one in others) or isinstance(row.get("message"), dict)
    beside = any(row.get(key) not in (None, "", [], {}) for key in (*ANSWERS, *EXPECTED))
    elsewhere = elsewhere or reply_of(row) is not None or (beside and not is_assistant(value[-1]))
    return value if not elsewhere and any(is_assistant(one) for one in value) else None
