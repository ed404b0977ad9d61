"""Recorded answers in the shapes in which people hold them: one entry a shape. Fields as the tools and APIs document them."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from chat_program_shapes import node
from log_shapes import FULL
from plain_shapes import PLAIN
from recorded_parts import (
    ANSWER,
    ASKED,
    CALL,
    CHAT,
    CHOICE,
    CHUNKS,
    CLAUDE,
    CLAUDE_EVENTS,
    GEMINI,
    GEMINI_CHUNKS,
    GEMINI_DUMP,
    LANGFUSE,
    OLLAMA,
    OLLAMA_CHUNKS,
    OPEN_AI_EVENTS,
    PROMPTFOO,
    REPLY,
    RESPONSE,
    SSE,
    chunk,
)

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe
from seqdistill.records import Sample, read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import ImportResult, import_recorded
from seqdistill.tasks.messages import structured


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


REPLIES_IN_CELLS: list[Any] = [
    {"request": {"body": CHAT}, "response": {"status_code": 200, "body": REPLY}},
    {"request": {"message": "2 + 3?"}, "response": {"text": "5", "finish_reason": "COMPLETE", "meta": {}}},
    {"request": {"prompt": "2 + 3?"}, "response": {"content": "5", "stop": True, "stop_type": "eos", "tokens_predicted": 3}},
    {"request": {"input": "2 + 3?"}, "response": {"model_id": "m", "results": [{"generated_text": "5"}]}},
    {"span_id": "s", "input": [ASKED], "output": [CHOICE], "metadata": {"model": "m"}, "metrics": {"prompt_tokens": 7}},
    {"messages": [ASKED], "output": [{"type": "text", "text": "5"}]},
    {"messages": [ASKED], "output": [{"generated_text": [ASKED, ANSWER]}]},
    {"messages": [ASKED], "output": RESPONSE["output"]},
    {"input": {"inputBodyJson": CHAT}, "output": {"outputBodyJson": REPLY}},
    {
        "trace_id": "t",
        "input": {"type": "chat_messages", "value": [ASKED]},
        "output": {"type": "chat_messages", "value": [ANSWER]},
    },
]


@pytest.mark.parametrize("row", REPLIES_IN_CELLS)
def test_an_api_s_reply_in_a_cell_is_no_answer_that_is_json(tmp_path: Path, row: Any) -> None:
    write_csv(tmp_path / "log.csv", [row])
    _, (sample,) = imported(tmp_path, tmp_path / "log.csv")
    assert (sample.prompt, sample.completion) == ([ASKED], [ANSWER])


@pytest.mark.parametrize(
    "answer", ['{"total":  5}', '["a", "b"]', '[{"name": "add", "arguments": {"a": 1}}]', '{"answer": "5", "finish": "stop"}']
)
def test_an_answer_that_is_json_stays_as_it_is_in_a_cell(tmp_path: Path, answer: str) -> None:
    write_csv(tmp_path / "log.csv", [{"prompt": "2 + 3?", "completion": answer}])
    assert imported(tmp_path, tmp_path / "log.csv")[1][0].text == answer


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
        ({"request": CHAT, "response": json.dumps(OLLAMA_CHUNKS[0]) + '\n{"model": "m", "mess'}, "unknown"),
        ({"request": CHAT, "response": json.dumps(GEMINI_CHUNKS[:2])}, "unknown"),
        ({"inputs": "2 + 3?", "generated_text": "5", "details": {"finish_reason": "length"}}, "length"),
        (
            {"request": {"inputs": "2 + 3?"}, "response": [{"generated_text": "5", "details": {"finish_reason": "length"}}]},
            "length",
        ),
        ({"request": {"prompt": "2 + 3?"}, "response": {"content": "5", "stop": True, "stop_type": "limit"}}, "length"),
        ({"request": {"prompt": "2 + 3?"}, "response": {"content": "5", "stop": True, "stopped_limit": True}}, "length"),
        ({"prompt": "2 + 3?", "outputs": [{"text": "5", "token_ids": [1], "finish_reason": "length"}]}, "length"),
        *[
            ({"request": CHAT, "response": {"candidates": [{**GEMINI_DUMP["candidates"][0], "finish_reason": reason}]}}, ended)
            for reason, ended in (("MAX_TOKENS", "length"), (2, "length"), (3, "content_filter"), (1, "stop"), (5, "unknown"))
        ],
        ({"prompt": "2 + 3?", "completion": "5", "finish_reason": "length"}, "length"),
        ({"messages": [ASKED, {**ANSWER, "stop_reason": "max_tokens"}]}, "length"),
        ({"messages": [ASKED, ANSWER], "finish_reason": "length"}, "length"),
        (
            {
                "messages": [
                    {"type": "human", "content": "2 + 3?"},
                    {"type": "ai", "content": "5", "response_metadata": {"finish_reason": "length"}},
                ]
            },
            "length",
        ),
        (
            {
                "current_node": "b",
                "mapping": {
                    "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["2 + 3?"]}}},
                    "b": {
                        "message": {
                            "author": {"role": "assistant"},
                            "content": {"parts": ["5"]},
                            "metadata": {"finish_details": {"type": "interrupted"}},
                        },
                        "parent": "a",
                    },
                },
            },
            "error",
        ),
    ],
)
def test_finish_reasons_are_those_of_one_vocabulary(tmp_path: Path, row: object, reason: str) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert (sample.text, sample.finish_reason) == ("5", reason)


LANGCHAIN_CALL = {"name": "add", "args": {"a": 2}, "id": "c1", "type": "tool_call"}


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
        *[
            {"request": CHAT, "response": {"candidates": [{"content": {"parts": [{key: {"name": "add", "args": {"a": 2}}}]}}]}}
            for key in ("functionCall", "function_call")
        ],
        {**PROMPTFOO, "response": {"output": [CALL]}},
        {"conversations": [ASKED, {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'}]},
        {"conversations": [ASKED, {"from": "function_call", "value": '[{"name": "add", "arguments": {"a": 2}}]'}]},
        {"messages": [ASKED, {"role": "tool_call", "content": '{"name": "add", "arguments": {"a": 2}}'}]},
        *[
            {"messages": [ASKED, {"role": "assistant", "content": content, "tool_calls": [call]}]}
            for call in (LANGCHAIN_CALL, {"tool_call": CALL}, {"name": "add", "arguments": '{"a": 2}'})
            for content in ("", [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}}])
        ],
        *[
            {"attributes": {"llm.input_messages": [{"message": ASKED}], **answer}}
            for answer in (
                {"llm.output_messages": [{"message": {"role": "assistant", "tool_calls": [{"tool_call": CALL}]}}]},
                {
                    "llm.output_messages.0.message.role": "assistant",
                    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "add",
                    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"a": 2}',
                },
            )
        ],
        {
            "attributes": {
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "2 + 3?",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.tool_calls.0.name": "add",
                "gen_ai.completion.0.tool_calls.0.arguments": '{"a": 2}',
            }
        },
        {
            "attributes": {
                "gen_ai.input.messages": [ASKED],
                "gen_ai.output.messages": [
                    {"role": "assistant", "parts": [{"type": "tool_call", "name": "add", "arguments": {"a": 2}}]}
                ],
            }
        },
        {
            "attributes": {
                "ai.prompt.messages": json.dumps([ASKED]),
                "ai.response.text": "",
                "ai.response.toolCalls": json.dumps([{"toolName": "add", "input": {"a": 2}}]),
            }
        },
        {"request": CHAT, "response": [CALL]},
    ],
)
def test_tool_calls_are_taken_by_name_and_arguments(tmp_path: Path, row: object) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    (call,) = sample.tool_calls or []
    assert (call["name"], structured(call["arguments"])) == ("add", {"a": 2})


def test_a_text_beside_the_calls_of_vercels_sdk_and_all_outputs_of_a_span_are_kept(tmp_path: Path) -> None:
    calls = json.dumps([{"toolName": "add", "input": {}}])
    facts = {"ai.prompt.messages": json.dumps([ASKED]), "ai.response.text": "Adding.", "ai.response.toolCalls": calls}
    facts |= {"ai.response.finishReason": "tool-calls", "ai.response.model": "m"}
    outputs = [{**ANSWER, "finish_reason": "stop"}, {**ANSWER, "content": "five", "finish_reason": "length"}]
    both = {"gen_ai.input.messages": [ASKED], "gen_ai.output.messages": outputs}
    rows = [{"attributes": facts}, {"attributes": both}]
    _, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [(one.text, one.finish_reason, bool(one.tool_calls)) for one in samples] == [
        ("Adding.", "tool_calls", True),
        ("5", "stop", False),
        ("five", "length", False),
    ]
    assert samples[0].teacher == "m"


SPAN = {"attributes": {"gen_ai.input.messages": [ASKED], "gen_ai.output.messages": [{**ANSWER, "content": "par"}]}}
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
        {"request": {"contents": "2 + 3?", "config": {"system_instruction": "S", "temperature": 0}}, "response": GEMINI},
        {"request": {"prompt": "2 + 3?", "system": "S"}, "response": {**OLLAMA, "response": "5"}},
        {"system": "S", "conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]},
        {"system": "S", "prompt": "2 + 3?", "completion": "5"},
        {"system": [{"text": "S"}], "messages": [ASKED, ANSWER]},
        {"systemInstruction": {"role": "system", "parts": [{"text": "S"}]}, "messages": [ASKED, ANSWER]},
        {"system": [{"type": "text", "text": "S"}], "prompt": "2 + 3?", "completion": "5"},
        {"messages": [{"role": "developer", "content": "S"}, ASKED, ANSWER]},
        *[
            {key: "S", "prompt": "2 + 3?", "completion": "5"}
            for key in ("system_message", "systemPrompt", "system_instruction")
        ],
        {"messages": [ASKED, ANSWER], "chat_template_kwargs": {"custom_instructions": "S", "enable_thinking": False}},
        {"conversation": [{"system": "S", "input": "2 + 3?", "output": "5"}]},
        {
            "attributes": {
                "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "S"}]),
                "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "2 + 3?"}]}]),
                "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "5"}]}]),
            }
        },
        {
            "current_node": "b",
            "mapping": {
                "s": {
                    "message": {
                        "author": {"role": "user"},
                        "content": {"content_type": "user_editable_context", "user_instructions": "S"},
                        "metadata": {"is_visually_hidden_from_conversation": True},
                    }
                },
                "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["2 + 3?"]}}, "parent": "s"},
                "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["5"]}}, "parent": "a"},
            },
        },
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
    marks = [{"train": False}, {"loss": False}, {"train": 0}, {"loss_weight": 0.0}]
    rows += [{"messages": [ASKED, {**ANSWER, "content": "6", **mark}]} for mark in marks]
    rows += [{"messages": [ASKED, {**ANSWER, "train": True, "loss": None}, ASKED, {**ANSWER, **mark}]} for mark in marks]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [(sample.text, len(sample.prompt)) for sample in samples] == [("5", 1), ("5", 3), *[("5", 1)] * len(marks)]
    assert (result.skipped, result.unread) == (1 + len(marks), 0)


OTHER = {**ASKED, "content": "Capital of France?"}


def named(row: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    return {**row, name: {"request_id": value} if name == "metadata" else value}


@pytest.mark.parametrize("name", ["request_id", "call_id", "correlation_id", "traceId", "session_id", "metadata"])
@pytest.mark.parametrize("kind", ["reply", "chunks", "wrapped chunks", "rotated log"])
def test_a_reply_is_not_that_of_a_request_with_another_name(tmp_path: Path, name: str, kind: str) -> None:
    waits = named({**CHAT, "messages": [OTHER]}, name, 2)
    rows, expected = {
        "reply": ([waits, named(REPLY, name, "1")], []),
        "chunks": ([waits, *(named(one, name, "1") for one in CHUNKS)], []),
        "wrapped chunks": ([waits, *(named({"response": one}, name, "1") for one in CHUNKS)], []),
        "rotated log": ([waits, named({**REPLY, "id": "x"}, name, "1"), named(REPLY, name, "2")], [OTHER]),
    }[kind]
    result, samples = imported(tmp_path, lines(tmp_path, [*rows, {"prompt": "p", "completion": "c"}]))
    assert [one.prompt for one in samples[:-1]] == [[one] for one in expected]
    assert result.unread == (1 if expected else 2)


@pytest.mark.parametrize("name", ["request_id", "callId", "metadata"])
def test_interleaved_replies_and_streams_without_ids_are_separated_by_the_name_of_their_call(tmp_path: Path, name: str) -> None:
    requests = [named(CHAT, name, 1), named({**CHAT, "messages": [OTHER]}, name, 2)]
    replies = [named({**REPLY, "choices": [{**CHOICE, "message": text}]}, name, n) for n, text in ((2, "Paris"), (1, "5"))]
    _, samples = imported(tmp_path, lines(tmp_path, [*requests, *replies]))
    assert [(one.prompt, one.text) for one in samples] == [([OTHER], "Paris"), ([ASKED], "5")]
    parts = [
        [named({**chunk({"content": text}), "id": None}, name, n) for text in texts] for n, texts in ((1, "56"), (2, "Pa"))
    ]
    interleaved = [one for pair in zip(*parts, strict=True) for one in pair]
    _, samples = imported(tmp_path / "streams", lines(tmp_path, [*requests, *interleaved], "streams.jsonl"))
    assert [(one.prompt, one.text) for one in samples] == [([ASKED], "56"), ([OTHER], "Pa")]


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


STREAMS = (
    json.dumps(OPEN_AI_EVENTS[0]) + '\n\ndata: {"type": "response.output_text.delta", "delta": "5"}',
    '{"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "5"}}}}',
    '{"token": {"text": "5"}, "generated_text": null}',
    "[DONE]",
)
ERROR = {"error": {"message": "overloaded", "code": 503}}
OVERLOADED = (
    json.dumps(ERROR),
    f"data: {json.dumps(ERROR)}\n\n",
    f"event: error\ndata: {json.dumps({'type': 'error', **ERROR})}\n\n",
    "".join(f"data: {json.dumps(one)}\n\n" for one in [*CLAUDE_EVENTS[:4], {"type": "error", **ERROR}]),
    "\n".join(map(json.dumps, [OLLAMA_CHUNKS[0], {"error": "overloaded"}])),
    "".join(f"data: {json.dumps(one)}\n\n" for one in [GEMINI_CHUNKS[0], ERROR]),
    "".join(f"data: {json.dumps(one)}\n\n" for one in [CHUNKS[3], ERROR]),
)


OLLAMA_ANSWER = {**OLLAMA, "message": ANSWER}
CUT_TEXTS = (
    "Summarise: aaa... (litellm_truncated 12982 chars) ...zzz",
    "Summarise: aaa... (litellm_truncated skipped 900 chars. It is a safeguard of the database.) ...zzz",
    "redacted-by-litellm",
    "redacted by litellm. 'litellm.turn_off_message_logging=True'",
    "<truncated due to size exceeding limit>",
    "What is in it? @@@langfuseMedia:type=image/png|id=a|source=bytes@@@",
    "__REDACTED__",
    "[REDACTED]",
    "<redacted>",
    "[Filtered]",
    "[Scrubbed due to 'password']",
)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {
                "request": {"input": "2 + 3?"},
                "response": {**RESPONSE, "output": [{"type": "custom_tool_call", "call_id": "c", "name": "add", "input": "2"}]},
            },
            "the answer is a call of type 'custom_tool_call'",
        ),
        ({"promt": "p", "completion": "c"}, r"keys are promt, completion; nearest is prompt and completion .*is it 'promt'"),
        ({"text": "p"}, "keys are text"),
        *[
            ({"messages": [ASKED, ANSWER], key: value}, f"the row holds {kind}, in '{key}'")
            for key, value, kind in (
                *[("images", value, "images") for value in (["a.png"], "a.png", [{"bytes": "AA"}], {"path": "a.png"})],
                *[
                    ("image", value, "images")
                    for value in ("coco/1.jpg", "https://a.b/1.PNG?w=3", "data:image/png;base64,A", ["1.jpg"])
                ],
                *[("image", "iVBOR" * 100, "images"), ("img_path", "1.webp", "images"), ("image_file", "1.gif", "images")],
                *[
                    ("audio", {"array": [0.1], "sampling_rate": 9}, "audios"),
                    ("audio", "1.wav", "audios"),
                    ("video", "1.mp4", "videos"),
                ],
            )
        ],
        (
            {"image": "0012", "conversations": [{**ASKED, "content": "<image>\nWhat is it?"}, ANSWER]},
            "the row holds images, in 'image'",
        ),
        ({"question": "What is it? <image_1>", "answer": "A cat.", "image_1": "0012"}, "the row holds images"),
        *[({"messages": [{**ASKED, key: ["AA"]}, ANSWER]}, f"holds {key}, and only text") for key in ("images", "files")],
        ({"messages": [ASKED, {**ANSWER, "files": [{"type": "image"}]}]}, "the answer holds files, and only text"),
        ({"request": {**CHAT, "messages": [{**ASKED, "images": ["AA"]}]}, "response": OLLAMA_ANSWER}, "holds images"),
        ({"request": {"model": "m", "prompt": "2 + 3?", "images": ["AA"]}, "response": OLLAMA_ANSWER}, "the row holds images"),
        ({"chat": {"messages": [{**ASKED, "files": [{"type": "image"}]}, ANSWER]}}, "holds files, and only text"),
        (
            {
                "chat_messages": [
                    {"sender": "human", "text": "x", "files": [{"file_name": "a"}]},
                    {"sender": "assistant", "text": "5"},
                ]
            },
            "holds files, and only text",
        ),
        (
            {"prompt": "What is it?", "prompt_json": None, "response": "A cat.", "attachments": [{"type": "image/png"}]},
            "holds files, and only text",
        ),
        ({"prompt": "p", "response": ""}, "the answer is empty"),
        *[({"input": text, "output": "5", "solution": "5"}, f"the prompt is only '{text}'") for text in ("-", "N/A")],
        ({"request": CHAT, "response": {"error": {"message": "overloaded"}}}, "the reply is an error: .*overloaded"),
        ({"request": CHAT, "response": {"choices": []}}, "the reply has no answer in it"),
        ({"request": CHAT}, "a request without an answer"),
        (REPLY, "a reply without its request"),
        (CHUNKS[3], "a stream without its request"),
        *[
            ({"request": CHAT, "response": f"data: {one}\n\n"}, "a recorded stream that has no end or is of no")
            for one in STREAMS
        ],
        ({**CHAT, "response": "event: output\ndata: 5\n\n"}, "a recorded stream that has no end or is of no known API"),
        *[({"request": CHAT, "response": one}, "the reply is an error: .*overloaded") for one in OVERLOADED],
        ({**PROMPTFOO, "response": {}, "error": "API down"}, "no output: API down"),
        ({"custom_id": "r", "result": {"type": "errored", "error": {"type": "x"}}}, "the batch has no answer to 'r'"),
        ({"key": "r", "error": {"code": 3, "message": "bad"}}, "the batch has no answer to 'r': .*bad"),
        ({**LANGFUSE, "level": "ERROR", "statusMessage": "429", "input": [ASKED], "output": None}, "the call failed: 429"),
        *[
            (row, "the call failed: .*boom")
            for row in (
                {**LANGFUSE, "level": "ERROR", "statusMessage": "boom", "input": [ASKED], "output": "par"},
                {"run_type": "llm", "error": "boom", "inputs": CHAT, "outputs": {"output": "par"}},
                {"op_name": "weave:///x", "inputs": CHAT, "output": "par", "exception": "boom"},
                {**SPAN, "status": {"code": 2, "message": "boom"}},
                {**SPAN, "status": {"code": "STATUS_CODE_ERROR", "message": "boom"}},
                {**SPAN, "status_code": "ERROR", "status_message": "boom"},
                {"request": json.dumps(CHAT), "response": "boom", "success": False, "status_code": 0},
                *[{"prompt": "p", "completion": "boom", **marked} for marked in ({"status": "error"}, {"status": "Failed"})],
                *[{"messages": [ASKED], "response": "boom", key: True} for key in ("error", "is_error")],
                {"prompt": "p", "completion": "par", "status": "failed", "error": {"message": "boom"}},
                {"input": "p", "target": "5", "output": {"choices": []}, "error": {"message": "boom"}},
                {"attributes": {"span_kind": "llm", "status": "error"}, "status_message": "boom"},
                {"call_type": "acompletion", "messages": [ASKED], "response": "{}", "status": "failure", "error_str": "boom"},
                {
                    "call_type": "acompletion",
                    "messages": json.dumps([ASKED]),
                    "response": "{}",
                    "metadata": json.dumps({"status": "failure", "error_information": {"error_message": "boom"}}),
                },
            )
        ],
        ({"call_type": "acompletion", "messages": json.dumps([ASKED]), "response": "{}"}, "the reply has no answer in it"),
        *[
            ({**row, key: text}, "the log does not hold the whole text: ")
            for text in CUT_TEXTS
            for row, key in (({"prompt": "p", "completion": "c"}, "prompt"), ({"prompt": "p", "completion": "c"}, "completion"))
        ],
        ({"request": CHAT, "response": {**OLLAMA, "message": {**ANSWER, "thinking": CUT_TEXTS[0]}}}, "the log does not hold"),
        ({"messages": [ASKED], "reference_answer": "5"}, "a conversation without an assistant's answer: a prompt"),
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
    rows = [
        row for row in rows if not row.keys() & {"custom_id", "recordId", "key"} and "key" not in row.get("metadata", {})
    ]  # a reply to two requests ends it all
    wrong = [
        broken(row, place, value) for row in rows for place in places_in(row) for value in (None, 3, "[{", [{}], {"a": []})
    ]
    result, _ = imported(tmp_path, lines(tmp_path, [*wrong, {"prompt": "p", "completion": "c"}]))
    assert result.read == result.new + result.unread
    assert result.unread > len(wrong) / 10


PASSAGES = {
    "a question with its passage": [{"question": "Capital?", "contexts": ["Paris is the capital."], "answer": "Paris"}],
    "SQuAD": [
        {"context": "Paris is the capital.", "question": "Capital?", "answers": {"text": ["Paris"], "answer_start": [0]}}
    ],
}
NULLS = ("error", "custom_id", "messages", "body", "params", "result", "context", "text", "message", "key", "tools", "choices")


def test_a_column_that_is_null_says_no_more_than_one_that_is_not_there(tmp_path: Path) -> None:
    """As of rows of several kinds in one table, in Parquet or out of a database."""
    for number, (shape, rows) in enumerate({**FULL, **PASSAGES}.items()):
        if all(isinstance(row, dict) for row in rows):
            columns = dict.fromkeys((*NULLS, *(name for row in rows for name in row)))
            table = [{**columns, **row} for row in rows]
            results = []
            for folder, held in ((tmp_path / f"{number}-rows", rows), (tmp_path / f"{number}-table", table)):
                folder.mkdir()
                result, samples = imported(folder, lines(folder, held))
                results.append((result.unread, result.skipped, samples))
            assert results[0] == results[1], shape


HALF = "\ud83d"  # of a character: SQLite holds none, nor whole numbers of more than 64 bits


@pytest.mark.parametrize(
    "rows",
    [
        [node("a" + HALF, None, "prompter", "2 + 3?"), node("b", "a" + HALF, "assistant", "5")],
        [node("a", None, "prompter", "2 + 3?"), node("b", "a", "assistant", "5", 1 << 70)],
        [REPLY, {**ASKED, "id": f"chatcmpl-1-{1 << 70}"}],
        [{"custom_id": HALF, "body": CHAT}, {"custom_id": HALF, "response": {"status_code": 200, "body": REPLY}}],
        [{**CHAT, "response": {**REPLY, "model": "m" + HALF}}],
        [{"id": HALF, "prompt": "2 + 3?", "completion": "5"}],
    ],
)
def test_ids_and_numbers_that_sqlite_does_not_hold_are_taken(tmp_path: Path, rows: list[Any]) -> None:
    result, (sample,) = imported(tmp_path, lines(tmp_path, rows))
    assert (sample.prompt, sample.completion) == ([ASKED], [ANSWER])
    again, _ = imported(tmp_path, tmp_path / "log.jsonl")
    assert (result.new, again.new, again.known) == (1, 0, 1)


def test_an_answer_that_was_begun_in_the_request_is_whole_and_its_prompt_is_the_users(tmp_path: Path) -> None:
    begun = {"role": "assistant", "content": '{"sum": '}
    row = {"request": {**CHAT, "messages": [ASKED, begun]}, "response": {**CLAUDE, "content": [{"type": "text", "text": "5}"}]}}
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert (sample.prompt, sample.text) == ([ASKED], '{"sum": 5}')


def test_requests_of_a_batch_without_reply_and_files_named_twice_are_mentioned(tmp_path: Path) -> None:
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    requests = [{"custom_id": name, "body": CHAT} for name in ("a", "b", "c")]
    path = lines(tmp_path, [*requests, {"custom_id": "a", "response": {"status_code": 200, "body": REPLY}}])
    result = import_recorded(Run(tmp_path / "run"), Recipe(), [path, path], progress)
    assert (result.samples, result.unread) == (1, 0)
    assert any("named twice" in note for note in notes)
    assert any("2 requests of the batch files have no reply" in note for note in notes)
