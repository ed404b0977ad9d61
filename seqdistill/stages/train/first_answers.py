"""What a training needs of the teacher's answers that only answers show: form, reasoning, and log-probabilities of use.

Decided on the first few, before the others are paid for. What recipe, prompts and the student's files show is `early`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.personal_data import hidden
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Sample
from seqdistill.stages.train.fit import quiet
from seqdistill.stages.train.methods.targets import MISSING, NO_LIKELIEST, STALE, TEXTS, why_without
from seqdistill.stages.train.reading import Read, read_student
from seqdistill.stages.train.student import find_student
from seqdistill.tasks.answer_form import AnswerForm

SHOWN = 100  # characters of the first answer
FEWEST = 8  # prompts without an answer of the form: as many show that the endpoint ignores it
KEPT = "nothing more was requested, and what was answered is kept"
WAYS_OUT = {
    MISSING: "the endpoint reports none, although they were requested: use another one",
    TEXTS: "with vLLM's server, set [teacher.options] return_tokens_as_token_ids = true",
    NO_LIKELIEST: "raise [generate] logprobs, or use another endpoint",
    STALE: "use a student of the teacher's family",
}
NO_TARGETS = "or leave [generate] logprobs out, and have a local teacher score the rows with `seqdistill targets` before train"

Answers = Sequence[tuple[Sample, Mapping[str, Any]]]  # each with the raw reply that it was read from


def check_of(recipe: Recipe) -> Callable[[Answers], SeqdistillError | None] | None:
    """The check of the first answers: why none of them can be trained on as the recipe says, or None.

    None in place of the check where the training needs nothing that only answers show.
    """
    config = recipe.train
    checks: list[Callable[[Recipe, Answers], SeqdistillError | None]] = []
    if recipe.filter.schema and (recipe.generate.schema or recipe.generate.choices):
        checks.append(_without_form)
    if recipe.student.model and (config.trains_reasoning or config.rationale == "multitask"):
        checks.append(_without_reasoning)
    if recipe.student.model and config.method == "soft" and recipe.generate.logprobs:
        checks.append(_without_targets)
    if not checks:
        return None
    return lambda answers: next(filter(None, (check(recipe, answers) for check in checks)), None)


def _without_form(recipe: Recipe, answers: Answers) -> SeqdistillError | None:
    """Why filter would keep none: an endpoint may ignore the form. Cut-off answers, and few prompts, show nothing of it."""
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    ended = [sample for sample, _ in answers if sample.finish_reason == "stop"]
    faults = [form.fault(sample.text) for sample in ended]
    if len({sample.prompt_id for sample in ended}) < FEWEST or not all(faults):
        return None
    return SeqdistillError(
        f"[generate] {form.kind}: none of the first {len(ended)} answers of {_teachers(answers)} has the form ({faults[0]}); "
        f"the first is {hidden(ended[0].text)[:SHOWN]!r}",
        "the endpoint may ignore it: name the form in the teacher's instructions too, use another endpoint, or keep such "
        f"answers with [filter] schema = false; {KEPT}",
    )


def _without_reasoning(recipe: Recipe, answers: Answers) -> SeqdistillError | None:
    if any((sample.reasoning or "").strip() for sample, _ in answers):
        return None
    config = recipe.train
    wanted = "reasoning = true" if config.rationale == "off" else f'rationale = "{config.rationale}"'
    return SeqdistillError(
        f"[train] {wanted}, but none of the first {len(answers)} answers of {_teachers(answers)} has reasoning; "
        f"the first is {hidden(answers[0][0].text)[:SHOWN]!r}",
        "switch it on at the teacher, name its markup in [teacher] reasoning_tags, use a teacher that shows its reasoning "
        f"(some endpoints hide it), or leave {wanted.partition(' ')[0]} out; {KEPT}",
    )


def _without_targets(recipe: Recipe, answers: Answers) -> SeqdistillError | None:
    reason = why_without(recipe, _read(recipe), answers)
    if reason is None:
        return None
    return SeqdistillError(
        f"[train] method = 'soft': none of the first {len(answers)} answers of {_teachers(answers)} has targets that can be "
        f"used: {reason}",
        f"{WAYS_OUT.get(reason, 'use another teacher')}; {NO_TARGETS}; or method = 'sequence'; {KEPT}",
    )


def _read(recipe: Recipe) -> Read | None:
    """The student's tokenizer; None where it is not on this machine, or not trained yet."""
    with quiet():
        try:
            return read_student(find_student(recipe), recipe)
        except UsageError:
            return None


def _teachers(answers: Answers) -> str:
    return ", ".join(dict.fromkeys(sample.teacher for sample, _ in answers))
