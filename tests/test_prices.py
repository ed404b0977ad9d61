"""What answers cost at a recipe's prices, against what vendors publish."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from generate_runs import Notes, priced, prompts_file, recipe

from seqdistill.engines import Completion, Request
from seqdistill.journal.budget import Source
from seqdistill.journal.prices import billed_by_call, price_of, written_price
from seqdistill.recipe.tables import TeacherConfig
from seqdistill.runs import Run
from seqdistill.stages.generate.stage import generate

MILLION = 1_000_000
SONNET = {"prompt": 3.0, "cached_prompt": 0.3, "completion": 15.0}
GEMINI = {
    "prompt": 1.25,
    "cached_prompt": 0.125,
    "completion": 10.0,
    "tiers": [{"above": 200_000, "prompt": 2.5, "cached_prompt": 0.25, "completion": 15.0}],
}


@pytest.mark.parametrize(
    ("price", "tokens", "usd"),
    [  # https://docs.claude.com/en/docs/about-claude/pricing, Sonnet: 3, 3.75 (5 min), 6 (1 h), 0.30 (hits), 15
        (SONNET, {"prompt_tokens": MILLION, "cache_write_tokens": MILLION}, 3.75),
        (SONNET, {"prompt_tokens": MILLION, "cache_write_tokens": MILLION, "cache_write_1h_tokens": MILLION}, 6.0),
        (SONNET, {"prompt_tokens": MILLION, "cached_tokens": MILLION}, 0.3),
        (SONNET, {"prompt_tokens": 100_000, "cache_write_tokens": 100_000}, 0.375),
        (SONNET, {"prompt_tokens": 100_000, "cache_write_tokens": 100_000, "batched": True}, 0.1875),
        (SONNET, {"prompt_tokens": 100_000, "cached_tokens": 100_000, "completion_tokens": 1000}, 0.045),
        (  # one request of each: 50 fresh, 1,000 read, 456 written for 5 minutes, 100 for an hour, 500 answered
            SONNET,
            {
                "prompt_tokens": 1606,
                "cached_tokens": 1000,
                "cache_write_tokens": 556,
                "cache_write_1h_tokens": 100,
                "completion_tokens": 500,
            },
            (50 * 3 + 1000 * 0.3 + 456 * 3.75 + 100 * 6 + 500 * 15) / MILLION,
        ),
        ({**SONNET, "cache_write": 4.0, "cache_write_1h": 5.0}, {"prompt_tokens": 200, "cache_write_tokens": 200}, 0.0008),
        ({**SONNET, "cache_write": 0}, {"prompt_tokens": 200, "cache_write_tokens": 200}, 0.0),
        ({**SONNET, "request": 0.025}, {"prompt_tokens": 1000, "completion_tokens": 100}, 0.003 + 0.0015 + 0.025),
        ({**SONNET, "request": 0.025}, {"prompt_tokens": 1000, "batched": True}, 0.0015 + 0.025),
        ({**SONNET, "request": 0.025}, {"completion_tokens": 100}, 0.0015),  # a further answer to the same request
        ({"prompt": 0, "completion": 0}, {"prompt_tokens": 200, "cache_write_tokens": 200, "cache_write_1h_tokens": 9}, 0.0),
        # https://ai.google.dev/gemini-api/docs/pricing, Gemini 2.5 Pro: prompts above 200,000 tokens cost 2.50, 0.25 and 15
        (GEMINI, {"prompt_tokens": 200_000, "completion_tokens": 1000}, 0.25 + 0.01),
        (GEMINI, {"prompt_tokens": 200_001, "completion_tokens": 1000}, 200_001 * 2.5 / MILLION + 0.015),
        (GEMINI, {"prompt_tokens": 300_000, "cached_tokens": 200_000, "completion_tokens": 1000}, 0.25 + 0.05 + 0.015),
        (GEMINI, {"prompt_tokens": 300_000, "completion_tokens": 1000, "batched": True}, (0.75 + 0.015) / 2),
        (GEMINI, {"completion_tokens": 1000, "raw": {"usage": {"prompt_tokens": 300_000}}}, 0.015),  # a second choice
    ],
)
def test_an_answer_costs_what_the_vendor_publishes(price: Body, tokens: dict[str, Any], usd: float) -> None:
    known = price_of(price)
    assert known is not None and written_price(json.loads(json.dumps(asdict(known)))) == known
    assert known.usd(Completion("a", **tokens)) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("price", "table", "dearest"),
    [
        (SONNET, {}, 3.0),
        (SONNET, {"cache_control": {"type": "ephemeral"}}, 6.0),
        ({**SONNET, "cache_write": 3.75}, {}, 3.75),
        ({**SONNET, "cache_write": 3.75, "cache_write_1h": 7.0}, {"cache_control": {"type": "ephemeral"}}, 7.0),
    ],
)
def test_the_upper_bound_of_a_request_that_may_write_to_the_cache_holds_its_price(
    price: dict[str, float], table: dict[str, object], dearest: float
) -> None:
    hold = Source("m", "m", TeacherConfig(model="m", engine="openai", body=table), price_of(price)).hold(
        [Request("p", [{"role": "user", "content": "question"}], 10)]
    )
    assert hold.usd == pytest.approx((hold.prompt_tokens * dearest + 10 * 15) / MILLION)


def test_the_upper_bound_of_a_long_prompt_is_at_its_own_price_and_one_without_is_noted(tmp_path: Path) -> None:
    tiers = [{"above": 300_000, "prompt": 1.0, "completion": 1.0}, {"above": 200_000, "prompt": 2.5, "completion": 15.0}]
    price = price_of({"prompt": 1.25, "completion": 10.0, "tiers": tiers})
    assert price is not None and [tier.above for tier in price.tiers] == [200_000, 300_000]
    assert price.bound(200_000, 1000) == pytest.approx(0.26)
    assert price.bound(400_000, 1000) == pytest.approx(1.015), "a prompt of at most so many tokens may be in any tier below"
    long = {"prompt_tokens": 200_001, "completion_tokens": 10}
    with ChatServer(reply=lambda body: {**answer(body), "usage": long}) as server:
        asked = priced(recipe(server, prompts_file(tmp_path, range(3))), {"prompt": 1.25, "completion": 10.0})
        generate(Run(tmp_path / "flat"), asked, notes := Notes())
        generate(Run(tmp_path / "tiers"), priced(asked, {"prompt": 1.25, "completion": 10.0, "tiers": tiers}), quiet := Notes())
    assert sum("a prompt has 200,001 tokens, and some vendors charge more" in note for note in notes.notes) == 1
    assert not any("charge more" in note for note in quiet.notes)


SEARCH_TOOL = {"type": "web_search"}
OWN_TOOL = {"type": "function", "function": {"name": "web_search", "parameters": {}}}


@pytest.mark.parametrize(
    ("model", "fields", "named"),
    [
        ("gpt-4o", {"web_search_options": {}}, "web_search_options"),
        ("gpt-4o-search-preview", {}, "a model that searches"),
        ("gpt-5-search-api", {}, "a model that searches"),
        ("perplexity/sonar-pro", {}, "a model that searches"),
        ("openai/gpt-4.1:online", {}, "a model that searches"),
        ("groq/compound-mini", {}, "a model that searches"),
        ("grok-4", {"search_parameters": {"mode": "auto"}}, "search_parameters"),
        ("grok-4", {"search_parameters": {"mode": "off"}}, None),
        ("qwen-max", {"enable_search": True}, "enable_search"),
        ("qwen-max", {"enable_search": False}, None),
        ("openai/gpt-4.1", {"plugins": [{"id": "web"}]}, "the plugin web"),
        ("openai/gpt-4.1", {"plugins": [{"id": "response-healing"}]}, None),
        ("glm-4.6", {"tools": [SEARCH_TOOL]}, "a tool of the endpoint's own"),
        (
            "kimi-k2",
            {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
            "a tool of the endpoint's own",
        ),
        ("gemini-2.5-pro", {"tools": [{"googleSearch": {}}]}, "a tool of the endpoint's own"),
        ("gpt-4o", {"tools": [OWN_TOOL]}, None),
        ("research-13b", {}, None),
    ],
)
def test_what_is_billed_by_the_call_is_known_by_its_name(model: str, fields: Body, named: str | None) -> None:
    for table in ("options", "body"):
        assert billed_by_call(TeacherConfig(model=model, engine="openai", **{table: fields})) == named
