"""Training that is stopped or killed ends with the same bytes as one that is not, whatever a batch is."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import train_and_kill
from full_disk import room_for
from train_runs import ARGS, Impatient, Listener, a_recipe, a_run, sample, sha256

from seqdistill.errors import SeqdistillError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Sample, write_json
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train import checkpoints, fit
from seqdistill.stages.train.stage import TrainResult, record_of, train
from seqdistill.stages.train.token_batches import TokenBatches


@pytest.fixture
def saves_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", float("inf"))


@pytest.mark.usefixtures("saves_every_step")
def test_stopped_and_killed_and_resumed_ends_with_the_same_bytes(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path, tmp_path: Path
) -> None:
    reference, result, _ = trained
    run = a_run(tmp_path / "run")
    work = run.file("train", ".work")
    with pytest.raises(KeyboardInterrupt):
        train(run, a_recipe(tiny_model), Impatient(at_step=5))
    assert run.manifest("train") is None
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-4"], "the end of an epoch"
    assert train_and_kill(run, a_recipe(tiny_model), at_step=11) == -signal.SIGKILL
    assert run.manifest("train") is None
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-10"], "within an epoch"
    torn = work / "checkpoint-12"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half a")

    listener = Listener()
    resumed = train(run, a_recipe(tiny_model), listener)
    assert "train: resuming at step 10" in listener.notes
    assert listener.done == 16
    assert sha256(resumed.path / "model.safetensors") == sha256(result.path / "model.safetensors")
    assert run.file("train", "log.jsonl").read_bytes() == reference.file("train", "log.jsonl").read_bytes()
    assert replace(resumed, seconds=0, path=Path()) == replace(result, seconds=0, path=Path())


def test_checkpoints_of_a_training_that_was_killed_behind_its_manifest_go_with_the_next_command(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path
) -> None:
    run, *_ = trained
    left = run.file("train", ".work") / "checkpoint-16"
    left.mkdir(parents=True)
    assert train(run, a_recipe(tiny_model), Silent()).up_to_date
    assert not left.parent.exists()


@pytest.mark.usefixtures("saves_every_step")
def test_batches_grouped_by_length_are_the_same_after_resuming(tiny_model: Path, tmp_path: Path) -> None:
    rows = [sample(n, answer="word " * (1 + n * 7 % 11)) for n in range(16)]
    recipe = a_recipe(tiny_model, args={**ARGS, "train_sampling_strategy": "group_by_length", "eval_on_start": True})
    one, run = a_run(tmp_path / "whole", rows), a_run(tmp_path / "stopped", rows)
    whole = train(one, recipe, Silent())
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=11))
    assert sha256(train(run, recipe, Silent()).path / "model.safetensors") == sha256(whole.path / "model.safetensors")
    assert run.file("train", "log.jsonl").read_bytes() == one.file("train", "log.jsonl").read_bytes()


@pytest.mark.usefixtures("saves_every_step")
def test_stopped_behind_the_last_step_it_does_no_further_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {**ARGS, "max_steps": 6, "lr_scheduler_type": "constant"}  # 4 steps are an epoch
    whole = train(a_run(tmp_path / "whole"), a_recipe(tiny_model, args=args), Silent())

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    run = a_run(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "write_model", killed)
        train(run, a_recipe(tiny_model, args=args), Silent())
    resumed = train(run, a_recipe(tiny_model, args=args), Silent())
    assert resumed.steps == 6 and sha256(resumed.path / "model.safetensors") == sha256(whole.path / "model.safetensors")

    class Stopping(Listener):
        def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
            super().advance(count, facts)
            if self.total == 6 and self.done == 6 and count:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = train(a_run(tmp_path / "stopped"), a_recipe(tiny_model, args=args), Stopping())  # what is left is to save it
    assert sha256(stopped.path / "model.safetensors") == sha256(whole.path / "model.safetensors")


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize("name", ["trainer_state.json", "model.safetensors", "rng_state.pth"])
def test_a_damaged_checkpoint_is_named_and_removing_it_begins_anew(tiny_model: Path, tmp_path: Path, name: str) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model)
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=5))
    work = run.file("train", ".work")
    (checkpoint,) = work.glob("checkpoint-*")
    (checkpoint / name).write_bytes(bytes((checkpoint / name).stat().st_size))  # as a crash of the machine leaves it
    (work / "checkpoint-old").mkdir()  # not ours
    with pytest.raises(SeqdistillError, match=r"checkpoint-4: the checkpoint cannot be read") as caught:
        train(run, recipe, Silent())
    assert f"remove {work}" in caught.value.hint
    shutil.rmtree(work)
    assert train(run, recipe, Silent()).steps == 16


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize(("limit", "reason"), [(20_000, r"ulimit -f"), (250_000, r"could not be written whole")])
def test_a_file_size_limit_is_named_and_the_training_resumes_without_it(
    tiny_model: Path, tmp_path: Path, limit: int, reason: str
) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model, args={**ARGS, "max_steps": 2})
    with room_for(limit), pytest.raises(SeqdistillError, match=reason):
        train(run, recipe, Silent())
    assert train(run, recipe, Silent()).steps == 2


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"logging_steps": 2, "report_to": "none", "run_name": "second", "dataloader_num_workers": 1}, None),
        ({"weight_decay": 0.1, "logging_steps": 2}, "train.args.weight_decay: not set -> 0.1"),
    ],
    ids=str,
)
def test_a_checkpoint_is_resumed_unless_the_weights_would_be_others_which_is_said(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path, tmp_path: Path, change: dict[str, Any], anew: str | None
) -> None:
    run, listener = a_run(tmp_path), Listener()
    with pytest.raises(KeyboardInterrupt):
        train(run, a_recipe(tiny_model), Impatient(at_step=9))
    result = train(run, a_recipe(tiny_model, args={**ARGS, **change}), listener)
    assert ("train: resuming at step 8" in listener.notes) == (anew is None)
    said = "train: cannot resume the training stopped at step 8, starting over; changed: "
    assert [note.removeprefix(said) for note in listener.notes if note.startswith(said)] == ([anew] if anew else [])
    if anew is None:
        assert sha256(result.path / "model.safetensors") == sha256(trained[1].path / "model.safetensors")
        assert train(run, a_recipe(tiny_model), Silent()).up_to_date


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"logging_steps": 2}, True),
        ({"report_to": "none", "run_name": "second"}, True),
        ({"log_level": "error", "logging_first_step": True}, True),
        ({"dataloader_pin_memory": False, "dataset_num_proc": 2}, True),
        ({"eval_strategy": "no"}, False),
        ({"per_device_eval_batch_size": 1}, False),
        ({"data_seed": 1}, False),
        ({"dataloader_drop_last": True}, False),
    ],
    ids=str,
)
def test_what_is_reported_and_how_fast_rows_are_read_makes_no_other_student(
    tmp_path: Path, tiny_model: Path, change: dict[str, Any], same: bool
) -> None:
    run = a_run(tmp_path)
    plain, changed = (record_of(run, a_recipe(tiny_model, args=args)) for args in (ARGS, {**ARGS, **change}))
    assert (plain.fingerprint == changed.fingerprint) == same


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    work, listener = tmp_path / ".work", Listener()
    one, two = (StageRecord(Run(tmp_path), "train", {"train.seed": seed}, {}) for seed in (1, 2))
    assert checkpoints.open_work(work, one, listener) is None
    whole = work / "checkpoint-10"
    whole.mkdir()
    (whole / "weights").write_bytes(b"1234")
    write_json(whole / checkpoints.COMPLETE, {"weights": 4})
    assert checkpoints.open_work(work, one, listener) == whole
    (work / "checkpoint-12").mkdir()
    assert checkpoints.open_work(work, one, listener) == whole, "a torn checkpoint is passed over"
    assert not (work / "checkpoint-12").exists()
    (whole / "weights").write_bytes(b"12")
    assert checkpoints.open_work(work, one, listener) is None
    whole.mkdir()
    assert listener.notes == [], "nothing that could be resumed was removed"
    write_json(whole / checkpoints.COMPLETE, {})
    (work / checkpoints.SETTINGS).write_text("{")  # damaged
    assert checkpoints.open_work(work, two, listener) is None
    assert not whole.exists()
    assert [note.rpartition(": ")[2] for note in listener.notes] == ["other settings or rows"]


def test_token_batches_hold_every_row_once_within_the_budget_in_an_order_of_each_epoch() -> None:
    lengths = [5 + n * 7 % 31 for n in range(40)]
    batches = TokenBatches(lengths, 64, seed=3)
    first = list(batches)
    assert sorted(row for batch in first for row in batch) == list(range(40)) and len(batches) == len(first)
    assert all(len(batch) * max(lengths[row] for row in batch) <= 64 for batch in first)
    padding = sum(len(batch) * max(lengths[row] for row in batch) for batch in first) - sum(lengths)
    assert padding < 0.1 * sum(lengths)
    batches.set_epoch(1)
    second = list(batches)
    assert second != first and sorted(second) == sorted(first)
    assert list(TokenBatches(lengths, 64, seed=3)) == first != list(TokenBatches(lengths, 64, seed=4))


@pytest.mark.usefixtures("saves_every_step")
def test_token_batches_train_on_every_row_and_are_the_same_after_resuming(tiny_model: Path, tmp_path: Path) -> None:
    rows = [sample(n, answer="word " * (1 + n * 7 % 11)) for n in range(16)]
    recipe = a_recipe(tiny_model, args={"max_steps": 16, "learning_rate": 0.02}, batch_tokens=400)
    whole = train(a_run(tmp_path / "whole", rows), recipe, Silent())
    assert 16 / whole.epochs == len(TokenBatches([len(row.tokens) for row in _rendered(tiny_model, rows)], 400, 0))
    run = a_run(tmp_path / "stopped", rows)
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=11))
    assert sha256(train(run, recipe, Silent()).path / "model.safetensors") == sha256(whole.path / "model.safetensors")


def _rendered(model: Path, rows: list[Sample]) -> list[Any]:
    from transformers import AutoTokenizer

    from seqdistill.stages.train.preflight import preflight

    return preflight(AutoTokenizer.from_pretrained(model), rows, [], TrainConfig(), 1024, Silent()).train
