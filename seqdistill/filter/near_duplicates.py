"""Near-duplicates: which rows say almost what a better row says, found without comparing every row with every other.

Candidates come from an exact index, not from a lottery of hashes: two sets whose Jaccard similarity reaches t share one of
their ceil-rarest (1 - t) shares of pairs (prefix filter: Chaudhuri et al. 2006, Bayardo et al. 2007), so recall is 1.
A parity bitmap throws out most candidates without looking at the texts (Sandes et al. 2020), the rest are counted in full.
Assignment is a star, never a chain: going from the best row down, a row goes only if a row that stays is similar to it.
Knows sets of hashes, not texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqdistill.filter.words import PAIR_BITS, Hashes, Ints, Sets, mix

COUNTER_BITS = 22  # the pairs are counted in at most this many bins (2**), to put the rare ones first
BITMAP_BITS = 512
ROWS_AT_ONCE = 1 << 12
CANDIDATES_AT_ONCE = 1 << 21
PAIRS_AT_ONCE = 1 << 22  # elements counted in full at once
FEW_CANDIDATES = 1 << 24  # with fewer than this the remaining candidates are listed at once
ROUNDS = 8


@dataclass(frozen=True)
class Matches:
    """For each row: the better row that it repeats, and how similar they are."""

    kept_by: Ints  # (n,) a row number; -1 for a row that stays
    similarity: NDArray[np.float64]  # (n,) Jaccard similarity to that row; 0 for a row that stays


def near_duplicates(sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float = 0.0) -> Matches:
    """Which rows repeat a better one. The result depends on `order`, never on the order of the rows.

    `order` lists the rows to compare, best first. Rows that differ in `same` are never near-duplicates. The lowest bit of
    a hash is its side; with a `floor`, the similarity of each side alone must reach it too.
    """
    index = _Index(sets, same, order, similarity, floor)
    postings, row_bits = index.postings()
    kept_by = np.full(len(order), -1, np.int64)  # by place in `order`, from here to the end
    scores = np.zeros(len(order))
    for _ in range(ROUNDS):
        postings = postings[_shared(postings, row_bits)]
        if _candidates(postings, row_bits) <= FEW_CANDIDATES:
            break
        # The best row of every list it is in stays for certain, so what is similar to it goes at once: this ends the
        # large clusters before their members are compared with each other.
        first = _starts(postings, row_bits)
        places = _places(postings, row_bits)
        leaders = places[first[np.cumsum(_is_start(postings, row_bits)) - 1]]
        certain = np.ones(len(order), bool)
        certain[places[leaders != places]] = False
        before = len(postings)
        chosen = certain[leaders] & (leaders != places)
        for better, worse, score in index.similar(_distinct(leaders[chosen], places[chosen])):
            _assign(kept_by, scores, better, worse, score)
        postings = postings[kept_by[places] < 0]
        if len(postings) > 0.98 * before:
            break
    postings = postings[_shared(postings, row_bits)]
    found = [edge for pairs in _all_candidates(postings, row_bits, index) for edge in index.similar(pairs)]
    if found:
        better, worse, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ranked = np.lexsort((better, worse))
        for a, b, s in zip(better[ranked].tolist(), worse[ranked].tolist(), score[ranked].tolist(), strict=True):
            if kept_by[b] < 0 and kept_by[a] < 0:
                kept_by[b], scores[b] = a, s
    by_row, similarities = np.full(len(sets), -1, np.int64), np.zeros(len(sets))
    gone = np.flatnonzero(kept_by >= 0)
    by_row[order[gone]], similarities[order[gone]] = order[kept_by[gone]], scores[gone]
    return Matches(by_row, similarities)


class _Index:
    """The sets in the order of their rows' merit, with what rules a pair of them out cheaply."""

    def __init__(self, sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float) -> None:
        self.sets, self.same, self.order = sets, same[order], order
        self.similarity, self.floor = similarity, floor
        self.starts, self.sizes = sets.bounds[:-1][order], sets.sizes[order]
        self.bitmaps = _bitmaps(sets)[order]
        self.folded = np.bitwise_xor.reduce(self.bitmaps, axis=1)  # the same in 64 bits: small enough for the cache

    def postings(self) -> tuple[Hashes, int]:
        """The index, sorted: a hash of (pair, `same`) above, a row's place in the order in the low bits; and their number."""
        sets, n = self.sets, len(self.sets)
        row_bits = max(1, (len(self.order) - 1).bit_length())
        bins = 1 << min(COUNTER_BITS, len(sets.hashes).bit_length())
        counts = np.zeros(bins, np.int64)
        for low, high in _spans(n, ROWS_AT_ONCE):
            hashes = np.asarray(sets.hashes[sets.bounds[low] : sets.bounds[high]])
            counts += np.bincount((hashes >> np.uint64(8)).astype(np.int64) & (bins - 1), minlength=bins)
        rarity = np.minimum(counts, 0xFFFF).astype(np.uint64) << np.uint64(32)
        place, listed, same = np.zeros(n, np.uint64), np.zeros(n, bool), np.zeros(n, np.uint64)
        place[self.order], listed[self.order] = np.arange(len(self.order), dtype=np.uint64), True
        same[self.order] = self.same
        parts = []
        for low, high in _spans(n, ROWS_AT_ONCE):
            hashes = np.asarray(sets.hashes[sets.bounds[low] : sets.bounds[high]])
            bounds = sets.bounds[low : high + 1] - sets.bounds[low]
            sizes = np.diff(bounds)
            keys = np.repeat(np.arange(high - low, dtype=np.uint64) << np.uint64(48), sizes)
            keys |= rarity[(hashes >> np.uint64(8)).astype(np.int64) & (bins - 1)]
            keys |= hashes & np.uint64(0xFFFFFFFF)
            keys.sort()
            # Two sets of similarity t share t of the larger one, so one of each set's rarest (1 - t) and one more.
            lengths = sizes - np.ceil(self.similarity * sizes - 1e-9).astype(np.int64) + (sizes > 0)
            lengths *= listed[low:high]
            rows = np.repeat(np.arange(high - low), lengths)
            chosen = _ranges(bounds[:-1], lengths)
            folded = mix((keys[chosen] & np.uint64(0xFFFFFFFF)) * np.uint64(0x9E3779B97F4A7C15) ^ same[low:high][rows])
            parts.append((folded >> np.uint64(row_bits) << np.uint64(row_bits)) | place[low:high][rows])
        postings = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        postings.sort()
        return postings[np.append(True, postings[1:] != postings[:-1])[: len(postings)]], row_bits

    def plausible(self, better: Ints, worse: Ints) -> tuple[Ints, Ints]:
        """The pairs of places that bitmap, size and `same` do not rule out."""
        # |A ^ B| is at least the number of bits that differ, and at most (1 - t) / (1 + t) of |A| + |B|.
        for bitmaps in (self.folded, self.bitmaps):
            allowed = (1 - self.similarity) / (1 + self.similarity) * (self.sizes[better] + self.sizes[worse]) + 1e-6
            differing = np.bitwise_count(bitmaps[better] ^ bitmaps[worse])
            near = (differing if differing.ndim == 1 else differing.sum(axis=1, dtype=np.int64)) <= allowed
            better, worse = better[near], worse[near]
        small = np.minimum(self.sizes[better], self.sizes[worse])
        large = np.maximum(self.sizes[better], self.sizes[worse])
        fits = (small >= self.similarity * large - 1e-9) & (self.same[better] == self.same[worse])
        return better[fits], worse[fits]

    def similar(self, pairs: tuple[Ints, Ints]) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """The pairs of places, better first, that are similar indeed, with their similarity; every pair counted in full."""
        for low, high in _spans(len(pairs[0]), CANDIDATES_AT_ONCE):
            better, worse = self.plausible(pairs[0][low:high], pairs[1][low:high])
            together = np.cumsum(self.sizes[better] + self.sizes[worse])
            start = 0
            while start < len(better):
                budget = (together[start - 1] if start else 0) + PAIRS_AT_ONCE
                stop = min(max(start + 1, int(np.searchsorted(together, budget))), start + (1 << (64 - PAIR_BITS)))
                a, b = better[start:stop], worse[start:stop]
                scores, sides = self._jaccard(a, b)
                chosen = (scores >= self.similarity - 1e-9) & (sides >= self.floor - 1e-9)
                yield a[chosen], b[chosen], scores[chosen]
                start = stop

    def _jaccard(self, a: Ints, b: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The similarity of each pair of sets, and that of the less similar of their two sides."""
        numbers = np.arange(len(a), dtype=np.uint64) << np.uint64(PAIR_BITS)
        keys = np.concatenate(
            [
                self.sets.hashes[_ranges(self.starts[part], self.sizes[part])] | np.repeat(numbers, self.sizes[part])
                for part in (a, b)
            ]
        )
        odd = np.bincount((keys[(keys & np.uint64(1)) == 1] >> np.uint64(PAIR_BITS)).astype(np.int64), minlength=len(a))
        keys.sort()
        common = keys[1:][keys[1:] == keys[:-1]]
        owners = (common >> np.uint64(PAIR_BITS)).astype(np.int64)
        shared = np.bincount(owners, minlength=len(a))
        shared_odd = np.bincount(owners[(common & np.uint64(1)) == 1], minlength=len(a))
        total = self.sizes[a] + self.sizes[b]
        return shared / np.maximum(total - shared, 1), np.minimum(
            _share(shared_odd, odd - shared_odd), _share(shared - shared_odd, total - odd - (shared - shared_odd))
        )


def _share(shared: Ints, union: Ints) -> NDArray[np.float64]:
    """shared / union; 1 where both sides are empty."""
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def _assign(kept_by: Ints, scores: NDArray[np.float64], better: Ints, worse: Ints, score: NDArray[np.float64]) -> None:
    """Each worse row goes to the best of its better rows."""
    ranked = np.lexsort((better, worse))
    first = np.unique(worse[ranked], return_index=True)[1]
    chosen = ranked[first]
    kept_by[worse[chosen]], scores[worse[chosen]] = better[chosen], score[chosen]


def _bitmaps(sets: Sets) -> Hashes:
    """(n, BITMAP_BITS / 64): the parity of how many of a set's hashes fall on each bit."""
    parts = [np.empty((0, BITMAP_BITS // 64), np.uint64)]
    for low, high in _spans(len(sets), ROWS_AT_ONCE):
        hashes = sets.hashes[sets.bounds[low] : sets.bounds[high]]
        owners = np.repeat(np.arange(high - low), np.diff(sets.bounds[low : high + 1]))
        bits = owners * BITMAP_BITS + ((hashes >> np.uint64(1)).astype(np.int64) & (BITMAP_BITS - 1))
        parity = np.bincount(bits, minlength=(high - low) * BITMAP_BITS).astype(np.uint8) & 1
        parts.append(np.packbits(parity).view(np.uint64).reshape(high - low, -1))
    return np.concatenate(parts)


def _all_candidates(postings: Hashes, row_bits: int, index: _Index) -> Iterator[tuple[Ints, Ints]]:
    """Every pair of places that share a list, better first, less those ruled out cheaply; in bounded portions."""
    if not len(postings):
        return
    places = _places(postings, row_bits)
    starts = _starts(postings, row_bits)
    firsts = starts[np.cumsum(_is_start(postings, row_bits)) - 1]
    earlier = np.arange(len(postings)) - firsts  # how many better rows stand before each in its list
    until = np.cumsum(earlier)
    start = 0
    while start < len(postings):
        budget = (until[start - 1] if start else 0) + CANDIDATES_AT_ONCE
        stop = max(start + 1, int(np.searchsorted(until, budget)))
        worse = np.repeat(places[start:stop], earlier[start:stop])
        better = places[_ranges(firsts[start:stop], earlier[start:stop])]
        yield _distinct(*index.plausible(better, worse))
        start = stop


def _distinct(better: Ints, worse: Ints) -> tuple[Ints, Ints]:
    keys = np.unique(better << 32 | worse)
    return keys >> 32, keys & 0xFFFFFFFF


def _places(postings: Hashes, row_bits: int) -> Ints:
    return (postings & np.uint64((1 << row_bits) - 1)).astype(np.int64)


def _is_start(postings: Hashes, row_bits: int) -> NDArray[np.bool_]:
    """Whether a posting is the first, and so the best, of its list."""
    lists = postings >> np.uint64(row_bits)
    fresh = np.ones(len(postings), bool)
    fresh[1:] = lists[1:] != lists[:-1]
    return fresh


def _starts(postings: Hashes, row_bits: int) -> Ints:
    return np.flatnonzero(_is_start(postings, row_bits))


def _shared(postings: Hashes, row_bits: int) -> NDArray[np.bool_]:
    """Whether a posting's list has another one."""
    fresh = _is_start(postings, row_bits)
    last = np.ones(len(postings), bool)
    last[:-1] = fresh[1:]
    return ~(fresh & last)


def _candidates(postings: Hashes, row_bits: int) -> int:
    """How many pairs all the lists hold."""
    lengths = np.diff(np.append(_starts(postings, row_bits), len(postings)))
    return int((lengths * (lengths - 1) // 2).sum())


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, ... of each length, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: Ints = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return ranges


def _spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + size, total)) for low in range(0, total, size))
