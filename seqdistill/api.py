"""The library: one typed function for each command. The command line calls these and shows what they return.

    import seqdistill

    seqdistill.generate("runs/mine", "mytask/recipe.toml")
    seqdistill.filter("runs/mine")
    seqdistill.train("runs/mine")
    print(seqdistill.evaluate("runs/mine").verdict)

`run` is the run directory. `recipe` is what the command line takes with -c and as flags: a TOML file, or its tables as a
dict; None: what the run remembers. Nothing is printed: pass a `progress.Progress` to follow the work. Raises UsageError for
wrong input, mostly before any money or GPU time is spent, and SeqdistillError for what failed while running; running again
continues. Importing this is cheap: what a command needs is loaded when it is called.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from seqdistill.errors import UsageError
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.reading import as_written, check_tables, nearest
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import STAGES, Run
from seqdistill.tasks.templates import recipe_file

if TYPE_CHECKING:
    from seqdistill.doctor import Check
    from seqdistill.export.draft import Draft
    from seqdistill.export.forms import Exported
    from seqdistill.family.curve import CurveResult
    from seqdistill.family.sweep import SweepResult
    from seqdistill.init import InitResult
    from seqdistill.picking import Picked
    from seqdistill.serve.server import ServeOptions, ServeResult
    from seqdistill.stages.evaluate.compare import Comparison
    from seqdistill.stages.evaluate.drift import Drift
    from seqdistill.stages.evaluate.result import EvalResult
    from seqdistill.stages.evaluate.verification import Verification
    from seqdistill.stages.filter.explain import Explanation
    from seqdistill.stages.filter.stage import FilterResult
    from seqdistill.stages.generate.extrapolation import Estimate
    from seqdistill.stages.generate.recorded import ImportResult
    from seqdistill.stages.generate.stage import GenerateResult
    from seqdistill.stages.train.ready import Preflight
    from seqdistill.stages.train.scored_targets import TargetsResult
    from seqdistill.stages.train.stage import TrainResult
    from seqdistill.states import Status

RunPath: TypeAlias = str | PathLike[str]
RecipeLike: TypeAlias = Recipe | Mapping[str, Any] | str | PathLike[str] | None
SILENT = Silent()


@contextmanager
def _resolved(run: RunPath, recipe: RecipeLike, progress: Progress, *, keep: bool = True) -> Iterator[tuple[Run, Recipe]]:
    """The run and its recipe with every default filled in; a Recipe is taken as it is."""
    directory = Run(Path(run))
    if isinstance(recipe, Recipe):
        yield directory, recipe
        return
    tables: Mapping[str, Any] = as_written(recipe) if isinstance(recipe, Mapping) else {}
    check_tables(tables, "recipe")
    file = None if recipe is None or isinstance(recipe, Mapping) else recipe_file(Path(recipe))
    with resolved_recipe(directory.path, file, tables, progress.note, keep=keep) as resolved:
        yield directory, resolved


def _note_stale(run: Run, recipe: Recipe, stage: str, progress: Progress) -> None:
    """Says which earlier stage would do something else now: its files or settings have changed since it ran."""
    from seqdistill.states import states_before

    if stale := next((one for one in states_before(run, recipe, stage) if one.state == "stale"), None):
        progress.note(f"{stage}: {stale.stage} is stale: {stale.why[0]}; `seqdistill {stale.stage} {run.shell}` redoes it")


def _check_answers_wanted(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Raises UsageError where generate has something to request that could not be trained on as the recipe says."""
    from seqdistill.run_prompts import run_prompts
    from seqdistill.stages.generate.stage import is_up_to_date
    from seqdistill.stages.train import early

    if recipe.student.model and not is_up_to_date(run, recipe):
        early.check_answers_wanted(recipe, run_prompts(run, recipe, progress, recipe.generate.limit), progress)


def generate(
    run: RunPath, recipe: RecipeLike = None, *, checked: bool = False, progress: Progress = SILENT
) -> "GenerateResult":
    """Prompts the teacher for what the run's journal lacks and writes generate/samples.jsonl.

    Where the recipe names a student, it is first checked that the answers can be trained on; `checked`: `check_stages` did.
    What only answers show, like the teacher's reasoning, is checked on the first few.
    Raises Incomplete when requests failed or the budget is reached: what was answered is kept.
    """
    from seqdistill.stages.generate.stage import generate
    from seqdistill.stages.train.first_answers import check_of

    with _resolved(run, recipe, progress) as (directory, resolved):
        if not checked:
            _check_answers_wanted(directory, resolved, progress)
        return generate(directory, resolved, progress, check_of(resolved))


def pick(
    run: RunPath, pool: str, recipe: RecipeLike = None, *, count: int, by: str = "uncertain", progress: Progress = SILENT
) -> "Picked":
    """Chooses the next `count` prompts of a pool, where the student is unsure and what is new; the next generate prompts them.

    `by="random"` chooses the same number at random. Does not prompt the teacher.
    """
    from seqdistill.picking import pick

    with _resolved(run, recipe, progress) as (directory, resolved):
        return pick(directory, resolved, pool, count, by, progress)


def estimate(run: RunPath, recipe: RecipeLike = None, *, probe: int = 0, progress: Progress = SILENT) -> "Estimate":
    """What generate would send, and what it would cost; with `probe`, from this many real answers, which are kept."""
    from seqdistill.stages.generate.estimate import estimate
    from seqdistill.stages.train.first_answers import check_of

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        _check_answers_wanted(directory, resolved, progress)
        return estimate(directory, resolved, progress, probe, check_of(resolved))


def import_recorded(
    run: RunPath, files: Sequence[RunPath], recipe: RecipeLike = None, *, progress: Progress = SILENT
) -> "ImportResult":
    """Takes recorded completions as the teacher's, in place of generate."""
    from seqdistill.stages.generate.recorded import import_recorded

    with _resolved(run, recipe, progress) as (directory, resolved):
        return import_recorded(directory, resolved, [Path(file) for file in files], progress)


def filter(run: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "FilterResult":  # noqa: A001 - the command
    """Keeps what is worth learning: filter/train.jsonl and validation.jsonl, with reasons for the rest in rejected.jsonl."""
    from seqdistill.stages.filter.stage import filter_samples

    with _resolved(run, recipe, progress) as (directory, resolved):
        _note_stale(directory, resolved, "filter", progress)
        return filter_samples(directory, resolved, progress)


def explain(run: RunPath, sample: str, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "list[Explanation]":
    """What filter did with a row, by its id, or with each row of a prompt, by the prompt's id."""
    from seqdistill.stages.filter.explain import explain

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return explain(directory, sample, resolved.filter.personal_data.phone_regions)


def targets(
    run: RunPath, recipe: RecipeLike = None, *, top: int = 20, model: str | None = None, progress: Progress = SILENT
) -> "TargetsResult":
    """Has a local teacher score the rows of filter, for train's method `soft`; stores the `top` likeliest tokens."""
    from seqdistill.stages.train.scored_targets import score_targets

    with _resolved(run, recipe, progress) as (directory, resolved):
        return score_targets(directory, resolved, top, model, progress)


def preflight(run: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "Preflight":
    """All checks of a training, a step of it timed; trains nothing and changes nothing."""
    from seqdistill.stages.train.ready import check

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return check(directory, resolved, progress)


def train(run: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "TrainResult":
    """Trains the student on what filter kept and writes train/model."""
    from seqdistill.stages.train.stage import train

    with _resolved(run, recipe, progress) as (directory, resolved):
        _note_stale(directory, resolved, "train", progress)
        return train(directory, resolved, progress)


def evaluate(run: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "EvalResult":
    """Compares student, teacher and baselines on the test set and writes eval/scores.json and report.html."""
    from seqdistill.stages.evaluate.stage import evaluate
    from seqdistill.stages.train.checkpoints import is_unfinished

    with _resolved(run, recipe, progress) as (directory, resolved):
        _note_stale(directory, resolved, "eval", progress)
        if is_unfinished(directory):
            progress.note("eval: evaluating the previous student; the training that replaces it is not finished")
        return evaluate(directory, resolved, progress)


def sweep(
    run: RunPath,
    recipe: RecipeLike = None,
    *,
    students: Sequence[str],
    forms: Sequence[str] = (),
    progress: Progress = SILENT,
) -> "SweepResult":
    """Trains and evaluates several students on one run's answers, and finds the cheapest that passes.

    `forms` are forms of export, like gguf:q4_0, in which each student is a candidate too.

    Each student has a run directory of its own in RUN/sweep. Writes sweep/scores.json and sweep/report.html.
    """
    from seqdistill.family.sweep import sweep

    with _resolved(run, recipe, progress) as (directory, resolved):
        _note_stale(directory, resolved, "train", progress)
        return sweep(directory, resolved, students, forms, progress)


def curve(run: RunPath, recipe: RecipeLike = None, *, repeats: int = 2, progress: Progress = SILENT) -> "CurveResult":
    """Trains the student on 1/8, 1/4, 1/2 and all rows, and says what more rows would do, and at what price.

    `repeats` further trainings on other eighths measure how much a training moves by chance. Writes curve/scores.json and
    curve/report.html.
    """
    from seqdistill.family.curve import curve

    with _resolved(run, recipe, progress) as (directory, resolved):
        _note_stale(directory, resolved, "train", progress)
        return curve(directory, resolved, repeats, progress)


def compare(run: RunPath, other: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "Comparison":
    """Compares the students of two runs on the test prompts that both answered, from what their evals wrote."""
    from seqdistill.stages.evaluate.compare import compare

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return compare(directory, Run(Path(other)), resolved)


def drift(run: RunPath, log: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "Drift":
    """Whether what eval promised still holds, by a server's log of the answers that the teacher checked. Runs no model."""
    from seqdistill.stages.evaluate.drift import drift

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return drift(directory, resolved, Path(log))


def verify(run: RunPath, *, progress: Progress = SILENT) -> "Verification":
    """Checks a run's hashes, scores and verdict again, and those of a sweep or curve in it; runs no model, changes nothing."""
    from seqdistill.family.verification import verify

    return verify(Run(Path(run)), progress)


def status(run: RunPath, recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "Status":
    """The state of each stage: done, stale and by which key, running, incomplete, failed. Reads files alone."""
    from seqdistill.states import status_of

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return status_of(directory, resolved)


def results(run: RunPath) -> "EvalResult | None":
    """What the last eval found, from its files; None before one has finished."""
    from seqdistill.stages.evaluate.result import read_result

    return read_result(Run(Path(run)))


def write_results(run: RunPath, *, report: RunPath | None = None, markdown: RunPath | None = None) -> None:
    """Writes what eval found to further files: the HTML report, Markdown for a pull request.

    Raises UsageError before eval has finished.
    """
    from seqdistill.records import read_jsonl
    from seqdistill.stages.evaluate.markdown import write_markdown
    from seqdistill.stages.evaluate.report.page import write_report

    directory = Run(Path(run))
    result = results(run)
    if result is None:
        raise UsageError(f"{run}: not evaluated yet", f"run `seqdistill eval {directory.shell}` first")
    if report is not None:
        rows = (row for _, row in read_jsonl(result.paths["predictions"]))
        write_report(Path(report), directory, result.scores, rows)
    if markdown is not None:
        write_markdown(Path(markdown), result, directory.path.absolute().name)


def check_stages(run: RunPath, recipe: RecipeLike = None, *, first: str = STAGES[0], progress: Progress = SILENT) -> None:
    """Raises UsageError for what any stage from `first` on would refuse, while nothing is paid yet.

    Done only where a stage that may pay has something to do: it takes some seconds. After generate no prompts are needed: the
    run has the answers.
    """
    from seqdistill.run_prompts import run_prompts
    from seqdistill.stages.evaluate import inputs as eval_inputs
    from seqdistill.stages.filter import stage as filter_stage
    from seqdistill.stages.generate.stage import is_up_to_date
    from seqdistill.stages.train import early

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        generates, filters, trains = (STAGES.index(first) <= STAGES.index(stage) for stage in STAGES[:3])
        done = all((directory.manifest(stage) or {}).get("status") == "complete" for stage in STAGES)
        done = done and (not generates or is_up_to_date(directory, resolved))
        if done and (not filters or filter_stage.is_up_to_date(directory, resolved)):
            return
        if filters:
            filter_stage.check(directory, resolved, progress, prompts=generates)
        eval_inputs.check(directory, resolved, progress)
        if generates:
            prompts = run_prompts(directory, resolved, progress, resolved.generate.limit)
            early.check_settings(resolved, prompts=prompts, progress=progress)
        elif trains:
            early.check_settings(resolved, directory, progress=progress)


def run(
    run: RunPath,
    recipe: RecipeLike = None,
    *,
    first: str = STAGES[0],
    last: str = STAGES[-1],
    force: bool = False,
    smoke: int | None = None,
    on_result: Callable[[str, Any], None] = lambda _name, _result: None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Runs the stages from `first` to `last` and returns their results by name; skips what is up to date.

    All of them are checked before the first request. `force` redoes stages that are up to date, and pays for no answer
    again. With `smoke`, only that many prompts and test prompts and a few training steps; the result then also has a
    "forecast" of the whole run. `on_result` is called with each result as it comes.
    """
    from seqdistill.smoke import check_smoke, forecast, limited

    stages = _stages_between(first, last)
    results: dict[str, Any] = {}
    with _resolved(run, recipe, progress) as (directory, whole):
        if smoke is not None:
            check_smoke(directory, whole, smoke)
        part = whole if smoke is None else limited(whole, smoke)
        check_stages(run, part, first=first, progress=progress)
        do: dict[str, Callable[..., Any]] = {
            "generate": partial(generate, checked=True),
            "filter": filter,
            "train": train,
            "eval": evaluate,
        }
        for stage in stages:
            if force:
                mark_stale(run, stage)
            results[stage] = do[stage](run, part, progress=progress)
            if smoke is not None and not results[stage].up_to_date:
                directory.mark_smoke(stage, smoke)
            on_result(stage, results[stage])
        if smoke is not None and stages == list(STAGES):
            results["forecast"] = forecast(directory, whole, progress)
            on_result("forecast", results["forecast"])
    return results


def _stages_between(first: str, last: str) -> list[str]:
    """The stages from one to another, both included. Raises UsageError for an unknown stage and for the wrong order."""
    for flag, stage in (("--from", first), ("--until", last)):
        if stage not in STAGES:
            raise UsageError(f"{flag} {stage!r}{nearest(stage, STAGES)}", f"one of: {', '.join(STAGES)}")
    if STAGES.index(first) > STAGES.index(last):
        raise UsageError(f"--from {first} comes after --until {last}", f"the stages in their order: {', '.join(STAGES)}")
    return list(STAGES[STAGES.index(first) : STAGES.index(last) + 1])


def mark_stale(run: RunPath, stage: str) -> None:
    """Has a stage done again by its next command. Its files stay until then; what its journal has is not requested again."""
    directory = Run(Path(run))
    with directory.locked(stage):
        directory.mark_stale(stage)


def shrink(
    model: str,
    out: RunPath,
    *,
    layers: str | None = "8",
    choice: str = "influence",
    width: float = 1.0,
    vocabulary: str = "all",
    prompts: RunPath | None = None,
    texts: RunPath | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Cuts a smaller model from a model's own layers into the folder `out`; returns what is left of it.

    `layers`: how many, or which as "0,1,2,20"; None: all. `choice` is how a number of them are chosen: influence, even.
    """
    from seqdistill.stages.train.shrink import shrink_from_files

    measured, more = (None if path is None else Path(path) for path in (prompts, texts))
    return shrink_from_files(
        model, Path(out), layers, choice, measured, progress, vocabulary=vocabulary, texts=more, width=width
    )


def review(
    run: RunPath,
    *,
    port: int = 0,
    export: RunPath | None = None,
    import_: RunPath | None = None,
    reviewer: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Serves a page on which people accept, edit and reject rows, until they finish; or writes or reads their CSV.

    Returns the counts of decisions.
    """
    from seqdistill.review.page import review

    written, read = (None if path is None else Path(path) for path in (export, import_))
    return review(Run(Path(run)), port, written, read, reviewer, progress)


def serve(
    run: RunPath, recipe: RecipeLike = None, *, options: "ServeOptions | None" = None, progress: Progress = SILENT
) -> "ServeResult":
    """Serves the student at an OpenAI-compatible endpoint, with the teacher behind it, until it is interrupted."""
    from seqdistill.serve.server import ServeOptions, serve

    options = options or ServeOptions()
    first = None
    if options.decide_on and options.threshold is None and not options.record:
        from seqdistill.stages.evaluate.first_tokens import first_tokens_threshold

        first = first_tokens_threshold(Run(Path(run)), options.decide_on)
        if first is None and Run(Path(run)).file("eval", "deferral.json").exists():
            options = replace(options, decide_on=0)
    with _resolved(run, recipe, progress, keep=options.record) as (directory, resolved):
        return serve(directory, resolved, options, progress, first)


def doctor(run: RunPath = ".", recipe: RecipeLike = None, *, progress: Progress = SILENT) -> "list[Check]":
    """What this machine, the recipe's models and its endpoints can do, with a fix for what they cannot. Sends no prompt."""
    from seqdistill.doctor import examine

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return examine(resolved, directory.path)


def init(
    folder: RunPath,
    kind: str | None = None,
    recorded: Sequence[RunPath] = (),
    columns: Sequence[str] = (),
    *,
    progress: Progress = SILENT,
) -> "InitResult":
    """A folder to start from; with recorded completions, a run that has imported them too. Requests nothing.

    `columns`: the names of their columns, each as "prompt=Question".
    """
    from seqdistill.init import init

    return init(Path(folder), kind, [Path(path) for path in recorded], columns, progress)


def export(
    run: RunPath, form: str, recipe: RecipeLike = None, *, out: RunPath | None = None, progress: Progress = SILENT
) -> "Exported":
    """Writes the student in a form in which it is deployed; a .gguf is proven on the test prompts beside the student itself."""
    from seqdistill.export.forms import export

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return export(directory, resolved, form, Path(out) if out else None, progress)


def export_data(
    run: RunPath, shape: str, recipe: RecipeLike = None, *, out: RunPath | None = None, progress: Progress = SILENT
) -> dict[str, int]:
    """Writes the training data in another trainer's shape; returns the rows of each file."""
    from seqdistill.export.data import export_data

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return export_data(directory, resolved, shape, Path(out) if out else None, progress)


def draft(run: RunPath, recipe: RecipeLike = None, *, limit: int = 20, progress: Progress = SILENT) -> "Draft":
    """Measures the student as its teacher's draft model on test prompts: the same text, in fewer passes of the teacher."""
    from seqdistill.export.draft import draft

    with _resolved(run, recipe, progress, keep=False) as (directory, resolved):
        return draft(directory, resolved, limit, progress)


def check_push(repository: str) -> None:
    """Raises UsageError for what `push` would refuse at once: a bad name, no key in HF_TOKEN."""
    from seqdistill.export.hub import check_push

    check_push(repository)


def push(path: RunPath, repository: str, *, progress: Progress = SILENT) -> str:
    """Uploads a folder, or a file's folder, to the hub; returns its URL. The key comes from HF_TOKEN alone."""
    from seqdistill.export.hub import push

    return push(Path(path), repository, progress)
