"""Who is compared: a teacher that is recorded or away, files of outputs, baselines that cost nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from conftest import BRACKETS
from finished_runs import finished_run, recipe
from test_eval import served, write_test

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.likeness import nearest_rows
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe, StudentConfig, TeacherConfig
from seqdistill.records import Prompt, write_json, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.baselines import Texts, majority
from seqdistill.stages.evaluate.outputs import read_outputs
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.generate.recorded import import_recorded
from seqdistill.tasks.templates import PLAIN

ROWS = 24


@pytest.fixture
def plan(tmp_path: Path, tiny_model: Path) -> Recipe:
    return recipe(write_test(tmp_path / "test.jsonl", ROWS), tiny_model)


def record(run: Run, folder: Path, rows: int = ROWS) -> None:
    """Imports answers to the first test prompts."""
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    log = folder / "log.jsonl"
    write_jsonl(log, [{"prompt": row["prompt"], "completion": f"It is {row['reference']}."} for row in lines[:rows]])
    for name in ("manifest.json", "samples.jsonl", "failures.jsonl"):
        run.file("generate", name).unlink()
    import_recorded(run, Recipe(), [log], Silent())


def test_without_a_teacher_the_recorded_answers_are_the_teacher_and_the_ceiling_says_why(
    run: Run, plan: Recipe, tmp_path: Path
) -> None:
    record(run, tmp_path)
    scores = evaluate(run, replace(plan, teacher=TeacherConfig()), Silent()).scores
    assert scores["models"]["teacher"]["called"] == "teacher, recorded" and scores["n"] == ROWS
    assert scores["models"]["teacher"]["chrf_reference"]["value"] > 50
    assert scores["models"]["ceiling"]["absent"].startswith("no teacher is configured")
    assert any("The row ceiling is empty" in line for line in scores["verdict"])


@pytest.mark.usefixtures("impatient")
def test_a_teacher_that_cannot_be_reached_is_tried_first_and_its_recorded_answers_are_used(
    run: Run, plan: Recipe, tmp_path: Path
) -> None:
    record(run, tmp_path)
    with ChatServer(lambda *_: "500") as server:
        away = served(plan, server)
        scores = evaluate(run, away, Silent()).scores
        assert "cannot be reached" in scores["models"]["ceiling"]["absent"]
        assert scores["models"]["teacher"]["called"] == "teacher, recorded"
        server.fault = None
        again = evaluate(run, away, Silent())
    assert not again.up_to_date and again.scores["models"]["ceiling"]["identity"] == "teacher"


@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_is_away_is_found_before_any_local_work(run: Run, plan: Recipe) -> None:
    with ChatServer(lambda *_: "500") as server, pytest.raises(SeqdistillError, match="500"):
        evaluate(run, served(plan, server), Silent())
    journal = run.file("eval", "journal.jsonl").read_text()
    assert "transformers" not in journal and '"completion"' not in journal


def test_with_neither_teacher_nor_reference_there_is_nothing_to_compare_with(run: Run, plan: Recipe, tmp_path: Path) -> None:
    write_test(tmp_path / "test.jsonl", 12, reference=None)
    with pytest.raises(UsageError, match="nothing to compare the student with: only 0 of 12"):
        evaluate(run, replace(plan, teacher=TeacherConfig()), Silent())


def test_references_alone_are_enough(run: Run, plan: Recipe) -> None:
    scores = evaluate(run, replace(plan, teacher=TeacherConfig()), Silent()).scores
    assert "only 0 of 24 test prompts have a recorded answer" in scores["models"]["teacher"]["absent"]
    assert scores["primary"] == "chrf_reference" and scores["models"]["student"]["chrf_teacher"] is None
    assert scores["decision"] == "INCONCLUSIVE" and scores["models"]["student"]["chrf_reference"]["value"] is not None


def test_the_settings_of_a_student_that_are_not_applied_are_in_the_scores(run: Run, plan: Recipe) -> None:
    config = run.file("train", "model") / "generation_config.json"
    write_json(config, {**json.loads(config.read_text()), "repetition_penalty": 1.3})
    few = replace(plan, teacher=TeacherConfig(), eval=replace(plan.eval, limit=10, max_tokens=2))
    models = evaluate(run, few, Silent()).scores["models"]
    assert models["student"]["neutralised"] == ["repetition_penalty = 1.3"] and "neutralised" not in models["base"]


def test_the_untrained_student_is_prompted_by_the_template_that_it_was_trained_with(
    run: Run, plan: Recipe, tmp_path: Path, prompted: list[str]
) -> None:
    base, own = run.file("train", "base"), tmp_path / "brackets.jinja"
    own.write_text(BRACKETS, encoding="utf-8")
    (base / "chat_template.jinja").unlink()
    few = replace(plan, teacher=TeacherConfig(), eval=replace(plan.eval, limit=10, max_tokens=2))
    evaluate(run, replace(few, student=replace(few.student, chat_template=str(own))), Silent())
    by_brackets = [text for text in prompted if text.startswith("<|im_start|>(user)")]
    assert len(by_brackets) == 10 and len(prompted) == 20, "the trained student has its template in its folder"


def test_the_base_is_prompted_last_and_for_a_multiple_of_the_teachers_length(run: Run, plan: Recipe) -> None:
    def reply(body: Body) -> Body:
        raw = answer(body)
        raw["usage"] |= {"completion_tokens": 20}
        return raw

    with ChatServer(reply=reply) as teacher, ChatServer(reply=reply, model=None) as students:
        away = served(replace(plan, eval=replace(plan.eval, max_tokens=500)), teacher)
        away = replace(
            away, student=StudentConfig(engine="openai", base_url=[students.url]), generate=GenerateConfig(retries=0)
        )
        evaluate(run, away, Silent())
    most = [body["max_tokens"] for body in students.requests]
    assert most == [500] * ROWS + [64] * ROWS


def test_a_file_of_outputs_is_one_more_row(run: Run, plan: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "task.toml"
    template.write_text('[teacher]\nuser = "Please: {{ prompt }}"\n')
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    outputs, other = tmp_path / "rival.jsonl", finished_run(tmp_path / "other", Path(str(plan.teacher.model)))
    thought = '<think>\nIt may be 4, or "number 9".\n</think>\n\n'  # as a model that reasons was logged
    write_jsonl(outputs, [{"prompt": row["prompt"], "completion": thought + row["reference"]} for row in rows])
    compared = replace(
        plan,
        task=replace(plan.task, template=str(template)),
        eval=replace(plan.eval, also=[str(outputs), str(plan.teacher.model), f"run:{other.path}"]),
    )
    result = evaluate(run, compared, Silent())
    models = result.scores["models"]
    assert models["rival"]["exact_reference"]["value"] == 100.0 and "rival" in [row[0] for row in result.rows]
    assert models["tiny"]["parameters"] == models["teacher"]["parameters"]
    assert models["other"]["identity"] == models["student"]["identity"], "the student of the other run, here the same"
    others = [cell["other"] for cell in result.scores["comparisons"] if cell["metric"] == "exact_reference"]
    assert {"rival", "tiny"} <= set(others) and any("rival" in line for line in result.verdict)
    assert "rival" in result.paths["report"].read_text()
    outputs.write_text(outputs.read_text().replace('nnumber 3"', 'nnumber 4"'))
    assert not evaluate(run, compared, Silent()).up_to_date


def answered(*models: str | None) -> list[dict[str, str]]:
    """A line of each model, which says its name; without a model, its number."""
    named = [{"id": "p", "completion": model or str(number)} for number, model in enumerate(models)]
    return [row | ({"model": model} if model else {}) for row, model in zip(named, models, strict=True)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (answered("base", "student", "teacher"), "student"),  # predictions.jsonl: the untrained base comes first
        (answered("base"), "base"),  # the lines of one model, taken out of it
        (answered("gpt-4o"), "gpt-4o"),
        (answered(None, None), "0"),
        (answered("gpt-4o", "llama"), None),  # whose answers are meant cannot be known
        (answered(None, "llama"), None),
    ],
)
def test_of_a_file_with_several_models_the_students_answers_are_taken(
    tmp_path: Path, rows: list[dict[str, str]], said: str | None
) -> None:
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    asked = [{"role": "user", "content": "Who are you?"}]
    prompts = [Prompt("p", asked, asked)]
    if said is None:
        with pytest.raises(UsageError, match="answers of several models"):
            read_outputs(tmp_path / "predictions.jsonl", prompts, PLAIN)
    else:
        assert read_outputs(tmp_path / "predictions.jsonl", prompts, PLAIN)["p"].content == said


@pytest.mark.parametrize(("lines", "said"), [(3, ["0", "1", "2"]), (2, ["0", "1", "0"]), (1, ["0"] * 3), (5, ["0", "1", "2"])])
def test_prompts_of_one_text_are_answered_by_its_lines_in_turn(tmp_path: Path, lines: int, said: list[str]) -> None:
    write_jsonl(tmp_path / "out.jsonl", [{"prompt": "Who?", "completion": str(n)} for n in range(lines)])
    messages = [{"role": "user", "content": "Who?"}]
    found = read_outputs(tmp_path / "out.jsonl", [Prompt(f"q{n}", messages, messages) for n in range(3)], PLAIN)
    assert [found[f"q{n}"].content for n in range(3)] == said


@pytest.mark.parametrize(
    ("row", "answered"),
    [
        ({"id": "0"}, "0"),
        ({"id": "0", "prompt": "Is 4 even?"}, "0"),
        ({"id": "0", "prompt": "Number: 4"}, "0"),  # what the template makes of it
        ({"id": "0", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is 4  even?"}]}, "0"),
        ({"id": "0:t:0", "prompt_id": "0", "prompt": [{"role": "user", "content": "Is 9 odd?"}]}, None),  # numbered from 0, too
        ({"id": "0", "prompt": "Is 9 odd?"}, None),
        ({"id": "0", "prompt": "Is 5 even?"}, "1"),  # the prompt counts, not the number
        ({"id": "0", "prompt": ""}, "0"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Is 5 even?"}]}]}, "1"),
        *(
            ({"id": "7", "prompt": prompt}, None)
            for prompt in ([], [1], ["Is 4 even?"], [{"role": "user"}], [{"content": "4"}])
        ),
    ],
)
def test_an_id_counts_for_nothing_in_a_line_with_another_prompt(
    tmp_path: Path, row: dict[str, Any], answered: str | None
) -> None:
    write_jsonl(tmp_path / "out.jsonl", [row | {"completion": "Yes."}])
    template = replace(PLAIN, student={"user": "{{ prompt }}"}, teacher={"user": "Is {{ prompt.split()[-1] }} even?"})
    prompts = [Prompt(str(n), m, m) for n in range(2) for m in [[{"role": "user", "content": f"Is {n + 4} even?"}]]]
    assert list(read_outputs(tmp_path / "out.jsonl", prompts, template)) == ([answered] if answered else [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "Another.", "completion": "x"}], "no answer to 24 of 24 test prompts"),
        ([{"id": "a"}], "rival.jsonl:1: the line has no completion"),
        ([{"prompt": "Tell number 0 in words. ", "completion": 7}], "rival.jsonl:1: the completion is neither text nor"),
    ],
)
def test_bad_outputs_are_an_error_before_any_request(
    run: Run, plan: Recipe, tmp_path: Path, rows: list[Any], message: str
) -> None:
    outputs = tmp_path / "rival.jsonl"
    write_jsonl(outputs, rows)
    with pytest.raises(UsageError, match=message):
        evaluate(run, replace(plan, eval=replace(plan.eval, also=[str(outputs)])), Silent())
    assert not run.file("eval", "journal.jsonl").exists()


def test_the_nearest_training_answer_is_that_of_the_most_similar_prompt(run: Run, plan: Recipe) -> None:
    documents = ["the cat sat on the mat", "a dog barked at night", "rain fell on the town"]
    assert nearest_rows(["did the dog bark at night?", "rain in town", "mat", ""], documents) == [1, 2, 0, 0]


def test_the_nearest_row_is_the_one_scikit_learn_finds() -> None:
    """scikit-learn 1.9.1: TfidfVectorizer(token_pattern=r"\\w+").fit_transform(documents), cosine argmax."""
    documents = [f"notice {n % 7} of {n % 5} in street {n % 11}" for n in range(60)]
    queries = ["street 10 notice 3", "of 4 in", "notice 6 of 2 in street 9", "street"]
    assert nearest_rows(queries, documents) == NEAREST


NEAREST = [10, 4, 20, 22]


def test_the_majority_class_is_that_of_the_training_answers(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "x"}]
    rows: list[dict[str, Any]] = [
        {"prompt": asked, "completion": [{"role": "assistant", "content": text}]} for text in ("no", "yes", "no", "No.", "hm")
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    prompts = [Prompt(str(n), asked, asked, "yes") for n in range(3)]
    assert majority(Texts(prompts, 5, tmp_path / "train.jsonl", ("yes", "no"))) == ["no"] * 3
    assert majority(Texts(prompts, 5, None, ("no", "yes"))) == ["yes"] * 3
