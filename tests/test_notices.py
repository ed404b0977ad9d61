"""The demo task's data: no leak from test to training, balanced slices, the same bytes from the generator."""

import importlib.util
import json
from pathlib import Path

import pytest

from seqdistill.recipe.reading import read_recipe
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template, prompts_folder

NOTICES = prompts_folder() / "notices"


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("write_notices", NOTICES / "write_notices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (NOTICES / file).read_text(encoding="utf-8").splitlines()]


def test_the_generator_writes_the_files_that_are_there(writer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "__file__", str(tmp_path / "write_notices.py"))
    writer.main()
    for file in ("prompts.jsonl", "test.jsonl"):
        assert (tmp_path / file).read_bytes() == (NOTICES / file).read_bytes()


def test_no_test_notice_and_no_pair_of_place_and_reason_is_trained_on(writer, monkeypatch) -> None:
    pairs: dict[str, set[tuple[str, str]]] = {"prompts.jsonl": set(), "test.jsonl": set()}
    write = writer.write
    monkeypatch.setattr(writer, "write", lambda rng, frame, facts, s: write(rng, frame, facts, s) | {"facts": facts})
    for file, _, row in writer.notices():
        pairs[file].add((row["facts"]["place"], row["facts"]["reason"]))
    assert len(pairs["prompts.jsonl"]) == len(rows("prompts.jsonl"))
    assert not pairs["prompts.jsonl"] & pairs["test.jsonl"]
    assert not {row["prompt"] for row in rows("prompts.jsonl")} & {row["prompt"] for row in rows("test.jsonl")}


@pytest.mark.parametrize(("file", "least"), [("prompts.jsonl", 80), ("test.jsonl", 34)])
def test_each_slice_has_enough_rows_to_be_judged_alone(file: str, least: int) -> None:
    slices = [row["slice"] for row in rows(file)]
    assert set(slices) == {"normal", "hard", "critical"}
    assert min(slices.count(name) for name in set(slices)) >= least


def test_nothing_is_left_unfilled_and_every_reference_is_one_sentence() -> None:
    for row in rows("prompts.jsonl") + rows("test.jsonl"):
        assert not set("{}|") & set(row["prompt"] + row["reference"])
        assert row["reference"].count(". ") == 0 and row["reference"].endswith(".")
        assert row["reference"][0].isupper() and row["prompt"][0].isupper()


def test_the_template_gives_the_student_less_than_the_teacher() -> None:
    prompt = load_prompts(str(NOTICES / "test.jsonl"), load_template("notices"), limit=1)[0]
    length = {view: sum(len(m["content"]) for m in getattr(prompt, view)) for view in ("teacher_messages", "messages")}
    assert length["messages"] < length["teacher_messages"]
    assert prompt.messages[-1]["content"] == rows("test.jsonl")[0]["prompt"]


def test_the_recipe_has_only_known_keys() -> None:
    assert read_recipe(NOTICES / "recipe.toml")["student"]["model"].startswith("shrink:")
