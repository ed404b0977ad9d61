"""The report's items: regressions first, each beside what it should have said, and the data of the browser of all items.

Works on the lines of predictions.jsonl. Models' text leaves here as data; the template and report.js escape it.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seqdistill.records import visible
from seqdistill.stages.evaluate.table import comparator_of

Document = dict[str, Any]
Row = Mapping[str, Any]

REGRESSIONS = 8  # shown in full, with their nearest training rows
LISTED = 20  # items that are in the page without a script
ALIKE = 0.3  # share of equal words below which marks on every word would help nobody
WORDS = 400  # of one text; what is longer is cut in the page, not in predictions.jsonl
CHARACTERS = 16_000_000  # of all texts of the browser together: what a page can hold and a browser still opens
SHORTEST = 100  # characters that a text is never cut below
UNSCORED = ("copy", "majority")  # baselines whose text says nothing about an item


@dataclass(frozen=True)
class PromptAnswers:
    """One prompt with everybody's answers, by role. `gap` is the student's score less the best of teacher and base."""

    id: str
    answers: Mapping[str, Row]
    gap: float
    regressed: bool

    @property
    def student(self) -> Row:
        """The student's line."""
        return self.answers["student"]

    def score(self, role: str, metric: str) -> float | None:
        """A contestant's score; None where it has none."""
        row = self.answers.get(role)
        return None if row is None else (row["scores"] or {}).get(metric)


def items_of(rows: Iterable[Row], scores: Document) -> list[PromptAnswers]:
    """The prompts that all answered, in the order of the test set. What a regression is, eval's own `regressions` says."""
    by_prompt: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["scores"] is not None:
            by_prompt.setdefault(row["id"], {})[row["model"]] = row
    measure = scores["measures"][scores["primary"]]
    comparator, found = comparator_of(scores["primary"]), []
    for name, answers in by_prompt.items():
        item = PromptAnswers(name, answers, 0.0, regressed=False)
        comparators = ("base", comparator if comparator in answers else "teacher")
        others = [score for role in comparators if (score := item.score(role, scores["primary"])) is not None]
        sign = 1 if measure["higher_is_better"] else -1
        if (mine := item.score("student", scores["primary"])) is not None and others:
            best = max(sign * score for score in others)
            gap = round(sign * mine - best, 6)
            item = replace(item, gap=gap, regressed=best > 50 >= mine if measure["share"] else gap < 0)
        found.append(item)
    return found


def worst_first(items: Iterable[PromptAnswers]) -> list[PromptAnswers]:
    """Those first that the student lost most on."""
    return sorted(items, key=lambda item: (item.gap, item.id))


def texts_of(row: Row) -> str:
    """What an answer says; empty for a failure."""
    return str(row["completion"][-1]["content"]) if row["completion"] else ""


def prompt_of(row: Row) -> str:
    """The conversation that a contestant was shown."""
    return "\n\n".join(message["content"] for message in row["prompt"])


# --- the cases without a script ---------------------------------------------------------------------------------------


def regressions(items: Sequence[PromptAnswers], scores: Document) -> list[Document]:
    """The worst cases, with why and the nearest training rows where eval explained them."""
    by_id = {item.id: item for item in items}
    explained = [one for one in scores.get("regressions", {}).get("items", []) if one["id"] in by_id][:REGRESSIONS]
    if explained:
        return [case(by_id[one["id"]], scores, one) for one in explained]
    return [case(item, scores) for item in worst_first(items)[:REGRESSIONS] if item.regressed]


def case(item: PromptAnswers, scores: Document, explained: Document | None = None) -> Document:
    """An item as the page lists it: what everybody said, with the words that differ, and why where it was explained."""
    primary = scores["primary"]
    texts = {role: cut(texts_of(row)) for role, row in item.answers.items()}
    student = item.student
    wanted = texts.get("teacher", student["reference"] or "")
    share = scores["measures"][primary]["share"]
    shown = [(role, score) for role in ("student", "teacher", "base") if (score := item.score(role, primary)) is not None]
    return {
        "id": item.id,
        "slice": student["slice"],
        "scores": [
            f"{role} {('right' if score > 50 else 'wrong') if share else format(score, '.0f')}" for role, score in shown
        ],
        "notes": notes(item, scores),
        "prompt": cut(prompt_of(student)),
        "reference": None if student["reference"] is None else cut(student["reference"]),
        "teacher": texts.get("teacher"),
        "student": difference(wanted, texts["student"]),
        "base": difference(wanted, texts["base"]) if "base" in texts else None,
        "why": None if explained is None else explained["why"],
        "near": [] if explained is None else _near(explained),
    }


def _near(explained: Document) -> list[Document]:
    """The nearest rows that were trained on, and those that filter removed."""
    rows = [(f"trained on, {row['similarity']:.2f} alike", row) for row in explained["training"]]
    rows += [(f"removed by {row['rule']}, {row['similarity']:.2f} alike", row) for row in explained["removed"]]
    return [{"label": label, "prompt": row["prompt"], "completion": row["completion"]} for label, row in rows]


def notes(item: PromptAnswers, scores: Document) -> list[str]:
    """What else is to be said of the student's answer, and of the teacher's."""
    student, found = item.student, []
    if student["finish_reason"] != "stop":
        found.append(f"the student did not stop by itself ({student['finish_reason']})")
    if student["scores"].get("valid") == 0:
        found.append("the student's answer does not have the form")
    if scores["measures"][scores["primary"]]["share"] and item.score("teacher", scores["primary"]) == 0:
        found.append("the teacher erred")
    return found


def cut(text: str) -> str:
    """The first words of a long text."""
    end = next((match.end() for number, match in enumerate(re.finditer(r"\S{1,100}", text), 1) if number == WORDS), len(text))
    return text if end >= len(text) else text[:end] + " …"


def difference(wanted: str, text: str) -> list[tuple[str, str]]:
    """The text as parts ("same" | "added" | "missing", words): what is only here, and what only `wanted` has.

    A text that shares little with `wanted` comes back whole, unmarked.
    """
    old, new = re.findall(r"\S+\s*|\s+", wanted), re.findall(r"\S+\s*|\s+", text)
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False)
    parts: list[tuple[str, str]] = []
    if matcher.ratio() < ALIKE:
        return [("same", text)] if text else parts
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(new[new_from:new_to])))
            continue
        for name, words in (("missing", old[old_from:old_to]), ("added", new[new_from:new_to])):
            if words:
                run_of_words = "".join(words)
                parts.append((name, run_of_words.rstrip()))
                parts.append(("same", run_of_words[len(run_of_words.rstrip()) :] or " "))
    return parts


# --- the browser's data -----------------------------------------------------------------------------------------------


def _repeats(item: PromptAnswers, role: str, other: str) -> bool:
    mine, its = item.answers.get(role), item.answers.get(other)
    return mine is not None and its is not None and texts_of(mine) == texts_of(its)


def browser_data(items: Sequence[PromptAnswers], scores: Document) -> str:
    """All items as the JSON that report.js reads, safe within a script element: it holds no `<`, `>`, `&` nor line separator.

    A text that equals an earlier contestant's is its number. Texts are cut alike, so far as all together need it.
    """
    primary = scores["primary"]
    first = [role for role in ("student", "teacher", "base") if role in scores["models"]]
    roles = first + [role for role in scores["models"] if role not in (*first, *UNSCORED)]
    if all(_repeats(item, "ceiling", "teacher") for item in items) and "ceiling" in roles:
        roles.remove("ceiling")  # a teacher that repeats itself to the letter
    most = max(SHORTEST, CHARACTERS // max(1, len(items) * (len(roles) + 2)))

    def text(value: str) -> str:
        shown = visible(value[:most] if len(value) > most else cut(value))
        return shown if len(value) <= most else shown + " …"

    def answers(item: PromptAnswers) -> list[str | int | None]:
        said = [texts_of(item.answers[role]) if role in item.answers else None for role in roles]
        return [
            None if one is None else said.index(one) if said.index(one) < number else text(one)
            for number, one in enumerate(said)
        ]

    rank = {item.id: place for place, item in enumerate(worst_first(items))}
    found = []
    for item in items:
        student = item.student
        found.append(
            {
                "id": visible(item.id),
                "slice": None if student["slice"] is None else visible(student["slice"]),
                "prompt": text(prompt_of(student)),
                "reference": None if student["reference"] is None else text(student["reference"]),
                "texts": answers(item),
                "scores": [None if (score := item.score(role, primary)) is None else round(score, 1) for role in roles],
                "gap": round(item.gap, 1),
                "regressed": item.regressed,
                "notes": [visible(note) for note in notes(item, scores)],
                "confidence": student.get("confidence"),
                "rank": rank[item.id],
            }
        )
    data = {"roles": roles, "share": scores["measures"][primary]["share"], "items": found}
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written
