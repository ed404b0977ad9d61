"""Sequence-level distillation: the teacher's text, learnt by cross-entropy (Kim & Rush 2016, https://arxiv.org/abs/1606.07947).

Owns the trainer in which loss terms add up; the terms are other modules'. A loss term is one number for each trained token,
so that their weighted sum is right under padding, gradient accumulation and several processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import TrainConfig
from seqdistill.stages.train.methods import Method, Step, TrainingSetup, hidden
from seqdistill.stages.train.mixing import weighs_rows
from seqdistill.stages.train.preflight import check_batches
from seqdistill.stages.train.rendering import Row
from seqdistill.stages.train.token_batches import TokenBatches, token_batches

MODEL_INPUTS = frozenset(  # of what TRL's collator makes of rows
    (
        *("input_ids", "attention_mask", "position_ids"),
        *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"),
    )
)

KEYS = frozenset(("batch_tokens",))  # of [train], beside those of the terms over the teacher's inside


def text_loss(step: Step) -> Any:  # -> (N)
    """The cross-entropy with the text."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(step.logits.float(), step.labels, reduction="none")


def build(setup: TrainingSetup, callbacks: Sequence[Any]) -> Any:
    """The trainer of the text alone."""
    return build_trainer(setup, callbacks)


def build_trainer(
    setup: TrainingSetup,
    callbacks: Sequence[Any],
    loss: Callable[[Step], Any] | None = None,
    collating: Callable[[Any], Any] | None = None,
) -> Any:
    """TRL's SFTTrainer on the checked rows, whose batches were seen to train exactly their completions.

    `loss` (see `completion_trainer`) replaces the loss of the text; `collating` wraps TRL's collator and finds in each
    example, as `row`, its number among train's and then validation's rows. Raises SeqdistillError when TRL would train on
    something else than the rows.
    """
    checked, arguments = setup.checked, setup.arguments
    if hidden.term_weights(setup.recipe.train):
        loss = hidden.with_terms(setup, loss or text_loss)
    if setup.weights:
        _check_weighted(arguments)
        loss, collating = weighted(loss or text_loss), _with_weights(setup, collating)
    if collating is not None:
        arguments.remove_unused_columns = False  # TRL would drop `row`
    batches = token_batches(setup.recipe.train, [len(row.tokens) for row in checked.train])
    if batches is not None:
        hidden.check_rows(setup.recipe.train, batches.most_rows)
    trainer = completion_trainer(loss, batches)(
        model=setup.model,
        args=arguments,
        train_dataset=_dataset(checked.train, 0),
        eval_dataset=_dataset(checked.validation, len(checked.train)) if checked.validation else None,
        processing_class=setup.tokenizer,
        callbacks=list(callbacks),
    )
    check_batches(trainer.train_dataset, trainer.data_collator, checked.train, checked.end_of_turn, arguments.packing)
    if collating is not None:
        trainer.data_collator = collating(trainer.data_collator)
    return trainer


def check_arguments(arguments: Any, config: TrainConfig) -> None:
    """Raises UsageError for [train.args] that the wanted loss terms and weights of rows do not go with."""
    hidden.check_arguments(arguments, config)
    if weights := hidden.term_weights(config):
        check_plain_loss(arguments, f"[train] {next(iter(weights))}")
    if weighs_rows(config):
        _check_weighted(arguments)


def _check_weighted(arguments: Any) -> None:
    check_unpacked(arguments, "weights of rows")
    check_plain_loss(arguments, "weights of rows")


def check_unpacked(arguments: Any, what: str) -> None:
    """Raises UsageError for [train.args] that pack rows, of which each has its own of `what`."""
    for name in ("packing", "eval_packing"):
        if getattr(arguments, name):
            raise UsageError(f"[train.args] {name} = True with {what}", f"they belong to single rows: leave {name} out")


def check_plain_loss(arguments: Any, what: str) -> None:
    """Raises UsageError for [train.args] that make TRL's loss another than the cross-entropy that `what` is added to."""
    for name, fits in (
        ("loss_type", arguments.loss_type in ("nll", "chunked_nll")),
        ("label_smoothing_factor", not arguments.label_smoothing_factor),
    ):
        if not fits:
            raise UsageError(
                f"[train.args] {name} = {getattr(arguments, name)!r} with {what}: without effect", f"leave {name} out"
            )


def weighted(loss: Callable[[Step], Any]) -> Callable[[Step], Any]:
    """The loss times the weight of each token's row."""
    return lambda step: loss(step) * step.extras["weights"]


def _with_weights(setup: TrainingSetup, collating: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Wraps TRL's collator, and what else wraps it: the weight of each trained token beside the batch."""
    weights = [setup.weights.get(row.id, 1.0) for row in [*setup.checked.train, *setup.checked.validation]]

    def wrap(collate: Any) -> Any:
        import torch

        inner = collating(collate) if collating else collate

        def with_weights(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
            parts = [torch.full((trained_tokens(example),), weights[example["row"]]) for example in examples]
            return {**inner(list(examples)), "weights": torch.cat(parts)}

        return with_weights

    return wrap


def trained_tokens(example: dict[str, Any]) -> int:
    """How many tokens of an example are trained."""
    return sum(label != -100 for label in example["labels"])


def _dataset(rows: Sequence[Row], first: int) -> Any:
    from datasets import Dataset

    columns = {"input_ids": [row.tokens for row in rows], "labels": [row.labels for row in rows]}
    return Dataset.from_dict({**columns, "row": list(range(first, first + len(rows)))})


def completion_trainer(loss: Callable[[Step], Any] | None = None, batches: TokenBatches | None = None) -> Any:
    """TRL's SFTTrainer with the LM head at trained positions only: 2.1 times less work on short answers.

    TRL itself skips the other positions on GPUs, so there a plain loss stays its own. The loss is the same (a test compares
    the two). `loss` gives a number for each trained token, and takes the place of the text's loss on every device; `batches`
    take the place of batches of equally many rows.
    """
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):  # type: ignore[misc]  # trl is read untyped
        def get_train_dataloader(self) -> Any:
            if batches is None:
                return super().get_train_dataloader()
            from torch.utils.data import DataLoader

            args = self.args
            loader: Any = DataLoader(
                self.train_dataset,
                batch_sampler=batches,
                collate_fn=self.data_collator,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
            )
            return self.accelerator.prepare(loader)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            plain = self.args.loss_type == "nll" and self.args.label_smoothing_factor == 0
            if loss is None and (return_outputs or not plain or self.args.device.type != "cpu"):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            step = _step_of(self, model, inputs)
            found = (loss or text_loss)(step).sum() / (
                max(len(step.labels), 1) if num_items_in_batch is None else num_items_in_batch
            )
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                found = found * self.accelerator.num_processes  # all tokens were counted, and gradients are averaged
            if step.balance is not None:  # a mean over a batch, where the loss above is a part of all batches of a step
                batches = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
                found = found + self.router_aux_loss_coef * step.balance / batches
            return found

    return CompletionTrainer


def _step_of(trainer: Any, model: Any, inputs: dict[str, Any]) -> Step:
    """The student called on a batch, its logits computed where a token is trained."""
    labels = inputs["labels"][:, 1:]
    trained = labels != -100

    def keep_trained(_: Any, hidden: tuple[Any, ...]) -> Any:
        return hidden[0][:, :-1][trained]  # (B, T, H) -> (N, H)

    passed = {name: value for name, value in inputs.items() if name in MODEL_INPUTS}
    head = trainer.accelerator.unwrap_model(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(keep_trained)
    try:
        balanced = {"output_router_logits": True} if trainer.aux_loss_enabled else {}
        outputs = model(**passed, **balanced, use_cache=False)  # its logits (N, V)
    finally:
        hook.remove()
    extras = {name: value for name, value in inputs.items() if name not in MODEL_INPUTS and name != "labels"}
    balance = getattr(outputs, "aux_loss", None) if trainer.aux_loss_enabled else None
    return Step(passed, trained, labels[trained], outputs.logits, extras, balance)


METHOD = Method(
    "sequence",
    "SFTConfig",
    build,
    check=lambda _run, recipe, student: hidden.check(recipe, student),
    check_recipe=hidden.check,
    check_files=hidden.check_files,
    check_arguments=check_arguments,
    defaults=hidden.defaults,
    keys=KEYS | hidden.KEYS,
    reads_teacher=hidden.reads_teacher,
)
