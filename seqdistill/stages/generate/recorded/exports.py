"""Exports of other tools, rewritten as rows that `rows` reads: a request and its response, or messages; model, reference.

Knows OpenAI's evals, LangSmith and LangChain, OpenTelemetry (OpenInference, GenAI, OpenLLMetry), Braintrust, Bedrock's
invocation log, inspect, lm-eval, Label Studio, Argilla, chat exports and data sets of marked turns. Does not read replies.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict
from seqdistill.tasks.messages import is_assistant, is_conversation, marked_turns, plain_messages, structured

Row = dict[str, Any]

WRAPPERS = ("properties", "chat", "data")  # hold the row itself
INSIDE = {"messages", "requestBody", "request", "input", "history"}
REFERENCES = ("reference", "ground_truth", "expected", "expected_output", "target", "ideal", "label", "correct_answer")
QUESTIONS = ("prompt", "question", "query", "instruction", "text", "input", "inputs")
SPANS = ("llm.", "gen_ai.", "openinference.", "input.", "output.", "traceloop.")
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
    kind = _attributes(row).get("openinference.span.kind", _attributes(row).get("traceloop.span.kind"))
    return (kind is not None and kind != "LLM") or (row.get("label") is False and {"prompt", "completion"} <= row.keys())


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


def _langsmith(row: Row) -> Row | None:
    """A run or an example of LangSmith; LangChain's own form of messages."""
    inputs, outputs = as_dict(structured(row.get("inputs"))), as_dict(structured(row.get("outputs")))
    if not inputs or not outputs:
        return None
    asked = plain_messages(inputs.get("messages"))
    request = {**inputs, "messages": asked} if asked else inputs
    if generations := outputs.get("generations"):
        first = generations[0] if isinstance(generations, list) else None
        one = as_dict(first[0] if isinstance(first, list) and first else first)
        said = plain_messages([one.get("message")]) or [{"role": "assistant", "content": one.get("text")}]
        facts = as_dict(outputs.get("llm_output"))
        facts = {**facts, **as_dict(one.get("generation_info")), "model": facts.get("model_name")}
        return {"request": request, "response": _reply(said, {**facts, "usage": facts.get("token_usage")})}
    if said := plain_messages(outputs.get("messages", outputs.get("output"))):
        return {"request": request, "response": _reply(said[-1:], outputs)}
    if outputs.keys() & {"choices", "candidates", "content", "stop_reason"}:
        return {"request": request, "response": outputs}
    answers = [value for value in outputs.values() if isinstance(value, str)]
    asked_texts = [inputs[key] for key in QUESTIONS if isinstance(inputs.get(key), str)] or [
        value for value in inputs.values() if isinstance(value, str)
    ]
    if len(answers) != 1 or (not asked and len(asked_texts) != 1):
        return None
    return {"prompt": asked or asked_texts[0], "completion": answers[0], "model": row.get("model")}


def _span(row: Row) -> Row | None:
    """A span of OpenTelemetry, nested or as a flat table: OpenInference's, the GenAI conventions', OpenLLMetry's names."""
    facts = _attributes(row)
    for asked, answered in (
        ("llm.input_messages", "llm.output_messages"),
        ("gen_ai.input.messages", "gen_ai.output.messages"),
        ("gen_ai.prompt", "gen_ai.completion"),
    ):
        prompt, answers = _span_messages(facts, asked), _span_messages(facts, answered)
        if prompt and answers:
            model = next(
                (facts[key] for key in ("llm.model_name", "gen_ai.response.model", "gen_ai.request.model") if key in facts),
                None,
            )
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
    return None


def _attributes(row: Mapping[str, Any]) -> Row:
    """A span's attributes by their full names, whether they are nested, an object of their own, or columns of a table."""
    found: Row = {}
    held = structured(row.get("attributes"))
    if isinstance(held, Mapping):
        for key, value in held.items():
            found |= _flat(str(key), value)
    for key, value in row.items():
        if isinstance(key, str) and (name := key.removeprefix("attributes.")).startswith(SPANS):
            found |= _flat(name, value)
    return found


def _flat(name: str, value: Any) -> Row:
    if isinstance(value, Mapping):
        return {key: inner for part, one in value.items() for key, inner in _flat(f"{name}.{part}", one).items()}
    return {name: structured(value)} if value is not None else {}


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
        return None
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


def _chat_export(row: Row) -> Row | None:
    """A conversation as ChatGPT exports it: a tree, of which the branch last seen counts."""
    nodes, name = row.get("mapping"), row.get("current_node")
    if not isinstance(nodes, Mapping) or not name:
        return None
    messages: list[Row] = []
    model = None
    while (node := as_dict(nodes.get(str(name)))) and len(messages) <= len(nodes):
        message = as_dict(node.get("message"))
        parts = as_dict(message.get("content")).get("parts")
        text = "".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else ""
        role = as_dict(message.get("author")).get("role")
        if text.strip() and role in ("user", "assistant", "system"):
            messages.append({"role": role, "content": text})
            model = model or as_dict(message.get("metadata")).get("model_slug")
        name = node.get("parent")
    return {"messages": messages[::-1], "model": model}


def _turns(row: Row) -> Row | None:
    """Turns of a data set as one text, or as pairs of input and output; several answers to one prompt."""
    for key in ("text", "chosen", "chat", "conversation", "conversations", "messages"):
        value = row.get(key)
        if isinstance(value, str) and (key != "messages") and (messages := marked_turns(value)):
            beside = {name: one for name, one in row.items() if name not in (key, "rejected")}
            if isinstance(system := beside.get("system"), str):
                beside["system"] = system.removeprefix("SYSTEM:").strip()
            return {**beside, "messages": messages}
        if isinstance(value, list) and (messages := plain_messages(value)) and messages != value:
            return {**row, key: messages}
    answers = row.get("generations", row.get("responses"))
    asked = next((row[key] for key in ("prompt", *QUESTIONS) if isinstance(row.get(key), str) and row[key]), None)
    if (
        "messages" not in row
        and asked
        and isinstance(answers, list)
        and answers
        and all(isinstance(one, str) for one in answers)
    ):
        reasons = row.get("finish_reasons")
        reasons = reasons if isinstance(reasons, list) and len(reasons) == len(answers) else [None] * len(answers)
        choices = [{"message": {"content": one}, "finish_reason": reason} for one, reason in zip(answers, reasons, strict=True)]
        return {**row, "request": {"prompt": asked, "system": row.get("system_prompt")}, "response": {"choices": choices}}
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
    _langsmith,
    _span,
    _braintrust,
    _bedrock_log,
    _evaluation,
    _annotated,
    _chat_export,
    _turns,
    _wrapped,
)
