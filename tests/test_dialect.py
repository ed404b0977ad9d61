"""Fields of a request that an endpoint refuses are left out from then on, by what its error says."""

import json
from typing import Any

import pytest
from chat_server import Body, ChatServer, Wire
from engine_contract import Holds, ask

from seqdistill.engines import Completion, Pace, Request, open_engine
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig

SYSTEM = {"role": "system", "content": "Be brief."}


def error(status: int, message: str, **more: Any) -> Wire:
    return Wire(status, {"error": {"message": message, **more}})


def asked(
    server: ChatServer, count: int = 30, meter: Holds | None = None, **settings: Any
) -> tuple[dict[str, Completion], list[str]]:
    notes: list[str] = []
    options, first = settings.pop("options", {}), settings.pop("first", [SYSTEM])
    model = ModelConfig(model="teacher", engine="openai", base_url=[server.url], options=options)
    requests = [
        Request(f"p{n}", [*first, {"role": "user", "content": f"question {n}"}], **{"max_tokens": 20, "seed": n, **settings})
        for n in range(count)
    ]
    return ask(open_engine(model, Pace(concurrency=8, timeout=60.0, on_note=notes.append)), requests, meter or Holds()), notes


GPT_5 = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
LITELLM = (
    "litellm.UnsupportedParamsError: openai does not support parameters: ['seed'], for model=x. To drop these, set drop_params"
)
REFUSED = {  # field -> the refusal while it is sent
    "OpenAI, gpt-5": ("temperature", error(400, GPT_5, param="temperature", code="unsupported_value")),
    "TGI": ("temperature", Wire(422, {"error": "Input validation error: `temperature` must be strictly positive"})),
    "LiteLLM": ("seed", error(400, LITELLM, param=None, code="400", type="None")),
    "Gemini": (
        "seed",
        Wire(
            400, [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.', "status": "INVALID_ARGUMENT"}}]
        ),
    ),
    "Mistral": (
        "seed",
        Wire(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
    ),
    "OpenRouter": (
        "temperature",
        error(
            400,
            "Provider returned error",
            code=400,
            metadata={"raw": json.dumps({"error": {"message": GPT_5, "param": "temperature", "code": "unsupported_value"}})},
        ),
    ),
    "OpenRouter, in words": ("seed", error(400, "Provider returned error", metadata={"raw": "seed is not supported"})),
    "Groq": ("logprobs", error(400, "`logprobs` is not supported with this model")),
    "Gemini, in words": (
        "logprobs",
        Wire(400, [{"error": {"code": 400, "message": "Logprobs is not enabled for this model"}}]),
    ),
    "Groq, in words": ("response_format", error(400, "This model does not support response format `json_schema`. See x")),
    "DashScope, in words": ("temperature", error(400, "Temperature should be in (0.0, 2.0)")),
    "OpenAI, with a 403": ("logprobs", error(403, "You are not allowed to request logprobs from this model.")),
    "Zhipu": ("temperature", error(400, "temperature 参数非法。取值范围是 (0,1) 开区间,不能等于 0 或 1", code="1210")),
    "Fireworks": (
        "seed",
        Wire(400, {"error": {"object": "error", "message": "Extra inputs are not permitted, field: 'seed', value: 5"}}),
    ),
    "a JSON schema": ("seed", error(400, "Additional properties are not allowed ('seed' was unexpected)")),
    "top_logprobs": (
        "top_logprobs",
        error(400, "Unknown parameter: 'top_logprobs'.", param="top_logprobs", code="unknown_parameter"),
    ),
    "DeepSeek": ("response_format", error(400, "This response_format type is unavailable now", type="invalid_request_error")),
    "OpenAI, an older model": (
        "response_format",
        error(400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."),
    ),
    "the kinds of form it has": (
        "response_format",
        error(400, "'response_format.type' : value must be one of ['text', 'json_object']", param="response_format"),
    ),
    "top_p": ("top_p", error(400, "Unsupported parameter: 'top_p' is not supported with this model.", param="top_p")),
    "Anthropic": ("top_p", error(400, "`temperature` and `top_p` cannot both be specified for this model.")),
    "max_tokens": (
        "max_tokens",
        error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens"),
    ),
}


@pytest.mark.parametrize(("name", "wire"), REFUSED.values(), ids=list(REFUSED))
def test_a_field_that_is_refused_is_left_out_for_the_whole_run_and_said_once(name: str, wire: Wire) -> None:
    with ChatServer(lambda _, body: wire if name in body else None) as server:
        completions, notes = asked(server, meter=(holds := Holds()), logprobs=2, choices=["yes", "no"], top_p=0.9)
        refused = [body for body in server.requests if name in body]
        assert len(server.requests) == 30 + len(refused)
        assert len(refused) <= 8, "what was under way together"
    assert {one.error for one in completions.values()} == {None}
    assert len(notes) == 1 and name in notes[0]
    assert len(holds.open) == 30, "a refusal is not billed"


NO_SYSTEM = [
    "System role not supported",
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    "Developer instruction is not enabled for models/gemma-3-27b-it",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "This model does not support the system role",
]


@pytest.mark.parametrize("message", NO_SYSTEM)
def test_a_system_message_that_is_refused_goes_into_the_first_user_message(message: str) -> None:
    wire = error(400, message)
    with ChatServer(lambda _, body: wire if body["messages"][0]["role"] == "system" else None) as server:
        completions, notes = asked(server)
        assert server.requests[-1]["messages"][0]["content"].startswith("Be brief.\n\nquestion")
    assert {one.error for one in completions.values()} == {None}
    assert len(notes) == 1


GREETING = {"role": "assistant", "content": "Hello, how can I help?"}


@pytest.mark.parametrize(
    ("first", "sent"),
    [
        ([SYSTEM, GREETING], [GREETING, "Be brief.\n\nquestion"]),
        ([SYSTEM, SYSTEM], ["Be brief.\n\nBe brief.\n\nquestion"]),
        ([GREETING, SYSTEM], [GREETING, "Be brief.\n\nquestion"]),
        ([{"role": "developer", "content": "Be brief."}], ["Be brief.\n\nquestion"]),
    ],
)
def test_system_messages_anywhere_go_into_the_first_user_message(first: list[Body], sent: list[Any]) -> None:
    def fault(_: int, body: Body) -> Wire | None:
        refused = any(message["role"] in ("system", "developer") for message in body["messages"])
        return error(400, "System role not supported") if refused else None

    with ChatServer(fault) as server:
        completions, _ = asked(server, first=first, count=3)
        found = [one if one == GREETING else one["content"].rpartition(" ")[0] for one in server.requests[-1]["messages"]]
    assert ({one.error for one in completions.values()}, found) == ({None}, sent)


@pytest.mark.parametrize("message", ["System role not supported", "unknown role: system"])
def test_what_no_other_words_can_help_is_not_sent_for_ever(message: str) -> None:
    with ChatServer(lambda *_: error(400, message)) as server:
        model = ModelConfig(model="teacher", engine="openai", base_url=[server.url])
        alone = ask(open_engine(model, Pace()), [Request("p0", [SYSTEM], 20)], Holds())["p0"]
        assert (alone.error, len(server.requests)) == ("http 400", 1), "there is no user message to put it into"
        with pytest.raises(UsageError, match="the first 10 requests all failed so"):
            asked(server)
        assert len(server.requests) < 60


def test_several_refused_fields_are_left_out_one_after_the_other() -> None:
    def fault(_: int, body: Body) -> Wire | None:
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens")
        return next(
            (error(400, f"Unknown parameter: '{name}'.", param=name) for name in ("temperature", "seed") if name in body), None
        )

    with ChatServer(fault) as server:
        completions, notes = asked(server)
    assert {one.error for one in completions.values()} == {None}
    assert len(notes) == 3


STAYS = {
    "nothing named": {"message": "a bad request"},
    "the user's own field": {"message": "Unknown parameter: 'reasoning_effort'.", "param": "reasoning_effort"},
    "the user's own temperature": {"message": "temperature must be at most 1", "param": "temperature"},
    "vLLM, more logprobs than it gives": {
        "message": "Requested sample logprobs of 50, which is greater than max allowed: 20 (parameter=logprobs, value=50)",
        "param": "logprobs",
    },
    "OpenAI, more logprobs than it gives": {
        "message": "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 50 instead.",
        "param": "top_logprobs",
    },
    "OpenAI, a schema": {
        "message": "Invalid schema for response_format 'answer': In context=(), 'additionalProperties' is required to be "
        "supplied and to be false.",
        "param": "response_format",
    },
    "OpenAI, a schema's keyword": {
        "message": "Invalid schema for response_format 'answer': In context=('properties', 'age'), 'minimum' is not permitted.",
        "param": "response_format",
    },
    "OpenAI, too many choices": {
        "message": "Invalid schema for response_format 'answer': Expected at most 1000 enum values, but received 1200.",
        "param": "response_format",
    },
    "Groq, a schema": {
        "message": "invalid JSON schema for response_format: 'answer': /additionalProperties: `additionalProperties:false` "
        "must be set on every object",
        "param": "response_format",
    },
    "LiteLLM, a schema": {
        "message": "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - Invalid schema for "
        "response_format 'answer': In context=(), 'required' is required to be supplied and to be an array.",
        "param": None,
        "code": "400",
    },
    "a schema, by its place": {
        "message": "Input should be a valid dictionary",
        "param": "response_format.json_schema.schema",
    },
    "OpenAI, a schema's name": {
        "message": "Invalid 'response_format.json_schema.name': string does not match pattern.",
        "param": "response_format.json_schema.name",
    },
    "vLLM, a schema": {"message": "The provided JSON schema contains features not supported by xgrammar (response_format)."},
    "llama.cpp, a schema": {"message": 'JSON schema conversion failed: Unrecognized schema: {"type":"x"}'},
    "too large a limit": {"message": "max_tokens is too large: 20. This model supports at most 16.", "param": "max_tokens"},
}


@pytest.mark.parametrize("error", STAYS.values(), ids=list(STAYS))
def test_what_the_user_configured_is_never_left_out_silently_and_seed_is_no_guess(error: dict[str, Any]) -> None:
    with ChatServer(lambda *_: Wire(400, {"error": error})) as server:
        with pytest.raises(UsageError) as caught:
            asked(server, count=100, temperature=1.5, logprobs=50, choices=["yes"], options={"reasoning_effort": "low"})
        kept = {"temperature", "seed", "reasoning_effort", "max_tokens", "logprobs", "top_logprobs", "response_format"}
        assert all(kept <= body.keys() for body in server.requests)
    assert "seed" not in caught.value.message + caught.value.hint
