"""Students trained in several ways and with several seeds on one task, and their scores: what the experiments share.

Every student is a run of its own in HOME, made by the library's functions; what its answers are made of is in a run that
all students of one size share. Stopped and started again, an experiment continues. With `--jobs N`, N students are trained
at a time, each in a process of its own.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import seqdistill
from seqdistill.engines import Request, open_engine
from seqdistill.family.members import link
from seqdistill.metrics.text import chrf
from seqdistill.recipe.reading import read_recipe
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Prompt, write_jsonl
from seqdistill.stages.evaluate.statistics.intervals import column, difference, resample
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template

ROOT = Path(__file__).parents[2]
NOTICES = ROOT / "prompts" / "notices"
RESAMPLES = 2000

Table = dict[str, Any]
Scores = list[list[float]]  # of each seed, of each test prompt


@dataclass(frozen=True)
class Way:
    """One way to train a student: whose answers, and the recipe's keys that differ, by table."""

    name: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: str = "teacher"  # or "references"
    seeds: int | None = None  # fewer than the experiment's
    after: str | None = None  # it goes on with the student of this way and the same seed


@dataclass(frozen=True)
class Experiment:
    """What is trained, where, and on which prompts it is tested."""

    home: Path
    tables: Table  # the recipe
    ways: Sequence[Way]
    seeds: int
    beams: Sequence[int]
    test: Sequence[Prompt]

    def recipe(self, way: Way, seed: int = 0) -> Table:
        """The recipe of one student."""
        names = {*self.tables, *way.changes}
        tables = {name: {**self.tables.get(name, {}), **way.changes.get(name, {})} for name in names}
        tables["train"] = {**tables["train"], "seed": seed, "args": {**self.tables["train"]["args"], **tables["train"]["args"]}}
        if way.after is not None:
            tables["student"] = {**tables["student"], "model": f"run:{self.run(way.after, seed)}"}
        return tables

    def run(self, way: str, seed: int) -> Path:
        """The run of one student."""
        return self.home / f"{re.sub(r'[^a-z0-9]+', '-', way)}-{seed}"

    def seeds_of(self, way: Way) -> range:
        """The seeds with which a way's students are trained."""
        return range(self.seeds if way.seeds is None else min(way.seeds, self.seeds))

    def source(self, way: Way) -> Path:
        """The run that holds the rows of this way's students."""
        return self.home / f"{way.answers}-{self.recipe(way)['generate']['limit']}"


def flags_of(description: str, home: str) -> argparse.ArgumentParser:
    """The flags that every experiment has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("home", nargs="?", type=Path, default=ROOT / "runs" / home)
    parser.add_argument("--recipe", type=Path, default=NOTICES / "recipe.toml")
    parser.add_argument("--rows", type=int, default=400, help="prompts that are trained on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, help="only the first N test prompts")
    parser.add_argument("--batch-size", type=int, help="prompts that the teacher answers at a time")
    parser.add_argument("--jobs", type=int, default=1, help="students that are trained at a time")
    parser.add_argument("--ways", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys of [train.args], as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # WAY:SEED, in a process of its own
    return parser


def experiment_of(
    flags: argparse.Namespace, ways: Sequence[Way], beams: Sequence[int], prompts: Path | None = None
) -> Experiment:
    """The experiment that the flags describe."""
    tables = read_recipe(flags.recipe)
    paths = {name: str(flags.recipe.parent / tables["task"][name]) for name in ("template", "prompts", "test")}
    if prompts is not None:
        paths["prompts"] = str(prompts)
    further = (one.partition("=") for one in flags.set)
    arguments = {**tables["train"].get("args", {}), **{key: json.loads(value) for key, _, value in further}}
    tables["task"] = {**tables["task"], **paths}
    tables["generate"] = {**tables["generate"], "limit": flags.rows, "logprobs": 20}
    tables["train"] = {**tables["train"], "args": arguments, "generations": 0}  # none are shown while it trains
    if flags.batch_size:
        options = {**tables["teacher"].get("options", {}), "batch_size": flags.batch_size}
        tables["teacher"] = {**tables["teacher"], "options": options}
    chosen = [way for way in ways if not flags.ways or way.name in flags.ways]
    test = load_prompts(paths["test"], load_template(tables["task"]["template"]), flags.test)
    return Experiment(flags.home, tables, chosen, flags.seeds, beams, test)


def run(experiment: Experiment, flags: argparse.Namespace) -> dict[str, dict[int, list[list[str]]]]:
    """The answers of every student to the test prompts, by way and beams, a list for each seed."""
    by_name = {way.name: way for way in experiment.ways}
    if flags.one:
        name, _, seed = flags.one.rpartition(":")
        train_and_answer(experiment, by_name[name], int(seed))
        raise SystemExit(0)
    prepare(experiment)
    largest_first = sorted(experiment.ways, key=lambda way: -experiment.recipe(way)["generate"]["limit"])
    wanted = [(way, seed) for way in largest_first for seed in experiment.seeds_of(way)]
    failed: set[str] = set()
    for first in (True, False):
        failed |= side_by_side([(way.name, seed) for way, seed in wanted if (way.after is None) is first], flags.jobs)
    answers: dict[str, dict[int, list[list[str]]]] = {
        way: {beams: [] for beams in experiment.beams} for way in by_name if way not in failed
    }
    for way, seed in sorted(wanted, key=lambda one: one[0].after is not None):
        if way.name not in failed:
            for beams, texts in train_and_answer(experiment, way, seed).items():
                answers[way.name][beams].append(texts)
    return answers


def side_by_side(wanted: Sequence[tuple[str, int]], jobs: int) -> set[str]:
    """Runs the script once more for each name and seed, `jobs` at a time; with one job nothing, they are made later.

    Returns the names of what failed.
    """
    if jobs == 1:
        return set()
    with ThreadPoolExecutor(jobs) as threads:
        return {name for (name, _), done in zip(wanted, threads.map(lambda one: apart(*one), wanted), strict=True) if not done}


def apart(name: str, seed: int) -> bool:
    """Whether one student could be trained in a process of its own; the end of what that printed is printed."""
    found = subprocess.run([sys.executable, *sys.argv, "--one", f"{name}:{seed}"], capture_output=True, text=True, check=False)
    last = (found.stdout if found.returncode == 0 else found.stderr).strip().splitlines()[-12:]
    print(f"{name}, seed {seed}: exit {found.returncode}", *last, sep="\n  ", flush=True)
    return found.returncode == 0


def prepare(experiment: Experiment) -> None:
    """Gets the rows of every size, the largest first: the smaller ones are part of it."""
    ways = sorted(experiment.ways, key=lambda way: -experiment.recipe(way)["generate"]["limit"])
    done: dict[Path, Table] = {}
    for way in ways:
        home, recipe = experiment.source(way), experiment.recipe(way)
        soft = recipe["train"].get("method") == "soft"
        if home not in done:
            base = {**experiment.tables, "generate": recipe["generate"]}
            if way.answers == "teacher":
                others = [str(other) for other in done if other.name.startswith("teacher")]
                seqdistill.generate(home, {**base, "generate": {**base["generate"], "reuse": others[:1]}})
            else:
                file = references(home.with_suffix(".jsonl"), experiment.tables["task"]["prompts"], recipe["generate"]["limit"])
                seqdistill.import_recorded(home, [file], base)
            seqdistill.filter(home)
            done[home] = base
        if soft and way.answers == "references":
            seqdistill.targets(home)


def references(path: Path, prompts: str, limit: int) -> Path:
    """A file of the training prompts with their references as answers."""
    rows = [json.loads(line) for line in Path(prompts).read_text(encoding="utf-8").splitlines()[:limit]]
    write_jsonl(path, [{"prompt": row["prompt"], "completion": row["reference"], "finish_reason": "stop"} for row in rows])
    return path


def train_and_answer(experiment: Experiment, way: Way, seed: int) -> dict[int, list[str]]:
    """One student's answers to the test prompts by number of beams; trained before, it only reads them."""
    home = experiment.run(way.name, seed)
    for stage in ("generate", "filter", "targets"):
        if (experiment.source(way) / stage).is_dir():
            link(home / stage, experiment.source(way) / stage)
    trained = seqdistill.train(home, experiment.recipe(way, seed))
    if not trained.up_to_date:
        print(f"{way.name}, seed {seed}: {trained.steps:,} steps in {trained.seconds:.0f} s", flush=True)
    limit = experiment.tables["generate"]["max_tokens"]
    return {beams: written(home / "train" / "model", experiment.test, beams, limit) for beams in experiment.beams}


def teacher_answers(experiment: Experiment) -> list[str]:
    """The teacher's answers to the test prompts."""
    home, tables = experiment.home / "test", experiment.tables
    task = {"template": tables["task"]["template"], "prompts": tables["task"]["test"]}
    asked = {name: value for name, value in tables["generate"].items() if name not in ("limit", "logprobs")}
    seqdistill.generate(home, {**tables, "task": task, "generate": asked})
    lines = (home / "generate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {row["prompt_id"]: row["completion"][0]["content"] for row in map(json.loads, lines)}
    return [answers[prompt.id] for prompt in experiment.test]


def written(model: Path, test: Sequence[Prompt], beams: int, max_tokens: int) -> list[str]:
    """A student's answers to the test prompts; kept beside it."""
    path = model.parent.parent / f"answers-{beams}.json"
    fresh = path.exists() and path.stat().st_mtime > (model / "config.json").stat().st_mtime
    answers = json.loads(path.read_text(encoding="utf-8")) if fresh else {}
    if not {prompt.id for prompt in test} <= answers.keys():
        options = {"dtype": "float32", "batch_size": 128}
        engine = open_engine(ModelConfig(model=os.fspath(model), options=options))
        requests = [Request(prompt.id, prompt.messages, max_tokens, beams=beams) for prompt in test]

        async def collect() -> dict[str, str]:
            return {one.id: one.content async for one in engine.stream(requests)}

        answers = asyncio.run(collect())
        path.write_text(json.dumps(answers), encoding="utf-8")
    return [answers[prompt.id] for prompt in test]


def scored(of_seeds: Sequence[Sequence[str]], wanted: Sequence[str]) -> Scores:
    """chrF of each seed's answers to the wanted ones, prompt by prompt."""
    return [[chrf(text, want) for text, want in zip(texts, wanted, strict=True)] for texts in of_seeds]


def mean(of_seeds: Scores) -> list[float]:
    """Each prompt's mean over the seeds."""
    return [sum(one) / len(one) for one in zip(*of_seeds, strict=True)]


def interval(scores: Sequence[float], other: Sequence[float] | None = None) -> str:
    """A mean with its 95% bootstrap interval over prompts, as text; with `other`, the mean of the paired differences."""
    import numpy

    columns = numpy.array([scores] if other is None else [scores, other]).T
    found = resample(columns, RESAMPLES, 0).interval(column(0) if other is None else difference(0, 1))
    if found is None or found.low is None:
        return "-" if found is None else f"{found.value:.1f}"
    sign = "+" if other is not None else ""
    return f"{found.value:{sign}.1f} [{found.low:{sign}.1f}, {found.high:{sign}.1f}]"


def ranged(of_seeds: Scores, other: Scores | None = None) -> str:
    """The lowest and the highest mean of a seed; with `other`, of the seeds' differences."""
    means = [sum(one) / len(one) for one in of_seeds]
    if other is None:
        return f"{min(means):.1f} to {max(means):.1f}"
    differences = [one - sum(two) / len(two) for one, two in zip(means, other, strict=True)]
    return f"{min(differences):+.1f} to {max(differences):+.1f}"


def keep(experiment: Experiment, table: str, scores: Mapping[str, Any]) -> None:
    """Writes the table and the scores of every prompt to HOME, and prints the table."""
    (experiment.home / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    (experiment.home / "table.md").write_text(table, encoding="utf-8")
    print(table)
