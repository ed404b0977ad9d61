"""What answers cost: counted, estimated, capped, and never paid twice, against a chat server that bills."""

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from batch_server import BatchServer
from chat_server import Body, ChatServer, Fault, answer
from endpoint_requests import number_of
from generate_runs import PRICE, Child, Notes, arguments, killed_after, main_in_child, priced, prompts_file, recipe, run_it
from refusal_shapes import error

from seqdistill.cli import main
from seqdistill.engines import Completion, Request
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal import batches
from seqdistill.journal.budget import Budget, Source
from seqdistill.journal.prices import Price, price_of
from seqdistill.journal.storage import Journal
from seqdistill.progress import Silent
from seqdistill.recipe.tables import OneOfTeachers, TeacherConfig
from seqdistill.runs import Run
from seqdistill.stages.generate.estimate import estimate
from seqdistill.stages.generate.stage import generate


def test_cost_is_counted_with_cached_tokens_at_their_price(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        return {**said, "usage": {**said["usage"], "prompt_tokens_details": {"cached_tokens": 2}}}

    with ChatServer(reply=reply) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(5))))
        result = generate(Run(tmp_path / "run"), asked, Silent())
    expected = (result.prompt_tokens - 10) * 1e-3 + 10 * 1e-4 + result.completion_tokens * 1e-2
    assert result.usd == pytest.approx(expected)
    assert result.spent_usd == pytest.approx(expected)


def test_what_an_endpoint_writes_to_its_cache_unrequested_is_paid_at_the_usual_surcharge(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        tokens = said["usage"]["prompt_tokens"]
        return {**said, "usage": {**said["usage"], "prompt_tokens_details": {"cache_write_tokens": tokens}}}

    with ChatServer(reply=reply) as server:
        result = generate(Run(tmp_path / "run"), priced(recipe(server, prompts_file(tmp_path, range(5)))), Silent())
    assert result.spent_usd == pytest.approx(result.prompt_tokens * 1.25e-3 + result.completion_tokens * 1e-2)


def test_what_is_reported_as_paid_holds_what_other_stages_paid_since(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with ChatServer() as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(5))))
        first = generate(run, asked, Silent()).spent_usd or 0.0
        assert generate(run, asked, Silent()).spent_usd == first > 0
        run.file("eval", "").mkdir()
        shutil.copyfile(run.file("generate", "journal.jsonl"), run.file("eval", "journal.jsonl"))  # as eval pays for answers
        again = generate(run, asked, Silent())
    assert again.up_to_date and again.spent_usd == pytest.approx(2 * first)


def test_what_is_reported_as_paid_holds_what_was_answered_before_the_price_was_known(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with ChatServer() as server:
        generate(run, recipe(server, prompts_file(tmp_path, range(5))), Silent())
        asked = priced(recipe(server, prompts_file(tmp_path, range(9))))
        first = generate(run, asked, Silent()).spent_usd
        assert first == pytest.approx(server.billed_usd(PRICE))
        run.file("eval", "").mkdir()
        with Journal(run.file("eval", "journal.jsonl")) as journal:
            journal.append("judge", [("0" * 32, Request("p", [], 9), Completion("p"))], usd=[0.5])
        assert generate(run, asked, Silent()).spent_usd == pytest.approx(server.billed_usd(PRICE) + 0.5)


@pytest.mark.parametrize("table", ["options", "body"])
def test_what_goes_out_with_every_prompt_is_in_its_upper_bound(table: str) -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f", "description": "long " * 1000}}]}
    request, price = Request("p", [{"role": "user", "content": "question"}], 10), Price(1e6, 0, 1e6)
    plain, with_tools = (
        Source("m", "m", TeacherConfig(model="m", engine="openai", **settings), price).hold([request])
        for settings in ({}, {table: tools})
    )
    assert with_tools.prompt_tokens - plain.prompt_tokens >= 5000


@pytest.mark.parametrize("fault", [None, "reset", "hang", "500"])
def test_the_budget_is_never_gone_over_whatever_fails(tmp_path: Path, fault: str | None) -> None:
    """Each request may be billed up to 0.2 USD; the server bills lost answers too. The cap holds over several runs."""
    strike: Fault = lambda number, _: fault if number % 4 == 1 else None  # noqa: E731
    with ChatServer(strike) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(60)), timeout=0.5 if fault == "hang" else 60.0))
        spent = []
        for budget in (1.5, 1.5, 3.0):
            capped = replace(asked, generate=replace(asked.generate, budget=budget))
            with pytest.raises(Incomplete, match=f"the budget of {budget:g} USD is reached") as caught:
                generate(Run(tmp_path / "run"), capped, Silent())
            assert "raise --budget" in caught.value.hint
            spent.append(server.billed_usd(PRICE))
            assert spent[-1] <= budget
        assert spent[0] == spent[1] < spent[2]
        if fault is None:
            assert spent[2] > 2.0, "the cap is used, not only kept"
            assert generate(Run(tmp_path / "run"), asked, Silent()).samples == 60


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_budget_holds_over_runs_that_were_stopped_with_requests_under_way(tmp_path: Path, how: signal.Signals) -> None:
    prompts_file(tmp_path, range(400))
    prices = [word for name, usd in PRICE.items() for word in ("--set", f"teacher.price.{name}={usd}")]
    dear = {"prompt_tokens": 280, "completion_tokens": 20}  # nearly the worst: 0.48 USD
    with ChatServer(seconds=0.01, reply=lambda body: {**answer(body), "usage": dear}) as server:
        asked = [*arguments(server, tmp_path), "--max-tokens", "20", "--concurrency", "3", "--budget", "6", *prices]
        ends = [killed_after(server, 5, how, Child(target=main_in_child, args=(asked,))) for _ in range(5)]
        time.sleep(0.1)  # the server answers what is under way, and bills it
        assert 4.0 < server.billed_usd(PRICE) <= 6.0
        assert ends[0] == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[how]
        assert ends[-1] == 1, "the budget is reached, whoever had the answers"
        with Journal(tmp_path / "run/generate/journal.jsonl", writable=False) as journal:
            assert journal.spending.held_usd <= ends.count(ends[0]) * 3 * 0.5, "no more than could be under way"


def test_a_lost_reply_to_a_request_for_several_answers_counts_for_all_of_them(tmp_path: Path) -> None:
    price = {"prompt": 0.0, "completion": 10000.0}
    with ChatServer(lambda number, _: "reset" if number % 2 else None) as server:
        asked = recipe(server, prompts_file(tmp_path, range(60)), max_tokens=8, samples=12, samples_per_request=12, budget=12.0)
        with pytest.raises(Incomplete, match="the budget of 12 USD is reached"):
            generate(Run(tmp_path / "run"), priced(asked, price), Silent())
        assert 8.0 < server.billed_usd(price) <= 12.0


def test_the_budget_holds_at_an_endpoint_that_counts_no_tokens_or_wrong_ones(tmp_path: Path) -> None:
    for usage in ({}, {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**9}}):
        with ChatServer(reply=lambda body, reported=usage: {**answer(body), "usage": reported}) as server:
            asked = priced(recipe(server, prompts_file(tmp_path, range(60)), budget=1.5, max_tokens=20))
            if usage:
                assert generate(Run(tmp_path / "wrong"), asked, Silent()).spent_usd == pytest.approx(60 * (0.0001 + 0.01))
                continue
            with pytest.raises(Incomplete, match=r"the budget of 1\.5 USD is reached"):
                generate(Run(tmp_path / "none"), asked, Silent())
            assert 0 < len(server.requests) <= 7, "each may have cost 0.2 USD and more"


def test_the_budget_holds_where_the_endpoint_bills_more_than_the_price_comes_to(tmp_path: Path) -> None:
    def dear(body: Body) -> Body:
        reply = answer(body)
        return {**reply, "usage": {**reply["usage"], "cost": 0.02}}

    def spent(folder: str) -> float:
        with Journal(tmp_path / folder / "generate/journal.jsonl", writable=False) as journal:
            return journal.spending.paid_usd

    with ChatServer(reply=dear) as server:
        asked = recipe(server, prompts_file(tmp_path, range(40)), budget=0.05)
        with pytest.raises(Incomplete, match=r"the budget of 0\.05 USD is reached: 0\.0400 USD are paid"):
            generate(Run(tmp_path / "cheap"), priced(asked, {"prompt": 0.1, "completion": 0.4}), notes := Notes())
        assert (len(server.usages), spent("cheap")) == (2, pytest.approx(0.04))
        assert sum("the endpoint reports a bill of 0.02" in note for note in notes.notes) == 1
        free = priced(asked, {"prompt": 0.0, "completion": 0.0})
        with pytest.raises(UsageError, match=r"a bill of 0\.020000 USD for an answer, and the configured price is 0"):
            generate(Run(tmp_path / "free"), free, Silent())
        assert (len(server.usages), spent("free")) == (3, 0.02)
        uncapped = replace(free, generate=replace(free.generate, budget=None))
        generate(Run(tmp_path / "free"), uncapped, Silent())
        assert spent("free") == pytest.approx(40 * 0.02)


def test_what_an_endpoint_bills_is_reported_also_where_no_price_is_configured(tmp_path: Path) -> None:
    with ChatServer(reply=with_usage({"cost": 0.02})) as server:
        result = generate(Run(tmp_path / "run"), recipe(server, prompts_file(tmp_path, range(5))), Silent())
    assert (result.usd, result.spent_usd, result.assumed_usd) == (pytest.approx(0.1), pytest.approx(0.1), 0.0)


def test_what_an_endpoint_bills_is_what_is_estimated_where_no_price_is_configured(tmp_path: Path) -> None:
    with ChatServer(reply=with_usage({"cost": 0.02})) as server:
        run, asked = Run(tmp_path / "run"), recipe(server, prompts_file(tmp_path, range(10)))
        assert estimate(run, asked, Silent()).usd is None
        probed = estimate(run, asked, Silent(), probe=4)
        notes = Notes()
        generate(run, asked, notes)
        generate(run, replace(asked, generate=replace(asked.generate, seed=1)), notes)
    assert (probed.usd, probed.missing_usd) == (pytest.approx(0.2), pytest.approx(0.12))
    assert "10 requests were answered before under other settings, and are paid for again: about 0.2000 USD" in str(notes.notes)


def test_a_fee_for_each_request_is_paid_and_held(tmp_path: Path) -> None:
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(40)), budget=1.0, samples=2, samples_per_request=2)
        asked = replace(asked, teacher=replace(asked.teacher, options={"web_search_options": {}}))
        price = {"prompt": 0.1, "completion": 0.4}
        with pytest.raises(UsageError, match="web_search_options is billed by the call, and a budget needs to know how much"):
            generate(Run(tmp_path / "run"), priced(asked, price), Silent())
        assert server.requests == []
        uncapped = replace(asked, generate=replace(asked.generate, budget=None, limit=1))
        generate(Run(tmp_path / "uncapped"), priced(uncapped, price), notes := Notes())
        assert sum("web_search_options is billed by the call, which the price leaves out" in note for note in notes.notes) == 1
        server.requests.clear()
        asked = priced(asked, {**price, "request": 0.1})
        assert estimate(Run(tmp_path / "run"), asked, Silent(), probe=4).usd == pytest.approx(40 * 0.1, rel=0.01)
        with pytest.raises(Incomplete, match=r"the budget of 1 USD is reached: 0\.9\d+ USD are paid"):
            generate(Run(tmp_path / "run"), asked, Silent())
        assert len(server.requests) == 9, "a tenth would go over it by what its tokens cost"


def test_what_a_content_filter_refuses_may_be_billed_and_counts_against_the_budget(tmp_path: Path) -> None:
    refused = error(400, "The response was filtered due to the prompt triggering", code="content_filter")
    with ChatServer(lambda _, body: refused if number_of(body) else None) as server:
        capped = priced(recipe(server, prompts_file(tmp_path, range(60)), budget=1.5))
        with pytest.raises(Incomplete, match=r"the budget of 1\.5 USD is reached"):
            generate(Run(tmp_path / "run"), capped, Silent())
        assert 1 < len(server.requests) <= 1 + 1.5 / 0.2, "each may have cost 0.2 USD and more"


def test_choices_that_nobody_requested_are_paid_all_the_same(tmp_path: Path) -> None:
    with ChatServer(reply=lambda body: answer({**body, "n": 3})) as server:
        result = generate(Run(tmp_path / "run"), priced(recipe(server, prompts_file(tmp_path, range(5)))), Silent())
        assert result.samples == 5 and result.spent_usd == pytest.approx(server.billed_usd(PRICE))


@pytest.mark.parametrize(("bill", "paid"), [(0.25, 0.306), (0.3, 0.306), (0.31, 0.31), (0.5, 0.5)])
def test_a_bill_for_several_answers_counts_where_it_is_more_than_all_of_them_cost(
    tmp_path: Path, bill: float, paid: float
) -> None:
    def reply(body: Body) -> Body:
        return {**answer(body), "usage": {"prompt_tokens": 6, "completion_tokens": 30, "cost": bill}}

    with ChatServer(reply=reply) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(4)), samples=3, samples_per_request=3))
        result = generate(Run(tmp_path / "run"), asked, Silent())
    assert (len(server.requests), result.samples) == (4, 12)
    assert (result.spent_usd, result.usd) == (pytest.approx(4 * paid), pytest.approx(4 * paid))


def test_an_answer_that_was_broken_off_beside_another_is_paid_once(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        said["choices"][0]["finish_reason"] = "error"
        return said

    with ChatServer(reply=reply) as server:
        asked = recipe(server, prompts_file(tmp_path, range(4)), samples=2, samples_per_request=2, may_fail=0.5)
        result = generate(Run(tmp_path / "run"), priced(asked), Silent())
        assert result.failed == 4 and result.usd == result.spent_usd == pytest.approx(server.billed_usd(PRICE))


def test_a_budget_without_a_price_is_refused(tmp_path: Path) -> None:
    with ChatServer() as server:
        with pytest.raises(UsageError, match="a budget needs the price of teacher"):
            run_it(tmp_path, server, range(3), budget=1.0)
        for price, says in (
            ({"prompt": 1.0}, "both prompt and completion"),
            ({**PRICE, "cached": 1}, "cached = 1: not a price, did you"),
            ({**PRICE, "tiers": 200_000}, "tiers = 200000: not a list of prices, each above some prompt tokens"),
            ({**PRICE, "tiers": [{"prompt": 1.0, "completion": 1.0}]}, "not a list of prices, each above"),
            ({**PRICE, "tiers": [{"above": 9, "prompt": 1.0}]}, "tiers needs both prompt and completion"),
            ({**PRICE, "tiers": [{"above": 9, **PRICE, "request": 1.0}]}, r"tiers request = 1\.0: not a price"),
        ):
            with pytest.raises(UsageError, match=says):
                generate(Run(tmp_path / "run"), priced(recipe(server, prompts_file(tmp_path, range(3))), price), Silent())
        assert server.requests == []


BESIDE = ({}, {"total_tokens": 400}, {"cost": 7.0})  # what is billed beside the tokens that are counted
CACHED = ({"prompt_cache_hit_tokens": 5}, {"cache_write_tokens": 5})  # of the six or so of a prompt


def with_usage(more: Body) -> Callable[[Body], Body]:
    """Answers whose usage has these amounts more."""

    def reply(body: Body) -> Body:
        usage = answer(body)["usage"]
        return {**answer(body), "usage": {**usage, **{name: usage.get(name, 0) + amount for name, amount in more.items()}}}

    return reply


@pytest.mark.parametrize("beside", [*BESIDE, *CACHED])
def test_an_estimate_asks_nothing_and_with_a_probe_it_comes_close(tmp_path: Path, beside: Body) -> None:
    notes = Notes()
    with ChatServer(reply=with_usage(beside)) as server:
        price = {"prompt": 1e4, "cached_prompt": 1e3, "cache_write": 5e4, "completion": 1e3} if beside in CACHED else PRICE
        asked = priced(recipe(server, prompts_file(tmp_path, range(100))), price)
        run = Run(tmp_path / "run")
        blind = estimate(run, asked, notes)
        assert server.requests == []
        assert (blind.requests, blind.missing, blind.answers, blind.missing_seconds) == (100, 100, 0, None)
        assert blind.first_prompt == [{"role": "user", "content": "question 0"}]
        assert blind.completion_tokens == 2000, "without answers, as long as max_tokens allows"
        probed = estimate(run, asked, notes, probe=30)
        assert len(server.requests) == 30
        assert (probed.missing, probed.answers) == (70, 30)
        result = generate(run, asked, notes)
        assert len(server.requests) == 100, "the probe's answers are not paid for twice"
    assert result.usd is not None
    assert probed.usd == pytest.approx(result.usd, rel=0.2)
    assert blind.usd is not None
    assert blind.usd > result.usd or beside
    assert "the estimate was based on 30 answers" in notes.notes[-1]


def test_another_run_s_answers_are_taken_and_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with ChatServer() as server:
        run_it(tmp_path / "old", server, range(8))
        asked = priced(recipe(server, prompts_file(tmp_path, range(10)), reuse=[str(tmp_path / "old/run")]))
        result = generate(Run(tmp_path / "run"), asked, Silent())
        assert (result.new, result.reused) == (2, 8)
        assert result.usd is not None
        assert result.spent_usd is not None
        assert result.spent_usd < result.usd / 2
        other = Run(tmp_path / "other")
        assert estimate(other, asked, Silent()).missing == 2
        assert len(server.requests) == 10
        probed = estimate(other, asked, Silent(), probe=5)
        assert (len(server.requests), probed.answers, probed.missing) == (12, 10, 0), "what --reuse brings is not probed"
        with pytest.raises(UsageError, match="no such journal"):
            run_it(tmp_path, server, range(11), reuse=["nowhere"])


def test_an_estimate_counts_a_prompt_once_for_each_request(tmp_path: Path) -> None:
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(30)), samples=6, samples_per_request=4)
        estimated = estimate(Run(tmp_path / "run"), asked, Silent(), probe=30)
        result = generate(Run(tmp_path / "run"), asked, Silent())
    assert estimated.prompt_tokens == pytest.approx(30 * 2 * 6, rel=0.05), "30 prompts, two requests each, of 6 tokens"
    assert result.prompt_tokens == sum(usage["prompt_tokens"] for usage in server.usages)


def command(server: ChatServer, folder: Path, *words: str, name: str = "generate") -> list[str]:
    start = [name, str(folder / "run"), "--prompts", str(folder / "prompts.jsonl"), "--temperature", "1", "--max-tokens", "20"]
    model = ["--teacher", "teacher", "--teacher-engine", "openai", "--teacher-base-url", server.url]
    return [*start, *model, *(f"--set=teacher.price.{key}={usd}" for key, usd in PRICE.items()), *words]


def test_the_cap_counts_what_was_paid_under_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts_file(tmp_path, range(20))
    with ChatServer() as server:
        assert main(command(server, tmp_path, "--budget", "2.5")) == 0
        paid = server.billed_usd(PRICE)
        capsys.readouterr()
        for changed in ("--set=teacher.options.top_k=5", "--teacher-revision=v2", "--max-tokens=19"):
            assert main(command(server, tmp_path, changed)) == 1
            said = capsys.readouterr().err
            assert "20 requests were answered before under other settings, and are paid for again: about" in said
            assert "the budget of 2.5 USD is reached" in said, "the run remembers its cap"
            assert paid < server.billed_usd(PRICE) <= 2.5


def test_what_was_requested_without_a_price_is_paid_at_today_s(tmp_path: Path) -> None:
    with ChatServer() as server:
        asked = recipe(server, prompts_file(tmp_path, range(10)))
        generate(Run(tmp_path / "run"), asked, Silent())
        more = priced(replace(asked, generate=replace(asked.generate, samples=2)))
        result = generate(Run(tmp_path / "run"), more, notes := Notes())
        assert "requested without a price have no recorded cost" in " ".join(notes.notes)
        assert (result.spent_usd, result.assumed_usd) == (pytest.approx(server.billed_usd(PRICE)), 0.0)


@pytest.mark.parametrize("batch", [False, True])
def test_tokens_beyond_the_limit_raise_what_the_next_requests_are_taken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    """Reasoning that the endpoint bills beside max_tokens: the first answer shows it, and the cap holds from there."""
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.01)
    hidden = {"prompt_tokens": 20, "completion_tokens": 18, "total_tokens": 620}
    with BatchServer(reply=lambda body: {**answer(body), "usage": hidden}) as server:
        budget = 10.0 if batch else 20.0  # a batch costs half
        asked = recipe(server, prompts_file(tmp_path, range(60)), max_tokens=20, budget=budget, batch=batch)
        with pytest.raises(Incomplete, match=f"the budget of {budget:g} USD is reached") as caught:
            generate(Run(tmp_path / "run"), priced(asked), Silent())
        assert re.search(r"\(teacher bills up to \d\d\.\d times what max_tokens allows\)", caught.value.message)
        assert pytest.approx(len(server.usages) * (20 * 1e-3 + 600 * 1e-2)) == 3 * 6.02, "as many as fit"


def test_what_one_model_bills_beyond_its_limit_holds_for_that_model_alone(tmp_path: Path) -> None:
    def reply(body: Body) -> Body:
        beyond = 2000 if body["model"] == "thinks" else 0
        return {**answer(body), "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 + beyond}}

    with ChatServer(model=None, reply=reply) as server:
        asked = recipe(server, prompts_file(tmp_path, range(10)), budget=0.9)
        models = [("thinks", {"prompt": 1.0, "completion": 10.0}), ("plain", {"prompt": 1.0, "completion": 1000.0})]
        teachers = [OneOfTeachers(**{**asdict(asked.teacher), "model": name, "price": price}) for name, price in models]
        assert generate(Run(tmp_path / "run"), replace(asked, teachers=teachers), Silent()).samples == 20
        with Journal(tmp_path / "run/generate/journal.jsonl", writable=False) as journal:
            budget = Budget([journal], {}, 0.9)
            sources = [Source(name, name, TeacherConfig(model=name), price_of(PRICE)) for name in ("thinks", "plain", "think")]
            changed = replace(sources[0], identity="thinks@v2+0a1b2c3d")
            assert [budget.overrun(one) > 30 for one in (*sources, changed)] == [True, False, False, True]


def test_a_dry_run_and_a_probe_change_nothing_that_a_later_run_does(tmp_path: Path) -> None:
    prompts_file(tmp_path, range(6))
    with ChatServer(model=None) as server:
        for look in (["--dry-run"], ["--probe", "2"]):
            assert main([*command(server, tmp_path), "--teacher", "dear", "--budget", "9", *look]) == 0
            assert not (tmp_path / "run/run.json").exists()
        assert main(command(server, tmp_path)) == 0
        assert [body["model"] for body in server.requests] == ["dear"] * 2 + ["teacher"] * 6


@pytest.mark.parametrize("written", ["{", "{}", "[]"])
def test_a_damaged_estimate_ends_nothing(tmp_path: Path, written: str) -> None:
    with ChatServer() as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(3))))
        estimate(Run(tmp_path / "run"), asked, Silent())
        (tmp_path / "run/generate/estimate.json").write_text(written)
        assert generate(Run(tmp_path / "run"), asked, Silent()).samples == 3


@pytest.mark.parametrize(
    ("beside", "settings", "price"),
    [
        *((beside, {}, PRICE) for beside in BESIDE),
        ({}, {"batch": True}, PRICE),
        ({}, {"samples": 2, "samples_per_request": 2}, {"prompt": 0.1, "completion": 0.4, "request": 0.1}),
    ],
)
def test_what_is_paid_for_again_is_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: Body, settings: Body, price: Body
) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.01)
    with BatchServer(reply=with_usage(beside)) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(40)), **settings), price)
        once = generate(Run(tmp_path / "run"), asked, Silent()).spent_usd
        changed = replace(asked, generate=replace(asked.generate, temperature=0.5))
        both = generate(Run(tmp_path / "run"), changed, notes := Notes()).spent_usd
    (said,) = [float(found[1]) for note in notes.notes if (found := re.search(r"paid for again: about ([\d.]+) USD", note))]
    assert once is not None and both is not None and said == pytest.approx(both - once, rel=0.2)


def billing(tokens: Body) -> Callable[[Body], Body]:
    """Answers that use 20 prompt tokens and as many of the answer as the model's name stands for."""

    def reply(body: Body) -> Body:
        return {**answer(body), "usage": {"prompt_tokens": 20, "completion_tokens": tokens[body["model"]]}}

    return reply


DEAR, CHEAP = {"prompt": 3.0, "completion": 75.0}, {"prompt": 0.1, "completion": 0.4}
TEACHERS = {  # the tokens of each teacher's answers and its price
    "the dear one is brief": ({"one": (10, DEAR), "two": (2000, CHEAP)}),
    "the dear one is long": ({"one": (2000, DEAR), "two": (10, CHEAP)}),
    "three": ({"one": (10, DEAR), "two": (2000, CHEAP), "three": (300, DEAR)}),
    "one is free": ({"one": (2000, DEAR), "two": (10, {"prompt": 0.0, "completion": 0.0})}),
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("named", TEACHERS)
def test_what_several_teachers_cost_and_cost_again_is_counted_for_each(tmp_path: Path, named: str, weights: bool) -> None:
    known = TEACHERS[named]
    with ChatServer(model=None, reply=billing({name: tokens for name, (tokens, _) in known.items()})) as server:
        asked = recipe(server, prompts_file(tmp_path, range(40)), max_tokens=4000)
        teachers = [
            OneOfTeachers(**{**asdict(asked.teacher), "model": name, "price": price}, weight=1.0 + number if weights else None)
            for number, (name, (_, price)) in enumerate(known.items())
        ]
        asked, run = replace(asked, teachers=teachers), Run(tmp_path / "run")
        estimated = estimate(run, asked, Silent(), probe=12)
        assert {body["model"] for body in server.requests} == set(known) and len(server.requests) == 12
        once = generate(run, asked, Silent())
        assert estimated.usd == pytest.approx(once.usd, rel=0.05)
        again = replace(asked, generate=replace(asked.generate, temperature=0.5))
        both = generate(run, again, notes := Notes())
    paid = sum(price != TEACHERS["one is free"]["two"][1] for _, price in known.values())
    ((count, said),) = [
        found.groups() for note in notes.notes if (found := re.search(r"(\d+) requests .* about ([\d.]+) USD", note))
    ]
    assert both.spent_usd is not None and once.spent_usd is not None
    assert float(said) == pytest.approx(both.spent_usd - once.spent_usd, rel=0.05)
    assert weights or int(count) == 40 * paid


def test_a_teacher_that_no_probe_reached_is_taken_to_answer_at_the_limit(tmp_path: Path) -> None:
    with ChatServer(model=None, reply=billing({"one": 10, "two": 10})) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(10)), max_tokens=4000))
        both = [OneOfTeachers(**{**asdict(asked.teacher), "model": name}) for name in ("one", "two")]
        estimated = estimate(Run(tmp_path / "run"), replace(asked, teachers=both), notes := Notes(), probe=1)
    assert estimated.completion_tokens == 10 * 10 + 10 * 4000
    assert notes.notes[-1] == "generate: no answer of two is known: they are taken to be as long as max_tokens allows"


def limited(body: Body) -> Body:
    """Answers that are cut off at 20 tokens for every second prompt, and take 900 otherwise."""
    said, is_cut = answer(body), body["max_tokens"] == 20 and number_of(body) % 2 == 0
    said["choices"][0]["finish_reason"] = "length" if is_cut else "stop"
    return {**said, "usage": {"prompt_tokens": 20, "completion_tokens": 20 if body["max_tokens"] == 20 else 900}}


def filtered(body: Body) -> Body:
    """Answers that a filter takes for every second prompt."""
    said = answer(body)
    said["choices"][0]["finish_reason"] = "content_filter" if number_of(body) % 2 == 0 else "stop"
    return said


@pytest.mark.parametrize(
    ("reply", "settings"), [(limited, {"retry_truncated": 1000}), (filtered, {"ask_again": ["content_filter"]})]
)
@pytest.mark.parametrize("before", [False, True], ids=["", "all first requests were answered before"])
def test_an_estimate_counts_what_is_requested_a_second_time(
    tmp_path: Path, reply: Callable[[Body], Body], settings: dict[str, object], before: bool
) -> None:
    with ChatServer(reply=reply) as server:
        once = priced(recipe(server, prompts_file(tmp_path, range(40)), max_tokens=20))
        run, asked = Run(tmp_path / "run"), replace(once, generate=replace(once.generate, **settings))
        blind = estimate(run, asked, Silent())
        assert blind.completion_tokens == (40 * 1020 if "retry_truncated" in settings else 40 * 20)
        if before:
            generate(run, once, Silent())
        probed = estimate(run, asked, Silent(), probe=8)
        paid = server.billed_usd(PRICE)
        result = generate(run, asked, Silent())
    assert result.usd is not None and result.spent_usd is not None and probed.missing_usd is not None
    assert probed.usd == pytest.approx(result.usd, rel=0.15)
    assert probed.missing_usd == pytest.approx(server.billed_usd(PRICE) - paid, rel=0.15)
    assert probed.missing == (20 if before else 32)


def test_new_prompts_whose_ids_hold_colons_were_not_answered_before(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"

    def run_of(count: int, seed: int) -> list[str]:
        rows = [{"id": f"gsm8k:{n}", "prompt": f"question {n}"} for n in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked = priced(recipe(server, path, seed=seed))
        asked = replace(asked, teacher=replace(asked.teacher, model="llama3:8b"))
        generate(Run(tmp_path / "run"), asked, notes := Notes())
        return [note for note in notes.notes if "paid for again" in note]

    with ChatServer(model=None) as server:
        assert run_of(5, seed=0) == []
        assert len(run_of(5, seed=1)) == 1
        assert run_of(9, seed=1) == []
