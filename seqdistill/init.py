"""A folder to start from: a commented recipe, a template, prompts, a test set, and a page that says what to do with them.

The kinds are the folders in prompts/. With recorded completions, the folder also holds a run that has imported them, and the
test set is a part of their prompts. Requests nothing.
"""

import contextlib
import hashlib
import json
import math
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqdistill.errors import UsageError
from seqdistill.files import atomic_folder, write_text
from seqdistill.progress import Progress
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.remembered import resolved_recipe
from seqdistill.recipe.tables import Recipe, TaskConfig
from seqdistill.records import Sample, read_jsonl, read_samples, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import import_recorded
from seqdistill.tasks.brought_files import check_readable
from seqdistill.tasks.prompt_files import check_columns
from seqdistill.tasks.templates import prompts_folder

KINDS = ("classify", "extract", "summarize", "maths", "rewrite")
FILES = ("recipe.toml", "task.toml", "prompts.jsonl", "test.jsonl")
TEST_SHARE, MOST_TEST, FEWEST = 0.2, 200, 10  # of recorded prompts; fewer than FEWEST cannot be split

PAGE = """# {name}

| file | what to do with it |
|---|---|
| `task.toml` | the instructions: say here what a good answer is. The student's view is shorter; it learns the rest |
| `prompts.jsonl` | replace the ten prompts by yours, some hundred at least; `reference`, `slice` and `group` are optional |
| `test.jsonl` | replace: prompts that are never trained on, 200 or more for a verdict |
| `recipe.toml` | the models, and every setting of the four stages |

```sh
export OPENAI_API_KEY=...
seqdistill doctor -c {recipe}
seqdistill run runs/smoke -c {recipe} --smoke 8
seqdistill run {run} -c {recipe} --budget 10
```

The first run goes through all four stages on eight prompts and says what the whole run will take. The report is
`runs/{name}/eval/report.html`.
"""

RECORDED_PAGE = """# {name}

{answers:,} recorded answers to {prompts:,} prompts were imported into `{path}/run`; {tests:,} of the prompts are the test set
in `test.jsonl`. Nothing is requested from the model that wrote them: its recorded answers are the teacher.

```sh
seqdistill run {run}
```

trains the student that `recipe.toml` names (`--student FOLDER` for one on this machine) on the other prompts and compares it
with the recorded answers. The report is `{path}/run/eval/report.html`.
"""

RECORDED_RECIPE = """\
# Recorded completions: a student from answers that exist, with no request to the model that wrote them.
# Every key is a flag of the same name; `seqdistill STAGE --help` lists them with their defaults.

[task]
test = "test.jsonl"               # a part of the recorded prompts, never trained on
{columns}
# [teacher]                       # only to compare with its own second try, or to generate more
# model = "..."
# license = "..."                 # read the terms of the model that wrote the answers

[student]
model = "Qwen/Qwen3-0.6B"         # hub id or folder

[filter]
validation = 0.05                 # share of the prompts held back to watch the training loss

[train.args]                      # verbatim to TRL's SFTConfig
learning_rate = 1e-5
num_train_epochs = 3
{weights}
[eval]
margin = 5                        # points that the student may be worse
max_tokens = {max_tokens}                  # of an answer: enough for the longest recorded one
"""
TEACHER_WEIGHTS = """
# [train.teacher_weights]         # the answers are of several models; 0 leaves a model's answers out
"""


@dataclass(frozen=True)
class InitResult:
    """What was written; `run` only where recorded completions were imported."""

    folder: Path
    files: list[str]
    next: str  # the command that continues
    prompts: int = 0
    test_prompts: int = 0
    run: Path | None = None


def init(folder: Path, kind: str | None, recorded: Sequence[Path], columns: Sequence[str], progress: Progress) -> InitResult:
    """Writes the folder, of a summary task if neither a kind nor recorded completions are passed.

    `columns` name those of the recorded completions, each as KEY=COLUMN. Raises UsageError where the folder holds anything, for
    an unknown kind, a kind beside recorded completions, columns without them, and too few of them.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: not an empty folder", "name a new one; nothing is overwritten")
    if recorded and kind is not None:
        raise UsageError(
            f"--kind {kind} with --from: the recorded prompts are the task, and a kind would be another one",
            "pass one of the two",
        )
    if columns and not recorded:
        raise UsageError("--column without --from: it names a column of recorded completions", "pass --from FILE with it")
    if recorded:
        named = _named_columns(columns)
        with _new(folder) as made:
            return _from_recorded(folder, made, recorded, named, progress)
    kind = "summarize" if kind is None else kind
    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r}{nearest(kind, KINDS)}", f"one of: {', '.join(KINDS)}")
    name, recipe = folder.resolve().name, shlex.quote(str(folder / "recipe.toml"))
    with _new(folder) as made:
        for file in FILES:
            shutil.copyfile(prompts_folder() / kind / file, made / file)
        write_text(made / "README.md", PAGE.format(name=name, recipe=recipe, run=shlex.quote(f"runs/{name}")))
        prompts, tests = (sum(1 for _ in read_jsonl(made / file)) for file in ("prompts.jsonl", "test.jsonl"))
    return InitResult(folder, [*FILES, "README.md"], f"seqdistill run runs/smoke -c {recipe} --smoke 8", prompts, tests)


def _named_columns(columns: Iterable[str]) -> dict[str, str]:
    """The [task] columns that words such as prompt=Question stand for. Raises UsageError for any other words."""
    for word in columns:
        if "=" not in word:
            raise UsageError(f"--column {word}: no =", "write it as --column prompt=Question --column completion=Answer")
    named = {key.strip(): column.strip() for key, _, column in (word.partition("=") for word in columns)}
    check_columns(named)
    return named


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """Where to write what the folder, which is new or empty, will hold; after an error or Ctrl-C it is as it was."""
    if not folder.exists():
        with atomic_folder(folder) as made:
            yield made
        return
    try:
        yield folder  # not put in its place: a shell may be in it
    except BaseException:
        for name in (*FILES, "README.md"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "run", ignore_errors=True)
        raise


def _from_recorded(
    folder: Path, made: Path, recorded: Sequence[Path], columns: dict[str, str], progress: Progress
) -> InitResult:
    """Writes to `made` what `folder` will hold."""
    for path in recorded:
        check_readable(path)
        if not path.is_file():
            raise UsageError(f"{path}: no such file", "name the files that hold the recorded completions")
    run = Run(made / "run")
    try:
        result = import_recorded(run, Recipe(task=TaskConfig(columns=columns)), list(recorded), progress)
    except UsageError as error:
        if columns or "could be read" not in error.message:
            raise
        raise UsageError(
            error.message, f"{error.hint}; columns of other names: --column prompt=COLUMN --column completion=COLUMN"
        ) from None
    samples = list(read_samples(result.path))
    prompts = _prompts_of(samples)
    if len(prompts) < FEWEST:
        raise UsageError(
            f"{len(prompts)} recorded prompts are too few to learn from some and test on others", f"record {FEWEST} or more"
        )
    chosen = _test_part(prompts)
    if not chosen:
        raise UsageError(
            f"no group of the {len(prompts)} recorded prompts is small enough to test on, and groups are not split",
            "give the rows finer groups, or none",
        )
    rows = [_test_row(sample) for id_, sample in prompts.items() if id_ in chosen]
    write_jsonl(made / "test.jsonl", rows)
    weights = ""
    if len(result.teachers) > 1:
        progress.note(
            f"answers come from {len(result.teachers)} models: {', '.join(result.teachers)}; all are trained on. The student "
            "is compared with the first answer to each prompt. [train.teacher_weights] in recipe.toml leaves models out"
        )
        weights = TEACHER_WEIGHTS + "".join(f"# {json.dumps(name)} = 0\n" for name in result.teachers)
    named = ", ".join(f"{key} = {json.dumps(column, ensure_ascii=False)}" for key, column in columns.items())
    facts = {"max_tokens": _most_tokens(samples), "weights": weights, "columns": f"columns = {{ {named} }}\n" if named else ""}
    write_text(made / "recipe.toml", RECORDED_RECIPE.format(**facts))
    with resolved_recipe(run.path, made / "recipe.toml", {}, progress.note):
        pass  # the run keeps a copy
    counts = {"answers": result.samples, "prompts": len(prompts), "tests": len(rows)}
    run = Run(folder / "run")
    write_text(made / "README.md", RECORDED_PAGE.format(name=folder.resolve().name, path=folder, run=run.shell, **counts))
    files = ["recipe.toml", "test.jsonl", "README.md"]
    return InitResult(folder, files, f"seqdistill run {run.shell}", len(prompts), len(rows), run.path)


def _prompts_of(samples: Iterable[Sample]) -> dict[str, Sample]:
    """The first sample of each prompt, with the reference and slice that any of its samples has."""
    found: dict[str, Sample] = {}
    for sample in samples:
        first = found.get(sample.prompt_id, sample)
        reference, of = first.reference or sample.reference, first.slice or sample.slice
        found[sample.prompt_id] = replace(first, reference=reference, slice=of)
    return found


def _test_part(prompts: Mapping[str, Sample]) -> set[str]:
    """Which prompts are held out: by their hash, so that a longer log holds out the same ones first. A group stays whole."""
    count = min(MOST_TEST, max(1, round(TEST_SHARE * len(prompts))))
    together: dict[str, list[str]] = {}
    for name, sample in prompts.items():
        together.setdefault(name if sample.group is None else f"group {sample.group}", []).append(name)
    chosen: set[str] = set()
    for name in sorted(together, key=lambda one: hashlib.sha256(one.encode()).hexdigest()):
        if len(chosen) < count and len(chosen) + len(together[name]) <= 2 * count:
            chosen |= set(together[name])
    return chosen


def _most_tokens(samples: Sequence[Sample]) -> int:
    """The power of two that the longest recorded answer fits into; in tokens, or where those are not recorded by its length."""
    longest = max(sample.completion_tokens or len(sample.text) // 2 for sample in samples)
    return int(max(64, 2 ** math.ceil(math.log2(max(1, longest) + 1))))


def _test_row(sample: Sample) -> dict[str, object]:
    optional = {"reference": sample.reference, "slice": sample.slice, "group": sample.group}
    return {"messages": sample.prompt, **{name: value for name, value in optional.items() if value is not None}}
