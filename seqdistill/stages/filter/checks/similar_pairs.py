"""Which sets are similar, found without comparing every set with every other. Knows sets of hashes, not texts.

Candidates come from an exact index, not from a lottery of hashes: two sets whose Jaccard similarity reaches t share one of
their ceil-rarest (1 - t) shares of pairs (prefix filter: Chaudhuri et al. 2006, Bayardo et al. 2007), so recall is 1. Where in
both sets the shared pair stands bounds what the rest can share (positional filter: Xiao et al. 2008), which parts the rows
of a template; a parity bitmap throws out most candidates without looking at the texts (Sandes et al. 2020), the rest are
counted in full. Where nearly every row is a candidate for every other (many rows just under the similarity), all of them
are counted in matrix products instead, which takes less.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.stages.filter.checks.words import PAIR_BITS, Hashes, Ints, Sets, mix

COUNTER_BITS = 22  # the pairs are counted in at most this many bins (2**), to put the rare ones first
BITMAP_BITS = 512
POSITION_BITS = 8  # a pair's position among its row's rarest; later ones count as the last of these
SIZE_BITS = 20  # larger sets are taken for one size in the index
ROWS_AT_ONCE = 1 << 12
CANDIDATES_AT_ONCE = 1 << 21
PAIRS_AT_ONCE = 1 << 22  # elements merged at once
MANY_PAIRS = 1 << 16  # fewer candidates are not worth a matrix
CANDIDATE_SECONDS = 5e-7  # of a candidate, measured; only the choice between two exact ways rests on these three
PRODUCT_SECONDS = 2e-11  # of a cell and a column in a product
USUAL_COLUMNS = 4096  # the elements that rows so alike share
CELLS_AT_ONCE = 1 << 24
COLUMNS_AT_ONCE = 2048
SHORT_ANSWER = 12  # word pairs of a completion: one word in them makes another answer


@dataclass(frozen=True)
class Postings:
    """The index: a list for each rare pair of the rows that have it among their rarest, by their sizes and then merit."""

    keys: Ints  # the number of the list above, the size of the row's set in the low SIZE_BITS
    places: Ints  # of the row
    reach: Ints  # the size of the largest set that can be similar to the row's and share no rarer pair with it

    def where(self, chosen: NDArray[np.bool_]) -> "Postings":
        """Some of them."""
        return Postings(self.keys[chosen], self.places[chosen], self.reach[chosen])

    def within(self) -> "_Joins":
        """Every two of them that share a list and can be similar."""
        return self._joined(self, np.arange(1, len(self.keys) + 1))

    def pairs_within(self) -> int:
        """At least as many as `within` gives."""
        return self.within().count

    def across(self, others: "Postings", similarity: float) -> "_Joins":
        """The same of one of the others and one of these."""
        sizes = self.keys & _SIZES
        least = np.ceil(similarity * sizes - 1e-9).astype(np.int64)
        return self._joined(others, np.searchsorted(others.keys, self.keys - sizes + least))

    def _joined(self, others: "Postings", first: Ints) -> "_Joins":
        last = np.searchsorted(others.keys, self.keys & ~_SIZES | np.minimum(self.reach, _SIZES), side="right")
        return _Joins(self, others, first, np.maximum(last - first, 0))


@dataclass(frozen=True)
class _Joins:
    """For each of some postings the range of others that it meets."""

    mine: Postings
    others: Postings
    first: Ints
    counts: Ints

    @property
    def count(self) -> int:
        """At least as many as there are pairs of places in it, repeated ones included."""
        return int(self.counts.sum())

    def pairs(self) -> Iterator[tuple[Ints, Ints]]:
        """The pairs of places, better first; in bounded portions, some repeatedly."""
        sizes, counts = self.mine.keys & _SIZES, self.counts
        until = np.cumsum(counts)
        start = 0
        while start < len(counts) and until[-1]:
            budget = (until[start - 1] if start else 0) + CANDIDATES_AT_ONCE
            stop = max(start + 1, int(np.searchsorted(until, budget)))
            theirs = _ranges(self.first[start:stop], counts[start:stop])
            reached = self.others.reach[theirs] >= np.repeat(sizes[start:stop], counts[start:stop])
            a, b = np.repeat(self.mine.places[start:stop], counts[start:stop])[reached], self.others.places[theirs[reached]]
            yield np.minimum(a, b), np.maximum(a, b)
            start = stop


_SIZES = (1 << SIZE_BITS) - 1


class SimilarPairs:
    """The sets in the order of their rows' merit, with what rules a pair of them out cheaply."""

    def __init__(self, sets: Sets, same: Hashes, order: Ints, similarity: float, floor: float) -> None:
        self.sets, self.same, self.order = sets, same[order], order
        self.similarity, self.floor = similarity, floor
        self.starts, self.sizes = sets.bounds[:-1][order], sets.sizes[order]
        self.odd_sizes = _odd_sizes(sets)[order]
        self.bitmaps = _bitmaps(sets)[order]
        self.folded = np.bitwise_xor.reduce(self.bitmaps, axis=1)  # the same in 64 bits: small enough for the cache
        self.candidates = self.counted = 0

    def postings(self) -> Postings:
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
        postings = Postings(keyed[ranked], places[ranked], reach[ranked])
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

    def similar(self, block: Postings, others: Postings | None = None) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """The pairs of places, better first, that are similar indeed, within a block or of it and others, and how similar.

        Every pair is counted in full: in one matrix product where nearly every row is a candidate for every other.
        """
        joins = block.within() if others is None else block.across(others, self.similarity)
        if joins.count < MANY_PAIRS:
            counted = self._counted(joins.pairs())
        else:
            rows_b = _distinct(block.places)
            rows_a = rows_b if others is None else _distinct(others.places)
            dense = len(rows_a) * len(rows_b) * USUAL_COLUMNS * PRODUCT_SECONDS < joins.count * CANDIDATE_SECONDS
            counted = self._all_counted(rows_a, rows_b) if dense else self._counted(joins.pairs())
        for a, b, shared, shared_odd in counted:
            scores, sides = self._similarities(a, b, shared, shared_odd)
            chosen = (scores >= self.similarity - 1e-9) & (sides >= self.floor - 1e-9)
            yield a[chosen], b[chosen], scores[chosen]

    def _counted(self, portions: Iterable[tuple[Ints, Ints]]) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
        """The plausible ones of some pairs, with how many elements each shares, of both sides and of the odd one."""
        for keys in self._distinct_plausible(portions):
            better, worse = keys >> 32, keys & 0xFFFFFFFF
            self.counted += len(better)
            together = np.cumsum(self.sizes[better] + self.sizes[worse])
            start = 0
            while start < len(better):
                budget = (together[start - 1] if start else 0) + PAIRS_AT_ONCE
                stop = min(max(start + 1, int(np.searchsorted(together, budget))), start + (1 << (64 - PAIR_BITS)))
                yield self._merged(better[start:stop], worse[start:stop])
                start = stop

    def _distinct_plausible(self, portions: Iterable[tuple[Ints, Ints]]) -> Iterator[Ints]:
        """The plausible pairs of many portions, each as one number and, within a part, once."""
        waiting, size = list[Ints](), 0
        for pairs in portions:
            self.candidates += len(pairs[0])
            better, worse = self.plausible(*pairs)
            if len(better):
                waiting.append(_distinct(better << 32 | worse))
                size += len(waiting[-1])
            if size >= CANDIDATES_AT_ONCE:
                together = _distinct(np.concatenate(waiting))
                waiting, size = [together], len(together)
                if size >= CANDIDATES_AT_ONCE // 2:
                    yield together
                    waiting, size = [], 0
        if waiting:
            yield _distinct(np.concatenate(waiting))

    def _all_counted(self, rows_a: Ints, rows_b: Ints) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
        """The same of every row of the one kind with every one of the other, less the pairs that share too little.

        The intersections are products of 0/1 matrices, rows by elements; exact, as counts are far below 2**24.
        """
        at_once = max(1, CELLS_AT_ONCE // len(rows_b))
        for start in range(0, len(rows_a), at_once):
            some = rows_a[start : start + at_once]
            counts = [np.zeros((len(some), len(rows_b)), np.float32) for _ in range(2)]
            for side, left, right in self._shared_columns(some, rows_b):
                counts[side] += left @ right.T
            self.counted += counts[0].size
            least = self.similarity / (1 + self.similarity) * (self.sizes[some][:, None] + self.sizes[rows_b][None, :]) - 1e-3
            near = (counts[0] + counts[1] >= least) & (self.same[some][:, None] == self.same[rows_b][None, :])
            at = np.nonzero(near & (some[:, None] < rows_b[None, :]))
            even, odd = (count[at].astype(np.int64) for count in counts)
            yield some[at[0]], rows_b[at[1]], even + odd, odd

    def _shared_columns(self, rows_a: Ints, rows_b: Ints) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
        """The elements that rows of both kinds have, COLUMNS_AT_ONCE at a time: their side, and a 0/1 matrix of each kind."""
        elements = [self.sets.hashes[_ranges(self.starts[rows], self.sizes[rows])] for rows in (rows_a, rows_b)]
        owners = [np.repeat(np.arange(len(rows)), self.sizes[rows]) for rows in (rows_a, rows_b)]
        known = np.intersect1d(_distinct(elements[0]), _distinct(elements[1]), assume_unique=True)
        for side in (0, 1):
            columns = known[(known & np.uint64(1)) == side]
            for start in range(0, len(columns), COLUMNS_AT_ONCE):
                some = columns[start : start + COLUMNS_AT_ONCE]
                matrices = []
                for rows, mine, owner in zip((rows_a, rows_b), elements, owners, strict=True):
                    place = np.minimum(np.searchsorted(some, mine), len(some) - 1)
                    hit = some[place] == mine
                    matrix = np.zeros((len(rows), len(some)), np.float32)
                    matrix[owner[hit], place[hit]] = 1
                    matrices.append(matrix)
                yield side, matrices[0], matrices[1]

    def _merged(self, a: Ints, b: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """The pairs, with their intersections counted by sorting both sets of each together."""
        numbers = np.arange(len(a), dtype=np.uint64) << np.uint64(PAIR_BITS)
        keys = np.concatenate(
            [
                self.sets.hashes[_ranges(self.starts[part], self.sizes[part])] | np.repeat(numbers, self.sizes[part])
                for part in (a, b)
            ]
        )
        keys.sort()
        common = keys[1:][keys[1:] == keys[:-1]]
        owners = (common >> np.uint64(PAIR_BITS)).astype(np.int64)
        shared = np.bincount(owners, minlength=len(a))
        return a, b, shared, np.bincount(owners[(common & np.uint64(1)) == 1], minlength=len(a))

    def _similarities(
        self, a: Ints, b: Ints, shared: Ints, shared_odd: Ints
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The similarity of each pair of sets, and that of the less similar of their two sides."""
        total, odd = self.sizes[a] + self.sizes[b], self.odd_sizes[a] + self.odd_sizes[b]
        completion = _share(shared_odd, odd - shared_odd)
        # Of short answers every word counts: "Five dead" is not "Six dead".
        short = np.minimum(self.odd_sizes[a], self.odd_sizes[b]) <= SHORT_ANSWER
        completion = np.where(short & (completion < 1), 0.0, completion) if self.floor else completion
        prompt = _share(shared - shared_odd, total - odd - (shared - shared_odd))
        return shared / np.maximum(total - shared, 1), np.minimum(completion, prompt)


def _share(shared: Ints, union: Ints) -> NDArray[np.float64]:
    """shared / union; 1 where both sides are empty."""
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def _odd_sizes(sets: Sets) -> Ints:
    """(n,) how many elements of each set are of the odd side: of a pair's completion."""
    parts = [np.empty(0, np.int64)]
    for low, high in _spans(len(sets), ROWS_AT_ONCE):
        odd = np.asarray(sets.hashes[sets.bounds[low] : sets.bounds[high]]) & np.uint64(1)
        total = np.concatenate((np.zeros(1, np.int64), np.cumsum(odd, dtype=np.int64)))
        bounds = sets.bounds[low : high + 1] - sets.bounds[low]
        parts.append(total[bounds[1:]] - total[bounds[:-1]])
    return np.concatenate(parts)


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


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The values, sorted, each once. By sorting: np.unique hashes, which takes many times as long here."""
    ranked = np.sort(values)
    return ranked[_is_start(ranked)]


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
    """The number of bits that `count` values need."""
    return max(1, (count - 1).bit_length())


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, ... of each length, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: Ints = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return ranges


def _spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + size, total)) for low in range(0, total, size))
