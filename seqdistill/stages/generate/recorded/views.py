"""The prompt that a recorded answer answers: with the student's view, id, reference and slice where the task knows them.

A log holds what the teacher was sent. Where [task] prompts is there, the prompt whose teacher's view is the same is taken;
else, a template that puts one variable into fixed words is read backwards. Does not read logs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import TaskConfig
from seqdistill.records import Message, Prompt, fingerprint, prompt_id
from seqdistill.stages.generate.recorded.rows import Exchange
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import Template, load_template, render, variables

StudentView = Callable[[list[Message]], list[Message] | None]


@dataclass
class Views:
    """Finds each exchange's prompt, and counts how many were found."""

    by_teacher: dict[str, Prompt]
    by_student: dict[str, Prompt | None]  # None: several prompts have this student's view
    backwards: StudentView | None
    differ: bool  # whether the student's view can differ from what was logged
    matched: int = 0
    first_unmatched: str | None = None  # its place
    unmatched: int = 0

    def prompt_of(self, exchange: Exchange) -> Prompt:
        """The prompt of an exchange. What the row itself says of reference and slice goes before what the prompt says."""
        key = _key(exchange.messages) if self.by_teacher else ""
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
        return replace(known, reference=exchange.reference or known.reference, slice=exchange.slice or known.slice)


def views_of(task: TaskConfig, progress: Progress) -> Views:
    """The views that a task gives. Raises UsageError for a bad template or prompts file."""
    template = load_template(task.template)
    two = template.student != template.teacher
    if task.prompts is None:
        return Views({}, {}, _backwards(template) if two else None, two)
    prompts = load_prompts(task.prompts, template, None, progress, task.columns)
    by_student: dict[str, Prompt | None] = {}
    for prompt in prompts:
        key = _key(prompt.messages)
        by_student[key] = None if key in by_student else prompt
    return Views(
        {_key(prompt.teacher_messages): prompt for prompt in prompts}, by_student, _backwards(template) if two else None, True
    )


def _key(messages: list[Message]) -> str:
    return fingerprint([[message["role"], message["content"].strip()] for message in messages])


def _backwards(template: Template) -> StudentView | None:
    """From the teacher's messages to the student's; None for a template of more than one variable or with logic in it."""
    split, system = _split(template.teacher["user"]), _split(template.teacher.get("system", ""))
    if split is None or split[1] is None or system is None or system[1] is not None:
        return None
    before, name, after = split[0].lstrip(), split[1], split[2].rstrip()
    if variables(template) != {name}:
        return None
    instructions = system[0].strip()

    def student(messages: list[Message]) -> list[Message] | None:
        *earlier, last = messages
        text = last["content"].strip()
        if not text.startswith(before) or not text.endswith(after) or len(text) < len(before) + len(after):
            return None
        value = text[len(before) : len(text) - len(after)]
        if instructions and earlier and earlier[0]["role"] == "system" and earlier[0]["content"].strip() == instructions:
            earlier = earlier[1:]
        if earlier and name != "prompt":
            return None
        row = {name: [*earlier, {"role": "user", "content": value}] if earlier else value}
        try:
            same = _key(render(template, "teacher", row, "log")) == _key(messages)
            return render(template, "student", row, "log") if same else None
        except UsageError:  # an empty view: nothing that this template wrote
            return None

    return student


def _split(text: str) -> tuple[str, str | None, str] | None:
    """(words, variable, words) of a template's text that is no more than that; None for any other."""
    from jinja2 import Environment, nodes

    parts = [part for node in Environment(autoescape=True).parse(text).body for part in getattr(node, "nodes", [None])]
    names = [part for part in parts if isinstance(part, nodes.Name)]
    if len(names) > 1 or not all(isinstance(part, (nodes.Name, nodes.TemplateData)) for part in parts):
        return None
    at = parts.index(names[0]) if names else len(parts)
    before, after = ("".join(part.data for part in some) for some in (parts[:at], parts[at + 1 :]))
    return before, names[0].name if names else None, after
