"""Seen while it trains: what the student writes to validation prompts, beside the teacher's; and weights chosen by it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train_runs import ARGS, Listener, a_recipe, a_run, sample, sha256

from seqdistill.console import Console
from seqdistill.engines import Request, open_engine
from seqdistill.errors import UsageError
from seqdistill.journal.asking import run_async
from seqdistill.metrics.text import chrf
from seqdistill.progress import Silent
from seqdistill.recipe.tables import EvalConfig, ModelConfig, Recipe, TaskConfig, TrainConfig
from seqdistill.records import Sample, read_jsonl
from seqdistill.runs import Run
from seqdistill.show.stages import show_train
from seqdistill.stages.train.arguments import logged_beside, trl_arguments
from seqdistill.stages.train.loss_log import KEYS
from seqdistill.stages.train.stage import train
from seqdistill.stages.train.validation_answers import quality_of


def validation() -> list[Sample]:
    """Prompts of several lengths, so that a batch is padded; two of them are one prompt's."""
    longer = [replace(sample(20 + n, answer="The road is shut. " * (1 + n)), id=f"v{n}") for n in range(4)]
    again = replace(longer[0], id="v0:again")
    return [longer[0], again, *longer[1:]]


def log(run: Run) -> list[dict[str, Any]]:
    return [line for _, line in read_jsonl(run.file("train", "log.jsonl"))]


def greedy(model: Path, rows: list[Sample], max_tokens: int) -> list[str]:
    """What the saved model answers, one prompt after the other."""

    async def asked() -> list[str]:
        engine = open_engine(ModelConfig(model=str(model), options={"batch_size": 1, "dtype": "float32"}))
        found = {}
        async for one in engine.stream([Request(row.id, row.prompt, max_tokens) for row in rows]):
            found[one.id] = one.content
        return [found[row.id] for row in rows]

    return run_async(asked())


def test_each_validation_logs_the_student_s_own_greedy_answers_and_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    run, listener = a_run(tmp_path / "run", validation=validation()), Listener()
    result = train(run, a_recipe(tiny_model, generations=3), listener)
    lines = log(run)
    assert all(tuple(line) == KEYS for line in lines)
    answered = [line for line in lines if line["generations"] is not None]
    assert (
        [line["step"] for line in answered]
        == [line["step"] for line in lines if line["eval_loss"] is not None]
        == [4, 8, 12, 16]
    )
    last, rows = answered[-1]["generations"], [validation()[at] for at in (0, 2, 3)]
    assert [(one["id"], one["teacher"]) for one in last] == [(row.id, row.text) for row in rows]
    longest = max(len(sample(n).text) for n in range(16)) + 1
    assert [one["student"] for one in last] == greedy(result.path, rows, longest)
    assert len({one["generations"][0]["student"] for one in answered}) > 1, "each is of its own step"
    shown = [note for note in listener.notes if "the student writes" in note]
    assert len(shown) == 4 and shown[-1].startswith("train: step 16, v0: the student writes ")
    plain = a_run(tmp_path / "plain", validation=validation())
    assert sha256(train(plain, a_recipe(tiny_model), Silent()).path / "model.safetensors") == sha256(
        result.path / "model.safetensors"
    )
    assert train(run, a_recipe(tiny_model, generations=1), Silent()).up_to_date, "it decides nothing of the student"


OWN_METRIC = """
def unlike(answer, wanted):
    return float(not answer.startswith(wanted[:3]))
"""


def test_the_best_weights_by_quality_are_those_of_the_best_answers_and_not_of_the_lowest_loss(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted: a metric of the user's own that likes what the student writes before it has learnt how answers begin."""
    metric = tmp_path / "metric.py"
    metric.write_text(OWN_METRIC)
    args = {**ARGS, "lr_scheduler_type": "constant", "num_train_epochs": 6}
    recipe = a_recipe(tiny_model, args=args, best="quality", best_prompts=4, generations=4)
    run = a_run(tmp_path / "run", validation=validation())
    result = train(run, replace(recipe, eval=EvalConfig(metric=f"{metric}:unlike")), Silent())
    quality = {line["step"]: line["quality"] for line in log(run) if line["quality"] is not None}
    loss = {line["step"]: line["eval_loss"] for line in log(run) if line["eval_loss"] is not None}
    for line in log(run):
        if line["quality"] is not None:
            scores = [100.0 * (not one["student"].startswith("The")) for one in line["generations"]]
            assert line["quality"] == pytest.approx(sum(scores) / 4, abs=1e-3)
    best = max(quality, key=lambda step: quality[step])
    assert best < min(loss, key=lambda step: loss[step]), "the two disagree"
    assert (result.best_step, result.best_by) == (best, "quality") and result.validation_loss == loss[best]
    show_train(Console(), result)
    assert f"{best} (best answers to validation prompts)" in capsys.readouterr().out
    until = train(a_run(tmp_path / "until"), a_recipe(tiny_model, args={**args, "max_steps": best}), Silent())
    assert sha256(until.path / "model.safetensors") == sha256(result.path / "model.safetensors")


def test_quality_is_the_mean_of_the_task_s_metric_against_the_teacher_s_answers(tmp_path: Path) -> None:
    rows = [sample(n) for n in range(3)]
    quality = quality_of(Recipe(task=TaskConfig(primary="chrf_reference")), rows)
    assert quality.score("The road is open.", rows[0], "stop") == chrf("The road is open.", rows[0].text)


@pytest.mark.parametrize(
    ("settings", "primary", "message"),
    [
        ({"best": "quality"}, None, "best needs validation rows, and there are none"),
        ({"best": "loss"}, None, "best needs validation rows"),
        (
            {"best": "loss", "args": {**ARGS, "eval_strategy": "no"}},
            "chrf",
            "best needs validations, and .* is no",
        ),
        ({"early_stopping": 2}, None, "early_stopping needs validation rows"),
        ({"best": "quality"}, "accuracy", "needs a metric that compares two answers, and .* is 'accuracy'"),
        ({"best": "quality"}, "numeric_teacher", "numeric applies to none of 2 validation answers"),
    ],
)
def test_what_the_best_cannot_be_chosen_by_is_refused(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], primary: str | None, message: str
) -> None:
    run = a_run(tmp_path, validation=None if primary else [])
    recipe = replace(a_recipe(tiny_model, **settings), task=TaskConfig(primary=primary))
    with pytest.raises(UsageError, match=message):
        train(run, recipe, Silent())


@pytest.mark.parametrize("names", ["all", ["tensorboard", "mlflow"], "trackio", "none"])
def test_report_to_reaches_trl_as_it_was_written_and_runs_have_the_run_s_name(tmp_path: Path, names: str | list[str]) -> None:
    from trl import SFTConfig

    config = TrainConfig(args={"report_to": names, "bf16": False})
    arguments = trl_arguments(config, SFTConfig, {}, 64, False, tmp_path / "notices" / "train" / ".work")
    plain = SFTConfig(output_dir=str(tmp_path), report_to=names, bf16=False)
    assert arguments.report_to == plain.report_to and arguments.run_name == "notices"


def test_tensorboard_writes_beside_the_checkpoints_and_not_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with logged_beside(tmp_path / "train" / ".work"):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "train" / "tensorboard")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    with logged_beside(tmp_path / "train" / ".work"):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"
