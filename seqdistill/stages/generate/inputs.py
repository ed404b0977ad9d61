"""The stage's inputs: prompts, template, teachers and settings, checked, with the fingerprint they have together.

Decides what makes the outputs out of date. Sends no requests.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe, settings
from seqdistill.records import is_hub_source
from seqdistill.rights import terms_settings
from seqdistill.run_prompts import pool_file, run_prompts
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.generate.plan import Planned, Teacher, plan_requests, teachers_of
from seqdistill.tasks.prompt_files import check_columns, check_source
from seqdistill.tasks.templates import load_template


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run of the stage. Nothing big is loaded until `plan`."""

    run: Run
    recipe: Recipe
    teachers: list[Teacher]
    record: StageRecord

    @classmethod
    def of(cls, run: Run, recipe: Recipe) -> "Inputs":
        """Raises UsageError for a missing prompts file, an unknown template, a bad price."""
        source, template = recipe.task.prompts, load_template(recipe.task.template)
        if source is None:
            raise UsageError(
                "no prompts are configured",
                "pass the recipe with -c, or --prompts FILE, or set prompts in its [task]; "
                "answers that exist: `seqdistill import RUN FILE`",
            )
        check_source(source)
        teachers = teachers_of(recipe)
        fixed = {f"generate.{name}": value for name, value in settings(recipe.generate).items()}
        fixed["teachers"] = [
            [teacher.name, teacher.identity, teacher.weight, teacher.config.license, teacher.config.price]
            for teacher in teachers
        ]
        fixed |= terms_settings(recipe)
        if recipe.task.columns:
            check_columns(recipe.task.columns)
            fixed["task.columns"] = recipe.task.columns
        files = {"template": template.path} if template.path else {}
        if is_hub_source(source):
            fixed["task.prompts"] = source
        else:
            files["prompts"] = Path(source)
        if pool := pool_file(run):
            files["pool"] = pool
        return cls(run, recipe, teachers, StageRecord(run, "generate", fixed, files))

    def plan(self, progress: Progress) -> list[Planned]:
        """Loads the prompts; every sample to be had, in the order of samples.jsonl."""
        prompts = run_prompts(self.run, self.recipe, progress, self.recipe.generate.limit)
        return plan_requests(prompts, self.teachers, self.recipe.generate)

    def others(self, stack: ExitStack) -> list[Journal]:
        """The journals of the other runs whose answers are taken. Raises UsageError when there is none."""
        journals = []
        for name in self.recipe.generate.reuse:
            path = Run(Path(name)).file("generate", "journal.jsonl")
            if not path.is_file():
                raise UsageError(f"{path}: no such journal", "--reuse names the directory of a run that has generated")
            journals.append(stack.enter_context(Journal(path, writable=False)))
        return journals
