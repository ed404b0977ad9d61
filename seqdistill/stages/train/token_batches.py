"""Batches of up to a number of tokens: rows of like length together, so that little is padding.

Which rows make a batch is fixed; the order of the batches is each epoch's own. Both come from the seed, so a resumed training
has them again. transformers and TRL have no such batches.
"""

from collections.abc import Iterator, Sequence
from random import Random

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.ranks import processes


class TokenBatches:
    """A batch sampler for torch's DataLoader: the rows' numbers, batch by batch."""

    def __init__(self, lengths: Sequence[int], tokens: int, seed: int) -> None:
        """`lengths` are the rows' tokens, `tokens` the most in a batch, its padding included."""
        ties = Random(seed)  # noqa: S311 - an order, no secret
        ordered = sorted(range(len(lengths)), key=lambda row: (lengths[row], ties.random()))
        self._batches: list[list[int]] = [[]]
        for row in ordered:  # the longest of a batch is its last
            if (len(self._batches[-1]) + 1) * lengths[row] > tokens and self._batches[-1]:
                self._batches.append([])
            self._batches[-1].append(row)
        self._seed, self._epoch = seed, 0

    @property
    def most_rows(self) -> int:
        """The rows of the batch with the most of them."""
        return max(map(len, self._batches))

    def set_epoch(self, epoch: int) -> None:
        """The order of the epoch that comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(self._batches)
        Random(f"{self._seed}:{self._epoch}").shuffle(batches)  # noqa: S311
        yield from batches


def token_batches(config: TrainConfig, lengths: Sequence[int]) -> TokenBatches | None:
    """The batches of a training; None where [train] has no batch_tokens.

    Raises UsageError for what they do not go with, and for a row that is longer than a batch.
    """
    if config.batch_tokens is None:
        return None
    place = f"[train] batch_tokens = {config.batch_tokens}"
    for name in ("packing", "per_device_train_batch_size", "train_sampling_strategy", "auto_find_batch_size"):
        if config.args.get(name):
            raise UsageError(f"{place} and [train.args] {name} both say what a batch is", "leave one of them out")
    if (count := max(processes(), config.processes)) > 1:
        raise UsageError(f"{place} with {count} processes: they take equally many rows in a step", "leave batch_tokens out")
    if max(lengths) > config.batch_tokens:
        raise UsageError(f"{place}: the longest row has {max(lengths)} tokens", f"at least {max(lengths)}")
    return TokenBatches(lengths, config.batch_tokens, config.seed)
