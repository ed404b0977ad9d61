"""Answers that exist already, from a file, matched with the test prompts. Sends no requests.

A line is {"id" or "prompt", "completion"}; samples.jsonl and predictions.jsonl of another run are such files too, the latter
with its student's answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import UsageError
from seqdistill.reasoning import split_reasoning
from seqdistill.records import Message, Prompt, prompt_id, read_jsonl
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.tasks.messages import chat_messages
from seqdistill.tasks.templates import Template, render

NOT_RECORDED = "not recorded"  # the error of an answer that the recorded ones lack
HINT = 'a line is {"id" or "prompt": ..., "completion": "text"}; the id is the prompt\'s in the test set'


def read_outputs(path: Path, prompts: Sequence[Prompt], template: Template) -> dict[str, Completion]:
    """The answers of a file by prompt id, the first of several; lines of other prompts are left out.

    Where lines name their `model`, those of "student" are taken: predictions.jsonl has the answers of all that were compared.
    A prompt is matched by its id, by either view of its messages, by the user's last message, or by what the task's template
    makes of the line; prompts of one text by its lines in turn, and where there are fewer lines by the first. An id counts for
    nothing in a line with another prompt: each file may number its own from 0. Raises UsageError naming file and line, and for
    answers of several other models to one prompt.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    by_view: dict[str, list[str]] = {}
    by_text: dict[str, list[str]] = {}
    for prompt in prompts:
        for view in _views(prompt):
            by_view.setdefault(prompt_id(view), []).append(prompt.id)
            by_text.setdefault(view[-1]["content"], []).append(prompt.id)
    by_model: dict[str, dict[str, Completion]] = {}
    for place, row in read_jsonl(path):
        if "completion" not in row:
            raise UsageError(f"{place}: the line has no completion; its keys are {', '.join(row) or 'none'}", HINT)
        own = [str(row[key]) for key in ("prompt_id", "id") if row.get(key) is not None]
        named = next((by_id[one] for one in own if one in by_id), None)
        if named and _may_be_of(row, named):
            meant = [named.id]
        else:
            meant = _by_prompt(row, by_view, by_text, template)
            meant = [named.id] if named and named.id in meant else meant
        found = by_model.setdefault(row["model"] if isinstance(row.get("model"), str) else "", {})
        name = next((one for one in meant if one not in found), None)
        if name is not None and (text := _text(row["completion"], place)) is not None:
            found[name] = Completion(
                name,
                text,
                finish_reason=str(row.get("finish_reason") or "unknown"),
                prompt_tokens=_count(row.get("prompt_tokens")),
                completion_tokens=_count(row.get("completion_tokens", row.get("tokens"))),
            )
    answers = by_model["student"] if by_model.get("student") else _together(by_model, path)
    for prompt in prompts:
        if prompt.id not in answers and (same := [one for one in by_view[prompt_id(prompt.messages)] if one in answers]):
            answers[prompt.id] = replace(answers[same[0]], id=prompt.id)
    return answers


def _together(by_model: Mapping[str, Mapping[str, Completion]], path: Path) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    for answers in by_model.values():
        if twice := found.keys() & answers.keys():
            names = ", ".join(name or "no name" for name in by_model)
            raise UsageError(
                f"{path}: answers of several models ({names}) to one prompt, as to {min(twice)!r}",
                "name a file that has the answers of one model",
            )
        found |= answers
    return found


def _by_prompt(
    row: Mapping[str, Any], by_view: Mapping[str, list[str]], by_text: Mapping[str, list[str]], template: Template
) -> list[str]:
    """The prompts that a line may answer."""
    prompt = row.get("prompt", row.get("messages"))
    if isinstance(prompt, str) and prompt in by_text:
        return by_text[prompt]
    if not isinstance(prompt, str | list):
        return []
    try:
        prompt = prompt if isinstance(prompt, str) else chat_messages(prompt, "", "prompt")
        if isinstance(prompt, list) and (name := by_view.get(prompt_id(prompt))):
            return name
        return by_view.get(prompt_id(render(template, "teacher", {"reference": None, **row, "prompt": prompt}, "")), [])
    except UsageError:  # no prompt, or the template wants more than the line has: it is no line of this task
        return []


def _may_be_of(row: Mapping[str, Any], prompt: Prompt) -> bool:
    """Whether a line with the prompt's id can hold an answer to it: it has no prompt, or the text of one is in the other's."""
    shown = row.get("prompt", row.get("messages"))
    if isinstance(shown, list) and shown and isinstance(shown[-1], dict):
        shown = shown[-1].get("content")
    if not isinstance(shown, str) or not shown.strip():
        return True
    said, *views = (" ".join(text.split()) for text in (shown, *(view[-1]["content"] for view in _views(prompt))))
    return any(said in view or view in said for view in views)


def _views(prompt: Prompt) -> tuple[list[Message], list[Message]]:
    return prompt.teacher_messages, prompt.messages


def _text(completion: str | list[Message], place: str) -> str | None:
    """What a completion says, its reasoning aside; None for an empty list, which is how predictions.jsonl marks a failure."""
    if isinstance(completion, str):
        return split_reasoning(completion)[0]
    if completion == []:
        return None
    if isinstance(completion, list) and isinstance(completion[-1], dict) and isinstance(completion[-1].get("content"), str):
        return split_reasoning(completion[-1]["content"])[0]
    raise UsageError(f"{place}: the completion is neither text nor messages", HINT)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def with_outputs(
    contestants: Sequence[Contestant], prompts: Sequence[Prompt], template: Template
) -> tuple[list[Contestant], dict[str, Completion]]:
    """The contestants, and the answers of those that have a file, by "prompt id:role".

    A file must answer every test prompt, but for the recorded teacher: prompts that it did not answer are left out of the
    scores, and where that is more than half of them its row is empty. Raises UsageError.
    """
    found: dict[str, Completion] = {}
    taken: list[Contestant] = []
    for contestant in contestants:
        if contestant.outputs is None:
            taken.append(contestant)
            continue
        answers = read_outputs(contestant.outputs, prompts, template)
        missing = [prompt.id for prompt in prompts if prompt.id not in answers]
        if missing and contestant.role != "teacher":
            raise UsageError(
                f"{contestant.outputs}: no answer to {len(missing)} of {len(prompts)} test prompts, first {missing[0]!r}",
                f"{HINT}, and of the same prompt where the line has one, too",
            )
        if 2 * len(missing) > len(prompts):
            reason = f"only {len(answers)} of {len(prompts)} test prompts have a recorded answer"
            taken.append(replace(contestant, called="teacher", outputs=None, absent=reason))
            continue
        taken.append(contestant)
        unanswered = Completion("", error=NOT_RECORDED, message="the recorded answers have none to this prompt")
        found |= {f"{prompt.id}:{contestant.role}": answers.get(prompt.id, unanswered) for prompt in prompts}
    return taken, found
