"""A task whose answers have a form: the teacher of the proof is held to it as in generate, the student is not."""

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from finished_runs import recipe
from generate_runs import Notes

from seqdistill.errors import Incomplete, UsageError
from seqdistill.metrics.formulas import _checker
from seqdistill.progress import Silent
from seqdistill.recipe.tables import EvalConfig, GenerateConfig, Recipe, StudentConfig, TaskConfig, TeacherConfig
from seqdistill.records import write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.inputs import check
from seqdistill.stages.evaluate.result import NAMED, EvalResult
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.statistics.intervals import share
from seqdistill.stages.evaluate.verification import verify

KINDS = ["praise", "complaint", "question"]
SCHEMA = {"type": "object", "properties": {"kind": {"enum": KINDS}}, "required": ["kind"], "additionalProperties": False}
ROWS = 24


def number(body: Body) -> int:
    return int(body["messages"][-1]["content"].split()[1])


def said(body: Body, text: str) -> Body:
    raw = answer(body)
    raw["choices"][0] |= {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return raw


def teacher(body: Body) -> Body:
    """Right but on every twelfth letter; in the form that it is asked for."""
    n = number(body)
    kind = KINDS[(n + (n % 12 == 0)) % 3]
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return said(body, json.dumps({next(iter(schema["properties"])): kind}) if schema else f"I think it is {kind}.")


def student(body: Body) -> Body:
    """The trained one is right on three letters of four and wordy on the others; the untrained one is always wordy."""
    n = number(body)
    return said(body, KINDS[n % 3] if n % 4 and body["model"].endswith("model") else "Dear reader, it is a letter.")


@pytest.mark.parametrize(
    ("references", "says"),
    [
        (["praise", "Complaint."], None),
        (
            ["praise", "complaints", "complaints"],
            "the references of 2 of 3 test prompts are not in [generate] choices: 'complaints'",
        ),
        (["complaints", "spam", None], "'complaints' 1 times, did you mean 'complaint'?"),
    ],
)
def test_references_that_are_no_choice_are_noted_before_anything_is_paid(
    references: list[str | None], says: str | None, tmp_path: Path
) -> None:
    rows = [{"prompt": f"letter {n}"} | ({"reference": one} if one else {}) for n, one in enumerate(references)]
    write_jsonl(tmp_path / "test.jsonl", rows)
    plan = Recipe(task=TaskConfig(test=str(tmp_path / "test.jsonl")), generate=GenerateConfig(choices=KINDS))
    check(Run(tmp_path / "run"), plan, notes := Notes())
    assert bool(notes.notes) == bool(says) and (says or "") in "".join(notes.notes)


@pytest.fixture
def servers() -> Iterator[tuple[ChatServer, ChatServer]]:
    with ChatServer(reply=teacher) as of_teacher, ChatServer(reply=student, model=None) as of_student:
        yield of_teacher, of_student


def plan(folder: Path, servers: tuple[ChatServer, ChatServer], primary: str = "exact_reference", **asked: Any) -> Recipe:
    test = folder / "test.jsonl"
    lines = [
        {"prompt": f"Letter {n} is here.", "reference": KINDS[n % 3], "slice": ["short", "long"][n // 12]} for n in range(ROWS)
    ]
    write_jsonl(test, lines)
    urls = [[server.url] for server in servers]
    return Recipe(
        task=TaskConfig(test=str(test), primary=primary),
        teacher=TeacherConfig(model="teacher", engine="openai", base_url=urls[0]),
        student=StudentConfig(engine="openai", base_url=urls[1]),
        generate=GenerateConfig(**{"retries": 0, "max_tokens": 12, **asked}),
        eval=EvalConfig(resamples=200),
    )


def forms(server: ChatServer) -> list[Any]:
    return [body.get("response_format") for body in server.requests]


def printed(result: EvalResult, capsys: pytest.CaptureFixture[str]) -> str:
    from seqdistill.console import Console
    from seqdistill.show import show_eval

    show_eval(Console(), result)
    return capsys.readouterr().out


def test_teacher_and_ceiling_are_held_to_the_form_and_the_students_are_not(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    evaluate(run, plan(tmp_path, servers, schema=SCHEMA), Silent())
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    assert forms(servers[0]) == [wanted] * 2 * ROWS and forms(servers[1]) == [None] * 2 * ROWS


def test_accuracy_with_wilson_intervals_and_the_share_of_valid_answers_are_reported_everywhere(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(run, plan(tmp_path, servers, choices=KINDS), Silent())
    models = result.scores["models"]
    wilson = share(18, ROWS)
    for metric in ("exact_reference", "valid"):
        cell = models["student"][metric]
        assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((75.0, wilson.low, wilson.high), abs=1e-6)
    assert [models[model]["valid"]["value"] for model in ("base", "teacher", "majority")] == [0.0, 100.0, 100.0]
    assert models["teacher"]["exact_reference"]["value"] == pytest.approx(100 * 22 / 24, abs=1e-6)
    assert all(part["models"]["student"]["valid"]["n"] == 12 for part in result.scores["slices"])
    rows = [json.loads(line) for line in result.paths["predictions"].read_text().splitlines()]
    assert [row["scores"]["valid"] for row in rows[:5]] == [0.0, 0.0, 100.0, 100.0, 100.0]

    sentence = "Prompted without the form it gives one of the choices in 75.0% [55.1, 88.0] of its answers; "
    assert f"{sentence}the untrained student in 0.0%, the teacher, held to that, in 100.0%." in result.verdict
    assert "(student 75.0% [55.1, 88.0], teacher 91.7% [74.2, 97.7])" in result.verdict[2]
    page = result.paths["report"].read_text()
    assert "has the form in 75.0%" in page and "answer does not have the form" in page and "&#34;choices&#34;" in page
    card = run.file("train", "model").joinpath("README.md").read_text()
    assert "| exact to reference | exact to teacher | has the form, % |" in card
    table, sentences = printed(result, capsys).split("INCONCLUSIVE:", 1)
    assert table.count("75.0 [55.1, 88.0]") == 2 and sentence in " ".join(sentences.split()), "no interval is broken"
    assert not re.search(r"\[[^\]]*\n", sentences), "nor one in the sentences"
    assert max(map(len, table.splitlines())) <= 80 and all(head in table for head in ("valid", "exact to reference"))


def test_without_a_form_it_is_not_mentioned(run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]) -> None:
    result = evaluate(run, plan(tmp_path, servers), Silent())
    written = [path.read_text() for path in (*result.paths.values(), run.file("train", "model") / "README.md")]
    assert not [text for text in written if '"valid"' in text or "the form" in text or "asked_with" in text]
    assert "valid" not in [*result.columns, *result.slice_columns] and "Prompted without the form" not in " ".join(
        result.verdict
    )


def test_another_form_asks_the_teacher_anew_and_the_students_not(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    first = plan(tmp_path, servers, choices=KINDS)
    evaluate(run, first, Silent())
    assert evaluate(run, first, Silent()).up_to_date
    again = evaluate(run, replace(first, generate=replace(first.generate, choices=[*KINDS, "other"])), Silent())
    assert not again.up_to_date
    assert [len(server.requests) for server in servers] == [4 * ROWS, 2 * ROWS]


def test_overrides_of_generate_alone_are_requested_here_too(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    manifest = run.file("generate", "manifest.json")
    noted = json.loads(manifest.read_text())
    noted["config"]["generate"] |= {"choices": KINDS, "max_tokens": 9}  # as by `generate --choices praise ... --max-tokens 9`
    manifest.write_text(json.dumps(noted))
    scores = evaluate(run, plan(tmp_path, servers, max_tokens=GenerateConfig.max_tokens), Silent()).scores
    assert scores["form"] == {"choices": KINDS} and scores["max_tokens"] == 9
    assert all(body["max_tokens"] == 9 for server in servers for body in server.requests) and None not in forms(servers[0])


def test_a_teacher_of_another_engine_is_held_to_the_form_as_far_as_it_can(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    scores = evaluate(run, plan(tmp_path, servers, choices=KINDS, beams=2), Silent()).scores
    assert scores["models"]["teacher"]["asked_with"] == {"choices": KINDS}, "endpoints have no beams"


def test_a_local_teacher_searches_with_generates_beams_and_choices_unless_it_samples(
    run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    test = tmp_path / "test.jsonl"
    write_jsonl(test, [{"prompt": f"Letter {n} is here. " * (1 + n % 3)} for n in range(12)])
    asked = GenerateConfig(choices=KINDS, beams=2)
    for temperature, asked_with in ((0.0, {"choices": KINDS, "beams": 2}), (1.0, {"choices": KINDS})):
        local = replace(recipe(test, tiny_model, temperature=temperature), generate=asked)
        scores = evaluate(run, local, Silent()).scores
        assert [scores["models"][role].get("asked_with") for role in ("teacher", "ceiling")] == [asked_with] * 2
        assert "asked_with" not in scores["models"]["student"]
        assert scores["models"]["teacher"]["valid"]["value"] == 100 and scores["models"]["student"]["valid"]["value"] == 0
    journal = [json.loads(line) for line in run.file("eval", "journal.jsonl").read_text().splitlines()]
    assert {json.dumps(row["request"].get("beams")) for row in journal} == {"2", "null"}


def test_a_bad_form_is_reported_before_any_request(run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]) -> None:
    with pytest.raises(UsageError, match="both schema and choices"):
        evaluate(run, plan(tmp_path, servers, schema=SCHEMA, choices=KINDS), Silent())
    assert servers[0].requests == servers[1].requests == []


def test_choices_have_accuracy_macro_f1_confusion_kappa_and_the_majority_class(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    task = plan(tmp_path, servers, choices=KINDS)
    result = evaluate(run, replace(task, task=replace(task.task, primary=None)), Silent())
    scores = result.scores
    assert scores["primary"] == "accuracy_reference" and "the default for this kind of answers" in " ".join(scores["verdict"])
    assert scores["accuracy"]["value"] == scores["models"]["student"]["accuracy_reference"]["value"] == 75.0
    confusion = scores["confusion"]
    assert confusion["labels"] == KINDS and confusion["rows"] == [[6, 0, 0, 2], [0, 6, 0, 2], [0, 0, 6, 2]]
    assert confusion["recall"] == [75.0] * 3 and scores["macro_f1"]["value"] == pytest.approx(100 * 12 / 14, abs=1e-6)
    kappa = scores["kappa"]
    assert kappa["n"] == ROWS and kappa["teacher_right"]["n"] == 22 and kappa["teacher_wrong"]["n"] == 2
    assert kappa["teacher_wrong"]["agreement"]["value"] == 0.0 and 0 < kappa["value"] < 1
    assert scores["majority"]["label"] == "praise" and scores["majority"]["value"] == pytest.approx(100 / 3, abs=1e-6)
    assert "copy" not in scores["models"] and "Confusion" in result.paths["report"].read_text()
    assert result.named == {name: scores[name] for name in NAMED}, "all keys whose names are fixed are at the top"


def test_a_schema_is_compared_parsed_and_field_f1_decides(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    task = plan(tmp_path, servers, schema=SCHEMA)
    lines = [{"prompt": f"Letter {n} is here.", "reference": f'{{ "kind":"{KINDS[n % 3]}" }}'} for n in range(ROWS)]
    write_jsonl(tmp_path / "test.jsonl", lines)
    scores = evaluate(run, replace(task, task=replace(task.task, primary=None)), Silent()).scores
    teacher = scores["models"]["teacher"]
    assert scores["primary"] == "field_f1_reference" and "copy" not in scores["models"]
    assert (
        teacher["exact_reference"]["value"] == teacher["field_f1_reference"]["value"] == pytest.approx(100 * 22 / 24, abs=1e-6)
    )


PRICE = {"prompt": 1.0, "completion": 2.0}


def test_a_budget_needs_the_price_of_a_student_at_an_endpoint(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    task = plan(tmp_path, servers, budget=5.0)
    task = replace(task, teacher=replace(task.teacher, price=PRICE))
    with pytest.raises(UsageError, match="a budget needs the price of the student, which is at an endpoint") as raised:
        evaluate(run, task, Silent())
    assert "add to [student]: price = " in raised.value.hint and servers[0].requests == servers[1].requests == []
    with pytest.raises(UsageError, match=r"\[student.price\] prompts = 1: not a price"):
        evaluate(run, replace(task, student=replace(task.student, price={"prompts": 1})), Silent())
    free = replace(task, student=replace(task.student, price={"prompt": 0, "completion": 0}))
    assert evaluate(run, free, Silent()).scores["n"] == ROWS


@pytest.mark.parametrize("lost", [False, True])
def test_eval_says_what_was_paid_and_what_may_be_billed(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer], lost: bool
) -> None:
    notes, task = Notes(), plan(tmp_path, servers)
    task = replace(task, teacher=replace(task.teacher, price=PRICE))
    task = replace(task, student=replace(task.student, price={"prompt": 0, "completion": 0}))
    servers[0].fault = lambda number, _: "reset" if lost and number == 3 else None
    with pytest.raises(Incomplete) if lost else nullcontext():
        evaluate(run, task, notes)
    paid = [note for note in notes.notes if note.startswith("eval: ") and "by this run in all" in note]
    assert len(paid) == 1 and re.match(r"eval: 0\.\d{4} USD are paid", paid[0])
    assert ("USD more may be billed for answers that were lost" in paid[0]) == lost
    spent = len(notes.notes)
    if not lost:
        evaluate(run, replace(task, eval=replace(task.eval, resamples=300)), notes)
        assert not any("by this run in all" in note for note in notes.notes[spent:]), "nothing new was paid"


FORMULAS = ("\\frac{1}{%d}", "1/%d", "The answer is $\\frac{2}{%d}$.")  # reference, teacher, student: double what it should be


def test_formulas_decide_where_math_is_the_primary_metric_and_the_run_verifies(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    for server, text in zip(servers, FORMULAS[1:], strict=True):
        server.reply = lambda body, text=text: said(body, text % (number(body) + 2))
    task = plan(tmp_path, servers, primary="math")
    write_jsonl(
        tmp_path / "test.jsonl", [{"prompt": f"Letter {n} is here.", "reference": FORMULAS[0] % (n + 2)} for n in range(12)]
    )
    scores = evaluate(run, task, Silent()).scores
    assert scores["primary"] == "math_reference" and scores["decision"] == "INFERIOR"
    assert [scores["models"][role]["math_reference"]["value"] for role in ("teacher", "student")] == [100.0, 0.0]
    assert verify(run, Silent()).whole


def test_without_its_package_math_is_refused_before_any_request(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    _checker.cache_clear()
    with pytest.raises(UsageError, match="primary = 'math' needs the package math-verify, which is not installed") as raised:
        evaluate(run, plan(tmp_path, servers, primary="math"), Silent())
    assert raised.value.hint.startswith("pip install 'math-verify") and servers[0].requests == servers[1].requests == []


@pytest.mark.parametrize("primary", ["accuracy", "field_f1_reference", "own"])
def test_a_metric_of_another_kind_of_task_is_refused_before_any_request(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer], primary: str
) -> None:
    with pytest.raises(UsageError, match="does not apply to a task with answers that are free text"):
        evaluate(run, plan(tmp_path, servers, primary=primary), Silent())
    assert servers[0].requests == servers[1].requests == []


def test_the_prompts_that_a_sentence_names_are_those_that_were_judged(
    run: Run, tmp_path: Path, servers: tuple[ChatServer, ChatServer]
) -> None:
    task = plan(tmp_path, servers)
    lines = [{"prompt": f"Letter {n} is here.", **({"reference": KINDS[n % 3]} if n < 5 else {})} for n in range(20)]
    write_jsonl(tmp_path / "test.jsonl", lines)
    said = evaluate(run, task, Silent()).verdict
    assert "on 5 of 20 held-out prompts, those to which it applies" in said[2]
    assert "5 held-out prompts: too few for intervals; at least 10 are needed." in said
