"""The fallback in eval: the student's confidence on real answers, the curve, the file, the sentence; verify recomputes it."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from chat_server import ChatServer
from finished_runs import recipe

from seqdistill.confidence import confidence_of
from seqdistill.engines import Completion
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.records import Prompt, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.deferral import DeferralTarget, deferral, with_cost
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verdict import verdict
from seqdistill.stages.evaluate.verification import verify
from seqdistill.tasks.answer_form import AnswerForm

PRIMARY = "accuracy_reference"


@dataclass(frozen=True)
class Scored:
    prompt: Prompt
    scores: dict[str, float | None]
    confidence: float | None = None
    group: str | None = None


def answers(confidence: Any, student: Any, teacher: Any, groups: list[str] | None = None) -> dict[str, list[Scored]]:
    prompts = [Prompt(f"p{n}", [], []) for n in range(len(student))]
    names = groups or [None] * len(prompts)
    mine = [
        Scored(p, {PRIMARY: float(s)}, None if c is None else float(c), g)
        for p, s, c, g in zip(prompts, student, confidence, names, strict=True)
    ]
    return {
        "student": mine,
        "teacher": [Scored(p, {PRIMARY: float(s)}, None, g) for p, s, g in zip(prompts, teacher, names, strict=True)],
    }


def found(given: dict[str, list[Scored]], target: float | None = 0.9, **promise: Any) -> dict[str, Any]:
    return deferral(given, PRIMARY, "teacher", 5.0, DeferralTarget(target, 0.05, promise.get("good_enough")), 0)


def ranked(n: int) -> dict[str, list[Scored]]:
    """The student is right where its confidence is above a half, the teacher always."""
    confidence = np.random.default_rng(1).random(n)
    return answers(confidence, 100 * (confidence > 0.5), np.full(n, 100))


@pytest.mark.parametrize(("levels", "points"), [(1, 2), (2, 3), (6, 7), (10**6, 21)])
def test_each_point_of_the_curve_is_what_its_threshold_gives(levels: int, points: int) -> None:
    """Equal confidences fall to one side: 0.83 in all of 400 answers has two points, all kept and all sent."""
    rng = np.random.default_rng(2)
    confidence = 0.2 + rng.integers(0, levels, 400) / (1.25 * levels)
    student, teacher = 100.0 * (rng.random((2, 400)) < 0.8)
    curve = found(answers(confidence, student, teacher))["curve"]
    for point in curve:
        kept = np.zeros(400, bool) if point["threshold"] is None else confidence >= point["threshold"]
        assert point["sent"] == pytest.approx(1 - kept.mean())
        assert point["quality"] == pytest.approx(np.where(kept, student, teacher).mean())
    assert len(curve) == points


def test_with_a_confidence_that_ranks_perfectly_the_curve_is_the_oracles() -> None:
    document = found(ranked(400))
    assert document["auroc"] == 1.0
    assert document["curve"][0]["quality"] == document["curve"][0]["random"] == pytest.approx(100 * document["good"])
    assert document["curve"][-1]["quality"] == 100.0 and document["curve"][-1]["good"] is None
    assert all(point["quality"] == point["oracle"] >= point["random"] for point in document["curve"])
    assert 0.4 < document["threshold"] <= 0.6 and document["bound"] <= 0.1
    assert document["held_out"]["broken"] / document["held_out"]["kept"] <= 0.1


def test_a_confidence_that_says_nothing_is_no_better_than_random() -> None:
    rng = np.random.default_rng(2)
    document = found(answers(rng.random(2000), 100 * (rng.random(2000) < 0.6), np.full(2000, 100)))
    assert document["auroc"] == pytest.approx(0.5, abs=0.04)
    assert all(point["quality"] == pytest.approx(point["random"], abs=2.5) for point in document["curve"])
    assert (document["threshold"], document["needed"]) == (None, None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answers([None] * 30, [100] * 30, [100] * 30), "no log-probabilities"),
        (answers([0.5] * 4, [100] * 4, [100] * 4), "at least 10 are needed"),
        ({**answers([0.5] * 30, [100] * 30, [100] * 30), "teacher": []}, "no answers of the teacher"),
    ],
)
def test_what_is_missing_is_said(given: dict[str, list[Scored]], reason: str) -> None:
    document = found(given)
    assert reason in document["reason"] and document["curve"] == []


def test_prompts_of_one_group_count_once() -> None:
    groups = [f"g{n // 4}" for n in range(400)]
    document = found(answers([0.9] * 400, [100] * 400, [100] * 400, groups))
    assert document["n"] == 100 and document["calibration"]["n"] == 50


def test_few_prompts_say_how_many_more_are_needed() -> None:
    document = found(answers([0.9] * 40, [100] * 40, [100] * 40))
    assert document["threshold"] is None and document["needed"] > 0
    enough = 40 + document["needed"]
    assert found(answers([0.9] * enough, [100] * enough, [100] * enough))["threshold"] == 0.9


def test_prompts_whose_comparators_answer_has_no_score_are_left_out() -> None:
    given = answers([0.9] * 40, [0] * 40, [100] * 40)
    given["ceiling"] = [Scored(one.prompt, {PRIMARY: None if n < 20 else 100.0}) for n, one in enumerate(given["teacher"])]
    document = deferral(given, PRIMARY, "ceiling", 5.0, DeferralTarget(0.9, 0.05, None), 0)
    assert (document["n"], document["good"]) == (20, 0.0), "nothing to compare with does not make an answer good enough"


def test_the_score_that_is_good_enough_can_be_named() -> None:
    given = answers([0.9] * 40, [60] * 40, [100] * 40)
    assert found(given)["good"] == 0.0
    assert found(given, good_enough=60.0)["good"] == 1.0


def test_the_cost_is_the_students_for_all_and_the_teachers_for_what_is_sent() -> None:
    document = with_cost(
        found(ranked(40)), {"student": {"engine": "openai", "usd_per_1000": 1.0}, "teacher": {"usd_per_1000": 10.0}}
    )
    assert [point["usd_per_1000"] for point in document["curve"][:: len(document["curve"]) - 1]] == [1.0, 11.0]
    free = with_cost(
        found(ranked(40)), {"student": {"engine": "vllm", "usd_per_1000": None}, "teacher": {"usd_per_1000": None}}
    )
    assert free["curve"][0]["usd_per_1000"] is None


def test_an_answer_without_its_form_has_no_confidence() -> None:
    raw = {"choices": [{"logprobs": {"content": [{"token": "y", "logprob": -0.5}, {"token": "es", "logprob": -0.1}]}}]}
    form = AnswerForm({}, ("yes", "no"))
    assert confidence_of(Completion("a", "yes", raw=raw), form) == pytest.approx(math.exp(-0.3), abs=1e-6)
    assert confidence_of(Completion("a", "perhaps", raw=raw), form) == 0.0
    assert confidence_of(Completion("a", "yes"), form) is None
    assert confidence_of(Completion("a", error="timeout", raw=raw), form) is None


# --- in a run -------------------------------------------------------------------------------------------------------------


def write_test(path: Path, rows: int) -> Path:
    write_jsonl(path, [{"prompt": f"Tell number {n} in words.", "reference": f"number {n}"} for n in range(rows)])
    return path


def test_eval_writes_the_file_the_sentence_and_the_curve_and_verify_finds_them_whole(
    run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    plan = recipe(write_test(tmp_path / "test.jsonl", 70), tiny_model, target=0.9, good_enough=0.0, max_tokens=4)
    result = evaluate(run, plan, Silent())
    document = json.loads(run.file("eval", "deferral.json").read_text())
    assert document == result.scores["deferral"] and document["n"] == 70
    assert document["threshold"] > 0 and document["held_out"]["broken"] == 0  # every answer is good enough here
    rows = [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text().splitlines()]
    assert all((row["confidence"] is None) == (row["model"] != "student") for row in rows)
    first = next(row for row in rows if row["model"] == "student")
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        raw = next(line for line in journal.rows() if line["id"] == f"{first['id']}:student")["completion"]["raw"]
    assert first["confidence"] == pytest.approx(math.exp(np.mean(raw["logprobs"]["logprobs"])), abs=1e-6)
    assert any("the student can be trusted: at least 0.9 of the kept answers" in line for line in result.verdict)
    page = run.file("eval", "report.html").read_text()
    assert "Fallback to the teacher" in page and 'class="curve oracle"' in page
    assert verify(run, Silent()).whole


def test_the_agreement_of_further_samples_can_be_the_confidence(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    plan = recipe(write_test(tmp_path / "test.jsonl", 12), tiny_model, agreement=2, max_tokens=4)
    document = evaluate(run, plan, Silent()).scores["deferral"]
    assert (document["confidence"], document["samples"], document["reason"]) == ("agreement", 2, None)
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        texts = {line["id"]: line["completion"]["content"] for line in journal.rows()}
    rows = [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["model"] == "student"):
        name = f"{row['id']}:student"
        nearness = [sacrebleu.sentence_chrf(texts[f"{name}:{n}"], [texts[name]]).score for n in (1, 2)]
        assert row["confidence"] == pytest.approx(sum(nearness) / 200, abs=1e-6)
    assert verify(run, Silent()).whole


def test_the_agreement_on_a_choice_is_the_share_that_chooses_it() -> None:
    form = AnswerForm({}, ("yes", "no"))
    assert confidence_of(Completion("a", "yes"), form, "choices", ["yes", "no", "yes", "maybe"]) == 0.5


def test_too_few_prompts_are_said_in_the_verdict(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    plan = recipe(write_test(tmp_path / "test.jsonl", 12), tiny_model, target=0.9, good_enough=0.0, max_tokens=4)
    scores = evaluate(run, plan, Silent()).scores
    assert f"Not with 12 prompts: about {scores['deferral']['needed']:,} more are needed" in " ".join(scores["verdict"])
    scores["deferral"] |= {"needed": None}
    assert "more prompts would not change that" in " ".join(verdict(scores))


@pytest.mark.parametrize(("target", "wanted"), [(None, None), (0.9, True)])
def test_a_student_at_an_endpoint_is_asked_for_logprobs_only_where_a_target_is_named(
    run: Run, tmp_path: Path, tiny_model: Path, target: float | None, wanted: bool | None
) -> None:
    with ChatServer(model=None) as server:
        plan = recipe(write_test(tmp_path / "test.jsonl", 12), tiny_model, target=target, max_tokens=4)
        student = replace(plan.student, engine="openai", base_url=[server.url])
        scores = evaluate(run, replace(plan, student=student), Silent()).scores
        asked = [body.get("logprobs") for body in server.requests if body["model"].endswith("train/model")]
        assert asked == [wanted] * 12
        assert (scores["deferral"]["reason"] is None) == bool(wanted)
