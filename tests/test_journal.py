"""The journal on its own: what is in it stays, what is torn goes, and its index is small."""

import asyncio
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request
from seqdistill.errors import SeqdistillError
from seqdistill.journal.asking import Asker, answers, missing_requests
from seqdistill.journal.budget import Budget, Source
from seqdistill.journal.storage import FOLD_LINES, Journal, request_key
from seqdistill.recipe.tables import ModelConfig


def request(number: int) -> Request:
    return Request(f"p{number}:t:0", [{"role": "user", "content": f"question {number}"}], 20, seed=number)


def completion(number: int, left: int = 0) -> Completion:
    return Completion(
        f"p{number}:t:0", f"answer {number}\u2028\ud800", finish_reason="stop", raw={"id": number}, batch_left=left
    )


class Counting:
    """An engine that answers at once, in batches, and counts."""

    def __init__(self, batch: int = 1, failing: frozenset[str] = frozenset()) -> None:
        self.batch, self.failing, self.asked = batch, failing, 0

    async def stream(self, requests: Sequence[Request], meter: Meter = UNMETERED) -> AsyncGenerator[Completion, None]:
        for place, asked in enumerate(requests):
            self.asked += 1
            left = min(self.batch - 1 - place % self.batch, len(requests) - 1 - place)
            done = Completion(asked.id, asked.messages[0]["content"], finish_reason="stop", batch_left=left)
            yield replace(done, error="http 500") if asked.id in self.failing else done

    async def close(self) -> None: ...


def fill(path: Path, requests: Sequence[Request], engine: Counting) -> list[Completion]:
    async def collect(journal: Journal) -> list[Completion]:
        asker = Asker(journal, Budget([journal], {}), Pace(), lambda *_: engine)
        return [done async for done in asker.ask(Source("m", "m", ModelConfig(), None), requests)]

    with Journal(path) as journal:
        return asyncio.run(collect(journal))


def test_what_was_stored_is_read_back_under_today_s_id(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append("m", [("0" * 32, request(1), completion(1))])
        assert journal.read("0" * 32, "other:id") == replace(completion(1), id="other:id")
    with Journal(tmp_path / "j") as journal:
        assert journal.read("0" * 32, "x").content == "answer 1\u2028\ud800"
        assert len(journal) == 1
    row = json.loads((tmp_path / "j").read_text())
    assert list(row) == ["key", "left", "usd", "hold", "id", "model", "request", "completion"]
    assert row["request"]["messages"] == request(1).messages
    assert row["completion"]["raw"] == {"id": 1}


def test_a_key_is_the_whole_request_and_the_model_but_not_its_name() -> None:
    asked = request(1)
    same = request_key(replace(asked, id="x"), "m")
    assert same == request_key(asked, "m")
    changes = [
        replace(asked, messages=[{"role": "system", "content": "s"}, *asked.messages]),
        replace(asked, max_tokens=21),
        replace(asked, temperature=0.5),
        replace(asked, top_p=0.5),
        replace(asked, seed=2),
    ]
    assert len({same, request_key(asked, "m2"), *(request_key(changed, "m") for changed in changes)}) == 7


@pytest.mark.parametrize("torn", range(1, 400, 7))
def test_a_torn_end_is_dropped_and_nothing_else(tmp_path: Path, torn: int) -> None:
    fill(tmp_path / "j", [request(n) for n in range(3)], Counting())
    whole = (tmp_path / "j").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:2]) + lines[2][: min(torn, len(lines[2]) - 1)])
    engine = Counting()
    fill(tmp_path / "j", [request(n) for n in range(3)], engine)
    assert engine.asked == 1
    assert len((tmp_path / "j").read_bytes().splitlines()) == 3
    assert (tmp_path / "j").read_bytes() == whole


def test_a_batch_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    requests = [request(n) for n in range(6)]
    fill(tmp_path / "j", requests, Counting(batch=3))
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:5]))
    engine = Counting(batch=3)
    fill(tmp_path / "j", requests, engine)
    assert engine.asked == 3
    assert (tmp_path / "j").read_bytes() == b"".join(lines)


def test_a_failure_in_a_batch_leaves_the_others_whole(tmp_path: Path) -> None:
    requests = [request(n) for n in range(6)]
    done = fill(tmp_path / "j", requests, Counting(3, frozenset({"p2:t:0", "p3:t:0"})))
    assert [c.id for c in done if c.error] == ["p2:t:0", "p3:t:0"]
    with Journal(tmp_path / "j") as journal:
        assert [r.id for _, r in missing_requests(journal, "m", requests)] == ["p2:t:0", "p3:t:0"]
        failed = {c.id: c for c in done if c.error}
        got = [c for _, c in answers(journal, "m", [*requests, request(9)], failed)]
    assert [c.error for c in got] == [None, None, "http 500", "http 500", None, None, "not sent"]


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        (r".*", "edited"),  # the whole line
        (r'"usd": 0.0', '"usd": 1-2'),
        (r'"content": "', '"content": '),  # behind the head, which alone is read when the file is opened
        (r'"completion": {(.*)}}', r'"completion": [{\1}]}'),
        (r'"request"', '"requested"'),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, whole: str, damaged: str) -> None:
    fill(tmp_path / "j", [request(n) for n in range(3)], Counting())
    lines = (tmp_path / "j").read_text().splitlines(keepends=True)
    changed = re.sub(whole, damaged, lines[1], count=1)
    assert changed != lines[1]
    (tmp_path / "j").write_text(lines[0] + changed + lines[2])
    with pytest.raises(SeqdistillError, match="j:2: not a journal line"), Journal(tmp_path / "j") as journal:
        list(journal.rows())
    with pytest.raises(SeqdistillError, match="j:2: not a journal line"), Journal(tmp_path / "j") as journal:
        journal.read(request_key(request(1), "m"), "p1:t:0")


def test_another_run_s_journal_is_copied_from_and_not_changed(tmp_path: Path) -> None:
    fill(tmp_path / "old", [request(n) for n in range(4)], Counting(batch=2))
    with (tmp_path / "old").open("a") as file:
        file.write('{"key": "torn')
    before = (tmp_path / "old").read_bytes()
    with Journal(tmp_path / "old", writable=False) as old, Journal(tmp_path / "new") as new:
        missing = missing_requests(new, "m", [request(n) for n in range(6)], [old])
        assert [r.id for _, r in missing] == ["p4:t:0", "p5:t:0"]
        assert len(new) == 4
    with Journal(tmp_path / "new") as new:
        assert len(new) == 4
    assert (tmp_path / "old").read_bytes() == before


def test_a_full_disk_is_reported_and_keeps_what_was_there(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_journal import Counting, fill, request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
fill(Path({str(tmp_path / "j")!r}), [request(n) for n in range(50)], Counting())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "j: cannot be written: File too large" in ran.stderr
    with Journal(tmp_path / "j") as journal:
        assert 3 < len(journal) < 50
        assert (tmp_path / "j").read_bytes().endswith(b"}\n")


def test_the_index_finds_every_line_of_a_big_journal_in_little_memory(tmp_path: Path) -> None:
    """The full measurement, with a million lines, is tests/benchmarks/journal.py; this one is a tenth of it."""
    count = 100_000
    keys = [f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}{number:016x}" for number in range(count)]
    line = ', "left": 0, "usd": null, "hold": null, "id": "", "model": "m", "request": {}, "completion": {"content": "x"}}\n'
    with (tmp_path / "j").open("w") as file:
        file.writelines(f'{{"key": "{key}"{line}' for key in keys)
    import numpy  # noqa: F401 - its own memory is not the index's

    tracemalloc.start()  # counts the arrays of numpy too; the process's own peak may lie in an earlier test
    try:
        with Journal(tmp_path / "j") as journal:
            held, peak = tracemalloc.get_traced_memory()
            assert len(journal) == count > FOLD_LINES
            assert all(key in journal for key in keys[:: count // 1000])
            assert "f" * 32 not in journal
            assert journal.read(keys[-1], "x").content == "x"
    finally:
        tracemalloc.stop()
    late = (count - FOLD_LINES) * 200  # what is not folded into the arrays yet is in a dict
    assert held < 24 * FOLD_LINES + late + 1_000_000
    assert peak < 60_000_000, "most of it for one fold"
