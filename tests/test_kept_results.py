"""A second attempt that fails, is refused or interrupted leaves the result of the first whole and usable, in every stage."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from conftest import make_tiny_model
from full_disk import room_for
from test_api import tables
from train_runs import ARGS, a_recipe, a_run

from seqdistill import api
from seqdistill.errors import SeqdistillError
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import content_files, file_sha256
from seqdistill.stages.train.stage import train

PRICE = {"prompt": 1000.0, "completion": 10000.0}
NOBODY = ["http://127.0.0.1:9/v1"]


class Stopping(Silent):
    """Presses Ctrl-C when something has advanced so far."""

    def __init__(self, what: str, at: int) -> None:
        self._what, self._left = what, at
        self._on = False

    def start(self, what: str, _total: int, _unit: str) -> None:
        self._on = what.startswith(self._what)

    def advance(self, count: int = 1, _facts: dict[str, str] | None = None) -> None:
        self._left -= count * self._on
        if self._on and self._left <= 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def first(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A finished run, and the tables it was made by; its teacher still answers."""
    folder = tmp_path_factory.mktemp("first")
    with ChatServer(model=None) as server:
        recipe: dict[str, Any] = tables(server, folder, tiny_model)
        recipe["teacher"]["price"] = PRICE
        recipe["filter"] = {"validation": 0.2}
        recipe["train"] = {"args": {"max_steps": 4, "per_device_train_batch_size": 2}}
        run = folder / "run"
        api.generate(run, recipe)
        api.filter(run, recipe)
        api.targets(run, recipe, model=str(tiny_model))
        api.train(run, recipe)
        api.evaluate(run, recipe)
        yield run, recipe


def files_in(run: Path) -> dict[str, str]:
    """The hashes of all that commands show and later stages read."""
    files = {str(path.relative_to(run)): path for path in content_files(run)}
    seen = {name: path for name, path in files.items() if "/" in name and "/." not in name and "journal" not in name}
    return {name: file_sha256(path) for name, path in seen.items()}


def targets(run: Path, recipe: dict[str, Any], *, progress: Progress) -> None:
    api.targets(run, recipe, model=str(recipe["student"]["model"]), top=3, progress=progress)


Attempt = Callable[..., object]


def on_a_disk_with(room: int, act: Attempt) -> Attempt:
    def attempt(*of: Any, **more: Any) -> None:
        with room_for(room):
            act(*of, **more)

    return attempt


def stopped_at(file: int, act: Attempt) -> Attempt:
    """The attempt, with a Ctrl-C when file number `file` is written and about to take its place."""

    def attempt(*of: Any, **more: Any) -> None:
        left, replace = file, os.replace

        def stopping(*paths: Any) -> None:
            nonlocal left
            left -= ".new" in str(paths)
            if left == 0:
                raise KeyboardInterrupt
            replace(*paths)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", stopping)
            act(*of, **more)

    return attempt


JUDGE = {"model": "judge", "engine": "openai", "base_url": NOBODY, "price": PRICE}
HOT = {"args": {"max_steps": 8, "per_device_train_batch_size": 2, "learning_rate": 1e30, "max_grad_norm": 0.0}}
DEAR = {"generate": {"max_tokens": 21, "temperature": 1.0, "budget": 2.0}}
CASES: list[tuple[str, Attempt, dict[str, Any], Progress]] = [  # the stage, what changes, where it is interrupted
    ("generate: a teacher that is away", api.generate, {"teacher": {"model": "other", "base_url": NOBODY}}, Silent()),
    ("generate: a budget that is used up", api.generate, DEAR, Silent()),
    ("generate: answers without reasoning", api.generate, {"teacher": {"model": "b"}, "train": {"reasoning": True}}, Silent()),
    ("generate: interrupted", api.generate, {"teacher": {"model": "c"}}, Stopping("prompting", 3)),
    ("filter: a judge that is away", api.filter, {"filter": {"score": {"by": "judge"}}, "judge": JUDGE}, Silent()),
    ("filter: nothing is left", api.filter, {"filter": {"length": {"min_words": 500}}}, Silent()),
    ("train: diverged", api.train, {"train": HOT}, Silent()),
    ("train: interrupted", api.train, {"train": {"args": {"max_steps": 9}}}, Stopping("training", 2)),
    ("train: refused", api.train, {"train": {"args": {"max_steps": 9, "optim": "adamm"}}}, Silent()),
    ("train: preference, interrupted", api.train, {"train": {"method": "preference"}}, Stopping("training", 1)),
    ("eval: a judge that is away", api.evaluate, {"eval": {"pairwise": True}, "judge": JUDGE}, Silent()),
    ("eval: interrupted", api.evaluate, {"eval": {"max_tokens": 7}}, Stopping("", 3)),
    ("targets: interrupted", targets, {"train": {"reasoning": True}}, Stopping("scoring", 1)),
    ("eval: no room for the predictions", on_a_disk_with(9_000, api.evaluate), {"eval": {"resamples": 150}}, Silent()),
    ("eval: no room for the report", on_a_disk_with(60_000, api.evaluate), {"eval": {"resamples": 150}}, Silent()),
    ("eval: stopped at the report", stopped_at(4, api.evaluate), {"eval": {"resamples": 150}}, Silent()),
    ("generate: stopped at the failures", stopped_at(1, api.generate), {"teacher": {"model": "d"}}, Silent()),
    ("filter: no room for the rows", on_a_disk_with(1_000, api.filter), {"filter": {"seed": 5}}, Silent()),
    ("filter: stopped at the report", stopped_at(4, api.filter), {"filter": {"seed": 5}}, Silent()),
    ("targets: stopped at the end", stopped_at(1, targets), {"train": {"reasoning": True}}, Silent()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "act", "changed", "progress", "forced"),
    [
        pytest.param(*case, forced, id=case[0] + ", forced" * forced)
        for forced in (False, True)
        for case in CASES[:: 4 if forced else 1]
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_second_attempt_that_fails_leaves_the_first_result(
    name: str,
    act: Any,
    changed: dict[str, Any],
    progress: Progress,
    forced: bool,
    first: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    run, recipe = tmp_path / "run", dict(first[1])
    shutil.copytree(first[0], run)
    stage = name.partition(":")[0]
    if forced:
        api.mark_stale(run, stage)
    before = files_in(run)
    for table, keys in changed.items():
        recipe[table] = {**recipe.get(table, {}), **keys}
    if isinstance(progress, Stopping):
        progress = Stopping(progress._what, progress._left)
    with pytest.raises((SeqdistillError, KeyboardInterrupt, OSError)):
        act(run, recipe, progress=progress)
    assert files_in(run) == before
    assert api.verify(run).whole
    if stage == "train" and "refused" not in name:
        assert any("stopped before its end" in why for why in api.status(run, recipe).stages[2].why)
    if not forced:
        assert {one.state for one in api.status(run, first[1]).stages} == {"done"}


def test_a_second_eval_s_report_is_of_its_own_files(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(first[0], run)
    recipe = {**first[1], "eval": {**first[1].get("eval", {}), "max_tokens": 9}}
    again = shutil.copytree(run, tmp_path / "again" / "run")
    (again / "eval" / "manifest.json").unlink()
    (again / "eval" / "predictions.jsonl").unlink()
    for one in (run, again):
        api.evaluate(one, recipe)
        page = (one / "eval" / "report.html").read_text()
        assert file_sha256(one / "eval" / "predictions.jsonl")[:12] in page
        assert "train " in page and not re.search(r", eval \d+ s", page), "the earlier eval's time is not this one's"


def test_a_student_that_was_cut_stays_with_the_base_it_is_compared_with(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path)

    def cut_to(layers: int, **more: Any) -> Recipe:
        return a_recipe(f"shrink:{layers}", str(tiny_model), args={**ARGS, "max_steps": 2, **more}, layers="even")

    train(run, cut_to(3), Silent())
    before = {
        name: file_sha256(run.file("train", name)) for name in ("base", "base.json", "model", "log.jsonl", "manifest.json")
    }
    with pytest.raises(SeqdistillError, match="diverged"):
        train(run, cut_to(2, learning_rate=1e30, max_grad_norm=0.0, max_steps=8), Silent())
    assert {name: file_sha256(run.file("train", name)) for name in before} == before
    assert train(run, cut_to(3), Silent()).up_to_date
    train(run, cut_to(2), Silent())
    assert file_sha256(run.file("train", "base")) != before["base"] and len(list(run.path.glob("train/.*"))) == 1  # its lock
    whole = a_run(tmp_path / "whole")
    train(whole, cut_to(2), Silent())
    assert file_sha256(whole.file("train", "model")) == file_sha256(run.file("train", "model"))


def test_what_one_method_leaves_goes_when_another_is_done(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    args = {"max_steps": 1, "per_device_train_batch_size": 2}
    train(run, a_recipe(make_tiny_model(tmp_path / "tiny"), args=args, method="preference"), Silent())
    assert run.file("train", "pairs.jsonl").exists()
    train(run, a_recipe(tiny_model, args=args), Silent())
    assert not run.file("train", "pairs.jsonl").exists()
