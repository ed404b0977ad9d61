"""From answers to the table: every model's scores with intervals, the paired differences, the share of the teacher kept.

The heart of scores.json; the report and the terminal only show it. Asks no model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from seqdistill.evaluate.answers import Answer
from seqdistill.evaluate.intervals import Interval, PairedShares, Resampled, column, difference, ratio, resample, share
from seqdistill.evaluate.metrics import BEHAVIOUR, METRICS, SHARES, chrf_signature, corpus_chrf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ASKED = ("base", "student", "teacher", "ceiling")  # what is asked; the copy baseline is free
MODELS = (*ASKED, "copy")


def upper(metric: str) -> str:
    """Whom the student is measured against: the teacher's own second try, or the teacher where a reference decides."""
    return "ceiling" if metric.endswith("_teacher") else "teacher"


def tabulate(answers: Sequence[Answer], resamples: int, seed: int) -> dict[str, Any]:
    """Scores, comparisons and shares kept over all prompts and for each slice. Only prompts that every model answered.

    Values are percent but for length_ratio (characters of all answers over the teacher's). Keys: n, models, comparisons,
    kept, slices.
    """
    scored = [answer for answer in answers if answer.scores is not None]
    slices = Counter(answer.prompt.slice for answer in scored if answer.model == "student")
    document = _part(scored, resamples, seed)
    document["slices"] = []
    if len(slices) > 1 or None not in slices:
        for name in sorted(slices, key=lambda s: (s is None, s)):
            part = _part([answer for answer in scored if answer.prompt.slice == name], resamples, seed)
            document["slices"].append({"slice": name, **part})
    return document


def _part(answers: Sequence[Answer], resamples: int, seed: int) -> dict[str, Any]:
    by_model = {model: [answer for answer in answers if answer.model == model] for model in MODELS}
    models: dict[str, dict[str, Any]] = {model: {} for model in MODELS}
    comparisons: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for metric in (metric for metric in METRICS if metric in (answers[0].scores or {})):
        asked = [model for model in MODELS if model != "copy" or metric != "stopped"]
        scores = _matrix(by_model, asked, metric)
        for model in MODELS:
            models[model][metric] = None
        if not len(scores):
            continue
        drawn = resample(scores, resamples, seed)
        at = {model: k for k, model in enumerate(asked)}
        for model in asked:
            if model == "teacher" and metric.endswith("_teacher"):
                continue  # 100 by definition: the measure itself
            models[model][metric] = _cell(_mean(metric, drawn, scores[:, at[model]], at[model]), len(scores))
        for other in (other for other in ("base", "copy", upper(metric)) if other in at):
            gap, part = _against(metric, drawn, scores, at["student"], at[other])
            comparisons.append({"metric": metric, "model": "student", "other": other, **_compared(gap)})
        if metric not in BEHAVIOUR:
            kept.append({"metric": metric, "of": upper(metric), **_cell(part, len(scores))})
    for model, length in _lengths(by_model, resamples, seed).items():
        models[model]["length_ratio"] = length
    for metric in ("chrf_teacher", "chrf_reference"):
        for model in MODELS:
            models[model][f"{metric}_corpus"] = _corpus(by_model[model], by_model["teacher"], metric)
    return {"n": len(by_model["student"]), "models": models, "comparisons": comparisons, "kept": kept}


def _matrix(by_model: dict[str, list[Answer]], models: list[str], metric: str) -> "NDArray[np.float64]":
    """(n, K): a metric's scores, a row for each prompt to which it applies, a column for each model."""
    import numpy as np

    columns = [[(answer.scores or {})[metric] for answer in by_model[model]] for model in models]
    rows = [row for row in zip(*columns, strict=True) if None not in row]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(models))


def _mean(metric: str, drawn: Resampled, scores: "NDArray[np.float64]", k: int) -> Interval | None:
    return share(int((scores > 50).sum()), len(scores)) if metric in SHARES else drawn.interval(column(k))


def _against(
    metric: str, drawn: Resampled, scores: "NDArray[np.float64]", k: int, other: int
) -> tuple[Interval | None, Interval | None]:
    """Column k less another, and over it in percent."""
    if metric in SHARES:
        pair = PairedShares.of(scores[:, k] > 50, scores[:, other] > 50)
        return pair.difference(), pair.ratio()
    return drawn.interval(difference(k, other)), drawn.interval(ratio(k, other, 100.0))


def _lengths(by_model: dict[str, list[Answer]], resamples: int, seed: int) -> dict[str, dict[str, Any] | None]:
    import numpy as np

    texts = [[float(len(answer.completion.content)) for answer in by_model[model]] for model in MODELS]
    lengths = np.array(texts).T
    if not len(lengths):
        return dict.fromkeys(MODELS)
    drawn, teacher = resample(lengths, resamples, seed), MODELS.index("teacher")
    cells: dict[str, dict[str, Any] | None] = {}
    for k, model in enumerate(MODELS):
        cells[model] = None if k == teacher else _cell(drawn.interval(ratio(k, teacher)), len(lengths))
    return cells


def _corpus(answers: list[Answer], teacher: list[Answer], metric: str) -> float | None:
    if metric == "chrf_teacher":
        pairs = [(a.completion.content, t.completion.content) for a, t in zip(answers, teacher, strict=True) if a is not t]
    else:
        pairs = [(a.completion.content, a.prompt.reference) for a in answers if a.prompt.reference is not None]
    return round(corpus_chrf(*zip(*pairs, strict=True)), 6) if pairs else None


def _cell(interval: Interval | None, n: int) -> dict[str, Any]:
    return {**_rounded(interval), "n": n}


def _compared(gap: Interval | None) -> dict[str, Any]:
    names = {1: "higher", -1: "lower", 0: "not shown"}
    return {**_rounded(gap), "verdict": names[gap.sign if gap else 0]}


def _rounded(interval: Interval | None) -> dict[str, float | None]:
    """Six decimals: what sums of floats in another order on another machine cannot move."""
    values = asdict(interval) if interval else dict.fromkeys(("value", "low", "high"))
    return {name: None if value is None else round(value, 6) + 0.0 for name, value in values.items()}


def methods(*, with_form: bool) -> dict[str, str]:
    """How the numbers were made, in words."""
    valid = "percent of answers that have the task's form; base and student are asked without naming it"
    return {
        "chrf": f"mean of sacrebleu's sentence chrF2 over prompts ({chrf_signature()}); *_corpus: the corpus score",
        "exact": "percent of answers that are the same but for white space",
        "stopped": "percent of answers that ended by the end-of-turn token, not at max_tokens",
        **({"valid": valid} if with_form else {}),
        "length_ratio": "characters of all answers over those of the teacher's",
        "intervals": "95%, over prompts: BCa bootstrap for means, their paired differences and ratios; for shares Wilson, "
        "Newcombe (paired differences) and MOVER (ratios)",
        "kept": "student over ceiling where the teacher's answers are the measure, over teacher where references are",
        "ceiling": "the teacher asked again: with another seed, and in this process in batches of another size",
        "copy": "the first words of the student's prompt, cut to the teacher's mean length",
    }


def percent(cell: dict[str, Any] | None, sign: str = "", unit: str = "") -> str:
    """ "58.9 [55.1, 62.4]", the unit after the first number; a dash where there is nothing."""
    return _shown(cell, f"{sign}.1f", unit)


def times(cell: dict[str, Any] | None) -> str:
    """ "1.04 [0.98, 1.11]"."""
    return _shown(cell, ".2f")


def _shown(cell: dict[str, Any] | None, form: str, unit: str = "") -> str:
    if cell is None or cell["value"] is None:
        return "–"
    span = "" if cell["low"] is None else f" [{cell['low']:{form}}, {cell['high']:{form}}]"
    return f"{cell['value']:{form}}{unit}{span}"


def count(value: float | None, unit: str = "") -> str:
    """A large number as a person says it: 57.2M, 269 MB (with unit B)."""
    if value is None:
        return "–"
    for scale, letter in ((1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            number = f"{value / scale:.3g}" if value < 999.5 * scale else f"{value / scale:.0f}"
            return f"{number} {letter}{unit}" if unit else number + letter
    return f"{value:.0f} {unit}".strip()
