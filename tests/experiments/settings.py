"""What each setting of the demo's recipe earns: the recipe with one thing changed, several seeds, paired by prompt.

Writes HOME/table.md and HOME/scores.json. Rows beyond the recipe's 800 come from the script that wrote the demo's notices.
A difference is the mean over test prompts, each a mean over seeds, with its 95% bootstrap interval over prompts; beside it the
lowest and the highest difference of a seed.
"""

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from students import NOTICES, Scores, Way, experiment_of, flags_of, interval, keep, mean, ranged, run, scored, teacher_answers

RECIPE, WHOLE, ON_POLICY = "recipe", "whole vocabulary", "whole vocabulary, then 50 steps on_policy"
FURTHER = {"max_steps": 50, "learning_rate": 1e-4, "max_completion_length": 64}
GREEDY = FURTHER | {"top_k": 1, "learning_rate": 2e-5}


def rows(count: int, epochs: float | None = None) -> Mapping[str, Mapping[str, object]]:
    """The keys of training on `count` rows, for `epochs` epochs."""
    return {"generate": {"limit": count}} | ({} if epochs is None else {"train": {"args": {"num_train_epochs": epochs}}})


WAYS = (
    Way(RECIPE),
    Way("text alone", {"train": {"method": "sequence"}}),
    Way("distribution alone", {"train": {"alpha": 0.0}}),
    Way(WHOLE, {"train": {"vocabulary": "all"}}),
    Way("layers evenly spaced", {"train": {"layers": "even"}}),
    Way("12 layers", {"student": {"model": "shrink:12"}}),
    Way("hidden states too", {"train": {"features": 1.0}}),
    Way("references too", {"train": {"reference_weight": 0.5}}),
    Way("4 epochs", {"train": {"args": {"num_train_epochs": 4}}}),
    Way("400 rows", rows(400)),
    Way("400 rows, 4 epochs", rows(400, 4)),
    Way("1600 rows", rows(1600)),
    Way("3200 rows", rows(3200)),
    Way("3200 rows, 12 layers", {"student": {"model": "shrink:12"}, **rows(3200)}),
    Way("6400 rows", rows(6400), seeds=1),
    Way("6400 rows, 12 layers", {"student": {"model": "shrink:12"}, **rows(6400)}, seeds=1),
    *(
        Way(
            name,
            {"train": {"method": "on_policy", "vocabulary": "all", "args": arguments}, **rows(1600)},
            answers="references",  # only its prompts are used: the teacher scores what the student writes
            after=WHOLE,
        )
        for name, arguments in ((ON_POLICY, FURTHER), (f"{ON_POLICY}, greedy", GREEDY))
    ),
)


def main() -> None:
    """Does what the flags say and prints the table."""
    parser = flags_of(__doc__, "settings")
    parser.set_defaults(rows=800)
    flags = parser.parse_args()
    flags.home.mkdir(parents=True, exist_ok=True)
    experiment = experiment_of(flags, WAYS, (1,), more_notices(flags.home / "prompts.jsonl", 16))
    answers = run(experiment, flags)
    teacher, gold = teacher_answers(experiment), [prompt.reference or "" for prompt in experiment.test]
    scores = {
        way: {"teacher": scored(by_beams[1], teacher), "reference": scored(by_beams[1], gold)}
        for way, by_beams in answers.items()
    }
    keep(experiment, markdown(scores), scores)


def markdown(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """The table: each way's score, and what it is above the recipe's."""
    lines = ["| | chrF to teacher | beside the recipe | seeds | chrF to reference |", "|---|---|---|---|---|"]
    recipe = scores[RECIPE]["teacher"]
    for name, found in scores.items():
        one, usual = found["teacher"], recipe[: len(found["teacher"])]
        beside = ["", ranged(one)] if name == RECIPE else [interval(mean(one), mean(usual)), ranged(one, usual)]
        lines.append(f"| {name} | {interval(mean(one))} | {' | '.join(beside)} | {interval(mean(found['reference']))} |")
    return "\n".join([*lines, ""])


def more_notices(path: Path, batches: int) -> Path:
    """A file that begins with the demo's notices and holds more batches of them."""
    spec = importlib.util.spec_from_file_location("write_notices", NOTICES / "write_notices.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    setattr(module, "BATCHES", batches)  # noqa: B010
    if not path.exists():
        lines = module.files()["prompts.jsonl"]
        assert "".join(lines).startswith((NOTICES / "prompts.jsonl").read_text(encoding="utf-8"))
        assert all(json.loads(line) for line in lines)
        path.write_text("".join(lines), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
