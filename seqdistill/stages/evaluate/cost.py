"""What each contestant costs in service, what the run cost once, and after how many requests that is earned back.

Keys of scores.json that it owns:
  cost                 terms (utilisation, fallback_share, shadow_share), upfront (USD by part), upfront_usd, inputs (what each
                       model's price was made of, by role), missing (recipe keys to write), reason (why there is no break-even)
  break_even_requests  requests after which the student has earned back what the run cost; null with cost.reason
  usd_per_1000         of the student; models.ROLE.usd_per_1000 and .usd_per_right of each
All of it follows from `cost.inputs`, `cost.terms` and `cost.upfront`, so `verify` computes it again. Measures nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqdistill.engines import Completion
from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.journal.budget import Budget
from seqdistill.journal.prices import Price, known_usd, price_of
from seqdistill.journal.storage import Journal
from seqdistill.recipe.tables import EvalConfig, Recipe, TeacherConfig
from seqdistill.runs import Run
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.latency import Latencies, Latency
from seqdistill.stages.evaluate.shown import usd

if TYPE_CHECKING:
    from seqdistill.stages.evaluate.answers import Answer

HOUR = 3600.0


# --- formulas ---------------------------------------------------------------------------------------------------------


def usd_per_request(
    token_usd: float | None, hourly_usd: float | None, requests_per_second: float | None, utilisation: float
) -> float | None:
    """What one request costs: its tokens, its share of a machine's hour, or both. None where neither is known."""
    machine = None
    if hourly_usd is not None:
        if hourly_usd and not requests_per_second:
            return None
        machine = hourly_usd / (HOUR * (requests_per_second or 1.0) * utilisation)
    parts = [part for part in (token_usd, machine) if part is not None]
    return sum(parts) if parts else None


def usd_with_samples(student_usd: float, terms: Mapping[str, float]) -> float:
    """What the student costs where each request takes several of its answers, whose agreement is its confidence."""
    return student_usd * terms.get("answers_a_request", 1)


def usd_in_service(student_usd: float, teacher_usd: float, terms: Mapping[str, float]) -> float:
    """What requests cost where the student serves: its answers to all of them, and the share that the teacher answers too."""
    return usd_with_samples(student_usd, terms) + teacher_share(terms) * teacher_usd


def teacher_share(terms: Mapping[str, float]) -> float:
    """The share of requests that the teacher still answers: those that fall back to it, and those that are shadowed."""
    return terms.get("fallback_share", 0.0) + terms.get("shadow_share", 0.0)


def break_even(upfront_usd: float, teacher: float, in_service: float) -> int | None:
    """Requests after which the student has earned back `upfront_usd`; None where it saves nothing. Costs are of one request.

    `in_service` is what a request costs where the student serves, `teacher` where the teacher alone does.
    """
    saved = teacher - in_service
    if saved <= 0:
        return None
    return math.ceil(round(upfront_usd / saved, 6))


# --- from a run to the inputs -----------------------------------------------------------------------------------------


def check_costs(recipe: Recipe) -> None:
    """Raises UsageError for shares that leave the student nothing to answer."""
    if (recipe.eval.fallback_share or 0.0) + recipe.eval.shadow_share > 1:
        raise UsageError("[eval] fallback_share and shadow_share are more than 1 together", "lower one of them")


def inputs_of(
    recipe: Recipe,
    contestants: Sequence[Contestant],
    answers: Sequence["Answer"],
    latencies: Mapping[str, Latencies],
) -> dict[str, dict[str, Any]]:
    """What each contestant's price is made of, by role: token_usd of one answer, hourly_usd, requests_per_second, its basis."""
    found: dict[str, dict[str, Any]] = {}
    for contestant in contestants:
        mine = [one.completion for one in answers if one.model == contestant.role and one.completion.error is None]
        if contestant.role == "ceiling" or not any(one.completion_tokens for one in mine):
            continue
        if contestant.model is None and contestant.role not in ("student", "teacher"):  # a file of another model's outputs
            continue
        table = recipe.teacher if contestant.role == "teacher" else recipe.student
        timed = latencies.get(contestant.role, Latencies())
        found[contestant.role] = {
            "engine": contestant.model.engine if contestant.model else None,
            "hourly_usd": table.hourly_usd if contestant.model else None,
            **measured_inputs(contestant, mine, price_of(table.price), timed, recipe.eval),
        }
    return found


def measured_inputs(
    contestant: Contestant, completions: Sequence[Completion], price: Price | None, timed: Latencies, config: EvalConfig
) -> dict[str, Any]:
    """Of one contestant's inputs, those that follow from its answers and how long they took."""
    rate, basis = _rate(contestant, completions, timed, config)
    return {
        "token_usd": _rounded(_token_usd(price, completions)),
        "requests_per_second": _rounded(rate),
        "rate_basis": basis,
    }


def _token_usd(price: Price | None, completions: Sequence[Completion]) -> float | None:
    """The mean cost of the answers whose tokens are known: a log may lack those of some, which did not cost nothing."""
    counted = [one for one in completions if one.prompt_tokens or one.completion_tokens]
    known = [usd for one in counted if (usd := known_usd(price, [one])) is not None]
    return sum(known) / len(known) if known else None


def _rate(
    contestant: Contestant, completions: Sequence[Completion], found: Latencies, config: EvalConfig
) -> tuple[float | None, str]:
    """How many requests a second the machine answers: at the limit, or else as eval's own batches show, and on what basis."""
    if contestant.model is None:
        return None, "recorded answers"
    if config.p95_limit is not None:
        best: Latency | None = found.at_limit
        limit = f"with 95% within {config.p95_limit:g} s"
        return (best.requests_per_second, f"{best.at_once} requests at once, {limit}") if best else (None, f"never {limit}")
    if contestant.model.engine != "openai":
        seconds = sum(one.seconds for one in completions)
        return len(completions) / seconds if seconds > 0 else None, "eval's own batches, without a limit on latency"
    if found.latency and found.latency.requests_per_second:
        return found.latency.requests_per_second, "one request at a time: [eval] p95_limit finds how many it can take"
    return None, "not measured: set [eval] p95_limit"


def upfront_of(run: Run, recipe: Recipe) -> dict[str, float | None]:
    """What the run cost once, in USD by part; None where a price or an hourly rate is not known.

    Money is what the run's journals say was paid; hours are those of all attempts at the stage, the interrupted ones too.
    """
    teacher, judge, student = (
        {identity(table): price} if table.model and (price := price_of(table.price, name)) else {}
        for name, table in (("teacher", recipe.teacher), ("judge", recipe.judge), ("student", recipe.student))
    )
    each = [one for one in recipe.each_teacher if one.model]
    prices = {identity(one): price_of(one.price) for one in each if one.engine == "openai"}
    known = {name: price for name, price in prices.items() if price is not None}
    found = {
        "teacher": _paid(run, "generate", known if len(known) == len(prices) else {}),
        "judge": _paid(run, "filter", judge),
        "proof": _paid(run, "eval", {**student, **judge, **teacher}),
        "training": _hours_usd(run, "train", recipe.train.hourly_usd),
    }
    if machines := [one for one in each if one.engine != "openai" or one.hourly_usd is not None]:
        found["teacher_machine"] = _hours_usd(run, "generate", _hourly_usd(machines))
    return {name: _rounded(paid) for name, paid in found.items()}


def _paid(run: Run, stage: str, prices: Mapping[str, Price]) -> float | None:
    path = run.file(stage, "journal.jsonl")
    if not path.is_file():
        return 0.0
    with Journal(path, writable=False) as journal:
        if journal.spending.unpriced and not prices:
            return None
        return Budget([journal], prices).paid_usd


def _hourly_usd(machines: Sequence[TeacherConfig]) -> float | None:
    """What an hour of all the teachers' machines costs: this one counts once, each server apart. None where one is unknown."""
    rates = [(one.engine, one.hourly_usd) for one in machines]
    if any(rate is None for _, rate in rates):
        return None
    here = [rate for engine, rate in rates if engine != "openai" and rate is not None]
    return max(here, default=0.0) + sum(rate for engine, rate in rates if engine == "openai" and rate is not None)


def _hours_usd(run: Run, stage: str, hourly_usd: float | None) -> float | None:
    if hourly_usd is None:
        return None
    seconds: float = (run.manifest(stage) or {}).get("seconds_in_all", 0.0)
    return seconds / HOUR * hourly_usd


def terms_of(config: EvalConfig, deferral: Mapping[str, Any] | None) -> dict[str, float]:
    """Under which the machines are paid and the student is used. The fallback's share is the threshold's that was found."""
    found = deferral if deferral and deferral.get("threshold") is not None else None
    share = config.fallback_share
    if share is None:
        share = 1 - float(found["kept"]) if found else 0.0
    return {
        "utilisation": config.utilisation,
        "fallback_share": round(share, 6),
        "shadow_share": config.shadow_share,
        "answers_a_request": 1 + (int(found["samples"]) if found else 0),  # whose agreement is the student's confidence
    }


# --- from the inputs to the numbers -----------------------------------------------------------------------------------


def with_costs(
    scores: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
    terms: Mapping[str, float],
    upfront: Mapping[str, float | None],
) -> dict[str, Any]:
    """What follows for scores.json: each model's prices, the break-even, and what keys of the recipe are missing for more."""
    each = {role: _of_model(role, of, terms, scores) for role, of in inputs.items()}
    teacher, student = (each.get(role, {}).get("usd_per_1000") for role in ("teacher", "student"))
    known = [paid for paid in upfront.values() if paid is not None]
    total = _rounded(sum(known)) if len(known) == len(upfront) else None
    missing = [*_missing(inputs, each), *(UPFRONT_KEYS[name] for name, paid in upfront.items() if paid is None)]
    requests, reason = None, None
    if teacher is None or student is None or total is None:
        what = "the teacher" if teacher is None else "the student" if student is None else "what the run cost once"
        reason = f"the price of {what} is not known"
    else:
        in_service = usd_in_service(student, teacher, terms)
        requests = break_even(total, teacher / 1000, in_service / 1000)
        if requests is None:
            reason = (
                f"the student is not cheaper: {usd(in_service)} USD per 1,000 requests, what the teacher "
                f"still answers included, against {usd(teacher)}"
            )
    return {
        "models": each,
        "usd_per_1000": each.get("student", {}).get("usd_per_1000"),
        "break_even_requests": requests,
        "cost": {
            "terms": dict(terms),
            "upfront": dict(upfront),
            "upfront_usd": total,
            "inputs": {role: dict(of) for role, of in inputs.items()},
            "missing": list(dict.fromkeys(missing)),
            "reason": reason,
        },
    }


UPFRONT_KEYS = {
    "teacher": "[teacher] price",
    "judge": "[judge] price",
    "proof": "[student] price",
    "training": "[train] hourly_usd",
    "teacher_machine": "[teacher] hourly_usd",
}


def _of_model(role: str, of: Mapping[str, Any], terms: Mapping[str, float], scores: Mapping[str, Any]) -> dict[str, Any]:
    price = usd_per_request(of["token_usd"], of["hourly_usd"], of["requests_per_second"], terms["utilisation"])
    primary, cell = scores["primary"], scores["models"][role].get(scores["primary"])
    right = cell["value"] / 100 if scores["measures"][primary]["share"] and cell and cell["value"] else None
    return {
        "usd_per_1000": None if price is None else _rounded(1000 * price),
        "usd_per_right": None if price is None or right is None else _rounded(price / right),
    }


def _missing(inputs: Mapping[str, Mapping[str, Any]], each: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The keys of the recipe that would price what has no price."""
    found = []
    for role, of in inputs.items():
        if each[role]["usd_per_1000"] is not None:
            continue
        table = "teacher" if role == "teacher" else "student"
        if of["hourly_usd"] is not None:
            found.append("[eval] p95_limit")
        elif of["engine"] in ("openai", None):
            found.append(f"[{table}] price")
        else:
            found.append(f"[{table}] hourly_usd")
    return found


def _rounded(value: float | None) -> float | None:
    """Nine significant digits: what sums of floats in another order cannot move."""
    return None if value is None else float(f"{value:.9g}")
