"""What was rejected and why: the funnel, examples of each reason, clusters and test items found, as written to report.json.

Counts rejections; rejects nothing itself.
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
from seqdistill.stages.filter.rejection import Rejection
from seqdistill.stages.filter.scan import Facts

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
    "contamination": "contamination",
    "personal_data": "personal_data",
    "duplicate": "duplicates",
    "near_duplicate": "near_duplicates",
    "unscored": "select",
    "best": "select",
    "share": "select",
    "threshold": "select",
    "review": "review",
}
STEPS = tuple(dict.fromkeys(RULES.values()))


@dataclass
class Rejections:
    """The rejected rows so far, each with the first rule that took it and, where there is one, the row kept instead."""

    rows: int
    by_row: dict[int, Rejection] = field(default_factory=dict)
    kept_by: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "Rejections":
        """The same rejections; what is added to them is not added here."""
        return Rejections(self.rows, dict(self.by_row), dict(self.kept_by))

    def reject(self, row: int, rejection: Rejection, kept_by: int | None = None) -> None:
        """Rejects a row, unless it already is."""
        if row not in self.by_row:
            self.by_row[row] = rejection
            if kept_by is not None:
                self.kept_by[row] = kept_by

    def accept(self, row: int) -> None:
        """Removes a row's rejection."""
        self.by_row.pop(row, None)
        self.kept_by.pop(row, None)

    def settle(self) -> None:
        """Where the row that was kept instead was rejected later, names the one that is kept in the end, or none."""
        for row, better in list(self.kept_by.items()):
            while better in self.by_row and better in self.kept_by:
                better = self.kept_by[better]
            if better in self.by_row:
                del self.kept_by[row]
            else:
                self.kept_by[row] = better

    def kept(self, order: Ints) -> Ints:
        """The rows of `order` without a rejection."""
        gone = np.zeros(self.rows, bool)
        gone[list(self.by_row)] = True
        return order[~gone[order]]

    def by_rule(self) -> dict[str, int]:
        """How many rows each rule took, in the order of the rules."""
        counts = Counter(rejection.rule for rejection in self.by_row.values())
        return {rule: counts[rule] for rule in RULES if counts[rule]}


def report(
    facts: Facts,
    rejections: Rejections,
    phrases: Sequence[StockPhrase],
    items: Sequence[Item],
    read: Callable[[int], Sample],
    regions: Sequence[str],
) -> dict[str, Any]:
    """The content of report.json. `regions` are those whose phone numbers are known, to be left out of texts."""
    show = partial(excerpt, regions=regions)
    by_rule, kept = rejections.by_rule(), rejections.kept(np.arange(len(facts)))
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
        "by_slice": _counts_by(facts.slices, rejections),
        "by_teacher": _counts_by(facts.teachers, rejections),
        "annotated": {
            "refusals": int(facts.refused[kept].sum()),
            "stock_phrases": int(np.isin(kept, np.concatenate([*(phrase.rows for phrase in phrases), kept[:0]])).sum()),
        },
        "stock_phrases": [
            {"opening": phrase.opening, "rows": len(phrase.rows), "share": round(phrase.share, 4)} for phrase in phrases
        ],
        "clusters": _clusters(rejections, read, show),
        "contamination": _contamination(facts.hits, rejections, items, read, show),
        "examples": _examples(rejections, read, show),
    }


def warnings_of(facts: Facts, rejections: Rejections) -> list[str]:
    """What a person should look at before training: rules that take many prompts, slices that lose most rows."""
    found = []
    total, left = len(np.unique(facts.prompts)), set(facts.prompts[rejections.kept(np.arange(len(facts)))].tolist())
    by_rule: dict[str, set[int]] = {}
    for row, rejection in rejections.by_row.items():
        if (prompt := int(facts.prompts[row])) not in left and RULES[rejection.rule] not in CHOSEN:
            by_rule.setdefault(rejection.rule, set()).add(prompt)
    for rule in RULES:
        if (lost := len(by_rule.get(rule, ()))) > MANY_PROMPTS * total:
            rows = [row for row, rejection in rejections.by_row.items() if rejection.rule == rule]
            tested = {row for row in rows if (hit := facts.hits.get(row)) and hit.is_test_prompt}
            own = len({int(facts.prompts[row]) for row in tested} & by_rule[rule])
            example = rejections.by_row[next((row for row in rows if row not in tested), rows[0])]
            of_them = f", {own:,} of them test prompts themselves" if own else ""
            found.append(
                f"the rule {rule!r} rejects {lost:,} of {total:,} prompts ({lost / total:.0%}){of_them}: {example.reason}"
                f"{f'; {way_out}' if (way_out := example.way_out) else ''}"
            )
    lost_rows = Counter(
        facts.slices[row] for row, rejection in rejections.by_row.items() if RULES[rejection.rule] not in CHOSEN
    )
    sizes = Counter(facts.slices)
    for name, lost in sorted(lost_rows.items()):
        if len(sizes) > 1 and lost > MOST_OF_A_SLICE * sizes[name]:
            rules = Counter(rejection.rule for row, rejection in rejections.by_row.items() if facts.slices[row] == name)
            rule, times = rules.most_common(1)[0]
            found.append(f"the slice {name!r} loses {lost:,} of {sizes[name]:,} rows, {times:,} of them by the rule {rule!r}")
    return found


def _counts_by(names: Sequence[str], rejections: Rejections) -> dict[str, dict[str, int]]:
    read = Counter(names)
    gone: dict[str, Counter[str]] = {name: Counter() for name in read}
    for row, rejection in rejections.by_row.items():
        gone[names[row]][rejection.rule] += 1
    return {
        name: {"read": read[name], "kept": read[name] - gone[name].total()} | {r: gone[name][r] for r in RULES if gone[name][r]}
        for name in sorted(read)
    }


def _clusters(rejections: Rejections, read: Callable[[int], Sample], show: Show) -> dict[str, Any]:
    """How many rows repeat how many kept ones, and the largest groups."""
    sizes = Counter(rejections.kept_by.values())
    largest = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))[:CLUSTERS]
    return {
        "count": len(sizes),
        "sizes": {str(size + 1): count for size, count in sorted(Counter(sizes.values()).items())},
        "largest": [{"kept": read(row).id, "rejected": count, "text": show(read(row).text)} for row, count in largest],
    }


def _contamination(
    hits: Mapping[int, Hit], rejections: Rejections, items: Sequence[Item], read: Callable[[int], Sample], show: Show
) -> dict[str, Any]:
    took = {
        row: hit
        for row, hit in sorted(hits.items())
        if row not in rejections.by_row or rejections.by_row[row].rule == "contamination"  # kept ones are annotated
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


def _examples(rejections: Rejections, read: Callable[[int], Sample], show: Show) -> dict[str, list[dict[str, Any]]]:
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rejections.by_row):
        rejection = rejections.by_row[row]
        mine = examples.setdefault(rejection.rule, [])
        if len(mine) < EXAMPLES:
            sample, better = read(row), rejections.kept_by.get(row)
            mine.append(
                {
                    "id": sample.id,
                    "reason": rejection.reason,
                    "would_keep": rejection.would_keep,
                    "prompt": show(sample.prompt[-1]["content"]),
                    "completion": show(sample.text),
                    "kept_by": None if better is None else read(better).id,
                    "kept_completion": None if better is None else show(read(better).text),
                }
            )
    return {rule: examples[rule] for rule in RULES if rule in examples}


def excerpt(text: str, regions: Sequence[str]) -> str:
    """A text cut to what a report shows, with personal data named by kind alone."""
    text = hidden(text, regions)  # before it is cut: half a key is no longer known for one
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
