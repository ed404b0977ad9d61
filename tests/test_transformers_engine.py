"""The transformers engine on a real tiny model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_contract import ask, check_engine_contract

from seqdistill.engines import Request, check_supported, open_engine
from seqdistill.engines.batching import Batching
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import GenerateConfig, ModelConfig, Recipe, TeacherConfig
from seqdistill.stages.generate.plan import teachers_of


def request(text: str, number: int = 0, **settings: Any) -> Request:
    return Request(f"p{number}", [{"role": "user", "content": text}], **{"max_tokens": 12, "seed": number, **settings})


def test_it_answers_the_engine_contract(tiny_model: Path) -> None:
    check_engine_contract(open_engine(ModelConfig(model=str(tiny_model))), longest=2000)


def test_batches_are_longest_first_and_bounded_by_size_and_tokens(tiny_model: Path) -> None:
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"batch_size": 3, "batch_tokens": 200}))
    requests = [request("x" * length, number) for number, length in enumerate((5, 90, 10, 40, 20, 6))]
    completions = list(ask(engine, requests).values())
    assert [c.id for c in completions] == ["p1", "p3", "p4", "p2", "p5", "p0"]
    assert [c.batch_left for c in completions] == [0, 1, 0, 2, 1, 0]


def test_a_batch_answers_as_its_requests_alone_do(tiny_model: Path) -> None:
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32"}))
    requests = [request("word " * n, n, temperature=0.8, top_p=0.9) for n in range(1, 9)]
    together = ask(engine, requests)
    alone = {r.id: ask(engine, [r])[r.id] for r in requests}
    assert {i: c.content for i, c in together.items()} == {i: c.content for i, c in alone.items()}


def test_a_shared_beginning_is_read_once_and_changes_nothing(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32"}))
    requests = [
        Request(f"p{n}", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{n} " * n}], 12, seed=n)
        for n in range(1, 9)
    ]
    assert engine.batching.sharing  # type: ignore[attr-defined]
    read: list[tuple[int, ...]] = []
    engine._model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda _module, _args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    shared = ask(engine, requests)
    longest = max(c.prompt_tokens for c in shared.values())
    assert read[0][0] == 1 and read[0][1] + read[1][1] == longest and read[1][0] == 8
    monkeypatch.setattr("seqdistill.engines.batching.SHARED_ROWS", 1000)
    alone = ask(engine, requests)
    assert {i: c.content for i, c in shared.items()} == {i: c.content for i, c in alone.items()}
    assert {i: c.prompt_tokens for i, c in shared.items()} == {i: c.prompt_tokens for i, c in alone.items()}


def test_sampling_follows_the_model_distribution(tiny_model: Path) -> None:
    """The first token's frequencies over many seeds match softmax(logits / T), by a chi-square test."""
    import torch
    from scipy.stats import chisquare

    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32"}))
    seeds = 3000
    raws = ask(engine, [request("a", n, max_tokens=1, temperature=1.3) for n in range(seeds)])
    tokens = engine._tokenizer  # type: ignore[attr-defined]
    ids = tokens.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        shares = (engine._model(**ids).logits[0, -1] / 1.3).softmax(-1)  # type: ignore[attr-defined]
    texts = [c.raw["text"] for c in raws.values()]
    by_text: dict[str, float] = {}
    for token, share in enumerate(shares.tolist()):
        text = tokens.decode([token], skip_special_tokens=True)
        by_text[text] = by_text.get(text, 0.0) + share
    common = [text for text, share in by_text.items() if share * seeds >= 8]
    observed = [sum(t == text for t in texts) for text in common]
    expected = [by_text[text] * seeds for text in common]
    observed.append(seeds - sum(observed))
    expected.append(seeds - sum(expected))
    assert len(common) > 20
    assert chisquare(observed, expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no-such/folder/here", "no such file or folder"),
        ("package:no_such_package", "is not installed"),
        ("./missing.gguf", "no such file or folder"),
    ],
)
def test_an_unknown_model_is_a_usage_error(model: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_engine(ModelConfig(model=model))


def test_an_unknown_option_is_a_usage_error(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="unknown option 'batchsize'"):
        open_engine(ModelConfig(model=str(tiny_model), options={"batchsize": 3}))
    for name, value in [("batch_size", "x"), ("batch_size", 0), ("batch_tokens", 1.5), ("dtype", "float99"), ("device", "tpu")]:
        with pytest.raises(UsageError, match=f"option {name} = {value!r}"):
            open_engine(ModelConfig(model=str(tiny_model), options={name: value}))


def test_beams_find_the_answer_of_plain_beam_search(tiny_model: Path) -> None:
    import torch

    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32", "batch_size": 8}))
    requests = [request("word " * n, n, beams=4) for n in range(1, 6)]
    found = {i: c.raw["text"] for i, c in ask(engine, requests).items()}
    model, tokens = engine._model, engine._tokenizer  # type: ignore[attr-defined]
    for one in requests:
        ids = tokens.apply_chat_template(one.messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.inference_mode():
            best = model.generate(**ids, num_beams=4, do_sample=False, max_new_tokens=12)
        text = tokens.decode(best[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert found[one.id] == text
    greedy = ask(engine, [replace(one, beams=1) for one in requests])
    assert any(greedy[i].raw["text"] != text for i, text in found.items()), "beams find what greedy search does not"
    chosen = ask(engine, [replace(one, choices=["yes", "no"]) for one in requests])
    assert all(c.content in ("yes", "no") and c.finish_reason == "stop" for c in chosen.values())


@pytest.mark.parametrize("asked", [{"temperature": 0.5}, {"samples": 2}])
def test_beams_do_not_sample(asked: dict[str, float], tiny_model: Path) -> None:
    settings = GenerateConfig(beams=4, **asked)
    with pytest.raises(UsageError, match="beams = 4 with"):
        teachers_of(Recipe(teacher=TeacherConfig(model=str(tiny_model)), generate=settings))


@pytest.mark.parametrize("engine", ["openai"])
def test_other_engines_refuse_beams(engine: str) -> None:
    with pytest.raises(UsageError, match=r"cannot do \[generate\] beams"):
        check_supported(engine, request("a", beams=2))


def test_answers_leave_their_batch_when_they_end_and_nothing_changes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32"}))
    choices = ["no", "perhaps", "certainly not", "yes, as far as anybody can tell today"]
    requests = [request("a", n, temperature=3.0, max_tokens=48, choices=choices, logprobs=2) for n in range(24)]
    sizes: list[int] = []
    engine._model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda _module, _args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    leaving = ask(engine, requests)
    assert {c.content for c in leaving.values()} == set(choices)
    assert sizes[-1] < 12 < max(sizes), "what has ended is not computed any more"
    del sizes[:]
    monkeypatch.setitem(vars(engine), "batching", Batching(several=True, padding=True, leaving=False, sharing=0))
    staying = ask(engine, requests)
    assert sizes[-1] == max(sizes) == 24
    for name, completion in leaving.items():
        assert (completion.content, completion.completion_tokens) == (staying[name].content, staying[name].completion_tokens)
        mine, other = (logprobs_in(c.raw) for c in (completion, staying[name]))
        assert mine is not None and other is not None
        assert mine.token_ids == other.token_ids and mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_logprobs_are_the_model_own_before_temperature(tiny_model: Path) -> None:
    import torch

    engine = open_engine(ModelConfig(model=str(tiny_model), options={"dtype": "float32"}))
    found = logprobs_in(ask(engine, [request("a", 5, temperature=2.0, logprobs=4)])["p5"].raw)
    assert found is not None and found.token_ids is not None
    model, tokens = engine._model, engine._tokenizer  # type: ignore[attr-defined]
    prompt = tokens.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=True)
    ids = torch.tensor([prompt["input_ids"] + found.token_ids])
    with torch.inference_mode():
        wanted = model(ids).logits[0, len(prompt["input_ids"]) - 1 : -1].float().log_softmax(-1)
    chosen = wanted.gather(-1, torch.tensor(found.token_ids)[:, None])[:, 0].tolist()
    assert found.logprobs == pytest.approx(chosen, abs=1e-4)
    top = wanted.topk(4)
    assert found.top_token_ids == top.indices.tolist()
    assert [value for place in found.top_logprobs for value in place] == pytest.approx(top.values.flatten().tolist(), abs=1e-4)
