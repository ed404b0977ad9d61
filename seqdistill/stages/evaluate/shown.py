"""How numbers are written, the same in the terminal, the sentences, the report and the card."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

Cell = dict[str, Any]  # value, low, high, n


def percent(cell: Cell | None, sign: str = "", unit: str = "") -> str:
    """ "58.9 [55.1, 62.4]", the unit after the first number; a dash where there is nothing."""
    return _shown(cell, f"{sign}.1f", unit)


def points(cell: Cell | None) -> str:
    """A difference: "+4.1 points [1.5, 6.7]"."""
    return _shown(cell, "+.1f", " points")


def times(cell: Cell | None) -> str:
    """ "1.04 [0.98, 1.11]"."""
    return _shown(cell, ".2f")


def _shown(cell: Cell | None, form: str, unit: str = "") -> str:
    if cell is None or cell["value"] is None:
        return "–"
    span = "" if cell["low"] is None else f" [{cell['low']:{form}}, {cell['high']:{form}}]"
    return f"{cell['value']:{form}}{unit}{span}"


def p_value(value: float) -> str:
    """ "p = 0.031"; none is 0."""
    return f"p = {value:.3g}" if value >= 1e-3 else "p < 0.001"


def prompts(n: int) -> str:
    """ "1 held-out prompt", "12 held-out prompts"."""
    return f"{n} held-out prompt{'s' * (n != 1)}"


def listed(clauses: Sequence[str]) -> str:
    """ "one", "one and two", "one, two, and three"."""
    return " and ".join(clauses) if len(clauses) < 3 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def point(cell: Cell | None) -> Cell | None:
    """The cell without its interval."""
    return cell and {**cell, "low": None, "high": None}


def count(value: float | None, unit: str = "") -> str:
    """A large number as a person says it: 57.2M, 269 MB (with unit B)."""
    if value is None:
        return "–"
    for scale, letter in ((1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            number = f"{value / scale:.3g}" if value < 999.5 * scale else f"{value / scale:.0f}"
            return f"{number} {letter}{unit}" if unit else number + letter
    return f"{value:.0f} {unit}".strip()


def span(low: float | None, high: float | None) -> str:
    """Two times in seconds: "0.041–0.12"; a dash where there is nothing."""
    return "–" if low is None or high is None else f"{low:.2g}–{high:.2g}" if high < 100 else f"{low:.0f}–{high:.0f}"


def usd(value: float | None) -> str:
    """An amount in USD: "0.000075", "0.10", "1,234"; a dash where it is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value >= 0.1 or not value else f"{Decimal(f'{value:.2g}'):f}"


def run_name(path: Path) -> str:
    """A run directory in what others read: as it was named, without this machine's folders where that was a whole path."""
    return path.name if path.is_absolute() else str(path)


def counterpart(measure: str) -> str | None:
    """The same metric against the other: the references for the teacher, the teacher for the references; None for others."""
    metric, _, against = measure.rpartition("_")
    return {"teacher": f"{metric}_reference", "reference": f"{metric}_teacher"}.get(against)


def speed(scores: dict[str, Any], facts: dict[str, Any]) -> str:
    """A model's tokens/s; a dash where it was not measured as the student's was: such numbers are not shown side by side."""
    value = facts.get("tokens_per_second")
    comparable = facts.get("speed_basis") == scores["models"]["student"].get("speed_basis")
    return f"{value:.0f}" if value and comparable else "–"


def usd_per_1000(scores: dict[str, Any], role: str) -> float | None:
    """USD for 1,000 requests of a model: as eval priced it, or from what its answers cost; None without a price."""
    facts = scores["models"].get(role, {})
    if isinstance(known := facts.get("usd_per_1000"), (int, float)):
        return float(known)
    paid, answers = facts.get("usd"), scores["prompts"]
    return None if paid is None or not answers else 1000 * paid / answers
