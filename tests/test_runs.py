"""The run directory: done means done, changes are named, two processes never share a stage."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from seqdistill.errors import Busy, SeqdistillError, UsageError
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.runs import Run, StageRecord


def finished(run: Run, data: Path, **settings: object) -> StageRecord:
    record = StageRecord(run, "filter", settings, {"samples": data})
    record.begin()
    run.file("filter", "train.jsonl").parent.mkdir(parents=True, exist_ok=True)
    run.file("filter", "train.jsonl").write_text("{}\n")
    record.finish({"train.jsonl": 1}, config={"filter": settings})
    return record


def test_a_setting_of_several_values_that_is_the_same_is_no_difference(tmp_path: Path) -> None:
    data, run = tmp_path / "in.jsonl", Run(tmp_path / "run")
    data.write_text("a")
    finished(run, data, choices=("a", "b"), seed=1)
    again = StageRecord(run, "filter", {"choices": ("a", "b"), "seed": 2}, {"samples": data})
    assert again.differences() == ["seed: 1 -> 2"]


def test_a_stage_is_up_to_date_until_a_setting_an_input_or_an_output_changes(tmp_path: Path) -> None:
    data, run = tmp_path / "in.jsonl", Run(tmp_path / "run")
    data.write_text("a")
    finished(run, data, seed=1)

    def now(**settings: object) -> StageRecord:
        return StageRecord(run, "filter", settings, {"samples": data})

    assert now(seed=1).up_to_date()
    assert not now(seed=2).up_to_date()
    assert now(seed=2).differences() == ["seed: 1 -> 2"]
    assert now(seed=1, args={"rate": 2}).differences() == ["args.rate: not set -> 2"]
    data.write_text("b")
    assert now(seed=1).differences() == ["samples: the content changed"]
    data.write_text("a")
    assert now(seed=1).up_to_date()
    run.file("filter", "train.jsonl").write_text("{ }\n")
    assert not now(seed=1).up_to_date()


def test_without_a_manifest_a_stage_is_not_done(tmp_path: Path) -> None:
    data, run = tmp_path / "in.jsonl", Run(tmp_path / "run")
    data.write_text("a")
    record = finished(run, data)
    record.begin()
    assert not StageRecord(run, "filter", {}, {"samples": data}).up_to_date()
    with pytest.raises(UsageError, match="not there yet") as caught:
        run.need("filter", "train.jsonl")
    assert "seqdistill filter" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("owner", "stays"), [("this", False), (None, False), ("another", True)])
def test_what_is_left_of_finished_work_is_removed_and_that_of_other_work_is_not(
    tmp_path: Path, owner: str | None, stays: bool
) -> None:
    record = StageRecord(Run(tmp_path), "train", {"a": 1}, {})
    work = tmp_path / "train/.work"
    (work / "checkpoint-5").mkdir(parents=True)
    if owner is not None:
        (work / "fingerprint").write_text(record.fingerprint if owner == "this" else owner)
    record.remove_work()
    assert work.exists() == stays


def test_a_second_process_on_a_stage_is_refused_by_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from seqdistill.runs import Run\n"
        "with Run(Path(sys.argv[1])).locked('generate'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=rf"another process \(pid {other.pid} "), Run(tmp_path).locked("generate"):
            pass
        other.stdin.close()
    with Run(tmp_path).locked("generate"):
        pass


DAY = 86_400.0


def finish_in(run: Run, stage: str, *, anew: bool = False) -> dict[str, Any]:
    """The manifest of an attempt that ends the stage now."""
    with run.locked(stage):
        record = StageRecord(run, stage, {}, {})
        if anew:
            record.begin_anew()
        run.file(stage, "out.jsonl").write_text("{}\n")
        return record.finish({"out.jsonl": 1}, config={})


@pytest.mark.parametrize(
    ("stage", "anew", "attempts", "days"),
    [  # of each attempt its days, and how it ended
        ("generate", False, [], 0),
        ("generate", False, [(1, "stopped")], 1),
        ("generate", False, [(1, "stopped"), (2, "killed")], 3),
        ("generate", False, [(2, "killed"), (1, "finished")], 3),  # as a prompt added to finished answers
        ("generate", False, [(1, "stopped"), (5, "without a file")], 1),
        ("generate", False, [(1, "stopped"), (2, "killed before its first file")], 1),
        ("generate", False, [(4, "copied")], 4),
        ("train", False, [(1, "killed"), (1, "stopped")], 2),
        ("train", True, [(1, "killed"), (3, "finished")], 0),  # with other settings: the earlier training is not continued
        ("train", False, [(4, "copied")], 0),  # what it finished is another training
    ],
)
def test_the_seconds_of_all_attempts_at_a_stage_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, anew: bool, attempts: list[tuple[int, str]], days: int
) -> None:
    run, now = Run(tmp_path), [time.time() - 100 * DAY]
    monkeypatch.setattr("seqdistill.clock.time.time", lambda: now[0])
    run.file(stage, "").mkdir()
    for number, (length, end) in enumerate(attempts):
        now[0] += DAY
        name, clock = f"{number}.jsonl", run.clock(stage)
        assert clock is not None
        clock.start()
        now[0] += length * DAY
        if "file" not in end:
            run.file(stage, name).write_text("{}\n")
            os.utime(run.file(stage, name), (now[0], now[0]))
        if end == "finished":
            StageRecord(run, stage, {}, {}).finish({name: 1}, config={})
        if end == "copied":
            StageRecord(run, stage, {}, {}).finish({name: 1}, config={})
            run.file(stage, ".lock").unlink()
        elif not end.startswith("killed"):
            clock.stop()
    now[0] += DAY
    assert finish_in(run, stage, anew=anew)["seconds_in_all"] == pytest.approx(days * DAY, abs=1)


def test_a_stage_that_does_not_resume_has_no_seconds_of_other_attempts(tmp_path: Path) -> None:
    assert "seconds_in_all" not in finish_in(Run(tmp_path), "filter")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("seqdistill.runs.fcntl.flock", without_locks)
    run = Run(tmp_path)
    for held in (run.locked("generate"), run.spending()):
        with pytest.raises(SeqdistillError, match="cannot lock files") as caught, held:
            pass
        assert "local disk" in caught.value.hint
    assert run.at_work("generate") is None  # so that `status` can be asked


def test_a_folder_s_older_file_in_another_s_place_is_a_change(tmp_path: Path) -> None:
    data, run, model = tmp_path / "in.jsonl", Run(tmp_path / "run"), tmp_path / "run" / "filter" / "model"
    data.write_text("a")
    model.mkdir(parents=True)
    for name in ("a", "b"):
        (model / name).write_text(name)
    record = StageRecord(run, "filter", {}, {"data": data})
    record.finish({"model": None}, config={})
    assert record.up_to_date()
    stand_in = tmp_path / "older"
    stand_in.write_text("x")
    os.utime(stand_in, (1, 1))
    stand_in.rename(model / "a")
    assert not record.up_to_date()


def test_a_manifest_holds_no_secret_and_says_what_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    data, run = tmp_path / "in.jsonl", Run(tmp_path / "run")
    data.write_text("a")
    finished(run, data, seed=1)
    manifest = run.manifest("filter")
    assert manifest is not None
    assert {"fingerprint", "inputs", "outputs", "packages", "host", "argv", "git"} <= set(manifest)
    assert "sk-very-secret" not in run.file("filter", "manifest.json").read_text()


def test_a_file_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a run directory"):
        Run(tmp_path / "file")


@pytest.mark.parametrize("written", ["{}", "[]", "{x", '{"status": "complete"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, written: str) -> None:
    run = Run(tmp_path / "run")
    path = run.file("filter", "manifest.json")
    path.parent.mkdir(parents=True)
    path.write_text(written)
    with pytest.raises(UsageError, match=r"filter/manifest.json: (damaged|not a manifest)"):
        run.manifest("filter")


@pytest.mark.parametrize("written", ["[]", '{"remembered": 3}', '{"remembered": {"teacher": 3}}', "{x"])
def test_damaged_flags_of_a_run_are_named(tmp_path: Path, written: str) -> None:
    (tmp_path / "run.json").write_text(written)
    with pytest.raises(UsageError, match=r"run.json"), resolved_recipe(tmp_path, None, {}):
        pass
