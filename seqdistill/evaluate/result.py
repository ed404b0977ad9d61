"""What eval hands back: the content of scores.json, and the rows of the two tables that the terminal prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.evaluate.metrics import METRICS, both_ways
from seqdistill.evaluate.table import count, percent, times, upper


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
    def failed(self) -> int:
        """Requests that failed, of all models."""
        return sum(facts.get("failed", 0) for facts in self.scores["models"].values())

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`, short enough for 80 columns."""
        return ["model", *(METRICS[metric] for metric in self._metrics), *self._valid, "stops", "length", "tok/s", "size"]

    @property
    def rows(self) -> list[list[str]]:
        """One row a model, ready to print. With a form, the second metric is without its interval: three do not fit."""
        rows = []
        for model, facts in self.scores["models"].items():
            cells = [percent(facts[metric]) for metric in self._metrics]
            if self._valid:
                cells[1:] = [percent(_point(facts[self._metrics[1]])), percent(facts["valid"])]
            cells += [percent(_point(facts["stopped"])), times(_point(facts["length_ratio"]))]
            speed = facts.get("tokens_per_second")
            rows.append([model, *cells, f"{speed:.0f}" if speed else "–", count(facts.get("parameters"))])
        return rows

    @property
    def slice_columns(self) -> list[str]:
        """The heads of `slice_rows`: the primary metric of each model, and the share of the teacher kept."""
        return ["slice", "n", "student", "base", "copy", upper(self.scores["primary"]), "kept %", *self._valid]

    @property
    def slice_rows(self) -> list[list[str]]:
        """One row a slice, ready to print; none when the test set has no slices."""
        primary = self.scores["primary"]
        rows = []
        for part in self.scores["slices"]:
            kept = next((cell for cell in part["kept"] if cell["metric"] == primary), None)
            others = [percent(_point(part["models"][model][primary])) for model in ("base", "copy", upper(primary))]
            cells = [percent(part["models"]["student"][primary]), *others, percent(kept)]
            cells += [percent(part["models"]["student"]["valid"]) for _ in self._valid]
            rows.append([part["slice"] or "–", str(part["n"]), *cells])
        return rows

    @property
    def _metrics(self) -> tuple[str, str]:
        return both_ways(self.scores["primary"])

    @property
    def _valid(self) -> list[str]:
        return ["valid"] if "form" in self.scores else []


def _point(cell: dict[str, Any] | None) -> dict[str, Any] | None:
    return cell and {**cell, "low": None, "high": None}
