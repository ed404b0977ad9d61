"""Recorded answers in the shapes in which people hold them: one entry a shape. Fields as the tools and APIs document them."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe
from seqdistill.records import Sample, read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import ImportResult, import_recorded

ASKED = {"role": "user", "content": "2 + 3?"}
ANSWER = {"role": "assistant", "content": "5"}
CHAT = {"model": "m", "messages": [ASKED]}
CHOICE = {"index": 0, "message": ANSWER, "finish_reason": "stop"}
REPLY = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [CHOICE]}
REPLY["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}

RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "5", "annotations": []}]},
    ],
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "5"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
OLLAMA = {"model": "m", "created_at": "t", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "5"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3},
    "modelVersion": "m",
}
CONVERSE = {"output": {"message": {"role": "assistant", "content": [{"text": "5"}]}}, "stopReason": "end_turn"}
CONVERSE["usage"] = {"inputTokens": 7, "outputTokens": 3}


def chunk(delta: dict[str, Any], reason: str | None = None, name: str = "chatcmpl-1") -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": name, "object": "chat.completion.chunk", "model": "m", "choices": choices}


def with_usage(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "choices": [{**one["choices"][0], "usage": REPLY["usage"]}]}


USAGE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": REPLY["usage"]}
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "h"}),
    chunk({"reasoning_content": "m"}),
    chunk({"content": "5"}),
    chunk({}, "stop"),
    USAGE,
]
SSE = "".join(f"data: {json.dumps(one)}\n\n" for one in CHUNKS) + "data: [DONE]\n\n"
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None, "usage": {"input_tokens": 7}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "5"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
LANGFUSE = {"id": "o1", "traceId": "t1", "type": "GENERATION", "name": "add", "level": "DEFAULT", "model": "m"}
PROMPTFOO = {
    "provider": {"id": "m", "label": ""},
    "prompt": {"raw": "2 + 3?", "label": "{{q}}"},
    "vars": {"q": "2 + 3?"},
    "response": {"output": "5", "tokenUsage": {"total": 10, "prompt": 7, "completion": 3}, "finishReason": "stop"},
    "testCase": {"vars": {"q": "2 + 3?"}, "assert": [{"type": "equals", "value": "5"}]},
    "success": True,
}
OPEN_AI_EVENTS = [{"type": "response.created", "response": {"status": "in_progress"}}, {"type": "response.output_text.delta"}]
OPEN_AI_EVENTS.append({"type": "response.completed", "response": RESPONSE})

Rows = dict[str, Sequence[Any]]

FULL: Rows = {  # model, tokens, finish reason and everything else: "m", 7 + 3, stop
    "a request and its response": [{"request": CHAT, "response": REPLY}],
    "with the body and status of HTTP": [{"request": {"body": CHAT}, "response": {"status_code": 200, "body": REPLY}}],
    "flat": [{**CHAT, "response": REPLY}],
    "a stored completion with its messages": [{**REPLY, "messages": [ASKED]}],
    "a stored completion and its list of messages": [REPLY, {**ASKED, "id": "chatcmpl-1-0", "name": None}],
    "pages of stored completions, one a line": [
        {"object": "list", "data": [REPLY], "first_id": "chatcmpl-1", "has_more": False},
        {"object": "list", "data": [{**ASKED, "id": "chatcmpl-1-0", "name": None}], "has_more": False},
    ],
    "the older text completions": [
        {"request": {"prompt": "2 + 3?"}, "response": {**REPLY, "choices": [{"text": "5", "finish_reason": "stop"}]}}
    ],
    "a request before its reply": [{"id": "a", **CHAT}, REPLY],
    "LiteLLM": [
        {"id": "x", "call_type": "acompletion", "status": "success", "model": "m", "messages": [ASKED], "response": REPLY}
    ],
    "Helicone": [
        {"request_id": "x", "request_body": CHAT, "response_body": REPLY, "response_status": 200, "request_model": "m"}
    ],
    "Helicone's CSV": [{"request_id": "x", "request_body": json.dumps(CHAT), "response_body": json.dumps(REPLY)}],
    "Responses": [{"request": {"model": "m", "input": "2 + 3?"}, "response": RESPONSE}],
    "Responses with items and instructions": [
        {"request": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "2 + 3?"}]}]}, "response": RESPONSE}
    ],
    "Responses with their input": [{**RESPONSE, "input": [{"type": "message", **ASKED}]}],
    "a Responses batch": [
        {"custom_id": 7, "method": "POST", "url": "/v1/responses", "body": {"model": "m", "input": "2 + 3?"}},
        {"id": "b", "custom_id": "7", "response": {"status_code": 200, "body": RESPONSE}, "error": None},
    ],
    "a chat batch": [
        {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
        {"id": "b", "custom_id": "r", "response": {"status_code": 200, "request_id": "q", "body": REPLY}, "error": None},
    ],
    "Anthropic": [{"request": {**CHAT, "max_tokens": 9}, "response": CLAUDE}],
    "Anthropic, flat": [{**CLAUDE, "messages": [ASKED]}],
    "an Anthropic batch": [
        {"custom_id": "r", "params": {**CHAT, "max_tokens": 9}},
        {"custom_id": "r", "result": {"type": "succeeded", "message": CLAUDE}},
    ],
    "Ollama chat": [{"request": {**CHAT, "stream": False}, "response": {**OLLAMA, "message": ANSWER}}],
    "Ollama chat, flat": [{**CHAT, **OLLAMA, "message": {**ANSWER, "thinking": "hm"}}],
    "Ollama generate": [{"request": {"model": "m", "prompt": "2 + 3?"}, "response": {**OLLAMA, "response": "5"}}],
    "Ollama generate, flat": [{**OLLAMA, "prompt": "2 + 3?", "response": "5", "context": [1, 2]}],
    "Ollama's chunks": [
        {
            "request": CHAT,
            "response": [
                {"model": "m", "message": {"role": "assistant", "content": "5"}, "done": False},
                {**OLLAMA, "message": {"role": "assistant", "content": ""}},
            ],
        }
    ],
    "Gemini": [{"request": {"contents": [{"parts": [{"text": "2 + 3?"}]}]}, "response": GEMINI}],
    "a Gemini batch": [
        {"key": "r", "request": {"contents": [{"role": "user", "parts": [{"text": "2 + 3?"}]}]}},
        {"key": "r", "response": GEMINI},
    ],
    "Bedrock Converse": [
        {"model": "m", "request": {"messages": [{"role": "user", "content": [{"text": "2 + 3?"}]}]}, "response": CONVERSE}
    ],
    "a Bedrock batch": [{"recordId": "r", "modelInput": {**CHAT, "anthropic_version": "x"}, "modelOutput": CLAUDE}],
    "chunks in a response": [{"request": {**CHAT, "stream": True}, "response": CHUNKS}],
    "an event stream in a response": [{"request": {**CHAT, "stream": True}, "response": SSE}],
    "chunks with the usage in a choice": [
        {"request": CHAT, "response": [*CHUNKS[:-2], with_usage(chunk({}, "stop"))]},
    ],
    "a message that is a text": [{"request": CHAT, "response": {**REPLY, "choices": [{**CHOICE, "message": "5"}]}}],
    "JSON that the server parsed": [
        {"request": CHAT, "response": {**REPLY, "choices": [{**CHOICE, "message": {"content": 5}}]}}
    ],
    "a prompt's tokens in a cache": [
        {
            "request": CHAT,
            "response": {**CLAUDE, "usage": {"input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 3}},
        }
    ],
    "chunks behind their request": [{**CHAT, "stream": True}, *CHUNKS],
    "an event stream behind its request": [json.dumps(CHAT), *SSE.splitlines()],
    "a chunk a line with its request": [{"request": CHAT, "response": one} for one in CHUNKS],
    "Anthropic's events": [{"request": CHAT, "response": CLAUDE_EVENTS}],
    "Anthropic's event stream": [
        json.dumps(CHAT),
        *(f"event: {one['type']}\ndata: {json.dumps(one)}\n" for one in CLAUDE_EVENTS),
    ],
    "events of Responses": [{"request": {"input": "2 + 3?"}, "response": OPEN_AI_EVENTS}],
    "Langfuse": [
        {**LANGFUSE, "input": [ASKED], "output": {**ANSWER, "finish_reason": "stop"}, "usage": {"input": 7, "output": 3}}
    ],
    "Langfuse with whole requests": [{**LANGFUSE, "input": CHAT, "output": REPLY}],
    "Langfuse's CSV": [{**LANGFUSE, "input": json.dumps(CHAT), "output": json.dumps(REPLY)}],
    "Promptfoo": [PROMPTFOO],
    "Promptfoo with messages": [{**PROMPTFOO, "prompt": {"raw": json.dumps([ASKED]), "label": "x"}}],
    "our own samples": [
        {
            "id": "x:m:0",
            "prompt_id": "x",
            "sample": 0,
            "teacher": "m",
            "prompt": [ASKED],
            "completion": [ANSWER],
            "reasoning": None,
        }
        | {
            "finish_reason": "stop",
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "reference": None,
            "slice": None,
            "tool_calls": None,
        }
    ],
}

PLAIN: Rows = {  # no more than prompt and answer
    "prompt and completion": [{"prompt": "2 + 3?", "completion": "5"}],
    "prompt and completion as messages": [{"prompt": [ASKED], "completion": [ANSWER]}],
    "prompt and response": [{"prompt": "2 + 3?", "response": "5"}],
    "instruction and response": [{"instruction": "2 + 3?", "response": "5"}],
    "question and answer": [{"question": "2 + 3?", "answer": "5"}],
    "input and output": [{"input": "2 + 3?", "output": "5"}],
    "messages": [{"messages": [ASKED, ANSWER]}],
    "messages as text": [{"messages": json.dumps([ASKED, ANSWER])}],
    "messages as Python prints them": [{"messages": str([ASKED, ANSWER])}],
    "messages that end with another question": [{"messages": [ASKED, ANSWER, ASKED]}],
    "a request and the text of its response": [{"request": CHAT, "response": "5"}],
    "messages and the text of their response": [{"messages": [ASKED], "response": "5"}],
    "ShareGPT": [{"id": "s1", "conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}],
    "ShareGPT with roles": [{"conversations": [ASKED, ANSWER]}],
    "Alpaca": [{"instruction": "2 + 3?", "input": "", "output": "5", "text": "Below is ..."}],
    "Dolly": [{"instruction": "2 + 3?", "context": "", "response": "5", "category": "open_qa"}],
    "a fine-tuning line": [{"messages": [ASKED, {**ANSWER, "weight": 1}], "tools": []}],
    "a fine-tuning line of Vertex": [
        {"contents": [{"role": "user", "parts": [{"text": "2 + 3?"}]}, {"role": "model", "parts": [{"text": "5"}]}]}
    ],
    "a fine-tuning line of Bedrock": [
        {"messages": [{"role": "user", "content": [{"text": "2 + 3?"}]}, {"role": "assistant", "content": [{"text": "5"}]}]}
    ],
    "a fine-tuning line of Cohere": [
        {"messages": [{"role": "User", "content": "2 + 3?"}, {"role": "Chatbot", "content": "5"}]},
    ],
    "a preference line": [
        {"input": {"messages": [ASKED]}, "preferred_output": [ANSWER], "non_preferred_output": [{**ANSWER, "content": "6"}]}
    ],
    "preference data": [{"prompt": "2 + 3?", "chosen": [ASKED, ANSWER], "rejected": [ASKED, {**ANSWER, "content": "6"}]}],
    "a Langfuse trace": [{"id": "t", "traceId": "t", "name": "add", "input": "2 + 3?", "output": "5"}],
    "a preference with its conversation": [{"chosen": [ASKED, ANSWER], "rejected": [ASKED, {**ANSWER, "content": "6"}]}],
    "LLaMA-Factory": [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "2 + 3?"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "5"}], "loss_weight": 1.0},
            ]
        }
    ],
    "TGI": [
        {"inputs": "2 + 3?", "generated_text": "5"},
    ],
    "upper case": [{"Prompt": "2 + 3?", " Completion": "5"}],
}


def imported(folder: Path, path: Path, recipe: Recipe | None = None) -> tuple[ImportResult, list[Sample]]:
    recipe = recipe or Recipe(generate=GenerateConfig(max_tokens=20))
    result = import_recorded(Run(folder / "run"), recipe, [path], Silent())
    return result, list(read_samples(result.path))


def lines(folder: Path, rows: Sequence[Any], name: str = "log.jsonl") -> Path:
    (folder / name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize("shape", FULL)
def test_a_log_is_read_with_model_tokens_reasoning_and_finish_reason(tmp_path: Path, shape: str) -> None:
    rows = FULL[shape]
    result, (sample,) = imported(tmp_path, lines(tmp_path, rows))
    assert (sample.prompt, sample.completion) == ([ASKED], [ANSWER])
    assert (sample.teacher, sample.finish_reason) == ("m", "stop")
    assert (sample.prompt_tokens, sample.completion_tokens) == (7, 3)
    assert sample.reasoning == ("hm" if any(mark in json.dumps(rows) for mark in ("hm", '"h"', '\\"h\\"')) else None)
    assert (result.read, result.unread, result.without_finish_reason) == (1, 0, 0)


@pytest.mark.parametrize("shape", PLAIN)
def test_a_data_set_is_read_and_what_has_no_finish_reason_is_counted(tmp_path: Path, shape: str) -> None:
    result, (sample,) = imported(tmp_path, lines(tmp_path, PLAIN[shape]))
    assert (sample.prompt, sample.completion, sample.finish_reason) == ([ASKED], [ANSWER], "stop")
    assert (result.read, result.unread, result.without_finish_reason) == (1, 0, 1)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows([{key: v if isinstance(v, str) else json.dumps(v) for key, v in row.items()} for row in rows])


@pytest.mark.parametrize("shape", ["a request and its response", "Helicone", "Langfuse", "Promptfoo", "Anthropic", "Gemini"])
@pytest.mark.parametrize("kind", ["json", "pretty.json", "jsonl.gz", "csv", "parquet", "page.json"])
def test_logs_are_read_from_every_kind_of_file(tmp_path: Path, shape: str, kind: str) -> None:
    path, rows = tmp_path / f"log.{kind}", FULL[shape]
    match kind:
        case "json":
            path.write_text(json.dumps(rows))
        case "pretty.json":
            path.write_text(json.dumps(rows, indent=2))
        case "page.json":
            path.write_text(json.dumps({"data": rows, "meta": {"page": 1}}))
        case "jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        case "csv":
            write_csv(path, rows)
        case "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    _, (sample,) = imported(tmp_path, path)
    assert (sample.prompt, sample.completion, sample.teacher) == ([ASKED], [ANSWER], "m")


def test_a_promptfoo_output_file_is_read_with_what_it_asserts_as_reference(tmp_path: Path) -> None:
    document = {"evalId": "e", "results": {"version": 3, "results": [PROMPTFOO], "prompts": [{"raw": "x"}]}, "config": {}}
    (tmp_path / "out.json").write_text(json.dumps(document, indent=1))
    _, (sample,) = imported(tmp_path, tmp_path / "out.json")
    assert (sample.text, sample.reference) == ("5", "5")


def test_a_langfuse_trace_gives_its_generations(tmp_path: Path) -> None:
    span = {"id": "s", "traceId": "t1", "type": "SPAN", "input": {"q": 1}, "output": None}
    generation = {**LANGFUSE, "input": [ASKED], "output": ANSWER}
    (tmp_path / "trace.json").write_text(json.dumps({"trace": {"id": "t1", "input": "x"}, "observations": [span, generation]}))
    result, (sample,) = imported(tmp_path, tmp_path / "trace.json")
    assert (sample.text, result.skipped, result.unread) == ("5", 1, 0)


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "hm"},
        {"content": [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "5"}]},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "5"}]},
        {"content": "<think>hm</think>5"},
    ],
)
@pytest.mark.parametrize("shape", ["messages", "completion", "choices"])
def test_a_messages_own_reasoning_is_kept(tmp_path: Path, message: dict[str, Any], shape: str) -> None:
    answer = {**ANSWER, **message}
    row = {
        "messages": {"messages": [ASKED, answer]},
        "completion": {"prompt": [ASKED], "completion": [answer]},
        "choices": {"request": CHAT, "response": {"choices": [{"message": answer, "finish_reason": "stop"}]}},
    }[shape]
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert (sample.text, sample.reasoning) == ("5", "hm")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"request": CHAT, "response": {"choices": [{"message": ANSWER, "finish_reason": "max_tokens"}]}}, "length"),
        ({"request": CHAT, "response": {"choices": [{"message": ANSWER, "finish_reason": "STOP"}]}}, "stop"),
        ({"request": CHAT, "response": {"choices": [{"message": ANSWER, "finish_reason": None}]}}, "stop"),
        ({"request": CHAT, "response": {"choices": [{"message": ANSWER, "finish_reason": "abort"}]}}, "error"),
        ({"request": CHAT, "response": {**CLAUDE, "stop_reason": "max_tokens"}}, "length"),
        ({"request": CHAT, "response": {**CLAUDE, "stop_reason": "refusal"}}, "refusal"),
        (
            {
                "request": {"input": "2 + 3?"},
                "response": {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            },
            "length",
        ),
        ({"request": CHAT, "response": {**OLLAMA, "message": ANSWER, "done_reason": "length"}}, "length"),
        ({"request": CHAT, "response": CHUNKS[:4]}, "unknown"),
        ({"request": CHAT, "response": SSE[: SSE.index("stop")]}, "unknown"),
        ({"prompt": "2 + 3?", "completion": "5", "finish_reason": "length"}, "length"),
    ],
)
def test_finish_reasons_are_those_of_one_vocabulary(tmp_path: Path, row: object, reason: str) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert (sample.text, sample.finish_reason) == ("5", reason)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {
            "request": CHAT,
            "response": {**REPLY, "choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
        },
        {
            "request": CHAT,
            "response": {**CLAUDE, "content": [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}}]},
        },
        {
            "request": {"input": "2 + 3?"},
            "response": {**RESPONSE, "output": [{"type": "function_call", "name": "add", "arguments": '{"a": 2}'}]},
        },
        {"request": CHAT, "response": [chunk({"tool_calls": [{"index": 0, **CALL}]}), chunk({}, "tool_calls")]},
    ],
)
def test_tool_calls_are_taken_by_name_and_arguments(tmp_path: Path, row: object) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert sample.tool_calls == [{"name": "add", "arguments": '{"a": 2}'}]


BROKEN = {"code": 502, "message": "upstream gone"}


@pytest.mark.parametrize(
    ("response", "text", "reason"),
    [
        ({**REPLY, "choices": [{**CHOICE, "error": BROKEN}]}, "5", "error"),
        ({**REPLY, "choices": [{**CHOICE, "finish_reason": None}], "error": BROKEN}, "5", "error"),
        ({**REPLY, "choices": [{**CHOICE, "message": {"content": [{"type": "refusal", "refusal": "no"}]}}]}, "no", "refusal"),
        ([chunk({"content": "5"}, ""), chunk({"content": "0"}, "null")], "50", "unknown"),
        ("data: " + json.dumps(chunk({"content": "5\u2028"}, "stop"), ensure_ascii=False) + "\n\n", "5\u2028", "stop"),
        ({**REPLY, "choices": [{**CHOICE, "message": {"content": ""}}], "error": BROKEN}, None, None),
        ([chunk({"content": "5"}), {**chunk({}), "error": BROKEN}], None, None),
    ],
)
def test_what_was_broken_off_is_recorded_as_such_or_not_taken(
    tmp_path: Path, response: object, text: str | None, reason: str | None
) -> None:
    result, samples = imported(
        tmp_path, lines(tmp_path, [{"request": CHAT, "response": REPLY}, {"request": CHAT, "response": response}])
    )
    assert [(one.text, one.finish_reason) for one in samples[1:]] == ([] if text is None else [(text, reason)])
    assert result.unread == (text is None)


def test_a_system_message_is_kept_wherever_it_is_written(tmp_path: Path) -> None:
    rows = [
        {"request": {**CHAT, "system": [{"type": "text", "text": "S"}]}, "response": CLAUDE},
        {"request": {"input": "2 + 3?", "instructions": "S"}, "response": RESPONSE},
        {"request": {"contents": "2 + 3?", "systemInstruction": {"parts": [{"text": "S"}]}}, "response": GEMINI},
        {"request": {"prompt": "2 + 3?", "system": "S"}, "response": {**OLLAMA, "response": "5"}},
        {"system": "S", "conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]},
        {"system": "S", "prompt": "2 + 3?", "completion": "5"},
        {"system": [{"text": "S"}], "messages": [ASKED, ANSWER]},
        {"systemInstruction": {"role": "system", "parts": [{"text": "S"}]}, "messages": [ASKED, ANSWER]},
        {"system": [{"type": "text", "text": "S"}], "prompt": "2 + 3?", "completion": "5"},
        {"messages": [{"role": "developer", "content": "S"}, ASKED, ANSWER]},
    ]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert result.unread == 0
    assert [sample.prompt for sample in samples] == [[{"role": "system", "content": "S"}, ASKED]] * len(rows)


def test_messages_of_weight_0_are_not_learnt(tmp_path: Path) -> None:
    silent = {**ANSWER, "content": "6", "weight": 0}
    rows = [
        {"messages": [ASKED, silent]},
        {"messages": [ASKED, {**ANSWER, "weight": 1}, ASKED, silent]},
        {"messages": [ASKED, silent, {**ASKED, "content": "again?"}, {**ANSWER, "weight": 1}]},
    ]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [(sample.text, len(sample.prompt)) for sample in samples] == [("5", 1), ("5", 3)]
    assert (result.skipped, result.unread) == (1, 0)


def test_interleaved_streams_are_separated_by_their_ids(tmp_path: Path) -> None:
    def stream(name: str) -> list[dict[str, Any]]:
        return [chunk({"content": name[0]}, name=name), chunk({"content": name[1]}, name=name), chunk({}, "stop", name)]

    rows = [one for pair in zip(stream("ab"), stream("cd"), strict=True) for one in pair]
    requests = [{"id": name, **CHAT, "messages": [{**ASKED, "content": name}]} for name in ("ab", "cd")]
    result, samples = imported(tmp_path, lines(tmp_path, [*requests, *rows]))
    assert [(sample.prompt[0]["content"], sample.text) for sample in samples] == [("ab", "ab"), ("cd", "cd")]
    nameless = [{key: value for key, value in one.items() if key != "id"} for one in requests]
    with pytest.raises(UsageError, match="a stream without its request"):
        imported(tmp_path / "other", lines(tmp_path, [*nameless, *rows], "nameless.jsonl"))
    assert result.unread == 0


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"promt": "p", "completion": "c"}, r"keys are promt, completion; nearest is prompt and completion .*is it 'promt'"),
        ({"text": "p"}, "keys are text"),
        ({"messages": [ASKED, ANSWER], "images": ["a.png"]}, "the row holds images"),
        ({"prompt": "p", "response": ""}, "the answer is empty"),
        ({"request": CHAT, "response": {"error": {"message": "overloaded"}}}, "the reply is an error: .*overloaded"),
        ({"request": CHAT, "response": {"choices": []}}, "the reply has no answer in it"),
        ({"request": CHAT}, "a request without an answer"),
        (REPLY, "a reply without its request"),
        (CHUNKS[3], "a stream without its request"),
        ({**PROMPTFOO, "response": {}, "error": "API down"}, "no output: API down"),
        ({"custom_id": "r", "result": {"type": "errored", "error": {"type": "x"}}}, "the batch has no answer to 'r'"),
    ],
)
def test_a_row_that_is_no_answer_is_named_with_its_keys_and_the_nearest_shape(tmp_path: Path, row: object, says: str) -> None:
    with pytest.raises(UsageError, match=rf"log.jsonl:1: .*{says}"):
        imported(tmp_path, lines(tmp_path, [row]))
    assert not (tmp_path / "run").exists(), "nothing is written"


def places_in(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in [(*above, key), *places_in(one, (*above, key))]]


def broken(row: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy: Any = json.loads(json.dumps(row))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return dict(copy)


def test_a_wrong_value_anywhere_in_any_shape_is_never_more_than_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    rows = [row for shape in (*FULL.values(), *PLAIN.values()) for row in shape if isinstance(row, dict)]
    rows = [row for row in rows if not row.keys() & {"custom_id", "recordId", "key"}]  # a reply to two requests ends it all
    wrong = [
        broken(row, place, value) for row in rows for place in places_in(row) for value in (None, 3, "[{", [{}], {"a": []})
    ]
    result, _ = imported(tmp_path, lines(tmp_path, [*wrong, {"prompt": "p", "completion": "c"}]))
    assert result.read == result.new + result.unread
    assert result.unread > len(wrong) / 10
