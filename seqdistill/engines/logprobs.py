"""The log-probabilities of an answer's tokens, in one form whichever engine gave them.

They are natural logarithms of the model's own distribution, before temperature and top_p. Local engines put this form into
their raw reply; what a chat endpoint replied is read into it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

TEMPERATURES = (1.5, 2.0, 3.0, 4.0)  # at which local engines note normalisers; at temperature 1 it is log 1 = 0
LOWEST = -9999.0  # stands for "impossible", as OpenAI writes it; JSON has no infinity
DIGITS = 6
NORMALIZER_DIGITS = 8  # a temperature's square multiplies its loss, and this error with it
_TOKEN_ID = re.compile(r"token_id:(\d{1,9})\Z")  # vLLM's server, with return_tokens_as_token_ids


def is_same_temperature(known: float, temperature: float) -> bool:
    """Whether a normaliser stored at one temperature is that of another."""
    return math.isclose(known, temperature, rel_tol=1e-6)


@dataclass(frozen=True)
class TokenLogprobs:
    """T tokens, the end-of-turn token included where the engine gives it, and at each place the K likeliest, likeliest first.

    Tokens are named by their ids, or by their texts where an endpoint sends no ids. `log_normalizers` holds, at each place
    and for each of the N `temperatures`, log sum_j p_j^(1/temperature) over the whole vocabulary: with it the probability of
    a likeliest token at that temperature is exact, exp(logprob / temperature - log_normalizer). Endpoints give none.
    """

    token_ids: list[int] | None  # (T)
    tokens: list[str] | None  # (T)
    logprobs: list[float]  # (T)
    top_token_ids: list[list[int]] | None  # (T, K)
    top_tokens: list[list[str]] | None  # (T, K)
    top_logprobs: list[list[float]]  # (T, K)
    temperatures: list[float] | None = None  # (N)
    log_normalizers: list[list[float]] | None = None  # (T, N)

    @property
    def mean(self) -> float:
        """The mean over the tokens; there is at least one."""
        return sum(self.logprobs) / len(self.logprobs)


def by_ids(
    token_ids: list[int],
    logprobs: Sequence[float],
    top_token_ids: list[list[int]],
    top_logprobs: Sequence[Sequence[float]],
    log_normalizers: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """The form as a raw reply holds it, from a local engine's numbers; `log_normalizers` are at TEMPERATURES."""
    values, tops = _finite(logprobs), [_finite(place) for place in top_logprobs]
    found = TokenLogprobs(token_ids, None, values, top_token_ids, None, tops)
    if log_normalizers is not None:
        rounded = [[round(value, NORMALIZER_DIGITS) for value in place] for place in log_normalizers]
        found = replace(found, temperatures=list(TEMPERATURES), log_normalizers=rounded)
    return asdict(found)


def logprobs_in(raw: Mapping[str, Any]) -> TokenLogprobs | None:
    """Those in a raw reply: a local engine's, or the first choice of a chat-completions reply; None for nothing usable."""
    try:
        if "choices" in raw:
            found = raw["choices"][0]["logprobs"]
            return _of_chat(found["content"] if "content" in found else _places(found))
        return TokenLogprobs(**raw["logprobs"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):  # not requested, or in a form of the endpoint's own
        return None


def values_in(raw: Mapping[str, Any]) -> list[float] | None:
    """The log-probabilities of the answer's tokens alone, as `logprobs_in` has them; None for nothing usable."""
    try:
        return (
            chat_values(raw["choices"][0]["logprobs"]["content"]) if "choices" in raw else raw["logprobs"]["logprobs"]
        ) or None
    except (KeyError, IndexError, TypeError):
        return None


def chat_values(content: Sequence[Any]) -> list[float]:
    """The log-probabilities of tokens as a chat endpoint reports them: LOWEST for what is not a number."""
    return _finite([place.get("logprob") if isinstance(place, dict) else None for place in content])


def _of_chat(content: Sequence[Mapping[str, Any]]) -> TokenLogprobs | None:
    if not content:
        return None
    tops = [place.get("top_logprobs") or [] for place in content]
    names, top_names = [str(place["token"]) for place in content], [[str(one["token"]) for one in top] for top in tops]
    values, top_values = _finite([place["logprob"] for place in content]), [_finite([o["logprob"] for o in t]) for t in tops]
    if all(_TOKEN_ID.match(name) for name in (*names, *(name for top in top_names for name in top))):
        return TokenLogprobs(_ids(names), None, values, [_ids(top) for top in top_names], None, top_values)
    return TokenLogprobs(
        None, [_clean(name) for name in names], values, None, [list(map(_clean, t)) for t in top_names], top_values
    )


def _places(lists: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The older form, lists side by side, as places; Together still sends it."""
    tops = lists.get("top_logprobs") or [None] * len(lists["tokens"])
    return [
        {"token": token, "logprob": value, "top_logprobs": [{"token": t, "logprob": v} for t, v in (top or {}).items()]}
        for token, value, top in zip(lists["tokens"], lists["token_logprobs"], tops, strict=True)
    ]


def _ids(names: Sequence[str]) -> list[int]:
    return [int(name.removeprefix("token_id:")) for name in names]


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: half of a character is U+FFFD."""
    return text.encode("utf-8", "replace").decode()


def _finite(values: Sequence[Any]) -> list[float]:
    return [round(value, DIGITS) if isinstance(value, float) and LOWEST < value < 0.0 else _clamped(value) for value in values]


def _clamped(value: Any) -> float:
    return round(min(max(value, LOWEST), 0.0), DIGITS) if isinstance(value, (int, float)) else LOWEST
