"""What a recipe may say about an endpoint, and what is refused before a request is sent or a file is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Wire
from engine_contract import ask

from seqdistill.cli import main
from seqdistill.engines import Completion, Pace, Request, open_engine
from seqdistill.engines.models import identity
from seqdistill.engines.options import addresses, check_options
from seqdistill.errors import UsageError
from seqdistill.recipe.reading import check_tables
from seqdistill.recipe.tables import ModelConfig


def model(**settings: Any) -> ModelConfig:
    return ModelConfig(**{"model": "teacher", "engine": "openai", "base_url": ["http://localhost:1/v1"], **settings})


def answer_of(server: ChatServer, **settings: Any) -> Completion:
    request = Request("p", [{"role": "user", "content": "question 1"}], 20)
    return ask(open_engine(model(**{"base_url": [server.url], **settings}), Pace(retries=0)), [request])["p"]


OWNED = ["model", "messages", "n", "stream", "max_tokens", "max_completion_tokens", "seed", "logprobs", "top_logprobs"]
LLAMA_CPP = ["n_predict", "n_cmpl", "n_probs", "max_gen_len", "max_tokens_to_sample"]
REFUSED: dict[str, dict[str, Any]] = {
    **{
        f"options {name}": {"options": {name: 1}}
        for name in [*OWNED, "temperature", "top_p", "best_of", "extra_body", "models", "N", "num_return_sequences", *LLAMA_CPP]
    },
    **{f"body {name}": {"body": {name: 1}} for name in OWNED},
    **{f"body {name}": {"body": {name: 9}} for name in ("maxTokens", "max-tokens", "maxOutputTokens", "fallbacks", "input")},
    **{
        f"body {outer}.{inner}": {"body": {outer: {inner: 9}}}
        for outer, inner in (
            ("options", "num_predict"),
            ("parameters", "max_new_tokens"),
            ("generationConfig", "maxOutputTokens"),
            ("generation_config", "candidate_count"),
            ("options", "n_predict"),
            ("sampling_params", "nPredict"),
            ("extra_body", "top_k"),
        )
    },
    "Gemini's own, with a limit": {"body": {"extra_body": {"google": {"generation_config": {"max_output_tokens": 9}}}}},
    "Gemini's own, and more": {"body": {"extra_body": {"google": {}, "max_tokens": 9}}},
    **{
        f"omit {name}": {"options": {"omit": [name]}}
        for name in ("max_tokens", "max_completion_tokens", "model", "messages", "n")
    },
    "omit in the body": {"body": {"omit": ["max_tokens"]}},
    "chat_template_kwargs, a text": {"options": {"chat_template_kwargs": "no"}},
    "omit, a text": {"options": {"omit": "seed"}},
    "omit, numbers": {"options": {"omit": [1]}},
    "a header's key": {"headers": {"api-key": "0123456789abcdef"}},
    "a header's token": {"headers": {"X-Auth-Token": "abc"}},
    "a header that looks like a key": {"headers": {"X-Other": "sk-proj-0123456789abcdef"}},
    "Bearer": {"headers": {"Authorization": "Bearer abc"}},
    "a line break": {"headers": {"X-A": "a\r\nb"}},
    "a list": {"headers": {"X-A": ["a"]}},
    "a query's key": {"query": {"key": "abc"}},
    "a key in the body": {"body": {"provider": {"auth": ["sk-proj-0123456789abcdef"]}}},
    "a password in a URL": {"base_url": ["https://me:hunter2@host/v1"]},
    "a user in a URL": {"base_url": ["https://hunter2@host/v1"]},
    "a key in a URL": {"base_url": ["https://host/v1?api_key=hunter2"]},
    "tags": {"reasoning_tags": ["<think>"]},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=list(REFUSED))
def test_what_the_engine_owns_and_what_is_secret_is_refused_before_anything_is_sent(settings: dict[str, Any]) -> None:
    for check in (check_options, open_engine):
        with pytest.raises(UsageError) as caught:
            check(model(**settings))
        shown = caught.value.message + caught.value.hint
        assert caught.value.hint
        assert not any(secret in shown for secret in ("hunter2", "0123456789abcdef", "Bearer abc"))


@pytest.mark.parametrize("table", ["teacher", "judge"])
@pytest.mark.parametrize("name", ["a header's key", "Bearer", "a query's key", "a password in a URL", "a key in a URL"])
def test_a_secret_in_a_recipe_is_refused_where_it_is_read(table: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"recipe\.toml: \[{table}\]"):
        check_tables({table: REFUSED[name]}, "recipe.toml")


ALLOWED: list[dict[str, Any]] = [
    {
        "options": {
            "top_k": 5,
            "reasoning_effort": "low",
            "stop": ["\n"],
            "omit": ["seed", "temperature"],
            "prompt_cache_key": "a",
        }
    },
    {"body": {"provider": {"order": ["x"]}, "response_format": {"type": "json_object"}}},
    {"headers": {"HTTP-Referer": "https://example.org", "X-Title": "seqdistill", "anthropic-version": "2023-06-01"}},
    {"headers": {"api-key": "$AZURE_KEY", "Authorization": "Basic ${AUTH}"}, "query": {"api-version": "2024-06-01"}},
    {"base_url": ["https://x.openai.azure.com/openai/deployments/d?api-version=2024-06-01"]},
    {"options": {"extra_body": {"google": {"thinking_config": {"include_thoughts": True}}}}},
    {"reasoning_tags": ["<plan>...</plan>"], "stream": True, "chat_template_kwargs": {"enable_thinking": False}},
]


@pytest.mark.parametrize("settings", ALLOWED)
def test_what_an_endpoint_may_need_is_allowed(settings: dict[str, Any]) -> None:
    check_options(model(**settings))
    check_tables({"teacher": settings}, "recipe.toml")


@pytest.mark.parametrize("name", ["headers", "query", "body", "stream"])
def test_what_goes_over_http_is_refused_for_an_engine_on_this_machine(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} with the transformers engine"):
        check_options(model(**{"engine": "transformers", name: True if name == "stream" else {"a": "b"}}))


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
def test_a_base_url_may_be_the_whole_uri(end: str) -> None:
    (address,) = addresses(model(base_url=[f"https://x.openai.azure.com/openai/deployments/d{end}?api-version=2024-06-01"]))
    assert address.url.rstrip("/") == "https://x.openai.azure.com/openai/deployments/d"
    assert "chat/completions" not in address.name and address.query == {"api-version": "2024-06-01"}


def test_azure_s_classic_url_headers_query_and_body_reach_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "secret-0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", "another-provider-s")
    with ChatServer() as server:
        url = server.url.replace("/v1", "/openai/deployments/teacher?api-version=2024-06-01")
        settings = {"headers": {"api-key": "$AZURE_KEY", "X-Price": "$$5"}, "query": {"trace": "a b"}, "body": {"top_k": 5}}
        kwargs = {"chat_template_kwargs": {"enable_thinking": False}}
        assert answer_of(server, base_url=[url], **settings, **kwargs).error is None
    assert server.paths == ["/openai/deployments/teacher/chat/completions?api-version=2024-06-01&trace=a+b"]
    assert (server.headers[0]["api-key"], server.headers[0]["x-price"]) == ("secret-0123456789", "$5")
    assert "authorization" not in server.headers[0], "a second key is refused by some, and is another provider's"
    assert (server.requests[0]["top_k"], server.requests[0]["chat_template_kwargs"]) == (5, {"enable_thinking": False})


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_key_in_a_header_is_not_sent_where_a_redirect_leads(elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "secret-0123456789")
    with ChatServer() as server, ChatServer() as other:
        place = f"http://127.0.0.1:{other.port}" if elsewhere else ""
        moved = Wire(307, b"", {"Location": f"{place}/v1/chat/completions"})
        server.fault = lambda number, _: moved if number == 0 else None
        assert answer_of(server, headers={"api-key": "$AZURE_KEY"}).error is None
        assert ["api-key" in headers for headers in server.headers] == [True] * (1 if elsewhere else 2)
        assert not any("secret" in value for headers in other.headers for value in headers.values())
        assert len(other.headers) == elsewhere


def test_a_variable_that_is_not_set_is_named_and_a_header_s_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the environment variable NO_SUCH_KEY is not set"):
        open_engine(model(headers={"api-key": "$NO_SUCH_KEY"}))
    monkeypatch.setenv("MY_AUTH", "Basic c2VjcmV0LTAxMjM=")
    with ChatServer(key="other") as server, pytest.raises(UsageError, match=r"Basic \*\*\*") as caught:
        answer_of(server, headers={"Authorization": "$MY_AUTH"})
    assert "c2VjcmV0" not in caught.value.message


@pytest.mark.parametrize(
    "flags",
    [
        ["--teacher-base-url", "http://me:hunter2@127.0.0.1:9/v1"],
        ["--teacher-base-url", "http://127.0.0.1:9/v1?key=hunter2"],
        ["--set", 'teacher.headers={"api-key"="hunter2"}'],
        ["--set", 'teacher.query={"key"="hunter2"}'],
        ["--set", 'teacher.base_url=["http://me:hunter2@127.0.0.1:9/v1"]'],
    ],
)
def test_a_secret_on_the_command_line_is_an_error_that_keeps_it_nowhere(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hi"}\n')
    start = ["generate", str(tmp_path / "run"), "--prompts", str(tmp_path / "prompts.jsonl"), "--teacher-engine", "openai"]
    assert main([*start, "--teacher", "teacher", *flags]) == 2
    assert "hunter2" not in "".join(capsys.readouterr())
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


def test_a_secret_in_the_environment_s_settings_is_kept_nowhere_whatever_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQDISTILL_TEACHER_BASE_URL", "http://me:hunter2@127.0.0.1:9/v1")
    assert main(["train", str(tmp_path / "run")]) == 2
    assert "user and password" in (said := "".join(capsys.readouterr())) and "hunter2" not in said
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()] == []


def test_what_changes_no_answer_is_not_in_the_identity_and_what_does_is() -> None:
    plain = identity(model())
    assert plain == "teacher"
    neutral = {"service_tier": "flex", "user": "me", "metadata": {"a": "b"}, "store": False, "safety_identifier": "x"}
    assert identity(model(options={**neutral, "omit": ["seed"]}, body={"prompt_cache_key": "x"})) == plain
    assert identity(model(options={"top_k": 5})) == "teacher+6d60acc3", "as it was before there were neutral ones"
    assert identity(model(options={"top_k": 5, "service_tier": "flex"})) == identity(model(options={"top_k": 5}))
    others = [
        model(body={"top_k": 6}),
        model(chat_template_kwargs={"enable_thinking": False}),
        model(options={"omit": ["top_p"]}),
    ]
    assert len({plain, *map(identity, others)}) == 4
    assert identity(model(headers={"a": "b"}, query={"a": "b"}, stream=True, api_key_env=["A"])) == plain


def test_the_form_of_an_answer_is_the_request_s_and_no_option_replaces_it() -> None:
    with ChatServer() as server:
        engine = open_engine(model(base_url=[server.url], body={"response_format": {"type": "json_object"}}))
        for choices in (None, ["yes", "no"]):
            ask(engine, [Request("p", [{"role": "user", "content": "question 1"}], 20, choices=choices)])
    assert [body["response_format"]["type"] for body in server.requests] == ["json_object", "json_schema"]


def test_a_repeated_request_is_sent_as_the_first_was() -> None:
    with ChatServer() as server:
        engine = open_engine(model(base_url=[server.url]))
        for again in (0, 1):
            ask(engine, [Request("p", [{"role": "user", "content": "question 1"}], 20, again=again)])
    assert json.dumps(server.requests[0]) == json.dumps(server.requests[1])
