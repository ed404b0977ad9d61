"""Exports of other tools, rewritten as rows that `rows` reads: a request and its response, or messages; model, reference.

Knows OpenAI's evals, LangSmith and LangChain, MLflow, OpenTelemetry (OpenInference, GenAI, OpenLLMetry), Braintrust, Bedrock's
invocation log, inspect, lm-eval, Label Studio and Argilla; `chats` and `data_sets` know the rest. Does not read replies.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict
from seqdistill.records import from_json
from seqdistill.stages.generate.recorded.chats import CHATS, CHATS_WITHIN
from seqdistill.stages.generate.recorded.data_sets import DATA_SETS, DATA_SETS_WITHIN
from seqdistill.tasks.messages import is_assistant, is_conversation, plain_messages, structured

Row = dict[str, Any]

WRAPPERS = ("properties", "chat", "data")  # hold the row itself
INSIDE = {"messages", "requestBody", "request", "input", "history"}
REFERENCES = ("reference", "ground_truth", "expected", "expected_output", "target", "ideal", "label", "correct_answer")
QUESTIONS = ("prompt", "question", "query", "instruction", "text", "input", "inputs")
SPANS = ("llm.", "gen_ai.", "openinference.", "input.", "output.", "traceloop.", "mlflow.")
SPAN_KINDS = ("openinference.span.kind", "traceloop.span.kind", "mlflow.spanType")
WHOLE = ("mlflow.spanInputs", "mlflow.spanOutputs", "input.value", "output.value")  # attributes that hold an object
OF_MODELS = ("LLM", "CHAT_MODEL")
BRAINTRUST_BESIDE = ("score", "function", "tool", "automation", "facet", "preprocessor", "classifier")
NOT_ANSWERS = ("tool", "retriever", "prompt", "parser", "embedding")  # runs of LangSmith that no model answered


def is_beside(row: Mapping[str, Any]) -> bool:
    """Whether a row of an export holds nothing to be learnt: a span of a trace, a grade, an answer marked as bad."""
    if row.get("traceId", row.get("trace_id")) and row.get("type", "GENERATION") != "GENERATION":
        return True
    if str(row.get("run_type")) in NOT_ANSWERS:
        return True
    if "event_id" in row and "run_id" in row and row.get("type") != "sampling":  # openai/evals: match, metrics
        return True
    if row.keys() <= {"spec"} or row.keys() <= {"final_report"}:
        return True
    if as_dict(row.get("span_attributes")).get("type") in BRAINTRUST_BESIDE:
        return True
    if row.get("label") is False and {"prompt", "completion"} <= row.keys():
        return True
    return _span_kind(row) not in (None, *OF_MODELS)


def rows_within(row: Row) -> list[Row] | None:
    """The rows that a row of an export holds: a trace's spans, a tree's answers; None for a row that is one itself."""
    for read in (_traced, *CHATS_WITHIN, *DATA_SETS_WITHIN):
        if (found := read(row)) is not None:
            return found
    return None


def rewritten(row: Row) -> Row:
    """The row in a form that `rows` reads, where it is an export of a known tool; any other row as it is."""
    for read in () if is_beside(row) else EXPORTS:
        if (found := read(row)) is not None:
            return {key: value for key, value in found.items() if value is not None}
    return row


def _openai_eval(row: Row) -> Row | None:
    """An output item of an OpenAI eval; a `sampling` event of the package openai/evals."""
    if row.get("type") == "sampling" and "prompt" in (data := as_dict(row.get("data"))):
        sampled = data.get("sampled")
        return {
            "prompt": data["prompt"],
            "completion": sampled[0] if isinstance(sampled, list) and len(sampled) == 1 else sampled,
        }
    sample = as_dict(row.get("sample"))
    if not is_conversation(sample.get("input")):
        return None
    item = as_dict(row.get("datasource_item"))
    request = {"model": sample.get("model"), "messages": sample["input"]}
    return {"request": request, "response": _reply(sample.get("output"), sample), "reference": _reference(item)}


def _traced(row: Row) -> list[Row] | None:
    """The spans of a trace as MLflow or an OpenTelemetry collector writes it: the models', or else the first alone."""
    spans = as_dict(structured(row.get("data"))).get("spans", structured(row.get("spans")))
    if isinstance(groups := row.get("resourceSpans", row.get("resource_spans")), list):
        scopes = [scope for group in groups for scope in _listed(as_dict(group), "scopeSpans", "scope_spans")]
        spans = [span for scope in scopes for span in _listed(as_dict(scope), "spans")]
    if not isinstance(spans, list) or not spans or not all(isinstance(one, dict) and "attributes" in one for one in spans):
        return None
    if any(_span_kind(span) in OF_MODELS or _span_kind(span) is None for span in spans):
        return spans
    facts = _attributes(spans[0])
    return [{**spans[0], "attributes": {**facts, "mlflow.spanType": "LLM"}}] if "mlflow.spanType" in facts else spans


def _listed(holder: Mapping[str, Any], *keys: str) -> list[Any]:
    return next((held for key in keys if isinstance(held := holder.get(key), list)), [])


def _span_kind(row: Mapping[str, Any]) -> Any:
    facts = _attributes(row)
    return next((facts[key] for key in SPAN_KINDS if facts.get(key)), None)


def _langsmith(row: Row) -> Row | None:
    """A run or an example of LangSmith; LangChain's own form of messages."""
    return _put_and_got(as_dict(structured(row.get("inputs"))), as_dict(structured(row.get("outputs"))), row.get("model"))


def _put_and_got(inputs: Mapping[str, Any], outputs: Mapping[str, Any], model: Any = None) -> Row | None:
    """What a traced call was put and what it returned."""
    if not inputs or not outputs:
        return None
    asked = plain_messages(inputs.get("messages"))
    request = {**inputs, "messages": asked} if asked else inputs
    if generations := outputs.get("generations"):
        first = generations[0] if isinstance(generations, list) else None
        one = as_dict(first[0] if isinstance(first, list) and first else first)
        said = plain_messages([one.get("message")]) or [{"role": "assistant", "content": one.get("text")}]
        recorded = as_dict(as_dict(as_dict(one.get("message")).get("kwargs")).get("response_metadata"))
        facts = {**recorded, **as_dict(outputs.get("llm_output")), **as_dict(one.get("generation_info"))}
        facts["model"] = facts.get("model_name")
        return {"request": request, "response": _reply(said, {**facts, "usage": facts.get("token_usage")})}
    if said := plain_messages(outputs.get("messages", outputs.get("output"))):
        return {"request": request, "response": _reply(said[-1:], outputs)}
    if outputs.keys() & {"choices", "candidates", "content", "stop_reason"} or outputs.get("object") == "response":
        return {"request": request, "response": outputs}
    answers = [value for value in outputs.values() if isinstance(value, str)]
    asked_texts = [inputs[key] for key in QUESTIONS if isinstance(inputs.get(key), str)] or [
        value for value in inputs.values() if isinstance(value, str)
    ]
    if len(answers) != 1 or (not asked and len(asked_texts) != 1):
        return None
    return {"prompt": asked or asked_texts[0], "completion": answers[0], "model": model}


def _span(row: Row) -> Row | None:
    """A span of OpenTelemetry, nested or as a flat table: OpenInference's, the GenAI conventions', OpenLLMetry's names."""
    facts = _attributes(row)
    model = next((facts[key] for key in SPAN_MODELS if isinstance(facts.get(key), str)), None)
    for asked, answered in (
        ("llm.input_messages", "llm.output_messages"),
        ("gen_ai.input.messages", "gen_ai.output.messages"),
        ("gen_ai.prompt", "gen_ai.completion"),
    ):
        prompt, answers = _span_messages(facts, asked), _span_messages(facts, answered)
        if prompt and answers:
            usage = {
                "input_tokens": facts.get("llm.token_count.prompt", facts.get("gen_ai.usage.input_tokens")),
                "output_tokens": facts.get("llm.token_count.completion", facts.get("gen_ai.usage.output_tokens")),
            }
            reason = as_dict(answers[-1]).get("finish_reason") or facts.get("gen_ai.response.finish_reasons")
            reason = reason[0] if isinstance(reason, list) and reason else reason
            return {
                "messages": prompt,
                "response": _reply(answers[-1:], {"model": model, "usage": usage, "finish_reason": reason}),
            }
    for asked, answered in (WHOLE[:2], WHOLE[2:]):
        if facts.get(asked) and facts.get(answered):
            return _called(facts[asked], facts[answered], model)
    return None


SPAN_MODELS = ("llm.model_name", "gen_ai.response.model", "gen_ai.request.model", "mlflow.llm.model")


def _called(put: Any, got: Any, model: Any) -> Row | None:
    """What a span's function was called with and returned, each an object or a text."""
    if is_conversation(plain_messages(put)):
        put = {"messages": plain_messages(put)}
    if isinstance(got, list) and got and is_assistant(got[-1]):
        got = got[-1]
    if is_assistant(got):
        got = _reply([got], got)
    if isinstance(put, Mapping) and isinstance(got, Mapping):
        return _put_and_got(put, got, model) or {"request": put, "response": got, "model": model}
    if isinstance(put, Mapping):
        put = put.get("messages") or next((put[key] for key in QUESTIONS if put.get(key)), None)
    return {"prompt": put, "completion": got, "model": model} if put else None


def _attributes(row: Mapping[str, Any]) -> Row:
    """A span's attributes by their full names, whether they are nested, an object of their own, or columns of a table."""
    found: Row = {}
    held = structured(row.get("attributes"))
    if isinstance(held, list):  # OTLP: {"key": ..., "value": {"stringValue": ...}}
        held = {str(one["key"]): _otlp_value(one.get("value")) for one in held if isinstance(one, Mapping) and "key" in one}
    if isinstance(held, Mapping):
        for key, value in held.items():
            found |= _flat(str(key), value)
    for key, value in row.items():
        if isinstance(key, str) and (name := key.removeprefix("attributes.")).startswith(SPANS):
            found |= _flat(name, value)
    return found


def _otlp_value(value: Any) -> Any:
    """A value as OpenTelemetry's JSON has it, under the name of its kind."""
    kind, held = next(iter(value.items()), ("", None)) if isinstance(value, Mapping) else ("", value)
    if isinstance(held, Mapping):
        return [_otlp_value(one) for one in _listed(held, "values")]
    return int(held) if kind.lower().startswith("int") and isinstance(held, str) and held.isdecimal() else held


def _flat(name: str, value: Any) -> Row:
    if isinstance(value, Mapping) and name not in WHOLE:
        return {key: inner for part, one in value.items() for key, inner in _flat(f"{name}.{part}", one).items()}
    if name.startswith("mlflow."):
        value = unquoted(value)
    return {name: structured(value)} if value is not None else {}


def unquoted(value: Any) -> Any:
    """The text within a text that is JSON, quotes and all: some exports write every field so. Any other value as it is."""
    if not isinstance(value, str) or value[:1] != '"' or value[-1:] != '"':
        return value
    try:
        held = from_json(value)
    except ValueError:
        return value
    return held if isinstance(held, str) else value


def _langfuse(row: Row) -> Row | None:
    """A row of Langfuse's tables, whose input and output are JSON also where they are a text."""
    if not row.get("traceId", row.get("trace_id")) or not {"input", "output"} <= row.keys():
        return None
    plain = {key: unquoted(row[key]) for key in ("input", "output")}
    return {**row, **plain} if any(plain[key] is not row[key] for key in plain) else None


def _span_messages(facts: Mapping[str, Any], name: str) -> list[Any]:
    """The messages under a name: a list, or one attribute for each field of each message."""
    held = facts.get(name)
    if isinstance(held, list):
        named = [
            {key.removeprefix("message."): value for key, value in one.items()} for one in held if isinstance(one, Mapping)
        ]
        return [as_dict(one.get("message")) or one for one in named]
    messages: dict[int, Row] = {}
    for key, value in facts.items():
        if match := re.fullmatch(rf"{re.escape(name)}\.(\d{{1,4}})\.(?:message\.)?(\w+)", key):
            messages.setdefault(int(match[1]), {})[match[2]] = value
    return [message for _, message in sorted(messages.items()) if message.get("role")]


def _braintrust(row: Row) -> Row | None:
    answers, facts = row.get("output"), as_dict(row.get("metadata"))
    if not isinstance(answers, list) or not answers or not all("message" in as_dict(one) for one in answers):
        if "span_id" not in row or "usage" in row or answers in (None, "", [], {}):
            return None
        return {**row, "id": None, "usage": as_dict(row.get("metrics")), "reference": _reference(row)}
    response = {"choices": answers, "model": facts.get("model"), "usage": row.get("metrics")}
    return {
        "request": {"messages": row.get("input"), "model": facts.get("model")},
        "response": response,
        "reference": _reference(row),
    }


def _bedrock_log(row: Row) -> Row | None:
    asked, answered = as_dict(row.get("input")), as_dict(row.get("output"))
    if "inputBodyJson" not in asked or "outputBodyJson" not in answered:
        return None
    usage = {"input_tokens": asked.get("inputTokenCount"), "output_tokens": answered.get("outputTokenCount")}
    return {
        "request": asked["inputBodyJson"],
        "response": answered["outputBodyJson"],
        "model": row.get("modelId"),
        "usage": usage,
    }


def _evaluation(row: Row) -> Row | None:
    """A sample of an inspect log, or of lm-eval's."""
    output = as_dict(row.get("output"))
    if "target" in row and isinstance(output.get("choices"), list):
        messages = row.get("messages")
        asked = row.get("input")
        if isinstance(messages, list) and is_conversation(messages) and is_assistant(messages[-1]):
            asked = messages[:-1]
        choices = [{**as_dict(one), "finish_reason": as_dict(one).get("stop_reason")} for one in output["choices"]]
        return {"request": {"messages": asked} if isinstance(asked, list) else {"prompt": asked}} | {
            "response": {**output, "choices": choices},
            "reference": _reference(row),
        }
    if "resps" in row and "arguments" in row:
        arguments, responses = row["arguments"], row["resps"]
        first = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else arguments
        first = first[0] if isinstance(first, list) and first else first
        asked = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) and first else first
        while isinstance(responses, list) and len(responses) == 1:
            responses = responses[0]
        if isinstance(asked, str) and isinstance(responses, str):
            return {"prompt": asked, "completion": responses, "reference": _reference(row)}
    return None


def _annotated(row: Row) -> Row | None:
    """What a person wrote in Label Studio; a question of Argilla with its responses."""
    data, annotations = as_dict(row.get("data")), row.get("annotations")
    if data and isinstance(annotations, list):
        asked = next((data[key] for key in (*QUESTIONS, "messages") if data.get(key)), None)
        for annotation in annotations:
            results = [] if as_dict(annotation).get("was_cancelled") else as_dict(annotation).get("result")
            for one in results if isinstance(results, list) else []:
                written = as_dict(as_dict(one).get("value")).get("text")
                text = "\n".join(map(str, written)) if isinstance(written, list) else written
                if as_dict(one).get("type") == "textarea" and text:
                    return {"prompt": asked, "completion": text}
        return None
    for key in ("response", "completion", "answer"):
        given = row.get(key)
        if isinstance(given, list) and given and all({"value", "status"} <= as_dict(one).keys() for one in given):
            submitted = [one["value"] for one in given if one["status"] == "submitted"]
            return {**row, key: submitted[0] if submitted else None}
    return None


def _wrapped(row: Row) -> Row | None:
    """A row that a tool wraps in an object of its own; the key of a Gemini batch, where it is among the metadata."""
    if row.keys() & {"request", "response"} and isinstance(name := as_dict(row.get("metadata")).get("key"), (str, int)):
        return {**row, "key": name}
    if row.keys() & (INSIDE | {"annotations", "custom_id"}):
        return None
    inner = next((inner for key in WRAPPERS if (inner := as_dict(structured(row.get(key)))).keys() & INSIDE), None)
    return {key: structured(value) for key, value in inner.items()} if inner else None


def _reply(answers: Any, facts: Mapping[str, Any]) -> Row | None:
    """A chat-completions reply of one message."""
    if not isinstance(answers, list) or not answers:
        return None
    choice = {"message": answers[-1], "finish_reason": facts.get("finish_reason")}
    return {"model": facts.get("model"), "choices": [choice], "usage": facts.get("usage") or {}}


def _reference(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in REFERENCES if isinstance(row.get(key), (str, int, float)) and row[key] != ""), None)


EXPORTS: tuple[Callable[[Row], Row | None], ...] = (
    _openai_eval,
    _langfuse,
    _langsmith,
    _span,
    _braintrust,
    _bedrock_log,
    _evaluation,
    _annotated,
    *CHATS,
    *DATA_SETS,
    _wrapped,
)
