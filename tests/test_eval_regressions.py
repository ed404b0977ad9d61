"""Regressions: what base or teacher got right and the student wrong, the worst first, each with its planted cause."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer
from filter_runs import rejected, sample
from finished_runs import finished_run
from test_eval_form import KINDS, plan, said
from test_eval_verify import rewritten

from seqdistill.console import Console
from seqdistill.engines import Completion
from seqdistill.likeness import largest, similarities
from seqdistill.personal_data import KINDS as PERSONAL
from seqdistill.progress import Silent
from seqdistill.records import Prompt, Sample, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.show import show_eval
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.markdown import markdown
from seqdistill.stages.evaluate.regressions import Sources, regressions
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verification import verify

Scores = Mapping[str, float | None]


def answers(texts: Mapping[str, Mapping[str, Scores | float]], prompts: Mapping[str, str] | None = None) -> list[Answer]:
    """By prompt id and role its scores, or its score of exact_reference alone."""
    found = []
    for name, by_role in texts.items():
        messages = [{"role": "user", "content": (prompts or {}).get(name, f"prompt {name}")}]
        prompt = Prompt(name, messages, messages, reference="gold")
        for role, scores in by_role.items():
            known = {"exact_reference": scores} if isinstance(scores, float | int) else dict(scores)
            found.append(Answer(role, prompt, messages, Completion(name, f"{role} says", finish_reason="stop"), known))
    return found


def found(rows: list[Answer], folder: Path | None = None, primary: str = "exact_reference", **keys: Any) -> dict[str, Any]:
    files = [None if folder is None else folder / name for name in ("train.jsonl", "rejected.jsonl")]
    sources = Sources(*(file if file and file.exists() else None for file in files), keys.pop("most", 20))
    return regressions(rows, primary, sources, share=keys.pop("share", True))


def test_what_base_and_teacher_got_right_comes_before_what_one_of_them_did_and_nothing_else_is_in() -> None:
    rows = {
        "a": {"student": 100, "base": 100, "teacher": 100},
        "b": {"student": 0, "base": 0, "teacher": 100},
        "c": {"student": 0, "base": 0, "teacher": 0},
        "d": {"student": 0, "base": 100, "teacher": 100},
        "e": {"student": 0, "base": 100, "teacher": 0},
        "f": {"student": 100, "base": 0, "teacher": 0},
    }
    document = found(answers(rows))
    assert [(item["id"], item["better"]) for item in document["items"]] == [
        ("d", ["base", "teacher"]), ("e", ["base"]), ("b", ["teacher"])
    ]  # fmt: skip
    assert document["found"] == 3 and len(found(answers(rows), most=1)["items"]) == 1
    assert found(answers(rows), most=0) == {"metric": "exact_reference", "found": 3, "most": 0, "items": []}


def test_with_a_mean_the_largest_loss_against_base_or_ceiling_comes_first() -> None:
    def chrf(student: float, base: float, ceiling: float) -> dict[str, Scores]:
        scores = {"student": student, "base": base, "ceiling": ceiling, "teacher": 100.0}
        return {role: {"chrf_teacher": score} for role, score in scores.items()}

    rows = {"a": chrf(50, 10, 90), "b": chrf(60, 70, 65), "c": chrf(20, 15, 95), "d": chrf(95, 10, 90)}
    document = found(answers(rows), primary="chrf_teacher", share=False)
    assert [(item["id"], item["lost"]) for item in document["items"]] == [("c", 75.0), ("a", 40.0), ("b", 10.0)]


def test_a_prompt_that_some_model_did_not_answer_is_no_regression() -> None:
    rows = [replace(answer, scores=None) for answer in answers({"a": {"student": 0, "base": 100, "teacher": 100}})]
    assert found(rows)["found"] == 0


NEAR = "The tram to the harbour stops at noon."
CASES = {
    "teacher is wrong by the reference": ({"teacher": 0.0, "base": 100.0}, ["train near"]),
    "filter removed a nearer row than any that was trained on: rule repetition": ({}, ["train far", "reject repetition"]),
    "the nearest training answer is better than the student's": ({"nearest": 100.0}, ["train near", "reject far"]),
    "the nearest training answer would be wrong here, too": ({"nearest": 0.0}, ["train near", "reject repetition"]),
    "no similar row was trained on: the nearest has a similarity of 0.00": ({}, ["train far"]),
    "no training rows": ({}, []),
}


@pytest.mark.parametrize("why", CASES)
def test_the_planted_cause_is_the_reason(why: str, tmp_path: Path) -> None:
    scores, rows = CASES[why]
    texts = {"near": NEAR, "far": "Please bake seven loaves.", "repetition": f"{NEAR} Again."}
    kinds = {kind: [row.split()[1] for row in rows if row.startswith(kind)] for kind in ("train", "reject")}
    if kinds["train"]:
        write_jsonl(tmp_path / "train.jsonl", [sample(texts[name], name) for name in kinds["train"]])
    if kinds["reject"]:
        write_jsonl(tmp_path / "rejected.jsonl", [rejected(sample(texts[name], name), name, "r") for name in kinds["reject"]])
    rows_of = {"q": {"student": 0.0, "base": 0.0, "teacher": 100.0, **scores}}
    (item,) = found(answers(rows_of, {"q": NEAR}), tmp_path)["items"]
    assert why in item["why"] and item["teacher_erred"] == (scores.get("teacher") == 0.0)


@pytest.mark.parametrize(("rule", "kept_by"), [("contamination", None), ("near_duplicate", "x:t:0")])
def test_filter_is_not_blamed_for_a_test_item_nor_for_a_row_whose_better_was_kept(
    tmp_path: Path, rule: str, kept_by: str | None
) -> None:
    write_jsonl(tmp_path / "train.jsonl", [sample(f"{NEAR} Really, said the driver.", "x")])
    write_jsonl(tmp_path / "rejected.jsonl", [rejected(sample(NEAR, "x"), rule, "r", kept_by)])
    (item,) = found(answers({"q": {"student": 0, "base": 100, "teacher": 100}}, {"q": NEAR}), tmp_path)["items"]
    assert item["why"] == "near rows were trained on"
    assert [(row["rule"], row["similarity"]) for row in item["removed"]] == [(rule, 1.0)]


def test_a_quoted_row_holds_no_personal_data_and_is_cut(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [sample("Mail anna.meier@example.com or +44 20 7946 0958", "x" * 5000)])
    (item,) = found(answers({"q": {"student": 0, "teacher": 100}}, {"q": "Mail whom?"}), tmp_path)["items"]
    assert item["training"][0]["prompt"] == "Mail [EMAIL] or [PHONE]" and "email" in PERSONAL
    assert len(item["training"][0]["completion"]) < 700


def test_the_most_similar_rows_come_in_order_the_first_of_equals_first() -> None:
    documents = ["a cat sat", "rain", "a cat sat", "a cat", "dogs"]
    (similar,) = similarities(["a cat sat"], documents)
    assert largest(similar, 3) == [0, 2, 3] and similar[0] == pytest.approx(1.0)
    assert len(largest(similar, 9)) == 5 and largest(similar[:0], 3) == []


# --- the whole stage --------------------------------------------------------------------------------------------------

HOSTILE = "[red]</dd><script>\x1b[31mA very long wrong answer | `of` the student, @everyone, " + "over and over " * 9


def right(body: Body) -> Body:
    return said(body, KINDS[int(body["messages"][-1]["content"].split()[1]) % 3])


def spoilt(body: Body) -> Body:
    """The untrained student is right; the trained one is wrong on three letters."""
    wrong = body["model"].endswith("model") and int(body["messages"][-1]["content"].split()[1]) in (1, 2, 5)
    return said(body, HOSTILE) if wrong else right(body)


def filtered(run: Run, train: list[Sample], removed: list[dict[str, Any]]) -> None:
    """Other rows than the run's filter had."""
    rows = {"train.jsonl": train, "validation.jsonl": [], "rejected.jsonl": removed}
    for name, content in rows.items():
        write_jsonl(run.file("filter", name), content)
    StageRecord(run, "filter", {}, {}).finish({name: len(of) for name, of in rows.items()}, config={})


def test_they_are_in_scores_terminal_and_markdown_and_verify_finds_what_was_changed(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    filtered(run, [sample(f"Card {n} is far away.", KINDS[n % 3]) for n in range(9)],
             [rejected(sample("Letter 5 is here, I think.", "no"), "refusal", "\x1b[2Jit refuses")])  # fmt: skip
    with ChatServer(reply=right) as of_teacher, ChatServer(reply=spoilt, model=None) as of_student:
        result = evaluate(run, plan(tmp_path, (of_teacher, of_student)), Silent())
    wrong = {"Letter 1 is here.", "Letter 2 is here.", "Letter 5 is here."}
    items = result.scores["regressions"]["items"]
    assert {item["prompt"] for item in items} == wrong and {tuple(item["better"]) for item in items} == {("base", "teacher")}
    fifth = next(item for item in items if "5" in item["prompt"])
    assert fifth["removed"][0]["rule"] == "refusal" and "rule refusal" in fifth["why"]
    show_eval(Console(), result)
    shown = capsys.readouterr().out
    assert "regressions: 3 of 24 prompts that base or teacher answered right" in " ".join(shown.split())
    assert "\x1b" not in shown and "\\x1b[31mA very long" in shown and "teacher 100" in shown
    assert max(map(len, shown.split("report: ")[0].splitlines())) <= 80
    text = markdown(result, "run")
    assert "<script>" not in text and "everyone" not in text and fifth["id"] in text
    assert verify(run, Silent()).whole
    rewritten(run, "scores.json", lambda text: text.replace(f'"rule": "{fifth["removed"][0]["rule"]}"', '"rule": "best"', 1))
    problems = verify(run, Silent()).problems
    assert "regressions.items" in problems[0] and "does not follow" in problems[0]
