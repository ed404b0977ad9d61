"""Metrics of one answer: a table of cases for each, and values that other libraries computed."""

import json
import random
import time
from itertools import permutations

import pytest
import sacrebleu

from seqdistill.metrics import METRICS, PRIMARY, Item, measures
from seqdistill.metrics.classes import confusion, kappa, label, macro_f1, recalls
from seqdistill.metrics.structured import field_f1
from seqdistill.metrics.text import bleu, rouge_l, token_f1, words
from seqdistill.stages.filter.scoring.answers import normal

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
        # as SQuAD's own script (evaluate-v1.1) scores them: punctuation goes before words are parted
        ("1,000", "1000", 100.0),
        ("U.S.", "US", 100.0),
        ("O'Brien", "OBrien", 100.0),
        ("1.5", "1.7", 0.0),
        ("2-3", "2-4", 0.0),
        ("$1.5 million", "1.5 million", 100.0),
        ("the two-thirds", "two thirds", 0.0),
        ("«Paris»", "Paris", 100.0),  # and so does that of other scripts
        ("東京です。", "東京だ", 200 * 2 / 7),  # each character of a script without spaces
        ("दिन", "दान", 0.0),  # a vowel's sign is part of its word
        ("यह किताब है।", "यह किताब है", 100.0),
    ],
)
def test_token_f1_is_that_of_squad(text: str, wanted: str, score: float) -> None:
    assert token_f1(text, wanted) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("दिन दान", ["दिन", "दान"]),
        ("Bus 7 stops at Mill-Lane", ["bus", "7", "stops", "at", "mill", "lane"]),
        ("bus図書館は", ["bus", "図", "書", "館", "は"]),
        ("كَتَبَ", ["كَتَبَ"]),
        ("cafe\u0301_au", ["cafe\u0301", "au"]),
        ("தமிழ்", ["தமிழ்"]),
    ],
)
def test_words_keep_the_marks_on_their_letters(text: str, found: list[str]) -> None:
    assert words(text) == found
    assert rouge_l("दिन", "दान") == 0.0


@pytest.mark.parametrize(
    "text",
    ["Paris.", "«Paris»", "„Paris“", "“Paris.”", " paris ", "**Paris**", "Ｐａｒｉｓ", "「Paris」。", "Paris।", "'Paris'."],
)
def test_quotes_and_a_full_stop_of_any_script_are_no_part_of_a_short_answer(text: str) -> None:
    assert METRICS["normalised"].score(Item(text, "Paris")) == 100.0
    assert label(text, ("Paris", "Rome")) == "Paris"
    assert normal(text) == "paris", "filter's vote counts them as one answer"


@pytest.mark.parametrize(
    ("said", "choices", "found"),
    [
        ("正面。", ("正面", "负面"), "正面"),
        ("「正面」", ("正面", "负面"), "正面"),
        ("सकारात्मक।", ("सकारात्मक", "नकारात्मक"), "सकारात्मक"),
        ("Ｂ", ("A", "B"), "B"),
        ("yes!", ("yes", "no"), "yes"),
        ("(B)", ("A", "B"), "B"),
        ("**b)**", ("A", "B"), "B"),
        ("B:", ("A", "B"), "B"),
        ("（Ｂ）", ("A", "B"), "B"),
        ("(B)", ("A", "B", "(b)"), None),
        ("\u200bB", ("A", "B"), "B"),
        ("- B", ("A", "B"), "B"),
        ("## __yes__", ("yes", "no"), "yes"),
        ("نعم\u200f؟", ("نعم؟", "لا"), "نعم؟"),
        ("(-1)", ("1", "-1"), "-1"),
        ("- 1", ("1", "-1"), None),
        ("", ("?", "yes"), None),
        ("c#", ("C", "C#"), "C#"),
        ("C", ("A", "C++"), None),
        ("正负", ("正面", "负面"), None),
    ],
)
def test_a_choice_is_read_in_any_script(said: str, choices: tuple[str, ...], found: str | None) -> None:
    assert label(said, choices) == found


def test_a_metric_is_known_to_recipe_table_and_tables_heads_by_its_one_entry() -> None:
    assert METRICS["token_f1"].heading == "token F1" and {"token_f1", "token_f1_reference"} <= set(PRIMARY)
    assert "token_f1_teacher" in [measure.name for measure in measures("text")]
    assert "token_f1_teacher" not in [measure.name for measure in measures("choices")]


def test_a_metric_that_needs_an_extra_is_measured_only_where_it_decides() -> None:
    for primary, columns in (
        (None, []),
        ("chrf", []),
        ("math", ["math_teacher", "math_reference"]),
        ("math_reference", ["math_teacher", "math_reference"]),
    ):
        assert [measure.name for measure in measures("text", primary=primary) if measure.metric.name == "math"] == columns
    assert measures("choices", primary="math") == measures("choices")


def item(text: str, wanted: str = "", kind: str = "text", choices: tuple[str, ...] = (), reason: str | None = "stop") -> Item:
    return Item(text, wanted, kind, choices, None, reason)


@pytest.mark.parametrize(
    ("name", "text", "wanted", "score"),
    [
        ("exact", " The cat\n sat. ", "The cat sat.", 100.0),
        ("exact", "the cat sat.", "The cat sat.", 0.0),
        ("normalised", "The Cat.", "the cat", 100.0),
        ("normalised", '"ＰＡＲＩＳ"', "Paris", 100.0),
        ("normalised", "Paris, France", "Paris", 0.0),
        ("numeric", "The total is 1,050.", "1050", 100.0),
        ("numeric", "first 3, then 4", "4", 100.0),
        ("numeric", "1000001", "1000002", 0.0),
        ("numeric", "0.3333333", "0.33333333", 100.0),
        ("numeric", "−5", "-5.0", 100.0),
        ("numeric", "6e6", "6000000", 100.0),
        ("numeric", "007", "7", 100.0),
        ("numeric", "none", "7", 0.0),
        ("numeric", "7", "3 or 4", None),
        ("numeric", "7", "seven", None),
        ("math", r"So it is $\frac{2}{4}$.", "1/2", 100.0),
        ("math", r"\boxed{x + 1}", "$1 + x$", 100.0),
        ("math", "It is 41.", "42", 0.0),
        ("math", "", "42", 0.0),
        ("math", "42", "", None),
    ],
)
def test_what_a_text_scores(name: str, text: str, wanted: str, score: float | None) -> None:
    assert METRICS[name].score(item(text, wanted)) == score


@pytest.mark.parametrize(
    ("text", "wanted", "score"),
    [
        ("The library is shut on Monday.", SHARED, 80.0),
        ("the cat sat on the mat", "the mat sat on the cat", 66.66666666666666),
        ("one two", "three", 0.0),
        ("Bus 7 stops at Mill-Lane until 3 May", "bus 7 halts at mill lane until may 3", 77.77777777777779),
        ("a b a b a c", "a a a b c c", 66.66666666666666),
    ],
)
def test_rouge_l_is_that_of_rouge_score(text: str, wanted: str, score: float) -> None:
    """rouge-score 0.1.2: RougeScorer(["rougeL"]).score(wanted, text)["rougeL"].fmeasure."""
    assert rouge_l(text, wanted) == pytest.approx(score)


def test_rouge_l_reads_scripts_without_spaces() -> None:
    assert rouge_l("図書館は休み", "図書館は月曜休み") == pytest.approx(200 * 6 / 14)


def test_words_are_read_in_thai_lao_burmese_and_khmer() -> None:
    for text, wanted, count in (("วันนี้อากาศดีมาก", "วันนี้อากาศดี", 16), ("ຂ້ອຍຮັກເຈົ້າ", "ຂ້ອຍຮັກ", 9), ("နေကောင်းလား", "နေကောင်း", 7)):
        assert 0 < rouge_l(text, wanted) < 100 and 0 < token_f1(text, wanted) < 100
        assert len(words(text)) <= count and "".join(words(text)) == text


@pytest.mark.parametrize(
    ("text", "wanted", "tokenize"),
    [
        ("这是一个很好的例子，我们可以学习。", "这是一个很好的例证，我们可以学习。", "zh"),
        ("今日はとても良い天気ですね。", "今日はとてもいい天気ですね。", "char"),
        ("วันนี้อากาศดีมาก", "วันนี้อากาศดีครับ", "char"),
        ("오늘 날씨가 정말 좋네요 그렇죠", "오늘 날씨가 정말 좋네요 아니죠", "13a"),
        ("The word 字 is written with six strokes", "The word 字 is written with seven strokes", "13a"),
    ],
)
def test_bleu_parts_words_as_the_wanted_text_is_written(text: str, wanted: str, tokenize: str) -> None:
    expected = sacrebleu.sentence_bleu(text, [wanted], use_effective_order=True, tokenize=tokenize).score
    assert bleu(text, wanted) == expected > 0


def test_bleu_is_sacrebleus_sentence_bleu() -> None:
    text = "The library is shut on Monday."
    assert bleu(text, SHARED) == sacrebleu.sentence_bleu(text, [SHARED], use_effective_order=True).score


@pytest.mark.parametrize(
    ("text", "wanted", "f1", "exact"),
    [
        ('{"a": 1, "b": "x y"}', '{"b": "x  y", "a": 1.0}', 100.0, 0.0),
        ('{"a": 1}', '{"a": 1.0}', 100.0, 100.0),
        ('```json\n{"a": 1}\n```', '{"a": 1}', 100.0, 100.0),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 50.0, 0.0),
        ('{"a": 1}', '{"a": 1, "b": 3}', 200 / 3, 0.0),
        ('{"tags": ["x", "y"]}', '{"tags": ["y", "x"]}', 100.0, 0.0),
        ('{"a": true}', '{"a": 1}', 0.0, 0.0),
        (  # objects that are mixed up
            '[{"type": "LOC", "text": "Paul"}, {"type": "PER", "text": "Paris"}]',
            '[{"type": "PER", "text": "Paul"}, {"type": "LOC", "text": "Paris"}]',
            50.0,
            0.0,
        ),
        (
            '{"items": [{"name": "pen", "qty": 1, "price": 9.5}, {"name": "desk", "qty": 9, "price": 1.2}]}',
            '{"items": [{"name": "pen", "qty": 9, "price": 1.2}, {"name": "desk", "qty": 1, "price": 9.5}]}',
            200 / 3,
            0.0,
        ),
        ('[{"a": 1, "b": 2}, {"a": 3, "b": 4}]', '[{"b": 4, "a": 3.0}, {"a": 1, "b": 2}]', 100.0, 0.0),
        ("[[1, 2], [3, 4]]", "[[1, 4], [3, 2]]", 50.0, 0.0),
        ('[{"t": ["x", "y"]}, {"t": ["z"]}]', '[{"t": ["z"]}, {"t": ["y", "x"]}]', 100.0, 0.0),
        ('[{"a": 1, "b": 2}]', '[{"a": 1, "b": 2}, {"a": 1, "b": 3}]', 200 / 3, 0.0),
        ('[{"a": 1, "b": 2}, {"a": 1, "b": 2}]', '[{"a": 1, "b": 2}]', 200 / 3, 0.0),
        ('{"a": [1, 1, 2]}', '{"a": [1, 2, 2]}', 200 / 3, 0.0),
        ('{"a": [{"x": 1}]}', '{"a": {"x": 1}}', 0.0, 0.0),
        ('{"a": "x"}', '{"a": ["x"]}', 0.0, 0.0),
        ('{"a": "1"}', '{"a": 1}', 0.0, 0.0),
        (
            '[{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "c": 6}]',
            '[{"a": 1, "b": 5, "c": 3}, {"a": 1, "b": 2, "c": 6}]',
            200 / 3,
            0.0,
        ),
        ('{"a": {}}', '{"a": {}}', 100.0, 100.0),
        ('{"a": NaN}', '{"a": null}', 0.0, 0.0),
        ('{"a": "NaN"}', '{"a": "NaN"}', 100.0, 100.0),
        ("I think a is 1.", '{"a": 1}', 0.0, 0.0),
        ("[" * 4000, '{"a": 1}', 0.0, 0.0),
        ("free", "text", None, 0.0),
    ],
)
def test_json_is_compared_parsed(text: str, wanted: str, f1: float | None, exact: float) -> None:
    assert METRICS["field_f1"].score(item(text, wanted, "schema")) == (f1 if f1 is None else pytest.approx(f1))
    assert METRICS["exact"].score(item(text, wanted, "schema")) == exact


def test_the_items_of_lists_are_paired_so_that_most_fields_agree() -> None:
    """Against every pairing."""
    rng = random.Random(3)
    for _ in range(60):
        one, other = ([[rng.randrange(3) for _ in "abc"] for _ in range(rng.randint(1, 5))] for _ in "xy")
        few, many = sorted((one, other), key=len)
        most = max(
            sum(a == b for left, right in zip(few, picked, strict=True) for a, b in zip(left, right, strict=True))
            for picked in permutations(many, len(few))
        )
        text, wanted = (json.dumps([dict(zip("abc", row, strict=True)) for row in rows]) for rows in (one, other))
        assert field_f1(text, wanted) == pytest.approx(200 * most / (3 * len(one) + 3 * len(other)))


def test_long_lists_of_objects_are_compared_in_bounded_time() -> None:
    rows = [{"id": n, "x": n / 7, "tags": [n % 3, "a"]} for n in range(2000)]
    began = time.process_time()
    assert field_f1(json.dumps([{**row, "x": 0} for row in rows]), json.dumps(rows)) == pytest.approx(75, abs=0.1)
    assert field_f1(json.dumps(rows[::-1]), json.dumps(rows)) == 100
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("text", "found"),
    [("yes", "yes"), (" yes\n", "yes"), ("Yes.", "yes"), ('"no"', "no"), ("maybe", None), ("", None), ("yes and no", None)],
)
def test_a_label_is_read_case_and_full_stop_aside(text: str, found: str | None) -> None:
    assert label(text, ("yes", "no")) == found


def test_choices_that_differ_by_case_alone_are_distinct() -> None:
    assert [label(text, ("a", "A", "b")) for text in ("a", "A", "B", "a.")] == ["a", "A", "b", None]


def test_accuracy_is_of_prompts_whose_wanted_answer_is_a_choice() -> None:
    score = METRICS["accuracy"].score
    assert [score(item(*pair, "choices", ("yes", "no"))) for pair in (("Yes", "yes"), ("no", "yes"), ("no", "?"))] == [
        100,
        0,
        None,
    ]


TRUE = [("a", "b", "c")[n % 3] for n in range(30)]
SAID = [("a", "b", "c")[(n + (n % 7 == 0) + (n % 4 == 0)) % 3] for n in range(30)]


def test_macro_f1_kappa_and_recall_are_those_of_scikit_learn() -> None:
    """scikit-learn 1.9.1: f1_score(average="macro"), cohen_kappa_score, confusion_matrix, recall_score(average=None)."""
    table = confusion(TRUE, SAID, "abc").sum(axis=0)
    assert table[:, :3].tolist() == [[6, 3, 1], [1, 6, 3], [3, 0, 7]]
    assert float(macro_f1(table)) == pytest.approx(63.27485380116958)
    assert float(kappa(table)) == pytest.approx(0.45)
    assert recalls(table) == pytest.approx([60.0, 60.0, 70.0])


def test_an_answer_that_is_no_choice_is_a_miss_and_no_class_of_its_own() -> None:
    table = confusion(["a", "a", "b"], ["a", None, "b"], "abc").sum(axis=0)
    assert table.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert float(macro_f1(table)) == pytest.approx(100 * (2 / 3 + 1) / 2) and recalls(table) == [50.0, 100.0, None]


@pytest.mark.parametrize(
    ("name", "text", "reason", "score"),
    [
        ("stopped", "x", "stop", 100.0),
        ("stopped", "x", None, None),
        ("truncated", "x", "length", 100.0),
        ("repeats", "no no no no no no no no no no no no", "stop", 100.0),
        ("repeats", "A plain sentence that says one thing after another.", "stop", 0.0),
        ("refused", "I'm sorry, but I can't help with that.", "stop", 100.0),
        ("refused", "As an AI language model, I cannot do so.", "stop", 100.0),
        ("refused", "I can do that: the bus is late.", "stop", 0.0),
        ("refused", "Sorry for the delay: the bus is late.", "stop", 0.0),
    ],
)
def test_how_an_answer_behaves(name: str, text: str, reason: str | None, score: float | None) -> None:
    assert METRICS[name].score(item(text, reason=reason)) == score
