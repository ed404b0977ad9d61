"""Clients of a server: real ones, slow ones, ones that go away, too many at once."""

import asyncio
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from chat_server import Body, ChatServer
from served_runs import UNSURE, asked, send, served, student_answer, until

from seqdistill import api
from seqdistill.recipe.tables import Recipe, TaskConfig, TeacherConfig
from seqdistill.serve import app as app_module


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
