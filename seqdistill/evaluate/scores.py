"""The content of scores.json: the table, and beside it who each model is, how it was asked, what it took, on which machine.

The verdict, the report and the terminal only read it.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.transformers_local import BATCH_SIZE
from seqdistill.evaluate.answers import Answer
from seqdistill.evaluate.asking import Contestant, max_tokens
from seqdistill.evaluate.table import MODELS, methods, tabulate
from seqdistill.evaluate.verdict import verdict
from seqdistill.evaluate.weights import size_of
from seqdistill.journal.budget import price_of
from seqdistill.recipe.tables import EvalConfig, ModelConfig, Recipe
from seqdistill.runs import Run


def scores_of(
    run: Run,
    recipe: Recipe,
    contestants: Sequence[Contestant],
    answers: Sequence[Answer],
    given: Mapping[str, Completion],
) -> dict[str, Any]:
    """The document. Where the task has a form it also holds the form, and what the teacher was asked with."""
    form = {name: value for name in ("schema", "choices") if (value := getattr(recipe.generate, name))}
    found = tabulate(answers, recipe.eval.resamples, recipe.eval.seed)
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
                **({"asked_with": by_role[role].asked_with} if by_role[role].asked_with else {}),
                "parameters": parameters,
                "disk_bytes": disk_bytes,
                "failed": sum(given[f"{a.prompt.id}:{role}"].error is not None for a in answers if a.model == role),
                **usage(role, recipe, answers),
                "speed_basis": _speed_basis(by_role[role].model, recipe.eval),
            }
    document = {
        "primary": recipe.task.primary,
        "prompts": len(answers) // len(MODELS),
        "n": found["n"],
        "models": models,
        "comparisons": found["comparisons"],
        "kept": found["kept"],
        "slices": found["slices"],
        "teacher_license": recipe.teacher.license,
        **({"form": form} if form else {}),
        "temperature": recipe.eval.temperature,
        "max_tokens": max_tokens(recipe),
        "resamples": recipe.eval.resamples,
        "seed": recipe.eval.seed,
        "methods": methods(with_form=bool(form)),
        "machine": _machine(),
    }
    return {"verdict": verdict(document), **document}


def usage(role: str, recipe: Recipe, answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens, seconds and cost of one model's answers, as the journal holds them."""
    mine = [answer.completion for answer in answers if answer.model == role]
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
