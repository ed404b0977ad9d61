"""logprobs.parquet beside samples.jsonl: the log-probabilities of each sample's tokens, joined to it by id.

Columns: id; token_ids or tokens; logprobs; top_token_ids or top_tokens; top_logprobs (see `engines.logprobs`).
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines.logprobs import logprobs_in
from seqdistill.records import atomic_path

ROWS_A_GROUP = 256  # samples in memory: with 20 likeliest tokens, 500 tokens long, some 100 MB


def write_logprobs(path: Path, replies: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Writes one row for each (sample id, raw reply) that tells log-probabilities; returns how many.

    Without any there is no file.
    """
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
    }
    schema = pyarrow.schema(kinds)
    rows = ({"id": name, **vars(found)} for name, raw in replies if (found := logprobs_in(raw)) is not None)
    written = 0
    with ExitStack() as stack:
        while group := list(islice(rows, ROWS_A_GROUP)):
            if written == 0:
                writer = stack.enter_context(ParquetWriter(stack.enter_context(atomic_path(path)), schema, compression="zstd"))
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            written += len(group)
    if written == 0:
        path.unlink(missing_ok=True)
    return written
