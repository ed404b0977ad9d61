"""The table [generate]."""

from dataclasses import dataclass
from typing import Any

from seqdistill.recipe.tables.setting import key


@dataclass(frozen=True)
class GenerateConfig:
    """[generate]: how answers are sampled from the teacher."""

    samples: int = key(1, "answers wanted for each prompt", low=1, high=1000, common=True)
    temperature: float = key(0.0, "sampling temperature; 0 is greedy", low=0, high=5, common=True)
    top_p: float = key(1.0, "nucleus sampling: keep the likeliest tokens up to this share", low=0, high=1)
    max_tokens: int = key(1024, "most new tokens in one answer", low=1, common=True)
    seed: int = key(0, "run seed; each request's seed is a hash of it, the prompt's id and the sample number", low=0)
    limit: int | None = key(None, "only the first N prompts", low=1, common=True)
    schema: dict[str, Any] = key({}, "JSON schema that every answer must keep to")
    choices: list[str] = key([], "every answer must be one of these; repeat it")
    beams: int = key(1, "width of a beam search, with temperature 0; not on the openai engine", low=1, high=100)
    logprobs: int | None = key(
        None, "write logprobs.parquet: log-probabilities of each token and of the N likeliest at its position", low=0
    )
    samples_per_request: int = key(
        1,
        "answers to one prompt in one request, where the endpoint knows n: the prompt is paid once",
        low=1,
        output=False,
    )
    ask_again: list[str] = key(
        [], "request once more what ended by this finish reason, or what is empty; repeat it: length, empty, content_filter ..."
    )
    retry_truncated: int | None = key(
        None, "request once more, with this larger max_tokens, the answers cut off at max_tokens", low=2
    )
    batch: bool = key(
        False, "send the requests through the endpoint's Batch API: within a day or so, at half the price", output=False
    )
    budget: float | None = key(
        None, "hard cap in USD on what the run's answers may cost in all", low=0, output=False, common=True
    )
    reuse: list[str] = key(
        [], "another run whose answers are taken instead of new requests; repeat it", path=True, output=False
    )
    concurrency: int = key(64, "most requests in flight at one endpoint", low=1, high=10000, output=False)
    requests_per_minute: int | None = key(None, "the endpoint's limit of requests a minute", low=1, output=False)
    tokens_per_minute: int | None = key(None, "the endpoint's limit of tokens a minute", low=1, output=False)
    timeout: float = key(600.0, "seconds one try of a request may take in all", low=0.1, output=False)
    connect_timeout: float = key(10.0, "seconds a connection may take to open", low=0.1, output=False)
    read_timeout: float | None = key(
        None, "seconds an endpoint may be silent within a try; default: as long as the try may take", low=0.1, output=False
    )
    retries: int = key(6, "further tries of a request after a failure that may pass", low=0, high=100, output=False)
    may_fail: float = key(
        0.0, "share of the requests that may stay without an answer; the run continues without them", low=0, high=1
    )
