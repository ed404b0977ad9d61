"""From answers to the table: every contestant's scores with intervals, the paired differences, the share of the teacher kept.

The heart of scores.json; verdict, report and terminal only show it. Prompts no model, so `verify` computes it again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqdistill.metrics import Measure
from seqdistill.metrics.text import corpus_chrf
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.deferral import DeferralTarget
from seqdistill.stages.evaluate.statistics.intervals import (
    ENOUGH,
    Array,
    Interval,
    Resampled,
    column,
    difference,
    gap_closed,
    ratio,
    resample,
    rounded,
    row_of,
    shared_groups,
)
from seqdistill.stages.evaluate.statistics.paired import (
    ALPHA,
    BETTER,
    EQUIVALENT,
    INCONCLUSIVE,
    NON_INFERIOR,
    PairedShares,
    holm,
    outcome,
    share_of,
)


def comparator_of(measure: str) -> str:
    """The usual comparator: the ceiling for likeness to the teacher, the teacher where a reference decides."""
    return "ceiling" if measure.endswith("_teacher") else "teacher"


@dataclass(frozen=True)
class Settings:
    """How the table is made."""

    roles: Sequence[str]  # the contestants, in the order of the table
    measures: Sequence[Measure]
    primary: str  # the measure that decides
    margin: float  # points
    resamples: int
    seed: int
    promise: DeferralTarget | None = None  # of a fallback
    against: str | None = None  # the comparator, where it is not the usual one


def tabulate(answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    """Scores, comparisons and shares kept over all prompts and for each slice. Only prompts that every model answered.

    Values are percent but for length_ratio (characters of all answers over the teacher's). Keys: n, groups (None where no two
    prompts share one), models, comparisons, kept, gap_closed, judged, warning, slices.
    """
    scored = [answer for answer in answers if answer.scores is not None]
    slices = Counter(answer.prompt.slice for answer in scored if answer.model == "student")
    groups = groups_of([answer for answer in scored if answer.model == "student"])
    document = {"groups": len(set(groups)) if groups else None, **_scores_of_part(scored, settings)}
    by_role = {role: [answer for answer in scored if answer.model == role] for role in settings.roles}
    for against in ("teacher", "reference"):
        for role in settings.roles:
            corpus = _corpus(by_role[role], by_role.get("teacher", []), against)
            document["models"][role][f"chrf_{against}_corpus"] = corpus
    document["slices"] = []
    if len(slices) > 1 or None not in slices:
        for name in sorted(slices, key=lambda s: (s is None, s)):
            part = _scores_of_part([answer for answer in scored if answer.prompt.slice == name], settings)
            document["slices"].append({"slice": name, **part})
        _adjust(document["slices"], settings.margin)
    return document


def _scores_of_part(answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    by_role = {role: [answer for answer in answers if answer.model == role] for role in settings.roles}
    n = len(by_role["student"])
    models: dict[str, dict[str, Any]] = {role: {} for role in settings.roles}
    part: dict[str, Any] = {"n": n, "models": models, "comparisons": [], "kept": [], "gap_closed": [], "judged": None}
    part["warning"] = warning(n, groups_of(by_role["student"]))
    for measure in settings.measures:
        for role in settings.roles:
            models[role][measure.name] = None
    for columns in _with_replicates(
        [found for measure in settings.measures if (found := _Columns.of(by_role, measure, settings.against))], settings
    ):
        measure, name = columns.measure, columns.measure.name
        for role in columns.roles:
            if not (role == "teacher" and measure.against == "teacher"):  # 100 by definition: the measure itself
                models[role][name] = cell_of(columns.mean(role), columns.n)
        for other in columns.others():
            part["comparisons"].append({"metric": name, "model": "student", "other": other, **columns.compared(other)})
        comparator = columns.comparator()
        if measure.against and comparator:
            part["kept"].append({"metric": name, "of": comparator, **cell_of(columns.kept(comparator), columns.n)})
            if "base" in columns.roles:
                part["gap_closed"].append({"metric": name, "of": comparator, **cell_of(columns.closed(comparator), columns.n)})
        if name == settings.primary and comparator:
            part["judged"] = {
                "metric": name,
                "other": comparator,
                "n": columns.n,
                **columns.judged(comparator, settings.margin),
            }
    for role, length in _lengths(by_role, settings).items():
        models[role]["length_ratio"] = length
    return part


@dataclass(frozen=True)
class _Columns:
    """One measure's scores: a row for each prompt to which it applies, a column for each contestant to which it applies."""

    measure: Measure
    roles: list[str]
    scores: Array  # (n, K)
    prompts: tuple[str, ...]  # (n,) ids
    groups: list[str] | None
    against: str | None = None
    replicates: Resampled | None = None

    @property
    def drawn(self) -> Resampled:
        assert self.replicates is not None
        return self.replicates

    @classmethod
    def of(cls, by_role: Mapping[str, list[Answer]], measure: Measure, against: str | None = None) -> "_Columns | None":
        """None where the measure applies to no prompt, or not to the student."""

        def score(answer: Answer) -> float | None:
            return (answer.scores or {}).get(measure.name)

        roles = [role for role in by_role if any(score(answer) is not None for answer in by_role[role])]
        if "student" not in roles:
            return None
        answered = list(zip(*(by_role[role] for role in roles), strict=True))
        rows = [row for row in answered if all(score(answer) is not None for answer in row)]
        if not rows:
            return None
        scores = np.array([[score(answer) for answer in row] for row in rows], dtype=np.float64)
        first = [row[0] for row in rows]
        return cls(measure, roles, scores, tuple(answer.prompt.id for answer in first), groups_of(first), against)

    @property
    def n(self) -> int:
        return len(self.scores)

    def comparator(self) -> str | None:
        """The contestant that the student is compared with, or None.

        Without a ceiling a share is compared with the teacher's own answers; a degree of likeness cannot be: there the
        teacher has 100 by definition.
        """
        comparator = self.against or comparator_of(self.measure.name)
        if comparator == "ceiling" and comparator not in self.roles and self.measure.metric.share:
            comparator = "teacher"
        return comparator if comparator in self.roles else None

    def others(self) -> list[str]:
        """The contestants that the student is compared with, its comparator among them."""
        left_out = {"student", "ceiling" if self.measure.against != "teacher" else "teacher"} - {self.comparator()}
        return [role for role in self.roles if role not in left_out]

    def mean(self, role: str) -> Interval | None:
        scores = self._column(role)
        if not self.measure.metric.share:
            return self.drawn.interval(column(self.roles.index(role)))
        return share_of(scores > 50, self.groups)

    def kept(self, comparator: str) -> Interval | None:
        """The student over `comparator`, in percent; of degrees without an interval where the two hardly ever differ."""
        if self.measure.metric.share:
            return self._pair(comparator).ratio()
        found = self.drawn.interval(ratio(*self._indices(comparator), 100.0))
        if found is not None and self.drawn.hardly_varies(difference(*self._indices(comparator))):
            return Interval(found.value, None, None)
        return found

    def closed(self, comparator: str) -> Interval | None:
        """How much of the gap from base to `comparator` the student has closed, in percent.

        Without an interval where there may be no gap, for it has no bounds there (Fieller 1954), and where student and
        comparator hardly ever differ.
        """
        student, base, top = (self.roles.index(role) for role in ("student", "base", comparator))
        found, gap = self.drawn.interval(gap_closed(student, base, top)), self.drawn.interval(difference(top, base))
        if found is None or (gap and gap.sign and not self.drawn.hardly_varies(difference(student, top))):
            return found
        return Interval(found.value, None, None)

    def compared(self, other: str) -> dict[str, Any]:
        """The student less another, with the two-sided p of no difference; for shares also the discordant prompts."""
        gap, p, more = self._gap(other), None, {}
        if self.measure.metric.share:
            pair = self._pair(other)
            p, more = pair.p(), {"only_student": pair.only_first, "only_other": pair.only_second}
        elif (below := self.drawn.below(difference(*self._indices(other)), 0.0)) is not None:
            p = min(1.0, 2 * min(below, 1 - below))
        sign = gap.sign if gap else 0
        verdict = {1: "higher", -1: "lower", 0: "not shown"}[sign]
        return {**row_of(gap), "p": rounded(p), **more, "verdict": verdict}

    def judged(self, comparator: str, margin: float) -> dict[str, Any]:
        """The decision at a margin, and the prompts still needed for one; `p` is one-sided, of "worse by the margin"."""
        drawn = None if self.measure.metric.share else self.drawn
        found = outcome(
            self._column("student"), self._column(comparator), margin, self.groups, drawn, self._indices(comparator)
        )
        return {"decision": found.decision, "needed": found.needed, **row_of(found.gap), "p": rounded(found.p)}

    def _gap(self, other: str) -> Interval | None:
        if self.measure.metric.share:
            return self._pair(other).difference()
        return self.drawn.interval(difference(*self._indices(other)))

    def _pair(self, other: str) -> PairedShares:
        return PairedShares.of(self._column("student") > 50, self._column(other) > 50, self.groups)

    def _indices(self, other: str) -> tuple[int, int]:
        return self.roles.index("student"), self.roles.index(other)

    def _column(self, role: str) -> Array:
        return self.scores[:, self.roles.index(role)]


def _with_replicates(found: Sequence[_Columns], settings: Settings) -> list[_Columns]:
    """The columns with their bootstrap replicates: measures of the same prompts are drawn together, once."""
    together: dict[tuple[str, ...], list[_Columns]] = {}
    for columns in found:
        together.setdefault(columns.prompts, []).append(columns)
    drawn: dict[str, Resampled] = {}
    for alike in together.values():
        scores = np.concatenate([columns.scores for columns in alike], axis=1)
        whole = resample(scores, settings.resamples, settings.seed, alike[0].groups)
        end = 0
        for columns in alike:
            start, end = end, end + len(columns.roles)
            drawn[columns.measure.name] = whole.of_columns(start, end)
    return [replace(columns, replicates=drawn[columns.measure.name]) for columns in found]


def groups_of(answers: Sequence[Answer]) -> list[str] | None:
    """The group of each answer's prompt, a prompt without one being its own; None where no two prompts share a group."""
    return shared_groups((answer.prompt.id, answer.group) for answer in answers)


def _adjust(parts: list[dict[str, Any]], margin: float) -> None:
    """Holm's correction over slices: of each comparison's p, and of the decisions; what it does not bear is not claimed.

    INFERIOR stays: it is a warning, and is not to be missed.
    """
    pairs = dict.fromkeys((cell["metric"], cell["other"]) for part in parts for cell in part["comparisons"])
    for pair in pairs:
        cells = [cell for part in parts for cell in part["comparisons"] if (cell["metric"], cell["other"]) == pair]
        for cell, p in zip(cells, holm([cell["p"] for cell in cells]), strict=True):
            cell["p"] = rounded(p)
            if p is not None and p > 2 * ALPHA:
                cell["verdict"] = "not shown"
    for part in parts:
        _not_better(part, margin)
    judged = [part["judged"] for part in parts if part["judged"]]
    for one, p in zip(judged, holm([one["p"] for one in judged]), strict=True):
        one["p"] = rounded(p)
        if p is not None and p > ALPHA and one["decision"] in (NON_INFERIOR, EQUIVALENT, BETTER):
            one |= {"decision": INCONCLUSIVE, "needed": None}


def _not_better(part: dict[str, Any], margin: float) -> None:
    """A slice is BETTER only where its adjusted p shows a difference; else it is what the interval says of the margin."""
    judged = part["judged"]
    if judged is None or judged["decision"] != BETTER:
        return
    pair = judged["metric"], judged["other"]
    if next(cell for cell in part["comparisons"] if (cell["metric"], cell["other"]) == pair)["verdict"] != "higher":
        judged["decision"] = EQUIVALENT if judged["high"] < margin else NON_INFERIOR


def warning(n: int, groups: Sequence[str] | None) -> str | None:
    """What to say of intervals from few prompts, or few groups of them; None where there are enough."""
    many, what = (n, f"{n} prompts") if groups is None else (len(set(groups)), f"{n} prompts in {len(set(groups))} groups")
    return f"{what}: below {ENOUGH} an interval is a rough guide" if many < ENOUGH else None


def _lengths(by_role: Mapping[str, list[Answer]], settings: Settings) -> dict[str, dict[str, Any] | None]:
    roles = [role for role in settings.roles if by_role[role]]
    empty: dict[str, dict[str, Any] | None] = dict.fromkeys(settings.roles)
    if "teacher" not in roles:
        return empty
    lengths = np.array([[float(len(answer.text)) for answer in by_role[role]] for role in roles]).T
    if not len(lengths):
        return empty
    drawn = resample(lengths, settings.resamples, settings.seed, groups_of(by_role["teacher"]))
    teacher = roles.index("teacher")
    return empty | {
        role: cell_of(drawn.interval(ratio(k, teacher)), len(lengths)) for k, role in enumerate(roles) if k != teacher
    }


def _corpus(answers: list[Answer], teacher: list[Answer], against: str) -> float | None:
    if against == "teacher":
        pairs = [(a.text, t.text) for a, t in zip(answers, teacher, strict=False) if a is not t]
    else:
        pairs = [(a.text, a.prompt.reference) for a in answers if a.prompt.reference is not None]
    return round(corpus_chrf(*zip(*pairs, strict=True)), 6) if pairs else None


def cell_of(interval: Interval | None, n: int) -> dict[str, Any]:
    """A number with its interval as scores.json holds it."""
    return {**row_of(interval), "n": n}


def methods(measures: Sequence[Measure], chrf: str) -> dict[str, str]:
    """How the numbers were made, in words."""
    metrics = {measure.metric.name: measure.metric.about for measure in measures}
    return {
        **metrics,
        "chrf": f"{metrics.get('chrf', '')} ({chrf})",
        "length_ratio": "characters of all answers over those of the teacher's",
        "intervals": "95%, over prompts, or over groups where prompts have one: BCa bootstrap, expanded for few prompts, "
        "for means, their paired differences and ratios; for shares Wilson, Tango (paired differences) and MOVER (ratios); "
        "Tango also for means and differences that fewer than 10 prompts move; no interval of a ratio then",
        "p": "two-sided, of no difference: exact McNemar for shares, the BCa bootstrap inverted for means; Holm over slices, "
        "but for INFERIOR, which is a warning",
        "decision": f"by the 95% interval of the paired difference at the margin, so with a one-sided alpha of {ALPHA:.3f}; "
        "needed: further prompts for a power of .8, the difference being as seen",
        "kept": "student over ceiling where the teacher's answers are the measure, over teacher where references are",
        "gap_closed": "(student - base) / (ceiling or teacher - base)",
        "ceiling": "the teacher prompted again: with another seed, and in this process in batches of another size",
        "copy": "the first words of the student's prompt, cut to the teacher's mean length",
        "nearest": "the training answer whose prompt is nearest by TF-IDF",
        "deferral": "the least confident answers are the teacher's; a threshold by fixed-sequence testing of Clopper-Pearson "
        "bounds on one half of the prompts, one prompt of a group, reported on the other",
        "majority": "the most frequent class of the training answers",
    }
