"""What a person sees: progress and notes on stderr, results on stdout as tables or as exactly one JSON object.

Text that came from a model or a file passes `visible` first: a terminal obeys escape sequences, whoever wrote them.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdistill.errors import SeqdistillError
from seqdistill.records import visible

if TYPE_CHECKING:
    from seqdistill.stages.evaluate.result import EvalResult
    from seqdistill.stages.filter.explain import Story
    from seqdistill.stages.filter.stage import FilterResult
    from seqdistill.stages.generate.estimate import Estimate
    from seqdistill.stages.generate.recorded import ImportResult
    from seqdistill.stages.generate.stage import GenerateResult
    from seqdistill.stages.train.ready import Preflight
    from seqdistill.stages.train.scored_targets import TargetsResult
    from seqdistill.stages.train.stage import TrainResult

HEAD_WIDTH = 9  # of a column; what is longer is broken unless the cells are as wide
BAR_WIDTH = 20  # of the bar at its shortest, the time left and the gaps beside it
HEARTBEAT_SECONDS = 30.0  # without a terminal there is no bar, but a log should show life


class Console:
    """The output of one command. Implements `progress.Progress`."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json, self._quiet = as_json, quiet
        self._bar: Any = None
        self._what, self._unit, self._total, self._done = "", "", 0, 0
        self._began = 0.0
        self._facts: dict[str, str] = {}
        self._over = threading.Event()

    # --- progress, on stderr ---

    def start(self, what: str, total: int, unit: str) -> None:
        self.end()
        self._what, self._unit, self._total, self._done, self._facts = what, unit, total, 0, {}
        self._began = time.monotonic()
        if self._quiet:
            return
        if not sys.stderr.isatty():
            self._over = threading.Event()
            threading.Thread(target=self._heartbeat, args=(self._over,), daemon=True).start()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        self._bar = Progress(*columns, console=RichConsole(stderr=True), transient=True, expand=True)
        self._task = self._bar.add_task(total=total, **self._line())
        self._bar.start()

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        self._done += count
        self._facts.update(facts or {})
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, **self._line())

    def _line(self) -> dict[str, str]:
        """The bar's texts, fitted to the terminal: the rate goes first, then the last facts, then the end of the name."""
        what, numbers, facts = visible(self._what), [self._place(), self._rate()], self._told()
        room = self._bar.console.width - BAR_WIDTH
        while len("  ".join([what, *numbers, *facts])) > room and (numbers[1:] or facts):
            (numbers if numbers[1:] else facts).pop()
        left = max(room - len("  ".join(["", *numbers, *facts])), 1)
        what = what if len(what) <= left else what[: left - 1] + "…"
        return {"description": what, "numbers": "  ".join(numbers), "facts": "  ".join(facts)}

    def _heartbeat(self, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            left = "no end in sight yet"
            if self._done:
                left = seconds((self._total - self._done) * (time.monotonic() - self._began) / self._done) + " left"
            self._say(f"{self._what}: {', '.join([self._place(), self._rate(), left, *self._told()])}")

    def _place(self) -> str:
        if self._unit == "B":
            return f"{size(self._done)}/{size(self._total)}"
        return f"{self._done:,}/{self._total:,}"

    def _rate(self) -> str:
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        return f"{size(rate)}/s" if self._unit == "B" else f"{rate:,.1f} {self._unit}/s"

    def _told(self) -> list[str]:
        return [visible(f"{name} {value}") for name, value in self._facts.items()]

    def note(self, text: str) -> None:
        if not self._quiet:
            self._say(text)

    def end(self) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(visible(text), markup=False, highlight=False)
        else:
            print(visible(text), file=sys.stderr, flush=True)

    # --- results, on stdout ---

    def json_result(self, value: Mapping[str, Any]) -> None:
        """The one JSON object of a --json command; without --json nothing."""
        if self._as_json:
            with _stdout():
                print(json.dumps(value, default=_plain))

    def facts(self, title: str, facts: Mapping[str, Any]) -> None:
        """A few labelled values. None is left out."""
        if self._as_json:
            return
        known = {name: value for name, value in facts.items() if value is not None}
        width = max(map(len, known), default=0)
        with _stdout():
            print(visible(title))
            for name, value in known.items():
                print(f"  {name.ljust(width)}  {visible(str(value))}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
        """A table; the first `left` columns are text, the others numbers."""
        if self._as_json:
            return
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1),
            collapse_padding=True,  # two intervals a row must fit into 80 columns
        )
        for number, column in enumerate(columns):
            widest = max((len(row[number]) for row in rows), default=0)
            head = textwrap.fill(column, max(widest, HEAD_WIDTH), break_long_words=False)  # a long head squeezes no number
            table.add_column(Text(head), justify="left" if number < left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        with _stdout():
            RichConsole().print(table)

    def error(self, error: SeqdistillError) -> None:
        """What happened and the next action, on stderr; with --json also as the one object on stdout."""
        self.end()
        print(f"error: {visible(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  next: {visible(error.hint)}", file=sys.stderr)
        self.json_result(error.as_dict())

    # --- what each stage found ---

    def show_generate(self, result: "GenerateResult") -> None:
        tokens = f"{result.prompt_tokens:,} prompt + {result.completion_tokens:,} completion"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.finish_reasons.items())
        self.facts(
            "generate: up to date" if result.up_to_date else f"generate: done in {seconds(result.seconds)}",
            {
                "prompts": f"{result.prompts:,}",
                "samples": f"{result.samples:,} ({result.new:,} new, {result.reused:,} from the journal)",
                "failed": f"{result.failed:,}" if result.failed else None,
                "finished by": reasons,
                "empty": _empty(result),
                "log-probabilities": None
                if not result.without_logprobs
                else f"{result.without_logprobs:,} of {result.samples:,} answers have none: the endpoint leaves them out, "
                "and soft targets cannot be made of these",
                "tokens": tokens,
                "cost": None if result.usd is None else f"{result.usd:.4f} USD for these samples",
                "spent": None if result.spent_usd is None else f"{result.spent_usd:.4f} USD paid by this run in all",
                "lost": f"up to {result.assumed_usd:.4f} USD may be billed for lost answers" if result.assumed_usd else None,
                "file": result.path,
            },
        )

    def show_estimate(self, told: "Estimate") -> None:
        basis = f"from {told.answers:,} real answers" if told.answers else "if every answer were as long as max_tokens"
        for message in told.first_prompt:
            self.facts(f"first prompt, {message['role']}", {"": message["content"]})
        self.facts(
            "generate: estimate",
            {
                "prompts": f"{told.prompts:,}",
                "requests": f"{told.requests:,} ({told.missing:,} still to be asked)",
                "tokens": f"{told.prompt_tokens:,} prompt + {told.completion_tokens:,} completion, {basis}",
                "cost": None if told.usd is None else f"{told.usd:.4f} USD ({told.missing_usd:.4f} still to be paid)",
                "time": None if told.missing_seconds is None else f"{seconds(told.missing_seconds)} to go",
            },
        )

    def show_import(self, result: "ImportResult") -> None:
        unended = result.without_finish_reason
        self.facts(
            "import: done",
            {
                "read": f"{result.read:,}",
                "new": f"{result.new:,} ({result.known:,} were known"
                + (f", {result.updated:,} of them updated)" if result.updated else ")"),
                "matched": None if result.matched is None else f"{result.matched:,} to the task's prompts or template",
                "skipped": f"{result.skipped:,} with nothing to be learnt" if result.skipped else None,
                "no finish reason": f"{unended:,}, counted as stop" if unended else None,
                "not taken": f"{result.unread:,}, see failures.jsonl" if result.unread else None,
                "teachers": ", ".join(result.teachers),
                "samples": f"{result.samples:,}",
                "file": result.path,
            },
        )

    def show_filter(self, result: "FilterResult") -> None:
        rules = ", ".join(f"{count:,} {rule}" for rule, count in result.by_rule.items() if count)
        self.facts(
            "filter: up to date" if result.up_to_date else "filter: done",
            {
                "read": f"{result.read:,}",
                "kept": f"{result.kept:,} ({result.train:,} train, {result.validation:,} validation)",
                "rejected": f"{result.rejected:,}" + (f": {rules}" if rules else ""),
                "references": _differences(result.references),
                "labels": ", ".join(f"{name} {of['read']:,} -> {of['kept']:,}" for name, of in result.labels.items()) or None,
                "file": result.path,
            },
        )
        steps = [[step["step"], *(f"{step[name]:,}" for name in ("read", "rejected", "kept"))] for step in result.funnel]
        if result.rejected:
            self.table("", ("step", "read", "rejected", "kept"), steps)

    def show_story(self, story: "Story") -> None:
        from seqdistill.stages.filter.verdict import in_words

        instead = ", ".join(f"{row['id']} ({row['rule']})" for row in story.instead_of)
        self.facts(
            f"{story.sample.id}: in {story.where}.jsonl",
            {
                "prompt": story.sample.prompt[-1]["content"],
                "completion": story.sample.text,
                "passed": ", ".join(story.passed) or None,
                "rejected by": story.rule,
                "reason": story.reason,
                "setting": f"{in_words(story.would_keep)} would have kept it" if story.would_keep else None,
                "kept instead": story.kept_by and f"{story.kept_by.id}: {story.kept_by.text}",
                "stands for": instead or None,
            },
        )

    def show_targets(self, result: "TargetsResult") -> None:
        self.facts(
            "targets: up to date" if result.up_to_date else f"targets: done in {seconds(result.seconds)}",
            {
                "rows": f"{result.rows:,}",
                "tokens": f"{result.tokens:,}",
                "left out": f"{result.left_out:,}" if result.left_out else None,
                "file": result.path,
            },
        )

    def show_preflight(self, found: "Preflight") -> None:
        self._masked(found.first_rows)
        prompt, completion = found.prompt_tokens, found.completion_tokens
        memory = f"about {size(found.memory_bytes)}"
        if found.available_bytes is not None:
            memory += f" ({size(found.available_bytes)} free)"
        trained = "" if found.trained_parameters == found.parameters else f", {found.trained_parameters:,} of them trained"
        self.facts(
            "preflight: ready to train",
            {
                "rows": f"{found.rows:,} ({found.validation_rows:,} validation)",
                "left out": "; ".join(f"{count:,}: {reason}" for reason, count in found.unfit.items()) or None,
                "clipped": f"none; a row may have {found.limit:,} tokens",
                "prompt tokens": f"p50 {prompt.p50:,}, p95 {prompt.p95:,}, longest {prompt.most:,}",
                "answer tokens": f"p50 {completion.p50:,}, p95 {completion.p95:,}, longest {completion.most:,}",
                "end of turn": f"{found.end_of_turn} (trained in every row)",
                "padding": found.pad,
                "parameters": f"{found.parameters:,}{trained}",
                "packed rows": "do not read one another (measured)" if found.packing_isolated else None,
                "steps": f"{found.steps:,}",
                "memory": memory,
                "time": None if found.seconds is None else f"about {seconds(found.seconds)}",
            },
        )
        for note in found.notes:
            self.note(f"train: {note}")

    def _masked(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Rows with what is trained in green and, where there is no colour, between >>> and <<<."""
        if self._as_json:
            return
        from rich.console import Console as RichConsole
        from rich.text import Text

        console = RichConsole()
        marks = ("", "") if console.color_system and not console.no_color else (">>>", "<<<")
        console.print(Text.assemble("the loss is on ", (f"{marks[0]}this text{marks[1]}", "bold green"), " only"))
        for row in rows:
            print(visible(row["id"]))
            trained = f"{marks[0]}{visible(row['trained'])}{marks[1]}"
            console.print(Text.assemble((visible(row["given"]), "dim"), (trained, "bold green")), soft_wrap=True)

    def show_train(self, result: "TrainResult") -> None:
        losses = {"train": result.train_loss, "validation": result.validation_loss}
        self.facts(
            "train: up to date" if result.up_to_date else f"train: done in {seconds(result.seconds)}",
            {
                "rows": f"{result.rows:,}",
                "steps": f"{result.steps:,} ({result.epochs:g} epochs)",
                "best step": f"{result.best_step:,} (lowest validation loss)" if result.best_step else None,
                "longest row": f"{result.max_length:,} tokens",
                "parameters": f"{result.parameters:,}",
                "loss": ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items() if loss is not None) or "not logged",
                "model": result.path,
            },
        )

    def show_eval(self, result: "EvalResult") -> None:
        title = "eval: up to date" if result.up_to_date else f"eval: done in {seconds(result.seconds)}"
        self.table(title, result.columns, result.rows)
        if result.slice_rows:
            self.table(f"by slice, {result.columns[1]}", result.slice_columns, result.slice_rows)
        if not self._as_json:
            with _stdout():
                print("\n".join(wrapped(visible(line)) for line in result.verdict))
                print(visible(f"report: {result.paths['report']}"))


@contextlib.contextmanager
def _stdout() -> Iterator[None]:
    """Writes to stdout and flushes it; a reader that has left, like `head -1`, ends the output and not the work."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _differences(references: Mapping[str, Any]) -> str | None:
    """How often the teacher's answers differ from given references; None where none could be compared."""
    compared, kept = references["compared"], references["kept"]
    if not compared:
        return None
    share = f"{references['differ'] / compared:.1%}"
    return f"the teacher differs from {references['differ']:,} of {compared:,} ({share}), of the kept from {kept['differ']:,}"


def seconds(value: float) -> str:
    """A duration as a person says it: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def size(value: float) -> str:
    """An amount of data as a person says it: 290.6 MB."""
    from rich.filesize import decimal

    return decimal(int(value))


def wrapped(text: str) -> str:
    """The text broken at words to the terminal's width; an interval, [63.1, 69.8], stays on one line."""
    unbroken = re.sub(r"(\[[^\s\]]+,) ", "\\1\u00a0", text)
    return textwrap.fill(unbroken, shutil.get_terminal_size().columns).replace("\u00a0", " ")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else repr(value)


def _empty(result: "GenerateResult") -> str | None:
    """How many answers hold nothing, and what to do about it."""
    empty = max(result.empty, result.think_only)
    if not empty:
        return None
    alone = f", {result.think_only:,} of them reasoning alone" if result.think_only else ""
    action = "raise --max-tokens" if "length" in result.finish_reasons else "look at their raw replies in the journal"
    return f"{empty:,} answers{alone}: {action}, or run again with --ask-again empty"
