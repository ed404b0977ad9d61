"""The files that filter writes: each row as it was read, rejected ones with the reason. Decides nothing but the split."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqdistill.files import atomic_write
from seqdistill.records import to_line
from seqdistill.stages.filter.report import Rejections
from seqdistill.stages.filter.scan import Facts, Rows

OUTPUTS = ("train.jsonl", "validation.jsonl", "rejected.jsonl")


def write(folder: Path, facts: Facts, rejections: Rejections, read: Rows) -> dict[str, int]:
    """Writes the three files in the order of the samples; returns their row counts."""
    held_out = _held_out(facts, rejections)
    names = {row: read(row).id for row in sorted(set(rejections.kept_by.values()))}
    counts = dict.fromkeys(OUTPUTS, 0)
    with ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(folder / name)) for name in OUTPUTS}
        for row in range(len(facts)):
            line = read.line(row)
            if rejection := rejections.by_row.get(row):
                name, better = "rejected.jsonl", rejections.kept_by.get(row)
                why = asdict(rejection) | {"kept_by": None if better is None else names[better]}
                line = f"{line.rstrip()[:-1]}, {to_line(why)[1:]}"
            else:
                name = "validation.jsonl" if held_out[row] else "train.jsonl"
            files[name].write(line)
            counts[name] += 1
    return counts


def _held_out(facts: Facts, rejections: Rejections) -> NDArray[np.bool_]:
    """Which rows are for validation: none, when all prompts that are left were held back, too few of them for a split."""
    kept = rejections.kept(np.arange(len(facts)))
    return facts.held_out & ~facts.held_out[kept].all()


def write_baselines(
    folder: Path, facts: Facts, rejections: Rejections, baselines: dict[str, set[int]], read: Rows
) -> dict[str, int]:
    """Writes train-random.jsonl and train-longest.jsonl, if they are configured; returns their row counts."""
    counts, held_out = dict[str, int](), _held_out(facts, rejections)
    for kind, chosen in baselines.items():
        name = f"train-{kind}.jsonl"
        counts[name] = 0
        with atomic_write(folder / name) as file:
            for row in sorted(chosen):
                if not held_out[row]:
                    file.write(read.line(row))
                    counts[name] += 1
    return counts
