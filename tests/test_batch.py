"""Asking through a real Batch endpoint: nothing is billed twice, whatever is killed when; half the price; parts and budget."""

import contextlib
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from chat_server import Body, ChatServer, Wire, answer
from generate_runs import PRICE, Child, main_in_child, priced, prompts_file, recipe, run_it
from test_dialect import REFUSED

from seqdistill.cli import main
from seqdistill.engines import dialect, openai_batch
from seqdistill.errors import Incomplete, SeqdistillError, UsageError
from seqdistill.journal import batches
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, OneOfTeachers, Recipe, TaskConfig
from seqdistill.records import read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.estimate import estimate
from seqdistill.stages.generate.stage import GenerateResult, generate

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(batches, "LOOK_AGAIN_SECONDS", 0.5)


def steps(folder: Path) -> list[str]:
    return [json.loads(line)["step"] for line in (folder / "run/generate/batches.jsonl").read_text().splitlines()]


def unbatched(folder: Path, questions: range, **settings: Any) -> bytes:
    (folder / "live").mkdir()
    with ChatServer() as server:
        return run_it(folder / "live", server, questions, **settings).path.read_bytes()


def again(folder: Path, asked: Recipe) -> GenerateResult:
    return generate(Run(folder / "run"), asked, Silent())


def number_of(body: Body) -> int:
    return int(body["messages"][0]["content"].split()[-1])


def test_batched_samples_are_byte_for_byte_those_of_a_live_run(tmp_path: Path) -> None:
    with BatchServer(looks=3) as server:
        result = run_it(tmp_path, server, range(20), samples=2, batch=True)
    assert (result.new, result.failed) == (40, 0)
    assert server.requests == [], "nothing went to the chat endpoint"
    assert steps(tmp_path) == ["submitting", "submitted", "collected"]
    assert result.path.read_bytes() == unbatched(tmp_path, range(20), samples=2)


def test_a_batch_costs_half_and_a_resumed_run_counts_it_so(tmp_path: Path) -> None:
    with BatchServer() as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(10)), batch=True))
        first = again(tmp_path, asked)
        assert [first.usd, first.spent_usd] == pytest.approx([server.billed_usd(PRICE) / 2] * 2)
        prompts_file(tmp_path, range(14))
        assert again(tmp_path, asked).spent_usd == pytest.approx(server.billed_usd(PRICE) / 2)
        estimated = estimate(Run(tmp_path / "run"), priced(asked, {**PRICE, "batch": 0.25}), Silent())
        assert estimated.usd is not None
        assert estimated.usd < server.billed_usd(PRICE) * 0.3


def test_what_failed_or_expired_is_submitted_by_the_next_run_alone(tmp_path: Path) -> None:
    def fate(body: Body) -> str | None:
        return {3: "fail", 5: "expire", 6: "expire"}.get(number_of(body))

    with BatchServer(fate=fate) as server:
        with pytest.raises(Incomplete, match="3 of 10 requests have no answer") as caught:
            run_it(tmp_path, server, range(10), batch=True)
        assert "run again to retry 3" in caught.value.hint
        failures = [json.loads(line) for line in (tmp_path / "run/generate/failures.jsonl").read_text().splitlines()]
        assert [line["error"] for line in failures] == ["http 400", "batch_expired", "batch_expired"]
        server.fate = None
        assert run_it(tmp_path, server, range(10), batch=True).new == 3
    assert set(server.answered.values()) == {1}
    assert (tmp_path / "run/generate/samples.jsonl").read_bytes() == unbatched(tmp_path, range(10))


@pytest.mark.parametrize(("name", "wire"), REFUSED.values(), ids=list(REFUSED))
def test_a_field_that_is_refused_in_a_batch_is_left_out_in_the_next(tmp_path: Path, name: str, wire: Wire) -> None:
    with BatchServer(fate=lambda body: wire if name in body else None) as server:
        result = run_it(tmp_path, server, range(4), batch=True, temperature=0, logprobs=2, top_p=0.9, schema=SCHEMA)
    assert (result.new, result.failed, len(server.batches)) == (4, 0, 2)


def test_what_a_batch_refuses_for_ever_is_not_submitted_for_ever(tmp_path: Path) -> None:
    refusal = Wire(400, {"error": {"message": "temperature is not supported", "param": "temperature"}})
    with BatchServer(fate=lambda _: refusal) as server, pytest.raises(Incomplete, match="temperature is not supported"):
        run_it(tmp_path, server, range(4), batch=True)
    assert len(server.batches) == 1 + dialect.ADAPTIONS


def test_what_the_first_answers_teach_holds_for_the_batches_after_them(tmp_path: Path) -> None:
    def fault(_: int, body: Body) -> Wire | None:
        return REFUSED["OpenAI, gpt-5"][1] if "temperature" in body else None

    with BatchServer(fault=fault, fate=lambda body: "fail" if "temperature" in body else None) as server:
        asked = recipe(server, prompts_file(tmp_path, range(20)), batch=True, temperature=0)
        assert generate(Run(tmp_path / "run"), asked, Silent(), lambda _: None).new == 20
    assert len(server.batches) == 1


def test_an_answer_that_is_none_counts_at_its_worst_once(tmp_path: Path) -> None:
    with BatchServer(fate=lambda body: {2: "garbage", 4: "silent"}.get(number_of(body))) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(6)), batch=True))
        for _ in range(2):
            with pytest.raises(Incomplete, match="2 of 6"):
                again(tmp_path, asked)
        manifest = Run(tmp_path / "run").manifest("generate")
        assert manifest is not None
        paid, assumed = manifest["spent_usd"], manifest["assumed_usd"]
        assert paid < server.billed_usd(PRICE) / 2 <= paid + assumed
        assert assumed == pytest.approx(2 * 2 * 0.2, rel=0.5), "two answers a run that nobody knows, at half the price"


def test_a_batch_that_fails_validation_says_why(tmp_path: Path) -> None:
    with BatchServer() as server:
        server.invalid = "Enqueued token limit reached"
        with pytest.raises(Incomplete, match="Enqueued token limit reached"):
            run_it(tmp_path, server, range(4), batch=True)
        server.invalid = None
        assert run_it(tmp_path, server, range(4), batch=True).new == 4


@pytest.mark.parametrize("first_part", [100, 6])
def test_what_the_queue_has_no_room_for_is_split_and_submitted_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_part: int
) -> None:
    monkeypatch.setattr(openai_batch, "MOST_REQUESTS", first_part)
    with BatchServer(looks=3) as server:
        server.queue = 7
        assert run_it(tmp_path, server, range(40), batch=True).new == 40
        assert len(server.batches) < 20
        server.queue = 0
        with pytest.raises(Incomplete, match=r"3 of 43 .*Enqueued token limit reached"):
            run_it(tmp_path, server, range(43), batch=True)
        assert len(server.batches) < 25, "not one for each request"
        server.queue = None
        assert run_it(tmp_path, server, range(43), batch=True).new == 3
    assert set(server.answered.values()) == {1}


def test_many_requests_go_in_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_batch, "MOST_REQUESTS", 4)
    with BatchServer() as server:
        run_it(tmp_path, server, range(10), batch=True)
        assert len(server.batches) == 3
        monkeypatch.setattr(openai_batch, "MOST_BYTES", 300)
        run_it(tmp_path, server, range(13), batch=True)
        assert len(server.batches) == 6, "each line is more than half of 300 bytes"
    assert set(server.answered.values()) == {1}


def test_only_what_the_budget_allows_at_its_worst_is_submitted(tmp_path: Path) -> None:
    with BatchServer(looks=2) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(40)), batch=True, budget=1.5))
        with pytest.raises(Incomplete, match=r"the budget of 1\.5 USD is reached"):
            again(tmp_path, asked)
        assert 1.0 < server.billed_usd(PRICE) / 2 <= 1.5, "the cap is used over several batches"
        assert again(tmp_path, replace(asked, generate=replace(asked.generate, budget=None))).samples == 40
    assert set(server.answered.values()) == {1}


def test_a_bill_from_an_endpoint_whose_price_is_0_ends_a_capped_run_after_the_first_answer(tmp_path: Path) -> None:
    def billed(body: Body) -> Body:
        return {**answer(body), "usage": {**answer(body)["usage"], "cost": 7.0}}

    with BatchServer(reply=billed) as server:
        asked = priced(
            recipe(server, prompts_file(tmp_path, range(40)), batch=True, budget=10.0), {"prompt": 0, "completion": 0}
        )
        with pytest.raises(UsageError, match=r"a bill of 7\.000000 USD for an answer, and the configured price is 0"):
            again(tmp_path, asked)
        assert len(server.usages) == 1


def test_teachers_prompted_side_by_side_keep_to_one_budget(tmp_path: Path) -> None:
    with BatchServer(model="one") as one, BatchServer(model="two") as two:
        teachers = [OneOfTeachers(model=s.model, engine="openai", base_url=[s.url], price=PRICE) for s in (one, two)]
        settings = GenerateConfig(max_tokens=20, temperature=1.0, batch=True, budget=1.5)
        task = TaskConfig(prompts=str(prompts_file(tmp_path, range(40))))
        asked = Recipe(task=task, teachers=teachers, generate=settings)
        with pytest.raises(Incomplete, match=r"the budget of 1\.5 USD is reached"):
            again(tmp_path, asked)
        submitted = [len(server.files["file-1"].splitlines()) for server in (one, two) if server.files]
        assert sum(submitted) * 0.24 <= 1.5, "the upper bound of one of them"
        assert again(tmp_path, replace(asked, generate=replace(settings, budget=None))).samples == 80
        assert {*one.answered.values(), *two.answered.values()} == {1}


HOSTILE = {
    "html": b"<html>gateway</html>",
    "a list": b"[1]",
    "nothing": b"{}",
    "odd fields": b'{"id": "b", "status": "in_progress", "metadata": "x", "request_counts": "y", "errors": [1]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("call", ["POST files", "POST batches", "GET batches/ID", "GET files/ID/content"])
@pytest.mark.parametrize("said", HOSTILE.values(), ids=list(HOSTILE))
def test_an_answer_that_no_batch_api_gives_is_reported_and_not_billed_again(tmp_path: Path, call: str, said: bytes) -> None:
    class Odd(BatchServer):
        def _do(self, now: str, parts: list[str], query: str, content: bytes) -> tuple[int, Body | bytes]:
            status, reply = super()._do(now, parts, query, content)
            if now != call or self.calls.count(call) > 1:
                return status, reply
            return status, said

    with Odd() as server:
        try:
            assert run_it(tmp_path, server, range(4), batch=True).samples == 4
        except Incomplete as error:
            assert "4 of 4 requests have no answer" in error.message
        assert run_it(tmp_path, server, range(4), batch=True).samples == 4
        assert set(server.answered.values()) == {1}, "whatever was said, it is paid for once"


class Answering(BatchServer):
    """Sends the lines of a batch's answers changed."""

    def __init__(self, changed: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._changed = changed

    def _do(self, call: str, parts: list[str], query: str, content: bytes) -> tuple[int, Body | bytes]:
        status, reply = super()._do(call, parts, query, content)
        if call == "GET files/ID/content":
            assert isinstance(reply, bytes)
            return status, self._changed(reply)
        return status, reply


TOKENS = {"prompt_tokens": 6, "completion_tokens": 3}
WHOLE = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": TOKENS}
GONE = {"code": 502, "message": "upstream gone"}


@pytest.mark.parametrize(
    ("response", "finish", "says"),
    [
        ({"status_code": "200", "body": WHOLE}, "stop", ""),
        (
            {"status_code": 200, "body": {"choices": [], "usage": {"prompt_tokens": 6, "completion_tokens": 0}}},
            "content_filter",
            "",
        ),
        ({"status_code": 400, "body": {"error": {"message": "flagged", "code": "content_filter"}}}, "content_filter", ""),
        ({"status_code": 200, "body": {**WHOLE, "choices": [{**WHOLE["choices"][0], "error": GONE}]}}, None, "upstream gone"),
        ({"status_code": 200, "body": {"error": {"message": "rate limit", "code": 429}}}, None, "rate limit"),
        ({"status_code": 400, "body": {"error": {"message": "input is too long"}}}, None, "too long"),
    ],
)
def test_a_line_of_the_answers_is_read_as_a_live_reply(tmp_path: Path, response: Body, finish: str | None, says: str) -> None:
    def changed(lines: bytes) -> bytes:
        first, *others = lines.splitlines()
        return b"\n".join([json.dumps({**json.loads(first), "response": response}).encode(), *others])

    with Answering(changed) as server:
        if finish is None:
            with pytest.raises(Incomplete, match=f"1 of 4 requests have no answer.*{says}"):
                run_it(tmp_path, server, range(4), batch=True)
        else:
            result = run_it(tmp_path, server, range(4), batch=True)
            found = {(one.text, one.finish_reason) for one in read_samples(result.path)}
            assert ("yes" if finish == "stop" else "", finish) in found
            with Journal(tmp_path / "run/generate/journal.jsonl", writable=False) as journal:
                assert len(journal.spending.holds) == (response["status_code"] == 400), "it may be billed"


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"custom_id": %s}' % (b"9" * 5000), b'{"x": 1e999}', b"\xff", b'"x"'])
def test_a_line_of_the_answers_that_cannot_be_read_leaves_the_others(tmp_path: Path, line: bytes) -> None:
    def changed(lines: bytes) -> bytes:
        return line + b"\n" + lines.replace(b'"usage":', b'"x": [-Infinity, 1e999], "usage":') + lines

    with Answering(changed) as server:
        assert run_it(tmp_path, server, range(4), batch=True).samples == 4


def test_an_endpoint_without_a_batch_api_is_reported(tmp_path: Path) -> None:
    with ChatServer() as server, pytest.raises(UsageError, match="this endpoint has no batch API") as caught:
        run_it(tmp_path, server, range(3), batch=True)
    assert "run without --batch" in caught.value.hint
    with BatchServer() as server, pytest.raises(UsageError, match="the transformers engine has no batch API"):
        asked = recipe(server, prompts_file(tmp_path, range(3)), batch=True)
        again(tmp_path, replace(asked, teacher=replace(asked.teacher, engine="transformers", model="x")))


@pytest.mark.parametrize("call", ["POST files", "POST batches", "GET batches/ID", "GET files/ID/content"])
def test_a_lost_reply_is_no_second_bill(tmp_path: Path, call: str) -> None:
    with BatchServer() as server:
        server.drop = call
        assert run_it(tmp_path, server, range(8), batch=True).new == 8
        assert server.drop != call
    assert set(server.answered.values()) == {1}
    assert len(server.batches) == 1


def test_a_live_run_does_not_pay_for_what_is_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PATIENCE_LOOKS", 2)
    with BatchServer(looks=1000) as server:

        def gone(call: str, _: str) -> None:
            if call == "GET batches/ID":
                raise ConnectionError

        server.hook = gone
        with pytest.raises(Incomplete):
            run_it(tmp_path, server, range(5), batch=True)
        server.hook, server.looks = None, 1
        with pytest.raises(UsageError, match=r"are in a batch at .* already") as caught:
            run_it(tmp_path, server, range(5))
        assert "--batch" in caught.value.hint
        other = replace(recipe(server, prompts_file(tmp_path, range(5)), batch=True))
        moved = replace(other, teacher=replace(other.teacher, base_url=["http://127.0.0.1:9/v1"]))
        with pytest.raises(UsageError, match=r"is at http.*, not at http"):
            again(tmp_path, moved)
        server.stop()
        with server:  # days later
            assert run_it(tmp_path, server, range(3, 7), batch=True).new == 4
    assert set(server.answered.values()) == {1}


def test_an_edited_prompt_pays_for_itself_alone_while_a_batch_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run/generate/batches.jsonl"
    with BatchServer() as server:
        run_it(tmp_path, server, range(5), batch=True)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) + b'{"step": "coll')  # killed while writing the last step
        run_it(tmp_path, server, range(8), batch=True)
    assert set(server.answered.values()) == {1}
    assert steps(tmp_path).count("collected") == 2
    path.write_bytes(b"x\n" + path.read_bytes())
    with pytest.raises(SeqdistillError, match=r"batches\.jsonl:1: not a step of a batch"):
        run_it(tmp_path, server, range(9), batch=True)


# --- killed -----------------------------------------------------------------------------------------------------------


def arguments(server: BatchServer, folder: Path) -> list[str]:
    start = ["generate", str(folder / "run"), "--prompts", str(folder / "prompts.jsonl"), "--temperature", "1", "--batch"]
    start += ["--max-tokens", "20", "--teacher", "teacher", "--teacher-engine", "openai"]
    return [*start, "--teacher-base-url", server.url]


def struck(server: BatchServer, folder: Path, call: str, phase: str, how: int, wait: float = 0.0) -> int:
    """Starts a generate and signals it at one moment of one call; returns its exit code."""
    child = Child(target=main_in_child, args=(arguments(server, folder),))
    hit: list[str] = []

    def strike(now: str, at: str) -> None:
        if (now, at) == (call, phase) and not hit:
            hit.append(now)
            time.sleep(wait)
            os.kill(child.pid or 0, how)
            if how == signal.SIGKILL:
                child_dead(child)

    server.hook = strike
    child.start()
    child.join(60)
    server.hook = None
    assert hit
    assert child.exitcode is not None
    return child.exitcode


def main_until_a_file_is_big(arguments: list[str], size: int) -> None:
    """The kernel kills the process when a file, which is the journal, would grow beyond a number of bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    main_in_child(arguments)


def child_dead(child: Any) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # reaped meanwhile
        while Path(f"/proc/{child.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.001)


MOMENTS = [
    ("POST files", "before"),
    ("POST files", "after"),
    ("POST batches", "before"),
    ("POST batches", "after"),
    ("GET batches/ID", "before"),
    ("GET batches/ID", "after"),
    ("GET files/ID/content", "before"),
    ("GET files/ID/content", "after"),
]


@pytest.mark.parametrize(("call", "phase"), MOMENTS)
def test_killed_at_any_step_nothing_is_billed_twice_and_the_bytes_are_the_same(tmp_path: Path, call: str, phase: str) -> None:
    prompts_file(tmp_path, range(30))
    with BatchServer() as server:
        assert struck(server, tmp_path, call, phase, signal.SIGKILL) == -signal.SIGKILL
        assert main(arguments(server, tmp_path)) == 0
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 30
    live = unbatched(tmp_path, range(30))
    assert (tmp_path / "run/generate/samples.jsonl").read_bytes() == live


def test_killed_while_the_answers_are_stored_the_rest_is_read_again(tmp_path: Path) -> None:
    prompts_file(tmp_path, range(2000))
    journal = tmp_path / "run/generate/journal.jsonl"
    with BatchServer() as server:
        child = Child(target=main_until_a_file_is_big, args=(arguments(server, tmp_path), 800_000))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGXFSZ
        stored = journal.read_bytes().count(b"\n")
        assert 0 < stored < 2000
        assert main(arguments(server, tmp_path)) == 0
        assert set(server.answered.values()) == {1}
        keys = [row["key"] for line in journal.read_text().splitlines() if "key" in (row := json.loads(line))]
        assert len(keys) == len(set(keys)) == 2000
    assert len(list(read_samples(tmp_path / "run/generate/samples.jsonl"))) == 2000


def test_a_submission_that_arrives_after_the_kill_cannot_be_made_twice(tmp_path: Path) -> None:
    """The batch is neither there nor listed when the next run looks; without its input file it cannot be made later."""
    prompts_file(tmp_path, range(5))
    with BatchServer() as server:
        late = server.held = threading.Event()
        assert struck(server, tmp_path, "POST batches", "before", signal.SIGKILL) == -signal.SIGKILL
        server.held = None
        assert main(arguments(server, tmp_path)) == 0
        late.set()
        assert server.made_late.wait(30)
        assert set(server.answered.values()) == {1}
        assert steps(tmp_path)[:2] == ["submitting", "never submitted"]


def test_ctrl_c_while_waiting_exits_130_and_the_next_run_takes_the_same_batch(tmp_path: Path) -> None:
    prompts_file(tmp_path, range(10))
    with BatchServer(looks=3) as server:
        assert struck(server, tmp_path, "GET batches/ID", "after", signal.SIGINT) == 130
        assert main(arguments(server, tmp_path)) == 0
        assert len(server.batches) == 1
        assert set(server.answered.values()) == {1}
