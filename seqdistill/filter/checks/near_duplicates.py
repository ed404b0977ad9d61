"""Near-duplicates: which rows say almost what a better row says, found without comparing every row with every other.

Candidates come from an exact index, not from a lottery of hashes: two sets whose Jaccard similarity reaches t share one of
their ceil-rarest (1 - t) shares of pairs (prefix filter: Chaudhuri et al. 2006, Bayardo et al. 2007), so recall is 1. Where in
both sets the shared pair stands bounds what the rest can share (positional filter: Xiao et al. 2008), which parts the rows
of a template; a parity bitmap throws out most candidates without looking at the texts (Sandes et al. 2020), the rest are
counted in full. Assignment is a star, never a chain: going from the best row down, a row goes only if a row that stays is
similar to it. So rows are compared with those that stay, a block at a time, and a large cluster costs what its best row does.
Knows sets of hashes, not texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.filter.checks.words import PAIR_BITS, Hashes, Ints, Sets, mix

COUNTER_BITS = 22  # the pairs are counted in at most this many bins (2**), to put the rare ones first
BITMAP_BITS = 512
POSITION_BITS = 8  # a pair's position among its row's rarest; later ones count as the last of these
SIZE_BITS = 20  # larger sets are taken for one size in the index
ROWS_AT_ONCE = 1 << 12
CANDIDATES_AT_ONCE = 1 << 21
PAIRS_AT_ONCE = 1 << 22  # elements counted in full at once
FIRST_BLOCK = 256  # rows; blocks double from here
FEW_CANDIDATES = 1 << 22  # of which a block may have so many, if it is not a small one
SMALL_BLOCK = 1 << 11  # rows


@dataclass(frozen=True)
class Matches:
    """For each row: the better row that it repeats, and how similar they are."""

    kept_by: Ints  # (n,) a row number; -1 for a row that stays
    similarity: NDArray[np.float64]  # (n,) Jaccard similarity to that row; 0 for a row that stays
    repeats: NDArray[np.bool_]  # (n,) whether a better row, kept or not, has the same set: it goes at any similarity
    candidates: int  # pairs of rows looked at
    counted: int  # pairs of rows compared in full


def near_duplicates(sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float = 0.0) -> Matches:
    """Which rows repeat a better one, each the best of those that stay. Depends on `order`, never on the order of the rows.

    `order` lists the rows to compare, best first. Rows that differ in `same` are never near-duplicates. The lowest bit of
    a hash is its side; with a `floor`, the similarity of each side alone must reach it too.
    """
    index = _Index(sets, same, order, similarity, floor)
    postings = index.postings()
    kept_by = np.full(len(order), -1, np.int64)  # by place in `order`, from here to the end
    scores = np.zeros(len(order))
    for low, high in _blocks(len(order), postings.pairs_within()):
        block = postings.where((postings.places >= low) & (postings.places < high))
        stay = postings.where((postings.places < low) & (kept_by[postings.places] < 0))
        for better, worse, score in index.similar(block.across(stay, similarity)):
            for a, b, s in _ranked(better, worse, score):
                if kept_by[b] < 0 or a < kept_by[b]:
                    kept_by[b], scores[b] = a, s
        found = list(index.similar(block.where(kept_by[block.places] < 0).within()))
        if found:
            for a, b, s in _ranked(*(np.concatenate(parts) for parts in zip(*found, strict=True))):
                if kept_by[b] < 0 and kept_by[a] < 0:
                    kept_by[b], scores[b] = a, s
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


@dataclass(frozen=True)
class _Postings:
    """The index: a list for each rare pair of the rows that have it among their rarest, by their sizes and then merit."""

    keys: Ints  # the number of the list above, the size of the row's set in the low SIZE_BITS
    places: Ints  # of the row
    reach: Ints  # the size of the largest set that can be similar to the row's and share no rarer pair with it

    def where(self, chosen: NDArray[np.bool_]) -> "_Postings":
        """Some of them."""
        return _Postings(self.keys[chosen], self.places[chosen], self.reach[chosen])

    def within(self) -> Iterator[tuple[Ints, Ints]]:
        """Every pair of places that share a list and can be similar, better first; in bounded portions, some repeatedly."""
        return self._joined(self, np.arange(1, len(self.keys) + 1))

    def pairs_within(self) -> int:
        """At least as many as `within` gives."""
        return int(np.maximum(self._last(self) - np.arange(1, len(self.keys) + 1), 0).sum())

    def across(self, others: "_Postings", similarity: float) -> Iterator[tuple[Ints, Ints]]:
        """The same of one of the others and one of these."""
        sizes = self.keys & _SIZES
        least = np.ceil(similarity * sizes - 1e-9).astype(np.int64)
        return self._joined(others, np.searchsorted(others.keys, self.keys - sizes + least))

    def _last(self, others: "_Postings") -> Ints:
        return np.searchsorted(others.keys, self.keys & ~_SIZES | np.minimum(self.reach, _SIZES), side="right")

    def _joined(self, others: "_Postings", first: Ints) -> Iterator[tuple[Ints, Ints]]:
        counts = np.maximum(self._last(others) - first, 0)
        sizes = self.keys & _SIZES
        until = np.cumsum(counts)
        start = 0
        while start < len(counts) and until[-1]:
            budget = (until[start - 1] if start else 0) + CANDIDATES_AT_ONCE
            stop = max(start + 1, int(np.searchsorted(until, budget)))
            theirs = _ranges(first[start:stop], counts[start:stop])
            reached = others.reach[theirs] >= np.repeat(sizes[start:stop], counts[start:stop])
            a, b = np.repeat(self.places[start:stop], counts[start:stop])[reached], others.places[theirs[reached]]
            yield np.minimum(a, b), np.maximum(a, b)
            start = stop


_SIZES = (1 << SIZE_BITS) - 1


class _Index:
    """The sets in the order of their rows' merit, with what rules a pair of them out cheaply."""

    def __init__(self, sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float) -> None:
        self.sets, self.same, self.order = sets, same[order], order
        self.similarity, self.floor = similarity, floor
        self.starts, self.sizes = sets.bounds[:-1][order], sets.sizes[order]
        self.bitmaps = _bitmaps(sets)[order]
        self.folded = np.bitwise_xor.reduce(self.bitmaps, axis=1)  # the same in 64 bits: small enough for the cache
        self.candidates = self.counted = 0

    def postings(self) -> _Postings:
        """Each row's rarest pairs: enough that two similar rows share one."""
        keys = self._sorted_postings()
        row_bits = _bits(len(self.order))
        keys = keys[np.append(True, keys[1:] >> np.uint64(POSITION_BITS) != keys[:-1] >> np.uint64(POSITION_BITS))[: len(keys)]]
        lists = keys >> np.uint64(row_bits + POSITION_BITS)
        keys = keys[_shared(lists)]
        lists = keys >> np.uint64(row_bits + POSITION_BITS)
        places = (keys >> np.uint64(POSITION_BITS) & np.uint64((1 << row_bits) - 1)).astype(np.int64)
        sizes = self.sizes[places]
        # Sets of a and b pairs share t / (1 + t) of a + b if they are similar; those from this one on are all they can share.
        left = sizes - (keys & np.uint64((1 << POSITION_BITS) - 1)).astype(np.int64)
        reach = np.floor((left + 1e-6) * (1 + self.similarity) / self.similarity - sizes).astype(np.int64)
        keyed = np.cumsum(_is_start(lists)) << SIZE_BITS | np.minimum(sizes, _SIZES)
        ranked = np.argsort(keyed, kind="stable")
        postings = _Postings(keyed[ranked], places[ranked], reach[ranked])
        starts = _is_start(postings.keys >> SIZE_BITS)
        smallest = (postings.keys[starts] & _SIZES)[np.cumsum(starts) - 1]
        postings = postings.where(np.minimum(postings.reach, _SIZES) >= smallest)
        return postings.where(_shared(postings.keys >> SIZE_BITS))

    def _sorted_postings(self) -> Hashes:
        """A hash of (pair, `same`) above, a row's place in the order below it, the pair's position in the low bits; sorted."""
        sets, n = self.sets, len(self.sets)
        low_bits = np.uint64(_bits(len(self.order)) + POSITION_BITS)
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
            position = np.minimum(_ranges(np.zeros(high - low, np.int64), lengths), (1 << POSITION_BITS) - 1)
            below = place[low:high][rows] << np.uint64(POSITION_BITS) | position.astype(np.uint64)
            parts.append((folded >> low_bits << low_bits) | below)
        postings = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        postings.sort()
        return postings

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

    def similar(self, portions: Iterable[tuple[Ints, Ints]]) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """The pairs of places, better first, that are similar indeed, with their similarity; every pair counted in full."""
        for pairs in portions:
            self.candidates += len(pairs[0])
            better, worse = _distinct(*self.plausible(*pairs))
            self.counted += len(better)
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


def _distinct(better: Ints, worse: Ints) -> tuple[Ints, Ints]:
    keys = np.unique(better << 32 | worse)
    return keys >> 32, keys & 0xFFFFFFFF


def _is_start(lists: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether an entry is the first of its list; lists are sorted."""
    fresh = np.ones(len(lists), bool)
    fresh[1:] = lists[1:] != lists[:-1]
    return fresh


def _shared(lists: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether an entry's list has another one."""
    fresh = _is_start(lists)
    last = np.ones(len(lists), bool)
    last[:-1] = fresh[1:]
    return ~(fresh & last)


def _bits(count: int) -> int:
    """The bits that number so many."""
    return max(1, (count - 1).bit_length())


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, ... of each length, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: Ints = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return ranges


def _spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + size, total)) for low in range(0, total, size))
