"""What is trained on, checked before the first step: every row rendered, measured, and seen to end where the student stops.

Owns the rule of which rows fit, and the check that the trainer trains exactly these. Does not render (rendering.py) and does
not train.

The mistakes it exists for are silent ones: answers clipped at a default length, a template that renders the prompt
differently when an answer follows, an end of turn that is never trained, so that the student never stops.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Prompt, Sample
from seqdistill.stages.train.rendering import ANSWER, Row, Template, Unfit

NONE_LEFT = "no row is left to train on: change the prompts, or use another student or [student] chat_template"
THOUGHT = "They say so."  # the reasoning of a row that stands for others


@dataclass(frozen=True)
class Checked:
    """The rows that are trained on, and what was found on the way."""

    train: list[Row]
    validation: list[Row]
    max_length: int  # tokens; no row is longer
    end_of_turn: int  # the token id that every completion ends with
    unfit: dict[str, str]  # sample id -> reason, for rows left out
    without_reasoning: int  # rows trained on their answer alone although reasoning is wanted
    notes: list[str] = field(default_factory=list)  # what a person should know of the template
    with_reasoning: int = 0  # rows whose reasoning is trained too


def preflight(
    tokenizer: Any,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    config: TrainConfig,
    limit: int,
    progress: Progress,
    *,
    stops: Iterable[int] = (),
    vocabulary: int | None = None,
) -> Checked:
    """Renders and checks every row.

    `limit` is the most tokens a row may have, `stops` are the ids in the generation config's eos_token_id, `vocabulary` is
    how many token ids the model knows. Raises UsageError for a template that cannot be trained with, for token ids that the
    model does not know, and for rows that do not fit unless [train] unfit says that they are dropped.
    """
    if not train:
        raise UsageError("there is no row to train on", "see filter/rejected.jsonl for what was rejected, and why")
    template = Template(tokenizer, stops)
    unfit: dict[str, str] = {}
    progress.start("checking the rows", len(train) + len(validation), "rows")
    kept = [_fitting(template, samples, config.trains_reasoning, limit, unfit, progress) for samples in (train, validation)]
    progress.end()
    if unfit and (config.unfit == "error" or not kept[0]):
        dropped = _way_out(config) if kept[0] else NONE_LEFT
        raise UsageError(_summary(unfit, len(train) + len(validation)), dropped)
    with_reasoning = sum(sample.reasoning is not None for sample in [*train, *validation])
    if config.trains_reasoning and not with_reasoning:
        raise UsageError(
            "[train] reasoning = true, but no row has reasoning", "leave reasoning out, or use a teacher that reasons"
        )
    if vocabulary is not None:
        _check_ids(tokenizer, template, kept, vocabulary)
    return Checked(
        train=kept[0],
        validation=kept[1],
        max_length=max(len(row.tokens) for rows in kept for row in rows),
        end_of_turn=template.end_of_turn,
        unfit=unfit,
        without_reasoning=len(train) + len(validation) - with_reasoning if config.trains_reasoning else 0,
        notes=list(_notes(tokenizer, template)),
        with_reasoning=sum(one.reasoning is not None and one.id not in unfit for one in [*train, *validation])
        if config.trains_reasoning
        else 0,
    )


def check_prompts(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: TrainConfig,
    limit: int,
    progress: Progress,
    *,
    stops: Iterable[int] = (),
    vocabulary: int,
) -> int:
    """Checks, before there are answers, that prompts can be trained on; the rest as `preflight`.

    Returns the tokens of the longest row that was rendered, each with an answer of one word. Of prompts with the same roles
    one is rendered, and all that may be too long: rendering every one of a large file takes minutes.
    """
    template = Template(tokenizer, stops)
    unfit: dict[str, str] = {}
    alike: dict[tuple[str, ...], list[Sample]] = {}
    for prompt in prompts:
        row = _answered(prompt, config.trains_reasoning)
        alike.setdefault(tuple(message["role"] for message in prompt.messages), []).append(row)
    rows: list[Row] = []
    for first, *others in alike.values():
        found = _fitting(template, [first], config.trains_reasoning, limit, unfit, progress)
        room = limit - len(found[0].tokens) if found else 0
        longer = [row for row in others if sum(len(part["content"].encode(errors="replace")) for part in row.prompt) > room]
        rows += found + _fitting(template, longer, config.trains_reasoning, limit, unfit, progress)
    if unfit:
        first_id, reason = next(iter(unfit.items()))
        said = (
            f"{len(unfit)} of {len(prompts)} prompts cannot be trained on, whatever the teacher answers; "
            f"the first is {first_id!r}: {reason}"
        )
        if config.unfit == "error" or len(unfit) == len(prompts):
            longer_rows = "raise max_length in [train.args], " if "max_length" in config.args else ""
            raise UsageError(
                said,
                f'{longer_rows}change or leave out these prompts, or use another student; [train] unfit = "drop" allows some',
            )
        progress.note(f"train: {said}")
    _check_ids(tokenizer, template, [rows], vocabulary)
    return max((len(row.tokens) for row in rows), default=1)


def _answered(prompt: Prompt, reasoning: bool) -> Sample:
    """A prompt with a short answer, as a row."""
    return Sample(
        id=prompt.id,
        prompt_id=prompt.id,
        sample=0,
        teacher="",
        prompt=prompt.messages,
        completion=[{"role": "assistant", "content": ANSWER}],
        reasoning=THOUGHT if reasoning else None,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        reference=None,
        slice=None,
    )


def _fitting(
    template: Template, samples: Iterable[Sample], reasoning: bool, limit: int, unfit: dict[str, str], progress: Progress
) -> list[Row]:
    """The rows that fit; the others go to `unfit` with their reason."""
    rows = []
    for sample in samples:
        try:
            if not sample.text.strip():
                raise Unfit("the answer is empty")
            row = template.render(sample, reasoning)
            if len(row.tokens) > limit:
                raise Unfit(f"{len(row.tokens)} tokens, more than {limit}")
            rows.append(row)
        except Unfit as reason:
            unfit[sample.id] = str(reason)
        progress.advance()
    return rows


def _summary(unfit: dict[str, str], total: int) -> str:
    first, reason = next(iter(unfit.items()))
    return f"{len(unfit)} of {total} rows cannot be trained on as they are; the first is {first!r}: {reason}"


def _way_out(config: TrainConfig) -> str:
    longer = "raise max_length in [train.args], or " if "max_length" in config.args else ""
    return f"{longer}leave them out with --unfit drop, or reject them in filter"


def _check_ids(tokenizer: Any, template: Template, kept: Sequence[Sequence[Row]], vocabulary: int) -> None:
    """Raises UsageError for a token id that the model has no embedding for."""
    used = {template.end_of_turn, *(token for rows in kept for row in rows for token in row.tokens)}
    pad = tokenizer.pad_token_id
    if pad is None and tokenizer.eos_token_id is None:
        raise UsageError(
            "the student's tokenizer has no padding token, and no end-of-text token that could pad in its place",
            "name one in its tokenizer_config.json: eos_token or pad_token",
        )
    for token in (max(used), *(() if pad is None else (pad,))):
        if token >= vocabulary:
            raise UsageError(
                f"the student's tokenizer gives {template.decode([token])!r} the id {token}, "
                f"but its model has embeddings for ids up to {vocabulary - 1} only",
                "use the tokenizer that belongs to the model, or resize its embeddings first",
            )


def _notes(tokenizer: Any, template: Template) -> Iterable[str]:
    if template.dated:
        yield (
            "the student's chat template writes today's date into every prompt: training on another day gives another student; "
            'fix it, where the template allows, with [student] chat_template_kwargs, as in date_string = "26 Jul 2024"'
        )
    if tokenizer.pad_token_id is None:
        yield f"the student's tokenizer has no padding token: {tokenizer.eos_token} pads, and is trained where it ends a turn"


def check_batches(dataset: Iterable[dict[str, Any]], collate: Any, rows: Sequence[Row], end_of_turn: int, packed: bool) -> None:
    """Compares the labels that the trainer will really see with the rows: same tokens trained, each turn ended.

    `collate` is the trainer's own collator. Raises SeqdistillError for the first difference; nothing has been trained then.
    """
    hint = "an option in [train.args] changes what is trained on (packing, max_length); take it out"
    trained = ends = 0
    for number, example in enumerate(dataset):
        labels = [label for label in collate([example])["labels"].flatten().tolist() if label != -100]
        trained, ends = trained + len(labels), ends + labels.count(end_of_turn)
        row = rows[example.get("row", number)]  # they may be shuffled
        if not packed and labels != row.tokens[row.start :]:
            raise SeqdistillError(f"row {row.id!r}: the trainer would not train exactly its completion", hint)
    wanted = sum(len(row.tokens) - row.start for row in rows)
    wanted_ends = sum(row.tokens[row.start :].count(end_of_turn) for row in rows)
    if (trained, ends) != (wanted, wanted_ends):
        raise SeqdistillError(
            f"the trainer would train {trained} tokens with {ends} ends of turn, expected {wanted} with {wanted_ends}", hint
        )
