"""Settings: strict keys, one order of precedence, errors that name file, table, key and the nearest name."""

from pathlib import Path

import pytest

from seqdistill.config import GenerateConfig, Layer, Recipe, merge, parse_assignment, read_recipe, resolve
from seqdistill.errors import UsageError
from seqdistill.runs import Run, resolved_recipe


def recipe_file(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def resolve_recipe(run: Run, file: Path | None, flags: Layer) -> Recipe:
    with resolved_recipe(run, file, flags) as recipe:
        return recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[genrate]\nseed = 1", r"unknown table \[genrate\], did you mean 'generate'"),
        ("[generate]\ntemprature = 1", r"unknown key 'temprature' in \[generate\], did you mean 'temperature'"),
        ("[generate]\ntemperature = 'hot'", r"\[generate\] temperature = 'hot': want a number"),
        ("[generate]\ntemperature = -1", r"\[generate\] temperature = -1: less than 0"),
        ("[generate]\nsamples = 1.5", r"\[generate\] samples = 1.5: want a whole number"),
        ("[generate]\nsamples = true", r"\[generate\] samples = True: want a whole number"),
        ("[teacher]\nengine = 'vlm'", r"\[teacher\] engine = 'vlm', did you mean 'vllm'"),
        ("[teacher]\nbase_url = 'http://x'", r"\[teacher\] base_url = 'http://x': want a list"),
        ("generate = 3", "generate is not a table"),
        ("[generate", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_named_by_file_table_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = recipe_file(tmp_path, text)
    with pytest.raises(UsageError, match=says) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    recipe = resolve(read_recipe(recipe_file(tmp_path, "[generate]\ntemperature = 1\n")))
    assert recipe.generate.temperature == 1


def test_flags_lie_over_the_recipe_and_the_recipe_over_what_the_run_remembers(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert resolve_recipe(run, None, {}) == Recipe()
    resolve_recipe(run, None, {"teacher": {"model": "first/model", "engine": "openai"}})
    assert resolve_recipe(run, None, {}).teacher.model == "first/model"
    recipe = recipe_file(tmp_path / "task", "[teacher]\nmodel = 'second/model'\n[generate]\nsamples = 4\nseed = 3\n")
    seen = resolve_recipe(run, recipe, {"generate": {"samples": 2}})
    assert (seen.teacher.model, seen.teacher.engine) == ("second/model", "openai")
    assert (seen.generate.samples, seen.generate.seed, seen.generate.top_p) == (2, 3, GenerateConfig.top_p)


def test_a_run_knows_its_recipe_afterwards_and_its_paths_stay_relative_to_it(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "task", "[task]\nprompts = 'prompts.jsonl'\ntest = 'hf:owner/name'\n")
    run = Run(tmp_path / "runs" / "one")
    for given in (recipe, None):
        task = resolve_recipe(run, given, {}).task
        assert task.prompts is not None
        assert Path(task.prompts).resolve() == tmp_path / "task" / "prompts.jsonl"
        assert task.test == "hf:owner/name"
    assert (run.path / "recipe.toml").read_bytes() == recipe.read_bytes()


def test_wrong_use_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    recipe = recipe_file(tmp_path / "task", "[generate]\nsamples = 4\n")
    with pytest.raises(UsageError), resolved_recipe(run, recipe, {"teacher": {"model": "typo"}}):
        raise UsageError("unknown model")
    assert not run.path.exists()
    resolve_recipe(run, recipe, {"teacher": {"model": "right"}})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(UsageError), resolved_recipe(run, None, {"teacher": {"model": "typo"}}):
        raise UsageError("unknown model")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_set_reaches_nested_keys() -> None:
    tables = merge({"train": {"args": {"learning_rate": 1e-3, "seed": 1}}})
    for text in ("train.args.learning_rate=1e-5", "train.args.optim=adafactor", "generate.samples=3"):
        table, content = parse_assignment(text)
        tables = merge(tables, {table: content})
    recipe = resolve(tables)
    assert recipe.train.args == {"learning_rate": 1e-5, "seed": 1, "optim": "adafactor"}
    assert recipe.generate.samples == 3


@pytest.mark.parametrize("text", ["train", "train=3", "trian.seed=1", "train.sede=1", "generate.samples=x"])
def test_a_wrong_set_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_assignment(text)
