"""What student and teacher are shown of a request: the task's template, put around the text where the caller left it out.

Callers send the bare text, or what they sent the teacher before, or what the student was trained on. Each is recognised, and
the view that is missing is made from it. A request with a system message of its own is passed on as it is.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from seqdistill.errors import UsageError
from seqdistill.records import Message, read_json
from seqdistill.tasks.other_view import backwards
from seqdistill.tasks.templates import PLAIN, PROMPT_TEMPLATE, VIEWS, Template, load_template, render


class Views:
    """The two views of one task."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._is_bare = template.teacher == template.student == PLAIN.student
        other = {"teacher": "student", "student": "teacher"}
        found = [(view, other[view], backwards(template, view, other[view])) for view in VIEWS]
        # first the view of more fixed words: what matches it is no coincidence
        by_length = sorted(found, key=lambda one: -sum(map(len, getattr(template, one[0]).values())))
        self._backwards = [(view, wanted, read) for view, wanted, read in by_length if read is not None]

    def of(self, messages: list[Message], values: Mapping[str, str]) -> dict[str, list[Message]]:
        """The messages of each view. `values` are the template's further variables.

        Raises UsageError for a variable that the request lacks.
        """
        if self._is_bare:
            return dict.fromkeys(VIEWS, messages)
        for view, wanted, read in self._backwards:
            if (made := read(messages)) is not None:
                return {view: messages, wanted: made}
        if messages[0]["role"] == "system":
            return dict.fromkeys(VIEWS, messages)
        row = {**values, "prompt": messages if len(messages) > 1 else messages[0]["content"]}
        return {view: render(self._template, view, row, "the request") for view in VIEWS}


def views_of(template: str | None, model: Path) -> Views:
    """The views of a task's template; the student's is the one that it was trained with, where its folder has it.

    Raises UsageError for a bad template.
    """
    loaded, file = load_template(template), model / PROMPT_TEMPLATE
    if file.is_file():
        student = read_json(file, hint := "train again, or copy the model again")
        if "user" not in student:
            raise UsageError(f"{file}: not a student's template", hint)
        loaded = replace(loaded, student=student, teacher=loaded.teacher if template else student)
    return Views(loaded)
