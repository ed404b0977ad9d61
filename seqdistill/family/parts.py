"""The parts of a learning curve: which rows a training gets, and what of the recipe changes with it. Trains nothing.

Prompts are ordered by a hash and counted in eighths, so that parts are nested and the same in every run.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from seqdistill.errors import UsageError
from seqdistill.family.members import Member, link
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import Sample, read_jsonl, read_samples, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.methods import hidden

FOLDER = "curve"
WHOLE = 8  # eighths
NESTED = (8, 4, 2, 1)  # eighths, the whole first
FEWEST_PROMPTS = 2 * WHOLE
COUNTED = ("max_steps", "warmup_steps", "eval_steps")  # of [train.args]: fewer steps have the same shares of them


@dataclass(frozen=True)
class Part:
    """Which eighths of the prompts a training gets: from `first` on, up to `end`."""

    name: str  # of its directory
    first: int
    end: int

    @property
    def share(self) -> str:
        """As people say it."""
        count = self.end - self.first
        share = {1: "1/8", 2: "1/4", 4: "1/2", 8: "all"}[count]
        return f"{share}, part {self.first + 1}" if self.first else share


def parts_of(repeats: int) -> list[Part]:
    """The whole first, because it decides what is held fixed; then its nested parts, and as many other eighths.

    Raises UsageError for more repeats than there are other eighths.
    """
    if not 0 <= repeats < WHOLE:
        raise UsageError(f"repeats = {repeats}: there are {WHOLE - 1} other eighths", f"pass 0 to {WHOLE - 1}")
    nested = [Part("all" if count == WHOLE else f"eighths-{count}", 0, count) for count in NESTED]
    return nested + [Part(f"again-{number}", number, number + 1) for number in range(1, repeats + 1)]


def in_order(prompts: Iterable[str]) -> list[str]:
    """The ids of prompts, each once, in the order in which parts take them."""
    return sorted(set(prompts), key=lambda name: hashlib.sha256(f"curve {name}".encode()).hexdigest())


def for_part(recipe: Recipe, part: Part, whole: Member, rows: Sequence[Sample]) -> Recipe:
    """The recipe for a part: as many epochs, and the same untrained student, although the rows choose what is cut.

    `rows` are the part's: what the recipe says of teachers, references or reasoning that none of them has is left out.
    """
    student, config = recipe.student, applicable(recipe.train, rows)
    by_rows = config.width < 1 or (config.vocabulary == "task" and not hidden.term_weights(config))
    if by_rows:  # neurons, and the tokens of references and edits; the terms take the student's layers by its own cut
        student = replace(student, model=str(whole.run.file("train", "base").absolute()), revision=None)
        config = replace(config, vocabulary="all", width=1.0, layers=TrainConfig.layers)
    elif layers := ((whole.run.manifest("train") or {}).get("student") or {}).get("layers"):
        config = replace(config, layers=",".join(map(str, layers)))
    share = (part.end - part.first) / WHOLE
    shorter = {name: max(1, round(count * share)) for name in COUNTED if (count := config.args.get(name, 0)) >= 1}
    config = replace(config, args={**config.args, **shorter})
    return replace(recipe, student=student, train=config)


def applicable(config: TrainConfig, rows: Sequence[Sample]) -> TrainConfig:
    """[train] without the weights of teachers, the references and the reasoning of which these rows have none."""
    default, teachers = TrainConfig(), {row.teacher for row in rows}
    weights = {name: weight for name, weight in config.teacher_weights.items() if name in teachers}
    config = replace(config, teacher_weights=weights)
    if not any((row.reference or "").strip() for row in rows):
        config = replace(config, reference_weight=default.reference_weight, references=default.references)
    if not any(row.reasoning for row in rows):
        names = ("reasoning", "rationale", "rationale_weight")
        config = replace(config, **{name: getattr(default, name) for name in names})
    return config


def rows_of(run: Run, part: Part, prompts: Sequence[str]) -> list[Sample]:
    """The run's training rows of a part's prompts."""
    wanted = _prompts_of(part, prompts)
    return [row for row in read_samples(run.file("filter", "train.jsonl")) if row.prompt_id in wanted]


def _prompts_of(part: Part, prompts: Sequence[str]) -> set[str]:
    first, end = (len(prompts) * eighths // WHOLE for eighths in (part.first, part.end))
    return set(prompts[first:end])


def write_part(run: Run, member: Run, part: Part, prompts: Sequence[str]) -> None:
    """The filter stage of a part: the rows of its prompts in the run's order, and all validation rows."""
    files = {name: run.file("filter", f"{name}.jsonl") for name in ("train", "validation")}
    record = StageRecord(member, "filter", {"curve.first": part.first, "curve.end": part.end}, files)
    if run.file("filter", "journal.jsonl").is_file():
        link(member.file("filter", "journal.jsonl"), run.file("filter", "journal.jsonl"))
    if record.up_to_date():
        return
    wanted = _prompts_of(part, prompts)
    with record.new_files() as new:
        rows = write_jsonl(new / "train.jsonl", (r for _, r in read_jsonl(files["train"]) if r["prompt_id"] in wanted))
        held_back = write_jsonl(new / "validation.jsonl", (row for _, row in read_jsonl(files["validation"])))
    record.finish({"train.jsonl": rows, "validation.jsonl": held_back}, config={}, part=asdict(part))
