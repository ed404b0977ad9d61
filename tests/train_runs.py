"""Runs whose filter stage is done, recipes and listeners: what tests of train start from."""

import hashlib
from pathlib import Path
from typing import Any

import filter_runs

from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.records import Sample
from seqdistill.runs import Run

ARGS = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.02}
WORDS = ("road", "bridge", "library", "market", "school", "pool", "park", "station")
SGD = {**ARGS, "max_steps": 2, "optim": "sgd", "learning_rate": 0.05, "shuffle_dataset": False}


def sample(number: int, answer: str | None = None, **keys: Any) -> Sample:
    word = WORDS[number % len(WORDS)]
    prompt, answer = f"Notice {number}: the {word} is shut. Say it short.", answer or f"The {word} is shut."
    return filter_runs.sample(prompt, answer, id=f"p{number}:t:0", prompt_id=f"p{number}", teacher="t", **keys)


def a_run(folder: Path, rows: list[Sample] | None = None, validation: list[Sample] | None = None) -> Run:
    """A run whose filter stage is done."""
    rows = [sample(n) for n in range(16)] if rows is None else rows
    validation = [sample(n) for n in (20, 21)] if validation is None else validation
    return filter_runs.filtered_run(folder, {"train.jsonl": rows, "validation.jsonl": validation})


def a_recipe(student: Path | str, teacher: str | None = None, args: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=str(student)),
        teacher=TeacherConfig(model=teacher),
        train=TrainConfig(args=ARGS if args is None else args, **{"generations": 0, **settings}),
    )


def trainer_of(run: Run, recipe: Recipe) -> Any:
    """TRL's trainer as train would start it."""
    from seqdistill.stages.train.fit import quiet
    from seqdistill.stages.train.methods import method_of
    from seqdistill.stages.train.ready import make_ready
    from seqdistill.stages.train.student import find_student

    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    with quiet():
        return make_ready(run, recipe, find_student(recipe), method_of(recipe.train), files, Silent()).trainer


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


class Impatient(Listener):
    """Presses Ctrl-C in the middle of a training of 16 steps."""

    def __init__(self, at_step: int) -> None:
        super().__init__()
        self.at_step = at_step

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        super().advance(count, facts)
        if self.total == 16 and self.done == self.at_step:
            raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
