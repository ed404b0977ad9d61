"""Who answers a served request, and what it costs: the switch, the share, the budget, a student or a teacher that is dead."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import openai
import pytest
from chat_server import Body, ChatServer, Wire, answer
from generate_runs import Notes
from served_runs import PRICE, UNSURE, asked, recipe_of, run_to_serve, send, served, student_answer

from seqdistill.serve import app as app_module
from seqdistill.serve.server import ServeOptions, Serving


def test_the_kill_switch_sends_everything_to_the_teacher_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        switch = server.run.file("serve", "teacher_only")
        by = [send(server, asked()).headers["x-seqdistill-model"]]
        switch.touch()
        by.append(send(server, asked()).headers["x-seqdistill-model"])
        assert server.http.get(server.root + "/health").json()["teacher_only"] is True
        switch.unlink()
        by.append(send(server, asked()).headers["x-seqdistill-model"])
        assert by == ["student", "teacher", "student"] and len(server.student.requests) == 2


def test_a_share_of_the_traffic_goes_to_the_student_the_same_each_time(tmp_path: Path) -> None:
    with served(tmp_path, options={"share": 0.3}) as server:
        first, again = ([send(server, asked(f"Tell {n}")).headers["x-seqdistill-model"] for n in range(60)] for _ in range(2))
        assert first == again and 8 <= first.count("student") <= 28
        named = {send(server, asked(), **{"x-request-id": str(n)}).headers["x-seqdistill-model"] for n in range(30)}
        assert named == {"student", "teacher"}  # the caller's own id is what is drawn by


def test_the_budget_is_a_hard_cap_over_restarts_and_the_student_continues(tmp_path: Path) -> None:
    run, statuses = run_to_serve(tmp_path / "run"), []
    billed = 0.0
    for restart in range(2):
        with served(tmp_path, run=run, options={"budget": 0.8}) as server:
            for n in range(8):
                reply = send(server, asked(f"{UNSURE} {restart} {n}", max_tokens=16))
                statuses.append(reply.status_code)
            assert reply.json()["error"]["code"] == "budget_reached"
            assert send(server, asked("Hello")).headers["x-seqdistill-model"] == "student"
            billed += server.teacher.billed_usd(PRICE)
    assert 200 in statuses[:8] and 503 in statuses[:8]
    assert billed <= 0.8
    with served(tmp_path, run=run, options={"budget": 0.8, "without_teacher": "student"}) as server:
        reply = send(server, asked(f"{UNSURE} again", max_tokens=16))
        assert (reply.status_code, reply.headers["x-seqdistill-model"]) == (200, "student")
        assert reply.headers["x-seqdistill-reason"] == "no teacher"
        streamed = send(server, asked(f"{UNSURE} again", max_tokens=16, stream=True))
        assert streamed.headers["x-seqdistill-model"] == "student" and streamed.text.endswith("data: [DONE]\n\n")
    rest: dict[str, Any] = {"share": 0.0, "budget": 0.8, "without_teacher": "student"}
    with served(tmp_path, run=run, options=rest) as server:  # nor has the teacher's share of the traffic a teacher
        for stream in (False, True):
            reply = send(server, asked("Hello again", max_tokens=16, stream=stream))
            assert (reply.status_code, reply.headers.get("x-seqdistill-reason")) == (200, "no teacher")
        server.run.file("serve", "teacher_only").touch()
        assert send(server, asked("Hello again", max_tokens=16)).status_code == 503, "the switch stops the student for good"


def test_an_answer_that_was_paid_is_not_paid_again(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    for _ in range(2):
        with served(tmp_path, run=run) as server:
            texts = [send(server, asked(UNSURE)) for _ in range(2)]
            assert len({reply.json()["choices"][0]["message"]["content"] for reply in texts}) == 1
            assert float(texts[1].headers["x-seqdistill-usd"]) == 0
    assert len(server.teacher.requests) == 0  # the second server found it in the journal


def test_a_sample_without_a_seed_is_drawn_anew_and_under_the_same_request_id_it_is_paid_once(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for text, model in (("Hello", server.student), (UNSURE, server.teacher)):
            seeds: list[dict[str, int]] = [{}, {}, {"seed": -1}, {"seed": -1}]
            bodies = [asked(text, temperature=1, **seed) for seed in seeds]
            said = {send(server, body).json()["choices"][0]["message"]["content"] for body in bodies}
            assert len(said) == 4, text
            before = len(model.requests)
            named = [send(server, asked(text, temperature=1), **{"x-request-id": "a"}) for _ in range(2)]
            assert len({reply.json()["choices"][0]["message"]["content"] for reply in named}) == 1
        assert len(model.requests) == before + 1


def test_choices_are_paid_all_or_none(tmp_path: Path) -> None:
    with served(tmp_path, options={"budget": 2.0}) as server:  # a choice costs up to 1 USD
        reply = send(server, asked(UNSURE, n=4))
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "budget_reached")
        assert not server.teacher.requests
        assert send(server, asked(UNSURE)).status_code == 200


@pytest.mark.parametrize("concurrency", [1, 2, 1000])
@pytest.mark.parametrize(("budget", "whole"), [(6.3, 1), (8.2, 2), (3.9, 0)])
def test_choices_of_overlapping_requests_are_paid_all_or_none(
    tmp_path: Path, concurrency: int, budget: float, whole: int
) -> None:
    def dear(body: Body) -> Body:  # 0.94 of the 1 USD that it may cost
        return {**answer(body), "usage": {"prompt_tokens": 300, "completion_tokens": 64, "total_tokens": 364}}

    async def several(url: str) -> list[httpx2.Response]:
        async with httpx2.AsyncClient(timeout=30.0) as client:
            bodies = [asked(f"Tell {n}", n=4, temperature=1) for n in range(2)]
            return await asyncio.gather(*(client.post(url + "/chat/completions", json=body) for body in bodies))

    options, generate = {"budget": budget, "record": True}, {"concurrency": concurrency}
    with served(tmp_path, teacher=ChatServer(seconds=0.05, reply=dear), options=options, generate=generate) as server:
        replies = asyncio.run(several(server.url))
        assert sorted(reply.status_code for reply in replies) == [200] * whole + [503] * (2 - whole)
        in_headers = sum(float(reply.headers.get("x-seqdistill-usd", 0)) for reply in replies)
        assert server.teacher.billed_usd(PRICE) == pytest.approx(in_headers)
        last = send(server, asked("Tell 9"))  # what was set aside is free again
        assert (last.status_code == 200) == (in_headers + 1 < budget)


def test_what_no_price_is_known_for_has_no_cost_in_its_headers(tmp_path: Path) -> None:
    with served(tmp_path, price={}) as server:
        for stream in (False, True):
            reply = send(server, asked(f"{UNSURE} {stream}", stream=stream))
            assert reply.headers["x-seqdistill-model"] == "teacher" and "x-seqdistill-usd" not in reply.headers


def test_a_dead_student_without_a_teacher_is_named_to_callers_and_once_to_the_operator(tmp_path: Path) -> None:
    run, notes = run_to_serve(tmp_path / "run", threshold=0.0), Notes()
    with (
        ChatServer(model="student", reply=student_answer) as student,
        Serving(run, recipe_of(run, student.url, "", model=None), ServeOptions(port=0), notes) as serving,
        httpx2.Client(timeout=30.0) as client,
    ):
        student.stop()
        for _ in range(3):
            reply = client.post(serving.url + "/chat/completions", json=asked())
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "no_teacher")
            assert "student failed: its endpoint" in reply.json()["error"]["message"]
    assert sum("the student failed: its endpoint" in note for note in notes.notes) == 1


@pytest.mark.parametrize("kind", ["gone", "500", "hang", "html", "400"])
def test_a_dead_teacher_is_a_clear_error_while_the_student_continues(tmp_path: Path, kind: str) -> None:
    teacher = ChatServer(lambda *_: None if kind == "gone" else kind)
    with served(tmp_path, teacher=teacher, generate={"timeout": 0.5, "retries": 0}, options={"budget": 9.0}) as server:
        if kind == "gone":
            server.teacher.stop()
        for stream in (False, True):
            reply = send(server, asked(UNSURE, stream=stream))
            error = reply.json()["error"]
            expected = {"gone": (502,), "500": (502, 503), "hang": (504,), "html": (502,), "400": (400,)}[kind]
            assert reply.status_code in expected, error
            assert "the teacher gives no answer" in error["message"] and error["code"].startswith("teacher_")
            assert send(server, asked("Hello", stream=stream)).headers["x-seqdistill-model"] == "student"


@pytest.mark.parametrize(
    ("fault", "options", "code", "tries"),
    [
        (None, {"budget": 0.0001}, "budget_reached", 1),
        ("hang", {}, "teacher_timeout", 1),
        ("html", {}, "teacher_unavailable", 1),
        ("429 3600", {}, "teacher_busy", 2),
    ],
)
def test_what_no_retry_can_help_is_not_sent_and_perhaps_paid_again_by_the_openai_client(
    tmp_path: Path, fault: str | None, options: dict[str, Any], code: str, tries: int
) -> None:
    generate = {"timeout": 0.1, "retries": 0}
    with (
        patch.object(app_module, "TEACHER_RETRY_SECONDS", 0),
        served(tmp_path, teacher=ChatServer(lambda *_: fault), generate=generate, options=options) as server,
        server.client.with_options(max_retries=1) as client,
    ):
        with pytest.raises(openai.APIStatusError) as failed:
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": UNSURE}])
        assert failed.value.code == code
        assert len(server.student.requests) == tries


def test_a_dead_student_leaves_the_work_to_the_teacher(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        server.student.stop()
        for stream in (False, True):
            reply = send(server, asked("Hello", stream=stream))
            assert (reply.headers["x-seqdistill-model"], reply.headers["x-seqdistill-reason"]) == ("teacher", "student failed")
        page = server.http.get(server.root + "/metrics").text
        assert "seqdistill_student_failures_total 2" in page.splitlines()
        assert 'seqdistill_requests_total{model="teacher",reason="student failed"} 2' in page.splitlines()


# --- student endpoints that leave out, silently, what they do not know -----------------------------------------------------


def without_n(body: Body) -> Body:
    return student_answer({**body, "n": 1})


def without_logprobs(body: Body) -> Body:
    reply = student_answer(body)
    for choice in reply["choices"]:
        choice.pop("logprobs", None)
    return reply


def empty_logprobs(body: Body) -> Body:
    reply = student_answer(body)
    return {**reply, "choices": [{**choice, "logprobs": {"content": []}} for choice in reply["choices"]]}


def one_without_logprobs(body: Body) -> Body:
    reply = student_answer(body)
    reply["choices"][-1]["logprobs"] = None
    return reply


def without_endings(body: Body) -> Body:
    reply = student_answer(body)
    return {**reply, "choices": [{**choice, "finish_reason": None} for choice in reply["choices"]]}


DEAF: list[tuple[Callable[[Body], Body], dict[str, Any], str, str]] = [  # reply, fields of the request, who answers, why
    (without_logprobs, {}, "teacher", "no log-probabilities"),
    (without_logprobs, {"stream": True}, "teacher", "no log-probabilities"),
    (empty_logprobs, {}, "teacher", "no log-probabilities"),
    (one_without_logprobs, {"n": 2}, "teacher", "no log-probabilities"),
    (without_n, {"n": 3}, "student", ""),
    (without_n, {"n": 3, "temperature": 1.0, "seed": 5}, "student", ""),
    (without_n, {"n": 3, "stream": True}, "teacher", "1 of 3 choices"),
    (without_endings, {"n": 2}, "student", ""),
    (without_endings, {"n": 2, "stream": True}, "student", ""),
]


@pytest.mark.parametrize(("reply", "fields", "by", "why"), DEAF)
def test_what_a_student_leaves_out_is_named_and_its_caller_gets_whole_answers(
    tmp_path: Path, reply: Callable[[Body], Body], fields: dict[str, Any], by: str, why: str
) -> None:
    run, notes = run_to_serve(tmp_path / "run"), Notes()
    with (
        ChatServer(model="student", reply=reply) as student,
        ChatServer() as teacher,
        Serving(run, recipe_of(run, student.url, teacher.url), ServeOptions(port=0), notes) as serving,
        httpx2.Client(timeout=30.0) as client,
    ):
        got = client.post(serving.url + "/chat/completions", json=asked(**fields))
    assert (got.status_code, got.headers["x-seqdistill-model"]) == (200, by)
    lines = [line.removeprefix("data: ") for line in got.text.splitlines() if line and "[DONE]" not in line]
    endings = [c["index"] for line in lines for c in json.loads(line)["choices"] if c["finish_reason"]]
    assert endings == list(range(fields.get("n", 1)))
    assert [why in note for note in notes.notes if "the student failed" in note] == ([True] if why else [])
    if by == "student" and not fields.get("stream"):
        written = sum(one["completion_tokens"] for one in student.usages)
        assert json.loads(got.text)["usage"]["completion_tokens"] == written
        texts = {choice["message"]["content"] for choice in got.json()["choices"]}
        assert len(texts) == (fields["n"] if fields.get("temperature") or reply is without_endings else 1)


@pytest.mark.parametrize(("text", "by"), [("Hello", "student"), (UNSURE, "teacher")])
@pytest.mark.parametrize("n", [1, 2])
def test_a_student_that_does_not_know_streams_still_answers_them(tmp_path: Path, text: str, by: str, n: int) -> None:
    student = ChatServer(lambda _, body: Wire(200, student_answer(body)), model="student")
    with served(tmp_path, student=student) as server:
        whole = send(server, asked(text, n=n)).json()
        got = send(server, asked(text, n=n, stream=True, stream_options={"include_usage": True}))
    assert (got.status_code, got.headers["x-seqdistill-model"]) == (200, by)
    chunks = [json.loads(line.removeprefix("data: ")) for line in got.text.splitlines() if line.startswith("data: {")]
    said = [""] * n
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == [choice["message"]["content"] for choice in whole["choices"]] and got.text.endswith("data: [DONE]\n\n")
    assert [chunk["usage"] for chunk in chunks if "usage" in chunk] == [whole["usage"]]


def test_a_student_is_not_sent_what_its_options_omit_and_of_several_urls_the_one_used_is_named(tmp_path: Path) -> None:
    run, notes = run_to_serve(tmp_path / "run"), Notes()
    with ChatServer(model="student", reply=student_answer) as student:
        recipe = recipe_of(run, student.url, "http://127.0.0.1:9/v1")
        recipe.student.options.update({"omit": ["seed"], "min_p": 0.1})
        recipe.student.base_url.append("http://127.0.0.1:9/v1")
        with Serving(run, recipe, ServeOptions(port=0), notes) as serving, httpx2.Client(timeout=30.0) as client:
            assert client.post(serving.url + "/chat/completions", json=asked(seed=3)).status_code == 200
    assert "seed" not in student.requests[0] and student.requests[0]["min_p"] == 0.1
    assert any(f"of 2 student URLs only {student.url} is used" in note for note in notes.notes)


TOO_LONG = (  # what servers say of a limit beyond the student's context
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 2048 tokens and your "
    "request has 20 input tokens (4096 > 2048 - 20).",
    "This model's maximum context length is 2048 tokens. However, you requested 4116 tokens (20 in the messages, 4096 in the "
    "completion). Please reduce the length of the messages or completion.",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 20 `inputs` tokens and 4096 "
    "`max_new_tokens`",
    "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total of 4116 tokens",
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("says", TOO_LONG)
def test_a_caller_s_limit_beyond_the_student_s_context_does_not_send_it_to_the_teacher(
    tmp_path: Path, says: str, stream: bool
) -> None:
    def small(_: int, body: Body) -> Wire | None:
        return Wire(400, {"error": {"message": says, "code": 400}}) if body["max_tokens"] > 2000 else None

    with served(tmp_path, student=ChatServer(small, model="student", reply=student_answer)) as server:
        got = send(server, asked(max_tokens=4096, stream=stream))
        assert (got.status_code, got.headers["x-seqdistill-model"]) == (200, "student")
        assert [body["max_tokens"] for body in server.student.requests] == [4096, 64]  # as eval requested its answers


@pytest.mark.parametrize("knows_n", [True, False])
def test_agreement_is_that_of_all_the_samples_from_an_endpoint_that_knows_n_or_not(tmp_path: Path, knows_n: bool) -> None:
    def reply(body: Body) -> Body:
        said = answer(body if knows_n else {**body, "n": 1})
        for choice in said["choices"]:
            text = "yes" if not body["temperature"] or choice["message"]["content"] < "n" else "no way at all"
            choice["message"]["content"] = text
        return said

    run = run_to_serve(tmp_path / "run", confidence="agreement", samples=5, threshold=0.99)
    with served(tmp_path, run=run, student=ChatServer(model="student", reply=reply)) as server:
        got = send(server, asked())
        assert got.headers["x-seqdistill-model"] == "teacher"
        assert len(server.student.requests) == (2 if knows_n else 6)


# --- the form that one caller wants ---------------------------------------------------------------------------------------

OPEN_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
STRICT = {
    "type": "json_schema",
    "json_schema": {"name": "p", "strict": True, "schema": {**OPEN_SCHEMA, "additionalProperties": False}},
}
INVALID = "Invalid schema for response_format 'p': 'additionalProperties' is required to be supplied and to be false."


def openai_s_teacher(_: int, body: Body) -> Wire | None:
    """Refuses what OpenAI refuses, https://platform.openai.com/docs/guides/structured-outputs."""
    written = body.get("response_format") or {}
    inside = written.get("json_schema") or {}
    if inside.get("strict") and inside["schema"].get("additionalProperties") is not False:
        return Wire(400, {"error": {"message": INVALID, "type": "invalid_request_error", "param": "response_format"}})
    return None


def in_its_form(body: Body) -> Body:
    reply = answer(body)
    written = json.dumps(body.get("response_format") or {})
    if written != "{}":
        reply["choices"][0]["message"]["content"] = '{"choice": "yes"}' if "choice" in written else '{"name": "Ann"}'
    return reply


FORMS: list[tuple[dict[str, Any], int]] = [  # what another caller wants, and the status it gets
    ({"type": "json_object"}, 200),
    ({"type": "json_schema", "json_schema": {"name": "p", "strict": False, "schema": OPEN_SCHEMA}}, 200),
    ({"type": "json_schema", "json_schema": {"name": "p", "schema": OPEN_SCHEMA, "description": "A name."}}, 200),
    ({"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": OPEN_SCHEMA}}, 400),
    ({"type": "text"}, 200),
]


@pytest.mark.parametrize(("form", "status"), FORMS)
def test_one_caller_s_form_is_sent_as_written_and_changes_nobody_else_s(
    tmp_path: Path, form: dict[str, Any], status: int
) -> None:
    teacher = ChatServer(openai_s_teacher, reply=in_its_form)
    with served(tmp_path, teacher=teacher, options={"record": True}, generate={"choices": ["yes", "no"]}) as server:
        other = send(server, asked("first", response_format=form))
        assert other.status_code == status, other.text
        wanted = None if form["type"] == "text" else form
        assert wanted is None or server.teacher.requests[-1]["response_format"] == wanted
        if status == 400:
            assert INVALID in other.json()["error"]["message"]
        for text, fields, said in (("then", {"response_format": STRICT}, '{"name": "Ann"}'), ("last", {}, "yes")):
            assert send(server, asked(text, **fields)).json()["choices"][0]["message"]["content"] == said


def test_an_endpoint_that_knows_one_type_of_form_is_still_sent_that(tmp_path: Path) -> None:
    def deepseek_s(_: int, body: Body) -> Wire | None:
        kind = (body.get("response_format") or {}).get("type")
        error = {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}
        return Wire(400, {"error": error}) if kind == "json_schema" else None

    with served(tmp_path, teacher=ChatServer(deepseek_s), options={"record": True}) as server:
        for number, form in enumerate((STRICT, {"type": "json_object"}, STRICT)):
            assert send(server, asked(f"Tell {number}", response_format=form)).status_code == 200
            assert server.teacher.requests[-1].get("response_format") == (None if form is STRICT else form)
        assert len(server.teacher.requests) == 4
