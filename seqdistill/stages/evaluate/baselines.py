"""Answers that cost nothing: the prompt's first words, the most frequent class, the nearest training answer.

A student must beat them to be worth its training. Text in, text out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdistill.metrics.classes import label
from seqdistill.records import Message, Prompt, read_jsonl
from seqdistill.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

CHUNK = 64  # test prompts compared with all training prompts at once: bounds the memory


@dataclass(frozen=True)
class Texts:
    """What a baseline may look at: the test prompts, the usual length of an answer, and the training data."""

    prompts: Sequence[Prompt]
    characters: int  # mean length of the teacher's answers
    training: Path | None  # train.jsonl
    choices: Sequence[str] = ()


def training_file(run: Run) -> Path | None:
    """The rows that the student learnt from; None where filter left none."""
    path = run.file("filter", "train.jsonl")
    return path if path.is_file() and path.stat().st_size else None


def rejected_file(run: Run) -> Path | None:
    """The rows that filter rejected, with their reasons; None where there are none."""
    path = run.file("filter", "rejected.jsonl")
    return path if path.is_file() and path.stat().st_size else None


def copies(texts: Texts) -> list[str]:
    """The first words of each prompt, cut to the usual length of an answer."""
    return [copied(_last_user_text(prompt.messages), texts.characters) for prompt in texts.prompts]


def copied(source: str, characters: int) -> str:
    """The source's first words within a number of characters; the source's start where it has no words."""
    source = " ".join(source.split())
    if len(source) <= characters:
        return source
    head = source[: characters + 1]
    return head.rsplit(" ", 1)[0] if " " in head else source[:characters]


def majority(texts: Texts) -> list[str]:
    """The most frequent class for each prompt: of the training answers, or of the references where there are none."""
    answers = [answer for _, answer in _rows(texts.training)] if texts.training else []
    counted = Counter(found for answer in answers if (found := label(answer, texts.choices)))
    counted = counted or Counter(
        found for prompt in texts.prompts if prompt.reference and (found := label(prompt.reference, texts.choices))
    )
    order = {choice: number for number, choice in enumerate(texts.choices)}
    most = min(texts.choices, key=lambda choice: (-counted[choice], order[choice]))
    return [most] * len(texts.prompts)


def nearest(texts: Texts) -> list[str]:
    """The training answer whose prompt is most like the test prompt: cosine of TF-IDF weights of words."""
    assert texts.training is not None
    rows = list(_rows(texts.training))
    closest = nearest_rows([whole_text(prompt.messages) for prompt in texts.prompts], [prompt for prompt, _ in rows])
    return [rows[row][1] for row in closest]


def _rows(training: Path) -> Iterator[tuple[str, str]]:
    """Each training row's prompt and answer."""
    for _, row in read_jsonl(training):
        yield whole_text(row["prompt"]), row["completion"][-1]["content"]


def nearest_rows(queries: Sequence[str], documents: Sequence[str]) -> list[int]:
    """For each query the number of the most similar document, the first of equals."""
    return [int(similar.argmax()) for similar in similarities(queries, documents)]


def similarities(queries: Sequence[str], documents: Sequence[str]) -> "Iterator[NDArray[Any]]":
    """For each query its cosine with every document, (documents,).

    Weights are those of scikit-learn's TfidfVectorizer (raw counts, smoothed inverse document frequency, length 1), with
    words of one letter too.
    """
    import numpy as np

    vocabulary: dict[str, int] = {}
    counts = [Counter(_words(text)) for text in documents]
    for counted in counts:
        for word in counted:
            vocabulary.setdefault(word, len(vocabulary))
    frequency = Counter(word for counted in counts for word in counted)
    idf = np.array([math.log((1 + len(documents)) / (1 + frequency[word])) + 1 for word in vocabulary])
    weights = _weights(counts, vocabulary, idf).T.tocsr()
    for start in range(0, len(queries), CHUNK):
        part = _weights([Counter(_words(text)) for text in queries[start : start + CHUNK]], vocabulary, idf)
        yield from (part @ weights).toarray().round(12)  # equal texts are equal whatever the order of the sums


def largest(values: "NDArray[Any]", most: int) -> list[int]:
    """The places of the largest values, (n,), in order, the first of equals first."""
    import numpy as np

    most = min(most, len(values))
    if not most:
        return []
    near = np.flatnonzero(values >= np.partition(values, -most)[-most])
    return [int(place) for place in near[np.argsort(-values[near], kind="stable")][:most]]


def _weights(counts: Sequence[Counter[str]], vocabulary: dict[str, int], idf: "NDArray[Any]") -> "csr_array":
    import numpy as np
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


def _last_user_text(messages: Sequence[Message]) -> str:
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")


def whole_text(messages: Sequence[Message]) -> str:
    """A prompt as its likeness to others is measured: the texts of all its messages."""
    return "\n".join(message["content"] for message in messages)
