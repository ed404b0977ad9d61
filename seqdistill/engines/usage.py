"""The tokens that a reply reports, under whichever names and in whichever place. They are what is paid for.

Vendors differ in four ways that cost money: reasoning is among the completion's tokens or beside them, cached tokens are among
the prompt's or beside them, what is written to the cache costs more, and a stream reports its counts at once or in parts.
Some report what they bill beside it, which is more where they charge for each call, for a search, or another price.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROMPT_TOKENS = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "prompt_eval_count", "promptTokenCount")
ANSWER_TOKENS = (
    "completion_tokens",
    "output_tokens",
    "completionTokens",
    "outputTokens",
    "eval_count",
    "candidatesTokenCount",
)
TOTAL_TOKENS = ("total_tokens", "totalTokens", "totalTokenCount")
CACHED_TOKENS = (
    *("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens", "cache_read_tokens"),
    *("cacheReadInputTokens", "cachedContentTokenCount", "cachedInputTokens"),
)
CACHE_WRITES = (  # a prompt's tokens, too, and dearer: Anthropic, LiteLLM, OpenRouter, Bedrock, new-api
    *("cache_creation_input_tokens", "cache_creation_tokens", "cache_write_tokens", "cache_write_input_tokens"),
    *("cacheWriteInputTokens", "cached_creation_tokens"),
)
CACHE_WRITES_5M = ("ephemeral_5m_input_tokens", "claude_cache_creation_5_m_tokens")  # of those, Anthropic's and new-api's
CACHE_WRITES_1H = ("ephemeral_1h_input_tokens", "claude_cache_creation_1_h_tokens")
CACHE_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens", "cacheReadInputTokens", "cacheWriteInputTokens")
REASONING_TOKENS = ("reasoning_tokens", "reasoningTokens", "thoughtsTokenCount")
BILLED = ("estimated_cost", "cost_usd_total")  # DeepInfra's, and https://docs.llmgateway.io/features/cost-breakdown
DETAILS = (
    *("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"),
    *("cache_creation", "cache_creation_token_details"),
)


@dataclass(frozen=True)
class Usage:
    """The tokens of one reply, of all its choices together; None for what is not reported."""

    prompt: int | None
    completion: int | None
    cached: int = 0  # of the prompt's
    cache_writes: int = 0  # of the prompt's: put into the endpoint's cache
    cache_writes_1h: int = 0  # of those: put there for an hour
    hidden: int = 0  # billed like the completion's, but not among them
    billed_usd: float | None = None  # what the endpoint says that it bills


def count(tokens: Any) -> int | None:
    """A reported count of tokens, also one written as text; None for what is not a count."""
    if isinstance(tokens, str) and re.fullmatch(r"[0-9]{1,12}(?:\.0*)?", tokens):
        return int(tokens.partition(".")[0])
    return int(tokens) if isinstance(tokens, (int, float)) and tokens is not True and 0 <= tokens < 1e12 else None


def first_count(facts: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The first of these names that counts anything, or 0 where all that are there count nothing; None without any."""
    counts = [tokens for name in names if (tokens := count(facts.get(name))) is not None]
    return next(filter(None, counts), 0 if counts else None)


def usage_of(reply: Mapping[str, Any]) -> Usage:
    """What a chat-completions reply reports."""
    facts = reported(reply) or {}
    details = _with_details(facts)
    prompt, completion, total = (first_count(facts, names) for names in (PROMPT_TOKENS, ANSWER_TOKENS, TOTAL_TOKENS))
    cached, writes, writes_5m, writes_1h, thoughts = (
        max(first_count(part, names) or 0 for part in details)
        for names in (CACHED_TOKENS, CACHE_WRITES, CACHE_WRITES_5M, CACHE_WRITES_1H, REASONING_TOKENS)
    )
    writes = max(writes, writes_5m + writes_1h)
    if completion is None and prompt is not None and total is not None and total >= prompt:
        completion = total - prompt
    written = completion or 0
    if prompt is not None and _is_cache_beside(facts, prompt, written, total, cached + writes, thoughts):
        prompt += cached + writes
    hidden = max(
        (total or 0) - (prompt or 0) - written,
        thoughts if thoughts > written else 0,  # more than all that was counted: it was not counted
        0,
    )
    cached = min(cached, prompt or 0)
    writes = min(writes, (prompt or 0) - cached)
    return Usage(prompt, completion, cached, writes, min(writes_1h, writes), hidden, _billed_usd(facts))


def amount(value: Any) -> float | None:
    """A reported number, also one written as text; None for what is not one."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e12 else None


def _billed_usd(facts: Mapping[str, Any]) -> float | None:
    """What one reply costs, in USD, as the endpoint says; None where it does not.

    https://docs.x.ai/developers/cost-tracking, https://openrouter.ai/docs/use-cases/usage-accounting (with a key of one's own
    the vendor's bill comes beside OpenRouter's), Perplexity (an object); BILLED has other names.
    """
    if (ticks := count(facts.get("cost_in_usd_ticks"))) is not None:
        return ticks / 1e10
    cost = facts.get("cost")
    billed = amount(cost.get("total_cost") if isinstance(cost, dict) else cost)
    if billed is None:
        return next((usd for name in BILLED if (usd := amount(facts.get(name))) is not None), None)
    details = facts.get("cost_details")
    upstream = amount(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return billed + (upstream or 0.0 if facts.get("is_byok") is True else 0.0)


def _with_details(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A usage and what is within it under the names of DETAILS."""
    inner = [part for name in DETAILS if isinstance(part := facts.get(name), dict)]
    return [facts, *(deeper for part in inner for deeper in _with_details(part))]


def _is_cache_beside(facts: Mapping[str, Any], prompt: int, written: int, total: int | None, cache: int, thoughts: int) -> bool:
    """Whether the cache's tokens are not among the prompt's. Anthropic counts them so, and some gateways hand that on.

    new-api names whose way of counting it is. A total that is as much larger may as well be by `thoughts`, which are dearer.
    """
    if not cache:
        return False
    if (total == prompt + written + cache and cache != thoughts) or facts.get("usage_semantic") == "anthropic":
        return True
    return any(name in facts for name in CACHE_BESIDE) and ("prompt_tokens" not in facts or cache > prompt)


def reported(reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage in a reply or in a stream's chunk: its own, or what some put beside it or into a choice; None for none."""
    choices = reply.get("choices")
    beside = reply.get("x_groq")
    places = [reply, beside, *(choices if isinstance(choices, list) else [])]
    found = [place["usage"] for place in places if isinstance(place, dict) and isinstance(place.get("usage"), dict)]
    return found[0] if found else None


def added_up(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The reports of a stream's choices, each of its own answer and of the one prompt, as one; None for none. Moonshot's."""
    whole: dict[str, Any] | None = None
    for usage in usages:
        whole = merged(whole, {**usage})
    if whole is None or len(usages) == 1:
        return whole
    prompts = [first_count(usage, PROMPT_TOKENS) or 0 for usage in usages]
    for name in ANSWER_TOKENS:
        if name in whole:
            whole[name] = sum(count(usage.get(name)) or 0 for usage in usages)
    for name in TOTAL_TOKENS:
        if name in whole:
            answers = [(count(usage.get(name)) or 0) - prompt for usage, prompt in zip(usages, prompts, strict=True)]
            whole[name] = max(prompts) + sum(max(tokens, 0) for tokens in answers)
    return whole


def merged(before: dict[str, Any] | None, now: dict[str, Any] | None) -> dict[str, Any] | None:
    """Two reports of one stream as one. Counts only grow: one comes in parts, one ends with a report of nothing."""
    if before is None or now is None:
        return before if now is None else now
    both = {**before, **now}
    for name, old in before.items():
        new = now.get(name)
        if isinstance(old, dict):
            both[name] = merged(old, new if isinstance(new, dict) else None)
        elif (amount(new) or 0) < (amount(old) or 0):
            both[name] = old
    return both
