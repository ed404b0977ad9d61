"""What is done to a batch's logits at each step of transformers' `generate`: keep to a form, sample, note log-probabilities.

Each keeps one state a row; rows leave a batch when they are finished, and `keep` says which stay.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from seqdistill.engines import Request
from seqdistill.engines.logprobs import TEMPERATURES, by_ids
from seqdistill.errors import UsageError


class Step(Protocol):
    """A logits processor that rows may leave."""

    def __call__(self, input_ids: Any, scores: Any, /) -> Any:
        """The scores (B, V) of the next token, after the tokens (B, T) so far."""

    def keep(self, tokens: Any, rows: list[int], /) -> None:
        """Continues with these rows alone; the tokens (B, T) are those of all rows."""


class FirstToken:
    """Notes when the first token's scores are there; changes nothing."""

    def __init__(self) -> None:
        """The clock starts now."""
        self._began = time.perf_counter()
        self.seconds: float | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ARG002 - (B, T), (B, V) -> (B, V)
        if self.seconds is None:
            if scores.is_cuda:
                scores[0, 0].item()  # waits for the device
            self.seconds = time.perf_counter() - self._began
        return scores

    def keep(self, tokens: Any, rows: list[int]) -> None:
        """Nothing is kept of a row."""


class OneOf:
    """Lets through only the tokens of some texts, each followed by a stop token."""

    def __init__(self, texts: list[list[int]], stops: list[int], width: int) -> None:
        """`width` is the prompts' length, from which on a row is compared with the texts."""
        self._stops, self._width = stops, width
        self._next: dict[tuple[int, ...], list[int]] = {}  # by what was written: what may follow
        for text in texts:
            for place, token in enumerate(text):
                self._next.setdefault(tuple(text[:place]), []).append(token)
            self._next.setdefault(tuple(text), []).extend(stops)

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        masked = scores.new_full(scores.shape, float("-inf"))
        for row, written in enumerate(input_ids[:, self._width :].tolist()):
            allowed = self._next.get(tuple(written), self._stops)  # what has ended continues with padding
            masked[row, allowed] = scores[row, allowed]
        return masked

    def keep(self, tokens: Any, rows: list[int]) -> None:
        """Nothing is kept of a row but its tokens."""


class JsonSchema:
    """Lets through only what keeps to a JSON schema, by llguidance's grammars; the JSON is written as `json.dumps` does.

    Not for beams: rows must not change places.
    """

    def __init__(self, tokenizer: Any, schema: Mapping[str, Any], rows: int) -> None:
        """`tokenizer` is llguidance's. Raises UsageError for a schema that has no grammar."""
        from llguidance import LLMatcher

        spaces = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # no model idles in white space
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(dict(schema), defaults=spaces), log_level=0)
        if matcher.is_error():
            raise UsageError(f"[generate.schema] cannot be kept to: {matcher.get_error()[:300]}", "simplify the schema")
        self._matchers = [matcher.deep_copy() for _ in range(rows)]
        self._behind = False  # whether the matchers lack each row's last token

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        import numpy
        import torch

        self._catch_up(input_ids)
        self._behind = True
        masks = numpy.stack([numpy.frombuffer(matcher.compute_bitmask(), numpy.uint8) for matcher in self._matchers])
        allowed = numpy.unpackbits(masks, axis=1, bitorder="little")[:, : scores.shape[1]]
        return scores.masked_fill(torch.from_numpy(allowed).to(scores.device) == 0, float("-inf"))

    def _catch_up(self, tokens: Any) -> None:
        for matcher, token in zip(self._matchers, tokens[:, -1].tolist(), strict=True):
            if self._behind and not matcher.is_stopped():
                matcher.consume_token(token)
        self._behind = False

    def keep(self, tokens: Any, rows: list[int]) -> None:
        self._catch_up(tokens)
        self._matchers = [self._matchers[row] for row in rows]


class SeededSampling:
    """Makes greedy decoding sample: Gumbel-max, with noise from each request's own seed.

    argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T): Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030.
    """

    def __init__(self, requests: list[Request]) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        self._temperature, self._top_p = requests[0].temperature, requests[0].top_p

    def __call__(self, _input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        import torch

        scores = scores.float() / self._temperature
        if self._top_p < 1:
            ranked, order = scores.sort(descending=True, dim=-1)
            share = ranked.softmax(-1)
            outside = share.cumsum(-1) - share > self._top_p
            scores = scores.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
        noise = torch.stack([torch.rand(scores.shape[-1], generator=generator) for generator in self._generators])
        return scores - torch.log(-torch.log(noise.clamp_min(1e-20))).to(scores.device)

    def keep(self, _tokens: Any, rows: list[int]) -> None:
        self._generators = [self._generators[row] for row in rows]


class TopLogprobs:
    """Notes the log-probability of each token that is written and of the likeliest ones in its place; changes nothing.

    With the likeliest ones it notes the normalisers at TEMPERATURES, without which they are exact at temperature 1 alone.
    """

    def __init__(self, top: int, rows: int) -> None:
        """For a batch of `rows`; `top` is how many likeliest tokens are noted, 0 for none."""
        self._top = top
        self._left = list(range(rows))
        self._before: Any = None  # (B, V): the log-probabilities that the next token is chosen by
        self._values: list[list[float]] = [[] for _ in range(rows)]
        self._tops: list[list[tuple[list[int], list[float]]]] = [[] for _ in range(rows)]
        self._normalizers: list[list[list[float]]] = [[] for _ in range(rows)]

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        self._note(input_ids)
        self._before = scores.float().log_softmax(-1)
        return scores

    def _note(self, input_ids: Any) -> None:
        """Notes the last token of each row, if it was not yet."""
        if self._before is None:
            return
        chosen = self._before.gather(-1, input_ids[:, -1:])[:, 0].tolist()
        likeliest = self._before.topk(self._top)
        normalizers = log_normalizers(self._before).tolist() if self._top else [[]] * len(chosen)
        for row, value, ids, values, at_temperatures in zip(
            self._left, chosen, likeliest.indices.tolist(), likeliest.values.tolist(), normalizers, strict=True
        ):
            self._values[row].append(value)
            self._tops[row].append((ids, values))
            self._normalizers[row].append(at_temperatures)
        self._before = None

    def keep(self, tokens: Any, rows: list[int]) -> None:
        self._note(tokens)
        self._left = [self._left[row] for row in rows]

    def of(self, row: int, tokens: list[int]) -> dict[str, Any]:
        """What was noted of a row whose answer these tokens are."""
        tops, normalizers = self._tops[row][: len(tokens)], self._normalizers[row][: len(tokens)]
        ids, values = [place[0] for place in tops], [place[1] for place in tops]
        return by_ids(tokens, self._values[row][: len(tokens)], ids, values, normalizers if self._top else None)


Heard = Callable[[str, list[int], Callable[[], dict[str, Any]]], None]  # a name, its tokens so far, what was noted of them


class Written:
    """Reports each row's tokens as they are written; changes nothing. Stands behind what notes log-probabilities."""

    def __init__(self, names: list[str], width: int, stops: Sequence[int], noted: TopLogprobs | None, heard: Heard) -> None:
        """`names` are those of the rows, `width` is the prompts' length; what follows one of `stops` is padding."""
        self._names, self._width, self._stops, self._noted, self._heard = names, width, frozenset(stops), noted, heard
        self._left = list(range(len(names)))

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # (B, T), (B, V) -> (B, V)
        if input_ids.shape[1] > self._width:
            for row, written in zip(self._left, input_ids[:, self._width :].tolist(), strict=True):
                end = next((at + 1 for at, token in enumerate(written) if token in self._stops), None)
                tokens = written[:end]
                self._heard(self._names[row], tokens, lambda row=row, tokens=tokens: self._of(row, tokens))  # type: ignore[misc]
        return scores

    def _of(self, row: int, tokens: list[int]) -> dict[str, Any]:
        return {} if self._noted is None else self._noted.of(row, tokens)

    def keep(self, _tokens: Any, rows: list[int]) -> None:
        self._left = [self._left[row] for row in rows]


def log_normalizers(logprobs: Any) -> Any:  # (N, V) -> (N, len(TEMPERATURES))
    """log sum_j p_j^(1/temperature) over the vocabulary, at each of TEMPERATURES."""
    import torch

    return torch.stack([(logprobs / temperature).logsumexp(-1) for temperature in TEMPERATURES], dim=-1)
