"""`seqdistill serve --student-base-url` in front of a real `vllm serve`: the openai client, the headers, and deferral."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import ChatServer
from served_runs import run_to_serve

from seqdistill.confidence import confidence_in
from seqdistill.engines.logprobs import chat_values


@pytest.fixture
def teacher() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def client(served: str, teacher: ChatServer, tmp_path: Path) -> Iterator[openai.OpenAI]:
    """A client of the command, whose student is vLLM's only model."""
    run = run_to_serve(tmp_path / "run")
    command = [
        *(sys.executable, "-m", "seqdistill", "serve", str(run.path), "--port", "0", "--threshold", "0.5", "--decide-on", "8"),
        *("--student-base-url", served, "--template", str(run.path / "task.toml")),
        *("--teacher", "teacher", "--teacher-engine", "openai", "--teacher-base-url", teacher.url),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(line for line in process.stderr if "http://" in line).split("serve: ")[1].split(";")[0]
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120.0) as opened:
            yield opened
        process.terminate()


def say(client: openai.OpenAI, text: str, **settings: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model="run", messages=messages, max_tokens=24, **settings)


def test_vllm_answers_what_it_is_sure_of_streamed_as_whole_and_the_teacher_the_rest(
    client: openai.OpenAI, teacher: ChatServer
) -> None:
    sure, unsure = "Repeat after me: one two three four five six seven eight", "Name a random animal and what it ate."
    whole = say(client, sure, logprobs=True, top_logprobs=2)
    reply = whole.parse()
    places = json.loads(whole.text)["choices"][0]["logprobs"]["content"]
    assert whole.headers["x-seqdistill-model"] == "student" and float(whole.headers["x-seqdistill-usd"]) == 0
    assert float(whole.headers["x-seqdistill-confidence"]) == confidence_in(chat_values(places))
    assert len(places) == reply.usage.completion_tokens and all(len(place["top_logprobs"]) == 2 for place in places)

    stream = say(client, sure, stream=True, stream_options={"include_usage": True})
    chunks = list(stream.parse())
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == reply.choices[0].message.content and len(texts) > 4
    assert chunks[-1].usage == reply.usage and not any(c.choices[0].logprobs for c in chunks if c.choices)
    assert stream.headers["x-seqdistill-model"] == "student"
    assert float(stream.headers["x-seqdistill-confidence"]) == confidence_in(chat_values(places)[:8])

    assert not teacher.requests
    for streamed in (False, True):
        other = say(client, unsure, stream=streamed)
        assert (other.headers["x-seqdistill-model"], other.headers["x-seqdistill-reason"]) == ("teacher", "not sure")
        assert 0 < float(other.headers["x-seqdistill-confidence"]) < 0.5
    assert len(teacher.requests) == 1, "the second is in the journal"
