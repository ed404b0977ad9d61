"""Scoring and selection as filter does them: what is kept, the reason of each rejected row, and the sets to compare with."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from filter_runs import filtered, kept_ids, make_run, rows_of, rules_of, sample
from test_judge import by_length, says

from seqdistill.decisions import Decision, appending, hash_of_text
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import resolve
from seqdistill.recipe.tables import (
    FilterConfig,
    JudgeConfig,
    NearDuplicatesConfig,
    PersonalDataConfig,
    Recipe,
    ScoreConfig,
    SelectConfig,
)
from seqdistill.records import Sample
from seqdistill.runs import Run
from seqdistill.stages.filter.stage import filter_samples

PLACES = [
    "library",
    "swimming pool",
    "town hall",
    "north bridge",
    "bakery",
    "museum",
    "post office",
    "harbour",
    "school",
    "park",
]
ANSWERS = [
    "The {} is shut on Monday.",
    "{} shut!",
    "Nothing at all is known of any {} in this town.",
    "On Monday the {} is closed.",
]


def samples(prompts: int = 10) -> list[Sample]:
    return [
        sample(f"Why is the {place} shut?", answer.format(place), sample=n, reference=f"The {place} is shut on Monday.")
        for place in PLACES[:prompts]
        for n, answer in enumerate(ANSWERS)
    ]


def choose(run: Run, **keys: Any) -> Any:
    return filtered(run, near_duplicates={"scope": "off"}, validation=0, **keys)


def numbers(run: Run) -> list[int]:
    """The sample numbers that were kept."""
    return sorted(int(row_id.rpartition(":")[2]) for row_id in kept_ids(run))


def test_of_several_teachers_the_answer_nearest_to_the_others_is_learnt(tmp_path: Path) -> None:
    """Minimum Bayes risk: no reference, and the odd one out never wins, whichever teacher wrote it."""
    texts = ["The {} is shut on Monday.", "The {} is shut this Monday.", "The {} will be shut on Monday.", "Bees like {}."]
    rows = [
        sample(f"Why is the {place} shut?", texts[(n + at) % 4].format(place), teacher=f"t{n}")
        for at, place in enumerate(PLACES)
        for n in range(4)
    ]
    result = choose(make_run(tmp_path, rows), score={"by": "consensus"})
    assert (result.read, result.kept, result.by_rule) == (40, 10, {"best": 30})
    kept = rows_of(Run(tmp_path), "train.jsonl")
    assert not [row for row in kept if row["completion"][0]["content"].startswith("Bees")]
    assert len({row["teacher"] for row in kept}) == 4


def test_the_sample_nearest_to_the_reference_is_learnt_and_the_others_say_why_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, samples())
    result = choose(run, score={"by": "reference"})
    assert (result.read, result.kept, result.by_rule) == (40, 10, {"best": 30})
    assert numbers(run) == [0] * 10
    row = next(row for row in rows_of(run, "rejected.jsonl") if row["sample"] == 1)
    assert row["kept_by"] == row["id"][:-1] + "0"
    assert row["reason"].startswith("best of 4 by chrf: 100, this one ")
    assert row["would_keep"] == ["filter.select.best_n = 3"]
    selected = json.loads(run.file("filter", "report.json").read_text())["select"]
    assert (selected["score"], selected["rows"], selected["scored"], selected["kept"], selected["mean_kept"]) == (
        "chrf",
        40,
        40,
        10,
        100,
    )


def test_the_choice_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = samples()
    kept = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        run = make_run(tmp_path / str(seed), rows)
        choose(run, score={"by": "reference"}, select={"best_n": 2})
        kept.append(kept_ids(run))
    assert kept[0] == kept[1] == kept[2]


def test_samples_that_were_dropped_as_duplicates_still_vote(tmp_path: Path) -> None:
    texts = ["So it is 41.", "I think it is 42.", "I think it is 42.", "i think it is 42.", "It must be 43."]
    run = make_run(tmp_path, [sample("What is six times seven?", text, sample=n) for n, text in enumerate(texts)])
    choose(run, score={"by": "vote", "extract": "number"}, select={"keep": "threshold", "min_score": 0.6})
    assert numbers(run) == [1]
    rejected = {row["sample"]: row for row in rows_of(run, "rejected.jsonl")}
    assert rejected[2]["rule"] == "duplicate"
    assert rejected[0]["reason"] == "vote 0.2 is less than 0.6"
    assert rejected[0]["would_keep"] == ["filter.select.min_score = 0.2"]


def test_the_best_of_all_rows_can_be_chosen(tmp_path: Path) -> None:
    run = make_run(tmp_path, samples())
    choose(run, score={"by": "reference"}, select={"keep": "share", "top_share": 0.3, "among": "all"})
    assert len(kept_ids(run)) == 12
    assert numbers(run).count(0) == 10


@pytest.mark.parametrize("validation", [0.0, 0.4, 0.5])
@pytest.mark.parametrize("among", ["prompt", "all"])
def test_baselines_are_as_large_as_what_was_chosen(validation: float, among: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, samples())
    select = {"among": among, "best_n": 2}
    filtered(
        run, near_duplicates={"scope": "off"}, validation=validation, score={"by": "reference"}, select=select, baselines=True
    )
    chosen = rows_of(run, "train.jsonl")
    for kind in ("random", "longest"):
        rows = rows_of(run, f"train-{kind}.jsonl")
        assert len(rows) == len(chosen)
        assert [list(row) for row in rows] == [list(rows[0])] * len(rows), "a sample's keys and no other"
        assert not {row["prompt_id"] for row in rows} & {row["prompt_id"] for row in rows_of(run, "validation.jsonl")}
    if among == "prompt":
        assert {row["sample"] for row in rows_of(run, "train-longest.jsonl")} == {2, 3}
        assert len({row["sample"] for row in rows_of(run, "train-random.jsonl")}) > 2


def test_a_check_of_ones_own_decides_and_editing_it_filters_again(tmp_path: Path) -> None:
    check = tmp_path / "check.py"
    check.write_text("import json, sys; sys.exit('Monday' not in json.load(sys.stdin)['completion'][0]['content'])")
    run = make_run(tmp_path / "run", samples(2))
    keys: dict[str, Any] = {"score": {"by": "verify"}, "verify": {"by": "command", "command": [sys.executable, str(check)]}}
    keys["select"] = {"keep": "threshold"}
    choose(run, **keys)
    assert numbers(run) == [0, 0, 3, 3]
    assert set(rules_of(run).values()) == {"threshold"}
    assert choose(run, **keys).up_to_date
    check.write_text(check.read_text().replace("Monday", "known"))
    assert not choose(run, **keys).up_to_date
    assert numbers(run) == [2, 2]


def test_rejection_sampling_keeps_the_best_right_answer_and_none_of_a_prompt_without_one(tmp_path: Path) -> None:
    answers = {"What is 6 times 7?": ["41", "It is 42.", "42"], "What is 6 plus 7?": ["12", "11"], "Who am I?": ["You."]}
    references = {"What is 6 times 7?": "42", "What is 6 plus 7?": "13", "Who am I?": "you"}
    rows = [sample(p, text, sample=n, reference=references[p]) for p, texts in answers.items() for n, text in enumerate(texts)]
    run = make_run(tmp_path, rows)
    result = choose(run, score={"by": "verify"})
    assert kept_ids(run) == {rows[1].id}
    selected = json.loads(run.file("filter", "report.json").read_text())["select"]
    assert (selected["prompts"], selected["prompts_kept"], selected["mean_kept"]) == (3, 1, 1)
    assert any("could not score 1 of 6" in warning and "not one number: 'you'" in warning for warning in result.warnings)
    choose(run, score={"by": "verify"}, select={"min_score": 0.0})
    assert len(kept_ids(run)) == 2, "who wants wrong ones sets the lowest score"


INDENTED = "def total(xs):\n    s = 0\n    for x in xs:\n        s += x\n{}return s\n"
SORTED = (
    "def total(xs):\n    for i in range(len(xs) - 1):\n        if xs[i] {} xs[i + 1]:\n            return 0\n    return 6\n"
    "# Compares each neighbouring pair of items in turn and stops at the first one that is out of order, so that it takes "
    "linear time and constant memory, whatever the length of the list that it is called with."
)
HARBOUR = (
    "The committee met on Monday to review the plan for the harbour bridge and heard from the engineers, the mayor, the "
    "residents of the quay and the owners of the ferry company, who agreed on most of the points. The vote was {} the plan."
)
RUNS = (
    "import json, sys; ns = {}; exec(json.load(sys.stdin)['completion'][0]['content'], ns); "
    "sys.exit(ns['total']([1, 2, 3]) != 6)"
)
COMMAND = {"score": {"by": "verify"}, "verify": {"by": "command", "command": [sys.executable, "-c", RUNS]}}


@pytest.mark.parametrize(
    ("wrong", "right", "keys"),
    [
        (INDENTED.format(" " * 8), INDENTED.format(" " * 4), COMMAND),
        (SORTED.format("<"), SORTED.format(">"), COMMAND),
        ("CO", "Co", {"score": {"by": "verify"}, "verify": {"by": "regex:^Co$"}}),
        ('{"name": "mcdonald"}', '{"name": "McDonald"}', {"score": {"by": "verify"}, "verify": {"by": "json"}}),
        (HARBOUR.format("against"), HARBOUR.format("for"), {"score": {"by": "reference"}}),
        (HARBOUR.format("for NASA and"), HARBOUR.format("for"), {"score": {"by": "faithfulness"}}),
        (
            "Mail anna@example.org. " + HARBOUR.format("for"),
            "Mail Anna. " + HARBOUR.format("for"),
            {"personal_data": {"action": "drop"}},
        ),
    ],
)
def test_of_answers_that_repeat_each_other_the_right_one_stays(
    tmp_path: Path, wrong: str, right: str, keys: dict[str, Any]
) -> None:
    rows = [sample("What was decided on Monday?", text, sample=n, reference=right) for n, text in enumerate((wrong, right))]
    run = make_run(tmp_path, rows)
    assert filtered(run, validation=0, **keys).kept == 1
    assert numbers(run) == [1]


ASKED = "What did the committee of the town decide about the plan for the bridge on Monday after it had heard {}?"
DECIDED = "The plan is put off until spring, because the ferry owners want to be paid first."
LAST = "The answer that the committee gave to the residents of the quay and to the mayor on Monday was {}."


@pytest.mark.parametrize(
    ("first", "second", "keys"),
    [  # the answers to one question, and to the next; the first of the second is like that of the first
        (
            [HARBOUR.format("for")],
            [HARBOUR.format("for") + " It is put off.", DECIDED],
            {"score": {"by": "reference"}},
        ),
        (
            [HARBOUR.format("for")],
            [HARBOUR.format("for") + " It is put off.", DECIDED],
            {"score": {"by": "reference"}, "near_duplicates": {"scope": "response"}},
        ),
        ([HARBOUR.format("for"), DECIDED], [HARBOUR.format("for"), DECIDED + " "], {"score": {"by": "reference"}}),
        (
            [LAST.format("nine") + " So: 9"],
            ["9", LAST.format("nine") + " So it is: 9"],
            {"score": {"by": "verify"}, "near_duplicates": {"scope": "response", "numbers": False}},
        ),
        (
            [HARBOUR.format("for")],
            [HARBOUR.format("for") + " It is.", HARBOUR.format("for") + " It was.", DECIDED, DECIDED],
            {"score": {"by": "reference"}, "select": {"best_n": 2}},
        ),
    ],
)
def test_a_row_goes_only_for_one_that_stays(first: list[str], second: list[str], keys: dict[str, Any], tmp_path: Path) -> None:
    reference = "9" if keys["score"]["by"] == "verify" else DECIDED
    rows = [
        sample(ASKED.format(who), text, sample=n, reference=reference)
        for who, texts in (("the mayor", first), ("the engineers", second))
        for n, text in enumerate(texts)
    ]
    run = make_run(tmp_path, rows)
    filtered(run, validation=0, baselines=True, **keys)
    instead = {row["kept_by"] for row in rows_of(run, "rejected.jsonl")}
    assert instead <= kept_ids(run) and {name.partition(":")[0] for name in instead} <= {row.prompt_id for row in rows}
    if len(first) == 1 and "select" not in keys:
        assert len({row["prompt_id"] for row in rows_of(run, "train.jsonl")}) == 2, "both prompts are learnt from"
    assert len(rows_of(run, "train-random.jsonl")) == len(rows_of(run, "train.jsonl"))


def test_a_vote_decides_between_answers_that_repeat_each_other(tmp_path: Path) -> None:
    texts = [HARBOUR.format("against"), HARBOUR.format("for"), "Well: " + HARBOUR.format("for")]
    run = make_run(tmp_path, [sample("Who won?", text, sample=n) for n, text in enumerate(texts)])
    filtered(run, validation=0, score={"by": "vote", "extract": "regex:against|for the plan"})
    assert numbers(run) == [1]


def test_an_answer_that_only_repeats_one_with_a_test_item_stays(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    item = "Explain why the ferry between the two islands was late again this morning and who will pay for the repairs"
    test.write_text(json.dumps({"prompt": item}) + "\n")
    rows = [sample("Say it.", f"{HARBOUR} {text} {HARBOUR}", sample=n) for n, text in enumerate((item, item[:60]))]
    run = make_run(tmp_path / "run", rows)
    result = filtered(run, test, validation=0, near_duplicates={"similarity": 0.6})
    assert result.by_rule == {"contamination": 1} and numbers(run) == [1]


def test_a_judge_reads_answers_that_repeat_each_other_but_equal_ones_once(tmp_path: Path) -> None:
    texts = [HARBOUR.format("against"), HARBOUR.format("against"), HARBOUR.format("for")]
    run = make_run(tmp_path, [sample("Who won?", text, sample=n) for n, text in enumerate(texts)])
    with ChatServer(model="judge", reply=says(lambda asked: json.dumps({"score": 9 if "was for" in asked else 2}))) as server:
        judge = JudgeConfig(model="judge", engine="openai", base_url=[server.url])
        filter_samples(run, Recipe(filter=FilterConfig(score=ScoreConfig(by="judge"), validation=0), judge=judge), Silent())
        assert len(server.requests) == 2
    assert numbers(run) == [2]


def test_a_judge_is_not_paid_for_answers_that_go_whatever_it_says(tmp_path: Path) -> None:
    texts = ["Mail anna@example.org.", "By nobody.", "By the mayor of the town."]
    rows = [sample("Who won?", text, sample=n) for n, text in enumerate(texts)]
    run = make_run(tmp_path, rows)
    with appending(run) as append:
        append(Decision(rows[1].id, "reject", None, hash_of_text(rows[1].text), "maria", "2026-01-01T00:00:00"))
    with ChatServer(model="judge", reply=says(by_length)) as server:
        judge = JudgeConfig(model="judge", engine="openai", base_url=[server.url])
        config = FilterConfig(
            score=ScoreConfig(by="judge"), personal_data=PersonalDataConfig(action="drop", phone_regions=[]), validation=0
        )
        filter_samples(run, Recipe(filter=config, judge=judge), Silent())
        assert len(server.requests) == 1
    assert numbers(run) == [2] and set(rules_of(run).values()) == {"personal_data", "review"}


def test_templated_data_is_an_error_before_a_judge_is_paid(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        [sample("Who won?", f"{HARBOUR} {'abcdefghij'[n % 10]}{'klmnopqrstuvw'[n // 10]}", sample=n) for n in range(130)],
    )
    with ChatServer(model="judge", reply=says(by_length)) as server:
        judge = JudgeConfig(model="judge", engine="openai", base_url=[server.url])
        with pytest.raises(SeqdistillError, match="129 of 130 rows"):
            filter_samples(run, Recipe(filter=FilterConfig(score=ScoreConfig(by="judge")), judge=judge), Silent())
        assert not server.requests


@pytest.mark.parametrize(
    ("select", "each", "warns"),
    [({}, 1, True), ({"keep": "share"}, 1, True), ({"best_n": 4}, 4, True), ({}, 2, False), ({"min_score": 50.0}, 1, False)],
)
def test_scores_that_can_reject_nothing_say_so(tmp_path: Path, select: dict[str, Any], each: int, warns: bool) -> None:
    result = choose(
        make_run(tmp_path, [row for row in samples(2) if row.sample < each]), score={"by": "reference"}, select=select
    )
    assert any("the scores by reference reject nothing" in warning for warning in result.warnings) == warns


def test_a_vote_in_which_no_two_samples_agree_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, samples())
    (warning,) = choose(run, score={"by": "vote"}).warnings
    assert "in 10 of 10 prompts no two samples give the same answer" in warning and "--score-extract" in warning
    assert choose(run, score={"by": "vote", "extract": "regex:shut|closed|known"}).warnings == []


def test_a_vote_over_json_is_over_the_whole_answer_however_it_is_laid_out(tmp_path: Path) -> None:
    texts = ['{"a": 1, "b": 2}', '{"b": 2.0, "a": 1}', '{"a": 3, "b": 2}', '{ "a" :1, "b": 2 }']
    run = make_run(tmp_path, [sample("Read this: a is 1, b is 2", text, sample=n) for n, text in enumerate(texts)])
    tables = {
        "generate": {"schema": {"type": "object"}},
        "filter": {
            "score": {"by": "vote"},
            "near_duplicates": {"scope": "off"},
            "select": {"keep": "threshold", "min_score": 0.7},
        },
    }
    assert filter_samples(run, resolve(tables), Silent()).kept == 3


def test_a_judge_chooses_and_a_second_choice_costs_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*samples(3), sample("Say something.", "x", sample=0)])
    with ChatServer(model="judge", reply=says(by_length)) as server:
        judge = JudgeConfig(model="judge", engine="openai", base_url=[server.url], price={"prompt": 1.0, "completion": 10.0})

        def judged(judge: JudgeConfig = judge, **keys: Any) -> Any:
            off = NearDuplicatesConfig(scope="off")
            config = FilterConfig(near_duplicates=off, score=ScoreConfig(by="judge"), select=SelectConfig(**keys), validation=0)
            return filter_samples(run, Recipe(filter=config, judge=judge), Silent())

        result = judged(keep="threshold", min_score=10.0)
        assert (result.read, result.kept, result.by_rule) == (13, 12, {"threshold": 1})
        selected = json.loads(run.file("filter", "report.json").read_text())["select"]
        assert (selected["judge"]["new"], selected["judge"]["unreadable"]) == (13, 0)
        assert selected["judge"]["usd"] == pytest.approx(13 * 0.0004)
        assert judged(keep="threshold", min_score=10.0).up_to_date
        assert judged(keep="best").by_rule == {"best": 9}
        assert len(server.requests) == 13, "asked once"
        run.file("filter", "journal.jsonl").unlink()
        with pytest.raises(Incomplete, match="the judge's budget is reached"):
            judged(JudgeConfig(**{**vars(judge), "budget": 0.01}), keep="best", best_n=2)
        assert run.manifest("filter") is not None, "the earlier filter is as it was"


def test_rows_that_nothing_can_score_are_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path, [sample(f"Why is the {place} shut?", f"The {place} is shut.") for place in PLACES])
    with pytest.raises(SeqdistillError, match="'unscored' rejected 10 of 10") as raised:
        choose(run, score={"by": "reference"})
    assert raised.value.hint == 'filter.select.unscored = "keep" (--select-unscored) would keep it'
    assert choose(run, score={"by": "reference"}, select={"unscored": "keep"}).kept == 10


def test_bad_settings_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, samples(1))
    with pytest.raises(UsageError, match="no judge is configured"):
        choose(run, score={"by": "judge"})
    with pytest.raises(UsageError, match="no reward model"):
        choose(run, score={"by": "reward"})
    with pytest.raises(UsageError, match="no such check"):
        choose(run, score={"by": "verify"}, verify={"by": "magic"})
    with pytest.raises(UsageError, match=": unknown"):
        choose(run, score={"by": "vote", "extract": "lines"})
    for by in ("reference", "consensus", "logprob"):
        with pytest.raises(UsageError, match="there is no lowest score to keep"):
            choose(run, score={"by": by}, select={"keep": "threshold"})
    for by, finds in (("math", "finds the formula itself"), ("command", "finds the answer itself")):
        with pytest.raises(UsageError, match=finds):
            choose(run, score={"by": "verify", "extract": "boxed"}, verify={"by": by, "command": [sys.executable]})
    assert not run.file("filter", "train.jsonl").exists()
