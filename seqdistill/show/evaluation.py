"""How the results of eval are printed: tables, regressions, verdict and advice; two students compared; a promise checked."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from seqdistill.console import Console, line, seconds, to_stdout, wrapped
from seqdistill.records import visible

if TYPE_CHECKING:
    from seqdistill.stages.evaluate.compare import Comparison
    from seqdistill.stages.evaluate.drift import Drift
    from seqdistill.stages.evaluate.result import EvalResult


def show_eval(console: Console, result: "EvalResult") -> None:
    """The result of eval."""
    show_scores(console, "eval: up to date" if result.up_to_date else f"eval: done in {seconds(result.seconds)}", result)
    show_advice(console, result)


def show_scores(console: Console, title: str, result: "EvalResult") -> None:
    """The tables and the verdict."""
    console.table(title, result.columns, result.rows)
    if result.slice_rows:
        console.table(f"by slice, {result.columns[1]}", result.slice_columns, result.slice_rows)
    if result.cost_rows:
        console.table("latency and cost", result.cost_columns, result.cost_rows)
    if result.safety_rows:
        console.table("safety", result.safety_columns, result.safety_rows)
    if not console.as_json:
        with to_stdout():
            print("\n".join(_regressions(result)), end="")
            notes = result.cost_notes if result.cost_rows else []
            print("\n".join(wrapped(visible(line)) for line in (*notes, *result.verdict)))


def show_advice(console: Console, result: "EvalResult") -> None:
    """Where the report is, what to make of the scores, and, last, what to do."""
    if console.as_json:
        return
    advice = result.advice
    lines = [
        ("ship", f"{advice.ship.short}. {advice.ship.more}"),
        ("slices", ", ".join(f"{one.name} {one.decision}" for one in advice.slices)),
        ("saves", f"{advice.saves.short}. {advice.saves.more}"),
        *(("next", f"{step.text}{f' `{step.command}`' if step.command else ''}") for step in advice.next),
    ]
    with to_stdout():
        print(visible(f"report: {result.paths['report']}"))
        for name, text in lines:
            if text:
                print(wrapped(visible(text), f"{name}: "))


WORST = 3  # regressions printed; the others are in scores.json and in the report


def _regressions(result: "EvalResult") -> Iterator[str]:
    """The worst regressions, each in a few lines of the terminal's width; ends with an empty line where there are any."""
    worst = result.regressions[:WORST]
    if not worst:
        return
    yield from wrapped(f"regressions: {result.regressed}; the worst {len(worst)}").split("\n")
    for item in worst:
        scores = ", ".join(f"{role} {item['scores'][role]:.0f}" for role in ("student", *item["better"]))
        yield ""
        named = f"{item['id']} ({item['slice']})" if item["slice"] else item["id"]
        yield line(f"{named}: {scores}", " ")
        texts = {"prompt": item["prompt"], "reference": item["reference"], **item["answers"]}
        for row in item["training"][:1]:
            texts["trained on"] = f"{row['similarity']:.2f} {row['prompt']} -> {row['completion']}"
        for row in item["removed"][:1]:
            texts["removed"] = f"{row['similarity']:.2f} by {row['rule']} ({row['reason']}): {row['prompt']}"
        yield from (line(text, f"   {name:<10} ") for name, text in texts.items() if text is not None)
        yield wrapped(visible(item["why"]), "   why        ")
    yield ""
    yield ""


def show_comparison(console: Console, found: "Comparison") -> None:
    console.table("compare: two students on the same prompts", found.columns, found.rows)
    if found.slice_rows:
        console.table(f"by slice, {found.columns[1]}", found.slice_columns, found.slice_rows)
    if not console.as_json:
        with to_stdout():
            for what in ("worse", "better"):
                print("\n".join(_items_that_moved(found, what)), end="")
            print("\n".join(wrapped(visible(line)) for line in found.verdict))


def _items_that_moved(found: "Comparison", what: str) -> Iterator[str]:
    """The prompts that moved most; ends with an empty line where there are any."""
    items, names = found.scores[what], found.scores["compared"]
    if not items:
        return
    yield f"{what}: {len(items)} of {found.scores['n']} prompts, the first {min(len(items), WORST)}"
    for item in items[:WORST]:
        yield ""
        named = f"{item['id']} ({item['slice']})" if item["slice"] else item["id"]
        scores = ", ".join(f"{names[role]} {score:.0f}" for role, score in item["scores"].items())
        yield line(f"{named}: {scores}", " ")
        texts = {"prompt": item["prompt"], "reference": item["reference"]}
        texts |= {names[role]: text for role, text in item["answers"].items()}
        yield from (line(text, f"   {visible(name)[:16]:<10} ") for name, text in texts.items() if text is not None)
    yield ""
    yield ""


def show_drift(console: Console, found: "Drift") -> None:
    """What a server's log says of eval's promise."""
    console.facts(
        f"promise: {found.state}",
        {
            "checked": f"{found.n:,} answers of the student",
            "good enough": f"{found.good / found.n:.1%} [{found.low:.1%}, {found.high:.1%}], promised {found.target:.1%}",
            "mean": f"{found.mean:.1f} {found.metric}",
            "not counted": f"{found.below:,} below the threshold" if found.below else None,
        },
    )
    if found.state != "broken":  # which is an error, in the same words
        console.note(found.says)
