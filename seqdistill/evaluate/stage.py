"""Stage 4, the proof: base, student, teacher and ceiling answer the held-out prompts; scores, intervals and a report.

Files: journal.jsonl (every answer ever asked for), predictions.jsonl, scores.json, report.html, manifest.json.
"""

import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.budget import price_of
from seqdistill.cards import write_model_card
from seqdistill.config import EvalConfig, ModelConfig, Recipe, settings
from seqdistill.engines import Completion, Engine, Pace, Request, open_engine
from seqdistill.engines.models import identity
from seqdistill.engines.transformers_local import BATCH_SIZE
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.evaluate.metrics import METRICS, copied, score_answer
from seqdistill.evaluate.table import ASKED, MODELS, Answer, count, methods, percent, tabulate, times, upper
from seqdistill.evaluate.verdict import verdict
from seqdistill.journal import Journal, answers, ask, lacking
from seqdistill.progress import Progress
from seqdistill.prompt_files import load_prompts
from seqdistill.records import Message, Prompt, request_seed, write_json, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.templates import Template, load_template

OUTPUTS = ("predictions.jsonl", "scores.json", "report.html")


@dataclass(frozen=True)
class EvalResult:
    """What eval found. `scores` is the content of scores.json."""

    scores: dict[str, Any]
    paths: dict[str, Path]  # predictions, scores, report
    seconds: float
    up_to_date: bool

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, in sentences, the headline first."""
        return list(self.scores["verdict"])

    @property
    def failed(self) -> int:
        """Requests that failed, of all models."""
        return sum(facts.get("failed", 0) for facts in self.scores["models"].values())

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`, short enough for 80 columns."""
        return ["model", *(METRICS[metric] for metric in self._metrics), "stops", "length", "tok/s", "size"]

    @property
    def rows(self) -> list[list[str]]:
        """One row a model, ready to print."""
        rows = []
        for model, facts in self.scores["models"].items():
            cells = [percent(facts[metric]) for metric in self._metrics]
            cells += [percent(_point(facts["stopped"])), times(_point(facts["length_ratio"]))]
            speed = facts.get("tokens_per_second")
            rows.append([model, *cells, f"{speed:.0f}" if speed else "–", count(facts.get("parameters"))])
        return rows

    @property
    def slice_columns(self) -> list[str]:
        """The heads of `slice_rows`: the primary metric of each model, and the share of the teacher kept."""
        return ["slice", "n", "student", "base", "copy", upper(self.scores["primary"]), "kept %"]

    @property
    def slice_rows(self) -> list[list[str]]:
        """One row a slice, ready to print; none when the test set has no slices."""
        primary = self.scores["primary"]
        rows = []
        for part in self.scores["slices"]:
            kept = next((cell for cell in part["kept"] if cell["metric"] == primary), None)
            student, *others = (part["models"][model][primary] for model in self.slice_columns[2:-1])
            cells = [percent(student), *(percent(_point(other)) for other in others), percent(kept)]
            rows.append([part["slice"] or "–", str(part["n"]), *cells])
        return rows

    @property
    def _metrics(self) -> list[str]:
        return list(dict.fromkeys([self.scores["primary"], "chrf_teacher", "chrf_reference"]))


def _point(cell: dict[str, Any] | None) -> dict[str, Any] | None:
    return cell and {**cell, "low": None, "high": None}


@dataclass(frozen=True)
class Contestant:
    """One asked model: how it is reached, what identifies it, which view of a prompt it is shown, which try this is."""

    role: str
    model: ModelConfig
    identity: str
    view: str
    attempt: int

    def messages(self, prompt: Prompt) -> list[Message]:
        """A prompt as this model is asked it."""
        return prompt.teacher_messages if self.view == "teacher" else prompt.messages


def evaluate(run: Run, recipe: Recipe, progress: Progress) -> EvalResult:
    """Scores the four models and the copy baseline on the test prompts, writes the files and returns what was found.

    Raises UsageError without a test set or a trained student, and Incomplete, after writing everything else, when requests
    failed: their prompts are left out of every score, and the next run asks them again.
    """
    if recipe.task.test is None:
        raise UsageError("no test set is given", "give held-out prompts with --test FILE, or as test in the recipe's [task]")
    price_of(recipe.teacher.price)  # a wrong one is told now, not after the asking
    template = load_template(recipe.task.template)
    contestants = _contestants(run, recipe)
    with run.locked("eval"):
        record = StageRecord(run, "eval", _settings(recipe, contestants, template), _inputs(recipe.task.test, template))
        paths = {name.partition(".")[0]: run.file("eval", name) for name in OUTPUTS}
        if record.up_to_date():
            return EvalResult(json.loads(paths["scores"].read_text(encoding="utf-8")), paths, 0.0, up_to_date=True)
        for difference in record.differences():
            progress.note(f"eval: {difference}")
        prompts = load_prompts(recipe.task.test, template, recipe.eval.limit, progress)
        contestants = [_in_other_batches(contestant, len(prompts)) for contestant in contestants]
        record.begin()
        given = _ask_all(run, recipe, contestants, prompts, progress)
        answered = _scored(contestants, prompts, given)
        scores = _document(run, recipe, contestants, answered, given)
        _write(run, scores, answered, paths)
        write_model_card(run, scores)
        failures = Counter(completion.error for completion in given.values() if completion.error)
        record.finish(
            dict(zip(OUTPUTS, (len(answered), None, None), strict=True)),
            status="incomplete" if failures else "complete",
            config={
                "task": asdict(recipe.task),
                "eval": asdict(recipe.eval),
                "generate.max_tokens": recipe.generate.max_tokens,
            },
            counts={"prompts": len(prompts), "answers": len(given), "failed": failures.total()},
            usage={role: _usage(role, recipe, answered) for role in ASKED},
            models={contestant.role: contestant.identity for contestant in contestants},
            verdict=scores["verdict"],
        )
    if failures:
        kinds = ", ".join(f"{number} {kind}" for kind, number in failures.most_common())
        raise Incomplete(
            f"{failures.total()} of {len(given)} requests failed ({kinds}); {paths['report']} is of the "
            f"{scores['n']} prompts that every model answered",
            f"run again to retry {failures.total()}",
        )
    return EvalResult(scores, paths, time.time() - record.started, up_to_date=False)


def _contestants(run: Run, recipe: Recipe) -> list[Contestant]:
    trained = run.need("train", "model")
    base = str((run.manifest("train") or {})["student"]["base"])  # a path is relative to the run
    if (run.path / base).exists():
        base = os.path.normpath(run.path / base)
    teacher = recipe.teacher
    if not teacher.model:
        raise UsageError("no teacher is named", "give --teacher, or model in the recipe's [teacher]")
    student = replace(recipe.student, model=str(trained), revision=None)
    untrained = replace(recipe.student, model=base, revision=None if Path(base).exists() else recipe.student.revision)
    return [
        Contestant("base", untrained, _content(untrained), "student", 0),
        Contestant("student", student, _content(student), "student", 0),
        Contestant("teacher", teacher, identity(teacher), "teacher", 0),
        Contestant("ceiling", teacher, identity(teacher), "teacher", 1),
    ]


def _in_other_batches(contestant: Contestant, prompts: int) -> Contestant:
    """The ceiling as it is asked: in bf16, greedy answers move with the batch they are computed in, and it shows how much."""
    model = contestant.model
    if contestant.role != "ceiling" or model.engine != "transformers":
        return contestant
    size = min(int(model.options.get("batch_size", BATCH_SIZE)), prompts)
    return replace(contestant, model=replace(model, options={**model.options, "batch_size": max(1, size * 2 // 3)}))


def _content(model: ModelConfig) -> str:
    """A student's identity: its files even when a server serves them, or a student trained anew would keep old answers."""
    return identity(replace(model, engine="transformers") if Path(model.model or "").is_dir() else model)


def _settings(recipe: Recipe, contestants: list[Contestant], template: Template) -> dict[str, Any]:
    return {
        **{f"eval.{name}": value for name, value in settings(recipe.eval, "max_tokens").items()},
        "eval.max_tokens": _max_tokens(recipe),
        "task.primary": recipe.task.primary,
        "task.test": recipe.task.test if ":" in (recipe.task.test or "") else None,
        "task.template": template.sha256,
        **{f"{contestant.role}.model": contestant.identity for contestant in contestants},
        **{f"{contestant.role}.engine": contestant.model.engine for contestant in contestants},
    }


def _inputs(test: str, template: Template) -> dict[str, Path]:
    files = {"test": Path(test) if not test.startswith("hf:") else None, "template": template.path}
    return {name: path for name, path in files.items() if path is not None and path.is_file()}


def _max_tokens(recipe: Recipe) -> int:
    return recipe.eval.max_tokens or recipe.generate.max_tokens


# --- asking -----------------------------------------------------------------------------------------------------------


def _requests(contestant: Contestant, prompts: list[Prompt], recipe: Recipe) -> list[Request]:
    config: EvalConfig = recipe.eval
    return [
        Request(
            id=f"{prompt.id}:{contestant.role}",
            messages=contestant.messages(prompt),
            max_tokens=_max_tokens(recipe),
            temperature=config.temperature,
            seed=request_seed(config.seed, prompt.id, contestant.attempt),
        )
        for prompt in prompts
    ]


def _ask_all(
    run: Run, recipe: Recipe, contestants: list[Contestant], prompts: list[Prompt], progress: Progress
) -> dict[str, Completion]:
    """Every model's completion of every prompt, by request id; what the journal has is not asked again."""
    given: dict[str, Completion] = {}
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        for contestant in contestants:
            requests = _requests(contestant, prompts, recipe)
            failed = asyncio.run(_ask(journal, contestant, requests, _pace(recipe), progress))
            for request, completion in answers(journal, contestant.identity, requests, failed):
                given[request.id] = completion
    return given


def _pace(recipe: Recipe) -> Pace:
    """Eval's own concurrency, and for the rest what generate may ask of the same endpoint."""
    names = ("timeout", "connect_timeout", "retries", "requests_per_minute", "tokens_per_minute")
    return Pace(concurrency=recipe.eval.concurrency, **{name: getattr(recipe.generate, name) for name in names})


async def _ask(
    journal: Journal, contestant: Contestant, requests: list[Request], pace: Pace, progress: Progress
) -> dict[str, Completion]:
    """Asks one model for what the journal lacks; returns the failures by request id."""
    failed: dict[str, Completion] = {}
    who = {"base": "the untrained student", "ceiling": "the teacher again"}.get(contestant.role, f"the {contestant.role}")

    def opened() -> Engine:
        progress.start(f"asking {who}", len(lacking(journal, contestant.identity, requests)), "answers")
        return open_engine(contestant.model, pace)

    try:
        async with aclosing(ask(journal, contestant.identity, requests, opened)) as completions:
            async for completion in completions:
                progress.advance()
                if completion.error is not None:
                    failed[completion.id] = completion
    finally:
        progress.end()
    return failed


# --- scoring ----------------------------------------------------------------------------------------------------------


def _scored(contestants: list[Contestant], prompts: list[Prompt], given: Mapping[str, Completion]) -> list[Answer]:
    """Every answer with its scores, prompt by prompt, the copy baseline last. Raises when no prompt has all answers."""
    whole = [prompt for prompt in prompts if all(given[f"{prompt.id}:{role}"].error is None for role in ASKED)]
    if not whole:
        failure = next(completion for completion in given.values() if completion.error)
        raise SeqdistillError(
            f"no prompt was answered by all models; the first failure: {failure.error}: {failure.message}",
            "mend the cause and run again; what was answered is kept",
        )
    complete = {prompt.id for prompt in whole}
    length = round(sum(len(given[f"{prompt.id}:teacher"].content) for prompt in whole) / len(whole))

    def lines() -> Iterator[Answer]:
        for prompt in prompts:
            source = next(m["content"] for m in reversed(prompt.messages) if m["role"] == "user")
            copy = Completion(f"{prompt.id}:copy", copied(source, length), finish_reason="copy")
            for model, messages, completion in (
                *((c.role, c.messages(prompt), given[f"{prompt.id}:{c.role}"]) for c in contestants),
                ("copy", prompt.messages, copy),
            ):
                scores = None
                if prompt.id in complete:
                    teacher = given[f"{prompt.id}:teacher"].content
                    reason = None if model == "copy" else completion.finish_reason
                    scores = score_answer(completion.content, teacher, prompt.reference, reason)
                yield Answer(model, prompt, messages, completion, scores)

    return list(lines())


def _document(
    run: Run, recipe: Recipe, contestants: list[Contestant], answered: list[Answer], given: Mapping[str, Completion]
) -> dict[str, Any]:
    """The content of scores.json."""
    from seqdistill.evaluate.weights import size_of

    found = tabulate(answered, recipe.eval.resamples, recipe.eval.seed)
    by_role = {contestant.role: contestant for contestant in contestants}
    sizes = {role: size_of(by_role[role].model) for role in ("base", "student", "teacher")}
    models: dict[str, dict[str, Any]] = {}
    for role in MODELS:
        models[role] = {**found["models"][role]}
        if role in by_role:
            parameters, disk_bytes = sizes["teacher" if role == "ceiling" else role]
            models[role] |= {
                "name": _name(run, by_role[role].model.model or ""),
                "identity": by_role[role].identity,
                "engine": by_role[role].model.engine,
                "view": by_role[role].view,
                "parameters": parameters,
                "disk_bytes": disk_bytes,
                "failed": sum(given[f"{a.prompt.id}:{role}"].error is not None for a in answered if a.model == role),
                **_usage(role, recipe, answered),
                "speed_basis": _speed_basis(by_role[role].model, recipe.eval),
            }
    document = {
        "primary": recipe.task.primary,
        "prompts": len(answered) // len(MODELS),
        "n": found["n"],
        "models": models,
        "comparisons": found["comparisons"],
        "kept": found["kept"],
        "slices": found["slices"],
        "teacher_license": recipe.teacher.license,
        "temperature": recipe.eval.temperature,
        "max_tokens": _max_tokens(recipe),
        "resamples": recipe.eval.resamples,
        "seed": recipe.eval.seed,
        "methods": methods(),
        "machine": _machine(),
    }
    return {"verdict": verdict(document), **document}


def _usage(role: str, recipe: Recipe, answered: list[Answer]) -> dict[str, Any]:
    """Tokens, seconds and cost of one model's answers, as the journal holds them."""
    mine = [answer.completion for answer in answered if answer.model == role]
    asked, written = sum(c.prompt_tokens for c in mine), sum(c.completion_tokens for c in mine)
    seconds = sum(c.seconds for c in mine)
    price = price_of(recipe.teacher.price) if role in ("teacher", "ceiling") else None
    usd = sum(price.usd(completion) for completion in mine) if price else None
    return {
        "prompt_tokens": asked,
        "completion_tokens": written,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(written / seconds, 3) if seconds > 0 else None,
        "usd": None if usd is None else round(usd, 6),
    }


def _speed_basis(model: ModelConfig, config: EvalConfig) -> str:
    """Under what conditions a model's tokens/s was measured. Speeds on different bases must not be compared."""
    match model.engine:
        case "openai":
            return f"one request's stream at an endpoint, up to {config.concurrency} in flight, waiting included"
        case "vllm":
            return "vLLM in this process, loading excluded"
    return f"transformers in this process, batches of up to {model.options.get('batch_size', BATCH_SIZE)}, loading excluded"


def _name(run: Run, model: str) -> str:
    """A model's name as it was given; a path is told without the place of this machine's folders."""
    path = Path(model)
    if not path.is_absolute():
        return model
    return str(path.relative_to(run.path.absolute())) if path.is_relative_to(run.path.absolute()) else path.name


def _machine() -> dict[str, Any]:
    import torch

    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor, "cpus": os.cpu_count(), "gpu": gpu, "system": platform.system()}


def _write(run: Run, scores: dict[str, Any], answered: list[Answer], paths: Mapping[str, Path]) -> None:
    from seqdistill.evaluate.report import write_report

    write_jsonl(paths["predictions"], (answer.row() for answer in answered))
    write_json(paths["scores"], scores)
    write_report(paths["report"], run, scores, answered)
