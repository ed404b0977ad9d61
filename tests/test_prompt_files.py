import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
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
    assert [prompt.reference for prompt in load_prompts(str(path), PLAIN)] == ["ho"]
    rows.append({"messages": [{"role": "user", "content": "again"}]})
    kind = pyarrow.list_(pyarrow.struct([("role", "string"), ("content", "string"), ("name", "string")]))
    pyarrow.parquet.write_table(pyarrow.table({"messages": pyarrow.array([row["messages"] for row in rows], kind)}), path)
    assert [prompt.reference for prompt in load_prompts(str(path), PLAIN)] == ["ho", None]


def test_the_teacher_sees_more_than_the_student(tmp_path: Path) -> None:
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


def test_a_repeated_prompt_is_requested_once_and_counted_unless_rows_have_ids(tmp_path: Path) -> None:
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
        ({"prompt": 3}, ":2: key 'prompt' is 3, no text and no messages"),
        ({"prompt": None}, ":2: key 'prompt' is null, no text and no messages"),
        ({"prompt": "x", "image": {"bytes": "...", "path": "x.png"}}, ":2: the row holds images"),
        ({"text": "x"}, ":2: the row has no prompt; its keys are text"),
        ({"messages": []}, ":2: key 'messages' is not a list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, ":2: message 1 of 'messages' has the unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": ""}]}, ":2: message 1 of 'messages' has no text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, ":2: key 'messages' has no prompt"),
        ({"id": "first", "prompt": "x"}, ":2: the id 'first' is also that of .*:1"),
        ({"prompt": "x", "reference": ["y", "z"]}, ":2: key 'reference' is not text"),
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


# --- files in the wild: one line a case -------------------------------------------------------------------------------

ASKED = [{"role": "user", "content": "2 + 3?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
CALL_TEXT = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
RESULT_TEXT = "<tool_response>\n5\n</tool_response>"


@pytest.mark.parametrize(
    ("row", "asked", "reference"),
    [
        ({"prompt": "2 + 3?", "reference": 42}, ["2 + 3?"], "42"),
        ({"prompt": "2 + 3?", "reference": 42.0}, ["2 + 3?"], "42"),
        ({"prompt": "2 + 3?", "reference": 0.25}, ["2 + 3?"], "0.25"),
        ({"prompt": "2 + 3?", "reference": True}, ["2 + 3?"], "true"),
        ({"prompt": "2 + 3?", "reference": {"sum": 5}}, ["2 + 3?"], '{"sum": 5}'),
        ({"prompt": "2 + 3?", "reference": None}, ["2 + 3?"], None),
        ('{"prompt": "2 + 3?", "reference": NaN}', ["2 + 3?"], None),
        ({"Prompt": "2 + 3?", "REFERENCE ": "5"}, ["2 + 3?"], "5"),
        ({"messages": json.dumps(ASKED)}, ["2 + 3?"], None),
        ({"messages": str(ASKED)}, ["2 + 3?"], None),
        ({"prompt": json.dumps(ASKED)}, ["2 + 3?"], None),
        ({"prompt": '[{"a": 1}] is JSON'}, ['[{"a": 1}] is JSON'], None),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "3?"}]}]},
            None,
            None,
        ),
        ({"messages": [{"role": "user", "content": "2 + 3?", "name": "ann", "tool_calls": None, "weight": 1}]}, None, None),
        ({"messages": [{"role": "developer", "content": "S"}, *ASKED]}, ["S", "2 + 3?"], None),
        ({"prompt": "2 + 3?", "system": "S"}, ["S", "2 + 3?"], None),
        ({"messages": [{"role": "system", "content": "own"}, *ASKED], "system": "S"}, ["own", "2 + 3?"], None),
        ({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}, ["2 + 3?"], "5"),
        ({"conversations": ASKED}, ["2 + 3?"], None),
        ({"conversation": [{"input": "2 + 3?", "output": "5"}]}, ["2 + 3?"], "5"),
        ({"messages": [{"type": "human", "content": "2 + 3?"}, {"type": "ai", "content": "5"}]}, ["2 + 3?"], "5"),
        ({"custom_id": "r", "url": "/v1/chat/completions", "body": {"model": "m", "messages": ASKED}}, ["2 + 3?"], None),
        ({"custom_id": "r", "url": "/v1/responses", "body": {"model": "m", "input": "2 + 3?"}}, ["2 + 3?"], None),
        ({"prompt": {"role": "user", "content": "2 + 3?"}}, ["2 + 3?"], None),
        ({"prompt": {"messages": ASKED}}, ["2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": ["5"]}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": {"role": "assistant", "content": "5"}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": [{"role": "assistant", "content": "5"}]}, ["2 + 3?"], "5"),
        (
            {"instruction": "2 + 3?", "input": "", "output": "five", "prompt": "### Instruction:\n2 + 3?\n\n### Output:\nfive"},
            ["2 + 3?"],
            "five",
        ),
        ({"instruction": "Add.", "input": "2 + 3?", "output": "5"}, ["Add.\n\n2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "output": "5", "history": [["hi", "hello"]]}, ["hi", "hello", "2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "output": "5", "history": []}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "system_prompt": "S"}, ["S", "2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": {"text": ["5", "five"], "answer_start": [0, 4]}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": {"text": [], "answer_start": []}}, ["2 + 3?"], None),
        ({"message_id": "a", "parent_id": None, "role": "prompter", "text": "2 + 3?", "rank": None}, ["2 + 3?"], None),
        ({"message_tree_id": "a", "prompt": {"message_id": "a", "role": "prompter", "text": "2 + 3?"}}, ["2 + 3?"], None),
        (
            {"messages": [*ASKED, {"role": "assistant", "content": CALL_TEXT}, {"role": "tool", "content": RESULT_TEXT}]},
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        ({"instruction": "2 + 3?", "input": "", "output": "5"}, ["2 + 3?"], "5"),
        ({"instruction": "Add.", "context": "2 + 3?", "response": "5", "category": "qa"}, ["Add.\n\n2 + 3?"], "5"),
        (
            {
                "messages": [
                    *ASKED,
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "content": "5"},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        (
            {
                "messages": [
                    *ASKED,
                    {"role": "assistant", "content": [{"type": "tool_use", "name": "add", "input": {"a": 2, "b": 3}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "5"}]},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "2 + 3?"},
                    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 3}}'},
                    {"from": "observation", "value": "5"},
                    {"from": "gpt", "value": "It is 5."},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            "It is 5.",
        ),
    ],
)
def test_rows_as_people_hold_them_are_read(tmp_path: Path, row: object, asked: list[str] | None, reference: str | None) -> None:
    (prompt,) = load(tmp_path, row)
    assert [message["content"] for message in prompt.messages] == (asked or ["2 + 3?"])
    assert prompt.reference == reference
    assert all(set(message) == {"role", "content"} for message in prompt.messages)
    assert prompt.messages[-1]["role"] == "user"


def test_results_of_several_calls_are_one_users_turn(tmp_path: Path) -> None:
    calls = {"role": "assistant", "content": "Adding.", "tool_calls": [CALL, CALL]}
    row = {"messages": [*ASKED, calls, *[{"role": "tool", "tool_call_id": "c1", "content": "5"}] * 2]}
    (prompt,) = load(tmp_path, row)
    assert [message["role"] for message in prompt.messages] == ["user", "assistant", "user"]
    assert prompt.messages[1]["content"] == f"Adding.\n{CALL_TEXT}\n{CALL_TEXT}"
    assert prompt.messages[2]["content"] == f"{RESULT_TEXT}\n{RESULT_TEXT}"


GERMAN = "Straße, für Öl; €5?"
PROMPT_LINE = json.dumps({"prompt": GERMAN, "reference": "x y"}, ensure_ascii=False) + "\n"
TALK = [{"role": "user", "content": GERMAN}, {"role": "assistant", "content": "x y"}]
MAPS = pyarrow.list_(pyarrow.map_("string", "string"))
SEMICOLONS = f'prompt;reference\n"{GERMAN}";x y\n'


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", PROMPT_LINE.encode()),
        ("a.jsonl", PROMPT_LINE.encode("utf-8-sig")),
        ("a.jsonl", PROMPT_LINE.encode("utf-16")),
        ("a.jsonl", PROMPT_LINE.encode("utf-16-le")),
        ("a.jsonl", f"[{PROMPT_LINE}]".encode()),
        ("a.jsonl", json.dumps(json.loads(PROMPT_LINE), indent=2).encode()),
        ("a.ndjson", PROMPT_LINE.encode()),
        ("a.json", PROMPT_LINE.encode()),
        ("a.json", f"[{PROMPT_LINE}]".encode()),
        ("a.json", json.dumps([json.loads(PROMPT_LINE)], indent=2).encode("utf-16")),
        ("a.json", json.dumps({"version": 1, "data": [json.loads(PROMPT_LINE)]}).encode()),
        ("a.json", json.dumps({"rows": [{"row_idx": 0, "row": json.loads(PROMPT_LINE)}]}, indent=1).encode()),
        ("a.json", json.dumps({"prompt": {"0": GERMAN}, "reference": {"0": "x y"}}).encode()),
        ("a.json", json.dumps({"columns": ["prompt", "reference"], "index": [0], "data": [[GERMAN, "x y"]]}).encode()),
        ("a.json", json.dumps({"q1": json.loads(PROMPT_LINE), "q2": json.loads(PROMPT_LINE)}).encode()),
        ("a.jsonl.bz2", bz2.compress(PROMPT_LINE.encode())),
        ("a.jsonl.xz", lzma.compress(PROMPT_LINE.encode())),
        ("a.jsonl.zst", pyarrow.compress(PROMPT_LINE.encode(), "zstd", asbytes=True)),
        ("a.csv.zst", pyarrow.compress(SEMICOLONS.encode("utf-16"), "zstd", asbytes=True)),
        ("a.zip", zipped(**{"a.csv": SEMICOLONS.encode(), "__MACOSX/._a.csv": b"x"})),
        ("a.jsonl.zip", zipped(**{"x/a.jsonl": PROMPT_LINE.encode()})),
        ("a.jsonl.gz", gzip.compress(PROMPT_LINE.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(f"[{PROMPT_LINE}]".encode(), mtime=0)),
        ("a.csv.gz", gzip.compress(SEMICOLONS.encode(), mtime=0)),
        ("a.jsonl", gzip.compress(PROMPT_LINE.encode(), mtime=0)),
        ("a.csv", SEMICOLONS.encode()),
        ("a.csv", SEMICOLONS.encode("utf-8-sig")),
        ("a.csv", SEMICOLONS.encode("utf-16")),
        ("a.csv", SEMICOLONS.encode("cp1252")),
        ("a.csv", SEMICOLONS.replace("\n", "\r\n").encode()),
        ("a.csv", ("sep=;\r\n" + SEMICOLONS).encode()),
        ("a.csv", SEMICOLONS.replace("prompt;reference", " Prompt ; reference ").encode()),
        ("a.csv", f'"prompt","reference"\n"{GERMAN}","x y"\n'.encode()),
        ("a.csv", f',prompt,reference\n0,"{GERMAN}",x y\n'.encode()),
        ("a.tsv", f"prompt\treference\n{GERMAN}\tx y\n".encode()),
        ("a.csv", f'prompt,reference\n"{GERMAN}",x y,,\n,\n'.encode()),
        ("a.tsv", f"prompt\treference\n{GERMAN}\tx y\n".encode()),
        ("a.csv", f"prompt|reference\n{GERMAN}|x y\n".encode()),
        ("a.jsonl", f"\ufeff\r\n{PROMPT_LINE}".encode()),
        ("a.jsonl", PROMPT_LINE.replace("}", "},").encode()),
        ("a.jsonl", f"\x1e{PROMPT_LINE}".encode()),
        ("a.jsonl", f"[\n{PROMPT_LINE},\n]".encode()),
        ("a.jsonl", (PROMPT_LINE.strip() * 2).encode()),
        ("a.json", (PROMPT_LINE.strip() * 2).encode()),
        ("a.json", json.dumps({"prompt": [GERMAN], "reference": ["x y"]}).encode()),
        ("a.jsonl", json.dumps({"prompt": [GERMAN, GERMAN], "reference": ["x y", "x y"]}).encode()),
        ("a.json", json.dumps({"messages": [TALK, TALK]}).encode()),
        ("a.json", json.dumps([TALK, TALK]).encode()),
        ("a.json", json.dumps(TALK, indent=1).encode()),
        ("a.jsonl", f"{json.dumps(TALK)}\n{json.dumps(TALK)}\n".encode()),
        ("a.csv", f"conversations\n{quoted(json.dumps(TALK))}\n".encode()),
        ("a.csv", f"messages\n{quoted(str(TALK).replace('}, {', chr(10).join(('}', ' {'))))}\n".encode()),  # numpy's
        ("a.csv", f"messages\n{quoted(f'array({TALK}, dtype=object)')}\n".encode()),
        ("a.parquet", parquet(messages=[TALK])),
        ("a.parquet", parquet(conversations=[{"from": ["human", "gpt"], "value": [GERMAN, "x y"]}])),
        ("a.parquet", parquet(messages=pyarrow.array([[list(one.items()) for one in TALK]], MAPS))),
        ("a.parquet", parquet(prompt=pyarrow.array([GERMAN]).dictionary_encode(), reference=pyarrow.array([b"x y"]))),
    ],
)
def test_files_in_other_formats_and_encodings_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (prompt,) = load_prompts(str(tmp_path / name), PLAIN)
    assert (prompt.messages[0]["content"], prompt.reference) == (GERMAN, "x y")


def test_a_column_of_texts_without_quotes_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt\nHello, world\n"Hi, ""you"""\nplain\n')
    prompts = load_prompts(str(tmp_path / "a.csv"), PLAIN)
    assert [one.messages[0]["content"] for one in prompts] == ["Hello, world", 'Hi, "you"', "plain"]


def test_quotes_in_a_table_of_tabs_are_text_where_they_do_not_quote(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('prompt\treference\n"Hi" there\tx\n"open\ty\n')
    assert [(one.messages[0]["content"], one.reference) for one in load_prompts(str(tmp_path / "a.tsv"), PLAIN)] == [
        ('"Hi" there', "x"),
        ('"open', "y"),
    ]
    (tmp_path / "b.tsv").write_text('prompt\treference\n"a\nb"\tx\n"c ""d"""\ty\n')
    assert [one.messages[0]["content"] for one in load_prompts(str(tmp_path / "b.tsv"), PLAIN)] == ["a\nb", 'c "d"']


@pytest.mark.parametrize(
    ("source", "says"), [("-", "a pipe"), ("pipe.jsonl", "a pipe"), (".", "a folder"), ("https://x.org/a.jsonl", "of the web")]
)
def test_what_is_no_file_is_named_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.jsonl")
    with pytest.raises(UsageError, match=says):
        load_prompts(source, PLAIN)


def test_a_guessed_encoding_is_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "a.csv").write_bytes(SEMICOLONS.encode("cp1252"))
    load_prompts(str(tmp_path / "a.csv"), PLAIN, progress=notes)
    assert "read as Windows-1252" in notes.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", PROMPT_LINE.encode("cp1252"), r"a.jsonl:1: not UTF-8"),
        ("a.csv", "prompt\n請將這段文字翻譯成英文\n".encode("gbk"), "not UTF-8"),
        ("a.csv", "prompt\nПереведи это\n".encode("cp1251"), "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(PROMPT_LINE.encode() * 99, mtime=0)[:-20], "not a whole gzip file"),
        ("a.json", b'[{"prompt": "x"}, {"prompt": ', "not JSON"),
        ("a.json", b'[{"prompt": "x"},\n\n{"prompt": 1 2}, ' + b" " * 99 + b"]", "a.json:3: not JSON"),
        ("a.json", b'[{"prompt": "x"}', "ends before its array does"),
        ("a.json", b'[{"prompt": "x"}, 3]', "a.json:item 2: not a JSON object: 3"),
        ("a.csv", b"prompt,prompt\nx,y\n", "two columns are called 'prompt'"),
        ("a.jsonl.gz", tarred(b'{"prompt": "x"}\n'), "a tar archive"),
        ("a.json", b'[{"message_id": "a", "role": "assistant", "text": "x"}]', "no prompts in it"),
        (
            "a.json",
            b'{"train": [{"prompt": "x"}], "test": [{"prompt": "y"}]}',
            "the row has no prompt; its keys are train, test",
        ),
        ("a.jsonl", b'{"prompt": "x"} {"prompt": 5', "not JSON"),
        ("a.jsonl", b'// a comment\n{"prompt": "x"}\n', "not JSON"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd1234", "not a whole zstd file"),
        ("a.jsonl.bz2", bz2.compress(PROMPT_LINE.encode() * 99)[:-20], "not a whole bzip2 file"),
        ("a.jsonl.xz", lzma.compress(PROMPT_LINE.encode() * 99)[:-20], "not a whole xz file"),
        ("a.zip", b"PK\x03\x04", "not a whole zip file"),
        ("a.zip", zipped(**{"xl/workbook.xml": b"x", "a.xml": b"x"}), "an Excel workbook"),
        ("a.zip", zipped(**{"a.jsonl": PROMPT_LINE.encode(), "b.jsonl": b""}), "2 files are in this archive: a.jsonl, b.jsonl"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        ("a.csv", b"<!DOCTYPE html><html></html>", "a web page"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        ("a.jsonl", b"PAR1", "a.jsonl: Parquet"),
        ("a.xlsx", b"PK", "not a kind of file that holds rows"),
        ("a.txt", b"x", "not a kind of file that holds rows"),
        ("a.json", b'["What is it?"]', "a.json:item 1: not a JSON object: 'What is it\\?'"),
        ("a.parquet.d", b"", "not a kind of file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says) as raised:
        load_prompts(str(tmp_path / name), PLAIN)
    assert raised.value.hint


def test_columns_by_other_names_are_mapped_and_the_rest_are_variables(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": 7, "topic": "physics", "uid": 12, "doc": "d1", "who": "Be kind.", "lang": "French"}
    columns = {"prompt": "question", "reference": "answer", "slice": "topic", "id": "uid", "group": "doc", "system": "who"}
    template = Template(None, None, {"user": "{{ prompt }} in {{ lang }}: {{ topic }}"}, {"user": "{{ prompt }}"})
    (prompt,) = load_prompts(jsonl(tmp_path, row), template, columns=columns)
    assert [message["content"] for message in prompt.teacher_messages] == ["Be kind.", "Why? in French: physics"]
    assert (prompt.reference, prompt.slice, prompt.id, prompt.group) == ("7", "physics", "12", "d1")
    (asked,) = load_prompts(jsonl(tmp_path, {"talk": ASKED, "prompt": "no"}), PLAIN, columns={"messages": "talk"})
    assert asked.messages == ASKED


def test_a_file_with_our_own_keys_needs_no_mapping_although_another_does(tmp_path: Path) -> None:
    (prompt,) = load_prompts(
        jsonl(tmp_path, {"prompt": "Why?", "reference": "So."}), PLAIN, columns={"prompt": "question", "reference": "answer"}
    )
    assert (prompt.messages[0]["content"], prompt.reference) == ("Why?", "So.")


def test_the_group_of_a_prompt_is_no_part_of_its_id(tmp_path: Path) -> None:
    (one,), (other,) = (load(tmp_path, {"prompt": "p", "group": group}) for group in ("a", 2))
    assert (one.group, other.group, one.id) == ("a", "2", other.id)


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"prompt": "x", "refrence": "y"}, {}, ":1: unknown key 'refrence', did you mean 'reference'"),
        ({"promt": "x"}, {}, ":1: unknown key 'promt', did you mean 'prompt'"),
        ({"prompt": "x", "slices": "y"}, {}, ":1: unknown key 'slices', did you mean 'slice'"),
        ({"prompt": "x", "references": ["y"]}, {}, "did you mean 'reference'"),
        ({"question": "x"}, {}, r":1: the row has no prompt; its keys are question"),
        ({"question": "x"}, {"prompt": "qestion"}, "the row has no prompt"),
        ({"prompt": "x", "answer": "y"}, {"reference": "anwser"}, "no row has the column 'anwser'.*did you mean 'answer'"),
        ({"prompt": "x"}, {"refrence": "answer"}, r"\[task\] columns: unknown key 'refrence', did you mean 'reference'"),
        ({"prompt": "x"}, {"reference": 3}, r"\[task\] columns: reference = 3 is not the name of a column"),
        ({"messages": "Why is the sky blue?"}, {}, ":1: key 'messages' is text that is not a list of messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {},
            "message 1 of 'messages' holds a part of type",
        ),
        ({"messages": ["x"]}, {}, ":1: message 1 of 'messages'"),
    ],
)
def test_a_mistyped_key_or_column_is_named_with_the_nearest(
    tmp_path: Path, row: object, columns: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        load_prompts(jsonl(tmp_path, row), PLAIN, columns=columns)
    assert raised.value.hint


def test_a_key_that_only_looks_mistyped_is_fine_where_it_is_used(tmp_path: Path) -> None:
    template = Template(None, None, {"user": "{{ prompt }} {{ references }}"}, {"user": "{{ prompt }}"})
    (prompt,) = load_prompts(jsonl(tmp_path, {"prompt": "x", "references": "[1]"}), template)
    assert prompt.teacher_messages[0]["content"] == "x [1]"
    assert load(tmp_path, {"prompt": "x", "preference": 1, "text": "y", "idx": 3})[0].id


def test_missing_references_in_parquet_are_none(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    references = pyarrow.array([4.0, float("nan"), None])
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", "b", "c"], "reference": references}), path)
    assert [prompt.reference for prompt in load_prompts(str(path), PLAIN)] == ["4", None, None]


def test_a_hub_configuration_is_named_after_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "acme" / "sums"
    for config in ("easy", "hard"):
        for split in ("train", "test"):
            (folder / config).mkdir(parents=True, exist_ok=True)
            (folder / config / f"{split}.jsonl").write_text(json.dumps({"question": f"{config} {split}", "answer": 5}) + "\n")
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.jsonl\n"
        f"  - split: test\n    path: {config}/test.jsonl\n"
        for config in ("easy", "hard")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    columns = {"prompt": "question", "reference": "answer"}
    for source, asked in {"hf:acme/sums/hard:test": "hard test", "hf:acme/sums/easy": "easy train"}.items():
        (prompt,) = load_prompts(source, PLAIN, columns=columns)
        assert (prompt.messages[0]["content"], prompt.reference) == (asked, "5")
    for source, says in {
        "hf:acme/sums": "Config name is missing",
        "hf:acme/sums/none": "none",
        "hf:acme/sums/easy:dev": "'dev' of 'easy'",
        "hf:acme": "not the name of a hub data set",
        "hf:acme/sums/easy/x": "not the name of a hub data set",
    }.items():
        with pytest.raises(UsageError, match=says):
            load_prompts(source, PLAIN)


def test_what_is_left_out_of_rows_is_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    rows = [
        {"prompt": "a"},
        {"prompt": "a", "reference": "x"},
        {"prompt": "a", "reference": "y"},
        {"prompt": "b", "tools": [{}]},
    ]
    prompts = load_prompts(jsonl(tmp_path, *rows), PLAIN, progress=notes)
    assert [prompt.reference for prompt in prompts] == ["x", None], "a reference of a repeated prompt is not lost"
    assert [
        next(part for part in ("2 rows repeat", "1 of them have another reference", "1 rows come with tools") if part in note)
        for note in notes.notes
    ] == ["2 rows repeat", "1 of them have another reference", "1 rows come with tools"]
    load_prompts(jsonl(tmp_path, {"prompt": "a", "answer": "x"}), PLAIN, progress=notes)
    assert "is it the column 'answer'? [task] columns = { reference = \"answer\" }" in notes.notes[-1]


@pytest.mark.parametrize(
    ("row", "template", "says"),
    [
        ({"question": "Who?", "context": "Ann did."}, "{{ prompt }}", "the column 'context' is in no prompt"),
        ({"question": "Which?", "choices": ["a", "b"]}, "{{ prompt }}", "the column 'choices' is in no prompt"),
        ({"question": "Who?", "context": "Ann did."}, "{{ prompt }} {{ context }}", None),
        ({"question": "Who?", "context": ""}, "{{ prompt }}", None),
    ],
)
def test_what_a_question_is_about_and_no_prompt_holds_is_mentioned(
    tmp_path: Path, row: dict[str, object], template: str, says: str | None
) -> None:
    notes, view = Notes(), {"user": template}
    load_prompts(jsonl(tmp_path, row), Template(None, None, view, view), None, notes, {"prompt": "question"})
    assert [says in note for note in notes.notes if says] == ([True] if says else []) and bool(notes.notes) == bool(says)


def test_answers_and_later_questions_in_trees_are_no_prompts(tmp_path: Path) -> None:
    notes = Notes()
    roles = {"a": (None, "prompter"), "b": ("a", "assistant"), "c": ("b", "prompter"), "d": (None, "prompter")}
    rows = [{"message_id": name, "parent_id": parent, "role": role, "text": name} for name, (parent, role) in roles.items()]
    for columns in {}, {"prompt": "text"}:
        prompts = load_prompts(jsonl(tmp_path, *rows), PLAIN, None, notes, columns)
        assert [prompt.messages[0]["content"] for prompt in prompts] == ["a", "d"]
        assert "2 messages further down in trees" in notes.notes[-1]


def test_an_error_names_the_columns_that_are_likely_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, {"question": "2 + 3?", "answer": "5"})
    assert '[task] columns = { prompt = "question", reference = "answer" }' in raised.value.hint
