"""What a caller gets of the stream of a student or a teacher, whatever these send."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Wire
from served_runs import UNSURE, asked, send, served, student_answer

HOSTILE: list[tuple[bytes, str]] = [  # events of a student, and who answers
    (b'{"choices": 5}', "teacher"),
    (b'{"choices": [5]}', "teacher"),
    (b"[1]", "teacher"),
    (b'{"choices": [{"index": -7, "delta": {"content": "a"}, "finish_reason": "stop"}]}', "teacher"),
    (b'{"choices": [{"delta": 5, "logprobs": 5, "finish_reason": "stop"}]}', "teacher"),
    (b'{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"logprob": NaN}]}}]}', "teacher"),
    (b'{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"logprob": -1e999}]}}]}', "teacher"),
    (
        b'{"choices": [{"delta": {"content": "a", "x": 1e999}, "logprobs": {"content": [{"logprob": 0, "x": 1e999}]}}],'
        b' "usage": {"total_tokens": 1e999}}',
        "student",
    ),
]


@pytest.mark.parametrize(("event", "by"), HOSTILE)
def test_whatever_a_student_streams_the_caller_gets_json(tmp_path: Path, event: bytes, by: str) -> None:
    wire = Wire(200, b"data: " + event + b"\n\ndata: [DONE]\n\n", {"Content-Type": "text/event-stream"})
    student = ChatServer(lambda *_: wire, model="student")
    with served(tmp_path, student=student, options={"decide_on": 1}) as server:
        reply = send(server, asked(stream=True, logprobs=True, stream_options={"include_usage": True}))
        assert (reply.status_code, reply.headers["x-seqdistill-model"]) == (200, by)
        events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
        assert events.pop() == "[DONE]"
        for one in events:
            json.loads(one, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def chunk(text: str = "", finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}], **fields}


USED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


STREAMS: dict[
    str, tuple[list[dict[str, Any]], str | None, list[Any]]
] = {  # chunks of a student; finish reason, usages; None: it failed
    "plain": ([chunk("a"), chunk("b"), chunk(finish="stop"), {"choices": [], "usage": USED}], "stop", [USED]),
    "usage in every chunk": (
        [chunk("a", usage={**USED, "completion_tokens": 1}), chunk("b", "stop", usage=USED)],
        "stop",
        [USED],
    ),
    "no usage": ([chunk("a"), chunk("b", "stop")], "stop", []),
    "an empty reason meanwhile": ([chunk("a", ""), chunk("b", "null"), chunk(finish="length")], "length", []),
    "another word for the end": ([chunk("a"), chunk("b"), chunk(finish="eos_token")], "stop", []),
    "another word for the limit": ([chunk("a"), chunk("b", "max_tokens")], "length", []),
    "no reason": ([chunk("a"), chunk("b")], "stop", []),
    "broken off": ([chunk("a"), chunk("b"), chunk(finish="abort")], None, []),
}


@pytest.mark.parametrize("about", STREAMS)
def test_a_student_s_stream_is_passed_on_as_openai_writes_it(tmp_path: Path, about: str) -> None:
    chunks, finish, usages = STREAMS[about]
    content = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    wire = Wire(200, content.encode(), {"Content-Type": "text/event-stream"})
    student, options = ChatServer(lambda *_: wire, model="student"), {"threshold": 0.0, "decide_on": 0}
    with served(tmp_path, student=student, options=options) as server:
        reply = send(server, asked(stream=True, stream_options={"include_usage": True}))
    if finish is None:
        assert (reply.headers["x-seqdistill-model"], reply.headers["x-seqdistill-reason"]) == ("teacher", "student failed")
        return
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in choices) == "ab"
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == [finish]
    assert [event["usage"] for event in events if event.get("usage")] == usages


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_model_that_breaks_off_in_the_midst_of_a_stream_is_an_event(tmp_path: Path, who: str) -> None:
    cut = {who: ChatServer(lambda *_: "cut", model=who, reply=student_answer)}
    with served(tmp_path, **cut, options={"decide_on": 1}) as server:  # type: ignore[arg-type]
        text = {"student": "Hello", "teacher": UNSURE}[who]
        events = [line.removeprefix("data: ") for line in send(server, asked(text, stream=True)).text.splitlines() if line]
        assert json.loads(events[1])["choices"][0]["delta"]["content"], "what came before it is passed on"
        assert json.loads(events[-1])["error"]["code"] == "broken_off" and "[DONE]" not in events
        other = {"student": UNSURE, "teacher": "Hello"}[who]
        assert send(server, asked(other, stream=True)).text.endswith("data: [DONE]\n\n")
