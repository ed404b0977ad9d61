"""Seconds and peak memory of the whole filter stage, its processes together, on short records with near-duplicates.

    python tests/benchmarks/filter_stage.py 1000000

The records are words of 30,000, as often as in a language. Memory is the anonymous memory of the process tree (PSS), looked at
twice a second: what the records' files take in the page cache is not counted.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqdistill.records import prompt_id, write_jsonl
from seqdistill.runs import Run, StageRecord


def records(count: int) -> Iterator[dict[str, Any]]:
    """Samples of 25 to 60 words; every fourth is followed by itself with up to 4 words changed."""
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(30_000)]
    often = list(itertools.accumulate(1 / (rank + 5) for rank in range(30_000)))
    written = 0
    while written < count:
        words = rng.choices(vocabulary, cum_weights=often, k=rng.randint(25, 60))
        for copy in range(1 if rng.random() < 0.75 else 2):
            for _ in range(rng.choice([0, 1, 1, 2, 4]) if copy else 0):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
            if written < count:
                yield sample(written, words)
                written += 1


def sample(number: int, words: list[str]) -> dict[str, Any]:
    """The line of a sample whose first two thirds of words are the prompt."""
    prompted, said = words[: len(words) * 2 // 3], words[len(words) * 2 // 3 :]
    prompt = [{"role": "user", "content": " ".join(prompted).capitalize() + "?"}]
    name = prompt_id(prompt)
    return {
        "id": f"{name}:t:{number}",
        "prompt_id": name,
        "sample": 0,
        "teacher": "t",
        "prompt": prompt,
        "completion": [{"role": "assistant", "content": " ".join(said).capitalize() + "."}],
        "reasoning": None,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 10,
        "reference": None,
        "slice": None,
        "tool_calls": None,
        "group": None,
    }


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return [pid]
    return [pid, *(one for child in children for one in family(child))]


def anonymous_kb(pid: int) -> int:
    """The process's share of anonymous memory, in KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def main() -> None:
    """Prints one line."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        write_jsonl(run.file("generate", "samples.jsonl"), records(count))
        StageRecord(run, "generate", {}, {}).finish({"samples.jsonl": count}, config={})
        began, peak = time.perf_counter(), 0
        command = [sys.executable, "-m", "seqdistill", "filter", str(run.path), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as filtering:
            while filtering.poll() is None:
                peak = max(peak, sum(map(anonymous_kb, family(filtering.pid))))
                time.sleep(0.5)
            assert filtering.stdout is not None
            result = json.load(filtering.stdout)
        seconds = time.perf_counter() - began
    kept = f"{result['kept']:,} kept, {result['by_rule']}"
    print(f"{count:,} records: {seconds:.0f} s, {peak / 1024:.0f} MiB at the peak, {os.cpu_count()} cores; {kept}")


if __name__ == "__main__":
    main()
