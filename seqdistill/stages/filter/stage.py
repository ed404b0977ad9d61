"""Stage 2, filter: samples.jsonl -> train.jsonl, validation.jsonl, rejected.jsonl and report.json.

One pass gathers facts of fixed size, the rules decide on them in order, a second pass writes. Every rejected row keeps its
rule, its reason and the row that was kept instead; read = kept + rejected. What a row breaks by itself is
found in `scan`; `rules` has the rules that compare rows, `people` what reviewers decided.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqdistill.cards import write_dataset_card
from seqdistill.decisions import decisions_file, read_decisions
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.personal_data import hidden
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.remembered import generated_with
from seqdistill.recipe.tables import FilterConfig, Recipe, settings
from seqdistill.records import is_hub_source, text_without_system, write_json
from seqdistill.rights import stated_rights, terms_settings
from seqdistill.run_prompts import run_prompts
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.filter.agreement import agreement_report
from seqdistill.stages.filter.checks.contamination import Item, ItemIndex, items_of
from seqdistill.stages.filter.checks.words import Ints
from seqdistill.stages.filter.outputs import write, write_baselines
from seqdistill.stages.filter.people import drop_personal_data, mask_personal_data, reviewed_rows
from seqdistill.stages.filter.rejection import Rejection
from seqdistill.stages.filter.report import Rejections, report, warnings_of
from seqdistill.stages.filter.rules import (
    Repeated,
    drop_constants,
    drop_contaminated,
    drop_duplicates,
    drop_near_duplicates,
    drop_slips,
    drop_stock_phrases,
    drop_test_groups,
    name_choice,
)
from seqdistill.stages.filter.scan import Facts, Rows, scan
from seqdistill.stages.filter.scoring.choice import Choice, Chooser, Scored, choice_inputs, choice_settings
from seqdistill.tasks.answer_form import AnswerForm
from seqdistill.tasks.prompt_files import check_source, load_prompts
from seqdistill.tasks.templates import PLAIN, load_template

SCORED_TOGETHER = ("vote", "consensus")  # ways to score in which an answer that is dropped counts beside the others


@dataclass(frozen=True)
class FilterResult:
    """What the stage did. `by_rule` counts the rejected rows by rule, in the order of the rules."""

    read: int
    kept: int
    train: int
    validation: int
    rejected: int
    by_rule: dict[str, int]
    review: dict[str, int]  # how many rows people accepted, edited and rejected, and decisions that did not count
    references: dict[str, Any]  # rows that could be compared with their reference, and those that differ
    labels: dict[str, dict[str, int]]  # with choices: the rows of each, read and kept
    warnings: list[str]  # what a person should look at before training
    funnel: list[dict[str, Any]]  # by step: read, rejected, kept
    up_to_date: bool
    path: Path


def filter_samples(run: Run, recipe: Recipe, progress: Progress) -> FilterResult:
    """Filters the samples of a run. Works without a recipe. Raises SeqdistillError when no row is left."""
    config = recipe.filter
    samples = run.need("generate", "samples.jsonl")
    decisions, form = read_decisions(run), _form(run, recipe)
    record = record_of(run, recipe)
    if record.up_to_date() and (manifest := run.manifest("filter")):
        return _result_of(run, manifest, progress)
    with run.locked("filter"), ExitStack() as stack:
        for change in record.differences():
            progress.note(change)
        items, groups = test_items(recipe, progress)
        index = ItemIndex(items, config.contamination, bool(form))
        facts = scan(samples, config, form, index, run.path / "filter", progress)
        if not len(facts):
            raise SeqdistillError(f"{samples}: no samples in it", "generate some first; see generate/failures.jsonl")
        read = stack.enter_context(Rows(samples, facts))

        order = np.lexsort((facts.ids, facts.samples, -facts.scores))  # best first, whatever the order of the file
        rejections = Rejections(len(facts), by_row=dict(facts.rejections))
        drop_slips(facts, rejections, config.integrity)
        phrases = drop_stock_phrases(facts, rejections, order, config.integrity, read)
        repeated = drop_constants(facts, rejections, config.integrity)
        shared = drop_contaminated(facts, rejections, items, config.contamination, read)
        of_groups = drop_test_groups(facts, rejections, groups, config.contamination, read)
        final = facts.hits.keys() | of_groups if config.contamination.action == "drop" else set[int]()
        reviewed = reviewed_rows(decisions, final, facts, config.personal_data, read)
        voters = rejections.kept(np.arange(len(facts)))
        drop_personal_data(facts, rejections, config.personal_data)
        reviewed.reject(rejections)
        if config.score.by == "judge":  # tried out: templated data is an error before the judge is paid for it
            _drop_repetitions(facts, rejections.copy(), order, config, read, progress)
        chooser = Chooser(run, recipe, form, facts.prompts, facts.held_out, read, progress)
        early_warnings, choice, baselines = _select(chooser, voters, order, facts, rejections, config, read, progress)
        reviewed.keep(rejections, read)
        rejections.settle()
        personal = mask_personal_data(facts, reviewed, config.personal_data, read)

        agreed = agreement_report(facts.agreements, facts.labels, facts.slices, rejections.kept(np.arange(len(facts))))
        repetitions = _repeated_warnings(repeated, read)
        warnings = [*warnings_of(facts, rejections), *repetitions, *choice.warnings, *_shared_warnings(shared)]
        for warning in warnings:
            progress.note(f"warning: {warning}")
        warnings += early_warnings
        _check_something_is_left(rejections, len(facts))
        document = report(facts, rejections, phrases, items, read, config.personal_data.phone_regions) | {
            "warnings": warnings,
            **agreed,
            "select": choice.summary,
            "personal_data": personal,
            "review": reviewed.counts,
        }
        result = _write_all(record, recipe, facts, rejections, baselines, document, read)
        write_dataset_card(run)
    return FilterResult(**result, funnel=document["funnel"], up_to_date=False, path=run.path / "filter")


def _result_of(run: Run, manifest: dict[str, Any], progress: Progress) -> FilterResult:
    """The result of a filter that has nothing to do; repeats its warnings."""
    for warning in manifest["result"]["warnings"]:
        progress.note(f"warning: {warning}")
    if not (run.path / "README.md").exists():  # killed before it was written
        write_dataset_card(run)
    return FilterResult(**manifest["result"], funnel=manifest["funnel"], up_to_date=True, path=run.path / "filter")


def _write_all(
    record: StageRecord,
    recipe: Recipe,
    facts: Facts,
    rejections: Rejections,
    baselines: dict[str, set[int]],
    document: dict[str, Any],
    read: Rows,
) -> dict[str, Any]:
    """Writes the rows, the report and the manifest; returns the result that the manifest has."""
    with record.new_files() as new:
        counts = write(new, facts, rejections, read) | write_baselines(new, facts, rejections, baselines, read)
        write_json(new / "report.json", document)
    kept = counts["train.jsonl"] + counts["validation.jsonl"]
    assert len(facts) == kept + counts["rejected.jsonl"] == document["read"] and kept == document["kept"]
    result: dict[str, Any] = {
        "read": len(facts),
        "kept": kept,
        **{name: counts[f"{name}.jsonl"] for name in ("train", "validation", "rejected")},
        **{name: document[name] for name in ("by_rule", "warnings", "review", "references", "labels")},
    }
    judge = document["select"].get("judge")
    record.finish(
        {**counts, "report.json": None},
        config=asdict(recipe.filter),
        rights=stated_rights(recipe),
        result=result,
        funnel=document["funnel"],
        usage={"judge": {"usd": judge["usd"]}} if judge else {},
    )
    return result


def is_up_to_date(run: Run, recipe: Recipe) -> bool:
    """Whether filter has nothing to do. Raises UsageError as it does."""
    return record_of(run, recipe).up_to_date()


def record_of(run: Run, recipe: Recipe) -> StageRecord:
    """What decides whether filter has something to do. Raises UsageError before generate ran and without the test set."""
    samples, form = run.need("generate", "samples.jsonl"), _form(run, recipe)
    for source in (recipe.task.test, *recipe.filter.contamination.against):
        if source is not None:
            check_source(source)
    decisions = decisions_file(run) if read_decisions(run) else None
    own = _settings(recipe, form)
    own["filter.contamination.against"] = [*filter(is_hub_source, recipe.filter.contamination.against)]  # files are inputs
    return StageRecord(run, "filter", own, _inputs(recipe, samples, decisions))


def check(run: Run, recipe: Recipe, progress: Progress, *, prompts: bool = True) -> None:
    """Raises UsageError for what filter would refuse; before there are samples, notes `prompts` that it would reject."""
    form = _form(run, recipe)
    _settings(recipe, form)
    choice_inputs(recipe.filter)
    read_decisions(run)
    test_items(recipe, Silent())
    if prompts:
        _check_not_the_test_set(run, recipe, progress)


def _check_not_the_test_set(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Raises UsageError where all prompts are in the test set too, whose answers filter drops; notes where some are."""
    if recipe.task.test is None or recipe.filter.contamination.action != "drop":
        return
    held_out = load_prompts(recipe.task.test, load_template(recipe.task.template), None, Silent(), recipe.task.columns)
    tests = {text_without_system(prompt.teacher_messages) for prompt in held_out}
    prompts = run_prompts(run, recipe, Silent(), recipe.generate.limit)
    both = sum(text_without_system(prompt.teacher_messages) in tests for prompt in prompts)
    if both and both == len(prompts):
        raise UsageError(
            f"all {both} prompts are in the test set {recipe.task.test} too, whose prompts are never trained on",
            "hold other prompts out: [task] test, --test FILE",
        )
    if both:
        progress.note(f"{both} of the {len(prompts)} prompts are in the test set too: filter will reject their answers")


def _form(run: Run, recipe: Recipe) -> AnswerForm:
    """The form of the answers: the recipe's, or else the one that generate requested."""
    generate = generated_with(recipe, run.manifest("generate"))
    form = AnswerForm(generate.schema, tuple(generate.choices))
    form.check()
    return form


def _settings(recipe: Recipe, form: AnswerForm) -> dict[str, Any]:
    own = {f"filter.{name}": value for name, value in settings(recipe.filter).items()}
    own |= {
        f"generate.{name}": value
        for name, value in asdict(form).items()
        if value and (recipe.filter.schema or recipe.filter.score.by == "vote")
    }
    for_the_card = {"teacher.license": recipe.teacher.license, **terms_settings(recipe)}
    if any(one.license != recipe.teacher.license for one in recipe.teachers):
        for_the_card["teachers.license"] = [one.license for one in recipe.teachers]
    columns = {"task.columns": recipe.task.columns} if recipe.task.columns else {}
    return (
        own
        | choice_settings(recipe)
        | for_the_card
        | {"task.test": recipe.task.test if is_hub_source(recipe.task.test) else None}
        | columns
    )


def _inputs(recipe: Recipe, samples: Path, decisions: Path | None) -> dict[str, Path]:
    named = {"samples": samples, "test": recipe.task.test, "template": load_template(recipe.task.template).path}
    named["decisions"] = decisions
    named |= {f"contamination {number}": source for number, source in enumerate(recipe.filter.contamination.against, 1)}
    files = {name: Path(source) for name, source in named.items() if source and Path(source).exists()}
    return files | choice_inputs(recipe.filter)


def test_items(recipe: Recipe, progress: Progress) -> tuple[list[Item], set[str]]:
    """What must not be trained on: the texts of all test sets, and the groups of the run's own."""
    items, groups = list[Item](), set[str]()
    if recipe.task.test:
        prompts = load_prompts(recipe.task.test, load_template(recipe.task.template), None, progress, recipe.task.columns)
        items += items_of(prompts, recipe.task.test)
        groups = {prompt.group for prompt in prompts if prompt.group}
    for source in recipe.filter.contamination.against:
        items += items_of(load_prompts(source, PLAIN, None, progress), source)
    return items, groups


def _select(
    chooser: Chooser,
    voters: Ints,
    order: Ints,
    facts: Facts,
    rejections: Rejections,
    config: FilterConfig,
    read: Rows,
    progress: Progress,
) -> tuple[list[str], Choice, dict[str, set[int]]]:
    """Scores the rows, rejects those that repeat a better one and those that are not chosen.

    Returns the warnings already shown, the choice and the baselines. Repetitions are dropped after the scoring: of rows that
    repeat each other, the best is kept, and none that another rule would drop.
    """
    to_score = voters if config.score.by in SCORED_TOGETHER else rejections.kept(voters)
    early_warnings = chooser.without_effect(to_score)
    for warning in early_warnings:  # before a judge is paid
        progress.note(f"warning: {warning}")
    scored = chooser.score(to_score)
    best_first = scored.best_first(order)
    of_prompt = config.score.by != "none" and config.select.among == "prompt"
    _drop_repetitions(facts, rejections, best_first, config, read, progress, within=of_prompt)
    candidates = rejections.kept(voters)
    choice = _choose(chooser, scored, config, rejections)
    if of_prompt:  # only a row that is chosen takes the place of another prompt's
        _drop_repetitions(facts, rejections, best_first, config, read, progress)
    if config.score.by != "none":
        name_choice(facts, rejections, lambda rows: chooser.choose(rows, scored), candidates, of_prompt)
    return early_warnings, choice, chooser.baselines(candidates, rejections.by_row)


def _drop_repetitions(
    facts: Facts,
    rejections: Rejections,
    order: Ints,
    config: FilterConfig,
    read: Rows,
    progress: Progress,
    within: bool = False,
) -> None:
    """Rejects the rows that repeat one that is earlier in `order`, `within` their prompt or anywhere."""
    if config.duplicates:
        drop_duplicates(facts, rejections, order, config.near_duplicates.scope, within)
    drop_near_duplicates(facts, rejections, order, config.near_duplicates, read, progress, within)


def _choose(chooser: Chooser, scored: Scored, config: FilterConfig, rejections: Rejections) -> Choice:
    """Rejects the remaining rows that are not chosen."""
    if config.score.by == "none":
        return Choice({}, {})
    choice = chooser.choose(rejections.kept(np.arange(rejections.rows)), scored)
    for row, (why, better) in sorted(choice.rejected.items()):
        rejections.reject(row, Rejection(why.rule, why.reason, why.would_keep), better)
    return choice


def _repeated_warnings(repeated: Sequence[Repeated], read: Rows) -> list[str]:
    return [
        f"one completion answers {one.prompts:,} prompts ({one.share:.0%}) of the slice {one.slice!r}: "
        f"{hidden(read(one.row).text)[:80]!r}"
        for one in repeated
    ]


def _shared_warnings(shared: Collection[int]) -> list[str]:
    text = (
        "rows share most of their wording with a test item, as rows of many prompts do: this is taken to be the template, and"
    )
    return [f"{len(shared):,} {text} they are kept"] if shared else []


def _check_something_is_left(rejections: Rejections, rows: int) -> None:
    if len(rejections.by_row) == rows:
        by_rule = rejections.by_rule()
        rule = max(by_rule, key=by_rule.__getitem__)
        example = next(rejection for rejection in rejections.by_row.values() if rejection.rule == rule)
        raise SeqdistillError(
            f"no row is left: the rule {rule!r} rejected {by_rule[rule]} of {rows} ({example.reason})",
            example.way_out or "look at the answers in generate/",
        )
