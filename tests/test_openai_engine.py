"""The openai engine against a real HTTP server that counts and breaks."""

import asyncio
import json
import time
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from engine_contract import ask, check_engine_contract

from seqdistill.config import ModelConfig
from seqdistill.engines import Completion, Pace, Request, open_engine
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import SeqdistillError, UsageError


def requests(count: int, **settings: Any) -> list[Request]:
    return [Request(f"p{n}", [{"role": "user", "content": f"question {n}"}], 20, seed=n, **settings) for n in range(count)]


def asked(server: ChatServer, count: int = 12, options: dict[str, Any] | None = None, **pace: Any) -> dict[str, Completion]:
    model = ModelConfig(model="teacher", engine="openai", base_url=[server.url], options=options or {})
    return ask(open_engine(model, Pace(**{"concurrency": 8, "timeout": 5.0, **pace})), requests(count))


def first_try(fault: str, share: int = 3) -> Any:
    """A fault that strikes every third question the first time it is asked."""
    seen: set[str] = set()

    def strike(_: int, body: Body) -> str | None:
        text = body["messages"][-1]["content"]
        again, _ = text in seen, seen.add(text)
        return fault if not again and int(text.split()[-1]) % share == 0 else None

    return strike


def test_it_answers_the_engine_contract() -> None:
    with ChatServer() as server:
        engine = open_engine(ModelConfig(model="teacher", engine="openai", base_url=[server.url]))
        check_engine_contract(engine, longest=2000)


@pytest.mark.parametrize(
    "fault", ["429", "429 0.2", "429 date", "500", "503 0.1", "reset", "truncated", "malformed", "html", "empty"]
)
def test_a_fault_that_passes_is_waited_out(fault: str) -> None:
    with ChatServer(first_try(fault)) as server:
        completions = asked(server)
    assert [c.error for c in completions.values()] == [None] * 12
    assert len(server.requests) == 16, "only what failed was sent again"
    assert all(count == 1 for count in server.answered.values()), "no answer was paid for twice"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("500", "http 500"),
        ("reset", "connection lost"),
        ("malformed", "malformed reply"),
        ("empty", "no answer"),
        ("429 0.05", "http 429"),
    ],
)
def test_a_fault_that_stays_is_that_request_failure(fault: str, error: str) -> None:
    with ChatServer(lambda _, body: fault if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = asked(server, retries=1)
    assert {i: c.error for i, c in completions.items() if c.error} == {"p3": error}
    assert len(server.requests) == 11 + (6 if "429" in fault else 2)


def test_a_hang_ends_at_the_timeout_and_counts_as_lost() -> None:
    with ChatServer(lambda _, body: "hang" if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = asked(server, retries=1, timeout=0.3)
    assert completions["p3"].error == "timeout"
    assert completions["p3"].lost == 2, "both tries may be billed"


def several(server: ChatServer, prompts: int, samples: int, **pace: Any) -> dict[str, Completion]:
    model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
    asked = [
        Request(f"p{n}:{k}", [{"role": "user", "content": f"question {n}"}], 20, temperature=1.0, seed=10 * n + k)
        for n in range(prompts)
        for k in range(samples)
    ]
    return ask(open_engine(model, Pace(samples_per_request=4, timeout=5.0, **pace)), asked)


def test_several_samples_come_in_one_request_and_the_prompt_is_paid_once() -> None:
    with ChatServer(first_try("500")) as server:
        completions = several(server, prompts=5, samples=6)
    assert {body["n"] for body in server.requests} == {4, 2}
    assert (len(server.requests), len(server.usages)) == (12, 10), "two tries failed"
    assert len({c.content for c in completions.values()}) == 30
    for count in ("prompt_tokens", "completion_tokens"):
        assert sum(getattr(c, count) for c in completions.values()) == sum(usage[count] for usage in server.usages)
    lefts = [completions[f"p0:{k}"].batch_left for k in range(6)]
    assert lefts == [3, 2, 1, 0, 1, 0], "a journal keeps one reply's answers whole or not at all"
    assert all(len(c.raw["choices"]) == 1 for c in completions.values())


def test_an_endpoint_without_n_is_found_out() -> None:
    with ChatServer(reply=lambda body: answer({**body, "n": 1})) as server:
        completions = several(server, prompts=2, samples=4)
    assert [c.error for c in completions.values()] == [None, *["fewer answers"] * 3] * 2
    assert "samples-per-request" in str(completions["p1:3"].message)


def test_a_failed_request_for_several_counts_its_lost_answers_once() -> None:
    with ChatServer(lambda *_: "reset") as server:
        completions = several(server, prompts=1, samples=3, retries=1)
    assert [(c.error, c.lost) for c in completions.values()] == [("connection lost", n) for n in (2, 0, 0)]


def test_numbers_that_json_has_not_do_not_break_the_journal() -> None:
    def reply(body: Body) -> Body:
        told = answer(body)
        told["choices"][0]["logprobs"] = {
            "content": [{"token": "a", "logprob": float("-inf")}, {"token": "b", "logprob": -1.5}]
        }
        return told

    with ChatServer(reply=reply) as server:
        completion = asked(server, 1)["p0"]
    json.dumps(completion.raw, allow_nan=False)
    told = logprobs_in(completion.raw)
    assert told is not None and told.logprobs == [-9999.0, -1.5]


def test_a_silent_endpoint_is_given_up_at_the_read_timeout() -> None:
    with ChatServer(lambda _, body: "hang" if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = asked(server, retries=0, timeout=60.0, read_timeout=0.3)
    assert (completions["p3"].error, completions["p3"].message) == ("timeout", "no answer within 0.3 s")


def test_without_resend_a_lost_answer_is_not_asked_for_again() -> None:
    with ChatServer(first_try("reset", 12)) as server:
        completions = asked(server, resend=False)
    assert completions["p0"].error == "connection lost"
    assert len(server.requests) == 12


@pytest.mark.parametrize(("fault", "error", "reason"), [("400", "http 400", "error"), ("filtered", None, "content_filter")])
def test_what_will_not_change_is_not_retried(fault: str, error: str | None, reason: str) -> None:
    with ChatServer(lambda _, body: fault if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = asked(server)
    assert (completions["p3"].error, completions["p3"].finish_reason) == (error, reason)
    assert len(server.requests) == 12


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    for header, least in (("1", 1.0), ("date", 1.0)):
        with ChatServer(lambda number, _, said=header: f"429 {said}" if number == 0 else None) as server:
            asked(server, 1)
        assert server.times[1] - server.times[0] >= least


def test_concurrency_grows_while_the_endpoint_answers_and_backs_off_when_it_refuses() -> None:
    with ChatServer(seconds=0.15) as server:
        asked(server, 300, concurrency=40)
    assert 30 <= server.most_in_flight <= 40

    capacity = 10
    with ChatServer(seconds=0.02) as server:
        server.fault = lambda *_: "429" if server.in_flight > capacity else None
        completions = asked(server, 200, concurrency=200)
    assert all(c.error is None for c in completions.values())
    assert len(server.requests) < 200 * 1.4, "an endpoint that refuses is not hammered"


def test_requests_and_tokens_a_minute_are_kept() -> None:
    with ChatServer() as server:
        began = time.monotonic()
        asked(server, 80, requests_per_minute=600)  # a burst of a tenth, then 10 a second
        assert 1.8 < time.monotonic() - began < 4
    with ChatServer() as server:
        began = time.monotonic()
        completions = asked(server, 40, tokens_per_minute=6000)
        tokens = sum(c.prompt_tokens + c.completion_tokens for c in completions.values())
        assert tokens <= 600 + 100 * (time.monotonic() - began) + 200


def test_several_endpoints_share_the_load_and_survive_the_loss_of_one() -> None:
    with ChatServer(seconds=0.01) as one, ChatServer(seconds=0.01) as two:
        model = ModelConfig(model="teacher", engine="openai", base_url=[one.url, two.url])

        async def collect() -> list[Completion]:
            done = []
            async for completion in open_engine(model, Pace(concurrency=8)).stream(requests(200)):
                done.append(completion)
                if len(done) == 60:
                    two.stop()
            return done

        completions = asyncio.run(collect())
    assert len({c.id for c in completions}) == 200
    assert all(c.error is None for c in completions)
    assert len(one.requests) > len(two.requests) > 10


def test_an_endpoint_that_is_not_there_is_named_and_the_run_stops() -> None:
    with ChatServer() as server:
        url = server.url
    model = ModelConfig(model="teacher", engine="openai", base_url=[url])
    with pytest.raises(SeqdistillError, match=f"{url} cannot be reached") as caught:
        ask(open_engine(model), requests(20))
    assert caught.value.exit_code == 1


def test_an_unknown_model_and_a_refused_key_stop_the_run_and_the_key_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret-1234")
    with ChatServer() as server:
        with pytest.raises(UsageError, match="`other` does not exist") as caught:
            ask(open_engine(ModelConfig(model="other", engine="openai", base_url=[server.url])), requests(50))
        assert server.url in caught.value.message
        assert len(server.requests) <= 16
    with ChatServer(key="right") as server:
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url], api_key_env="TEST_KEY")
        with pytest.raises(UsageError, match="Incorrect API key") as caught:
            ask(open_engine(model), requests(50))
        assert "sk-secret" not in caught.value.message
        assert "TEST_KEY" in caught.value.hint


def test_a_used_up_quota_stops_the_run() -> None:
    with ChatServer(lambda number, _: "quota" if number > 5 else None) as server, pytest.raises(SeqdistillError, match="quota"):
        asked(server, 50)


def test_a_bad_setting_stops_the_run_instead_of_failing_every_row() -> None:
    with ChatServer(lambda *_: "400") as server:
        with pytest.raises(UsageError, match="a bad request; the first 10 requests all failed so"):
            asked(server, 500)
        assert len(server.requests) < 30


def test_the_token_limit_goes_by_the_name_the_endpoint_knows() -> None:
    with ChatServer(lambda _, body: "renamed" if "max_tokens" in body else None) as server:
        completions = asked(server, 30)
    assert all(c.error is None for c in completions.values())
    assert sum("max_tokens" in body for body in server.requests) <= 8


def test_options_go_out_verbatim_and_omitted_keys_do_not() -> None:
    with ChatServer() as server:
        asked(server, 1, options={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "omit": ["seed"]})
    assert server.requests[0]["top_k"] == 5
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "seed" not in server.requests[0]


@pytest.mark.parametrize(
    ("message", "content", "reasoning"),
    [
        ({"content": "yes", "reasoning": "hm"}, "yes", "hm"),
        ({"content": "yes", "reasoning_content": "hm"}, "yes", "hm"),
        ({"content": [{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}], "thinking": "hm"}, "yes", "hm"),
        ({"content": "<think>\nhm\n</think>\n\nyes"}, "yes", "hm"),
        ({"content": "<think>hm"}, "", "hm"),
        ({"content": None, "reasoning": None}, "", None),
    ],
)
def test_reasoning_has_one_field_whatever_the_server_calls_it(message: Body, content: str, reasoning: str | None) -> None:
    def reply(body: Body) -> Body:
        return {**answer(body), "choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}

    with ChatServer(reply=reply) as server:
        (completion,) = asked(server, 1).values()
    assert (completion.content, completion.reasoning) == (content, reasoning)
    assert completion.raw["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://host:port"])
def test_a_base_url_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="not an http or https URL"):
        open_engine(ModelConfig(model="teacher", engine="openai", base_url=[url]))


def test_without_key_and_url_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        open_engine(ModelConfig(model="teacher", engine="openai"))
