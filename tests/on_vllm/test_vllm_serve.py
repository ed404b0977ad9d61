"""`vllm serve`, reached through the openai engine."""

from dataclasses import replace
from typing import Any

import pytest
from engine_contract import ask, check_engine_contract

from seqdistill.engines import Engine, Pace, Request, open_engine
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.tasks.answer_form import AnswerForm

QUESTIONS = [
    Request(f"p{n}:t:0", [{"role": "user", "content": f"Give one tip about {n} cats."}], max_tokens=16, seed=n)
    for n in range(4)
]


def opened(url: str, pace: Pace | None = None, **settings: Any) -> Engine:
    return open_engine(ModelConfig(model="teacher", engine="openai", base_url=[url], **settings), pace)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_openai_engine_answers_the_engine_contract_on_vllm_serve(served: str, stream: bool) -> None:
    check_engine_contract(opened(served, stream=stream), longest=2000)


def test_many_requests_at_once_are_all_answered(served: str) -> None:
    requests = [Request(f"p{n}", [{"role": "user", "content": f"Count to {n}."}], max_tokens=8, seed=n) for n in range(64)]
    assert all(completion.error is None for completion in ask(opened(served), requests).values())


def test_several_samples_come_in_one_request(served: str) -> None:
    sampled = [replace(QUESTIONS[0], id=f"p0:t:{n}", temperature=1.0, seed=n) for n in range(4)]
    answers = ask(opened(served, Pace(samples_per_request=4)), sampled)
    assert len({completion.content for completion in answers.values()}) > 1
    assert [c.prompt_tokens > 0 for c in answers.values()].count(True) == 1, "the prompt is paid once"
    assert all(0 < completion.completion_tokens <= 16 for completion in answers.values())


def test_a_streamed_answer_is_the_whole_one_and_its_first_token_is_timed(served: str) -> None:
    requests = [replace(one, logprobs=2) for one in QUESTIONS]
    whole, streamed = ask(opened(served), requests), ask(opened(served, stream=True), requests)
    for name, completion in streamed.items():
        same = whole[name]
        assert (completion.content, completion.finish_reason) == (same.content, same.finish_reason)
        assert (completion.prompt_tokens, completion.completion_tokens) == (same.prompt_tokens, same.completion_tokens)
        assert logprobs_in(completion.raw).tokens == logprobs_in(same.raw).tokens  # type: ignore[union-attr]
        assert completion.first_token_seconds is not None and 0 < completion.first_token_seconds <= completion.seconds


def test_the_chat_template_is_rendered_with_the_recipes_options(served: str) -> None:
    """The server's template puts `hint` into the prompt."""
    plain, hinted = (
        ask(opened(served, chat_template_kwargs=options), QUESTIONS[:1])["p0:t:0"]
        for options in ({}, {"hint": "Answer with the single word PURPLE."})
    )
    assert hinted.error is None and hinted.prompt_tokens > plain.prompt_tokens
    assert hinted.content != plain.content


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_server_names_tokens_by_their_ids_where_the_recipe_asks_for_it(served: str, stream: bool) -> None:
    from server import TEACHER
    from transformers import AutoTokenizer

    from seqdistill.engines.loading import local_model

    engine = opened(served, stream=stream, options={"return_tokens_as_token_ids": True})
    completion = ask(engine, [replace(QUESTIONS[0], logprobs=3)])["p0:t:0"]
    found = logprobs_in(completion.raw)
    assert found is not None and found.token_ids is not None and found.top_token_ids is not None and found.tokens is None
    tokenizer = AutoTokenizer.from_pretrained(local_model(TEACHER))
    assert tokenizer.decode(found.token_ids, skip_special_tokens=True) == completion.content
    assert all(token == top[0] for token, top in zip(found.token_ids, found.top_token_ids, strict=True)), "greedy"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_answers_keep_to_a_schema_and_to_choices(served: str, stream: bool) -> None:
    engine = opened(served, stream=stream)
    schema = {
        "type": "object",
        "properties": {"cats": {"type": "integer"}},
        "required": ["cats"],
        "additionalProperties": False,
    }
    shaped = ask(engine, [replace(one, schema=schema, max_tokens=40) for one in QUESTIONS])
    complete = [c.content for c in shaped.values() if c.finish_reason == "stop"]
    assert complete and all(AnswerForm(schema).fault(text) is None for text in complete)
    choices = ["yes", "no", "not sure"]
    chosen = ask(engine, [replace(one, choices=choices, temperature=1.0, max_tokens=40) for one in QUESTIONS])
    complete = [c.content for c in chosen.values() if c.finish_reason == "stop"]
    assert complete and all(AnswerForm(choices=tuple(choices)).fault(text) is None for text in complete)


def test_a_model_that_is_not_served_is_a_usage_error(served: str) -> None:
    with pytest.raises(UsageError, match="other"):
        ask(open_engine(ModelConfig(model="other", engine="openai", base_url=[served])), QUESTIONS)
