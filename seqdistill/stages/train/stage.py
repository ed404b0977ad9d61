"""Stage 3: train.jsonl -> model/. Finds the student, checks what it is trained on, trains it with TRL, writes the manifest.

A training that was stopped, however it was stopped, resumes from its last checkpoint and ends with the same weights.
"""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqdistill.cards import write_model_card
from seqdistill.engines.chat_templates import chat_template
from seqdistill.engines.models import identity
from seqdistill.errors import SeqdistillError
from seqdistill.files import replace_path
from seqdistill.metrics.own import split_name
from seqdistill.progress import Progress
from seqdistill.recipe.reading import relative_path
from seqdistill.recipe.tables import Recipe, settings
from seqdistill.records import file_sha256, fingerprint, write_json
from seqdistill.rights import check_training_allowed, license_of_student, teachers_in
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.arguments import WITHOUT_EFFECT, environment_kept, resolved
from seqdistill.stages.train.checkpoints import open_work, work_folder
from seqdistill.stages.train.fit import Fitted, fit, quiet
from seqdistill.stages.train.launch import check_accelerate, launch, wants_launch
from seqdistill.stages.train.lora import name_base
from seqdistill.stages.train.methods import METHOD_KEYS, Method, method_of
from seqdistill.stages.train.ranks import launched, rank, shared, wait
from seqdistill.stages.train.ready import Ready, example, make_ready
from seqdistill.stages.train.steps import cut_from, remove_other_steps, step_before, step_facts
from seqdistill.stages.train.student import Base, Student, check_not_itself, find_student, move_to_run, put_in_place
from seqdistill.stages.train.task_texts import text_files
from seqdistill.tasks.templates import PROMPT_TEMPLATE, Template, load_template

TRAINED = ("model", "adapter", "log.jsonl", "pairs.jsonl")  # what a training leaves, where it has it


@dataclass(frozen=True)
class TrainResult:
    """What the stage did; `path` is the trained model's folder."""

    rows: int
    steps: int
    epochs: float
    train_loss: float | None  # mean over the last epoch's steps
    validation_loss: float | None
    max_length: int  # tokens of the longest row
    parameters: int
    seconds: float
    up_to_date: bool
    path: Path
    best_step: int | None = None  # whose weights were taken, where the best are
    best_by: str | None = None  # by what they are the best: "loss" or "quality"


def train(run: Run, recipe: Recipe, progress: Progress, *, by_launcher: bool = False) -> TrainResult:
    """Trains the student and writes model/, log.jsonl and the manifest. `by_launcher`: this process was started by `launch`.

    Raises UsageError, before the first step, for a student, rows or [train.args] that cannot be trained with, and
    SeqdistillError when the training diverges or runs out of memory. An earlier student stays until the new one is trained.
    """
    check_training_allowed(teachers_in(recipe))
    check_accelerate(recipe.train)
    check_not_itself(run, recipe)
    student, method = find_student(recipe), method_of(recipe.train)
    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    record = _record(run, recipe, student, method)
    if record.up_to_date():
        if not (run.file("train", "model") / "README.md").exists():  # killed before it was written
            write_model_card(run)
        if run.at_work("train") is None:
            record.remove_work()
        return _result(run, up_to_date=True)
    template = load_template(recipe.task.template)
    if wants_launch(recipe.train) and not (by_launcher or launched()):
        launch(run, recipe, progress)
        return _result(run, up_to_date=False)
    with run.locked("train") if rank() == 0 else contextlib.nullcontext():
        for difference in record.differences():
            progress.note(f"train: {difference}")
        work = work_folder(run)
        with quiet(), environment_kept():
            before = step_before(run, recipe)
            if before is not None:
                train(*before, progress, by_launcher=True)
                student = cut_from(student, before[0])
            ready = make_ready(run, recipe, student, method, files, progress)
            checkpoint = shared(lambda: open_work(work, record, progress))
            base = shared(lambda: move_to_run(ready.base, run))
            _note(ready, checkpoint, progress)
            if run.manifest("train") is not None:
                progress.note("train: the earlier student stays until this training is finished")
            end, best_by = ready.checked.end_of_turn, recipe.train.best_by
            log, model = work / "log.jsonl", work / "model"
            fitted = fit(ready.trainer, base.model, end, checkpoint, log, model, progress, best_by=best_by)
        if fitted.steps == 0:
            raise SeqdistillError("train: no training step was done", "see num_train_epochs and max_steps in [train.args]")
        if rank() == 0:
            _finish(run, record, recipe, student, ready, base, fitted, template, step_facts(before and before[0]))
            shutil.rmtree(work)
            remove_other_steps(run, recipe)
    wait()
    return _result(run, up_to_date=False)


def record_of(run: Run, recipe: Recipe) -> StageRecord:
    """What decides whether train has something to do. Raises UsageError before filter ran."""
    return _record(run, recipe, find_student(recipe), method_of(recipe.train))


def _record(run: Run, recipe: Recipe, student: Student, method: Method) -> StageRecord:
    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    texts = text_files(run, recipe) if student.vocabulary == "task" else {}
    inputs = {**files, **method.inputs(run, recipe), **texts, **_own_metric(recipe)}
    return StageRecord(run, "train", _settings(recipe, student, method), inputs)


def _finish(
    run: Run,
    record: StageRecord,
    recipe: Recipe,
    student: Student,
    ready: Ready,
    base: Base,
    fitted: Fitted,
    template: Template,
    steps: list[dict[str, Any]],
) -> None:
    """Puts what was trained in the place of an earlier student, and writes the manifest and the card."""
    work = work_folder(run)
    write_json(work / "model" / PROMPT_TEMPLATE, template.student)
    record.begin()
    base = put_in_place(base, run)
    for name in TRAINED:
        replace_path(run.file("train", name), work / name)
    facts: dict[str, Any] = {"steps": steps} if steps else {}
    name_base(run.file("train", "adapter"), _named(base.model.model, run))
    beside = (
        *(("adapter",) if run.file("train", "adapter").exists() else ()),
        *(("base", "base.json") if student.is_cut else ()),
        *(("pairs.jsonl",) if ready.method["name"] == "preference" else ()),
    )
    record.finish(
        {"model": None, "log.jsonl": fitted.log_rows, **dict.fromkeys(beside)},
        config=asdict(recipe),
        student={
            "base": _named(base.model.model if student.is_cut else student.source.model, run),
            **({"cut_from": _named(student.source.model, run)} if student.is_cut else {}),
            "identity": student.identity,
            "license": license_of_student(student.source, recipe.teacher),
            **({"layers": base.layers} if base.layers else {}),
            **base.cut,
            "loads_in": fitted.loads_in,
        },
        counts={"rows": len(ready.checked.train), "max_length": ready.checked.max_length, **_numbers(fitted)},
        **facts,
        **({} if fitted.best_by is None else {"best_by": fitted.best_by}),
        method=ready.method,
        unfit=ready.checked.unfit,
        notes=ready.notes,
        example=example(ready.checked.train[0], ready.read.tokenizer),
        arguments=resolved(ready.arguments),
    )
    write_model_card(run)


def _settings(recipe: Recipe, student: Student, method: Method) -> dict[str, Any]:
    values = settings(recipe.train, *(METHOD_KEYS - method.keys))
    own: dict[str, Any] = {f"train.{name}": value for name, value in values.items()}
    own["train.method"] = method.name
    own["train.args"] = {name: value for name, value in recipe.train.args.items() if name not in WITHOUT_EFFECT}
    if recipe.teacher.model and method.reads_teacher(recipe, student):
        own["teacher.identity"] = identity(recipe.teacher)
    if recipe.train.lora.r is None:
        own = {name: value for name, value in own.items() if not name.startswith("train.lora.")}
    if recipe.train.processes == 1:
        del own["train.processes"]
    if recipe.train.accelerate_config is not None:
        own["train.accelerate_config"] = file_sha256(Path(recipe.train.accelerate_config))
    for name in ("early_stopping", "best", "batch_tokens", "accelerate_config"):
        if f"train.{name}" in own and getattr(recipe.train, name) is None:
            del own[f"train.{name}"]
    if recipe.train.best_by == "quality":
        own["task.primary"] = recipe.task.primary
    else:
        del own["train.best_prompts"]
    if student.layers is None:
        del own["train.layers"]
    if student.vocabulary == "all":
        del own["train.vocabulary"]
    if student.width == 1:
        del own["train.width"]
    if not recipe.train.steps:
        del own["train.steps"]
    template, kwargs = recipe.student.chat_template, recipe.student.chat_template_kwargs
    if template is not None:
        own["student.chat_template"] = fingerprint(chat_template(template, {}))
    if kwargs:
        own["student.chat_template_kwargs"] = kwargs
    return {**own, "student.identity": student.identity}


def _own_metric(recipe: Recipe) -> dict[str, Path]:
    """The file of the user's own metric, where it decides which weights are taken."""
    name = recipe.eval.metric if recipe.train.best_by == "quality" else None
    return {"metric": split_name(name)[0]} if name else {}


def _note(ready: Ready, checkpoint: Path | None, progress: Progress) -> None:
    """What a person should know before the first step."""
    checked = ready.checked
    if checked.unfit:
        sample, reason = next(iter(checked.unfit.items()))
        progress.note(f"train: {len(checked.unfit)} rows left out, the first is {sample!r}: {reason}")
    if checked.without_reasoning:
        progress.note(f"train: {checked.without_reasoning} rows have no reasoning and are trained on their answer alone")
    for note in ready.notes:
        progress.note(f"train: {note}")
    trained = example(checked.train[0], ready.read.tokenizer)["trained"]
    progress.note(f"train: the loss is on {trained!r} in the first row")
    if checkpoint:
        progress.note(f"train: resuming at step {checkpoint.name.removeprefix('checkpoint-')}")


def _named(name: str | None, run: Run) -> str:
    """A model for the manifest, which eval reads: a path relative to the run, or the model's name."""
    return relative_path(Path(name), run.path) if name and Path(name).exists() else str(name)


def _numbers(fitted: Fitted) -> dict[str, Any]:
    return {name: value for name, value in asdict(fitted).items() if name not in ("log_rows", "loads_in", "best_by")}


def _result(run: Run, *, up_to_date: bool) -> TrainResult:
    """The result as the manifest holds it."""
    manifest: Mapping[str, Any] = run.manifest("train") or {}
    return TrainResult(
        **manifest["counts"],
        seconds=manifest["seconds"],
        up_to_date=up_to_date,
        path=run.file("train", "model"),
        best_by=manifest.get("best_by"),
    )
