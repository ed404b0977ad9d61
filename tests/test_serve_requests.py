"""Requests that a server refuses, takes in part or takes as its clients write them."""

import gzip
import json
import socket
import zlib
from pathlib import Path
from typing import Any

import pytest
from served_runs import UNSURE, asked, run_to_serve, send, served

from seqdistill.serve.chat import read_chat

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
    (asked(response_format={"type": "json_object", "schema": {"$schema": {}}}), "response_format"),
    (asked(response_format={"type": "json_object", "schema": {"items": {"$ref": "#/no/such"}}}), "response_format"),
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
