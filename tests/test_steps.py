"""A student cut in steps: each is trained before it is cut again, stopped between two it continues, and all ends the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_shrink import loaded
from train_runs import ARGS, Listener, a_run, weights

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.runs import Run
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.stage import train

SHORT = {**ARGS, "max_steps": 2}


def recipe(teacher: Path, steps: str = "3,2,1", student: str = "shrink:1", **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=student),
        teacher=TeacherConfig(model=str(teacher)),
        train=TrainConfig(**{"steps": steps, "layers": "even", "args": SHORT, **settings}),
    )


@pytest.fixture(scope="module")
def stepped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_run(tmp_path_factory.mktemp("stepped") / "run")
    train(run, recipe(tiny_model), Silent())
    return run


def test_each_step_is_cut_from_what_the_one_before_has_trained(stepped: Run, tiny_model: Path) -> None:
    import torch

    folders = [stepped.file("train", f"steps/{number}/model") for number in (3, 2)]
    bases = [stepped.file("train", "steps/2/base"), stepped.file("train", "base")]
    for source, base in zip(folders, bases, strict=True):
        layers = json.loads((base / "shrink.json").read_text())["layers"]
        model, cut = loaded(source), loaded(base)
        for new, old in enumerate(layers):
            for name, weight in model.model.layers[old].state_dict().items():
                assert torch.equal(cut.model.layers[new].state_dict()[name], weight)
    assert loaded(stepped.file("train", "model")).config.num_hidden_layers == 1
    assert not torch.equal(loaded(bases[1]).model.embed_tokens.weight, loaded(tiny_model).model.embed_tokens.weight)


def test_the_manifest_says_what_each_step_had_in_the_teacher_s_layers(stepped: Run) -> None:
    manifest = stepped.manifest("train") or {}
    steps = manifest["steps"]
    layers = [*(step["layers"] for step in steps), manifest["student"]["layers"]]
    assert [len(kept) for kept in layers] == [3, 2, 1]
    folders = ["steps/3/base", "steps/2/base", "base"]
    chosen = [json.loads((stepped.file("train", folder) / "shrink.json").read_text())["layers"] for folder in folders]
    for before, kept, own in zip([[0, 1, 2, 3], *layers], layers, chosen, strict=False):
        assert kept == [before[layer] for layer in own]
    assert layers == [[0, 2, 3], [0, 3], [0]] and chosen == [[0, 2, 3], [0, 2], [0]]  # numbered anew in each step
    assert all(step["steps"] == 2 and step["train_loss"] > 0 for step in steps)


def test_stopped_between_two_steps_it_continues_and_ends_with_the_same_bytes(
    stepped: Run, tiny_model: Path, tmp_path: Path
) -> None:
    class Stopped(Listener):
        def note(self, text: str) -> None:
            super().note(text)
            if "of 2 (even)" in text:  # the last step's student is cut
                raise KeyboardInterrupt

    run, again = a_run(tmp_path / "run"), Listener()
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe(tiny_model), Stopped())
    assert run.manifest("train") is None
    trained = run.file("train", "steps/2/model/model.safetensors").stat().st_mtime_ns
    train(run, recipe(tiny_model), again)
    assert run.file("train", "steps/2/model/model.safetensors").stat().st_mtime_ns == trained
    ended, whole = (weights(one.file("train", "model")) for one in (run, stepped))
    assert all((ended[name] == whole[name]).all() for name in whole)
    assert train(run, recipe(tiny_model), Silent()).up_to_date


def test_other_steps_use_those_that_are_there_and_replace_the_rest(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    train(run, recipe(tiny_model, "3,2", "shrink:2"), Silent())
    before = run.file("train", "steps/3/model/model.safetensors").stat().st_mtime_ns
    assert not train(run, recipe(tiny_model, "3,1", "shrink:1"), Silent()).up_to_date
    assert run.file("train", "steps/3/model/model.safetensors").stat().st_mtime_ns == before
    train(run, recipe(tiny_model, "2,1", "shrink:1"), Silent())
    assert [folder.name for folder in run.file("train", "steps").iterdir()] == ["2"]
    train(run, recipe(tiny_model, "2,1", "shrink:1", args={**SHORT, "learning_rate": 0.01}), Silent())
    step, base = (weights(run.file("train", name)) for name in ("steps/2/model", "base"))
    assert (step["model.embed_tokens.weight"] == base["model.embed_tokens.weight"]).all()


def test_vocabulary_and_width_are_cut_in_the_first_step_and_terms_compare_with_the_teacher(
    tiny_model: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run")
    settings = recipe(tiny_model, "3,2", "shrink:2", width=0.5, features=1.0, args={**ARGS, "max_steps": 1})
    train(run, settings, Silent())
    student = (run.manifest("train") or {})["student"]
    assert student["width"] == {"kept": 32, "of": 64, "by": "activation"} and len(student["layers"]) == 2


@pytest.mark.parametrize(
    ("steps", "student", "settings", "reason"),
    [
        ("3,x,1", "shrink:1", {}, "expected falling numbers"),
        ("1,2,3", "shrink:3", {}, "expected falling numbers"),
        ("1", "shrink:1", {}, "expected falling numbers"),
        ("3,2", "shrink:1", {}, "the last step has 2 layers, and .* 'shrink:1'"),
        ("3,2", "some/model", {}, "the last step has 2 layers"),
        ("3,2", "shrink:2", {"layers": "0,1"}, "a list is for one step"),
        ("9,2", "shrink:2", {}, "layers '9'"),
    ],
)
def test_steps_that_do_not_lead_to_the_student_are_refused(
    tiny_model: Path, tmp_path: Path, steps: str, student: str, settings: dict[str, Any], reason: str
) -> None:
    run = a_run(tmp_path / "run")
    for stage in (check, train):
        with pytest.raises(UsageError, match=reason):
            stage(run, recipe(tiny_model, steps, student, **settings), Silent())  # type: ignore[operator]


def test_preflight_checks_the_first_step(tiny_model: Path, tmp_path: Path) -> None:
    found = check(a_run(tmp_path / "run"), recipe(tiny_model), Silent())
    assert found.parameters > 0 and any("the first of the steps 3,2,1" in note for note in found.notes)
