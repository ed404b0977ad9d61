"""What is a repetition, to filter and to eval: loops, and not tables, code, lists and JSON. A line a case."""

import json
from pathlib import Path

import pytest
from filter_runs import filtered, make_run, rules_of, sample

from seqdistill.metrics import METRICS, Item
from seqdistill.metrics.behaviour import repetition

FENCE = "```"
TABLE = "| Day | Open | Note |\n| --- | --- | --- |\n" + "\n".join(
    f"| {day} | yes | no note |" for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
)
CODE = f"{FENCE}python\nclass A:\n" + "\n".join(
    f"    def get_{name}(self):\n        return self.{name}\n\n    def set_{name}(self, value):\n        self.{name} = value\n"
    for name in ("a", "b", "c", "d", "e")
)
ROWS = f"{FENCE}\n" + "\n".join("0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1" for _ in range(9)) + f"\n{FENCE}"
SCHEMA = (
    "{\n"
    + ",\n".join(
        f'  "{name}": {{\n    "type": "string",\n    "required": true\n  }}'
        for name in ("name", "street", "city", "mail", "zip")
    )
    + "\n}"
)

ASPECTS = ["food", "staff", "price", "room", "view", "bed", "pool", "bar"]
PEOPLE = json.dumps(
    [{"name": one, "role": "engineer", "department": "R&D", "status": "active", "country": "DE"} for one in ASPECTS], indent=2
)

FINE = {
    "a table": TABLE,
    "code": CODE + FENCE,
    "rows of numbers": ROWS,
    "a JSON schema": SCHEMA,
    "a list with one wording": "\n".join(f"- Add {n} g of flour to the bowl and stir." for n in (10, 20, 30, 40, 50, 60)),
    "opening hours": "\n".join(
        f"* {day}: closed" for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Sunday")
    ),
    "a song with its chorus": "\n".join(
        f"Verse {n} of the song goes here\nAnd it has a second line {n}\nRow, row, row your boat\nGently down the stream"
        for n in range(4)
    ),
    "one answer in each line": "yes\nno\nyes\nyes\nno\nyes\nyes\nyes\nno\nyes",
    "Brainfuck": "++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>.",
    "a ruler": "Total\n" + "-" * 120 + "\n12",
    "the same digit in each line": "0\n" * 40,
    "token labels": "O O O O B-PER I-PER O O O O O O O O O B-LOC O O O O O O O O O",
    "labels of comments": "none none none none none favor none none none none none none none none",
    "labels with commas": "pos, pos, pos, pos, neg, pos, pos, pos, pos, pos, pos, neg, pos, pos, pos, pos, pos",
    "bits in words": "yes yes no yes yes yes no no yes yes yes yes yes no yes yes yes yes yes yes no",
    **{
        f"JSON, {name}{', ' + str(indent) if indent else ''}": json.dumps(value, indent=indent)
        for indent in (None, 2)
        for name, value in {
            "aspects": [
                {"aspect": one, "sentiment": "positive", "evidence": None, "explicit": True, "kind": "general"}
                for one in ASPECTS
            ],
            "people": [
                {"name": one, "role": "engineer", "team": "R&D", "status": "active", "manager": None} for one in ASPECTS
            ],
            "a schema": {one: {"type": "string", "description": "", "nullable": False, "maxLength": 255} for one in ASPECTS},
            "an object": {"results": [{"item": one, "found": True, "errors": [], "notes": None} for one in ASPECTS]},
            "a grid": [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]] * 5,
            "labels": {"labels": ["O", "O", "B-PER", "O", "O", "O", "O", "O"] * 4},
        }.items()
    },
    "JSON in a fence": f"Here it is:\n\n{FENCE}json\n{PEOPLE}\n{FENCE}\n\nSay so if a name is missing.",
    "JSON behind a label": f"Answer:\n{PEOPLE}",
    "JSON lines": "\n".join(json.dumps(one) for one in json.loads(PEOPLE)),
    "JSON that is cut off": PEOPLE[:-60],
    "JSON in many brackets": "[" * 900 + '"a"' + "]" * 900 + " " + '["a", ' * 5000,
    "Chinese": "北京是中国的首都，也是全国的政治、文化和国际交往中心。它有三千多年的历史。",
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_tables_code_and_lists_are_no_repetition(text: str) -> None:
    assert repetition(text) <= 0.5
    assert METRICS["repeats"].score(Item(text)) == 0, "what filter keeps is no repetition to eval either"


LOOPS = {
    "words": "it opens and it closes and " * 20,
    "a line": "The library is closed today.\n" * 12,
    "numbered": "\n".join(f"{n}. The library is closed." for n in range(1, 15)),
    "two lines": "The library is closed.\nThe pool is open.\n" * 8,
    "after a good start": "The council met on Monday to talk about the roof of the hall. "
    + "They said that it leaks a lot. " * 12,
    "Chinese": "我们一起去吧我们一起去吧" * 10,
    "Thai": "ไปด้วยกันเถอะนะครับ" * 10,
    "one character": "a" * 3000,
    "one character behind a start": "No" + "o" * 400,
    "a digit in each line": "1\n" * 300,
    "empty lines": "\n" * 300,
    "a word": "none " * 100,
    "JSON of equal objects": json.dumps([{"name": "Ann", "role": "engineer"}] * 12),
    "JSON of equal objects, indented": json.dumps({"people": [{"name": "Ann", "role": "engineer"}] * 12}, indent=2),
    "JSON of equal objects that is cut off": json.dumps([{"name": "Ann", "role": "engineer"}] * 30, indent=2)[:-30],
    "JSON of equal texts": json.dumps({"steps": ["Stir the dough until it is smooth."] * 9}),
    "JSON of equal rows": json.dumps([["Stir the dough", "ten minutes"]] * 9),
    "JSON with a loop in a string": json.dumps({"answer": "it opens and it closes and " * 20}),
    "a word behind a start": "It is a no no no no no no no no no no no no no no no no no no no",
    "two words": "yes no " * 20,
    "a loop of labels": "O O B-PER " * 20,
    "spaces in each line": " \n" * 300,
    "code": f"{FENCE}\n" + "print('a')\nprint('b')\nprint('c')\n" * 10 + FENCE,
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
def test_a_loop_is_repetition(text: str) -> None:
    assert repetition(text) > 0.5
    assert METRICS["repeats"].score(Item(text)) == 100


def test_a_repetition_that_was_wanted_and_text_without_width(tmp_path: Path) -> None:
    rows = [
        sample("Say 'I will not talk in class' ten times.", "I will not talk in class.\n" * 10),
        sample("Describe a class.", "I will not talk in class.\n" * 10),
        sample("Describe a void.", "\u200b\u200b"),
    ]
    run = make_run(tmp_path, rows)
    filtered(run)
    assert rules_of(run) == {rows[1].id: "repetition", rows[2].id: "empty"}
