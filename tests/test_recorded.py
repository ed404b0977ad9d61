"""Recorded completions: every kind of line that people hold, and what cannot be read is reported with its line."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from chat_server import ChatServer, answer
from generate_runs import prompts_file, recipe

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe, TeacherConfig
from seqdistill.records import Sample, read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import ImportResult, import_recorded
from seqdistill.stages.generate.stage import generate


def taken(
    folder: Path, *rows: Any, teacher: str | None = None, name: str = "recorded.jsonl"
) -> tuple[ImportResult, list[Sample]]:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    settings = GenerateConfig(max_tokens=20, temperature=1.0)
    result = import_recorded(
        Run(folder / "run"), Recipe(teacher=TeacherConfig(model=teacher), generate=settings), [path], Silent()
    )
    return result, list(read_samples(result.path))


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-x", "messages": [{"role": "user", "content": text}], **more}


def test_a_request_and_response_log_becomes_samples(tmp_path: Path) -> None:
    body = chat("hello there")
    reply = {**answer({**body, "max_tokens": 50}), "model": "gpt-x-2026"}
    both = {"choices": [*reply["choices"], {"message": {"content": "<think>hm</think>two"}, "finish_reason": "length"}]}
    result, samples = taken(tmp_path, {"request": body, "response": {**reply, **both}}, {**chat("flat"), "response": reply})
    assert (result.new, result.unread, result.teachers) == (3, 0, ["gpt-x-2026"])
    assert [sample.sample for sample in samples] == [0, 1, 0]
    assert (samples[1].text, samples[1].reasoning, samples[1].finish_reason) == ("two", "hm", "length")
    assert samples[0].prompt == body["messages"]
    assert samples[0].completion_tokens + samples[1].completion_tokens == reply["usage"]["completion_tokens"]
    assert samples[1].prompt_tokens == 0, "a prompt is counted once"


def test_recorded_logprobs_and_tool_calls_are_taken(tmp_path: Path) -> None:
    body = {**chat("hello"), "max_tokens": 9, "logprobs": True, "top_logprobs": 2}
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"street": "Mill Lane"}'}}
    calling = {**answer(body), "choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    result, _ = taken(tmp_path, {"request": chat("a"), "response": answer(body)}, {"request": chat("b"), "response": calling})
    _, samples = taken(tmp_path, {"request": chat("c"), "response": answer(body)}, name="more.jsonl")
    assert [sample.tool_calls for sample in samples] == [
        None,
        [{"name": "look_up", "arguments": '{"street": "Mill Lane"}'}],
        None,
    ]
    rows = pyarrow.parquet.read_table(result.path.with_name("logprobs.parquet")).to_pylist()
    assert [row["id"] for row in rows] == [samples[0].id, samples[2].id], "what an earlier import brought stays"
    assert " ".join(rows[0]["tokens"]) == samples[0].text


def test_batch_files_are_joined_by_custom_id(tmp_path: Path) -> None:
    asked = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": chat(f"q{n}")} for n in range(3)]
    done = [
        {
            "custom_id": f"r{n}",
            "response": {"status_code": 200, "body": answer({**chat(f"q{n}"), "max_tokens": 9})},
            "error": None,
        }
        for n in (2, 0)
    ]
    failed = {"custom_id": "r1", "response": {"status_code": 429, "body": {}}, "error": {"message": "late"}}
    orphan = {"custom_id": "r9", "response": {"status_code": 200, "body": done[0]["response"]}}
    result, samples = taken(tmp_path, *done, failed, orphan, *asked)
    assert [sample.prompt[0]["content"] for sample in samples] == ["q2", "q0"]
    failures = [json.loads(line) for line in (tmp_path / "run/generate/failures.jsonl").read_text().splitlines()]
    assert [failure["id"].rsplit(":", 1)[1] for failure in failures] == ["3", "4"]
    assert "late" in failures[0]["message"]
    assert "import the batch's input file" in failures[1]["message"]
    assert result.unread == 2


def test_plain_lines_and_our_own_samples_are_taken(tmp_path: Path) -> None:
    result, samples = taken(
        tmp_path,
        {"prompt": "p1", "completion": "c1", "reference": "r1", "slice": "hard", "group": 7},
        {
            "prompt": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "p2"}]}],
            "completion": [{"role": "assistant", "content": "c2"}],
            "finish_reason": "length",
            "completion_tokens": 4,
        },
        {"messages": [{"role": "user", "content": "p3"}, {"role": "assistant", "content": "c3", "refusal": None}]},
        {"prompt": "p1", "completion": "another"},
        {"prompt": "p1", "completion": "c1"},
        teacher="old-model",
    )
    assert [(s.text, s.sample, s.finish_reason) for s in samples] == [
        ("c1", 0, "stop"),
        ("c2", 0, "length"),
        ("c3", 0, "stop"),
        ("another", 1, "stop"),
        ("c1", 2, "stop"),
    ], "the same answer twice is two samples: which one goes is the filter's to say"
    assert (samples[0].reference, samples[0].slice, samples[0].group) == ("r1", "hard", "7")
    assert samples[1].prompt == [{"role": "system", "content": "s"}, {"role": "user", "content": "p2"}]
    assert (result.new, result.known) == (5, 0)
    again, _ = taken(
        tmp_path / ".." / tmp_path.name,
        *(json.loads(line) for line in result.path.read_text().splitlines()),
        teacher="old-model",
        name="again.jsonl",
    )
    assert (again.new, again.known, again.samples) == (0, 5, 5)
    more, _ = taken(tmp_path, {"prompt": "p4", "completion": "c4"}, teacher="old-model", name="more.jsonl")
    assert (more.new, more.samples) == (1, 6), "what an earlier import brought stays"


def test_what_cannot_be_read_is_listed_by_line(tmp_path: Path) -> None:
    result, _ = taken(
        tmp_path,
        {"prompt": "p", "completion": "c"},
        "{torn",
        "[1]",
        {"prompt": " ", "completion": "c"},
        {"prompt": "p", "completion": ""},
        {"messages": [{"role": "assistant", "content": "c"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "c"}]},
        {"request": chat("x"), "response": {"choices": []}},
        {"request": {"messages": "x"}, "response": {"choices": [{"message": {}}]}},
        '{"prompt": "p", "completion": "c", "x": %s}' % ("[" * 5000),
        '{"prompt": "p", "completion": "c", "x": %s}' % ("9" * 5000),
        '{"prompt": "p2", "completion": "c", "prompt_tokens": 1e999, "x": NaN}',
        teacher="t",
    )
    lines = [json.loads(line) for line in (tmp_path / "run/generate/failures.jsonl").read_text().splitlines()]
    assert sorted(int(line["id"].rsplit(":", 1)[1]) for line in lines) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (result.read, result.unread) == (12, 10)
    with pytest.raises(UsageError, match=r"no recorded completion could be read: .*:1: not a line that can be read"):
        taken(tmp_path, {"response": {}}, name="bad.jsonl")


def test_without_a_name_the_teacher_is_recorded_and_a_lines_id_is_its_prompts(tmp_path: Path) -> None:
    result, samples = taken(
        tmp_path,
        {"id": "row-1", "prompt": "p", "completion": "c"},
        {"prompt": "q", "completion": "d", "model": "m"},
        {"id": "row-1", "prompt": "another", "completion": "c"},
    )
    assert samples[0].id == "row-1:recorded:0"
    assert samples[1].teacher == "m"
    assert (result.new, result.unread, result.teachers) == (2, 1, ["recorded", "m"])


def test_filter_goes_on_without_a_recipe_and_generate_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"Name a colour like {n}.", "completion": f"Colour {n} is blue."}) + "\n" for n in range(9)
        )
    )
    assert main(["import", str(tmp_path / "run"), str(path), "--teacher", "t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 9
    assert main(["filter", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read"] == 9
    assert main(["generate", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"] is True


def test_the_teacher_is_not_sent_again_what_was_imported(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "completion": f"recorded {n}"} for n in range(4)]
    taken(tmp_path, *rows, teacher="teacher")
    with ChatServer() as server:
        result = generate(Run(tmp_path / "run"), recipe(server, prompts_file(tmp_path, range(6))), Silent())
    assert len(server.requests) == 2
    assert [sample.text for sample in read_samples(result.path)][:4] == [f"recorded {n}" for n in range(4)]
