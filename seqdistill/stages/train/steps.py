"""A student that becomes smaller in steps: cut and trained, then cut from what was trained and trained again.

Each step is a training of its own, in train/steps/N with N its layers, so it is resumed, checked and up to date like any
other. What a step does is `stage`'s matter.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run
from seqdistill.stages.train.student import Student

FOLDER = "steps"
FACTS = ("layers", "vocabulary", "width")  # of a step's student, for the manifest
COUNTS = ("steps", "epochs", "train_loss", "validation_loss", "parameters")  # and of its training


@dataclass(frozen=True)
class StepRun(Run):
    """A run whose train stage is one of several steps; its other stages are the run's own."""

    layers: int

    def file(self, stage: str, name: str) -> Path:
        """The path of one of a stage's files."""
        return self.path / "train" / FOLDER / str(self.layers) / name if stage == "train" else super().file(stage, name)


def layers_of_steps(recipe: Recipe) -> list[int]:
    """The layers after each step, the last one's the student's; empty where there is one step.

    Raises UsageError for steps that do not fall to the student's number of layers.
    """
    text, student = recipe.train.steps, recipe.student.model or ""
    if not text:
        return []
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and int(part) > 0]
    example = "for example --student shrink:8 --steps 20,12,8"
    if len(numbers) < max(2, len(parts)) or numbers != sorted(set(numbers), reverse=True):
        raise UsageError(f"[train] steps = {text!r}: expected falling numbers of layers", example)
    if student != f"shrink:{numbers[-1]}":
        raise UsageError(
            f"[train] steps = {text!r}: the last step has {numbers[-1]} layers, and [student] model is {student!r}", example
        )
    if "," in recipe.train.layers:
        raise UsageError(
            f"[train] layers = {recipe.train.layers!r} with steps: a list is for one step", "use influence or even"
        )
    return numbers


def step_before(run: Run, recipe: Recipe) -> tuple[StepRun, Recipe] | None:
    """The step that this training's student is cut from, as a run and a recipe of its own; None where there is none."""
    numbers = layers_of_steps(recipe)[:-1]
    if not numbers:
        return None
    earlier = ",".join(map(str, numbers)) if len(numbers) > 1 else ""
    student = replace(recipe.student, model=f"shrink:{numbers[-1]}")
    return StepRun(run.path, numbers[-1]), replace(recipe, student=student, train=replace(recipe.train, steps=earlier))


def first_step(run: Run, recipe: Recipe) -> Recipe:
    """The recipe of the first step; the same one where there is one step. Raises UsageError as `layers_of_steps`."""
    before = step_before(run, recipe)
    return recipe if before is None else first_step(run, before[1])


def cut_from(student: Student, step: StepRun) -> Student:
    """The student, to be cut from what a step has trained: its vocabulary and width are cut already."""
    model = step.need("train", "model")
    manifest = step.manifest("train") or {}
    return replace(
        student,
        source=replace(student.source, model=str(model), revision=None),
        identity=f"{student.identity} after {step.hash_of(model)}",
        origins=tuple(manifest["student"]["layers"]),
        vocabulary="all",
        width=1.0,
        cut={name: manifest["student"][name] for name in ("vocabulary", "width") if name in manifest["student"]},
    )


def step_facts(step: StepRun | None) -> list[dict[str, Any]]:
    """What each step up to this one had, for the manifest of the next."""
    if step is None:
        return []
    manifest = step.manifest("train") or {}
    facts = {name: manifest["student"][name] for name in FACTS if name in manifest["student"]}
    return [*manifest.get("steps", []), {**facts, **{name: manifest["counts"].get(name) for name in COUNTS}}]


def remove_other_steps(run: Run, recipe: Recipe) -> None:
    """Removes the students of steps that are not among today's."""
    kept = {str(number) for number in layers_of_steps(recipe)[:-1]}
    for folder in run.file("train", FOLDER).glob("*") if not isinstance(run, StepRun) else ():
        if folder.name not in kept:
            shutil.rmtree(folder)
