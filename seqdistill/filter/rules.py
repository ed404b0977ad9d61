"""The rules that compare rows: each looks at the facts of the rows that stand, and rejects some with a reason.

What makes a duplicate, a stock phrase or a test item is decided in the files of that name; the order of the rules in `stage`.
"""

import numpy as np

from seqdistill.config import IntegrityConfig, NearDuplicatesConfig
from seqdistill.errors import SeqdistillError
from seqdistill.filter.contamination import Item
from seqdistill.filter.duplicates import exact_duplicates
from seqdistill.filter.near_duplicates import near_duplicates
from seqdistill.filter.report import Verdicts
from seqdistill.filter.scan import Facts, Rows
from seqdistill.filter.scripts import foreign_scripts
from seqdistill.filter.stock_phrases import StockPhrase, stock_phrases
from seqdistill.filter.words import Ints

GUARD_ROWS = 100  # the guard looks away from smaller losses
FLOOR = 0.5  # of `similarity`: what each side of a near-duplicate must reach by itself


def drop_foreign_scripts(facts: Facts, verdicts: Verdicts, config: IntegrityConfig) -> None:
    """Rejects completions in a writing system that is rare in their slice."""
    for row, reason in foreign_scripts(facts.scripts, facts.slices, config.script_share).items():
        verdicts.reject(row, "script", reason)


def drop_stock_phrases(facts: Facts, verdicts: Verdicts, order: Ints, config: IntegrityConfig, read: Rows) -> list[StockPhrase]:
    """Rejects completions that open with a stock phrase; returns the phrases."""
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


def drop_duplicates(facts: Facts, verdicts: Verdicts, order: Ints) -> None:
    """Rejects all but the best of the rows that say the same."""
    kept_by = exact_duplicates(facts.digests, verdicts.kept(order))
    for row in np.flatnonzero(kept_by >= 0).tolist():
        verdicts.reject(row, "duplicate", "says the same as a row that is kept", int(kept_by[row]))


def drop_near_duplicates(facts: Facts, verdicts: Verdicts, order: Ints, config: NearDuplicatesConfig, read: Rows) -> None:
    """Rejects the rows that almost repeat a better one. Raises SeqdistillError when the guard stops it."""
    if config.scope == "off":
        return
    rows = verdicts.kept(order)
    floor = FLOOR * config.similarity if config.scope == "pair" else 0.0
    matches = near_duplicates(facts.sets, facts.numbers, rows, config.similarity, floor)
    gone = np.flatnonzero(matches.kept_by >= 0)
    _guard(facts, rows, gone, matches.kept_by[gone], config, read)
    for row in gone.tolist():
        reason = f"{config.scope} similarity {matches.similarity[row]:.3f} to a row that is kept, at least {config.similarity}"
        verdicts.reject(row, "near_duplicate", reason, int(matches.kept_by[row]))


def _guard(facts: Facts, rows: Ints, gone: Ints, kept_by: Ints, config: NearDuplicatesConfig, read: Rows) -> None:
    """Stops when near-duplicates would take too much of a slice, or one row too much: templated data looks like that."""
    for name in sorted(set(facts.slices)) if config.guard < 1 else ():
        size = sum(facts.slices[row] == name for row in rows.tolist())
        mine = [place for place, row in enumerate(gone.tolist()) if facts.slices[row] == name]
        if len(mine) < GUARD_ROWS:
            continue
        winners, counts = np.unique(kept_by[mine], return_counts=True)
        top, most = int(winners[np.argmax(counts)]), int(counts.max())
        if len(mine) > config.guard * size or most > config.guard / 4 * size:
            raise SeqdistillError(
                f"near-duplicates would take {len(mine)} of {size} rows of the slice {name!r}, {most} of them "
                f"for {read(top).id}: {read(top).text[:80]!r}",
                f"templated data? in [filter.near_duplicates] raise similarity (now {config.similarity}), choose another scope "
                f"(now {config.scope}), or accept it with guard = 1",
            )


def drop_contaminated(facts: Facts, verdicts: Verdicts, items: list[Item]) -> None:
    """Rejects the rows that hold a test item."""
    for row, hit in sorted(facts.hits.items()):
        item = items[hit.item]
        reason = f"{hit.kind} match ({hit.share:.0%}) of its {hit.side} with the {item.part} of test item {item.test}"
        verdicts.reject(row, "contamination", reason)
