"""What clients do to a server: wrong requests, slow ones, ones that go away, too many, without a key."""

import asyncio
import gzip
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from chat_server import Body, ChatServer, Wire
from served_runs import PRICE, UNSURE, asked, recipe_of, run_to_serve, send, served, student_answer, until

from seqdistill import api
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, TaskConfig, TeacherConfig
from seqdistill.runs import Run, StageRecord
from seqdistill.serve import app as app_module
from seqdistill.serve.chat import read_chat
from seqdistill.serve.process import connections, stopping
from seqdistill.serve.routing import Switch
from seqdistill.serve.server import ServeOptions, Serving, _prepared
from seqdistill.stages.evaluate.contestants import student_of

WRONG: list[tuple[Any, str | None]] = [
    (b"{", None),
    (b"[]", None),
    (b'{"messages": [' + b"[" * 100_000, None),
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
    (asked(n=0), "n"),
    (asked(n=1.5), "n"),
    (asked(n=True), "n"),
    (asked(max_tokens="many"), "max_tokens"),
    (asked(max_tokens=0), "max_tokens"),
    (asked(max_completion_tokens=-1.0), "max_completion_tokens"),
    (asked(audio={"voice": "alloy"}), "audio"),
    (asked(temperature=-1), "temperature"),
    (asked(top_p=2), "top_p"),
    (asked(stream="yes"), "stream"),
    (asked(stop=[1]), "stop"),
    (asked(top_logprobs=99), "top_logprobs"),
    (asked(response_format={"type": "xml"}), "response_format"),
    (asked(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "no such"}}}), "response_format"),
    (asked(tools=[{"type": "function"}]), "tools"),
    (asked(presence_penalty=1), "presence_penalty"),
    (asked(no_such_field=1), "no_such_field"),
    (b'{"messages": [{"role": "user", "content": "cut \\ud83d"}]}', "messages"),
    (b'{"messages": [{"role": "user", "content": "a"}], "stop": "\\uDC00"}', "stop"),
]
WITHOUT_EFFECT: list[dict[str, Any]] = [
    {"user": "a", "metadata": {"a": "b"}, "presence_penalty": 0, "tool_choice": "none"},
    {"tools": [{"type": "function", "function": {"name": "find"}}], "tool_choice": "none"},
    {"functions": [{"name": "find"}], "function_call": "none"},
    {"max_tokens": -1, "continue_final_message": False, "plugins": []},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    {"logprobs": False, "top_logprobs": 0},
    {
        "min_tokens": 0,
        "ignore_eos": False,
        "skip_special_tokens": True,
        "add_generation_prompt": True,
        "echo": False,
        "best_of": 1,
    },
]
IGNORED: list[dict[str, Any]] = [  # what applications send with each model's own API; the answer says that it has no effect
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"enable_thinking": False, "thinking_budget": 100},
    {"include_reasoning": False, "provider": {"order": ["x"]}, "usage": {"include": True}},
    {"keep_alive": "5m", "cache_prompt": True, "top_k": 20},
    {"models": ["a", "b"], "transforms": ["middle-out"], "reasoning_format": "none", "safe_prompt": False},
]


def test_wrong_requests_are_refused_in_openai_s_form_and_sent_to_nobody(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for body, param in WRONG:
            reply = send(server, body)
            error = reply.json()["error"]
            assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param), body
            assert error["message"]
        assert server.http.get(server.root + "/v1/nothing").json()["error"]["code"] == "unknown_url"
        assert server.http.get(server.root + "/v1/chat/completions").status_code == 405
        assert send(server, b'{"a": "' + b"x" * (5 << 20) + b'"}').json()["error"]["code"] == "request_too_large"
        assert server.http.get(server.root + "/v1/models/run").json()["id"] == "run"
        assert server.http.get(server.root + "/v1/models/other").json()["error"]["code"] == "model_not_found"
        assert not server.student.requests and not server.teacher.requests
        for fields in ({"stream": False}, {"stream": True}):  # what an application sets for the model that answered before
            reply = send(server, asked(reasoning_effort="low", top_k=20, verbosity=None, **fields))
            assert (reply.status_code, reply.headers["x-seqdistill-ignored"]) == (200, "reasoning_effort, top_k")
        for fields in IGNORED:
            reply = send(server, asked(**fields))
            assert reply.status_code == 200, reply.text
            assert {*reply.headers["x-seqdistill-ignored"].split(", ")} == fields.keys()
        for fields in WITHOUT_EFFECT:
            reply = send(server, asked(**fields))
            assert (reply.status_code, reply.json()["choices"][0]["logprobs"]) == (200, None), fields


USER, NEXT = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
HISTORIES: list[tuple[list[dict[str, Any]], list[str]]] = [  # what clients send, and the roles that a model is sent
    ([USER, {"role": "assistant", "content": ""}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant", "content": None}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant"}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant", "content": " \n"}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant", "content": []}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant", "content": [{"type": "text", "text": ""}]}, NEXT], ["user", "user"]),
    ([USER, {"role": "assistant", "content": None, "refusal": "No."}, NEXT], ["user", "assistant", "user"]),
    ([USER, {"role": "assistant", "content": ""}], ["user"]),
    ([{"role": "system", "content": ""}, USER], ["user"]),
    ([{"role": "developer", "content": None}, USER], ["user"]),
    ([{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, USER], ["system", "user"]),
]


A_SCHEMA = {"type": "object", "required": ["name"]}
SCHEMAS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [  # a response format as clients write it, and the schema in it
    ({"type": "text"}, None),
    ({"type": "json_object"}, {"type": "object"}),
    ({"type": "json_object", "schema": A_SCHEMA}, A_SCHEMA),
    ({"type": "json_schema", "json_schema": {"name": "a", "schema": A_SCHEMA}}, A_SCHEMA),
]


def test_a_schema_is_read_wherever_a_response_format_has_it() -> None:
    for written, schema in SCHEMAS:
        assert read_chat(json.dumps(asked(response_format=written)).encode()).schema == schema, written


def test_histories_with_empty_messages_are_taken_as_chat_clients_keep_them(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    (run.path / "task.toml").write_text('[teacher]\nuser = "{{ prompt }}"\n')
    with served(tmp_path, run=run) as server:
        for messages, roles in HISTORIES:
            reply = send(server, {"model": "any", "messages": messages})
            assert reply.status_code == 200, (messages, reply.text)
            assert [message["role"] for message in server.student.requests[-1]["messages"]] == roles, messages


def test_headers_that_are_no_text_are_no_fault_of_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path) as server:
        for name in ("x-request-id", "Origin", "User-Agent", "Content-Type"):
            reply = send(server, asked(UNSURE, temperature=1), **{name: b"\xff\xed\xa0"})  # type: ignore[arg-type]
            assert reply.status_code in (200, 400, 403), (name, reply.text)
        assert server.http.get(server.root + "/v1/models/%FF").status_code == 404
        assert server.http.get(server.root + "/%FF").status_code == 404
        assert not caplog.records


PLAIN = json.dumps(asked()).encode()
COMPRESSED_BODIES: list[tuple[str, bytes, int]] = [
    ("gzip", gzip.compress(PLAIN), 200),
    ("deflate", zlib.compress(PLAIN), 200),
    ("deflate", zlib.compress(PLAIN)[2:-4], 200),  # without zlib's head and sum, as some clients send it
    ("identity", PLAIN, 200),
    ("gzip", gzip.compress(PLAIN)[:-9], 400),
    ("gzip", PLAIN, 400),
    ("deflate", b"abc", 400),
    ("gzip", gzip.compress(b'{"a": "' + b"x" * (5 << 20) + b'"}'), 413),
    *((way, b"abc", 415) for way in ("br", "zstd", "gzip, br", "x")),
]


def test_a_compressed_body_is_read_or_refused_in_openai_s_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path) as server:
        for way, body, status in COMPRESSED_BODIES:
            reply = send(server, body, **{"Content-Encoding": way})
            assert reply.status_code == status, (way, reply.text)
            assert status == 200 or reply.json()["error"]["type"] == "invalid_request_error"
        assert not caplog.records


NO_REQUESTS: list[tuple[bytes, bytes]] = [
    (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b" 400 "),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b" 400 "),
    (b"GET /health HTTP/1.1\r\n\r\n", b" 400 "),
    (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b" 413 "),
    (
        b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b" 400 Bad Request\r\nContent-Type: application/json",
    ),
]


def test_what_is_no_request_is_refused_at_once_and_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path) as server:
        for content, status in NO_REQUESTS:
            with socket.create_connection(("127.0.0.1", server.serving.opened.port), timeout=10) as client:
                client.sendall(content)
                assert status in client.recv(1000)
        assert not caplog.records


def test_a_client_of_http_1_0_gets_its_stream(tmp_path: Path) -> None:
    content = json.dumps(asked(stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    with served(tmp_path) as server, socket.create_connection(("127.0.0.1", server.serving.opened.port), timeout=10) as client:
        client.sendall(head + content)
        said = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert b"Transfer-Encoding" not in said and said.endswith(b"data: [DONE]\n\n")


def test_a_client_that_goes_away_ends_the_student_s_work_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    slow = ChatServer(model="student", reply=student_answer)
    slow.stream_pause = 0.3
    with served(tmp_path, student=slow, teacher=ChatServer(seconds=0.5), options={"decide_on": 1}) as server:
        with server.http.stream("POST", server.root + "/v1/chat/completions", json=asked(stream=True)) as reply:
            next(reply.iter_lines())
        until(lambda: server.student.in_flight == 0)
        with pytest.raises(httpx2.TimeoutException):
            server.http.post(server.root + "/v1/chat/completions", json=asked(UNSURE), timeout=0.2)
        until(lambda: server.serving.opened.metrics.in_flight == 0)
        again = send(server, asked(UNSURE))  # its answer comes for nobody, is kept, and is not requested again
        assert float(again.headers["x-seqdistill-usd"]) == 0
        assert len(server.teacher.requests) == 1
        assert "seqdistill_vanished_total 2" in server.http.get(server.root + "/metrics").text.splitlines()


def test_slow_clients_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqdistill.serve.bodies.BODY_SECONDS", 0.2)
    monkeypatch.setattr(app_module, "HEAD_SECONDS", 0.2)
    with served(tmp_path) as server:
        port = server.serving.opened.port
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in slow.recv(1000)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"POST /v1/chat/comp")
            assert slow.recv(1000) in (b"",)  # closed
        assert send(server, asked()).status_code == 200


def test_a_client_that_takes_nothing_of_its_stream_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "WRITE_SECONDS", 0.3)

    def long(body: Body) -> Body:
        reply = student_answer(body)
        reply["choices"][0]["message"]["content"] = " ".join(["x" * 100_000] * 80)  # more than the buffers on the way hold
        reply["choices"][0].pop("logprobs", None)
        return reply

    with served(tmp_path, student=ChatServer(model="student", reply=long), options={"threshold": 0.0}) as server:
        content = json.dumps(asked(stream=True)).encode()
        with socket.socket() as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            idle.connect(("127.0.0.1", server.serving.opened.port))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            idle.sendall(head.encode() + content)
            until(lambda: "seqdistill_vanished_total 1" in server.http.get(server.root + "/metrics").text.splitlines())
        until(lambda: server.student.in_flight == 0)


def test_too_many_requests_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    slow = ChatServer(model="student", reply=student_answer, seconds=1.0)
    with served(tmp_path, student=slow, options={"concurrency": 2}) as server:

        async def several() -> list[httpx2.Response]:
            async with httpx2.AsyncClient(timeout=30.0) as client:
                return await asyncio.gather(
                    *(client.post(server.root + "/v1/chat/completions", json=asked(str(n))) for n in range(6))
                )

        replies = asyncio.run(several())
        assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429, 429, 429]
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert int(refused.headers["Retry-After"]) > 0 and refused.json()["error"]["type"] == "rate_limit_error"
        assert send(server, asked()).status_code == 200


def test_the_process_may_open_the_files_that_its_requests_need(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
        assert connections(500, notes.append) == 500 and not notes
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1256  # a connection on each side, and what else is open
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert connections(1000, notes.append) == 384 and "ulimit -Hn" in notes[0]


def test_a_key_is_wanted_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", "right")
    with served(tmp_path, options={"api_key_env": "SERVER_KEY"}) as server:
        for sent in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer ключ".encode()},
            {"Authorization": "right"},
            {"Authorization": b"Bearer \xff"},
            {"Authorization": b"\xff right"},
            {"Authorization": b"Bearer right\xff"},
        ):
            for path in ("/v1/chat/completions", "/feedback"):
                reply = send(server, asked(), path, **sent)  # type: ignore[arg-type]
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.http.get(server.root + "/metrics").status_code == 401
        assert server.http.get(server.root + "/health").status_code == 200
        assert send(server, asked(), Authorization="Bearer right").status_code == 200
    monkeypatch.delenv("SERVER_KEY")


def test_a_page_of_another_site_cannot_use_a_server_without_a_key(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for headers in (
            *({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}, {"Host": "[::"}),
            *({"Host": "host.docker.internal.evil.example"}, {"Host": "wiki.internal"}, {"Host": "localhost.evil.example"}),
            *(
                {"Origin": "http://host.docker.internal"},
                {"Host": "host.docker.internal:8080", "Origin": "http://wiki.internal"},
            ),
        ):
            reply = send(server, asked(), **headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden_origin"), headers
            assert ("--api-key-env" in reply.text) == ("Origin" not in headers), "what helps"
        own = ({"Origin": "http://localhost:3000"}, {"Host": "student.localhost:8080"}, {"Origin": "http://app.localhost"})
        from_containers = ({"Host": "host.docker.internal:8080"}, {"Host": "host.containers.internal"})
        for headers in (*own, *from_containers):
            assert send(server, asked(), **headers).status_code == 200, headers
        assert len(server.student.requests) == len(own) + len(from_containers)


PAGES: list[tuple[str, bool]] = [  # where a page is from, and whether it may use the server
    ("https://app.example.org", True),
    ("http://localhost:3000", True),
    ("https://evil.example", False),
    ("https://app.example.org.evil.example", False),
    ("http://app.example.org", False),
    ("null", False),
]


@pytest.mark.parametrize("key", [None, "right"])
@pytest.mark.parametrize("stream", [False, True])
def test_pages_of_the_named_origins_and_no_others_can_use_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, stream: bool
) -> None:
    monkeypatch.setenv("SERVER_KEY", "right")
    options = {"cors_origin": [origin for origin, may in PAGES if may], "api_key_env": key and "SERVER_KEY"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    with served(tmp_path, options=options) as server:
        for origin, may in PAGES:
            path = server.root + "/v1/chat/completions"
            before = server.http.request("OPTIONS", path, headers={"Origin": origin, **asks})
            assert (before.status_code == 204) == may and before.headers.get("vary") == "Origin"
            assert before.headers.get("access-control-allow-headers") == (
                asks["Access-Control-Request-Headers"] if may else None
            )
            without = send(server, asked(stream=stream), Origin=origin)
            assert without.status_code == (401 if key else 200 if may else 403), "a preflight is no key"
            reply = send(server, asked(stream=stream), Origin=origin, **({"Authorization": f"Bearer {key}"} if key else {}))
            for one in (before, without, reply):
                assert one.headers.get("access-control-allow-origin") == (origin if may else None)
            assert not may or "x-seqdistill-model" in reply.headers["access-control-expose-headers"]
        assert send(server, asked(), Host="evil.example", Origin=PAGES[0][0]).status_code == (401 if key else 403)
        assert "access-control-allow-origin" not in server.http.get(server.root + "/health").headers


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"cors_origin": ["*"]}, {}, "not an origin"),
    ({"cors_origin": ["https://a.example/"]}, {}, "not an origin"),
    ({"host": "0.0.0.0"}, {}, "without a key"),
    ({"api_key_env": "NOT_SET_KEY"}, {}, "not set"),
    ({"without_teacher": "shrug"}, {}, "--without-teacher"),
    *(
        ({"record": True, name: value}, {}, f"--{name.replace('_', '-')} has no effect")
        for name, value in {
            "share": 0.1,
            "shadow": 0.02,
            "threshold": 0.5,
            "decide_on": 4,
            "without_teacher": "student",
        }.items()
    ),
    ({}, {"threshold": None, "needed": 1234}, "about 1,234 more test prompts"),
    ({}, {"threshold": None, "target": None, "needed": None}, "eval had no target"),
    ({}, {"threshold": None, "needed": None}, "no threshold holds the promise of 0.9"),
    ({}, {"threshold": "high"}, "deferral.json: damaged"),
]


@pytest.mark.parametrize(("options", "deferral", "says"), REFUSED)
def test_what_cannot_be_served_is_refused_before_anything_is_sent(
    tmp_path: Path, options: dict[str, Any], deferral: dict[str, Any], says: str
) -> None:
    run = run_to_serve(tmp_path / "run", **deferral)
    with (
        pytest.raises(UsageError, match=says),
        Serving(run, recipe_of(run, "http://x/v1", "http://y/v1"), ServeOptions(**options)),
    ):
        raise AssertionError("it serves")


@pytest.mark.parametrize(
    ("evaluated", "options", "is_refused"),
    [
        ("today's", {}, False),
        ("an earlier", {}, True),
        ("an earlier", {"threshold": 0.5}, False),
        ("an earlier", {"record": True}, False),
        ("by an older version", {}, False),
    ],
)
def test_a_promise_of_an_earlier_student_is_not_served(
    tmp_path: Path, evaluated: str, options: dict[str, Any], is_refused: bool
) -> None:
    run = run_to_serve(tmp_path / "run")
    model = run.file("train", "model")
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    StageRecord(run, "train", {}, {}).finish({"model": None}, config={})
    recipe = recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1")
    loaded = replace(recipe, student=replace(recipe.student, options={"dtype": "float32"}))
    settings = {} if evaluated == "by an older version" else {"student.model": student_of(run, loaded).identity}
    StageRecord(run, "eval", settings, {}).finish({"deferral.json": None}, config={})
    if evaluated == "an earlier":
        (model / "config.json").write_text('{"trained": "again"}')
    refused = pytest.raises(UsageError, match="of an earlier student") if is_refused else nullcontext()
    with refused, _prepared(run, recipe, ServeOptions(**options), Silent(), None) as setup:
        assert setup.announcement(8080)


ANNOUNCED: list[
    tuple[dict[str, Any], dict[str, Any], bool, str | None]
] = [  # options, teacher, whether the switch is on, a line
    ({}, {}, False, "the teacher's cost has no cap: --budget sets one"),
    ({"budget": 2.0}, {}, False, "0.0000 of the teacher's 2 USD are spent"),
    ({}, {"price": {"prompt": 0.0, "completion": 0.0}}, False, None),
    ({}, {"price": {"prompt": 0.0, "completion": 0.0}}, True, "everything goes to the teacher until"),
    ({}, {"model": None}, False, None),
]


def test_what_a_server_may_spend_and_a_switch_that_is_on_are_announced(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run", threshold=0.0, target=None)
    for options, teacher, is_on, line in ANNOUNCED:
        switch = run.file("serve", "teacher_only")
        switch.parent.mkdir(exist_ok=True)
        switch.touch() if is_on else switch.unlink(missing_ok=True)
        recipe = recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1", **teacher)
        with _prepared(run, recipe, ServeOptions(**options), Silent(), None) as setup:
            _, *further = setup.announcement(8080).splitlines()
        assert len(further) == (line is not None) and all(str(line) in one for one in further), (options, teacher)


def test_a_student_that_is_paid_is_refused(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    recipe = recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1")
    recipe.student.price.update(PRICE)
    with pytest.raises(UsageError, match="paid by the token"), Serving(run, recipe):
        raise AssertionError("it serves")


def test_a_teacher_that_cannot_be_loaded_is_refused_at_the_start(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    recipe = recipe_of(run, "http://127.0.0.1:9/v1", "", engine="transformers", model=f"{tmp_path}/gone", price={}, base_url=[])
    with pytest.raises(UsageError, match="no such file or folder"), Serving(run, recipe):
        raise AssertionError("it serves")


def test_a_student_endpoint_that_is_away_or_serves_something_else_is_named(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    with (
        pytest.raises(SeqdistillError, match="cannot be reached"),
        Serving(run, recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1")),
    ):
        raise AssertionError("it serves")


# --- clients --------------------------------------------------------------------------------------------------------------


def test_the_project_s_own_engine_is_a_client(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell {n}{' ' + UNSURE if n % 2 else ''}"}) + "\n" for n in range(6)))
    with served(tmp_path) as server:
        for stream in (False, True):
            plan = Recipe(
                task=TaskConfig(prompts=str(prompts)),
                teacher=TeacherConfig(model="run", engine="openai", base_url=[server.url], stream=stream),
            )
            result = api.generate(tmp_path / f"generated{stream}", plan)
            assert result.samples == 6
    one, other = ((tmp_path / f"generated{stream}" / "generate" / "samples.jsonl").read_text() for stream in (False, True))
    assert one == other


def test_curl_is_a_client(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    with served(tmp_path) as server:
        done = subprocess.run(
            [curl, "-sN", server.url + "/chat/completions", "-d", json.dumps(asked(stream=True))],
            capture_output=True,
            text=True,
        )
        events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
        assert events[-1] == "[DONE]" and json.loads(events[0])["choices"][0]["delta"]["role"] == "assistant"


def test_the_openai_client_streams_in_an_event_loop_with_n_logprobs_and_a_schema(tmp_path: Path) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}

    async def talk(url: str) -> tuple[Any, list[Any]]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "Hello"}]
            whole = await client.chat.completions.create(
                model="any", messages=messages, n=3, logprobs=True, top_logprobs=2, temperature=1, seed=4
            )
            stream = await client.chat.completions.create(model="any", messages=messages, n=2, stream=True)
            chunks = [chunk async for chunk in stream]
            await client.chat.completions.create(model="any", messages=messages, response_format=schema)  # type: ignore[call-overload]
            assert [model.id async for model in client.models.list()] == ["run"]
            return whole, chunks

    with served(tmp_path) as server:
        whole, chunks = asyncio.run(talk(server.url))
        assert server.student.requests[-1]["response_format"] == schema
        # not JSON: the student's answer breaks the schema, so it is not sure, and the teacher is sent it too
        assert server.teacher.requests[-1]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert len({choice.message.content for choice in whole.choices}) == 3
    assert all(len(place.top_logprobs) == 2 for choice in whole.choices for place in choice.logprobs.content)
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}


@pytest.mark.parametrize("is_nohup", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_server_ends_in_order_when_its_terminal_is_closed_too(number: int, is_nohup: bool, tmp_path: Path) -> None:
    async def stops() -> bool:
        async with stopping(Switch(tmp_path / "teacher_only"), Silent()) as stopped:
            signal.raise_signal(number)
            await asyncio.sleep(0.01)
            return stopped.is_set()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_nohup else signal.SIG_DFL)
    try:
        assert asyncio.run(stops()) == (not (is_nohup and number == signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    with ChatServer(model="student", reply=student_answer) as student, ChatServer() as teacher:
        command = [
            *(sys.executable, "-m", "seqdistill", "serve", str(run.path), "--port", "0", "--student-base-url", student.url),
            *("--template", str(run.path / "task.toml"), "--teacher", "teacher", "--teacher-engine", "openai", "--json"),
            *("--teacher-base-url", teacher.url),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                url = next(line for line in process.stderr if "http://" in line).split("serve: ")[1].split(";")[0]
                with httpx2.Client(timeout=30.0) as client:
                    reply = client.post(url + "/chat/completions", json=asked())
                    assert reply.headers["x-seqdistill-model"] == "student"
                    process.send_signal(signal.SIGUSR1)
                    until(lambda: client.get(url.removesuffix("/v1") + "/health").json()["teacher_only"])
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
        assert process.returncode == 0, err
        assert json.loads(out)["by_student"] == 1
    assert not (run.path / "run.json").exists()  # its flags change nothing of the run


def test_a_port_that_is_taken_is_noticed_before_a_model_is_loaded(tmp_path: Path) -> None:
    run = run_to_serve(tmp_path / "run")
    recipe = recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1")  # nobody is at the student's address
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"),
            Serving(run, recipe, ServeOptions(port=port)),
        ):
            raise AssertionError("it serves")


def test_two_servers_do_not_share_a_run(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        recipe = recipe_of(server.run, server.student.url, server.teacher.url)
        with pytest.raises(SeqdistillError, match="another process"), Serving(Run(server.run.path), recipe, progress=Silent()):
            raise AssertionError("it serves")


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
