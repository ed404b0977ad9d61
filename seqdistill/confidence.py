"""How sure a student's answer is, from 0 to 1: what eval finds a threshold on is what a server compares with it.

Does not know thresholds, prompts or files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.logprobs import values_in
from seqdistill.metrics import METRICS, Item, default_metric
from seqdistill.tasks.answer_form import AnswerForm

ABOUT = {
    "logprob": "exp(mean log-probability of the answer's tokens), the end of turn included where the engine reports it; 0 for "
    "an invalid answer",
    "agreement": "mean agreement of further samples at temperature 1 with the answer, from 0 to 1: accuracy for choices, field "
    "F1 for a schema, chrF for text; 0 for an invalid answer",
}


def confidence_of(completion: Completion, form: AnswerForm, kind: str = "text", samples: Sequence[str] = ()) -> float | None:
    """The confidence of an answer, from 0 to 1; 0 for one without its form.

    It is the agreement of the samples where there are any. None where there are neither samples nor log-probabilities.
    """
    if completion.error is not None:
        return None
    return confidence_of_text(completion.content, completion.raw, form, kind, samples)


def confidence_of_text(text: str, raw: Mapping[str, Any], form: AnswerForm, kind: str, samples: Sequence[str]) -> float | None:
    """`confidence_of` an answer's text, with the log-probabilities in its raw reply."""
    values = values_in(raw)
    if not (samples or values):
        return None
    if form and form.fault(text):
        return 0.0
    if samples:
        score, choices = METRICS[default_metric(kind)].score, tuple(form.choices)
        scores = [score(Item(one, text, kind, choices)) or 0.0 for one in samples]
        return round(sum(scores) / len(scores) / 100, 6)
    return confidence_in(values) if values else None


def confidence_in(logprobs: Sequence[float]) -> float:
    """The confidence in the log-probabilities of at least one token."""
    return round(math.exp(sum(logprobs) / len(logprobs)), 6)
