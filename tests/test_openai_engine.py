"""The openai engine against a real HTTP server that counts and breaks."""

import asyncio
import time
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from endpoint_requests import answers_of, requests
from engine_contract import Holds, ask, check_engine_contract
from test_openai_replies import Saying

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request, open_engine
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.tables import ModelConfig


def first_try(fault: str, share: int = 3) -> Any:
    """A fault that strikes every third question the first time it is sent."""
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
        completions = answers_of(server, count=12)
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
        completions = answers_of(server, count=12, retries=1)
    assert {i: c.error for i, c in completions.items() if c.error} == {"p3": error}
    assert len(server.requests) == 11 + (6 if "429" in fault else 2)


def test_a_hang_ends_at_the_timeout_and_counts_as_lost() -> None:
    with ChatServer(lambda _, body: "hang" if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = answers_of(server, count=12, meter=(holds := Holds()), retries=1, timeout=0.3)
    assert completions["p3"].error == "timeout"
    answered = [completion.hold for completion in completions.values() if completion.error is None]
    assert len(answered) == 11
    assert len(set(holds.open) - {*answered}) == 2, "both tries may be billed"


def several(server: ChatServer, prompts: int, samples: int, meter: Meter = UNMETERED, **pace: Any) -> dict[str, Completion]:
    model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
    several = [
        Request(f"p{n}:{k}", [{"role": "user", "content": f"question {n}"}], 20, temperature=1.0, seed=10 * n + k)
        for n in range(prompts)
        for k in range(samples)
    ]
    return ask(open_engine(model, Pace(samples_per_request=4, timeout=60.0, **pace)), several, meter)


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


def test_a_failed_request_for_several_may_be_billed_for_each_of_them() -> None:
    with ChatServer(lambda *_: "reset") as server:
        completions = several(server, prompts=1, samples=3, meter=(holds := Holds()), retries=1)
    assert [c.error for c in completions.values()] == ["connection lost"] * 3
    assert list(holds.open.values()) == [3, 3]


def test_an_error_that_ends_all_waits_for_the_answers_that_are_under_way() -> None:
    class Slow(ChatServer):
        refused = asyncio.Event()

        async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
            if number < 4:
                await self.refused.wait()
                await asyncio.sleep(0.1)
            else:
                self.refused.set()
            return await super()._chat(writer, number, body)

    async def collect(server: ChatServer) -> list[Completion]:
        done = []
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
        with pytest.raises(SeqdistillError, match="quota"):
            async for completion in open_engine(model).stream(requests(50)):
                done.append(completion)
        return done

    with Slow(lambda number, _: "quota" if number >= 4 else None) as server:
        assert len(asyncio.run(collect(server))) == len(server.usages) == 4, "they are paid for"
        assert len(server.requests) < 16, "nothing more is sent"


def test_a_silent_endpoint_is_given_up_at_the_read_timeout() -> None:
    with ChatServer(lambda _, body: "hang" if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = answers_of(server, count=12, retries=0, timeout=60.0, read_timeout=0.3)
    assert completions["p3"].error == "timeout"
    assert str(completions["p3"].message).startswith("no answer within 0.3 s; raise --read-timeout")


def test_under_a_cap_a_lost_answer_is_not_requested_again() -> None:
    with ChatServer(first_try("reset", 12)) as server:
        completions = answers_of(server, count=12, capped=True)
    assert completions["p0"].error == "connection lost"
    assert len(server.requests) == 12


@pytest.mark.parametrize(("fault", "error", "reason"), [("400", "http 400", "error"), ("filtered", None, "content_filter")])
def test_what_will_not_change_is_not_retried(fault: str, error: str | None, reason: str) -> None:
    with ChatServer(lambda _, body: fault if body["messages"][-1]["content"] == "question 3" else None) as server:
        completions = answers_of(server, count=12)
    assert (completions["p3"].error, completions["p3"].finish_reason) == (error, reason)
    assert len(server.requests) == 12


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    for header, least in (("1", 1.0), ("date", 1.0)):
        with ChatServer(lambda number, _, said=header: f"429 {said}" if number == 0 else None) as server:
            answers_of(server, count=1)
        assert server.times[1] - server.times[0] >= least


def test_concurrency_grows_to_its_limit_while_the_endpoint_answers() -> None:
    class Waiting(ChatServer):
        """Answers 60 requests at once; those behind them when 40 are in flight."""

        full = asyncio.Event()

        async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
            if self.in_flight == 40:
                self.full.set()
            if number >= 60:
                await self.full.wait()
            return await super()._chat(writer, number, body)

    with Waiting() as server:
        completions = answers_of(server, count=300, concurrency=40)
    assert all(c.error is None for c in completions.values())
    assert server.most_in_flight == 40


def test_an_endpoint_that_refuses_gets_fewer_requests() -> None:
    """How much less is in test_pace, by a clock of its own."""
    capacity = 10
    with ChatServer(seconds=0.02) as server:
        server.fault = lambda *_: "429" if server.in_flight > capacity else None
        completions = answers_of(server, count=200, concurrency=200)
    assert all(c.error is None for c in completions.values())
    assert len(server.requests) < 200 * 2


def test_requests_and_tokens_a_minute_are_kept() -> None:
    with ChatServer() as server:
        began = time.monotonic()
        answers_of(server, count=80, requests_per_minute=600)  # a burst of a tenth, then 10 a second
        assert time.monotonic() - began > 1.8
    with ChatServer() as server:
        began = time.monotonic()
        completions = answers_of(server, count=40, tokens_per_minute=6000)
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


def test_an_unknown_model_and_a_refused_key_stop_the_run_and_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
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
    for status in (200, 400):
        with Saying(b'{"error": {"message": "Bearer sk-secret-1234 is none of ours"}}', status) as server:
            model = ModelConfig(model="teacher", engine="openai", base_url=[server.url], api_key_env="TEST_KEY")
            completion = ask(open_engine(model, Pace(retries=0)), requests(1))["p0"]
            assert "Bearer *** is none of ours" in str(completion.message)


@pytest.mark.parametrize("key", ["sk-1\n2", "sk-ü"])
def test_a_key_that_no_header_can_carry_is_a_usage_error_that_does_not_tell_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds no key") as caught:
        open_engine(ModelConfig(model="teacher", engine="openai"))
    assert key not in caught.value.message
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\n")  # as `$(cat file)` in an env file leaves it
    with ChatServer(key="sk-1") as server:
        assert answers_of(server, count=1)["p0"].error is None


def test_a_used_up_quota_stops_the_run() -> None:
    with ChatServer(lambda number, _: "quota" if number > 5 else None) as server, pytest.raises(SeqdistillError, match="quota"):
        answers_of(server, count=50)


def test_a_bad_setting_stops_the_run_instead_of_failing_every_row() -> None:
    with ChatServer(lambda *_: "400") as server:
        with pytest.raises(UsageError, match="a bad request; the first 10 requests all failed so"):
            answers_of(server, count=500)
        assert len(server.requests) < 30


def test_the_token_limit_goes_by_the_name_the_endpoint_knows() -> None:
    with ChatServer(lambda _, body: "renamed" if "max_tokens" in body else None) as server:
        completions = answers_of(server, count=30)
    assert all(c.error is None for c in completions.values())
    assert sum("max_tokens" in body for body in server.requests) <= 8


def test_options_go_out_verbatim_and_omitted_keys_do_not() -> None:
    with ChatServer() as server:
        answers_of(server, count=1, options={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "omit": ["seed"]})
    assert server.requests[0]["top_k"] == 5
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "seed" not in server.requests[0]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://host:port"])
def test_a_base_url_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="not an http or https URL"):
        open_engine(ModelConfig(model="teacher", engine="openai", base_url=[url]))


def test_without_key_and_url_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        open_engine(ModelConfig(model="teacher", engine="openai"))
