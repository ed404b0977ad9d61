"""The library's face and `run`: each command as a function, and nothing is paid while any stage would refuse."""

import asyncio
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer
from generate_runs import prompts_file

import seqdistill
from seqdistill import api
from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.recipe.reading import as_written


def tables(server: ChatServer, folder: Path, student: Path) -> dict[str, dict[str, object]]:
    prompts = prompts_file(folder, range(12))
    test = folder / "test.jsonl"
    test.write_text("".join(json.dumps({"prompt": f"held out {n}", "reference": "a stone"}) + "\n" for n in range(4)))
    return {
        "task": {"prompts": str(prompts), "test": str(test)},
        "teacher": {"model": "teacher", "engine": "openai", "base_url": [server.url]},
        "student": {"model": str(student)},
        "generate": {"max_tokens": 20, "temperature": 1.0},
        "filter": {"validation": 0.1, "schema": True},
        "train": {"args": {"max_steps": 2, "per_device_train_batch_size": 2}},
        "eval": {"max_tokens": 8, "resamples": 100},
    }


def test_the_four_stages_are_functions_also_inside_a_running_loop(tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"

    async def notebook(server: ChatServer) -> None:
        assert api.generate(run, tables(server, tmp_path, tiny_model)).samples == 12
        assert api.filter(run, {"filter": {"validation": 0.1}}).kept > 0
        assert api.train(run, tables(server, tmp_path, tiny_model)).steps == 2
        result = api.evaluate(run, tables(server, tmp_path, tiny_model))
        assert result.verdict
        assert result.paths["report"].exists()

    with ChatServer() as server:
        asyncio.run(notebook(server))


def test_a_table_of_a_wrong_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'samples'"):
        api.generate(tmp_path / "run", {"generate": {"sample": 3}})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("task", "test", None), "no test set"),
        (("task", "test", "none.jsonl"), "none.jsonl"),
        (("task", "test", "typo.jsonl"), "refrence"),
        (("task", "test", "prompts.jsonl"), "all 12 prompts are in the test set"),
        (("task", "primary", "macro_f1"), "primary"),
        (("student", "model", "./nowhere"), "nowhere"),
        (("student", "model", None), "no student is configured"),
        (("train", "args", {"learning_rat": 1e-3}), "did you mean 'learning_rate'"),
        (("train", "method", "soft"), "logprobs"),
        (("filter", "score", {"by": "judge"}), "no judge is configured"),
        (("filter", "contamination", {"against": ["none.jsonl"]}), "none.jsonl"),
    ],
)
def test_run_finds_what_a_later_stage_would_refuse_before_the_first_request(
    changed: tuple[str, str, object], says: str, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "typo.jsonl").write_text('{"prompt": "held out", "refrence": "a stone"}\n')
    table, key, value = changed
    with ChatServer() as server:
        recipe = tables(server, tmp_path, tiny_model)
        recipe[table].pop(key, None)
        if value is not None:
            recipe[table][key] = value
        (tmp_path / "recipe.toml").write_text(toml(recipe))
        assert main(["run", str(tmp_path / "run"), "-c", str(tmp_path)]) == 2, "-c takes the recipe's folder too"
        assert server.requests == []
    assert says in capsys.readouterr().err


def toml(tables: dict[str, dict[str, object]]) -> str:
    def value(of: object) -> str:
        if isinstance(of, dict):
            return "{ " + ", ".join(f"{key} = {value(part)}" for key, part in of.items()) + " }"
        return json.dumps(of)

    return "\n".join(
        f"[{table}]\n" + "\n".join(f"{key} = {value(of)}" for key, of in content.items()) for table, content in tables.items()
    )


def test_tables_take_what_python_has_for_a_text_a_list_and_a_number(tmp_path: Path) -> None:
    recipe = {"task": {"prompts": tmp_path / "p.jsonl"}, "eval": {"also": ("a.jsonl",), "margin": np.float32(0.5)}}
    assert as_written(recipe) == {"task": {"prompts": f"{tmp_path}/p.jsonl"}, "eval": {"also": ["a.jsonl"], "margin": 0.5}}
    assert api.status(tmp_path, {**recipe, "generate": {"samples": np.int64(2)}}).next is not None
    with pytest.raises(UsageError, match="no such run"):
        api.evaluate(tmp_path / "mistyped")


def test_no_name_of_the_library_is_a_module_that_would_take_its_place_once_it_is_imported() -> None:
    assert [name for name in seqdistill.__all__ if importlib.util.find_spec(f"seqdistill.{name}")] == []
