"""Metrics of free text against another text: exact and normalised match, chrF, ROUGE-L, BLEU, numbers."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from seqdistill.metrics.metric import Item, Metric
from seqdistill.metrics.structured import normal_json


def exact(text: str, wanted: str) -> float:
    """100 when the two are the same but for the amount of white space, else 0."""
    return 100.0 * (text.split() == wanted.split())


_RAISED, _MIXED = re.compile(r"(?<=[\d)])(?=[⁺⁻]?[⁰¹²³⁴-⁹ⁿ])"), re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")


def nfkc(text: str) -> str:
    """A text in NFKC, but 2³ is 2^3 and no 23, and 1½ is no 11⁄2."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _MIXED.sub(" ", _RAISED.sub("^", text)))


NO_WIDTH = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")  # characters that show nothing
QUOTES = "\"'`*“”‘’„‚«»‹›「」『』《》〈〉"
STOPS = ".。।॥۔։።។။"  # full stops, each of its script; ． and ｡ are NFKC's . and 。


def bare(text: str) -> str:
    """A short answer without what does not matter to it: Unicode form, case, white space, outer quotes and a full stop.

    Nor do characters that show nothing: a byte order mark, the direction marks of Arabic and Hebrew.
    """
    folded = " ".join(nfkc(NO_WIDTH.sub("", text)).casefold().split()).strip(QUOTES)
    if folded.endswith(tuple(STOPS)):
        folded = folded[:-1]
    return folded.strip(QUOTES).strip()


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()  # chrF2: Popović 2015, https://aclanthology.org/W15-3049


def chrf(text: str, wanted: str) -> float:
    """sacrebleu's sentence chrF2.

    Means and intervals are of sentence scores, not of the corpus score: each prompt counts the same, and the bootstrap of
    a mean is exact and paired. The corpus score is printed beside it.
    """
    return float(_chrf().sentence_score(text, [wanted]).score)


def corpus_chrf(texts: Sequence[str], wanted: Sequence[str]) -> float:
    """sacrebleu's corpus chrF2."""
    return float(_chrf().corpus_score(list(texts), [list(wanted)]).score)


def chrf_signature() -> str:
    """sacrebleu's signature of the chrF used; to be read after a corpus score was taken."""
    return str(_chrf().get_signature())


@cache
def _bleu(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)


def bleu(text: str, wanted: str) -> float:
    """sacrebleu's sentence BLEU, of the orders that the text has, by its tokenizer for how the wanted text is written.

    Its default parts words at spaces: of a sentence in Chinese, Japanese or Thai it makes a few words, and BLEU is 0.
    """
    han, others = (len(re.findall(f"[{letters}]", wanted)) for letters in (_HAN, _OTHER_UNSPACED))
    spaced = not (han or others) or 2 * (han + others) < sum(map(str.isalpha, wanted))
    tokenize = "13a" if spaced else "char" if others else "zh"
    return float(_bleu(tokenize).sentence_score(text, [wanted]).score)


_HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA, _THAI_AND_LAO = r"\u3040-\u30ff", r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ecd"
_BURMESE_AND_KHMER = r"\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
_OTHER_UNSPACED = _KANA + _THAI_AND_LAO + _BURMESE_AND_KHMER
# Scripts that write no spaces, and Hangul, whose words are many a syllable: each character is a word.
_ALONE = rf"{_HAN}{_OTHER_UNSPACED}\uac00-\ud7af"


@cache
def _marks() -> str:
    """The marks on letters, which in Indic scripts are the vowels, as a class of characters."""
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return f"[{marks}]"


@cache
def _word() -> re.Pattern[str]:
    """A word: letters and digits, with the marks on them."""
    letter = rf"[^\W_](?:[^\W_]|{_marks()})"
    return re.compile(rf"[{_ALONE}]{_marks()}*|{letter}*?(?=[{_ALONE}])|{letter}*")


def words(text: str) -> list[str]:
    """Lower-case letters and digits in a row; in scripts that write no spaces, each character."""
    return _word().findall(text.lower())


@cache
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _squad_words(text: str) -> list[str]:
    """The words of SQuAD's script: punctuation goes, then articles, and white space parts the rest. See `_ALONE`."""
    text = "".join(character for character in text.lower() if not _is_punctuation(character))
    text = re.sub(r"\b(?:a|an|the)\b", " ", text)
    return re.sub(rf"([{_ALONE}]{_marks()}*)", r" \1 ", text).split()


def rouge_l(text: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words: rouge-score's rougeL without stemming, on any script."""
    ours, theirs = words(text), words(wanted)
    common = _longest_common(ours, theirs)
    return 200.0 * common / (len(ours) + len(theirs)) if common else 0.0


def token_f1(text: str, wanted: str) -> float:
    """F1 of the words that two texts share, as SQuAD's script scores it: case, punctuation and articles aside.

    https://aclanthology.org/D16-1264
    """
    ours, theirs = (Counter(_squad_words(part)) for part in (text, wanted))
    if not ours or not theirs:
        return 100.0 * (ours == theirs)
    return 200.0 * (ours & theirs).total() / (ours.total() + theirs.total())


def _longest_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel: Hyyrö 2004."""
    places: dict[str, int] = {}
    for place, word in enumerate(ours):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(ours)) - 1
    row = whole
    for word in theirs:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & whole
    return len(ours) - row.bit_count()


def numeric(text: str, wanted: str) -> float | None:
    """100 when the number that a text states as its answer is the one number wanted, else 0. None where not one is wanted."""
    from seqdistill.metrics.numbers import reference_value, states  # its patterns take 10 ms: not for --help

    want = reference_value(wanted)
    return None if want is None else 100.0 * states(text, want)


def _same(item: Item) -> float:
    """Exact match; of JSON as parsed values: key order and white space do not matter."""
    if item.kind == "schema":
        ours, theirs = normal_json(item.text), normal_json(item.wanted)
        if theirs is not None:
            return 100.0 * (ours == theirs)
    return exact(item.text, item.wanted)


METRICS = (
    Metric(
        "chrf",
        "chrF",
        "chrF",
        lambda item: chrf(item.text, item.wanted),
        "mean of sacrebleu's sentence chrF2 over prompts (nc:6, nw:0, beta 2); *_corpus: the corpus score",
    ),
    Metric(
        "exact",
        "exact",
        "exact matches",
        _same,
        "percent of answers that are the same but for white space; JSON is compared as parsed values",
        share=True,
    ),
    Metric(
        "normalised",
        "normalised match",
        "normalised matches",
        lambda item: 100.0 * (bare(item.text) == bare(item.wanted)),
        "percent the same but for case, Unicode form, white space, outer quotes and a full stop",
        kinds=("text",),
        share=True,
    ),
    Metric(
        "token_f1",
        "token F1",
        "token F1",
        lambda item: token_f1(item.text, item.wanted),
        "mean F1 of shared words, case, punctuation and articles aside (SQuAD)",
        kinds=("text",),
    ),
    Metric(
        "rouge_l",
        "ROUGE-L",
        "ROUGE-L",
        lambda item: rouge_l(item.text, item.wanted),
        "F1 of the longest common subsequence of words (rouge-score's rougeL without stemming)",
        kinds=("text",),
    ),
    Metric(
        "bleu",
        "BLEU",
        "BLEU",
        lambda item: bleu(item.text, item.wanted),
        "mean of sacrebleu's sentence BLEU (effective order), its tokenizer by the script of the wanted text",
        kinds=("text",),
    ),
    Metric(
        "numeric",
        "number",
        "right numbers",
        lambda item: numeric(item.text, item.wanted),
        "percent that state the one number wanted, as filter's verify reads it; only prompts where exactly one is wanted",
        kinds=("text",),
        share=True,
    ),
)
