"""What endpoints refuse, and what becomes of the request and of the run. Against a real HTTP server."""

import json
from typing import Any

import pytest
from chat_server import Body, ChatServer, Fault, Wire, answer
from endpoint_requests import answers_of, number_of
from engine_contract import Holds, ask
from refusal_shapes import (
    A_DAY,
    BAD_START,
    FILTERED,
    IN_A_200,
    LARGER_THAN_THE_LIMIT,
    NO_MONEY,
    NONSENSE,
    SET_ASIDE,
    TOO_LONG,
    error,
)

from seqdistill.engines import Pace, Request, dispatch, open_engine
from seqdistill.engines import pace as pacing
from seqdistill.engines.refusals import Who, refusal
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.tables import ModelConfig


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "backoff", lambda _tries: 0.01)


def only(number: int, wire: Wire | str) -> Fault:
    return lambda _, body: wire if number_of(body) == number else None


# --- content filters, and requests that can never be answered -------------------------------------------------------


@pytest.mark.parametrize("wire", FILTERED.values(), ids=list(FILTERED))
@pytest.mark.parametrize("number", [0, 15])
def test_a_content_filter_is_an_answer_to_one_prompt_and_the_others_are_answered(wire: Wire, number: int) -> None:
    with ChatServer(only(number, wire)) as server:
        completions = answers_of(server, concurrency=1, meter=(holds := Holds()))
        assert len(server.requests) == 20, "it is not sent again"
    flagged = completions.pop(f"p{number}")
    assert (flagged.error, flagged.finish_reason, flagged.content) == (None, "content_filter", "")
    assert {one.finish_reason for one in completions.values()} <= {"stop", "length"}
    assert len(set(holds.open) - {one.hold for one in completions.values()}) == 1, "some bill what a filter refuses"


@pytest.mark.parametrize(
    "name", ["Azure", "MiniMax", "no choices, and why", "no choices, but tokens", "a choice without a message"]
)
def test_a_content_filter_is_an_answer_to_each_of_a_prompt_s_samples(name: str) -> None:
    with ChatServer(only(3, FILTERED[name])) as server:
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
        several = [
            Request(f"p{n}:{k}", [{"role": "user", "content": f"question {n}"}], 20, temperature=1.0, seed=k)
            for n in range(6)
            for k in range(3)
        ]
        completions = ask(open_engine(model, Pace(samples_per_request=3, retries=0)), several)
        assert len(server.requests) == 6
    taken = [(one.error, one.finish_reason) for name, one in completions.items() if name.startswith("p3")]
    assert taken == [(None, "content_filter")] * 3
    assert sum(one.prompt_tokens for name, one in completions.items() if name.startswith("p3")) in (0, 9)


def test_a_filter_that_takes_every_prompt_stops_at_the_start() -> None:
    with ChatServer(lambda *_: FILTERED["Azure"]) as server:
        with pytest.raises(UsageError, match="The response was filtered; the first 10 requests all failed so") as caught:
            answers_of(server, count=500)
        assert len(server.requests) <= 30
    assert "safety filter" in caught.value.hint and "--ask-again content_filter" in caught.value.hint


def test_a_schema_that_is_refused_is_no_verdict_on_the_prompt() -> None:
    said = "litellm.ContentPolicyViolationError: AzureException - Invalid schema for response_format 'answer': In context=()"
    with ChatServer(only(3, error(400, said))) as server:
        assert answers_of(server)["p3"].error == "http 400"


@pytest.mark.parametrize(
    "message",
    [
        "blocked by our web application firewall",
        "Request blocked: content length exceeds the plan's",
        "Request blocked: too many connections",
        "Your IP address is blocked",
    ],
)
def test_a_firewall_judges_no_prompt(message: str) -> None:
    with ChatServer(only(3, error(403, message))) as server:
        assert answers_of(server)["p3"].error == "http 403"


def test_a_web_page_judges_no_prompt() -> None:
    page = b"<html><body>Blocked by your organisation's web filter: content policy</body></html>"
    with ChatServer(only(3, Wire(403, page))) as server:
        assert answers_of(server)["p3"].error == "http 403"


@pytest.mark.parametrize("wire", TOO_LONG.values(), ids=list(TOO_LONG))
def test_a_prompt_that_does_not_fit_is_called_too_long_and_sent_once(wire: Wire) -> None:
    with ChatServer(only(3, wire)) as server:
        completions = answers_of(server)
        assert len(server.requests) == 20
    assert {name: one.error for name, one in completions.items() if one.error} == {"p3": "too long"}


@pytest.mark.parametrize(
    ("base_url", "may_be_billed"),
    [
        ("https://mine.openai.azure.com/openai/v1", True),
        ("https://mine.services.ai.azure.com/models", True),
        ("https://api.example.com/v1", False),
        ("http://azure.example.com/v1", False),
    ],
)
def test_a_prompt_that_is_too_long_may_be_billed_at_azure_alone(base_url: str, may_be_billed: bool) -> None:
    reported = {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}
    failure = refusal(Who(base_url, "m", "KEY"), 400, reported, None, proven=True)
    assert (failure.kind, failure.may_be_billed) == ("too long", may_be_billed)


@pytest.mark.parametrize("wire", LARGER_THAN_THE_LIMIT.values(), ids=list(LARGER_THAN_THE_LIMIT))
def test_a_request_larger_than_a_minute_s_limit_is_not_waited_for(wire: Wire) -> None:
    with ChatServer(only(3, wire)) as server:
        completions = answers_of(server)
        assert len(server.requests) == 20
    assert {name: one.error for name, one in completions.items() if one.error} == {"p3": "over limit"}


def test_a_minute_s_limit_that_is_used_up_is_waited_for_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "NOTE_EACH_SECONDS", 1e9)
    wire = error(429, "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Try again in 20ms.")
    notes: list[str] = []
    with ChatServer(lambda number, _: wire if number < 60 else None) as server:
        completions = answers_of(server, notes=notes)
    assert {one.error for one in completions.values()} == {None}
    assert len(notes) == 1
    assert "Limit 30000, Used 29000" in notes[0]


# --- an endpoint that can answer nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", NO_MONEY.values(), ids=list(NO_MONEY))
@pytest.mark.parametrize("answered", [0, 5])
def test_an_empty_account_ends_the_run_at_once(wire: Wire, answered: int) -> None:
    with ChatServer(lambda number, _: wire if number >= answered else None) as server:
        with pytest.raises(SeqdistillError) as caught:
            answers_of(server, count=200)
        assert len(server.requests) <= answered + 16, "not once for each prompt"
    assert caught.value.exit_code == 1
    assert "top up" in caught.value.hint


GEMINI_SAYS = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: "
    "https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/rate-limit. "
    "* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_input_token_count, limit: 250000"
)
GEMINI_ADDS = (
    '"status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": '
    '[{"quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier"}]}, {"retryDelay": "1s"}]'
)
ALIBABA_SAYS = (
    "You exceeded your current quota, please check your plan and billing details. For details, see: "
    "https://help.aliyun.com/zh/model-studio/error-code#token-limit"
)
COMES_BACK = {
    "Alibaba, tokens": error(429, ALIBABA_SAYS, type="insufficient_quota", code="insufficient_quota"),
    "Alibaba, requests": error(
        429, "You exceeded your current requests list.", type="limit_requests", code="insufficient_quota"
    ),
    "Alibaba, its own API": Wire(
        429, {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded, please increase your quota limit."}
    ),
    "Alibaba, compatible": error(
        429, "Allocated quota exceeded, please increase your quota limit.", code="insufficient_quota", type="insufficient_quota"
    ),
    "Gemini": Wire(
        429, [{"error": {"code": 429, "message": "You exceeded your current quota. Please retry in 1s.", "status": "X"}}]
    ),
    "LiteLLM before Gemini": error(
        429,
        'litellm.RateLimitError: litellm.RateLimitError: VertexAIException - {"error": {"code": 429, "message": '
        f'"{GEMINI_SAYS}", {GEMINI_ADDS}}}}}',
        code="429",
    ),
    "OpenRouter before Gemini": error(
        429,
        "Provider returned error",
        code=429,
        metadata={"raw": f'{{"error": {{"code": 429, "message": "{GEMINI_SAYS}", {GEMINI_ADDS}}}}}', "provider_name": "Google"},
    ),
}


@pytest.mark.parametrize("wire", COMES_BACK.values(), ids=list(COMES_BACK))
def test_a_quota_that_comes_back_is_waited_for(wire: Wire) -> None:
    with ChatServer(lambda number, _: wire if number < 3 else None) as server:
        assert {one.error for one in answers_of(server).values()} == {None}


@pytest.mark.parametrize(
    "raw",
    [
        '{"error": {"message": "the reason", "type": "x"}}',
        {"error": {"message": "the reason"}},
        '[{"error": {"message": "the reason", "code": 400}}]',
        "the reason",
        '{"error": {"message": "Provider returned error", "metadata": {"raw": "the reason"}}}',
    ],
)
def test_the_reason_behind_a_gateway_s_refusal_is_shown(raw: Any) -> None:
    wire = error(400, "Provider returned error", code=400, metadata={"raw": raw, "provider_name": "OpenAI"})
    with ChatServer(only(3, wire)) as server:
        failed = answers_of(server)["p3"]
    assert failed.error == "http 400" and "Provider returned error: " in str(failed.message)
    assert "the reason;" in str(failed.message)


def test_a_402_that_names_a_pause_is_waited_for() -> None:
    wire = Wire(402, {"error": {"message": "In-flight spending budget exhausted", "code": 402}}, {"Retry-After": "0.1"})
    with ChatServer(lambda number, _: wire if number < 3 else None) as server:
        assert {one.error for one in answers_of(server).values()} == {None}


@pytest.mark.parametrize("wire", A_DAY.values(), ids=list(A_DAY))
@pytest.mark.parametrize("answered", [0, 5])
def test_a_day_s_limit_that_is_used_up_ends_the_run_until_then(wire: Wire, answered: int) -> None:
    with ChatServer(lambda number, _: wire if number >= answered else None) as server:
        with pytest.raises(SeqdistillError) as caught:
            answers_of(server, count=200)
        assert len(server.requests) <= answered + 16
    assert caught.value.exit_code == 1 and "run again" in caught.value.hint


@pytest.mark.parametrize(
    "message",
    [
        "Rate limit reached on requests per day (RPD): Limit 200, Used 200. Please try again in 1.2s.",
        "Too many requests: 60 per minute, 10000 per day",
    ],
)
def test_a_day_s_limit_with_room_in_minutes_is_waited_for(message: str) -> None:
    wire = error(429, message)
    with ChatServer(lambda number, _: wire if number < 1 else None) as server:
        assert {one.error for one in answers_of(server).values()} == {None}


@pytest.mark.parametrize(("wire", "hint"), BAD_START.values(), ids=list(BAD_START))
def test_a_wrong_key_or_model_stops_at_once_whatever_the_status(wire: Wire, hint: str) -> None:
    with ChatServer(lambda *_: wire) as server:
        with pytest.raises(UsageError) as caught:
            answers_of(server, count=500)
        assert len(server.requests) <= 8, "what was sent at once"
    assert hint in caught.value.hint
    assert not caught.value.message.endswith((": Unauthorized", ": Error code: 401"))


@pytest.mark.parametrize("wire", SET_ASIDE.values(), ids=list(SET_ASIDE))
def test_one_bad_endpoint_of_two_is_set_aside_with_one_note_and_the_other_does_the_work(wire: Wire) -> None:
    notes: list[str] = []
    with ChatServer(lambda *_: wire, seconds=0.002) as bad, ChatServer(seconds=0.01) as good:
        completions = answers_of(bad, good, count=240, notes=notes)
        assert len(bad.requests) <= 20
    assert {one.error for one in completions.values()} == {None}
    (note,) = [note for note in notes if "no longer used" in note]
    assert bad.url in note


def test_a_refusal_that_repeats_a_prompt_about_keys_ends_nothing() -> None:
    with ChatServer(only(15, error(400, "cannot parse: 'why does it say invalid API key?'"))) as server:
        completions = answers_of(server, concurrency=1)
    assert {name: one.error for name, one in completions.items() if one.error} == {"p15": "http 400"}


def test_when_every_endpoint_is_out_the_run_ends() -> None:
    with ChatServer(lambda *_: error(401, "no")) as one, ChatServer(lambda *_: error(402, "no")) as two:
        with pytest.raises(SeqdistillError):
            answers_of(one, two, count=100)
        assert len(one.requests) + len(two.requests) < 40


def test_each_endpoint_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_ONE", "sk-one-1234")
    monkeypatch.setenv("KEY_TWO", "sk-two-1234")
    with ChatServer(key="sk-one-1234", seconds=0.01) as one, ChatServer(key="sk-two-1234", seconds=0.01) as two:
        completions = answers_of(one, two, count=60, api_key_env=["KEY_ONE", "KEY_TWO"])
        assert one.requests and two.requests
    assert {one.error for one in completions.values()} == {None}
    with pytest.raises(UsageError, match="api_key_env names 2 variables for 1 base URLs"):
        answers_of(one, api_key_env=["KEY_ONE", "KEY_TWO"])


# --- requests that can never succeed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("wire", "says", "hint"), NONSENSE.values(), ids=list(NONSENSE))
def test_what_never_succeeds_stops_at_the_start_and_names_its_cause(wire: Wire, says: str, hint: str) -> None:
    with ChatServer(lambda *_: wire) as server:
        with pytest.raises(UsageError, match=says) as caught:
            answers_of(server, count=500)
        assert len(server.requests) <= 30
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", [name for name in NONSENSE if name not in ("half of JSON", "blocked without a word")])
def test_in_the_middle_of_a_run_the_same_is_sent_twice_at_most(name: str) -> None:
    with ChatServer(only(15, NONSENSE[name][0])) as server:
        completions = answers_of(server, concurrency=1)
        assert len(server.requests) <= 21
    assert [one for one, completion in completions.items() if completion.error] == ["p15"]


def test_an_endpoint_that_answers_nothing_any_more_is_not_sent_each_of_the_rest() -> None:
    with ChatServer(lambda number, _: error(403, "your plan has ended") if number >= 100 else None) as server:
        with pytest.raises(SeqdistillError, match="plan has ended; the last 50 requests all failed so") as caught:
            answers_of(server, count=1000)
        assert len(server.requests) < 100 + 50 + 8
    assert caught.value.exit_code == 1, "what was answered stays"


@pytest.mark.parametrize(
    "message",
    [
        "Your account has been flagged for violating our policies",
        "This organization is blocked: policy violation",
        "Your access was terminated due to violation of our policies, please check your email for more information.",
        "This field takes case-sensitive input",
    ],
)
def test_a_suspended_account_is_no_answer(message: str) -> None:
    with ChatServer(lambda *_: error(403, message)) as server, pytest.raises(UsageError, match="all failed so"):
        answers_of(server, count=50)


def test_a_web_page_of_an_error_is_shown_as_text() -> None:
    page = b"<html><head><style>b { color: red }</style></head><body><h1>404</h1><p>No <b>such</b> page</body></html>"
    with ChatServer(lambda *_: Wire(404, page)) as server, pytest.raises(UsageError, match=r"says 404: 404 No such page$"):
        answers_of(server)


def test_an_endpoint_slower_than_the_timeout_is_named_at_the_start() -> None:
    with ChatServer(seconds=30) as server:
        with pytest.raises(UsageError, match=r"no answer within 0\.2 s; the first 10 requests all failed so") as caught:
            answers_of(server, count=100, timeout=0.2)
        assert len(server.requests) < 30
    assert "raise --timeout" in caught.value.hint


def test_a_choice_without_a_message_that_ended_at_the_limit_is_an_empty_answer_that_was_paid() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
    wire = Wire(200, {"choices": [{"message": None, "finish_reason": "length"}], "usage": usage})
    with ChatServer(only(3, wire)) as server:
        completions = answers_of(server)
        assert len(server.requests) == 20
    one = completions["p3"]
    assert (one.error, one.finish_reason, one.content, one.completion_tokens) == (None, "length", "", 20)


# --- trouble that passes -------------------------------------------------------------------------------------------------

LATER = [404, 409, 424, 425, 429, 498, 500, 502, 503, 520, 521, 522, 523, 525, 529, 530]


PERHAPS_BILLED = [408, 499, 504, 524]


@pytest.mark.parametrize("status", [*LATER, *PERHAPS_BILLED])
@pytest.mark.parametrize("wrapped", [False, True])
def test_trouble_that_passes_slows_the_pace_and_costs_no_answer(
    status: int, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = {"error": {"code": status, "message": "planned"}}
    wire = Wire(200, message) if wrapped else Wire(status, message)
    with ChatServer() as server:
        server.fault = lambda number, _: wire if 30 <= number < 45 else None
        completions = answers_of(server, count=60, meter=(holds := Holds()), retries=15)
        assert len(server.requests) == 75
    assert {one.error for one in completions.values()} == {None}
    lost = set(holds.open) - {one.hold for one in completions.values()}
    assert len(lost) == (15 if status in PERHAPS_BILLED else 0), "held where it may have been billed, else given back"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524, 529])
def test_an_outage_of_90_seconds_loses_no_prompt_and_is_hardly_knocked_at(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time runs 300 times as fast: 90 seconds are 0.3."""
    monkeypatch.setattr(dispatch, "backoff", lambda tries: pacing.backoff(tries) / 300)
    monkeypatch.setattr(dispatch, "LONGEST_AWAY_PAUSE_SECONDS", dispatch.LONGEST_AWAY_PAUSE_SECONDS / 300)
    with ChatServer() as server:
        began: list[float] = []

        def outage(number: int, _: Body) -> Wire | None:
            if number < 100:
                return None
            began.append(server.times[-1])
            return error(status, "upstream down") if server.times[-1] - began[0] < 0.3 else None

        server.fault = outage
        completions = answers_of(server, count=400, concurrency=64)
        failed = len(server.requests) - 400
    assert {one.error for one in completions.values()} == {None}
    assert failed < 64 + 60


def test_an_endpoint_that_stays_down_ends_the_run_which_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DOWN_SECONDS", {False: 0.2, True: 0.2})
    with (
        ChatServer(lambda *_: error(502, "upstream down")) as server,
        pytest.raises(SeqdistillError, match="upstream down") as caught,
    ):
        answers_of(server, count=300, retries=100)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("reply", IN_A_200.values(), ids=list(IN_A_200))
def test_trouble_that_comes_as_a_200_is_waited_for_and_costs_nothing(reply: Body) -> None:
    with ChatServer(lambda number, _: Wire(200, reply) if number in (3, 4) else None) as server:
        completions = answers_of(server, meter=(holds := Holds()))
        assert len(server.requests) == 22
    assert {one.error for one in completions.values()} == {None}
    assert set(holds.open) == {one.hold for one in completions.values()}


def test_an_endpoint_that_refuses_for_load_and_never_answers_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "REFUSING_SECONDS", 0.2)
    with (
        ChatServer(lambda number, _: error(429, "Rate limit reached") if number >= 5 else None) as server,
        pytest.raises(SeqdistillError, match="Rate limit reached; it has answered nothing for") as caught,
    ):
        answers_of(server, count=300, timeout=0.2)
    assert caught.value.exit_code == 1 and "run again later" in caught.value.hint


def test_a_slow_pace_is_not_taken_for_a_refusal_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "REFUSING_SECONDS", 0.0)
    with ChatServer(lambda number, _: error(429, "Rate limit reached") if number % 3 else None) as server:
        completions = answers_of(server, count=20)
    assert {one.error for one in completions.values()} == {None}


def test_a_server_that_loads_its_model_is_given_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DOWN_SECONDS", {False: 0.1, True: 60.0})
    for message, patient in (("Loading model", True), ("no replica", False)):
        with ChatServer() as server:
            wire = error(503, message)

            def down(_: int, __: Body, server: ChatServer = server, wire: Wire = wire) -> Wire | None:
                return wire if server.times[-1] - server.times[0] < 0.5 else None

            server.fault = down
            if patient:
                assert {one.error for one in answers_of(server, retries=100).values()} == {None}
            else:
                with pytest.raises(SeqdistillError, match=message):
                    answers_of(server, retries=100)


BROKEN_OFF = ["abort", "error", "insufficient_system_resource", "cancelled", "network_error"]


@pytest.mark.parametrize("reason", BROKEN_OFF)
def test_an_answer_that_was_broken_off_is_no_answer_and_may_be_billed(reason: str) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        if number_of(body) == 3 and server.answered[json.dumps([body["messages"], body.get("seed")])] == 1:
            said["choices"][0]["finish_reason"] = reason
        return said

    with ChatServer(reply=reply) as server:
        completions = answers_of(server, meter=(holds := Holds()))
        assert len(server.requests) == 21
    assert {one.error for one in completions.values()} == {None}
    assert len(set(holds.open) - {one.hold for one in completions.values()}) == 1


def failed_generation(message: str, code: str) -> Wire:
    return error(400, message, type="invalid_request_error", code=code, failed_generation='{"score": 7')


GENERATED = {
    "Groq, no JSON": failed_generation("Failed to generate JSON. Please adjust your prompt.", "json_validate_failed"),
    "Groq, a tool": failed_generation("Failed to call a function. Please adjust your prompt.", "tool_use_failed"),
    "Groq, without its text": error(400, "Failed to generate JSON.", code="json_validate_failed"),
    "OpenAI": error(
        400,
        "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher "
        "max_tokens.",
        type="invalid_request_error",
    ),
}


@pytest.mark.parametrize("wire", GENERATED.values(), ids=list(GENERATED))
def test_an_answer_that_the_endpoint_itself_rejects_is_tried_again_and_may_be_billed(wire: Wire) -> None:
    with ChatServer(lambda number, _: wire if number == 3 else None) as server:
        completions = answers_of(server, meter=(holds := Holds()))
        assert len(server.requests) == 21
    assert {one.error for one in completions.values()} == {None}
    assert len(set(holds.open) - {one.hold for one in completions.values()}) == 1
    with ChatServer(lambda *_: wire) as server, pytest.raises(UsageError, match="all failed so") as caught:
        answers_of(server, count=50)
    assert "raise --max-tokens" in caught.value.hint


@pytest.mark.parametrize("broken", [[0], [1], [2], [0, 2]])
def test_of_several_answers_those_that_were_not_broken_off_stay_and_all_are_paid(broken: list[int]) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2}}

    def reply(body: Body) -> Body:
        said = answer(body)
        for number in broken:
            said["choices"][number]["finish_reason"] = "abort"
        return {**said, "usage": {**said["usage"], **details}}

    with ChatServer(reply=reply) as server:
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
        several = [Request(f"p{n}", [{"role": "user", "content": "question 1"}], 20, temperature=1.0, seed=n) for n in range(3)]
        completions = ask(open_engine(model, Pace(samples_per_request=3, retries=0)), several)
        (billed,) = server.usages
    assert [one.error for one in completions.values()] == ["broken off" if n in broken else None for n in range(3)]
    paid = [one for one in completions.values() if one.error is None]
    assert sum(one.completion_tokens + one.hidden_tokens for one in paid) == billed["completion_tokens"]
    assert sum(one.prompt_tokens for one in paid) == billed["prompt_tokens"]
    assert (sum(one.cached_tokens for one in paid), sum(one.cache_write_tokens for one in paid)) == (3, 2)


@pytest.mark.parametrize("place", ["/v2/chat/completions", "/login?next=secret"])
def test_a_redirect_that_leads_to_no_answer_is_named(place: str) -> None:
    with ChatServer(lambda *_: Wire(301, b"", {"Location": place})) as server, pytest.raises(UsageError) as caught:
        answers_of(server, count=3)
    moved = server.url.removesuffix("/v1") + place.partition("?")[0].removesuffix("/chat/completions")
    assert f"the request was redirected: is {moved} the base URL?" in caught.value.hint
