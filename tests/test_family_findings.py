"""What sweep and curve say of finished evals, word and number: from files as eval writes them, with scores made to measure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_runs import sample

from seqdistill.errors import UsageError
from seqdistill.family.ladder import halves
from seqdistill.family.members import Member, with_student
from seqdistill.family.outlook import outlook
from seqdistill.family.parts import applicable, for_part, parts_of
from seqdistill.family.sweep import SweepResult, compare
from seqdistill.recipe.tables import Recipe, StudentConfig, TrainConfig
from seqdistill.records import file_sha256, write_json, write_jsonl
from seqdistill.runs import Run, StageRecord

IDS = [f"p{n}" for n in range(120)]
TEACHER = 90 + np.random.default_rng(0).normal(0, 3, len(IDS))
Gaps = dict[str, Any]  # role -> points that it is worse on each prompt, or on all


def evaluated(run: Run, gaps: Gaps, *, top: str | None = "ceiling", size: int = 1000, failed: int = 0) -> Run:
    """A member's eval: the student and others that are worse than the teacher by these points, and a little at random."""
    scores = {role: TEACHER - gap + np.random.default_rng(len(role)).normal(0, 2, len(IDS)) for role, gap in gaps.items()}
    scores |= {"ceiling": TEACHER, "base": TEACHER - 80}
    for role in scores:
        rows = (
            {"id": name, "model": role, "scores": {"chrf_teacher": scores[role][n]} if n >= failed else None, "group": None}
            for n, name in enumerate(IDS)
        )
        write_jsonl(run.path / f"{role}.part", rows)
    predictions = run.file("eval", "predictions.jsonl")
    predictions.parent.mkdir(parents=True, exist_ok=True)
    predictions.write_text("".join((run.path / f"{role}.part").read_text() for role in scores))
    cells = {role: {"value": float(values.mean()), "low": None, "high": None, "n": len(IDS)} for role, values in scores.items()}
    known = {"parameters": size, "disk_bytes": 4 * size, "tokens_per_second": 9.0, "speed_basis": "here", "usd_per_1000": None}
    write_json(
        run.file("eval", "scores.json"),
        {
            "primary": "chrf_teacher",
            "judged": top and {"other": top},
            "measures": {
                "chrf_teacher": {"heading": "chrF", "phrase": "chrF", "share": False, "higher_is_better": True},
            },
            "margin": 5.0,
            "resamples": 200,
            "seed": 0,
            "prompts": len(IDS),
            "models": {role: {"chrf_teacher": cell, **(known if role == "student" else {})} for role, cell in cells.items()},
            "kept": [{"metric": "chrf_teacher", "of": "ceiling", **cells["student"]}],
            "machine": {"gpu": None, "processor": "a processor"},
        },
    )
    return run


def swept(folder: Path, *students: Gaps, **more: Any) -> dict[str, Any]:
    """A sweep's document; the first student is the smallest."""
    run, members = Run(folder / "run"), []
    for number, gaps in enumerate(students, 1):
        member = evaluated(Run(run.path / "sweep" / f"s{number}"), gaps, size=1000 * number, **more)
        members.append((f"s{number}", Member(f"s{number}", member, Recipe())))
    return compare(run, members)


def test_the_cheapest_that_passes_is_named_and_confirmed(tmp_path: Path) -> None:
    found = swept(tmp_path, {"student": 20.0, "nearest": 60.0}, {"student": 1.0, "nearest": 60.0}, {"student": 0.0})
    assert [one["candidate"] for one in found["candidates"]] == ["nearest", "s1", "s2", "s3"], "the smallest first, each once"
    assert [one["decision"] for one in found["candidates"]] == ["INFERIOR", "INFERIOR", "EQUIVALENT", "EQUIVALENT"]
    assert found["smallest"] == found["cheapest"]["candidate"] == "s2" and found["cheapest"]["confirmed"]
    assert found["verdict"][0].startswith(
        "CONFIRMED: s2 is the cheapest that passes at 5 points, chosen on 60 prompts; on the 60"
    )
    result = SweepResult(found, {}, {})
    assert result.cheapest == "s2" and all(len(row) == len(result.columns) for row in result.rows)


def test_a_student_in_a_form_that_was_proven_is_a_candidate_of_its_size(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    member = evaluated(Run(run.path / "sweep" / "s1"), {"student": 1.0}, size=1000)
    model = member.file("train", "model")
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    scores = {name: float(TEACHER[n] - 1.5 + n % 3 - 1) for n, name in enumerate(IDS)}
    mean = {"value": float(TEACHER.mean() - 1.5), "low": None, "high": None, "n": len(IDS)}
    for form, sha in (("q4_0", file_sha256(model)), ("q8_0", "of an earlier student")):
        folder = member.path / "export" / f"gguf-{form}"
        write_json(folder / "source.json", {"model": sha, "form": f"gguf:{form}"})
        proof = {"primary": "chrf_teacher", "bytes": 700, "models": {"student": {"chrf_teacher": mean}}, "scores": scores}
        write_json(folder / "proof.json", proof)
    found = compare(run, [("s1", Member("s1", member, Recipe()))])
    assert [(one["candidate"], one["disk_bytes"]) for one in found["candidates"]] == [("s1 gguf:q4_0", 700), ("s1", 4000)]
    assert found["cheapest"]["candidate"] == "s1 gguf:q4_0" and found["cheapest"]["confirmed"]


def test_a_baseline_that_passes_is_cheaper_than_any_student(tmp_path: Path) -> None:
    found = swept(tmp_path, {"student": 0.0, "nearest": 1.0})
    assert found["cheapest"]["candidate"] == "nearest" and found["cheapest"]["confirmed"]


def test_where_none_passes_it_says_so_and_whether_more_prompts_would_help(tmp_path: Path) -> None:
    bad = swept(tmp_path / "bad", {"student": 30.0})
    assert bad["cheapest"]["candidate"] is bad["smallest"] is None
    assert bad["verdict"][0].startswith("NONE PASSES") and "more prompts would not change that" in bad["verdict"][0]
    nearly = swept(tmp_path / "nearly", {"student": np.where(np.arange(len(IDS)) % 2, 0.0, 9.4)})
    assert nearly["verdict"][0].startswith("NONE PASSES") and nearly["cheapest"]["needed"] > 0
    assert f"about {nearly['cheapest']['needed']:,} more prompts" in nearly["verdict"][0]


def test_what_passes_only_where_it_was_chosen_is_not_confirmed(tmp_path: Path) -> None:
    gaps = np.full(len(IDS), 6.0)
    gaps[halves(IDS, None)[0]] = 1.0
    found = swept(tmp_path, {"student": gaps})
    assert found["cheapest"]["candidate"] == "s1" and not found["cheapest"]["confirmed"]
    assert found["verdict"][0].startswith("NOT CONFIRMED: s1 is the smallest that passes at 5 points on the 60 prompts")
    assert SweepResult(found, {}, {}).cheapest is None


def test_without_a_second_answer_of_the_teacher_there_is_no_verdict(tmp_path: Path) -> None:
    found = swept(tmp_path, {"student": 1.0}, top=None)
    assert found["candidates"][0]["decision"] == "INCONCLUSIVE" and found["compared_with"] is None
    assert "no student has a verdict" in found["verdict"][0]


def test_a_prompt_that_a_model_did_not_answer_is_in_no_comparison(tmp_path: Path) -> None:
    assert swept(tmp_path, {"student": 1.0}, failed=30)["n"] == 90


@pytest.mark.parametrize("repeats", [-1, 8])
def test_more_repeats_than_there_are_other_eighths_are_refused(repeats: int) -> None:
    with pytest.raises(UsageError, match="7 other eighths"):
        parts_of(repeats)


# --- curve ------------------------------------------------------------------------------------------------------------


def curved(
    folder: Path, truth: tuple[float, float, float], *, repeats: int = 2, usd: float | None = 3.2, off: float = 0.0
) -> dict[str, Any]:
    """A curve's document, of a student whose gap falls as `truth` says, and is `off` by that many points at all rows."""
    run = Run(folder / "run")
    a, b, c = truth
    write_jsonl(run.file("generate", "samples.jsonl"), [])
    StageRecord(run, "generate", {}, {}).finish({"samples.jsonl": 0}, config={}, counts={"usd": usd})
    for name in ("train", "validation"):
        write_jsonl(run.file("filter", f"{name}.jsonl"), [])
    StageRecord(run, "filter", {}, {}).finish({"train.jsonl": 800, "validation.jsonl": 0}, config={})
    members = {}
    for part in (parts := parts_of(repeats)):
        rows = 100 * (part.end - part.first)
        gap = a + b * rows**-c + (off if rows == 800 else 0.0)
        member = evaluated(Run(run.path / "curve" / part.name), {"student": gap})
        write_jsonl(member.file("filter", "train.jsonl"), [])
        StageRecord(member, "filter", {}, {}).finish({"train.jsonl": rows}, config={})
        write_jsonl(member.file("train", "log.jsonl"), [])
        counts = {"rows": 2 * rows, "steps": rows // 8, "epochs": 1.0}  # as many references are mixed in
        StageRecord(member, "train", {}, {}).finish({"log.jsonl": 0}, config={}, counts=counts)
        members[part.name] = Member(part.name, member, Recipe())
    return outlook(run, Recipe(), parts, members)


@pytest.mark.parametrize(
    ("truth", "headline"),
    [
        ((0.0, 40.0, 0.5), "ENOUGH: with its 800 rows"),
        ((0.0, 240.0, 0.5), "MORE ROWS SUFFICE"),
        ((20.0, 400.0, 0.9), "MORE ROWS DO NOT SUFFICE: with any number of them about 2"),
        ((30.0, 0.0, 1.0), "MORE ROWS DO NOT SUFFICE"),
        ((-5.0, 80.0, 0.08), "NOT WITHIN REACH: 1,000 times the rows"),
    ],
)
def test_the_headline_says_whether_more_rows_would_do(tmp_path: Path, truth: Any, headline: str) -> None:
    found = curved(tmp_path, truth)
    assert found["verdict"][0].startswith(headline)
    assert (len(found["points"]), len(found["repeats"])) == (4, 2)
    assert found["half"]["covers"] and "within the interval" in " ".join(found["verdict"])


def test_a_curve_whose_half_does_not_predict_the_whole_promises_nothing(tmp_path: Path) -> None:
    found = curved(tmp_path, (0.0, 240.0, 0.5), off=20.0)
    assert not found["half"]["covers"]
    assert found["verdict"][0].startswith("NOT KNOWN: a fit on half of the rows does not predict")
    assert "OUTSIDE of the interval" in " ".join(found["verdict"])


def test_more_rows_have_their_number_and_price(tmp_path: Path) -> None:
    found = curved(tmp_path, (0.0, 240.0, 0.5))
    even, likely, _ = found["needed"]
    assert even["rows"] == pytest.approx((240 / 5) ** 2, rel=0.25), "the truth: 2,304"
    assert likely["more"] >= even["more"] > 0 and found["usd_per_row"] == 0.004
    assert likely["usd"] == pytest.approx(likely["more"] * 0.004)
    assert f"{likely['more']:,} more ({likely['usd']:,.2f} USD at 0.004 a kept row)" in found["verdict"][0]
    assert [one["rows"] for one in found["outlook"]] == [1600, 3200, 6400, 12800]


def test_without_a_price_or_a_repetition_it_says_what_is_missing(tmp_path: Path) -> None:
    found = curved(tmp_path, (0.0, 240.0, 0.5), repeats=0, usd=None)
    assert found["noise"] is None and found["needed"][0]["usd"] is None
    assert "[teacher] price" in found["verdict"][-1] and "--repeats" in found["verdict"][-2]


@pytest.mark.parametrize(
    ("args", "of_a_quarter"),
    [
        ({"max_steps": 80, "warmup_steps": 40}, {"max_steps": 20, "warmup_steps": 10}),
        ({"warmup_steps": 0.1, "eval_steps": 0.5}, {"warmup_steps": 0.1, "eval_steps": 0.5}),
        ({"eval_steps": 2, "max_steps": -1}, {"eval_steps": 1, "max_steps": -1}),
    ],
)
def test_a_part_s_fewer_steps_have_the_same_shares(tmp_path: Path, args: dict[str, Any], of_a_quarter: dict[str, Any]) -> None:
    recipe = Recipe(train=TrainConfig(args=args))
    whole = Member("all", Run(tmp_path), recipe)
    assert [for_part(recipe, part, whole, []).train.args for part in parts_of(0)[:3:2]] == [args, of_a_quarter]


@pytest.mark.parametrize(
    ("settings", "cut_anew"),
    [({}, True), ({"vocabulary": "task"}, False), ({"width": 0.5}, False), ({"vocabulary": "task", "features": 1.0}, True)],
    ids=str,
)
def test_a_part_begins_with_the_whole_s_student_where_the_rows_decide_what_is_cut(
    tmp_path: Path, settings: dict[str, Any], cut_anew: bool
) -> None:
    recipe = Recipe(student=StudentConfig(model="shrink:2"), train=TrainConfig(**settings))
    found = for_part(recipe, parts_of(0)[1], Member("all", Run(tmp_path), recipe), [])
    base = str(tmp_path / "train" / "base")
    wanted = ("shrink:2", recipe.train.vocabulary) if cut_anew else (base, "all")
    assert (found.student.model, found.train.vocabulary, found.train.width) == (*wanted, 1.0)


def test_what_no_row_of_a_part_has_is_left_out_of_its_recipe() -> None:
    config = TrainConfig(
        teacher_weights={"t": 2.0, "u": 0.5}, reference_weight=0.5, references="replace", rationale="multitask"
    )
    rows = [sample("Shut?", "Yes.", teacher="t"), sample("Open?", "No.", teacher="t", reference="Never.")]
    part = applicable(config, rows)
    assert (part.teacher_weights, part.reference_weight, part.references, part.rationale) == ({"t": 2.0}, 0.5, "replace", "off")
    assert applicable(config, rows[:1]) == TrainConfig(teacher_weights={"t": 2.0})


def test_a_base_model_is_of_the_students_that_are_cut_from_it_alone() -> None:
    def base(own: str, other: str) -> str | None:
        return with_student(Recipe(student=StudentConfig(model=own, base_model="a/b")), other).student.base_model

    assert [base("shrink:8", "shrink:4"), base("x", "x"), base("x", "y"), base("shrink:8", "y")] == ["a/b", "a/b", None, None]
