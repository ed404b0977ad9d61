"""What was rejected and why: the funnel, examples of each reason, clusters and test items found, as written to report.json.

Counts verdicts; decides none.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from seqdistill.personal_data import hidden
from seqdistill.records import Sample
from seqdistill.stages.filter.checks.contamination import Hit, Item
from seqdistill.stages.filter.checks.stock_phrases import StockPhrase
from seqdistill.stages.filter.checks.words import Ints
from seqdistill.stages.filter.scan import Facts
from seqdistill.stages.filter.verdict import Verdict, in_words

EXAMPLES = 5  # of each rule
SHOWN = 200  # characters of a text
HITS = 1000
CLUSTERS = 20
CHOSEN = ("select", "review")  # steps whose losses are what was configured or decided
MANY_PROMPTS = 0.2  # of the prompts: a rule that takes more is reported
MOST_OF_A_SLICE = 0.8

Show = Callable[[str], str]

# Each rule's step in the funnel, in the order of work.
RULES = {
    "finish_reason": "integrity",
    "empty": "integrity",
    "too_short": "integrity",
    "too_long": "integrity",
    "markup": "integrity",
    "repetition": "integrity",
    "self_naming": "integrity",
    "refusal": "integrity",
    "script": "integrity",
    "language": "integrity",
    "stock_phrase": "integrity",
    "constant": "integrity",
    "schema": "schema",
    "duplicate": "duplicates",
    "near_duplicate": "near_duplicates",
    "contamination": "contamination",
    "unscored": "select",
    "best": "select",
    "share": "select",
    "threshold": "select",
    "personal_data": "personal_data",
    "review": "review",
}
STEPS = tuple(dict.fromkeys(RULES.values()))


@dataclass
class Verdicts:
    """The rejected rows so far, each with the first rule that took it and, where there is one, the row kept instead."""

    rows: int
    by_row: dict[int, Verdict] = field(default_factory=dict)
    kept_by: dict[int, int] = field(default_factory=dict)

    def reject(self, row: int, verdict: Verdict, kept_by: int | None = None) -> None:
        """Rejects a row, unless it already is."""
        if row not in self.by_row:
            self.by_row[row] = verdict
            if kept_by is not None:
                self.kept_by[row] = kept_by

    def accept(self, row: int) -> None:
        """Removes a row's verdict."""
        self.by_row.pop(row, None)
        self.kept_by.pop(row, None)

    def kept(self, order: Ints) -> Ints:
        """The rows of `order` without a verdict."""
        gone = np.zeros(self.rows, bool)
        gone[list(self.by_row)] = True
        return order[~gone[order]]

    def by_rule(self) -> dict[str, int]:
        """How many rows each rule took, in the order of the rules."""
        counts = Counter(verdict.rule for verdict in self.by_row.values())
        return {rule: counts[rule] for rule in RULES if counts[rule]}


def report(
    facts: Facts,
    verdicts: Verdicts,
    phrases: Sequence[StockPhrase],
    items: Sequence[Item],
    read: Callable[[int], Sample],
    regions: Sequence[str],
) -> dict[str, Any]:
    """The content of report.json. `regions` are those whose phone numbers are known, to be left out of texts."""
    show = partial(shown, regions=regions)
    by_rule, kept = verdicts.by_rule(), verdicts.kept(np.arange(len(facts)))
    left, funnel = len(facts), []
    for step in STEPS:
        gone = sum(count for rule, count in by_rule.items() if RULES[rule] == step)
        funnel.append({"step": step, "read": left, "rejected": gone, "kept": left - gone})
        left -= gone
    return {
        "read": len(facts),
        "kept": left,
        "rejected": len(facts) - left,
        "funnel": funnel,
        "by_rule": by_rule,
        "by_slice": _by(facts.slices, verdicts),
        "by_teacher": _by(facts.teachers, verdicts),
        "annotated": {
            "refusals": int(facts.refused[kept].sum()),
            "stock_phrases": int(np.isin(kept, np.concatenate([*(phrase.rows for phrase in phrases), kept[:0]])).sum()),
        },
        "stock_phrases": [
            {"opening": phrase.opening, "rows": len(phrase.rows), "share": round(phrase.share, 4)} for phrase in phrases
        ],
        "clusters": _clusters(verdicts, read, show),
        "contamination": _contamination(facts.hits, verdicts, items, read, show),
        "examples": _examples(verdicts, read, show),
    }


def warnings_of(facts: Facts, verdicts: Verdicts) -> list[str]:
    """What a person should look at before training: rules that take many prompts, slices that lose most rows."""
    found = []
    total, left = len(np.unique(facts.prompts)), set(facts.prompts[verdicts.kept(np.arange(len(facts)))].tolist())
    by_rule: dict[str, set[int]] = {}
    for row, verdict in verdicts.by_row.items():
        if (prompt := int(facts.prompts[row])) not in left and RULES[verdict.rule] not in CHOSEN:
            by_rule.setdefault(verdict.rule, set()).add(prompt)
    for rule in RULES:
        if (lost := len(by_rule.get(rule, ()))) > MANY_PROMPTS * total:
            example = next(verdict for verdict in verdicts.by_row.values() if verdict.rule == rule)
            change = f"; {in_words(example.would_keep)} would keep it" if example.would_keep else ""
            found.append(
                f"the rule {rule!r} takes {lost:,} of {total:,} prompts ({lost / total:.0%}): {example.reason}{change}"
            )
    lost_rows = Counter(facts.slices[row] for row, verdict in verdicts.by_row.items() if RULES[verdict.rule] not in CHOSEN)
    sizes = Counter(facts.slices)
    for name, lost in sorted(lost_rows.items()):
        if len(sizes) > 1 and lost > MOST_OF_A_SLICE * sizes[name]:
            rules = Counter(verdict.rule for row, verdict in verdicts.by_row.items() if facts.slices[row] == name)
            rule, times = rules.most_common(1)[0]
            found.append(f"the slice {name!r} loses {lost:,} of {sizes[name]:,} rows, {times:,} of them by the rule {rule!r}")
    return found


def _by(names: Sequence[str], verdicts: Verdicts) -> dict[str, dict[str, int]]:
    read = Counter(names)
    gone: dict[str, Counter[str]] = {name: Counter() for name in read}
    for row, verdict in verdicts.by_row.items():
        gone[names[row]][verdict.rule] += 1
    return {
        name: {"read": read[name], "kept": read[name] - gone[name].total()} | {r: gone[name][r] for r in RULES if gone[name][r]}
        for name in sorted(read)
    }


def _clusters(verdicts: Verdicts, read: Callable[[int], Sample], show: Show) -> dict[str, Any]:
    """How many rows repeat how many kept ones, and the largest groups."""
    sizes = Counter(verdicts.kept_by.values())
    largest = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))[:CLUSTERS]
    return {
        "count": len(sizes),
        "sizes": {str(size + 1): count for size, count in sorted(Counter(sizes.values()).items())},
        "largest": [{"kept": read(row).id, "rejected": count, "text": show(read(row).text)} for row, count in largest],
    }


def _contamination(
    hits: Mapping[int, Hit], verdicts: Verdicts, items: Sequence[Item], read: Callable[[int], Sample], show: Show
) -> dict[str, Any]:
    took = {
        row: hit
        for row, hit in sorted(hits.items())
        if row not in verdicts.by_row or verdicts.by_row[row].rule == "contamination"  # kept ones are annotated
    }
    shown_hits = []
    for row, hit in list(took.items())[:HITS]:
        sample, item = read(row), items[hit.item]
        side = sample.text if hit.side == "completion" else sample.prompt[-1]["content"]
        shown_hits.append(
            {
                "id": sample.id,
                "kind": hit.kind,
                "share": round(hit.share, 4),
                "side": hit.side,
                "text": show(side),
                "test": item.test,
                "test_source": item.source.rpartition("/")[2],
                "test_part": item.part,
                "test_text": show(item.text),
            }
        )
    return {
        "items": len(items),
        "by_kind": dict(sorted(Counter(hit.kind for hit in took.values()).items())),
        "hits": shown_hits,
    }


def _examples(verdicts: Verdicts, read: Callable[[int], Sample], show: Show) -> dict[str, list[dict[str, Any]]]:
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(verdicts.by_row):
        verdict = verdicts.by_row[row]
        mine = examples.setdefault(verdict.rule, [])
        if len(mine) < EXAMPLES:
            sample, better = read(row), verdicts.kept_by.get(row)
            mine.append(
                {
                    "id": sample.id,
                    "reason": verdict.reason,
                    "would_keep": verdict.would_keep,
                    "prompt": show(sample.prompt[-1]["content"]),
                    "completion": show(sample.text),
                    "kept_by": None if better is None else read(better).id,
                    "kept_completion": None if better is None else show(read(better).text),
                }
            )
    return {rule: examples[rule] for rule in RULES if rule in examples}


def shown(text: str, regions: Sequence[str]) -> str:
    """A text cut to what a report shows, with personal data named by kind alone."""
    text = hidden(text, regions)  # before it is cut: half a key is no longer known for one
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
