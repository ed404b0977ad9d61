"""Counters of a server, in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # upper ends of the buckets
COUNTERS = {
    "requests": "Chat requests that were answered, by who answered and why not the other one",
    "errors": "Requests that ended in an error, by its code",
    "student_failures": "Requests to which the student gave no answer",
    "vanished": "Clients that went away before their answer was complete",
    "shadows": "Answers of the student that the teacher checked, by how it went",
    "feedback": "Corrections and ratings that were sent in",
    "tokens": "Tokens of answers, by who answered and of what",
}


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[tuple[tuple[str, str], ...]]] = {name: Counter() for name in COUNTERS}
        self._seconds: dict[str, Counter[float]] = {}
        self._sums: dict[str, float] = {}
        self.in_flight = 0

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Adds to a counter."""
        self._counts[name][tuple(labels.items())] += by

    def took(self, model: str, seconds: float) -> None:
        """An answer was complete after so long."""
        buckets = self._seconds.setdefault(model, Counter())
        buckets[(*SECONDS, math.inf)[bisect_left(SECONDS, seconds)]] += 1
        self._sums[model] = self._sums.get(model, 0.0) + seconds

    def answered(self) -> Counter[str]:
        """How many requests each model answered."""
        found: Counter[str] = Counter()
        for labels, number in self._counts["requests"].items():
            found[dict(labels)["model"]] += number
        return found

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """The page. `gauges` are further values by name, with their help."""
        return "\n".join(self._lines({"in_flight": ("Chat requests that are under way", self.in_flight), **gauges})) + "\n"

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        for name, text in COUNTERS.items():
            yield f"# HELP seqdistill_{name}_total {text}"
            yield f"# TYPE seqdistill_{name}_total counter"
            for labels, number in sorted(self._counts[name].items()):
                yield f"seqdistill_{name}_total{_labels(labels)} {number}"
        yield "# HELP seqdistill_seconds Time until an answer was complete"
        yield "# TYPE seqdistill_seconds histogram"
        for model, buckets in sorted(self._seconds.items()):
            reached = 0
            for end in SECONDS:
                reached += buckets[end]
                yield f'seqdistill_seconds_bucket{{model="{model}",le="{end:g}"}} {reached}'
            yield f'seqdistill_seconds_bucket{{model="{model}",le="+Inf"}} {buckets.total()}'
            yield f'seqdistill_seconds_sum{{model="{model}"}} {self._sums[model]:.12g}'
            yield f'seqdistill_seconds_count{{model="{model}"}} {buckets.total()}'
        for name, (text, value) in gauges.items():
            yield f"# HELP seqdistill_{name} {text}"
            yield f"# TYPE seqdistill_{name} gauge"
            yield f"seqdistill_{name} {value:.12g}"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in labels}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}" if labels else ""
