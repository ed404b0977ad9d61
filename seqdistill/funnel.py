"""What became of a run's requests: the funnel that cards and reports show, read from the manifests of generate and filter.

Owns the names and the order of the steps. Lays nothing out.
"""

from dataclasses import dataclass
from pathlib import Path

from seqdistill.runs import Run


@dataclass(frozen=True)
class FunnelStep:
    """One line of the funnel: how many rows, and whether they are rows that were lost."""

    name: str
    rows: int
    lost: bool = False


def funnel(run: Run) -> list[FunnelStep]:
    """From the requests to the rows trained on; without a filtered stage it ends with the answers. Empty before generate."""
    generated, filtered = rows_of(run, "generate"), rows_of(run, "filter")
    answers, failures = generated.get("samples.jsonl", 0), generated.get("failures.jsonl", 0)
    if not answers + failures:
        return []
    steps = [
        FunnelStep("requests", answers + failures),
        FunnelStep("failed", failures, lost=True),
        FunnelStep("answers", answers),
    ]
    if filtered:
        by_rule: dict[str, int] = (run.manifest("filter") or {}).get("result", {}).get("by_rule", {})
        ranked = sorted(by_rule.items(), key=lambda pair: -pair[1])
        steps += [FunnelStep(f"rejected: {rule}", rows, lost=True) for rule, rows in ranked]
        steps += [
            FunnelStep("kept to train on", filtered.get("train.jsonl", 0)),
            FunnelStep("kept for validation", filtered.get("validation.jsonl", 0)),
        ]
    return steps


def rows_of(run: Run, stage: str) -> dict[str, int]:
    """By name, the rows of each file that a stage wrote; empty when the stage is not done."""
    outputs = (run.manifest(stage) or {}).get("outputs", ())
    return {Path(output["path"]).name: output["rows"] or 0 for output in outputs}
