"""The rules that compare rows: each looks at the facts of the rows that remain, and rejects some with a reason.

What makes a duplicate, a stock phrase or a test item is decided in the files of that name; the order of the rules in `stage`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seqdistill.errors import SeqdistillError
from seqdistill.personal_data import hidden
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ContaminationConfig, IntegrityConfig, NearDuplicatesConfig
from seqdistill.stages.filter.checks.contamination import Item, held, templates
from seqdistill.stages.filter.checks.duplicates import exact_duplicates
from seqdistill.stages.filter.checks.languages import slips
from seqdistill.stages.filter.checks.near_duplicates import near_duplicates
from seqdistill.stages.filter.checks.stock_phrases import StockPhrase, stock_phrases
from seqdistill.stages.filter.checks.words import Ints, mix
from seqdistill.stages.filter.rejection import Rejection, setting
from seqdistill.stages.filter.report import Rejections
from seqdistill.stages.filter.scan import Facts, Rows, hashes_of
from seqdistill.stages.filter.scoring.choice import Choice

GUARD_ROWS = 100  # the guard ignores smaller losses
FEWEST_REPEATS = 20  # prompts with one completion, for it to be reported
REPORTED_SHARE = 0.1  # of a slice's prompts
FLOOR = 0.5  # of `similarity`: what each side of a near-duplicate must reach by itself
ALL_NEAR = setting("near_duplicates.scope", "off")
ALMOST_NEAR = setting("near_duplicates.similarity", 1.0)


def drop_slips(facts: Facts, rejections: Rejections, config: IntegrityConfig) -> None:
    """Rejects completions in a writing system or a language that is rare in their slice."""
    kinds = {"script": (facts.scripts, config.script_share), "language": (facts.languages, config.language_share)}
    found = {kind: slips(written, facts.slices, share) for kind, (written, share) in kinds.items()}
    for kind, reasons in found.items():
        for row, reason in reasons.items():
            would_keep = [setting(f"integrity.{name}_share", 0) for name in kinds if row in found[name]]
            rejections.reject(row, Rejection(kind, reason, tuple(would_keep)))


def drop_stock_phrases(
    facts: Facts, rejections: Rejections, order: Ints, config: IntegrityConfig, read: Rows
) -> list[StockPhrase]:
    """Returns the stock phrases; rejects the completions that open with one, where that is configured."""
    if not config.stock_share:
        return []
    slices: dict[str, list[int]] = {}
    for row in rejections.kept(order).tolist():
        slices.setdefault(facts.slices[row], []).append(row)
    if not slices:
        return []
    groups = [np.array(rows) for _, rows in sorted(slices.items())]
    phrases = stock_phrases(facts.openings, facts.prompts, groups, config.stock_share, read)
    for phrase in phrases if config.stock_phrases == "drop" else ():
        reason = f"opens with {phrase.opening!r}, as {phrase.share:.1%} of all do, unprompted"
        for row in phrase.rows.tolist():
            rejections.reject(row, Rejection("stock_phrase", reason, (setting("integrity.stock_phrases", "annotate"),)))
    return phrases


@dataclass(frozen=True)
class Repeated:
    """One completion to many prompts of a slice."""

    slice: str
    row: int  # one of those that have it
    prompts: int
    share: float  # of the slice's prompts


def drop_constants(facts: Facts, rejections: Rejections, config: IntegrityConfig) -> list[Repeated]:
    """Rejects a completion that answers most prompts of its slice; returns those that answer many."""
    slices: dict[str, list[int]] = {}
    for row in rejections.kept(np.arange(len(facts))).tolist():
        slices.setdefault(facts.slices[row], []).append(row)
    found = []
    for name, chosen in sorted(slices.items()):
        rows = np.array(chosen)
        total = len(np.unique(facts.prompts[rows]))
        answers, inverse, counts = np.unique(facts.answers[rows], return_inverse=True, return_counts=True)
        for number in np.flatnonzero((answers != 0) & (counts >= FEWEST_REPEATS)):
            mine = rows[inverse == number]
            prompts = len(np.unique(facts.prompts[mine]))
            share = prompts / total
            if prompts < FEWEST_REPEATS or share < REPORTED_SHARE:
                continue
            found.append(Repeated(name, int(mine[0]), prompts, share))
            if share > config.constant_share:
                reason = f"the same completion as to {prompts} of the {total} prompts of its slice"
                for row in mine.tolist():
                    rejections.reject(row, Rejection("constant", reason, (setting("integrity.constant_share", 1.0),)))
    return found


def drop_duplicates(facts: Facts, rejections: Rejections, order: Ints, scope: str, within: bool) -> None:
    """Rejects all but the best of equal rows, `within` each prompt or of all; near-duplicates would reject most of them too."""
    digests = np.bitwise_xor(facts.digests, facts.prompts[:, None]) if within else facts.digests
    kept_by = exact_duplicates(digests, rejections.kept(order))
    alone = (setting("duplicates", False),)
    for row in np.flatnonzero(kept_by >= 0).tolist():
        better = int(kept_by[row])
        near_too = scope != "off" and facts.numbers[row] == facts.numbers[better]
        near_too &= scope != "prompt" or facts.prompts[row] != facts.prompts[better]
        would_keep = (*alone, ALL_NEAR) if near_too else alone
        rejections.reject(row, Rejection("duplicate", "the same text as a better row", would_keep), better)


def drop_near_duplicates(
    facts: Facts,
    rejections: Rejections,
    order: Ints,
    config: NearDuplicatesConfig,
    read: Rows,
    progress: Progress,
    within: bool,
) -> None:
    """Rejects the rows that almost repeat a better one, `within` their prompt or anywhere. Raises where the guard stops it.

    Where prompts are compared, each is compared with the others, and its samples go or stay together.
    """
    if config.scope == "off" or (within and config.scope == "prompt"):
        return
    rows = rejections.kept(order)
    floor = FLOOR * config.similarity if config.scope == "pair" else 0.0
    compared, same, decided_by = rows, facts.numbers, np.arange(len(facts))
    if config.scope == "prompt":
        _, first, of_prompt = np.unique(facts.prompts[rows], return_index=True, return_inverse=True)
        compared, decided_by[rows] = rows[np.sort(first)], rows[first][of_prompt]
    elif within:
        _, prompt, counts = np.unique(facts.prompts[rows], return_inverse=True, return_counts=True)
        compared, same = rows[counts[prompt] > 1], mix(facts.numbers + mix(facts.prompts.copy()))
        if not len(compared):
            return
    matches = near_duplicates(facts.sets, same, compared, config.similarity, floor, progress)
    gone = np.flatnonzero(matches.kept_by[decided_by] >= 0)
    _guard(facts, rows, gone, matches.kept_by[decided_by[gone]], config, read)
    for row, same_as in zip(gone.tolist(), decided_by[gone].tolist(), strict=True):
        reason = f"{config.scope} similarity {matches.similarity[same_as]:.3f} to a better row, at least {config.similarity}"
        would_keep = ALL_NEAR if matches.repeats[same_as] else ALMOST_NEAR
        rejections.reject(row, Rejection("near_duplicate", reason, (would_keep,)), int(matches.kept_by[same_as]))


def name_choice(
    facts: Facts, rejections: Rejections, choose: Callable[[Ints], Choice], candidates: Ints, of_prompt: bool
) -> None:
    """Adds to what would keep a repetition the settings by which it would be chosen, too, where it would not be.

    `candidates` were chosen from, those of each prompt or all; a setting that keeps one repetition brings back others.
    """
    repeated = {row: one for row, one in rejections.by_row.items() if one.rule in ("duplicate", "near_duplicate")}
    for named in {one.would_keep for one in repeated.values()}:
        lifted = {*named, ALMOST_NEAR} if ALL_NEAR in named else {*named}
        back = np.array([row for row, one in repeated.items() if lifted.issuperset(one.would_keep)])
        beside = candidates[np.isin(facts.prompts[candidates], facts.prompts[back])] if of_prompt else candidates
        for row, (why, _) in choose(np.union1d(beside, back)).rejected.items():
            if row in repeated and repeated[row].would_keep == named:
                rejections.by_row[row] = replace(repeated[row], would_keep=(*named, *why.would_keep))


def _guard(facts: Facts, rows: Ints, gone: Ints, kept_by: Ints, config: NearDuplicatesConfig, read: Rows) -> None:
    """Raises when near-duplicates would take too much of a slice, or one row would replace too many: templated data."""
    if config.guard == 1:
        return
    sizes = Counter(facts.slices[row] for row in rows.tolist())
    winners: dict[str, Counter[int]] = {name: Counter() for name in sizes}
    lost_rows = _of_lost_prompts(facts, rows, gone)
    for row, better in zip(gone[lost_rows].tolist(), kept_by[lost_rows].tolist(), strict=True):
        winners[facts.slices[row]][better] += 1
    for name, mine in sorted(winners.items()):
        if (lost := mine.total()) < GUARD_ROWS:
            continue
        top, most = min(mine.items(), key=lambda pair: (-pair[1], pair[0]))
        if lost > config.guard * sizes[name] or most > config.guard / 4 * sizes[name]:
            raise SeqdistillError(
                f"near-duplicates would take {lost} of {sizes[name]} rows of the slice {name!r}, {most} of them "
                f"for {read(top).id}: {hidden(read(top).text)[:80]!r}",
                f"templated data? in [filter.near_duplicates] raise similarity (now {config.similarity}), choose another scope "
                f"(now {config.scope}), or accept it with guard = 1",
            )


def _of_lost_prompts(facts: Facts, rows: Ints, gone: Ints) -> NDArray[np.bool_]:
    """(gone,) which of the rows that go are of a prompt that is left without any, or with GUARD_ROWS fewer.

    The samples of one prompt are alike by nature, and where one of them stays its prompt is still learnt from.
    """
    prompts, number = np.unique(facts.prompts[rows], return_inverse=True)
    of_gone = np.searchsorted(prompts, facts.prompts[gone])
    lost, samples = np.bincount(of_gone, minlength=len(prompts)), np.bincount(number, minlength=len(prompts))
    is_lost: NDArray[np.bool_] = ((lost == samples) | (lost >= GUARD_ROWS))[of_gone]
    return is_lost


def drop_contaminated(
    facts: Facts, rejections: Rejections, items: list[Item], config: ContaminationConfig, read: Rows
) -> set[int]:
    """Rejects the rows that hold a test item; returns those that only share a template's wording with one."""
    shared = templates(facts.hits, facts.prompts, items)
    facts.hits = {row: hit for row, hit in facts.hits.items() if row not in shared}
    for row, hit in sorted(facts.hits.items()) if config.action == "drop" else ():
        item = items[hit.item]
        text = read(row).text if hit.side == "completion" else read(row).prompt_text
        in_part = hit.share < 1 and held(item.text, text) < 1
        reason = f"{hit.kind} match ({hit.share:.0%}) of its {hit.side} with the {item.part} of test item {item.test}"
        would_keep = setting("contamination.overlap", 1.0) if in_part else setting("contamination.action", "annotate")
        rejections.reject(row, Rejection("contamination", reason, (would_keep,)))
    return shared


def drop_test_groups(
    facts: Facts, rejections: Rejections, groups: set[str], config: ContaminationConfig, read: Rows
) -> set[int]:
    """Rejects the rows whose group is in the test set, as they are not independent of it; returns them."""
    found = np.flatnonzero(np.isin(facts.groups, hashes_of(sorted(groups)))).tolist()
    for row in found if config.action == "drop" else ():
        reason = f"prompts of its group, {read(row).group!r}, are in the test set"
        rejections.reject(row, Rejection("contamination", reason, (setting("contamination.action", "annotate"),)))
    return set(found)
