"""A run that was moved, without the recipe and the files it came from: what each command does, and what it asks for."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from chat_server import ChatServer
from read_only import read_only
from test_api import tables, toml

from seqdistill import api
from seqdistill.cli import main
from seqdistill.recipe.remembered import TEMPLATE, resolved_recipe
from seqdistill.runs import STAGES, Run
from seqdistill.serve.server import ServeOptions, Serving
from seqdistill.tasks.templates import load_template

TASK = '[teacher]\nsystem = "Be brief."\nuser = "Say: {{ prompt }}"\n[student]\nuser = "Q: {{ prompt }}"\n'
PROMPTS, TEST = "prompts.jsonl", "data/test.jsonl"  # as the recipe names them
NOT_THERE = "of a run that was moved, to the run: put the file there"


@pytest.fixture(scope="module")
def project(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its files, and the run made by it beside them; its teacher is gone."""
    folder = tmp_path_factory.mktemp("project")
    with ChatServer() as server:
        recipe = tables(server, folder, tiny_model)
        recipe["task"] = {"template": "task.toml", "prompts": PROMPTS, "test": TEST}
        (folder / "data").mkdir()
        (folder / "test.jsonl").rename(folder / TEST)
        (folder / "task.toml").write_text(TASK)
        (folder / "recipe.toml").write_text(toml(recipe))
        assert main(["run", str(folder / "run"), "-c", str(folder / "recipe.toml"), "-q"]) == 0
    return folder


def moved(project: Path, to: Path, *files: str) -> Path:
    """A copy of the run elsewhere, with these files put into it; what it came from is not there."""
    run = to / "elsewhere" / "run"
    shutil.copytree(project / "run", run)
    for name in files:
        (run / name).parent.mkdir(exist_ok=True)
        shutil.copy(project / name, run / name)
    return run


DONE = "everything is up to date"
AGAIN = ["--set", "train.args.max_steps=1"]
CASES: list[tuple[list[str], list[str], int, str]] = [  # the command, files that were moved with the run, exit code, message
    (["status"], [], 0, "not compared with the recipe"),
    (["status"], [PROMPTS, TEST], 0, DONE),
    (["verify"], [], 0, "whole"),
    (["show"], [], 0, "INCONCLUSIVE"),
    (["generate"], [], 2, NOT_THERE),
    (["generate"], [PROMPTS], 0, ""),
    (["filter"], [PROMPTS], 2, NOT_THERE),
    (["filter", "--validation", "0.3"], [TEST], 0, ""),
    (["train"], [], 0, ""),
    (["train", *AGAIN], [], 0, ""),
    (["train", "--preflight"], [], 0, ""),
    (["eval"], [], 2, NOT_THERE),
    (["eval"], [TEST], 0, ""),
    (["export", "--to", "safetensors"], [], 0, ""),
    (["export", "--data", "trl"], [], 0, ""),
    (["eval", "--student", "Qwen/Qwen3-0.6B"], [TEST], 2, "pass the folder of tiny with --student"),
    (["run"], [PROMPTS], 2, NOT_THERE),
    (["run"], [PROMPTS, TEST], 0, ""),
    (["run", "--from", "train", *AGAIN], [TEST], 0, ""),
    (["run", "--from", "filter", "--force", "--until", "filter"], [TEST], 0, ""),
]


@pytest.mark.parametrize(
    ("command", "files", "code", "says"),
    [pytest.param(*case, id=f"{' '.join(case[0])} with {' '.join(case[1]) or 'nothing'}") for case in CASES],
)
def test_a_moved_run_works_with_what_it_has_and_names_what_it_lacks(
    command: list[str],
    files: list[str],
    code: int,
    says: str,
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = moved(project, tmp_path, *files)
    if command[-1] == AGAIN[-1] and command[0] == "run":  # the teacher is gone: what it said is known
        monkeypatch.setattr("seqdistill.engines.dispatch.DOWN_SECONDS", {False: 0.5, True: 600.0})
    assert main([command[0], str(run), *command[1:]]) == code
    seen = capsys.readouterr()
    assert says in " ".join((seen.out + seen.err).split())
    assert all((run / stage / "manifest.json").exists() for stage in STAGES)


READ_ONLY: list[tuple[list[str], int, str]] = [
    (["status"], 0, DONE),
    (["verify"], 0, "whole"),
    (["show"], 0, "INCONCLUSIVE"),
    (["run"], 0, ""),
    *(([stage], 0, "") for stage in STAGES),
    (["generate", "--dry-run"], 0, ""),
    (["train", "--preflight"], 0, ""),
    (["train", "--preflight", "--set", "train.vocabulary=task"], 0, ""),
    (["train", *AGAIN], 1, "Permission denied"),
    (["export", "--to", "safetensors", "--out", "OUT"], 0, ""),
    (["export", "--to", "vllm", "--out", "OUT"], 0, ""),
    (["export", "--data", "trl", "--out", "OUT"], 0, ""),
    (["export", "--data", "llama-factory", "--out", "OUT"], 0, ""),
    (["export", "--to", "safetensors"], 1, "Permission denied"),
    (["export", "--data", "trl"], 1, "Permission denied"),
]


@pytest.mark.parametrize(("command", "code", "says"), READ_ONLY, ids=[" ".join(case[0]) for case in READ_ONLY])
def test_a_read_only_run_does_all_that_writes_nothing_to_it(
    command: list[str], code: int, says: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = moved(project, tmp_path, PROMPTS, TEST)
    before = sorted(run.rglob("*"))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in command[1:]]
    with read_only(run):
        assert main([command[0], str(run), *words]) == code
    seen = capsys.readouterr()
    assert says in " ".join((seen.out + seen.err).split()) and "Traceback" not in seen.err
    assert sorted(run.rglob("*")) == before


def test_a_moved_run_whose_vocabulary_is_the_task_s_is_not_compared_without_its_test_set(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(project, tmp_path / "project")
    recipe = tomllib.loads((folder / "recipe.toml").read_text())
    recipe["train"]["vocabulary"] = "task"
    recipe["filter"]["contamination"] = {"against": ["others.jsonl"]}
    (folder / "others.jsonl").write_text('{"prompt": "Another task altogether"}\n')
    (folder / "recipe.toml").write_text(toml(recipe))
    for stage in ("filter", "train"):
        assert main([stage, str(folder / "run"), "-c", str(folder / "recipe.toml"), "-q"]) == 0
    run = moved(folder, tmp_path)
    for name in ("others.jsonl", TEST):  # with each, one less is not there
        for stage in api.status(run).stages[1:3]:
            whole = stage.stage == "train" and (run / TEST).exists()
            assert stage.state == "done" and [why[:30] for why in stage.why] == ["not compared with the recipe: "] * (not whole)
        assert main(["filter", str(run)]) == 2 and NOT_THERE in " ".join(capsys.readouterr().err.split())
        (run / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / name, run / name)
    assert [(stage.state, stage.why) for stage in api.status(run).stages[1:3]] == [("done", [])] * 2


def test_a_moved_run_serves_the_student_with_the_template_it_was_trained_with(project: Path, tmp_path: Path) -> None:
    run = moved(project, tmp_path)
    with resolved_recipe(run, None, {}, keep=False) as recipe:
        assert load_template(recipe.task.template).teacher["user"] == "Say: {{ prompt }}"
        with Serving(Run(run), recipe, ServeOptions(port=0, threshold=0.0)) as serving:
            assert serving.url


def test_the_run_s_template_is_that_of_the_last_command_and_only_of_the_recipe_s_own(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    run = folder / "run"
    (folder / "task.toml").write_bytes(TASK.replace("Say", "Tell").replace("\n", "\r\n").encode())
    with resolved_recipe(run, None, {}):
        assert (run / TEMPLATE).read_bytes() == (folder / "task.toml").read_bytes(), "its hash is in fingerprints"
    (folder / "task.toml").unlink()
    with resolved_recipe(run, None, {}) as recipe:
        assert recipe.task.template == str(run / TEMPLATE)
    with resolved_recipe(run, None, {"task": {"template": "notices"}}) as recipe:
        assert recipe.task.template == "notices" and not (run / TEMPLATE).exists()


def test_a_relative_path_is_looked_up_at_the_recipe_first(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    (folder / "run" / PROMPTS).write_text(json.dumps({"prompt": "another"}) + "\n")
    with resolved_recipe(folder / "run", None, {}, keep=False) as recipe:
        assert Path(str(recipe.task.prompts)).resolve() == (folder / PROMPTS).resolve()
