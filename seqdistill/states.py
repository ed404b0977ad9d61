"""The state of a run's stages, read from its files: done, stale and by which key, running, failed. Changes and runs nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import STAGES, Run, StageRecord

NOT_WORK = (".lock", "estimate.json")  # in a stage's folder; the latter is --dry-run's


@dataclass(frozen=True)
class StageState:
    """One stage. `why` says what is stale, what failed or who is at work; `facts` what a finished stage left."""

    stage: str
    state: str  # done, stale, running, incomplete, failed, not run
    why: list[str] = field(default_factory=list)
    facts: str = ""
    finished: str | None = None  # ISO 8601, UTC
    seconds: float | None = None


@dataclass(frozen=True)
class Status:
    """The state of the four stages and the next command; None when there is nothing to do, or it is being done."""

    stages: list[StageState]
    next: str | None


def status_of(run: Run, recipe: Recipe) -> Status:
    """Reads the state of a run. Raises UsageError for a directory that is not there, and for a damaged manifest."""
    if not run.path.is_dir():
        raise UsageError(f"{run.path}: no such run", "check the name; `seqdistill run RUN -c RECIPE` makes one")
    states = states_before(run, recipe, None)
    return Status(states, _next(run, states))


def states_before(run: Run, recipe: Recipe, stage: str | None) -> list[StageState]:
    """The states of the stages before one, or of all. Raises UsageError for a damaged manifest."""
    states: list[StageState] = []
    for earlier in STAGES[: None if stage is None else STAGES.index(stage)]:
        first = next((one.stage for one in states if one.state != "done"), None)
        states.append(_state(run, recipe, earlier, first))
    return states


def _state(run: Run, recipe: Recipe, stage: str, first: str | None) -> StageState:
    """The state of one stage; `first` is the earlier one that has something to do, if any."""
    if who := run.at_work(stage):
        return StageState(stage, "running", [who], _progress(run, stage))
    from seqdistill.stages.train.checkpoints import is_unfinished

    manifest = run.manifest(stage)
    if manifest is None and stage == "generate" and not _has_recipe(run) and run.file(stage, "journal.jsonl").is_file():
        return StageState(
            stage, "not run", ["only probed, or stopped before its end; what was answered is kept"], _progress(run, stage)
        )
    if manifest is None:
        if stage == "generate" and _is_estimated(run):
            return StageState(stage, "not run", ["its cost was estimated last; the answers that its journal has are kept"])
        left = run.file(stage, "").is_dir() and any(path.name not in NOT_WORK for path in run.file(stage, "").iterdir())
        why = ["stopped before its end, by an error or by hand; what was done is kept"] if left else []
        return StageState(stage, "failed" if left else "not run", why)
    facts = {"facts": _facts(stage, manifest), "finished": manifest.get("finished"), "seconds": manifest["seconds"]}
    if manifest["status"] != "complete":
        return StageState(stage, "incomplete", ["some requests failed, or the budget was reached"], **facts)
    why = [f"{first} has to run first"] if first else []
    try:
        if (record := _record(run, recipe, stage)) and not record.up_to_date():
            why = [*_differences(manifest, record), *why]
    except UsageError as error:  # a run that was moved, without its prompts: what is there is still done
        return StageState(stage, "stale" if why else "done", [f"not compared with the recipe: {error.message}", *why], **facts)
    if why and stage == "train" and is_unfinished(run):
        why.append("a training that was to replace it stopped before its end, and what it did is kept")
    return StageState(stage, "stale" if why else "done", why, **facts)


def _is_estimated(run: Run) -> bool:
    """Whether a --probe was the last that was done to generate: its estimate is written behind its answers."""
    estimate, journal = run.file("generate", "estimate.json"), run.file("generate", "journal.jsonl")
    return estimate.is_file() and journal.is_file() and estimate.stat().st_mtime_ns >= journal.stat().st_mtime_ns


def _differences(manifest: dict[str, Any], record: StageRecord) -> list[str]:
    if manifest.get("imported"):
        return ["its answers are imported, and the recipe names prompts and a teacher: generate would request answers anew"]
    return record.differences() or ["its files have changed since"]


def _record(run: Run, recipe: Recipe, stage: str) -> StageRecord | None:
    """What the stage would compare with its manifest; None where no recipe makes it: imported answers, a curve's rows."""
    from seqdistill.stages.evaluate.inputs import Inputs as EvalInputs
    from seqdistill.stages.filter.stage import record_of as filter_record
    from seqdistill.stages.generate.inputs import Inputs as GenerateInputs
    from seqdistill.stages.generate.stage import is_imported
    from seqdistill.stages.train.stage import record_of as train_record

    manifest = run.manifest(stage) or {}
    if (stage == "generate" and is_imported(run, recipe)) or (stage == "filter" and manifest.get("part")):
        return None
    records: dict[str, Callable[[Run, Recipe], StageRecord]] = {
        "generate": lambda run, recipe: GenerateInputs.of(run, recipe).record,
        "filter": filter_record,
        "train": train_record,
        "eval": lambda run, recipe: EvalInputs.of(run, recipe).record,
    }
    return records[stage](run, recipe)


def _facts(stage: str, manifest: dict[str, Any]) -> str:
    """What a finished stage left, in a few words; empty where its manifest does not say."""
    result, counts = manifest.get("result", {}), manifest.get("counts", {})
    match stage:
        case "generate" if "samples" in counts:
            failed = f", {counts['failed']:,} failed" if counts.get("failed") else ""
            return f"{counts['samples']:,} answers{failed}"
        case "filter" if "kept" in result:
            return f"{result['kept']:,} of {result['read']:,} kept"
        case "train" if "steps" in counts:
            loss = counts.get("validation_loss") or counts.get("train_loss")
            return f"{counts['steps']:,} steps" + (f", loss {loss:.2f}" if loss is not None else "")
        case "eval" if manifest.get("verdict"):
            return str(manifest["verdict"][0]).partition(":")[0]
    return ""


def _progress(run: Run, stage: str) -> str:
    """How far a running stage is: the lines of what it appends to."""
    path = run.file("train", ".work/log.jsonl") if stage == "train" else run.file(stage, "journal.jsonl")
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return f"{lines:,} lines in {path.name}"


def _has_recipe(run: Run) -> bool:
    """Whether the run remembers a recipe or flags: a command that only shows something leaves none."""
    return any((run.path / name).is_file() for name in ("recipe.toml", "run.json"))


def _next(run: Run, states: list[StageState]) -> str | None:
    if any(one.state == "running" for one in states):
        return None
    todo = [one.stage for one in states if one.state != "done"]
    if not todo and any(one.why for one in states):  # not compared with the recipe
        return f"seqdistill run {run.shell} -c RECIPE"
    if not todo:
        return None
    if todo[0] == STAGES[0] and not _has_recipe(run):
        return f"seqdistill run {run.shell} -c RECIPE"
    return f"seqdistill {todo[0] if len(todo) == 1 else 'run'} {run.shell}"
