"""`eval --shadow`: what a server's log says of eval's promise, against SciPy's bounds; runs no model."""

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from scipy.stats import binomtest

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.records import write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.drift import drift

GOOD, BAD = "The river is closed on Monday.", "Something else entirely, I fear."


def evaluated(path: Path, **deferral: Any) -> Run:
    """A run with what eval wrote, as far as the promise goes."""
    run = Run(path)
    (path / "eval").mkdir(parents=True)
    document = {"threshold": 0.5, "target": 0.9, "risk": 0.05, "good_enough": 60.0, **deferral}
    scores = {"primary": "chrf_teacher", "margin": 5.0, "measures": {"chrf_teacher": {}}, "judged": {"other": "ceiling"}}
    row = {"id": "p0", "model": "ceiling", "scores": {"chrf_teacher": 80.0}}
    files = {"deferral.json": json.dumps(document), "scores.json": json.dumps(scores), "predictions.jsonl": json.dumps(row)}
    for name, text in {
        **files,
        "manifest.json": json.dumps(dict.fromkeys(("status", "seconds", "fingerprint", "outputs"))),
    }.items():
        run.file("eval", name).write_text(text + "\n")
    return run


def log_of(run: Run, good: int, bad: int, below: int = 0) -> Path:
    def pair(student: str, confidence: float) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Shorten."}, {"role": "assistant", "content": GOOD, "weight": 1}]
        return {"kind": "shadow", "messages": messages, "student": student, "confidence": confidence}

    rows = [*[pair(GOOD, 0.9)] * good, *[pair(BAD, 0.8)] * bad, *[pair(BAD, 0.2)] * below]
    rows.append({"kind": "feedback", "messages": [], "student": None, "confidence": None})
    write_jsonl(path := run.file("serve", "log.jsonl"), rows)
    return path


@pytest.mark.parametrize(("good", "bad", "state"), [(100, 1, "holds"), (60, 20, "broken"), (40, 2, "undecided")])
def test_the_log_says_whether_the_promise_holds(tmp_path: Path, good: int, bad: int, state: str) -> None:
    run = evaluated(tmp_path / "run")
    found = drift(run, Recipe(), log_of(run, good, bad, below=3))
    assert (found.state, found.n, found.good, found.below) == (state, good + bad, good, 3)
    n = good + bad
    exact = {
        side: binomtest(good, n, alternative=side).proportion_ci(confidence_level=0.95, method="exact")
        for side in ("greater", "less")
    }
    assert (found.low, found.high) == (
        pytest.approx(exact["greater"].low, abs=1e-6),
        pytest.approx(exact["less"].high, abs=1e-6),
    )
    scores = [sacrebleu.sentence_chrf(text, [GOOD]).score for text in (GOOD, BAD)]
    assert found.mean == pytest.approx((good * scores[0] + bad * scores[1]) / n, abs=1e-4)
    assert (found.needed or 0) > 0 if state == "undecided" else found.needed == 0


def test_without_a_score_that_is_good_enough_it_is_the_teacher_s_less_the_margin(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", good_enough=None)
    found = drift(run, Recipe(), log_of(run, 10, 0))
    assert found.good_enough == 75.0 and "no promise" not in found.says


@pytest.mark.parametrize(
    ("primary", "right", "alike", "traffic", "state"),
    [  # full scores of the student and of its comparator; how often the student agrees with the teacher in eval, in traffic
        ("exact_teacher", (0.8, 0.8), 0.8, 0.8, "holds"),  # the ceiling makes 84% good, as promised; agreement is 80%
        ("exact_teacher", (0.8, 0.8), 0.8, 0.76, "undecided"),
        ("exact_teacher", (0.8, 0.8), 0.8, 0.5, "broken"),
        ("exact_reference", (0.9, 0.9), 0.7, 0.7, "holds"),
        ("exact_reference", (0.9, 0.9), 0.7, 0.4, "broken"),
        ("exact_reference", (1.0, 1.0), 1.0, 0.7, "broken"),
    ],
)
def test_traffic_like_the_test_prompts_does_not_break_the_promise_made_on_them(
    tmp_path: Path, primary: str, right: tuple[float, float], alike: float, traffic: float, state: str
) -> None:
    """Eval calls an answer good where the comparator's is no better; traffic has the teacher's one answer, no reference."""
    run, n = evaluated(tmp_path / "run", good_enough=None, target=0.8), 400
    comparator = "ceiling" if primary == "exact_teacher" else "teacher"
    of_run = {"primary": primary, "margin": 5.0, "measures": {"exact_teacher": {}, "exact_reference": {}}}
    run.file("eval", "scores.json").write_text(json.dumps(of_run | {"judged": {"other": comparator}}))

    def score(place: int, step: int, rate: float) -> float:
        return 100.0 * (place * step % n < rate * n)

    rows = []
    for k in range(n):
        mine = {"exact_teacher": score(k, 1, alike), primary: score(k, 3 if primary != "exact_teacher" else 1, right[0])}
        rows.append({"id": f"p{k}", "model": "student", "scores": mine, "confidence": 0.9})
        rows.append({"id": f"p{k}", "model": comparator, "scores": {primary: score(k, 7, right[1])}})
        rows.append({"id": f"x{k}", "model": "student", "scores": dict.fromkeys(mine, 0.0), "confidence": 0.1})
    write_jsonl(run.file("eval", "predictions.jsonl"), rows)
    found = drift(run, Recipe(), log_of(run, round(n * traffic), n - round(n * traffic)))
    assert found.state == state and found.broken_below <= found.holds_from
    assert ("compared as here" in found.says) and found.target == 0.8
    if state == "undecided":  # between the two, more answers decide nothing
        assert found.broken_below < found.good / found.n < found.holds_from and found.needed is None


def test_prompts_of_one_group_say_once_how_the_two_measures_differ(tmp_path: Path) -> None:
    bars = []
    for copies in (1, 8):
        run = evaluated(tmp_path / str(copies), good_enough=None)
        rows = []
        for k in range(40 * copies):
            alike = {"id": f"p{k}", "group": f"g{k // copies}", "scores": {"chrf_teacher": 80.0 - 10 * (k // copies % 2)}}
            rows += [{**alike, "model": "student", "confidence": 0.9}, {**alike, "model": "ceiling"}]
        write_jsonl(run.file("eval", "predictions.jsonl"), rows)
        found = drift(run, Recipe(), log_of(run, 10, 0))
        bars.append((found.broken_below, found.holds_from))
    assert bars[0] == bars[1] and bars[0][0] < bars[0][1]


def test_a_promise_that_eval_did_not_make_is_said_to_be_assumed(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", target=None)
    assert "Eval made no promise, so 90% with a risk of 0.05 is assumed" in drift(run, Recipe(), log_of(run, 10, 0)).says


def test_the_command_ends_with_1_where_the_promise_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluated(tmp_path / "run")
    assert main(["eval", str(run.path), "--shadow", str(log_of(run, 60, 20))]) == 1
    assert "The promise no longer holds: 60 of 80 checked answers" in " ".join(capsys.readouterr().err.split())
    assert main(["eval", str(run.path), "--shadow", str(log_of(run, 60, 20)), "--json"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert (out["state"], out["n"], out["exit_code"]) == ("broken", 80, 1)
    assert main(["eval", str(run.path), "--shadow", str(log_of(run, 40, 2)), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["state"] == "undecided" and out["n"] == 42
    assert not (run.path / "run.json").exists()


def test_streams_that_were_kept_by_their_first_tokens_are_counted(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run")
    path = log_of(run, 10, 0, below=4)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [{**row, "decided_on": 16 if row["confidence"] == 0.2 else 0} for row in rows])
    found = drift(run, Recipe(), path)
    assert (found.n, found.good, found.below) == (14, 10, 0)


@pytest.mark.parametrize("name", ["deferral.json", "scores.json"])
def test_a_damaged_promise_is_named(tmp_path: Path, name: str) -> None:
    run = evaluated(tmp_path / "run")
    run.file("eval", name).write_text('{"threshold"')
    with pytest.raises(UsageError, match=f"{name}: damaged"):
        drift(run, Recipe(), log_of(run, 10, 0))


def test_answers_of_an_earlier_student_say_nothing_of_today_s(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run")
    rows = [json.loads(line) for line in log_of(run, 100, 1).read_text().splitlines()]
    earlier = [{**json.loads(line), "time": 1.5e9} for line in log_of(run, 0, 50).read_text().splitlines()]
    trained = {"finished": "2020-01-01T00:00:00+00:00", **dict.fromkeys(("status", "seconds", "fingerprint", "outputs"))}
    run.file("train", "manifest.json").parent.mkdir()
    run.file("train", "manifest.json").write_text(json.dumps(trained))
    write_jsonl(log := tmp_path / "log.jsonl", [*earlier, *({**row, "time": 1.7e9} for row in rows)])
    found = drift(run, Recipe(), log)
    assert (found.state, found.n, found.earlier) == ("holds", 101, 50) and "50 of an earlier student" in found.says
    write_jsonl(log, earlier)
    with pytest.raises(UsageError, match="but 50 of an earlier student"):
        drift(run, Recipe(), log)


@pytest.mark.parametrize("damaged", [{"confidence": "0.9"}, {"decided_on": []}, {"student": None}, {"messages": [1, 2]}])
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, damaged: dict[str, Any]) -> None:
    run = evaluated(tmp_path / "run")
    rows = [json.loads(line) for line in log_of(run, 2, 0).read_text().splitlines()]
    write_jsonl(log := tmp_path / "log.jsonl", [rows[0], {**rows[1], **damaged}])
    with pytest.raises(UsageError, match=r"log\.jsonl:2: not a pair of answers"):
        drift(run, Recipe(), log)


def test_a_log_without_pairs_is_refused(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run")
    with pytest.raises(UsageError, match="but 4 below the threshold"):
        drift(run, Recipe(), log_of(run, 0, 0, below=4))
