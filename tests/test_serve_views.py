"""What student and teacher are shown of a request, and a teacher's stream as a caller may see it. Loads no model."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from served_runs import TEMPLATE, UNSURE, asked, recipe_of, run_to_serve, send, served, student_answer

from seqdistill.engines import Completion, Request
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal, request_key
from seqdistill.reasoning import split_reasoning
from seqdistill.records import write_json
from seqdistill.runs import StageRecord
from seqdistill.serve.views import views_of

SYSTEM = {"role": "system", "content": "You are careful."}
TEACHER = [SYSTEM, {"role": "user", "content": "Answer in some words, please: Hello"}]
STUDENT = [{"role": "user", "content": "Answer: Hello"}]
OWN = [{"role": "system", "content": "Speak French."}, {"role": "user", "content": "Hello"}]
EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def template(folder: Path, text: str = TEMPLATE) -> str:
    (folder / "task.toml").write_text(text)
    return str(folder / "task.toml")


@pytest.mark.parametrize(
    ("sent", "teacher", "student"),
    [
        ([{"role": "user", "content": "Hello"}], TEACHER, STUDENT),
        (TEACHER, TEACHER, STUDENT),  # what the teacher was sent until now
        (STUDENT, TEACHER, STUDENT),
        (OWN, OWN, OWN),
        ([*EARLIER, {"role": "user", "content": "Hello"}], [SYSTEM, *EARLIER, TEACHER[1]], [*EARLIER, *STUDENT]),
    ],
)
def test_each_way_to_ask_gives_both_views(tmp_path: Path, sent: Any, teacher: Any, student: Any) -> None:
    views = views_of(template(tmp_path), tmp_path).of(sent, {})
    assert (views["teacher"], views["student"]) == (teacher, student)


def test_the_student_s_view_is_the_one_it_was_trained_with(tmp_path: Path) -> None:
    write_json(tmp_path / "prompt_template.json", {"system": "Trained so.", "user": "{{ prompt }}"})
    views = views_of(template(tmp_path), tmp_path).of([{"role": "user", "content": "Hello"}], {})
    assert views["student"] == [{"role": "system", "content": "Trained so."}, {"role": "user", "content": "Hello"}]
    assert views["teacher"] == TEACHER


def test_further_variables_come_from_metadata_and_a_missing_one_is_named(tmp_path: Path) -> None:
    views = views_of(template(tmp_path, '[teacher]\nuser = "In {{ place }}: {{ prompt }}"\n'), tmp_path)
    sent = [{"role": "user", "content": "Hello"}]
    assert views.of(sent, {"place": "Bern"})["student"][0]["content"] == "In Bern: Hello"
    with pytest.raises(UsageError, match="place"):
        views.of(sent, {})


def thinking(body: Body) -> Body:
    reply = answer(body)
    reply["choices"][0]["message"]["content"] = "<think> Let me see. </think> One two three END four"
    return reply


def test_a_teacher_s_stream_shows_neither_reasoning_nor_what_follows_a_stop(tmp_path: Path) -> None:
    with served(tmp_path, teacher=ChatServer(reply=thinking)) as server:
        body = {"messages": [{"role": "user", "content": UNSURE}], "stop": ["END"], "stream": True}
        lines = server.http.post(server.url + "/chat/completions", json=body).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        parts = [choice["delta"].get("content", "") for event in events for choice in event["choices"]]
        assert "".join(parts) == "One two three " and len([part for part in parts if part]) > 1
        whole = server.http.post(server.url + "/chat/completions", json={**body, "stream": False}).json()
        assert whole["choices"][0]["message"]["content"] == "One two three "
        assert whole["choices"][0]["finish_reason"] == "stop"


WRITTEN = {  # a reply's message, and the answer in it
    "plain": ({"content": "yes, it is"}, "yes, it is"),
    "tags": ({"content": "<think>\nSix times seven.\n</think>\n\nyes, it is"}, "yes, it is"),
    "other tags": ({"content": "<reasoning>Six times seven.</reasoning> yes, it is"}, "yes, it is"),
    "two blocks": ({"content": "<think>Six</think> <think>times seven.</think> yes, it is"}, "yes, it is"),
    "opened by the prompt": ({"content": "Six times seven.\n</think>\n\nyes, it is"}, "yes, it is"),
    "cut off": ({"content": "<think>\nSix times seven."}, ""),
    "channels": (
        {
            "content": "<|channel|>analysis<|message|>Six times seven.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>yes, it is"
        },
        "yes, it is",
    ),
    "beside it": ({"content": "yes, it is", "reasoning_content": "Six times seven."}, "yes, it is"),
    "never closed, and beside it": (
        {"content": "<think> is a tag", "reasoning_content": "They ask for one."},
        "<think> is a tag",
    ),
    "never closed words": ({"content": "Here is my thought process: yes, it is"}, "Here is my thought process: yes, it is"),
    "closed only, and beside it": (
        {"content": "It ends by </think> then", "reasoning": "They ask."},
        "It ends by </think> then",
    ),
    "tags of the answer": ({"content": "<b>yes</b>, it is"}, "<b>yes</b>, it is"),
    "a tag within the answer": ({"content": "The tag <think> begins </think> ends it"}, None),
}


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("markup", WRITTEN)
def test_an_answer_is_served_and_logged_without_reasoning(tmp_path: Path, markup: str, who: str) -> None:
    message, expected = WRITTEN[markup]

    def reply(body: Body) -> Body:
        found = student_answer(body)
        found["choices"][0]["message"] = {"role": "assistant", **message}
        found["choices"][0].pop("logprobs", None)
        return found

    expected = split_reasoning(message["content"])[0] if expected is None else expected
    servers = {who: ChatServer(model="student" if who == "student" else "teacher", reply=reply)}
    options = {"threshold": 0.0, "shadow": 1.0} if who == "student" else {"record": True}
    with served(tmp_path, options=options, **servers) as server:  # type: ignore[arg-type]
        for number, stream in enumerate((False, True)):  # the first answer shows whether the prompt opens the block
            got = send(server, asked(f"Hello {number}", stream=stream))
            lines = got.text.splitlines() if stream else []
            events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
            parts = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
            text = "".join(parts) if stream else got.json()["choices"][0]["message"]["content"]
            assert (stream, text) == (stream, expected)
    key = "student" if who == "student" else "messages"
    said = [row[key] if key == "student" else row[key][-1]["content"] for row in server.log()]
    assert said == ([expected] * 2 if expected else [])


@pytest.mark.parametrize(("who", "stage"), [("teacher", "generate"), ("teacher", "serve"), ("student", "eval")])
def test_earlier_answers_show_whether_a_model_s_prompt_opens_the_reasoning(tmp_path: Path, who: str, stage: str) -> None:
    def reply(body: Body) -> Body:
        found = answer(body)
        found["choices"][0]["message"]["content"] = "Okay, let me see.\n</think>\n\nyes, it is"
        return found

    run = run_to_serve(tmp_path / "run")
    known = identity(recipe_of(run, "", "http://x/v1").teacher) if who == "teacher" else "the student@1"
    request = Request("a", TEACHER, 9)
    raw = reply({"model": "teacher", "messages": TEACHER})
    StageRecord(run, "eval", {"student.model": "the student@1"}, {}).finish({}, config={})
    with Journal(run.file(stage, "journal.jsonl")) as journal:
        journal.append(known, [(request_key(request, known), request, Completion("a", "yes, it is", raw=raw))])
    models = {who: ChatServer(model=who, reply=reply)}
    options: dict[str, Any] = {"record": True} if who == "teacher" else {"threshold": 0.0}
    with served(tmp_path, run=run, **models, options=options) as server:  # type: ignore[arg-type]
        lines = send(server, asked(stream=True)).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(one["delta"].get("content", "") for event in events for one in event["choices"]) == "yes, it is"


def test_a_task_with_choices_is_decided_on_whole_answers_and_keeps_to_them(tmp_path: Path) -> None:
    def chooses(body: Body) -> Body:
        reply = answer(body)
        reply["choices"][0]["message"]["content"] = json.dumps({"choice": "yes"})
        return reply

    with served(tmp_path, teacher=ChatServer(reply=chooses), generate={"choices": ["yes", "no"]}) as server:
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "Hello"}], "stream": stream}
            reply = server.http.post(server.url + "/chat/completions", json=body)
            assert reply.headers["x-seqdistill-model"] == "teacher"  # the student's words are none of the choices
            assert reply.headers["x-seqdistill-confidence"] == "0.000000"
            assert '"yes"' in reply.text and "choice\\" not in reply.text
        assert "response_format" not in server.student.requests[0]
        assert server.teacher.requests[0]["response_format"]
