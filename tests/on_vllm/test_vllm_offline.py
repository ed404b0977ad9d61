"""The vllm engine on the embedded teacher."""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_contract import ask, check_engine_contract
from server import OPTIONS, TEACHER

from seqdistill.engines import Completion, Engine, Request, open_engine
from seqdistill.engines.loading import local_model
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import write_jsonl
from seqdistill.stages.train.shrink import shrink_from_files
from seqdistill.tasks.answer_form import AnswerForm

CAPITAL = Request("p:t:0", [{"role": "user", "content": "What is the capital of France?"}], max_tokens=16)


def tips(count: int, **settings: Any) -> list[Request]:
    return [
        Request(
            f"p{n}:t:0",
            [{"role": "user", "content": f"Give one tip about {n} cats."}],
            **{"max_tokens": 16, "seed": n, **settings},
        )  # type: ignore[arg-type]
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    said = tmp_path_factory.mktemp("vllm") / "stdout.txt"
    with _standard_output(said):
        engine = open_engine(ModelConfig(model=TEACHER, engine="vllm", options={**OPTIONS, "batch_size": 8}))
        ask(engine, tips(1))
    assert said.read_text() == "", "standard output is for results"
    yield engine
    asyncio.run(engine.close())


@contextlib.contextmanager
def _standard_output(path: Path) -> Iterator[None]:
    """Sends to a file what this process and its children print."""
    stdout = os.dup(1)
    try:
        with path.open("w") as file, contextlib.redirect_stdout(file):
            os.dup2(file.fileno(), 1)
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def test_it_answers_the_engine_contract(engine: Engine) -> None:
    check_engine_contract(engine, longest=2000)


def test_an_answer_depends_on_its_batch_alone(engine: Engine) -> None:
    """What a resumed run relies on: the second batch asked alone answers as it did after the first."""
    requests = tips(16, temperature=0.9)
    whole = ask(engine, requests)
    assert [c.batch_left for c in whole.values()] == [*range(7, -1, -1)] * 2
    rest = ask(engine, requests[8:])
    assert {i: c.content for i, c in rest.items()} == {r.id: whole[r.id].content for r in requests[8:]}


def test_requests_that_nobody_waits_for_are_dropped(engine: Engine) -> None:
    async def first() -> Completion:
        stream = engine.stream([*tips(1, max_tokens=2), *tips(8, max_tokens=900)[1:]])
        async for completion in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return completion
        raise AssertionError("no completion")

    assert asyncio.run(first()).id == "p0:t:0"
    assert all(c.finish_reason in ("stop", "length") and c.completion_tokens <= 16 for c in ask(engine, tips(8)).values())


def test_what_vllm_cannot_load_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no_such_option"):
        open_engine(ModelConfig(model=TEACHER, engine="vllm", options={"no_such_option": 1}))
    with pytest.raises(UsageError, match="no such file or folder"):
        open_engine(ModelConfig(model="./no/such/model", engine="vllm"))


CATS = {
    "type": "object",
    "properties": {"cats": {"type": "integer", "maximum": 99}},
    "required": ["cats"],
    "additionalProperties": False,
}
CHOICES = ["yes", "no", "not sure"]


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"beams": 2}], ids=["sampled", "beams"])
def test_answers_keep_to_a_schema_and_to_choices(engine: Engine, settings: dict[str, Any]) -> None:
    shaped = [replace(one, id=f"s:{one.id}", schema=CATS) for one in tips(2, max_tokens=32, **settings)]
    chosen = [replace(one, id=f"c:{one.id}", choices=CHOICES) for one in tips(4, max_tokens=32, **settings)]
    answers = ask(engine, [*shaped, *chosen])
    complete = [answers[one.id].content for one in shaped if answers[one.id].finish_reason == "stop"]
    assert complete and all(AnswerForm(CATS).fault(text) is None for text in complete)
    for one in chosen:
        completion = answers[one.id]
        assert (AnswerForm(choices=tuple(CHOICES)).fault(completion.content), completion.finish_reason) == (None, "stop")


@pytest.mark.parametrize(
    "settings",
    [{"schema": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}}, {"logprobs": 50}, {"beams": 40}],
    ids=["schema", "logprobs", "beams"],
)
def test_what_vllm_refuses_of_a_request_is_a_usage_error_and_the_engine_answers_on(
    engine: Engine, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="vLLM refuses"):
        ask(engine, tips(2, **settings))
    assert all(completion.error is None for completion in ask(engine, tips(2)).values())


def test_beams_find_what_is_at_least_as_likely_as_the_greedy_answer(engine: Engine) -> None:
    def mean(raw: dict[str, Any]) -> float:
        found = logprobs_in(raw)
        assert found is not None
        return found.mean

    greedy, beams = ask(engine, tips(4, logprobs=0)), ask(engine, tips(4, beams=4))
    assert [c.batch_left for c in beams.values()] == [3, 2, 1, 0]
    for name, best in beams.items():
        assert best.finish_reason in ("stop", "length") and 0 < best.completion_tokens <= 16
        assert "user" not in best.content[:12], "the prompt is no part of the answer"
        assert best.raw["cumulative_logprob"] / best.completion_tokens >= mean(greedy[name].raw) - 0.02
    assert any(best.content != greedy[name].content for name, best in beams.items())


def test_an_answer_ends_with_the_turn_where_the_tokenizer_names_another_end(tmp_path: Path) -> None:
    """As in Gemma and Llama 3, whose tokenizers' end token is that of a document."""
    source = Path(local_model(TEACHER))
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name, end in (
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}),
        ("generation_config.json", {"eos_token_id": 0}),
    ):
        (tmp_path / name).unlink()
        (tmp_path / name).write_text(json.dumps(json.loads((source / name).read_text()) | end))
    engine = open_engine(ModelConfig(model=str(tmp_path), engine="vllm", options=OPTIONS))
    try:
        for beams in (1, 2):
            (completion,) = ask(engine, [replace(CAPITAL, beams=beams)]).values()
            assert (completion.content, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    finally:
        asyncio.run(engine.close())


def test_a_model_with_a_cut_vocabulary_answers_as_the_whole_one_and_reads_any_text(tmp_path: Path) -> None:
    answer, small = "The capital of France is Paris.", tmp_path / "small"
    row = {"prompt": CAPITAL.messages, "completion": [{"role": "assistant", "content": answer}]}
    write_jsonl(tmp_path / "texts.jsonl", [row])
    shrink_from_files(TEACHER, small, None, "influence", None, vocabulary="task", texts=tmp_path / "texts.jsonl")
    assert json.loads((small / "config.json").read_text())["vocab_size"] < 1000
    foreign = Request("f:t:0", [{"role": "user", "content": "Привет, 漢字 🙂!"}], max_tokens=8)
    engine = open_engine(ModelConfig(model=str(small), engine="vllm", options=OPTIONS))
    try:
        answers = ask(engine, [CAPITAL, foreign])
    finally:
        asyncio.run(engine.close())
    known, other = answers[CAPITAL.id], answers[foreign.id]
    assert (known.content, known.finish_reason) == (answer, "stop")
    assert other.error is None and 0 < other.completion_tokens <= 8
