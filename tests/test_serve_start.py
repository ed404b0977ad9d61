"""When a server starts and ends: what is refused before anything is sent, signals, ports, one server a run."""

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chat_server import ChatServer
from served_runs import PRICE, asked, recipe_of, run_to_serve, served, student_answer, until

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.runs import Run, StageRecord
from seqdistill.serve.process import connections, stopping
from seqdistill.serve.routing import Switch
from seqdistill.serve.server import ServeOptions, Serving, _prepared
from seqdistill.stages.evaluate.contestants import student_of


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
    settings = {"student.model": student_of(run, loaded).identity}
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


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"price": {}}, "a budget needs the price of teacher"),
        ({"body": {"web_search_options": {}}}, "web_search_options is billed by the call"),
    ],
)
def test_a_budget_needs_to_know_all_that_the_teacher_bills(tmp_path: Path, table: dict[str, Any], says: str) -> None:
    run = run_to_serve(tmp_path / "run")
    recipe = recipe_of(run, "http://127.0.0.1:9/v1", "http://y/v1", **table)
    with pytest.raises(UsageError, match=says), Serving(run, recipe, ServeOptions(budget=1.0)):
        raise AssertionError("it serves")


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
