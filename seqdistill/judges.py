"""How a judge is prompted: what must be configured, which form its replies are held to, and when it is stopped.

filter's judge scores samples and eval's compares pairs: what they show the judge and what follows from its replies is theirs.
The rubric and how a reply is read are `tasks.rubrics`', the cap is `journal.budget`'s.
"""

import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from seqdistill.engines import PERMANENT_ERRORS, Completion, Request
from seqdistill.engines.models import identity
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.journal.asking import Asker, answers, failures, missing_requests
from seqdistill.journal.budget import OwnCap, Source
from seqdistill.journal.prices import price_of
from seqdistill.journal.storage import Journal
from seqdistill.personal_data import hidden
from seqdistill.recipe.tables import JudgeConfig
from seqdistill.runs import Run
from seqdistill.tasks.rubrics import Rubric

FORM_TRIAL = 4  # requests: when all of the first are refused, they are sent without a schema; fewer than end a run at its start
TRIAL = 20  # replies: when none of the first can be read, no more are paid for
AT_ONCE = 4096  # requests planned and sent together after these
REFUSED = ("http 400", "http 422")
FORMED = ("openai", "vllm")  # engines that hold a reply to a schema

JUDGEMENT = (":judge:student first", ":judge:teacher first")  # how the ids of eval's requests to a judge end

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part(Generic[Item]):
    """Some of what is judged, with the requests about it and their replies in the order of the requests."""

    items: Sequence[Item]
    replies: Sequence[tuple[Request, Completion]]
    new: int  # replies that were not in the journal before


def judge_settings(config: JudgeConfig, rubric: Rubric, setting: str) -> dict[str, Any]:
    """What decides a judge's replies, for a fingerprint.

    Raises UsageError for a missing model, which `setting` needs, a bad price, and a budget without a price.
    """
    if not config.model:
        raise UsageError(f"{setting}: no judge is configured", "pass --judge, or set model in the recipe's [judge]")
    price_of(config.price, "judge")
    if config.budget is not None and not config.price:
        raise UsageError(f"[judge] budget = {config.budget:g} needs a price", "price = { prompt = 0.10, completion = 0.40 }")
    return {"judge.model": identity(config), "judge.rubric": rubric.sha256, "judge.max_tokens": config.max_tokens}


def judging_cap(run: Run, journal: Journal, config: JudgeConfig) -> OwnCap | None:
    """[judge] budget as a cap on what is paid in a stage's journal: it holds for filter and eval together."""
    if config.budget is None:
        return None
    paid, held = -journal.spending.paid_usd, -journal.spending.held_usd
    with ExitStack() as stack:
        for path in (run.file(stage, "journal.jsonl") for stage in ("filter", "eval")):
            if path == journal.path:
                one = journal
            elif path.is_file():
                one = stack.enter_context(Journal(path, writable=False))
            else:
                continue
            spent = judging_usd(one)
            paid, held = paid + spent[0], held + spent[1]
    return OwnCap(config.budget, paid, held)


def judging_usd(journal: Journal) -> tuple[float, float]:
    """What was paid for judgements in a stage's journal, whoever gave them, and what may be billed for them.

    In filter's that is all. In eval's a request's id says so.
    """
    spending = journal.spending
    if journal.path.parent.name == "filter":
        return spending.paid_usd, spending.held_usd
    paid = sum(row["usd"] or 0.0 for row in journal.rows() if row["id"].endswith(JUDGEMENT) and row.get("paid", True))
    held = sum(hold.usd or 0.0 for hold in spending.holds.values() if hold.request.endswith(JUDGEMENT))
    return paid, held


def form_of(config: JudgeConfig, rubric: Rubric) -> dict[str, Any] | None:
    """The JSON schema that a judge's replies are held to; None where its engine cannot."""
    return rubric.schema if config.engine in FORMED else None


async def judgements(
    asker: Asker,
    source: Source,
    config: JudgeConfig,
    rubric: Rubric,
    items: Iterable[Item],
    requests_of: Callable[[Item, dict[str, Any] | None], list[Request]],
) -> AsyncGenerator[Part[Item], None]:
    """Sends the requests about each item that the journal lacks, and yields the items in parts with all replies.

    Raises SeqdistillError when none of the first replies can be read, before more are paid for, and Incomplete at the end when
    requests failed that may be answered another time, or when the budget is reached.
    """
    remaining, seen, missing = iter(items), _Seen(rubric), list[Completion]()
    form, sizes = form_of(config, rubric), itertools.chain((FORM_TRIAL, TRIAL - FORM_TRIAL), itertools.repeat(AT_ONCE))
    async with asker:
        for size in sizes:
            first = next(remaining, None)
            if first is None:
                break
            part = [first, *itertools.islice(remaining, size // len(requests_of(first, form)) - 1)]
            if form and size == FORM_TRIAL and (older := rubric.older_schema):
                known = any(asker.journal.holds(source.identity, one) for item in part for one in requests_of(item, older))
                form = older if known else form
            while True:
                requests = [request for item in part for request in requests_of(item, form)]
                new = len(missing_requests(asker.journal, source.identity, requests))
                failed = await failures(asker, source, requests)
                if not form or len(failed) < len(requests) or any(one.error not in REFUSED for one in failed.values()):
                    break
                form = None  # an endpoint that takes no schema: the rubric says in words what to reply
            replies = list(answers(asker.journal, source.identity, requests, failed))
            missing += [one for _, one in replies if one.error is not None and one.error not in PERMANENT_ERRORS]
            seen.check(replies)
            yield Part(part, replies, new - len(failed))
    if missing:
        raise Incomplete(
            f"{len(missing)} judgements are missing; the first reason: {missing[0].message}",
            f"run again to request {len(missing)}; what was answered is kept",
        )


class _Seen:
    """What could be read of the replies so far."""

    def __init__(self, rubric: Rubric) -> None:
        self._rubric = rubric
        self._unread, self._cut_off, self._first, self._can_be_read = 0, 0, "", False

    def check(self, replies: Sequence[tuple[Request, Completion]]) -> None:
        """Takes note of replies. Raises SeqdistillError when none of the first can be read."""
        for _, reply in replies:
            if self._can_be_read or reply.error is not None:
                continue
            self._can_be_read = self._rubric.read(reply.content) is not None
            self._unread += not self._can_be_read
            self._cut_off += reply.finish_reason == "length"
            self._first = self._first or hidden(reply.content)[:200]
        if self._can_be_read or self._unread < TRIAL:
            return
        wanted = "choice" if self._rubric.scale is None else "score"
        raise SeqdistillError(
            f"none of the judge's first {self._unread} replies has a {wanted}, {self._cut_off} were cut off at "
            f"judge.max_tokens; the first is {self._first!r}",
            f"expected a JSON object with one, as {self._rubric.path} says: change the rubric, raise judge.max_tokens "
            "(--judge-max-tokens) for a judge that thinks first, or use another judge; nothing more was requested",
        )
