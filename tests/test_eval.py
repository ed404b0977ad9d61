"""The eval stage on real tiny models: four models and the copy baseline, every file, resumable, honest about failures."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from conftest import make_tiny_model
from finished_runs import recipe
from generate_runs import Notes

from seqdistill.errors import Incomplete, SeqdistillError, Stopped, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe, TaskConfig, TeacherConfig
from seqdistill.records import write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate.compare import compare
from seqdistill.stages.evaluate.recomputed import differing
from seqdistill.stages.evaluate.result import EvalResult
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verification import verify

MODELS = ["base", "student", "teacher", "ceiling", "copy", "nearest"]
SLICES = ("normal", "hard", "critical")


def write_test(path: Path, rows: int = 24, **more: Any) -> Path:
    lines = [
        {"prompt": f"Tell number {n} in words. " * (1 + n % 4), "reference": f"number {n}", "slice": SLICES[n % 3], **more}
        for n in range(rows)
    ]
    write_jsonl(path, lines)
    return path


@pytest.fixture
def plan(tmp_path: Path, tiny_model: Path) -> Recipe:
    return recipe(write_test(tmp_path / "test.jsonl"), tiny_model)


def served(plan: Recipe, server: ChatServer) -> Recipe:
    teacher = TeacherConfig(model="teacher", engine="openai", base_url=[server.url], price={"prompt": 1.0, "completion": 2.0})
    return replace(plan, teacher=teacher, generate=GenerateConfig(retries=0))


def predictions(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text().splitlines()]


def texts(run: Run) -> list[Any]:
    return [(row["id"], row["model"], row["completion"], row["scores"]) for row in predictions(run)]


def test_it_answers_scores_and_writes_everything(run: Run, plan: Recipe) -> None:
    result = evaluate(run, plan, Silent())
    rows = predictions(run)
    assert [row["model"] for row in rows[:6]] == MODELS and len(rows) == 24 * 6
    assert list(rows[0]) == list(rows[7]) == [
        "id", "model", "prompt", "completion", "finish_reason", "tokens", "seconds", "scores", "confidence", "reference",
        "slice", "group", "error",
    ]  # fmt: skip
    scores = json.loads(run.file("eval", "scores.json").read_text())
    assert scores == result.scores and (scores["n"], scores["prompts"]) == (24, 24)
    student = scores["models"]["student"]
    low, value, high = (student["chrf_teacher"][end] for end in ("low", "value", "high"))
    assert low <= value <= high and student["parameters"] == 45_440 and student["disk_bytes"] > 180_000
    assert scores["models"]["teacher"]["chrf_teacher"] is None, "a teacher is not measured against itself"
    assert scores["models"]["ceiling"]["speed_basis"].startswith("transformers in this process, batches of up to 16,")
    assert [part["slice"] for part in scores["slices"]] == sorted(SLICES)
    assert {cell["other"] for cell in scores["comparisons"]} == {"base", "copy", "nearest", "ceiling", "teacher"}
    assert all(result.paths[name].stat().st_size for name in ("predictions", "scores", "report"))
    assert [row[0] for row in result.rows] == MODELS
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert all(len(row) == len(result.slice_columns) for row in result.slice_rows)
    assert "## Results" in run.file("train", "model").joinpath("README.md").read_text()


def test_test_prompts_that_were_trained_on_are_in_the_verdict(run: Run, plan: Recipe, tmp_path: Path) -> None:
    trained = json.loads(run.file("filter", "train.jsonl").read_text().splitlines()[0])["prompt"][-1]["content"]
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": text} for text in [trained, *(f"Say {n} twice." for n in range(11))]])
    result = evaluate(run, plan, Silent())
    assert result.scores["trained_on"] == 1
    assert any(line.startswith("1 of the 12 test prompts were trained on") for line in result.verdict), result.verdict
    assert list(differing(run)) == []


def test_a_mean_in_the_table_is_the_mean_of_the_predictions(run: Run, plan: Recipe) -> None:
    scores = evaluate(run, plan, Silent()).scores
    for model in ("base", "copy"):
        mine = [row["scores"]["chrf_reference"] for row in predictions(run) if row["model"] == model]
        assert scores["models"][model]["chrf_reference"]["value"] == pytest.approx(sum(mine) / len(mine), abs=1e-6)
    gap = next(c for c in scores["comparisons"] if (c["metric"], c["other"]) == ("chrf_reference", "copy"))
    both = [scores["models"][model]["chrf_reference"]["value"] for model in ("student", "copy")]
    assert gap["value"] == pytest.approx(both[0] - both[1], abs=1e-5)


def test_a_second_run_is_up_to_date_and_changes_nothing(run: Run, plan: Recipe) -> None:
    evaluate(run, plan, Silent())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.*") if path.name != ".lock"}
    again = evaluate(run, plan, Silent())
    assert again.up_to_date and {path: path.stat().st_mtime_ns for path in before} == before


def test_evaluating_leaves_the_student_as_it_was(run: Run, plan: Recipe) -> None:
    trained = run.hash_of(run.file("train", "model"))
    evaluate(run, plan, Silent())
    assert run.hash_of(run.file("train", "model")) == trained


def test_from_the_journal_the_same_bytes_come_out(run: Run, plan: Recipe) -> None:
    result = evaluate(run, plan, Silent())
    before = {name: path.read_bytes() for name, path in result.paths.items()}
    run.file("eval", "manifest.json").unlink()
    evaluate(run, plan, Silent())
    assert {name: path.read_bytes() for name, path in result.paths.items()} == before


def test_interrupted_and_resumed_it_equals_an_uninterrupted_one(run: Run, plan: Recipe, tmp_path: Path) -> None:
    class Interrupting(Silent):
        left = 40

        def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    whole = Run(tmp_path / "whole")
    shutil.copytree(run.path, whole.path)
    evaluate(whole, plan, Silent())
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, plan, Interrupting())
    assert run.manifest("eval") is None
    evaluate(run, plan, Silent())
    assert texts(run) == texts(whole)


def test_the_teacher_gets_each_prompt_twice_and_never_again(run: Run, plan: Recipe, tmp_path: Path) -> None:
    with ChatServer() as server:
        plan = served(plan, server)
        first = evaluate(run, plan, Silent())
        assert len(server.requests) == 48
        evaluate(run, replace(plan, eval=replace(plan.eval, resamples=300)), Silent())
        assert len(server.requests) == 48
        write_test(tmp_path / "test.jsonl", 25)
        evaluate(run, plan, Silent())
        assert len(server.requests) == 50
    teacher = first.scores["models"]["teacher"]
    usd = (teacher["prompt_tokens"] * 1.0 + teacher["completion_tokens"] * 2.0) / 1e6
    assert teacher["usd"] == pytest.approx(usd, abs=1e-6) and first.scores["models"]["student"]["usd"] is None
    assert first.scores["models"]["teacher"]["parameters"] is None


def test_a_scheduler_that_stops_it_is_no_teacher_out_of_reach_and_nothing_is_paid_twice(run: Run, plan: Recipe) -> None:
    with ChatServer(lambda number, _: os.kill(os.getpid(), signal.SIGTERM) if number == 5 else None) as server:
        with pytest.raises(Stopped, match="SIGTERM"):
            evaluate(run, served(plan, server), Silent())
        assert 6 <= len(server.requests) < 48
        evaluate(run, served(plan, server), Silent())
        assert len(server.requests) == 48


def test_the_student_is_shown_its_own_view(run: Run, plan: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "task.toml"
    template.write_text('[teacher]\nuser = "At length: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    evaluate(run, replace(plan, task=replace(plan.task, template=str(template))), Silent())
    asked = {row["model"]: row["prompt"][-1]["content"].startswith("At length: ") for row in predictions(run)}
    assert asked == {"base": False, "student": False, "teacher": True, "ceiling": True, "copy": False, "nearest": False}


def test_a_student_trained_anew_is_prompted_anew(run: Run, plan: Recipe, tmp_path: Path) -> None:
    evaluate(run, plan, Silent())
    before = texts(run)
    make_tiny_model(run.file("train", "model"), seed=5)
    student = (run.manifest("train") or {})["student"]
    StageRecord(run, "train", {}, {}).finish({"model": None}, config={}, student=student)
    assert [one for one in verify(run, Silent()).problems if "of an earlier student" in one]
    with pytest.raises(UsageError, match="of an earlier student"):
        compare(run, run, plan)
    assert not evaluate(run, plan, Silent()).up_to_date
    changed = {row[1] for row, old in zip(texts(run), before, strict=True) if row != old}
    assert changed == {"student"} and verify(run, Silent()).whole


def test_failed_requests_are_counted_left_out_and_retried(run: Run, plan: Recipe) -> None:
    def fault(_: int, body: dict[str, Any]) -> str | None:
        return "500" if "number 7 " in body["messages"][-1]["content"] else None

    with ChatServer(fault) as server:
        plan = served(plan, server)
        with pytest.raises(Incomplete, match="2 of 96 requests failed") as caught:
            evaluate(run, plan, Silent())
        assert caught.value.hint == "run again to retry 2" and caught.value.exit_code == 1
        scores = json.loads(run.file("eval", "scores.json").read_text())
        assert (scores["n"], scores["prompts"]) == (23, 24)
        assert [scores["models"][model]["failed"] for model in ("base", "teacher", "ceiling")] == [0, 1, 1]
        assert "Failed requests: teacher 1, ceiling 1" in " ".join(scores["verdict"])
        failed = [row for row in predictions(run) if row["error"]]
        assert len(failed) == 2 and all(row["completion"] == [] and row["scores"] is None for row in failed)
        server.fault, asked = None, len(server.requests)
        assert evaluate(run, plan, Silent()).failed == 0
        assert len(server.requests) == asked + 2


def test_a_prompt_that_no_try_can_answer_is_left_out_and_the_stage_is_done(run: Run, plan: Recipe) -> None:
    def fault(_: int, body: dict[str, Any]) -> str | None:
        return "400" if "number 7 " in body["messages"][-1]["content"] else None

    with ChatServer(fault) as server:
        plan, notes = served(plan, server), Notes()
        result = evaluate(run, plan, notes)
        assert (result.scores["n"], result.scores["prompts"]) == (23, 24)
        assert any("2 requests cannot be answered (2 http 400)" in note for note in notes.notes)
        asked = len(server.requests)
        assert evaluate(run, plan, Silent()).up_to_date
        assert len(server.requests) == asked


@pytest.mark.usefixtures("impatient")
def test_when_nothing_was_answered_the_first_reason_is_reported(run: Run, plan: Recipe) -> None:
    with ChatServer(lambda *_: "500") as server, pytest.raises(SeqdistillError, match="500"):
        evaluate(run, served(plan, server), Silent())
    assert run.manifest("eval") is None


def test_few_prompts_give_no_intervals_and_no_claims(run: Run, plan: Recipe) -> None:
    result = evaluate(run, replace(plan, eval=replace(plan.eval, limit=4)), Silent())
    assert result.scores["models"]["student"]["chrf_teacher"]["low"] is None
    assert all(cell["verdict"] == "not shown" for cell in result.scores["comparisons"])
    assert "too few for intervals" in " ".join(result.verdict)


def test_without_references_the_reference_columns_are_empty(run: Run, plan: Recipe, tmp_path: Path) -> None:
    write_test(tmp_path / "test.jsonl", 12, reference=None, slice=None)
    result = evaluate(run, plan, Silent())
    assert result.scores["models"]["student"]["chrf_reference"] is None and result.slice_rows == []
    judged = evaluate(run, replace(plan, task=replace(plan.task, primary="chrf_reference")), Silent())
    assert "cannot be judged" in judged.verdict[0]


def test_without_a_test_set_the_flag_and_the_key_are_named(run: Run, plan: Recipe) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(run, replace(plan, task=TaskConfig()), Silent())
    assert "--test" in caught.value.hint and "[task]" in caught.value.hint


@pytest.mark.parametrize("name", ["missing.jsonl", "twice.jsonl"])
def test_a_bad_test_set_is_a_usage_error_that_names_the_file(run: Run, plan: Recipe, tmp_path: Path, name: str) -> None:
    write_jsonl(tmp_path / "twice.jsonl", [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}])
    with pytest.raises(UsageError, match=name):
        evaluate(run, replace(plan, task=TaskConfig(test=str(tmp_path / name))), Silent())


def test_without_a_trained_student_the_command_to_run_is_named(tmp_path: Path, plan: Recipe) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(Run(tmp_path / "new"), plan, Silent())
    assert "seqdistill train" in caught.value.hint


def test_the_result_prints_as_a_table(run: Run, plan: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    from seqdistill.console import Console
    from seqdistill.show import show_eval

    result: EvalResult = evaluate(run, plan, Silent())
    show_eval(Console(), result)
    out = capsys.readouterr().out
    assert all(model in out for model in MODELS) and " ".join(result.verdict) in " ".join(out.split())
    assert max(len(line) for line in out.split("report: ")[0].splitlines()) <= 80
