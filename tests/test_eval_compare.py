"""`eval RUN --compare OTHER`: planted students, of which one is better where it is known to be; what cannot be compared."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluated_runs import letters
from test_eval_decision import pair

from seqdistill.cli import main
from seqdistill.metrics import measures
from seqdistill.records import write_json, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate.scores import described

ROWS = 200
Right = Callable[[int], bool]
MEASURES = [measure for measure in measures("text") if measure.name in ("exact_reference", "exact_teacher", "stopped")]


def evaluated(
    folder: Path, right: Right, *, ids: range = range(ROWS), text: str = "Prompt", template: str = "t", **models: Any
) -> Run:
    """A run as eval leaves it, whose student is right on some prompts and whose teacher always is."""
    run = Run(folder)
    rows = []
    for n in ids:
        for model in ("student", "teacher"):
            good = model == "teacher" or right(n)
            scores = {"exact_reference": 100.0 * good, "exact_teacher": 100.0 * good, "stopped": 100.0}
            said = [{"role": "assistant", "content": f"gold {n}" if good else "[red]\x1b[31mno | `idea`"}]
            rows.append(
                {"id": f"p{n:03}", "model": model, "prompt": [{"role": "user", "content": f"{text} {n}"}],
                 "completion": said, "finish_reason": "stop", "tokens": 3, "seconds": 0.1, "scores": scores,
                 "confidence": None, "reference": f"gold {n}", "slice": ("easy", "hard")[n % 2], "group": None, "error": None}
            )  # fmt: skip
    scores = {
        "primary": "exact_reference", "measures": described(MEASURES), "temperature": 0.0, "max_tokens": 12,
        "models": {"student": {}, "teacher": {"identity": "the-teacher", **models}},
    }  # fmt: skip
    write_jsonl(run.file("eval", "predictions.jsonl"), rows)
    write_json(run.file("eval", "scores.json"), scores)
    StageRecord(run, "eval", {"task.template": template}, {}).finish(
        {"predictions.jsonl": len(rows), "scores.json": None}, config={}
    )
    return run


def compared(run: Run, other: Run, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    code = main(["eval", str(run.path), "--compare", str(other.path), "--json", "-q", *flags])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def good(tmp_path: Path) -> Run:
    return evaluated(tmp_path / "good", lambda n: n % 10 != 0)


@pytest.fixture
def bad(tmp_path: Path) -> Run:
    return evaluated(tmp_path / "bad", lambda n: n % 10 not in (0, 1, 2))


def test_the_better_student_is_called_better_and_the_other_way_round_inferior(
    good: Run, bad: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = compared(good, bad, capsys)
    assert code == 0 and found["decision"] == "BETTER" and found["verdict"][0].startswith("BETTER: the student of good")
    judged = found["judged"]
    expected = pair(140, 40, 0, 20).difference()
    assert (judged["value"], judged["low"], judged["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-5
    )
    assert len(found["better"]) == 40 and found["worse"] == []
    code, found = compared(bad, good, capsys)
    assert code == 0 and found["decision"] == "INFERIOR" and len(found["worse"]) == 40 and found["better"] == []
    assert {part["slice"] for part in found["slices"]} == {"easy", "hard"}
    assert [part["judged"]["decision"] for part in found["slices"]] == ["INFERIOR", "INFERIOR"]


def test_two_alike_students_are_equivalent(good: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(good.path, tmp_path / "again")
    assert compared(good, Run(tmp_path / "again"), capsys)[1]["decision"] == "EQUIVALENT"
    shutil.copytree(good.path, tmp_path / "elsewhere" / "good")
    names = compared(good, Run(tmp_path / "elsewhere" / "good"), capsys)[1]["compared"]
    assert names["student"] != names["other"]
    for place in ("march/runs/mine", "april/runs/mine"):
        shutil.copytree(good.path, tmp_path / place)
    names = compared(Run(tmp_path / "march/runs/mine"), Run(tmp_path / "april/runs/mine"), capsys)[1]["compared"]
    assert names == {"student": "march/runs/mine", "other": "april/runs/mine"}


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("decision=NON-INFERIOR", 1),
        ("decision=inferior", 0),
        ("kept=0.7", 0),
        ("kept=0.9", 1),
        ("exact=0.7", 0),
        ("exact=0.75", 1),
        ("gap_closed=0.1", 1),
        ("keept=0.9", 2),
        ("kept=nan", 2),
        ("kept=", 2),
        ("decision=GOOD", 2),
        ("macro_f1=0.5", 2),
    ],
)
def test_the_decision_and_a_value_set_the_exit_code(
    good: Run, bad: Run, condition: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(bad, good, capsys, "--fail-under", condition)[0] == code


@pytest.mark.parametrize(("condition", "code"), [("accuracy=0.5", 0), ("accuracy=0.9", 1), ("macro_f1=0.5", 2), ("kappa=0", 2)])
def test_of_choices_what_a_comparison_has_can_be_a_condition(
    tmp_path: Path, condition: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = letters(tmp_path / "one"), letters(tmp_path / "other")
    assert compared(one, other, capsys, "--fail-under", condition)[0] == code


def test_it_is_shown_in_80_columns_escaped_and_written_as_markdown_without_models_text(
    good: Run, bad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(bad.path), "--compare", str(good.path), "--markdown", str(tmp_path / "c.md")]) == 0
    shown = capsys.readouterr().out
    assert "worse: 40 of 200 prompts, the first 3" in shown and "\x1b" not in shown and "[red]\\x1b[31mno" in shown
    assert max(map(len, shown.splitlines())) <= 80
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("### INFERIOR: the student of bad") and "p001" in text and "idea" not in text
    files = {str(path.relative_to(run.path)) for run in (good, bad) for path in run.path.rglob("*") if path.is_file()}
    assert files == {"eval/predictions.jsonl", "eval/scores.json", "eval/manifest.json"}, "a comparison writes nothing in a run"


def test_other_test_sets_are_paired_on_the_prompts_that_both_have(
    good: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = evaluated(tmp_path / "half", lambda n: n % 10 != 0, ids=range(100, 260))
    code, found = compared(good, half, capsys)
    assert code == 0 and found["n"] == 100 and found["prompts"] == {"shared": 100, "student": 200, "other": 160}
    assert any("Only the 100 prompts that both have" in line and "100 of" in line for line in found["verdict"])


REFUSED: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "template": ({"template": "another"}, "different task templates", []),
    "no prompt": ({"ids": range(500, 560)}, "no test prompt in common", []),
    "one id, two prompts": ({"text": "Other"}, "the id 'p000' is that of one prompt", []),
    "teachers": ({"identity": "another"}, "measured against its own teacher", ["--primary", "exact_teacher"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    good: Run, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    how, reason, flags = REFUSED[case]
    code, found = compared(good, evaluated(tmp_path / "other", lambda _: True, **how), capsys, *flags)
    assert code == 2 and reason in found["error"] and found["next"]


def test_a_run_without_an_eval_is_named_with_the_command(good: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = compared(good, Run(tmp_path / "none"), capsys)
    assert code == 2 and "seqdistill eval" in found["next"] and str(tmp_path / "none") in found["error"]
    assert not (tmp_path / "none").exists()
