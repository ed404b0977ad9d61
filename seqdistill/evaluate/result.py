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
        return ["model", *self._cells(self.scores["models"]["student"])]

    @property
    def rows(self) -> list[list[str]]:
        """One row a model, ready to print."""
        return [[model, *self._cells(facts).values()] for model, facts in self.scores["models"].items()]

    @property
    def slice_columns(self) -> list[str]:
        """The heads of `slice_rows`: the primary metric of each model, and the share of the teacher kept."""
        return ["slice", "n", *self._slice_cells(self.scores)]

    @property
    def slice_rows(self) -> list[list[str]]:
        """One row a slice, ready to print; none when the test set has no slices."""
        slices = self.scores["slices"]
        return [[part["slice"] or "–", str(part["n"]), *self._slice_cells(part).values()] for part in slices]

    def _cells(self, facts: dict[str, Any]) -> dict[str, str]:
        """A model's cells by their heads. Two intervals fit into 80 columns; with a form the second is that of `valid`."""
        primary, other = both_ways(self.scores["primary"])
        cells = {METRICS[primary]: percent(facts[primary])}
        if "form" in self.scores:  # what has it has ended, and is as long as it must be
            cells |= {METRICS[other]: percent(_point(facts[other])), "valid": percent(facts["valid"])}
        else:
            cells |= {METRICS[other]: percent(facts[other]), "stops": percent(_point(facts["stopped"]))}
            cells |= {"length": times(_point(facts["length_ratio"]))}
        speed = facts.get("tokens_per_second")
        return cells | {"tok/s": f"{speed:.0f}" if speed else "–", "size": count(facts.get("parameters"))}

    def _slice_cells(self, part: dict[str, Any]) -> dict[str, str]:
        primary = self.scores["primary"]
        cells = {model: part["models"][model][primary] for model in ("student", "base", "copy", upper(primary))}
        kept = next((cell for cell in part["kept"] if cell["metric"] == primary), None)
        shown = {model: percent(cell if model == "student" else _point(cell)) for model, cell in cells.items()}
        if "form" not in self.scores:
            return shown | {"kept %": percent(kept)}
        del shown["copy"]  # which has no form
        return shown | {"kept %": percent(_point(kept)), "valid": percent(part["models"]["student"]["valid"])}


def _point(cell: dict[str, Any] | None) -> dict[str, Any] | None:
    return cell and {**cell, "low": None, "high": None}
