"""Contamination: which rows hold an item of a test set, in whole or in large part, in their prompt or their completion.

Rows go from train; test sets are never touched. Wording that many test items share is their template and proves nothing.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seqdistill.filter.checks.words import Hashes, Ints, Words, digits_masked, grams, sequence_hashes, words
from seqdistill.records import Prompt, text_without_system

GRAM = 5  # words; an item of fewer is found only when it is the whole prompt
REFERENCE_WORDS = 8  # a shorter reference ("yes", "Paris") proves nothing when a completion says the same
SHORT = 12  # grams; an item of fewer must be found whole
TEMPLATE_SHARE = 0.1  # of the items: what stands in more of them is their template
HINT_SHARE = 0.3  # of an item's grams in a row: enough to look at the characters too
LOOKED_AT = 3  # the items nearest to a row, whose characters are looked at
CHARACTERS = 12
FILTER_BITS = 22


@dataclass(frozen=True)
class Item:
    """One text of a test set: a view of a prompt, or its reference."""

    test: str  # the prompt's id
    source: str  # the file or hub data set
    part: str  # prompt | reference
    text: str


@dataclass(frozen=True)
class Hit:
    """A row that holds a test item."""

    row: int
    kind: str  # exact | masked | n-gram | characters
    side: str  # prompt | completion
    item: int
    share: float  # of the item found in the row


def items_of(prompts: Iterable[Prompt], source: str) -> list[Item]:
    """The texts of a test set: both views of each prompt, each last user message, and the references."""
    items: dict[tuple[str, str], Item] = {}
    for prompt in prompts:
        for view in (prompt.messages, prompt.teacher_messages):
            for text in (text_without_system(view), view[-1]["content"]):
                items.setdefault(("prompt", text), Item(prompt.id, source, "prompt", text))
        if prompt.reference:
            items.setdefault(("reference", prompt.reference), Item(prompt.id, source, "reference", prompt.reference))
    return list(items.values())


class ItemIndex:
    """Test items, ready to be looked for in many rows."""

    def __init__(self, items: Sequence[Item], overlap: float) -> None:
        """`overlap` is the share of an item's n-grams (or characters) from which a row holds it."""
        self.items, self.overlap = list(items), overlap
        found = words([item.text for item in items])
        lengths = np.diff(found.bounds)
        prompts = np.array([item.part == "prompt" for item in items], bool)
        whole = prompts | (lengths >= REFERENCE_WORDS)
        # A masked item must have words enough beside its numbers, or "3 + 4" would be every sum.
        masked = whole & (lengths - _numbers(found) >= REFERENCE_WORDS - 2) & (_numbers(found) > 0)
        self._exact = _Table(sequence_hashes(found), np.flatnonzero(whole))
        self._masked = _Table(sequence_hashes(digits_masked(found)), np.flatnonzero(masked))
        hashes, owners = grams(found, GRAM)
        keep = whole[owners]
        seen = np.unique(np.column_stack((hashes[keep], owners[keep].astype(np.uint64))), axis=0)
        _, number, counts = np.unique(seen[:, 0], return_inverse=True, return_counts=True)
        tests = len({(item.source, item.test) for item in items})
        views = max(1.0, len(items) / max(1, tests))  # one prompt's views share their wording and are no template
        seen = seen[counts[number] <= max(2, TEMPLATE_SHARE * tests) * views]
        self._grams = _Table(seen[:, 0], np.arange(len(seen)))
        self._owners = seen[:, 1].astype(np.int64)
        self._sizes = np.bincount(self._owners, minlength=len(items))

    def __len__(self) -> int:
        return len(self.items)

    def look(self, side: str, texts: Sequence[str], found: Words) -> list[Hit]:
        """The rows among `texts` that hold an item, each once, with its best hit. `found` is `words(texts)`."""
        if not self.items or not len(found.hashes):
            return []
        hits: dict[int, Hit] = {}
        for kind, table, hashes in (
            ("exact", self._exact, sequence_hashes(found)),
            ("masked", self._masked, sequence_hashes(digits_masked(found))),
        ):
            rows, items = table.find(hashes)
            for row, item in zip(rows.tolist(), items.tolist(), strict=True):
                if side == "prompt" or found.bounds[row + 1] - found.bounds[row] >= REFERENCE_WORDS:
                    hits.setdefault(row, Hit(row, kind, side, item, 1.0))
        hashes, owners = grams(found, GRAM)
        places, entries = self._grams.find(hashes)
        keys = np.unique(np.column_stack((owners[places], self._owners[entries], self._grams.hashes[entries])), axis=0)
        pairs, counts = np.unique(keys[:, :2].astype(np.int64), axis=0, return_counts=True)
        shares = counts / self._sizes[pairs[:, 1]]
        looked: Counter[int] = Counter()
        hinted = np.flatnonzero(shares >= HINT_SHARE)
        for place in hinted[np.lexsort((pairs[hinted, 1], -shares[hinted]))]:
            row, item, share = int(pairs[place, 0]), int(pairs[place, 1]), float(shares[place])
            looked[row] += 1
            if row in hits or looked[row] > LOOKED_AT:
                continue
            # One word makes a short item another item: that one must be there whole.
            needed = self.overlap if self._sizes[item] >= SHORT else 1.0
            if share >= needed:
                hits[row] = Hit(row, "n-gram", side, item, share)
            elif (share := held(self.items[item].text, texts[row])) >= needed:
                hits[row] = Hit(row, "characters", side, item, share)
        return [hits[row] for row in sorted(hits)]


def held(item: str, text: str) -> float:
    """The share of an item's runs of CHARACTERS letters and digits that stand in a text, spaces and punctuation aside."""
    wanted, given = _letters(item), _letters(text)
    runs = {wanted[start : start + CHARACTERS] for start in range(max(1, len(wanted) - CHARACTERS + 1))}
    return sum(run in given for run in runs) / len(runs)


@functools.lru_cache(maxsize=1024)
def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def _numbers(found: Words) -> Ints:
    """How many digit words each text has."""
    total = np.concatenate(([0], np.cumsum(found.digits)))
    return total[found.bounds[1:]] - total[found.bounds[:-1]]


class _Table:
    """Hashes looked up many at a time; a bit array turns most of them away before the search."""

    def __init__(self, hashes: Hashes, chosen: Ints) -> None:
        order = np.argsort(hashes[chosen], kind="stable")
        self.hashes: Hashes = hashes[chosen][order]
        self.numbers = chosen[order]
        self._bits = np.zeros(1 << FILTER_BITS, bool)
        self._bits[self._bin(self.hashes)] = True

    @staticmethod
    def _bin(hashes: Hashes) -> Hashes:
        return hashes >> np.uint64(64 - FILTER_BITS)

    def find(self, hashes: Hashes) -> tuple[Ints, Ints]:
        """The places in `hashes` that are in the table, with the number of each entry they meet."""
        places = np.flatnonzero(self._bits[self._bin(hashes)])
        low = np.searchsorted(self.hashes, hashes[places], "left")
        counts = np.searchsorted(self.hashes, hashes[places], "right") - low
        ends = np.cumsum(counts)
        entries = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(low - (ends - counts), counts)
        return np.repeat(places, counts), self.numbers[entries]
