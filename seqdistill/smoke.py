"""From a run of N prompts through all four stages to the whole run: time, cost, disk and memory.

Reads what the smoke run left, and measures one training step. Does not run the stages.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import content_files, read_json
from seqdistill.runs import STAGES, Run
from seqdistill.stages.generate.estimate import estimate
from seqdistill.stages.generate.stage import is_imported
from seqdistill.stages.train.checkpoints import SETTINGS, work_folder
from seqdistill.stages.train.ready import check as preflight
from seqdistill.stages.train.steps import layers_of_steps
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template

STEPS = 10


@dataclass(frozen=True)
class StageForecast:
    """What one stage of the whole run takes."""

    stage: str
    smoke_seconds: float  # what the smoke run took
    seconds: float | None  # None where nothing was measured
    usd: float | None  # None without a price
    bytes: int  # on disk


@dataclass(frozen=True)
class Forecast:
    """The whole run, from a smoke run of `smoke` prompts. Money that the smoke run paid is in it."""

    smoke: int
    prompts: int
    test_prompts: int
    stages: list[StageForecast]
    memory_bytes: int  # at the peak of a training step
    seconds: float
    usd: float | None
    bytes: int


def check_smoke(run: Run, recipe: Recipe, count: int) -> None:
    """Raises UsageError where a smoke run would take the place of results that are not of a smoke run.

    Imported answers stay, and so does what filter made of them.
    """
    imported = is_imported(run, recipe)
    for stage in STAGES:
        manifest, state = run.manifest(stage), "finished"
        if stage == "train" and _has_checkpoints(run):
            state = "stopped, but kept,"
        elif manifest is None or manifest.get("smoke") or (imported and stage in ("generate", "filter")):
            continue
        kept = shlex.quote(f"{run.path}/recipe.toml") if (run.path / "recipe.toml").is_file() else "RECIPE"
        other = shlex.quote(f"{run.path}-smoke")
        first = f"seqdistill import {other} FILES, then " if imported else ""
        raise UsageError(
            f"{run.path}: holds a {state} {stage} that is not of a smoke run, which would replace it",
            f"name another directory: {first}seqdistill run {other} -c {kept} --smoke {count}",
        )


def _has_checkpoints(run: Run) -> bool:
    """Whether a training of more steps than those of a smoke run was stopped and can be resumed."""
    work = work_folder(run)
    if not [*work.glob("checkpoint-*")] or not (work / SETTINGS).is_file():
        return False
    settings = read_json(work / SETTINGS).get("settings", {})
    return not 0 < settings.get("train.args", {}).get("max_steps", -1) <= STEPS


def forecast(run: Run, whole: Recipe, progress: Progress) -> Forecast:
    """What the whole recipe will take, from the finished smoke run of it.

    Requests by the tokens and seconds of the real answers, training by a measured step, everything else in proportion. What
    does not grow with the prompts (starting, loading models) is taken as it was.
    """
    manifests = {stage: run.manifest(stage) or {} for stage in STAGES}
    template = load_template(whole.task.template)
    prompts, tests = (
        len(load_prompts(source, template, limit, columns=whole.task.columns)) if source else 0
        for source, limit in ((whole.task.prompts, whole.generate.limit), (whole.task.test, whole.eval.limit))
    )
    requests = None if is_imported(run, whole) else estimate(run, whole, progress)
    training = preflight(run, whole, progress)
    counts = manifests["generate"]["counts"]
    grown = 1.0 if requests is None else requests.requests / max(1, counts["samples"])
    cuts = max(1, len(layers_of_steps(whole)))  # each is trained, and of the first the steps were measured
    a_step = (training.seconds or 0.0) / max(1, training.steps)
    all_steps = training.steps * (1.0 if whole.train.args.get("max_steps", -1) > 0 else grown)
    answered = manifests["eval"].get("usage", {})
    busy = sum(one.get("seconds") or 0.0 for one in answered.values())
    tested = max(1, manifests["eval"]["counts"]["prompts"])
    more = {
        "generate": 0.0 if requests is None else requests.missing_seconds,
        "filter": manifests["filter"]["seconds"] * (grown - 1),
        "train": cuts * a_step * (all_steps - manifests["train"]["counts"]["steps"]),
        "eval": busy * (tests / tested - 1),
    }
    sizes = {"generate": grown, "filter": grown, "train": 1.0, "eval": tests / tested}
    usd = {stage: _usd(manifests[stage], sizes[stage]) for stage in STAGES} | {
        "generate": None if requests is None else requests.usd
    }
    usd["eval"] = _with_measuring(run, usd["eval"], _usd(manifests["eval"], 1.0))
    stages = []
    for stage in STAGES:
        took, extra = manifests[stage]["seconds"], more[stage]
        seconds = None if extra is None else took + max(0.0, extra)
        stages.append(StageForecast(stage, took, seconds, usd.get(stage), round(_bytes(run.path / stage) * sizes[stage])))
    paid = [one.usd for one in stages if one.usd is not None]
    return Forecast(
        smoke=counts["prompts"],
        prompts=counts["prompts"] if requests is None else prompts,
        test_prompts=tests,
        stages=stages,
        memory_bytes=training.memory_bytes,
        seconds=sum(one.seconds or 0.0 for one in stages),
        usd=sum(paid) if paid else None,
        bytes=sum(one.bytes for one in stages),
    )


def limited(recipe: Recipe, count: int) -> Recipe:
    """The recipe on N prompts and N test prompts, with STEPS training steps at most."""
    steps = recipe.train.args.get("max_steps", -1)
    few = {**recipe.train.args, "max_steps": min(steps, STEPS) if isinstance(steps, int) and steps > 0 else STEPS}
    return replace(
        recipe,
        generate=replace(recipe.generate, limit=count),
        eval=replace(recipe.eval, limit=count),
        train=replace(recipe.train, args=few),
    )


def _usd(manifest: Mapping[str, Any], grown: float) -> float | None:
    """What the models of a stage cost, `grown` times over; None where none has a price."""
    paid = [one["usd"] for one in manifest.get("usage", {}).values() if one.get("usd") is not None]
    return sum(paid) * grown if paid else None


def _with_measuring(run: Run, usd: float | None, answers_usd: float | None) -> float | None:
    """What eval costs with what it paid beside its answers, taken as it was: requests that measure latency, and for safety."""
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        beside = journal.spending.paid_usd - (answers_usd or 0.0)
    return usd if beside <= 0 else (usd or 0.0) + beside


def _bytes(folder: Path) -> int:
    return sum(part.stat().st_size for part in content_files(folder)) if folder.is_dir() else 0
