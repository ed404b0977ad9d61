"""Exact duplicates: rows with the same text but for case, white space and Unicode form. Numbers and punctuation count."""

import hashlib
import unicodedata

import numpy as np
from numpy.typing import NDArray

from seqdistill.records import Sample
from seqdistill.stages.filter.checks.words import Hashes, Ints


def digest(sample: Sample) -> bytes:
    """A 16-byte digest of a row: the prompt's roles and texts and its completion, normalised."""
    parts = [f"{message['role']}\0{normal(message['content'])}" for message in (*sample.prompt, *sample.completion)]
    return hashlib.blake2b("\0\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def normal(text: str) -> str:
    """A text in NFC, case folded, each run of white space one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(text.casefold().split())


def exact_duplicates(digests: Hashes, order: Ints) -> NDArray[np.int64]:
    """For each row the number of the best row with the same text, -1 for that row itself.

    `digests` is (n, 2), a digest a row; `order` lists the rows to look at, best first.
    """
    kept_by = np.full(len(digests), -1, np.int64)
    ranked = order[np.lexsort((digests[order, 1], digests[order, 0]))]  # stable: equal digests stay in order of merit
    repeats = np.zeros(len(ranked), bool)
    repeats[1:] = (digests[ranked[1:]] == digests[ranked[:-1]]).all(axis=1)
    best = ranked[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(ranked))))]
    kept_by[ranked[repeats]] = best[repeats]
    return kept_by
