"""Texts as words and word pairs, hashed, many texts at once in numpy: what near-duplicates and contamination compare.

A word is a run of letters, or a run of digits with its sign; a Chinese, Japanese, Korean or Thai character, a symbol such as +
or =, and a mark of a formula (`_count_marks`) is a word of its own; other punctuation, case and Unicode form do not count.
A text's set is its neighbouring pairs of words with both edges marked, so that a text of one word has two pairs and no text is
too short to be compared.
Does not decide what is similar.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.metrics.text import NO_WIDTH, nfkc

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

PAIR_BITS = 48  # of a pair's hash; the 16 bits above hold the text's place in its batch while it is sorted
LAST_LETTER = 0x32400  # above it Unicode has no letters, digits or symbols so far
BATCH = 1 << 16  # most texts in one call

_IGNORED, _SINGLE, _LETTER, _DIGIT, _MARK = 0, 1, 2, 3, 4
_SYMBOLS = "+*/=<>^%$€£#@&|~\\"
_OPERATORS = "-+*/=<>^%&|"
_MARKS = "-!'()[]{}"  # count in numbers and formulas only
_OTHER_MINUS = re.compile(r"(?<![a-z0-9)\]}])[\u2212\u2013](?=[0-9])")
_NUMBER_WORDS = (  # not "one", 十, "due", "once" or "sei", which are seldom numbers; the others differ from them
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion hundreds thousands "
    "millions billions dozen dozens twice second third fourth fifth sixth seventh eighth ninth tenth 二 三 四 五 六 七 八 九 "
    "百 千 万 萬 亿 億 两 兩 두 세 다섯 여섯 일곱 여덟 아홉 zwei drei vier fünf sechs sieben acht neun zehn zwölf dreizehn "
    "vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig "
    "hundert tausend millionen zweite zweiten dritte dritten vierte vierten deux trois quatre cinq sept huit neuf dix onze "
    "douze treize quatorze quinze seize vingt trente quarante cinquante soixante cent mille dos tres cuatro cinco seis siete "
    "ocho nueve diez doce trece catorce veinte treinta cuarenta cincuenta sesenta cien ciento mil millones tre quattro "
    "cinque sette otto nove dieci undici dodici venti trenta quaranta cinquanta cento mila milioni dois duas três quatro "
    "sete oito dez doze vinte trinta cem milhões twee drie vijf zes zeven negen tien twaalf twintig honderd duizend dwa dwie "
    "trzy cztery pięć sześć siedem osiem dziewięć dziesięć dwadzieścia tysiąc tysięcy два две двух три трёх трех четыре "
    "четырёх четырех пять пяти шесть шести семь семи восемь восьми девять девяти десять десяти двенадцать пятнадцать "
    "двадцать тридцать сорок пятьдесят сто двести триста тысяча тысячи тысяч миллион миллиона миллионов iki üç dört beş altı "
    "yedi sekiz dokuz yüz bốn năm sáu bảy tám chín mười trăm nghìn اثنان اثنين ثلاثة ثلاث أربعة أربع خمسة خمس ستة ست سبعة "
    "سبع ثمانية ثماني تسعة تسع عشرة عشر مئة مائة ألف दो तीन चार पांच पाँच छह छः सात आठ नौ दस सौ हज़ार हजार लाख"
)
_BASE = 0x9E3779B97F4A7C15 | 1
_UNBASE = pow(_BASE, -1, 1 << 64)
_EDGE = 0x243F6A8885A308D3


@dataclass(frozen=True)
class Words:
    """The hashed words of n texts: those of text i are hashes[bounds[i]:bounds[i + 1]]."""

    hashes: Hashes
    bounds: Ints  # (n + 1,)
    digits: NDArray[np.bool_]  # whether a word is a number
    alone: NDArray[np.bool_]  # whether it is one character of a script without spaces, or a symbol

    @property
    def numbers(self) -> Hashes:
        """(n,) a hash of each text's numbers as a multiset, those in words of common languages too; 0 when it has none."""
        return _totals(
            np.where(self.digits | np.isin(self.hashes, _number_words()), mix(self.hashes ^ np.uint64(_EDGE)), np.uint64(0)),
            self.bounds,
        )


@dataclass(frozen=True)
class Sets:
    """The sets of word pairs of n texts, each sorted: that of text i is hashes[bounds[i]:bounds[i + 1]]."""

    hashes: Hashes
    bounds: Ints  # (n + 1,)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def sizes(self) -> Ints:
        """How many pairs each text has."""
        return np.diff(self.bounds)


def words(texts: Sequence[str]) -> Words:
    """The words of each text."""
    joined = _folded("\0".join(text.replace("\0", " ") for text in texts)) + "\0" if texts else ""
    codes, kinds = _parted(joined)
    starts = np.flatnonzero(_differs(kinds, np.roll(kinds, 1)))
    ends = np.flatnonzero(codes == 0)
    bounds = np.concatenate(([0], np.searchsorted(starts, ends))).astype(np.int64)
    if not len(starts):
        return Words(np.empty(0, np.uint64), bounds, np.empty(0, bool), np.empty(0, bool))
    # A word's polynomial hash, sum of c[i] * B**i: powers run over the whole batch, and each word is divided by its first.
    up, down = _powers(len(codes))
    values = _values(128 if codes.dtype == np.uint8 else 0x110000)[codes]
    values *= kinds != _IGNORED
    values *= up[: len(codes)]
    hashes = mix(np.add.reduceat(values, starts) * down[starts])
    return Words(hashes, bounds, kinds[starts] == _DIGIT, kinds[starts] == _SINGLE)


def spelled(text: str) -> list[str]:
    """The words of one text, as `words` parts them, spelled out: for what is shown or read in full."""
    text = _folded(text) + "\0"
    kinds = _parted(text)[1]
    starts, ends = (np.flatnonzero(_differs(kinds, np.roll(kinds, step))).tolist() for step in (1, -1))
    return [text[start : end + 1] for start, end in zip(starts, ends, strict=True)]


def _folded(text: str) -> str:
    """A text in one Unicode form and case, without characters of no width, a minus sign as `-`."""
    if text.isascii():
        return text.casefold()
    return _OTHER_MINUS.sub("-", nfkc(NO_WIDTH.sub("", text)).casefold())


def _differs(kinds: NDArray[np.uint8], neighbours: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which characters are of a word that their neighbour is not of."""
    differs: NDArray[np.bool_] = (kinds != _IGNORED) & ((kinds != neighbours) | (kinds == _SINGLE))
    return differs


def _parted(text: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The code and the kind of each character of a text that ends with a NUL."""
    codes: NDArray[Any]
    if text.isascii():
        codes = np.frombuffer(text.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds(128 if codes.dtype == np.uint8 else 0x110000)[codes]
    _count_marks(codes, kinds)
    return codes, kinds


def _count_marks(codes: NDArray[Any], kinds: NDArray[np.uint8]) -> None:
    """Gives each mark its kind: part of a number, a word of its own, or ignored. Changes `kinds` in place.

    In -7 the minus is part of the number. Words are -x, !x, !=, f'(x), and a bracket beside an operator, as in (a + b) * c, or
    between spaces, as in [ { } ].
    A hyphen, a dash, a mark at the end of a sentence, a quotation mark and other brackets are ignored.
    """
    places = np.flatnonzero(kinds == _MARK)
    if not len(places):
        return
    kinds[places] = _IGNORED
    mark, before, after = codes[places], codes[places - 1], codes[places + 1]  # a NUL is before the first: it is the last
    second = codes[np.minimum(places + 2, len(codes) - 1)]
    left, right = np.where(before == ord(" "), codes[places - 2], before), np.where(after == ord(" "), second, after)
    kind_before = kinds[places - 1]
    behind_word = (kind_before == _LETTER) | (kind_before == _DIGIT) | _is_one_of(before, ")]}")
    letter = kinds[places + 1] == _LETTER
    variable = letter & (kinds[np.minimum(places + 2, len(codes) - 1)] != _LETTER)
    minus, sign = mark == ord("-"), (kinds[places + 1] == _DIGIT) & ~behind_word
    alone = minus & ~behind_word & (variable | _is_one_of(after, "$€£"))
    alone |= (mark == ord("!")) & ((after == ord("=")) | (~behind_word & (letter | (after == ord("(")))))
    alone |= (mark == ord("'")) & (kind_before == _LETTER) & (after == ord("("))
    alone |= (_is_one_of(mark, "([{") & _is_one_of(left, _OPERATORS)) | (
        _is_one_of(mark, ")]}") & _is_one_of(right, _OPERATORS)
    )
    alone |= _is_one_of(mark, "()[]{}") & _is_one_of(before, " \n\0") & _is_one_of(after, " \n\0")
    kinds[places[alone]] = _SINGLE
    kinds[places[minus & sign]] = _DIGIT


def _is_one_of(codes: NDArray[Any], characters: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = _ascii_flags(characters)[np.minimum(codes, 127)]
    return found


@functools.cache
def _ascii_flags(characters: str) -> NDArray[np.bool_]:
    """(128,) whether an ASCII character is one of these."""
    return np.array([chr(code) in characters for code in range(128)])


def is_alone(word: str) -> bool:
    """Whether a spelled word is one character of a script without spaces, or a symbol."""
    return len(word) == 1 and int(_kinds(0x110000)[ord(word)]) in (_SINGLE, _MARK)


def pair_sets(*sides: Words) -> Sets:
    """The set of word pairs of each text, edges included. At most BATCH texts.

    With two sides (prompts and completions) a text's set holds both, and the lowest bit of a hash says which side.
    """
    keys = np.concatenate([_keys(side, bit) for bit, side in enumerate(sides)])
    keys.sort()
    fresh = np.empty(len(keys), bool)
    fresh[:1], fresh[1:] = True, keys[1:] != keys[:-1]
    keys = keys[fresh]
    texts = len(sides[0].bounds) - 1
    bounds = np.searchsorted(keys, np.arange(texts + 1, dtype=np.uint64) << np.uint64(PAIR_BITS)).astype(np.int64)
    return Sets(keys & np.uint64((1 << PAIR_BITS) - 1), bounds)


def _keys(found: Words, side: int) -> Hashes:
    """Each pair's hash, cut to PAIR_BITS with the side in its lowest bit, below the number of its text."""
    pairs, owners = _pairs(found)
    pairs >>= np.uint64(64 - PAIR_BITS)
    pairs &= np.uint64(~1 & ((1 << 64) - 1))
    pairs |= np.uint64(side)
    pairs |= owners << np.uint64(PAIR_BITS)
    return pairs


def _pairs(found: Words) -> tuple[Hashes, Hashes]:
    """Each neighbouring pair's hash and the number of its text."""
    texts = len(found.bounds) - 1
    # One edge mark before each text also ends the text before it.
    line = np.full(len(found.hashes) + texts + 1, _EDGE, np.uint64)
    owners = np.repeat(np.arange(texts, dtype=np.uint64), np.diff(found.bounds) + 1)
    inside = np.arange(len(found.hashes)) + np.repeat(np.arange(1, texts + 1), np.diff(found.bounds))
    line[inside] = found.hashes
    return mix(line[:-1] * np.uint64(_BASE) + line[1:]), owners


def sequence_hashes(found: Words) -> Hashes:
    """(n,) a hash of each text's words in their order; two texts of the same words, however punctuated, have the same."""
    places = (np.arange(len(found.hashes)) - np.repeat(found.bounds[:-1], np.diff(found.bounds))).astype(np.uint64)
    return mix(_totals(mix(found.hashes + places * np.uint64(_BASE)), found.bounds) + np.diff(found.bounds).astype(np.uint64))


def bag_hashes(found: Words) -> Hashes:
    """(n,) a hash of each text's words, whatever their order."""
    return mix(_totals(mix(found.hashes ^ np.uint64(_UNBASE)), found.bounds))


def digits_masked(found: Words) -> Words:
    """The same words, every number the same one."""
    return replace(found, hashes=np.where(found.digits, np.uint64(_EDGE), found.hashes))


def grams(found: Words, n: int) -> tuple[Hashes, Ints]:
    """The hash of each run of n words inside one text, and the number of that text."""
    if len(found.hashes) < n:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    owners = np.repeat(np.arange(len(found.bounds) - 1), np.diff(found.bounds))
    runs = np.zeros(len(found.hashes) - n + 1, np.uint64)
    for offset in range(n):
        runs = runs * np.uint64(_BASE) + found.hashes[offset : offset + len(runs)]
    inside = owners[: len(runs)] == owners[n - 1 :]
    return mix(runs[inside]), owners[: len(runs)][inside]


def _totals(values: Hashes, bounds: Ints) -> Hashes:
    """The sum of each text's values, modulo 2**64."""
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)))
    return total[bounds[1:]] - total[bounds[:-1]]


def mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every input bit moves every output bit. Works in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@functools.cache
def _number_words() -> Hashes:
    return words([_NUMBER_WORDS]).hashes


@functools.lru_cache(maxsize=2)
def _kinds(size: int) -> NDArray[np.uint8]:
    table = np.zeros(size, np.uint8)
    for code in range(min(size, LAST_LETTER)):
        character = chr(code)
        category = unicodedata.category(character)
        if character in _MARKS:
            table[code] = _MARK
        elif character in _SYMBOLS or (category in ("Sm", "So", "Lo") and _is_unspaced(code)):
            table[code] = _SINGLE
        elif category[0] in "LM":
            table[code] = _LETTER
        elif category[0] == "N":
            table[code] = _DIGIT
    return table


def _is_unspaced(code: int) -> bool:
    """Whether a character is a symbol, or a letter of a script that puts no spaces between words."""
    return not (0x80 <= code < 0xE00 or 0xF00 <= code < 0x1000 or 0x10A0 <= code < 0x1780 or 0x1800 <= code < 0x2000) or (
        unicodedata.category(chr(code))[0] == "S"
    )


@functools.lru_cache(maxsize=2)
def _values(size: int) -> Hashes:
    """A random value for each character, 0 for those that do not count."""
    return np.where(_kinds(size) == _IGNORED, np.uint64(0), mix(np.arange(size, dtype=np.uint64) + np.uint64(1)))


_grown: list[tuple[Hashes, Hashes]] = []


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """B**i and B**-i modulo 2**64 for i below at least `size`; kept, because batches are alike."""
    if not _grown or len(_grown[0][0]) < size:
        room = 1 << max(16, (size - 1).bit_length())
        steps = np.full((2, room), [[_BASE], [_UNBASE]], np.uint64)
        steps[:, 0] = 1
        _grown[:] = [(np.cumprod(steps[0], dtype=np.uint64), np.cumprod(steps[1], dtype=np.uint64))]
    return _grown[0]
