"""All texts of a run that its student will read or write: what a vocabulary for the task must hold.

Renders them as the student does. Does not know tokens (vocabulary.py).
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Message, Sample, is_hub_source, read_samples
from seqdistill.runs import Run
from seqdistill.stages.train.rendering import PROBE, Template, Unfit
from seqdistill.tasks.prompt_files import check_source, load_prompts
from seqdistill.tasks.row_files import read_rows
from seqdistill.tasks.templates import load_template

TURNS: list[list[Message]] = [  # what the chat template writes around texts
    PROBE,
    [{"role": "system", "content": "Be brief."}, *PROBE],
    [*PROBE, {"role": "assistant", "content": "yes"}, *PROBE],
]


def text_files(run: Run, recipe: Recipe) -> dict[str, Path]:
    """The files, beside filter's, that a run's texts come from. Raises UsageError where the test set's is not there."""
    written = run.file("generate", "samples.jsonl")
    files = {"samples": written} if written.exists() else {}
    if recipe.task.test is not None:
        check_source(recipe.task.test)
        if not is_hub_source(recipe.task.test):
            files["test"] = Path(recipe.task.test)
    return files


def run_texts(run: Run, recipe: Recipe, template: Template, rows: Iterable[Sample]) -> list[str]:
    """Each text once: the rows, everything that the teacher wrote, rendered by the student's chat template."""
    written = run.file("generate", "samples.jsonl")
    samples = [*rows, *(read_samples(written) if written.exists() else ())]
    return list(dict.fromkeys([*_turns(template), *_rendered(template, samples, recipe.train.trains_reasoning)]))


def test_texts(recipe: Recipe, template: Template, progress: Progress) -> list[str]:
    """The test prompts as the student is prompted with them; none without a test set. Raises UsageError as eval does."""
    if recipe.task.test is None:
        return []
    prompts = load_prompts(recipe.task.test, load_template(recipe.task.template), None, progress, recipe.task.columns)
    return list(dict.fromkeys(_prompts(template, (prompt.messages for prompt in prompts))))


def file_texts(template: Template, prompts: Iterable[list[Message]], file: Path | None) -> list[str]:
    """Each text once: prompts as a chat, and those of a file's rows. A row is a prompt with a completion, or any strings.

    Raises UsageError for a file that cannot be read.
    """
    found = [*_turns(template), *_prompts(template, prompts)]
    for _, row in read_rows(file) if file else ():
        parts = (row.get(name) for name in ("prompt", "completion"))
        turns = [part for part in parts if isinstance(part, list)]
        with contextlib.suppress(Unfit):
            found.append(template.whole_text([message for part in turns for message in part]) if turns else "")
        found += _strings(row)
    if not any(found):
        raise UsageError(f"{file}: no texts in it", 'a row is {"text": "..."}, or one of RUN/filter/train.jsonl')
    return list(dict.fromkeys(found))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _turns(template: Template) -> list[str]:
    return _prompts(template, TURNS)


def _prompts(template: Template, prompts: Iterable[list[Message]]) -> list[str]:
    """The prompts as text, of those that the chat template takes."""
    found = []
    for messages in prompts:
        with contextlib.suppress(Unfit):
            found.append(template.prompt_text(messages))
    return found


def _rendered(template: Template, samples: Iterable[Sample], reasoning: bool) -> Iterator[str]:
    """The texts of the samples that can be rendered; what cannot be is in no row."""
    for sample in samples:
        with contextlib.suppress(Unfit):
            yield from template.texts(sample, reasoning)
