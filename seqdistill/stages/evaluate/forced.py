"""Teacher forcing: both models read the teacher's own answers, and their next-token distributions are compared place by place.

Where both run in this process, with one tokenizer. Kept in forced.jsonl, a line a prompt, and taken again only where a model,
a prompt or an answer changed. The student need not write what the teacher wrote to know what it would have written next.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqdistill.engines import Completion, Request
from seqdistill.engines.chat_prompt import prompt_tokens
from seqdistill.engines.loading import default_device, load, longest_input
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Message, fingerprint, to_line, write_jsonl
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.statistics.intervals import ratio, resample
from seqdistill.stages.evaluate.table import cell_of

MOST = 64  # prompts
ABOUT = "top-1 agreement and KL(teacher || student) per token of the teacher's answers, which both models read"


def check_forced(recipe: Recipe) -> None:
    """Raises UsageError where the two models do not both run in this process."""
    engines = {name: getattr(recipe, name).engine for name in ("teacher", "student")}
    others = [f"[{name}] engine = {engine!r}" for name, engine in engines.items() if engine != "transformers"]
    if recipe.eval.teacher_forced and (others or not recipe.teacher.model):
        raise UsageError(
            f"[eval] teacher_forced: {' and '.join(others) or 'no teacher is configured'}: no token distributions",
            "leave teacher_forced out, or configure both as files with engine = transformers",
        )


def forced_rows(
    path: Path, contestants: Sequence[Contestant], answers: Sequence[Answer], progress: Progress
) -> tuple[list[dict[str, Any]], str | None]:
    """The lines of forced.jsonl, in the order of the prompts, and why there are none.

    A line is {"key", "id", "group", "tokens", "agreed", "kl"}: the sum over the tokens of the teacher's answer, in nats.
    """
    models = {contestant.role: contestant for contestant in contestants if contestant.role in ("student", "teacher")}
    if models["teacher"].model is None or models["student"].model is None:
        return [], "the teacher's answers are recorded: its distribution is not known"
    given: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.scores is not None and answer.model in models:
            given.setdefault(answer.prompt.id, {})[answer.model] = answer
    pairs = [of for of in given.values() if of["teacher"].text][:MOST]
    identities = [models[role].identity for role in ("student", "teacher")]
    keys = [fingerprint([*identities, of["student"].messages, of["teacher"].messages, of["teacher"].text])[:32] for of in pairs]
    partial = partial_file(path)
    known = _read(path) | _read(partial)
    missing = [(key, of) for key, of in zip(keys, pairs, strict=True) if key not in known]
    if missing:
        student, teacher = (_Reader(models[role].model) for role in ("student", "teacher"))
        if student.vocabulary != teacher.vocabulary:
            return [], "student and teacher do not have the same tokens"
        progress.start("reading the teacher's answers", len(missing), "prompts")
        try:
            write_jsonl(partial, known.values())  # less a last line that was cut short
            with partial.open("a", encoding="utf-8") as file:
                for key, of in missing:
                    known[key] = {"key": key, "id": of["teacher"].prompt.id, "group": of["teacher"].group} | _compared(
                        student, teacher, of
                    )
                    file.write(to_line(known[key]))
                    file.flush()
                    progress.advance()
        finally:
            progress.end()
    rows = [known[key] for key in keys]
    return rows, None if rows else "the teacher answered nothing"


def partial_file(path: Path) -> Path:
    """Where the lines wait until all are there: an earlier eval's file stays as it is."""
    return path.with_name(f".{path.name}")


def forced_document(rows: Sequence[Mapping[str, Any]], reason: str | None, resamples: int, seed: int) -> dict[str, Any]:
    """The part "teacher_forced" of scores.json: top1 in percent of the tokens, kl in nats a token; intervals over prompts."""
    read = [row for row in rows if row["tokens"]]
    document = {"about": ABOUT, "prompts": len(read), "tokens": sum(row["tokens"] for row in read), "reason": reason}
    if not read:
        return document | {"top1": None, "kl": None, "reason": reason or "no answer could be read by both"}
    groups = [row["group"] if row["group"] is not None else f"prompt {row['id']}" for row in read]
    columns = np.array([[row["agreed"], row["kl"], row["tokens"]] for row in read], dtype=np.float64)
    drawn = resample(columns, resamples, seed, groups if len(set(groups)) < len(groups) else None)
    return document | {
        "top1": cell_of(drawn.interval(ratio(0, 2, 100.0)), len(read)),
        "kl": cell_of(drawn.interval(ratio(1, 2)), len(read)),
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The whole lines of the file, by key; a last one that was cut short is dropped."""
    if not path.exists():
        return {}
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return {row["key"]: row for row in map(json.loads, whole.splitlines())}


class _Reader:
    """A model that reads texts, without writing any."""

    def __init__(self, model: ModelConfig | None) -> None:

        assert model is not None
        self.tokenizer = load("AutoTokenizer", model)
        self._options = model.chat_template_kwargs
        self._device = default_device(model.options)
        self._model = load("AutoModelForCausalLM", model, dtype=model.options.get("dtype", "auto")).to(self._device).eval()
        self._longest = longest_input(self._model.config)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Each token's id."""
        return dict(self.tokenizer.get_vocab())

    def prompt(self, messages: list[Message], room: int) -> list[int] | None:
        """A prompt's tokens; None where it does not fit with `room` more."""
        found = prompt_tokens(self.tokenizer, Request("", messages, room), self._options, self._longest, "")
        return None if isinstance(found, Completion) else found

    def logprobs(self, prompt: list[int], answer: list[int]) -> Any:  # (T, V)
        """The log-probabilities of each token that may follow, before each of the answer's."""
        import torch

        tokens = torch.tensor([prompt + answer], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
        return logits.float().log_softmax(-1)


def _compared(student: _Reader, teacher: _Reader, of: Mapping[str, Answer]) -> dict[str, Any]:
    """The teacher's answer, its end of turn included where it ended by it, read by both."""
    stop = of["teacher"].completion.raw.get("stop_token")
    answer = teacher.tokenizer.encode(of["teacher"].text, add_special_tokens=False) + ([stop] if stop is not None else [])
    prompts = [reader.prompt(of[role].messages, len(answer)) for role, reader in (("student", student), ("teacher", teacher))]
    if prompts[0] is None or prompts[1] is None:
        return {"tokens": 0, "agreed": 0, "kl": 0.0}
    ours, theirs = student.logprobs(prompts[0], answer), teacher.logprobs(prompts[1], answer)
    width = min(ours.shape[-1], theirs.shape[-1])  # embeddings are padded to one size or another
    ours, theirs = (one[:, :width].log_softmax(-1) for one in (ours, theirs))
    kl = (theirs.exp() * (theirs - ours)).sum()
    agreed = (ours.argmax(-1) == theirs.argmax(-1)).sum()
    return {"tokens": len(answer), "agreed": int(agreed), "kl": round(float(kl), 6)}
