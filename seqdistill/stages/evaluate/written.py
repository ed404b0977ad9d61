"""What eval wrote, read again: scores.json, its form and measures, and the answers of predictions.jsonl. Runs no model.

A user's own metric is code and is not run: its scores are taken as they are written.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError
from seqdistill.metrics import OWN, Item, Measure, Metric, measures
from seqdistill.records import Prompt, read_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.tasks.answer_form import AnswerForm


def scores_in(run: Run) -> dict[str, Any]:
    """The document of scores.json. Raises UsageError for a damaged one."""
    return document_of(run, "scores.json")


def document_of(run: Run, name: str) -> dict[str, Any]:
    """A JSON document that eval wrote and that is there. Raises UsageError for a damaged one."""
    return read_json(run.file("eval", name), f"run `seqdistill eval {run.shell}` again")


def answer_of(row: Mapping[str, Any]) -> Answer:
    """The answer in a line of predictions.jsonl; the prompt in it is as this model was shown it."""
    text = row["completion"][-1]["content"] if row["completion"] else ""
    prompt = Prompt(row["id"], row["prompt"], row["prompt"], row["reference"], row["slice"], group=row["group"])
    completion = Completion(
        row["id"],
        text,
        finish_reason=row["finish_reason"],
        completion_tokens=row["tokens"],
        seconds=row["seconds"],
        error=row["error"],
    )
    return Answer(row["model"], prompt, row["prompt"], completion, row["scores"], row["confidence"])


def form_in(scores: Mapping[str, Any]) -> AnswerForm:
    """The form of the task's answers."""
    form = scores.get("form", {})
    return AnswerForm(form.get("schema", {}), tuple(form.get("choices", ())))


def measures_in(scores: Mapping[str, Any]) -> list[Measure]:
    """The measures that were taken, but for the user's own."""
    taken = measures(form_in(scores).kind, primary=scores["primary"])
    return [measure for measure in taken if measure.name in scores["measures"]]


def own_measures_in(scores: Mapping[str, Any]) -> list[Measure]:
    """The measures of the user's own metric."""
    return [_own(facts) for name, facts in scores["measures"].items() if name.partition("_")[0] == OWN]


def _own(facts: Mapping[str, Any]) -> Measure:
    def unknown(_: Item) -> float | None:
        raise SeqdistillError("a user's own metric is not run by verify")

    metric = Metric(OWN, facts["heading"].removesuffix(f" to {facts['against']}"), "", unknown, "", share=facts["share"])
    phrase = str(facts["phrase"])
    for tail in (" against the teacher's answers", " against the references"):
        phrase = phrase.removesuffix(tail)
    return Measure(replace(metric, phrase=phrase), facts["against"])
