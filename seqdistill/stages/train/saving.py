"""The trained model as a folder that loads the same wherever it goes: weights, tokenizer, template, stop tokens.

transformers 5 writes config.json and tokenizer_config.json with keys that transformers 4 silently ignores (its default
rope_theta instead of the model's) or refuses (the tokenizer's class). Both are written here with the keys that both read.
Which architectures then answer the same in both is measured by tests/transformers_4.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from seqdistill.engines.generation_config import stop_ids
from seqdistill.engines.loading import load, plain_weights, processor_files, with_adapters
from seqdistill.errors import UsageError
from seqdistill.files import apply_umask
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import read_json, write_json
from seqdistill.stages.train.lora import merged, save_adapters, without_adapters
from seqdistill.stages.train.loss_log import diverged
from seqdistill.stages.train.ranks import rank
from seqdistill.stages.train.vocabulary import NOTE, read_kept

BOTH, FIVE = "transformers 4 and 5", "transformers 5 or later"
SAME_IN_4 = {  # model types whose greedy answers 4.57 and 5 have been seen to agree on, token for token
    "bamba", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "exaone4", "falcon", "falcon_h1",
    "falcon_mamba", "gemma", "gemma2", "gemma3_text", "gemma3n_text", "glm4", "glm4_moe", "gpt2", "gpt_neo", "gpt_neox",
    "gpt_oss", "gptj", "granite", "granitemoe", "hunyuan_v1_dense", "jamba", "lfm2", "llama", "llama4_text", "mamba",
    "minimax", "mistral", "mixtral", "mpt", "nemotron", "olmo2", "olmo3", "olmoe", "opt", "phi", "phi3", "qwen2", "qwen3",
    "qwen3_moe", "qwen3_next", "rwkv", "seed_oss", "smollm3", "stablelm", "starcoder2",
}  # fmt: skip


def write_model(trainer: Any, base: ModelConfig, end_of_turn: int, out: Path) -> str:
    """The folder `out`, replaced at once, with weights in the precision the student came in; adapters also beside it, alone.

    Returns the versions of transformers that load it. Raises SeqdistillError for weights that are not finite.

    Of several processes the first one writes; the others return nothing.
    """
    _check_finite(trainer)
    came_in = load("AutoConfig", base)
    half, old = (out.with_name(f".{out.name}.{part}") for part in ("new", "old"))
    for folder in (half, old) if rank() == 0 else ():
        shutil.rmtree(folder, ignore_errors=True)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if rank() == 0 and not sharded:
        save_adapters(trainer.model, out.with_name("adapter"))
    if not sharded:
        trainer.model = merged(trainer.model, base)
        if came_in.dtype is not None:
            trainer.model.to(came_in.dtype)
            _check_finite(trainer)  # float16 ends at 65504
    plain = without_adapters(trainer.model)
    plain.config.use_cache = getattr(came_in, "use_cache", True)  # the trainer switches it off
    _restore_experts(*(config.get_text_config(decoder=True) for config in (plain.config, came_in)))
    stops = [end_of_turn, *(stop for stop in stop_ids(plain.generation_config.eos_token_id) if stop != end_of_turn)]
    plain.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # of any other nothing is saved
    trainer.save_model(str(half))  # the first process writes; the others may have a part of the weights
    if rank() > 0:
        return ""
    if sharded:
        rewrite_gathered(half, base, plain.generation_config, trainer.processing_class, came_in.dtype)
    if (cut_from := read_kept(base)) is not None:
        write_json(half / NOTE, {"kept": cut_from})
    write_processor(base, half)
    (half / "training_args.bin").unlink(missing_ok=True)  # a pickle with this machine's paths
    loads_in = write_for_both(half)
    for folder in filter(Path.exists, (half, out.with_name("adapter"))):
        apply_umask(folder)
    if out.exists():
        out.rename(old)
    half.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return loads_in


def _restore_experts(trained: Any, came_in: Any) -> None:
    """Takes out of a text config what a training put there of its experts."""
    for name in ("num_experts", "router_aux_loss_coef", "output_router_logits"):
        if hasattr(came_in, name):
            setattr(trained, name, getattr(came_in, name))
        elif hasattr(trained, name):
            delattr(trained, name)


def write_processor(source: ModelConfig, folder: Path) -> None:
    """Copies what turns images or sound into a model's inputs beside a saved model that takes them as its source does."""
    saved = read_json(folder / "config.json")
    if any(isinstance(saved.get(f"{kind}_config"), dict) for kind in ("vision", "audio")):
        for path in processor_files(source):
            shutil.copyfile(path, folder / path.name)


def _check_finite(trainer: Any) -> None:
    """Raises SeqdistillError for weights that are not finite: the last step may have made them so, and no loss shows it."""
    for name, part in trainer.model.named_parameters():
        local = part.to_local() if hasattr(part, "to_local") else part
        if local.is_floating_point() and not local.isfinite().all():
            raise diverged(
                f"{name} has values that are not finite numbers after step {trainer.state.global_step}", trainer.args
            )


def rewrite_gathered(folder: Path, base: ModelConfig, generation: Any, tokenizer: Any, dtype: Any) -> None:
    """Writes what was gathered from several GPUs as a whole model: with its adapters merged and its tied weights once."""
    adapter = folder.with_name("adapter")
    shutil.rmtree(adapter, ignore_errors=True)  # an earlier training's
    if (folder / "adapter_config.json").exists():
        folder.rename(adapter)
        for file in set(adapter.iterdir()) - set(adapter.glob("adapter_*")):
            file.unlink()
        model = with_adapters(
            load("AutoModelForCausalLM", base, dtype="float32", **plain_weights(base)), adapter
        ).merge_and_unload()
        model = model if dtype is None else model.to(dtype)
    else:
        model = load("AutoModelForCausalLM", ModelConfig(model=str(folder)), "the trained model", dtype=dtype or "auto")
        shutil.rmtree(folder)
    model.generation_config = generation
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_for_both(folder: Path) -> str:
    """Rewrites a saved model's configs in words that transformers 4 and 5 read alike; returns which of them load it.

    Where transformers 5 itself would then read another config, or transformers 4 has no words for it, the config stays as it
    was written.
    """
    _rewrite_tokenizer(folder)
    path = folder / "config.json"
    written = path.read_bytes()
    config = json.loads(written)
    if "auto_map" in config or not all(_rewrite_rope(part) for part in _configs(config)):
        return FIVE
    before = load("AutoConfig", ModelConfig(model=str(folder)), "the trained model")
    if "num_experts" in type(before).attribute_map:  # its name in 4, and in 5 still another name of the same
        config["num_experts"] = before.num_experts
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not _reads_alike(folder, before):
        path.write_bytes(written)
        return FIVE
    return BOTH if config.get("model_type") in SAME_IN_4 else FIVE


def _reads_alike(folder: Path, before: Any) -> bool:
    """Whether transformers 5 takes the rewritten config for the same one."""
    try:
        return _rope(load("AutoConfig", ModelConfig(model=str(folder)), "the trained model")) == _rope(before)
    except UsageError:
        return False


def _configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The config and those nested in it, as in models that also see."""
    return [config, *(part for value in config.values() if isinstance(value, dict) for part in _configs(value))]


def _rope(config: Any) -> list[Any]:
    """The rotary settings as transformers 5 understands them; "type" is an older word for rope_type, left over."""
    found = [part.get("rope_parameters") for part in _configs(config.to_dict())]
    return [{name: value for name, value in rope.items() if name != "type"} if rope else rope for rope in found]


def _rewrite_rope(config: dict[str, Any]) -> bool:
    """Adds transformers 4's words for rotary positions; False where it has none."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return True
    kinds = [rope]
    if "full_attention" in rope and "sliding_attention" in rope:
        kinds = [rope["full_attention"], rope["sliding_attention"]]
    if not all(isinstance(kind, dict) and "rope_theta" in kind for kind in kinds):
        return False
    rope = kinds[0]
    config["rope_theta"] = rope["rope_theta"]
    if len(kinds) > 1:
        config["rope_local_base_freq"] = kinds[1]["rope_theta"]
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if str(config.get("model_type")).startswith("gpt_neox"):
        config["rotary_emb_base"], config["rotary_pct"] = rope["rope_theta"], rope.get("partial_rotary_factor", 1.0)
    kind = rope.get("rope_type", "default")
    if kind == "longrope":  # there transformers 4 takes these three and no other
        config["rope_scaling"] = {"type": kind, **{name: rope[name] for name in ("short_factor", "long_factor")}}
        config["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    elif kind != "default":
        config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return True


def _rewrite_tokenizer(folder: Path) -> None:
    """The tokenizer's class, inputs and special tokens under the names that both know."""
    path, content = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not path.exists():
        return
    config = read_json(path)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config.setdefault("model_input_names", ["input_ids", "attention_mask"])  # 4 adds token_type_ids, which models refuse
    if content.exists():
        config |= _added(config, content)
    write_json(path, config)


def _added(config: dict[str, Any], content: Path) -> dict[str, bool]:
    """Whether the tokenizer adds its first and last token to a text by itself: some classes of 4 do unless this says no."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(content)).backend_tokenizer
    ids, found = tokenizer.encode("a").ids, {}
    for name, place in (("bos", 0), ("eos", -1)):
        token = config.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            found[f"add_{name}_token"] = bool(ids) and ids[place] == tokenizer.token_to_id(token)
    return found
