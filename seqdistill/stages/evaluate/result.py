"""What eval returns: the content of scores.json, and the rows of the tables that the terminal prints."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.runs import Run
from seqdistill.stages.evaluate.recommendation import Recommendation, recommend
from seqdistill.stages.evaluate.shown import count, counterpart, percent, point, span, speed, times, usd
from seqdistill.stages.evaluate.table import comparator_of
from seqdistill.stages.evaluate.written import scores_in

NAMED = (
    *("decision", "margin", "needed", "accuracy", "macro_f1", "confusion", "kappa", "majority"),
    *("usd_per_1000", "break_even_requests", "p50", "p95"),
)


@dataclass(frozen=True)
class EvalResult:
    """What eval found. `scores` is the content of scores.json."""

    scores: dict[str, Any]
    paths: dict[str, Path]  # predictions, scores, report
    seconds: float
    up_to_date: bool

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, in sentences, the headline first."""
        return list(self.scores["verdict"])

    @property
    def named(self) -> dict[str, Any]:
        """Those of scores.json's keys whose names are fixed, for scripts: what the run has of them. Times are the student's."""
        return {name: self.scores[name] for name in NAMED if name in self.scores}

    @property
    def failed(self) -> int:
        """Requests that failed, of all models."""
        return sum(facts.get("failed", 0) for facts in self.scores["models"].values())

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.paths["scores"].parent.parent

    @property
    def advice(self) -> Recommendation:
        """What to make of it, and what to do next, with commands as this machine takes them."""
        return recommend(self.scores, shlex.quote(str(self.run)))

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`, short enough for 80 columns."""
        return ["model", *self._cells(self.scores["models"]["student"])]

    @property
    def rows(self) -> list[list[str]]:
        """One row a contestant, ready to print."""
        return [[role, *self._cells(facts).values()] for role, facts in self.scores["models"].items()]

    @property
    def slice_columns(self) -> list[str]:
        """The heads of `slice_rows`: the primary metric of each model, and the share of the teacher kept."""
        return ["slice", "n", *self._slice_cells(self.scores)]

    @property
    def slice_rows(self) -> list[list[str]]:
        """One row a slice, ready to print; none when the test set has no slices."""
        slices = self.scores["slices"]
        return [[part["slice"] or "–", str(part["n"]), *self._slice_cells(part).values()] for part in slices]

    @property
    def cost_columns(self) -> list[str]:
        """The heads of `cost_rows`, of which fit into 80 columns what the run has. Times are p50 and p95 in seconds."""
        return ["model", *self._cost_cells(self.scores["models"]["student"], {})]

    @property
    def cost_rows(self) -> list[list[str]]:
        """One row a model that was measured or priced; none where none was. Times on different bases are marked apart."""
        marks = self._marks()
        return [
            [role, *self._cost_cells(facts, marks).values()]
            for role, facts in self.scores["models"].items()
            if "p50" in facts or facts.get("usd_per_1000") is not None
        ]

    @property
    def cost_notes(self) -> list[str]:
        """What the times and prices of `cost_rows` rest on, and the recipe's keys to write for those that are missing."""
        notes = [f"{mark or 'times'}: {basis}" for basis, mark in self._marks().items()]
        found = self.scores.get("cost")
        if not found:
            return notes
        by_basis: dict[str, list[str]] = {}
        for role, of in found["inputs"].items():
            if of["hourly_usd"] is not None:
                by_basis.setdefault(of["rate_basis"], []).append(role)
        use = f"{found['terms']['utilisation']:.0%} of the time"
        notes += [f"machine of {', '.join(roles)}: in use {use}, {basis}" for basis, roles in by_basis.items()]
        if (several := found["terms"].get("answers_a_request", 1)) > 1:
            notes.append(f"USD of one answer; a request to the student takes {several}, whose agreement is its confidence")
        if found["missing"]:
            notes.append(f"no price: write {', '.join(found['missing'])} into the recipe")
        return notes

    def _marks(self) -> dict[str, str]:
        """A letter for each basis of a time; none where all have the same."""
        bases = dict.fromkeys(facts["latency_basis"] for facts in self.scores["models"].values() if "p50" in facts)
        return {basis: chr(ord("a") + number) if len(bases) > 1 else "" for number, basis in enumerate(bases)}

    def _cost_cells(self, facts: dict[str, Any], marks: dict[str, str]) -> dict[str, str]:
        mark = f" {marks.get(facts.get('latency_basis', ''), '')}".rstrip()
        cells = {
            "1st token s": span(facts.get("first_token_p50"), facts.get("first_token_p95")) + mark,
            "answer s": span(facts.get("p50"), facts.get("p95")) + mark,
            "tok/s": "–" if "p50" not in facts else f"{facts['latency_tokens_per_second']:.0f}",
        }
        limited = any("at_limit" in of for of in self.scores["models"].values())
        if limited:
            best = facts.get("at_limit")
            cells["most at once"] = f"{best['at_once']} ({best['requests_per_second']:.2g}/s)" if best else "–"
        cells["USD/1,000"] = usd(facts.get("usd_per_1000"))
        if self.scores["measures"][self.scores["primary"]]["share"]:
            cells["USD/right"] = usd(facts.get("usd_per_right"))
        return cells if limited else cells | {"memory": count(facts.get("memory_bytes"), "B")}

    @property
    def safety_columns(self) -> list[str]:
        """The heads of `safety_rows`: percent refused and over-refused, canaries revealed, longest run of words from a
        training answer, percent of answers with personal data, nats per token of general text.
        """
        return ["model", "refuses", "over-refuses", "canaries", "longest run", "personal data", "general text"]

    @property
    def safety_rows(self) -> list[list[str]]:
        """One row a model that [eval.safety] sent something to; none where nothing was sent."""
        found = self.scores.get("safety")
        sent = {name: found[name]["models"] for name in ("refusals", "canaries", "forgetting") if found[name]} if found else {}
        if not found or not sent:
            return []
        parts = {**sent, "runs": (found["memorised"] or {}).get("models", {}), "data": found["personal_data"]["models"]}
        rows = []
        for role in (role for role in self.scores["models"] if any(role in models for models in sent.values())):
            of = {name: models.get(role) or {} for name, models in parts.items()}
            loss = of.get("forgetting", {}).get("value")
            rows.append(
                [
                    role,
                    percent(point(of.get("refusals", {}).get("refused"))),
                    percent(point(of.get("refusals", {}).get("over_refused"))),
                    str(len(of["canaries"]["ids"])) if of.get("canaries") else "–",
                    str(of["runs"]["longest"]["words"]) if of["runs"] else "–",
                    percent(point(of["data"].get("answers"))),
                    "–" if loss is None else f"{loss:.2f}",
                ]
            )
        return rows

    @property
    def regressions(self) -> list[dict[str, Any]]:
        """The explained prompts that base or teacher answered better than the student, the largest loss first."""
        return list(self.scores["regressions"]["items"])

    @property
    def regressed(self) -> str:
        """How many prompts base or teacher answered better, in words; empty where there are none."""
        found = self.scores["regressions"]["found"]
        if not found:
            return ""
        measure = self.scores["measures"][self.scores["primary"]]
        did = "right and the student wrong" if measure["share"] else "better than the student"
        return f"{found} of {self.scores['n']} prompts that base or teacher answered {did} ({measure['heading']})"

    def _cells(self, facts: dict[str, Any]) -> dict[str, str]:
        """A contestant's cells by their heads: one interval, or two with a form, fit into 80 columns."""
        primary, measures = self.scores["primary"], self.scores["measures"]
        other = counterpart(primary)
        cells = {measures[primary]["heading"]: percent(facts[primary])}
        if other and self.scores["models"]["student"].get(other):
            cells[measures[other]["heading"]] = percent(point(facts[other]) if "form" in self.scores else facts[other])
        if "form" in self.scores:  # what has it has ended, and is as long as it must be
            cells["valid"] = percent(facts["valid"])
        else:
            cells |= {"stops": percent(point(facts["stopped"])), "length": times(point(facts["length_ratio"]))}
        return cells | {"tok/s": speed(self.scores, facts), "size": count(facts.get("parameters"))}

    def _slice_cells(self, part: dict[str, Any]) -> dict[str, str]:
        primary = self.scores["primary"]
        shown = {"student": percent(part["models"]["student"][primary])}
        free = [role for role in ("copy", "majority", "nearest") if role in part["models"]][:1]
        for role in ("base", *free, comparator_of(primary)):
            if role in part["models"]:
                shown[role] = percent(point(part["models"][role][primary]))
        kept = next((cell for cell in part["kept"] if cell["metric"] == primary), None)
        shown["kept %"] = percent(point(kept))
        if part.get("judged"):
            shown["decision"] = part["judged"]["decision"].lower()
        return shown


OUTPUTS = ("predictions.jsonl", "scores.json", "deferral.json", "report.html")


def paths_of(run: Run, names: Sequence[str] = OUTPUTS) -> dict[str, Path]:
    """Eval's files by name."""
    return {name.partition(".")[0]: run.file("eval", name) for name in names}


def read_result(run: Run) -> EvalResult | None:
    """What a finished eval found; None before. Raises UsageError for a damaged scores.json."""
    paths = paths_of(run)
    if run.manifest("eval") is None or not paths["scores"].is_file():
        return None
    return EvalResult(scores_in(run), paths, 0.0, up_to_date=True)
