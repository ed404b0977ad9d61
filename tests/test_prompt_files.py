import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from seqdistill.errors import UsageError
from seqdistill.records import Prompt, prompt_id
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import PLAIN, Template

VIEWS = Template(None, None, {"system": "Be brief.", "user": "Summarize: {{ prompt }}"}, {"user": "{{ prompt }}"})


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, what: str, total: int, unit: str) -> None: ...
    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None: ...
    def end(self) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


def jsonl(folder: Path, *rows: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def load(folder: Path, *rows: object) -> list[Prompt]:
    return load_prompts(jsonl(folder, *rows), PLAIN)


def test_the_same_prompts_come_from_jsonl_csv_and_parquet(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one, two\nthree", "reference": "three", "slice": "hard"},
        {"prompt": 'a "quoted" word', "reference": "word", "slice": None},
    ]
    csv = tmp_path / "prompts.csv"
    csv.write_text('prompt,reference,slice\n"one, two\nthree",three,hard\n"a ""quoted"" word",word,\n')
    parquet = tmp_path / "prompts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    expected = load(tmp_path, *rows)
    assert [(p.reference, p.slice) for p in expected] == [("three", "hard"), ("word", None)]
    assert load_prompts(str(csv), PLAIN) == expected
    assert load_prompts(str(parquet), PLAIN) == expected


def test_messages_from_parquet_lose_the_keys_that_arrow_filled_in(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "name": "x"}]}]
    path = tmp_path / "prompts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(UsageError, match="row 1: message 2"):
        load_prompts(str(path), PLAIN)
    rows[0]["messages"][1].pop("name")
    rows.append({"messages": [{"role": "user", "content": "again"}]})
    kind = pyarrow.list_(pyarrow.struct([("role", "string"), ("content", "string"), ("name", "string")]))
    pyarrow.parquet.write_table(pyarrow.table({"messages": pyarrow.array([row["messages"] for row in rows], kind)}), path)
    assert [prompt.reference for prompt in load_prompts(str(path), PLAIN)] == ["ho", None]


def test_the_teacher_is_told_more_than_the_student(tmp_path: Path) -> None:
    (prompt,) = load_prompts(jsonl(tmp_path, {"prompt": "long text"}), VIEWS)
    assert prompt.teacher_messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Summarize: long text"},
    ]
    assert prompt.messages == [{"role": "user", "content": "long text"}]
    assert prompt.id == prompt_id(prompt.teacher_messages)


def test_a_trailing_assistant_message_is_the_reference_and_earlier_turns_stay(tmp_path: Path) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (prompt,) = load(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert prompt.reference == "d"
    assert [message["content"] for message in prompt.messages] == ["a", "b", "c"]


def test_a_repeated_prompt_is_asked_once_and_counted_unless_rows_have_ids(tmp_path: Path) -> None:
    notes = Notes()
    path = jsonl(tmp_path, {"prompt": "same"}, {"prompt": "other"}, {"prompt": "same"}, {"prompt": "same "})
    assert len(load_prompts(path, PLAIN, progress=notes)) == 2
    assert "2 rows repeat" in notes.notes[0]
    assert len(load(tmp_path, {"id": "a", "prompt": "same"}, {"id": 2, "prompt": "same"})) == 2


def test_limit_is_the_first_prompts(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"prompt": str(n)} for n in range(5)))
    assert [p.messages[0]["content"] for p in load_prompts(path, PLAIN, 2)] == ["0", "1"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", ":2: not JSON"),
        ("[]", ":2: not a JSON object"),
        ({"prompt": "  "}, ":2: the prompt is empty"),
        ({"prompt": 3}, ":2: the row has no prompt"),
        ({"text": "x"}, ":2: the row has no prompt; its keys are text"),
        ({"messages": []}, ":2: key 'messages' is not a list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, ":2: message 1 of 'messages' has the unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": ""}]}, ":2: message 1 of 'messages' has no text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, ":2: key 'messages' asks nothing"),
        ({"id": "first", "prompt": "x"}, ":2: the id 'first' is also that of .*:1"),
        ({"prompt": "x", "reference": ["y"]}, ":2: key 'reference' is not text"),
        ({"prompt": "cut \ud83d"}, r":2: half a character, \\ud83d, which no model can read"),
        ({"id": "\ude00", "prompt": "x"}, r":2: half a character, \\ude00"),
        ('{"prompt": "x", "y": ' + "[" * 5000, ":2: not JSON: nested deeper than 100 levels"),
        ('{"prompt": "x", "y": %s}' % ("9" * 5000), ":2: not JSON: Exceeds the limit"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, says: str) -> None:
    with pytest.raises(UsageError, match=f"prompts.jsonl{says}"):
        load(tmp_path, {"id": "first", "prompt": "good"}, row)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "bad.parquet").write_text("not parquet")
    (tmp_path / "bad.csv").write_text("prompt,slice\nx,y,z\n")
    (tmp_path / "torn.csv").write_text('prompt\n"x\n')
    (tmp_path / "bytes.csv").write_bytes(b"prompt\n\xff\n")
    for name, says in {
        "none.jsonl": "no such file",
        "empty.jsonl": "no prompts in it",
        "prompts.txt": "not a kind of file",
        "bad.parquet": "not Parquet",
        "bad.csv": "bad.csv:2: the row and the header differ",
        "torn.csv": "not CSV",
        "bytes.csv": "not UTF-8",
    }.items():
        with pytest.raises(UsageError, match=says):
            load_prompts(str(tmp_path / name), PLAIN)


def test_a_variable_that_the_row_lacks_is_named(tmp_path: Path) -> None:
    template = Template(Path("task.toml"), None, {"user": "{{ prompt }} in {{ language }}"}, {"user": "{{ prompt }}"})
    path = jsonl(tmp_path, {"prompt": "x", "language": "French"}, {"prompt": "y"})
    with pytest.raises(UsageError, match=r"prompts.jsonl:2: task.toml: \[teacher\] user: 'language' is undefined"):
        load_prompts(path, template)
