"""The generate stage against a real chat server that counts what it is asked."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from chat_server import Body, ChatServer, Fault, answer
from generate_runs import Child, Notes, arguments, killed_after, main_in_child, prompts_file, recipe, run_it

from seqdistill.cli import main
from seqdistill.engines import Completion
from seqdistill.engines.dispatch import Dispatcher
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, OneOfTeachers, Recipe, TaskConfig, TeacherConfig
from seqdistill.records import read_samples, write_json
from seqdistill.runs import Run
from seqdistill.stages.generate.stage import generate


def test_each_prompt_becomes_samples_in_the_plan_s_order(tmp_path: Path) -> None:
    with ChatServer() as server:
        result = run_it(tmp_path, server, range(3), samples=2)
    samples = list(read_samples(result.path))
    assert [(s.prompt[0]["content"], s.sample) for s in samples] == [(f"question {n}", k) for n in range(3) for k in range(2)]
    assert [s.id for s in samples] == [f"{s.prompt_id}:teacher:{s.sample}" for s in samples]
    assert samples[0].text != samples[1].text
    assert {(s.slice, s.group) for s in samples} == {("normal", "quiz")}
    assert (result.prompts, result.samples, result.new, result.reused, result.failed) == (3, 6, 6, 0, 0)
    assert result.completion_tokens == sum(s.completion_tokens for s in samples) > 0
    assert sum(result.finish_reasons.values()) == 6


def test_the_teacher_sees_its_own_view_and_the_sample_holds_the_student_s(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('[teacher]\nuser = "Be good: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(1)))
        asked = replace(asked, task=replace(asked.task, template=str(tmp_path / "task.toml")))
        result = generate(Run(tmp_path / "run"), asked, Silent())
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Be good: question 0"}]
    assert next(read_samples(result.path)).prompt == [{"role": "user", "content": "question 0"}]


def test_a_finished_run_is_up_to_date_and_a_changed_one_says_what_changed(tmp_path: Path) -> None:
    notes = Notes()
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(5)))
        generate(Run(tmp_path / "run"), asked, notes)
        again = generate(Run(tmp_path / "run"), asked, notes)
        assert (again.up_to_date, again.new, again.reused) == (True, 0, 5)
        assert generate(
            Run(tmp_path / "run"), replace(asked, generate=replace(asked.generate, concurrency=3)), notes
        ).up_to_date
        (terms,) = notes.notes
        assert "license or terms of teacher are not known" in terms
        generate(Run(tmp_path / "run"), replace(asked, generate=replace(asked.generate, temperature=0.5)), notes)
    assert notes.notes == [terms, "generate: generate.temperature: 1.0 -> 0.5"]


def test_only_what_is_new_is_paid_for(tmp_path: Path) -> None:
    with ChatServer() as server:
        first = run_it(tmp_path, server, range(10))
        before = first.path.read_bytes()
        assert run_it(tmp_path, server, range(12)).new == 2, "added"
        assert run_it(tmp_path, server, range(4)).new == 0, "removed"
        assert run_it(tmp_path, server, [f"question {n}" for n in reversed(range(12))]).new == 0, "reordered"
        assert run_it(tmp_path, server, ["question 0!", *(f"question {n}" for n in range(1, 10))]).new == 1, "edited"
        assert run_it(tmp_path, server, range(10), samples=3).new == 20, "two more samples of each"
        assert run_it(tmp_path, server, range(10), temperature=0.5).new == 10, "another temperature"
        assert run_it(tmp_path, server, range(10), limit=3).new == 0
        assert run_it(tmp_path, server, range(10)).new == 0, "back to the old settings"
    assert first.path.read_bytes() == before
    assert set(server.answered.values()) <= {1, 2}, "0.5 and 1.0 ask with the same seed"


def test_failures_are_lines_and_running_again_asks_only_for_those(tmp_path: Path) -> None:
    fault: Fault = lambda _, body: "400" if body["messages"][0]["content"] in ("question 3", "question 7") else None  # noqa: E731
    with ChatServer(fault) as server:
        with pytest.raises(Incomplete, match=r"2 of 10 requests have no answer .*: a bad request") as caught:
            run_it(tmp_path, server, range(10))
        assert "run again to retry 2" in caught.value.hint
        assert caught.value.exit_code == 1
        failures = [json.loads(line) for line in (tmp_path / "run/generate/failures.jsonl").read_text().splitlines()]
        assert [list(line) for line in failures] == [["id", "prompt_id", "sample", "error", "message"]] * 2
        assert len(list(read_samples(tmp_path / "run/generate/samples.jsonl"))) == 8
        manifest = Run(tmp_path / "run").manifest("generate")
        assert manifest is not None
        assert manifest["status"] == "incomplete"
        server.fault = None
        assert run_it(tmp_path, server, range(10)).new == 2
        whole = (tmp_path / "run/generate/samples.jsonl").read_bytes()
        (tmp_path / "other").mkdir()
        assert run_it(tmp_path / "other", server, range(10)).path.read_bytes() == whole


def test_a_server_that_goes_away_leaves_every_missing_row_in_failures(tmp_path: Path) -> None:
    with ChatServer(lambda number, _: "quota" if number >= 30 else None) as server:
        with pytest.raises(Incomplete, match="exceeded your quota"):
            run_it(tmp_path, server, range(100))
        kept = len(list(read_samples(tmp_path / "run/generate/samples.jsonl")))
        lines = (tmp_path / "run/generate/failures.jsonl").read_text().splitlines()
        assert kept == 30
        assert len(lines) == 70
        server.fault = None
        assert run_it(tmp_path, server, range(100)).new == 70


def test_killed_at_12_random_moments_nothing_is_paid_twice_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    moments = random.Random(7)
    prompts_file(tmp_path, range(400))

    def journaled() -> list[str]:
        """What the journal holds, as the server names it. A torn last line is no answer."""
        path = tmp_path / "run/generate/journal.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        requests = [row["request"] for line in lines if "key" in (row := json.loads(line))]
        return [json.dumps([request["messages"], request["seed"]]) for request in requests]

    with ChatServer(seconds=0.003) as server:
        for _ in range(12):
            paid = {name: server.answered[name] for name in journaled()}
            child = Child(target=main_in_child, args=(arguments(server, tmp_path),))
            moment = moments.randint(1, 30), moments.uniform(0, 0.005)
            assert killed_after(server, moment[0], signal.SIGKILL, child, moment[1]) == -signal.SIGKILL
            time.sleep(0.02)  # the server notices
            assert {name: server.answered[name] for name in paid} == paid, "what the journal holds is never asked again"
        held = len(journaled())
        assert 30 < held < 400
        assert main(arguments(server, tmp_path)) == 0
        assert len(journaled()) == len(set(journaled())) == 400
        (tmp_path / "whole").mkdir()
        prompts_file(tmp_path / "whole", range(400))
        assert main(arguments(server, tmp_path / "whole")) == 0
    same = "run/generate/samples.jsonl"
    assert (tmp_path / same).read_bytes() == (tmp_path / "whole" / same).read_bytes()


@pytest.mark.parametrize(
    ("how", "times", "code"),
    [
        (signal.SIGINT, 1, 130),
        (signal.SIGTERM, 1, 1),
        (signal.SIGHUP, 1, 1),
        (signal.SIGHUP, 2, 1),  # as where a terminal ends: its shell sends one and so does the kernel
    ],
)
def test_what_stops_generate_loses_nothing_that_is_under_way(
    tmp_path: Path, how: signal.Signals, times: int, code: int
) -> None:
    prompts_file(tmp_path, range(200))
    with ChatServer(seconds=0.04) as server:
        child = Child(target=main_in_child, args=([*arguments(server, tmp_path), "--concurrency", "8"],))
        assert killed_after(server, 60, how, child, times=times) == code
        with Journal(tmp_path / "run/generate/journal.jsonl", writable=False) as journal:
            assert 60 <= len(journal) == len(server.usages) < 200
            assert not journal.spending.holds
        assert main(arguments(server, tmp_path)) == 0
        assert len(server.usages) == 200, "nothing is paid twice"


@pytest.mark.parametrize("in_notebook", [False, True])
def test_what_is_under_way_at_the_interrupt_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_notebook: bool
) -> None:
    report, reported = Dispatcher._report, list[str]()

    def interrupted(self: Dispatcher, completions: Sequence[Completion]) -> None:
        report(self, completions)
        reported.extend(one.id for one in completions)
        if len(reported) == 20:
            os.kill(os.getpid(), signal.SIGINT)

    async def notebook(server: ChatServer) -> None:
        run_it(tmp_path, server, range(100))

    monkeypatch.setattr(Dispatcher, "_report", interrupted)
    before, loop = signal.signal(signal.SIGINT, signal.default_int_handler), asyncio.new_event_loop()
    try:
        with ChatServer(seconds=0.01) as server, pytest.raises(KeyboardInterrupt):
            if in_notebook:
                loop.run_until_complete(notebook(server))
            else:
                run_it(tmp_path, server, range(100))
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()
    with Journal(tmp_path / "run/generate/journal.jsonl", writable=False) as journal:
        assert {row["id"] for row in journal.rows()} == set(reported)
        assert not journal.spending.holds


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with ChatServer() as server, Run(tmp_path / "run").locked("generate"):
        with pytest.raises(SeqdistillError, match=f"another process .pid {os.getpid()}"):
            run_it(tmp_path, server, range(3))
        assert server.requests == []


def test_no_key_is_in_any_file_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-9")
    with ChatServer(key="sk-secret-9") as server:
        run_it(tmp_path, server, range(3))
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"sk-secret" not in path.read_bytes()


def test_a_local_model_answers_too(tmp_path: Path, tiny_model: Path) -> None:
    asked = Recipe(
        task=TaskConfig(prompts=str(prompts_file(tmp_path, range(6)))),
        teacher=TeacherConfig(model=str(tiny_model)),
        generate=GenerateConfig(max_tokens=5),
    )
    result = generate(Run(tmp_path / "run"), asked, Silent())
    assert (result.samples, result.new) == (6, 6)
    assert {sample.teacher for sample in read_samples(result.path)} == {"tiny"}


def test_the_settings_of_a_local_teacher_that_are_not_applied_are_in_the_manifest(tmp_path: Path, tiny_model: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "bent")
    config = folder / "generation_config.json"
    write_json(config, {**json.loads(config.read_text()), "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "top_k": 5})
    bent, own = TeacherConfig(model=str(folder)), TeacherConfig(model=str(tiny_model))
    prompts, notes = prompts_file(tmp_path, range(2)), Notes()
    for name, teacher in (("bent", bent), ("own", own)):
        asked = Recipe(task=TaskConfig(prompts=str(prompts)), teacher=teacher, generate=GenerateConfig(max_tokens=2))
        generate(Run(tmp_path / name / "run"), asked, notes)
    listed = ["no_repeat_ngram_size = 2", "repetition_penalty = 1.3"]
    assert (Run(tmp_path / "bent/run").manifest("generate") or {})["teacher"]["neutralised"] == listed
    assert "neutralised" not in (Run(tmp_path / "own/run").manifest("generate") or {})["teacher"]
    said = [note for note in notes.notes if "generation_config.json is not applied" in note]
    assert len(said) == 1 and said[0].endswith(", ".join(listed))


def test_bad_input_is_reported_before_any_request(tmp_path: Path) -> None:
    with ChatServer() as server:
        good = recipe(server, prompts_file(tmp_path, range(3)))
        with pytest.raises(UsageError, match="no prompts are configured"):
            generate(Run(tmp_path / "run"), replace(good, task=TaskConfig()), Silent())
        with pytest.raises(UsageError, match=r"nope\.jsonl: no such file"):
            generate(Run(tmp_path / "run"), replace(good, task=TaskConfig(prompts="nope.jsonl")), Silent())
        with pytest.raises(UsageError, match=r"prompts\.jsonl:1: the prompt is empty"):
            generate(Run(tmp_path / "run"), recipe(server, prompts_file(tmp_path, [" "])), Silent())
        assert server.requests == []
        unknown = replace(good, teacher=replace(good.teacher, model="other"))
        prompts_file(tmp_path, range(3))
        with pytest.raises(UsageError, match="`other` does not exist"):
            generate(Run(tmp_path / "run"), unknown, Silent())


# --- truncation -------------------------------------------------------------------------------------------------------


def test_a_truncated_answer_is_requested_once_more_and_never_blindly(tmp_path: Path) -> None:
    with ChatServer() as server:
        short = run_it(tmp_path, server, range(20), max_tokens=5)
        cut = short.finish_reasons["length"]
        assert 3 < cut < 20
        longer = run_it(tmp_path, server, range(20), max_tokens=5, retry_truncated=8)
        assert longer.new == cut
        still = longer.finish_reasons["length"]
        assert 0 < still < cut
        assert run_it(tmp_path, server, range(20), max_tokens=5, retry_truncated=8).up_to_date
        assert len(server.requests) == 20 + cut
        assert run_it(tmp_path, server, range(20), max_tokens=5, retry_truncated=20).finish_reasons == {"stop": 20}
        with pytest.raises(UsageError, match="not more than max_tokens"):
            run_it(tmp_path, server, range(20), max_tokens=5, retry_truncated=5)


def test_answers_that_are_reasoning_alone_are_counted(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        return {**answer(body), "choices": [{"message": {"content": "<think>hm"}, "finish_reason": "length"}]}

    with ChatServer(reply=reply) as server:
        result = run_it(tmp_path, server, range(3))
    assert result.think_only == 3
    assert [sample.reasoning for sample in read_samples(result.path)] == ["hm"] * 3


# --- several teachers -------------------------------------------------------------------------------------------------


def taught(prompts: Path, *teachers: OneOfTeachers, **asked: Any) -> Recipe:
    return Recipe(
        task=TaskConfig(prompts=str(prompts)), teachers=list(teachers), generate=GenerateConfig(max_tokens=20, **asked)
    )


def test_several_teachers_answer_all_or_their_share_and_each_is_named(tmp_path: Path) -> None:
    with ChatServer(model="one") as one, ChatServer(model="two") as two:
        first = OneOfTeachers(model="one", engine="openai", base_url=[one.url])
        second = OneOfTeachers(model="two", engine="openai", base_url=[two.url])
        prompts = prompts_file(tmp_path, range(100))
        result = generate(Run(tmp_path / "run"), taught(prompts, first, second), Silent())
        assert [sample.teacher for sample in read_samples(result.path)] == ["one", "two"] * 100
        assert len(one.requests) == len(two.requests) == 100
        shares = taught(prompts, replace(first, weight=3.0), replace(second, weight=1.0), samples=2)
        result = generate(Run(tmp_path / "run"), shares, Silent())
        drawn = [sample.teacher for sample in read_samples(result.path)]
        assert len(drawn) == 200
        assert 125 < drawn.count("one") < 175
        assert result.reused > 60, "what a teacher had answered before is not asked again"
        with pytest.raises(UsageError, match="two teachers are called 'one'"):
            generate(Run(tmp_path / "run"), taught(prompts, first, first), Silent())


def test_teachers_are_tables_of_the_recipe(tmp_path: Path) -> None:
    prompts_file(tmp_path, range(4))
    with ChatServer(model="one") as one, ChatServer(model="two") as two:
        text = '[task]\nprompts = "prompts.jsonl"\n'
        for server in (one, two):
            text += f'[[teachers]]\nmodel = "{server.model}"\nengine = "openai"\nbase_url = ["{server.url}"]\n'
        (tmp_path / "recipe.toml").write_text(text)
        assert main(["generate", str(tmp_path / "run"), "-c", str(tmp_path / "recipe.toml")]) == 0
    assert len(list(read_samples(tmp_path / "run/generate/samples.jsonl"))) == 8


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ('[[teachers]]\nmodle = "x"', "teacher 1: unknown key 'modle' in .teachers., did you mean 'model'"),
        ('[[teachers]]\nengine = "openai"', "teacher 1: .* has no model"),
        ('[[teachers]]\nmodel = "x"\nweight = 1.0\n[[teachers]]\nmodel = "y"', "a weight for every teacher, or for none"),
        ('[teachers]\nmodel = "x"', "not a list of tables"),
    ],
)
def test_a_bad_list_of_teachers_is_reported(tmp_path: Path, tables: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(tables)
    assert main(["generate", str(tmp_path / "run"), "-c", str(tmp_path / "recipe.toml")]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_a_share_of_the_requests_may_fail(tmp_path: Path) -> None:
    fault: Fault = lambda _, body: "400" if body["messages"][0]["content"] == "question 3" else None  # noqa: E731
    with ChatServer(fault) as server:
        with pytest.raises(Incomplete, match="1 of 20 requests"):
            run_it(tmp_path, server, range(20), may_fail=0.04)
        result = run_it(tmp_path, server, range(20), may_fail=0.05)
        assert (result.samples, result.failed, result.up_to_date) == (19, 1, False)
        assert run_it(tmp_path, server, range(20), may_fail=0.05).up_to_date


def test_logprobs_lie_beside_the_samples_and_go_when_they_are_not_requested(tmp_path: Path) -> None:
    with ChatServer() as server:
        result = run_it(tmp_path, server, range(4), samples=2, logprobs=3, samples_per_request=2)
        sidecar = result.path.with_name("logprobs.parquet")
        rows = pyarrow.parquet.read_table(sidecar).to_pylist()
        before = sidecar.read_bytes()
        assert len(server.requests) == 4
        sidecar.unlink()
        assert run_it(tmp_path, server, range(4), samples=2, logprobs=3).new == 0, "the journal has them"
        assert sidecar.read_bytes() == before
        run_it(tmp_path, server, range(4))
    samples = list(read_samples(result.path))
    assert [row["id"] for row in rows][::2] == [sample.id for sample in samples]
    for row in rows:
        assert row["token_ids"] is None and len(row["tokens"]) == len(row["logprobs"]) == len(row["top_logprobs"])
        assert all(len(top) == 3 for top in row["top_tokens"])
    assert not sidecar.exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"beams": 2, "logprobs": 1}, "beams and logprobs"), ({"samples_per_request": 2, "batch": True}, "batch")],
)
def test_settings_that_exclude_each_other_are_reported_before_any_request(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with ChatServer() as server, pytest.raises(UsageError, match=says):
        run_it(tmp_path, server, range(2), temperature=0.0, **settings)
    assert not server.requests
