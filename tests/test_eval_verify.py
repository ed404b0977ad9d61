"""`verify`: one changed byte names its file. And what CI needs: conditions, Markdown, a metric of one's own."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import ChatServer
from finished_runs import finished_run, recipe
from test_eval import write_test

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.metrics import measures
from seqdistill.progress import Silent
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.recipe.tables import GenerateConfig, Recipe, SafetyConfig, TeacherConfig
from seqdistill.records import seal, write_json, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.conditions import BelowCondition, check_conditions, check_result
from seqdistill.stages.evaluate.markdown import markdown
from seqdistill.stages.evaluate.result import EvalResult
from seqdistill.stages.evaluate.stage import evaluate
from seqdistill.stages.evaluate.verification import verify

OWN = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Found:
    words: int

def short(answer: str) -> bool:
    return len(answer) < 400

def first(answer, wanted):
    return None if not wanted else float(answer[:1] == wanted[:1])

def broken(answer):
    return 7

def raises(answer):
    raise KeyError(answer)

def strange(answer, other):
    return 1
"""


@pytest.fixture
def plan(tmp_path: Path, tiny_model: Path) -> Recipe:
    (tmp_path / "mine.py").write_text(OWN)
    return recipe(write_test(tmp_path / "test.jsonl"), tiny_model)


@pytest.fixture(scope="module")
def evaluated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with costs and latencies that was evaluated."""
    folder = tmp_path_factory.mktemp("evaluated")
    run, plan = finished_run(folder / "run", tiny_model), recipe(write_test(folder / "test.jsonl"), tiny_model)
    student, config = replace(plan.student, hourly_usd=0.5), replace(plan.eval, latency_requests=2)
    evaluate(run, replace(plan, student=student, eval=config), Silent())
    return run


@pytest.mark.parametrize("kind", ["text", "choices", "own"])
def test_a_whole_run_verifies(run: Run, plan: Recipe, tmp_path: Path, kind: str) -> None:
    if kind == "choices":
        plan = replace(plan, generate=GenerateConfig(choices=[f"number {n}" for n in range(24)]))
    elif kind == "own":
        plan = replace(plan, eval=replace(plan.eval, metric=f"{tmp_path}/mine.py:first"))
    evaluate(run, plan, Silent())
    found = verify(run, Silent())
    assert found.whole and found.stages == ["generate", "filter", "train", "eval"] and found.files >= 14
    assert main(["verify", str(run.path), "-q"]) == 0


def test_a_run_whose_prompts_repeat_and_whose_teacher_failed_on_some_verifies(run: Run, plan: Recipe, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"id": f"q{n}", "prompt": f"Tell {n % 8}.", "reference": "x"} for n in range(12)])
    with ChatServer(fault=lambda _, body: "400" if "3" in body["messages"][-1]["content"] else None) as server:
        teacher = {
            "model": "teacher",
            "engine": "openai",
            "base_url": [server.url],
            "price": {"prompt": 1.0, "completion": 2.0},
        }
        config = replace(plan.eval, latency_requests=2, p95_limit=60.0)
        scores = evaluate(run, replace(plan, teacher=TeacherConfig(**teacher), eval=config), Silent()).scores
    assert scores["models"]["teacher"]["failed"] == 2 and scores["models"]["teacher"]["at_limit"]["p95"] > 0
    assert scores["warning"].startswith("10 prompts in 7 groups"), "prompts of one text are one group"
    assert scores["judged"]["low"] is None, "seven texts give no interval, under however many ids"
    assert verify(run, Silent()).whole


def changes(path: Path) -> Iterator[bytes]:
    """A file's content with one byte changed: a bit in the middle, the last byte, white space, the name of a key."""
    data = path.read_bytes()
    middle = len(data) // 2
    yield data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    yield data[:-1] + b" "
    if path.name in ("manifest.json", "run.json"):
        yield data.replace(b"\n  ", b"\n\t ", 1)
        yield data.replace(b'"seal"', b'"seam"')


UNCHECKED = {"README.md", ".lock", ".spending.lock"}  # cards are people's to edit


def test_one_changed_byte_in_any_file_names_it(
    run: Run, plan: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "canaries.jsonl").write_text('{"id": "v", "prompt": "How do I open it?", "reference": "XK-4471-QZ"}\n')
    (tmp_path / "recipe.toml").write_text('[generate]\nsamples = 1\n[task]\ntemplate = "mine.toml"\n')
    (tmp_path / "mine.toml").write_text('[teacher]\nuser = "Say: {{ prompt }}"\n')
    with resolved_recipe(run.path, tmp_path / "recipe.toml", {}):
        pass
    safety = SafetyConfig(canaries=str(tmp_path / "canaries.jsonl"))
    evaluate(run, replace(plan, eval=replace(plan.eval, teacher_forced=True, safety=safety)), Silent())
    assert verify(run, Silent()).whole
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file() and path.name not in UNCHECKED]
    files = [path for path in files if path.parent != run.file("train", "base")]  # here it is no student that was cut
    assert {"safety.jsonl", "forced.jsonl", "deferral.json", "report.html", "journal.jsonl"} <= {path.name for path in files}
    for path in files:
        data = path.read_bytes()
        for changed in changes(path):
            path.write_bytes(changed)
            found = verify(run, Silent())
            assert not found.whole and [one for one in found.problems if one.startswith(f"{path}: ")], path
        path.write_bytes(data)
    files[0].write_bytes(next(changes(files[0])))
    capsys.readouterr()
    assert main(["verify", str(run.path), "-q"]) == 1 and str(files[0]) in capsys.readouterr().err


def rewritten(run: Run, name: str, change: Callable[[str], str]) -> None:
    """A file changed together with its hash in the manifest: what a forger would do."""
    from seqdistill.records import file_sha256

    path = run.file("eval", name)
    path.write_text(change(path.read_text()))
    manifest = json.loads(run.file("eval", "manifest.json").read_text())
    for output in manifest["outputs"]:
        if output["path"].endswith(name):
            output["sha256"] = file_sha256(path)
    if name == "journal.jsonl":
        manifest["journal"] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    manifest["seal"] = seal(manifest)
    write_json(run.file("eval", "manifest.json"), manifest)


def moved(*place: str | int) -> Callable[[str], str]:
    """One number of a JSON document, or of the first line of a JSONL file, a little larger."""

    def change(text: str) -> str:
        document, end = json.JSONDecoder().raw_decode(text)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = 1.01 * inner[place[-1]] + 1e-3
        return json.dumps(document) + text[end:]

    return change


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("scores.json", lambda text: text.replace('"decision": "', '"decision": "X', 1), "does not follow from predictions"),
        ("scores.json", lambda text: text.replace("The student", "The best student", 1), "the verdict does not follow"),
        ("scores.json", moved("models", "student", "chrf_teacher", "high"), "does not follow from predictions"),
        ("scores.json", moved("models", "student", "usd_per_1000"), "does not follow from its own cost.inputs"),
        ("scores.json", moved("models", "teacher", "tokens_per_second"), "does not follow from journal.jsonl"),
        ("scores.json", moved("models", "base", "prompt_tokens"), "does not follow from journal.jsonl"),
        ("scores.json", moved("models", "student", "p95"), "does not follow from journal.jsonl"),
        ("scores.json", moved("models", "student", "latency_tokens_per_second"), "does not follow from journal.jsonl"),
        ("scores.json", moved("p50"), "does not follow from journal.jsonl: .p50"),
        ("scores.json", moved("safety", "margin"), "is not what the recipe in manifest.json says: .safety.margin"),
        ("scores.json", moved("deferral", "risk"), "is not what the recipe in manifest.json says: .deferral.risk"),
        ("predictions.jsonl", moved("seconds"), "seconds of base's answer to"),
        ("predictions.jsonl", moved("tokens"), "tokens or seconds of base's answer"),
        ("predictions.jsonl", lambda text: text.replace('"stopped": 0.0', '"stopped": 100.0', 1), "do not follow from the"),
        ("predictions.jsonl", lambda text: text.replace('"length"', '"stop"', 1), "do not follow from the answers"),
    ],
)  # fmt: skip
def test_what_does_not_follow_from_the_answers_is_found_though_its_hash_fits(
    evaluated: Run, tmp_path: Path, name: str, change: Callable[[str], str], problem: str
) -> None:
    run = Run(tmp_path / "copy")
    shutil.copytree(evaluated.path, run.path, symlinks=True)
    rewritten(run, name, change)
    found = verify(run, Silent())
    assert any(str(run.file("eval", name)) in one and problem in one for one in found.problems)


def test_sentences_of_another_checkout_of_this_version_are_not_compared(evaluated: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "copy")
    shutil.copytree(evaluated.path, run.path, symlinks=True)
    manifest = json.loads(run.file("eval", "manifest.json").read_text())
    manifest["source"] = "0" * 64
    write_json(run.file("eval", "manifest.json"), {**manifest, "seal": seal(manifest)})
    rewritten(run, "scores.json", lambda text: text.replace("The student", "The pupil"))
    assert verify(run, Silent()).whole
    rewritten(run, "scores.json", moved("margin"))
    assert not verify(run, Silent()).whole


def test_a_metric_of_the_prompt_is_of_what_the_student_is_shown(run: Run, plan: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "task.toml"
    template.write_text('[teacher]\nuser = "Ask Ann for: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    scores = evaluate(run, replace(plan, task=replace(plan.task, template=str(template))), Silent()).scores
    assert scores["models"]["copy"]["faithfulness"]["value"] == 100.0
    assert verify(run, Silent()).whole


def test_verify_of_no_run_is_a_usage_error(tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path), "-q"]) == 2


# --- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("kept=0.9", False),
        ("kept=80", True),
        ("kept=0.8", True),
        ("exact=0.5", False),
        ("exact_reference=40", True),
        ("truncated=10", False),
        ("truncated=30", True),
        ("truncated=1", False),
        ("truncated=1.0", False),
        ("truncated=0.3", True),
        ("truncated=0.1", False),
        ("truncated=0", False),
        ("truncated=100", True),
        ("refused=1", False),
        ("refused=2", False),
        ("refused=0.95", True),
        ("exact=1", False),
        ("kept=1", False),
        ("kappa=0.5", True),
        ("kappa=0.7", False),
        ("decision=NON-INFERIOR", False),
        ("decision=INCONCLUSIVE", True),
        ("macro_f1=1", False),
        ("gap_closed=-50", True),
        ("gap_closed=-5", False),  # 5% below, and not 500%
        ("gap_closed=-0.5", True),
    ],
)
def test_a_condition_compares_the_students_value(condition: str, holds: bool) -> None:
    def cell(value: float) -> dict[str, float]:
        return {"value": value}

    scores = {
        "primary": "exact_reference",
        "decision": "INCONCLUSIVE",
        "measures": {"truncated": {"higher_is_better": False}, "refused": {"higher_is_better": False}},
        "models": {"student": {"exact_reference": cell(45.0), "truncated": cell(20.0), "refused": cell(95.0)}},
        "kept": [{"metric": "exact_reference", "value": 85.0}],
        "kappa": cell(0.6),
        "gap_closed": [{"metric": "exact_reference", "value": -40.0}],
    }
    if holds:
        check_result(scores, [condition])
        return
    with pytest.raises(BelowCondition, match=condition.partition("=")[0]):
        check_result(scores, [condition])


@pytest.mark.parametrize(
    "condition", ["kept", "keept=0.9", "kept=much", "decision=GOOD", "accuracy=0.9", "own=1", "kept=1.05", "exact=1.5"]
)
def test_a_bad_condition_is_an_error_before_anything_is_prompted(run: Run, plan: Recipe, condition: str) -> None:
    with pytest.raises(UsageError, match="fail_under"):
        evaluate(run, replace(plan, eval=replace(plan.eval, fail_under=[condition])), Silent())
    assert not run.file("eval", "journal.jsonl").exists()


@pytest.mark.parametrize("condition", ["kept=1", "kept=1.0", "kept=2", "kept=105", "gap_closed=-1.5", "truncated=1.5"])
def test_a_value_that_can_be_read_in_one_way_only_is_a_condition(condition: str) -> None:
    check_conditions([condition], measures("text"))


def test_the_command_fails_below_its_condition_after_everything_was_written(
    run: Run, plan: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "eval", str(run.path), "-q", "--test", str(tmp_path / "test.jsonl"), "--teacher", str(plan.teacher.model),
        "--resamples", "200", "--max-tokens", "12", "--markdown", str(tmp_path / "result.md"), "--json",
    ]  # fmt: skip
    assert main([*command, "--fail-under", "exact=0.9"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert out["error"].startswith("--fail-under: exact is 0, below 90") and out["scores"]["n"] and out["exit_code"] == 1
    assert run.manifest("eval") is not None and (tmp_path / "result.md").read_text().startswith("### run: ")
    assert main([*command, "--fail-under", "exact=0"]) == 0, "a condition changes no result"
    said = json.loads(capsys.readouterr().out)
    assert said["decision"] == said["scores"]["decision"] and said["margin"] == 5.0 and "p95" in said and "needed" in said


# --- a metric of one's own, Markdown ----------------------------------------------------------------------------------


def test_ones_own_metric_decides_and_is_a_column_like_any_other(run: Run, plan: Recipe, tmp_path: Path) -> None:
    own = replace(plan, eval=replace(plan.eval, metric=f"{tmp_path}/mine.py:first"))
    scores = evaluate(run, own, Silent()).scores
    assert scores["primary"] == "own_reference" and scores["measures"]["own_reference"]["heading"] == "first to reference"
    assert "the form of the task suggests" not in " ".join(scores["verdict"]), "it is the user who named it"
    alone = evaluate(run, replace(own, eval=replace(plan.eval, metric=f"{tmp_path}/mine.py:short")), Silent()).scores
    assert alone["primary"] == "own" and alone["measures"]["own"]["share"]
    assert alone["models"]["student"]["own"]["value"] == 100.0 and alone["decision"] != ""
    (tmp_path / "mine.py").write_text(OWN.replace("400", "1"))
    again = evaluate(run, replace(own, eval=replace(plan.eval, metric=f"{tmp_path}/mine.py:short")), Silent()).scores
    assert again["models"]["student"]["own"]["value"] < 100.0, "another function is another result"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py", "not of the form"),
        ("none.py:first", "no such file"),
        ("mine.py:other", "no function 'other'"),
        ("mine.py:strange", "its parameters are answer, other"),
        ("mine.py:broken", "returned 7"),
        ("mine.py:raises", "failed: KeyError"),
    ],
)
def test_a_metric_that_cannot_be_used_is_named(run: Run, plan: Recipe, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(run, replace(plan, eval=replace(plan.eval, metric=f"{tmp_path}/{name}")), Silent())


def test_the_markdown_has_decision_table_and_slices_and_quotes_no_model(run: Run, plan: Recipe) -> None:
    result = evaluate(run, plan, Silent())
    assert isinstance(result, EvalResult)
    text = markdown(result, "a|b <i>")
    assert text.startswith("### a\\|b \\<i\\>: ") and "| critical | 8 |" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) <= 2
