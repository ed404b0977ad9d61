"""The experiments' ways to train are recipes, and their tables say what was measured."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from seqdistill.recipe.reading import check_tables
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.methods import method_of


@pytest.fixture(scope="module", params=["kim_rush", "settings"])
def experiment(request: pytest.FixtureRequest) -> Any:
    return opened(request.param)


def opened(name: str) -> Any:
    folder = str(Path(__file__).parent / "experiments")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def test_every_way_is_made_of_keys_that_the_stages_know(experiment: Any) -> None:
    for way in experiment.WAYS:
        check_tables(dict(way.changes), "recipe")
        method_of(TrainConfig(**{"method": "soft", **way.changes.get("train", {})}))
        assert way.after is None or way.after in {other.name for other in experiment.WAYS}
    assert len({way.name for way in experiment.WAYS}) == len(experiment.WAYS) >= 6


def test_the_table_has_the_mean_over_prompts_and_the_range_over_seeds() -> None:
    scores = {"word, greedy": {"reference": [[10.0] * 12, [30.0] * 12], "teacher": [[float(n) for n in range(12)]] * 2}}
    row = opened("kim_rush").markdown(scores, [50.0] * 12).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "word, greedy" and cells[1].startswith("20.0 [") and cells[2] == "10.0 to 30.0"
    assert cells[3].startswith("5.5 [") and cells[4] == "5.5 to 5.5"


def test_a_setting_is_paired_with_the_recipe_seed_by_seed() -> None:
    recipe = {name: [[40.0] * 12, [50.0] * 12] for name in ("teacher", "reference")}
    other = {name: [[43.0] * 12, [51.0] * 12] for name in ("teacher", "reference")}
    once = {name: [[60.0] * 12] for name in ("teacher", "reference")}
    rows = opened("settings").markdown({"recipe": recipe, "more rows": other, "one seed": once}).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    means = [[cell.partition(" [")[0] for cell in row[:4]] for row in cells]
    assert means == [
        ["recipe", "45.0", "", "40.0 to 50.0"],
        ["more rows", "47.0", "+2.0", "+1.0 to +3.0"],
        ["one seed", "60.0", "+20.0", "+20.0 to +20.0"],
    ]


def test_more_notices_begin_with_the_demo_s_own(tmp_path: Path) -> None:
    path = opened("settings").more_notices(tmp_path / "prompts.jsonl", 3)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1200
