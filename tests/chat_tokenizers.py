"""Byte-level tokenizers made on the spot for a chat template, with its special tokens, and tiny models that go with them."""

import re
from pathlib import Path
from typing import Any

SPECIAL = re.compile(
    r"<[|｜][^<>|｜\s{}'\"]+[|｜]?>|<[a-z_]+[|｜]>|<(?:start|end)_of_\w+>|<end_of_utterance>|<SPECIAL_\d+>|\[gMASK\]|<sop>"
)
LINE_END = "Ċ"  # as byte-level tokenizers write it


def chat_tokenizer(template: str, *, eos: str = "<eos>", special: bool = True, more: tuple[str, ...] = ()) -> Any:
    """A tokenizer whose special tokens are the template's, and which merges line breaks, as large ones do.

    With `special` the template's tokens are added special tokens, as Gemma's and Llama's are; eos stays the tokenizer's own.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    found = sorted({*SPECIAL.findall(template), *more})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = dict.fromkeys(["<pad>", "<bos>", eos, *found, *alphabet, LINE_END * 2, LINE_END * 3])
    model = models.BPE(vocab={token: i for i, token in enumerate(own)}, merges=[(LINE_END, LINE_END), (LINE_END * 2, LINE_END)])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<bos>", eos])
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in found])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token="<bos>", pad_token="<pad>")
    fast.chat_template = template
    return fast


def tiny_chat_model(folder: Path, tokenizer: Any, vocabulary: int | None = None, **generation: Any) -> Path:
    """The folder of a tiny random Llama with this tokenizer; `generation` goes verbatim into generation_config.json."""
    import json

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id, **generation}))
    return folder


def tiny_gemma3(folder: Path, tokenizer: Any) -> Path:
    """The folder of a tiny random Gemma 3 that also sees, as its models from 4B on do, with its processor's files."""
    import json

    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(0)
    image = {
        name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image_soft_token", "start_of_image", "end_of_image")
    }
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("eos", "bos", "pad")}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = {**sizes, **ids, "vocab_size": len(tokenizer), "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = Gemma3Config(
        text_config={**text, "max_position_embeddings": 1024, "sliding_window": 64},
        vision_config={**sizes, "hidden_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=image["image_soft_token"],
        boi_token_index=image["start_of_image"],
        eoi_token_index=image["end_of_image"],
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**images, "processor_class": "Gemma3Processor"}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Gemma3Processor", "image_seq_length": 4}))
    return folder
