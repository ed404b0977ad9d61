"""Runs and recipes of the tests of the preflight."""

from pathlib import Path
from typing import Any

import filter_runs

from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.records import Sample
from seqdistill.runs import Run

ARGS = {"max_steps": 2, "per_device_train_batch_size": 2}


def rows(count: int = 4, **keys: Any) -> list[Sample]:
    return [filter_runs.sample(f"Which one is number {n}?", f"Number {n} is it.", **keys) for n in range(count)]


def a_run(folder: Path, train_rows: list[Sample] | None = None) -> Run:
    return filter_runs.filtered_run(folder, {"train.jsonl": train_rows or rows(), "validation.jsonl": rows(1)})


def a_recipe(student: Path | str, args: dict[str, Any] | None = None, teacher: Path | None = None, **settings: Any) -> Recipe:
    own = {name: settings.pop(name) for name in ("chat_template", "chat_template_kwargs") if name in settings}
    return Recipe(
        student=StudentConfig(model=str(student), **own),
        teacher=TeacherConfig(model=str(teacher) if teacher else None),
        train=TrainConfig(args=ARGS if args is None else args, **{"generations": 0, **settings}),
    )
