"""Spans of traces, as observability tools and OpenTelemetry export them, rewritten as rows that `rows` reads.

Knows MLflow, OpenInference, the GenAI conventions, OpenLLMetry, Logfire, Vercel's AI SDK, LangSmith and LangChain, Langfuse and
LangWatch. Does not read replies.
"""

import re
from collections.abc import Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.records import from_json
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.tasks.messages import continued, has_turns, is_assistant, is_conversation, plain_messages, structured

SPANS = ("llm.", "gen_ai.", "openinference.", "input.", "output.", "traceloop.", "mlflow.", "ai.")
SPAN_KINDS = ("openinference.span.kind", "traceloop.span.kind", "mlflow.spanType")
OF_MODELS = ("LLM", "CHAT_MODEL")
BESIDE_KINDS = (  # what no model answered, and what holds the calls of models: these are spans of their own
    *("AGENT", "CHAIN", "EMBEDDING", "EVALUATOR", "GUARDRAIL", "RERANKER", "RETRIEVAL", "RETRIEVER", "TASK", "TOOL"),
    "WORKFLOW",
)
BESIDE_OPERATIONS = ("create_agent", "embeddings", "execute_tool", "invoke_agent", "invoke_workflow", "retrieval")
SPAN_MODELS = (
    "llm.model_name",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "mlflow.llm.model",
    "ai.response.model",
    "ai.model.id",
)
CALLED = (  # attributes that hold what a call was put and what it returned, as objects
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("request_data", "response_data"),  # Logfire's
    ("ai.prompt.messages", "ai.response.text"),  # of Vercel's AI SDK
    ("input.value", "output.value"),
)
WHOLE = frozenset(name for pair in CALLED for name in pair)
QUESTIONS = ("prompt", "question", "query", "instruction", "text", "input", "inputs")


def spans_within(row: Row) -> list[Row] | None:
    """The spans of a trace as MLflow or an OpenTelemetry collector writes it: the models', or else the first alone."""
    spans = as_dict(structured(row.get("data"))).get("spans", structured(row.get("spans")))
    if isinstance(groups := row.get("resourceSpans", row.get("resource_spans")), list):
        scopes = [scope for group in groups for scope in _listed(as_dict(group), "scopeSpans", "scope_spans")]
        spans = [span for scope in scopes for span in _listed(as_dict(scope), "spans")]
    if not isinstance(spans, list) or not spans or not all(isinstance(one, dict) and "attributes" in one for one in spans):
        return None
    if any(span_kind(span) in OF_MODELS or span_kind(span) is None for span in spans):
        return spans
    facts = attributes_of(spans[0])
    return [{**spans[0], "attributes": {**facts, "mlflow.spanType": "LLM"}}] if "mlflow.spanType" in facts else spans


def _listed(holder: Mapping[str, Any], *keys: str) -> list[Any]:
    return next((held for key in keys if isinstance(held := holder.get(key), list)), [])


def span_kind(row: Mapping[str, Any]) -> Any:
    """What kind of call a span is of, in the words of its tool; None for a row that is no span or does not say."""
    facts = attributes_of(row)
    return next((facts[key] for key in SPAN_KINDS if facts.get(key)), None)


def is_beside_models(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span of something else than one call of a model."""
    facts = attributes_of(row)
    kinds = (row.get("span_kind"), facts.get("span_kind"), as_dict(row.get("meta")).get("kind"))  # Phoenix; Datadog
    if any(str(kind).upper() in BESIDE_KINDS for kind in kinds) or span_kind(row) not in (None, *OF_MODELS):
        return True
    return facts.get("gen_ai.operation.name") in BESIDE_OPERATIONS


def is_span(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span of OpenTelemetry, whatever wrote it."""
    return bool(attributes_of(row))


def called(row: Row) -> Row | None:
    """A run or an example of LangSmith; LangChain's own form of messages."""
    known = as_dict(structured(row.get("extra")))
    model = row.get("model") or as_dict(known.get("metadata")).get("ls_model_name")
    return _put_and_got(as_dict(structured(row.get("inputs"))), as_dict(structured(row.get("outputs"))), model)


def _put_and_got(inputs: Mapping[str, Any], outputs: Mapping[str, Any], model: Any) -> Row | None:
    """What a traced call was put and what it returned."""
    if not inputs or not outputs:
        return None
    prompt = plain_messages(inputs.get("messages"))
    request = {**inputs, "messages": prompt} if prompt else inputs
    if generations := outputs.get("generations"):
        first = generations[0] if isinstance(generations, list) else None
        one = as_dict(first[0] if isinstance(first, list) and first else first)
        said = plain_messages([one.get("message")]) or [{"role": "assistant", "content": one.get("text")}]
        recorded = as_dict(as_dict(as_dict(one.get("message")).get("kwargs")).get("response_metadata"))
        facts = {**recorded, **as_dict(outputs.get("llm_output")), **as_dict(one.get("generation_info"))}
        facts["model"] = facts.get("model_name") or model
        return {"request": request, "response": reply_of_messages(said, {**facts, "usage": facts.get("token_usage")})}
    if said := plain_messages(outputs.get("messages", outputs.get("output"))):
        if has_turns(said) and is_assistant(said[-1]):  # a graph's: calls of tools and their results before the answer
            request = {**request, "messages": continued(_prompt_turns(prompt, inputs), said[:-1])}
        return {"request": request, "response": reply_of_messages(said[-1:], outputs)}
    if outputs.keys() & {"choices", "candidates", "content", "stop_reason"} or outputs.get("object") == "response":
        return {"request": request, "response": outputs}
    answers = [value for value in outputs.values() if isinstance(value, str)]
    texts = [inputs[key] for key in QUESTIONS if isinstance(inputs.get(key), str)] or [
        value for value in inputs.values() if isinstance(value, str)
    ]
    if len(answers) != 1 or (not prompt and len(texts) != 1):
        return None
    return {"prompt": prompt or texts[0], "completion": answers[0], "model": model}


def _prompt_turns(prompt: list[Any], inputs: Mapping[str, Any]) -> list[Any]:
    """What a traced call was put, as messages."""
    text = next((inputs[key] for key in QUESTIONS if isinstance(inputs.get(key), str)), None)
    return prompt or ([{"role": "user", "content": text}] if text else [])


def span(row: Row) -> Row | None:
    """A span of OpenTelemetry, nested or as a flat table: OpenInference's, the GenAI conventions', OpenLLMetry's names."""
    facts = attributes_of(row)
    model = next((facts[key] for key in SPAN_MODELS if isinstance(facts.get(key), str)), None)
    for put, got in (
        ("llm.input_messages", "llm.output_messages"),
        ("gen_ai.input.messages", "gen_ai.output.messages"),
        ("gen_ai.prompt", "gen_ai.completion"),
        ("events", "events"),
    ):
        prompt, answers = _span_messages(facts, put), _span_messages(facts, got)
        if put == got:
            prompt, answers = _span_events(facts)
        if prompt and answers:
            usage = {
                "input_tokens": facts.get("llm.token_count.prompt", facts.get("gen_ai.usage.input_tokens")),
                "output_tokens": facts.get("llm.token_count.completion", facts.get("gen_ai.usage.output_tokens")),
            }
            several = len(answers) > 1 and got == "gen_ai.output.messages" and all(map(is_assistant, answers))
            reasons = facts.get("gen_ai.response.finish_reasons")
            reasons = reasons if isinstance(reasons, list) and len(reasons) == len(answers) else [reasons] * len(answers)
            choices = [
                {
                    "message": one,
                    "finish_reason": as_dict(one).get("finish_reason")
                    or (reason[0] if isinstance(reason, list) and reason else reason),
                }
                for one, reason in zip(answers, reasons, strict=True)
            ]
            return {
                "system": facts.get("gen_ai.system_instructions"),
                "messages": prompt,
                "response": {"model": model, "choices": choices if several else choices[-1:], "usage": usage},
            }
    calls = structured(facts.get("ai.response.toolCalls"))  # of Vercel's AI SDK, beside a text or without one
    if isinstance(calls, list) and calls:
        said = {"role": "assistant", "content": facts.get("ai.response.text") or "", "tool_calls": calls}
        said |= {"finish_reason": facts.get("ai.response.finishReason"), "model": model}
        facts = {**facts, "ai.response.text": said}
    for put, got in CALLED:
        if facts.get(put) and facts.get(got) and (found := _called(facts[put], facts[got], model)):
            counts = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
            usage = {"input_tokens": facts.get(counts[0]), "output_tokens": facts.get(counts[1])}
            return {"finish_reason": facts.get("ai.response.finishReason"), "usage": usage, **found}
    return None


def _called(put: Any, got: Any, model: Any) -> Row | None:
    """What a span's function was called with and returned, each an object or a text."""
    if is_conversation(plain_messages(put)):
        put = {"messages": plain_messages(put)}
    if isinstance(got, list) and got and is_assistant(got[-1]):
        got = got[-1]
    if is_assistant(got):
        got = reply_of_messages([got], got)
    if isinstance(put, Mapping) and isinstance(got, Mapping):
        return _put_and_got(put, got, model) or {"request": put, "response": got, "model": model}
    if isinstance(put, Mapping):
        put = put.get("messages") or next((put[key] for key in QUESTIONS if put.get(key)), None)
    return {"prompt": put, "completion": got, "model": model} if put else None


def datadog(row: Row) -> Row | None:
    """A call of a model as Datadog's export API lists it."""
    facts = as_dict(row.get("attributes"))
    put, got = as_dict(facts.get("input")).get("messages"), as_dict(facts.get("output")).get("messages")
    if "span_kind" not in facts or not is_conversation(put) or not is_conversation(got):
        return None
    known = {"model": facts.get("model_name"), "usage": facts.get("metrics")}
    return {"request": {"messages": put}, "response": reply_of_messages(got, known)}


def attributes_of(row: Mapping[str, Any]) -> Row:
    """A span's attributes by their full names, whether they are nested, an object of their own, or columns of a table."""
    found: Row = {}
    held = structured(row.get("attributes"))
    if isinstance(held, list):  # OTLP: {"key": ..., "value": {"stringValue": ...}}
        held = {str(one["key"]): _otlp_value(one.get("value")) for one in held if isinstance(one, Mapping) and "key" in one}
    if isinstance(held, Mapping):
        for key, value in held.items():
            found |= _flat(str(key), value)
    for key, value in row.items():
        name = str(key).removeprefix("attributes.")
        if name.startswith(SPANS) or (name in WHOLE and name != key):
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


def _plain_value(value: Any) -> Any:
    """A text without the quotes of JSON, or what LangWatch names the type of."""
    typed = value if isinstance(value, Mapping) and value.keys() == {"type", "value"} else None
    return unquoted(value) if typed is None else typed["value"]


def with_plain_values(row: Row) -> Row | None:
    """A row of a trace whose input and output are JSON also where they are a text (Langfuse), or have a type (LangWatch)."""
    if not row.get("traceId", row.get("trace_id")) or not {"input", "output"} <= row.keys():
        return None
    plain = {key: _plain_value(row[key]) for key in ("input", "output")}
    return {**row, **plain} if any(plain[key] is not row[key] for key in plain) else None


def _span_events(facts: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The messages before the choice, and the choice's, where a span keeps them as events (Logfire)."""
    events = objects(facts.get("events"))
    chosen = [one for one in events if one.get("event.name") == "gen_ai.choice"]
    before = [one for one in events if one.get("role") and one not in chosen]
    return before, [{**as_dict(one.get("message")), "finish_reason": one.get("finish_reason")} for one in chosen]


def _span_messages(facts: Mapping[str, Any], name: str) -> list[Any]:
    """The messages under a name: a list, or attributes for the fields of each message, whose names are paths."""
    held = facts.get(name)
    if isinstance(held, list):
        named = [_nested(one) for one in held if isinstance(one, Mapping)]
        return [_with_contents(as_dict(one.get("message")) or one) for one in named]
    messages: dict[int, Row] = {}
    for key, value in facts.items():
        if match := re.fullmatch(rf"{re.escape(name)}\.(\d{{1,4}})\.(?:message\.)?([\w.]+)", key):
            messages.setdefault(int(match[1]), {})[match[2]] = value
    found = [_with_contents(_nested(message)) for _, message in sorted(messages.items())]
    return [message for message in found if message.get("role")]


def _nested(fields: Mapping[str, Any]) -> Row:
    """Fields whose names may be paths, such as `tool_calls.0.function.name`, as objects and lists."""
    found: Row = {}
    for name, value in fields.items():
        at = found
        *above, last = str(name).split(".")
        for part in above:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        if isinstance(value, list):
            value = [_nested(one) if isinstance(one, Mapping) else one for one in value]
        at[last] = _nested(value) if isinstance(value, Mapping) else value
    return {key: _listed_by_number(value) for key, value in found.items()}


def _listed_by_number(value: Any) -> Any:
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value


def _with_contents(message: Row) -> Row:
    """A message of OpenInference whose content is in parts."""
    parts = [as_dict(one.get("message_content")) or one for one in objects(message.get("contents"))]
    return {**message, "content": parts} if parts and not message.get("content") else message


def reply_of_messages(answers: Any, facts: Mapping[str, Any]) -> Row | None:
    """A chat-completions reply of the last message."""
    if not isinstance(answers, list) or not answers:
        return None
    choice = {"message": answers[-1], "finish_reason": facts.get("finish_reason")}
    return {"model": facts.get("model"), "choices": [choice], "usage": facts.get("usage") or {}}
