"""Metrics of one answer: a table of cases for each, and values that other libraries computed."""

import pytest

from seqdistill.metrics import METRICS, PRIMARY, measures
from seqdistill.metrics.text import token_f1

SHARED = "The library on Mill Lane is shut on Monday."


@pytest.mark.parametrize(
    ("text", "wanted", "score"),
    [
        ("a cat", "The cat.", 100.0),
        ("two cats", "two dogs", 50.0),
        ("one two three", "one", 50.0),
        ("cat cat", "cat", 200 / 3),
        ("", "", 100.0),
        ("", "cat", 0.0),
        ("the", "a", 100.0),
    ],
)
def test_token_f1_is_that_of_squad(text: str, wanted: str, score: float) -> None:
    assert token_f1(text, wanted) == pytest.approx(score)


def test_a_metric_is_known_to_recipe_table_and_tables_heads_by_its_one_entry() -> None:
    assert METRICS["token_f1"].heading == "token F1" and {"token_f1", "token_f1_reference"} <= set(PRIMARY)
    assert "token_f1_teacher" in [measure.name for measure in measures("text")]
    assert "token_f1_teacher" not in [measure.name for measure in measures("choices")]
