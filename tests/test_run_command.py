"""`run`: part of the stages, all of them again, and a smoke run that says what the whole run takes."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from test_api import tables, toml

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.recipe.tables import Recipe, TaskConfig, TeacherConfig
from seqdistill.records import write_json
from seqdistill.runs import STAGES, Run, StageRecord
from seqdistill.smoke import check_smoke
from seqdistill.stages.train.checkpoints import SETTINGS, work_folder

PRICE = {"prompt": 1000.0, "completion": 10000.0}


def test_a_smoke_run_then_parts_then_all_again(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with ChatServer() as server:
        recipe = tables(server, tmp_path, tiny_model)
        recipe["teacher"]["price"] = PRICE
        recipe["eval"]["p95_limit"] = 60.0  # measured by requests that are paid
        recipe["train"]["args"] = {"num_train_epochs": 3, "per_device_train_batch_size": 2}
        (tmp_path / "recipe.toml").write_text(toml(recipe))
        command = ["run", str(run), "-c", str(tmp_path / "recipe.toml"), "-q"]
        assert main([*command, "--smoke", "4", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        whole = result["forecast"]
        assert (whole["smoke"], whole["prompts"], whole["test_prompts"]) == (4, 12, 4)
        assert [one["stage"] for one in whole["stages"]] == list(STAGES)
        assert result["generate"]["usd"] * 2 < whole["stages"][0]["usd"] < result["generate"]["usd"] * 4
        with Journal(Run(run).file("eval", "journal.jsonl"), writable=False) as journal:
            assert whole["stages"][3]["usd"] == pytest.approx(journal.spending.paid_usd), "all test prompts, and what measures"
        assert result["train"]["steps"] <= 10 and whole["bytes"] > 0

        sent = len(server.requests)
        assert main([*command, "--until", "filter"]) == 0
        after = [json.dumps(body, sort_keys=True) for body in server.requests]
        assert len(after) - sent == 8  # the four of the smoke run are not requested again
        assert Run(run).manifest("generate")["counts"]["prompts"] == 12  # type: ignore[index]

        capsys.readouterr()
        assert main([*command, "--from", "filter", "--until", "filter", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["filter"]["up_to_date"]
        assert main([*command, "--from", "filter", "--until", "filter", "--force", "--json"]) == 0
        forced = json.loads(capsys.readouterr().out)
        assert list(forced) == ["filter"] and not forced["filter"]["up_to_date"]
        sent = len(server.requests)
        assert main([*command, "--until", "generate", "--force", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["generate"]["new"] == 0 and len(server.requests) == sent

        assert main([*command, "--smoke", "4"]) == 2  # would replace the results of all prompts
        assert "-smoke" in capsys.readouterr().err
        for limit in ("12", "3"):  # of the whole run too
            assert main(["generate", *command[1:], "--limit", limit]) == 0
            assert main([*command, "--smoke", "2"]) == 2


FINISHED: list[tuple[str, dict[str, Any], tuple[str, ...], bool]] = [  # limits, stages done, whether a smoke run may begin
    ("nothing", {}, (), True),
    ("no limit", {}, STAGES, False),
    ("a limit of the recipe or a flag", {"generate.limit": 500, "eval.limit": 500}, STAGES, False),
    ("trained, generate started over", {}, ("train", "eval"), False),
    ("an earlier smoke run", {"smoke": 8, "generate.limit": 8, "eval.limit": 8}, STAGES, True),
    ("a smoke run, then generate of all", {"smoke": 8, "whole": "generate"}, STAGES, False),
    ("imported", {"imported": True}, ("generate",), True),
    ("imported and filtered", {"imported": True}, ("generate", "filter"), True),
    ("imported, then a smoke run", {"imported": True, "smoke": 8}, STAGES, True),
    ("imported and trained", {"imported": True}, ("generate", "filter", "train"), False),
    ("imported, and a training that was stopped", {"imported": True, "stopped": -1}, ("generate",), False),
    ("imported, and a smoke run's training that was stopped", {"imported": True, "stopped": 10}, ("generate",), True),
    ("imported, with a teacher to pay", {"imported": True, "teacher": True}, ("generate",), False),
]


@pytest.mark.parametrize(("about", "stages", "may"), [row[1:] for row in FINISHED], ids=[row[0] for row in FINISHED])
def test_a_smoke_run_replaces_nothing_but_a_smoke_run(
    about: dict[str, Any], stages: tuple[str, ...], may: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    for stage in stages:
        facts = {"imported": True} if stage == "generate" and about.get("imported") else {}
        run.file(stage, "x").parent.mkdir(parents=True)
        run.file(stage, "x").touch()
        key = f"{stage}.limit"
        record = StageRecord(run, stage, {key: about[key]} if key in about else {}, {})
        record.finish({"x": None}, config={}, **facts)
        if "smoke" in about and stage != about.get("whole") and not facts:
            run.mark_smoke(stage, about["smoke"])
    if "stopped" in about:
        (work_folder(run) / "checkpoint-4").mkdir(parents=True)
        settings = {"train.args": {"max_steps": about["stopped"]}}
        write_json(work_folder(run) / SETTINGS, StageRecord(run, "train", settings, {}).described())
    teacher = TeacherConfig(model="m", engine="openai") if about.get("teacher") else TeacherConfig()
    recipe = Recipe(task=TaskConfig(prompts="prompts.jsonl"), teacher=teacher)
    if may:
        check_smoke(run, recipe, 8)
        return
    with pytest.raises(UsageError) as caught:
        check_smoke(run, recipe, 8)
    assert f"{run.path}-smoke" in caught.value.hint


JUDGED = {
    "filter": {"validation": 0.1, "score": {"by": "judge"}},
    "eval": {"max_tokens": 8, "resamples": 100, "pairwise": True},
}


@pytest.mark.parametrize("args", [{"max_steps": 600}, {"num_train_epochs": 300}])
def test_a_smoke_run_of_ten_steps_forecasts_the_time_of_all_of_them(
    args: dict[str, int], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With max_steps the whole training was said to take as long as these ten steps."""
    with ChatServer() as server:
        recipe = tables(server, tmp_path, tiny_model)
        recipe["train"]["args"] = {"per_device_train_batch_size": 4, **args}
        (tmp_path / "recipe.toml").write_text(toml(recipe))
        assert main(["run", str(tmp_path / "run"), "-c", str(tmp_path / "recipe.toml"), "-q", "--smoke", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    train = next(one for one in result["forecast"]["stages"] if one["stage"] == "train")
    assert result["train"]["steps"] == 10
    assert train["seconds"] > train["smoke_seconds"] + 590 * 0.001, "no step takes less than a millisecond"


@pytest.mark.parametrize("who", ["filter", "eval"])
def test_a_smoke_run_forecasts_what_every_paid_judge_costs(
    who: str, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge_or_teacher(body: Body) -> Body:
        said = answer(body)
        if body["model"] == "judge":
            verdict = {"score": 8} if who == "filter" else {"choice": "first"}
            said["choices"][0]["message"]["content"] = json.dumps({"reason": "r", **verdict})
        return said

    with ChatServer(model=None, reply=judge_or_teacher) as server:
        recipe = tables(server, tmp_path, tiny_model)
        judge = {"model": "judge", "engine": "openai", "base_url": [server.url], "price": PRICE}
        (tmp_path / "recipe.toml").write_text(toml({**recipe, who: JUDGED[who], "judge": judge}))
        assert main(["run", str(tmp_path / "run"), "-c", str(tmp_path), "-q", "--smoke", "2", "--json"]) == 0
        judged = [answer(body)["usage"] for body in server.requests if body["model"] == "judge"]
    found = json.loads(capsys.readouterr().out)["forecast"]
    paid = sum(one["prompt_tokens"] * PRICE["prompt"] + one["completion_tokens"] * PRICE["completion"] for one in judged) / 1e6
    times = {"filter": 12 / 2, "eval": 4 / 2}  # prompts and test prompts
    expected = pytest.approx(paid * times[who], abs=1e-5)
    assert {one["stage"]: one["usd"] for one in found["stages"] if one["usd"] is not None} == {who: expected}
    assert judged and found["usd"] == expected


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--from", "trian"], "did you mean 'train'"),
        (["--until", "evaluate"], "did you mean 'eval'"),
        (["--from", "eval", "--until", "filter"], "--from eval comes after --until filter"),
    ],
)
def test_a_wrong_stage_is_named(flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "run"), *flags]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
