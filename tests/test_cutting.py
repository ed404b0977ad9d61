"""Cutting layers out of models of many families: what is left is the whole model without the others, cache included."""

from typing import Any

import pytest
from chat_tokenizers import chat_tokenizer
from conftest import CHATML

from seqdistill.errors import UsageError
from seqdistill.stages.train.cutting import attends, completed, cut, decoder_layers, layer_kinds
from seqdistill.stages.train.shrink import block_influence

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {name: value for name, value in SIZES.items() if name != "head_dim"}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
JAMBA = {
    "attn_layer_period": 4,
    "attn_layer_offset": 2,
    "num_experts": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
GEMMA_3N = {
    "num_kv_shared_layers": 4,
    "sliding_window": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
    "laurel_rank": 4,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    "intermediate_size": [48] * 10,
    "activation_sparsity_pattern": [0.5] * 3 + [0.0] * 7,
}
GEMMA_4 = {
    "num_kv_shared_layers": 4,
    "sliding_window": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
    "global_head_dim": 16,
}
LLAMA_4 = {"intermediate_size_mlp": 48, "num_local_experts": 4, "attention_chunk_size": 16}
HYBRID = ["mamba", "mamba", "attention"] * 2

# family, its text config's class, layers, further settings, the layers kept, what the new config must say
FAMILIES = [
    ("SmolLM3", "SmolLM3", 8, SIZES, [0, 3, 4, 7], {"no_rope_layers": [1, 0, 1, 0]}),
    ("Qwen3Next", "Qwen3Next", 8, SIZES | EXPERTS | LINEAR | {"mlp_only_layers": [1, 6]}, [0, 3, 6], {"mlp_only_layers": [2]}),
    ("Qwen3_5", "Qwen3_5Text", 8, SIZES | LINEAR, [0, 1, 3], {"layer_types": ["linear_attention"] * 2 + ["full_attention"]}),
    (
        "Qwen2Moe",
        "Qwen2Moe",
        6,
        SIZES | EXPERTS | {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
        [0, 1, 3, 5],
        {"mlp_only_layers": [0, 2], "decoder_sparse_step": 1},
    ),
    (
        "Gemma3",
        "Gemma3Text",
        8,
        SIZES | {"sliding_window": 8},
        [0, 5, 7],
        {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    ("Gemma3n", "Gemma3nText", 10, SIZES | GEMMA_3N, [0, 4, 5, 7, 9], {"num_kv_shared_layers": 2}),
    ("Gemma3n", "Gemma3nText", 10, SIZES | GEMMA_3N, [0, 2, 4], {"num_kv_shared_layers": 0}),
    ("FalconH1", "FalconH1", 5, SIZES | MAMBA | {"mamba_d_ssm": 64}, [0, 2, 4], {"ssm_multipliers": [1.0] * 5}),
    ("Llama4", "Llama4Text", 8, SIZES | LLAMA_4 | {"interleave_moe_layer_step": 2}, [0, 1, 3, 6], {"moe_layers": [1, 2]}),
    ("Llama4", "Llama4Text", 8, SIZES | LLAMA_4, [0, 1, 3, 6], {"moe_layers": [0, 1, 2, 3], "no_rope_layers": [1, 1, 0, 1]}),
    ("Jamba", "Jamba", 8, SIZES | JAMBA, [0, 1, 2, 3], {"attn_layer_offset": 2}),
    ("Jamba", "Jamba", 8, SIZES | JAMBA, [0, 3, 6], {"attn_layer_offset": 2, "expert_layer_offset": 1}),
    ("GptOss", "GptOss", 6, SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}, [0, 3, 5], {}),
    (
        "DeepseekV3",
        "DeepseekV3",
        6,
        PLAIN
        | {
            "num_key_value_heads": 4,
            "first_k_dense_replace": 2,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
        [0, 2, 5],
        {"first_k_dense_replace": 1},
    ),
    (
        "RecurrentGemma",
        "RecurrentGemma",
        6,
        PLAIN | {"num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16},
        [0, 2, 5],
        {"block_types": ["recurrent", "attention", "attention"]},
    ),
    ("Bamba", "Bamba", 6, SIZES | MAMBA | {"attn_layer_indices": [2, 5]}, [0, 2, 3], {"attn_layer_indices": [1]}),
    (
        "GraniteMoeHybrid",
        "GraniteMoeHybrid",
        6,
        SIZES
        | MAMBA
        | {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16, "layer_types": HYBRID},
        [0, 2, 3],
        {},
    ),
    ("Lfm2", "Lfm2", 6, SIZES | {"layer_types": ["conv", "conv", "full_attention"] * 2}, [0, 2, 4], {}),
    ("Cohere2", "Cohere2", 8, PLAIN | {"sliding_window": 8}, [0, 3, 5], {}),
    ("Gemma2", "Gemma2", 6, SIZES | {"sliding_window": 8}, [0, 3, 5], {}),
    ("Gemma4", "Gemma4Text", 12, SIZES | GEMMA_4, [0, 5, 7, 9, 11], {"num_kv_shared_layers": 2}),
    ("OlmoHybrid", "OlmoHybrid", 8, SIZES | LINEAR, [0, 3, 4], {}),
]


def whole_model(family: str, config: str, layers: int, settings: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, f"{config}Config")(**settings, num_hidden_layers=layers)
    return getattr(transformers, f"{family}ForCausalLM")(made).eval()


@pytest.mark.parametrize(("family", "config", "layers", "settings", "chosen", "says"), FAMILIES)
def test_a_cut_model_is_the_whole_one_without_the_other_layers(
    family: str, config: str, layers: int, settings: dict[str, Any], chosen: list[int], says: dict[str, Any]
) -> None:
    import torch

    model = whole_model(family, config, layers, settings)
    path, stack = decoder_layers(model)
    small = cut(model, path, chosen)  # it compares the two itself, and raises where they differ
    assert len(decoder_layers(small)[1]) == len(chosen)
    for new, old in enumerate(chosen):
        for name, weight in stack[old].state_dict().items():
            assert torch.equal(small.get_submodule(path)[new].state_dict()[name], weight)
    assert {name: getattr(small.config, name) for name in says} == says
    kinds = layer_kinds(model.config)
    assert layer_kinds(small.config) == (kinds and [kinds[layer] for layer in chosen])
    tokens = torch.arange(5, 25)[None]
    answers = [
        small.generate(tokens, max_new_tokens=10, do_sample=False, use_cache=cache, attention_mask=tokens > 0)
        for cache in (True, False)
    ]
    assert torch.equal(*answers)
    same = cut(model, path, range(layers))
    with torch.inference_mode():
        assert torch.equal(same(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(("family", "config", "layers", "settings"), [case[:4] for case in FAMILIES])
def test_influence_is_measured_on_every_family(family: str, config: str, layers: int, settings: dict[str, Any]) -> None:
    tokenizer = chat_tokenizer(CHATML)
    more = {name: 300 for name in ("vocab_size", "vocab_size_per_layer_input") if name in settings}
    model = whole_model(family, config, layers, settings | more)
    scores = block_influence(model, tokenizer, [[{"role": "user", "content": "Which one?"}]])
    assert len(scores) == layers
    assert all(0 < score <= 2 for score in scores)


@pytest.mark.parametrize(("family", "config", "layers", "settings"), [case[:4] for case in FAMILIES])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_choice_that_cannot_stand_alone_gets_the_layers_it_needs(
    family: str, config: str, layers: int, settings: dict[str, Any], count: int
) -> None:
    import transformers

    text = getattr(transformers, f"{config}Config")(**settings, num_hidden_layers=layers)
    kinds = layer_kinds(text) or []
    for first in range(layers - count + 1):
        chosen = completed(text, list(range(first, first + count)))
        assert len(chosen) == count
        assert chosen == sorted(set(chosen))
        assert not any(map(attends, kinds)) or any(attends(kinds[layer]) for layer in chosen)


def test_layers_that_read_another_s_keys_bring_it_along() -> None:
    import transformers

    text = transformers.Gemma3nTextConfig(**SIZES | GEMMA_3N, num_hidden_layers=10)
    assert completed(text, [0, 1, 8]) == [0, 5, 8]  # 8 is sliding and reads layer 5
    assert completed(text, [0, 9]) == [4, 9]  # 9 is full and reads layer 4
    assert completed(text, [9]) == [4]
    assert completed(text, [0, 1, 2], [9, 8, 7, 1, 1, 1, 1, 1, 1, 1]) == [0, 1, 2]
    scores = [0.1] * 8
    scores[3] = 0.5
    hybrid = transformers.Qwen3NextConfig(**SIZES | EXPERTS | LINEAR, num_hidden_layers=8)
    assert completed(hybrid, [0, 1, 2], scores) == [0, 1, 3]


@pytest.mark.parametrize(
    ("case", "chosen", "message", "hint"),
    [
        (1, [0, 1, 2], "without an attention layer a hybrid model does not work", "keep layer 3 or 7 too"),
        (5, [0, 1, 8], "layer 8 reads the keys and values of layer 5", "keep layer 5 too"),
        (10, [0, 2, 3, 6, 7], "do not repeat regularly", "equal distances"),
        (-2, [0, 1], "the last layer of this family attends to all tokens", "keep layer 5 or 11 too"),
        (-1, [3, 7], "cannot be made of layers 3,7 alone: .*linear_attention", "choose other layers"),
    ],
)
def test_listed_layers_that_cannot_stand_alone_are_refused(case: int, chosen: list[int], message: str, hint: str) -> None:
    model = whole_model(*FAMILIES[case][:4])
    with pytest.raises(UsageError, match=message) as caught:
        cut(model, decoder_layers(model)[0], chosen)
    assert hint in caught.value.hint


def test_a_family_whose_layers_share_weights_is_refused() -> None:
    settings = {
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "layers_block_type": ["mamba", "mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [2, 5],
        "num_mem_blocks": 1,
        "adapter_rank": 4,
        "chunk_size": 8,
        "use_mamba_kernels": False,
    }
    model = whole_model("Zamba2", "Zamba2", 6, SIZES | settings)
    with pytest.raises(UsageError, match="of different kinds"):
        cut(model, decoder_layers(model)[0], [0, 2, 3])
