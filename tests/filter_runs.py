"""Runs with samples in them, for the tests of filter: as `generate` or `import` would have left them."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqdistill.progress import Silent
from seqdistill.recipe.reading import check_tables, resolve
from seqdistill.records import Sample, prompt_id, write_jsonl
from seqdistill.review.page import Review, Server, serve
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.filter.stage import FilterResult, filter_samples


def sample(prompt: str, completion: str, **keys: Any) -> Sample:
    """One sample; its number is 0 unless given."""
    messages = [{"role": "user", "content": prompt}]
    number, teacher = keys.get("sample", 0), keys.get("teacher", "teacher")
    row = Sample(
        id=f"{prompt_id(messages)}:{teacher}:{number}",
        prompt_id=prompt_id(messages),
        sample=number,
        teacher=teacher,
        prompt=messages,
        completion=[{"role": "assistant", "content": completion}],
        reasoning=None,
        finish_reason="stop",
        prompt_tokens=10,
        completion_tokens=10,
        reference=None,
        slice=None,
    )
    return replace(row, **keys)


def make_run(folder: Path, rows: Sequence[Any]) -> Run:
    """A run whose generate stage is done and holds these rows (samples, or dicts to be written as they are)."""
    run = Run(folder)
    write_jsonl(run.file("generate", "samples.jsonl"), rows)
    StageRecord(run, "generate", {}, {}).finish({"samples.jsonl": len(rows)}, config={})
    return run


def filtered_run(folder: Path, rows: dict[str, list[Any]]) -> Run:
    """A run whose filter stage is done and holds these rows, by file."""
    run = Run(folder)
    for name, content in rows.items():
        write_jsonl(run.file("filter", name), content)
    StageRecord(run, "filter", {}, {}).finish({name: len(content) for name, content in rows.items()}, config={})
    return run


def rejected(row: Sample, rule: str, reason: str, kept_by: str | None = None) -> dict[str, Any]:
    """A line of rejected.jsonl."""
    return vars(row) | {"rule": rule, "reason": reason, "would_keep": [], "kept_by": kept_by}


@contextlib.contextmanager
def reviewing(run: Run) -> Iterator[Server]:
    """The review page of a run, served to a reviewer named maria."""
    with Review(run, "maria") as session, serve(session, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def filtered(run: Run, test: Path | None = None, **keys: Any) -> FilterResult:
    """Runs the stage with these [filter] keys; a step's table is a dict."""
    tables = {"filter": keys, "task": {} if test is None else {"test": str(test)}}
    check_tables(tables, "the test")
    return filter_samples(run, resolve(tables), Silent())


def rows_of(run: Run, name: str) -> list[dict[str, Any]]:
    """The rows of one of the stage's files."""
    return [json.loads(line) for line in run.file("filter", name).read_text(encoding="utf-8").splitlines()]


def kept_ids(run: Run) -> set[str]:
    """The ids in train and validation."""
    return {row["id"] for name in ("train.jsonl", "validation.jsonl") for row in rows_of(run, name)}


def rules_of(run: Run) -> dict[str, str]:
    """The rule that took each rejected id."""
    return {row["id"]: row["rule"] for row in rows_of(run, "rejected.jsonl")}
