"""What holds for every method: killed and resumed it ends with the same bytes; adapters and two processes train as meant."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from forked import train_and_kill, train_in_two
from train_runs import Listener, a_recipe, a_run, sample, sha256, weights

from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig, Recipe
from seqdistill.runs import Run
from seqdistill.stages.train.scored_targets import score_targets
from seqdistill.stages.train.stage import train

STEPS = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.01}
CUT = {"student": "shrink:2", "layers": "0,3"}
METHODS: dict[str, dict[str, Any]] = {
    "sequence": {},
    "soft": {"method": "soft"},
    "on_policy": {"method": "on_policy", "args": {**STEPS, "max_completion_length": 8}},
    "preference": {"method": "preference"},
    "features": {**CUT, "features": 1.0},
    "relations": {**CUT, "relations": 1.0, "attention": 1.0, "distances": 1.0},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "teacher", seed=7)


def prepared(folder: Path, name: str, student: Path, teacher: Path, **more: Any) -> tuple[Run, Recipe]:
    """A filtered run of 8 rows and a recipe of the method; with targets where it needs them."""
    settings = {"student": student, "args": STEPS, **METHODS[name], **more}
    args = {**settings.pop("args"), **settings.pop("further", {})}
    recipe = a_recipe(settings.pop("student"), str(teacher), args, **settings)
    run = a_run(folder, [sample(n) for n in range(8)])
    if name == "soft":
        score_targets(run, recipe, 8, None, Silent())
    return run, recipe


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("sequence", "relations")])
def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bytes(
    tiny_model: Path, teacher: Path, tmp_path: Path, name: str
) -> None:
    chosen = {"generations": 1, "best": "quality", "best_prompts": 2, "further": {"eval_strategy": "steps", "eval_steps": 1}}
    whole, recipe = prepared(tmp_path / "whole", name, tiny_model, teacher, **chosen)
    result = train(whole, recipe, Silent())
    run, recipe = prepared(tmp_path / "run", name, tiny_model, teacher, **chosen)
    assert train_and_kill(run, recipe, at_step=4) == -signal.SIGKILL and run.manifest("train") is None
    listener = Listener()
    resumed = train(run, recipe, listener)
    assert "train: resuming at step 3" in listener.notes
    assert sha256(resumed.path / "model.safetensors") == sha256(result.path / "model.safetensors")
    assert run.file("train", "log.jsonl").read_bytes() == whole.file("train", "log.jsonl").read_bytes()
    assert replace(resumed, seconds=0, path=Path()) == replace(result, seconds=0, path=Path())


@pytest.mark.parametrize(
    ("name", "more", "reads"),
    [
        ("sequence", {}, False),
        ("preference", {}, False),
        ("on_policy", {}, True),
        ("features", {}, True),
        ("features", {"cut": "already"}, True),
        ("relations", {"cut": "already"}, True),
        ("soft", {"cut": "already", "attention": 1.0}, True),
    ],
    ids=str,
)
def test_with_another_teacher_it_is_not_up_to_date_where_the_teacher_is_read(
    tiny_model: Path, teacher: Path, tmp_path: Path, name: str, more: dict[str, Any], reads: bool
) -> None:
    from seqdistill.stages.train.shrink import shrink
    from seqdistill.stages.train.stage import record_of

    terms = {key: value for key, value in more.items() if key != "cut"}
    run, recipe = prepared(tmp_path / "run", name, tiny_model, teacher, **terms)
    if "cut" in more:
        shrink(str(teacher), tmp_path / "cut", "0,3")
        recipe = replace(recipe, student=replace(recipe.student, model=str(tmp_path / "cut")))
    other = make_tiny_model(tmp_path / "other", seed=9)
    records = [record_of(run, replace(recipe, teacher=replace(recipe.teacher, model=str(one)))) for one in (teacher, other)]
    assert (records[0].fingerprint != records[1].fingerprint) == reads


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sequence"])
def test_adapters_alone_are_trained(tiny_model: Path, teacher: Path, tmp_path: Path, name: str) -> None:
    once = {"max_steps": 1}
    run, recipe = prepared(tmp_path / "run", name, tiny_model, teacher, further=once, lora=LoraConfig(r=4), generations=1)
    result = train(run, recipe, Silent())
    before, after = weights(run.file("train", "base") if "student" in METHODS[name] else tiny_model), weights(result.path)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed and changed <= {name for name in before if name.endswith("_proj.weight")}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("sequence", "relations")])
def test_two_processes_train_as_one_does(tiny_model: Path, teacher: Path, tmp_path: Path, name: str) -> None:
    """Of on_policy this is only that it trains: each process samples answers of its own."""
    import torch

    exact = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant"}
    one, recipe = prepared(tmp_path / "one", name, tiny_model, teacher, further={**exact, "per_device_train_batch_size": 8})
    train(one, recipe, Silent())
    halves = {**exact, "per_device_train_batch_size": 4}
    two, recipe = prepared(tmp_path / "two", name, tiny_model, teacher, further=halves, generations=1, processes=2)
    assert train_in_two(two, recipe) == [0, 0]
    ours, theirs = (weights(run.file("train", "model")) for run in (two, one))
    if name == "on_policy":
        before = weights(tiny_model)
        assert all((ours[key] != before[key]).any() for key in before if "norm" not in key)
        return
    for key, weight in theirs.items():
        torch.testing.assert_close(ours[key], weight, rtol=1e-3, atol=1e-5)
