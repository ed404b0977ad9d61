"""The asking of those contestants that are models, for what the journal lacks.

The teacher of the proof is the teacher of the training data: it and the ceiling are asked with generate's schema, choices and
beams. Base and student are asked freely, for keeping to the form is what the student must have learnt. Does not score.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from seqdistill.engines import Completion, Engine, Pace, Request, open_engine
from seqdistill.evaluate.contestants import Contestant, in_order_of_asking
from seqdistill.journal.storage import Journal, answers, ask, lacking
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt, request_seed
from seqdistill.runs import Run


def max_tokens(recipe: Recipe) -> int:
    """Most new tokens of one answer: eval's own, or else as many as in generate."""
    return recipe.eval.max_tokens or recipe.generate.max_tokens


def ask_all(
    run: Run, recipe: Recipe, contestants: Sequence[Contestant], prompts: Sequence[Prompt], progress: Progress
) -> dict[str, Completion]:
    """Every asked model's completion of every prompt, by request id; what the journal has is not asked again."""
    given: dict[str, Completion] = {}
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        for contestant in in_order_of_asking(contestants):
            requests = _requests(contestant, prompts, recipe)
            failed = asyncio.run(_ask(journal, contestant, requests, _pace(recipe), progress))
            for request, completion in answers(journal, contestant.identity, requests, failed):
                given[request.id] = completion
    return given


def _requests(contestant: Contestant, prompts: Sequence[Prompt], recipe: Recipe) -> list[Request]:
    return [
        Request(
            id=f"{prompt.id}:{contestant.role}",
            messages=contestant.messages(prompt),
            max_tokens=max_tokens(recipe),
            temperature=recipe.eval.temperature,
            seed=request_seed(recipe.eval.seed, prompt.id, contestant.attempt),
            **contestant.asked_with,
        )
        for prompt in prompts
    ]


def _pace(recipe: Recipe) -> Pace:
    """Eval's own concurrency, and for the rest what generate may ask of the same endpoint."""
    names = ("timeout", "connect_timeout", "read_timeout", "retries", "requests_per_minute", "tokens_per_minute")
    return Pace(concurrency=recipe.eval.concurrency, **{name: getattr(recipe.generate, name) for name in names})


async def _ask(
    journal: Journal, contestant: Contestant, requests: list[Request], pace: Pace, progress: Progress
) -> dict[str, Completion]:
    """Asks one model for what the journal lacks; returns the failures by request id."""
    failed: dict[str, Completion] = {}
    model = contestant.model
    assert model is not None

    def opened() -> Engine:
        progress.start(f"asking {contestant.phrase}", len(lacking(journal, contestant.identity, requests)), "answers")
        return open_engine(model, pace)

    try:
        async with aclosing(ask(journal, contestant.identity, requests, opened)) as completions:
            async for completion in completions:
                progress.advance()
                if completion.error is not None:
                    failed[completion.id] = completion
    finally:
        progress.end()
    return failed
