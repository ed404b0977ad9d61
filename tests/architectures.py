"""Tiny models of many architectures, from their own configs with random weights: what `transformers` ships, at 30 kB each."""

from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {  # a config takes of these what it knows
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 512, "sliding_window": 8, "use_sliding_window": True,
    "d_model": 32, "n_layers": 4, "n_heads": 4, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512,
    "max_seq_len": 512, "ffn_dim": 48, "word_embed_proj_dim": 32, "n_inner": 48,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "num_experts_per_token": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "n_group": 1, "topk_group": 1, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "full_attention_interval": 2,
    "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1,
    "mamba_chunk_size": 8, "mamba_d_ssm": 64, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    "state_size": 8, "num_heads": 4, "n_groups": 1, "chunk_size": 8, "expand": 2, "conv_kernel": 4,
    "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    "lru_width": 32, "attention_window_size": 8, "block_types": ("recurrent", "attention"), "conv1d_width": 4,
    "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "laurel_rank": 8, "altup_num_inputs": 2,
    "query_pre_attn_scalar": 8,
}  # fmt: skip

_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * 2}
_LATENT = {"num_key_value_heads": 4, "head_dim": None}  # of these, the config knows its own head size

ARCHITECTURES: dict[str, dict[str, Any]] = {  # model_type: what it needs besides
    "llama": {}, "qwen2": {}, "qwen3": {}, "olmo2": {}, "granite": {}, "glm4": {}, "stablelm": {}, "cohere": {},
    "nemotron": {}, "seed_oss": {}, "ernie4_5": {}, "hunyuan_v1_dense": {}, "phi": {}, "gemma": {},
    "gpt2": {}, "opt": {}, "bloom": {}, "falcon": {}, "mpt": {}, "gpt_neox": {}, "gptj": {"rotary_dim": 4},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]], "window_size": 8},
    "mistral": {}, "phi3": {}, "gemma2": {}, "gemma3_text": _ALTERNATING, "gemma3n_text": _ALTERNATING, "gemma4_text": {},
    "cohere2": {}, "olmo3": {}, "smollm3": {}, "exaone4": {}, "gpt_oss": {}, "llama4_text": {}, "starcoder2": {},
    "mixtral": {}, "qwen2_moe": {}, "qwen3_moe": {}, "olmoe": {}, "granitemoe": {}, "glm4_moe": {},
    "deepseek_v2": _LATENT, "deepseek_v3": _LATENT, "deepseek_v4": {}, "minimax_m2": {},
    "mamba": {}, "mamba2": {"num_heads": 4, "head_dim": 16}, "falcon_mamba": {}, "rwkv": {}, "recurrent_gemma": {},
    "jamba": {}, "falcon_h1": {}, "qwen3_next": {}, "qwen3_5_text": {}, "lfm2": _CONVOLUTIONS, "olmo_hybrid": {},
    "bamba": {"attn_layer_indices": [1, 3]}, "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "minimax": {"layer_types": ["linear_attention", "full_attention"] * 2}, "hrm_text": {},
}  # fmt: skip


def make_architecture(kind: str, tokenizer: Any, folder: Path, stops: list[int], **config: Any) -> Path:
    """The folder of a tiny random model of one architecture, with this tokenizer; large weights make its answers differ."""
    architecture(kind, tokenizer, stops, **config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def architecture(kind: str, tokenizer: Any, stops: list[int], **more: Any) -> Any:
    """The same model, loaded; `more` is of its config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    default = AutoConfig.for_model(kind)
    known = {**default.to_dict(), **dict.fromkeys(type(default).attribute_map)}
    sizes = {name: size for name, size in SIZES.items() if name in known} | ARCHITECTURES[kind] | more
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if "vocab_size_per_layer_input" in known:
        sizes["vocab_size_per_layer_input"] = len(tokenizer)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": stops[0]}
    config = type(default)(**sizes, **ids, vocab_size=len(tokenizer), initializer_range=0.4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
    return model
