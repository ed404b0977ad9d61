"""Preference: the teacher's answer over the student's own, for teachers that are reachable by text only.

By TRL's DPOTrainer (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290). The student samples one answer to each prompt
before the training, as long as the longest of the rows' at most. A row whose answers are the same has nothing to prefer, and
one to which the student answers nothing would teach that anything is better. The pairs are in train/pairs.jsonl.

TRL renders a pair's prompt differently when a template renders it so before an answer. Trained on are the tokens of
rendering.py: the prompt as prompted, and both answers behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from seqdistill.engines import Completion, Request, open_engine
from seqdistill.engines.loading import load, plain_weights
from seqdistill.errors import UsageError
from seqdistill.journal.asking import run_async
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.records import Message, Sample, request_seed, write_jsonl
from seqdistill.stages.train.checkpoints import work_folder
from seqdistill.stages.train.methods import Method, TrainingSetup, check_can_answer, check_order, check_smoothing, check_unmixed
from seqdistill.stages.train.rendering import Template, Unfit
from seqdistill.stages.train.student import Student

TEMPERATURE = 1.0  # the student's own distribution
NO_THOUGHTS = "[student] chat_template_kwargs = {enable_thinking = false}"
SMOOTHED = frozenset(("robust", "exo_pair", "aot", "aot_unpaired"))  # TRL's losses that label_smoothing changes
PAIR_KEYS = ("prompt", "chosen", "rejected")  # what TRL reads of a pair
TOKEN_KEYS = ("prompt_ids", "chosen_ids", "rejected_ids")  # what it makes of it


def check_recipe(recipe: Recipe, student: Student) -> None:
    """Raises UsageError for a student that cannot answer yet."""
    check_unmixed(recipe.train)
    check_can_answer(recipe, student)


def check_arguments(arguments: Any, config: TrainConfig) -> None:
    """Raises UsageError for values with which the student's own answer would be preferred, or neither, or others be trained."""
    check_smoothing(arguments, "preference")
    check_order(arguments, "preference", "a pair has two lengths", ("random", "sequential"))
    if config.lora.dropout and arguments.disable_dropout:
        raise UsageError(
            f"[train.lora] dropout = {config.lora.dropout:g} with method = 'preference': TRL switches dropout off",
            "leave it out, or set disable_dropout = false in [train.args]",
        )
    if not arguments.loss_type:
        raise UsageError("[train.args] loss_type = []: names no loss", "leave it out, or name one: loss_type = ['sigmoid']")
    for name, fits, wanted in (
        ("beta", arguments.beta > 0, "more than 0"),
        ("label_smoothing", 0 <= arguments.label_smoothing < 0.5, "from 0, and less than 0.5"),
    ):
        if not fits:
            raise UsageError(
                f"[train.args] {name} = {getattr(arguments, name):g}: the teacher's answer would not be preferred",
                f"give {wanted}",
            )
    if arguments.label_smoothing and not SMOOTHED & {*arguments.loss_type}:
        raise UsageError(
            f"[train.args] label_smoothing = {arguments.label_smoothing:g}: TRL's loss {arguments.loss_type[0]!r} has none",
            f"leave it out, or set loss_type to one of {', '.join(sorted(SMOOTHED))}",
        )
    for name, reason in (
        ("padding_free", "TRL trains pairs with padding alone"),
        ("sync_ref_model", "a training that was interrupted would resume with another reference"),
    ):
        if getattr(arguments, name):
            raise UsageError(f"[train.args] {name} = true with method = 'preference': {reason}", f"leave {name} out")


def gather(setup: TrainingSetup) -> dict[str, list[dict[str, Any]]]:
    """The pairs, by file: train, validation. Raises UsageError where no row has a pair."""
    rows, template = setup.fitting, Template(setup.tokenizer, setup.stops)
    answers = run_async(_answers(setup, [sample for part in rows.values() for sample in part]))
    answered = {name: [sample for sample in part if answers[sample.id].content.strip()] for name, part in rows.items()}
    _check_answered(setup, rows["train"], answered["train"], answers)
    if note := thoughts_left_out(answered["train"], answers):
        setup.progress.note(f"train: {note}")
    differing = {
        name: [sample for sample in part if answers[sample.id].content.strip() != sample.text.strip()]
        for name, part in answered.items()
    }
    if not differing["train"]:
        raise UsageError(
            f"[train] method = 'preference': the student already answers all {len(answered['train'])} rows as its teacher does",
            "there is nothing left to prefer: evaluate it",
        )
    pairs = {
        name: [pair for sample in part if (pair := pair_of(sample, answers[sample.id], template, setup.limit))]
        for name, part in differing.items()
    }
    empty, same, unfit = (
        len(before["train"]) - len(after["train"])
        for before, after in ((rows, answered), (answered, differing), (differing, pairs))
    )
    left_out = {name: count for name, count in (("unfit_answer", unfit), ("empty_answer", empty)) if count}
    setup.found["pairs"] = {"train": len(pairs["train"]), "same_answer": same, **left_out}
    if not pairs["train"]:
        raise UsageError(
            "[train] method = 'preference': none of the student's own answers can be trained on: they hold control tokens",
            "use another method, or another student",
        )
    return pairs


def thoughts_left_out(rows: Sequence[Sample], answers: Mapping[str, Completion]) -> str | None:
    """What to say of a student that thinks before its own answers, which are paired alone; None where it does not."""
    if not (thought := sum(bool(answers[row.id].reasoning) for row in rows)):
        return None
    return (
        f"the student thinks before {thought} of its {len(rows)} own answers, and the pairs are of the answers without these "
        f"thoughts; {NO_THOUGHTS} has it answer at once"
    )


def _check_answered(
    setup: TrainingSetup, rows: Sequence[Sample], answered: Sequence[Sample], answers: Mapping[str, Completion]
) -> None:
    """Notes how many rows the student answers with nothing. Raises UsageError where that is all of them."""
    if not (empty := len(rows) - len(answered)):
        return
    thinking = any(answers[row.id].reasoning and not answers[row.id].content.strip() for row in rows)
    why = "it is still thinking when it has written as much as the longest row" if thinking else "it ends at once"
    hint = f"set {NO_THOUGHTS}, if its template knows that" if thinking else ""
    if not answered:
        raise UsageError(
            f"[train] method = 'preference': the student's own answer to each of {len(rows)} rows is empty: {why}",
            hint or 'use method = "sequence", or another student',
        )
    said = f"train: the student's own answer to {empty} of {len(rows)} rows is empty, and they are left out: {why}"
    setup.progress.note(f"{said}; {hint}" if hint else said)


def _keeping(setup: TrainingSetup) -> Any:
    """A trainer callback that writes pairs.jsonl when the training begins, where its log is."""
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):  # type: ignore[misc]  # transformers is read untyped
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                pairs = ({key: pair[key] for key in ("id", *PAIR_KEYS)} for part in setup.material.values() for pair in part)
                write_jsonl(work_folder(setup.run) / "pairs.jsonl", pairs)

    return Keeping()


async def _answers(setup: TrainingSetup, samples: Sequence[Sample]) -> dict[str, Completion]:
    """By row id, what the untrained student answers. Raises UsageError where it cannot."""
    engine, seed, checked = open_engine(setup.student.source), setup.recipe.train.seed, setup.checked
    longest = max(len(row.tokens) - row.start for row in checked.train)
    room = {row.id: min(longest, setup.limit - row.start) for row in (*checked.train, *checked.validation)}
    requests = [
        Request(row.id, row.prompt, room[row.id], temperature=TEMPERATURE, seed=request_seed(seed, row.prompt_id, row.sample))
        for row in samples
    ]
    setup.progress.start("the student answers", len(requests), "rows")
    found: dict[str, Completion] = {}
    try:
        async for completion in engine.stream(requests):
            found[completion.id] = completion
            setup.progress.advance()
    finally:
        setup.progress.end()
        await engine.close()
    if failed := next((one for one in found.values() if one.error), None):
        raise UsageError(f"row {failed.id!r}: the student cannot answer: {failed.message}", "reject the row in filter")
    return found


def pair_of(sample: Sample, answer: Completion, template: Template, limit: int) -> dict[str, Any] | None:
    """The teacher's answer and the student's, as messages and as tokens; None where the student's cannot be rendered.

    A student's answer that was cut has no end of turn: it wrote none. No part has more than `limit` tokens with the prompt.
    """
    rejected: list[Message] = [{"role": "assistant", "content": answer.content}]
    chosen = template.render(sample, reasoning=False)
    try:
        its = replace(sample, completion=rejected)
        own = template.render(its, reasoning=False)
        wrote = template.cut_answer(its) if answer.finish_reason == "length" else own.tokens[own.start :]
    except Unfit:
        return None
    tokens = (chosen.tokens[: chosen.start], chosen.tokens[chosen.start :], wrote[: limit - own.start])
    messages = (sample.prompt, sample.completion, rejected)
    return {"id": sample.id, **dict(zip(PAIR_KEYS, messages, strict=True)), **dict(zip(TOKEN_KEYS, tokens, strict=True))}


def build(setup: TrainingSetup, callbacks: Sequence[Any]) -> Any:
    """TRL's trainer on the pairs, the untrained student beside it as the reference."""
    from datasets import Dataset
    from trl import DPOTrainer

    arguments = setup.arguments
    if "max_length" not in setup.recipe.train.args:
        arguments.max_length = None  # the student's answers may be longer than the rows

    def parts_with(keys: Sequence[str]) -> dict[str, Any]:
        listed = {name: [{key: pair[key] for key in keys} for pair in pairs] for name, pairs in setup.material.items()}
        return {name: Dataset.from_list(pairs) if pairs else None for name, pairs in listed.items()}

    parts = parts_with(PAIR_KEYS)
    if parts["validation"] is None:
        if setup.recipe.train.best_by is not None and setup.checked.validation:
            raise UsageError(
                "[train] best and early_stopping need validation pairs, and the student answers all validation rows as its "
                "teacher does",
                "leave them out",
            )
        arguments.eval_strategy = type(arguments.eval_strategy)("no")
    reference = None  # a model with adapters is its own, without them
    if not hasattr(setup.model, "peft_config"):
        source, dtype = setup.base.model, str(setup.model.dtype).removeprefix("torch.")
        reference = load("AutoModelForCausalLM", source, dtype=dtype, **plain_weights(source))
        setup.beside.append(reference)
    trainer = DPOTrainer(
        model=setup.model,
        ref_model=reference,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        processing_class=setup.tokenizer,
        callbacks=[*callbacks, _keeping(setup)],
    )
    if "ref" in getattr(setup.model, "peft_config", {}):  # TRL's copy; a checkpoint of two is resumed without the trained one
        setup.model.delete_adapter("ref")
    if arguments.precompute_ref_log_probs:
        _check_tokens(trainer, setup)
    else:
        tokens = parts_with(TOKEN_KEYS)
        trainer.train_dataset, trainer.eval_dataset = tokens["train"], tokens["validation"]
    return trainer


def _check_tokens(trainer: Any, setup: TrainingSetup) -> None:
    """Raises UsageError where the reference's log-probabilities were computed of other tokens than are trained on."""
    pairs = [pair for part in setup.material.values() for pair in part]
    checked = {tuple(pair["prompt_ids"]) for pair in pairs}
    ends = {pair["chosen_ids"][-1] for pair in pairs}
    for row in (*trainer.train_dataset, *(trainer.eval_dataset or ())):
        if tuple(row["prompt_ids"]) not in checked:
            raise UsageError(
                "[train.args] precompute_ref_log_probs: the student's chat template renders a prompt differently when an "
                "answer follows, and TRL would train on that",
                "leave precompute_ref_log_probs out",
            )
    if cut := sum(pair["rejected_ids"][-1] not in ends for pair in pairs):
        raise UsageError(
            f"[train.args] precompute_ref_log_probs: {cut} of the student's {len(pairs)} own answers were cut, and TRL would "
            "train on an end of turn that the student did not write",
            "leave precompute_ref_log_probs out",
        )


METHOD = Method(
    "preference",
    "DPOConfig",
    build,
    check=lambda _run, recipe, student: check_recipe(recipe, student),
    check_recipe=check_recipe,
    check_arguments=check_arguments,
    gather=gather,
    sequences=2,
)
