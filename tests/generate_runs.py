"""Runs of generate against a chat server, in this process or in a child that is killed: what its tests share."""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from chat_server import Body, ChatServer

from seqdistill.cli import main
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe, TaskConfig, TeacherConfig
from seqdistill.runs import Run
from seqdistill.stages.generate.stage import GenerateResult, generate


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def prompts_file(folder: Path, questions: list[str] | range) -> Path:
    path = folder / "prompts.jsonl"
    texts = [f"question {n}" for n in questions] if isinstance(questions, range) else questions
    path.write_text("".join(json.dumps({"prompt": text, "slice": "normal", "group": "quiz"}) + "\n" for text in texts))
    return path


def recipe(server: ChatServer, prompts: Path, **settings: Any) -> Recipe:
    return Recipe(
        task=TaskConfig(prompts=str(prompts)),
        teacher=TeacherConfig(model="teacher", engine="openai", base_url=[server.url]),
        generate=GenerateConfig(**{"max_tokens": 20, "temperature": 1.0, **settings}),
    )


def run_it(folder: Path, server: ChatServer, questions: list[str] | range, **settings: Any) -> GenerateResult:
    return generate(Run(folder / "run"), recipe(server, prompts_file(folder, questions), **settings), Silent())


def arguments(server: ChatServer, folder: Path) -> list[str]:
    start = ["generate", str(folder / "run"), "--prompts", str(folder / "prompts.jsonl"), "--temperature", "1"]
    return [*start, "--teacher", "teacher", "--teacher-engine", "openai", "--teacher-base-url", server.url]


def killed_after(server: ChatServer, requests: int, how: int, child: "Child", seconds: float = 0.0, times: int = 1) -> int:
    """Signals a started generate `seconds` after it would get the last of `requests` answers; returns the exit code.

    Several `times` are 10 ms apart.
    """
    goal = len(server.requests) + requests

    def strike(number: int, _: Body) -> None:
        if number + 1 == goal:
            assert child.pid is not None
            for time in range(times):
                asyncio.get_running_loop().call_later(seconds + time / 100, os.kill, child.pid, how)

    server.fault = strike
    child.start()
    child.join(120)
    server.fault = None
    assert child.exitcode is not None
    return child.exitcode


def main_in_child(arguments: list[str]) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs deaf to Ctrl-C
    sys.exit(main(arguments))


Processes = multiprocessing.get_context("forkserver")  # the imports are paid once, not in each of 20 processes
Processes.set_forkserver_preload(
    [
        "openai",
        "httpcore2",
        "jinja2.sandbox",
        "seqdistill.stages.generate.stage",
        "seqdistill.engines.openai_api",
        "generate_runs",
    ]
)
Child = Processes.Process


PRICE = {"prompt": 1000.0, "cached_prompt": 100.0, "completion": 10000.0}  # dear, so that few requests matter


def priced(asked: Recipe, price: Body = PRICE) -> Recipe:
    return replace(asked, teacher=replace(asked.teacher, price=price))
