"""Records: lines that survive any text, files that appear whole, names that depend on content alone."""

import json
import os
from pathlib import Path

import pytest

from seqdistill.errors import UsageError
from seqdistill.files import atomic_folder, atomic_path, atomic_write
from seqdistill.journal.storage import Journal
from seqdistill.records import (
    check_messages,
    file_sha256,
    fingerprint,
    prompt_id,
    read_jsonl,
    request_seed,
    to_line,
    write_json,
    write_jsonl,
)

HOSTILE = "a\u2028b\u2029c\u0085d\r\ne\x00f\x1b[31mg\ud800h \U0001f600"


def test_any_text_is_one_line_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, [{"text": HOSTILE}, {"text": "next"}]) == 2
    assert path.read_text(encoding="utf-8").splitlines() == path.read_text(encoding="utf-8").split("\n")[:-1]
    assert [row["text"] for _, row in read_jsonl(path)] == [HOSTILE, "next"]


def test_a_document_holds_any_text(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {HOSTILE: HOSTILE})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {HOSTILE: HOSTILE}


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_line({"x": float("nan")})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1}\n{"a": \n', r"rows.jsonl:2: not JSON"),
        (b"[1]\n", r"rows.jsonl:1: not a JSON object"),
        (b'{"a": "\xff"}\n', r"not UTF-8"),
        (b"[" * 100_000 + b"\n", r"rows.jsonl:1: not JSON: nested deeper"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        list(read_jsonl(path))


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            list(read_jsonl(path))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_files_and_folders_are_open_to_whom_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
        with atomic_folder(tmp_path / "model") as folder:
            (folder / "part").mkdir()
        Journal(tmp_path / "journal.jsonl").close()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"a.json": 0o666 & ~umask, "model": 0o777 & ~umask, "journal.jsonl": 0o666 & ~umask}


def test_names_depend_on_content_alone(tmp_path: Path) -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    messages = [{"role": "user", "content": "hi"}]
    assert prompt_id(messages) == prompt_id(json.loads(json.dumps(messages)))
    seeds = {request_seed(run, f"p{n}", s) for run in (0, 1) for n in range(50) for s in range(4)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    before = file_sha256(tmp_path / "a")
    (tmp_path / "a/.y.gguf.0a1b2c3d.tmp").mkdir()
    for name in ("README.md", ".README.md.0a1b2c3d.tmp", ".y.gguf.0a1b2c3d.tmp/x"):  # its card, and what was killed
        (tmp_path / "a" / name).write_text("2")
    assert file_sha256(tmp_path / "a") == before
    (tmp_path / "a/x").rename(tmp_path / "a/y")
    assert file_sha256(tmp_path / "a") != before


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hi",
        [{"role": "user"}],
        [{"role": "user", "content": "a", "name": "b"}],
        [{"role": "bot", "content": "a"}],
        [{"role": "user", "content": " \n"}],
        [{"role": "user", "content": 3}],
    ],
)
def test_wrong_messages_are_named_by_place_and_key(messages: object) -> None:
    with pytest.raises(UsageError, match=r"f\.jsonl:7.*'messages'"):
        check_messages(messages, "f.jsonl:7", "messages")


def test_what_another_is_at_work_on_is_not_taken_for_left_over(tmp_path: Path) -> None:
    (tmp_path / ".rows.jsonl.a1b2c3d_.tmp").write_text("of a process that was killed")
    with atomic_path(tmp_path / "rows.jsonl") as first, atomic_folder(tmp_path / "model") as folder:
        with atomic_path(tmp_path / "rows.jsonl") as second, atomic_folder(tmp_path / "model"):
            second.write_text("2")
        assert first.exists() and folder.exists()
        first.write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]
    assert (tmp_path / "rows.jsonl").read_text() == "1"
