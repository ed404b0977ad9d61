"""Scores: how good each sample of one prompt is, by itself or beside its siblings. Higher is better.

Every score is a function of the samples of one prompt alone, in any order, and gives one number for each, or None for what
cannot be scored: None is counted, and never taken for zero. Does not choose (`selection`), check (`verify`) or judge (`judge`).
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqdistill.errors import UsageError
from seqdistill.metrics.faithfulness import faithfulness
from seqdistill.metrics.text import bleu, chrf
from seqdistill.records import Sample
from seqdistill.stages.filter.scoring.answers import Extract

Scores = list[float | None]


def by_reference(samples: Sequence[Sample], metric: str) -> Scores:
    """Nearness to the gold reference, 0 to 100: `chrf` or `bleu` (of the sentence). None without a reference.

    Choosing the sample nearest to the reference is sequence-interpolation: Kim and Rush 2016, arXiv 1606.07947.
    """
    near = {"chrf": chrf, "bleu": bleu}[metric]
    return [None if sample.reference is None else near(sample.text, sample.reference) for sample in samples]


def by_vote(samples: Sequence[Sample], extract: Extract) -> Scores:
    """The share of a prompt's samples, of all teachers, that give the same answer. None for a sample without an answer.

    A sample without an answer has no vote, but counts: one answer in four samples has a quarter of the votes.
    Self-consistency: Wang et al. 2022, arXiv 2203.11171.
    """
    answers = [extract(sample.text) for sample in samples]
    votes = Counter(answer for answer in answers if answer is not None)
    return [None if answer is None else votes[answer] / len(samples) for answer in answers]


def by_consensus(samples: Sequence[Sample]) -> Scores:
    """The mean chrF (0 to 100) of a completion to those of the prompt's other samples, of all teachers; 0 for a lone one.

    Keeping the best is minimum-Bayes-risk choice among the samples: Kumar and Byrne 2004, aclanthology.org/N04-1022.
    """
    texts = [sample.text for sample in samples]
    scores: list[list[float]] = [[] for _ in texts]
    for (one, text), (_, other) in itertools.permutations(enumerate(texts), 2):
        scores[one].append(100.0 if text == other else chrf(text, other))
    return [math.fsum(mine) / max(1, len(mine)) for mine in scores]  # fsum: no order of the samples moves it


def by_faithfulness(samples: Sequence[Sample]) -> Scores:
    """The share of a completion's numbers and names that its prompt has, as eval's metric `faithfulness` counts it."""
    return [faithfulness("\n".join(message["content"] for message in sample.prompt), sample.text) for sample in samples]


def by_logprob(samples: Sequence[Sample], means: Mapping[str, float]) -> Scores:
    """The teacher's own mean log-probability of a token, from `teacher_means`. None where the teacher gave none."""
    return [means.get(sample.id) for sample in samples]


def teacher_means(sidecar: Path) -> dict[str, float]:
    """By sample id, the mean log-probability of its tokens, from logprobs.parquet. Raises UsageError when there is none."""
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(sidecar).iter_batches(columns=["id", "logprobs"])
    except FileNotFoundError:
        raise UsageError(
            f"score.by = logprob: no {sidecar}", "generate with --logprobs 0: it requests all answers again"
        ) from None
    rows = (row for batch in batches for row in batch.to_pylist() if row["logprobs"])
    return {row["id"]: sum(row["logprobs"]) / len(row["logprobs"]) for row in rows}
