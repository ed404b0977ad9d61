"""Answers that ended badly, or are empty, are requested once more, and what a run could not get is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from endpoint_requests import number_of
from generate_runs import prompts_file, recipe, run_it

from seqdistill.cli import main
from seqdistill.engines import Request
from seqdistill.errors import UsageError
from seqdistill.journal.storage import request_key
from seqdistill.progress import Silent
from seqdistill.runs import Run
from seqdistill.stages.generate.plan import teachers_of
from seqdistill.stages.generate.stage import generate

THOUGHT = {"role": "assistant", "content": "", "reasoning": "so it may be"}


def first(server_of: list[ChatServer], **changes: Any) -> Any:
    """A reply that is changed for questions 2, 3 and 5 the first time each is sent."""

    def reply(body: Body) -> Body:
        said = answer(body)
        seen = server_of[0].answered[json.dumps([body["messages"], body.get("seed")])]
        if number_of(body) in (2, 3, 5) and seen == 1:
            said["choices"][0] |= changes
        return said

    return reply


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"message": THOUGHT, "finish_reason": "stop"}, "empty"),
        ({"message": THOUGHT, "finish_reason": "length"}, "length"),
        ({"message": THOUGHT, "finish_reason": "content_filter"}, "content_filter"),
        ({"finish_reason": "weird"}, "weird"),
        ({"finish_reason": "weird"}, "unknown"),
    ],
)
def test_what_ended_so_is_requested_once_more_with_the_same_body_and_paid_once_more(
    tmp_path: Path, changes: Body, reason: str
) -> None:
    servers: list[ChatServer] = []
    with ChatServer(reply=first(servers, **changes)) as server:
        servers.append(server)
        before = run_it(tmp_path, server, range(8), max_tokens=100)
        assert len(server.requests) == 8
        after = run_it(tmp_path, server, range(8), max_tokens=100, ask_again=[reason])
        assert len(server.requests) == 11
        for body in server.requests[8:]:
            assert body in server.requests[:8]
        assert (after.new, after.empty, after.finish_reasons) == (3, 0, {"stop": 8})
        assert run_it(tmp_path, server, range(8), max_tokens=100, ask_again=[reason]).up_to_date
        assert run_it(tmp_path, server, range(8), max_tokens=100).finish_reasons == before.finish_reasons
        assert len(server.requests) == 11, "each is in the journal"


def test_the_first_request_s_key_is_what_it_always_was() -> None:
    request = Request("p", [{"role": "user", "content": "hi"}], 20)
    assert request_key(request, "teacher") == "9f5233fb3b6673f459ca73eb667b3744"
    assert request_key(Request("p", [{"role": "user", "content": "hi"}], 20, again=1), "teacher") != request_key(
        request, "teacher"
    )


def test_empty_answers_that_were_paid_are_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers: list[ChatServer] = []
    prompts_file(tmp_path, range(8))
    with ChatServer(reply=first(servers, message=THOUGHT, finish_reason="length")) as server:
        servers.append(server)
        start = ["generate", str(tmp_path / "run"), "--prompts", str(tmp_path / "prompts.jsonl"), "--teacher", "teacher"]
        assert main([*start, "--teacher-engine", "openai", "--teacher-base-url", server.url]) == 0
        said = capsys.readouterr().out
        assert "3 answers, 3 of them reasoning alone: raise --max-tokens" in said
        assert main([*start, "--ask-again", "empty"]) == 0
        assert "reasoning alone" not in capsys.readouterr().out


def test_log_probabilities_that_an_endpoint_leaves_out_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts_file(tmp_path, range(5))

    def reply(body: Body) -> Body:
        return answer({**body, "logprobs": number_of(body) == 1})

    with ChatServer(reply=reply) as server:
        start = ["generate", str(tmp_path / "run"), "--prompts", str(tmp_path / "prompts.jsonl"), "--teacher", "teacher"]
        assert main([*start, "--teacher-engine", "openai", "--teacher-base-url", server.url, "--logprobs", "2"]) == 0
    assert "4 of 5 answers have none" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("choices", [["yes ", "no"], [" yes", "no"], ["yes", "no\n"]])
def test_a_choice_that_no_answer_can_meet_is_refused(choices: list[str], tmp_path: Path) -> None:
    with ChatServer() as server, pytest.raises(UsageError, match="white space, so no answer can meet it"):
        run_it(tmp_path, server, range(2), choices=choices)


def test_fenced_answers_to_choices_and_a_schema_are_read(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        schema = body["response_format"]["json_schema"]["schema"]["properties"]
        text = json.dumps({"choice": "yes"} if "choice" in schema else {"a": 1})
        return {**answer(body), "choices": [{"message": {"content": f"```json\n{text}\n```"}, "finish_reason": "stop"}]}

    with ChatServer(reply=reply) as server:
        for name, settings, content in (
            ("choices", {"choices": ["yes", "no"]}, "yes"),
            ("schema", {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}, '{"a": 1}'),
        ):
            (tmp_path / name).mkdir()
            path = run_it(tmp_path / name, server, range(2), **settings).path
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert [row["completion"][0]["content"] for row in rows] == [content] * 2


def test_a_wrong_option_of_the_teacher_is_refused_before_a_journal_is_opened(tmp_path: Path) -> None:
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(2)))
        asked.teacher.options["n"] = 4
        with pytest.raises(UsageError, match="n is set by the engine"):
            teachers_of(asked)
        with pytest.raises(UsageError, match="n is set by the engine"):
            generate(Run(tmp_path / "run"), asked, Silent())
        assert not (tmp_path / "run/generate/journal.jsonl").exists()


def test_a_finish_reason_of_null_is_inferred_from_the_limit(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        said["choices"][0]["finish_reason"] = None
        return said

    with ChatServer(reply=reply) as server:
        assert set(run_it(tmp_path, server, range(12), max_tokens=8).finish_reasons) == {"stop", "length"}
