"""The experiment's ways to distil are recipes, and its table says what was measured."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from seqdistill.recipe.reading import check_tables
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.methods import method_of


@pytest.fixture(scope="module")
def kim_rush() -> Any:
    spec = importlib.util.spec_from_file_location("kim_rush", Path(__file__).parent / "experiments" / "kim_rush.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["kim_rush"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_way_is_made_of_keys_that_train_knows(kim_rush: Any) -> None:
    for way in kim_rush.WAYS:
        check_tables({"train": dict(way.train)}, "recipe")
        method_of(TrainConfig(**way.train))
    assert len({way.name for way in kim_rush.WAYS}) == len(kim_rush.WAYS) == 6


def test_the_table_has_the_mean_over_prompts_and_the_range_over_seeds(kim_rush: Any) -> None:
    scores = {"word, greedy": {"reference": [[10.0] * 12, [30.0] * 12], "teacher": [[float(n) for n in range(12)]] * 2}}
    row = kim_rush.markdown(scores, [50.0] * 12).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["word, greedy", "20.0 [20.0, 20.0]", "10.0 to 30.0"]
    assert cells[3].startswith("5.5 [") and cells[4] == "5.5 to 5.5"
