"""What the student writes to validation prompts while it trains: shown beside the teacher's answers, and scored.

At each validation some prompts are answered greedily. The first few are in log.jsonl and on the terminal; where the best
weights are chosen by quality, the mean score of all of them against the teacher's answers decides. Owns the choice of prompts
and of the metric. Nothing here draws a random number, so a training is the same with and without it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seqdistill.engines.answer_markup import answer_markup, read_answer
from seqdistill.engines.batching import Batching, begin, measure, write
from seqdistill.engines.generation_config import neutralise
from seqdistill.errors import UsageError
from seqdistill.metrics import METRICS, OWN, Item, Metric, default_metric
from seqdistill.metrics.own import own_metric
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import Prompt, Sample
from seqdistill.run_prompts import is_for_validation
from seqdistill.stages.train.checkpoints import work_folder
from seqdistill.stages.train.lora import without_adapters
from seqdistill.stages.train.loss_log import append
from seqdistill.stages.train.methods import TrainingSetup
from seqdistill.stages.train.ranks import rank, shared
from seqdistill.stages.train.rendering import Row
from seqdistill.tasks.answer_form import AnswerForm

BATCH_ROWS = 32
SHOWN_CHARACTERS = 60  # of an answer, on the terminal


@dataclass(frozen=True)
class Answered:
    """A validation prompt, and what the student wrote to it."""

    row: Row
    sample: Sample
    student: str
    finish_reason: str  # "stop" or "length"


@dataclass(frozen=True)
class Quality:
    """The metric that compares the student's answers with the teacher's."""

    metric: Metric
    form: AnswerForm
    kind: str

    def score(self, text: str, sample: Sample, finish_reason: str) -> float | None:
        """Percent; None where the metric does not apply."""
        item = Item(
            text,
            sample.text,
            kind=self.kind,
            choices=tuple(self.form.choices),
            fault=self.form.fault(text) if self.form else None,
            finish_reason=finish_reason,
            prompt=sample.prompt[-1]["content"],
        )
        return self.metric.score(item)


def quality_of(recipe: Recipe, samples: Sequence[Sample]) -> Quality:
    """The task's primary metric, always against the teacher's answers. Raises UsageError where it does not apply to them."""
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    kind = "choices" if form.choices else "schema" if form.schema else "text"
    named = (recipe.task.primary or "").removesuffix("_teacher").removesuffix("_reference")
    name = named or default_metric(kind, own=recipe.eval.metric is not None)
    metric = own_metric(recipe.eval.metric) if name == OWN and recipe.eval.metric else METRICS.get(name)
    if metric is None or not metric.against or kind not in metric.kinds:
        raise UsageError(
            f"[train] best = 'quality' needs a metric that compares two answers, and [task] primary is {name!r}",
            "set [task] primary, for example chrf",
        )
    quality = Quality(metric, form, kind)
    if samples and all(quality.score(sample.text, sample, "stop") is None for sample in samples):
        raise UsageError(
            f"[train] best = 'quality': {metric.name} applies to none of {len(samples)} validation answers",
            "set [task] primary to another metric, for example chrf",
        )
    return quality


def chosen(setup: TrainingSetup, count: int) -> list[tuple[Row, Sample]]:
    """The first validation rows, one of each prompt."""
    samples = {sample.id: sample for sample in setup.samples["validation"]}
    found: dict[str, tuple[Row, Sample]] = {}
    for row in setup.checked.validation:
        found.setdefault(samples[row.id].prompt_id, (row, samples[row.id]))
    return [*found.values()][:count]


def has_validation(recipe: Recipe, prompts: Sequence[Prompt]) -> bool:
    """Whether filter will hold back rows for validation, as far as is known; `prompts` are the run's, where they are known."""
    held = [is_for_validation(prompt.id, prompt.group, recipe.filter) for prompt in prompts]
    return (any(held) and not all(held)) if held else recipe.filter.validation > 0


def check_recipe(recipe: Recipe, prompts: Sequence[Prompt] = ()) -> None:
    """Raises UsageError where the best weights would be chosen by what cannot be measured, before there are rows."""
    config = recipe.train
    if config.best_by is not None and not has_validation(recipe, prompts):
        raise _without_rows(recipe)
    if config.best_by == "quality":
        quality_of(recipe, [])


def _without_rows(recipe: Recipe) -> UsageError:
    share = recipe.filter.validation
    return UsageError(
        f"[train] {_key_in_use(recipe.train)} needs validation rows, and there are none",
        f"with few prompts, or few groups of them, raise [filter] validation (it is {share:g})"
        if share
        else "set [filter] validation = 0.05",
    )


def _key_in_use(config: TrainConfig) -> str:
    return "best" if config.best is not None else "early_stopping"


def check(setup: TrainingSetup) -> None:
    """Raises UsageError where the best weights are chosen by what cannot be measured."""
    config = setup.recipe.train
    if config.best_by is None:
        return
    if not setup.checked.validation:
        raise _without_rows(setup.recipe)
    check_arguments(setup.arguments, config)
    if config.best_by == "quality":
        quality_of(setup.recipe, [sample for _, sample in chosen(setup, config.best_prompts)])


def check_arguments(arguments: Any, config: TrainConfig) -> None:
    """Raises UsageError for TRL's arguments with which the best weights cannot be chosen or kept."""
    if config.best_by is None:
        return
    if getattr(arguments.eval_strategy, "value", None) == "no":
        raise UsageError(
            f"[train] {_key_in_use(config)} needs validations, and [train.args] eval_strategy is no", "leave eval_strategy out"
        )
    if is_spread(arguments):
        raise UsageError(
            "[train] best and early_stopping keep weights that FSDP and DeepSpeed spread over processes", "leave them out"
        )


def answering(setup: TrainingSetup) -> Any:
    """A trainer callback that answers validation prompts at each validation; None where none are to be answered."""
    from transformers import TrainerCallback

    config, progress = setup.recipe.train, setup.progress
    scored = config.best_prompts if config.best_by == "quality" else 0
    pairs = chosen(setup, max(config.generations, scored))
    if not pairs or is_spread(setup.arguments):
        return None
    quality = quality_of(setup.recipe, [sample for _, sample in pairs]) if scored else None
    log = work_folder(setup.run) / "log.jsonl"
    longest = max(len(row.tokens) - row.start for row in setup.checked.train)

    class Answering(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def __init__(self) -> None:
            self._able: Batching | None = None

        def on_evaluate(self, _args: Any, state: Any, _control: Any, model: Any, **_: Any) -> None:
            found = shared(lambda: self._answers(model))
            entry = {
                "step": state.global_step,
                "epoch": state.epoch,
                "quality": _mean(quality, found[:scored]) if quality else None,
                "generations": [_log_entry(one) for one in found[: config.generations]],
            }
            state.log_history.append(entry)
            if rank() == 0:
                append(log, entry)
                _note(entry, quality, min(scored, len(found)), progress)

        def _answers(self, model: Any) -> list[Answered]:
            model, stops = without_adapters(model), setup.stops
            with _answering(model):
                if self._able is None:
                    self._able = measure(model, setup.checked.train[0].tokens, stops, _pad(setup)) if len(pairs) > 1 else None
                return answers(model, setup, pairs, self._able, longest)

    return Answering()


def answers(
    model: Any, setup: TrainingSetup, pairs: Sequence[tuple[Row, Sample]], able: Batching | None, longest: int
) -> list[Answered]:
    """The model's greedy answers of at most `longest` tokens, in the order of the prompts."""
    tokenizer, stops = setup.tokenizer, setup.stops
    markup = answer_markup(tokenizer, setup.recipe.student.chat_template_kwargs)
    found: dict[str, Answered] = {}
    for batch in _batches(pairs, able):
        inputs = begin(model, [row.tokens[: row.start] for row, _ in batch], _pad(setup), able.sharing if able else 0, longest)
        written = write(model, inputs, [], longest, stops, _pad(setup), leaving=bool(able and able.leaving))
        for (row, sample), tokens in zip(batch, written, strict=True):
            stop = next((at for at, token in enumerate(tokens) if token in stops), None)
            text, _, _ = read_answer(tokenizer, markup, tokens[:stop])
            found[row.id] = Answered(row, sample, text, "length" if stop is None else "stop")
    return [found[row.id] for row, _ in pairs]


def _batches(pairs: Sequence[tuple[Row, Sample]], able: Batching | None) -> Iterator[list[tuple[Row, Sample]]]:
    """Prompts that are answered at once, as far as the model supports it; the longest first."""
    batch: list[tuple[Row, Sample]] = []
    for pair in sorted(pairs, key=lambda one: -one[0].start):
        unlike = batch and not (able and able.padding) and pair[0].start != batch[0][0].start
        if batch and (unlike or not (able and able.several) or len(batch) == BATCH_ROWS):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """While it lasts, the model answers as it would by itself: no dropout, nothing that bends an answer."""
    import torch

    training, config = model.training, model.generation_config
    model.eval()
    neutralise(model)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.generation_config = config
        model.train(training)


def _pad(setup: TrainingSetup) -> int:
    pad = setup.tokenizer.pad_token_id
    return int(setup.stops[0] if pad is None else pad)


def _mean(quality: Quality, found: Sequence[Answered]) -> float | None:
    scores = [quality.score(one.student, one.sample, one.finish_reason) for one in found]
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), 4) if known else None


def _log_entry(one: Answered) -> dict[str, str]:
    return {"id": one.row.id, "teacher": one.sample.text, "student": one.student, "finish_reason": one.finish_reason}


def _note(entry: dict[str, Any], quality: Quality | None, scored: int, progress: Progress) -> None:
    at = f"train: step {entry['step']}"
    if quality and entry["quality"] is not None:
        progress.note(f"{at}: {quality.metric.heading} to the teacher {entry['quality']:.1f} on {scored} validation prompts")
    for one in entry["generations"][:1]:
        student, teacher = (_short(one[name]) for name in ("student", "teacher"))
        progress.note(f"{at}, {one['id']}: the student writes {student}, the teacher wrote {teacher}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…")


def is_spread(arguments: Any) -> bool:
    """Whether the weights are spread over several processes, where the student cannot answer by itself."""
    by_launcher = [os.environ.get(f"ACCELERATE_USE_{name}", "") for name in ("FSDP", "DEEPSPEED")]
    return bool(arguments.fsdp or arguments.deepspeed) or any(value.lower() in ("1", "true") for value in by_launcher)
