"""Our numbers beside those of well-known libraries, on shared samples: `make test-parity`, in an environment of its own."""

import random
from pathlib import Path

import numpy as np
import pandas
import pytest
import sacrebleu
import statsmodels.api
from alpaca_eval.metrics import get_length_controlled_winrate, glm_winrate
from judgy import estimate_success_rate
from ppi_py import ppi_mean_ci
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score, recall_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from seqdistill.metrics import classes
from seqdistill.metrics.text import bleu, chrf, corpus_chrf, rouge_l
from seqdistill.stages.evaluate.statistics.guarantee import ranking, upper_bound
from seqdistill.stages.evaluate.statistics.intervals import share
from seqdistill.stages.evaluate.statistics.paired import PairedShares, holm
from seqdistill.stages.evaluate.statistics.preference import corrected_share, length_controlled, prediction_powered

TEXT = "the library on Mill Lane is shut from Monday until 3 May because its roof leaks ; books go to Town Hall ."
WORDS = TEXT.split(" ")
LABELS = ("billing", "delivery", "return", "other")
SEEDS = range(12)


def sentences(seed: int) -> tuple[list[str], list[str]]:
    """Texts and what they should say: shared words, some lost, some added, some in another place."""
    draw = random.Random(seed)
    texts, wanted = [], []
    for _ in range(25):
        one = draw.choices(WORDS, k=draw.randint(1, 30))
        other = [draw.choice(WORDS) if draw.random() < 0.3 else word for word in one if draw.random() < 0.8]
        texts.append(" ".join(other) if draw.random() < 0.95 else "")
        wanted.append(" ".join(one))
    return texts, wanted


def labels(seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    true = [draw.choice(LABELS[: 2 + seed % 3]) for _ in range(60)]
    return true, [draw.choice(LABELS) if draw.random() < 0.3 else label for label in true]


@pytest.mark.parametrize("seed", SEEDS)
def test_text_metrics_are_those_of_sacrebleu_and_rouge_score(seed: int) -> None:
    texts, wanted = sentences(seed)
    rouge = RougeScorer(["rougeL"])
    for text, reference in zip(texts, wanted, strict=True):
        assert chrf(text, reference) == pytest.approx(sacrebleu.sentence_chrf(text, [reference]).score)
        assert bleu(text, reference) == pytest.approx(
            sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score
        )
        assert rouge_l(text, reference) == pytest.approx(100 * rouge.score(reference, text)["rougeL"].fmeasure)
    assert corpus_chrf(texts, wanted) == pytest.approx(sacrebleu.corpus_chrf(texts, [wanted]).score)


@pytest.mark.parametrize("seed", SEEDS)
def test_class_metrics_are_those_of_scikit_learn(seed: int) -> None:
    true, said = labels(seed)
    present = [label for label in LABELS if label in {*true, *said}]
    table = classes.confusion(true, said, LABELS).sum(axis=0)
    assert table[:, :-1].tolist() == confusion_matrix(true, said, labels=list(LABELS)).tolist()
    assert float(classes.macro_f1(table)) == pytest.approx(100 * f1_score(true, said, labels=present, average="macro"))
    assert float(classes.kappa(table)) == pytest.approx(cohen_kappa_score(true, said))
    assert float(np.trace(table) / table.sum()) == pytest.approx(accuracy_score(true, said))
    wanted = [label for label in LABELS if label in true]
    theirs = recall_score(true, said, labels=wanted, average=None)
    assert [one for one in classes.recalls(table) if one is not None] == pytest.approx(100 * theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_tests_and_intervals_of_shares_are_those_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random(80) < 0.7, rng.random(80) < 0.6
    table = [
        [int((first & second).sum()), int((first & ~second).sum())],
        [int((~first & second).sum()), int((~first & ~second).sum())],
    ]
    assert PairedShares.of(first, second).p() == pytest.approx(mcnemar(table, exact=True).pvalue)
    hits, n = int(rng.integers(1, 40)), 40
    found = share(hits, n)
    assert (found.low, found.high) == pytest.approx(tuple(100 * end for end in proportion_confint(hits, n, method="wilson")))
    assert float(upper_bound(hits, n, 0.05)) == pytest.approx(proportion_confint(hits, n, alpha=0.1, method="beta")[1])
    values = rng.random(7).tolist()
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    confidence, good = rng.random(60).round(1), rng.random(60) < 0.5
    assert ranking(confidence, good) == pytest.approx(roc_auc_score(good, confidence))


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_for_equal_lengths_is_near_that_of_alpaca_eval(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`length_controlled_minimal`. It chooses a penalty by cross-validation where ours has none: a point is allowed.

    It reads a table of difficulties from the hub also for this formula, which does not use them.
    """
    pandas.DataFrame({"model": "none", "index": range(400), "instruction_difficulty": 0.0}).to_csv(tmp_path / "unused.csv")
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(tmp_path / "unused.csv"))
    rng = np.random.default_rng(seed)
    ours, theirs = rng.integers(50, 400, 400), rng.integers(50, 400, 400)
    wins = rng.random(400) < 1 / (1 + np.exp(-(0.3 * seed - 0.4 + 1.2 * np.tanh((ours - theirs) / 140))))
    annotations = pandas.DataFrame(
        {
            "instruction": [f"prompt {n}" for n in range(400)],
            "output_1": ["x" * int(length) for length in theirs],
            "output_2": ["x" * int(length) for length in ours],
            "generator_1": "teacher",
            "generator_2": "student",
            "annotator": "judge",
            "preference": 1.0 + wins,
        }
    )
    found = get_length_controlled_winrate(annotations, glm_name="length_controlled_minimal", save_weights_dir=None)
    mine = length_controlled(wins.astype(float), ours.astype(float), theirs.astype(float))
    assert mine is not None and mine.value == pytest.approx(found["length_controlled_winrate"], abs=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_for_equal_lengths_of_grouped_prompts_is_statsmodels(seed: int) -> None:
    """A binomial GLM with errors clustered by group, at a correction of G / (G - 1)."""
    rng, groups, size = np.random.default_rng(seed), 25, 6
    hard, lengths = np.repeat(rng.normal(0, 1.2, groups), size), rng.normal(100, 30, (2, groups * size))
    wins = np.where(rng.random(len(hard)) < 0.2, 0.5, rng.random(len(hard)) < 1 / (1 + np.exp(-hard)))
    gap = lengths[0] - lengths[1]
    design = np.stack([np.ones(len(gap)), np.tanh(gap / gap.std(ddof=1))], axis=1)
    names = np.arange(len(gap)) // size
    model = statsmodels.api.GLM(wins, design, family=statsmodels.api.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": names, "use_correction": False})
    half = 1.959963984540054 * fitted.bse[0] * np.sqrt(groups / (groups - 1))
    theirs = [100 / (1 + np.exp(-(fitted.params[0] + side * half))) for side in (0, -1, 1)]
    mine = length_controlled(wins, *lengths, [str(name) for name in names])
    assert mine is not None and (mine.value, mine.low, mine.high) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_corrections_by_labels_are_those_of_judgy_and_ppi_py(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = rng.random(500) < 0.6
    judge = np.where(people, rng.random(500) < 0.9, rng.random(500) >= 0.7)
    known = np.arange(500) < 150
    ours = corrected_share(people[known], judge[known], judge[~known])
    np.random.seed(seed)  # judgy draws from it
    value, low, high = estimate_success_rate(people[known], judge[known], judge[~known], bootstrap_iterations=4000)
    assert ours is not None and ours.share.low is not None and ours.share.high is not None
    assert ours.share.value == pytest.approx(100 * value)
    assert ours.share.low <= 100 * low + 5 and ours.share.high >= 100 * high - 5
    mean, variance = prediction_powered(np.where(known, people, np.nan), judge.astype(float))
    half = 1.959963984540054 * np.sqrt(variance)
    theirs = ppi_mean_ci(people[known].astype(float), judge[known].astype(float), judge[~known].astype(float), alpha=0.05)
    assert (mean - half, mean + half) == pytest.approx((theirs[0].item(), theirs[1].item()), abs=1e-6)
