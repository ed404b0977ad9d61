"""A smaller vocabulary: the tokens that a task's texts need, a tokenizer of these alone, and the model's rows for them.

Owns what is in such a vocabulary, the proof that the texts are segmented as before, and the file that says which token had
which id. Does not collect the texts (task_texts.py).

Why the segmentation stays: BPE applies the first merge of its list that fits. Every merge that built a token of the texts is
kept, and the merges are a part of the whole list in its order, so at each step the first that fits is the same one. All single
bytes are kept too, so any other text can still be written, in more tokens.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqdistill.engines.loading import folder_here, generation_config, load
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import read_json, write_json
from seqdistill.stages.train.cutting import TRIED_TOKENS, check_close, in_float32

NOTE = "vocabulary.json"  # beside a model whose vocabulary was cut
FOREIGN = "¿Où? «naïve» ŽĐ Ωμέγα – Привет, мир! 漢字かな 한글 العربية हिन्दी 🙂🏳️‍🌈 x₁²≠∑\t\r\n\n  0123456789 \u200b\ufeffend"
NAMED_IDS = ("token_id", "token_ids", "token_index")  # keys of configs that hold token ids end so
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")  # of a generation config; a token that was cut needs no suppressing
CHUNK = 512  # texts that are segmented at once


def read_kept(model: ModelConfig) -> list[int] | None:
    """The id that each token of a model had in the vocabulary it was cut from; None for a model with a whole vocabulary."""
    folder = folder_here(model)
    note = folder / NOTE if folder else None
    return list(read_json(note)["kept"]) if note and note.exists() else None


# --- which tokens -----------------------------------------------------------------------------------------------------


def check_can_be_cut(tokenizer: Any) -> None:
    """Raises UsageError for a tokenizer that is not BPE down to bytes."""
    hint = "leave --vocabulary out, or use a model whose tokenizer is byte-level BPE, as SmolLM2, Qwen, Llama 3 and GPT have"
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"vocabulary = task: {type(tokenizer).__name__} has no tokenizer.json to cut", hint)
    model, over_bytes = _bpe(tokenizer)
    if model["type"] != "BPE":
        raise UsageError(
            f"vocabulary = task: the tokenizer is {model['type']}, whose segmentation changes when tokens are missing", hint
        )
    odd = next((name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)), None)
    if odd or not over_bytes:
        what = f"has {odd} = {model[odd]!r}" if odd else "does not fall back to single bytes"
        raise UsageError(f"vocabulary = task: the tokenizer is BPE, but {what}", hint)


def _bpe(tokenizer: Any) -> tuple[dict[str, Any], bool]:
    """(the model in tokenizer.json, whether it can write any text by single bytes)."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = json.dumps([content["pre_tokenizer"], content["normalizer"]])
    return content["model"], '"ByteLevel"' in parts or bool(content["model"].get("byte_fallback"))


def task_vocabulary(source: ModelConfig, tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The ids, rising, of a model's tokens that texts need, and of those that its config and generation config name.

    Raises UsageError for a tokenizer that cannot be cut.
    """
    check_can_be_cut(tokenizer)
    configs = [config.to_dict() for config in (load("AutoConfig", source), generation_config(source)) if config is not None]
    known = set(tokenizer.get_vocab().values())
    return needed_tokens(tokenizer, texts, known & {number for one in configs for number in _ids_in(one)})


def needed_tokens(tokenizer: Any, texts: Sequence[str], ids: Iterable[int] = ()) -> list[int]:
    """The ids, rising, of the tokens that a vocabulary for these texts has: theirs, and `ids`, with all that build them.

    Beside them all single bytes, and all tokens that the tokenizer adds to its model: control tokens and the like.
    """
    model, _ = _bpe(tokenizer)
    vocabulary: dict[str, int] = model["vocab"]
    wanted = {*ids, *tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    for chunk in _chunks(texts):
        wanted.update(token for tokens in tokenizer(chunk, add_special_tokens=False)["input_ids"] for token in tokens)
    single = [*byte_characters(), *(f"<0x{byte:02X}>" for byte in range(256)), model.get("unk_token")]
    wanted.update(vocabulary[text] for text in single if text in vocabulary)
    ranks = {pair: rank for rank, pair in enumerate(_merges(model))}
    texts_of = {number: text for text, number in vocabulary.items()}
    for text in [texts_of[number] for number in sorted(wanted) if number in texts_of]:
        wanted.update(vocabulary[part] for part in _parts(text, ranks) if part in vocabulary)
    return sorted(wanted)


def byte_characters() -> list[str]:
    """The character that byte-level BPE writes for each byte, as GPT-2 first did; not in the order of the bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, shown), *(chr(256 + number) for number in range(256 - len(shown)))]


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    return (list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK))


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(left, right) for left, right in pairs]


def _parts(text: str, ranks: Mapping[tuple[str, str], int]) -> set[str]:
    """A token's characters and what they were merged to on the way to it."""
    symbols, found = list(text), {*text}
    while True:
        pairs = list(pairwise(symbols))
        place = min((at for at, pair in enumerate(pairs) if pair in ranks), key=lambda at: ranks[pairs[at]], default=None)
        if place is None:
            return found
        symbols[place : place + 2] = ["".join(pairs[place])]
        found.add(symbols[place])


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def write_vocabulary(source: ModelConfig, tokenizer: Any, kept: Sequence[int] | None, folder: Path) -> None:
    """Writes a model's tokenizer, or one of the kept tokens alone, and the ids that these had before any vocabulary was cut."""
    if kept is None:
        tokenizer.save_pretrained(folder)
    else:
        write_tokenizer(tokenizer, kept, folder)
    if (before := before_cuts(source, kept)) is not None:
        write_json(folder / NOTE, {"kept": before})


def before_cuts(source: ModelConfig, kept: Sequence[int] | None) -> list[int] | None:
    """The ids that a model's kept tokens had before any vocabulary was cut; None where none was."""
    earlier = read_kept(source)
    if earlier is None or kept is None:
        return earlier if kept is None else list(kept)
    return [earlier[token] for token in kept]


def cut_tokenizer(config: Any, tokenizer: Any, kept: Sequence[int], texts: Sequence[str]) -> Any:
    """A tokenizer of these tokens alone, numbered from 0, that was seen to segment the texts as the whole one does.

    `config` is that of its model. Raises UsageError where there is no such tokenizer.
    """
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        smaller = write_tokenizer(tokenizer, kept, Path(folder))
    number = {old: new for new, old in enumerate(kept)}
    for chunk in _chunks(texts):
        before, after = (one(chunk, add_special_tokens=False)["input_ids"] for one in (tokenizer, smaller))
        for text, old, new in zip(chunk, before, after, strict=True):
            if [number.get(token) for token in old] != new:
                raise UsageError(
                    f"vocabulary = task: the smaller tokenizer segments {text[:60]!r} differently", "leave vocabulary out"
                )
    return smaller


def write_tokenizer(tokenizer: Any, kept: Sequence[int], folder: Path) -> Any:
    """Writes a tokenizer of these tokens alone, numbered from 0, beside a model's config, and returns it as it is read there.

    Raises UsageError where it does not number its tokens so, or cannot write any text.
    """
    tokenizer.save_pretrained(folder)
    for name in {*tokenizer.vocab_files_names.values(), "added_tokens.json"} - {"tokenizer.json"}:
        (folder / name).unlink(missing_ok=True)  # they hold the whole vocabulary once more
    number = {old: new for new, old in enumerate(kept)}
    content = _cut(json.loads(tokenizer.backend_tokenizer.to_str()), number)
    write_json(folder / "tokenizer.json", content)
    settings = folder / "tokenizer_config.json"
    config = read_json(settings)
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = {str(number[int(old)]): one for old, one in config["added_tokens_decoder"].items()}
        write_json(settings, config)
    smaller = load("AutoTokenizer", ModelConfig(model=str(folder)))
    wanted = {token: number[old] for token, old in tokenizer.get_vocab().items() if old in number}
    if smaller.get_vocab() != wanted:
        raise UsageError(
            f"vocabulary = task: {type(smaller).__name__} does not keep the ids of a smaller vocabulary", "leave it out"
        )
    before, after = (_text(one, one(FOREIGN, add_special_tokens=False)["input_ids"]) for one in (tokenizer, smaller))
    if before != after:
        raise UsageError(f"vocabulary = task: text of other languages would be lost: {after[:60]!r}", "leave it out")
    return smaller


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _cut(content: dict[str, Any], number: Mapping[int, int]) -> dict[str, Any]:
    """The content of tokenizer.json with only these tokens, under their new numbers."""
    model = content["model"]
    rising = sorted(model["vocab"].items(), key=lambda item: item[1])
    vocabulary = {token: number[old] for token, old in rising if old in number}
    merges = [pair for pair in _merges(model) if {*pair, "".join(pair)} <= vocabulary.keys()]
    content["model"] = {**model, "vocab": vocabulary, "merges": merges}
    content["added_tokens"] = [{**token, "id": number[token["id"]]} for token in content["added_tokens"]]
    content["post_processor"] = _renumbered(content["post_processor"], number)
    if content["padding"]:
        content["padding"]["pad_id"] = number[content["padding"]["pad_id"]]
    return content


def _renumbered(part: Any, number: Mapping[int, int]) -> Any:
    """A post-processor with its tokens' new ids: lists named "ids", and pairs of a token and its id."""
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and type(part[1]) is int:
            return [part[0], number[part[1]]]
        return [_renumbered(one, number) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: [number[old] for old in value] if name == "ids" else _renumbered(value, number) for name, value in part.items()
    }


# --- the model --------------------------------------------------------------------------------------------------------


def _ids_in(config: Any) -> Iterable[int]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _ids_in(value)
        elif str(name).endswith(NAMED_IDS):
            yield from (one for one in (value if isinstance(value, list) else [value]) if type(one) is int)


def restrict(model: Any, kept: Sequence[int]) -> None:
    """Leaves of a model, in place, only the rows of these tokens, numbered from 0, in its embeddings, its head and its configs.

    Raises UsageError for tokens that it has no embedding for, and where it then computes something else for them.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    if kept[-1] >= rows:
        raise UsageError(
            f"vocabulary = task: the tokenizer has the id {kept[-1]}, the model embeddings for ids up to {rows - 1} only",
            "use the tokenizer that belongs to the model",
        )
    index = torch.tensor(kept, device=model.device)
    tried = torch.arange(TRIED_TOKENS, device=model.device)[None] * 7 % len(kept)
    model.eval()
    with in_float32(model), torch.inference_mode():
        whole = model(index[tried], use_cache=False).logits[..., index].float()
    with torch.no_grad():
        for table in _tables(model, rows):
            table[: len(kept)] = table[index]
    _restrict_layer_tables(model, kept)  # before the others: some models' resizing cuts the end of these off too
    model.resize_token_embeddings(len(kept), mean_resizing=False)
    number = {old: new for new, old in enumerate(kept)}
    for config in (model.config, model.generation_config):
        if config is not None:
            _renumber(config, number)
    _check_shapes(model)
    embeddings = model.get_input_embeddings()
    embeddings.padding_idx = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)
    with in_float32(model), torch.inference_mode():
        smaller = model(tried, use_cache=False).logits.float()
    check_close(model, whole, smaller, "a smaller vocabulary", "leave vocabulary out, or use another model")


def _check_shapes(model: Any) -> None:
    """Raises UsageError for a model that has further tensors with a place for each token, which its config now denies."""
    import torch

    own = model.state_dict()
    with torch.device("meta"):
        wanted = type(model)(model.config).state_dict()
    for name, weight in wanted.items():
        if name in own and own[name].shape != weight.shape:
            raise UsageError(
                f"vocabulary = task: {type(model).__name__} has {name} of {tuple(own[name].shape)}, one for each of its tokens",
                "leave vocabulary out",
            )


def restrict_teacher(model: Any, teacher: ModelConfig, before_cuts: Sequence[int] | None) -> None:
    """Leaves of a teacher, in place, the tokens of a student whose vocabulary was cut from the same; all, if none was cut.

    Its distribution is then the one over these tokens. Raises UsageError for a teacher that lacks one of them.
    """
    if before_cuts is None:
        return
    earlier = read_kept(teacher)
    number = {before: own for own, before in enumerate(earlier)} if earlier else None
    if number is not None and (lost := [token for token in before_cuts if token not in number]):
        raise UsageError(
            f"teacher {teacher.model!r} lacks {len(lost)} of the student's {len(before_cuts)} tokens: its vocabulary was cut",
            "name the whole teacher",
        )
    if before_cuts != earlier:
        restrict(model, [number[token] for token in before_cuts] if number else before_cuts)


def _tables(model: Any, rows: int) -> list[Any]:
    """The tensors with a row a token: of embeddings and head, shared ones once."""
    found = {}
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        for tensor in (getattr(part, "weight", None), getattr(part, "bias", None)):
            if tensor is not None and tensor.shape[0] == rows:
                found[tensor.data_ptr()] = tensor
    return list(found.values())


def _restrict_layer_tables(model: Any, kept: Sequence[int]) -> None:
    """The same for Gemma 3n's second embedding, whose rows hold a part for each layer; it may have fewer rows."""
    import torch

    text = model.config.get_text_config(decoder=True)
    for name, table in model.named_modules():
        if name.endswith("embed_tokens_per_layer") and isinstance(table, torch.nn.Embedding):
            index = [token for token in kept if token < table.num_embeddings]
            table.weight = torch.nn.Parameter(table.weight.detach()[index])
            table.num_embeddings = text.vocab_size_per_layer_input = len(index)


def _renumber(config: Any, number: Mapping[int, int]) -> None:
    """Gives the token ids in a config, and in those nested in it, their new numbers; an id that no token has becomes None."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            _renumber(value, number)
        elif name in ID_LISTS and value:
            setattr(config, name, [number[old] for old in value if old in number] or None)
        elif name == "bad_words_ids" and value:
            setattr(config, name, [[number[old] for old in word] for word in value if number.keys() >= {*word}] or None)
        elif name.endswith(NAMED_IDS) and isinstance(value, list):
            setattr(config, name, [number[old] for old in value if old in number])
        elif name.endswith(NAMED_IDS) and type(value) is int and value >= 0:
            setattr(config, name, number.get(value))
