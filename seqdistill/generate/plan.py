"""What is to be asked: every request of a run, in the order of samples.jsonl, from the prompts and the settings.

Decides names, ids and seeds. Does not ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqdistill.config import ModelConfig, Recipe
from seqdistill.engines import Request
from seqdistill.records import Prompt, request_seed


@dataclass(frozen=True)
class Planned:
    """One sample to be had: which prompt's, which number, from whom, and the request for it."""

    prompt: Prompt
    number: int
    teacher: str
    request: Request


def teacher_name(model: ModelConfig) -> str:
    """The teacher's name in sample ids: the model as it is named, without this machine's folders."""
    name = model.model or ""
    return Path(name).name if "/" in name and Path(name).expanduser().exists() else name


def plan_requests(prompts: Sequence[Prompt], recipe: Recipe) -> list[Planned]:
    """Each prompt's samples one after the other, in the order of the prompts."""
    asked, teacher = recipe.generate, teacher_name(recipe.teacher)
    plan = []
    for prompt in prompts:
        for number in range(asked.samples):
            request = Request(
                id=f"{prompt.id}:{teacher}:{number}",
                messages=prompt.teacher_messages,
                max_tokens=asked.max_tokens,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=request_seed(asked.seed, prompt.id, number),
            )
            plan.append(Planned(prompt, number, teacher, request))
    return plan
