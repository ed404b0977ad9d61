"""Stage 2, filter: samples.jsonl -> train.jsonl, validation.jsonl, rejected.jsonl and report.json.

One pass gathers facts of fixed size, the rules decide on them in order, a second pass writes. Every row that goes keeps its
rule, its reason and the row that was kept instead; read = kept + rejected. The rules are in files named after them.
"""

import functools
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.config import FilterConfig, Recipe, settings
from seqdistill.errors import SeqdistillError
from seqdistill.filter.choice import Choice, Chooser, choice_inputs, choice_settings
from seqdistill.filter.contamination import Item, ItemIndex, items_of
from seqdistill.filter.duplicates import exact_duplicates
from seqdistill.filter.near_duplicates import near_duplicates
from seqdistill.filter.report import RULES, Verdicts, report
from seqdistill.filter.scan import Facts, line_of, read_row, scan
from seqdistill.filter.scripts import foreign_scripts
from seqdistill.filter.stock_phrases import StockPhrase, stock_phrases
from seqdistill.filter.words import Ints
from seqdistill.progress import Progress
from seqdistill.prompt_files import load_prompts
from seqdistill.records import atomic_write, to_line, write_json
from seqdistill.runs import Run, StageRecord
from seqdistill.templates import PLAIN, load_template

OUTPUTS = ("train.jsonl", "validation.jsonl", "rejected.jsonl")
GUARD_ROWS = 100  # the guard looks away from smaller losses
FLOOR = 0.5  # of near_similarity: what each side of a near-duplicate must reach by itself


@dataclass(frozen=True)
class FilterResult:
    """What the stage did. `by_rule` counts the rejected rows by rule, in the order of the rules."""

    read: int
    kept: int
    train: int
    validation: int
    rejected: int
    by_rule: dict[str, int]
    up_to_date: bool
    path: Path


def filter_samples(run: Run, recipe: Recipe, progress: Progress) -> FilterResult:
    """Filters the samples of a run. Works without a recipe. Raises SeqdistillError when no row is left."""
    config = recipe.filter
    samples = run.need("generate", "samples.jsonl")
    record = StageRecord(run, "filter", _settings(recipe), _inputs(recipe, samples))
    if record.up_to_date() and (manifest := run.manifest("filter")):
        return FilterResult(**manifest["result"], up_to_date=True, path=run.path / "filter")
    with run.locked("filter"):
        for change in record.differences():
            progress.note(change)
        record.begin()
        items = _test_items(recipe, progress)
        facts = scan(samples, config, ItemIndex(items, config.contamination_overlap), run.path / "filter", progress)
        read = functools.lru_cache(maxsize=4096)(functools.partial(read_row, samples, facts))

        order = np.lexsort((facts.ids, facts.samples, -facts.scores))  # best first, whatever the order of the file
        verdicts = Verdicts(len(facts), given=dict(facts.verdicts))
        _drop_foreign_scripts(facts, verdicts, config)
        phrases = _drop_stock_phrases(facts, verdicts, order, config, read)
        _drop_duplicates(facts, verdicts, order, config)
        _drop_near_duplicates(facts, verdicts, order, config, read)
        _drop_contaminated(facts, verdicts, items)
        choice = _choose(run, recipe, facts, verdicts, read, progress)

        _check_something_is_left(verdicts, len(facts), samples)
        told = report(facts, verdicts, phrases, items, read) | {"selection": choice.told}
        counts = _write(run, samples, facts, verdicts, read) | _write_baselines(run, samples, facts, verdicts, choice)
        write_json(run.file("filter", "report.json"), told)
        kept = counts["train.jsonl"] + counts["validation.jsonl"]
        assert len(facts) == kept + counts["rejected.jsonl"] == told["read"] and kept == told["kept"]
        result: dict[str, Any] = {
            "read": len(facts),
            "kept": kept,
            "train": counts["train.jsonl"],
            "validation": counts["validation.jsonl"],
        }
        result |= {"rejected": counts["rejected.jsonl"], "by_rule": told["by_rule"]}
        record.finish({**counts, "report.json": None}, config=asdict(config), result=result, funnel=told["funnel"])
    return FilterResult(**result, up_to_date=False, path=run.path / "filter")


def _settings(recipe: Recipe) -> dict[str, Any]:
    own = {f"filter.{name}": value for name, value in settings(recipe.filter).items()}
    return own | choice_settings(recipe) | {"task.test": _hub(recipe.task.test)}


def _hub(source: str | None) -> str | None:
    """A hub data set's name; a file is an input, known by its content."""
    return source if source and not Path(source).exists() else None


def _inputs(recipe: Recipe, samples: Path) -> dict[str, Path]:
    named = {"samples": samples, "test": recipe.task.test, "template": load_template(recipe.task.template).path}
    named |= {f"contamination {number}": source for number, source in enumerate(recipe.filter.contamination, 1)}
    files = {name: Path(source) for name, source in named.items() if source and Path(source).exists()}
    return files | choice_inputs(recipe.filter)


def _test_items(recipe: Recipe, progress: Progress) -> list[Item]:
    items = []
    if recipe.task.test:
        prompts = load_prompts(recipe.task.test, load_template(recipe.task.template), None, progress)
        items += items_of(prompts, recipe.task.test)
    for source in recipe.filter.contamination:
        items += items_of(load_prompts(source, PLAIN, None, progress), source)
    return items


def _drop_foreign_scripts(facts: Facts, verdicts: Verdicts, config: FilterConfig) -> None:
    for row, reason in foreign_scripts(facts.scripts, facts.slices, config.script_share).items():
        verdicts.reject(row, "script", reason)


def _drop_stock_phrases(facts: Facts, verdicts: Verdicts, order: Ints, config: FilterConfig, read: Any) -> list[StockPhrase]:
    if not config.stock_share:
        return []
    slices: dict[str, list[int]] = {}
    for row in verdicts.kept(order).tolist():
        slices.setdefault(facts.slices[row], []).append(row)
    if not slices:
        return []
    groups = [np.array(rows) for _, rows in sorted(slices.items())]
    phrases = stock_phrases(facts.openings, facts.prompts, groups, config.stock_share, read)
    for phrase in phrases:
        for row in phrase.rows.tolist():
            verdicts.reject(row, "stock_phrase", f"opens with {phrase.opening!r}, as {phrase.share:.1%} of all do, unasked")
    return phrases


def _drop_duplicates(facts: Facts, verdicts: Verdicts, order: Ints, config: FilterConfig) -> None:
    if config.duplicates:
        kept_by = exact_duplicates(facts.digests, verdicts.kept(order))
        for row in np.flatnonzero(kept_by >= 0).tolist():
            verdicts.reject(row, "duplicate", "says the same as a row that is kept", int(kept_by[row]))


def _drop_near_duplicates(facts: Facts, verdicts: Verdicts, order: Ints, config: FilterConfig, read: Any) -> None:
    if config.near == "off":
        return
    rows = verdicts.kept(order)
    floor = FLOOR * config.near_similarity if config.near == "pair" else 0.0
    matches = near_duplicates(facts.sets, facts.numbers, rows, config.near_similarity, floor)
    gone = np.flatnonzero(matches.kept_by >= 0)
    _guard(facts, rows, gone, matches.kept_by[gone], config, read)
    for row in gone.tolist():
        reason = (
            f"{config.near} similarity {matches.similarity[row]:.3f} to a row that is kept, at least {config.near_similarity}"
        )
        verdicts.reject(row, "near_duplicate", reason, int(matches.kept_by[row]))


def _guard(facts: Facts, rows: Ints, gone: Ints, kept_by: Ints, config: FilterConfig, read: Any) -> None:
    """Stops when near-duplicates would take too much of a slice, or one row too much: templated data looks like that."""
    for name in sorted(set(facts.slices)) if config.near_guard < 1 else ():
        size = sum(facts.slices[row] == name for row in rows.tolist())
        mine = [place for place, row in enumerate(gone.tolist()) if facts.slices[row] == name]
        if len(mine) < GUARD_ROWS:
            continue
        winners, counts = np.unique(kept_by[mine], return_counts=True)
        top, most = int(winners[np.argmax(counts)]), int(counts.max())
        if len(mine) > config.near_guard * size or most > config.near_guard / 4 * size:
            raise SeqdistillError(
                f"near-duplicates would take {len(mine)} of {size} rows of the slice {name!r}, {most} of them "
                f"for {read(top).id}: {read(top).text[:80]!r}",
                f"templated data? raise near_similarity (now {config.near_similarity}), choose another near scope "
                f"(now {config.near}), or accept it with near_guard = 1",
            )


def _drop_contaminated(facts: Facts, verdicts: Verdicts, items: list[Item]) -> None:
    for row, hit in sorted(facts.hits.items()):
        item = items[hit.item]
        reason = f"{hit.kind} match ({hit.share:.0%}) of its {hit.side} with the {item.part} of test item {item.test}"
        verdicts.reject(row, "contamination", reason)


def _choose(run: Run, recipe: Recipe, facts: Facts, verdicts: Verdicts, read: Any, progress: Progress) -> Choice:
    """Scores the rows that stand and rejects those that are not chosen."""
    if recipe.filter.score == "none":
        return Choice({}, {}, {})
    rows = verdicts.kept(np.arange(len(facts)))
    repeated = (row for row, verdict in verdicts.given.items() if verdict.rule in ("duplicate", "near_duplicate"))
    voters = np.append(rows, np.fromiter(repeated, np.int64))
    choice = Chooser(run, recipe, facts.prompts, facts.held_out, read, progress).choose(rows, voters)
    for row, (why, better) in sorted(choice.rejected.items()):
        verdicts.reject(row, why.rule, f"{why.reason}; {why.would_keep} would keep it", better)
    return choice


def _check_something_is_left(verdicts: Verdicts, rows: int, samples: Path) -> None:
    if not rows:
        raise SeqdistillError(f"{samples}: no samples in it", "generate some first; see generate/failures.jsonl")
    if len(verdicts.given) == rows:
        by_rule = verdicts.by_rule()
        rule = max(by_rule, key=by_rule.__getitem__)
        example = next(verdict.reason for verdict in verdicts.given.values() if verdict.rule == rule)
        hint = f"loosen {RULES[rule][1]} in [filter]" if RULES[rule][1] else "look at the teacher's answers in generate/"
        raise SeqdistillError(f"no row is left: the rule {rule!r} took {by_rule[rule]} of {rows} ({example})", hint)


def _write(run: Run, samples: Path, facts: Facts, verdicts: Verdicts, read: Any) -> dict[str, int]:
    """Writes the three files in the order of the samples; returns their row counts."""
    held_out = _held_out(facts, verdicts)
    counts = dict.fromkeys(OUTPUTS, 0)
    with ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(run.file("filter", name))) for name in OUTPUTS}
        source = stack.enter_context(samples.open("rb"))
        for row in range(len(facts)):
            source.seek(int(facts.offsets[row]))
            line = line_of(source.readline(), bool(facts.plain[row]), f"{samples}: row {row + 1}")
            if verdict := verdicts.given.get(row):
                name, better = "rejected.jsonl", verdicts.kept_by.get(row)
                why = {"rule": verdict.rule, "reason": verdict.reason, "kept_by": None if better is None else read(better).id}
                line = f"{line.rstrip()[:-1]}, {to_line(why)[1:]}"
            else:
                name = "validation.jsonl" if held_out[row] else "train.jsonl"
            files[name].write(line)
            counts[name] += 1
    return counts


def _held_out(facts: Facts, verdicts: Verdicts) -> NDArray[np.bool_]:
    """Which rows are for validation: none, when all prompts that are left were held back, too few of them for a split."""
    kept = verdicts.kept(np.arange(len(facts)))
    return facts.held_out & ~facts.held_out[kept].all()


def _write_baselines(run: Run, samples: Path, facts: Facts, verdicts: Verdicts, choice: Choice) -> dict[str, int]:
    """Writes train-random.jsonl and train-longest.jsonl, if they were asked for; returns their row counts."""
    counts, held_out = dict[str, int](), _held_out(facts, verdicts)
    for kind, chosen in choice.baselines.items():
        name = f"train-{kind}.jsonl"
        counts[name] = 0
        with atomic_write(run.file("filter", name)) as file, samples.open("rb") as source:
            for row in sorted(chosen):
                if not held_out[row]:
                    source.seek(int(facts.offsets[row]))
                    file.write(line_of(source.readline(), bool(facts.plain[row]), f"{samples}: row {row + 1}"))
                    counts[name] += 1
    return counts
