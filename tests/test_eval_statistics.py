"""The numbers of eval: metrics against sacrebleu itself, intervals against distributions whose truth is known."""

import math

import numpy as np
import pytest
import sacrebleu

from seqdistill.engines import Completion
from seqdistill.metrics import measures
from seqdistill.metrics.text import chrf, chrf_signature, corpus_chrf, exact
from seqdistill.records import Prompt
from seqdistill.stages.evaluate.answers import Answer, Scoring
from seqdistill.stages.evaluate.baselines import copied
from seqdistill.stages.evaluate.statistics.intervals import FEWEST, Interval, column, difference, ratio, resample, share, tango
from seqdistill.stages.evaluate.statistics.paired import PairedShares, outcome
from seqdistill.stages.evaluate.table import Settings, tabulate
from seqdistill.tasks.answer_form import AnswerForm

ASKED = [{"role": "user", "content": "Say something."}]
TEXTS = [
    "The library is shut on Monday.",
    "",
    "Bus 7 stops at Mill Lane until 3 May",
    "café naïve 日本語のテキスト",
    "a\u2028b <b>c</b>",
]
WANTED = [
    "The library on Mill Lane is shut on Monday.",
    "Something.",
    "Bus 7 stops at Mill Lane until 3 May",
    "cafe 日本のテキスト",
    "x",
]


@pytest.mark.parametrize(("text", "wanted"), list(zip(TEXTS, WANTED, strict=True)))
def test_sentence_chrf_is_sacrebleus(text: str, wanted: str) -> None:
    assert chrf(text, wanted) == sacrebleu.sentence_chrf(text, [wanted]).score


def test_corpus_chrf_is_sacrebleus_and_is_signed() -> None:
    assert corpus_chrf(TEXTS, WANTED) == sacrebleu.corpus_chrf(TEXTS, [WANTED]).score
    assert chrf_signature().startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_exact_match_sees_past_white_space_alone() -> None:
    assert exact(" The cat\n sat. ", "The cat sat.") == 100
    assert exact("the cat sat.", "The cat sat.") == 0


def score_answer(text: str, teacher: str, reference: str | None, reason: str) -> dict[str, float | None]:
    prompt = Prompt("a", ASKED, ASKED, reference)
    answers = {"teacher": Completion("a:teacher", teacher), "student": Completion("a:student", text, finish_reason=reason)}
    return Scoring(measures("text"), AnswerForm(), "text").scores(answers, "student", prompt)


def test_scores_that_do_not_apply_are_none() -> None:
    scores = score_answer("a cat", "", None, "copy")
    assert scores["chrf_reference"] is scores["exact_reference"] is scores["stopped"] is scores["length_ratio"] is None
    assert score_answer("a", "ab", "a", "length")["stopped"] == 0.0


@pytest.mark.parametrize(
    ("source", "characters", "copy"),
    [
        ("one two  three", 8, "one two"),
        ("one two", 7, "one two"),
        ("one two three", 7, "one two"),
        ("日本語のテキスト", 3, "日本語"),
        ("short", 90, "short"),
        ("words here", 0, ""),
    ],
)
def test_the_copy_is_whole_words_within_the_length(source: str, characters: int, copy: str) -> None:
    assert copied(source, characters) == copy


def test_the_interval_of_a_skewed_mean_covers_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(1)
    trials, n = 500, 60
    hits = 0
    for trial in range(trials):
        scores = rng.exponential(20.0, size=(n, 1))
        found = resample(scores, 500, trial).interval(column(0))
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= 20.0 <= found.high
    assert 0.91 <= hits / trials <= 0.98


def test_the_intervals_of_paired_differences_and_ratios_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    trials, n = 300, 50
    hits = {"difference": 0, "ratio": 0}
    for trial in range(trials):
        ease = rng.normal(50, 15, size=n)  # the prompt's own: pairing must cancel it
        scores = np.stack([ease + rng.normal(5, 4, n), ease + rng.normal(0, 4, n)], axis=1)
        drawn = resample(scores, 400, trial)
        for name, statistic, truth in (("difference", difference(0, 1), 5.0), ("ratio", ratio(0, 1, 100), 110.0)):
            found = drawn.interval(statistic)
            assert found is not None and found.low is not None and found.high is not None
            hits[name] += found.low <= truth <= found.high
            if name == "difference":
                assert found.high - found.low < 6  # unpaired it would be about 12 wide
    assert all(0.90 <= count / trials <= 0.985 for count in hits.values()), hits


def test_the_bca_interval_agrees_with_scipys() -> None:
    from scipy.stats import bootstrap

    scores = np.random.default_rng(3).gamma(2.0, 10.0, size=(80, 1))
    ours = resample(scores, 20_000, 0).interval(column(0))
    theirs = bootstrap((scores[:, 0],), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    assert ours is not None and ours.low is not None and ours.high is not None
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.15)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.15)


def test_the_wilson_interval_agrees_with_scipys() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 12), (3, 40), (120, 120)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        ours = share(hits, n)
        assert (ours.low, ours.high) == (pytest.approx(100 * theirs.low), pytest.approx(100 * theirs.high))


@pytest.mark.parametrize(
    ("easy", "first", "second", "difference_covers", "ratio_covers"),
    [(0.5, 0.8, 0.7, 0.945, 0.945), (0.9, 0.97, 0.9, 0.935, 0.96), (0.3, 0.5, 0.5, 0.945, 0.95)],
)
def test_the_intervals_of_paired_shares_cover_the_truth(
    easy: float, first: float, second: float, difference_covers: float, ratio_covers: float
) -> None:
    """Exactly, over the fourfold tables of 60 prompts. Where few are discordant, a score test is less exact."""
    from scipy.stats import multinomial

    n, both = 60, easy * first * second
    shares = [both, easy * first - both, easy * second - both]
    shares.append(1 - sum(shares))
    counts = np.array([(b, c, n - b - c) for b in range(n + 1) for c in range(n + 1 - b)])
    low, high = tango(counts[:, 0], counts[:, 1], n)
    truth = easy * (first - second)
    chance = multinomial.pmf(counts, n, [*shares[1:3], shares[0] + shares[3]])
    assert difference_covers <= float(chance[(low <= truth) & (truth <= high)].sum()) <= 0.97
    covered = seen = 0.0
    cells = np.array([(a, b, c, n - a - b - c) for a in range(n + 1) for b, c, _ in counts if a + b + c <= n])
    for table, likely in zip(cells, multinomial.pmf(cells, n, shares), strict=True):
        if likely < 1e-6:
            continue
        pair = PairedShares.of(np.repeat([1, 1, 0, 0], table) > 0, np.repeat([1, 0, 1, 0], table) > 0)
        found = pair.ratio()
        if found is None:  # over nothing
            continue
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        covered += likely * (found.low <= 100 * first / second <= found.high)
        seen += likely
    assert seen > 0.99 and ratio_covers <= covered / seen <= 0.985


def test_all_right_against_none_right_is_not_certain() -> None:
    all_hit, none_hit = np.ones(24, dtype=bool), np.zeros(24, dtype=bool)
    low = share(24, 24).low
    assert low is not None
    apart = PairedShares.of(all_hit, none_hit)
    z = 1.959963984540054**2  # without discordance on one side, Tango's bounds have a closed form
    assert apart.difference() == Interval(100.0, pytest.approx(100 * (24 - z) / (24 + z)), 100.0)
    assert apart.ratio() is None, "a ratio to nothing"
    same = PairedShares.of(all_hit, all_hit)
    assert same.difference() == Interval(0.0, pytest.approx(-100 * z / (24 + z)), pytest.approx(100 * z / (24 + z)))
    assert same.ratio() == Interval(100.0, pytest.approx(low), pytest.approx(10_000 / low))
    none = PairedShares.of(none_hit, all_hit).ratio()
    assert none == Interval(0.0, 0.0, pytest.approx(100 * (100 - low) / math.sqrt(100**2 - (100 - low) ** 2)))
    few = PairedShares.of(all_hit[: FEWEST - 1], none_hit[: FEWEST - 1])
    assert few.difference() == Interval(100.0, None, None)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    scores = np.random.default_rng(4).normal(50, 10, size=(30, 2))
    first, again, other = (resample(scores, 600, seed).interval(difference(0, 1)) for seed in (7, 7, 8))
    assert first == again != other


def test_no_interval_is_claimed_where_the_data_cannot_give_one() -> None:
    few = np.arange(2.0 * (FEWEST - 1)).reshape(FEWEST - 1, 2)
    assert resample(few, 200, 0).interval(column(0)) == Interval(FEWEST - 2.0, None, None)
    rare = np.zeros((40, 2))
    rare[0] = 100  # many resamples miss the only hit: a ratio to nothing
    assert resample(rare, 400, 0).interval(ratio(0, 1)) == Interval(1.0, None, None)
    assert resample(np.zeros((40, 2)), 200, 0).interval(ratio(0, 1)) is None
    assert resample(np.full((40, 2), 3.0), 200, 0).interval(ratio(0, 1, 100)) == Interval(100.0, None, None)


Z2 = 1.959963984540054**2


@pytest.mark.parametrize("n", [FEWEST, 24, 120])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(
    "first, second", [(100.0, 100.0), (0.0, 0.0), (50.0, 50.0), (100 / 3, 100.0), (90.1, 100.0), (3.0, 0.7)]
)
def test_scores_that_are_all_equal_are_no_more_certain_than_shares_that_are(
    first: float, second: float, n: int, groups: bool
) -> None:
    """Wilson's and Tango's bounds of 0 in n: 100 z^2 / (n + z^2) points."""
    width = 100 * Z2 / (n + Z2)
    drawn = resample(np.full((n, 2), (first, second)), 200, 0)
    if groups:  # of several sizes
        names = [str(k) for k in range(n) for _ in range(1 + k % 3)]
        drawn = resample(np.full((len(names), 2), (first, second)), 200, 0, names)
    mean, gap = drawn.interval(column(0)), drawn.interval(difference(0, 1))
    assert mean == Interval(*(pytest.approx(one) for one in (first, max(first - width, 0), min(first + width, 100))))
    value = first - second
    assert gap == Interval(*(pytest.approx(one) for one in (value, max(value - width, -100), value + width)))
    for margin in (value - 1.1 * width, value - 0.9 * width):
        below = drawn.below(difference(0, 1), margin)
        assert below is not None and (below < 0.025) == (margin < value - width)
    if first == 100:
        assert (mean.low, mean.high) == (pytest.approx(share(n, n).low), 100)


@pytest.mark.parametrize(
    ("points", "margin"),
    [([], 5.0), ([-1.0], 5.0), ([0.001], 5.0), ([-2.0, 2.0], 5.0), ([0.5] * 4, 5.0), ([-100.0], 20.0), ([100.0], 5.0)],
)
def test_of_ten_prompts_of_which_few_differ_nothing_is_shown(points: list[float], margin: float) -> None:
    scores = np.full((10, 2), 50.0)
    scores[: len(points), 0] += np.array(points) / 2
    scores[: len(points), 1] -= np.array(points) / 2
    drawn = resample(scores, 400, 0)
    found = outcome(scores[:, 0], scores[:, 1], margin, None, drawn)
    assert found.decision == "INCONCLUSIVE" and found.p is not None and found.p > 0.025
    assert found.needed and found.needed > 10
    assert found.gap is not None and found.gap.low is not None and found.gap.high is not None
    assert found.gap.low <= -15 and found.gap.high >= 15 and found.gap.low < found.gap.value < found.gap.high


def test_of_few_prompts_that_differ_wholly_the_interval_holds_tangos() -> None:
    for won, lost in ((0, 0), (1, 0), (0, 3), (2, 4)):
        scores = np.repeat([(100.0, 0.0), (0.0, 100.0), (100.0, 100.0)], [won, lost, 60 - won - lost], axis=0)
        found, theirs = resample(scores, 400, 0).interval(difference(0, 1)), tango(won, lost, 60)
        assert found is not None and found.low is not None and found.high is not None
        assert found.low <= 100 * float(theirs[0]) + 1e-9 and found.high >= 100 * float(theirs[1]) - 1e-9


@pytest.mark.parametrize(("rare", "n"), [(0.01, 20), (0.03, 60), (0.1, 20)])
def test_the_interval_covers_the_truth_where_few_answers_go_wrong(rare: float, n: int) -> None:
    """Half of the wrong answers miss a third of their fields, half all of them; a plain bootstrap often sees none of them."""
    rng, trials = np.random.default_rng(6), 200
    covered = 0
    for trial in range(trials):
        wrong, half = rng.random((2, n))
        lost = np.where(wrong < rare, np.where(half < 0.5, 100 / 3, 100.0), 0.0)
        found = resample(np.stack([100 - lost, np.full(n, 100.0)], axis=1), 100, trial).interval(difference(0, 1))
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= -rare * 200 / 3 <= found.high
    assert covered / trials >= 0.93


def test_an_interval_shows_a_sign_only_when_it_leaves_out_zero() -> None:
    assert [Interval(1, *ends).sign for ends in ((0.1, 2), (-1, 2), (-2, -0.1), (0.0, 1), (None, None))] == [1, 0, -1, 0, 0]


@pytest.mark.parametrize(
    ("base", "teacher", "spread", "differing", "bounded"),
    [(50.0, 51.0, 8.0, 40, False), (50.0, 70.0, 8.0, 40, True), (50.0, 70.0, 8.0, 3, False), (70.0, 50.0, 8.0, 40, True)],
)
def test_the_gap_closed_has_an_interval_only_where_there_is_a_gap(
    base: float, teacher: float, spread: float, differing: int, bounded: bool
) -> None:
    """A ratio to what may be zero has no bounds: the bootstrap's held the truth in 73% of draws."""
    rng, measure = np.random.default_rng(3), next(one for one in measures("text") if one.name == "chrf_reference")
    mean = {"base": base, "teacher": teacher, "student": (base + teacher) / 2}
    scores = {role: mean[role] + rng.normal(0, spread, 40) for role in mean}
    scores["student"] = np.where(np.arange(40) < differing, scores["student"], scores["teacher"])
    prompts = [Prompt(f"p{n}", ASKED, ASKED, "a reference") for n in range(40)]
    answers = [
        Answer(role, prompt, [], Completion("x", "text"), {measure.name: float(score)})
        for role, of in scores.items()
        for prompt, score in zip(prompts, of, strict=True)
    ]
    (found,) = tabulate(answers, Settings(list(mean), [measure], measure.name, 5.0, 500, 0))["gap_closed"]
    assert found["value"] is not None and (found["low"] is not None) == bounded
