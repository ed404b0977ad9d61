"""Runs that can be served: a template, what eval found, a student and a teacher that are real HTTP servers."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
from chat_server import Body, ChatServer, answer

from seqdistill.recipe.tables import EvalConfig, GenerateConfig, Recipe, StudentConfig, TaskConfig, TeacherConfig
from seqdistill.runs import Run
from seqdistill.serve.server import ServeOptions, Serving

PRICE = {"prompt": 1000.0, "completion": 10000.0}
TEMPLATE = """
[teacher]
system = "You are careful."
user = "Answer in some words, please: {{ prompt }}"

[student]
user = "Answer: {{ prompt }}"
"""
UNSURE = "unsure"  # a prompt that holds this word makes the student unsure


def student_answer(body: Body) -> Body:
    """The student's reply: the words of `answer`, each of log-probability -0.1, or -3 where the prompt says "unsure"."""
    reply = answer(body)
    sure = -3.0 if UNSURE in body["messages"][-1]["content"] else -0.1
    for choice in reply["choices"]:
        for place in (choice.get("logprobs") or {}).get("content", ()):
            place["logprob"] = sure
    return reply


@dataclass
class Served:
    """A server at work, with the servers behind it."""

    run: Run
    url: str
    student: ChatServer
    teacher: ChatServer
    serving: Serving
    client: openai.OpenAI
    http: httpx2.Client

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def log(self) -> list[dict[str, Any]]:
        path = self.run.file("serve", "log.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_to_serve(path: Path, *, threshold: float | None = 0.5, **deferral: Any) -> Run:
    """A run directory with what serve reads of a finished run; confidences are 0.905 for a sure answer, 0.05 for another."""
    run = Run(path)
    (path / "eval").mkdir(parents=True)
    document = {"confidence": "logprob", "samples": 0, "threshold": threshold, "target": 0.9, "risk": 0.05, "needed": 0}
    run.file("eval", "deferral.json").write_text(json.dumps({**document, **deferral}))
    (path / "task.toml").write_text(TEMPLATE)
    return run


def recipe_of(run: Run, student: str, teacher: str, *, generate: dict[str, Any] | None = None, **teachers: Any) -> Recipe:
    settings: dict[str, Any] = {"model": "teacher", "engine": "openai", "base_url": [teacher], "price": PRICE, **teachers}
    return Recipe(
        task=TaskConfig(template=str(run.path / "task.toml")),
        teacher=TeacherConfig(**settings),
        student=StudentConfig(model="shrink:8", base_url=[student]),
        generate=GenerateConfig(**{"max_tokens": 64, "timeout": 20.0, **(generate or {})}),
        eval=EvalConfig(),
    )


@contextmanager
def served(
    path: Path,
    *,
    options: dict[str, Any] | None = None,
    student: ChatServer | None = None,
    teacher: ChatServer | None = None,
    run: Run | None = None,
    first_threshold: float | None = None,
    **recipe: Any,
) -> Iterator[Served]:
    """A server before a student and a teacher."""
    run = run or run_to_serve(path / "run")
    with (
        student or ChatServer(model="student", reply=student_answer) as small,
        teacher or ChatServer() as large,
        Serving(
            run,
            recipe_of(run, small.url, large.url, **recipe),
            ServeOptions(port=0, **(options or {})),
            first_threshold=first_threshold,
        ) as serving,
        openai.OpenAI(base_url=serving.url, api_key="none", max_retries=0, timeout=30.0) as client,
        httpx2.Client(timeout=30.0) as http,
    ):
        yield Served(run, serving.url, small, large, serving, client, http)


def send(server: Served, content: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return server.http.post(server.root + path, content=body, headers=headers)


def asked(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **fields}


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)
