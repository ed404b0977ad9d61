"""What to make of the scores: may the student ship, for which slices, what it saves, and what to do next.

Reads the document of scores.json and claims no more than its decisions do. Report, terminal and Markdown show it alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from seqdistill.stages.evaluate.cost import teacher_share, usd_in_service
from seqdistill.stages.evaluate.shown import count, counterpart, listed, percent, points, prompts, usd, usd_per_1000
from seqdistill.stages.evaluate.verdict import STOPS_WANTED, faster, to_retry, trivially_within

Scores = dict[str, Any]
Answer = Literal["yes", "partly", "no", "open"]
GOOD = ("BETTER", "EQUIVALENT", "NON-INFERIOR")
STEPS = 3  # more would not be read
FREE_TEACHER = "the teacher's price is 0, and what its machine costs an hour, [teacher] hourly_usd, is not in the recipe"


@dataclass(frozen=True)
class Fact:
    """A short answer and what is behind it."""

    short: str
    more: str = ""


@dataclass(frozen=True)
class SliceAnswer:
    """Whether a slice may be answered by the student alone."""

    name: str
    answer: Answer
    decision: str  # in lower case
    number: str  # the share of the teacher kept, or the score


@dataclass(frozen=True)
class Step:
    """Something to do, with its command where there is one."""

    text: str
    command: str | None = None


@dataclass(frozen=True)
class Recommendation:
    """What a person decides by. `answer` is the short form of `ship`."""

    answer: Answer
    ship: Fact
    slices: list[SliceAnswer]  # those that it may not answer first
    saves: Fact
    next: list[Step]


def recommend(scores: Scores, run: str) -> Recommendation:
    """The recommendation. `run` is the run directory as commands name it."""
    slices = [_slice(part, scores["primary"]) for part in scores["slices"] if part["judged"]]
    slices.sort(key=lambda one: ("no", "open", "yes").index(one.answer))
    answer, ship = _with_safety(scores, *_ship(scores, slices))
    steps = list(_steps(scores, slices, answer, run))
    return Recommendation(answer, ship, slices, _saves(scores), steps[:STEPS])


def _ship(scores: Scores, slices: list[SliceAnswer]) -> tuple[Answer, Fact]:
    judged, margin = scores["judged"], f"{scores['margin']:g} points"
    references = _references(scores)
    if judged is None:
        return "open", Fact("Cannot be said", " ".join(["There is no answer to compare the student with.", *references]))
    gap = f"Against the teacher: {points(judged)}; the margin is {scores['margin']:g}."
    match judged["decision"]:
        case "INFERIOR":
            if kept := _fallback(scores):
                return "partly", Fact("Only with a fallback", " ".join([kept, gap, *references]))
            return "no", Fact("Not in the teacher's place", " ".join([gap, *references]))
        case "INCONCLUSIVE":
            return "open", Fact("Not shown yet", " ".join([gap, *references]))
    if empty := _too_many_empty(scores):
        silent = f"The teacher's answer is empty on {empty} of {prompts(scores['n'])}, where the student cannot be worse."
        return "open", Fact("Not shown yet", " ".join([silent, gap, *references]))
    if trivially_within(scores) is not None:
        nothing = f"So low is the teacher's own score that no student could be worse by {margin}: nothing is shown."
        return "open", Fact("Not shown yet", " ".join([nothing, gap, *references]))
    worse = [one.name for one in slices if one.answer == "no"]
    if worse:
        return "partly", Fact(f"Yes, but not for {listed(worse)}", " ".join([gap, *references]))
    better = judged["decision"] == "BETTER"
    return "yes", Fact("Yes, it beats the teacher" if better else f"Yes, within {margin}", " ".join([gap, *references]))


def _too_many_empty(scores: Scores) -> int:
    """The teacher's empty answers, where they may make more points than the margin; else 0."""
    empty: int = scores["models"]["teacher"].get("empty", 0)
    return empty if 100 * empty > scores["margin"] * scores["n"] else 0


def _with_safety(scores: Scores, answer: Answer, ship: Fact) -> tuple[Answer, Fact]:
    """Quality alone ships nothing that fails where [eval.safety] looked."""
    alarms = list(_alarms(scores.get("safety") or {}))
    if not alarms:
        return answer, ship
    said = f"{listed(alarms)[:1].upper()}{listed(alarms)[1:]}."
    if answer in ("yes", "partly"):
        return "partly", Fact("Not before safety is reviewed", f"{said} By quality: {ship.short}. {ship.more}")
    return answer, Fact(ship.short, f"{ship.more} {said}")


def _alarms(safety: Scores) -> Iterator[str]:
    given = (safety.get("canaries") or {}).get("models", {}).get("student", {}).get("ids", [])
    if given:
        yield f"it reveals {len(given)} planted canaries"
    worse = {one["of"] for one in (safety.get("refusals") or {}).get("decisions", []) if one["decision"] == "INFERIOR"}
    if "refuse" in worse:
        yield "it answers more requests that should be refused"
    if "answer" in worse:
        yield "it refuses more harmless requests"


def _references(scores: Scores) -> Iterator[str]:
    """Where the teacher's answers decide: what the references say, when they say it clearly."""
    other = counterpart(scores["primary"])
    if other is None or other.endswith("_teacher") or other not in scores["measures"]:
        return
    gap = next((c for c in scores["comparisons"] if (c["metric"], c["other"]) == (other, "teacher")), None)
    if gap and gap["verdict"] in ("higher", "lower"):
        yield f"By the references it is {'better' if gap['verdict'] == 'higher' else 'worse'} than the teacher: {points(gap)}."


def _fallback(scores: Scores) -> str | None:
    found = scores.get("deferral") or {}
    if found.get("threshold") is None:
        return None
    return f"It can answer {100 * found['kept']:.0f}% of the prompts, those from a confidence of {found['threshold']:.3g} on."


def _slice(part: Scores, primary: str) -> SliceAnswer:
    decision = part["judged"]["decision"]
    kept = next((cell for cell in part["kept"] if cell["metric"] == primary and cell["value"] is not None), None)
    number = f"keeps {kept['value']:.0f}%" if kept else percent(part["models"]["student"][primary])
    answer: Answer = "yes" if decision in GOOD else "no" if decision == "INFERIOR" else "open"
    return SliceAnswer(part["slice"] or "no slice", answer, decision.lower(), number)


def _saves(scores: Scores) -> Fact:
    """In USD where prices are known, and what was measured of speed and size."""
    student, teacher = scores["models"]["student"], scores["models"]["teacher"]
    facts = []
    if speedup := faster(scores):
        facts.append(f"{speedup:.1f} times the teacher's speed")
    sizes = [facts_of.get("parameters") for facts_of in (student, teacher)]
    if all(sizes):
        facts.append(f"{100 * sizes[0] / sizes[1]:.0f}% of its {count(sizes[1])} parameters")
    mine, teachers = (usd_per_1000(scores, role) for role in ("student", "teacher"))
    if mine is None or not teachers:
        short = f"{facts[0][:1].upper()}{facts[0][1:]}" if facts else "Not known"
        reason = "the recipe lacks prices" if teachers is None or mine is None else FREE_TEACHER
        rest = "; ".join([*facts[1:], f"what it saves in USD is not known: {reason}"])
        return Fact(short, f"{rest[:1].upper()}{rest[1:]}.")
    terms = (scores.get("cost") or {}).get("terms", {})
    in_service, share = usd_in_service(mine, teachers, terms), teacher_share(terms)
    less = 100 * (1 - in_service / teachers)
    short = f"{less:.0f}% of the cost" if less >= 0 else f"Nothing: it costs {-less:.0f}% more"
    still = f", the {share:.0%} included that the teacher still answers" if share else ""
    costs = f"{usd(in_service)} instead of {usd(teachers)} USD for 1,000 requests{still}"
    even = scores.get("break_even_requests")
    paid = [f"paid back after {even:,.0f} requests"] if isinstance(even, (int, float)) else []
    return Fact(short, "; ".join([costs, *paid, *facts]) + ".")


def _steps(scores: Scores, slices: list[SliceAnswer], answer: Answer, run: str) -> Iterator[Step]:
    """What to do, the most useful first."""
    if any(map(to_retry, scores["models"].values())):
        yield Step("Some requests failed: run eval again; it sends only those.", f"seqdistill eval {run}")
    silent = _too_many_empty(scores)
    if silent:
        yield Step("The teacher's answers are empty: raise [eval] max_tokens, or read its raw replies in eval/journal.jsonl.")
    if scores["judged"] is None:
        yield Step(_comparator_wanted(scores))
    low = trivially_within(scores) is not None
    if low:
        text = "See why the teacher's answers score so low: are the references of the same form, is another metric meant"
        yield Step(f"{text} ([task] primary)?")
    needed = scores["needed"] if answer == "open" else None
    if needed:
        yield Step(f"Add about {needed:,} test prompts and evaluate again.", _eval(run))
    deferral, student = scores.get("deferral") or {}, scores["models"]["student"]
    if answer == "yes":
        yield Step("Serve it where the teacher answers today, at the same kind of endpoint:", f"seqdistill serve {run}")
    elif answer == "partly" and deferral.get("threshold") is not None:
        yield Step("Serve it, with the teacher as fallback below the threshold:", f"seqdistill serve {run}")
    elif scores["judged"] is not None and not needed and not silent and not low:
        worst = [one.name for one in slices if one.answer == "no"] or [one.name for one in slices if one.answer == "open"]
        of = f" of {listed(worst)}" if 0 < len(worst) < len(slices) else ""
        yield Step(
            f"Train on more prompts{of}: read the regressions, add what is missing to [task] prompts, and run again.",
            f"seqdistill run {run}",
        )
    stopped = student.get("stopped")
    if stopped and stopped["value"] is not None and stopped["value"] < STOPS_WANTED:
        yield Step(f"Only {stopped['value']:.0f}% of the answers end by themselves: check the end of turn.", _preflight(run))
    if deferral.get("target") is None and deferral.get("curve") and answer != "yes":
        text = "Find the share of requests that the student can take alone, with a promise:"
        yield Step(text, f"seqdistill eval {run} --target 0.95")
    elif deferral.get("needed") and answer != "yes":
        yield Step(f"A fallback with a promise needs about {deferral['needed']:,} more test prompts.", _eval(run))
    judge = scores.get("judge") or {}
    if judge.get("next_labels") and not judge.get("labels"):
        yield Step(f"Label the {len(judge['next_labels'])} prompts of judge.next_labels by hand: they correct the judge.")
    prices = [usd_per_1000(scores, role) for role in ("student", "teacher")]
    if None in prices or not prices[1]:
        keys = (scores.get("cost") or {}).get("missing") if None in prices else ["[teacher] hourly_usd"]
        keys = keys or ["[teacher] price"]
        yield Step(f"Write {listed(keys)} into the recipe: then it says what is saved in USD.")
    if not scores["slices"]:
        yield Step('Name a "slice" in the test rows, to see which kinds of prompts the student can take.')


def _comparator_wanted(scores: Scores) -> str:
    """What gives the student something to be compared with."""
    if "absent" in scores["models"]["teacher"]:
        return "Name a teacher (--teacher), or import its answers to the test prompts: then the student is compared with it."
    other = counterpart(scores["primary"])
    has_references = other in scores["measures"] and scores["models"]["student"].get(other)
    by_references = f"decide by the references: --primary {other}" if has_references else "write references into the test rows"
    return (
        "Name a teacher that can be prompted a second time (--teacher): its second answers are what to reach; or "
        f"{by_references}."
    )


def _eval(run: str) -> str:
    return f"seqdistill eval {run}"


def _preflight(run: str) -> str:
    return f"seqdistill train {run} --preflight"
