"""What the stage is given: test prompts, template, models and settings, checked, with the fingerprint they have together.

Decides what makes the outputs out of date. Does not ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.evaluate.asking import Contestant, contestants_of, in_other_batches, max_tokens
from seqdistill.journal.budget import price_of
from seqdistill.progress import Progress
from seqdistill.recipe.remembered import asked_with
from seqdistill.recipe.tables import Recipe, settings
from seqdistill.records import Prompt
from seqdistill.runs import Run, StageRecord
from seqdistill.tasks.answer_form import AnswerForm
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import Template, load_template


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run of the stage. No prompt is read and no model loaded until `prompts`."""

    recipe: Recipe  # its [generate] as the run's answers were asked for
    test: str
    template: Template
    form: AnswerForm
    contestants: Sequence[Contestant]
    record: StageRecord

    @classmethod
    def of(cls, run: Run, recipe: Recipe) -> "Inputs":
        """Raises UsageError without a test set, a teacher or a trained student, and for a bad price or form."""
        test = recipe.task.test
        if test is None:
            raise UsageError(
                "no test set is given", "give held-out prompts with --test FILE, or as test in the recipe's [task]"
            )
        price_of(recipe.teacher.price)  # a wrong one is told now, not after the asking
        recipe = replace(recipe, generate=asked_with(recipe, run.manifest("generate")))
        form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
        form.check()
        template, contestants = load_template(recipe.task.template), contestants_of(run, recipe)
        files = {"test": Path(test) if not test.startswith("hf:") else None, "template": template.path}
        existing = {name: path for name, path in files.items() if path is not None and path.is_file()}
        record = StageRecord(run, "eval", _settings(recipe, contestants, template), existing)
        return cls(recipe, test, template, form, contestants, record)

    def prompts(self, progress: Progress) -> list[Prompt]:
        """The test prompts. Raises UsageError naming file and line."""
        return load_prompts(self.test, self.template, self.recipe.eval.limit, progress, self.recipe.task.columns)

    def asked(self, prompts: int) -> list[Contestant]:
        """The models as they are asked so many prompts."""
        return [in_other_batches(contestant, prompts) for contestant in self.contestants]


def _settings(recipe: Recipe, contestants: Sequence[Contestant], template: Template) -> dict[str, Any]:
    form = {"schema": recipe.generate.schema, "choices": recipe.generate.choices, **contestants[-1].asked_with}
    return {
        **{f"eval.{name}": value for name, value in settings(recipe.eval, "max_tokens").items()},
        "eval.max_tokens": max_tokens(recipe),
        **{f"generate.{name}": value for name, value in form.items() if value},
        "task.primary": recipe.task.primary,
        "task.test": recipe.task.test if ":" in (recipe.task.test or "") else None,
        "task.template": template.sha256,
        **({"task.columns": recipe.task.columns} if recipe.task.columns else {}),
        "teacher.license": recipe.teacher.license,
        "teacher.price": recipe.teacher.price,
        **{f"{contestant.role}.model": contestant.identity for contestant in contestants},
        **{f"{contestant.role}.engine": contestant.model.engine for contestant in contestants},
    }
