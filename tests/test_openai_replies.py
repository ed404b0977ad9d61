"""What the openai engine reads out of a reply, whatever its bytes are. Against a real HTTP server."""

import asyncio
import base64
import json
import socket
import threading
from typing import Any

import pytest
from chat_server import Body, ChatServer, Wire, answer
from endpoint_requests import answers_of
from engine_contract import Holds, ask

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request, dispatch, open_engine
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import SeqdistillError
from seqdistill.recipe.tables import ModelConfig


class Saying(ChatServer):
    """Answers with these bytes, in which `ANSWER` stands for a good reply without its braces."""

    def __init__(self, text: bytes, status: int = 200) -> None:
        super().__init__()
        self.text, self.status = text, status

    async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
        good = json.dumps(answer(body)).encode()[1:-1]
        return await self._send(writer, self.status, self.text.replace(b"ANSWER", good))


def said(text: bytes, status: int = 200, meter: Meter = UNMETERED, **pace: Any) -> Completion:
    with Saying(text, status) as server:
        return answers_of(server, count=1, meter=meter, **{"retries": 0, **pace})["p0"]


def test_numbers_that_no_float_holds_are_null_and_do_not_break_the_journal() -> None:
    places = b'[{"token": "a", "logprob": -Infinity}, {"token": "b", "logprob": -1e999}, {"token": "c", "logprob": -1.5}]'
    completion = said(
        b'{"choices": [{"message": {"content": "a"}, "logprobs": {"content": %s}}], "score": 1e999, "x": NaN}' % places
    )
    json.dumps(completion.raw, allow_nan=False)
    assert (completion.raw["score"], completion.raw["x"]) == (None, None)
    found = logprobs_in(completion.raw)
    assert found is not None and found.logprobs == [-9999.0, -9999.0, -1.5]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{ANSWER, "x": %s}' % (b"[" * 100_000), "malformed reply"),
        (b'{ANSWER, "x": %s%s}' % (b"[" * 900, b"]" * 900), "malformed reply"),
        (b'{ANSWER, "x": %s}' % (b"9" * 5000), "malformed reply"),
        (b'{ANSWER, "x": "\xff"}', "malformed reply"),
        (b'{"choices": [null]}', "no answer"),
        (b'{"choices": [{"finish_reason": "error", "error": {"code": 502}}]}', "no answer"),
        (b'{"choices": {"message": {}}}', "no answer"),
        (b"", "empty reply"),
        (b'{"choices": [{"message": {"content": ""}, "finish_reason": null, "error": {"code": 502}}]}', "broken off"),
        (b'{"choices": [{"message": {"content": "half"}, "finish_reason": "stop", "error": {"code": 502}}]}', "broken off"),
        (b'{"choices": [{"message": {"content": "half"}, "finish_reason": null}], "error": "gone"}', "broken off"),
        (b'{"choices": [{"message": {"content": ""}}], "error": {"code": 524, "message": "upstream"}}', "http 524"),
        (b'{"success": true, "errors": [], "result": {"response": "yes"}}', "no answer"),
        (b'{"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}}', "no answer"),
        (b'{"choices": [], "base_resp": {"status_code": [1002], "status_msg": "x"}}', "no answer"),
        (b'{"choices": [], "base_resp": {"status_code": {"a": 1}, "status_msg": "x"}}', "no answer"),
    ],
)
def test_a_reply_that_cannot_be_kept_is_that_request_failure(text: bytes, error: str) -> None:
    completion = said(text, meter=(holds := Holds()))
    assert completion.error == error
    assert len(holds.open) == 1, "it may have been billed"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"error": {"message": "no", "param": ["x"]}}', "http 400"),
        (b'{"error": "no"}', "http 400"),
        (b'{"detail": [{"loc": true, "msg": "no"}, {"loc": "x"}, 7]}', "http 400"),
        (b"[" * 100_000, "http 400"),
        (b'{"error": {"message": "no", "code": "content_filter", "score": 1e999}}', None),
    ],
)
def test_an_error_of_any_shape_is_read(text: bytes, error: str | None) -> None:
    completion = said(text, 400)
    assert completion.error == error
    json.dumps(completion.raw, allow_nan=False)


@pytest.mark.parametrize(
    ("usage", "tokens", "uncounted"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5}, (9, 5, 0), False),
        ({"prompt_tokens": 9.0, "completion_tokens": 0}, (9, 0, 0), True),  # there is an answer
        ({"prompt_tokens": "9", "completion_tokens": "5"}, (9, 5, 0), False),
        ({"prompt_tokens": 9, "completion_tokens": True}, (9, 0, 0), True),
        ({"input_tokens": 9, "output_tokens": 5}, (9, 5, 0), False),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 100}}, (9, 5, 9), False),
        ({"prompt_tokens": 10**400, "completion_tokens": 5}, (0, 5, 0), True),
        ({"prompt_tokens": -9, "completion_tokens": None}, (0, 0, 0), True),
        (None, (0, 0, 0), True),
        ({"prompt_tokens": 0, "completion_tokens": 5}, (0, 5, 0), True),  # no prompt has none
        ({"prompt_tokens": "9.0", "completion_tokens": "5"}, (9, 5, 0), False),
        ({"promptTokens": 9, "completionTokens": 5}, (9, 5, 0), False),
        ({"prompt_tokens": 9, "total_tokens": 14}, (9, 5, 0), False),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 8}, (9, 5, 8), False),  # Moonshot, Together
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": "8"}, (9, 5, 8), False),  # DeepSeek
        ({"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 8}}, (9, 5, 8), False),
        # Anthropic counts the cache beside the prompt; LiteLLM puts it in, Portkey into the total alone
        (
            {"input_tokens": 1, "output_tokens": 5, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 2},
            (9, 5, 6, 2),
            False,
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cache_read_input_tokens": 6},
            (9, 5, 6),
            False,
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 14, "cache_read_input_tokens": 6},
            (9, 5, 6),
            False,
        ),
        # what is written to the cache, and of that for an hour
        (
            {
                "input_tokens": 2,
                "output_tokens": 5,
                "cache_creation_input_tokens": 7,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
            },
            (9, 5, 0, 7, 3),
            False,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {
                    "cache_creation_tokens": 7,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 7},
                },
                "cache_creation_input_tokens": 7,
            },
            (9, 5, 0, 7, 7),
            False,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
            },
            (9, 5, 6, 2),
            False,
        ),
        (
            {
                "inputTokens": 1,
                "outputTokens": 5,
                "totalTokens": 14,
                "cacheReadInputTokens": 6,
                "cacheWriteInputTokens": 2,
            },
            (9, 5, 6, 2),
            False,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cache_write_tokens": 10**9}, (9, 5, 0, 9), False),
        ({"inputTokens": 9, "outputTokens": 5, "cachedInputTokens": 8}, (9, 5, 8), False),
        (
            {  # Alibaba
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_tokens_details": {
                    "cached_tokens": 1,
                    "cache_creation_input_tokens": 8,
                    "cache_creation": {"ephemeral_5m_input_tokens": 8},
                },
            },
            (9, 5, 1, 8),
            False,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 8},
                "cache_creation": {"ephemeral_1h_input_tokens": 8},
            },
            (9, 5, 8, 1, 1),
            False,
        ),
        (  # new-api before Claude
            {
                "prompt_tokens": 180,
                "completion_tokens": 20,
                "total_tokens": 200,
                "prompt_tokens_details": {"cached_tokens": 30, "cached_creation_tokens": 50},
                "claude_cache_creation_5_m_tokens": 30,
                "claude_cache_creation_1_h_tokens": 20,
                "usage_semantic": "openai",
                "input_tokens": 0,
                "output_tokens": 0,
            },
            (180, 20, 30, 50, 20),
            False,
        ),
        (  # an older one, which counts as Claude does
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 30, "cached_creation_tokens": 50},
                "usage_semantic": "anthropic",
            },
            (180, 20, 30, 50),
            False,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 5014,
                "prompt_tokens_details": {"cached_tokens": 5000},
            },
            (5009, 5, 5000),
            False,
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "input_tokens": 9, "output_tokens": 5},
            (9, 5, 0),
            False,
        ),
    ],
)
def test_tokens_that_are_not_reported_may_be_billed_and_are_never_negative(
    usage: Any, tokens: tuple[int, ...], uncounted: bool
) -> None:
    completion = said(json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}).encode())
    found = (completion.prompt_tokens, completion.completion_tokens, completion.cached_tokens)
    assert (*found, completion.cache_write_tokens, completion.cache_write_1h_tokens) == (*tokens, 0, 0)[:5]
    assert (completion.error, completion.uncounted, completion.hidden_tokens) == (None, uncounted, 0)


@pytest.mark.parametrize("cached", [3, 4])
def test_reasoning_beside_the_answer_is_not_taken_for_a_cache_of_as_many_tokens(cached: int) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": cached}, "completion_tokens_details": {"reasoning_tokens": 3}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 17, **details}
    completion = said(json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}).encode())
    assert (completion.prompt_tokens, completion.cached_tokens, completion.hidden_tokens) == (9, cached, 3)


@pytest.mark.parametrize(
    ("reported", "billed"),
    [
        ({}, None),
        ({"cost_in_usd_ticks": 37756000}, 0.0037756),  # xAI's own example
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": None}}, 0.95),  # OpenRouter's
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}, "is_byok": True}, 19.95),
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 0.95}, "is_byok": False}, 0.95),
        ({"cost": {"input_tokens_cost": 0.1, "request_cost": 0.006, "total_cost": 0.106}}, 0.106),  # Perplexity's
        ({"estimated_cost": 4.6e-06}, 4.6e-06),  # DeepInfra's
        ({"cost_usd_total": 0.000125, "cost_usd_input": 0.000025, "cost_usd_request": 0}, 0.000125),  # LLM Gateway's
        ({"cost": "0.02"}, 0.02),
        ({"cost": 0}, 0.0),
        *(({"cost": cost}, None) for cost in (None, True, -1, 10**400, "much", "nan", [], {}, {"total_cost": "inf"})),
        ({"cost": 0.5, "cost_details": "x", "is_byok": True}, 0.5),
        ({"cost_in_usd_ticks": None, "cost": 0.5}, 0.5),
    ],
)
def test_what_an_endpoint_says_that_it_bills_is_read(reported: Body, billed: float | None) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, **reported}
    choices = [{"message": {"content": word}} for word in ("a", "b")]
    text = json.dumps({"choices": choices, "usage": usage}).encode()
    assert said(text).billed_usd == pytest.approx(billed), "the second choice was not requested, and is billed"


@pytest.mark.parametrize(
    ("header", "in_usage", "billed"),
    [("0.0042", {}, 0.0042), ("0.0042", {"cost": 0.5}, 0.5), ("None", {}, None), ("", {}, None)],
)
def test_what_litellm_says_that_it_bills_is_read_from_its_header(header: str, in_usage: Body, billed: float | None) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, **in_usage}
    reply = {"choices": [{"message": {"content": word}} for word in ("a", "b")], "usage": usage}
    with ChatServer(lambda *_: Wire(200, reply, {"x-litellm-response-cost": header})) as server:
        assert answers_of(server, count=1)["p0"].billed_usd == pytest.approx(billed)


@pytest.mark.parametrize("place", [{"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}}, {}])
def test_tokens_that_are_reported_beside_the_reply_or_in_its_choice_are_counted(place: Body) -> None:
    usage = {} if place else {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}
    completion = said(json.dumps({"choices": [{"message": {"content": "a"}, **usage}], **place}).encode())
    assert (completion.prompt_tokens, completion.completion_tokens, completion.uncounted) == (9, 5, False)


@pytest.mark.parametrize(
    ("served", "noted"),
    [
        ("other-1b", True),
        ("org/Teacher-2024-08-06", False),
        ("/models/teacher-Q4_K_M.gguf", False),
        ("teacher", False),
        (None, False),
        (7, False),
    ],
)
def test_another_model_than_was_requested_is_noted_once(served: Any, noted: bool) -> None:
    notes: list[str] = []
    with ChatServer(reply=lambda body: {**answer(body), "model": served}) as server:
        completions = answers_of(server, count=5, on_note=notes.append)
    assert {one.error for one in completions.values()} == {None}
    assert [served in note for note in notes] == ([True] if noted else [])


@pytest.mark.parametrize(
    ("requested", "served", "noted"),
    [
        ({}, "priority", True),
        ({"service_tier": "flex"}, "default", True),
        ({"service_tier": "flex"}, "flex", False),
        ({"service_tier": "auto"}, "default", False),
        ({}, "on_demand", False),
        ({}, None, False),
        ({}, ["priority"], False),
    ],
)
def test_another_tier_of_service_than_was_requested_is_noted_once(requested: Body, served: Any, noted: bool) -> None:
    notes: list[str] = []
    with ChatServer(reply=lambda body: {**answer(body), "service_tier": served}) as server:
        answers_of(server, count=3, on_note=notes.append, options=requested)
    assert ["the service tier" in note for note in notes] == ([True] if noted else [])


LONG = "how many words are in this " * 200  # 1,200


@pytest.mark.parametrize(
    ("text", "counted", "noted"),
    [
        (LONG, 1026, True),
        (LONG, 1200, False),
        (LONG, 1800, False),
        (LONG, 0, False),  # it counts nothing
        ("这是一个很长的句子" * 1000, 2051, True),
        ("这是一个很长的句子" * 1000, 5000, False),
        ("-" * 9000 + " " * 9000 + "=" * 9000, 600, False),
        ("hello there", 1, False),
    ],
)
def test_a_prompt_that_the_endpoint_cuts_is_noted_once(text: str, counted: int, noted: bool) -> None:
    notes: list[str] = []

    def reply(body: Body) -> Body:
        return {**answer(body), "usage": {"prompt_tokens": counted, "completion_tokens": 5}}

    with ChatServer(lambda _, body: Wire(200, reply(body))) as server:
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
        several = [Request(f"p{n}", [{"role": "user", "content": text}], 20, seed=n) for n in range(3)]
        completions = ask(open_engine(model, Pace(on_note=notes.append)), several)
    assert {one.error for one in completions.values()} == {None}
    assert [f"it counts {counted:,} tokens" in note for note in notes] == ([True] if noted else [])


@pytest.mark.parametrize(
    ("usage", "reason", "noted"),
    [
        ({"prompt_tokens": 96, "completion_tokens": 8}, "length", True),
        ({"prompt_tokens": 96, "completion_tokens": 8}, "stop", False),
        ({"prompt_tokens": 96, "completion_tokens": 8, "total_tokens": 116}, "length", False),  # 12 of reasoning
        ({"prompt_tokens": 96, "completion_tokens": 20}, "length", False),
        ({"prompt_tokens": 96}, "length", False),
    ],
)
def test_an_answer_that_is_cut_before_its_limit_is_noted_once(usage: Body, reason: str, noted: bool) -> None:
    notes: list[str] = []
    reply = {"choices": [{"message": {"content": "a"}, "finish_reason": reason}], "usage": usage}
    with ChatServer(lambda *_: Wire(200, reply)) as server:
        answers_of(server, count=3, on_note=notes.append)
    assert ["cut off after 8 tokens, though max_tokens allows 20" in note for note in notes] == ([True] if noted else [])


def test_a_reply_that_cannot_be_read_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    wire = Wire(200, b"{}", {"X-Large": "y" * 20_000})
    with ChatServer(lambda *_: wire) as server:
        failed = answers_of(server, count=1, retries=0)["p0"]
    assert failed.error == "malformed reply" and "8190 bytes" in str(failed.message)
    assert "Bearer" not in str(failed.message)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's own, of a proxy's password
@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_s_refusal_does_not_show_its_password_and_holds_nothing(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PATIENCE_SECONDS", {False: 0.0, True: 0.0})
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        port = proxy.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://alice:secret-1234@127.0.0.1:{port}")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")

        def refuse() -> None:
            while True:
                try:
                    connection, _ = proxy.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        threading.Thread(target=refuse, daemon=True).start()
        model = ModelConfig(model="teacher", engine="openai", base_url=["https://api.example.com/v1"])
        question = Request("p", [{"role": "user", "content": "question"}], 20)
        with pytest.raises(SeqdistillError, match="the proxy in HTTPS_PROXY refuses the connection") as caught:
            ask(open_engine(model, Pace(retries=0, timeout=20)), [question], holds := Holds())
    assert status.replace(" ", ", ", 1) in caught.value.message and holds.open == {}
    shown = caught.value.message + str(caught.value.hint)
    assert "secret" not in shown and base64.b64encode(b"alice:secret-1234").decode() not in shown


def test_log_probabilities_in_lists_are_read() -> None:
    lists = b'{"tokens": ["a", "b"], "token_logprobs": [-0.5, -1], "token_ids": [1, 2], "top_logprobs": [{"a": -0.5}, null]}'
    found = logprobs_in(said(b'{"choices": [{"message": {"content": "ab"}, "logprobs": %s}]}' % lists).raw)
    assert found is not None
    assert (found.tokens, found.logprobs, found.top_tokens, found.top_logprobs) == (
        ["a", "b"],
        [-0.5, -1],
        [["a"], []],
        [[-0.5], []],
    )


def test_log_probabilities_of_any_size_fit_their_file() -> None:
    places = b'[{"token": "token_id:99999999999", "logprob": %s, "top_logprobs": []}]' % (b"9" * 400)
    found = logprobs_in(said(b'{"choices": [{"message": {"content": "a"}, "logprobs": {"content": %s}}]}' % places).raw)
    assert found is not None and (found.token_ids, found.logprobs) == (None, [0.0])


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
        (completion,) = answers_of(server, count=1).values()
    assert (completion.content, completion.reasoning) == (content, reasoning)
    assert completion.raw["choices"][0]["message"]["role"] == "assistant"
