"""Near-duplicate search at its hardest: long rows that are all just under or over the similarity, by random edits of one text.

    python tests/benchmarks/near_duplicates.py --rows 1000 2000 4000 --edits 20

Of 300 words with 20 changed, any two rows are about .78 similar, so that an index rules out nothing: every pair is counted.
Printed for each size: seconds (reading the texts not included), rows that go, candidates of the index, pairs counted in full.
"""

import argparse
import random
import time

import numpy as np

from seqdistill.stages.filter.checks.near_duplicates import near_duplicates
from seqdistill.stages.filter.checks.words import Sets, pair_sets, words

LENGTH = 300  # words
SPAN = 2000  # rows read at once


def edited(rows: int, edits: int, seed: int = 0) -> list[str]:
    """Copies of one random text, each with some words changed at random."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(5000)]
    base = rng.choices(vocabulary, [1 / (rank + 5) for rank in range(len(vocabulary))], k=LENGTH)
    texts = []
    for _ in range(rows):
        text = list(base)
        for _ in range(edits):
            text[rng.randrange(LENGTH)] = rng.choice(vocabulary)
        texts.append(" ".join(text))
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--similarity", type=float, default=0.8)
    options = parser.parse_args()
    for rows in options.rows:
        texts = edited(rows, options.edits)
        parts = [pair_sets(words(texts[start : start + SPAN])) for start in range(0, rows, SPAN)]
        bounds = np.concatenate([[0], np.cumsum(np.concatenate([part.sizes for part in parts]))])
        sets = Sets(np.concatenate([part.hashes for part in parts]), bounds)
        began = time.perf_counter()
        matches = near_duplicates(sets, np.zeros(rows, np.uint64), np.arange(rows), options.similarity)
        seconds, gone = time.perf_counter() - began, int((matches.kept_by >= 0).sum())
        print(f"{rows:7,} rows {seconds:7.2f} s  {gone:,} go, {matches.candidates:,} candidates, {matches.counted:,} counted")


if __name__ == "__main__":
    main()
