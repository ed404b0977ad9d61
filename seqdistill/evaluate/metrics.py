"""What one answer scores: against the teacher's answer, against the reference, and by itself.

All scores are percent, 0 to 100, but the length ratio. Does not know models or intervals.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from seqdistill.tasks.answer_form import AnswerForm

METRICS = {  # name -> what it is called in tables
    "chrf_teacher": "chrF to teacher",
    "chrf_reference": "chrF to reference",
    "exact_teacher": "exact to teacher",
    "exact_reference": "exact to reference",
    "stopped": "stops by itself",
    "valid": "has the form",  # only where the task has one
}
SHARES = ("exact_teacher", "exact_reference", "stopped", "valid")  # each answer has it or not
BEHAVIOUR = ("stopped", "valid")  # of an answer by itself: nothing of the teacher to keep


def both_ways(metric: str) -> tuple[str, str]:
    """A metric, and the same measured against the other: the references for the teacher, the teacher for the references."""
    measure, _, against = metric.rpartition("_")
    return metric, f"{measure}_{'reference' if against == 'teacher' else 'teacher'}"


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()  # chrF2: Popović 2015, https://aclanthology.org/W15-3049


def score_answer(
    text: str, teacher: str, reference: str | None, finish_reason: str | None, form: AnswerForm
) -> dict[str, float | None]:
    """The scores of one answer; None for what does not apply (no reference, a copy has no end). `valid` only with a form."""
    scores = {
        "chrf_teacher": chrf(text, teacher),
        "chrf_reference": None if reference is None else chrf(text, reference),
        "exact_teacher": exact(text, teacher),
        "exact_reference": None if reference is None else exact(text, reference),
        "stopped": None if finish_reason is None else 100.0 * (finish_reason == "stop"),
        "length_ratio": len(text) / len(teacher) if teacher else None,
    }
    return scores | {"valid": 100.0 * (form.fault(text) is None)} if form else scores


def chrf(text: str, wanted: str) -> float:
    """sacrebleu's sentence chrF2.

    Means and intervals are of sentence scores, not of the corpus score: each prompt counts the same, and the bootstrap of
    a mean is exact and paired. The corpus score is printed beside it.
    """
    return float(_chrf().sentence_score(text, [wanted]).score)


def corpus_chrf(texts: Sequence[str], wanted: Sequence[str]) -> float:
    """sacrebleu's corpus chrF2."""
    return float(_chrf().corpus_score(list(texts), [list(wanted)]).score)


def chrf_signature() -> str:
    """sacrebleu's signature of the chrF used; to be read after a corpus score was taken."""
    return str(_chrf().get_signature())


def exact(text: str, wanted: str) -> float:
    """100 when the two are the same but for the amount of white space, else 0."""
    return 100.0 * (text.split() == wanted.split())


def copied(source: str, characters: int) -> str:
    """The copy baseline: the source's first words, at most so many characters; the source's start where it has no words."""
    source = " ".join(source.split())
    if len(source) <= characters:
        return source
    head = source[: characters + 1]
    return head.rsplit(" ", 1)[0] if " " in head else source[:characters]
