"""Every contestant's answer to every test prompt, scored; a prompt that some model did not answer is in no score.

Does not know means or intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqdistill.confidence import confidence_of
from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError
from seqdistill.metrics import Item, Measure
from seqdistill.records import Message, Prompt
from seqdistill.stages.evaluate.baselines import Texts
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.deferral import samples_of
from seqdistill.tasks.answer_form import AnswerForm

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Answer:
    """One contestant's answer to one test prompt, scored. `scores` is None when some model's request failed."""

    model: str  # the contestant's role
    prompt: Prompt
    messages: list[Message] = field(repr=False)  # as this contestant was shown it
    completion: Completion
    scores: Scores | None
    confidence: float | None = None  # the student's, from 0 to 1; 0 where its form is not valid

    @property
    def text(self) -> str:
        """What it says."""
        return self.completion.content

    @property
    def group(self) -> str | None:
        """The group of prompts it belongs to, where the test set names one."""
        return self.prompt.group

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
            "confidence": self.confidence,
            "reference": self.prompt.reference,
            "slice": self.prompt.slice,
            "group": self.group,
            "error": None if completion.error is None else f"{completion.error}: {completion.message or ''}",
        }


@dataclass(frozen=True)
class Scoring:
    """How answers are scored: the columns, the form, and what baselines may look at."""

    measures: Sequence[Measure]
    form: AnswerForm
    kind: str
    training: Path | None = None

    def scores(self, answers: Mapping[str, Completion], role: str, prompt: Prompt) -> Scores:
        """One contestant's scores on a prompt that all answered; None for what does not apply."""
        teacher = answers["teacher"].content if "teacher" in answers else None
        text, reason = answers[role].content, answers[role].finish_reason
        item = Item(
            text,
            kind=self.kind,
            choices=tuple(self.form.choices),
            fault=self.form.fault(text) if self.form else None,
            finish_reason=None if reason in ("copy", "unknown") else reason,
            prompt=prompt.messages[-1]["content"],
            source="\n".join(message["content"] for message in prompt.messages),
        )
        wanted = {"teacher": teacher, "reference": prompt.reference}
        found: Scores = {}
        for measure in self.measures:
            if measure.against is None:
                found[measure.name] = measure.metric.score(item)
            else:
                other = wanted[measure.against]
                found[measure.name] = None if other is None else measure.metric.score(replace(item, wanted=other))
        found["length_ratio"] = len(text) / len(teacher) if teacher else None
        return found


def scored(
    contestants: Sequence[Contestant], prompts: Sequence[Prompt], completions: Mapping[str, Completion], scoring: Scoring
) -> list[Answer]:
    """Every answer with its scores, prompt by prompt. Raises when no prompt has all answers.

    `completions` holds the answers of all but the computed baselines, by "prompt id:role".
    """
    answering = [contestant for contestant in contestants if not contestant.absent]
    having = [contestant for contestant in answering if contestant.write is None]
    whole = [p for p in prompts if all(completions[f"{p.id}:{contestant.role}"].error is None for contestant in having)]
    if not whole:
        keys = ((one.phrase, completions[f"{prompt.id}:{one.role}"]) for one in having for prompt in prompts)
        who, failure = next((phrase, completion) for phrase, completion in keys if completion.error)
        cause = "lower --max-tokens or shorten the prompts" if failure.error == "too long" else "fix the cause"
        raise SeqdistillError(
            f"no prompt was answered by all models; the first failure, of {who}: {failure.error}: {failure.message}",
            f"{cause}, and run again; what was answered is kept",
        )
    complete = {prompt.id for prompt in whole}
    texts = Texts(prompts, _usual_length(whole, completions), scoring.training, scoring.form.choices)
    written = {contestant.role: contestant.write(texts) for contestant in answering if contestant.write}

    def answers() -> Iterator[Answer]:
        for number, prompt in enumerate(prompts):
            of_prompt = {
                contestant.role: Completion(
                    f"{prompt.id}:{contestant.role}", written[contestant.role][number], finish_reason="copy"
                )
                if contestant.write
                else completions[f"{prompt.id}:{contestant.role}"]
                for contestant in answering
            }
            for contestant in answering:
                completion = of_prompt[contestant.role]
                scores = scoring.scores(of_prompt, contestant.role, prompt) if prompt.id in complete else None
                confidence = None
                if contestant.role == "student":
                    confidence = confidence_of(completion, scoring.form, scoring.kind, samples_of(completions, prompt.id))
                yield Answer(contestant.role, prompt, contestant.messages(prompt), completion, scores, confidence)

    return list(answers())


def _usual_length(prompts: Sequence[Prompt], completions: Mapping[str, Completion]) -> int:
    """Mean characters of the teacher's answers, or else of the references, or else of the student's answers."""
    teacher = [completions[key].content for prompt in prompts if (key := f"{prompt.id}:teacher") in completions]
    references = [prompt.reference for prompt in prompts if prompt.reference is not None]
    texts = teacher or references or [completions[f"{prompt.id}:student"].content for prompt in prompts]
    return round(sum(map(len, texts)) / len(texts))
