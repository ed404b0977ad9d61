"""The next prompts for the teacher, from a pool of further ones: where the trained student is unsure, and what is new.

A prompt's worth is (1 - confidence) * novelty. Confidence is the student's in its own greedy answer: exp(mean log-probability
of its tokens). Novelty is 1 - cosine (TF-IDF) to the nearest prompt of the run or of this choice, so that prompts that are
alike are not chosen together. Without a student it is novelty alone. Whether this beats a choice at random depends on the
task; on the demo's it does not (tests/experiments/pool.py). `by = "random"` chooses as many of the same candidates.

Chosen rows are appended to RUN/generate/pool.jsonl, which generate reads beside [task] prompts from then on. Sends the teacher
nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.confidence import confidence_of
from seqdistill.engines import Completion, Request
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.journal.asking import Asker, answers, failures, missing_requests, run_async
from seqdistill.journal.budget import Budget, Source, spending
from seqdistill.journal.storage import Hold, Journal
from seqdistill.likeness import CHUNK, vectors, whole_text
from seqdistill.progress import Progress
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt, file_sha256, is_hub_source, read_jsonl, request_seed, text_without_system, write_jsonl
from seqdistill.rights import check_training_allowed, teachers_in
from seqdistill.run_prompts import Pick, picks_of, pool_file, run_prompts
from seqdistill.runs import Run
from seqdistill.stages.evaluate.asking import max_tokens
from seqdistill.stages.evaluate.contestants import student_of
from seqdistill.stages.filter.checks.contamination import Hit, ItemIndex, templates
from seqdistill.stages.filter.checks.words import words
from seqdistill.stages.filter.stage import test_items
from seqdistill.stages.generate.asking import pace_of
from seqdistill.stages.generate.inputs import Inputs
from seqdistill.stages.generate.plan import Planned, plan_requests, repeats
from seqdistill.tasks.answer_form import AnswerForm
from seqdistill.tasks.other_view import views_key
from seqdistill.tasks.prompt_files import load_rows
from seqdistill.tasks.templates import load_template

WAYS = ("uncertain", "random")
BATCH = 10_000  # texts that are looked through for test items at once

Row = tuple[Prompt, dict[str, Any]]


@dataclass(frozen=True)
class Picked:
    """What was chosen. Means are over the chosen, and over all candidates for comparison; None where they are not known."""

    round: int
    by: str
    prompts: int = 0  # chosen now
    pool: int = 0  # rows of the pool
    prompted: int = 0  # of them, those that are prompts of the run already, or repeat one of the pool
    tested: int = 0  # of them, those that hold a test item
    unanswered: int = 0  # of them, those that the student could not answer
    student: str | None = None  # its identity
    confidence: float | None = None
    confidence_of_all: float | None = None
    novelty: float | None = None
    novelty_of_all: float | None = None
    resumes: bool = False  # nothing is chosen: prompts of an earlier choice have no answers yet and come first


@dataclass(frozen=True)
class Choice:
    """The chosen rows, the best first, and how new each was when it was chosen, by prompt id."""

    rows: list[Row]
    novelty: dict[str, float] = field(default_factory=dict)
    novelty_of_all: float | None = None  # the mean over all candidates


def pick(run: Run, recipe: Recipe, source: str, count: int, by: str, progress: Progress) -> Picked:
    """Chooses the next `count` prompts of a pool, fewer where the budget cannot surely pay them or the pool has no more.

    Chooses nothing while prompts of an earlier choice are without an answer. Raises UsageError where no prompt is left, and
    Incomplete where the budget has no room for one.
    """
    if by not in WAYS:
        raise UsageError(f"--pick {by!r}{nearest(by, WAYS)}", f"one of: {', '.join(WAYS)}")
    if count < 1:
        raise UsageError(f"--next {count}", "how many prompts are to be chosen, from 1")
    check_training_allowed(teachers_in(recipe))
    inputs = Inputs.of(run, recipe)
    rows = load_rows(source, load_template(recipe.task.template), None, progress, recipe.task.columns, may_lack=True)
    with run.locked("generate"):
        earlier = picks_of(run)
        if _is_unanswered(run):
            progress.note(
                "generate: not all prompts of the last choice are answered: these come first, and no more are chosen; run the "
                "same command again for the next"
            )
            return Picked(earlier[-1].round if earlier else 1, by, resumes=True)
        return _pick(inputs, rows, earlier, source, count, by, progress)


def _pick(
    inputs: Inputs, rows: Sequence[Row], earlier: Sequence[Pick], source: str, count: int, by: str, progress: Progress
) -> Picked:
    run, recipe = inputs.run, inputs.recipe
    known = run_prompts(run, recipe, progress, recipe.generate.limit)
    fresh = _not_prompted(rows, known, source)
    candidates = _not_tested(fresh, recipe, progress)
    if not candidates:
        raise UsageError(
            f"{source}: none of its {len(rows)} prompts is left: {len(rows) - len(fresh)} are prompts of the run already, "
            f"{len(fresh)} hold a test item",
            "pass another pool",
        )
    with Journal(run.file("generate", "journal.jsonl")) as journal:
        student = _student(run, recipe, progress) if by == "uncertain" else None
        sources = [*inputs.teachers, *([student] if student else [])]
        with spending(run, journal, sources, recipe.generate.budget, progress, note_spent=False) as budget:
            sure = _confidences(journal, budget, student, candidates, recipe, progress) if student else {}
            answered = [row for row in candidates if student is None or row[0].id in sure]
            if by == "random":
                choice = Choice(_at_random(answered, recipe.generate.seed)[:count])
            else:
                choice = _worth_most(answered, known, sure, count)
            payable = _affordable(inputs, journal, budget, known, [prompt for prompt, _ in choice.rows])
    if not payable:
        raise budget.reached(max(inputs.teachers, key=budget.overrun))
    chosen = choice.rows[:payable]
    if len(chosen) < count:
        why = "the budget cannot surely pay for more" if payable < len(choice.rows) else "the pool has no more"
        progress.note(f"generate: {len(chosen)} of {count} prompts are chosen: {why}")
    number, identity = (earlier[-1].round if earlier else 0) + 1, student.identity if student else None
    name, sha256 = (source, None) if is_hub_source(source) else (Path(source).name, file_sha256(Path(source)))
    picks = [
        Pick(prompt.id, number, by, name, sha256, identity, sure.get(prompt.id), choice.novelty.get(prompt.id))
        for prompt, _ in chosen
    ]
    _append(run, earlier, picks, [row for _, row in chosen])
    return Picked(
        number,
        by,
        prompts=len(chosen),
        pool=len(rows),
        prompted=len(rows) - len(fresh),
        tested=len(fresh) - len(candidates),
        unanswered=len(candidates) - len(answered),
        student=identity,
        confidence=_mean([one.confidence for one in picks]),
        confidence_of_all=_mean([*sure.values()]),
        novelty=_mean([one.novelty for one in picks]),
        novelty_of_all=choice.novelty_of_all,
    )


def _is_unanswered(run: Run) -> bool:
    """Whether pool.jsonl has prompts that generate has not finished."""
    pool, manifest = pool_file(run), run.manifest("generate")
    if pool is None:
        return False
    if manifest is None or manifest["status"] != "complete":
        return True
    return bool(manifest.get("inputs", {}).get("pool", {}).get("sha256") != run.hash_of(pool))


# --- candidates -----------------------------------------------------------------------------------------------------------


def _not_prompted(rows: Sequence[Row], known: Sequence[Prompt], source: str) -> list[Row]:
    """The rows that are no prompts of the run. Raises UsageError for another prompt under the id of one."""
    texts = {prompt.id: views_key(prompt.teacher_messages) for prompt in known}
    seen = set(texts.values())
    found = []
    for prompt, row in rows:
        key = views_key(prompt.teacher_messages)
        if texts.get(prompt.id, key) != key:
            raise UsageError(
                f"{source}: the id {prompt.id!r} is also that of another prompt of the run",
                "give each prompt its own id, or leave ids out: a prompt is then named by its text",
            )
        if key not in seen:
            seen.add(key)
            found.append((prompt, row))
    return found


def _not_tested(rows: list[Row], recipe: Recipe, progress: Progress) -> list[Row]:
    """The rows that hold no item of a test set, as filter looks for them, and are of none of its groups."""
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    items, groups = test_items(recipe, progress)
    index = ItemIndex(items, recipe.filter.contamination, bool(form))
    texts = [text_without_system(prompt.messages) for prompt, _ in rows]
    hits: dict[int, Hit] = {}
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        hits |= {start + hit.row: hit for hit in index.look("prompt", part, words(part))}
    tested = hits.keys() - templates(hits, np.arange(len(rows), dtype=np.uint64), items)
    return [row for number, row in enumerate(rows) if number not in tested and row[0].group not in groups]


# --- the student ------------------------------------------------------------------------------------------------------------


def _student(run: Run, recipe: Recipe, progress: Progress) -> Source | None:
    """The trained student; None where there is none yet."""
    manifest = run.manifest("train")
    if manifest is None or manifest["status"] != "complete" or not run.file("train", "model").exists():
        progress.note("generate: the run has no trained student yet: chosen by novelty alone")
        return None
    return student_of(run, recipe).source


def _confidences(
    journal: Journal, budget: Budget, student: Source, rows: Sequence[Row], recipe: Recipe, progress: Progress
) -> dict[str, float | None]:
    """The student's confidence in its answer, by prompt id; prompts without an answer are left out.

    A confidence is None where its engine reports no log-probabilities. What it answered once is in the journal. Raises
    SeqdistillError where it answered none.
    """
    requests = [
        Request(
            id=f"pool:{prompt.id}:student",
            messages=prompt.messages,
            max_tokens=max_tokens(recipe),
            seed=request_seed(recipe.eval.seed, prompt.id, 0),
            logprobs=0,
        )
        for prompt, _ in rows
    ]
    asker = Asker(journal, budget, replace(pace_of(recipe.generate), on_note=progress.note))
    failed = run_async(_ask(asker, student, requests, progress))
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    found: dict[str, float | None] = {}
    for (prompt, _), (_, completion) in zip(rows, answers(journal, student.identity, requests, failed), strict=True):
        if completion.error is None:
            found[prompt.id] = confidence_of(completion, form)
    if failed:
        first = next(iter(failed.values()))
        text = (
            f"the student has no answer to {len(failed)} of {len(requests)} prompts of the pool: {first.error}: {first.message}"
        )
        if not found:
            raise SeqdistillError(text, "fix the cause and run again, or choose with --pick random")
        progress.note(f"generate: {text}; they are left out")
    if all(sure is None for sure in found.values()):
        progress.note("generate: no log-probabilities of the student's answers are known: chosen by novelty alone")
    return found


async def _ask(asker: Asker, student: Source, requests: Sequence[Request], progress: Progress) -> dict[str, Completion]:
    """Sends the student what the journal lacks; returns the failures by request id."""
    if not (missing := len(missing_requests(asker.journal, student.identity, requests))):
        return {}
    progress.start("prompting the student", missing, "answers")
    try:
        async with asker:
            return await failures(asker, student, requests, progress.advance)
    finally:
        progress.end()


# --- the choice -------------------------------------------------------------------------------------------------------------


def _at_random(rows: Sequence[Row], seed: int) -> list[Row]:
    return sorted(rows, key=lambda row: request_seed(seed, f"pool {row[0].id}", 0))


def _worth_most(rows: Sequence[Row], known: Sequence[Prompt], sure: Mapping[str, float | None], count: int) -> Choice:
    """The prompts worth most. A confidence that is not known counts as 0.

    One by one: what was chosen makes what is like it less new. Of equals the first of the pool is chosen.
    """
    texts = vectors([whole_text(prompt.messages) for prompt in (*known, *(prompt for prompt, _ in rows))])
    old, new = texts[: len(known)].T.tocsr(), texts[len(known) :].tocsr()
    novelty: NDArray[np.float64] = np.ones(len(rows))
    for start in range(0, len(rows) if known else 0, CHUNK):
        part = slice(start, start + CHUNK)
        novelty[part] = _unlike((new[part] @ old).toarray().max(axis=1))
    of_all = round(float(novelty.mean()), 6)
    unsure = np.array([1 - (sure.get(prompt.id) or 0.0) for prompt, _ in rows])
    free, chosen, novelties = np.ones(len(rows), bool), list[Row](), dict[str, float]()
    for _ in range(min(count, len(rows))):
        best = int(np.where(free, unsure * novelty, -1.0).argmax())
        free[best] = False
        chosen.append(rows[best])
        novelties[rows[best][0].id] = round(float(novelty[best]), 6)
        novelty = np.minimum(novelty, _unlike((new @ new[[best]].T).toarray().ravel()))
    return Choice(chosen, novelties, of_all)


def _unlike(cosines: NDArray[Any]) -> NDArray[Any]:
    """1 - cosine, rounded, so that equals are equal whatever the order of the sums."""
    return (1 - cosines).round(12).clip(0, 1)


def _affordable(inputs: Inputs, journal: Journal, budget: Budget, known: Sequence[Prompt], chosen: Sequence[Prompt]) -> int:
    """How many of the chosen prompts the budget surely pays, after what the run's other prompts still need."""
    if not budget.is_capped:
        return len(chosen)
    usd = sum(_bounds(inputs, journal, budget, known))
    for number, prompt in enumerate(chosen):
        usd += sum(_bounds(inputs, journal, budget, [prompt]))
        if not budget.fits(Hold(usd, 0, 0)):
            return number
    return len(chosen)


def _bounds(inputs: Inputs, journal: Journal, budget: Budget, prompts: Sequence[Prompt]) -> Iterator[float]:
    """The upper bound in USD of each request that these prompts still need, a second one for a sample included."""
    config = inputs.recipe.generate
    for planned in plan_requests(prompts, inputs.teachers, config):
        wanted: list[Planned] = [planned, *(repeat.again(planned) for repeat in repeats(config))]
        requests = [one.request for one in wanted if missing_requests(journal, one.teacher.identity, [one.request])]
        yield sum(budget.bound(planned.teacher, [one], batched=config.batch).usd or 0.0 for one in requests)


# --- the files --------------------------------------------------------------------------------------------------------------


def _append(run: Run, earlier: Sequence[Pick], picks: Sequence[Pick], rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds a choice to both files. pool.jsonl is the last: with it the choice is made."""
    pool = run.file("generate", "pool.jsonl")
    write_jsonl(run.file("generate", "picks.jsonl"), map(asdict, (*earlier, *picks)))
    before = [row for _, row in read_jsonl(pool)] if pool.is_file() else []
    write_jsonl(pool, [*before, *map(_plain, rows)])


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any file as JSON has it: what is not a number is null."""
    return dict(json.loads(json.dumps(row, default=str), parse_constant=lambda _: None))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
