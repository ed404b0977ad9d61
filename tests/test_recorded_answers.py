"""Recorded answers that are JSON, look like a stream or hold more than text: what is taken of them. A line a case."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generate_runs import Notes
from recorded_parts import ASKED, CHAT, CHOICE, LANGFUSE, PROMPTFOO, REPLY, RESPONSE
from test_recorded_shapes import imported, lines

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe, TaskConfig
from seqdistill.records import read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import import_recorded

OBJECTS: list[dict[str, Any]] = [
    {"sum": 5},
    {"name": "x", "text": "abc"},
    {"answer": "yes", "confidence": 0.9},
    {"output": "5", "sources": ["a"]},
    {"text": "a", "answer": "b"},
    {"role": "engineer", "text": "abc"},
    {"role": "user", "content": "x"},
    {"raw": 1},
    {"error": "none", "code": 3},
    {"candidates": [{"name": "Ann"}]},
    {"question": "Which?", "choices": [{"label": "A", "text": "red"}]},
    {"messages": 3, "unread": True},
    {"message": {"title": "t", "content": "c"}},
    {"type": "refusal", "reason": "rude"},
    {"type": "message", "subject": "x"},
    {"type": "text", "label": "x"},
]


@pytest.mark.parametrize("answer", OBJECTS)
@pytest.mark.parametrize("column", ["completion", "response", "answer"])
def test_an_answer_that_is_json_stays_whole(tmp_path: Path, answer: dict[str, Any], column: str) -> None:
    rows = [{"prompt": "p", column: answer}, {"prompt": "q", column: json.dumps(answer)}]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert ([one.text for one in samples], result.unread) == ([json.dumps(answer)] * 2, 0)


ARRAYS: list[list[dict[str, Any]]] = [
    [{"type": "person", "name": "Ann"}, {"type": "place", "name": "Rome"}],
    [{"name": "Ann"}],
    [{"name": "Ann", "role": "engineer"}],
    [{"from": "Paris", "to": "Rome", "value": 3}],
    [{"type": "text", "label": "x"}],
    [{"type": "message", "subject": "x"}],
    [{"type": "phone_call", "minutes": 3}],
    [{"function": "add", "value": 5}],
    [{"message": "hi", "sender": "Ann"}],
]
IN_ARRAYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "prompt and output": lambda answer: {"prompt": "2 + 3?", "output": answer},
    "input and output": lambda answer: {"input": "2 + 3?", "output": answer},
    "prompt and completion": lambda answer: {"prompt": "2 + 3?", "completion": answer},
    "Alpaca": lambda answer: {"instruction": "2 + 3?", "input": "", "output": answer},
    "Promptfoo": lambda answer: {**PROMPTFOO, "response": {"output": answer, "tokenUsage": {"prompt": 7, "completion": 3}}},
    "Langfuse": lambda answer: {**LANGFUSE, "input": [ASKED], "output": answer},
    "Braintrust": lambda answer: {"span_id": "s", "input": [ASKED], "output": answer, "metadata": {"model": "m"}},
}


@pytest.mark.parametrize("shape", IN_ARRAYS)
def test_an_answer_that_is_a_json_array_stays_whole(tmp_path: Path, shape: str) -> None:
    for number, answer in enumerate(ARRAYS):
        result, (sample,) = imported(tmp_path / str(number), lines(tmp_path, [IN_ARRAYS[shape](answer)]))
        assert (sample.prompt, sample.text, result.unread) == ([ASKED], json.dumps(answer), 0)


@pytest.mark.parametrize(
    "output", [{"message": {"title": "t", "content": "c"}}, {"candidates": [{"name": "Ann"}]}, ["Ann", "Bob"]]
)
def test_what_promptfoo_parsed_is_written_as_json_and_nothing_is_left_out(tmp_path: Path, output: Any) -> None:
    notes = Notes()
    rows = [IN_ARRAYS["Promptfoo"](output), PROMPTFOO]
    result = import_recorded(Run(tmp_path / "run"), Recipe(), [lines(tmp_path, rows)], notes)
    assert [one.text for one in read_samples(result.path)] == [json.dumps(output), "5"]
    assert not any("left out" in one for one in notes.notes)


def test_an_answer_in_json_may_be_messages(tmp_path: Path) -> None:
    text = json.dumps([ASKED, ASKED])
    result, (sample,) = imported(tmp_path, lines(tmp_path, [{"prompt": "p", "completion": text}]))
    assert (sample.text, result.skipped) == (text, 0)


@pytest.mark.parametrize(
    ("row", "reasoning"),
    [
        *[
            ({"prompt": "p", key: "hm", "completion": "5"}, "hm")
            for key in ("reasoning", "think", "thought", "cot", "reasoning_trace")
        ],
        ({"Question": "p", "Complex_CoT": "hm", "Response": "5"}, "hm"),
        ({"prompt": "p", "reasoning": "high", "completion": "5"}, None),
        ({"prompt": "p", "thinking": True, "completion": "5"}, None),
        ({"prompt": "p", "thinking": "off", "cot": "hm", "completion": "5"}, "hm"),
        ({"prompt": "p", "mine": "hm", "completion": "5"}, "hm"),
    ],
)
def test_reasoning_in_a_column_of_its_own_is_kept(tmp_path: Path, row: dict[str, Any], reasoning: str | None) -> None:
    recipe = Recipe(task=TaskConfig(columns={"reasoning": "mine"} if "mine" in row else {}))
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]), recipe)
    assert (sample.text, sample.reasoning) == ("5", reasoning)


def test_fields_beside_the_text_of_an_object_are_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    responses = [{"text": "5", "confidence": 0.9}, {"text": "5", "id": "a"}, REPLY]
    rows = [{"request": CHAT, "response": one} for one in responses]
    import_recorded(Run(tmp_path / "run"), Recipe(), [lines(tmp_path, rows)], notes)
    assert any("1 answers are the text of an object whose other fields are left out" in one for one in notes.notes)
    assert any("log.jsonl:1: confidence" in one for one in notes.notes)


PICTURE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    "response",
    [
        {"content": [{"type": "text", "text": "see"}, PICTURE]},
        {"content": "see", "images": [PICTURE]},
        {"parts": [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": "AAA"}}]},
        {"parts": [{"text": "see"}, {"executableCode": {"language": "PYTHON", "code": "print(1)"}}]},
        {"output": [{"type": "image_generation_call", "result": "AAA"}, RESPONSE["output"][1]]},
    ],
)
def test_an_answer_with_an_image_or_code_that_was_run_is_not_taken_without_it(tmp_path: Path, response: Any) -> None:
    by_api = {
        "content": {**REPLY, "choices": [{**CHOICE, "message": response}]},
        "parts": {"candidates": [{"content": response, "finishReason": "STOP"}]},
        "output": {**RESPONSE, **response},
    }
    row = {"request": CHAT, "response": by_api[next(iter(response))]}
    with pytest.raises(UsageError, match=r"log.jsonl:1: the answer holds .*only text can be learnt"):
        imported(tmp_path, lines(tmp_path, [row]))


@pytest.mark.parametrize(
    "text",
    [
        *("[truncated]", "The name was [REDACTED] by the court.", "Set litellm_truncated = 3"),
        "data: 5",
        '{"done": true, "message": "ok"}',
        '{"a": 1}\n{"a": 2}',
        '[{"error": "x"}]',
        ": 5",
    ],
)
def test_an_answer_that_only_looks_like_a_stream_is_text(tmp_path: Path, text: str) -> None:
    _, samples = imported(tmp_path, lines(tmp_path, [{"request": CHAT, "response": text}, {"prompt": "p", "completion": text}]))
    assert [one.text for one in samples] == [text, text]


def test_answers_that_are_no_text_are_written_as_a_table_or_json_writes_them(tmp_path: Path) -> None:
    answers = {"true": True, "0": 0, "2.5": 2.5, '{"sum": 5}': {"sum": 5}}
    rows = [{"prompt": f"{n}?", "completion": answer} for n, answer in enumerate(answers.values())]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert ([sample.text for sample in samples], result.unread) == (list(answers), 0)
