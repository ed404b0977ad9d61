"""What a metric is: the record that tables, report, verdict, card and the recipe check read."""

from collections.abc import Callable
from dataclasses import dataclass

KINDS = ("text", "choices", "schema")  # of answers
TOLERANCE = 1e-6  # relative: two numbers this close are equal


@dataclass(frozen=True)
class Item:
    """One answer, and what it is compared with."""

    text: str
    wanted: str = ""  # the teacher's answer or the reference; empty for a metric of the answer by itself
    kind: str = "text"
    choices: tuple[str, ...] = ()
    fault: str | None = None  # what is wrong with its form, in words
    finish_reason: str | None = None  # None for a text that no model ended
    prompt: str = ""  # the user's last message
    source: str = ""  # all that the student is shown


@dataclass(frozen=True)
class Metric:
    """How one answer is scored, and how the score is called."""

    name: str  # in scores.json, with _teacher or _reference where it compares
    heading: str  # of a column
    phrase: str  # in a sentence
    score: Callable[[Item], float | None]  # percent; None where it does not apply
    about: str  # how the number is made
    against: bool = True  # compares with another answer; else it judges the answer by itself
    kinds: tuple[str, ...] = KINDS  # the kinds of answers it applies to
    share: bool = False  # each answer has it or not: 100 or 0
    higher_is_better: bool = True
    needs: Callable[[], object] | None = None  # raises MissingExtra; such a metric is measured only as [task] primary


@dataclass(frozen=True)
class Measure:
    """A metric with what it compares against: one column of the table."""

    metric: Metric
    against: str | None  # "teacher", "reference"; None: the answer by itself

    @property
    def name(self) -> str:
        """Its key in scores.json and predictions.jsonl."""
        return f"{self.metric.name}_{self.against}" if self.against else self.metric.name

    @property
    def heading(self) -> str:
        """The head of its column."""
        return f"{self.metric.heading} to {self.against}" if self.against else self.metric.heading

    @property
    def phrase(self) -> str:
        """It in a sentence."""
        return {
            "teacher": f"{self.metric.phrase} against the teacher's answers",
            "reference": f"{self.metric.phrase} against the references",
        }.get(self.against or "", self.metric.phrase)
