"""What a run will cost, before it is paid: counts, tokens, money and time, from a few real answers with a probe.

Decides which answers are looked at; what follows from them is `extrapolation`'s. The real answers are in the journal: they are
not paid for again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace

from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError
from seqdistill.journal.asking import answer
from seqdistill.journal.budget import spending
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import json_if_whole, write_json
from seqdistill.runs import Run
from seqdistill.stages.generate.asking import ask_teachers
from seqdistill.stages.generate.extrapolation import Estimate, by_teacher, chain_of, extrapolate
from seqdistill.stages.generate.first_answers import CheckFirst, FirstAnswers
from seqdistill.stages.generate.inputs import Inputs
from seqdistill.stages.generate.plan import Planned, repeats
from seqdistill.stages.generate.samples import Counts

MOST_ANSWERS_READ = 1000


def estimate(run: Run, recipe: Recipe, progress: Progress, probe: int = 0, check_first: CheckFirst | None = None) -> Estimate:
    """The estimate; kept beside the samples, so that the run can say how wrong it was.

    With `probe`, that many requests, evenly spread over the plan, are really sent first, within the budget; raises what
    `check_first` says of the first answers.
    """
    inputs = Inputs.of(run, recipe)
    plan = inputs.plan(progress)
    path = run.file("generate", "journal.jsonl")
    with ExitStack() as stack:
        journals = inputs.others(stack)
        if probe:
            stack.enter_context(run.locked("generate"))
        if probe or path.exists():
            journals.insert(0, stack.enter_context(Journal(path, writable=probe > 0)))
        if probe:
            some = _spread([one for one in plan if not _holding(journals, one)], probe)
            _probe(run, journals[0], inputs, some, progress, check_first)
        missing = [one for one in plan if not _holding(journals, one)]
        answered = [one for one in plan if _holding(journals, one)]
        found = [
            chain_of(one, lambda planned: _answer(journals, planned), repeats(recipe.generate))
            for one in _spread(answered, MOST_ANSWERS_READ)
        ]
        first = FirstAnswers(plan, check_first and (lambda _: None))  # which are wanted still, not what is wrong with them
        first.see_known(lambda planned: _answer(journals, planned))
    at_once = [] if first.is_decided else [one.request.id for one in first.trial]
    result = extrapolate(plan, missing, found, recipe.generate, at_once)
    if found and (unknown := by_teacher(plan).keys() - {chain.planned.teacher.name for chain in found}):
        progress.note(
            f"generate: no answer of {', '.join(sorted(unknown))} is known: they are taken to be as long as max_tokens allows"
        )
    with suppress(OSError):  # a run that cannot be written
        write_json(run.file("generate", "estimate.json"), {"fingerprint": inputs.record.fingerprint, **asdict(result)})
    return result


def compare(run: Run, fingerprint: str, counts: Counts, progress: Progress) -> None:
    """Says how far an earlier estimate of this very run was off."""
    estimated = json_if_whole(run.file("generate", "estimate.json"))
    if counts.failed or estimated is None or estimated.get("fingerprint") != fingerprint:
        return
    pairs = [
        ("completion tokens", estimated["completion_tokens"], counts.completion_tokens),
        ("USD", estimated["usd"], counts.usd),
    ]
    errors = [
        f"{was:.6g} {unit} estimated, {now:.6g} used ({abs(was / now - 1):.0%} too {'high' if was > now else 'low'})"
        for unit, was, now in pairs
        if was is not None and now
    ]
    progress.note(f"generate: {'; '.join(errors)}; the estimate was based on {estimated['answers']} answers")


def places(prompts: Collection[str]) -> Callable[[str], tuple[str, int] | None]:
    """Reads a request's id, PROMPT:TEACHER:N: the prompt's id and the sample's number; None for other prompts than these.

    Both names may hold colons: of two prompts that fit, it is the longer one's.
    """

    def place(request_id: str) -> tuple[str, int] | None:
        rest, _, number = request_id.rpartition(":")
        while ":" in rest:
            rest = rest.rpartition(":")[0]
            if rest in prompts:
                return rest, int(number) if number.isdecimal() else -1
        return None

    return place


def _holding(journals: Sequence[Journal], planned: Planned) -> list[Journal]:
    """The journals that answer a request: this run's, and those whose answers are taken with --reuse."""
    return [journal for journal in journals if journal.holds(planned.teacher.identity, planned.request)]


def _answer(journals: Sequence[Journal], planned: Planned) -> Completion | None:
    holding = _holding(journals, planned)
    return answer(holding[0], planned.teacher.identity, planned.request, {}) if holding else None


def _probe(
    run: Run, journal: Journal, inputs: Inputs, some: Sequence[Planned], progress: Progress, check_first: CheckFirst | None
) -> None:
    at_once = replace(inputs.recipe.generate, batch=False)  # a probe is not waited for a day
    with spending(run, journal, inputs.teachers, at_once.budget, progress) as budget:
        outcome = ask_teachers(journal, some, at_once, budget, progress, check_first=check_first)
    if outcome.stopped:
        raise outcome.stopped
    if some and not outcome.new:
        failure = next(iter(outcome.failed.values()))
        raise SeqdistillError(
            f"none of the {len(some)} probe requests was answered: {failure.message}", "fix the cause and try again"
        )


def _spread(plan: Sequence[Planned], count: int) -> list[Planned]:
    """`count` requests of a plan, evenly spread over it; of each teacher its share, and at least one if there are enough."""
    if len(plan) <= count:
        return list(plan)
    of_teachers = by_teacher(plan)
    counts = Counter[str]()
    for _ in range(count):
        counts[max(of_teachers, key=lambda name: (not counts[name], len(of_teachers[name]) / (counts[name] + 1)))] += 1
    return [of[place * len(of) // counts[name]] for name, of in of_teachers.items() for place in range(counts[name])]
