"""Near-duplicates: which rows almost repeat a better row. Which pairs of rows are similar at all is `similar_pairs`'.

Assignment is a star, never a chain: going from the best row down, a row goes only if a row that stays is similar to it. So
rows are compared with those that stay, a block at a time, and a large cluster costs what its best row does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqdistill.progress import Progress, Silent
from seqdistill.stages.filter.checks.similar_pairs import SimilarPairs
from seqdistill.stages.filter.checks.words import Hashes, Ints, Sets

FIRST_BLOCK = 256  # rows; blocks double from here
FEW_CANDIDATES = 1 << 22  # upper bound for a block, unless it is a small one
SMALL_BLOCK = 1 << 11  # rows


@dataclass(frozen=True)
class Matches:
    """For each row: the better row that it repeats, and how similar they are."""

    kept_by: Ints  # (n,) a row number; -1 for a row that stays
    similarity: NDArray[np.float64]  # (n,) Jaccard similarity to that row; 0 for a row that stays
    repeats: NDArray[np.bool_]  # (n,) whether a better row, kept or not, has the same set: it goes at any similarity
    candidates: int  # pairs of rows looked at
    counted: int  # pairs of rows compared in full


def near_duplicates(
    sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float = 0.0, progress: Progress | None = None
) -> Matches:
    """Which rows repeat a better one, each the best of those that stay. Depends on `order`, never on the order of the rows.

    `order` lists the rows to compare, best first. Rows that differ in `same` are never near-duplicates. The lowest bit of
    a hash is its side; with a `floor`, the similarity of each side alone must reach it too.
    """
    index = SimilarPairs(sets, same, order, similarity, floor)
    postings = index.postings()
    kept_by = np.full(len(order), -1, np.int64)  # by place in `order`, from here to the end
    scores = np.zeros(len(order))
    progress = progress or Silent()
    progress.start("comparing the rows", len(order), "rows")
    for low, high in _blocks(len(order), postings.pairs_within()):
        block = postings.where((postings.places >= low) & (postings.places < high))
        stay = postings.where((postings.places < low) & (kept_by[postings.places] < 0))
        for better, worse, score in index.similar(block, stay):
            for a, b, s in _ranked(better, worse, score):
                if kept_by[b] < 0 or a < kept_by[b]:
                    kept_by[b], scores[b] = a, s
        found = list(index.similar(block.where(kept_by[block.places] < 0)))
        if found:
            for a, b, s in _ranked(*(np.concatenate(parts) for parts in zip(*found, strict=True))):
                if kept_by[b] < 0 and kept_by[a] < 0:
                    kept_by[b], scores[b] = a, s
        progress.advance(high - low)
    progress.end()
    by_row, similarities = np.full(len(sets), -1, np.int64), np.zeros(len(sets))
    gone = np.flatnonzero(kept_by >= 0)
    by_row[order[gone]], similarities[order[gone]] = order[kept_by[gone]], scores[gone]
    return Matches(by_row, similarities, _repeats(sets, order[gone], by_row, similarities), index.candidates, index.counted)


def _repeats(sets: Sets, gone: Ints, kept_by: Ints, similarities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the rows that go, best first, have the set of a better row: of the one kept, or of one that went for it too."""
    repeats: NDArray[np.bool_] = similarities == 1
    seen: set[tuple[int, int]] = set()
    for row in gone[~repeats[gone]].tolist():
        key = int(kept_by[row]), hash(sets.hashes[sets.bounds[row] : sets.bounds[row + 1]].tobytes())
        repeats[row] = key in seen
        seen.add(key)
    return repeats


def _blocks(rows: int, candidates: int) -> Iterator[tuple[int, int]]:
    """From small to large: the first blocks end the large clusters before their members are compared with each other."""
    most = max(SMALL_BLOCK, rows * FEW_CANDIDATES // max(candidates, 1))
    low, size = 0, min(FIRST_BLOCK, most)
    while low < rows:
        yield low, min(low + size, rows)
        low, size = low + size, min(size * 2, most)


def _ranked(better: Ints, worse: Ints, score: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """The pairs, by the worse row and then the better, best first."""
    ranked = np.lexsort((better, worse))
    return zip(better[ranked].tolist(), worse[ranked].tolist(), score[ranked].tolist(), strict=True)
