"""The run directory: done means done, changes are named, two processes never share a stage."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.runs import Run, StageRecord


def finished(run: Run, data: Path, **settings: object) -> StageRecord:
    record = StageRecord(run, "filter", settings, {"samples": data})
    record.begin()
    run.file("filter", "train.jsonl").parent.mkdir(parents=True, exist_ok=True)
    run.file("filter", "train.jsonl").write_text("{}\n")
    record.finish({"train.jsonl": 1}, config={"filter": settings})
    return record


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
        with pytest.raises(SeqdistillError, match=rf"another process \(pid {other.pid} "), Run(tmp_path).locked("generate"):
            pass
        other.stdin.close()
    with Run(tmp_path).locked("generate"):
        pass


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
