"""Exports of other tools, rewritten as rows that `rows` reads: a request and its response, or messages; model, reference.

Knows Braintrust, Bedrock's invocation log, Label Studio, Argilla, HTTP archives and the logs of the command llm; `traces`,
`evaluations`, `chats` and `data_sets` know the rest. Does not read replies.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, as_list, objects
from seqdistill.stages.generate.recorded.chats import CHATS
from seqdistill.stages.generate.recorded.data_sets import DATA_SETS, DATA_SETS_WITHIN
from seqdistill.stages.generate.recorded.evaluations import EVALUATIONS, is_failed_test, reference_of, with_snake_names
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.stages.generate.recorded.failures import FAILED, failure_of
from seqdistill.stages.generate.recorded.traces import (
    QUESTIONS,
    called,
    datadog,
    is_beside_models,
    span,
    spans_within,
    with_plain_values,
)
from seqdistill.stages.generate.recorded.trees import tree_answers
from seqdistill.tasks.messages import is_assistant, structured

WRAPPERS = ("properties", "chat", "data", "meta", "span_data", "http")  # hold the row itself
INSIDE = {"messages", "requestBody", "request", "input", "history"}
BRAINTRUST_BESIDE = ("score", "function", "tool", "automation", "facet", "preprocessor", "classifier")
MARKS = ("label", "correct", "is_correct", "correctness", "correctness_math_verify", "is_good", "accepted")  # beside an answer
BAD = ("false", "0", "0.0", "no", "bad", "wrong", "incorrect")
ANSWERS = {"output", "answer", "generation", "solution", "generated_solution", "generated_text"}
VOTES = ("rating", "feedback", "user_feedback", "thumbs", "vote")
DOWN = ("-1", "-1.0", "down", "thumbs_down", "thumbsdown", "thumbs down", "dislike", "bad", "negative")
NOT_ANSWERS = ("tool", "retriever", "prompt", "parser", "embedding")  # runs of LangSmith that no model answered


def is_beside(row: Mapping[str, Any]) -> bool:
    """Whether a row of an export holds nothing to be learnt: a span of a trace, a grade, an answer marked as bad."""
    if row.get("traceId", row.get("trace_id")) and str(row.get("type", "GENERATION")).upper() not in ("GENERATION", "LLM"):
        return True
    if as_dict(row.get("span_data")).get("type", "generation") not in ("generation", "response"):  # OpenAI's Agents SDK
        return True
    if str(row.get("run_type")) in NOT_ANSWERS:
        return True
    if "event_id" in row and "run_id" in row and row.get("type") != "sampling":  # openai/evals: match, metrics
        return True
    if row.keys() <= {"spec"} or row.keys() <= {"final_report"}:
        return True
    if as_dict(row.get("span_attributes")).get("type") in BRAINTRUST_BESIDE:
        return True
    if is_marked_bad(row) or is_failed_test(row):
        return True
    return is_beside_models(row)


def is_marked_bad(row: Mapping[str, Any]) -> bool:
    """Whether a row with a prompt and its answer says that the answer is wrong, or that somebody found it bad."""
    votes = [str(row.get(key)).strip().lower() for key in VOTES]
    is_wrong = any(str(row.get(key)).strip().lower() in BAD for key in ("is_correct", "correctness", "is_good"))
    answer = next((row[key] for key in ("completion", "response") if key in row), None)
    if isinstance(turns := row.get("messages", row.get("conversations")), list) and turns and answer is None:
        is_wrong = is_wrong or any(str(row.get(key)).lower() == "false" for key in ("label", "kto_tag"))
        return is_wrong or any(vote in DOWN for vote in votes)
    if answer is None and row.keys() & {*QUESTIONS, "problem"} and row.keys() & ANSWERS:
        return is_wrong  # `label` and `correct` may be the question's own beside an answer of another name
    if answer is None or not row.keys() & {*QUESTIONS, "problem"}:
        return False
    marks = [str(row[key]).strip().lower() for key in MARKS if key in row and row[key] not in (answer, row.get("reference"))]
    said = str(answer).strip().lower()  # a label that begins the answer is the answer to a question
    return any(mark in BAD and not said.startswith(mark) for mark in marks) or any(vote in DOWN for vote in votes)


def rows_within(row: Row) -> list[Row] | None:
    """The rows that a row of an export holds: a trace's spans, a tree's answers; None for a row that is one itself."""
    for read in (spans_within, _archived, tree_answers, *DATA_SETS_WITHIN):
        if (found := read(row)) is not None:
            return found
    return None


def rewritten(row: Row) -> Row:
    """The row in a form that `rows` reads, where it is an export of a known tool; any other row as it is.

    Of a call that failed, nothing is left but why.
    """
    if is_beside(row):
        return row
    if (failure := failure_of(row)) is not None:
        return {FAILED: failure}
    row = with_snake_names(row)
    for read in EXPORTS:
        if (found := read(row)) is not None:
            return {key: value for key, value in found.items() if value is not None}
    return row


def _archived(row: Row) -> list[Row] | None:
    """The exchanges in an HTTP archive (HAR), as browsers and proxies write it: those whose request is JSON."""
    entries = as_dict(row.get("log")).get("entries")
    if not isinstance(entries, list):
        return None
    rows = []
    for entry in objects(entries):
        request = structured(as_dict(as_dict(entry.get("request")).get("postData")).get("text"))
        response = as_dict(entry.get("response"))
        if isinstance(request, Mapping):
            body = _body(as_dict(response.get("content")))
            rows.append({"request": request, "response": structured(body), "status_code": response.get("status")})
    return rows


def _body(content: Mapping[str, Any]) -> Any:
    """The text of a response in an HTTP archive; None where it cannot be decoded."""
    text = content.get("text")
    if content.get("encoding") != "base64" or not isinstance(text, str):
        return text
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return None


def _braintrust(row: Row) -> Row | None:
    answers, facts = row.get("output"), as_dict(row.get("metadata"))
    if not isinstance(answers, list) or not answers or not all(is_assistant(as_dict(one).get("message")) for one in answers):
        if "span_id" not in row or "usage" in row or answers in (None, "", [], {}):
            return None
        return {**row, "id": None, "usage": as_dict(row.get("metrics")), "reference": reference_of(row)}
    response = {"choices": answers, "model": facts.get("model"), "usage": row.get("metrics")}
    return {
        "request": {"messages": row.get("input"), "model": facts.get("model")},
        "response": response,
        "reference": reference_of(row),
    }


def _bedrock_log(row: Row) -> Row | None:
    prompt, answered = as_dict(row.get("input")), as_dict(row.get("output"))
    if "inputBodyJson" not in prompt or "outputBodyJson" not in answered:
        return None
    usage = {"input_tokens": prompt.get("inputTokenCount"), "output_tokens": answered.get("outputTokenCount")}
    return {
        "request": prompt["inputBodyJson"],
        "response": answered["outputBodyJson"],
        "model": row.get("modelId"),
        "usage": usage,
    }


def _annotated(row: Row) -> Row | None:
    """What a person wrote in Label Studio; a question of Argilla with its responses."""
    data, annotations = as_dict(row.get("data")), row.get("annotations")
    if data and isinstance(annotations, list):
        prompt = next((data[key] for key in (*QUESTIONS, "messages") if data.get(key)), None)
        for annotation in annotations:
            results = [] if as_dict(annotation).get("was_cancelled") else as_dict(annotation).get("result")
            for one in as_list(results):
                written = as_dict(as_dict(one).get("value")).get("text")
                text = "\n".join(map(str, written)) if isinstance(written, list) else written
                if as_dict(one).get("type") == "textarea" and text:
                    return {"prompt": prompt, "completion": text}
        return None
    fields = as_dict(row.get("fields"))
    if fields and (written := _submitted(row.get("responses"))) is not None:
        return {
            "prompt": next((fields[key] for key in ("messages", *QUESTIONS) if fields.get(key)), None),
            "completion": written,
        }
    for key in ("response", "completion", "answer"):
        given = row.get(key)
        if isinstance(given, list) and given and all({"value", "status"} <= as_dict(one).keys() for one in given):
            submitted = [one["value"] for one in given if one["status"] == "submitted"]
            return {**row, key: submitted[0] if submitted else None}
    return None


def _submitted(responses: Any) -> str | None:
    """The first text that a person submitted in Argilla: answers by question, or questions by answer."""
    if isinstance(responses, Mapping):
        found = [one.get("value") for given in responses.values() for one in objects(given)]
    else:
        submitted = [as_dict(one.get("values")) for one in objects(responses) if one.get("status", "submitted") == "submitted"]
        found = [as_dict(one).get("value") for given in submitted for one in given.values()]
    return next((one for one in found if isinstance(one, str)), None)


def _llm_log(row: Row) -> Row | None:
    """A row of the logs of the command `llm`: the whole conversation is in what was sent."""
    prompt, answered = as_dict(row.get("prompt_json")), as_dict(row.get("response_json"))
    if not isinstance(row.get("response"), str) or not ({"prompt_json", "response_json"} & row.keys()):
        return None
    request = prompt if prompt.get("messages") else {"prompt": row.get("prompt"), "system": row.get("system")}
    if isinstance(files := row.get("attachments"), list) and files:
        request = {"messages": [{"role": "user", "content": row.get("prompt"), "files": files}]}  # which are refused
    reply = {"role": "assistant", "content": row["response"], "finish_reason": answered.get("finish_reason")}
    return {**row, "id": None, "request": request, "response": {**reply, "usage": answered.get("usage")}}


def _wrapped(row: Row) -> Row | None:
    """A row that a tool wraps in an object of its own; the key of a Gemini batch, where it is among the metadata."""
    if row.keys() & {"request", "response"} and isinstance(name := as_dict(row.get("metadata")).get("key"), (str, int)):
        return {**row, "key": name}
    if row.keys() & (INSIDE | {"annotations", "custom_id"}):
        return None
    inner = next((inner for key in WRAPPERS if (inner := as_dict(structured(row.get(key)))).keys() & INSIDE), None)
    return {key: structured(value) for key, value in inner.items()} if inner else None


EXPORTS: tuple[Callable[[Row], Row | None], ...] = (
    *EVALUATIONS,
    with_plain_values,
    _llm_log,
    called,
    datadog,
    span,
    _braintrust,
    _bedrock_log,
    _annotated,
    *CHATS,
    *DATA_SETS,
    _wrapped,
)
