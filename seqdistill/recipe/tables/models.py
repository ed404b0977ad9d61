"""The tables of the models: [teacher], [[teachers]], [student] and [judge], and the keys that they share."""

from dataclasses import dataclass
from typing import Any

from seqdistill.recipe.tables.setting import key

ENGINES = ("openai", "vllm", "transformers")
PRICE = (
    "USD per million tokens: prompt, completion, cached_prompt, cache_write, cache_write_1h; batch: a share of them; "
    "request: USD a request; tiers: [{ above = 200000, prompt, completion ... }] for longer prompts"
)


@dataclass(frozen=True)
class ModelConfig:
    """A model and how it is reached. The keys shared by [teacher] and [student]."""

    model: str | None = key(
        None, "model: hub id, folder, .gguf file, package:NAME, run:RUN, or its name at the endpoint", path=True, common=True
    )
    engine: str = key("transformers", "engine that runs it", choices=ENGINES, common=True)
    base_url: list[str] = key(
        [], "base URL of an OpenAI-compatible endpoint; repeatable, to share the load", output=False, common=True
    )
    api_key_env: str | list[str] = key(
        "OPENAI_API_KEY",
        "environment variable that holds the key; in a recipe also a list, one for each base URL",
        output=False,
    )
    revision: str | None = key(None, "hub revision; for an endpoint, your own name for the version that it serves")
    trust_remote_code: bool = key(False, "run Python code that comes with the model")
    options: dict[str, Any] = key(
        {}, "passed verbatim to the engine (batch_size, dtype, tensor_parallel_size ...)", output=False
    )
    body: dict[str, Any] = key({}, "further fields of every request to the endpoint, as JSON", output=False)
    headers: dict[str, Any] = key({}, "further headers of every request; $NAME is an environment variable", output=False)
    query: dict[str, Any] = key({}, "further query of every request, such as api-version; $NAME as in headers", output=False)
    stream: bool = key(False, "stream answers: for stream-only models and gateways that cut long silence", output=False)
    chat_template_kwargs: dict[str, Any] = key({}, "passed to the chat template, e.g. enable_thinking")
    reasoning_tags: list[str] = key(
        [], "tags around reasoning in new answers, as <plan>...</plan>; default: the common ones; repeatable", output=False
    )


@dataclass(frozen=True)
class TeacherConfig(ModelConfig):
    """[teacher]: the model whose answers are learnt."""

    license: str | None = key(None, "the teacher's license, for the cards; default: from a local model's files", output=False)
    terms_url: str | None = key(None, "URL of the teacher's terms, for the cards", output=False)
    training_allowed: bool | None = key(
        None, "whether the teacher's terms allow training on its answers; false stops the run", output=False
    )
    despite_terms: str | None = key(
        None, "the teacher's name, to train on its answers although training_allowed is false", output=False
    )
    price: dict[str, Any] = key({}, PRICE, output=False)
    hourly_usd: float | None = key(None, "cost of your own machine that runs the teacher, in USD per hour", low=0, output=False)


@dataclass(frozen=True)
class OneOfTeachers(TeacherConfig):
    """[[teachers]]: one of several teachers; the others are further tables of the same name."""

    weight: float | None = key(
        None, "this teacher's share of the samples; without weights each teacher answers everything", low=0
    )


@dataclass(frozen=True)
class StudentConfig(ModelConfig):
    """[student]: the model that learns."""

    model: str | None = key(
        None,
        "student: hub id, folder, shrink:N (N of the teacher's layers), or run:RUN (the student of another run)",
        path=True,
        common=True,
    )
    price: dict[str, Any] = key({}, f"where it is a paid endpoint, {PRICE}", output=False)
    hourly_usd: float | None = key(None, "cost of the machine that runs the student, in USD per hour", low=0, output=False)
    base_model: str | None = key(
        None,
        "hub id of the student before training, for its card, where model is a file; for shrink:N the teacher's",
        output=False,
    )
    chat_template: str | None = key(
        None, "chat template in place of the student's own: a .jinja file, or a name in TRL's chat_templates", path=True
    )


@dataclass(frozen=True)
class JudgeConfig(ModelConfig):
    """[judge]: the model that scores answers."""

    model: str | None = key(
        None, "judge: hub id, folder, .gguf file, package:NAME, or its name at the endpoint", path=True, common=True
    )
    rubric: str = key("score", "the judge's rubric: a .toml file, or the name of one in prompts/judge/", path=True)
    max_tokens: int = key(512, "maximum new tokens per judgement", low=1)
    price: dict[str, Any] = key({}, PRICE, output=False)
    budget: float | None = key(None, "hard cap on the cost of judging in this run, in USD; needs a price", low=0, output=False)
    concurrency: int = key(64, "maximum requests in flight per endpoint", low=1, high=10000, output=False)
