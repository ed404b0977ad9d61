"""Who is asked, and how: base, student, teacher and ceiling, what each is shown, and the asking for what the journal lacks.

The teacher of the proof is the teacher of the training data: it and the ceiling are asked with generate's schema, choices and
beams. Base and student are asked freely, for keeping to the form is what the student must have learnt. Does not score.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Pace, Request, can
from seqdistill.engines.models import identity
from seqdistill.engines.transformers_local import BATCH_SIZE
from seqdistill.errors import UsageError
from seqdistill.journal.asking import Asker, answers, lacking, run_async
from seqdistill.journal.budget import FREE, Price, Source, price_of, spending
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Message, Prompt, request_seed
from seqdistill.runs import Run

CALLED = {
    "base": "the untrained student",
    "student": "the student",
    "teacher": "the teacher",
    "ceiling": "the teacher again",
}


@dataclass(frozen=True)
class Contestant:
    """One asked model: how it is reached, what identifies it, which view of a prompt it is shown, which try this is."""

    role: str
    model: ModelConfig
    identity: str
    view: str
    attempt: int = 0
    asked_with: Mapping[str, Any] = field(default_factory=dict)  # schema, choices, beams: settings of a Request

    price: Price | None = None

    @property
    def source(self) -> Source:
        """The model as it is requested and paid."""
        return Source(self.role, self.identity, self.model, self.price)

    def messages(self, prompt: Prompt) -> list[Message]:
        """A prompt as this model is asked it."""
        return prompt.teacher_messages if self.view == "teacher" else prompt.messages


def contestants_of(run: Run, recipe: Recipe) -> list[Contestant]:
    """The four models. Raises UsageError before train ran and without a teacher."""
    trained = run.need("train", "model")
    base = str((run.manifest("train") or {})["student"]["base"])  # a path is relative to the run
    if (run.path / base).exists():
        base = os.path.normpath(run.path / base)
    teacher = recipe.teacher
    if not teacher.model:
        raise UsageError("no teacher is named", "give --teacher, or model in the recipe's [teacher]")
    student = replace(recipe.student, model=str(trained), revision=None)
    untrained = replace(recipe.student, model=base, revision=None if Path(base).exists() else recipe.student.revision)
    as_in_generate, price = _as_in_generate(recipe), price_of(teacher.price)
    return [
        Contestant("base", untrained, _content(untrained), "student", price=FREE),
        Contestant("student", student, _content(student), "student", price=FREE),
        Contestant("teacher", teacher, identity(teacher), "teacher", 0, as_in_generate, price),
        Contestant("ceiling", teacher, identity(teacher), "teacher", 1, as_in_generate, price),
    ]


def _content(model: ModelConfig) -> str:
    """A student's identity: its files even when a server serves them, or a student trained anew would keep old answers."""
    return identity(replace(model, engine="transformers") if Path(model.model or "").is_dir() else model)


def _as_in_generate(recipe: Recipe) -> dict[str, Any]:
    """What generate asked the teacher with, less what its engine cannot do: imported answers may come from another one."""
    asked = recipe.generate
    wanted: dict[str, Any] = {"schema": asked.schema, "choices": asked.choices}
    if asked.beams > 1 and recipe.eval.temperature == 0:
        wanted["beams"] = asked.beams
    return {name: value for name, value in wanted.items() if value and can(recipe.teacher.engine, name)}


def in_other_batches(contestant: Contestant, prompts: int) -> Contestant:
    """The ceiling as it is asked: in bf16, greedy answers move with the batch they are computed in, and it shows how much."""
    model = contestant.model
    if contestant.role != "ceiling" or model.engine != "transformers":
        return contestant
    rows = prompts * contestant.asked_with.get("beams", 1)
    size = min(int(model.options.get("batch_size", BATCH_SIZE)), rows)
    return replace(contestant, model=replace(model, options={**model.options, "batch_size": max(1, size * 2 // 3)}))


def max_tokens(recipe: Recipe) -> int:
    """Most new tokens of one answer: eval's own, or else as many as in generate."""
    return recipe.eval.max_tokens or recipe.generate.max_tokens


def ask_all(
    run: Run, recipe: Recipe, contestants: Sequence[Contestant], prompts: Sequence[Prompt], progress: Progress
) -> dict[str, Completion]:
    """Every model's completion of every prompt, by request id; what the journal has is not requested again."""
    given: dict[str, Completion] = {}
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        sources = [contestant.source for contestant in contestants]
        with spending(run, journal, sources, recipe.generate.budget) as budget:
            asker = Asker(journal, budget, _pace(recipe))
            for contestant in contestants:
                requests = _requests(contestant, prompts, recipe)
                failed = run_async(_ask(asker, contestant, requests, progress))
                for request, completion in answers(journal, contestant.identity, requests, failed):
                    given[request.id] = completion
    return given


def _requests(contestant: Contestant, prompts: Sequence[Prompt], recipe: Recipe) -> list[Request]:
    return [
        Request(
            id=f"{prompt.id}:{contestant.role}",
            messages=contestant.messages(prompt),
            max_tokens=max_tokens(recipe),
            temperature=recipe.eval.temperature,
            seed=request_seed(recipe.eval.seed, prompt.id, contestant.attempt),
            **contestant.asked_with,
        )
        for prompt in prompts
    ]


def _pace(recipe: Recipe) -> Pace:
    """Eval's own concurrency, and for the rest what generate may ask of the same endpoint."""
    names = ("timeout", "connect_timeout", "read_timeout", "retries", "requests_per_minute", "tokens_per_minute")
    capped = recipe.generate.budget is not None
    return Pace(concurrency=recipe.eval.concurrency, capped=capped, **{name: getattr(recipe.generate, name) for name in names})


async def _ask(asker: Asker, contestant: Contestant, requests: list[Request], progress: Progress) -> dict[str, Completion]:
    """Sends one model what the journal lacks; returns the failures by request id."""
    failed: dict[str, Completion] = {}
    missing = len(lacking(asker.journal, contestant.identity, requests))
    if not missing:
        return failed
    progress.start(f"prompting {CALLED[contestant.role]}", missing, "answers")
    try:
        async with asker, aclosing(asker.ask(contestant.source, requests)) as completions:
            async for completion in completions:
                progress.advance()
                if completion.error is not None:
                    failed[completion.id] = completion
    finally:
        progress.end()
    return failed
