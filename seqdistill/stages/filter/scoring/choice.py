"""The choice: scores rows, keeps the best of each prompt or of all, and names the baselines to compare with.

Brings together the scores (`scores`, `verify`, `judge`, `reward`) and the rule (`selection`). Reads rows one prompt at a time.
"""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.engines.models import identity
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.personal_data import hidden, mask
from seqdistill.progress import Progress
from seqdistill.recipe.tables import FilterConfig, ModelConfig, Recipe, ScoreConfig
from seqdistill.records import Sample, fingerprint
from seqdistill.runs import Run
from seqdistill.stages.filter.checks.words import Hashes, Ints
from seqdistill.stages.filter.scoring.answers import extractor
from seqdistill.stages.filter.scoring.judge import judge, judge_settings
from seqdistill.stages.filter.scoring.reward import RewardModel
from seqdistill.stages.filter.scoring.scores import (
    by_consensus,
    by_faithfulness,
    by_logprob,
    by_reference,
    by_vote,
    teacher_means,
)
from seqdistill.stages.filter.scoring.selection import BASELINES, Rejected, baseline, most_kept, select
from seqdistill.stages.filter.scoring.verify import Check, verifier
from seqdistill.tasks.answer_form import AnswerForm

REWARDED_AT_ONCE = 1024
WITHOUT_A_FULL_SCORE = ("reference", "consensus", "logprob", "judge", "reward")  # of these 1 is not the best
ALL_APART = 0.9  # of the prompts with several samples: when in more of them no two agree, a vote decides nothing

Read = Callable[[int], Sample]


@dataclass(frozen=True)
class Scored:
    """The score of each row, and what scoring them cost."""

    by_row: dict[int, float | None]
    summary: dict[str, Any]  # for the report

    def best_first(self, order: Ints) -> Ints:
        """The rows of `order` by their scores, the best first and those without one last; equal ones stay in their order."""
        scores = [self.by_row.get(row) for row in order.tolist()]
        merit = np.array([-np.inf if score is None else score for score in scores])
        return order[np.argsort(-merit, kind="stable")]


@dataclass(frozen=True)
class Choice:
    """What was chosen among some rows."""

    rejected: dict[int, tuple[Rejected, int | None]]  # by row: why it is rejected, and the best row that is kept
    summary: dict[str, Any]  # for the report
    warnings: list[str] = field(default_factory=list)  # about the scores as a whole


def choice_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides the scores besides [filter] itself, for the stage's fingerprint. Raises UsageError for bad settings."""
    by, select = recipe.filter.score.by, recipe.filter.select
    if select.keep == "threshold" and select.min_score is None and by in WITHOUT_A_FULL_SCORE:
        raise UsageError(
            f"filter.select.keep = 'threshold': there is no lowest score to keep, and none that suits every {by} score",
            "set filter.select.min_score (--select-min-score)",
        )
    match by:
        case "judge":
            return judge_settings(recipe.judge)
        case "reward":
            return {"filter.score.reward_model": identity(_reward_model(recipe.filter.score))}
        case "vote" if recipe.filter.score.extract:
            extractor(recipe.filter.score.extract)
        case "verify":
            with verifier(recipe.filter.verify, recipe.filter.score.extract):
                pass  # opened to be checked
    return {}


def choice_inputs(config: FilterConfig) -> dict[str, Path]:
    """The files that decide the scores: those that a check's command names."""
    used = config.verify.command if (config.score.by, config.verify.by) == ("verify", "command") else []
    return {f"verify.command {number}": Path(part) for number, part in enumerate(used, 1) if Path(part).is_file()}


@dataclass(frozen=True)
class _Samples:
    """Rows as samples, read one at a time whenever they are iterated."""

    read: Callable[[int], Sample]
    rows: list[int]

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, self.rows)


class Chooser:
    """Scores and chooses among a run's rows; `prompts` and `held_out` are by row."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        form: AnswerForm,
        prompts: Hashes,
        held_out: NDArray[np.bool_],
        read: Read,
        progress: Progress,
    ) -> None:
        """Does nothing yet."""
        self._run, self._recipe, self._config, self._form = run, recipe, recipe.filter, form
        self._prompts, self._held_out, self._read, self._progress = prompts, held_out, read, progress

    def choose(self, rows: Ints, scored: Scored) -> Choice:
        """Chooses among `rows`, all of them scored."""
        config, summary = self._config, dict(scored.summary)
        scores = {row: scored.by_row[row] for row in np.sort(rows).tolist()}
        selecting = replace(config.select, min_score=lowest_score(config))
        kind = config.score.metric if config.score.by == "reference" else config.score.by
        choice = Choice({}, summary)
        for group in self._chosen_from(rows):
            samples = {row: self._read(row).id for row in group}
            by_id = {sample: row for row, sample in samples.items()}
            for row, rejection in zip(group, select(list(by_id), [scores[row] for row in group], kind, selecting), strict=True):
                if rejection:
                    choice.rejected[row] = rejection, by_id[rejection.kept_by] if rejection.kept_by else None
        summary |= _summary(kind, scores, choice.rejected)
        summary |= self._prompts_summary(rows, choice.rejected)
        choice.warnings.extend(self._warnings(rows, scores, summary))
        return choice

    def without_effect(self, rows: Ints) -> list[str]:
        """The warning that scores of these rows will reject none, where no prompt has more of them than stay; else nothing."""
        config = self._config
        if config.score.by == "none" or config.select.keep == "all" or lowest_score(config) is not None:
            return []
        groups = list(self._chosen_from(rows))
        if not groups or any(most_kept(len(group), config.select) < len(group) for group in groups):
            return []
        most = max(map(len, groups))
        return [
            f"the scores by {config.score.by} reject nothing: no prompt has more than {most} "
            f"sample{'s'[: most > 1]}, and filter.select.keep = {config.select.keep!r} keeps {'them' if most > 1 else 'it'}; "
            "set filter.select.min_score (--select-min-score), choose among all (--select-among all --select-keep share), "
            "or generate more samples (--samples)"
        ]

    def _chosen_from(self, rows: Ints) -> Iterator[list[int]]:
        """The rows that are chosen from together: those of each prompt, or all."""
        return self._groups(rows) if self._config.select.among == "prompt" else iter([rows.tolist()])

    def baselines(self, rows: Ints, rejected: Container[int]) -> dict[str, set[int]]:
        """By name: of the `rows` that were chosen from, as many as are not rejected, of each prompt and side of the split."""
        config = self._config
        found: dict[str, set[int]] = {name: set() for name in BASELINES if config.baselines and config.score.by != "none"}
        for group in self._chosen_from(rows) if found else ():
            for side in (False, True):
                mine = {self._read(row).id: row for row in group if self._held_out[row] == side}
                size = sum(row not in rejected for row in mine.values())
                lengths = [len(self._read(row).text) for row in mine.values()]
                for name, chosen in found.items():
                    chosen |= {mine[i] for i in baseline(name, list(mine), lengths, size, config.seed)}
        return found

    def _prompts_summary(self, rows: Ints, rejected: dict[int, Any]) -> dict[str, int]:
        """How many prompts were chosen from, and of how many of them a row stays."""
        kept = [row for row in rows.tolist() if row not in rejected]
        return {"prompts": len(np.unique(self._prompts[rows])), "prompts_kept": len(np.unique(self._prompts[kept]))}

    def _warnings(self, rows: Ints, scores: dict[int, float | None], summary: dict[str, Any]) -> Iterator[str]:
        """Warnings about scores that decide little."""
        config, unscored = self._config, summary["rows"] - summary["scored"]
        if unscored:
            first = next(row for row, score in scores.items() if score is None)
            yield (
                f"{summary['score']} could not score {unscored:,} of {summary['rows']:,} rows; the first is "
                f"{self._read(first).id}: {_why_unscored(config, self._read(first))}"
            )
        if unreadable := summary.get("judge", {}).get("unreadable"):
            cut = summary["judge"].get("cut_off")
            yield (
                f"{unreadable:,} of the judge's replies have no score; the first is {summary['judge']['first_unreadable']!r}"
                + (f"; {cut:,} were cut off: raise judge.max_tokens (--judge-max-tokens)" if cut else "")
            )
        if config.score.by == "vote" and len(groups := [group for group in self._groups(rows) if len(group) > 1]):
            apart = sum(all(scores[row] is None or scores[row] * len(group) <= 1 for row in group) for group in groups)  # type: ignore[operator]
            if apart > ALL_APART * len(groups):
                extract = self._extract()
                yield (
                    f"vote: in {apart:,} of {len(groups):,} prompts no two samples give the same answer (as {extract!r}), so "
                    "all score alike and which is kept says nothing; name the part that is the answer with --score-extract"
                )

    def _extract(self) -> str:
        """The way to find an answer: the configured one, or else the default of the answers' form."""
        return self._config.score.extract or ("json:" if self._form.schema else "text")

    def _groups(self, rows: Ints) -> Iterator[list[int]]:
        """The rows of one prompt after the other."""
        ordered = rows[np.lexsort((rows, self._prompts[rows]))]
        starts = np.flatnonzero(np.diff(self._prompts[ordered])) + 1
        return (group.tolist() for group in np.split(ordered, starts) if len(group))

    def score(self, rows: Ints) -> Scored:
        """The score of each row; nothing is scored where `score.by` is none. In a vote, all of `rows` vote.

        A judge and a reward model score one of several rows that are equal to the byte, and the others with it.
        Raises UsageError for bad settings and Incomplete when a judge's answers are missing.
        """
        match self._config.score.by:
            case "none":
                return Scored({}, {})
            case "judge" | "reward":
                firsts = self._first_of_equal(np.sort(rows).tolist())
                distinct = sorted(set(firsts.values()))
                scored = self._judged(distinct) if self._config.score.by == "judge" else Scored(self._rewards(distinct), {})
                return Scored({row: scored.by_row[first] for row, first in firsts.items()}, scored.summary)
        scores: dict[int, float | None] = {}
        self._progress.start("scoring", len(rows), "rows")
        with self._score() as score:
            for group in self._groups(rows):
                scores |= zip(group, score([self._read(row) for row in group]), strict=True)
                self._progress.advance(len(group))
        self._progress.end()
        return Scored(scores, {})

    def _first_of_equal(self, rows: list[int]) -> dict[int, int]:
        """For each row the first of those with the same prompt, completion and reference, itself or an earlier one."""
        firsts: dict[str, int] = {}
        samples = ((row, self._read(row)) for row in rows)
        return {row: firsts.setdefault(fingerprint([one.prompt, one.completion, one.reference]), row) for row, one in samples}

    def _judged(self, rows: list[int]) -> Scored:
        personal = self._config.personal_data

        def shown(row: int) -> Sample:  # what is masked in the training data leaves for no endpoint either
            sample = self._read(row)
            return mask(sample, personal.phone_regions)[0] if personal.action == "mask" else sample

        with Journal(self._run.file("filter", "journal.jsonl")) as journal:
            judged = judge(self._run, self._recipe, journal, _Samples(shown, rows), len(rows), self._progress)
        cost = {name: value for name, value in asdict(judged).items() if name != "scores"}
        return Scored({row: judged.scores[self._read(row).id] for row in rows}, {"judge": cost})

    def _rewards(self, rows: list[int]) -> dict[int, float | None]:
        scores: dict[int, float | None] = {}
        reward = RewardModel(str(_reward_model(self._config.score).model))
        self._progress.start("scoring", len(rows), "rows")
        for part in (rows[start : start + REWARDED_AT_ONCE] for start in range(0, len(rows), REWARDED_AT_ONCE)):
            scores |= zip(part, reward.scores([self._read(row) for row in part]), strict=True)
            self._progress.advance(len(part))
        self._progress.end()
        return scores

    @contextmanager
    def _score(self) -> Iterator[Check]:
        """The function that scores the samples of one prompt."""
        config = self._config
        match config.score.by:
            case "reference":
                yield lambda samples: by_reference(samples, config.score.metric)
            case "vote":
                extract = extractor(self._extract())
                yield lambda samples: by_vote(samples, extract)
            case "consensus":
                yield by_consensus
            case "faithfulness":
                yield by_faithfulness
            case "logprob":
                means = teacher_means(self._run.file("generate", "logprobs.parquet"))
                yield lambda samples: by_logprob(samples, means)
            case _:
                with verifier(config.verify, config.score.extract) as check:
                    yield check


def lowest_score(config: FilterConfig) -> float | None:
    """The lowest score that stays: `min_score`, or else its default for this way to score and to keep."""
    if config.select.min_score is not None:
        return config.select.min_score
    return 1.0 if config.score.by == "verify" or config.select.keep == "threshold" else None


def _why_unscored(config: FilterConfig, sample: Sample) -> str:
    """Why a row has no score, in words."""
    if config.score.by in ("reference", "verify") and sample.reference is None and config.verify.by != "command":
        return "its prompt has no reference"
    if config.score.by == "verify" and config.verify.by in ("number", "json", "math"):
        wanted = {"number": "one number", "json": "JSON", "math": "a formula that can be read"}[config.verify.by]
        return f"its reference is not {wanted}: {hidden(sample.reference or '')[:60]!r}"
    return "no score for it"


def _reward_model(config: ScoreConfig) -> ModelConfig:
    if config.reward_model is None:
        raise UsageError(
            "filter.score.by = 'reward': no reward model is named", "pass --score-reward-model: a hub id or a folder"
        )
    return ModelConfig(model=config.reward_model)


def _summary(kind: str, scores: dict[int, float | None], rejected: dict[int, Any]) -> dict[str, Any]:
    """What the scores were, of all rows and of those that stay."""
    known = [(row not in rejected, score) for row, score in scores.items() if score is not None]
    kept = [score for stays, score in known if stays]
    return {
        "score": kind,
        "rows": len(scores),
        "scored": len(known),
        "kept": len(scores) - len(rejected),
        "mean": round(sum(score for _, score in known) / len(known), 6) if known else None,
        "mean_kept": round(sum(kept) / len(kept), 6) if kept else None,
    }
