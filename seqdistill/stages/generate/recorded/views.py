"""The prompt that a recorded answer answers: with the student's view, id, reference, slice and group where the task knows them.

A log holds what the teacher was sent, a data set what its prompts file holds. Where [task] prompts is there, the prompt whose
teacher's view, student's view or own text is the same is taken; else, a template that puts one variable into fixed words is
read backwards. Does not read logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seqdistill.progress import Progress
from seqdistill.recipe.tables import TaskConfig
from seqdistill.records import Message, Prompt, prompt_id
from seqdistill.stages.generate.recorded.rows import Exchange
from seqdistill.tasks.other_view import OtherView, backwards, views_key
from seqdistill.tasks.prompt_files import load_rows
from seqdistill.tasks.templates import load_template


@dataclass
class Views:
    """Finds each exchange's prompt, and counts how many were found."""

    by_teacher: dict[str, Prompt]
    by_student: dict[str, Prompt | None]  # or by its text in the prompts file; None: several prompts have it
    backwards: OtherView | None
    differ: bool  # whether the student's view can differ from what was logged
    matched: int = 0
    first_unmatched: str | None = None  # its place
    unmatched: int = 0

    def prompt_of(self, exchange: Exchange) -> Prompt:
        """The prompt of an exchange. What the row itself says of reference, slice and group goes first."""
        key = views_key(exchange.messages) if self.by_teacher else ""
        known = self.by_teacher.get(key)
        if known is None and (same := self.by_student.get(key)) is not None:
            known = replace(same, teacher_messages=exchange.messages)
        if known is None and self.backwards and (student := self.backwards(exchange.messages)) is not None:
            known = Prompt(exchange.prompt_id or prompt_id(exchange.messages), exchange.messages, student)
        if known is not None:
            self.matched += 1
        elif self.differ:
            self.unmatched += 1
            self.first_unmatched = self.first_unmatched or exchange.place
        if known is None:
            known = Prompt(exchange.prompt_id or prompt_id(exchange.messages), exchange.messages, exchange.messages)
        own = {key: value for key in ("reference", "slice", "group") if (value := getattr(exchange, key))}
        return replace(known, **own)


def views_of(task: TaskConfig, progress: Progress) -> Views:
    """The views that a task gives. Raises UsageError for a bad template or prompts file."""
    template = load_template(task.template)
    two = template.student != template.teacher
    if task.prompts is None:
        return Views({}, {}, backwards(template, "teacher", "student") if two else None, two)
    rows = load_rows(task.prompts, template, None, progress, task.columns)
    prompts = [prompt for prompt, _ in rows]
    column = task.columns.get("prompt", "prompt")
    texts = [(row[column], prompt) for prompt, row in rows if isinstance(row.get(column), str)]
    by_text = _by_view([([{"role": "user", "content": text}], prompt) for text, prompt in texts])
    by_student = by_text | _by_view([(prompt.messages, prompt) for prompt in prompts])
    return Views(
        {views_key(prompt.teacher_messages): prompt for prompt in prompts},
        by_student,
        backwards(template, "teacher", "student") if two else None,
        True,
    )


def _by_view(views: Sequence[tuple[list[Message], Prompt]]) -> dict[str, Prompt | None]:
    found: dict[str, Prompt | None] = {}
    for messages, prompt in views:
        key = views_key(messages)
        found[key] = None if key in found else prompt
    return found
