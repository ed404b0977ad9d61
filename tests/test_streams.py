"""Streamed answers against a real HTTP server: what comes is what would have come without a stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from chat_server import Body, ChatServer, Wire, answer
from engine_contract import Holds, ask, check_engine_contract

from seqdistill.engines import Completion, Pace, Request, endpoints, open_engine
from seqdistill.engines.replies import parse_choice
from seqdistill.engines.streams import Joined, joined, lines_of
from seqdistill.engines.usage import usage_of
from seqdistill.recipe.tables import ModelConfig


def model(server: ChatServer) -> ModelConfig:
    return ModelConfig(model="teacher", engine="openai", base_url=[server.url], stream=True)


def answer_of(server: ChatServer, meter: Holds | None = None, streamed: bool = True, **settings: Any) -> Completion:
    paces = {name: settings.pop(name) for name in list(settings) if name in Pace.__dataclass_fields__}
    request = Request("p", [{"role": "user", "content": "question 1"}], **{"max_tokens": 20, **settings})
    engine = open_engine(replace(model(server), stream=streamed), Pace(**{"retries": 0, "timeout": 60.0, **paces}))
    return ask(engine, [request], meter or Holds())["p"]


def message(**parts: Any) -> Callable[[Body], Body]:
    def reply(body: Body) -> Body:
        return {**answer(body), "choices": [{"index": 0, "message": {"role": "assistant", **parts}, "finish_reason": "stop"}]}

    return reply


def test_a_streamed_engine_answers_the_engine_contract() -> None:
    with ChatServer() as server:
        check_engine_contract(open_engine(model(server)), longest=2000)
        assert all(body["stream"] and body["stream_options"] == {"include_usage": True} for body in server.requests)


CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "the sky", "for": 2}'}}


@pytest.mark.parametrize(
    "reply",
    [
        answer,
        message(content="yes and no", reasoning="so it is"),
        message(content="yes and no", reasoning_content="so it is"),
        message(content="<think>so it is</think>yes and no"),
        message(content=None, tool_calls=[CALL, {**CALL, "id": "d"}]),
    ],
)
def test_a_streamed_answer_is_the_answer(reply: Callable[[Body], Body]) -> None:
    with ChatServer(reply=reply) as server:
        plain, streamed = answer_of(server, streamed=False, logprobs=2), answer_of(server, logprobs=2)
    assert plain.first_token_seconds is None
    assert streamed.first_token_seconds is not None and 0 < streamed.first_token_seconds <= streamed.seconds
    assert replace(streamed, raw={}, seconds=0, hold="", first_token_seconds=None) == replace(plain, raw={}, seconds=0, hold="")
    assert streamed.raw["choices"][0].get("logprobs") == plain.raw["choices"][0].get("logprobs")
    json.dumps(streamed.raw, allow_nan=False)


USAGE = {"prompt_tokens": 6, "completion_tokens": 3}


def chunk(text: str | None = None, reason: str | None = None, **more: Any) -> Body:
    return {"choices": [{"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason, **more}]}


@pytest.mark.parametrize(
    ("events", "start"),
    [
        ([chunk("ye"), chunk("s", "stop"), {"choices": [], "usage": USAGE}], ""),
        ([chunk("ye"), chunk("s", "stop"), {"choices": [], "usage": USAGE}], "\ufeff"),
        ([chunk("ye"), chunk("s"), {**chunk(reason="stop", message={"content": "yes"}), "usage": USAGE}], ""),
        ([{**chunk(reason="stop", message={"content": "yes"}), "usage": USAGE}], ""),
        (
            [{**chunk("yes", "stop"), "usage": USAGE}, {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}],
            "",
        ),
        ([{**chunk("y"), "usage": {"prompt_tokens": 6, "completion_tokens": 1}}, {**chunk("es", "stop"), "usage": USAGE}], ""),
        ([{"choices": None}, chunk("yes"), {"choices": [], "x_groq": {"usage": USAGE}}], ""),
        ([chunk("yes"), chunk(reason="stop", usage=USAGE)], ""),  # Moonshot
        ([{**chunk("yes"), "usage": {"prompt_tokens": 6}}, {**chunk(reason="stop"), "usage": {"completion_tokens": 3}}], ""),
        (
            [
                {**chunk("yes"), "usage": {"input_tokens": 6, "output_tokens": 1}},
                {"choices": [], "usage": {"output_tokens": 3}},
            ],
            "",
        ),
        ([chunk("ye", ""), chunk("s", "null"), chunk("", "stop"), {**chunk("", ""), "usage": USAGE}], ""),  # Ollama, KoboldCpp
        (
            [
                {"choices": [{"index": "0", "text": "yes"}]},
                {"choices": [{"text": "", "finish_reason": "stop"}], "usage": USAGE},
            ],
            "",
        ),
        (
            [{**chunk("yes", "stop"), "usage": USAGE}, {"error": {"message": "closing", "code": 500}}],
            ": a whole answer stays\n\n",
        ),
        ([chunk("yes", "stop"), {"choices": [], "usage": USAGE}], 'event: message\ndata: {"choices":\ndata: []}\n\n'),
    ],
)
def test_an_answer_is_read_once_and_with_its_tokens_however_it_is_streamed(events: list[Body], start: str) -> None:
    text = start + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    with ChatServer(lambda *_: Wire(200, text.encode(), {"Content-Type": "text/event-stream"})) as server:
        completion = answer_of(server)
    assert (completion.content, completion.prompt_tokens, completion.completion_tokens) == ("yes", 6, 3)


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\u0085d", "größe 日本 😀"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_is_utf_8_and_its_lines_end_where_the_standard_says(text: str, end: str) -> None:
    events = [json.dumps(chunk(text, "stop"), ensure_ascii=False), json.dumps({"choices": [], "usage": USAGE}), "[DONE]"]
    content = "".join(f"data: {event}{end}{end}" for event in events).encode()
    wire = Wire(200, content, {"Content-Type": "text/event-stream; charset=ISO-8859-1"})
    with ChatServer(lambda *_: wire) as server:
        assert answer_of(server).content == text


async def _parts(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", range(1, 8))
def test_lines_are_the_same_wherever_the_network_cuts_them(size: int) -> None:
    async def lines() -> list[str]:
        return [line async for line in lines_of(_parts("é\r\n\r\nb\rc\n\nd\r\n\ne".encode(), size))]

    assert asyncio.run(lines()) == ["é", "", "b", "c", "", "d", "", "e"]


def test_a_tool_call_without_numbers_is_put_together() -> None:
    calls: list[list[Body]] = [
        [{"id": "a", "function": {"name": "look", "arguments": '{"at"'}}],
        [{"function": {"arguments": ": 1}"}}],
        [{"id": "b", "function": {"name": "stop", "arguments": "{}"}}],
    ]
    joined = Joined()
    for part in calls:
        joined.add_chunk({"choices": [{"index": 0, "delta": {"tool_calls": part}}]})
    functions = [call["function"] for call in joined.reply()["choices"][0]["message"]["tool_calls"]]
    assert functions == [{"name": "look", "arguments": '{"at": 1}'}, {"name": "stop", "arguments": "{}"}]


EMPTY_CALL = {"function_call": {"name": "", "arguments": ""}}  # beside everything else, in the name of the older API
ADD = {"name": "add", "arguments": "{}"}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        ([{"content": "Hel", **EMPTY_CALL}, {"content": "lo", **EMPTY_CALL}], None),
        ([{"tool_calls": [{"index": 0, "function": ADD}], **EMPTY_CALL}], [ADD]),
    ],
)
def test_an_empty_call_is_none(deltas: list[Body], calls: list[Body] | None) -> None:
    streamed = joined({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)
    assert parse_choice("a", streamed, 0, 0.0).tool_calls == calls
    whole: Body = {"choices": [{"message": {"role": "assistant", **deltas[0]}, "finish_reason": "stop"}]}
    assert parse_choice("a", whole, 0, 0.0).tool_calls == calls


def test_a_call_of_the_older_api_and_a_refusal_in_parts_are_put_together() -> None:
    deltas: list[Body] = [
        {"function_call": {"name": "add", "arguments": '{"a"'}},
        {"function_call": {"arguments": ": 2}"}},
        *({"content": [{"type": "refusal", "refusal": part}]} for part in ("I ", "cannot.")),
    ]
    completion = parse_choice("a", joined({"choices": [{"index": 0, "delta": delta}]} for delta in deltas), 0, 0.0)
    assert completion.tool_calls == [{"name": "add", "arguments": '{"a": 2}'}]
    assert (completion.content, completion.finish_reason) == ("I cannot.", "refusal")


def test_several_answers_come_in_one_stream() -> None:
    with ChatServer() as server:
        several = [Request(f"p{n}", [{"role": "user", "content": "question 1"}], 20, temperature=1.0, seed=n) for n in range(3)]
        completions = ask(open_engine(model(server), Pace(samples_per_request=3)), several)
    assert len({one.content for one in completions.values()}) == 3
    assert len(server.requests) == 1


def test_a_stream_that_is_cut_is_lost_and_may_be_billed() -> None:
    with ChatServer(lambda *_: "cut") as server:
        completion = answer_of(server, meter=(holds := Holds()), retries=1)
    assert completion.error == "connection lost"
    assert len(holds.open) == 2


class Unending(ChatServer):
    """Streams an answer whose end of the transfer never comes: the connection is lost first, or stays silent."""

    def __init__(self, events: list[Body], *, silent: bool) -> None:
        super().__init__()
        self.content = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
        self.silent = silent

    async def _chat(self, writer: asyncio.StreamWriter, number: int, body: Body) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%s\r\n" % (len(self.content), self.content))
        await writer.drain()
        if self.silent:
            await asyncio.sleep(self.hang)
        return False


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("events", "error", "uncounted"),
    [
        ([chunk("yes"), {**chunk(reason="stop"), "usage": USAGE}], None, False),
        ([chunk("yes"), chunk(reason="stop")], None, True),
        ([chunk("yes")], "timeout, or connection lost", True),
    ],
)
def test_a_whole_answer_stays_whatever_becomes_of_its_stream(
    events: list[Body], error: str | None, uncounted: bool, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "WHOLE_ANSWER_SECONDS", 0.05)
    with Unending(events, silent=silent) as server:
        completion = answer_of(server, retries=1, read_timeout=0.3 if error else 30.0)
        assert len(server.requests) == (2 if error else 1), "it is not paid twice"
    if error:
        assert completion.error == ("timeout" if silent else "connection lost")
    else:
        assert (completion.error, completion.content, completion.finish_reason) == (None, "yes", "stop")
        assert completion.uncounted == uncounted, "what it cost may be unknown"


def test_silence_within_a_stream_ends_it_but_a_slow_stream_may_take_its_time() -> None:
    with ChatServer() as server:
        server.stream_pause = 0.1
        slow = answer_of(server, read_timeout=20.0)
        assert slow.error is None and slow.seconds > slow.first_token_seconds + 0.2  # type: ignore[operator]
        server.stream_pause = 5.0
        assert answer_of(server, read_timeout=0.3).error == "timeout"


@pytest.mark.parametrize(
    ("content", "error", "held"),
    [
        (b'data: {"error": {"code": 429, "message": "slow down"}}\n\n', "http 429", 0),
        (b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"error": {"code": 502}}\n\n', "http 502", 1),
        (b"data: {half\n\n", "malformed reply", 1),
        (b"data: [DONE]\n\n", "no answer", 1),
        (b'{"error": {"code": 429, "message": "slow down"}}', "http 429", 0),
        (b"<html>Welcome</html>", "web page", 1),
        (b"", "connection lost", 1),
        (b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": ""}]}\n\n', "connection lost", 1),
        (b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "null"}]}\n\n', "connection lost", 1),
        (b'event:error\ndata:{"code": "Throttling.RateQuota", "message": "rate limit exceeded"}\n\n', "http 429", 0),
        (b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"object": "error", "code": 500}\n\n', "http 500", 1),
        (
            b'data: {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}], "error": {"code": 502}}\n\n',
            "http 502",
            0,
        ),
        (
            b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
            b'data: {"choices": [{"delta": {}}], "x_groq": {"id": "r", "error": "over capacity"}}\n\ndata: [DONE]\n\n',
            "no answer",
            1,
        ),
        (b'data: {"choices": [{"delta": {"content": "a"}, "error": {"code": 1}}]}\n\ndata: [DONE]\n\n', "broken off", 1),
        (b"data: \xff\n\n", "malformed reply", 1),
    ],
)
def test_a_stream_that_holds_no_answer_says_why(content: bytes, error: str, held: int) -> None:
    with ChatServer(lambda *_: Wire(200, content, {"Content-Type": "text/event-stream"})) as server:
        completion = answer_of(server, meter=(holds := Holds()))
    assert (completion.error, len(holds.open)) == (error, held)


def test_an_endpoint_that_does_not_stream_is_understood() -> None:
    with ChatServer(lambda _, body: Wire(200, answer(body))) as server:
        completion = answer_of(server)
    assert completion.error is None and completion.content


def test_stream_options_that_are_refused_are_left_out() -> None:
    wire = Wire(400, {"error": {"message": "stream_options: Extra inputs are not permitted", "param": "stream_options"}})
    with ChatServer(lambda _, body: wire if "stream_options" in body else None) as server:
        completion = answer_of(server)
    assert completion.error is None
    assert completion.uncounted, "the endpoint does not say what it cost"


def test_what_each_choice_of_a_stream_reports_is_added_up() -> None:
    def ends(index: int, tokens: int) -> dict[str, Any]:
        usage = {"prompt_tokens": 19, "completion_tokens": tokens, "total_tokens": 19 + tokens}
        return {"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": "stop", "usage": usage}]}

    usage = usage_of(joined([ends(0, 13), ends(1, 400), ends(1, 400)]))
    assert (usage.prompt, usage.completion, usage.hidden) == (19, 413, 0)
    alone = usage_of(joined([ends(0, 13)]))
    assert (alone.prompt, alone.completion, alone.hidden) == (19, 13, 0)
