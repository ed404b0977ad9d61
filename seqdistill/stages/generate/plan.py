"""The plan: every request of a run, in the order of samples.jsonl, from the prompts and the settings.

Decides names, ids, seeds and which teacher answers what. Sends no requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from seqdistill.engines import Completion, Request, check_supported
from seqdistill.engines.models import identity, teacher_name
from seqdistill.engines.options import check_options
from seqdistill.engines.replies import as_dict
from seqdistill.errors import UsageError
from seqdistill.journal.budget import Source
from seqdistill.journal.prices import price_of
from seqdistill.recipe.tables import GenerateConfig, OneOfTeachers, Recipe, TeacherConfig
from seqdistill.records import Prompt, request_seed
from seqdistill.tasks.answer_form import AnswerForm


@dataclass(frozen=True)
class Teacher(Source):
    """One teacher; its name is the one in sample ids."""

    config: TeacherConfig
    weight: float | None = None  # its share of the samples; None: it answers everything


@dataclass(frozen=True)
class Planned:
    """One sample to be had: which prompt's, which number, from whom, and the request for it."""

    prompt: Prompt
    number: int
    teacher: Teacher
    request: Request


def teachers_of(recipe: Recipe) -> list[Teacher]:
    """The teachers of a recipe. Raises UsageError for none, a bad price, a bad schema or too small a retry."""
    config = recipe.generate
    AnswerForm(config.schema, tuple(config.choices)).check()
    if config.beams > 1 and (config.temperature > 0 or config.samples > 1):
        raise UsageError(
            f"beams = {config.beams} with temperature = {config.temperature} and samples = {config.samples}",
            "a beam search gives one answer, without sampling: leave temperature at 0 and samples at 1",
        )
    if config.beams > 1 and config.logprobs is not None:
        raise UsageError(
            "beams and logprobs cannot be combined", "a beam search gives no log-probabilities of its tokens: leave one out"
        )
    if config.samples_per_request > 1 and config.batch:
        raise UsageError(
            "samples_per_request and batch cannot be combined", "a Batch endpoint gets one request a sample: leave one out"
        )
    if config.retry_truncated is not None and config.retry_truncated <= config.max_tokens:
        raise UsageError(
            f"retry_truncated = {config.retry_truncated} is not more than max_tokens = {config.max_tokens}",
            "a truncated answer requested again with the same limit is truncated again",
        )
    if any(not reason.strip() for reason in config.ask_again):
        raise UsageError("ask_again: a finish reason is blank", "for example length, content_filter, or empty")
    teachers = []
    for model in recipe.each_teacher:
        if not model.model:
            raise UsageError("no teacher is configured", "pass --teacher, or set model in the recipe's [teacher]")
        if config.samples_per_request > 1 and model.engine != "openai":
            raise UsageError(
                f"samples_per_request = {config.samples_per_request} with the {model.engine} engine",
                "only the openai engine sends requests; others compute a prompt's samples together anyway",
            )
        check_options(model)
        weight = model.weight if isinstance(model, OneOfTeachers) else None
        teachers.append(Teacher(teacher_name(model), identity(model), model, price_of(model.price), weight))
    names = [teacher.name for teacher in teachers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two teachers are called {twice!r}", "each of [[teachers]] needs a model name of its own")
    return teachers


def plan_requests(prompts: Sequence[Prompt], teachers: Sequence[Teacher], config: GenerateConfig) -> list[Planned]:
    """Each prompt's samples one after the other, in the order of the prompts.

    Each teacher answers each of them; with weights, one teacher does, drawn by a hash of prompt and sample number.
    Raises UsageError for what a teacher's engine cannot do.
    """
    plan = []
    for prompt in prompts:
        for number in range(config.samples):
            seed = request_seed(config.seed, prompt.id, number)
            for teacher in _answering(teachers, config.seed, prompt, number):
                request = Request(
                    id=f"{prompt.id}:{teacher.name}:{number}",
                    messages=prompt.teacher_messages,
                    max_tokens=config.max_tokens,
                    temperature=config.temperature,
                    top_p=config.top_p,
                    seed=seed,
                    schema=config.schema or None,
                    choices=config.choices or None,
                    beams=config.beams,
                    logprobs=config.logprobs,
                )
                check_supported(teacher.config.engine, request)
                plan.append(Planned(prompt, number, teacher, request))
    return plan


def _answering(teachers: Sequence[Teacher], seed: int, prompt: Prompt, number: int) -> Sequence[Teacher]:
    weights = [teacher.weight for teacher in teachers if teacher.weight is not None]
    if not weights:
        return teachers
    drawn = request_seed(seed, f"teacher of {prompt.id}", number) / (1 << 31) * sum(weights)
    for teacher, reached in zip(teachers, accumulate(weights), strict=True):
        if drawn < reached:
            return [teacher]
    return [teachers[-1]]


@dataclass(frozen=True)
class Repeat:
    """A second request for a sample, because of how the first answer came out."""

    applies: Callable[[Completion], bool]
    again: Callable[[Planned], Planned]


def repeats(config: GenerateConfig) -> list[Repeat]:
    """What is requested a second time, in this order: by `ask_again` as it was, by `retry_truncated` with a larger limit."""
    wanted, limit = {reason.lower() for reason in config.ask_again}, config.retry_truncated
    found = []
    if wanted:
        found.append(Repeat(lambda one: bool(wanted & ended_by(one)), lambda planned: _changed(planned, again=1)))
    if limit is not None:
        found.append(Repeat(lambda one: one.finish_reason == "length", lambda planned: _changed(planned, max_tokens=limit)))
    return found


def ended_by(completion: Completion) -> set[str]:
    """How an answer ended: our word, the endpoint's own, and "empty" for one without content; nothing for a failure."""
    if completion.error is not None:
        return set()
    choices = completion.raw.get("choices")
    reported = as_dict(choices[0]).get("finish_reason") if isinstance(choices, list) and choices else None
    reasons = {completion.finish_reason, str(reported).lower()} - {"none"}
    return reasons | ({"empty"} if is_empty(completion) else set())


def is_empty(completion: Completion) -> bool:
    """Whether there is no answer in an answer, only reasoning or nothing, though no filter took it."""
    if completion.finish_reason == "content_filter":
        return False
    return completion.error is None and not completion.content.strip() and not completion.tool_calls


def _changed(planned: Planned, **settings: Any) -> Planned:
    return replace(planned, request=replace(planned.request, **settings))
