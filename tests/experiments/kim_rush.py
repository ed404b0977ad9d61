"""The shape of Kim & Rush (2016, https://arxiv.org/abs/1606.07947) on the demo's task: `make experiment`.

Trains one student for each way to distil and each seed, has it answer the test prompts greedily and with beams, and writes
RUN/table.md and RUN/scores.json. The ways, by their names in the paper, and as recipe keys:

    references    the gold sentences alone                     method = "sequence" on imported references
    word          the teacher's distribution along the gold    method = "soft" on the same, after `seqdistill targets`
    sequence      the teacher's own text                       method = "sequence"
    interpolation the teacher's text and the gold sentences    method = "sequence", reference_weight = 1
    word+sequence the teacher's distribution along its text    method = "soft"
    combined      all of it                                    method = "soft", reference_weight = 1

Every student is a run of its own in RUN, made by the library's functions: stopped and started again, it continues. Intervals
are 95% bootstrap intervals of the mean over prompts, each prompt's score a mean over seeds.
"""

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import seqdistill
from seqdistill.engines import Request, open_engine
from seqdistill.metrics.text import chrf
from seqdistill.recipe.reading import read_recipe
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Prompt
from seqdistill.stages.evaluate.statistics.intervals import column, resample
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template

ROOT = Path(__file__).parents[2]
RESAMPLES = 2000


@dataclass(frozen=True)
class Way:
    """One way to distil: what the rows' answers are, and the keys of [train]."""

    name: str
    answers: str  # "references" or "teacher"
    train: Mapping[str, Any] = field(default_factory=dict)


WAYS = (
    Way("references", "references", {"method": "sequence"}),
    Way("word", "references", {"method": "soft"}),
    Way("sequence", "teacher", {"method": "sequence"}),
    Way("interpolation", "teacher", {"method": "sequence", "reference_weight": 1.0}),
    Way("word+sequence", "teacher", {"method": "soft"}),
    Way("combined", "teacher", {"method": "soft", "reference_weight": 1.0}),
)


def main() -> None:
    """Does what the flags say and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "runs" / "experiment")
    parser.add_argument("--recipe", type=Path, default=ROOT / "prompts" / "notices" / "recipe.toml")
    parser.add_argument("--rows", type=int, default=400, help="prompts that are trained on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--test", type=int, help="only the first N test prompts")
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys of [train.args], as JSON")
    flags = parser.parse_args()
    tables = read_recipe(flags.recipe)
    paths = {name: str(flags.recipe.parent / tables["task"][name]) for name in ("template", "prompts", "test")}
    tables["task"] = {**tables["task"], **paths}
    tables["generate"] = {**tables["generate"], "limit": flags.rows, "logprobs": 20}
    further = (one.partition("=") for one in flags.set)
    arguments = {**tables["train"].get("args", {}), **{key: json.loads(value) for key, _, value in further}}
    template = load_template(tables["task"]["template"])
    test = load_prompts(tables["task"]["test"], template, flags.test)
    answers = teacher_answers(flags.run, tables, test)
    scores: dict[str, Any] = {}
    for way in (way for way in WAYS if way.name in flags.ways):
        students = [student(flags.run, tables, way, seed, arguments) for seed in range(flags.seeds)]
        for beams in (1, flags.beams):
            texts = [written(model, test, beams, tables["generate"]["max_tokens"]) for model in students]
            scores[f"{way.name}, {'greedy' if beams == 1 else f'{beams} beams'}"] = {
                against: [[chrf(text, wanted) for text, wanted in zip(one, wants, strict=True)] for one in texts]
                for against, wants in (("teacher", answers), ("reference", [prompt.reference or "" for prompt in test]))
            }
    table = markdown(scores, [chrf(text, prompt.reference or "") for text, prompt in zip(answers, test, strict=True)])
    (flags.run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    (flags.run / "table.md").write_text(table, encoding="utf-8")
    print(table)


def student(home: Path, tables: dict[str, Any], way: Way, seed: int, arguments: dict[str, Any]) -> Path:
    """The trained model of one way and seed, in a run of its own."""
    run = home / f"{way.name.replace('+', '-')}-{seed}"
    train = {**tables["train"], **way.train, "seed": seed, "args": arguments}
    recipe = {**tables, "train": train}
    if way.answers == "teacher":
        recipe["generate"] = {**tables["generate"], "reuse": [str(home / "teacher")]}
        seqdistill.generate(run, recipe)
    else:
        seqdistill.import_recorded(run, [references(home, tables)], recipe)
    seqdistill.filter(run)
    if way.answers == "references" and way.train["method"] == "soft":
        seqdistill.targets(run)
    print(f"{way.name}, seed {seed}: {seqdistill.train(run).seconds:.0f} s", flush=True)
    return run / "train" / "model"


def references(home: Path, tables: dict[str, Any]) -> Path:
    """A file of the training prompts with their references as answers."""
    path = home / "references.jsonl"
    rows = [json.loads(line) for line in Path(tables["task"]["prompts"]).read_text(encoding="utf-8").splitlines()]
    lines = [
        json.dumps({"prompt": row["prompt"], "completion": row["reference"], "finish_reason": "stop"}) + "\n"
        for row in rows[: tables["generate"]["limit"]]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def teacher_answers(home: Path, tables: dict[str, Any], test: Sequence[Prompt]) -> list[str]:
    """The teacher's answers to the test prompts; those to the training prompts are put where every run finds them."""
    seqdistill.generate(home / "teacher", tables)
    run = home / "test"
    task = {"template": tables["task"]["template"], "prompts": tables["task"]["test"]}
    asked = {name: value for name, value in tables["generate"].items() if name not in ("limit", "logprobs")}
    seqdistill.generate(run, {**tables, "task": task, "generate": asked})
    lines = (run / "generate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {row["prompt_id"]: row["completion"][0]["content"] for row in map(json.loads, lines)}
    return [answers[prompt.id] for prompt in test]


def written(model: Path, test: Sequence[Prompt], beams: int, max_tokens: int) -> list[str]:
    """A student's answers to the test prompts; kept beside it."""
    path = model.parent.parent / f"answers-{beams}.json"
    if path.exists() and path.stat().st_mtime > (model / "config.json").stat().st_mtime:
        answers = json.loads(path.read_text(encoding="utf-8"))
    else:
        answers = {}
    if not {prompt.id for prompt in test} <= answers.keys():
        engine = open_engine(ModelConfig(model=str(model), options={"dtype": "float32"}))
        requests = [Request(prompt.id, prompt.messages, max_tokens, beams=beams) for prompt in test]

        async def collect() -> dict[str, str]:
            return {one.id: one.content async for one in engine.stream(requests)}

        answers = asyncio.run(collect())
        path.write_text(json.dumps(answers), encoding="utf-8")
    return [answers[prompt.id] for prompt in test]


def markdown(scores: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], teacher: Sequence[float]) -> str:
    """The table: a mean over prompts with its interval for each way and decoding, and the range over seeds."""
    lines = ["| trained on, decoded | chrF to reference | seeds | chrF to teacher | seeds |", "|---|---|---|---|---|"]
    for name, found in scores.items():
        cells = [
            cell for against in ("reference", "teacher") for cell in (interval(mean(found[against])), ranged(found[against]))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"| teacher, greedy | {interval(teacher)} | | | |", ""])


def mean(of_seeds: Sequence[Sequence[float]]) -> list[float]:
    """Each prompt's mean over the seeds."""
    return [sum(one) / len(one) for one in zip(*of_seeds, strict=True)]


def interval(scores: Sequence[float]) -> str:
    """A mean with its 95% bootstrap interval, as text."""
    import numpy

    found = resample(numpy.array(scores)[:, None], RESAMPLES, 0).interval(column(0))
    if found is None or found.low is None:
        return "-" if found is None else f"{found.value:.1f}"
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def ranged(of_seeds: Sequence[Sequence[float]]) -> str:
    """The lowest and the highest mean of a seed."""
    means = sorted(sum(one) / len(one) for one in of_seeds)
    return f"{means[0]:.1f} to {means[-1]:.1f}"


if __name__ == "__main__":
    main()
