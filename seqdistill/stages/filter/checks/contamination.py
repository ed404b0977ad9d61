"""Contamination: which rows hold an item of a test set, in whole or in large part, in their prompt or their completion.

Rows go from train; test sets are never touched. Wording that many test items share, or that many rows share with one, is a
template and proves nothing; nor do equal answers where answers have a form, or a stock question with options of its own.
"""

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from seqdistill.recipe.tables import ContaminationConfig
from seqdistill.records import Prompt, text_without_system
from seqdistill.stages.filter.checks.words import (
    Hashes,
    Ints,
    Words,
    bag_hashes,
    digits_masked,
    grams,
    is_alone,
    sequence_hashes,
    spelled,
    words,
)

GRAM = 5  # words; an item of fewer is found only when it is the whole prompt
REFERENCE_WORDS = 8  # a shorter reference ("yes", "Paris") proves nothing when a completion says the same
SHORT = 12  # grams; an item of fewer must be found whole
FEWEST_OWN = 4  # grams that an item shares with no others: with fewer, its wording is a template's
TEMPLATE_ITEMS = 3  # what more test items have in common is their template
SHORT_ANSWER = 25  # words; of a shorter one, as "The text does not say.", two prompts are enough to show that many share it
MANY_ROWS = 10  # prompts that hold one item in part: this many copies are a template that they share, not a leak
NEAR_PROMPT = 0.5  # of a test prompt's characters in the row's prompt, where the answer alone proves nothing
IN_ORDER = 0.95  # of an item's words in a row, in their order, with others between them
LONGEST_COMPARED = 2000  # words of a row that are compared so
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
    also: tuple[str, ...] = ()  # the ids of other prompts of this source that have the text
    part_of: bool = False  # a question without its options, a docstring without its function


@dataclass(frozen=True)
class Hit:
    """A row that holds a test item."""

    row: int
    kind: str  # exact | masked | n-gram | characters | words
    side: str  # prompt | completion
    item: int
    share: float  # of the item found in the row
    beside: bool = False  # of a whole completion: the row's prompt is like the item's too

    @property
    def is_test_prompt(self) -> bool:
        """Whether the row's prompt is a test prompt, not only like one."""
        return self.kind == "exact" and self.side == "prompt"


def items_of(prompts: Iterable[Prompt], source: str) -> list[Item]:
    """The texts of a test set: both views of each prompt, each last user message, the question in it, and the references."""
    items: dict[tuple[str, str], Item] = {}
    also: dict[tuple[str, str], list[str]] = {}

    def add(part: str, text: str, prompt: Prompt, part_of: bool = False) -> None:
        first = items.setdefault((part, text), Item(prompt.id, source, part, text, part_of=part_of))
        if first.test != prompt.id:
            also.setdefault((part, text), []).append(prompt.id)

    for prompt in prompts:
        for view in (prompt.messages, prompt.teacher_messages):
            last = view[-1]["content"]
            for text in (text_without_system(view), last):
                add("prompt", text, prompt)
            for text in _questions(last):
                add("prompt", text, prompt, part_of=True)
        if prompt.reference:
            add("reference", prompt.reference, prompt)
    return [replace(item, also=tuple(also.get(key, ()))) for key, item in items.items()]


_LABEL = r"(?:[).:](?=\s|[^\x00-\x7f])|[．、：）])"  # what follows the letter: "A. yes", "A.是", "A、是"
_OPTIONS = re.compile(  # on lines of their own, after such a word, or an A and a B, a 1 and a 2 on one line
    rf"\n\s*(?:[(（]?(?:(?:[A-Ha-h]|[1-9]|[ivx]{{1,4}}){_LABEL}|(?-i:[A-H]\.\w))|[①-⑨])|(?:\n|(?<=[?？.。:：)）]))\s*(?:options|choices|选项)\s*[:：]"
    rf"|(?<=[\s?？.。:：)）])(?:[(（]?A[).:．、：）](?=[^\n]{{1,300}}?[\s;；,，.。(（]B[).:．、：）])"
    rf"|[(（]?1[)）](?=[^\n]{{1,300}}?[\s(（]2[)）])|①(?=[^\n]{{1,300}}?②))",
    re.IGNORECASE,
)
_OPTION_LABEL = re.compile(
    rf"(?<![^\s(（])[(（]?(?:[A-Ha-h]|[1-9]|[ivx]{{1,4}}){_LABEL}|[①-⑨]|(?<=\n)[A-H]\.(?=\w)", re.IGNORECASE
)
_DOCSTRING = re.compile(r"(?P<quote>\"\"\"|''')(?P<text>.*?)(?P=quote)", re.DOTALL)


def _questions(text: str) -> Iterator[str]:
    """A prompt's questions, less what is often left out: a question without its options, a docstring without its function."""
    if options := _OPTIONS.search(text):
        yield text[: options.start()]
    for found in _DOCSTRING.finditer(text):
        yield found["text"]
        if ">>>" in found["text"]:
            yield found["text"].partition(">>>")[0]


class ItemIndex:
    """Test items, ready to be looked for in many rows."""

    def __init__(self, items: Sequence[Item], config: ContaminationConfig, has_form: bool = False) -> None:
        """`has_form` says that answers keep to a form (a schema, choices): then two equal answers do not show a leak."""
        self.items, self.overlap, self._config, self._has_form = list(items), config.overlap, config, has_form
        self._prompts_of: dict[tuple[str, str], list[str]] = {}
        for item in items:
            if item.part == "prompt":
                for test in (item.test, *item.also):
                    self._prompts_of.setdefault((item.source, test), []).append(item.text)
        found = words([item.text for item in items])
        self._tests_of = _tests_of(items, sequence_hashes(found))
        lengths = np.diff(found.bounds)
        prompts = np.array([item.part == "prompt" for item in items], bool)
        whole = prompts | (lengths >= REFERENCE_WORDS)
        # A masked item must have words enough beside its numbers, or "3 + 4" would be every sum.
        masked = whole & (lengths - _numbers(found) >= REFERENCE_WORDS - 2) & (_numbers(found) > 0)
        self._exact = _Table(sequence_hashes(found), np.flatnonzero(whole))
        self._masked = _Table(sequence_hashes(digits_masked(found)), np.flatnonzero(masked))
        with_options = np.array([item.part == "prompt" and _OPTIONS.search(item.text) is not None for item in items], bool)
        self._unordered = _Table(bag_hashes(found), np.flatnonzero(with_options))
        hashes, owners = grams(found, GRAM)
        keep = whole[owners]
        seen = np.unique(np.column_stack((hashes[keep], owners[keep].astype(np.uint64))), axis=0)
        # One test's texts (its views, its question alone) share their wording and are no template.
        tests = {key: number for number, key in enumerate(dict.fromkeys((item.source, item.test) for item in items))}
        of_test = np.array([tests[item.source, item.test] for item in items], np.uint64)
        by_test = np.unique(np.column_stack((seen[:, 0], of_test[seen[:, 1].astype(np.int64)])), axis=0)
        values, counts = np.unique(by_test[:, 0], return_counts=True)
        number = np.searchsorted(values, seen[:, 0])
        seen = seen[counts[number] <= TEMPLATE_ITEMS]
        self._grams = _Table(seen[:, 0], np.arange(len(seen)))
        self._owners = seen[:, 1].astype(np.int64)
        self._sizes = np.bincount(self._owners, minlength=len(items))

    def __len__(self) -> int:
        return len(self.items)

    def look(self, side: str, texts: Sequence[str], found: Words, prompts: Sequence[str] = ()) -> list[Hit]:
        """The rows among `texts` that hold an item, each once, with its best hit. `found` is `words(texts)`.

        With completions, `prompts` are the rows' prompts: where an answer alone proves nothing, the prompt must be near too.
        """
        if not self.items or not len(found.hashes) or (side == "completion" and not self._config.completions):
            return []
        hits = self._whole(side, texts, found, prompts)
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
            if prompts and not self._may_prove("n-gram", item, texts[row]) and not self._is_beside(item, prompts[row]):
                continue
            if self._is_stock(item) and _OPTIONS.search(texts[row]):
                if self._has_options_of(item, texts[row]):
                    hits[row] = Hit(row, "words", side, item, share)
                continue
            # One word makes a short item another item: that one must be there whole.
            is_short = self._sizes[item] < SHORT
            needed = 1.0 if is_short else self.overlap
            if share >= needed:
                if not is_short or self._is_there(item, texts[row]):
                    hits[row] = Hit(row, "n-gram", side, item, share)
            elif (share := held(self.items[item].text, texts[row])) >= needed:
                hits[row] = Hit(row, "characters", side, item, share)
            elif needed < 1 and (share := in_order(self.items[item].text, texts[row])) >= max(IN_ORDER, needed):
                hits[row] = Hit(row, "words", side, item, share)
        return [hits[row] for row in sorted(hits)]

    def _whole(self, side: str, texts: Sequence[str], found: Words, prompts: Sequence[str]) -> dict[int, Hit]:
        """By row, the hit of a text that is an item as a whole, or but for its numbers or for the order of its options."""
        hits: dict[int, Hit] = {}
        for kind, table, hashes in (
            ("exact", self._exact, sequence_hashes(found)),
            ("masked", self._masked, sequence_hashes(digits_masked(found))),
        ):
            rows, items = table.find(hashes)
            if kind == "masked" and not self._config.masked:
                continue
            for row, item in zip(rows.tolist(), items.tolist(), strict=True):
                if row in hits or (side != "prompt" and found.bounds[row + 1] - found.bounds[row] < REFERENCE_WORDS):
                    continue
                beside = bool(prompts) and self._is_beside(item, prompts[row])
                if beside or not prompts or self._may_prove(kind, item, texts[row]):
                    hits[row] = Hit(row, kind, side, item, 1.0, beside)
        for row, item in zip(*self._unordered.find(bag_hashes(found)), strict=True) if side == "prompt" else ():
            if int(row) not in hits and _stem(texts[row]) == _stem(self.items[item].text):
                hits[int(row)] = Hit(int(row), "words", side, int(item), 1.0)
        return hits

    def _is_there(self, item: int, text: str) -> bool:
        """Whether a text with all grams of a short item has the item: whole, or else enough wording that is its own."""
        ends = ends_sentence(self.items[item].text, text)
        return bool(self._sizes[item] >= FEWEST_OWN) if ends is None else ends

    def _may_prove(self, kind: str, item: int, completion: str) -> bool:
        """Whether a completion that holds this item proves anything by itself, whatever its prompt.

        Numbers aside, where answers have a form, and where several test items have this answer, answers to different prompts
        are alike by nature.
        """
        if kind == "masked" or self._has_form or completion.lstrip()[:1] in ("{", "["):
            return False
        return len(self._tests_of[item]) == 1 or self.items[item].part == "prompt"

    def _is_beside(self, item: int, prompt: str) -> bool:
        """Whether a row's prompt is like that of this item; an answer of more than TEMPLATE_ITEMS items belongs to none."""
        tests = self._tests_of[item]
        if len(tests) > TEMPLATE_ITEMS:
            return False
        return any(held(text, prompt) >= NEAR_PROMPT for test in tests for text in self._prompts_of.get(test, ()))

    def _is_stock(self, item: int) -> bool:
        """Whether an item is a short question alone, as "Which of these is true?": with other options it is another one."""
        return self.items[item].part_of and bool(self._sizes[item] < SHORT)

    def _has_options_of(self, item: int, text: str) -> bool:
        """Whether a text that has this question has its options too, in whatever order and with whatever letters."""
        found = _option_words(text)
        wholes = (whole for test in self._tests_of[item] for whole in self._prompts_of[test] if _OPTIONS.search(whole))
        return any(not _option_words(whole) - found for whole in wholes)


def _stem(text: str) -> list[str] | None:
    """The words of a question before its options; None where it has none."""
    options = _OPTIONS.search(text)
    return spelled(text[: options.start()]) if options else None


def _option_words(text: str) -> Counter[str]:
    """How often each word is in a text, the letters and numbers before options aside."""
    return Counter(spelled(_OPTION_LABEL.sub(" ", text)))


def _tests_of(items: Sequence[Item], hashes: Hashes) -> list[list[tuple[str, str]]]:
    """For each item the prompts, as (source, id), that have its text, however punctuated, in this part."""
    tests: dict[tuple[str, int], dict[tuple[str, str], None]] = {}
    keys = [(item.part, value) for item, value in zip(items, hashes.tolist(), strict=True)]
    for item, key in zip(items, keys, strict=True):
        tests.setdefault(key, {}).update(dict.fromkeys((item.source, test) for test in (item.test, *item.also)))
    lists = {key: list(found) for key, found in tests.items()}
    return [lists[key] for key in keys]


def templates(hits: Mapping[int, Hit], prompts: Hashes, items: Sequence[Item]) -> set[int]:
    """The rows whose hit is of an item that rows of many prompts hold: wording that they share, and no leak.

    Of a whole answer a few prompts are enough, of a short one ("I cannot find that in the document.") two, but for rows whose
    prompt is the item's.
    """
    holders: dict[tuple[int, bool], set[int]] = {}
    for row, hit in hits.items():
        holders.setdefault((hit.item, hit.kind == "exact"), set()).add(int(prompts[row]))

    def is_shared(hit: Hit) -> bool:
        if hit.kind == "exact":
            most = 1 if _is_short_answer(items[hit.item].text) else TEMPLATE_ITEMS
            return hit.side == "completion" and not hit.beside and len(holders[hit.item, True]) > most
        return len(holders[hit.item, False]) > MANY_ROWS

    return {row for row, hit in hits.items() if is_shared(hit)}


def _is_short_answer(text: str) -> bool:
    found = spelled(text)
    return len(found) - sum(map(is_alone, found)) // 2 < SHORT_ANSWER


def in_order(item: str, text: str) -> float:
    """The share of an item's words that a text has in the same order; 0 where the text is much longer there."""
    wanted, found = spelled(item), spelled(text)[:LONGEST_COMPARED]
    if len(wanted) > LONGEST_COMPARED or (Counter(wanted) - Counter(found)).total() > (1 - IN_ORDER) * len(wanted):
        return 0.0
    blocks = SequenceMatcher(None, wanted, found, autojunk=False).get_matching_blocks()[:-1]
    if not blocks or blocks[-1].b + blocks[-1].size - blocks[0].b > 1.5 * len(wanted):
        return 0.0
    return sum(block.size for block in blocks) / len(wanted)


def held(item: str, text: str) -> float:
    """The share of an item's runs of CHARACTERS letters and digits that a text has, spaces and punctuation aside."""
    wanted, found = _letters(item), _letters(text)
    runs = {wanted[start : start + CHARACTERS] for start in range(max(1, len(wanted) - CHARACTERS + 1))}
    return sum(run in found for run in runs) / len(runs)


_SENTENCE_END = re.compile(r"[.!?。।؟\n]+")


def ends_sentence(item: str, text: str) -> bool | None:
    """Whether a text that has an item whole ends a sentence with it, where the item ends one; None where it is not there.

    "How many seeds did they plant?" is not in "How many seeds did they plant in each bed?".
    """
    wanted, found = _letters(item), _letters(text)
    if wanted not in found:
        return None
    if not _SENTENCE_END.search(unicodedata.normalize("NFKC", item.rstrip()[-1:])):
        return True
    ends = itertools.accumulate(len(_letters(part)) for part in _SENTENCE_END.split(unicodedata.normalize("NFKC", text)))
    return any(found[:end].endswith(wanted) for end in ends)


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
