"""Run directories with finished early stages, made without running them: what eval and the cards start from."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqdistill.recipe.tables import EvalConfig, Recipe, StudentConfig, TaskConfig, TeacherConfig
from seqdistill.records import write_json, write_jsonl
from seqdistill.runs import Run, StageRecord


def finished_run(path: Path, model: Path, **teacher: Any) -> Run:
    """A run whose generate, filter and train stages are done; base and student are copies of a model."""
    run = Run(path)
    message = [{"role": "user", "content": "Say something."}]
    sample = {"id": "a:t:0", "prompt_id": "a", "sample": 0, "teacher": "t", "prompt": message, "completion": message}
    generate = StageRecord(run, "generate", {}, {})
    write_jsonl(run.file("generate", "samples.jsonl"), [sample] * 10)
    write_jsonl(run.file("generate", "failures.jsonl"), [{"id": "b", "error": "timeout"}] * 2)
    generate.finish(
        {"samples.jsonl": 10, "failures.jsonl": 2},
        config=asdict(Recipe(teacher=TeacherConfig(**teacher))),
        teacher={
            "name": "the-teacher",
            "engine": "transformers",
            "identity": "the-teacher@1234",
            "license": teacher.get("license"),
        },
        counts={"prompt_tokens": 1_000_000, "completion_tokens": 300_000, "usd": 1.6},
        spent_usd=1.75,
    )
    filtered = StageRecord(run, "filter", {}, {})
    write_jsonl(run.file("filter", "train.jsonl"), [sample] * 6)
    write_jsonl(run.file("filter", "validation.jsonl"), [sample])
    write_jsonl(
        run.file("filter", "rejected.jsonl"), [{**sample, "rule": rule, "reason": "r"} for rule in ("stock", "stock", "cut")]
    )
    outputs = {"train.jsonl": 6, "validation.jsonl": 1, "rejected.jsonl": 3}
    filtered.finish(outputs, config={}, result={"by_rule": {"stock": 2, "cut": 1}})
    train = StageRecord(run, "train", {}, {})
    for folder in ("base", "model"):
        shutil.copytree(model, run.file("train", folder))
    config = run.file("train", "model") / "generation_config.json"
    write_json(config, {**json.loads(config.read_text()), "student": True})  # another model than the base, by its content
    curve = [{"step": step, "loss": 3.0 / step} for step in range(1, 30)] + [{"step": 29, "eval_loss": 0.4}]
    write_jsonl(run.file("train", "log.jsonl"), curve)
    train.finish(
        {"model": None, "log.jsonl": 30},
        config={"train": {"method": "sft", "args": {"learning_rate": 1e-3}}},
        student={"base": "train/base", "parameters": 41_000},
    )
    return run


def recipe(test: Path, model: Path, **settings: Any) -> Recipe:
    """A recipe that evaluates on a test file, with short answers and few resamples."""
    return Recipe(
        task=TaskConfig(test=str(test)),
        teacher=TeacherConfig(model=str(model), license="Apache-2.0"),
        student=StudentConfig(model="shrink:2"),
        eval=EvalConfig(**{"max_tokens": 12, "resamples": 200, "latency_requests": 0, **settings}),
    )
