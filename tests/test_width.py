"""Feed-forward layers cut by width: the most active neurons stay, and the rest is the whole model with the others at zero."""

from pathlib import Path
from typing import Any

import pytest
from architectures import architecture
from test_shrink import PROMPTS, loaded
from test_vocabulary import TEXTS, bpe_tokenizer
from train_runs import ARGS, a_run

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.stages.train.shrink import shrink
from seqdistill.stages.train.stage import train
from seqdistill.stages.train.vocabulary import needed_tokens, restrict
from seqdistill.stages.train.width import narrow, neurons_kept


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_the_neurons_with_the_largest_activations_stay(tiny_model: Path) -> None:
    import torch

    model, tokenizer = loaded(tiny_model), tokenizer_of(tiny_model)
    seen: dict[int, list[Any]] = {number: [] for number in range(4)}
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, args, number=number: seen[number].append(args[0][0]))
        for number, layer in enumerate(model.model.layers)
    ]
    for messages in PROMPTS:
        model(**tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True))
    for hook in hooks:
        hook.remove()
    smaller, narrowed = narrow(model, 0.5, tokenizer, PROMPTS, Silent())
    assert (narrowed.count, narrowed.of, narrowed.by) == (32, 64, "activation")
    for number, layer in enumerate(model.model.layers):
        active = torch.cat(seen[number]).abs().mean(0)
        kept = sorted(active.topk(32).indices.tolist())
        assert narrowed.neurons[f"model.layers.{number}"] == kept
        mlp = smaller.model.layers[number].mlp
        assert torch.equal(mlp.down_proj.weight, layer.mlp.down_proj.weight[:, kept])
        assert torch.equal(mlp.up_proj.weight, layer.mlp.up_proj.weight[kept])


def test_a_narrow_model_is_the_whole_one_with_the_other_neurons_at_zero(tiny_model: Path) -> None:
    import torch

    model = loaded(tiny_model)
    smaller, narrowed = narrow(model, 0.5, tokenizer_of(tiny_model), PROMPTS, Silent())
    with torch.no_grad():
        for name, kept in narrowed.neurons.items():
            others = [neuron for neuron in range(64) if neuron not in kept]
            model.get_submodule(name).mlp.down_proj.weight[:, others] = 0
    tokens = torch.arange(5, 25)[None]
    with torch.inference_mode():
        torch.testing.assert_close(smaller(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)


def test_without_prompts_the_neurons_with_the_largest_weights_stay(tiny_model: Path) -> None:
    import torch

    model = loaded(tiny_model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, 32:] *= 0.001
    _, narrowed = narrow(model, 0.5, tokenizer_of(tiny_model), [], Silent())
    assert narrowed.by == "magnitude" and set(map(tuple, narrowed.neurons.values())) == {tuple(range(32))}


def test_layers_and_width_are_cut_together_and_the_folder_loads(tiny_model: Path, tmp_path: Path) -> None:
    assert shrink(str(tiny_model), tmp_path / "out", "0,3", prompts=PROMPTS, width=0.5) == [0, 3]
    config = loaded(tmp_path / "out").config
    assert (config.num_hidden_layers, config.intermediate_size) == (2, 32)


@pytest.mark.parametrize(
    ("total", "width", "kept"), [(1536, 0.5, 768), (1536, 0.01, 32), (64, 0.9, 64), (48, 0.5, 24), (49, 0.5, 24), (10, 0.01, 1)]
)
def test_the_number_of_neurons_suits_quantised_formats(total: int, width: float, kept: int) -> None:
    assert neurons_kept(total, width) == kept


def test_a_narrow_student_is_trained_and_the_manifest_says_what_was_cut(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    recipe = Recipe(
        student=StudentConfig(model="shrink:2"),
        teacher=TeacherConfig(model=str(tiny_model)),
        train=TrainConfig(width=0.5, args={**ARGS, "max_steps": 1}),
    )
    result = train(run, recipe, Silent())
    assert loaded(result.path).config.intermediate_size == 32
    manifest = run.manifest("train") or {}
    assert manifest["student"]["width"] == {"kept": 32, "of": 64, "by": "activation"}


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
def test_a_second_embedding_of_each_layer_keeps_the_same_rows(kind: str) -> None:
    import torch

    tokenizer = bpe_tokenizer()
    kept, model = needed_tokens(tokenizer, TEXTS), architecture(kind, tokenizer, [2]).eval()
    rows = model.model.embed_tokens_per_layer.weight.detach()[kept].clone()
    restrict(model, kept)
    assert torch.equal(model.model.embed_tokens_per_layer.weight, rows)
    assert model.config.vocab_size_per_layer_input == len(kept)


# model_type: whether a vocabulary, and whether a width can be cut; else the reason
EXPERTS, ELSEWHERE = "has experts", "has no single number of neurons per layer"
CUTS = {
    **dict.fromkeys(
        ("llama", "qwen3", "olmo2", "cohere2", "nemotron", "phi", "phi3", "glm4", "gemma2", "gemma3_text"), ("", "")
    ),
    **dict.fromkeys(("gemma4_text", "gpt2", "opt", "falcon", "gpt_neox", "smollm3"), ("", "")),
    **dict.fromkeys(("falcon_h1", "qwen3_5_text", "bamba", "olmo_hybrid"), ("", "")),  # hybrids
    **dict.fromkeys(("gpt_oss", "mixtral", "qwen3_moe", "deepseek_v3", "llama4_text", "qwen3_next"), ("", EXPERTS)),
    **dict.fromkeys(("bloom", "mpt", "gemma3n_text", "mamba2"), ("", ELSEWHERE)),
    "lfm2": ("", "no tensor of Lfm2ForCausalLM has a place for each"),
    "mamba": ("", "has 2 modules that read its neurons"),
    "recurrent_gemma": ("", "which is not one per neuron"),
}


@pytest.mark.parametrize("kind", CUTS)
def test_a_family_s_vocabulary_and_width_are_cut_or_refused_with_the_reason(kind: str) -> None:
    import torch

    tokenizer = bpe_tokenizer()
    kept, prompts = needed_tokens(tokenizer, TEXTS), [[{"role": "user", "content": TEXTS[0]}]]
    for place, reason in enumerate(CUTS[kind]):
        model = architecture(kind, tokenizer, [2]).eval()
        before = model.num_parameters()
        if reason:
            with pytest.raises(UsageError, match=reason):
                restrict(model, kept) if place == 0 else narrow(model, 0.5, tokenizer, prompts, Silent())
            continue
        if place == 0:
            restrict(model, kept)  # it compares the logits itself, and raises where they differ
        else:
            model, _ = narrow(model, 0.5, tokenizer, prompts, Silent())
        assert model.num_parameters() < before
        tokens = torch.arange(5, 25)[None]
        answer = model.generate(tokens, max_new_tokens=4, do_sample=False, attention_mask=tokens > 0)
        assert int(answer.max()) < model.config.get_text_config(decoder=True).vocab_size
