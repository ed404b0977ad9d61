"""A family of students in one run: real tiny students beside a real server; nothing is requested twice, everything resumes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from conftest import make_tiny_model
from filter_runs import sample

import seqdistill
from seqdistill import api
from seqdistill.cli import main
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.family.members import member_name
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.records import read_jsonl, write_jsonl
from seqdistill.runs import Run, StageRecord

ROWS, TESTS = 32, 20
PRICE = {"prompt": 1.0, "completion": 2.0}


@dataclass(frozen=True)
class Place:
    """A run whose generate and filter stages are done, two students beside it, and the teacher's server."""

    run: Run
    students: list[str]
    server: ChatServer
    recipe: Path

    @property
    def requests(self) -> int:
        return len(self.server.requests)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("family")
    students = [str(make_tiny_model(folder / name, layers=layers)) for name, layers in (("two", 2), ("one", 1))]
    run = Run(folder / "run")
    rows = [sample(f"Notice {n}: the road is shut.", f"Road {n} shut.", prompt_id=f"p{n}", id=f"p{n}:t:0") for n in range(ROWS)]
    write_jsonl(run.file("generate", "samples.jsonl"), rows)
    usd = {"prompt_tokens": 900, "completion_tokens": 500, "usd": 3.5}
    StageRecord(run, "generate", {}, {}).finish({"samples.jsonl": ROWS}, config={}, counts=usd, teacher={"name": "teacher"})
    parts = {"train.jsonl": rows[:28], "validation.jsonl": rows[28:]}
    for name, part in parts.items():
        write_jsonl(run.file("filter", name), part)
    counts = {name: len(part) for name, part in parts.items()}
    StageRecord(run, "filter", {}, {"samples": run.file("generate", "samples.jsonl")}).finish(counts, config={})
    write_jsonl(folder / "test.jsonl", [{"prompt": f"Notice {n + 50}: the road is shut."} for n in range(TESTS)])
    with ChatServer() as server:
        recipe = folder / "recipe.toml"
        recipe.write_text(f"""
            [task]
            test = "test.jsonl"
            [teacher]
            model = "teacher"
            engine = "openai"
            base_url = ["{server.url}"]
            price = {{ prompt = 1.0, completion = 2.0 }}
            [student]
            model = "{students[0]}"
            [train.args]
            num_train_epochs = 1
            per_device_train_batch_size = 8
            [eval]
            max_tokens = 6
            resamples = 100
            concurrency = 8
        """)
        yield Place(run, students, server, recipe)


def test_a_sweep_trains_compares_and_requests_nothing_of_the_teacher_twice(place: Place, capsys: Any) -> None:
    arguments = ["sweep", str(place.run.path), "--student", *place.students, "-q"]
    assert main([*arguments, "-c", str(place.recipe), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert place.requests == 2 * TESTS, "teacher and ceiling, once for all students"

    scores = json.loads(place.run.file("sweep", "scores.json").read_text())
    assert result["scores"] == scores
    names = [one["candidate"] for one in scores["candidates"]]
    assert names == ["nearest", place.students[1], place.students[0]], "the smallest first"
    assert [one["role"] for one in scores["candidates"]] == ["nearest", "student", "student"]
    assert scores["compared_with"] == "ceiling" and scores["n"] == TESTS
    assert (scores["cheapest"]["choose_on"], scores["cheapest"]["confirm_on"]) == (10, 10)
    assert scores["verdict"][0].startswith(("NONE PASSES", "CONFIRMED", "NOT CONFIRMED"))
    page = place.run.file("sweep", "report.html").read_text()
    assert "<svg" in page and scores["verdict"][0].split(":")[0] in page and "<script" not in page

    before = {path: path.stat().st_mtime_ns for path in place.run.path.rglob("*") if path.suffix in (".safetensors", ".jsonl")}
    assert main(arguments) == 0
    assert place.requests == 2 * TESTS
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is up to date is skipped"
    assert json.loads(place.run.file("sweep", "scores.json").read_text()) == scores
    assert "tok/s" in capsys.readouterr().out


def numbers_in(value: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    """The places of the numbers in a JSON document."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(part, (dict, list)):
            yield from numbers_in(part, *above, key)
        elif isinstance(part, (int, float)):
            yield (*above, key)


def check_that_each_number_is_verified(run: Run, folder: str) -> None:
    """Changes some of the numbers in the table of a sweep or curve: `verify` must name the file."""
    path = run.file(folder, "scores.json")
    text = path.read_text()
    assert api.verify(run.path).whole
    places = list(numbers_in(json.loads(text)))
    for place in places[:: len(places) // 4]:
        document = json.loads(text)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = 1.01 * inner[place[-1]] + 0.01
        path.write_text(json.dumps(document))
        found = api.verify(run.path)
        assert [one for one in found.problems if one.startswith(f"{path}: does not follow from the runs")], place
    path.write_text(text)


def test_a_changed_number_in_the_table_or_in_a_student_s_run_is_named(place: Place, tmp_path: Path) -> None:
    test_a_sweep_is_there(place)
    run = Run(tmp_path / "run")
    shutil.copytree(place.run.path, run.path, symlinks=True)
    check_that_each_number_is_verified(run, "sweep")
    scores = next(run.file("sweep", "").glob("*/eval/scores.json"))
    whole = scores.read_text()
    scores.write_text(whole.replace("1", "2", 1))
    assert api.verify(run.path).problems[0].startswith(f"{scores}: ")
    scores.write_text(whole)
    shutil.rmtree(scores.parent.parent)
    assert "missing" in api.verify(run.path).problems[0]


def test_a_member_is_a_run_on_which_every_command_works(place: Place, capsys: Any) -> None:
    test_a_sweep_is_there(place)
    member = place.run.path / "sweep" / member_name(place.students[1])
    assert main(["verify", str(member), "-q"]) == 0
    assert main(["train", str(member), "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["up_to_date"]
    assert main(["eval", str(member), "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["up_to_date"]
    spent = place.requests
    with resolved_recipe(member, None, {}, keep=False) as known:
        assert known.student.model == place.students[1] and known.teacher.price == PRICE
    Path(member / "eval" / "manifest.json").unlink()
    assert main(["eval", str(member), "-q"]) == 0
    assert place.requests == spent, "its journal is the run's"
    assert not (place.run.path / "train").exists(), "the run's own student is another matter"


def test_a_sweep_is_there(place: Place) -> None:
    if not place.run.file("sweep", "scores.json").exists():
        assert main(["sweep", str(place.run.path), "--student", *place.students, "-c", str(place.recipe), "-q"]) == 0


def test_a_student_that_cannot_be_trained_is_refused_before_the_first_training(place: Place, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(place.run.path, run.path, symlinks=True, ignore=shutil.ignore_patterns("sweep", "eval"))
    for wrong in (["shrink:two"], [place.students[0], "no/such/folder/here"], []):
        with pytest.raises(UsageError):
            seqdistill.sweep(run.path, place.recipe, students=wrong)
    assert not (run.path / "sweep").exists()


def test_a_student_that_fails_is_reported_and_the_others_are_compared(place: Place, tmp_path: Path, capsys: Any) -> None:
    from safetensors.torch import load_file, save_file

    test_a_sweep_is_there(place)
    run, broken = Run(tmp_path / "run"), tmp_path / "broken"
    shutil.copytree(place.run.path, run.path, symlinks=True)
    shutil.copytree(place.students[1], broken)
    weights = load_file(broken / "model.safetensors")
    save_file({name: float("nan") * one for name, one in weights.items()}, broken / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert main(["sweep", str(run.path), "--student", str(broken), place.students[1], "-c", str(place.recipe), "--json"]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert list(result["failed"]) == [str(broken)] and "not finite numbers" in result["failed"][str(broken)]
    assert list(result["members"]) == list(result["scores"]["students"]) == [place.students[1]]
    assert f"sweep: {broken} failed: " in " ".join(err.split())
    with pytest.raises(UsageError, match="not finite numbers"):
        seqdistill.sweep(run.path, place.recipe, students=[str(broken)])


@pytest.mark.parametrize("of_family", [{"students": ["shrink:1"]}, {}])
def test_students_that_an_endpoint_would_serve_are_refused_before_the_first_training(
    place: Place, of_family: dict[str, Any]
) -> None:
    settings = {"student": {"engine": "openai", "base_url": [place.server.url]}}
    with (
        resolved_recipe(place.run.path, place.recipe, settings, keep=False) as recipe,
        pytest.raises(UsageError, match="an endpoint serves none of them yet"),
    ):
        (seqdistill.sweep if of_family else seqdistill.curve)(place.run.path, recipe, **of_family)


def test_the_members_spend_from_the_budget_of_the_run_and_resume_when_it_is_raised(place: Place, tmp_path: Path) -> None:
    run, before = Run(tmp_path / "run"), place.requests
    shutil.copytree(place.run.path, run.path, symlinks=True, ignore=shutil.ignore_patterns("sweep", "eval"))
    first = run.path / "sweep" / member_name(place.students[1])

    def swept(budget: float) -> None:
        settings = {"generate": {"budget": budget}, "train": {"limit": 8}}
        with resolved_recipe(run.path, place.recipe, settings) as recipe:
            seqdistill.sweep(run.path, recipe, students=place.students[::-1])

    with pytest.raises(Incomplete):
        swept(0.0008)
    assert 0 < place.requests - before < 2 * TESTS
    paid = (run.path / "eval" / "journal.jsonl").read_text()
    assert paid and (first / "eval" / "journal.jsonl").read_text() == paid, "the member's journal is the run's"
    with pytest.raises(SeqdistillError, match="budget"):
        seqdistill.evaluate(first)
    trained = (first / "train" / "manifest.json").read_bytes()
    swept(1.0)
    assert place.requests - before == 2 * TESTS, "what was answered before is not requested again"
    assert (first / "train" / "manifest.json").read_bytes() == trained


def test_a_training_that_the_run_has_is_taken_over(place: Place, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(place.run.path, run.path, symlinks=True, ignore=shutil.ignore_patterns("sweep"))
    settings = {"train": {"args": {"max_steps": 1}}}
    with resolved_recipe(run.path, place.recipe, settings) as recipe:
        seqdistill.train(run.path, recipe)
        seqdistill.sweep(run.path, recipe, students=[place.students[0]])
    member = run.path / "sweep" / member_name(place.students[0])
    taken, own = (one.manifest("train") or {} for one in (Run(member), run))
    assert (taken["started"], taken["fingerprint"]) == (own["started"], own["fingerprint"])
    assert (member / taken["student"]["base"]).samefile(place.students[0])
    assert main(["verify", str(member), "-q"]) == 0


def test_a_directory_is_named_by_its_student_alone() -> None:
    assert [member_name(name) for name in ("shrink:8", "Qwen/Qwen3-0.6B")] == ["shrink-8", "Qwen-Qwen3-0.6B"]
    assert member_name("/a/model") != member_name("/b/model") and member_name("/a/model").startswith("model-")


def test_a_curve_trains_on_nested_parts_and_says_what_more_rows_would_do(place: Place, tmp_path: Path, capsys: Any) -> None:
    run, before = Run(tmp_path / "run"), place.requests
    shutil.copytree(place.run.path, run.path, symlinks=True, ignore=shutil.ignore_patterns("sweep", "eval"))
    arguments = ["curve", str(run.path), "--repeats", "1", "-q"]
    assert main([*arguments, "-c", str(place.recipe), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores == json.loads(run.file("curve", "scores.json").read_text())
    assert place.requests - before == 2 * TESTS, "teacher and ceiling, once for all parts"

    assert [(one["part"], one["rows"]) for one in scores["points"]] == [("1/8", 3), ("1/4", 7), ("1/2", 14), ("all", 28)]
    assert [one["rows"] for one in scores["repeats"]] == [4]
    parts = {name: part_of(run, name) for name in ("eighths-1", "eighths-2", "eighths-4", "all", "again-1")}
    assert parts["eighths-1"] < parts["eighths-2"] < parts["eighths-4"] < parts["all"]
    assert not parts["again-1"] & parts["eighths-1"]
    assert {one["epochs"] for one in scores["points"]} == {1.0}
    assert scores["usd_per_row"] == pytest.approx(3.5 / ROWS)
    assert scores["outlook"][0]["usd"] == pytest.approx(3.5 / ROWS * 28)
    assert scores["points"][-1]["error"]["value"] == pytest.approx(100 - scores["points"][-1]["score"]["value"], abs=1e-4)
    page = run.file("curve", "report.html").read_text()
    assert 'class="band"' in page and "<script" not in page

    trained = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.safetensors")}
    assert main(arguments) == 0 and place.requests - before == 2 * TESTS
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert json.loads(run.file("curve", "scores.json").read_text()) == scores
    assert "what more rows would do" in capsys.readouterr().out
    assert main(["verify", str(run.path / "curve" / "eighths-1"), "-q"]) == 0
    check_that_each_number_is_verified(run, "curve")


def part_of(run: Run, name: str) -> set[str]:
    return {row["prompt_id"] for _, row in read_jsonl(run.path / "curve" / name / "filter" / "train.jsonl")}


def test_a_curve_of_too_few_prompts_is_refused_before_a_training(place: Place, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(place.run.path, run.path, symlinks=True, ignore=shutil.ignore_patterns("sweep", "eval"))
    rows = [row for _, row in read_jsonl(run.file("filter", "train.jsonl"))][:9]
    write_jsonl(run.file("filter", "train.jsonl"), rows)
    with pytest.raises(UsageError, match="9 prompts are too few"):
        seqdistill.curve(run.path, place.recipe)
    few = {"task": {"test": str(tmp_path / "few.jsonl")}}
    write_jsonl(tmp_path / "few.jsonl", [{"prompt": f"Notice {n + 50}"} for n in range(9)])
    with resolved_recipe(place.run.path, place.recipe, few, keep=False) as recipe, pytest.raises(UsageError, match="9 test"):
        seqdistill.curve(place.run.path, recipe)
    assert not (run.path / "curve").exists()
