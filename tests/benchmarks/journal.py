"""What the journal costs: CPU seconds and memory to resume from a million answers, and what a second's work at most costs.

python tests/benchmarks/journal.py [LINES]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seqdistill.engines import Completion, Request
from seqdistill.journal.asking import missing_requests
from seqdistill.journal.storage import Journal, request_key

SYSTEM = {"role": "system", "content": "Rewrite the notice in one sentence. Keep every date, place and number."}
ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835
TEXT = "The library on Mill Lane will be shut on Monday because the roof is mended. " * 3


def request(number: int) -> Request:
    return Request(f"{number:012x}:teacher:0", [SYSTEM, {"role": "user", "content": f"{number} {TEXT}"}], 1024, seed=number)


def completion(number: int) -> Completion:
    raw = {
        "id": f"chatcmpl-{number}",
        "choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    }
    return Completion(f"{number:012x}:teacher:0", TEXT, finish_reason="stop", prompt_tokens=80, completion_tokens=60, raw=raw)


def step(lines: int) -> int:
    return max(1, lines // 10_000)


def write(path: Path, lines: int) -> None:
    """A tenth through the journal, timed; the rest as the same lines, so that a million do not take minutes."""
    first = max(1, lines // 10)
    began = time.process_time()
    with Journal(path) as journal:
        for number in range(first):
            one = request(number)
            journal.append("teacher", [(request_key(one, "teacher"), one, completion(number))])
    seconds = time.process_time() - began
    print(f"append: {path.stat().st_size / first:.0f} bytes and {seconds / first * 1e6:.0f} us a line", flush=True)
    last = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        for number in range(first, lines):  # the keys that are looked up later are real ones
            key = request_key(request(number), "teacher") if number % step(lines) == 0 else f"{number * ODD % (1 << 128):032x}"
            file.write(b'{"key": "' + key.encode() + last[41:])


def peak_mb() -> float:
    """The most memory this process has had, in MB."""
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))


def resume(path: Path, lines: int) -> None:
    """Opens the journal in a process of its own and says what that took."""
    base = peak_mb()
    began = time.process_time()
    journal = Journal(path)
    opened = time.process_time() - began
    memory = peak_mb() - base
    began = time.process_time()
    some = [request(number) for number in range(0, lines, step(lines))]
    missing = missing_requests(journal, "teacher", [*some, request(lines)])
    looked = (time.process_time() - began) / len(some)
    began = time.process_time()
    for one in some:
        journal.read(request_key(one, "teacher"), one.id)
    read = (time.process_time() - began) / len(some)
    assert len(journal) == lines
    assert len(missing) == 1
    print(
        f"resume: opened in {opened:.1f} s with {memory:.0f} MB; look-up {looked * 1e6:.0f} us, read {read * 1e6:.0f} us each"
    )


def syncs(folder: Path) -> None:
    """The price of putting a group of lines on the disk, as is done each second."""
    line = json.dumps({"x": TEXT * 8}).encode() + b"\n"
    file = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    taken = []
    for _ in range(50):
        for _ in range(300):
            os.write(file, line)
        began = time.perf_counter()
        os.fsync(file)
        taken.append(time.perf_counter() - began)
    taken.sort()
    print(f"fsync of a group of 300 lines: median {taken[25] * 1e3:.1f} ms, worst of 50 {taken[-1] * 1e3:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--resume"]:
        resume(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "journal.jsonl", count)
            subprocess.run([sys.executable, __file__, "--resume", str(Path(folder) / "journal.jsonl"), str(count)], check=True)
            syncs(Path(folder))
