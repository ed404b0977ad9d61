"""Training: a tiny random model really learns, on its completions only, to the end of the turn, resumable at any moment."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model

from seqdistill.config import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.records import Sample, read_jsonl, write_json, write_jsonl
from seqdistill.runs import Run
from seqdistill.train.stage import TrainResult, train

ARGS = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.02}
WORDS = ("road", "bridge", "library", "market", "school", "pool", "park", "station")


def sample(number: int, answer: str | None = None, **more: Any) -> Sample:
    word = WORDS[number % len(WORDS)]
    return Sample(
        id=f"p{number}:t:0",
        prompt_id=f"p{number}",
        sample=0,
        teacher="t",
        prompt=[{"role": "user", "content": f"Notice {number}: the {word} is shut. Say it short."}],
        completion=[{"role": "assistant", "content": f"The {word} is shut." if answer is None else answer}],
        reasoning=more.get("reasoning"),
        finish_reason="stop",
        prompt_tokens=9,
        completion_tokens=5,
        reference=None,
        slice=None,
    )


def a_run(folder: Path, rows: list[Sample] | None = None, validation: list[Sample] | None = None) -> Run:
    """A run whose filter stage is done."""
    run = Run(folder)
    write_jsonl(run.file("filter", "train.jsonl"), [sample(n) for n in range(16)] if rows is None else rows)
    write_jsonl(run.file("filter", "validation.jsonl"), [sample(n) for n in (20, 21)] if validation is None else validation)
    write_json(run.file("filter", "manifest.json"), {"outputs": []})
    return run


def a_recipe(student: Path | str, teacher: str | None = None, args: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=str(student)),
        teacher=TeacherConfig(model=teacher),
        train=TrainConfig(args=ARGS if args is None else args, **settings),
    )


class Listener(Silent):
    """Keeps what the stage says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.facts: list[dict[str, str]] = []
        self.done = self.total = 0

    def start(self, what: str, total: int, unit: str) -> None:
        self.done, self.total = 0, total

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        self.done += count
        self.facts += [facts] if facts else []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TrainResult, Listener]:
    run, listener = a_run(tmp_path_factory.mktemp("run")), Listener()
    return run, train(run, a_recipe(tiny_model), listener), listener


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_training_moves_every_weight_and_lowers_the_loss(trained: tuple[Run, TrainResult, Listener], tiny_model: Path) -> None:
    run, result, _ = trained
    before, after = weights(tiny_model), weights(result.path)
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)
    losses = [row["loss"] for _, row in read_jsonl(run.file("train", "log.jsonl")) if row["loss"] is not None]
    assert len(losses) == result.steps == 16
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert result.train_loss == pytest.approx(sum(losses[-4:]) / 4)


