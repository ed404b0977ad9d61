"""Selection: who stays, who goes and why, whatever the order of the rows."""

import itertools
import random
from dataclasses import asdict

import pytest

from seqdistill.recipe.reading import merge, parse_assignment, resolve
from seqdistill.recipe.tables import SelectConfig
from seqdistill.stages.filter.scoring.selection import Rejected, baseline, select

IDS = ["p:t:0", "p:t:1", "p:t:2", "p:t:3"]


def test_the_best_stays_and_the_others_say_by_how_much() -> None:
    rejections = select(IDS, [43.0, 61.2, 20.0, 61.1], "chrf", SelectConfig(keep="best"))
    assert rejections[1] is None
    assert rejections[0] == Rejected("best", "best of 4 by chrf: 61.2, this one 43", "p:t:1", ("filter.select.best_n = 3",))
    assert [rejection.would_keep for rejection in rejections if rejection] == [
        ("filter.select.best_n = 3",),
        ("filter.select.best_n = 4",),
        ("filter.select.best_n = 2",),
    ]


def test_equal_scores_are_ordered_by_id_and_say_so() -> None:
    rejections = select(IDS[::-1], [0.5] * 4, "vote", SelectConfig(keep="best"))
    assert rejections[3] is None
    assert rejections[0] == Rejected(
        "best", "best of 4 by vote: 0.5, this one 0.5 too, with a later id", "p:t:0", ("filter.select.best_n = 4",)
    )


@pytest.mark.parametrize("among", ["prompt", "all"])
def test_equal_scores_prefer_no_teacher_and_no_prompt_by_its_name(among: str) -> None:
    """By the id alone, of two teachers that are both right the one with the earlier name was always kept."""
    ids = [f"p{n:03}:{teacher}:0" for n in range(200) for teacher in ("a/model", "z:model")]
    if among == "all":
        rejections = select(ids, [1.0] * 400, "verify", SelectConfig(keep="share", top_share=0.5))
    else:
        pairs = [select(ids[n : n + 2], [1.0] * 2, "verify", SelectConfig(keep="best")) for n in range(0, 400, 2)]
        rejections = [one for pair in pairs for one in pair]
    kept = [name for name, rejection in zip(ids, rejections, strict=True) if rejection is None]
    assert len(kept) == 200 and 75 <= sum(":a/" in name for name in kept) <= 125
    assert 75 <= sum(name < "p100" for name in kept) <= 125
    assert all(one.reason.endswith("1 too, later in an order by hash") for one in rejections if one)


def test_several_may_stay() -> None:
    rejections = select(IDS, [1, 2, 3, 4], "judge", SelectConfig(keep="best", best_n=2))
    assert [rejection is None for rejection in rejections] == [False, False, True, True]
    assert rejections[0] == Rejected(
        "best", "best 2 of 4 by judge: 3 and up, this one 1", "p:t:3", ("filter.select.best_n = 4",)
    )
    assert select(IDS, [1, 2, 3, 4], "judge", SelectConfig(keep="best", best_n=9)) == [None] * 4


@pytest.mark.parametrize(("share", "stay"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.3, 2), (0.25, 1), (0.01, 1), (0.0, 0)])
def test_a_share_is_rounded_up(share: float, stay: int) -> None:
    rejections = select(IDS, [1, 2, 3, 4], "vote", SelectConfig(keep="share", top_share=share))
    assert rejections.count(None) == stay
    if share == 0.5:
        assert rejections[1] == Rejected(
            "share", "top 0.5 of 4 by vote: 3 and up, this one 2", "p:t:3", ("filter.select.top_share = 0.75",)
        )


def test_no_row_below_the_lowest_score_stays_whatever_keep_is() -> None:
    for keep in ("best", "share", "threshold", "all"):
        config = SelectConfig(keep=keep, best_n=3, top_share=1.0, min_score=1.0)
        rejections = select(IDS, [0.0, 1.0, 0.0, 1.0], "verify", config)
        assert [rejection is None for rejection in rejections] == [False, True, False, True], keep
        assert rejections[0] == Rejected("threshold", "verify 0 is less than 1", "p:t:1", ("filter.select.min_score = 0.0",))
        assert all(select(IDS, [0.0] * 4, "verify", config)), "a prompt without a right answer keeps none"


def test_a_threshold_looks_at_nothing_but_the_score() -> None:
    rejections = select(IDS, [0.2, 0.8, None, 0.5], "vote", SelectConfig(keep="threshold", min_score=0.5))
    assert rejections[1] is rejections[3] is None
    assert rejections[0] == Rejected("threshold", "vote 0.2 is less than 0.5", "p:t:1", ("filter.select.min_score = 0.2",))
    assert rejections[2] == Rejected("unscored", "vote could not score it", "p:t:1", ('filter.select.unscored = "keep"',))
    none = select(IDS, [0.0] * 4, "verify", SelectConfig(keep="threshold", min_score=1))
    assert all(rejection and rejection.kept_by is None for rejection in none)


def test_an_unscored_row_never_beats_a_scored_one() -> None:
    scores = [None, -5.0, None, None]
    dropped = select(IDS, scores, "judge", SelectConfig(keep="best", best_n=2))
    assert [rejection is None for rejection in dropped] == [False, True, False, False]
    kept = select(IDS, scores, "judge", SelectConfig(keep="best", best_n=2, unscored="keep"))
    assert [rejection is None for rejection in kept] == [True, True, False, False]
    assert kept[2] == Rejected(
        "best", "best 2 of 4 by judge: no score and up, this one has no score", "p:t:1", ("filter.select.best_n = 3",)
    )
    assert [rejection.would_keep for rejection in dropped if rejection] == [
        ('filter.select.unscored = "keep"',),
        ('filter.select.unscored = "keep"', "filter.select.best_n = 3"),
        ('filter.select.unscored = "keep"', "filter.select.best_n = 4"),
    ]
    threshold = select(IDS, scores, "judge", SelectConfig(keep="threshold", min_score=0, unscored="keep"))
    assert [rejection is None for rejection in threshold] == [True, False, True, True]


def test_all_keeps_every_scored_row() -> None:
    assert select(IDS, [1, 2, 3, 4], "judge", SelectConfig(keep="all")) == [None] * 4
    assert [rejection is None for rejection in select(IDS, [None, 2, 3, 4], "judge", SelectConfig(keep="all"))] == [
        False,
        True,
        True,
        True,
    ]
    assert select([], [], "judge", SelectConfig(keep="best")) == []


@pytest.mark.parametrize("how", ["best", "share", "threshold", "all"])
@pytest.mark.parametrize("unscored", ["drop", "keep"])
def test_the_order_of_the_rows_changes_nothing(how: str, unscored: str) -> None:
    rows = list(zip(IDS, [0.5, None, 0.5, 0.25], strict=True))
    config = SelectConfig(keep=how, best_n=2, top_share=0.5, min_score=0.5, unscored=unscored)
    results = set()
    for order in itertools.permutations(rows):
        ids, scores = zip(*order, strict=True)
        results.add(tuple(sorted(zip(ids, map(repr, select(ids, scores, "vote", config)), strict=True))))
    assert len(results) == 1


def test_the_settings_a_rejected_row_names_would_have_kept_it() -> None:
    dice = random.Random(3)
    for _ in range(300):
        ids = [f"p:t:{n}" for n in range(dice.randint(1, 12))]
        scores = [dice.choice([None, 0.0, dice.random()]) for _ in ids]
        how = dice.choice(["best", "share", "threshold"])
        config = SelectConfig(keep=how, best_n=dice.randint(1, 3), top_share=dice.random(), min_score=dice.random())
        for row, rejection in zip(ids, select(ids, scores, "s", config), strict=True):
            if rejection:
                settings = [{table: content} for table, content in map(parse_assignment, rejection.would_keep)]
                changed = resolve(merge({"filter": {"select": asdict(config)}}, *settings)).filter.select
                assert select(ids, scores, "s", changed)[ids.index(row)] is None, (rejection, scores)


def test_baselines_have_the_requested_size_and_do_not_depend_on_order() -> None:
    ids, lengths = [f"p:t:{n}" for n in range(50)], [n % 7 for n in range(50)]
    back = ids[::-1], lengths[::-1]
    for kind in ("random", "longest"):
        chosen = baseline(kind, ids, lengths, 10, seed=1)
        assert len(chosen) == 10
        assert chosen == baseline(kind, *back, 10, seed=1)
    assert baseline("random", ids, lengths, 10, seed=1) != baseline("random", ids, lengths, 10, seed=2)
    assert baseline("longest", ids, lengths, 3, seed=1) == {"p:t:13", "p:t:20", "p:t:27"}
    assert baseline("random", ids, lengths, 99, seed=1) == set(ids)


def test_a_random_baseline_takes_every_row_equally_often() -> None:
    ids = [f"p:t:{n}" for n in range(4)]
    times = [sum(row in baseline("random", ids, [1] * 4, 1, seed) for seed in range(400)) for row in ids]
    assert all(60 < count < 140 for count in times), times
