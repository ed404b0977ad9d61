"""Where the results come from: the funnel of the data, the chain of files with their hashes, settings and versions.

Reads the manifests. No path outside of the run is shown.
"""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqdistill.funnel import funnel
from seqdistill.records import file_sha256
from seqdistill.runs import STAGES, Run
from seqdistill.stages.evaluate.shown import count

Document = dict[str, Any]
HASH = 12  # hex digits of a hash shown: as many as git shows


def funnel_bars(run: Run) -> list[Document]:
    """What became of the teacher's answers, as bars; empty before filter is done."""
    steps = funnel(run) if run.manifest("filter") else []
    return [
        {
            "label": step.name,
            "number": f"{step.rows:,}",
            "share": f"{100 * step.rows / steps[0].rows:.1f}%",
            "width": round(100 * step.rows / steps[0].rows, 2),
            "lost": step.lost,
        }
        for step in steps
        if step.rows
    ]


def lineage(run: Run, scores: Document, predictions: Path) -> list[Document]:
    """From the prompts to everybody's answers, each file with its rows and the start of its SHA-256; `leads`: to the next."""
    manifests = {stage: run.manifest(stage) or {} for stage in STAGES}
    found: list[Document] = []

    def add(label: str, path: str, sha256: str, facts: list[str], *, leads: bool) -> None:
        found.append({"label": label, "file": Path(path).name, "hash": sha256[:HASH], "facts": facts, "leads": leads})

    for key in ("template", "prompts"):
        if entry := manifests["generate"].get("inputs", {}).get(key):
            add(key, entry["path"], entry["sha256"], [], leads=key == "prompts")
    for stage, file, label in (
        ("generate", "samples.jsonl", "teacher's answers"),
        ("filter", "train.jsonl", "kept to train on"),
        ("train", "model", "student"),
    ):
        if output := next((one for one in manifests[stage].get("outputs", ()) if Path(one["path"]).name == file), None):
            facts = [f"{output['rows']:,} rows"] if output["rows"] is not None else []
            if stage == "train" and (size := scores["models"]["student"].get("parameters")):
                facts.append(f"{count(size)} parameters")
            add(label, file, output["sha256"], [*facts, manifests[stage].get("finished", "")[:10]], leads=True)
    if predictions.is_file():
        add("all answers", predictions.name, file_sha256(predictions), [f"{scores['n']:,} prompts compared"], leads=False)
    if test := manifests["filter"].get("inputs", {}).get("test"):
        add("test set, held out", test["path"], test["sha256"], [f"{scores['prompts']:,} prompts"], leads=False)
    return found


def provenance(run: Run, scores: Document, *, finished: bool) -> list[tuple[str, str]]:
    """Models, settings, machine and versions, by name; while eval is not `finished`, its manifest is of an earlier one."""
    manifests = {stage: (run.manifest(stage) or {}) if finished or stage != "eval" else {} for stage in STAGES}
    found = [(role, f"{facts['name']} ({facts['identity']}), {facts['engine']}") for role, facts in _named(scores)]
    found.append(("teacher's license", str(scores["teacher_license"] or "not stated")))
    limits = f"temperature {scores['temperature']:g}, at most {scores['max_tokens']} new tokens"
    found.append(("decoding", limits))
    if asked_with := scores["models"]["teacher"].get("asked_with"):
        found.append(("teacher prompted with", json.dumps(asked_with, ensure_ascii=False)))
    if "form" in scores:
        found.append(("form", json.dumps(scores["form"], ensure_ascii=False)))
    found.append(("intervals", f"{scores['resamples']} resamples, seed {scores['seed']}"))
    took = [f"{stage} {manifest['seconds']:.0f} s" for stage, manifest in manifests.items() if "seconds" in manifest]
    if took:
        found.append(("the stages took", ", ".join(took)))
    found.append(("machine", json.dumps(scores["machine"], ensure_ascii=False)[1:-1].replace('"', "")))
    packages = manifests["train"].get("packages", {})
    if packages:
        found.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    if revision := manifests["train"].get("git"):
        found.append(("git", str(revision)))
    found.append(("command", f"seqdistill {shlex.join(manifests['eval'].get('argv') or sys.argv[1:])}"))
    return found


def _named(scores: Document) -> Iterator[tuple[str, Document]]:
    return ((role, facts) for role, facts in scores["models"].items() if "identity" in facts and role != "ceiling")
