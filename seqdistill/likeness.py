"""How alike texts are: cosine of TF-IDF weights of words. What eval's nearest answer and a pool's novelty share.

Weights are those of scikit-learn's TfidfVectorizer (raw counts, smoothed inverse document frequency, length 1), with words of
one letter too. A script without spaces between its words has clauses for words.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.records import Message

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK = 64  # texts compared with all others at once: bounds the memory


def nearest_rows(queries: Sequence[str], documents: Sequence[str]) -> list[int]:
    """For each query the number of the most similar document, the first of equals."""
    return [int(similar.argmax()) for similar in similarities(queries, documents)]


def similarities(queries: Sequence[str], documents: Sequence[str]) -> Iterator[NDArray[Any]]:
    """For each query its cosine with every document, (documents,). Words that no document has do not count."""
    vocabulary, idf, weights = _collection(documents)
    weights = weights.T.tocsr()
    for start in range(0, len(queries), CHUNK):
        part = _weights([Counter(_words(text)) for text in queries[start : start + CHUNK]], vocabulary, idf)
        yield from (part @ weights).toarray().round(12)  # equal texts are equal whatever the order of the sums


def vectors(texts: Sequence[str]) -> "csr_array":
    """The texts as rows of length 1, (texts, words): a product of two rows is their cosine. A text without words is all 0."""
    return _collection(texts)[2]


def _collection(documents: Sequence[str]) -> "tuple[dict[str, int], NDArray[Any], csr_array]":
    """Of documents: each word's number, its inverse document frequency, and the documents' weights, (documents, words)."""
    vocabulary: dict[str, int] = {}
    counts = [Counter(_words(text)) for text in documents]
    for counted in counts:
        for word in counted:
            vocabulary.setdefault(word, len(vocabulary))
    frequency = Counter(word for counted in counts for word in counted)
    idf = np.array([math.log((1 + len(documents)) / (1 + frequency[word])) + 1 for word in vocabulary])
    return vocabulary, idf, _weights(counts, vocabulary, idf)


def largest(values: NDArray[Any], most: int) -> list[int]:
    """The places of the largest values, (n,), in order, the first of equals first."""
    most = min(most, len(values))
    if not most:
        return []
    near = np.flatnonzero(values >= np.partition(values, -most)[-most])
    return [int(place) for place in near[np.argsort(-values[near], kind="stable")][:most]]


def _weights(counts: Sequence[Counter[str]], vocabulary: dict[str, int], idf: NDArray[Any]) -> "csr_array":
    from scipy.sparse import csr_array

    ends, columns, values = [0], list[int](), list[float]()
    for counted in counts:
        known = {vocabulary[word]: number for word, number in counted.items() if word in vocabulary}
        row = np.array(list(known.values())) * idf[list(known)] if known else np.zeros(0)
        length = float(np.sqrt((row * row).sum()))
        columns += known
        values += (row / length).tolist() if length else []
        ends.append(len(columns))
    return csr_array((values, columns, ends), shape=(len(counts), len(vocabulary)))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def whole_text(messages: Sequence[Message]) -> str:
    """A prompt as its likeness to others is measured: the texts of all its messages."""
    return "\n".join(message["content"] for message in messages)
