"""Query heads read the keys and values that they share in place: the same numbers, without the copies."""

from pathlib import Path
from typing import Any

import pytest

from seqdistill.engines.attention import SHARED, share_heads


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def written(model: Any) -> Any:
    """The logits of 8 tokens written to two rows, one of them padded."""
    import torch

    rows = torch.tensor([[0, 0, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
    with torch.inference_mode():
        output = model.generate(
            input_ids=rows, attention_mask=(rows > 0).long(), max_new_tokens=8, min_new_tokens=8, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return torch.stack(output.logits)


def test_the_numbers_are_the_same_to_the_last_bit_and_nothing_is_repeated(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny_model)
    usual = written(model)
    assert share_heads(model) and model.config._attn_implementation == SHARED

    def repeated(*_: Any) -> Any:
        raise AssertionError("keys were repeated")

    monkeypatch.setattr("transformers.integrations.sdpa_attention.repeat_kv", repeated)
    assert written(model).equal(usual)


def test_a_model_that_would_compute_something_else_stays_as_it_is(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqdistill.engines import attention

    model, attend = loaded(tiny_model), attention.attend
    monkeypatch.setattr(attention, "attend", lambda module, query, *rest, **how: attend(module, query * 1.01, *rest, **how))
    assert not share_heads(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_without_shared_heads_or_with_eager_attention_stays_as_it_is(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    assert not share_heads(eager) and eager.config._attn_implementation == "eager"
    eager.config.num_key_value_heads = eager.config.num_attention_heads
    assert not share_heads(eager)
