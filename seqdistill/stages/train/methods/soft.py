"""Soft targets: the teacher's distribution at each token beside its text (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

The loss at a token is alpha * cross-entropy + (1 - alpha) * T^2 * KL(teacher || student), both at temperature T, in K + 1
buckets: the teacher's K likeliest tokens, and all others together; a student with a smaller vocabulary has no bucket of others.
The targets come from log-probability files; which of a row's can be trusted, and where they wait, is `targets`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seqdistill.engines.logprobs import TEMPERATURES, is_same_temperature
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.rights import teachers_in
from seqdistill.runs import Run
from seqdistill.stages.train.methods import Method, Step, TrainingSetup, hidden, sequence
from seqdistill.stages.train.methods.sequence import build_trainer, text_loss, trained_tokens
from seqdistill.stages.train.methods.targets import (
    NO_NORMALIZER,
    WAYS_OUT,
    Targets,
    read_targets,
    student_numbering,
    target_files,
)
from seqdistill.stages.train.reading import Read
from seqdistill.stages.train.student import Student

KEYS = frozenset(("alpha", "temperature", "approximate", "batch_tokens"))
COLUMNS = ("target_ids", "target_logprobs", "target_found")


def soft_loss(logits: Any, ids: Any, logprobs: Any, temperature: float, rest: bool = True) -> Any:
    """T^2 * KL(teacher || student) at each of N places, from the student's logits (N, V).

    `logprobs` (N, K) are the teacher's at `temperature`, of the tokens `ids` (N, K), -inf where fewer are stored; what they
    leave of 1 is the bucket of all other tokens. Without `rest` both sides are renormalised over the stored tokens, and there
    is no such bucket.
    """
    import torch

    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scaled = (logits - logits.detach().amax(-1, keepdim=True)) / temperature  # near 0, where numbers are exact
    precise = torch.float32 if logits.device.type == "mps" else torch.float64  # T^2 multiplies what K + 1 buckets lose
    likeliest, whole = scaled.gather(-1, ids).to(precise), scaled.logsumexp(-1).to(precise)
    logprobs = logprobs.to(precise)
    if not rest:
        unused = logprobs.isneginf()  # places that repeat a token, which would count for each
        likeliest = likeliest.masked_fill(unused, torch.finfo(precise).min)
        loss = _divergence(logprobs.log_softmax(-1), likeliest.log_softmax(-1))
        return temperature**2 * loss.to(scaled.dtype)
    loss = _divergence(logprobs, likeliest - whole[:, None])
    if ids.shape[-1] < scaled.shape[-1]:
        left = (1 - logprobs.exp().sum(-1)).clamp(min=0)
        others = scaled.scatter(-1, ids, float("-inf")).logsumexp(-1).to(precise) - whole
        loss = loss + torch.xlogy(left, left) - left * others
    return (temperature**2 * loss).to(scaled.dtype)


def _divergence(teacher: Any, student: Any) -> Any:  # (N, K), (N, K) -> (N)
    """Sum over the buckets of p log(p / q); where the teacher's probability is 0, so is the addend."""
    shares = teacher.exp()
    return (shares * (teacher.nan_to_num(neginf=0.0) - student)).sum(-1)


def mixed_loss(alpha: float, temperature: float, rest: bool) -> Callable[[Step], Any]:
    """The loss of text and targets together; a token without a target is learnt from the text alone."""
    import torch

    def losses(step: Step) -> Any:  # -> (N)
        ids, logprobs, found = (step.extras[name] for name in COLUMNS)
        text, soft = text_loss(step), soft_loss(step.logits, ids, logprobs, temperature, rest)
        return torch.where(found, alpha * text + (1 - alpha) * soft, text)

    return losses


def collating(targets: Targets) -> Callable[[Any], Any]:
    """Wraps TRL's collator: the targets of a batch's N trained tokens beside it, in the order of the rows."""

    def wrap(collate: Any) -> Any:
        import torch

        def with_targets(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
            found = [targets.of(example["row"], trained_tokens(example)) for example in examples]
            columns = {name: torch.cat([row[number] for row in found]) for number, name in enumerate(COLUMNS)}
            return {**collate(list(examples)), **columns}

        return with_targets

    return wrap


def check_arguments(arguments: Any, config: TrainConfig) -> None:
    """Raises UsageError for [train.args] that targets do not go with."""
    sequence.check_unpacked(arguments, "method = 'soft'")
    sequence.check_plain_loss(arguments, "method = 'soft'")
    sequence.check_arguments(arguments, config)


def build(setup: TrainingSetup, callbacks: Sequence[Any]) -> Any:
    """The trainer of text and targets."""
    config = setup.recipe.train
    loss = mixed_loss(config.alpha, config.temperature, not config.approximate)
    return build_trainer(setup, callbacks, loss, collating(setup.material))


def check(run: Run, recipe: Recipe, student: Student) -> None:
    """Raises UsageError, naming the commands that write them, for a run without any targets."""
    hidden.check(recipe, student)
    if not target_files(run):
        raise UsageError(
            f"[train] method = 'soft' learns from the teacher's log-probabilities, and {run.path} has none",
            f"`seqdistill generate {run.shell} --logprobs 20` requests them, or `seqdistill targets {run.shell}` "
            "has a local teacher score the rows of filter",
        )


def check_stored(recipe: Recipe) -> None:
    """Raises UsageError where what generate stores cannot be learnt from: no log-probabilities, or not at this temperature."""
    logprobs, temperature = recipe.generate.logprobs, recipe.train.temperature
    if not logprobs:
        state = "not set" if logprobs is None else "0, which stores no likeliest tokens"
        raise UsageError(
            f"[train] method = 'soft' learns from the teacher's log-probabilities, and [generate] logprobs is {state}",
            "set it, for example logprobs = 20; for answers without them, run the stages one by one and `seqdistill targets` "
            "before train",
        )
    if not os.environ.get("OPENAI_BASE_URL") and all(
        teacher.engine == "openai" and not teacher.base_url for teacher in teachers_in(recipe)
    ):
        raise UsageError(
            "[train] method = 'soft' needs tokens by their ids, and OpenAI's endpoint names them by their texts",
            "use method = 'sequence' or 'preference', or a teacher in transformers or vLLM",
        )
    if temperature == 1 or recipe.train.approximate:
        return
    teachers = [teacher for teacher in teachers_in(recipe) if teacher.engine == "transformers"]
    if not teachers or not any(is_same_temperature(known, temperature) for known in TEMPERATURES):
        kept = f"at the temperatures 1, {', '.join(f'{known:g}' for known in TEMPERATURES)}" if teachers else "at 1 alone"
        raise UsageError(
            f"[train] temperature = {temperature:g}: what generate stores of this teacher can be compared {kept}",
            WAYS_OUT[NO_NORMALIZER].format(run="RUN"),
        )


def check_files(recipe: Recipe, student: Student, read: Read) -> None:
    """Raises UsageError for a teacher whose tokens are not the student's."""
    hidden.check_files(recipe, student, read)
    student_numbering(recipe, read.tokenizer, read.before_cuts)


def inputs(run: Run, _recipe: Recipe) -> dict[str, Path]:
    """The files that the targets come from."""
    return target_files(run)


METHOD = Method(
    "soft",
    "SFTConfig",
    build,
    check=check,
    gather=read_targets,
    inputs=inputs,
    defaults=hidden.defaults,
    check_recipe=hidden.check,
    check_stored=check_stored,
    check_files=check_files,
    check_arguments=check_arguments,
    keys=KEYS | hidden.KEYS,
    reads_teacher=hidden.reads_teacher,
)
