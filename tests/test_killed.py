"""Commands that are killed, at any file that they put in place: run again, they leave the files of an uninterrupted run."""

import itertools
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from filter_runs import sample
from finished_runs import finished_run

from seqdistill.cli import main
from seqdistill.records import write_jsonl

Child = multiprocessing.get_context("fork").Process  # with this process' imports: a kill costs a fraction of a second
COMMANDS = [
    "filter {tmp}/run --set filter.seed=5",
    "import {tmp}/new {tmp}/log.jsonl",
    "init {tmp}/mine --kind extract",
    "init {tmp}/mine --from {tmp}/log.jsonl",
    "export {tmp}/run --to safetensors",
    "export {tmp}/run --to safetensors --out {tmp}/mine/student",
    "export {tmp}/run --data llama-factory",
    "export {tmp}/run --data trl --out {tmp}/mine",
]


def main_killed_at(place: int, words: list[str]) -> None:
    """Runs a command until it is about to rename its file or folder number `place`."""
    calls = itertools.count(1)

    def killing(rename: Any) -> Any:
        def killed(*paths: Any) -> Any:
            if next(calls) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(*paths)

        return killed

    os.replace, Path.rename = killing(os.replace), killing(Path.rename)  # type: ignore[method-assign]
    raise SystemExit(main(words))


@pytest.fixture(scope="module")
def before(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, and a log to import."""
    folder = tmp_path_factory.mktemp("before")
    rows = [sample(f"Number {n}?", f"It is {n}, of all numbers.") for n in range(12)]
    run = finished_run(folder / "run", tiny_model)
    write_jsonl(run.file("generate", "samples.jsonl"), rows)
    for split in ("train", "validation"):
        write_jsonl(run.file("filter", f"{split}.jsonl"), rows)
    write_jsonl(folder / "log.jsonl", rows)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_at_any_file_and_run_again_leaves_no_other_files(command: str, before: Path, tmp_path: Path) -> None:
    whole, killed = (shutil.copytree(before, tmp_path / name) for name in ("whole", "killed"))
    assert main(command.format(tmp=whole).split()) == 0
    for place in itertools.count(1):
        child = Child(target=main_killed_at, args=(place, command.format(tmp=killed).split()))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert place > 1
    files = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (whole, killed))
    assert next(files) == next(files)
