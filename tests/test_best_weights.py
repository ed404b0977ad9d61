"""Early stopping: the weights of the lowest validation loss are kept, the training ends, and resuming changes nothing."""

from pathlib import Path

import filter_runs
import pytest
from test_preflight import a_recipe, rows
from train_runs import Impatient, sha256, trainer_of

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.records import read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.train import checkpoints
from seqdistill.stages.train.best import best_of
from seqdistill.stages.train.stage import train

ARGS = {"num_train_epochs": 8, "per_device_train_batch_size": 8, "learning_rate": 0.05}


def contrary_run(folder: Path) -> Run:
    """A run whose validation answers are other than what is trained: the loss on them soon rises."""
    other = [filter_runs.sample(f"Which one is number {n}?", f"zzz {n} QQQ! never {n}") for n in range(2)]
    return filter_runs.filtered_run(folder, {"train.jsonl": rows(16), "validation.jsonl": other})


def test_the_weights_of_the_lowest_validation_loss_are_taken(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = contrary_run(tmp_path / "run"), a_recipe(tiny_model, ARGS, early_stopping=2)
    result = train(run, recipe, Silent())
    losses = [(row["step"], row["eval_loss"]) for _, row in read_jsonl(run.file("train", "log.jsonl")) if row["eval_loss"]]
    best = min(losses, key=lambda at: at[1])
    assert (result.best_step, result.validation_loss) == best
    assert [step for step, _ in losses][-1] == result.steps == best[0] + 4 < 16, "two validations of two steps later"
    until = contrary_run(tmp_path / "until")
    args = {**ARGS, "lr_scheduler_type": "constant"}
    train(run, a_recipe(tiny_model, args, early_stopping=2), Silent())
    best_step = (run.manifest("train") or {})["counts"]["best_step"]
    there = train(until, a_recipe(tiny_model, {**args, "max_steps": best_step}), Silent())
    assert sha256(there.path / "model.safetensors") == sha256(run.file("train", "model") / "model.safetensors")

    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 1e9)
    stopped = contrary_run(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, recipe, Impatient(at_step=best[0] + 1))
    resumed = train(stopped, recipe, Silent())
    assert resumed.best_step == best[0]
    again = train(contrary_run(tmp_path / "again"), recipe, Silent())
    assert sha256(resumed.path / "model.safetensors") == sha256(again.path / "model.safetensors")


@pytest.mark.parametrize("method", ["sequence", "preference"])
def test_rows_that_fill_no_batch_are_validated_too(tiny_model: Path, tmp_path: Path, method: str) -> None:
    run = filter_runs.filtered_run(tmp_path, {"train.jsonl": rows(3), "validation.jsonl": rows(6)})
    args = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 4, "dataloader_drop_last": True}
    trainer = trainer_of(run, a_recipe(tiny_model, args, method=method))
    assert len(trainer.get_eval_dataloader()) == 2 and len(trainer.get_train_dataloader()) == 1


def test_the_lowest_of_equals_is_the_earlier() -> None:
    history = [{"step": step, "eval_loss": loss} for step, loss in ((2, 3.0), (4, 1.0), (6, 1.0))]
    assert best_of([{"step": 1, "loss": 0.1}, *history], "loss") == (4, 1.0)
    assert best_of([], "loss") is None


def test_without_validation_rows_it_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run = filter_runs.filtered_run(tmp_path, {"train.jsonl": rows(), "validation.jsonl": []})
    with pytest.raises(UsageError, match="early_stopping needs validation rows"):
        train(run, a_recipe(tiny_model, ARGS, early_stopping=2), Silent())
