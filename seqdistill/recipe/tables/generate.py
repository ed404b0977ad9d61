"""The table [generate]."""

from dataclasses import dataclass
from typing import Any

from seqdistill.recipe.tables.setting import key


@dataclass(frozen=True)
class GenerateConfig:
    """[generate]: how answers are sampled from the teacher."""

    samples: int = key(1, "answers per prompt", low=1, high=1000, common=True)
    temperature: float = key(0.0, "sampling temperature; 0 is greedy", low=0, high=5, common=True)
    top_p: float = key(1.0, "nucleus sampling: keep the likeliest tokens up to this share", low=0, high=1)
    max_tokens: int = key(1024, "maximum new tokens per answer", low=1, common=True)
    seed: int = key(0, "run seed; each request's seed is a hash of it, the prompt's id and the sample number", low=0)
    limit: int | None = key(None, "only the first N prompts", low=1, common=True)
    schema: dict[str, Any] = key({}, "JSON schema that every answer must keep to")
    choices: list[str] = key([], "every answer must be one of these; repeatable")
    beams: int = key(1, "width of a beam search, with temperature 0; not on the openai engine", low=1, high=100)
    logprobs: int | None = key(
        None, "write logprobs.parquet: log-probabilities of each token and of the N likeliest in its place", low=0
    )
    samples_per_request: int = key(
        1,
        "answers per request, where the endpoint supports n: the prompt is paid for once",
        low=1,
        output=False,
    )
    ask_again: list[str] = key(
        [],
        "repeat once requests whose answer is empty or ended by this reason: empty, length, content_filter ...; repeatable",
    )
    retry_truncated: int | None = key(None, "repeat requests whose answer was cut off, with this larger max_tokens", low=2)
    batch: bool = key(False, "use the endpoint's Batch API: answers within a day or so, at half the price", output=False)
    budget: float | None = key(None, "hard cap on what the whole run may cost, in USD", low=0, output=False, common=True)
    reuse: list[str] = key(
        [], "another run whose answers are used in place of new requests; repeatable", path=True, output=False
    )
    concurrency: int = key(64, "maximum requests in flight per endpoint", low=1, high=10000, output=False)
    requests_per_minute: int | None = key(None, "the endpoint's limit of requests per minute", low=1, output=False)
    tokens_per_minute: int | None = key(None, "the endpoint's limit of tokens per minute", low=1, output=False)
    timeout: float = key(600.0, "time limit of one attempt of a request, in seconds", low=0.1, output=False)
    connect_timeout: float = key(10.0, "time limit to open a connection, in seconds", low=0.1, output=False)
    read_timeout: float | None = key(
        None, "longest silence of an endpoint within an attempt, in seconds; default: timeout", low=0.1, output=False
    )
    retries: int = key(6, "retries of a request after a temporary failure", low=0, high=100, output=False)
    may_fail: float = key(0.0, "share of the requests that may fail; the run continues without their answers", low=0, high=1)
