"""Prompt files by format, encoding and packing, and how one that cannot be read is named."""

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
from generate_runs import Notes

from seqdistill.errors import UsageError
from seqdistill.tasks.csv_rows import EXCEL_CELL
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import PLAIN, Template


def test_the_same_prompts_come_from_jsonl_csv_and_parquet(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one, two\nthree", "reference": "three", "slice": "hard"},
        {"prompt": 'a "quoted" word', "reference": "word", "slice": None},
    ]
    csv = tmp_path / "prompts.csv"
    csv.write_text('prompt,reference,slice\n"one, two\nthree",three,hard\n"a ""quoted"" word",word,\n')
    parquet = tmp_path / "prompts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = load_prompts(str(lines), PLAIN)
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


GERMAN = "Straße, für Öl; €5?"


PROMPT_LINE = json.dumps({"prompt": GERMAN, "reference": "x y"}, ensure_ascii=False) + "\n"


TALK = [{"role": "user", "content": GERMAN}, {"role": "assistant", "content": "x y"}]
MAPS = pyarrow.list_(pyarrow.map_("string", "string"))


SKIPPED_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # of zstd, as pzstd writes one first
SEMICOLONS = f'prompt;reference\n"{GERMAN}";x y\n'


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


FAR_DAY = pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())


def damaged_page() -> bytes:
    """A Parquet file of which the metadata is whole, and a packed page is not."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [f"{n} and {n * n}" for n in range(999)]}), buffer, compression="gzip")
    content = buffer.getvalue()
    return content[:60] + bytes(200) + content[260:]


def other_zip(flags: int = 0, method: int = 0) -> bytes:
    """An archive whose member is said to be packed otherwise than it is, at the places where the format has it."""
    content = bytearray(zipped(**{"a.jsonl": PROMPT_LINE.encode()}))
    for at in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[at], content[at + 2] = flags, method
    return bytes(content)


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
        ("a.jsonl.zst", SKIPPED_FRAME + pyarrow.compress(PROMPT_LINE.encode(), "zstd", asbytes=True)),
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
        *(("a.csv", SEMICOLONS.replace("\n", end).encode()) for end in ("\r\n", "\r", "\r\r\n")),
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
        ("a.jsonl", f"[]\n[{PROMPT_LINE}]\n".encode()),
        ("a.jsonl", (PROMPT_LINE.strip() * 2).encode()),
        ("a.json", (PROMPT_LINE.strip() * 2).encode()),
        ("a.json", json.dumps({"prompt": [GERMAN], "reference": ["x y"]}).encode()),
        ("a.jsonl", json.dumps({"prompt": [GERMAN, GERMAN], "reference": ["x y", "x y"]}).encode()),
        ("a.json", json.dumps({"messages": [TALK, TALK]}).encode()),
        ("a.json", json.dumps([TALK, TALK]).encode()),
        ("a.json", json.dumps(TALK, indent=1).encode()),
        ("a.json", json.dumps([{"role": "nurse", "prompt": GERMAN, "reference": "x y"}]).encode()),  # no conversation, but rows
        ("a.json", json.dumps([{"from": "a@b.de", "prompt": GERMAN, "reference": "x y"}]).encode()),
        ("a.json", json.dumps([{"role": "user", "prompt": GERMAN, "reference": "x y"}]).encode()),
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


WESTERN = (
    "Où est-ce que l’été passe, ça va bien à Nîmes – cœur d’été ?",
    "¿Dónde está el niño? ¡Aquí! No sé, quizá mañana…",
    "Não há informações sobre a questão; o avião já saiu às três.",
    "Hvor ligger den nærmeste ø, og hvad koster færgen på søndag?",
    "Missä on lähin asema, ja mitä ystäväsi tekee tänään?",
    "Hvað heitir þú og hvar býrð þú? Ég veit það ekki, góði.",
    "Kus on lähim jaam, õhtul või öösel? Šokolaad maksab üht.",
    "L’il·lusió és nova: on és la plaça, amb el «cafè»?",
)


@pytest.mark.parametrize("text", WESTERN)
def test_every_western_language_is_read_from_a_spreadsheet(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(f"prompt;reference\n{text.replace(';', ',')};x\n".encode("cp1252"))
    (prompt,) = load_prompts(str(tmp_path / "a.csv"), PLAIN)
    assert prompt.messages[0]["content"] == text.replace(";", ",")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", PROMPT_LINE.encode("cp1252"), r"a.jsonl:1: not UTF-8"),
        ("a.csv", "prompt\n請將這段文字翻譯成英文\n".encode("gbk"), "not UTF-8"),
        ("a.csv", "prompt\nПереведи это\n".encode("cp1251"), "not UTF-8"),
        ("a.csv", "prompt\nIle kosztuje przesyłka dziesięciu butów?\n".encode("cp1250"), "not UTF-8"),
        ("a.csv", "prompt\nKdy se do města vrátí tvůj bližší přítel?\n".encode("cp1250"), "not UTF-8"),
        ("a.csv", "prompt\nAz erdő a tűzoltóság mögött van, és öt óráig nyitva?\n".encode("cp1250"), "not UTF-8"),
        ("a.csv", "prompt\nİstasyon köprünün karşısında ve çok yakın mı?\n".encode("cp1254"), "not UTF-8"),
        ("a.csv", f"prompt\n{GERMAN.replace('€', '')}\n".encode("mac_roman"), "not UTF-8"),
        ("a.csv", b"prompt,reference\nx," + b"a" * EXCEL_CELL + b"\n", "a.csv:2: the cell 'reference' has 32,767 characters"),
        ("a.jsonl.gz", gzip.compress(PROMPT_LINE.encode() * 99, mtime=0)[:-20], "not a whole gzip file"),
        ("a.json", b'[{"prompt": "x"}, {"prompt": ', "not JSON"),
        ("a.json", b'[{"prompt": "x"},\n\n{"prompt": 1 2}, ' + b" " * 99 + b"]", "a.json:3: not JSON"),
        ("a.json", b'[{"prompt": "x"}', "ends before its array does"),
        ("a.json", b'[{"prompt": "x"}] y', "a.json:1: not JSON"),
        ("a.json", b'[{"prompt": "x"}]\n[{"prompt": "y"}', "ends before its array does"),
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
        ("a.zip", zipped(**{"header.json": b"{}", "samples/1.json": b"{}"}), "a log of Inspect"),
        ("a.zip", other_zip(flags=1), "a.zip: encrypted"),
        ("a.zip", other_zip(method=9), "a.zip: packed by a method that Python lacks"),
        ("a.parquet", parquet(prompt=["x"])[:-9], "a.parquet: not Parquet"),
        ("a.parquet", damaged_page(), "a.parquet: damaged"),
        ("a.parquet", parquet(prompt=["x"], day=FAR_DAY), "a.parquet:rows 1 to 1: a value that Python does not have"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        ("a.csv", b"prompt\nx\ry\n", "a.csv:2: not CSV: new-line character"),  # and no two prompts
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


@pytest.mark.parametrize("between", ["\n", "", ",\n", "\n\n"])
def test_every_array_of_a_file_is_read(tmp_path: Path, between: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('[{"prompt": "a"}, {"prompt": "b"}]' + between + '[{"prompt": "c"}]' + between + '{"prompt": "d"}')
    assert [prompt.messages[0]["content"] for prompt in load_prompts(str(path), PLAIN)] == ["a", "b", "c", "d"]


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


def test_classes_that_are_numbers_are_read_as_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    names = ClassLabel(names=["World", "Sports"])
    features = Features({"text": Value("string"), "label": names, "tags": List(names), "n": Value("int64")})
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0, 1], [], [1]], "n": [1, 0, 1]}
    (tmp_path / "acme" / "news").mkdir(parents=True)
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "acme" / "news" / "train.parquet")
    view = {"user": "{{ prompt }} {{ tags }} {{ n }}"}
    for source in ("acme/news/train.parquet", "hf:acme/news"):
        notes = Notes()
        columns = {"prompt": "text", "reference": "label"}
        prompts = load_prompts(source, Template(None, None, view, view), None, notes, columns)
        assert [prompt.reference for prompt in prompts] == ["Sports", "World", None]
        assert prompts[0].messages[0]["content"] == 'a ["World", "Sports"] 1'
        assert "the column 'label' holds classes by number, which are read as their names: World, Sports" in notes.notes[0]
