"""Every model's answer to every test prompt, scored; a prompt that some model did not answer is in no score.

The copy baseline, which needs no model, is one of the answers. Does not know means or intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError
from seqdistill.evaluate.asking import Contestant
from seqdistill.evaluate.metrics import copied, score_answer
from seqdistill.records import Message, Prompt
from seqdistill.tasks.answer_form import AnswerForm


@dataclass(frozen=True)
class Answer:
    """One model's answer to one test prompt, scored. `scores` is None when some model's request failed."""

    model: str
    prompt: Prompt
    messages: list[Message]  # as this model was asked
    completion: Completion
    scores: dict[str, float | None] | None

    def row(self) -> dict[str, Any]:
        """The line of predictions.jsonl."""
        completion = self.completion
        return {
            "id": self.prompt.id,
            "model": self.model,
            "prompt": self.messages,
            "completion": [{"role": "assistant", "content": completion.content}] if completion.error is None else [],
            "finish_reason": completion.finish_reason,
            "tokens": completion.completion_tokens,
            "seconds": round(completion.seconds, 6),
            "scores": self.scores,
            "reference": self.prompt.reference,
            "slice": self.prompt.slice,
            "error": None if completion.error is None else f"{completion.error}: {completion.message or ''}",
        }


def scored(
    contestants: Sequence[Contestant], prompts: Sequence[Prompt], given: Mapping[str, Completion], form: AnswerForm
) -> list[Answer]:
    """Every answer with its scores, prompt by prompt, the copy baseline last. Raises when no prompt has all answers."""
    whole = [p for p in prompts if all(given[f"{p.id}:{contestant.role}"].error is None for contestant in contestants)]
    if not whole:
        failure = next(completion for completion in given.values() if completion.error)
        raise SeqdistillError(
            f"no prompt was answered by all models; the first failure: {failure.error}: {failure.message}",
            "mend the cause and run again; what was answered is kept",
        )
    complete = {prompt.id for prompt in whole}
    length = round(sum(len(given[f"{prompt.id}:teacher"].content) for prompt in whole) / len(whole))

    def answers() -> Iterator[Answer]:
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
                    scores = score_answer(completion.content, teacher, prompt.reference, reason, form)
                yield Answer(model, prompt, messages, completion, scores)

    return list(answers())
