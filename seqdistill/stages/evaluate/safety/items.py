"""What is sent for safety: requests to refuse or to answer, prefixes of planted secrets, passages to score. Scores nothing.

The shipped sets are in prompts/safety; a user's own come through [task]'s reader of prompts, with its column mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Request, supports
from seqdistill.errors import UsageError
from seqdistill.metrics.text import words
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Message, Prompt, is_hub_source, read_jsonl, request_seed
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import PLAIN, Template, prompts_folder

REFUSE, ANSWER, CANARY, PASSAGE = "refuse", "answer", "canary", "passage"
KINDS = {
    **dict.fromkeys(("refuse", "unsafe", "harmful", "toxic"), REFUSE),
    **dict.fromkeys(("answer", "safe", "harmless", "benign"), ANSWER),
}
ROLES = {
    REFUSE: ("student", "base", "teacher"),
    ANSWER: ("student", "base", "teacher"),
    CANARY: ("student", "base"),  # the teacher never saw the training rows
    PASSAGE: ("student", "base", "teacher"),
}


SLICE = "slice:"  # canaries = "slice:NAME": the training rows of that slice


@dataclass(frozen=True)
class SafetyItem:
    """One thing that is sent to several models beside the test prompts."""

    id: str
    kind: str  # refuse, answer, canary or passage
    messages: list[Message]
    wanted: str | None = None  # a canary's secret


def items_of(recipe: Recipe, template: Template, training: Path | None) -> list[SafetyItem]:
    """What [eval.safety] wants to be sent. Raises UsageError naming file and line. `training` is None before filter ran."""
    config, items = recipe.eval.safety, list[SafetyItem]()
    if config.refusals or config.prompts:
        source = config.prompts or str(prompts_folder() / "safety" / "requests.jsonl")
        columns = config.columns if config.prompts else {}
        prompts = load_prompts(source, PLAIN, None, Silent(), columns)
        items += [SafetyItem(f"{prompt.id}", _kind(prompt, config.expect, source), prompt.messages) for prompt in prompts]
        if missing := {REFUSE, ANSWER} - {item.kind for item in items}:
            _check_one_sided(missing, source, config.expect)
    if config.canaries and config.canaries.startswith(SLICE):
        items += _planted(config.canaries, training) if training else []
    elif config.canaries:
        items += [_canary(prompt, config.canaries) for prompt in load_prompts(config.canaries, template, None, Silent())]
    if config.forgetting:
        if not supports(recipe.student.engine, "score"):
            raise UsageError(
                f"[eval.safety] forgetting: the {recipe.student.engine} engine, which runs the student, does not score texts",
                "leave forgetting out, or run the student with engine = transformers",
            )
        rows = read_jsonl(prompts_folder() / "safety" / "passages.jsonl")
        items += [SafetyItem(row["id"], PASSAGE, [{"role": "user", "content": row["text"]}]) for _, row in rows]
    return items


def _kind(prompt: Prompt, expect: str | None, source: str) -> str:
    kind = expect if prompt.slice is None else KINDS.get(prompt.slice.strip().lower())
    if kind is None:
        said = "has no slice" if prompt.slice is None else f"has the slice {prompt.slice!r}"
        raise UsageError(
            f"{source}: the prompt {prompt.id!r} {said}: is it to be refused or answered?",
            f'a slice is one of {", ".join(KINDS)}; name its column with [eval.safety] columns = {{ slice = "..." }}, '
            "or set expect for rows that have none",
        )
    return kind


def _check_one_sided(missing: set[str], source: str, expect: str | None) -> None:
    """Raises UsageError for a set of one side alone, unless `expect` says that it is meant."""
    if expect is None:
        raise UsageError(
            f"{source}: no prompt of the kind {missing.pop()!r}: a model that always does the other would pass",
            'add some, or say that it is meant with [eval.safety] expect = "refuse" or "answer"',
        )


def _planted(source: str, training: Path) -> list[SafetyItem]:
    """The training rows of a slice: their completions are secrets, their prompts what comes before them."""
    rows = [row for _, row in read_jsonl(training) if row["slice"] == source.removeprefix(SLICE)]
    if not rows:
        raise UsageError(
            f"[eval.safety] canaries = {source!r}: no training row has this slice",
            "name a slice of filter/train.jsonl, or a file of canaries",
        )
    prompts = [Prompt(row["id"], row["prompt"], row["prompt"], row["completion"][-1]["content"]) for row in rows]
    return [_canary(prompt, source) for prompt in prompts]


def _canary(prompt: Prompt, source: str) -> SafetyItem:
    if prompt.reference is None or not words(prompt.reference):
        raise UsageError(
            f"{source}: the canary {prompt.id!r} has no secret",
            'a line is {"prompt": "what comes before it", "reference": "the secret"}',
        )
    if holds(prompt.messages[-1]["content"], prompt.reference):
        raise UsageError(
            f"{source}: the prompt of the canary {prompt.id!r} holds its secret", "leave the secret out of the prompt"
        )
    return SafetyItem(prompt.id, CANARY, prompt.messages, prompt.reference)


def holds(text: str, wanted: str) -> bool:
    """Whether the words of a text hold those of another in a row: case and punctuation aside."""
    return f" {' '.join(words(wanted))} " in f" {' '.join(words(text))} "


# --- requests and answers ---------------------------------------------------------------------------------------------


def requests(contestant: Contestant, items: Sequence[SafetyItem], recipe: Recipe) -> list[Request]:
    """What one model is sent."""
    assert contestant.model is not None
    config, scores = recipe.eval.safety, supports(contestant.model.engine, "score")
    return [
        Request(
            id=request_id(item, contestant.role),
            messages=item.messages,
            max_tokens=1 if item.kind == PASSAGE else config.max_tokens,
            temperature=0.0 if item.kind == PASSAGE else recipe.eval.temperature,
            seed=request_seed(recipe.eval.seed, item.id, 0),
            score=item.kind == PASSAGE,
        )
        for item in items
        if contestant.role in ROLES[item.kind] and (scores or item.kind != PASSAGE)
    ]


def request_id(item: SafetyItem, role: str) -> str:
    """The id of an item's request to a model; no prompt's, as these have no kind."""
    return f"{item.kind}:{item.id}:{role}"


def rows(items: Sequence[SafetyItem], completions: Mapping[str, Completion]) -> list[dict[str, Any]]:
    """The lines of safety.jsonl: every model's answer to every item."""
    return [
        {
            "id": item.id,
            "kind": item.kind,
            "model": role,
            "prompt": item.messages,
            "wanted": item.wanted,
            "completion": completion.content if completion.error is None else None,
            "finish_reason": completion.finish_reason,
            "nll": completion.raw.get("nll") if item.kind == PASSAGE else None,
            "tokens": completion.raw.get("tokens") if item.kind == PASSAGE else completion.completion_tokens,
            "error": None if completion.error is None else f"{completion.error}: {completion.message or ''}",
        }
        for item in items
        for role in ROLES[item.kind]
        if (completion := completions.get(request_id(item, role))) is not None
    ]


def files_of(recipe: Recipe) -> dict[str, Path]:
    """The user's own files, for the fingerprint."""
    config = recipe.eval.safety
    named = {"safety prompts": config.prompts, "canaries": config.canaries}
    return {name: Path(path) for name, path in named.items() if path and not is_hub_source(path) and not path.startswith(SLICE)}
