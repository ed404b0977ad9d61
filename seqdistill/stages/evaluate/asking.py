"""Requests to the contestants that are models, for what the journal lacks.

Teacher and ceiling get the requests that made the training data, with generate's schema, choices and
beams. Base and student are prompted without a form: the student must have learnt to keep to it. Does not score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from seqdistill.engines import Completion, Pace, Request
from seqdistill.errors import Incomplete, SeqdistillError, Stopped
from seqdistill.journal.asking import Asker, answers, failures, missing_requests, run_async
from seqdistill.journal.budget import spending
from seqdistill.journal.repeated import cost_of_repeats
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt, request_seed
from seqdistill.runs import Run
from seqdistill.stages.evaluate.contestants import Contestant, request_order
from seqdistill.stages.evaluate.deferral import has_confidence
from seqdistill.stages.evaluate.latency import Latencies, latencies, measure
from seqdistill.stages.evaluate.safety.items import SafetyItem
from seqdistill.stages.evaluate.safety.items import requests as safety_requests


def max_tokens(recipe: Recipe) -> int:
    """Most new tokens of one answer: eval's own, or else as many as in generate."""
    return recipe.eval.max_tokens or recipe.generate.max_tokens


def ask_all(
    run: Run,
    recipe: Recipe,
    contestants: Sequence[Contestant],
    prompts: Sequence[Prompt],
    progress: Progress,
    recorded: Mapping[str, Completion],
    items: Sequence[SafetyItem],
) -> tuple[dict[str, Completion], dict[str, Latencies]]:
    """Every model contestant's completion of every prompt, by request id, and how long each model takes, by role.

    What the journal has is not requested again. `recorded` are the answers that exist already, `items` what is sent for
    safety beside the prompts. Raises Unreachable where the teacher answered nothing at all.
    """
    completions, timed = dict(recorded), dict[str, Latencies]()
    models = request_order(contestants)
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        sources = [contestant.source for contestant in models]
        with spending(run, journal, sources, recipe.generate.budget, progress) as budget:
            asker = Asker(journal, budget, replace(_pace(recipe), on_note=progress.note))
            for contestant in models:
                timing = requests = _requests(contestant, prompts, recipe, completions)
                if contestant.role == "student":
                    requests = requests + _samples(requests, prompts, recipe)
                if contestant.role == "ceiling":
                    timing = []  # the teacher again
                further = safety_requests(contestant, items, recipe)
                if again := cost_of_repeats(journal, ((contestant.source, request) for request in (*requests, *further))):
                    progress.note(f"eval: {contestant.phrase}: {again}")
                try:
                    failed = run_async(_ask(asker, contestant, requests, further, timing, recipe, progress))
                except (Incomplete, Stopped):
                    raise
                except SeqdistillError as error:
                    if contestant.role == "teacher":
                        raise Unreachable(error) from error
                    raise
                for request, completion in answers(journal, contestant.identity, (*requests, *further), failed):
                    completions[request.id] = completion
                if timing:
                    mine = [completions[request.id] for request in timing]
                    timed[contestant.role] = latencies(journal, contestant.source, timing, recipe.eval, mine)
                if contestant.role == "teacher" and all(request.id in failed for request in requests):
                    first = failed[requests[0].id]
                    raise Unreachable(SeqdistillError(f"{first.error}: {first.message}", "fix the cause and run again"))
    return completions, timed


class Unreachable(Exception):
    """The teacher answered no request; `error` says why."""

    def __init__(self, error: SeqdistillError) -> None:
        super().__init__(error.message)
        self.error = error


def _requests(
    contestant: Contestant, prompts: Sequence[Prompt], recipe: Recipe, completions: Mapping[str, Completion]
) -> list[Request]:
    most = max_tokens(recipe)
    if contestant.role == "base":
        most = min(most, _base_tokens(prompts, completions, most))
    return [
        Request(
            id=f"{prompt.id}:{contestant.role}",
            messages=contestant.messages(prompt),
            max_tokens=most,
            temperature=recipe.eval.temperature,
            seed=request_seed(recipe.eval.seed, prompt.id, contestant.attempt),
            **contestant.asked_with,
            logprobs=0 if contestant.role == "student" and has_confidence(recipe) else None,
        )
        for prompt in prompts
    ]


def _samples(requests: Sequence[Request], prompts: Sequence[Prompt], recipe: Recipe) -> list[Request]:
    """Further samples of the student, at temperature 1, whose agreement is its confidence."""
    seed = recipe.eval.seed
    return [
        replace(
            request,
            id=f"{request.id}:{number}",
            temperature=1.0,
            seed=request_seed(seed, prompt.id, number),
            logprobs=None,
        )
        for request, prompt in zip(requests, prompts, strict=True)
        for number in range(1, recipe.eval.agreement + 1)
    ]


def _base_tokens(prompts: Sequence[Prompt], completions: Mapping[str, Completion], most: int) -> int:
    """How long the untrained student may write: it often never stops. 2 to 4 times the longest answer of the teacher, as a
    power of two, so that a teacher whose answers move a little needs no new requests.
    """
    role = "teacher" if f"{prompts[0].id}:teacher" in completions else "student"
    found = [completions[f"{prompt.id}:{role}"] for prompt in prompts if f"{prompt.id}:{role}" in completions]
    longest = max((one.completion_tokens or len(one.content) // 2 for one in found if one.error is None), default=most)
    return max(16, 1 << (2 * max(longest, 1) - 1).bit_length())


def _pace(recipe: Recipe) -> Pace:
    """Eval's own concurrency, and for the rest what generate may ask of the same endpoint."""
    names = ("timeout", "connect_timeout", "read_timeout", "retries", "requests_per_minute", "tokens_per_minute")
    capped = recipe.generate.budget is not None
    return Pace(concurrency=recipe.eval.concurrency, capped=capped, **{name: getattr(recipe.generate, name) for name in names})


async def _ask(
    asker: Asker,
    contestant: Contestant,
    requests: Sequence[Request],
    further: Sequence[Request],
    timing: Sequence[Request],
    recipe: Recipe,
    progress: Progress,
) -> dict[str, Completion]:
    """Sends one model what the journal lacks, and measures its latency on `timing`; returns the failures by request id.

    `further` requests come in batches of their own, so that they cannot move the answers to the prompts.
    """
    failed: dict[str, Completion] = {}
    async with asker:
        for part, what in ((requests, "answers"), (further, "safety answers")):
            if missing := len(missing_requests(asker.journal, contestant.identity, part)):
                progress.start(f"prompting {contestant.phrase}", missing, what)
                try:
                    failed |= await failures(asker, contestant.source, part, progress.advance)
                finally:
                    progress.end()
        if timing and not all(request.id in failed for request in requests):
            try:
                await measure(asker, contestant.source, timing, recipe.eval, progress)
            except SeqdistillError as error:  # the answers are there: they are scored without it
                progress.note(f"eval: the latency of {contestant.phrase} is not measured: {error.message}")
    return failed
