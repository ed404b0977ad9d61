"""A learning curve: the run's student trained on 1/8, 1/4, 1/2 and all rows, and what more rows would do at what price.

RUN/curve/NAME/ is each training's run directory; RUN/curve/scores.json and report.html hold what was found. The parts are
nested: prompts are ordered by a hash, and each part takes the first of them. `repeats` train on other eighths: how much they
differ is the noise of a training, which the test prompts cannot show.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.family.members import Member, adopt_training, check_runs_here, finish, open_member
from seqdistill.family.outlook import outlook
from seqdistill.family.parts import FEWEST_PROMPTS, FOLDER, for_part, in_order, parts_of, rows_of, write_part
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_jsonl, write_json
from seqdistill.runs import Run
from seqdistill.stages.evaluate import inputs as eval_inputs
from seqdistill.stages.evaluate.shown import percent
from seqdistill.stages.evaluate.statistics.intervals import FEWEST
from seqdistill.stages.train.early import check_settings
from seqdistill.stages.train.methods import hidden
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template


@dataclass(frozen=True)
class CurveResult:
    """What a curve found. `scores` is the content of curve/scores.json."""

    scores: dict[str, Any]
    paths: dict[str, Path]  # scores, report

    @property
    def verdict(self) -> list[str]:
        """What it says, in sentences, the headline first."""
        return list(self.scores["verdict"])

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`."""
        return ["part", "rows", "steps", self.scores["heading"], "gap to teacher"]

    @property
    def rows(self) -> list[list[str]]:
        """One row a training, ready to print."""
        return [
            [one["part"], f"{one['rows']:,}", f"{one['steps']:,}", percent(one["score"]), percent(one["error"])]
            for one in [*self.scores["points"], *self.scores["repeats"]]
        ]

    @property
    def outlook_columns(self) -> list[str]:
        """The heads of `outlook_rows`."""
        return ["with", "rows", "gap to teacher", "chance", "USD more"]

    @property
    def outlook_rows(self) -> list[list[str]]:
        """What further rows would do, ready to print."""
        return [
            [
                f"{one['times']} x",
                f"{one['rows']:,}",
                percent(one["error"]),
                f"{one['chance']:.0%}",
                "–" if one["usd"] is None else f"{one['usd']:,.2f}",
            ]
            for one in self.scores["outlook"]
        ]


def curve(run: Run, recipe: Recipe, repeats: int, progress: Progress) -> CurveResult:
    """Trains and evaluates the student on each part, in a directory of its own within the run, and fits the curve.

    What is up to date is skipped, and so is the training on all rows where the run has it. Raises UsageError, before the first
    training, for what train or eval would refuse and for a run with too few prompts.
    """
    from seqdistill.family.report import write_curve_report

    parts = parts_of(repeats)
    prompts = _check(run, recipe)
    with run.locked(FOLDER):
        members: dict[str, Member] = {}
        for number, part in enumerate(parts, 1):
            progress.note(f"curve: {part.share} of the rows, training {number} of {len(parts)}")
            if part.name == "all":
                member = open_member(run, recipe, FOLDER, part.name)
                adopt_training(member, run)
            else:
                of_part = for_part(recipe, part, members["all"], rows_of(run, part, prompts))
                member = open_member(run, of_part, FOLDER, part.name, linked=["generate"])
                write_part(run, member.run, part, prompts)
            finish(member, progress)
            members[part.name] = member
        document = outlook(run, recipe, parts, members)
        paths = {"scores": run.file(FOLDER, "scores.json"), "report": run.file(FOLDER, "report.html")}
        write_json(paths["scores"], document)
        write_curve_report(paths["report"], run, document)
    return CurveResult(document, paths)


def _check(run: Run, recipe: Recipe) -> list[str]:
    """The prompts of the training rows, in the order by hash."""
    files = [run.need("filter", f"{name}.jsonl") for name in ("train", "validation")]
    eval_inputs.check(run, recipe, Silent())
    check_runs_here(recipe)
    check_settings(recipe, run)
    if recipe.train.limit is not None:
        raise UsageError("[train] limit does not apply to a curve, which chooses the number of rows itself", "leave it out")
    if recipe.train.steps or (recipe.train.width < 1 and hidden.term_weights(recipe.train)):
        raise UsageError(
            "a curve needs one untrained student for all its parts, and this one is cut by the rows it is trained on",
            "leave out [train] steps, or with width the weights of hidden states",
        )
    template = load_template(recipe.task.template)
    tests = load_prompts(str(recipe.task.test), template, recipe.eval.limit, Silent(), recipe.task.columns)
    if len(tests) < FEWEST:
        raise UsageError(f"{len(tests)} test prompts are too few for a curve", f"at least {FEWEST} are needed")
    found = dict.fromkeys(str(row["prompt_id"]) for _, row in read_jsonl(files[0]))
    if len(found) < FEWEST_PROMPTS:
        raise UsageError(
            f"{files[0]}: rows of {len(found)} prompts are too few for a curve", f"at least {FEWEST_PROMPTS} are needed"
        )
    return in_order(found)
