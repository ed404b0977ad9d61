"""The endpoint with real clients in front of it and real HTTP servers behind it as student and teacher. Loads no model."""

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from full_disk import room_for
from served_runs import UNSURE, Served, asked, send, served, until

from seqdistill import api
from seqdistill.records import read_samples
from seqdistill.serve.log import KINDS, Exchange, Log
from seqdistill.serve.metrics import Metrics


def chat(server: Served, text: str = "Hello", **settings: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return server.client.chat.completions.with_raw_response.create(model="any", messages=messages, **settings)


def post(server: Served, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = server.http.post(server.root + path, content=content, headers=headers)
    return reply.status_code, reply.json()


def test_the_student_answers_what_it_is_sure_of_and_the_teacher_the_rest(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        sure, unsure = chat(server), chat(server, f"Hello, {UNSURE}")
        assert sure.headers["x-seqdistill-model"] == "student" and unsure.headers["x-seqdistill-model"] == "teacher"
        assert float(sure.headers["x-seqdistill-confidence"]) == pytest.approx(0.904837, abs=1e-6)
        assert float(unsure.headers["x-seqdistill-confidence"]) == pytest.approx(0.049787, abs=1e-6)
        assert float(sure.headers["x-seqdistill-usd"]) == 0
        price = {"prompt": 1000.0, "completion": 10000.0}
        assert float(unsure.headers["x-seqdistill-usd"]) == pytest.approx(server.teacher.billed_usd(price))
        assert [len(server.student.requests), len(server.teacher.requests)] == [2, 1]
        reply = unsure.parse()
        assert reply.choices[0].message.content and reply.choices[0].finish_reason == "stop" and reply.usage.total_tokens > 0


def test_each_model_is_shown_its_own_view_of_the_prompt(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        chat(server, f"{UNSURE}?")
        assert server.student.requests[0]["messages"] == [{"role": "user", "content": f"Answer: {UNSURE}?"}]
        assert server.teacher.requests[0]["messages"] == [
            {"role": "system", "content": "You are careful."},
            {"role": "user", "content": f"Answer in some words, please: {UNSURE}?"},
        ]


@pytest.mark.parametrize("text", ["Hello", f"{UNSURE}, hello"])
def test_a_stream_says_the_same_as_a_whole_answer(tmp_path: Path, text: str) -> None:
    with served(tmp_path) as server:
        whole = chat(server, text)
        stream = chat(server, text, stream=True, stream_options={"include_usage": True})
        assert stream.headers["x-seqdistill-model"] == whole.headers["x-seqdistill-model"]
        chunks = list(stream.parse())
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert said == whole.parse().choices[0].message.content
        assert chunks[-1].usage.total_tokens == whole.parse().usage.total_tokens
        assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
        by, tokens = whole.headers["x-seqdistill-model"], 2 * whole.parse().usage.completion_tokens
        counted = f'seqdistill_tokens_total{{model="{by}",of="completion"}} {tokens}'
        assert counted in server.http.get(server.root + "/metrics").text.splitlines()


def test_metrics_are_counted_to_the_last_digit() -> None:
    metrics = Metrics()
    for seconds in (2_000_000.0, 0.7):
        metrics.took("student", seconds)
    lines = metrics.text({"paid_usd": ("USD", 12345.678)}).splitlines()
    assert {'seqdistill_seconds_sum{model="student"} 2000000.7', "seqdistill_paid_usd 12345.678"} <= set(lines)


# --- log, shadow, feedback ------------------------------------------------------------------------------------------------


def test_the_log_of_recorded_answers_is_data_to_import(tmp_path: Path) -> None:
    with served(tmp_path, options={"record": True}) as server:
        texts = [chat(server, f"Tell {n}").parse().choices[0].message.content for n in range(3)]
        "".join(c.choices[0].delta.content or "" for c in chat(server, "Tell 3", stream=True).parse())
        assert not server.student.requests
    log = server.run.file("serve", "log.jsonl")
    (tmp_path / "next").mkdir()
    result = api.import_recorded(tmp_path / "next", [log], {"task": {"template": str(server.run.path / "task.toml")}})
    samples = list(read_samples(result.path))
    assert [one.text for one in samples][:3] == texts and len(samples) == 4
    assert samples[0].prompt == [{"role": "user", "content": "Answer: Tell 0"}]  # the student's view
    assert (samples[0].teacher, samples[0].finish_reason) == ("teacher", "stop")


PAID: list[tuple[dict[str, Any], bool]] = [  # a request, and whether its client goes away
    ({}, False),
    ({"n": 3}, False),
    ({"n": 2, "stream": True}, False),
    ({}, True),
    ({"n": 2}, True),
    ({"stream": True}, True),
]


@pytest.mark.parametrize(("fields", "goes_away"), PAID)
@pytest.mark.parametrize("options", [{"record": True}, {"threshold": 1.0, "decide_on": 1}], ids=["record", "student"])
def test_every_answer_that_is_paid_is_a_line_of_the_log_and_a_sample(
    tmp_path: Path, options: dict[str, Any], fields: dict[str, Any], goes_away: bool
) -> None:
    slow = ChatServer(seconds=0.3 if goes_away else 0.0)
    slow.stream_pause = 0.1 if goes_away else 0.0
    with served(tmp_path, options=options, teacher=slow) as server:
        body = asked("Tell", temperature=1, **fields)
        if not goes_away:
            send(server, body)
        else:
            with socket.create_connection(("127.0.0.1", server.serving.opened.port), timeout=10) as client:
                content = json.dumps(body).encode()
                head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content)
                client.sendall(head + content)
                until(lambda: len(server.teacher.requests) == fields.get("n", 1))
                if "stream" in fields:
                    assert client.recv(20)
    log, paid = server.log(), len(server.teacher.requests)
    assert paid == fields.get("n", 1) == len(log) == len({row["id"] for row in log})
    costs = [1e-3 * used["prompt_tokens"] + 1e-2 * used["completion_tokens"] for used in server.teacher.usages]
    assert sorted(row["usd"] for row in log) == pytest.approx(sorted(costs))
    (tmp_path / "next").mkdir()
    assert api.import_recorded(tmp_path / "next", [server.run.file("serve", "log.jsonl")], {}).samples == paid


def test_the_teacher_checks_a_share_of_the_student_s_answers_afterwards(tmp_path: Path) -> None:
    with served(tmp_path, options={"shadow": 0.25}, teacher=ChatServer(seconds=0.2)) as server:
        said = {chat(server, f"Tell {n}").parse().choices[0].message.content for n in range(40)}
    checked = server.log()
    assert {row["kind"] for row in checked} == {"shadow"} and 3 <= len(checked) <= 20
    assert len(server.teacher.requests) == len(checked)
    assert all(row["student"] in said and row["messages"][-1]["content"] for row in checked)
    assert checked[0]["messages"][0] == {"role": "system", "content": "You are careful."}
    assert checked[0]["confidence"] == pytest.approx(0.904837)


def test_feedback_is_logged_and_a_correction_is_data(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        one, other = chat(server, "Tell 1").parse(), chat(server, "Tell 2").parse()
        assert post(server, "/feedback", {"id": one.id, "completion": "Better."})[0] == 200
        assert post(server, "/feedback", {"id": other.id, "rating": -1})[0] == 200
        ratings = [b"1" + b"0" * 400, b"1" + b"0" * 5000, b"-1e10", b"1e999", b"NaN", b"true", b'"1"', b"[1]"]
        for wrong in (
            *({"id": "chatcmpl-x", "rating": 1}, {"id": one.id}, {"rating": 1}, {"id": one.id, "completion": " "}, []),
            *(b'{"id": "%s", "rating": %s}' % (one.id.encode(), rating) for rating in ratings),
            *({"id": "\ud83d", "rating": 1}, {"id": one.id, "completion": 5}, {"id": 5, "rating": 1}, b"\xff", b"[" * 100_000),
        ):
            status, body = post(server, "/feedback", wrong)
            assert status in (400, 404) and body["error"]["message"], wrong
    corrected, rated = server.log()
    assert corrected["messages"][-1] == {"role": "assistant", "content": "Better.", "weight": 1}
    assert corrected["student"] == one.choices[0].message.content
    assert (rated["rating"], rated["messages"][-1]["weight"]) == (-1, 0)
    (tmp_path / "next").mkdir()
    result = api.import_recorded(tmp_path / "next", [server.run.file("serve", "log.jsonl")], {})
    assert (result.samples, result.skipped, result.unread) == (1, 1, 0)
    assert next(read_samples(result.path)).text == "Better."


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_does_not_fit_leaves_the_log_whole(tmp_path: Path, kind: str, size: int) -> None:
    exchange = Exchange("a", [{"role": "user", "content": "Q"}], "A", "m", "teacher", "stop", 0.5, 0.0)
    notes: list[str] = []
    log = Log(tmp_path / "log.jsonl", notes.append)
    write: Any = {
        "teacher": lambda: log.answered(exchange),
        "shadow": lambda: log.shadowed(exchange, "A", "m", "stop", 0.0),
        "feedback": lambda: log.feedback("a", "Better.", None),
    }[kind]
    log.answered(exchange)
    with room_for(log.path.stat().st_size + size):
        for _ in range(2):
            with pytest.raises(OSError) if kind == "feedback" else contextlib.nullcontext():
                write()
    write()
    log.close()
    assert [json.loads(line)["kind"] for line in log.path.read_text().splitlines()] == ["teacher", kind]
    assert len(notes) == (kind != "feedback")


def test_a_log_that_is_moved_away_or_removed_continues_in_a_new_file(tmp_path: Path) -> None:
    path, notes = tmp_path / "log.jsonl", list[str]()
    log = Log(path, notes.append)

    def note(name: str) -> None:
        log.answered(Exchange(name, [{"role": "user", "content": "Q"}], "A", "m", "teacher", "stop", 0.5, 0.0))

    note("a")
    path.rename(moved := tmp_path / "log.jsonl.1")
    note("b")
    path.unlink()
    note("c")
    assert path.stat().st_size
    path.write_bytes(b"")  # copytruncate
    note("d")
    log.close()
    names = [[json.loads(line)["id"] for line in file.read_text().splitlines()] for file in (moved, path)]
    assert names == [["a"], ["d"]] and not notes


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["Hello", UNSURE])
def test_feedback_names_each_choice_of_student_and_teacher(tmp_path: Path, text: str, stream: bool) -> None:
    with served(tmp_path) as server:
        lines = send(server, asked(text, n=2, stream=stream)).text.splitlines()
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith(("{", "data: {"))]
        said = ["", ""]
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            said[choice["index"]] += choice.get("delta", choice.get("message")).get("content") or ""
        for number, name in enumerate((chunks[0]["id"], f"{chunks[0]['id']}:1")):
            assert post(server, "/feedback", {"id": name, "completion": f"Better {number}."})[0] == 200
            if text == "Hello":
                assert server.log()[-1]["student"] == said[number]
        assert post(server, "/feedback", {"id": f"{chunks[0]['id']}:2", "rating": 1})[0] == 404


def test_feedback_that_could_not_be_logged_is_an_error_and_can_be_sent_again(tmp_path: Path) -> None:
    with served(tmp_path, options={"record": True}) as server:
        name, log = chat(server).parse().id, server.run.file("serve", "log.jsonl")
        feedback = {"id": name, "completion": "Better."}
        with room_for(log.stat().st_size + 100):
            status, body = post(server, "/feedback", feedback)
        assert (status, body["error"]["code"]) == (507, "not_logged")
        assert post(server, "/feedback", feedback)[0] == 200
        assert [row["kind"] for row in server.log()] == ["teacher", "feedback"]


def test_an_import_takes_corrections_in_place_of_answers_and_leaves_out_what_was_rated_bad(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Tell 1"}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "More"}]
    log, known = tmp_path / "run" / "serve" / "log.jsonl", tmp_path / "before"
    known.mkdir()
    with served(tmp_path, options={"record": True}) as server:
        corrected, liked, restored = (chat(server, f"Tell {n}").parse() for n in range(3))
        disliked = server.client.chat.completions.create(model="any", messages=turns)  # type: ignore[arg-type]
        api.import_recorded(known, [log], {})
        for completion in ("Better.", "Best."):
            post(server, "/feedback", {"id": corrected.id, "completion": completion})
        for completion in ("Worse.", said := restored.choices[0].message.content):
            post(server, "/feedback", {"id": restored.id, "completion": completion})
        post(server, "/feedback", {"id": liked.id, "rating": 1})
        post(server, "/feedback", {"id": disliked.id, "rating": -1})
        chat(server, "Tell 0")  # the teacher says the same again
    for run in (tmp_path / "next", known):
        run.mkdir(exist_ok=True)
        result = api.import_recorded(run, [log], {})
        texts = sorted(sample.text for sample in read_samples(result.path))
        assert set(texts) == {"Best.", said, liked.choices[0].message.content}
        assert (result.taken_back, result.unread) == (5, 0)
