"""The student as its teacher's draft model: speculative decoding, which keeps the teacher's text and saves passes of it.

The student proposes some tokens, one pass of the teacher checks them all (Leviathan et al. 2023, arXiv 2211.17192). Works for a
student that failed its verdict too. Measures by transformers' assisted generation; trains nothing.
"""

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import load, local_model
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import write_json
from seqdistill.runs import Run
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template

PROPOSED = 8  # tokens that the student proposes before each pass of the teacher


@dataclass(frozen=True)
class Draft:
    """Greedy answers of the teacher to test prompts, alone and with the student as draft model."""

    prompts: int
    same: int  # texts that are the same
    tokens: int
    passes: int  # of the teacher alone
    assisted_passes: int
    seconds: float
    assisted_seconds: float
    vllm: str  # the command that serves both


def draft(run: Run, recipe: Recipe, limit: int, progress: Progress) -> Draft:
    """Measures it on the first test prompts, and writes export/draft.json.

    Raises UsageError where the teacher is not on this machine or the student writes other tokens than the teacher.
    """
    teacher, student = recipe.teacher, ModelConfig(model=str(run.need("train", "model")))
    if not teacher.model:
        raise UsageError("no teacher is named whose draft model the student could be", "pass --set teacher.model=NAME")
    if teacher.engine == "openai":
        raise UsageError(
            "a draft model is measured with a teacher on this machine, and [teacher] is an endpoint",
            "on its server: vllm serve TEACHER --speculative-config with the student's folder as model",
        )
    if recipe.task.test is None:
        raise UsageError("no test set is configured", "pass --set task.test=FILE, or set test in the recipe's [task]")
    template = load_template(recipe.task.template)
    prompts = load_prompts(recipe.task.test, template, limit, progress, recipe.task.columns)
    files = replace(teacher, engine="transformers")
    tokenizer = load("AutoTokenizer", files)
    if load("AutoTokenizer", student).get_vocab() != tokenizer.get_vocab():
        raise UsageError(
            f"{student.model}: its vocabulary is not the teacher's, so its tokens cannot be checked by the teacher one to one",
            "train a student without --vocabulary task, or of the teacher's family",
        )
    with _loaded(files) as whole, _loaded(student) as small:
        found = _measured(whole, small, tokenizer, [one.teacher_messages for one in prompts], recipe, progress)
    result = Draft(len(prompts), vllm=vllm_command(teacher, run.file("train", "model")), **found)
    write_json(run.path / "export" / "draft.json", vars(result))
    return result


def vllm_command(teacher: ModelConfig, student: Path) -> str:
    """What serves the teacher with the student as its draft model. A teacher that was converted is named by its folder."""
    config = {"method": "draft_model", "model": str(student.absolute()), "num_speculative_tokens": PROPOSED}
    revision = ["--revision", teacher.revision] if teacher.revision else []
    words = ["vllm", "serve", local_model(teacher.model or ""), *revision]
    return shlex.join([*words, "--speculative-config", json.dumps(config)])


@contextmanager
def _loaded(model: ModelConfig) -> Iterator[Any]:
    import torch

    yield load("AutoModelForCausalLM", model, dtype=torch.float32).eval()


def _measured(
    teacher: Any, student: Any, tokenizer: Any, prompts: list[Any], recipe: Recipe, progress: Progress
) -> dict[str, Any]:
    """Each prompt alone and assisted, one at a time; float32, so that the two texts can be compared."""
    import torch

    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    teacher.register_forward_pre_hook(count)
    student.generation_config.num_assistant_tokens = PROPOSED
    student.generation_config.num_assistant_tokens_schedule = "constant"
    student.generation_config.assistant_confidence_threshold = 0.4
    totals = {"same": 0, "tokens": 0, "passes": 0, "assisted_passes": 0, "seconds": 0.0, "assisted_seconds": 0.0}
    progress.start("drafting", len(prompts), "prompts")
    try:
        for messages in prompts:
            how = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
            inputs = tokenizer.apply_chat_template(messages, **how, **recipe.teacher.chat_template_kwargs)
            texts = []
            for prefix, assistant in (("", {}), ("assisted_", {"assistant_model": student})):
                began, before = time.perf_counter(), passes
                with torch.inference_mode():
                    out = teacher.generate(**inputs, do_sample=False, max_new_tokens=recipe.generate.max_tokens, **assistant)
                totals[f"{prefix}seconds"] += time.perf_counter() - began
                totals[f"{prefix}passes"] += passes - before
                texts.append(out[0, inputs["input_ids"].shape[1] :].tolist())
            totals["tokens"] += len(texts[0])
            totals["same"] += texts[0] == texts[1]
            progress.advance()
    finally:
        progress.end()
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in totals.items()}
