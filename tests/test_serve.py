"""The endpoint with real clients in front of it and real HTTP servers behind it as student and teacher. Loads no model."""

from pathlib import Path
from typing import Any

import pytest
from served_runs import UNSURE, Served, served


def chat(server: Served, text: str = "Hello", **settings: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return server.client.chat.completions.with_raw_response.create(model="any", messages=messages, **settings)


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
