"""Run directories whose eval is done, made from answers that are written down: no model, no request, the real statistics."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.metrics import measures
from seqdistill.metrics.text import chrf_signature
from seqdistill.records import Prompt, write_json, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate.answers import Answer, Scoring
from seqdistill.stages.evaluate.deferral import DeferralTarget, with_cost
from seqdistill.stages.evaluate.scores import found_in
from seqdistill.stages.evaluate.table import Settings, methods
from seqdistill.stages.evaluate.verdict import verdict
from seqdistill.tasks.answer_form import AnswerForm

ROLES = {
    "base": ("base, untrained", "the untrained student"),
    "student": ("student", "the student"),
    "teacher": ("teacher", "the teacher"),
    "ceiling": ("ceiling, teacher again", "the teacher's own second try"),
}
KINDS = ("praise", "complaint", "question")
JUDGE = {
    "name": "judge", "identity": "judge", "engine": "openai", "rubric": "r", "usd": None, "failed": 0, "unreadable": 2,
    "family": "the judge is of the teacher's family", "same": 3, "reason": None, "n": 20, "wins": 8, "ties": 5, "losses": 7,
    "consistency": {"value": 90.0, "low": 70.0, "high": 97.0, "n": 20},
    "win_rate": {"value": 52.5, "low": 35.0, "high": 70.0, "n": 20},
    "length_controlled": {"value": 49.0, "low": 31.0, "high": 66.0, "n": 20},
    "labels": 4, "corrected": {"value": 47.0, "low": 20.0, "high": 71.0, "n": 4}, "not_worse": None, "next_labels": ["p1"],
}  # fmt: skip


LATENCY = {
    "latency_basis": "one request at a time", "latency_requests": 8, "first_token_p50": 0.05, "first_token_p95": 0.11,
    "latency_tokens_per_second": 31.0, "usd_per_right": None, "memory_bytes": 230_000_000,
}  # fmt: skip


def evaluated_run(
    path: Path,
    says: Mapping[str, Callable[[int], str]],
    rows: int = 30,
    *,
    prompt: Callable[[int], str] = lambda n: f"Letter {n}: tell its kind.",
    reference: Callable[[int], str | None] = lambda n: KINDS[n % 3],
    slices: Callable[[int], str | None] = lambda n: ("short", "long")[n % 2],
    choices: tuple[str, ...] = KINDS,
    usd: Mapping[str, float] | None = None,
    judge: Mapping[str, Any] | None = None,
    group: Callable[[int], str | None] = lambda n: None,
    log: list[dict[str, Any]] | None = None,
    resamples: int = 20,
) -> Run:
    """A finished run. `says` gives, by role, each contestant's answer to each prompt."""
    run = Run(path)
    form = AnswerForm({}, choices)
    kind = "choices" if choices else "text"
    scoring = Scoring(measures(kind), form, kind)
    roles = [role for role in ROLES if role in says]
    answers = []
    for n in range(rows):
        message = [{"role": "user", "content": prompt(n)}]
        asked = Prompt(f"p{n}", message, message, reference(n), slices(n), group(n))
        said = {
            role: Completion(f"p{n}:{role}", says[role](n), finish_reason="stop", completion_tokens=5, seconds=0.1 + n % 7 / 20)
            for role in roles
        }
        for role in roles:
            sure = (n * 37 % 100) / 100 if role == "student" else None
            answers.append(Answer(role, asked, message, said[role], scoring.scores(said, role, asked), sure))
    primary = "accuracy_reference" if choices else "chrf_reference"
    settings = Settings(roles, scoring.measures, primary, 5.0, resamples, 0, DeferralTarget(0.9, 0.05, None))
    found = found_in(answers, settings, scoring)
    for role in roles:
        called, phrase = ROLES[role]
        facts = {
            "called": called, "phrase": phrase, "name": f"models/{role}", "identity": f"{role}@1234", "engine": "openai",
            "view": "student", "parameters": 57_000_000 if role in ("base", "student") else 135_000_000,
            "disk_bytes": 113_000_000, "failed": 0, "prompt_tokens": 20 * rows, "completion_tokens": 5 * rows,
            "seconds": 9.0, "tokens_per_second": 40.0 if role == "student" else 10.0, "usd": None,
            "usd_per_1000": (usd or {}).get(role),
            "empty": sum(not says[role](n) for n in range(rows)),
            "speed_basis": "one request's stream at an endpoint",
            **({} if role == "ceiling" else {**LATENCY, "p50": 0.2, "p95": 0.4}),
        }  # fmt: skip
        found["models"][role] = {**facts, **found["models"][role]}
    found["deferral"] = with_cost(found["deferral"], found["models"])
    scores: dict[str, Any] = {
        **found,
        "primary_named": True, "prompts": rows, "teacher_license": None, "temperature": 0.0, "max_tokens": 12,
        "regressions": {"found": 0, "items": []}, "resamples": resamples, "seed": 0,
        "methods": methods(scoring.measures, chrf_signature()),
        "machine": {"processor": "a processor", "cpus": 2, "gpu": None, "system": "Linux"},
        **({"form": {"choices": list(choices)}} if choices else {}),
        **({"judge": dict(judge)} if judge else {}),
    }  # fmt: skip
    scores = {"verdict": verdict(scores), **scores}
    if log is not None:
        train = StageRecord(run, "train", {}, {})
        write_jsonl(run.file("train", "log.jsonl"), log)
        train.finish({"log.jsonl": len(log)}, config={}, student={"base": "train/base", "layers": [0, 1, 2]})
    record = StageRecord(run, "eval", {}, {})
    write_jsonl(run.file("eval", "predictions.jsonl"), (answer.row() for answer in answers))
    write_json(run.file("eval", "scores.json"), scores)
    write_json(run.file("eval", "deferral.json"), scores["deferral"])
    record.finish({"predictions.jsonl": len(answers), "scores.json": None}, config={}, verdict=scores["verdict"])
    return run


def read_scores(run: Run) -> dict[str, Any]:
    """The content of scores.json."""
    loaded: dict[str, Any] = json.loads(run.file("eval", "scores.json").read_text(encoding="utf-8"))
    return loaded


def letters(path: Path, rows: int = 30, **more: Any) -> Run:
    """Letters of three kinds: the teacher errs on every tenth, the student on every fifth, the base is wordy."""
    says = {
        "base": lambda n: "Dear reader,",
        "student": lambda n: KINDS[(n + (n % 5 == 4)) % 3],
        "teacher": lambda n: KINDS[(n + (n % 10 == 9)) % 3],
        "ceiling": lambda n: KINDS[(n + (n % 10 == 9)) % 3],
    }
    return evaluated_run(path, says, rows, **more)
