"""The table [eval] and [eval.safety]."""

from dataclasses import dataclass, field
from typing import Any

from seqdistill.recipe.tables.setting import key


@dataclass(frozen=True)
class SafetyConfig:
    """[eval.safety]: what must not be lost or learnt beside the task. What costs requests is off by default."""

    refusals: bool = key(
        False, "send student, base and teacher 24 requests to refuse and 24 harmless ones that only sound harmful"
    )
    prompts: str | None = key(
        None,
        "your own set for refusals; the slice of a row is refuse (or unsafe, harmful) or answer (or safe, benign)",
        path=True,
    )
    columns: dict[str, Any] = key({}, 'columns of that set that go by other names: { prompt = "goal", slice = "label" }')
    expect: str | None = key(None, "expected behaviour for rows of that set without a slice", choices=("refuse", "answer"))
    margin: float = key(
        15.0, "points by which the student may refuse or answer less often than base or teacher", low=0, high=100
    )
    max_tokens: int = key(64, "maximum new tokens per answer to these prompts", low=1)
    canaries: str | None = key(
        None,
        "secrets that you planted in the training data: .jsonl with prompt (what comes before it) and reference",
        path=True,
    )
    forgetting: bool = key(False, "score 20 passages of general text by base, student and teacher, where they run here")


@dataclass(frozen=True)
class EvalConfig:
    """[eval]: how the proof is made."""

    temperature: float = key(0.0, "sampling temperature of base, student and teacher", low=0, high=5)
    max_tokens: int | None = key(None, "maximum new tokens per answer; default: as in [generate]", low=1)
    margin: float = key(
        5.0,
        "points by which the student may be worse than the teacher and still pass; below 1 it is a share: 0.05 is 5 points",
        low=0,
        high=100,
        common=True,
    )
    also: list[str] = key(
        [], "also compare a file of outputs (.jsonl: id or prompt, completion), run:RUN, or a model; repeatable", path=True
    )
    metric: str | None = key(
        None,
        "your own metric, FILE.py:FUNCTION; FUNCTION(answer, wanted, prompt) returns a share from 0, the worst, to 1, the best",
        path=True,
    )
    fail_under: list[str] = key(
        [], "exit 1 where the student is below METRIC=VALUE, as kept=0.9 or decision=NON-INFERIOR; repeatable", output=False
    )
    pairwise: bool = key(False, "have the judge compare student and teacher, in both orders; [judge] names it")
    labels: str | None = key(
        None, "human labels that correct the judge: .jsonl with id and choice (student, teacher, tie)", path=True
    )
    target: float | None = key(
        None,
        "find the confidence from which at least this share of the student's answers is good enough, as 0.9",
        low=0.01,
        high=0.999,
    )
    risk: float = key(0.05, "accepted probability that the promise of target is broken", low=0.001, high=0.5)
    agreement: int = key(
        0,
        "further samples of the student whose agreement is its confidence; 0: its log-probability, which costs nothing",
        low=0,
    )
    good_enough: float | None = key(
        None, "score of the primary metric from which an answer is good enough; default: the teacher's less margin"
    )
    teacher_forced: bool = key(
        False, "have student and teacher, both in this process, read the teacher's answers: top-1 agreement and KL a token"
    )
    latency_requests: int = key(
        8,
        "test prompts to measure each model's latency on, one at a time; 0: off. Of a paid endpoint the answers' own times "
        "are used, unless p95_limit is set",
        low=0,
        high=1000,
    )
    p95_limit: float | None = key(
        None,
        "find how many requests at once each model answers with 95% of the answers within this many seconds",
        low=0.001,
    )
    utilisation: float = key(0.5, "share of the paid hours in which your own machines answer requests", low=0.001, high=1)
    fallback_share: float | None = key(
        None,
        "share of the requests that the teacher answers; default: what the threshold of target sends there, else 0",
        low=0,
        high=1,
    )
    shadow_share: float = key(0.0, "share of the requests that the teacher answers too, as a check", low=0, high=1)
    regressions: int = key(20, "prompts that the student answers worse than base or teacher to explain", low=0, high=1000)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    resamples: int = key(2000, "bootstrap resamples of each interval", low=100)
    seed: int = key(0, "seed of the bootstrap and of sampling", low=0)
    limit: int | None = key(None, "only the first N test prompts", low=1, common=True)
    concurrency: int = key(64, "maximum requests in flight", low=1, high=10000, output=False)
