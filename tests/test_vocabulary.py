"""A vocabulary cut to the task: the same segmentation, any other text still written, the same logits for the kept tokens."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filter_runs
import pytest
from architectures import architecture
from conftest import CHATML
from train_runs import ARGS, WORDS, Listener, a_run, sample

from seqdistill.engines.logprob_file import read_logprob_rows
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import ModelConfig, Recipe, StudentConfig, TaskConfig, TeacherConfig, TrainConfig
from seqdistill.records import read_samples, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.train.cutting import decoder_layers
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.scored_targets import score_targets
from seqdistill.stages.train.shrink import shrink_from_files
from seqdistill.stages.train.stage import train
from seqdistill.stages.train.vocabulary import (
    FOREIGN,
    NOTE,
    byte_characters,
    cut_tokenizer,
    needed_tokens,
    restrict,
    task_vocabulary,
)

TEXTS = [f"The {word} is shut on Monday, say it short: notice {number}." for number, word in enumerate(WORDS)]
OTHER = ["A parliament of owls debated quietly; nobody understood them!", FOREIGN]
CORPUS = [*TEXTS, "The mayor understands that many people in the city like parliament debates and owls at night."] * 3


def bpe_tokenizer(size: int = 420, *, ignore_merges: bool = False, fallback: bool = False) -> Any:
    """A tokenizer with real merges, learnt from a few sentences; its added tokens are at both ends of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<|endoftext|>" if fallback else None))
    if fallback:  # as SentencePiece's BPE writes texts
        first = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        first = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    content["model"]["ignore_merges"] = ignore_merges
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens(["<late>"])
    start = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", start)])
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = CHATML
    return fast


def bpe_model(folder: Path, *, seed: int = 0, tied: bool = True, padding: int = 0, tokenizer: Any = None) -> Path:
    """The folder of a tiny random Llama with such a tokenizer, and `padding` rows more in its embedding."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or bpe_tokenizer()
    torch.manual_seed(seed)
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.3}
    config = LlamaConfig(vocab_size=len(tokenizer) + padding, tie_word_embeddings=tied, **sizes, **more, **ids)
    model = LlamaForCausalLM(config)
    late = tokenizer.convert_tokens_to_ids("<late>")
    model.generation_config = GenerationConfig(**ids | {"eos_token_id": [ids["eos_token_id"], late]})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bpe_model(tmp_path_factory.mktemp("models") / "whole", seed=7)


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "byte-level": bpe_tokenizer,
    "whole words taken as they are": lambda: bpe_tokenizer(ignore_merges=True),
    "characters, bytes behind them": lambda: bpe_tokenizer(fallback=True),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_cut_tokenizer_segments_the_texts_as_the_whole_one_and_still_writes_any_other(kind: str) -> None:
    from transformers import LlamaConfig

    tokenizer = TOKENIZERS[kind]()
    kept = needed_tokens(tokenizer, TEXTS)
    smaller = cut_tokenizer(LlamaConfig(), tokenizer, kept, TEXTS)
    assert len(smaller) == len(kept) < len(tokenizer) - 10
    assert sorted(smaller.get_vocab().values()) == list(range(len(kept)))
    for text in TEXTS:
        assert [kept[token] for token in encoded(smaller, text)] == encoded(tokenizer, text)
        assert [kept[token] for token in smaller(text)["input_ids"]] == tokenizer(text)["input_ids"]  # with the first token
    for text in OTHER:
        assert smaller.decode(encoded(smaller, text)) == tokenizer.decode(encoded(tokenizer, text)) == text
    assert len(encoded(smaller, OTHER[0])) > len(encoded(tokenizer, OTHER[0]))
    content = json.loads(smaller.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    assert all({left, right, left + right} <= vocabulary.keys() for left, right in content["model"]["merges"])
    assert [token["id"] for token in content["added_tokens"]] == [0, 1, 2, len(kept) - 1]
    assert smaller.chat_template == tokenizer.chat_template


def test_every_byte_has_the_character_that_tokenizers_gives_it() -> None:
    from tokenizers import pre_tokenizers

    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_a_text_that_would_be_segmented_differently_is_refused() -> None:
    from transformers import LlamaConfig

    tokenizer = bpe_tokenizer()
    with pytest.raises(UsageError, match=r"segments 'The bridge is shut.* differently"):
        cut_tokenizer(LlamaConfig(), tokenizer, needed_tokens(tokenizer, TEXTS[:1]), TEXTS)


@pytest.mark.parametrize(("tied", "padding"), [(True, 0), (False, 61)])
def test_the_cut_model_gives_the_whole_one_s_logits_for_the_kept_tokens(tmp_path: Path, tied: bool, padding: int) -> None:
    import torch

    folder = bpe_model(tmp_path / "whole", tied=tied, padding=padding)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    options: dict[str, Any] = {"vocabulary": "task", "texts": tmp_path / "texts.jsonl"}
    shrink_from_files(str(folder), tmp_path / "out", None, "influence", None, **options)
    (model, tokenizer), (smaller, small_tokenizer) = loaded(folder), loaded(tmp_path / "out")
    kept = json.loads((tmp_path / "out" / NOTE).read_text())["kept"]
    facts = json.loads((tmp_path / "out" / "shrink.json").read_text())
    assert facts["vocabulary"] == {"kept": len(kept), "of": len(tokenizer)}
    assert smaller.config.vocab_size == smaller.get_input_embeddings().weight.shape[0] == len(kept) == len(small_tokenizer)
    assert (smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight) is tied
    for text in TEXTS:
        tokens, fewer = (torch.tensor([one(text)["input_ids"]]) for one in (tokenizer, small_tokenizer))
        with torch.inference_mode():
            torch.testing.assert_close(smaller(fewer).logits, model(tokens).logits[..., kept], atol=1e-5, rtol=1e-5)
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        number = getattr(smaller.config, name)
        assert number == getattr(small_tokenizer, name) and kept[number] == getattr(model.config, name)
    assert smaller.generation_config.eos_token_id == [2, len(kept) - 1]
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": TEXTS[0]}], tokenize=False, add_generation_prompt=True)
    assert small_tokenizer.decode(encoded(small_tokenizer, prompt)) == prompt


def test_layers_and_vocabulary_are_cut_together_and_the_prompts_alone_choose_both(whole: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": text} for text in TEXTS])
    result = shrink_from_files(
        str(whole), tmp_path / "out", "2", "influence", tmp_path / "prompts.jsonl", vocabulary="task", texts=None
    )
    smaller, tokenizer = loaded(tmp_path / "out")
    assert smaller.config.num_hidden_layers == 2 and result["tokens"] == len(tokenizer)
    assert result["tokens"] < 400
    original, _ = loaded(whole)
    path, stack = decoder_layers(original)
    for new, old in enumerate(result["layers"]):
        name = "self_attn.q_proj.weight"
        assert (smaller.get_submodule(path)[new].get_parameter(name) == stack[old].get_parameter(name)).all()


def unigram() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)))


def characters() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))


def with_dropout() -> Any:
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.model.dropout = 0.5
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (unigram, "is Unigram, whose segmentation changes"),
        (characters, "does not fall back to single bytes"),
        (with_dropout, "has dropout = 0.5"),
        (lambda: object(), "has no tokenizer.json"),
    ],
)
def test_a_tokenizer_whose_segmentation_would_change_is_refused(tokenizer: Callable[[], Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        task_vocabulary(ModelConfig(), tokenizer(), TEXTS)


def test_a_model_with_a_further_table_of_its_tokens_is_refused() -> None:
    """DeepSeek 4 chooses experts by the token's id."""
    model = architecture("deepseek_v4", bpe_tokenizer(), [2])
    with pytest.raises(UsageError, match=r"has model\.layers\.0\.mlp\.gate\.tid2eid of \(\d+, 2\), one for each of its tokens"):
        restrict(model, range(100))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"vocabulary": "task"}, "no texts to choose"),
        ({"vocabulary": "half"}, "'half'"),
        ({"vocabulary": "all", "texts": Path("x.jsonl")}, "--texts without"),
        ({"vocabulary": "task", "texts": Path("no-such.jsonl")}, "no-such.jsonl: no such file"),
    ],
)
def test_shrink_refuses_a_vocabulary_without_texts(whole: Path, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        shrink_from_files(str(whole), tmp_path / "out", "2", "even", None, **options)
    assert not (tmp_path / "out").exists()


# --- a run ------------------------------------------------------------------------------------------------------------


def recipe(student: str, teacher: Path, args: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=student),
        teacher=TeacherConfig(model=str(teacher), options={"dtype": "float32"}),
        train=TrainConfig(**{"vocabulary": "task", "args": {**ARGS, **(args or {})}, **settings}),
    )


@pytest.fixture(scope="module")
def scored(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose rows the teacher has scored, most of its tokens at each place."""
    run = a_run(tmp_path_factory.mktemp("scored") / "run", [sample(n) for n in range(6)], [sample(n) for n in (6, 7)])
    score_targets(run, recipe("shrink:2", whole), 300, None, Silent())
    return run


def test_a_student_with_the_task_s_vocabulary_is_trained_and_knows_its_tokens_before(whole: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": "Do owls debate at night?"}])
    run, listener = a_run(tmp_path / "run"), Listener()
    settings = replace(recipe("shrink:2", whole, {"num_train_epochs": 1}), task=TaskConfig(test=str(tmp_path / "test.jsonl")))
    found = check(run, settings, Silent())
    result = train(run, settings, listener)
    (model, tokenizer), (_, before) = loaded(result.path), loaded(whole)
    manifest = run.manifest("train") or {}
    assert manifest["student"]["vocabulary"] == {"kept": len(tokenizer), "of": len(before)}
    assert model.config.vocab_size == len(tokenizer) < len(before)
    assert any(f"cut to {len(tokenizer)} of {len(before)} tokens" in note for note in found.notes)
    assert any("for the test prompts alone" in note for note in listener.notes)
    kept = json.loads((result.path / NOTE).read_text())["kept"]
    for row in [*(sample(n) for n in range(16)), sample(0, "Do owls debate at night?")]:
        messages = [*row.prompt, *row.completion]
        text = before.apply_chat_template(messages, tokenize=False)
        assert [kept[token] for token in encoded(tokenizer, text)] == encoded(before, text)
    assert train(run, settings, Silent()).up_to_date
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": "Do they?"}])
    assert not train(run, settings, Silent()).up_to_date
    again, fewer = loaded(result.path)
    assert again.config.vocab_size == len(fewer) < len(tokenizer)


def test_a_student_of_its_own_is_cut_too_and_becomes_the_base_that_eval_compares_with(whole: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    train(run, recipe(str(whole), whole, {"max_steps": 1}), Silent())
    manifest = run.manifest("train") or {}
    assert manifest["student"]["base"] == "train/base" and "layers" not in manifest["student"]
    assert loaded(run.file("train", "base"))[0].config.num_hidden_layers == 4


def soft(run: Run, folder: Path, student: str, teacher: Path, **settings: Any) -> Run:
    """A copy of the run, trained one step on the teacher's distribution alone, all rows in one batch."""
    rows = {name: list(read_samples(run.file("filter", name))) for name in ("train.jsonl", "validation.jsonl")}
    other = filter_runs.filtered_run(folder, rows)
    other.file("targets", "targets.parquet").parent.mkdir()
    other.file("targets", "targets.parquet").write_bytes(run.file("targets", "targets.parquet").read_bytes())
    args = {"max_steps": 1, "per_device_train_batch_size": 6}
    train(other, recipe(student, teacher, args, **{"method": "soft", "alpha": 0.0, **settings}), Silent())
    return other


def test_stored_targets_are_renumbered_and_shared_by_the_likeliest_tokens_that_are_left(
    scored: Run, whole: Path, tmp_path: Path
) -> None:
    import torch

    run = soft(scored, tmp_path / "run", "shrink:4", whole)
    assert (run.manifest("train") or {})["method"]["targets"] == {"rows": 8, "text_only": {}}
    kept = json.loads((run.file("train", "model") / NOTE).read_text())["kept"]
    stored = dict(read_logprob_rows(scored.file("targets", "targets.parquet")))
    (teacher, tokenizer), divergences = loaded(whole), []
    for row in read_samples(run.file("filter", "train.jsonl")):  # the student is the whole teacher, but for the cut tokens
        text = tokenizer.apply_chat_template([*row.prompt, *row.completion], tokenize=False).rstrip()
        tops, tokens = stored[row.id].top_token_ids or [], encoded(tokenizer, text)
        with torch.inference_mode():
            p = teacher.double()(torch.tensor([tokens])).logits[0, -len(tops) - 1 : -1].softmax(-1)
        for at, top in zip(p, tops, strict=True):
            q = torch.zeros_like(at)
            q[kept] = at[kept] / at[kept].sum()
            known = sorted(set(top) & set(kept))
            shared = at[known] / at[known].sum()
            divergences.append(float((shared * (shared / q[known]).log()).sum()))
            assert len(known) < len(top)
    loss = json.loads(run.file("train", "log.jsonl").read_text().splitlines()[0])["loss"]
    assert loss == pytest.approx(sum(divergences) / len(divergences), abs=2e-5) and loss > 0.005


def test_an_approximation_over_the_likeliest_tokens_that_are_left_is_of_these_alone(
    scored: Run, whole: Path, tmp_path: Path
) -> None:
    run = soft(scored, tmp_path / "run", "shrink:4", whole, approximate=True)
    loss = json.loads(run.file("train", "log.jsonl").read_text().splitlines()[0])["loss"]
    assert loss == pytest.approx(0, abs=2e-5), "the student is the whole teacher, but for the cut tokens"


def test_a_student_that_was_cut_before_still_learns_from_its_teacher_s_targets(
    scored: Run, whole: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [vars(sample(n)) for n in range(8)])
    options: dict[str, Any] = {"vocabulary": "task", "texts": tmp_path / "rows.jsonl"}
    shrink_from_files(str(whole), tmp_path / "small", "2", "even", None, **options)
    run = soft(scored, tmp_path / "run", str(tmp_path / "small"), whole, vocabulary="all")
    assert (run.manifest("train") or {})["method"]["targets"]["rows"] == 8
    again = soft(scored, tmp_path / "again", str(tmp_path / "small"), whole)  # cut once more: the ids before both cuts
    assert (again.manifest("train") or {})["method"]["targets"]["rows"] == 8
    lists = [json.loads((path.file("train", "model") / NOTE).read_text())["kept"] for path in (run, again)]
    assert set(lists[1]) <= set(lists[0])


def first_loss(run: Run) -> float:
    return float(json.loads(run.file("train", "log.jsonl").read_text().splitlines()[0])["loss"])


def test_hidden_states_are_compared_with_those_of_the_teacher_on_the_same_tokens(whole: Path, tmp_path: Path) -> None:
    losses = []
    for weight in (0.0, 1.0):  # the student is the whole teacher but for the cut tokens, so there is nothing to lose
        run = a_run(tmp_path / f"run{weight}", [sample(n) for n in range(4)], [])
        train(run, recipe("shrink:4", whole, {"max_steps": 1}, layers="0,1,2,3", features=weight), Silent())
        losses.append(first_loss(run))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_on_policy_asks_the_whole_teacher_for_the_student_s_tokens(whole: Path, tmp_path: Path) -> None:
    first, second = (a_run(tmp_path / name, [sample(n) for n in range(4)], []) for name in ("first", "second"))
    train(first, recipe("shrink:4", whole, {"max_steps": 1, "learning_rate": 1e-30}, layers="0,1,2,3"), Silent())
    args = {"max_steps": 1, "per_device_train_batch_size": 2, "max_completion_length": 8}
    settings = recipe(f"run:{first.path}", whole)
    train(second, replace(settings, train=TrainConfig(method="on_policy", args=args)), Silent())
    assert first_loss(second) == pytest.approx(0, abs=1e-5)  # the teacher itself, on the tokens that it writes
    assert (second.file("train", "model") / NOTE).read_bytes() == (first.file("train", "model") / NOTE).read_bytes()
