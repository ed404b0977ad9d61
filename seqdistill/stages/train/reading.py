"""The student before its weights are read: tokenizer, chat template, the most tokens of a row, stop tokens.

Does not load weights and renders nothing.
"""

from dataclasses import dataclass
from typing import Any

from seqdistill.engines.chat_templates import configured_template, set_defaults
from seqdistill.engines.generation_config import stop_ids
from seqdistill.engines.loading import generation_config, load, named, plain_weights
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.stages.train.shrink import listed_layers
from seqdistill.stages.train.student import Student
from seqdistill.stages.train.vocabulary import check_can_be_cut, read_kept

READS_FORWARD = "use a decoder-only language model (a causal LM)"


@dataclass(frozen=True)
class Read:
    """The student as it is before its weights are read."""

    tokenizer: Any
    limit: int  # tokens; the most a row may have
    stops: list[int]  # ids in the generation config's eos_token_id
    vocabulary: int  # token ids that the model has embeddings for
    kept: list[int] | None = None  # of a vocabulary that is cut for this training: the tokens' ids in the student's source
    before_cuts: list[int] | None = None  # the tokens' ids before any vocabulary was cut; None where none was
    notes: tuple[str, ...] = ()


def read_student(student: Student, recipe: Recipe) -> Read:
    """Raises UsageError for a model that cannot be loaded, or cut so."""
    what, config = named(student.source), recipe.train
    tokenizer = load("AutoTokenizer", student.source, what)
    text = load("AutoConfig", student.source, what).get_text_config(decoder=True)
    _check_decoder(text, what)
    _check_balance(text, what, config.args.get("router_aux_loss_coef"))
    plain_weights(student.source, what)
    if student.layers is not None:
        listed_layers(str(student.layers), config.layers, text.num_hidden_layers)
    if (template := configured_template(recipe.student)) is not None:
        tokenizer.chat_template = template
    else:
        set_defaults(tokenizer, recipe.student.chat_template_kwargs)
    if student.vocabulary == "task":
        check_can_be_cut(tokenizer)
    generation = generation_config(student.source, what)
    stops = stop_ids(getattr(text if generation is None else generation, "eos_token_id", None))
    if any(type(stop) is not int for stop in stops):
        raise UsageError(f"{what}: its eos_token_id is {stops}, which are no token ids", "copy or download the model again")
    positions = getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length  # some models have no limit
    return Read(
        tokenizer=tokenizer,
        limit=min(positions, config.args.get("max_length") or positions),
        stops=stops,
        vocabulary=text.vocab_size,
        before_cuts=read_kept(student.source),
    )


def _check_decoder(config: Any, what: str) -> None:
    """Raises UsageError for the config of an encoder, or of a model that has one: transformers would load it as a causal LM.

    Models that nothing in their config betrays are found by what they compute, see `measured`.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    if config.is_encoder_decoder:
        raise UsageError(f"{what}: {config.model_type} has an encoder, which would not be trained", READS_FORWARD)
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise UsageError(f"{what}: {config.model_type} is an encoder: it reads the tokens that follow too", READS_FORWARD)


def _check_balance(config: Any, what: str, coefficient: float | None) -> None:
    """Raises UsageError for a weight of the balance between experts, of a model that has no such loss."""
    if coefficient and not hasattr(config, "output_router_logits"):
        raise UsageError(
            f"[train.args] router_aux_loss_coef = {coefficient:g}: {what} has no experts whose load a loss would balance",
            "leave router_aux_loss_coef out",
        )
