"""A trained folder loads right in transformers 4 and 5: the words of both are in its configs, and 5 reads what it wrote.

That transformers 4 answers the same is shown by tests/transformers_4.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import chat_tokenizer, tiny_gemma3
from conftest import CHATML
from train_runs import a_recipe, a_run, sample

from seqdistill.engines.chat_templates import shipped_templates
from seqdistill.progress import Silent
from seqdistill.recipe.tables import LoraConfig, ModelConfig
from seqdistill.stages.train.lora import loaded_student, without_adapters
from seqdistill.stages.train.saving import BOTH, FIVE, rewrite_gathered, write_for_both
from seqdistill.stages.train.stage import train

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_hidden_layers": 6,
    "initializer_range": 0.3,
}
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
PHI_3 = {"original_max_position_embeddings": 128}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    ("family", "config", "rope", "says"),
    [
        ("Llama", "Llama", {"rope_theta": 500000.0, "rope_type": "default"}, {"rope_theta": 500000.0}),
        (
            "Llama",
            "Llama",
            {"rope_theta": 500000.0, "rope_type": "llama3", **LLAMA_3},
            {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA_3}},
        ),
        (
            "Gemma3",
            "Gemma3Text",
            {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
            {"rope_theta": 1e6, "rope_local_base_freq": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        (
            "StableLm",
            "StableLm",
            {"rope_theta": 20000.0, "rope_type": "default", "partial_rotary_factor": 0.25},
            {"rope_theta": 20000.0, "partial_rotary_factor": 0.25},
        ),
        (
            "GPTNeoX",
            "GPTNeoX",
            {"rope_theta": 30000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
            {"rotary_emb_base": 30000.0, "rotary_pct": 0.5},
        ),
        (
            "Phi3",
            "Phi3",
            {"rope_theta": 20000.0, "rope_type": "longrope", **PHI_3, **FACTORS},
            {"rope_theta": 20000.0, "rope_scaling": {"type": "longrope", **FACTORS}, "original_max_position_embeddings": 128},
        ),
    ],
)
def test_rotary_positions_are_written_in_the_words_of_both(
    tmp_path: Path, family: str, config: str, rope: dict[str, Any], says: dict[str, Any]
) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, f"{config}Config")(**SIZES, rope_parameters=rope, **PHI_3 if config == "Phi3" else {})
    model = getattr(transformers, f"{family}ForCausalLM")(made).eval()
    model.save_pretrained(tmp_path)
    assert write_for_both(tmp_path) == BOTH
    written = json.loads((tmp_path / "config.json").read_text())
    for name, value in says.items():
        found = written[name]
        assert found == value or found.items() >= value.items(), name
    tokens = torch.arange(3, 100)[None]
    with torch.inference_mode():
        assert torch.equal(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("Gemma3Text", {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": None}),
        ("Gemma4Text", None),  # its own: transformers 5 cannot read it with words of 4 beside it
    ],
)
def test_what_transformers_4_has_no_words_for_is_left_as_it_was_and_said(
    tmp_path: Path, kind: str, rope: dict[str, Any] | None
) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES)
    rope = rope or config.rope_parameters
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_parameters": rope}))
    before = path.read_bytes()
    assert write_for_both(tmp_path) == FIVE
    assert path.read_bytes() == before


def test_the_tokenizer_s_class_and_further_tokens_have_the_names_that_both_know(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config

    tokenizer = chat_tokenizer(CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|odd|>"]})
    tokenizer.save_pretrained(tmp_path)
    GPT2Config().save_pretrained(tmp_path)
    assert write_for_both(tmp_path) == BOTH
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == ["<|odd|>"]
    assert written["model_input_names"] == ["input_ids", "attention_mask"]
    assert (written["add_bos_token"], written["add_eos_token"]) == (False, False)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "one<|odd|>two<|im_end|>"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


@pytest.mark.parametrize("rank", [None, 4], ids=["weights", "adapters"])
def test_what_several_gpus_gathered_becomes_one_whole_model(tiny_model: Path, tmp_path: Path, rank: int | None) -> None:
    """FSDP and DeepSpeed gather a tied head twice, and of adapters the adapters alone."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    base, half = ModelConfig(model=str(tiny_model)), tmp_path / ".model.new"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "of-an-earlier-training").touch()
    model = loaded_student(base, LoraConfig(r=rank), {})
    if rank is None:
        model.save_pretrained(half)
        tensors = load_file(half / "model.safetensors")
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        save_file({**tensors, **head}, half / "model.safetensors", {"format": "pt"})
    else:
        torch.nn.init.normal_(next(part for name, part in model.named_parameters() if "lora_B" in name), std=0.2)
        model.save_pretrained(half)
    tokens = torch.arange(5, 45)[None]
    with torch.inference_mode():
        wanted = model.eval()(tokens).logits
        generation = without_adapters(model).generation_config
        rewrite_gathered(half, base, generation, AutoTokenizer.from_pretrained(tiny_model), torch.float32)
        found = loaded_student(ModelConfig(model=str(half)), LoraConfig(), {}).eval()(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert load_file(half / "model.safetensors").keys() == load_file(tiny_model / "model.safetensors").keys()
    kept = sorted(path.name for path in tmp_path.glob("adapter/*"))
    assert kept == ([] if rank is None else ["adapter_config.json", "adapter_model.safetensors"])


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_student_that_also_sees_keeps_what_reads_images(tmp_path: Path, cut: bool) -> None:
    text = shipped_templates()["gemma3"].read_text(encoding="utf-8")
    tokens = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    model = tiny_gemma3(tmp_path / "model", chat_tokenizer(text, more=tokens))
    run = a_run(tmp_path / "run", [sample(n) for n in range(2)], [])
    recipe = (
        a_recipe("shrink:2", str(model), {"max_steps": 1}, layers="even") if cut else a_recipe(model, None, {"max_steps": 1})
    )
    saved = train(run, recipe, Silent()).path
    for name in ("preprocessor_config.json", "processor_config.json"):
        assert (saved / name).read_bytes() == (model / name).read_bytes()
