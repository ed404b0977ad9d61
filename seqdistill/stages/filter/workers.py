"""Where a step's work on many spans is done: in this process, in several, or on a Ray cluster. The results are the same.

Knows no step.
"""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from seqdistill.errors import MissingExtra, SeqdistillError
from seqdistill.recipe.tables import FilterConfig

T = TypeVar("T")
R = TypeVar("R")

WORTH_PROCESSES = 20  # spans; for fewer the start of processes takes longer than the work
AHEAD = 4  # spans a process, read before their turn


def each(work: Callable[[T], R], spans: Sequence[T], config: FilterConfig) -> Iterator[tuple[R, T]]:
    """Yields work(span) and the span for each span, in order."""
    if config.engine == "ray":
        return zip(_on_ray(work, spans), spans, strict=True)
    processes = config.workers or len(os.sched_getaffinity(0))
    if processes == 1 or (not config.workers and len(spans) < WORTH_PROCESSES):
        return ((work(span), span) for span in spans)
    return zip(_in_processes(work, spans, processes), spans, strict=True)


_work: Any = None


def _remember(work: Any) -> None:
    global _work
    _work = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that gives it work is gone: killed, it told nobody, and nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _call(span: Any) -> Any:
    return _work(span)


def _in_processes(work: Callable[[T], R], spans: Sequence[T], processes: int) -> Iterator[R]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    with ProcessPoolExecutor(processes, context, _remember, (work,)) as pool:
        waiting = iter(spans)
        running = [pool.submit(_call, span) for span in itertools.islice(waiting, AHEAD * processes)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(_call, span) for span in itertools.islice(waiting, 1)]
        finally:
            for future in running:
                future.cancel()


def _on_ray(work: Callable[[T], R], spans: Sequence[T]) -> Iterator[R]:
    try:
        import ray.data
    except ImportError:
        raise MissingExtra("ray", "ray", "filter.engine = 'ray'") from None
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    items = ray.data.from_items([{"span": span} for span in spans], override_num_blocks=len(spans))
    for row in items.map(lambda row: {"result": _tried(work, row["span"])}).iter_rows():
        if isinstance(row["result"], SeqdistillError):
            raise row["result"]
        yield row["result"]


def _tried(work: Callable[[T], R], span: T) -> R | SeqdistillError:
    """The result, or the error as a value: Ray would wrap one that is raised."""
    try:
        return work(span)
    except SeqdistillError as error:
        return error
