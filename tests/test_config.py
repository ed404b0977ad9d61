"""Settings: strict keys, one order of precedence, errors that name file, table, key and the nearest name."""

import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import ChatServer
from generate_runs import Notes, prompts_file, recipe

from seqdistill import api
from seqdistill.errors import Busy, UsageError
from seqdistill.recipe.reading import Layer, merge, parse_assignment, read_recipe, resolve
from seqdistill.recipe.remembered import inherit, resolved_recipe
from seqdistill.recipe.tables import FilterConfig, GenerateConfig, NearDuplicatesConfig, Recipe, settings, settings_of
from seqdistill.records import write_json
from seqdistill.runs import Run, StageRecord
from seqdistill.tasks.templates import recipe_file


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def resolve_recipe(run: Run, file: Path | None, flags: Layer) -> Recipe:
    with resolved_recipe(run.path, file, flags) as recipe:
        return recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[genrate]\nseed = 1", r"unknown table \[genrate\], did you mean 'generate'"),
        ("[generate]\ntemprature = 1", r"unknown key 'temprature' in \[generate\], did you mean 'temperature'"),
        ("[generate]\ntemperature = 'hot'", r"\[generate\] temperature = 'hot': expected a number"),
        ("[generate]\ntemperature = -1", r"\[generate\] temperature = -1: less than 0"),
        ("[generate]\nsamples = 1.5", r"\[generate\] samples = 1.5: expected a whole number"),
        ("[generate]\nsamples = true", r"\[generate\] samples = True: expected a whole number"),
        ("[teacher]\nengine = 'vlm'", r"\[teacher\] engine = 'vlm', did you mean 'vllm'"),
        ("[teacher]\nbase_url = 3", r"\[teacher\] base_url = 3: expected a list"),
        ("generate = 3", "generate = 3 is not a table"),
        ("margin = 3", "margin = 3 is in no table"),
        ("\ufeff[genrate]\nseed = 1", r"unknown table \[genrate\]"),  # with the mark that editors on Windows write
        (
            "[filter.near_duplicate]\nscope = 'off'",
            r"unknown key 'near_duplicate' in \[filter\], did you mean 'near_duplicates'",
        ),
        ("[filter.near_duplicates]\nsimilarty = 1", r"'similarty' in \[filter.near_duplicates\], did you mean 'similarity'"),
        ("[filter.near_duplicates]\nsimilarity = 9", r"\[filter.near_duplicates\] similarity = 9: more than 1"),
        ("[filter.near_duplicates]\nscope = 'pairs'", r"\[filter.near_duplicates\] scope = 'pairs', did you mean 'pair'"),
        ("[filter.score]\nvalidation = 0.1", r"'validation' in \[filter.score\], did you mean 'filter.validation'"),
        ("[filter]\nselect = 'best'", r"filter.select = 'best' is not a table"),
        ("[generate", "not TOML"),
        ("[generate]\ntemperature = nan", r"\[generate\] temperature = nan: not .* finite"),
        ("[train.args]\nlearning_rate = inf", r"\[train\] args.learning_rate = inf: not .* finite"),
        (f"[filter]\nlimit = {1 << 63}", r"\[filter\] limit = 9223372036854775808: more than 64 bits"),
        (f"[train.args]\nmax_steps = {-1 << 64}", r"\[train\] args.max_steps = -18446744073709551616: more than 64 bits"),
        ("[filter]\nworkers = 100_000", r"\[filter\] workers = 100000: more than 1024"),
        ("[teacher]\noptions = { a = [{ b = 2026-01-31 }] }", r"\[teacher\] options.a.b = 2026-01-31: not text"),
        ("[train]\nseed = 4294967296", r"\[train\] seed = 4294967296: more than"),
    ],
)
def test_a_wrong_recipe_is_named_by_file_table_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=says) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    recipe = resolve(read_recipe(written(tmp_path, "[generate]\ntemperature = 1\n")))
    assert recipe.generate.temperature == 1


def test_flags_lie_over_what_the_run_remembers_and_that_over_its_copy_of_the_recipe(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert resolve_recipe(run, None, {}) == Recipe()
    recipe = written(tmp_path / "task", "[teacher]\nmodel = 'first/model'\n[generate]\nsamples = 4\nseed = 3\n")
    flags = {"teacher": {"model": "second/model", "engine": "openai"}, "generate": {"samples": 2}}
    for seen in (resolve_recipe(run, recipe, flags), resolve_recipe(run, None, {"generate": {"samples": 2}})):
        assert (seen.teacher.model, seen.teacher.engine) == ("second/model", "openai")
        assert (seen.generate.samples, seen.generate.seed, seen.generate.top_p) == (2, 3, GenerateConfig.top_p)


PRICED: list[tuple[str, list[Layer], dict[str, float]]] = [  # flags of one command after the other, and the price in the end
    ("the recipe's model", [{}], {"prompt": 1.0, "completion": 2.0}),
    ("the recipe's model, named", [{"teacher": {"model": "cheap"}}], {"prompt": 1.0, "completion": 2.0}),
    ("another", [{"teacher": {"model": "dear"}}], {}),
    ("another, remembered", [{"teacher": {"model": "dear"}}, {}], {}),
    ("another, priced", [{"teacher": {"model": "dear", "price": {"prompt": 9.0}}}, {}], {"prompt": 9.0}),
    (
        "the recipe's model again",
        [{"teacher": {"model": "dear"}}, {"teacher": {"model": "cheap"}}],
        {"prompt": 1.0, "completion": 2.0},
    ),
    ("another in place of a priced one", [{"teacher": {"price": {"batch": 0.2}}}, {"teacher": {"model": "dear"}}, {}], {}),
    (
        "another, priced, in place of a priced one",
        [{"teacher": {"price": {"batch": 0.2}}}, {"teacher": {"model": "dear", "price": {"prompt": 9.0}}}, {}],
        {"prompt": 9.0},
    ),
    (
        "one part of it",
        [{"teacher": {"price": {"batch": 0.2}}}, {"teacher": {"model": "cheap"}}, {}],
        {"prompt": 1.0, "completion": 2.0, "batch": 0.2},
    ),
]


@pytest.mark.parametrize(("commands", "price"), [pytest.param(*case[1:], id=case[0]) for case in PRICED])
def test_a_price_is_that_of_the_model_it_was_written_for(
    tmp_path: Path, commands: list[Layer], price: dict[str, float]
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('[teacher]\nmodel = "cheap"\nengine = "openai"\nprice = { prompt = 1.0, completion = 2.0 }\n')
    for number, flags in enumerate(commands):
        with resolved_recipe(tmp_path / "run", None if number else file, flags) as resolved:
            found = resolved.teacher.price
    assert found == price


def test_a_recipe_passed_again_is_never_mixed_with_the_flags_of_before(tmp_path: Path) -> None:
    run, recipe = Run(tmp_path / "run"), written(tmp_path / "task", "[teacher]\nmodel = 'first/model'\n")
    resolve_recipe(run, recipe, {"teacher": {"model": "gpt", "engine": "openai"}, "student": {"model": "small"}})
    for given in (recipe, None):
        seen = resolve_recipe(run, given, {})
        assert (seen.teacher.model, seen.teacher.engine) == ("first/model", "transformers")
        assert seen.student.model == "small", "the recipe says nothing of the student"


def test_a_run_knows_its_recipe_afterwards_and_its_paths_stay_relative_to_it(tmp_path: Path) -> None:
    recipe = written(tmp_path / "task", "[task]\nprompts = 'prompts.jsonl'\ntest = 'hf:owner/name'\n")
    run = Run(tmp_path / "runs" / "one")
    for given in (recipe, None):
        task = resolve_recipe(run, given, {}).task
        assert task.prompts is not None
        assert Path(task.prompts).resolve() == tmp_path / "task" / "prompts.jsonl"
        assert task.test == "hf:owner/name"
    assert (run.path / "recipe.toml").read_bytes() == recipe.read_bytes()


def test_wrong_use_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    recipe = written(tmp_path / "task", "[generate]\nsamples = 4\n")
    with pytest.raises(UsageError), resolved_recipe(run.path, recipe, {"teacher": {"model": "typo"}}):
        raise UsageError("unknown model")
    assert not run.path.exists()
    resolve_recipe(run, recipe, {"teacher": {"model": "right"}})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    for refusal in (UsageError("unknown model"), Busy("another process is at work")):
        with pytest.raises(type(refusal)), resolved_recipe(run.path, None, {"teacher": {"model": "typo"}}):
            raise refusal
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.parametrize("refusal", [UsageError("no student is configured"), Busy("another process is at work")])
def test_the_recipe_that_a_stage_was_finished_with_is_kept_when_a_later_one_is_refused(
    tmp_path: Path, refusal: Exception
) -> None:
    run, recipe = Run(tmp_path / "run"), written(tmp_path / "task", "[generate]\nsamples = 4\n")
    with pytest.raises(type(refusal)), resolved_recipe(run.path, recipe, {"teacher": {"model": "paid"}}):
        write_json(run.file("generate", "manifest.json"), {})
        raise refusal
    kept = resolve_recipe(run, None, {})
    assert (kept.teacher.model, kept.generate.samples) == ("paid", 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("near = 'off'", "near_duplicates.scope"),
        ("near_similarity = 0.9", "near_duplicates.similarity"),
        ("near_guard = 1", "near_duplicates.guard"),
        ("contamination_overlap = 0.5", "contamination.overlap"),
        ("min_chars = 3", "integrity.min_chars"),
        ("finish_reasons = ['stop']", "integrity.finish_reasons"),
        ("verify_command = ['x']", "verify.command"),
        ("reward_model = 'x'", "score.reward_model"),
        ("best_n = 3", "select.best_n"),
        ("unscored = 'keep'", "select.unscored"),
        ("phone_regions = ['US']", "personal_data.phone_regions"),
    ],
)
def test_a_key_of_a_step_outside_its_table_is_an_error_that_names_its_place(tmp_path: Path, old: str, new: str) -> None:
    path = written(tmp_path, f"[filter]\n{old}\n")
    with pytest.raises(UsageError, match=rf"unknown key '\w+' in \[filter\], did you mean '{new}'"):
        read_recipe(path)


def test_what_a_run_remembers_is_checked_too(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "run.json").write_text('{"remembered": {"filter": {"near_similarity": 0.9}}}')
    with pytest.raises(UsageError, match=r"run\.json: unknown key 'near_similarity' in \[filter\]"):
        resolve_recipe(run, None, {})


def test_a_table_in_a_table_has_defaults_paths_and_flags_laid_over_it_by_key(tmp_path: Path) -> None:
    text = "[filter.near_duplicates]\nsimilarity = 0.9\nguard = 1\n[filter.contamination]\nagainst = ['x.jsonl', 'hf:a/b']\n"
    text += "[filter.verify]\ncommand = ['python', 'check.py']\n"
    recipe = written(tmp_path / "task", text)
    (tmp_path / "task" / "check.py").touch()
    seen = resolve_recipe(Run(tmp_path / "run"), recipe, {"filter": {"near_duplicates": {"similarity": 0.7}}}).filter
    assert seen.near_duplicates == NearDuplicatesConfig(similarity=0.7, guard=1)
    assert [Path(source).name for source in seen.contamination.against] == ["x.jsonl", "b"]
    assert Path(seen.contamination.against[0]).parent == tmp_path / "task"
    assert seen.verify.command == ["python", str(tmp_path / "task" / "check.py")]
    assert seen.score == FilterConfig().score


def test_a_fingerprint_holds_dotted_names_and_nothing_that_leaves_the_output_as_it_is() -> None:
    names = settings(FilterConfig())
    assert names["near_duplicates.similarity"] == 0.8 and names["seed"] == 0
    assert not {"engine", "workers", "near_duplicates"} & set(names)


def test_the_readme_names_every_step_of_the_filter_with_all_its_keys() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    flags = {
        name: re.findall(r"`([a-z_]+)`", re.sub(r"\(.*?\)", "", keys))
        for name, keys in re.findall(r"^\| `\[filter\.(\w+)\]` \|.*\| (.*?)(?:;.*)? \|$", readme, re.MULTILINE)
    }
    steps: dict[str, list[str]] = {}
    for setting in settings_of(FilterConfig):
        if len(setting.names) == 2:
            steps.setdefault(setting.names[0], []).append(setting.names[1])
    assert flags == steps


def test_set_reaches_nested_keys() -> None:
    tables = merge({"train": {"args": {"learning_rate": 1e-3, "seed": 1}}})
    for text in (
        "train.args.learning_rate=1e-5",
        "train.args.optim=adafactor",
        "generate.samples=3",
        "filter.near_duplicates.similarity=0.9",
    ):
        table, content = parse_assignment(text)
        tables = merge(tables, {table: content})
    recipe = resolve(tables)
    assert recipe.train.args == {"learning_rate": 1e-5, "seed": 1, "optim": "adafactor"}
    assert recipe.generate.samples == 3
    assert recipe.filter.near_duplicates == NearDuplicatesConfig(similarity=0.9)


@pytest.mark.parametrize(
    "text", ["train", "train=3", "trian.seed=1", "train.sede=1", "generate.samples=x", "filter.near_duplicates=off"]
)
def test_a_wrong_set_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_assignment(text)


def test_the_run_s_own_recipe_keeps_its_paths_and_an_edited_source_is_mentioned(tmp_path: Path) -> None:
    source = tmp_path / "mine" / "recipe.toml"
    source.parent.mkdir()
    (source.parent / "p.jsonl").write_text("")
    source.write_text('[task]\nprompts = "p.jsonl"\n')
    run = tmp_path / "run"
    notes: list[str] = []
    with resolved_recipe(run, source, {"teacher": {"model": "t"}}):
        pass
    for file in (None, run / "recipe.toml"):
        with resolved_recipe(run, file, {}, notes.append) as recipe:
            assert (Path(str(recipe.task.prompts)).resolve(), recipe.teacher.model) == (source.parent / "p.jsonl", "t")
    assert notes == ["from an earlier command on this run: --teacher t"] * 2
    source.write_text('[task]\nprompts = "p.jsonl"\n[generate]\nsamples = 2\n')
    with resolved_recipe(run, None, {"teacher": {"model": "t"}}, notes.append) as recipe:
        assert recipe.generate.samples == 1
    assert "recipe.toml has changed since this run copied it; pass it with -c" in notes[-1]


@pytest.mark.parametrize("linked", ["runs", "runs/a", "mine"])
def test_what_is_reached_by_a_link_to_another_disk_finds_the_files_of_its_recipe(linked: str, tmp_path: Path) -> None:
    project, disk = tmp_path / "project", tmp_path / "disk" / "far" / "away"
    disk.mkdir(parents=True)
    (project / linked).parent.mkdir(parents=True)
    (project / linked).symlink_to(disk)
    source, run = project / "mine" / "recipe.toml", project / "runs" / "a"
    source.parent.mkdir(exist_ok=True)
    (source.parent / "p.jsonl").write_text("")
    source.write_text('[task]\nprompts = "p.jsonl"\n')

    def found(run: Path) -> Path:
        with resolved_recipe(run, None, {}) as recipe:
            return Path(str(recipe.task.prompts)).resolve()

    with resolved_recipe(run, source, {}) as recipe:
        inherit(run, run / "sweep" / "s1", recipe)
        inputs = StageRecord(Run(run), "generate", {}, {"prompts": Path(str(recipe.task.prompts))}).described()["inputs"]
    assert found(run) == found(run / "sweep" / "s1") == (source.parent / "p.jsonl").resolve()
    assert (run / inputs["prompts"]["path"]).exists()
    if linked == "mine":
        assert found(project.rename(tmp_path / "moved") / "runs" / "a") == disk / "p.jsonl"


@pytest.mark.parametrize("place", ["same run", "other run", "copied", "copied with its files"])
def test_a_run_s_copy_of_a_recipe_finds_the_files_of_the_recipe(place: str, tmp_path: Path) -> None:
    source, runs = tmp_path / "mine" / "recipe.toml", tmp_path / "runs"
    source.parent.mkdir()
    (source.parent / "p.jsonl").write_text("")
    source.write_text('[task]\nprompts = "p.jsonl"\n')
    with resolved_recipe(runs / "a", source, {}):
        pass
    copy = runs / "a" / "recipe.toml"
    if place.startswith("copied"):
        shutil.copytree(runs / "a", runs / "b" if place == "copied" else tmp_path / "elsewhere" / "deep" / "a")
        copy = (runs / "b" if place == "copied" else tmp_path / "elsewhere" / "deep" / "a") / "recipe.toml"
    if place == "copied with its files":
        shutil.move(source.parent / "p.jsonl", copy.parent)
    wanted = (copy.parent if place == "copied with its files" else source.parent) / "p.jsonl"
    for run in (runs / ("a" if place == "same run" else "c"),) * 2:
        with resolved_recipe(run, copy, {}) as recipe:
            assert Path(str(recipe.task.prompts)).resolve() == wanted
        with resolved_recipe(run, None, {}) as recipe:
            assert Path(str(recipe.task.prompts)).resolve() == wanted


def test_a_budget_is_remembered_until_another_one_is_set(tmp_path: Path) -> None:
    source = tmp_path / "recipe.toml"
    source.write_text("[generate]\nsamples = 2\n")
    run = tmp_path / "run"

    def budget(file: Path | None, **flags: float) -> float | None:
        with resolved_recipe(run, file, {"generate": flags}) as recipe:
            return recipe.generate.budget

    assert [budget(source), budget(None, budget=5.0), budget(None), budget(source), budget(None, budget=9.0)] == [
        None,
        5,
        5,
        5,
        9,
    ]
    source.write_text("[generate]\nbudget = 3\n")
    assert [budget(source), budget(None)] == [3, 3]


def test_a_shipped_recipe_goes_by_its_name() -> None:
    found = recipe_file(Path("notices"))
    assert found is not None and found.parts[-2:] == ("notices", "recipe.toml")
    assert recipe_file(Path("no-such.toml")) == Path("no-such.toml")
    with pytest.raises(UsageError, match="-c notice: no such recipe, did you mean 'notices'"):
        recipe_file(Path("notice"))


def test_one_text_where_a_list_is_wanted_is_a_list_of_one(tmp_path: Path) -> None:
    url = "http://localhost:8000/v1"
    with resolved_recipe(tmp_path / "run", None, {"teacher": {"base_url": url}}) as recipe:
        assert recipe.teacher.base_url == [url]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (1, 2, ["1 -> 2"]),
        (None, "hot", ["not set -> hot"]),
        ([["t", "t@1", None, "mit", {"prompt": 1.0}]], [["t", "t@1", None, "mit", {"prompt": 2.0}]], ["prompt = 1.0 -> 2.0"]),
        ([["t", "t@1"]], [["u", "u@1"]], ["t -> u", "t@1 -> u@1"]),
        (["a"], ["a", "b"], ['["a"] -> ["a", "b"]']),
        (False, True, ["false -> true"]),
        ("x" * 100, "y", ["x" * 57 + "... -> y"]),
    ],
)
def test_what_changed_is_said_in_short(old: object, new: object, says: list[str], tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "generate").mkdir()
    StageRecord(run, "generate", {"key": old}, {}).finish({}, config={})
    assert StageRecord(run, "generate", {"key": new}, {}).differences() == [f"key: {text}" for text in says]


@pytest.mark.parametrize(
    ("stage", "changed", "says"),
    [
        ("filter", "prompts.jsonl", "filter: generate is stale: prompts: the content changed"),
        ("train", "prompts.jsonl", "train: generate is stale: prompts: the content changed"),
        ("train", "filter", "train: filter is stale: filter.validation: 0.05 -> 0.3"),
        (
            "eval",
            "run/generate/samples.jsonl",
            "eval: generate is stale: its files have changed since",
        ),
        ("filter", "", ""),
        ("train", "", ""),
    ],
)
def test_a_stage_hears_that_an_earlier_one_would_be_made_otherwise(tmp_path: Path, stage: str, changed: str, says: str) -> None:
    run, notes = tmp_path / "run", Notes()
    with ChatServer() as server:
        plan = recipe(server, prompts_file(tmp_path, range(8)))
        plan = replace(plan, student=replace(plan.student, model=str(tmp_path / "no-such-model")))
        api.generate(run, plan, checked=True)
        api.filter(run, plan)
        if changed == "filter":
            plan = replace(plan, filter=replace(plan.filter, validation=0.3))
        elif changed:
            with (tmp_path / changed).open("a") as file:
                file.write('{"prompt": "one more"}\n' if "prompts" in changed else "\n")
        do = {"filter": api.filter, "train": api.train, "eval": api.evaluate}[stage]
        with suppress(UsageError):  # there is no student; the note comes before
            do(run, plan, progress=notes)
    found = [note for note in notes.notes if "is stale: " in note]
    assert [note.startswith(says) for note in found] == ([True] if says else []), found
