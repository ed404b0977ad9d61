"""`verify`: what a run says of itself, checked again on any machine: hashes, chain, scores and verdict. Runs no model.

A user's own metric is not run either: it is code, and its scores are taken as they are written. Cards are people's to edit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.remembered import changed_by_hand
from seqdistill.records import content_files, file_sha256, fingerprint, is_sealed, read_jsonl
from seqdistill.runs import STAGES, Run, start_sha256
from seqdistill.stages.evaluate.answers import Scoring
from seqdistill.stages.evaluate.baselines import training_file
from seqdistill.stages.evaluate.cost import with_costs
from seqdistill.stages.evaluate.deferral import Promise
from seqdistill.stages.evaluate.forced import forced_document
from seqdistill.stages.evaluate.safety.document import safety_document
from seqdistill.stages.evaluate.scores import explained_with, found_in, regressions_in
from seqdistill.stages.evaluate.table import Settings
from seqdistill.stages.evaluate.verdict import verdict
from seqdistill.stages.evaluate.written import answer_of, completed, form_in, measures_in, own_measures_in
from seqdistill.version import __version__

CLOSE = 1e-4  # of scores: what sums in another order on another machine can move


@dataclass(frozen=True)
class Verification:
    """What was checked, and every file that is not what the run says it is, with the reason."""

    whole: bool
    files: int
    stages: list[str]
    problems: list[str]


def verify(run: Run, progress: Progress) -> Verification:
    """Checks every finished stage of a run. Raises UsageError where there is none."""
    stages = [stage for stage in STAGES if run.file(stage, "manifest.json").exists()]
    if not stages:
        raise UsageError(f"{run.path}: no finished stage in it", "name a run directory")
    problems: list[str] = []
    files = 0
    for stage in stages:
        progress.start(f"checking {stage}", 1, "stages")
        found = list(_stage(run, stage))
        files += sum(1 for _, problem in found if problem is None)
        problems += [f"{path}: {problem}" for path, problem in found if problem is not None]
        progress.advance()
        progress.end()
    problems += [f"{path}: changed by hand since the last command on the run" for path in changed_by_hand(run.path)]
    if "eval" in stages and not problems:
        problems += [f"{path}: {problem}" for path, problem in _scores(run)]
    return Verification(not problems, files, stages, problems)


def _stage(run: Run, stage: str) -> Iterator[tuple[str, str | None]]:
    """(path, what is wrong with it or None) of a stage's manifest, outputs, and inputs that lie within the run."""
    path = run.file(stage, "manifest.json")
    try:
        manifest = run.manifest(stage) or {}
    except UsageError as error:
        yield str(path), error.message.removeprefix(f"{path}: ")
        return
    if not is_sealed(path, manifest):
        yield str(path), "not what the stage wrote"  # what it says of other files is not to be relied on
        return
    yield str(path), None
    for output in manifest["outputs"]:
        yield from _hashed(run.path / output["path"], output, "not what the stage wrote")
    if journal := manifest.get("journal"):
        path = run.file(stage, "journal.jsonl")
        there = path.is_file() and start_sha256(path, journal["bytes"]) == journal["sha256"]
        yield str(path), None if there else "not what the stage wrote, or missing"
    for entry in manifest.get("inputs", {}).values():
        source = run.path / entry["path"]
        if not entry["path"].startswith("..") and not Path(entry["path"]).is_absolute() and source.exists():
            yield from _hashed(source, entry, f"changed since {stage} read it")


def _hashed(path: Path, entry: Mapping[str, Any], problem: str) -> Iterator[tuple[str, str | None]]:
    if not path.exists():
        yield str(path), "missing"
    elif file_sha256(path) == entry["sha256"]:
        yield str(path), None
    elif path.is_dir() and entry.get("files"):
        there = {str(part.relative_to(path)): part for part in content_files(path)}
        for name in sorted({*there, *entry["files"]}):
            if name not in there:
                yield str(path / name), "missing"
            elif name not in entry["files"] or file_sha256(there[name]) != entry["files"][name]:
                yield str(there[name]), problem
    else:
        yield str(path), problem


# --- scores -----------------------------------------------------------------------------------------------------------


def _scores(run: Run) -> Iterator[tuple[Path, str]]:
    """What does not follow from the predictions, and predictions that are not in the journal."""
    path, predictions = run.file("eval", "scores.json"), run.file("eval", "predictions.jsonl")
    written = json.loads(path.read_text(encoding="utf-8"))
    scores = completed(written)
    form, columns, own = form_in(scores), measures_in(scores), own_measures_in(scores)
    scoring = Scoring(columns, form, form.kind)
    rows = [row for _, row in read_jsonl(predictions)]
    answers = [answer_of(row) for row in rows]
    by_prompt: dict[str, dict[str, Completion]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer.completion
    shown = {answer.prompt.id: answer.prompt for answer in answers if answer.model == "student"}
    for answer in answers:
        if answer.scores is None:
            continue
        found = scoring.scores(by_prompt[answer.prompt.id], answer.model, shown[answer.prompt.id])
        found |= {measure.name: answer.scores.get(measure.name) for measure in own}
        if place := _difference(found, answer.scores, CLOSE):
            yield predictions, f"the scores of {answer.prompt.id}, {answer.model}, do not follow from the answers: {place}"
            return
    settings = Settings(
        list(scores["models"]),
        [*own, *columns],
        scores["primary"],
        scores["margin"],
        scores["resamples"],
        scores["seed"],
        Promise(*(scores["deferral"][name] for name in ("target", "risk", "good_enough", "samples")))
        if "deferral" in scores
        else None,
    )
    document = found_in(answers, settings, replace(scoring, measures=settings.measures))
    if "regressions" in scores and _has_inputs(run, "training data", "rejected rows"):
        document["regressions"] = regressions_in(answers, settings, explained_with(run, scores["regressions"]["most"]))
    safety = run.file("eval", "safety.jsonl")
    sent = [row for _, row in read_jsonl(safety)] if _wrote(run, safety) else []
    if "safety" in scores and _has_inputs(run, "training data"):
        margin, training = scores["safety"]["margin"], training_file(run)
        document["safety"] = safety_document(sent, answers, training, margin, scores["resamples"], scores["seed"])
    if forced := scores.get("teacher_forced"):
        read = [row for _, row in read_jsonl(run.file("eval", "forced.jsonl"))]
        document["teacher_forced"] = forced_document(read, forced["reason"], scores["resamples"], scores["seed"])
    if cost := scores.get("cost"):
        costs = with_costs(scores, cost["inputs"], cost["terms"], cost["upfront"])
        of_models = costs.pop("models")
        document |= costs
        document["models"] = {role: {**of, **of_models.get(role, {})} for role, of in document["models"].items()}
    known = {name: of for name, of in document.items() if name in written}  # a run of an older version lacks some
    if place := _difference(known, written, CLOSE):
        yield path, f"does not follow from predictions.jsonl: {place}"
    elif (run.manifest("eval") or {}).get("seqdistill") == __version__ and verdict(scores) != scores["verdict"]:
        yield path, "the verdict does not follow from the scores"
    yield from _unjournalled(run, scores, rows, sent)


def _has_inputs(run: Run, *names: str) -> bool:
    """Whether eval's inputs of these names, where it read them, are still there: a copied run may have left them behind."""
    inputs = (run.manifest("eval") or {}).get("inputs", {})
    return all((run.path / inputs[name]["path"]).exists() for name in names if name in inputs)


def _wrote(run: Run, path: Path) -> bool:
    """Whether eval's last run wrote a file."""
    outputs = (run.manifest("eval") or {}).get("outputs", ())
    return any(run.path / output["path"] == path for output in outputs)


def _unjournalled(
    run: Run, scores: Mapping[str, Any], rows: list[dict[str, Any]], sent: list[dict[str, Any]]
) -> Iterator[tuple[Path, str]]:
    """Answers of model contestants that the journal does not hold under their prompt, or what was `sent` for safety."""
    path = run.file("eval", "journal.jsonl")
    if not path.is_file():
        yield path, "missing"
        return
    held: set[tuple[str, str, str]] = set()
    safe: set[tuple[str, str, str | float]] = set()  # a request's model and messages, and its answer or loss
    try:
        with Journal(path, writable=False) as journal:
            for line in journal.rows():
                held.add((line["id"], line["model"], line["completion"].get("content", "")))
                if sent:
                    answer = line["completion"].get("raw", {}).get("nll", line["completion"].get("content", ""))
                    safe.add((line["model"], fingerprint(line["request"]["messages"]), answer))
    except (SeqdistillError, KeyError, ValueError) as error:
        yield path, f"cannot be read: {error}"
        return
    for row in rows:
        identity = scores["models"][row["model"]].get("identity")
        if identity is None or row["error"] is not None or scores["models"][row["model"]].get("engine") is None:
            continue
        texts = {(f"{row['id']}:{role}", identity, row["completion"][-1]["content"]) for role in scores["models"]}
        if not texts & held:
            yield path, f"does not hold the answer of {row['model']} to {row['id']}"
            return

    for row in sent:
        identity, said = scores["models"][row["model"]].get("identity"), row["completion"] if row["nll"] is None else row["nll"]
        if row["error"] is None and (identity, fingerprint(row["prompt"]), said) not in safe:
            yield path, f"does not hold the answer of {row['model']} to {row['kind']} {row['id']}"
            return


def _difference(found: Any, written: Any, close: float, place: str = "") -> str | None:
    """Where two JSON values differ by more than rounding; None where they agree."""
    if isinstance(found, dict) and isinstance(written, dict):
        return next((one for key in found if (one := _difference(found[key], written.get(key), close, f"{place}.{key}"))), None)
    if isinstance(found, (list, tuple)) and isinstance(written, list):
        if len(found) != len(written):
            return f"{place}: {len(written)} instead of {len(found)} entries"
        pairs = enumerate(zip(found, written, strict=True))
        return next((one for n, (a, b) in pairs if (one := _difference(a, b, close, f"{place}[{n}]"))), None)
    if isinstance(found, (int, float)) and isinstance(written, (int, float)):
        return None if abs(found - written) <= close * max(1.0, abs(found)) else f"{place}: {written} instead of {found}"
    return None if found == written else f"{place}: {written!r} instead of {found!r}"
