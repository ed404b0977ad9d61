"""Latency and cost: formulas against hand-computed cases and a count, measurements in real runs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, answer
from conftest import make_tiny_model
from finished_runs import recipe
from generate_runs import Notes
from test_eval import write_test
from test_eval_verify import rewritten

from seqdistill.console import Console
from seqdistill.engines import Completion, Request
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import EvalConfig, OneOfTeachers, Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.records import Prompt
from seqdistill.runs import Run
from seqdistill.show import show_eval
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.cost import (
    break_even,
    inputs_of,
    terms_of,
    upfront_of,
    usd_in_service,
    usd_per_request,
    with_costs,
)
from seqdistill.stages.evaluate.latency import groups, levels
from seqdistill.stages.evaluate.markdown import markdown
from seqdistill.stages.evaluate.recommendation import _saves
from seqdistill.stages.evaluate.shown import usd
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verdict import _cost
from seqdistill.stages.evaluate.verification import verify


@pytest.fixture
def plan(tmp_path: Path, tiny_model: Path) -> Recipe:
    return recipe(write_test(tmp_path / "test.jsonl", 12), tiny_model, latency_requests=3, max_tokens=4)


def served(plan: Recipe, server: ChatServer, **price: float) -> Recipe:
    return replace(plan, teacher=TeacherConfig(model="teacher", engine="openai", base_url=[server.url], price=price))


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token_usd", "hourly", "rate", "utilisation", "usd"),
    [
        (0.0021, None, None, 0.5, 0.0021),  # an endpoint by its tokens
        (None, 3.6, 2.0, 0.5, 0.001),  # 3.6 USD buy 3600 s x 2/s x .5 = 3,600 requests
        (None, 1.0, 10.0, 1.0, 1 / 36_000),
        (0.001, 3.6, 2.0, 0.5, 0.002),  # a rented endpoint that also bills tokens
        (0.0, None, None, 0.5, 0.0),
        (None, 0.0, None, 0.5, 0.0),  # a machine that costs nothing
        (None, 3.6, None, 0.5, None),  # how fast it is, is not known
        (None, None, 5.0, 0.5, None),
    ],
)
def test_a_request_costs_its_tokens_and_its_share_of_the_hour(
    token_usd: float | None, hourly: float | None, rate: float | None, utilisation: float, usd: float | None
) -> None:
    found = usd_per_request(token_usd, hourly, rate, utilisation)
    assert found == (None if usd is None else pytest.approx(usd))


@pytest.mark.parametrize(
    ("upfront", "teacher", "student", "fallback", "shadow", "requests"),
    [
        (100.0, 0.01, 0.002, 0.0, 0.0, 12_500),  # 100 / .008
        (100.0, 0.01, 0.002, 0.2, 0.0, 16_667),  # 100 / .006
        (100.0, 0.01, 0.002, 0.2, 0.1, 20_000),  # 100 / .005
        (0.0, 0.01, 0.002, 0.0, 0.0, 0),
        (5.0, 0.01, 0.002, 0.5, 0.3, None),  # all that is saved goes to the teacher again
        (5.0, 0.01, 0.02, 0.0, 0.0, None),
    ],
)
def test_the_break_even_is_where_a_count_of_both_bills_meets(
    upfront: float, teacher: float, student: float, fallback: float, shadow: float, requests: int | None
) -> None:
    in_service = usd_in_service(student, teacher, {"fallback_share": fallback, "shadow_share": shadow})
    assert break_even(upfront, teacher, in_service) == requests
    counts = np.arange(100_000)
    before = counts * teacher
    after = upfront + counts * student + counts * fallback * teacher + counts * shadow * teacher
    paid = np.flatnonzero(before - after >= -1e-9)
    assert (int(paid[0]) if len(paid) else None) == requests


def scores_with(share: bool = True, right: float = 80.0) -> dict[str, Any]:
    cell = {"value": right, "low": None, "high": None}
    return {
        "primary": "accuracy_reference",
        "measures": {"accuracy_reference": {"share": share}},
        "models": {role: {"accuracy_reference": cell} for role in ("student", "teacher")},
    }


def inputs(**teacher: Any) -> dict[str, dict[str, Any]]:
    unpriced = {"engine": "openai", "token_usd": None, "hourly_usd": None, "requests_per_second": None, "rate_basis": ""}
    student = unpriced | {"engine": "transformers", "hourly_usd": 3.6, "requests_per_second": 2.0}
    return {"student": student, "teacher": unpriced | teacher}


TERMS = {"utilisation": 0.5, "fallback_share": 0.1, "shadow_share": 0.05, "answers_a_request": 1}
UPFRONT = {"teacher": 4.0, "judge": 1.0, "proof": 0.5, "training": 2.5}


def said_of(found: dict[str, Any]) -> str:
    """The verdict's sentence on costs."""
    (sentence,) = _cost(with_prices(found))
    return sentence


def with_prices(found: dict[str, Any]) -> dict[str, Any]:
    scores, unmeasured = scores_with(), {"speed_basis": None, "tokens_per_second": None}
    models = {role: {**scores["models"][role], **found["models"][role], **unmeasured} for role in scores["models"]}
    return {**scores, **found, "models": models}


def test_the_costs_of_a_run_follow_from_its_inputs() -> None:
    found = with_costs(scores_with(), inputs(token_usd=0.01), TERMS, UPFRONT)
    assert found["models"]["student"] == {"usd_per_1000": 1.0, "usd_per_right": 0.00125}
    assert found["usd_per_1000"] == 1.0 and found["cost"]["upfront_usd"] == 8.0
    assert found["break_even_requests"] == math.ceil(8.0 / (0.01 - 0.001 - 0.15 * 0.01)) == 1067
    several = with_costs(scores_with(), inputs(token_usd=0.01), TERMS | {"answers_a_request": 3}, UPFRONT)
    assert several["break_even_requests"] == math.ceil(8.0 / (0.01 - 0.003 - 0.15 * 0.01))
    assert said_of(several) == (
        "1,000 requests cost 3.00 USD at the student, of 3 answers each, and 10.00 at the teacher; what the run cost, 8.00 "
        "USD, is earned back after 1,455 requests, 10% falling back to the teacher and 5% answered by both."
    ), "the price in the sentence is the one that the break-even rests on"
    saved = _saves(with_prices(several))
    assert (saved.short, saved.more) == (
        "55% of the cost",
        "4.50 instead of 10.00 USD for 1,000 requests, the 15% included that the teacher still answers; paid back after 1,455 "
        "requests.",
    )
    assert said_of(found).startswith("1,000 requests cost 1.00 USD at the student and 10.00 at the teacher; ")
    dear = with_costs(scores_with(), inputs(token_usd=0.01), TERMS | {"answers_a_request": 10}, UPFRONT)
    assert said_of(dear).startswith(
        "1,000 requests cost 10.00 USD at the student, of 10 answers each, and 10.00 at the teacher; no break-even: the "
        "student is not cheaper: 11.50 USD"
    )
    assert with_costs(scores_with(share=False), inputs(), TERMS, UPFRONT)["models"]["student"]["usd_per_right"] is None
    assert with_costs(scores_with(right=0.0), inputs(), TERMS, UPFRONT)["models"]["student"]["usd_per_right"] is None


@pytest.mark.parametrize(
    ("teacher", "terms", "short", "more"),
    [  # the student's 1,000 requests cost 1.00
        (
            0.01,
            {"fallback_share": 0.0, "shadow_share": 0.0},
            "90% of the cost",
            "1.00 instead of 10.00 USD for 1,000 requests;",
        ),
        (0.01, {"fallback_share": 0.6, "shadow_share": 0.0}, "30% of the cost", "7.00 instead of 10.00 USD"),
        (0.01, {"fallback_share": 0.0, "shadow_share": 0.5}, "40% of the cost", "6.00 instead of 10.00 USD"),
        (0.01, {"fallback_share": 0.95, "shadow_share": 0.0}, "Nothing: it costs 5% more", "10.50 instead of 10.00 USD"),
        (0.0, {}, "Not known", "the teacher's price is 0, and what its machine costs an hour, [teacher] hourly_usd,"),
        (None, {}, "Not known", "the recipe lacks prices"),
    ],
)
def test_what_is_saved_counts_what_the_teacher_still_answers(
    teacher: float | None, terms: dict[str, float], short: str, more: str
) -> None:
    document = with_prices(with_costs(scores_with(), inputs(token_usd=teacher), TERMS | terms, UPFRONT))
    saved = _saves({"prompts": 0, **document})
    assert saved.short == short and more in saved.more
    assert (document["break_even_requests"] is None) == (not saved.short.endswith("of the cost")), "the verdict says the same"


@pytest.mark.parametrize(
    ("teacher", "upfront", "reason", "missing"),
    [
        ({"token_usd": 0.0004}, UPFRONT, "the student is not cheaper: 1.06 USD per 1,000 requests", []),
        ({}, UPFRONT, "the price of the teacher is not known", ["[teacher] price"]),
        ({"engine": "vllm"}, UPFRONT, "the price of the teacher", ["[teacher] hourly_usd"]),
        ({"hourly_usd": 2.0}, UPFRONT, "the price of the teacher", ["[eval] p95_limit"]),
        ({"token_usd": 0.01}, UPFRONT | {"training": None}, "what the run cost once", ["[train] hourly_usd"]),
        ({"token_usd": 0.01}, UPFRONT | {"judge": None}, "what the run cost once", ["[judge] price"]),
    ],
)
def test_without_a_break_even_the_reason_and_the_key_to_write_are_named(
    teacher: dict[str, Any], upfront: dict[str, float | None], reason: str, missing: list[str]
) -> None:
    found = with_costs(scores_with(), inputs(**teacher), TERMS, upfront)
    assert found["break_even_requests"] is None
    assert reason in found["cost"]["reason"] and found["cost"]["missing"] == missing


def test_the_fallbacks_share_is_the_thresholds_unless_it_is_configured() -> None:
    chosen = {"threshold": 0.7, "kept": 0.8, "samples": 2}
    assert terms_of(EvalConfig(), chosen) | {"utilisation": 0} == {
        "utilisation": 0, "fallback_share": 0.2, "shadow_share": 0.0, "answers_a_request": 3,
    }  # fmt: skip
    assert terms_of(EvalConfig(fallback_share=0.3), chosen)["fallback_share"] == 0.3
    assert terms_of(EvalConfig(), {"threshold": None, "kept": None})["fallback_share"] == 0.0


def test_more_than_every_request_cannot_go_to_the_teacher(run: Run, plan: Recipe) -> None:
    with pytest.raises(UsageError, match="more than 1 together"):
        evaluate(run, replace(plan, eval=replace(plan.eval, fallback_share=0.7, shadow_share=0.4)), Silent())
    assert not run.file("eval", "journal.jsonl").exists()


@pytest.mark.parametrize(("requests", "wanted"), [(8, 8), (3, 8), (100, 8), (5, 1)])
def test_measured_requests_are_spread_over_the_prompts_and_repeat_none(requests: int, wanted: int) -> None:
    config = EvalConfig(latency_requests=wanted, p95_limit=1.0, concurrency=32)
    prompts = [Request(f"p{n}", [], 4) for n in range(requests)]
    taken = [[one for group in groups(prompts, config, level) for one in group] for level in levels(prompts, config)]
    names = [(one.id, one.again) for level in taken for one in level]
    assert len(set(names)) == len(names) and all(one.again for level in taken for one in level)
    assert len(taken[0]) == min(requests, wanted) and len(taken[-1]) <= requests
    assert levels(prompts, config)[-1] <= min(requests, 32)


# --- in a run -------------------------------------------------------------------------------------------------------------


def test_local_models_are_measured_one_at_a_time_and_never_again(run: Run, plan: Recipe, tmp_path: Path) -> None:
    first = evaluate(run, plan, Silent())
    for role in ("base", "student", "teacher"):
        facts = first.scores["models"][role]
        assert 0 < facts["first_token_p50"] <= facts["p50"] <= facts["p95"]
        assert facts["latency_basis"] == "one request at a time, transformers in this process"
        assert (facts["latency_requests"], facts["memory_bytes"]) == (3, 4 * 45_440)
    assert "p50" not in first.scores["models"]["ceiling"], "the teacher again"
    assert first.scores["p95"] == first.scores["models"]["student"]["p95"]
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        rows = list(journal.rows())
    timed = [row["completion"] for row in rows if row["id"].endswith(":student:1 at once")]
    seconds = [one["seconds"] for one in timed]
    assert first.scores["models"]["student"]["p95"] == pytest.approx(np.percentile(seconds, 95), abs=1e-6)
    assert sum(row["id"].endswith(":student:warm-up") for row in rows) == 1
    before = {name: path.read_bytes() for name, path in first.paths.items()}
    run.file("eval", "manifest.json").unlink()
    evaluate(run, plan, Silent())
    assert {name: path.read_bytes() for name, path in first.paths.items()} == before
    assert verify(run, Silent()).whole
    make_tiny_model(run.file("train", "model"), seed=5)
    evaluate(run, plan, Silent())
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        added = [row["id"] for row in journal.rows()][len(rows) :]
    assert {name.split(":")[1] for name in added} == {"student"}, "another student is measured anew, and only it"


def test_an_interrupted_measurement_is_continued_behind_a_new_warm_up(run: Run, plan: Recipe) -> None:
    class Interrupting(Silent):
        def start(self, what: str, total: int, unit: str) -> None:
            self.what = what

        def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
            if self.what.startswith("timing"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, plan, Interrupting())
    evaluate(run, plan, Silent())
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        names = [row["id"] for row in journal.rows()]
    measured = [name for name in names if name.endswith(":student:1 at once")]
    assert len(measured) == len(set(measured)) == 3
    assert sum(name.endswith(":student:warm-up") for name in names) == 2


def test_a_paid_endpoints_latency_is_that_of_its_answers_and_pays_nothing(run: Run, plan: Recipe) -> None:
    with ChatServer() as server:
        paid = served(plan, server, prompt=1.0, completion=2.0)
        result = evaluate(run, replace(paid, student=replace(plan.student, hourly_usd=0.36)), Silent())
        assert len(server.requests) == 24
    teacher, student = result.scores["models"]["teacher"], result.scores["models"]["student"]
    assert teacher["latency_basis"] == "the answers at an endpoint, up to 64 in flight, the network included"
    assert teacher["p95"] > 0 and teacher["first_token_p50"] is None
    usd = (teacher["prompt_tokens"] * 1.0 + teacher["completion_tokens"] * 2.0) / 12 / 1000
    assert teacher["usd_per_1000"] == pytest.approx(usd, rel=1e-6)
    machine = 1000 * 0.36 / 3600 * (student["seconds"] / 12) / 0.5
    assert student["usd_per_1000"] == result.scores["usd_per_1000"] == pytest.approx(machine, rel=0.02)
    assert "[train] hourly_usd" in result.scores["cost"]["missing"]
    rows = {row[0]: row for row in result.cost_rows}
    assert rows["teacher"][2].endswith(" b") and rows["student"][2].endswith(" a"), "kinds are marked apart"


def test_what_an_endpoint_bills_is_its_cost_where_no_price_is_configured(run: Run, plan: Recipe) -> None:
    bills = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.02}
    with ChatServer(reply=lambda body: {**answer(body), "usage": bills}) as server:
        scores = evaluate(run, served(plan, server), Silent()).scores
    teacher = scores["models"]["teacher"]
    assert (teacher["usd"], teacher["usd_per_1000"]) == (pytest.approx(12 * 0.02), pytest.approx(20.0))
    assert (scores["models"]["student"]["usd"], scores["cost"]["upfront"]["proof"]) == (None, pytest.approx(24 * 0.02))
    assert "[teacher] price" not in scores["cost"]["missing"]
    assert [problem for problem in verify(run, Silent()).problems if "scores.json" in str(problem)] == []


def test_a_server_of_ones_own_is_measured_by_streams(run: Run, plan: Recipe) -> None:
    with ChatServer() as server:
        free = served(plan, server, prompt=0.0, completion=0.0)
        teacher = evaluate(run, free, Silent()).scores["models"]["teacher"]
        streamed = [body for body in server.requests if body.get("stream")]
        assert (len(server.requests), len(streamed)) == (24 + 4, 4), "three, and one to warm up"
        assert teacher["first_token_p50"] <= teacher["p50"] and teacher["usd_per_1000"] == 0.0
        run.file("eval", "manifest.json").unlink()
        evaluate(run, free, Silent())
        assert len(server.requests) == 28


def test_answers_that_are_there_are_scored_though_their_endpoint_cannot_be_timed_any_more(run: Run, plan: Recipe) -> None:
    with ChatServer() as server:
        free = served(plan, server, prompt=0.0, completion=0.0)
        evaluate(run, replace(free, eval=replace(free.eval, latency_requests=0)), Silent())
    notes = Notes()
    result = evaluate(run, free, notes)
    assert any("the latency of the teacher is not measured" in note for note in notes.notes)
    assert result.scores["n"] == 12
    assert result.scores["models"]["teacher"]["latency_basis"].startswith("the answers at an endpoint"), (
        "what they took is known"
    )


def test_the_most_requests_at_once_that_keep_a_limit_are_found(run: Run, plan: Recipe) -> None:
    generous = replace(plan, eval=replace(plan.eval, p95_limit=60.0), student=replace(plan.student, hourly_usd=1.0))
    found = evaluate(run, generous, Silent()).scores
    best = found["models"]["student"]["at_limit"]
    assert best["at_once"] in (1, 2, 4, 8) and best["p95"] <= 60.0
    usd = 1000 / 3600 / (best["requests_per_second"] * 0.5)
    assert found["usd_per_1000"] == pytest.approx(usd, rel=1e-5)
    with ChatServer(seconds=0.05) as server:
        strict = replace(served(plan, server, prompt=0.0, completion=0.0), eval=replace(plan.eval, p95_limit=0.01))
        strict = replace(strict, teacher=replace(strict.teacher, hourly_usd=1.0))
        found = evaluate(run, strict, Silent()).scores
    assert "at_limit" not in found["models"]["teacher"]
    assert "[eval] p95_limit" in found["cost"]["missing"] and found["models"]["teacher"]["usd_per_1000"] is None


def test_a_limit_pays_for_its_requests_within_the_budget(run: Run, plan: Recipe) -> None:
    with ChatServer() as server:
        paid = served(plan, server, prompt=1.0, completion=2.0)
        paid = replace(paid, eval=replace(plan.eval, p95_limit=60.0), generate=replace(plan.generate, budget=0.01))
        evaluate(run, paid, Silent())
        assert len(server.requests) > 24
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        spent = journal.spending
        assert spent.paid_usd <= 0.01
        paid_usd = sum(row["usd"] or 0.0 for row in journal.rows())
    assert spent.paid_usd == pytest.approx(paid_usd)


def test_all_of_it_is_shown_in_80_columns_and_in_markdown(run: Run, plan: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    priced = replace(
        plan,
        teacher=replace(plan.teacher, hourly_usd=8.0),
        student=replace(plan.student, hourly_usd=0.5),
        train=replace(plan.train, hourly_usd=2.0),
        eval=replace(plan.eval, p95_limit=60.0),
        task=replace(plan.task, primary="exact_reference"),
    )
    for one in (priced, plan):
        result = evaluate(run, one, Silent())
        show_eval(Console(), result)
        out = capsys.readouterr().out
        assert max(len(line) for line in out.split("report: ")[0].splitlines()) <= 80
        assert "latency and cost" in out and f"| {' | '.join(result.cost_columns)} |" in markdown(result, "x")
        assert ("1,000 requests cost" in " ".join(result.verdict)) == (one is priced)
    assert "no price: write [student] hourly_usd, [teacher] hourly_usd, [train] hourly_usd into the recipe" in " ".join(
        out.split()
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.000075, "0.000075"), (0.0000012, "0.0000012"), (0.42, "0.42"), (0.1, "0.10"), (0.0, "0.00"), (1234.5, "1,234")],
)
def test_usd_are_written_without_an_exponent(value: float, shown: str) -> None:
    assert usd(value) == shown


def test_a_file_of_another_models_outputs_has_not_the_students_price() -> None:
    done = Completion("p", "x", prompt_tokens=10, completion_tokens=5)
    contestants = [Contestant("student", "student", "the student"), Contestant("rival", "rival", "rival")]
    given = [Answer(one.role, Prompt("p", [], []), [], done, None) for one in contestants]
    plan = Recipe(student=StudentConfig(model="s", price={"prompt": 1.0, "completion": 2.0}))
    assert set(inputs_of(plan, contestants, given, {})) == {"student"}
    of_log = [*given, replace(given[0], completion=Completion("q", "y"))]  # a log that lacks the tokens of some answers
    assert inputs_of(plan, contestants, of_log, {})["student"]["token_usd"] == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("manifest", "usd"),
    [
        ({"seconds": 1800.0, "seconds_in_all": 36_000.0}, 20.0),  # resumed after 9.5 of 10 hours
        ({}, 0.0),
    ],
)
def test_a_machines_hours_are_those_of_all_attempts(run: Run, manifest: dict[str, float], usd: float) -> None:
    known = json.loads(run.file("train", "manifest.json").read_text())
    known = {name: value for name, value in known.items() if not name.startswith("seconds")} | {"seconds": 0.0} | manifest
    run.file("train", "manifest.json").write_text(json.dumps(known))
    assert upfront_of(run, Recipe(train=TrainConfig(hourly_usd=2.0)))["training"] == usd


@pytest.mark.parametrize(
    ("teachers", "machine"),
    [
        ([{"engine": "openai"}, {"hourly_usd": 2.0}], 1.0),  # the first is an endpoint, the second runs here
        ([{"hourly_usd": 2.0}, {"hourly_usd": 2.0}], 1.0),  # both on this machine
        ([{"engine": "openai", "hourly_usd": 3.0}, {"engine": "openai", "hourly_usd": 5.0}], 4.0),  # two servers
        ([{"hourly_usd": 2.0}, {}], None),
        ([{"engine": "openai"}, {"engine": "openai"}], "none"),
    ],
)
def test_the_machines_of_all_teachers_are_paid(run: Run, teachers: list[dict[str, Any]], machine: float | str | None) -> None:
    manifest = json.loads(run.file("generate", "manifest.json").read_text())
    run.file("generate", "manifest.json").write_text(json.dumps(manifest | {"seconds_in_all": 1800.0}))
    each = [OneOfTeachers(**{"model": "one", **teacher}) for teacher in teachers]
    found = upfront_of(run, Recipe(teacher=each[0], teachers=each))
    assert found.get("teacher_machine", "none") == machine


def test_verify_computes_the_costs_again(run: Run, plan: Recipe) -> None:
    evaluate(run, plan, Silent())
    document = json.loads(run.file("eval", "scores.json").read_text())
    assert document["break_even_requests"] is None
    rewritten(run, "scores.json", lambda text: text.replace('"break_even_requests": null', '"break_even_requests": 12', 1))
    found = verify(run, Silent())
    assert not found.whole and "break_even_requests" in found.problems[0]


def test_one_local_answer_has_the_time_of_its_first_token_and_a_batch_has_none(tiny_model: Path) -> None:
    from seqdistill.engines import open_engine
    from seqdistill.journal.asking import run_async
    from seqdistill.recipe.tables import ModelConfig

    async def ask(number: int) -> list[Completion]:
        engine = open_engine(ModelConfig(model=str(tiny_model)))
        requests = [Request(str(n), [{"role": "user", "content": "Say something."}], 4) for n in range(number)]
        return [one async for one in engine.stream(requests)]

    alone = run_async(ask(1))[0]
    assert alone.first_token_seconds is not None and 0 < alone.first_token_seconds <= alone.seconds
    assert [one.first_token_seconds for one in run_async(ask(2))] == [None, None]
