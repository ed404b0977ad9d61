"""What answers cost: the prices of a recipe, applied to the tokens and the bill that an endpoint reports.

Knows no model's price itself. What may be spent is `budget`'s.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import as_dict
from seqdistill.engines.usage import usage_of
from seqdistill.errors import UsageError
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import ModelConfig

TOKEN_KEYS = ("prompt", "cached_prompt", "cache_write", "cache_write_1h", "completion")
PRICE_KEYS = (*TOKEN_KEYS, "batch", "request", "tiers")
TIER_KEYS = ("above", *TOKEN_KEYS)
TIER_EXAMPLE = "tiers = [{ above = 200000, prompt = 2.50, completion = 15 }]"
BATCH_SHARE = 0.5  # of the price, where the recipe does not say
# Of the prompt's price, where the recipe does not say: https://docs.claude.com/en/docs/build-with-claude/prompt-caching#pricing
CACHE_WRITE, CACHE_WRITE_1H = 1.25, 2.0


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
    above: int = 0  # of a tier: it holds for requests whose prompt has more tokens than this
    tiers: tuple["Price", ...] = ()  # other prices of tokens, by `above`: the last one that holds is a request's

    def as_json(self) -> dict[str, Any]:
        """As it is written to a file; `written_price` reads it."""
        return asdict(self) | {"tiers": [tier.as_json() for tier in self.tiers]}

    def usd(self, completion: Completion) -> float:
        """What one answer cost: at these prices, or what the endpoint says that it bills, if that is more.

        Also at a price of 0: self-hosted servers report no bill.
        """
        return max(self.list_usd(completion), completion.billed_usd or 0.0)

    def list_usd(self, completion: Completion) -> float:
        """What one answer costs at these prices. Of several to one request, the fee is with the one that has the prompt."""
        rates = self._tiers_within(_prompt_of_request(completion))[-1] if self.tiers else self
        write, write_1h = rates._cache_writes()
        writes_1h = completion.cache_write_1h_tokens
        writes = completion.cache_write_tokens - writes_1h
        fresh = completion.prompt_tokens - completion.cached_tokens - completion.cache_write_tokens
        written = completion.completion_tokens + completion.hidden_tokens
        tokens = fresh * rates.prompt + completion.cached_tokens * rates.cached_prompt + written * rates.completion
        usd = (tokens + writes * write + writes_1h * write_1h) / 1e6 * self._share(completion.batched)
        return usd + (self.request or 0.0 if completion.prompt_tokens else 0.0)

    def bound(self, prompt_tokens: int, completion_tokens: int, *, batched: bool = False, writes_cache: bool = False) -> float:
        """The most that a request with at most these tokens can cost, in USD.

        `writes_cache`: it may put its prompt into a cache.
        """
        tokens = max(
            prompt_tokens * rates._dearest_prompt(writes_cache=writes_cache) + completion_tokens * rates.completion
            for rates in self._tiers_within(prompt_tokens)
        )
        return tokens / 1e6 * self._share(batched) + (self.request or 0.0)

    def _tiers_within(self, prompt_tokens: int) -> list["Price"]:
        """The prices that can hold for a prompt of at most this many tokens, the one of the longest last."""
        return [self, *(tier for tier in self.tiers if tier.above < prompt_tokens)]

    def _dearest_prompt(self, *, writes_cache: bool) -> float:
        writes = self._cache_writes() if writes_cache else (self.cache_write or 0.0, self.cache_write_1h or 0.0)
        return max(self.prompt, self.cached_prompt, *writes)

    def _cache_writes(self) -> tuple[float, float]:
        write, write_1h = self.cache_write, self.cache_write_1h
        return (
            self.prompt * CACHE_WRITE if write is None else write,
            self.prompt * CACHE_WRITE_1H if write_1h is None else write_1h,
        )

    def _share(self, batched: bool) -> float:
        return self.batch if batched else 1.0


FREE = Price(0.0, 0.0, 0.0)  # one's own model


def shared_as_priced(completions: Sequence[Completion], price: Price | None) -> list[Completion]:
    """The completions of one reply, its bill shared by what they cost at the price, so that it is more for all of them or none.

    The prompt and the fee are with one of them: of equal shares of a bill that is no more, some would be more.
    """
    billed = [one.billed_usd for one in completions if one.billed_usd is not None]
    listed = [0.0 if price is None else price.list_usd(one) for one in completions]
    if len(completions) == 1 or not billed or not sum(listed):
        return list(completions)
    return [replace(one, billed_usd=sum(billed) * usd / sum(listed)) for one, usd in zip(completions, listed, strict=True)]


def known_usd(price: Price | None, completions: Iterable[Completion]) -> float | None:
    """What answers cost: at a price, or without one what their endpoint says that it bills; None where neither is known."""
    known = [one.billed_usd if price is None else price.usd(one) for one in completions]
    return sum(usd for usd in known if usd is not None) if any(usd is not None for usd in known) else None


def _prompt_of_request(completion: Completion) -> int:
    """The tokens of the prompt that a completion answers: of several choices of one reply, the first alone counts them."""
    return completion.prompt_tokens or usage_of(completion.raw).prompt or 0


def price_of(table: Mapping[str, Any], owner: str = "teacher") -> Price | None:
    """The price in the `price` table of a recipe's [teacher] or [judge]; None for an empty one.

    Raises UsageError for a wrong key or value.
    """
    if not table:
        return None
    _check_price(table, PRICE_KEYS, f"[{owner}.price]")
    return _price(table, tuple(_tier(tier, f"[{owner}.price] tiers") for tier in _tables(table.get("tiers", []), owner)))


def written_price(written: Mapping[str, Any] | None) -> Price | None:
    """The price that `Price.as_json` wrote; None for none."""
    if not written:
        return None
    tiers = tuple(tier for tier in map(written_price, written.get("tiers", ())) if tier)
    return Price(**{**written, "tiers": tiers})


def _tables(tiers: Any, owner: str) -> list[Mapping[str, Any]]:
    """The tables of `tiers`, in the order of the prompts that they are for."""
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) and isinstance(tier.get("above"), int) for tier in tiers):
        raise UsageError(
            f"[{owner}.price] tiers = {tiers!r}: not a list of prices, each above some prompt tokens", TIER_EXAMPLE
        )
    return sorted(tiers, key=lambda tier: int(tier["above"]))


def _tier(table: Mapping[str, Any], place: str) -> Price:
    _check_price(table, TIER_KEYS, place)
    return _price(table, ())


def _price(table: Mapping[str, Any], tiers: tuple[Price, ...]) -> Price:
    known: dict[str, Any] = {key: float(value) for key, value in table.items() if key not in ("above", "tiers")}
    return Price(**{"cached_prompt": known["prompt"], **known}, above=table.get("above", 0), tiers=tiers)


def _check_price(table: Mapping[str, Any], keys: Sequence[str], place: str) -> None:
    for key, value in table.items():
        if key not in keys or (
            key != "tiers" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9)
        ):
            raise UsageError(
                f"{place} {key} = {value!r}: not a price{'' if key in keys else nearest(key, keys)}",
                "USD per million tokens (batch: a share of them; request: USD a request; tiers: other prices above N prompt "
                f"tokens), under: {', '.join(keys)}",
            )
    if "prompt" not in table or "completion" not in table:
        example = TIER_EXAMPLE if place.endswith("tiers") else "price = { prompt = 0.10, completion = 0.40 }"
        raise UsageError(f"{place} needs both prompt and completion", example)


def typical(completions: Sequence[Completion]) -> Completion:
    """A completion with the mean of what some cost: their tokens, and what their endpoint says that it bills."""
    counts = (
        "prompt_tokens",
        "completion_tokens",
        "hidden_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cache_write_1h_tokens",
    )
    means: dict[str, Any] = {name: round(fmean(getattr(one, name) for one in completions)) for name in counts}
    billed = [one.billed_usd for one in completions if one.billed_usd is not None]
    return Completion("", **means, billed_usd=fmean(billed) if billed else None)


# --- what no count of tokens shows ----------------------------------------------------------------------------------------

# https://platform.openai.com/docs/pricing#built-in-tools, xAI's live search, Alibaba's
BILLED_FIELDS = ("web_search_options", "search_parameters", "enable_search", "web_search")
# OpenAI, Perplexity, OpenRouter's suffix, Groq
SEARCHING_MODELS = re.compile(
    r"search-(?:preview|api)|\bsonar\b|:online\b|\bcompound(?:-beta|-mini)?\b|deep-research", re.IGNORECASE
)


def billed_by_call(config: ModelConfig) -> str | None:
    """What of a model's configuration is billed by the call, beside its tokens: a field of its requests, or its name."""
    fields = {**config.options, **config.body}
    named = next((name for name in BILLED_FIELDS if _is_on(fields.get(name))), None)
    if named is None and any(_is_of_endpoint(as_dict(tool)) for tool in _list(fields.get("tools"))):
        named = "a tool of the endpoint's own"
    if named is None and any(as_dict(plugin).get("id") == "web" for plugin in _list(fields.get("plugins"))):
        named = "the plugin web"
    return named or ("a model that searches" if SEARCHING_MODELS.search(config.model or "") else None)


def _is_on(value: Any) -> bool:
    return value not in (None, False) and as_dict(value).get("mode") != "off"


def _is_of_endpoint(tool: Mapping[str, Any]) -> bool:
    """Whether the endpoint runs a tool itself: a function is its caller's to run, and costs tokens alone."""
    return not ("function" in tool and tool.get("type") in (None, "function"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
