"""Answers that cost nothing: the prompt's first words, the most frequent class, the nearest training answer.

A student must beat them to be worth its training. Text in, text out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqdistill.likeness import nearest_rows, whole_text
from seqdistill.metrics.classes import label
from seqdistill.records import Message, Prompt, read_jsonl
from seqdistill.runs import Run


@dataclass(frozen=True)
class Texts:
    """What a baseline may look at: the test prompts, the usual length of an answer, and the training data."""

    prompts: Sequence[Prompt]
    characters: int  # mean length of the teacher's answers
    training: Path | None  # train.jsonl
    choices: Sequence[str] = ()


def training_file(run: Run) -> Path | None:
    """The rows that the student learnt from; None where filter left none."""
    path = run.file("filter", "train.jsonl")
    return path if path.is_file() and path.stat().st_size else None


def rejected_file(run: Run) -> Path | None:
    """The rows that filter rejected, with their reasons; None where there are none."""
    path = run.file("filter", "rejected.jsonl")
    return path if path.is_file() and path.stat().st_size else None


def trained_on(training: Path | None, prompts: Iterable[Prompt]) -> int:
    """How many of the test prompts are in the training data too, as the student reads them."""
    asked = {json.dumps(prompt.messages, sort_keys=True) for prompt in prompts}
    rows = (json.dumps(row["prompt"], sort_keys=True) for _, row in read_jsonl(training)) if training else ()
    return len(asked.intersection(rows))


def copies(texts: Texts) -> list[str]:
    """The first words of each prompt, cut to the usual length of an answer."""
    return [copied(_last_user_text(prompt.messages), texts.characters) for prompt in texts.prompts]


def copied(source: str, characters: int) -> str:
    """The source's first words within a number of characters; the source's start where it has no words."""
    source = " ".join(source.split())
    if len(source) <= characters:
        return source
    head = source[: characters + 1]
    return head.rsplit(" ", 1)[0] if " " in head else source[:characters]


def majority(texts: Texts) -> list[str]:
    """The most frequent class for each prompt: of the training answers, or of the references where there are none."""
    answers = [answer for _, answer in _rows(texts.training)] if texts.training else []
    counted = Counter(found for answer in answers if (found := label(answer, texts.choices)))
    counted = counted or Counter(
        found for prompt in texts.prompts if prompt.reference and (found := label(prompt.reference, texts.choices))
    )
    order = {choice: number for number, choice in enumerate(texts.choices)}
    most = min(texts.choices, key=lambda choice: (-counted[choice], order[choice]))
    return [most] * len(texts.prompts)


def nearest(texts: Texts) -> list[str]:
    """The training answer whose prompt is most like the test prompt: cosine of TF-IDF weights of words."""
    assert texts.training is not None
    rows = list(_rows(texts.training))
    closest = nearest_rows([whole_text(prompt.messages) for prompt in texts.prompts], [prompt for prompt, _ in rows])
    return [rows[row][1] for row in closest]


def _rows(training: Path) -> Iterator[tuple[str, str]]:
    """Each training row's prompt and answer."""
    for _, row in read_jsonl(training):
        yield whole_text(row["prompt"]), row["completion"][-1]["content"]


def _last_user_text(messages: Sequence[Message]) -> str:
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")
