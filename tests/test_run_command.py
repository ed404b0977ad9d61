"""`run`: part of the stages, all of them again, and a smoke run that says what the whole run takes."""

import json
from pathlib import Path

import pytest
from chat_server import ChatServer
from test_api import tables, toml

from seqdistill.cli import main
from seqdistill.runs import STAGES, Run

PRICE = {"prompt": 1000.0, "completion": 10000.0}


def test_a_smoke_run_then_parts_then_all_again(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with ChatServer() as server:
        recipe = tables(server, tmp_path, tiny_model)
        recipe["teacher"]["price"] = PRICE
        recipe["train"]["args"] = {"num_train_epochs": 3, "per_device_train_batch_size": 2}
        (tmp_path / "recipe.toml").write_text(toml(recipe))
        command = ["run", str(run), "-c", str(tmp_path / "recipe.toml"), "-q"]
        assert main([*command, "--smoke", "4", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        whole = result["forecast"]
        assert (whole["smoke"], whole["prompts"], whole["test_prompts"]) == (4, 12, 4)
        assert [one["stage"] for one in whole["stages"]] == list(STAGES)
        assert result["generate"]["usd"] * 2 < whole["stages"][0]["usd"] < result["generate"]["usd"] * 4
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
