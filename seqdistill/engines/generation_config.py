"""The settings in a model's generation_config.json that bend its answers, and a configuration without them.

They act even at temperature 0 and move log-probabilities, so that an answer would not be the model's own. What ends an answer
(the stop tokens) stays; temperature, top_p and the like come from the request.
"""

from collections.abc import Mapping
from typing import Any

NEUTRAL = {  # a setting that bends answers: its value that changes nothing, besides None, 0, False and empty
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "min_length": 0, "min_new_tokens": 0, "bad_words_ids": None, "sequence_bias": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "forced_decoder_ids": None,
    "exponential_decay_length_penalty": None, "length_penalty": 1.0, "diversity_penalty": 0.0, "num_beams": 1,
    "num_beam_groups": 1, "early_stopping": False, "guidance_scale": 1.0, "penalty_alpha": None, "dola_layers": None,
    "watermarking_config": None, "stop_strings": None, "max_time": None, "token_healing": False,
}  # fmt: skip


def active_settings(config: Mapping[str, Any]) -> list[str]:
    """What in a generation configuration would bend answers, as "name = value", in order of name."""
    return sorted(
        f"{name} = {config[name]!r}" for name, neutral in NEUTRAL.items() if config.get(name) and config[name] != neutral
    )


def neutralise(model: Any) -> list[str]:
    """Leaves a loaded transformers model with its stop and padding tokens alone; returns what was taken from it."""
    from transformers import GenerationConfig

    config = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, bos_token_id=config.bos_token_id
    )
    return active_settings(config.to_dict())


def stop_ids(eos_token_id: Any) -> list[Any]:
    """The tokens that end an answer, from a config's eos_token_id: one, several or none; as they are, if they are no ids."""
    if isinstance(eos_token_id, (list, tuple)):
        return list(eos_token_id)
    return [] if eos_token_id is None else [eos_token_id]
