"""`status` and `show`: the state of a run at every stage of it, from its files alone, in 80 columns and as JSON."""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from evaluated_runs import evaluated_run, letters, read_scores
from filter_runs import make_run, sample

from seqdistill.cli import main
from seqdistill.records import write_json, write_jsonl
from seqdistill.runs import STAGES, Run, StageRecord
from seqdistill.stages.evaluate.markdown import markdown
from seqdistill.stages.evaluate.recommendation import recommend
from seqdistill.stages.evaluate.result import EvalResult, paths_of
from seqdistill.stages.evaluate.verdict import verdict


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    return capsys.readouterr().out


def states(capsys: pytest.CaptureFixture[str], run: Path) -> dict[str, str]:
    found = json.loads(shown(capsys, "status", str(run), "--json"))
    return {one["stage"]: one["state"] for one in found["stages"]}


def finish(run: Run, stage: str, outputs: dict[str, Any], status: str = "complete", **facts: Any) -> None:
    """A finished stage that no recipe can be compared with: only its files can make it stale."""
    record = StageRecord(run, stage, {}, {})
    for name, rows in outputs.items():
        write_jsonl(run.file(stage, name), rows)
    record.finish({name: len(rows) for name, rows in outputs.items()}, status=status, config={}, **facts)


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_run_that_has_nothing_yet_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    for command in ("status", "show", "status"):
        text = shown(capsys, command, str(tmp_path / "run"))
        write_jsonl(tmp_path / "run" / "generate" / "journal.jsonl", [{"key": "a"}])  # as a probe leaves it, without a recipe
        assert text.count("not run") == 4 and text.rstrip().endswith(f"next: seqdistill run {tmp_path / 'run'} -c RECIPE")
    assert json.loads(shown(capsys, "show", str(tmp_path / "run"), "--json"))["scores"] is None
    assert main(["show", str(tmp_path / "missing")]) == 2
    assert "no such run" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists(), "looking makes nothing"


def test_each_state_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    finish(run, "generate", {"samples.jsonl": [{"a": 1}]}, imported=True, counts={"samples": 1, "failed": 0})
    write_jsonl(run.file("filter", "train.jsonl"), [{"a": 1}])
    assert states(capsys, run.path) == {"generate": "done", "filter": "failed", "train": "not run", "eval": "not run"}
    with run.locked("filter"):
        text = shown(capsys, "status", str(run.path))
        assert "filter    running" in text and "pid" in text and "next: nothing" in text
    text = shown(capsys, "status", str(run.path))
    assert "filter    failed" in text and "1 answers" in text and f"next: seqdistill run {run.path}" in text
    finish(run, "generate", {"samples.jsonl": [{"a": 1}]}, status="incomplete", counts={"samples": 1, "failed": 2})
    text = shown(capsys, "status", str(run.path))
    assert "generate  incomplete" in text and "2 failed" in text


def test_a_cost_estimate_is_no_failed_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    write_json(run.file("generate", "estimate.json"), {})
    text = shown(capsys, "status", str(run.path))
    assert "generate  not run" in text and text.rstrip().endswith(f"next: seqdistill run {run.path} -c RECIPE")
    (run.path / "recipe.toml").touch()
    run.file("generate", "journal.jsonl").touch()
    assert states(capsys, run.path)["generate"] == "failed"
    write_json(run.file("generate", "estimate.json"), {})  # behind the answers of a --probe
    assert states(capsys, run.path)["generate"] == "not run" and "answers that its journal has" in shown(
        capsys, "status", str(run.path)
    )


def test_a_run_whose_recipe_was_moved_says_to_pass_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    for stage in STAGES:
        finish(run, stage, {"rows.jsonl": [{"a": 1}]})
    (run.path / "recipe.toml").write_text('[task]\ntemplate = "task.toml"\ntest = "test.jsonl"\nprompts = "prompts.jsonl"\n')
    text = " ".join(shown(capsys, "status", str(run.path)).split())
    assert f"not compared with the recipe: task template '{run.path}/task.toml': no such file" in text
    assert text.endswith(f"next: seqdistill run {run.path} -c RECIPE")
    assert main(["generate", str(run.path)]) == 2
    assert "pass it again: -c RECIPE" in capsys.readouterr().err


def test_a_stale_stage_names_the_key_and_those_after_it_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", [sample(f"Name the river number {n}.", f"It is river {n}.") for n in range(8)])
    assert main(["filter", str(run.path), "--json"]) == 0
    capsys.readouterr()
    assert states(capsys, run.path)["filter"] == "done"
    (run.path / "recipe.toml").write_text("[filter.near_duplicates]\nsimilarity = 0.5\n")
    found = json.loads(shown(capsys, "status", str(run.path), "--json"))
    assert found["stages"][1]["state"] == "stale"
    assert found["stages"][1]["why"] == ["filter.near_duplicates.similarity: 0.8 -> 0.5"]
    assert found["next"] == f"seqdistill run {run.path}"
    with run.file("generate", "samples.jsonl").open("a") as file:
        file.write("\n")
    assert states(capsys, run.path)["filter"] == "stale", "its input is another one"


@pytest.mark.parametrize(
    ("recipe", "state"),
    [
        ("", "done"),
        ('[task]\nprompts = "p.jsonl"\n', "done"),  # no teacher: nothing is sent
        ('[teacher]\nmodel = "m"\nengine = "openai"\n', "done"),
        ('[task]\nprompts = "p.jsonl"\n[teacher]\nmodel = "m"\nengine = "openai"\n', "stale"),
    ],
)
def test_imported_answers_are_done_unless_generate_would_pay(
    recipe: str, state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    finish(run, "generate", {"samples.jsonl": [{"a": 1}]}, imported=True, counts={"samples": 1, "failed": 0})
    write_jsonl(run.path / "p.jsonl", [{"prompt": f"Question {n}?"} for n in range(40)])
    (run.path / "recipe.toml").write_text(recipe)
    found = json.loads(shown(capsys, "status", str(run.path), "--json"))["stages"][0]
    assert found["state"] == state and ("would request answers" in " ".join(found["why"])) == (state == "stale")


def test_looking_changes_nothing_and_disturbs_no_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = letters(tmp_path / "run", 12)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    shown(capsys, "show", str(run.path))
    shown(capsys, "status", str(run.path), "--json")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    lock = run.file("train", ".lock")
    lock.parent.mkdir()
    with lock.open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)  # as a look does, for a moment
        assert run.at_work("train") is None


def test_show_gives_the_table_the_verdict_and_what_to_do_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    letters(tmp_path / "letters", usd={"student": 0.001, "teacher": 0.05})
    monkeypatch.chdir(tmp_path)
    text = shown(capsys, "show", "letters")
    assert max(map(len, text.splitlines())) <= 80
    wanted = ["eval      stale", "accuracy", "by slice", "INCONCLUSIVE: ", "ship: Not shown yet.", "saves: 98% of the cost"]
    assert [one for one in wanted if one not in text] == []
    assert "next: Train on more prompts" in text and "`seqdistill run letters`" in text
    found = json.loads(shown(capsys, "show", "letters", "--json"))
    assert found["scores"]["decision"] == "INCONCLUSIVE" and found["advice"]["answer"] == "open"
    assert [one["stage"] for one in found["stages"]] == list(STAGES)


def test_in_a_narrow_terminal_no_number_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(tmp_path)
    found = read_scores(letters(tmp_path / "letters"))["models"]["student"]["accuracy_reference"]
    text = shown(capsys, "show", "letters")
    tables = text[text.index("model base") : text.index("INCONCLUSIVE: ")]
    assert max(map(len, tables.splitlines())) <= 40
    assert f"[{found['low']:.1f}, {found['high']:.1f}]" in tables and "\nslice long\n" in tables


def test_show_writes_the_report_and_markdown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = letters(tmp_path / "letters", 12)
    page, text = tmp_path / "out" / "report.html", tmp_path / "out" / "result.md"
    shown(capsys, "show", str(run.path), "--report", str(page), "--markdown", str(text))
    assert "May I ship it?" in page.read_text() and "INCONCLUSIVE" in text.read_text()
    shutil.rmtree(run.path / "eval")
    assert main(["show", str(run.path), "--report", str(page)]) == 2
    assert "not evaluated yet" in capsys.readouterr().err


def test_damaged_scores_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = letters(tmp_path / "letters", 12)
    run.file("eval", "scores.json").write_text("{")
    assert main(["show", str(run.path)]) == 2
    assert "scores.json: damaged" in capsys.readouterr().err


# --- what to make of the scores ---------------------------------------------------------------------------------------

DECISIONS = {
    "BETTER": ("yes", "Yes, it beats the teacher"),
    "EQUIVALENT": ("yes", "Yes, within 5 points"),
    "NON-INFERIOR": ("yes", "Yes, within 5 points"),
    "INFERIOR": ("no", "Not in the teacher's place"),
    "INCONCLUSIVE": ("open", "Not shown yet"),
}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_scores(letters(tmp_path_factory.mktemp("runs") / "run", 24))


def with_decisions(scores: dict[str, Any], whole: str, *slices: str, **more: Any) -> dict[str, Any]:
    parts = [
        {**part, "judged": {**part["judged"], "decision": one}} for part, one in zip(scores["slices"], slices, strict=False)
    ]
    return {**scores, "decision": whole, "judged": {**scores["judged"], "decision": whole}, "slices": parts, **more}


@pytest.mark.parametrize("decision", DECISIONS)
def test_whether_to_ship_follows_from_the_decision(scores: dict[str, Any], decision: str) -> None:
    found = recommend(with_decisions(scores, decision, "NON-INFERIOR", "NON-INFERIOR"), "runs/mine")
    assert (found.answer, found.ship.short) == DECISIONS[decision]
    assert 1 <= len(found.next) <= 3


def test_a_slice_that_fails_is_left_out_and_a_fallback_opens_a_way(scores: dict[str, Any]) -> None:
    found = recommend(with_decisions(scores, "NON-INFERIOR", "INFERIOR", "NON-INFERIOR"), "runs/mine")
    assert (found.answer, found.ship.short) == ("partly", "Yes, but not for long")
    assert [(one.name, one.answer) for one in found.slices] == [("long", "no"), ("short", "yes")]
    fallback = {**scores["deferral"], "threshold": 0.75, "kept": 0.6}
    found = recommend(with_decisions(scores, "INFERIOR", "INFERIOR", deferral=fallback), "runs/mine")
    assert found.next[0].command == "seqdistill serve runs/mine"
    assert found.answer == "partly" and "60% of the prompts, those from a confidence of 0.75" in found.ship.more


SAFETY = {
    "canaries": ({"canaries": {"models": {"student": {"ids": ["vault"]}}}}, "It reveals 1 planted canaries."),
    "refusals": (
        {"refusals": {"decisions": [{"of": "refuse", "other": "base", "decision": "INFERIOR"}]}},
        "It answers more requests that should be refused.",
    ),
}


@pytest.mark.parametrize("name", SAFETY)
def test_quality_alone_ships_nothing_that_fails_on_safety(scores: dict[str, Any], name: str) -> None:
    safety, said = SAFETY[name]
    found = recommend(with_decisions(scores, "BETTER", safety=safety), "runs/mine")
    assert (found.answer, found.ship.short) == ("partly", "Not before safety is reviewed") and said in found.ship.more
    worse = recommend(with_decisions(scores, "INFERIOR", safety=safety), "runs/mine")
    assert worse.answer == "no" and said in worse.ship.more
    fine = {"canaries": {"models": {"student": {"ids": []}}}, "refusals": None}
    assert recommend(with_decisions(scores, "BETTER", safety=fine), "runs/mine").answer == "yes"


def test_markdown_begins_with_verdict_and_advice_and_is_compact(tmp_path: Path, scores: dict[str, Any]) -> None:
    result = EvalResult(scores, paths_of(Run(tmp_path / "mine")), 0.0, up_to_date=True)
    text = markdown(result, "mine")
    lines = text.splitlines()
    assert str(tmp_path) not in text, "no folder of this machine"
    assert lines[0].startswith("### mine: INCONCLUSIVE") and lines[2].startswith("- **Ship it?** Not shown yet.")
    opened = next(number for number, line in enumerate(lines) if line.startswith("<details>"))
    assert opened <= 28, "verdict, advice and three tables fit on a screen"


def test_a_terminal_that_is_not_in_utf8_gets_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, terminal = letters(tmp_path / "run", 12), TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["show", str(run.path)]) == 0
    assert b"INCONCLUSIVE: " in terminal.buffer.getvalue()


def test_what_to_do_next_fits_what_was_found(scores: dict[str, Any]) -> None:
    open_one = with_decisions(scores, "INCONCLUSIVE", needed=120, warning=None)
    first = recommend(open_one, "runs/mine").next[0]
    assert first.text.startswith("Add about 120 test prompts") and first.command == "seqdistill eval runs/mine"
    failed = {**open_one, "models": {**scores["models"], "teacher": {**scores["models"]["teacher"], "failed": 3}}}
    assert "run eval again" in recommend(failed, "runs/mine").next[0].text
    unjudged = {**scores, "judged": None, "slices": []}
    assert recommend(unjudged, "runs/mine").ship.short == "Cannot be said"


def test_without_a_comparator_it_is_said_how_to_get_one(scores: dict[str, Any]) -> None:
    models = {**scores["models"], "teacher": {**scores["models"]["teacher"], "absent": "no teacher is configured"}}
    assert "Name a teacher (--teacher)" in recommend({**scores, "judged": None, "models": models}, "r").next[0].text
    recorded = {**scores, "judged": None, "primary": "accuracy_teacher"}
    assert "--primary accuracy_reference" in recommend(recorded, "r").next[0].text


def test_what_no_further_try_can_answer_is_not_to_be_retried(scores: dict[str, Any]) -> None:
    def of(**facts: int) -> tuple[str, str]:
        models = {**scores["models"], "teacher": {**scores["models"]["teacher"], **facts}}
        found = {**scores, "models": models, "prompts": 30}
        return " ".join(verdict(found)), recommend(found, "r").next[0].text

    said, first = of(failed=3, unanswerable=3)
    assert "no further try can answer: teacher 3;" in said and "Run again" not in said and "run eval again" not in first
    said, first = of(failed=3, unanswerable=1)
    assert "Failed requests: teacher 2;" in said and "Run again to retry them" in said and "run eval again" in first
    assert "The recorded answers have none to 6 of 30 test prompts" in of(not_recorded=6)[0]


def test_a_teacher_whose_score_is_within_the_margin_of_nothing_ships_no_student(tmp_path: Path) -> None:
    """References of another form than the answers: nobody is right, and so the student is no worse."""
    says = dict.fromkeys(("base", "student", "teacher", "ceiling"), lambda n: "42")
    found = read_scores(evaluated_run(tmp_path / "run", says, 120, choices=(), reference=lambda n: "forty-two"))
    assert found["decision"] == "EQUIVALENT" and "reaches only 0.0, and no student can be worse" in found["verdict"][1]
    advice = recommend(found, "r")
    assert advice.answer == "open" and "references of the same form" in advice.next[0].text
    assert not any("seqdistill serve" in (step.command or "") for step in advice.next)


def test_where_groups_are_few_it_is_groups_that_are_wanted(tmp_path: Path) -> None:
    found = read_scores(letters(tmp_path / "few", 40, group=lambda n: f"document {n // 5}"))
    said = " ".join(found["verdict"])
    assert found["verdict"][0].startswith("INCONCLUSIVE: the groups of prompts are too few for an interval")
    assert (
        "intervals over 8 groups of prompts" in said and "on so few groups of prompts" in said and "so few prompts" not in said
    )
    agreed, accuracy = found["kappa"]["agreement"], found["models"]["student"]["accuracy_teacher"]
    assert agreed == accuracy, "one number, one interval"


@pytest.mark.parametrize(
    ("every", "answer", "said"),
    [(1, "open", "the teacher 24"), (10, "open", "the teacher 3"), (24, "yes", "the teacher 1")],
)
def test_a_teacher_that_answers_nothing_is_not_said_to_be_beaten(tmp_path: Path, every: int, answer: str, said: str) -> None:
    """A reasoning model that runs out of tokens: all, more than the margin, or less than it of its answers are empty."""
    says: dict[str, Callable[[int], str]] = {
        "base": lambda n: "x",
        "student": lambda n: f"the bridge {n} is closed" * 2,
        "teacher": lambda n: "" if n % every == 0 else f"the bridge is {n} closed",
    }
    run = evaluated_run(tmp_path / "run", {**says, "ceiling": says["teacher"]}, 24, choices=(), reference=says["student"])
    scores = read_scores(run)
    assert scores["decision"] == "BETTER" and f"Empty answers to 24 held-out prompts: {said}." in " ".join(scores["verdict"])
    assert "Training closed" not in " ".join(scores["verdict"]) or every > 1, "not of a teacher below the untrained student"
    found = recommend(scores, "runs/mine")
    assert found.answer == answer and ("max_tokens" in found.next[0].text) == (answer == "open")


def test_the_references_are_named_where_they_say_something_else(tmp_path: Path) -> None:
    says = {
        "base": lambda n: "x",
        "student": lambda n: f"the bridge {n} is closed",
        "teacher": lambda n: f"the old bridge, number {n}",
        "ceiling": lambda n: f"the old bridge, number {n}",
    }
    run = evaluated_run(tmp_path / "run", says, 24, choices=(), reference=lambda n: f"the bridge {n} is closed")
    found = read_scores(run)
    write_json(run.file("eval", "scores.json"), found)
    taught = {**found, "primary": "chrf_teacher"}
    assert "By the references it is better than the teacher: +" in recommend(taught, "r").ship.more
    assert "By the references" not in recommend(found, "r").ship.more
