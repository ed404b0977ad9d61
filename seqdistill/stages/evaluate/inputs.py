"""What the stage works on: test prompts, template, contestants, metrics and settings, checked, with their fingerprint.

Decides what makes the outputs out of date. Sends no requests.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.journal.prices import price_of
from seqdistill.metrics import Measure, default_metric, measures
from seqdistill.metrics.classes import label
from seqdistill.metrics.own import own_metric, split_name
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.remembered import generated_with
from seqdistill.recipe.tables import Recipe, settings
from seqdistill.records import Prompt, is_hub_source, prompt_id
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate import baselines
from seqdistill.stages.evaluate.answers import Scoring
from seqdistill.stages.evaluate.asking import max_tokens
from seqdistill.stages.evaluate.conditions import check_conditions
from seqdistill.stages.evaluate.contestants import Contestant, contestants_of, in_other_batches, student_price
from seqdistill.stages.evaluate.cost import check_costs
from seqdistill.stages.evaluate.forced import check_forced
from seqdistill.stages.evaluate.judging import judge_settings
from seqdistill.stages.evaluate.safety.items import SafetyItem, files_of, items_of
from seqdistill.tasks.answer_form import AnswerForm
from seqdistill.tasks.prompt_files import check_source, load_prompts
from seqdistill.tasks.templates import Template, load_template

NOT_AS_WRITTEN = ("max_tokens", "also", "metric", "labels", "safety.prompts", "safety.canaries")  # paths, or filled in
NAMED = ("prompts", "canaries")  # of [eval.safety]: a file by its name, and its content is an input


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run of the stage. No prompt is read and no model loaded until `prompts`."""

    recipe: Recipe  # its [generate] as the run's answers were requested
    test: str
    template: Template
    scoring: Scoring
    contestants: Sequence[Contestant]
    safety: Sequence[SafetyItem]  # sent beside the test prompts
    record: StageRecord

    @classmethod
    def of(cls, run: Run, recipe: Recipe) -> "Inputs":
        """Raises UsageError without a test set, a teacher or a trained student, and for a bad price, form or metric."""
        recipe, test, scoring = _checked(run, recipe)
        template, contestants = load_template(recipe.task.template), contestants_of(run, recipe, scoring.kind)
        files = {
            "test": None if is_hub_source(test) else Path(test),
            "template": template.path,
            "training data": scoring.training,
            "rejected rows": baselines.rejected_file(run) if recipe.eval.regressions else None,
            "metric": split_name(recipe.eval.metric)[0] if recipe.eval.metric else None,
            **files_of(recipe),
            **{f"answers of {one.role}": one.outputs for one in contestants if one.outputs},
        }
        existing = {name: path for name, path in files.items() if path is not None and path.is_file()}
        record = StageRecord(run, "eval", _settings(recipe, contestants, template), existing)
        return cls(recipe, test, template, scoring, contestants, items_of(recipe, template, scoring.training), record)

    def prompts(self, progress: Progress) -> list[Prompt]:
        """The test prompts, those of the same text in one group. Raises UsageError naming file and line."""
        found = load_prompts(self.test, self.template, self.recipe.eval.limit, progress, self.recipe.task.columns)
        if repeated := len(found) - len({prompt_id(prompt.messages) for prompt in found}):
            progress.note(f"eval: {repeated} test prompts have the text of another; intervals count prompts of one text as one")
        _note_other_labels(found, self.scoring.form.choices, progress)
        return grouped_by_text(found)

    def competing(self, prompts: int) -> list[Contestant]:
        """The contestants as they get this number of prompts."""
        return [in_other_batches(contestant, prompts) for contestant in self.contestants]

    def is_without_teacher(self, contestants: Sequence[Contestant]) -> bool:
        """Whether the configured teacher could not be reached: another run would do better."""
        teacher = next(contestant for contestant in contestants if contestant.role == "teacher")
        return self.recipe.teacher.model is not None and teacher.model is None

    def primary(self, prompts: Sequence[Prompt], contestants: Sequence[Contestant]) -> str:
        """The measure that decides: against the references where every prompt has one, unless the recipe says otherwise.

        Raises UsageError where there is neither a teacher nor a reference to compare with.
        """
        teacher = next(contestant for contestant in contestants if contestant.role == "teacher")
        references = sum(prompt.reference is not None for prompt in prompts)
        if teacher.absent and not references:
            raise UsageError(
                f"there is nothing to compare the student with: {teacher.absent}",
                "name a teacher (--teacher), import its answers (seqdistill import), or add references to the test prompts",
            )
        name = self.recipe.task.primary or default_metric(self.scoring.kind, own=self.recipe.eval.metric is not None)
        if name in [measure.name for measure in self.scoring.measures]:
            return name
        return f"{name}_{'reference' if references == len(prompts) or teacher.absent else 'teacher'}"


def grouped_by_text(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts, each repeat of a text in the group of the others: its answers say little that theirs do not."""
    same: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        same.setdefault(prompt_id(prompt.messages), []).append(prompt)

    def group_of(prompt: Prompt) -> str | None:
        alike = same[prompt_id(prompt.messages)]
        named = (one.group for one in (prompt, *alike) if one.group is not None)
        return next(named, f"prompts like {alike[0].id}" if len(alike) > 1 else None)

    return [replace(prompt, group=group_of(prompt)) for prompt in prompts]


def check(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Raises UsageError for what eval would refuse, before there is a student; notes references that no answer can meet."""
    recipe, test, scoring = _checked(run, recipe)
    template = load_template(recipe.task.template)
    prompts = load_prompts(test, template, recipe.eval.limit, Silent(), recipe.task.columns)
    _note_other_labels(prompts, scoring.form.choices, progress)
    items_of(recipe, template, None)


def _note_other_labels(prompts: Sequence[Prompt], choices: Sequence[str], progress: Progress) -> None:
    others = [one.reference for one in prompts if choices and one.reference and label(one.reference, choices) is None]
    if others:
        other, times = Counter(others).most_common(1)[0]
        progress.note(
            f"eval: the references of {len(others)} of {len(prompts)} test prompts are not in [generate] choices: {other!r} "
            f"{times} times{nearest(other, choices)}; accuracy to reference leaves these prompts out"
        )


def _checked(run: Run, recipe: Recipe) -> tuple[Recipe, str, Scoring]:
    """The recipe as the run's answers were requested, the test set and how it is scored."""
    test = recipe.task.test
    if test is None and not run.path.exists():
        raise UsageError(f"{run.path}: no such run", "check the name; `seqdistill run RUN -c RECIPE` makes one")
    if test is None:
        raise UsageError(
            "no test set is configured",
            "pass the recipe with -c, or name held-out prompts: --test FILE, or test in the recipe's [task]",
        )
    check_source(test)
    if recipe.generate.budget is not None and student_price(recipe) is None:
        raise UsageError(
            "a budget needs the price of the student, which is at an endpoint",
            "add to [student]: price = { prompt = 0.10, completion = 0.40 }, both 0 for a server of your own",
        )
    price_of(recipe.teacher.price)
    recipe = replace(recipe, generate=generated_with(recipe, run.manifest("generate")))
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    form.check()
    kind = form.kind
    own = own_metric(recipe.eval.metric) if recipe.eval.metric else None
    scoring = Scoring(measures(kind, own, recipe.task.primary), form, kind, baselines.training_file(run))
    check_primary(recipe.task.primary, scoring.measures, kind)
    for needs in {measure.metric.needs for measure in scoring.measures if measure.metric.needs}:
        needs()
    check_conditions(recipe.eval.fail_under, scoring.measures)
    judge_settings(recipe)
    check_costs(recipe)
    check_forced(recipe)
    return recipe, test, scoring


def check_primary(primary: str | None, columns: Sequence[Measure], kind: str) -> None:
    """Raises UsageError for a metric that does not apply to this kind of answers."""
    names = [measure.name for measure in columns] + [measure.metric.name for measure in columns if measure.against]
    if primary is not None and primary not in names:
        needs = {"text": "answers that are free text", "choices": "[generate] choices", "schema": "[generate] schema"}
        raise UsageError(
            f"[task] primary = {primary!r}: does not apply to a task with {needs[kind]}",
            f"one of: {', '.join(dict.fromkeys(measure.metric.name for measure in columns if measure.against))}",
        )


def _settings(recipe: Recipe, contestants: Sequence[Contestant], template: Template) -> dict[str, Any]:
    teacher = next(contestant for contestant in contestants if contestant.role == "teacher")  # which always has a row
    form = {"schema": recipe.generate.schema, "choices": recipe.generate.choices, **teacher.asked_with}
    return {
        **{f"eval.{name}": value for name, value in settings(recipe.eval, *NOT_AS_WRITTEN).items()},
        "eval.also": [Path(one).name for one in recipe.eval.also],
        **{
            f"eval.safety.{name}": path if is_hub_source(path) else Path(path).name
            for name in NAMED
            if (path := getattr(recipe.eval.safety, name))
        },
        "eval.metric": recipe.eval.metric and Path(recipe.eval.metric).name,
        "eval.max_tokens": max_tokens(recipe),
        **{f"generate.{name}": value for name, value in form.items() if value},
        **judge_settings(recipe),
        "task.primary": recipe.task.primary,
        "task.test": recipe.task.test if is_hub_source(recipe.task.test) else None,
        "task.template": template.sha256,
        **({"task.columns": recipe.task.columns} if recipe.task.columns else {}),
        "teacher.license": recipe.teacher.license,
        "teacher.price": recipe.teacher.price,
        **{f"{name}.hourly_usd": usd for name in ("teacher", "student", "train") if (usd := getattr(recipe, name).hourly_usd)},
        **({"student.price": recipe.student.price} if recipe.student.price else {}),
        **{f"{contestant.role}.model": contestant.identity for contestant in contestants if contestant.identity},
        **{f"{contestant.role}.engine": contestant.model.engine for contestant in contestants if contestant.model},
    }
