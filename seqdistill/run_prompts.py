"""The prompts of a run: those of [task], and those that were chosen from a pool and are in RUN/generate/pool.jsonl.

pool.jsonl has the chosen rows as they are in their files. picks.jsonl says of each line of it, in the same order, why it was
chosen. Does not choose, and sends nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import FilterConfig, Recipe
from seqdistill.records import Message, Prompt, Sample, fingerprint, read_jsonl
from seqdistill.runs import Run
from seqdistill.tasks.prompt_files import load_prompts, load_rows
from seqdistill.tasks.templates import load_template


@dataclass(frozen=True)
class Pick:
    """Why a prompt was chosen: a line of picks.jsonl. The shares are from 0 to 1, as they were when it was chosen."""

    prompt_id: str
    round: int  # from 1
    by: str  # uncertain | random
    source: str  # the name of the pool's file, or its hub data set
    sha256: str | None  # of that file
    student: str | None  # its identity; None where no student was there to be uncertain
    confidence: float | None
    novelty: float | None  # 1 - cosine to the nearest prompt of the run; None where it was chosen at random


def pool_file(run: Run) -> Path | None:
    """The rows that were chosen from pools; None where there are none."""
    path = run.file("generate", "pool.jsonl")
    return path if path.is_file() else None


def run_prompts(run: Run, recipe: Recipe, progress: Progress, limit: int | None = None) -> list[Prompt]:
    """The prompts of [task], of which `limit` are the first N, and then all that were chosen from pools.

    None of a run whose completions were imported. Raises UsageError as `load_prompts` does.
    """
    if recipe.task.prompts is None:
        return []
    template, columns = load_template(recipe.task.template), recipe.task.columns
    prompts = {prompt.id: prompt for prompt in load_prompts(recipe.task.prompts, template, limit, progress, columns)}
    if (pool := pool_file(run)) is None:
        return list(prompts.values())
    for prompt, _ in load_rows(str(pool), template, None, progress, columns, may_lack=True):
        known = prompts.setdefault(prompt.id, prompt)
        if known.teacher_messages != prompt.teacher_messages:
            raise UsageError(
                f"{pool}: the id {prompt.id!r} is also that of another prompt in {recipe.task.prompts}",
                "give each prompt its own id",
            )
    return list(prompts.values())


def teacher_view(sample: Sample, prompts: Mapping[str, Prompt]) -> list[Message]:
    """A row's prompt as the teacher reads it, with the instructions that the student learns to do without.

    `prompts` are the run's, by id. A prompt that was changed since, as where personal data was masked, is the student's.
    """
    prompt = prompts.get(sample.prompt_id)
    return prompt.teacher_messages if prompt is not None and prompt.messages == sample.prompt else sample.prompt


def view_files(run: Run, recipe: Recipe) -> dict[str, Path]:
    """The files that the teacher's view of a prompt comes from, by name."""
    template = load_template(recipe.task.template).path
    named = {"prompts": recipe.task.prompts, "pool": pool_file(run), "template": template}
    return {name: Path(source) for name, source in named.items() if source and Path(source).exists()}


def is_for_validation(prompt_id: str, group: str | None, config: FilterConfig) -> bool:
    """Whether filter holds a prompt's rows back for validation, those of its group included; drawn by a hash."""
    name = [prompt_id] if group is None else ["group", group]
    return int(fingerprint([config.seed, *name])[:8], 16) < config.validation * 2**32


def picks_of(run: Run) -> list[Pick]:
    """Why each row of pool.jsonl was chosen, in its order."""
    pool, picks = pool_file(run), run.file("generate", "picks.jsonl")
    if pool is None or not picks.is_file():
        return []
    rows = sum(1 for _ in read_jsonl(pool))  # picks.jsonl is written first: of a choice that was killed it has more
    return [Pick(**row) for _, row in read_jsonl(picks)][:rows]


def rounds_of(run: Run) -> list[dict[str, Any]]:
    """Each choice from a pool, for the manifest: by what, from where, with which student, how many."""
    found = []
    for number, picks in groupby(picks_of(run), key=lambda pick: pick.round):
        first, *others = map(asdict, picks)
        about = {name: first[name] for name in ("by", "source", "sha256", "student")}
        found.append({"round": number, **about, "prompts": 1 + len(others)})
    return found
