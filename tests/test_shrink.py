"""What `shrink` promises: the chosen layers, and a model that is exactly the old one without the others."""

import json
from pathlib import Path

import pytest

from seqdistill.errors import UsageError
from seqdistill.stages.train.cutting import cut, decoder_layers
from seqdistill.stages.train.shrink import (
    block_influence,
    even_layers,
    influential_layers,
    listed_layers,
    shrink,
    shrink_from_files,
)

PROMPTS = [[{"role": "user", "content": f"The library closes at {hour} o'clock."}] for hour in range(3)]


def loaded(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_the_kept_layers_are_the_models_own_and_everything_else_stays(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    assert shrink(str(tiny_model), tmp_path / "out", "0,2,3") == [0, 2, 3]
    whole, small = loaded(tiny_model), loaded(tmp_path / "out")
    assert small.config.num_hidden_layers == 3
    for new, old in enumerate([0, 2, 3]):
        for name, weight in whole.model.layers[old].state_dict().items():
            assert torch.equal(small.model.layers[new].state_dict()[name], weight)
    assert torch.equal(small.model.embed_tokens.weight, whole.model.embed_tokens.weight)
    assert small.generation_config.eos_token_id == whole.generation_config.eos_token_id
    for name in ("chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_model / name).read_bytes()


def test_keeping_every_layer_changes_no_logit(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    shrink(str(tiny_model), tmp_path / "out", 4, "even")
    tokens = torch.arange(5, 25)[None]
    with torch.inference_mode():
        assert torch.equal(loaded(tiny_model)(tokens).logits, loaded(tmp_path / "out")(tokens).logits)


def test_a_cut_model_generates_with_its_cache_as_without(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    shrink(str(tiny_model), tmp_path / "out", "1,3")
    tokens = torch.arange(5, 25)[None]
    answers = [
        loaded(tmp_path / "out").generate(
            tokens, max_new_tokens=12, do_sample=False, use_cache=cache, attention_mask=tokens > 0
        )
        for cache in (True, False)
    ]
    assert torch.equal(*answers)


def test_settings_with_one_entry_a_layer_are_cut_with_the_layers() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = Qwen3Config(
        vocab_size=32, num_hidden_layers=4, layer_types=kinds, sliding_window=4, use_sliding_window=True, **sizes
    )
    model = Qwen3ForCausalLM(config)
    small = cut(model, decoder_layers(model)[0], [0, 3])
    assert small.config.layer_types == ["full_attention", "sliding_attention"]
    assert model.config.num_hidden_layers == 4


def test_a_model_of_another_family_is_cut_too() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=5, n_head=2, n_positions=32)).eval()
    path, layers = decoder_layers(model)
    small = cut(model, path, [0, 4])
    assert (path, len(layers), len(decoder_layers(small)[1])) == ("transformer.h", 5, 2)
    assert torch.equal(small.transformer.h[1].mlp.c_fc.weight, layers[4].mlp.c_fc.weight)


def test_even_layers_keep_both_ends() -> None:
    assert even_layers(8, 30) == [0, 4, 8, 12, 17, 21, 25, 29]
    assert even_layers(1, 30) == [0]
    assert even_layers(30, 30) == list(range(30))


def test_a_layer_that_changes_nothing_has_no_influence_and_goes_first(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = loaded(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    scores = block_influence(model, tokenizer, PROMPTS)
    assert scores[2] == pytest.approx(0, abs=1e-6)
    assert min(score for layer, score in enumerate(scores) if layer != 2) > 0.001
    assert influential_layers(3, scores) == [0, 1, 3]


def test_equal_scores_keep_the_earlier_layers() -> None:
    assert influential_layers(2, [0.5, 0.5, 0.5]) == [0, 1]


def test_the_first_third_is_the_models_start_and_the_rest_has_the_most_influence() -> None:
    scores = [1.0, 0.2, 0.1, 0.1, 0.1, 0.5, 0.4, 0.3, 0.9]
    assert influential_layers(6, scores) == [0, 1, 5, 6, 7, 8]
    assert influential_layers(8, [*scores, 0.0]) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert influential_layers(9, scores) == list(range(9))
    assert influential_layers(1, scores[::-1]) == [0]


def test_shrink_json_says_what_was_kept_and_why(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    result = shrink_from_files(str(tiny_model), tmp_path / "out", "2", "influence", tmp_path / "p.jsonl")
    facts = json.loads((tmp_path / "out" / "shrink.json").read_text())
    assert result["layers"] == facts["layers"]
    assert (facts["source"], facts["of"], facts["choice"], len(facts["influence"])) == (str(tiny_model), 4, "influence", 4)
    assert facts["parameters"] == loaded(tmp_path / "out").num_parameters()


def test_without_a_prompts_file_influence_is_measured_on_the_demo_task(tiny_model: Path, tmp_path: Path) -> None:
    assert len(shrink_from_files(str(tiny_model), tmp_path / "out", "2", "influence", None)["layers"]) == 2


@pytest.mark.parametrize(
    ("layers", "choice", "named"),
    [
        ("5", "even", "'5'"),
        ("0", "even", "'0'"),
        ("two", "even", "'two'"),
        ("2", "best", "'best'"),
        ("1,0", "even", "'1,0'"),
        ("0,4", "even", "'0,4'"),
        ("0,,1", "even", "'0,,1'"),
        (3, "0,1", "3 are requested"),
        ("2", "influence", "no prompts"),
    ],
)
def test_wrong_layers_are_refused_and_leave_nothing(
    tiny_model: Path, tmp_path: Path, layers: str, choice: str, named: str
) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        shrink(str(tiny_model), tmp_path / "out", layers, choice)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_and_a_taken_folder_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing-folder"):
        shrink(str(tmp_path / "missing-folder"), tmp_path / "out", "2", "even")
    with pytest.raises(UsageError, match="exists already"):
        shrink(str(tiny_model), tmp_path, "2", "even")


def test_a_list_of_one_layer_is_a_list() -> None:
    assert listed_layers("1", "2", 4) == [2]
    for layers, choice in (("2", "2"), ("1", "4")):
        with pytest.raises(UsageError, match="layers"):
            listed_layers(layers, choice, 4)
