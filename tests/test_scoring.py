"""Scores of one prompt's samples: what they measure, and that neither order nor a hostile text moves them."""

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import filter_runs
import pytest

from seqdistill.engines.logprob_file import write_logprobs
from seqdistill.errors import UsageError
from seqdistill.metrics import METRICS, Item
from seqdistill.metrics.faithfulness import names
from seqdistill.metrics.numbers import boxed
from seqdistill.records import Sample
from seqdistill.stages.filter.scoring.answers import extractor, json_in, normal
from seqdistill.stages.filter.scoring.scores import (
    by_consensus,
    by_faithfulness,
    by_logprob,
    by_reference,
    by_vote,
    teacher_means,
)

NOTICE = "The library on Mill Lane is shut from Monday 3 May until 10 May because Ann Petrov mends the roof for $1,200."


def sample(text: str, n: int = 0, *, prompt: str = NOTICE, teacher: str = "t", **keys: Any) -> Sample:
    return filter_runs.sample(prompt, text, id=f"p:{teacher}:{n}", prompt_id="p", sample=n, teacher=teacher, **keys)


# --- answers --------------------------------------------------------------------------------------------------------------


def test_answers_that_differ_only_in_writing_are_the_same() -> None:
    assert normal("  Yes. ") == normal("yes") == normal("YES")
    assert normal("1,050.0") == normal("1050") == "1050"
    assert normal("ﬁne") == "fine"
    assert normal(" . ") is None
    assert normal("1 and 2") == "1 and 2"
    assert normal("2³") == normal("2^3") == "8" and normal("10⁻²") != normal("10-2") and normal("(x+1)²") == "(x+1)^2"
    assert normal("1½") != normal("11⁄2") and normal("H₂O") == normal("h2o") and normal("25 m²") == "25 m2"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{1} or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4} and \boxed{5", "4"),
        ("} {", None),
    ],
)
def test_the_last_whole_box_is_found(text: str, found: str | None) -> None:
    assert boxed(text) == found


def test_a_json_path_is_followed_and_only_whole_json_counts() -> None:
    extract = extractor("json:answers.0.value")
    assert extract('{"answers": [{"value": 7.0}]}') == extract('```json\n{"answers": [{"value": "7"}]}\n```') == "7"
    assert extract('The answer is {"answers": [{"value": 7}]}') is None
    assert extract('{"answers": {}}') is extract('{"answers": []}') is extract("[") is None
    assert extractor("json:")('{"b": 1, "a": [true]}') == '{"a": [true], "b": 1}'


def test_json_constants_that_are_not_json_are_refused() -> None:
    assert json_in("NaN") is json_in('{"a": Infinity}') is None
    assert json_in("1.0") == (1, "1")


def test_a_pattern_gives_the_first_group_of_its_last_match() -> None:
    assert extractor(r"regex:answer is (\w+)")("the answer is A, no, the answer is B") == "b"
    assert extractor(r"regex:[A-D]$")("A or C") == "c"


@pytest.mark.parametrize("extract", ["regex:(", "regex:", "lines", "number:3", "json.a"])
def test_an_unknown_way_to_extract_is_a_usage_error(extract: str) -> None:
    with pytest.raises(UsageError, match="extract = "):
        extractor(extract)


@pytest.mark.parametrize(
    ("extract", "text"),
    [
        ("regex:(x+x+)+y", "x" * 5000),
        ("boxed", "\\boxed{" * 100_000),
        ("number", "1,111" * 100_000),
        ("json:a", "[" * 500_000),
        ("json:a", '{"a": ' + "9" * 10_000 + "}"),
        ("text", "\ud800" * 10),
    ],
)
def test_no_text_can_hang_or_break_an_extraction(extract: str, text: str) -> None:
    began = time.process_time()  # not the clock on the wall: other processes may be busy
    extractor(extract)(text)
    assert time.process_time() - began < 10


# --- scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_the_sample_nearest_to_the_reference_scores_highest(metric: str) -> None:
    gold = "The library on Mill Lane is closed from 3 to 10 May."
    scores = by_reference(
        [sample(text, reference=gold) for text in (gold, "The library on Mill Lane is shut from 3 to 10 May.", "Roof!")], metric
    )
    assert scores[0] == pytest.approx(100)
    assert scores[0] > scores[1] > scores[2]  # type: ignore[operator]
    assert by_reference([sample("anything")], metric) == [None]
    assert by_reference([sample("", reference=gold)], metric) == [0]


def test_a_vote_counts_samples_of_all_teachers_and_no_answer_counts_against() -> None:
    texts = ["It is 4.", "so 4.0", "5", "I do not know"]
    votes = by_vote([sample(text, n, teacher="ab"[n % 2]) for n, text in enumerate(texts)], extractor("number"))
    assert votes == [0.5, 0.5, 0.25, None]


def test_the_sample_that_is_nearest_to_the_others_is_the_consensus() -> None:
    import sacrebleu

    texts = ["The hall is shut until May.", "The hall is closed until May.", "The hall is shut until 3 May.", "Fish swim."]
    scores = by_consensus([sample(text, n, teacher="ab"[n % 2]) for n, text in enumerate(texts)])
    chrf = sacrebleu.CHRF()
    first = sum(chrf.sentence_score(texts[0], [other]).score for other in texts[1:]) / 3
    assert scores[0] == pytest.approx(first) and max(range(4), key=lambda n: scores[n] or 0) == 0  # type: ignore[arg-type]
    assert scores[3] == min(score for score in scores if score is not None)
    assert by_consensus([sample("alone")]) == [0] and by_consensus([sample("one"), sample("one", 1)]) == [100, 100]


def test_tied_answers_have_the_same_score() -> None:
    assert by_vote([sample(text) for text in ("a", "b", "B", "A")], extractor("text")) == [0.5] * 4


def test_what_a_completion_invents_lowers_its_faithfulness() -> None:
    faithful, invented, empty, number, name = by_faithfulness(
        [
            sample("The library on Mill Lane is shut from 3 to 10 May while Ann Petrov's team mends it for $1200."),
            sample("Closed until 12 June, says Bob Stone."),
            sample("It is shut for now."),
            sample("It is shut for 9 days from 3 May."),
            sample("It is shut, says Bob, from 3 May."),
        ]
    )
    assert faithful == 1
    assert invented == 0
    assert empty == 1
    assert number == name == pytest.approx(2 / 3)


def test_filter_and_eval_count_faithfulness_alike() -> None:
    text = "It is shut, says Bob, from 3 May."
    (score,) = by_faithfulness([sample(text)])
    assert score is not None and METRICS["faithfulness"].score(Item(text, source=NOTICE)) == pytest.approx(100 * score)


def test_names_are_capitals_inside_a_sentence() -> None:
    assert names('Shut. "Come on Friday," I say: Please\nNote: - Ask Ann-Marie O’Neil. (Thanks)') == [
        "Friday",
        "Ann-Marie",
        "O’Neil",
    ]


def test_a_mean_logprob_is_read_from_the_sidecar(tmp_path: Path) -> None:
    def reply(*logprobs: object) -> dict[str, object]:
        return {"choices": [{"logprobs": {"content": [{"token": "x", "logprob": value} for value in logprobs]}}]}

    sidecar = tmp_path / "logprobs.parquet"
    with pytest.raises(UsageError, match=r"no .*logprobs\.parquet"):
        teacher_means(sidecar)
    rows = [("p:t:0", reply(-0.5, -1)), ("p:t:1", reply(-0.25)), ("p:t:2", reply()), ("p:t:3", {"choices": [{}]})]
    assert write_logprobs(sidecar, rows) == 2
    samples = [sample(text, n) for n, text in enumerate("abcd")]
    assert by_logprob(samples, teacher_means(sidecar)) == [-0.75, -0.25, None, None]


def test_scores_do_not_depend_on_the_order_of_the_samples() -> None:
    gold = "Shut until 10 May."
    texts = ["Shut until 10 May.", "Closed till 10 May!", "Open in June, 11 o'clock", ""]
    samples = [sample(text, n, reference=gold) for n, text in enumerate(texts)]
    for score in (
        lambda some: by_reference(some, "chrf"),
        lambda some: by_reference(some, "bleu"),
        lambda some: by_vote(some, extractor("number")),
        by_faithfulness,
        by_consensus,
    ):
        expected = dict(zip((s.id for s in samples), score(samples), strict=True))
        for order in itertools.permutations(samples):
            assert dict(zip((s.id for s in order), score(order), strict=True)) == expected


@pytest.mark.parametrize("text", ["", "\x00\ud800", "A " * 50_000, "9" * 50_000, "“" * 50_000, "\n- " * 20_000, "{{ 7 * 7 }}"])
def test_hostile_text_gets_a_score_in_time(text: str) -> None:
    hostile = [replace(sample(text), reference="Shut until 10 May.")]
    began = time.process_time()
    assert all(score is not None and 0 <= score <= 1 for score in by_faithfulness(hostile))
    by_vote(hostile, extractor("text"))
    assert time.process_time() - began < 10
    assert len(by_reference(hostile, "chrf")) == 1
