"""Who is compared: each contestant is a record, and one row of the table.

Three kinds: a model (`model`), answers that exist (`outputs`), a baseline that is computed from texts (`write`).
Adding one is one entry in `contestants_of`. Does not send requests, read answers or score.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import supports
from seqdistill.engines.chat_templates import with_own_template
from seqdistill.engines.models import identity
from seqdistill.engines.transformers_local import BATCH_SIZE
from seqdistill.errors import UsageError
from seqdistill.journal.budget import Source
from seqdistill.journal.prices import FREE, Price, price_of
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Message, Prompt
from seqdistill.runs import Run
from seqdistill.stages.evaluate import baselines

ROLES = ("base", "student", "teacher", "ceiling", "copy", "majority", "nearest")


@dataclass(frozen=True)
class Contestant:
    """One row of the table: how its answers come about, which view of a prompt it is shown, what it is called."""

    role: str  # its key in scores.json and predictions.jsonl
    called: str  # in a table
    phrase: str  # in a sentence
    model: ModelConfig | None = None  # gets requests
    identity: str = ""  # what identifies it, for the fingerprint
    view: str = "student"
    attempt: int = 0
    asked_with: Mapping[str, Any] = field(default_factory=dict)  # schema, choices, beams: settings of a Request
    price: Price | None = FREE
    outputs: Path | None = None  # a file of answers
    write: Callable[[baselines.Texts], list[str]] | None = None  # computes the answers of a baseline
    absent: str | None = None  # why the row is empty

    @property
    def source(self) -> Source:
        """A model contestant as it is requested and paid."""
        assert self.model is not None
        return Source(self.role, self.identity, self.model, self.price)

    def messages(self, prompt: Prompt) -> list[Message]:
        """A prompt as this contestant is shown it."""
        return prompt.teacher_messages if self.view == "teacher" else prompt.messages


def contestants_of(run: Run, recipe: Recipe, kind: str) -> list[Contestant]:
    """The rows of the table, in its order, for a task whose answers are of a kind ("text", "choices" or "schema").

    Without a teacher, its recorded answers are the teacher. Raises UsageError before train ran.
    """
    student, untrained = student_of(run, recipe), untrained_of(run, recipe)
    copy = Contestant("copy", "copy of the prompt", "copying the prompt", write=baselines.copies)
    majority = Contestant("majority", "majority class", "always saying the most frequent class", write=baselines.majority)
    nearest = Contestant("nearest", "nearest training answer", "the nearest training answer", write=baselines.nearest)
    return [
        Contestant("base", "base, untrained", "the untrained student", untrained, _content(untrained), price=student.price),
        student,
        *(_model_teacher(recipe) if recipe.teacher.model else recorded_teacher(run, "no teacher is configured")),
        *({"text": [copy], "choices": [majority]}.get(kind, [])),
        *([nearest] if baselines.training_file(run) else []),
        *_also(recipe),
    ]


def untrained_of(run: Run, recipe: Recipe) -> ModelConfig:
    """The student before it was trained. Raises UsageError where a run was moved away from it, and the recipe has another."""
    trained = (run.manifest("train") or {})["student"]
    base = str(trained["base"])  # a path is relative to the run
    if (run.path / base).exists():
        base = os.path.normpath(run.path / base)
    elif base.startswith(os.pardir):
        named = recipe.student.model
        if (
            not named
            or not Path(named).exists()
            or identity(with_own_template(replace(recipe.student, engine="transformers"))) != trained["identity"]
        ):
            raise UsageError(
                f"{run.path / base}: the untrained student is not there; was the run moved?",
                f"pass the folder of {trained['identity'].partition('@')[0]} with --student",
            )
        base = named
    return replace(recipe.student, model=base, revision=None if Path(base).exists() else recipe.student.revision)


def student_of(run: Run, recipe: Recipe) -> Contestant:
    """The trained student. Raises UsageError before train ran."""
    trained = with_own_template(replace(recipe.student, model=str(run.need("train", "model")), revision=None))
    return Contestant("student", "student", "the student", trained, _content(trained), price=student_price(recipe))


def is_evaluated(run: Run, recipe: Recipe) -> bool | None:
    """Whether eval's numbers are those of the trained student as it is now, by its files; None where one is not there."""
    evaluated = (run.manifest("eval") or {}).get("settings", {}).get("student.model")
    if evaluated is None or run.manifest("train") is None or not run.file("train", "model").is_dir():
        return None
    return _files(evaluated) == _files(student_of(run, recipe).identity)


def _files(student: str) -> str:
    """A trained student's identity without the options that it was loaded with."""
    return student.partition("+")[0]


def _model_teacher(recipe: Recipe) -> list[Contestant]:
    how: dict[str, Any] = {
        "model": recipe.teacher,
        "identity": identity(recipe.teacher),
        "view": "teacher",
        "asked_with": _as_in_generate(recipe),
        "price": price_of(recipe.teacher.price),
    }
    return [
        Contestant("teacher", "teacher", "the teacher", **how),
        Contestant("ceiling", "ceiling, teacher again", "the teacher's own second try", attempt=1, **how),
    ]


def _also(recipe: Recipe) -> list[Contestant]:
    """What [eval] also names: files of outputs, students of other runs, and models that are reached as the student is."""
    found: list[Contestant] = []
    for entry in recipe.eval.also:
        path = Path(entry.removeprefix("run:"))
        role = path.stem if path.suffix == ".jsonl" else path.name
        if role in ROLES or role in [contestant.role for contestant in found]:
            role = entry
        if path.suffix == ".jsonl":
            if not path.is_file():
                raise UsageError(f"[eval] also = {entry!r}: no such file", "pass a file of outputs, or a model")
            found.append(Contestant(role, role, role, outputs=path))
            continue
        name = str(Run(path).need("train", "model")) if entry.startswith("run:") else entry
        model = with_own_template(replace(recipe.student, model=name, revision=None))
        found.append(Contestant(role, role, role, model, _content(model), price=student_price(recipe)))
    return found


def student_price(recipe: Recipe) -> Price | None:
    """What the student's answers cost; None where its endpoint may be paid and no price says. Raises UsageError."""
    return price_of(recipe.student.price, "student") or (None if recipe.student.engine == "openai" else FREE)


def recorded_teacher(run: Run, why: str) -> list[Contestant]:
    """Teacher and ceiling where no teacher can be reached: the answers that the run has, or nothing, and why."""
    path = run.file("generate", "samples.jsonl")
    recorded = Contestant("teacher", "teacher, recorded", "the teacher", view="teacher", identity="recorded", outputs=path)
    nobody = replace(recorded, called="teacher", outputs=None, absent=f"{why}, and no answer is recorded")
    ceiling = "ceiling, teacher again", "the teacher's own second try"
    return [
        recorded if path.is_file() else nobody,
        Contestant("ceiling", *ceiling, view="teacher", absent=f"{why}: there is no teacher to prompt a second time"),
    ]


def _content(model: ModelConfig) -> str:
    """A student's identity: its files even when a server serves them, or a student trained anew would keep old answers."""
    return identity(replace(model, engine="transformers") if Path(model.model or "").is_dir() else model)


def _as_in_generate(recipe: Recipe) -> dict[str, Any]:
    """generate's request settings, less what the teacher's engine cannot do: imported answers may come from another one."""
    generate = recipe.generate
    wanted: dict[str, Any] = {"schema": generate.schema, "choices": generate.choices}
    if generate.beams > 1 and recipe.eval.temperature == 0:
        wanted["beams"] = generate.beams
    return {name: value for name, value in wanted.items() if value and supports(recipe.teacher.engine, name)}


def in_other_batches(contestant: Contestant, prompts: int) -> Contestant:
    """The ceiling's requests: in bf16, greedy answers move with the batch they are computed in, and it shows how much."""
    model = contestant.model
    if contestant.role != "ceiling" or model is None or model.engine != "transformers":
        return contestant
    rows = prompts * contestant.asked_with.get("beams", 1)
    size = min(int(model.options.get("batch_size", BATCH_SIZE)), rows)
    return replace(contestant, model=replace(model, options={**model.options, "batch_size": max(1, size * 2 // 3)}))


def request_order(contestants: Sequence[Contestant]) -> list[Contestant]:
    """The model contestants: endpoints before local work, so that one that cannot be reached costs nothing; the base last."""
    order = {"student": 0, "teacher": 1, "ceiling": 2, "base": 9}
    models = [contestant for contestant in contestants if contestant.model is not None]

    def place(contestant: Contestant) -> tuple[bool, bool, int]:
        local = contestant.model is not None and contestant.model.engine != "openai"
        return contestant.role == "base", local, order.get(contestant.role, 5)

    return sorted(models, key=place)
