"""Do the prompts that `generate --pool --next` chooses teach more than as many random ones? Several seeds, paired by prompt.

For each seed a student is trained on the answers to N random notices; then N more are chosen from a pool, once by the student's
uncertainty and novelty and once at random, and a new student is trained on all of them. All teacher's answers are got once.
Writes HOME/table.md and HOME/scores.json.
"""

import random
import shutil
from collections.abc import Mapping

from settings import more_notices
from students import (
    Experiment,
    Scores,
    Way,
    experiment_of,
    flags_of,
    interval,
    keep,
    mean,
    ranged,
    scored,
    side_by_side,
    teacher_answers,
    written,
)

import seqdistill

START, CHOICES = "start", ("random", "uncertain")
TEACHER = Way("teacher")


def main() -> None:
    """Does what the flags say and prints the table."""
    parser = flags_of(__doc__, "pool")
    parser.add_argument("--pool", type=int, default=1600, help="notices in all")
    parser.set_defaults(rows=200, seeds=5)
    flags = parser.parse_args()
    flags.home.mkdir(parents=True, exist_ok=True)
    experiment = experiment_of(flags, [], (1,), more_notices(flags.home / "prompts.jsonl", 16))
    if flags.one:
        of_seed(experiment, int(flags.one.rpartition(":")[2]), flags.rows, flags.pool)
        return
    every = {**experiment.tables, "generate": {**experiment.tables["generate"], "limit": flags.pool}}
    seqdistill.generate(flags.home / "teacher", every)
    side_by_side([("seed", seed) for seed in range(flags.seeds)], flags.jobs)
    teacher = teacher_answers(experiment)
    texts = [of_seed(experiment, seed, flags.rows, flags.pool) for seed in range(flags.seeds)]
    scores = {name: scored([one[name] for one in texts], teacher) for name in (START, *CHOICES)}
    keep(experiment, markdown(scores, flags.rows), scores)


def of_seed(experiment: Experiment, seed: int, rows: int, pool: int) -> dict[str, list[str]]:
    """The answers of the first student, and of those trained on what was chosen in each way, to the test prompts."""
    home = experiment.home
    lines = (home / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:pool]
    random.Random(seed).shuffle(lines)
    first, rest = home / f"first-{seed}.jsonl", home / f"rest-{seed}.jsonl"
    first.write_text("".join(lines[:rows]), encoding="utf-8")
    rest.write_text("".join(lines[rows:]), encoding="utf-8")
    tables = experiment.recipe(TEACHER, seed)
    generate = {**tables["generate"], "limit": None, "reuse": [str(home / "teacher")]}
    tables = {**tables, "task": {**tables["task"], "prompts": str(first)}, "generate": generate}
    answers: dict[str, list[str]] = {}
    for name in (START, *CHOICES):
        run = experiment.run(name, seed)
        if name != START and not run.exists():  # it begins as the first student's run
            half = run.with_suffix(".new")
            shutil.copytree(experiment.run(START, seed), half, dirs_exist_ok=True)
            half.rename(run)
        if name != START and not (run / "generate" / "pool.jsonl").exists():
            seqdistill.pick(run, str(rest), tables, count=rows, by=name)
        seqdistill.generate(run, tables)
        seqdistill.filter(run, tables)
        trained = seqdistill.train(run, tables)
        if not trained.up_to_date:
            print(f"{name}, seed {seed}: {trained.steps:,} steps in {trained.seconds:.0f} s", flush=True)
        answers[name] = written(run / "train" / "model", experiment.test, 1, tables["generate"]["max_tokens"])
    return answers


def markdown(scores: Mapping[str, Scores], rows: int) -> str:
    """The table: each choice's score, and what choosing earned beside random."""
    lines = ["| trained on | chrF to teacher | seeds | beside random | seeds |", "|---|---|---|---|---|"]
    names = {START: f"{rows} random", "random": f"{2 * rows} random", "uncertain": f"{rows} random, {rows} chosen"}
    usual = scores["random"]
    for name, found in scores.items():
        beside = ["", ""] if name == "random" else [interval(mean(found), mean(usual)), ranged(found, usual)]
        lines.append(f"| {names[name]} | {interval(mean(found))} | {ranged(found)} | {' | '.join(beside)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
