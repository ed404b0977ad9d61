"""The Parquet file of log-probabilities beside samples, joined to them by id: how it is written and read.

Columns: id; token_ids or tokens; logprobs; top_token_ids or top_tokens; top_logprobs; temperatures and log_normalizers
(see `engines.logprobs`).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines.logprobs import TokenLogprobs, logprobs_in
from seqdistill.files import atomic_path

ROWS_A_GROUP = 256  # samples in memory: with 20 likeliest tokens, 500 tokens long, some 100 MB


def write_logprobs(path: Path, replies: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Writes one row for each (sample id, raw reply) that has log-probabilities; returns how many.

    Without any there is no file.
    """
    return write_logprob_rows(path, ((name, found) for name, raw in replies if (found := logprobs_in(raw)) is not None))


def write_logprob_rows(path: Path, rows: Iterable[tuple[str, TokenLogprobs]]) -> int:
    """Writes one row for each (sample id, log-probabilities); returns how many. Without any there is no file."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    ids, texts, numbers = pyarrow.list_(pyarrow.int32()), pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.float32())
    kinds = {
        "id": pyarrow.string(),
        "token_ids": ids,
        "tokens": texts,
        "logprobs": numbers,
        "top_token_ids": pyarrow.list_(ids),
        "top_tokens": pyarrow.list_(texts),
        "top_logprobs": pyarrow.list_(numbers),
        "temperatures": numbers,
        "log_normalizers": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
    }
    schema = pyarrow.schema(kinds)
    lines = ({"id": name, **vars(found)} for name, found in rows)
    written = 0
    with ExitStack() as stack:
        while group := list(islice(lines, ROWS_A_GROUP)):
            if written == 0:
                writer = stack.enter_context(ParquetWriter(stack.enter_context(atomic_path(path)), schema, compression="zstd"))
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            written += len(group)
    if written == 0:
        path.unlink(missing_ok=True)
    return written


def read_logprob_rows(path: Path) -> Iterator[tuple[str, TokenLogprobs]]:
    """Each row's (sample id, log-probabilities), in the file's order, a row group in memory at a time."""
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=ROWS_A_GROUP):
        for row in batch.to_pylist():
            yield row.pop("id"), TokenLogprobs(**row)
