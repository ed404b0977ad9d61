"""Contamination: 1,000 planted test items are found in every disguise, and clean rows are left alone."""

import json
import random
import re
from pathlib import Path

import pytest
from filter_runs import filtered, make_run, rows_of, rules_of, sample

from seqdistill.recipe.tables import ContaminationConfig
from seqdistill.records import Prompt
from seqdistill.stages.filter.checks.contamination import Hit, ItemIndex, held, items_of
from seqdistill.stages.filter.checks.words import words

NOUNS = [
    "harbour",
    "castle",
    "engine",
    "violin",
    "garden",
    "teacher",
    "river",
    "comet",
    "ladder",
    "basket",
    "window",
    "lawyer",
    "market",
    "pigeon",
    "tunnel",
    "bakery",
]
VERBS = [
    "repairs",
    "paints",
    "watches",
    "sells",
    "follows",
    "measures",
    "borrows",
    "visits",
    "explains",
    "lifts",
    "counts",
    "forgets",
]
WHERE = [
    "in spring",
    "at night",
    "near the old mill",
    "after the war",
    "on the hill",
    "under the bridge",
    "by the sea",
    "since last year",
]
ASKS = ["Why is it that", "Explain how", "Write about the day when", "Tell me whether", "Prove that", "Is it true that"]


def question(rng: random.Random) -> str:
    """A prompt of 15 to 40 words."""
    clauses = [
        f"the {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.randint(2, 99)} {rng.choice(NOUNS)}s {rng.choice(WHERE)}"
        for _ in range(rng.randint(2, 4))
    ]
    return f"{rng.choice(ASKS)} {', and '.join(clauses)}?"


def disguised(text: str, how: int, rng: random.Random) -> str:
    """The text verbatim, cased, re-punctuated, embedded in a longer one, respaced, or with other numbers."""
    match how:
        case 0:
            return text
        case 1:
            return text.upper() if rng.random() < 0.5 else text.title()
        case 2:
            return text.replace(",", rng.choice([";", " -", "", " ..."])).replace("?", rng.choice(["", "!", " ??", "."]))
        case 3:
            return f"{question(rng)} Before that, please answer this one: {text} Then go on with the rest. {question(rng)}"
        case 4:
            return "\n".join(text.replace(" ", "  ").split(", "))
    return "".join(str(rng.randint(0, 9)) if c.isdigit() else c for c in text)


def prompt(number: int, text: str, reference: str | None = None) -> Prompt:
    messages = [{"role": "user", "content": text}]
    return Prompt(f"t{number}", messages, messages, reference)


def look(index: ItemIndex, texts: list[str], side: str = "prompt") -> list[Hit]:
    return index.look(side, texts, words(texts))


def test_a_thousand_planted_items_are_found_and_clean_rows_are_left_alone() -> None:
    rng = random.Random(8)
    tests = list(dict.fromkeys(question(rng) for _ in range(1000)))
    index = ItemIndex(items_of([prompt(n, text) for n, text in enumerate(tests)], "test.jsonl"), ContaminationConfig())
    planted = [disguised(text, number % 6, rng) for number, text in enumerate(tests)]
    clean = [text for text in (question(rng) for _ in range(5000)) if text not in tests]
    hits = look(index, planted)
    right = [hit for hit in hits if index.items[hit.item].test == f"t{hit.row}"]
    assert len({hit.row for hit in hits}) >= 0.99 * len(tests) and len(right) >= 0.99 * len(hits)
    assert {hit.kind for hit in hits} >= {"exact", "masked", "n-gram"}
    assert len(look(index, clean)) <= 0.01 * len(clean)


def test_the_audit_holds_in_completions_too() -> None:
    rng = random.Random(9)
    references = list(dict.fromkeys(question(rng) for _ in range(500)))
    tests = [prompt(n, f"item {n}", text) for n, text in enumerate(references)]
    index = ItemIndex(items_of(tests, "test.jsonl"), ContaminationConfig())
    planted = [disguised(text, number % 5, rng) for number, text in enumerate(references)]
    clean = [question(rng) for _ in range(2000)]
    assert len(look(index, planted, "completion")) >= 0.99 * len(planted)
    assert len(look(index, clean, "completion")) <= 0.01 * len(clean)


def test_the_demo_s_templated_test_set_takes_none_of_its_training_prompts() -> None:
    folder = Path(__file__).parent.parent / "prompts" / "notices"
    train, tests = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()] for name in ("prompts.jsonl", "test.jsonl")
    )
    items = items_of([prompt(n, row["prompt"], row["reference"]) for n, row in enumerate(tests)], "t")
    index = ItemIndex(items, ContaminationConfig())
    assert look(index, [row["prompt"] for row in train]) == []
    assert len(look(index, [row["reference"] for row in train], "completion")) <= 0.01 * len(train)
    assert len(look(index, [row["prompt"] for row in tests])) == len(tests)


def test_typing_errors_and_joined_words_do_not_hide_an_item() -> None:
    rng = random.Random(4)
    text = " ".join(question(rng) for _ in range(3))
    index = ItemIndex(items_of([prompt(0, text)], "t"), ContaminationConfig())
    found = text.split()
    typos = " ".join(word + "s" if place % 9 == 4 else word for place, word in enumerate(found))
    joined = "".join(word if place % 12 == 5 else word + " " for place, word in enumerate(found))
    for changed in (typos, joined):
        (hit,) = look(index, [changed])
        assert hit.share >= 0.7
    assert held("the same text here", "THE SAME, text here!") == 1.0


def test_short_items_are_found_whole_only() -> None:
    items = items_of([prompt(0, "What is 2 + 2?"), prompt(1, "What is the capital of France?")], "t")
    index = ItemIndex(items, ContaminationConfig())
    texts = ["what is 2 + 2", "What is 2 + 3?", "What is the capital of Spain?", "Tell me: what is the capital of France?"]
    assert [(hit.row, hit.kind) for hit in look(index, texts)] == [(0, "exact"), (3, "n-gram")]


def test_a_short_reference_proves_nothing() -> None:
    items = items_of([prompt(0, "Is the river deep at this place in spring?", "Yes, it is.")], "t")
    index = ItemIndex(items, ContaminationConfig())
    assert look(index, ["Yes, it is."], "completion") == []


def test_a_long_template_that_all_items_share_proves_nothing() -> None:
    template = (
        "You are a careful clerk. Read the text below and answer with one word, positive or negative, and nothing else. Text: "
    )
    rng = random.Random(6)
    index = ItemIndex(items_of([prompt(n, template + question(rng)) for n in range(100)], "t"), ContaminationConfig())
    assert look(index, [template + question(rng) for _ in range(500)]) == []


def test_unspaced_scripts_are_compared_too() -> None:
    index = ItemIndex(
        items_of([prompt(0, "日本で一番高い山は何ですか、そしてその高さは何メートルですか。")], "t"), ContaminationConfig()
    )
    assert (
        len(
            look(
                index,
                ["次の質問に答えて:日本で一番高い山は何ですか そしてその高さは何メートルですか?", "日本の山は好きですか。"],
            )
        )
        == 1
    )


def test_further_test_sets_can_be_added_and_hits_stand_beside_their_items(tmp_path: Path) -> None:
    rng = random.Random(1)
    first, second = question(rng), question(rng)
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": first}) + "\n")
    (tmp_path / "two.csv").write_text(f'prompt\n"{second}"\n')
    rows = [sample(question(rng), "A clean answer.") for _ in range(30)]
    rows += [sample("Say: " + first.lower(), "An answer."), sample("Guess what they ask", f"They ask: {second}")]
    run = make_run(tmp_path / "run", rows)
    filtered(run, tmp_path / "one.jsonl", contamination={"against": [str(tmp_path / "two.csv")]})
    assert rules_of(run) == {rows[-2].id: "contamination", rows[-1].id: "contamination"}
    hits = json.loads(run.file("filter", "report.json").read_text())["contamination"]["hits"]
    assert [(hit["side"], hit["test_text"], hit["test_source"]) for hit in hits] == [
        ("prompt", first, "one.jsonl"),
        ("completion", second, "two.csv"),
    ]
    assert all("of test item" in row["reason"] for row in rows_of(run, "rejected.jsonl"))


@pytest.mark.parametrize("texts", [[], [""], ["", "x"]])
def test_nothing_to_look_for_finds_nothing(texts: list[str]) -> None:
    assert look(ItemIndex([], ContaminationConfig()), texts) == []


# --- what is left out, put in, or shared ----------------------------------------------------------------------------------

QUESTION = "A farmer has seventeen sheep and sells all but nine of them at the market of the next town; how many are left?"
OPTIONS = "\nA) eight\nB) nine\nC) seventeen\nD) none of these, as he bought more of them on the way home"
DOCSTRING = "Return the longest run of equal neighbours in a list of words, the first one where several are as long."
FUNCTION = (
    "from collections.abc import Sequence\n\n\ndef longest_run(words: Sequence[str], ignore_case: bool = False) -> list[str]:\n"
    f'    """{DOCSTRING}\n\n    >>> longest_run(["a", "b", "b", "c"])\n    ["b", "b"]\n    """\n'
)


def every(text: str, step: int) -> str:
    """The text with one more word after every `step` words."""
    found = text.split()
    return " ".join(word + (" indeed" if number % step == 0 else "") for number, word in enumerate(found, 1))


@pytest.mark.parametrize(
    ("test", "row"),
    [
        (QUESTION + OPTIONS, QUESTION),
        (QUESTION + OPTIONS, f"Please answer: {QUESTION}"),
        (FUNCTION, f"Write a function in Python. {DOCSTRING}"),
        (QUESTION, every(QUESTION, 7)),
        (QUESTION + " " + DOCSTRING, every(QUESTION + " " + DOCSTRING, 7)),
        (
            "Why is the sky blue on a clear day in summer?",
            "Why is the sky b\u200blue on a cl\u00adear d\u2060ay in sum\u200dmer?",
        ),
        (QUESTION, re.sub("([aeiou])", "\\1\u00ad", QUESTION)),
        ("What is 5 + (3 - 9) at noon in the north?", "What is 5 + (3 − 9) at noon, in the north?"),
        ("At −4 degrees, does salt water freeze?", "at -4 degrees does salt water freeze"),
        ("关于光合作用的下列说法，正确的是（ ）。\nA、需要光\nB、不需要水", "关于光合作用的下列说法，正确的是"),
        ("关于光合作用的下列说法，正确的是（ ）。\nA．需要光\nB．不需要水", "请回答：关于光合作用的下列说法，正确的是"),
        ("关于光合作用的下列说法，正确的是（ ）。\nA.需要光\nB.不需要水", "关于光合作用的下列说法，正确的是（ ）"),
        ("关于光合作用的下列说法，正确的是（ ）。①需要光 ②不需要水", "关于光合作用的下列说法，正确的是"),
        ("关于光合作用的下列说法，正确的是（ ）。（A）需要光 （B）不需要水", "关于光合作用的下列说法，正确的是"),
        ("Which gas do plants take up by day? (A) oxygen (B) carbon dioxide (C) neon", "Which gas do plants take up by day?"),
        ("Which gas do plants take up by day? A. oxygen B. carbon dioxide", "Tell me: which gas do plants take up by day?"),
        ("Which gas do plants take up by day?\nA: oxygen\nB: neon", "Which gas do plants take up by day?"),
        ("Which gas do plants take up by day? Options: oxygen, neon", "Which gas do plants take up by day?"),
        # a long question is itself, with whatever options
        (QUESTION + OPTIONS, QUESTION + "\nA) one\nB) two\nC) three"),
        # a short one with its own options, in another order or with other letters
        (
            "Which is NOT a source of atmospheric carbon?\n1) Fossil fuels\n2) Rotting\n3) Photosynthesis\n4) Respiration",
            "Which is NOT a source of atmospheric carbon? (A) Respiration (B) Photosynthesis (C) Rotting (D) Fossil fuels",
        ),
        ("下列说法正确的是（ ）。\nA、需要光\nB、不需要水", "下列说法正确的是（ ）。A. 不需要水 B. 需要光"),
        ("Which is true?\nA. salt melts ice\nB. iron floats", "Which is true?\nA. iron floats\nB. salt melts ice"),
        ("What is the capital of France?", "Answer in one word. What is the capital of France? Be quick."),
    ],
)
def test_an_item_is_found_without_its_options_its_signature_or_with_words_between(test: str, row: str) -> None:
    index = ItemIndex(items_of([prompt(0, test)], "t"), ContaminationConfig())
    assert [hit.row for hit in look(index, [row, "What is the capital of the country to the north of this one?"])] == [0]


@pytest.mark.parametrize(
    ("tests", "row"),
    [
        (["How many seeds did they plant?"], "How many seeds did they plant in each of the beds?"),
        (["Which of the following is a true statement?"], "Which of the following is a true statement about tests?"),
        (["Which is true?\nA. salt melts ice\nB. iron floats"], "Which is false?\nA. iron floats\nB. salt melts ice"),
        (["Complete the sequence of brackets: { [ ( ) ]"], "Complete the sequence of brackets: ( [ { } )"),
        (  # one gram of each item is its own, the others are of all
            [f"How many kids did she play with on {day}?" for day in ("Monday", "Friday", "Sunday", "Tuesday", "Saturday")],
            "How many more kids did she play with on Monday than on Tuesday?",
        ),
    ],
)
def test_a_short_item_is_not_found_in_another_task_with_some_of_its_words(tests: list[str], row: str) -> None:
    index = ItemIndex(items_of([prompt(n, text) for n, text in enumerate(tests)], "t"), ContaminationConfig())
    assert look(index, [row]) == []


@pytest.mark.parametrize(
    ("stem", "label"),
    [
        ("Which of the following statements is correct?", "\n{}. "),
        ("Which of the following statements is correct?", " ({}) "),
        ("Choose the best answer from the list below.", "\n({}) "),
        ("下列说法正确的是（ ）。", "\n{}. "),
        ("下列说法正确的是（ ）。", "\n{}、"),
        ("下列说法正确的是（ ）。", "\n{}．"),
        ("下列关于此事的说法正确的是：", " {}."),
    ],
)
def test_a_stock_question_with_options_of_its_own_is_another_question(stem: str, label: str) -> None:
    def choice(*options: str) -> str:
        return stem + "".join(label.format(letter) + option for letter, option in zip("ABC", options, strict=True))

    test = choice("光在界面上发生折射", "热量从冷处流向热处", "质量随地点改变")
    index = ItemIndex(items_of([prompt(0, test)], "t"), ContaminationConfig())
    others = [
        choice("黄河流入东海", "北京在江苏省", "泰山在四川省"),
        choice("a sonnet has 14 lines", "an ode none", "a haiku 9"),
        f"{stem} (1) a sonnet has 14 lines (2) an ode has none",
    ]
    for side in ("prompt", "completion"):
        assert [hit.row for hit in look(index, [*others, test], side)] == [len(others)]


def test_a_task_whose_wording_is_its_template_is_not_wiped_by_a_test_set_of_many_tasks(tmp_path: Path) -> None:
    rng = random.Random(3)
    frame = (
        "You are given a short review of a product that was bought in a shop. Decide what the buyer thinks of it and of "
        "the shop, and write one word for each of them, with a comma between. The review, which may be cut off, is this: "
    )
    tests = [{"prompt": frame + "nice"}, *({"prompt": question(rng)} for _ in range(300))]
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in tests))
    rows = [sample(f"{frame}{noun} {verb}", f"{noun}, {verb}", slice="reviews") for noun in NOUNS for verb in VERBS]
    rows += [sample(tests[5]["prompt"], "It is so.")]
    result = filtered(make_run(tmp_path / "run", rows), test, near_duplicates={"scope": "off"})
    assert result.by_rule == {"contamination": 1}
    assert any("192 rows share most of their wording with a test item" in warning for warning in result.warnings)


def test_equal_answers_are_no_leak_where_answers_have_a_form(tmp_path: Path) -> None:
    def answer(age: int) -> str:
        return json.dumps({"name": "Ann", "age": age, "town": "Ashby", "member": True, "since": 2019, "plan": "family gold"})

    test = tmp_path / "test.jsonl"
    leaked = "Read this card and write what it says: Ann of Ashby, a member since 2019 with the family gold plan, is 31."
    test.write_text(json.dumps({"prompt": leaked, "reference": answer(31)}) + "\n")
    others = [f"{question(random.Random(n))} Ann is {n}." for n in range(20, 40)]
    rows = [sample(text, answer(20 + number)) for number, text in enumerate(others)]
    rows.append(sample(leaked + " Go!", answer(32)))
    run = make_run(tmp_path / "run", rows)
    filtered(run, test, near_duplicates={"scope": "off"})
    assert rules_of(run) == {rows[-1].id: "contamination"}


@pytest.mark.parametrize(
    ("tests_with_it", "rows_with_it", "reference"),
    [
        (10, 20, "The question cannot be answered from the given context."),
        (2, 2, "The question cannot be answered from the given context."),
        (1, 12, "I'm sorry, but I cannot find that in the document."),
        (1, 4, "I'm sorry, but I cannot find that in the document."),
        (1, 2, "The text does not say how much the tickets cost."),
        (1, 2, "文章中没有提到这张票的价格是多少。"),
        (3, 12, "这个问题无法根据所给的上下文来回答。"),
        (2, 6, "The claim is neither supported nor refuted by the passage that is quoted."),
        (300, 6, "Yes, the two sentences mean the same thing to a reader."),
    ],
)
def test_an_answer_that_many_questions_have_is_no_leak_but_with_its_question(
    tests_with_it: int, rows_with_it: int, reference: str, tmp_path: Path
) -> None:
    rng = random.Random(7)
    test, asked = tmp_path / "test.jsonl", [question(rng) for _ in range(tests_with_it)]
    variants = (reference, reference.rstrip(".。"), reference.upper())  # punctuation and case make no other answer
    test.write_text(
        "".join(json.dumps({"prompt": text, "reference": variants[n % 3]}) + "\n" for n, text in enumerate(asked))
        + json.dumps({"prompt": question(rng), "reference": "The ferry was late, as its engine had broken down in the night."})
    )
    rows = [sample(question(rng), reference) for _ in range(rows_with_it)]
    leaked = [
        sample(asked[0] + " Be brief.", reference),
        sample("Tell me why.", "The ferry was late, as its engine had broken down in the night."),
    ]
    run = make_run(tmp_path / "run", [*rows, *leaked])
    result = filtered(run, test, near_duplicates={"scope": "off"}, integrity={"constant_share": 1.0})
    assert rules_of(run) == dict.fromkeys((row.id for row in leaked), "contamination"), result.warnings


def test_each_side_and_kind_can_be_switched_off(tmp_path: Path) -> None:
    reference = "The ferry was late again because its engine had broken down in the night and 3 men had to mend it."
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": QUESTION.replace("seventeen", "17"), "reference": reference}) + "\n")
    rows = [
        sample("Why was the ferry late?", reference),
        sample(QUESTION.replace("seventeen", "18"), "Nine of them are left, as the text says."),
        sample(QUESTION.replace("seventeen", "17"), "There are nine sheep left."),
        sample("Name a tree.", "An oak."),
    ]
    run = make_run(tmp_path / "run", rows)
    for keys, gone in (
        ({}, {0, 1, 2}),
        ({"completions": False}, {1, 2}),
        ({"masked": False, "overlap": 1.0}, {0, 2}),
        ({"action": "annotate"}, set()),
    ):
        filtered(run, test, near_duplicates={"scope": "off"}, validation=0.0, contamination=keys)
        assert set(rules_of(run)) == {rows[number].id for number in gone}, keys
    assert len(json.loads(run.file("filter", "report.json").read_text())["contamination"]["hits"]) == 3
