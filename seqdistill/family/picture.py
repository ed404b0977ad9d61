"""Pictures of points with intervals: the coordinates of a static SVG, which the page's template draws.

Does not know what is shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.stages.evaluate.shown import count

WIDTH, HEIGHT = 560, 300  # of a picture's box; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 44, 524, 14, 256  # of what is drawn in it
TICKS = 5


@dataclass(frozen=True)
class Mark:
    """One point with its name; `low` and `high` are the ends of its interval, where it has one."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    hollow: bool = False  # it does not pass
    labelled: bool = True  # else the name shows only where the pointer is


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name: what the points are held against."""

    name: str
    y: float
    kind: str = "grid"


@dataclass(frozen=True)
class Picture:
    """What one picture shows, in the units of its axes."""

    title: str
    x_name: str
    marks: Sequence[Mark]
    levels: Sequence[Level] = ()
    logarithmic: bool = False  # the x axis
    unit: str = ""  # of x: "B" or ""
    curve: Sequence[tuple[float, float]] = ()
    band: Sequence[tuple[float, float, float]] = field(default=())  # x, low, high

    def drawn(self) -> dict[str, Any]:
        """The picture in the coordinates of its box, for the template."""
        xs = [mark.x for mark in self.marks] + [x for x, _ in self.curve]
        ys = [value for mark in self.marks for value in (mark.y, mark.low, mark.high) if value is not None]
        ys += [level.y for level in self.levels] + [y for _, y in self.curve]
        x = _log_scale(xs) if self.logarithmic else _scale(0.0, max(xs), LEFT, RIGHT)
        y = _scale(min(ys), max(ys), BOTTOM, TOP, 100.0)
        inside = (y.start, y.end)
        band = [(at, *(min(max(value, inside[0]), inside[1]) for value in ends)) for at, *ends in self.band]
        return {
            "title": self.title,
            "x_name": self.x_name,
            "box": f"0 0 {WIDTH} {HEIGHT}",
            "edges": {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
            "x": [{"at": x.at(tick), "label": _short(tick, self.unit)} for tick in x.ticks],
            "y": [{"at": y.at(tick), "label": f"{tick:g}"} for tick in y.ticks],
            "levels": [{"at": y.at(level.y), "label": level.name, "kind": level.kind} for level in self.levels],
            "marks": [
                {
                    "name": mark.name,
                    "x": x.at(mark.x),
                    "y": y.at(mark.y),
                    "low": None if mark.low is None else y.at(mark.low),
                    "high": None if mark.high is None else y.at(mark.high),
                    "anchor": "end" if x.at(mark.x) > (LEFT + 3 * RIGHT) / 4 else "start",
                    "hollow": mark.hollow,
                    "labelled": mark.labelled,
                    "text": f"{mark.name}: {mark.y:.1f} at {_short(mark.x, self.unit)}",
                }
                for mark in self.marks
            ],
            "curve": " ".join(f"{x.at(at)},{y.at(min(max(level, inside[0]), inside[1]))}" for at, level in self.curve),
            "band": " ".join(
                [f"{x.at(at)},{y.at(high)}" for at, _, high in band] + [f"{x.at(at)},{y.at(low)}" for at, low, _ in band[::-1]]
            ),
        }


@dataclass(frozen=True)
class _Scale:
    start: float
    end: float
    first: int  # pixels
    last: int
    ticks: list[float]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        ends = (self.start, self.end, value)
        start, end, here = (math.log(one) for one in ends) if self.logarithmic else ends
        return round(self.first + (self.last - self.first) * (here - start) / (end - start), 1)


def _short(value: float, unit: str) -> str:
    """A number of the x axis: 142 MB, 3,008, 0.002."""
    if unit:
        return count(value, unit)
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _scale(low: float, high: float, first: int, last: int, most: float = math.inf) -> _Scale:
    """A linear scale with round ticks that covers low to high, and does not go on beyond `most` without need."""
    spread = max(high - low, abs(high) * 1e-6, 1e-9)
    step = 10.0 ** math.floor(math.log10(spread / TICKS))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10, 20) if spread / (step * factor) <= TICKS)
    start, end = math.floor(low / step) * step, math.ceil(high / step) * step
    end = end if end > start else start + step
    end = most if high <= most < end else end
    return _Scale(start, end, first, last, [round(start + n * step, 10) for n in range(int((end - start) / step + 1e-9) + 1)])


def _log_scale(values: Sequence[float]) -> _Scale:
    """A logarithmic scale whose ticks are doublings, every second one or fewer where there are many."""
    low, high = min(values), max(values)
    doublings = max(1, math.ceil(math.log2(high / low)))
    every = max(1, math.ceil(doublings / TICKS))
    ticks = [low * 2**n for n in range(0, doublings + 1, every) if low * 2**n <= high * 1.001]
    return _Scale(low / 1.08, max(high, low * 1.5) * 1.08, LEFT, RIGHT, ticks, logarithmic=True)
