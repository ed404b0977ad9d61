"""The judge in eval: student against teacher on each prompt, in both orders, corrected by human labels where there are any.

Owns what the judge is shown, judgements.jsonl and the part "judge" of scores.json. How it is prompted is `judges`', the
numbers are `statistics.preference`'s. A reply that cannot be read is no preference; it is counted and not requested again.

A line of judgements.jsonl, one for each prompt: id; choices, of the reply to each order, the student's answer first and then
second (null: none that can be read); requests, the keys of these replies in journal.jsonl (null: the request failed), none
where both answers are the same; label, a person's choice (null: none).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Pace, Request
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.journal.asking import Asker, run_async
from seqdistill.journal.budget import Source, spending
from seqdistill.journal.prices import Price, known_usd, price_of
from seqdistill.journal.storage import Journal, request_key
from seqdistill.judges import JUDGEMENT, judgements, judging_cap
from seqdistill.judges import judge_settings as settings_of
from seqdistill.progress import Progress
from seqdistill.recipe.tables import JudgeConfig, Recipe
from seqdistill.records import Prompt, conversation_text, file_sha256, read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.statistics.intervals import column, resample
from seqdistill.stages.evaluate.statistics.paired import share_of
from seqdistill.stages.evaluate.statistics.preference import (
    FEWEST_LABELS,
    among_ties,
    corrected_mean,
    corrected_share,
    drawn_over_all,
    groups_at,
    length_controlled,
)
from seqdistill.stages.evaluate.table import cell_of, groups_of
from seqdistill.tasks.rubrics import Rubric, load_rubric

CHOICES = ("first", "second", "tie")
LABELS = {"student": 1.0, "teacher": 0.0, "tie": 0.5}
NEXT = 20  # labels to buy that are named


@dataclass(frozen=True)
class Pair:
    """The two answers to one prompt."""

    student: Answer
    teacher: Answer

    @property
    def is_same(self) -> bool:
        """Whether both say the same: a tie, sent to no judge."""
        return self.student.text == self.teacher.text

    def request(self, rubric: Rubric, config: JudgeConfig, schema: dict[str, Any] | None, *, student_first: bool) -> Request:
        """The request for a judgement in one order."""
        prompt = self.student.prompt
        both = (self.student.text, self.teacher.text)
        first, second = both if student_first else both[::-1]
        name = prompt.id + JUDGEMENT[0 if student_first else 1]
        return Request(name, rubric.messages(_values(prompt, first, second), name), config.max_tokens, schema=schema)


def _values(prompt: Prompt, first: str, second: str) -> dict[str, str | None]:
    """What a rubric for pairs may use."""
    return {"prompt": conversation_text(prompt.messages), "reference": prompt.reference, "first": first, "second": second}


def judge_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides the judgements, for the fingerprint; empty without a judge. Raises UsageError for what cannot work."""
    if not recipe.eval.pairwise:
        if recipe.eval.labels:
            raise UsageError("[eval] labels need the judge they correct", "add pairwise = true to [eval] (--pairwise)")
        return {}
    config, rubric = recipe.judge, _rubric(recipe.judge)
    found = settings_of(config, rubric, "[eval] pairwise")
    if recipe.eval.labels:
        read_labels(Path(recipe.eval.labels))
        found["judge.labels"] = file_sha256(Path(recipe.eval.labels))
    return found


def _rubric(config: JudgeConfig) -> Rubric:
    """The recipe's rubric where it is for pairs, or else the shipped one."""
    rubric = load_rubric(config.rubric)
    if rubric.scale is not None:
        return load_rubric("pairwise")
    if set(rubric.choices) != set(CHOICES):
        raise UsageError(
            f"{rubric.path}: choices = {list(rubric.choices)!r}: not those of two answers",
            'choices = ["first", "second", "tie"]',
        )
    return rubric


def read_labels(path: Path) -> dict[str, float]:
    """People's preferences by prompt id: 1 for the student, 0 for the teacher. Raises UsageError naming file and line."""
    if not path.is_file():
        raise UsageError(f"[eval] labels = {str(path)!r}: no such file", 'a line is {"id": prompt id, "choice": "student"}')
    found: dict[str, float] = {}
    for place, row in read_jsonl(path):
        name, choice = row.get("id"), row.get("choice")
        if not isinstance(name, str) or choice not in LABELS:
            raise UsageError(
                f"{place}: id = {name!r}, choice = {choice!r}: not a label", f"choice is one of: {', '.join(LABELS)}; id a text"
            )
        if name in found:
            raise UsageError(f"{place}: id = {name!r} is labelled twice", "keep one line for each prompt")
        found[name] = LABELS[choice]
    return found


def check_rubric(recipe: Recipe, prompts: Sequence[Prompt]) -> None:
    """Raises UsageError, before anything is paid, for a prompt that lacks what the rubric for pairs uses of it."""
    if recipe.eval.pairwise:
        rubric = _rubric(recipe.judge)
        for prompt in prompts:
            rubric.messages(_values(prompt, "an answer", "another"), f"test prompt {prompt.id!r}")


def labels_of(recipe: Recipe, prompts: Sequence[Prompt]) -> dict[str, float]:
    """The labels of these prompts. Raises UsageError, before anything is paid, where none of the file is of them."""
    if not recipe.eval.labels:
        return {}
    ids = {prompt.id for prompt in prompts}
    labels = read_labels(Path(recipe.eval.labels))
    found = {name: value for name, value in labels.items() if name in ids}
    if not found:
        raise UsageError(
            f"[eval] labels = {recipe.eval.labels!r}: none of its {len(labels)} ids is a test prompt's",
            "take the ids from eval/predictions.jsonl",
        )
    return found


def pairs_of(answers: Sequence[Answer]) -> list[Pair]:
    """The pairs to judge: none without answers of the teacher."""
    by_role = {
        role: [one for one in answers if one.model == role and one.scores is not None] for role in ("student", "teacher")
    }
    return [Pair(*both) for both in zip(by_role["student"], by_role["teacher"], strict=False)]


def judge_pairs(
    run: Run, recipe: Recipe, scored: Sequence[Answer], labels: Mapping[str, float], progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The part "judge" of scores.json, and the lines of judgements.jsonl. What the journal has is not requested again.

    Raises Incomplete when the budget is reached or requests failed, and SeqdistillError when the judge cannot be read.
    """
    config, rubric = recipe.judge, _rubric(recipe.judge)
    pairs = pairs_of(scored)
    differing = [pair for pair in pairs if not pair.is_same]
    if not pairs:
        return {"reason": "there are no answers of the teacher to compare with"}, []
    source = Source(f"judge {config.model}", identity(config), config, price_of(config.price, "judge"))
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        own = judging_cap(run, journal, config)
        with spending(run, journal, [source], recipe.generate.budget, progress, own_cap=own) as budget:
            asker = Asker(journal, budget, Pace(config.concurrency, on_note=progress.note, capped=budget.is_capped))
            progress.start("prompting the judge", 2 * len(differing), "answers")
            try:
                replies = run_async(_ask(asker, source, config, rubric, differing, progress))
            finally:
                progress.end()
    of_pairs = iter(zip(replies[::2], replies[1::2], strict=True))
    rows = [_row(pair, () if pair.is_same else next(of_pairs), rubric, source.identity, labels) for pair in pairs]
    if family := _family(recipe):
        progress.note(f"eval: {family}")
    facts = {
        "name": Path(config.model or "").name,
        "identity": source.identity,
        "engine": config.engine,
        "rubric": rubric.sha256,
        "price": None if source.price is None else source.price.as_json(),
        "family": family,
    }
    return {**facts, **numbers_of(pairs, rows, [reply for _, reply in replies if reply.error is None], source.price)}, rows


def _row(
    pair: Pair, replies: Sequence[tuple[Request, Completion]], rubric: Rubric, judge: str, labels: Mapping[str, float]
) -> dict[str, Any]:
    """A line of judgements.jsonl."""
    name = pair.student.prompt.id
    return {
        "id": name,
        "choices": [None if reply.error else rubric.read(reply.content) for _, reply in replies],
        "requests": [None if reply.error else request_key(request, judge) for request, reply in replies],
        "label": next((choice for choice, value in LABELS.items() if labels.get(name) == value), None),
    }


def numbers_of(
    pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]], replies: Sequence[Completion], price: Price | None
) -> dict[str, Any]:
    """What follows from the lines of judgements.jsonl, one for each pair, and from what the replies to them cost."""
    labels = {row["id"]: LABELS[row["label"]] for row in rows if row["label"] is not None}
    choices = [row["choices"] if row["requests"] else ("tie", "tie") for row in rows]
    said = [both for row in rows for both in zip(row["choices"], row["requests"], strict=True)]
    usd = known_usd(price, replies) if replies or price is None else 0.0
    return {
        "usd": None if usd is None else round(usd, 6),
        "failed": sum(key is None for _, key in said),
        "unreadable": sum(choice is None and key is not None for choice, key in said),
        "same": sum(not row["requests"] for row in rows),
        **found_by(pairs, choices, labels),
    }


async def _ask(
    asker: Asker, source: Source, config: JudgeConfig, rubric: Rubric, pairs: Sequence[Pair], progress: Progress
) -> list[tuple[Request, Completion]]:
    """Two requests a pair with their replies, the student first in the first of them."""
    found: list[tuple[Request, Completion]] = []

    def requests_of(pair: Pair, schema: dict[str, Any] | None) -> list[Request]:
        return [pair.request(rubric, config, schema, student_first=first) for first in (True, False)]

    async with aclosing(judgements(asker, source, config, rubric, pairs, requests_of)) as parts:
        async for part in parts:
            found += part.replies
            progress.advance(len(part.replies))
    return found


# --- what it found ----------------------------------------------------------------------------------------------------


def found_by(
    pairs: Sequence[Pair], choices: Sequence[Sequence[int | str | None]], labels: Mapping[str, float]
) -> dict[str, Any]:
    """The rates, in percent, from the choices in both orders (the student first, then second), by pair."""
    import numpy as np

    judged = [(pair, both) for pair, both in zip(pairs, choices, strict=True) if None not in both]
    if not judged:
        return {"reason": "no reply of the judge could be read", "n": 0}
    said = [(_preference(a, "first", "second"), _preference(b, "second", "first")) for _, (a, b) in judged]
    preferences = np.array([a if a == b else 0.5 for a, b in said])
    agree = np.array([a == b for a, b in said])
    shown = np.array([not pair.is_same for pair, _ in judged])  # to the judge: two answers that are the same are a tie unseen
    mine = [pair.student for pair, _ in judged]
    lengths = np.array([[float(len(pair.student.text)), float(len(pair.teacher.text))] for pair, _ in judged])
    n, groups = len(judged), groups_of(mine)
    raw = resample(100 * preferences[:, None], 2000, 0, groups).interval(column(0))
    known = np.array([labels.get(one.prompt.id, np.nan) for one in mine])
    strata = [int(one) for one in agree]
    return {
        "reason": None,
        "n": n,
        "wins": int((preferences == 1).sum()),
        "ties": int((preferences == 0.5).sum()),
        "losses": int((preferences == 0).sum()),
        "consistency": cell_of(share_of(agree[shown], groups_at(groups, shown)) if shown.any() else None, int(shown.sum())),
        "win_rate": cell_of(raw, n),
        "length_controlled": cell_of(length_controlled(preferences, lengths[:, 0], lengths[:, 1], groups), n),
        **(_by_labels(known, preferences, strata, shown, groups) if labels else {"labels": 0}),
        "next_labels": next_labels(
            [one.prompt.id for one, is_shown in zip(mine, shown, strict=True) if is_shown],
            (~np.isnan(known[shown])).tolist(),
            agree[shown].tolist(),
        ),
    }


def _preference(choice: int | str | None, student: str, teacher: str) -> float:
    return {student: 1.0, teacher: 0.0}.get(str(choice), 0.5)


def _by_labels(known: Any, preferences: Any, strata: Sequence[int], shown: Any, groups: Sequence[str] | None) -> dict[str, Any]:
    """What people's labels make of it: the win rate, and the share of prompts on which the student is not worse.

    Corrected are the pairs that the judge was shown; one of the same text is a tie, whoever says so. The second needs labels
    drawn at random: there is none where one kind of prompt has more of them than chance gives.
    """
    import numpy as np

    number, of, among = int((~np.isnan(known)).sum()), np.array(strata)[shown], groups_at(groups, shown)
    labels, judged = known[shown], preferences[shown]
    there = ~np.isnan(labels)
    flags = labels[there] >= 0.5, judged[there] >= 0.5, judged >= 0.5
    not_worse = corrected_share(*flags, among, groups_at(among, there)) if there.any() and drawn_over_all(there, of) else None
    rates = among_ties(corrected_mean(labels, judged, of.tolist(), among), shown, 50.0, groups)
    return {
        "labels": number,
        "corrected": cell_of(rates, number),
        "not_worse": cell_of(among_ties(not_worse.share, shown, 100.0, groups) if not_worse else None, number),
        "sensitivity": None if not_worse is None else round(not_worse.sensitivity, 6),
        "specificity": None if not_worse is None else round(not_worse.specificity, 6),
    }


def next_labels(ids: Sequence[str], labelled: Sequence[bool], agree: Sequence[bool], most: int = NEXT) -> list[str]:
    """The prompts whose labels help most, of pairs that differ: as many of each kind as its correction needs, those on which
    the judge's orders disagree first, then the others of these, then the rest.

    Within each kind in an order by hash: a draw at random, so that the correction by kind stays valid.
    """
    ordered = sorted(
        zip(ids, labelled, agree, strict=True), key=lambda one: hashlib.sha256(f"label {one[0]}".encode()).hexdigest()
    )
    wanted: list[tuple[bool, bool, str]] = []
    for kind in (False, True):
        missing = FEWEST_LABELS - sum(known for _, known, consistent in ordered if consistent == kind)
        open_ones = [name for name, known, consistent in ordered if consistent == kind and not known]
        wanted += [(place >= missing, kind, name) for place, name in enumerate(open_ones)]
    return [name for _, _, name in sorted(wanted, key=lambda one: one[:2])[:most]]


def _family(recipe: Recipe) -> str | None:
    """A warning where the judge is of the teacher's or the student's family, by the names' first word."""
    judge = _first_word(recipe.judge.model)
    for role, model in (("teacher", recipe.teacher.model), ("student", recipe.student.model)):
        if judge and judge == _first_word(model):
            return f"the judge is of the {role}'s family ({judge}): such a judge favours its own kind; use another as well"
    return None


def _first_word(model: str | None) -> str:
    named = re.sub(r"\A(?:package|run|shrink|ft):", "", model or "").partition(":")[0]  # llama3.1:8b, qwen3-32b:free
    name = re.sub(
        r"\A(?:(?:us|eu|apac|global|meta|anthropic|amazon|google|openai|nvidia)[.-])+(?=[a-z])", "", Path(named).name.lower()
    )
    found = re.match(r"[a-z]+", name)
    return found[0] if found else ""
