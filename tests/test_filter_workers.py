"""filter in several processes, or on Ray: the same bytes, the same errors."""

import fcntl
import multiprocessing
import os
import time
from pathlib import Path
from typing import IO

import pytest
from filter_runs import filtered, make_run, sample
from test_filter_stage import notices

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import FilterConfig
from seqdistill.stages.filter.workers import each


def test_several_processes_write_the_same_bytes(tmp_path: Path) -> None:
    rows = [sample(f"{row.prompt[0]['content']} {n}", row.text) for n in range(8) for row in notices(600)]
    one, many = make_run(tmp_path / "one", rows), make_run(tmp_path / "many", rows)
    filtered(one, workers=1)
    filtered(many, workers=2)
    for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl", "report.json"):
        assert one.file("filter", name).read_bytes() == many.file("filter", name).read_bytes()


@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings
def test_ray_writes_the_same_bytes_on_more_than_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    workers = tmp_path / "workers"
    workers.mkdir()

    def work(_: int) -> int:
        """Waits a while for a second worker: on a busy machine one alone could do everything before it is there."""
        (workers / str(os.getpid())).touch()
        until = time.monotonic() + 3
        while len(list(workers.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return os.getpid()

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    rows = [sample(f"{row.prompt[0]['content']} {n}", row.text) for n in range(8) for row in notices(600)]
    one, many = make_run(tmp_path / "one", rows), make_run(tmp_path / "many", rows)
    filtered(one)
    bad = make_run(tmp_path / "bad", notices(3))
    with bad.file("generate", "samples.jsonl").open("a") as file:
        file.write("{not json\n")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        filtered(many, engine="ray")
        with pytest.raises(UsageError, match=r"samples\.jsonl:4: not JSON"):
            filtered(bad, engine="ray")
        worked = {number for number, _ in each(work, range(20), FilterConfig(engine="ray"))}
    finally:
        ray.shutdown()
    assert len(worked - {os.getpid()}) > 1
    for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl", "report.json"):
        assert one.file("filter", name).read_bytes() == many.file("filter", name).read_bytes()


def test_a_bad_line_read_by_another_process_is_named_all_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path, [sample(f"Say {n} and {n * n} in words", f"{n} and {n * n}") for n in range(4100)])
    with run.file("generate", "samples.jsonl").open("a") as file:
        file.write("{not json\n")
    with pytest.raises(UsageError, match=r"samples\.jsonl:4101: not JSON"):
        filtered(run, workers=2)


HELD = list[IO[bytes]]()


def hold_a_file(folder: Path) -> None:
    """Keeps a file locked for as long as this process is there."""
    HELD.append((folder / str(os.getpid())).open("wb"))
    fcntl.flock(HELD[-1], fcntl.LOCK_EX)


def have_it_done(folder: Path) -> None:
    """Gives work to two processes, and does not come to an end."""
    for _ in each(hold_a_file, [folder] * 2, FilterConfig(workers=2)):
        (folder / "done").touch()
        time.sleep(600)


def test_worker_processes_end_with_the_one_they_work_for_however_it_ends(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=have_it_done, args=(tmp_path,))
    parent.start()
    while not (tmp_path / "done").exists() and parent.is_alive():
        time.sleep(0.01)
    parent.kill()
    parent.join()
    for path in tmp_path.glob("[0-9]*"):
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
