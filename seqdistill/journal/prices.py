"""What answers cost: the prices of a recipe, applied to the tokens and the bill that an endpoint reports.

Knows no model's price itself. What may be spent is `budget`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest

PRICE_KEYS = ("prompt", "cached_prompt", "cache_write", "cache_write_1h", "completion", "batch", "request")
BATCH_SHARE = 0.5  # of the price, where the recipe does not say
# Of the prompt's price, where the recipe does not say: https://docs.claude.com/en/docs/build-with-claude/prompt-caching#pricing
CACHE_WRITE, CACHE_WRITE_1H = 1.25, 2.0


# Options that are billed by the call, which no count of tokens shows: https://platform.openai.com/docs/pricing#built-in-tools
BILLED_BY_CALL = ("web_search_options",)


@dataclass(frozen=True)
class Price:
    """USD per million tokens, but for `batch` and `request`."""

    prompt: float
    completion: float
    cached_prompt: float
    batch: float = BATCH_SHARE  # the share of these prices that a Batch endpoint takes
    cache_write: float | None = None  # prompt tokens that are put into the cache; None: CACHE_WRITE times `prompt`
    cache_write_1h: float | None = None  # the same for an hour; None: CACHE_WRITE_1H times `prompt`
    request: float | None = None  # USD a request, beside its tokens; None: not known, and taken to be nothing

    def usd(self, completion: Completion) -> float:
        """What one answer cost: at these prices, or what the endpoint says that it bills, if that is more.

        Also at a price of 0: self-hosted servers report no bill.
        """
        return max(self.list_usd(completion), completion.billed_usd or 0.0)

    def list_usd(self, completion: Completion) -> float:
        """What one answer costs at these prices. Of several to one request, the fee is with the one that has the prompt."""
        write, write_1h = self._cache_writes()
        writes_1h = completion.cache_write_1h_tokens
        writes = completion.cache_write_tokens - writes_1h
        fresh = completion.prompt_tokens - completion.cached_tokens - completion.cache_write_tokens
        written = completion.completion_tokens + completion.hidden_tokens
        tokens = fresh * self.prompt + completion.cached_tokens * self.cached_prompt + written * self.completion
        usd = (tokens + writes * write + writes_1h * write_1h) / 1e6 * self._share(completion.batched)
        return usd + (self.request or 0.0 if completion.prompt_tokens else 0.0)

    def bound(self, prompt_tokens: int, completion_tokens: int, *, batched: bool = False, writes_cache: bool = False) -> float:
        """The most that a request with these tokens can cost, in USD. `writes_cache`: it may put its prompt into a cache."""
        writes = self._cache_writes() if writes_cache else (self.cache_write or 0.0, self.cache_write_1h or 0.0)
        usd = (prompt_tokens * max(self.prompt, self.cached_prompt, *writes) + completion_tokens * self.completion) / 1e6
        return usd * self._share(batched) + (self.request or 0.0)

    def _cache_writes(self) -> tuple[float, float]:
        write, write_1h = self.cache_write, self.cache_write_1h
        return (
            self.prompt * CACHE_WRITE if write is None else write,
            self.prompt * CACHE_WRITE_1H if write_1h is None else write_1h,
        )

    def _share(self, batched: bool) -> float:
        return self.batch if batched else 1.0


FREE = Price(0.0, 0.0, 0.0)  # one's own model


def price_of(table: Mapping[str, Any], owner: str = "teacher") -> Price | None:
    """The price in the `price` table of a recipe's [teacher] or [judge]; None for an empty one.

    Raises UsageError for a wrong key or value.
    """
    if not table:
        return None
    for key, value in table.items():
        if key not in PRICE_KEYS or isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise UsageError(
                f"[{owner}.price] {key} = {value!r}: not a price{'' if key in PRICE_KEYS else nearest(key, PRICE_KEYS)}",
                f"USD per million tokens (batch: a share of them; request: USD a request), under: {', '.join(PRICE_KEYS)}",
            )
    if "prompt" not in table or "completion" not in table:
        raise UsageError(f"[{owner}.price] needs both prompt and completion", "price = { prompt = 0.10, completion = 0.40 }")
    known = {key: float(value) for key, value in table.items()}
    return Price(**{"cached_prompt": known["prompt"], **known})


def typical(completions: Sequence[Completion]) -> Completion:
    """A completion with the mean of what some cost: their tokens, and what their endpoint says that it bills."""
    return Completion(
        "",
        prompt_tokens=round(fmean(one.prompt_tokens for one in completions)),
        completion_tokens=round(fmean(one.completion_tokens for one in completions)),
        hidden_tokens=round(fmean(one.hidden_tokens for one in completions)),
        billed_usd=fmean(one.billed_usd or 0.0 for one in completions),
    )
