"""What can be set: one frozen dataclass a table, with the only defaults and the only bounds. `recipes` reads and checks.

A key has one name everywhere: field here, key in the recipe, flag on the command line, word in the docs.
Order: flag > environment (SEQDISTILL_*) > recipe passed with -c > what the run remembers > its copy of the recipe > default.
The first two arrive as `flags`.
"""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, get_type_hints

from seqdistill.metrics import PRIMARY
from seqdistill.metrics.metric import TOLERANCE


def key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    shown: tuple[str, ...] = (),  # those of the choices that help lists; default: all
    low: float | None = None,
    high: float | None = None,
    path: bool = False,
    output: bool = True,
    common: bool = False,
) -> Any:
    """One setting: its default, its help text, what it may be, whether it can change the output's bytes or is needed often."""
    metadata = {"help": text, "choices": choices, "shown": shown or choices, "low": low, "high": high, "path": path}
    metadata |= {"output": output, "common": common}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# --- the tables -------------------------------------------------------------------------------------------------------

ENGINES = ("openai", "vllm", "transformers")


@dataclass(frozen=True)
class TaskConfig:
    """[task]: the prompts, and the metric that decides."""

    template: str | None = key(None, "task template: a .toml file, or the name of a folder in prompts/", path=True, common=True)
    prompts: str | None = key(
        None, "prompts: .jsonl, .json, .csv, .parquet, or hf:OWNER/NAME[/CONFIG][:SPLIT]", path=True, common=True
    )
    test: str | None = key(None, "held-out prompts for eval, in the same formats; never trained on", path=True, common=True)
    columns: dict[str, Any] = key(
        {}, 'columns of prompts and test that go by other names: { prompt = "question", reference = "answer", slice = ... }'
    )
    primary: str | None = key(
        None,
        "the metric that decides, against the references where all prompts have one; NAME_teacher and NAME_reference say "
        "which. Default: accuracy for choices, field_f1 for a schema, else chrf",
        choices=PRIMARY,
        shown=tuple(name for name in PRIMARY if not name.endswith(("_teacher", "_reference"))),
    )


@dataclass(frozen=True)
class ModelConfig:
    """A model and how it is reached. The keys shared by [teacher] and [student]."""

    model: str | None = key(
        None, "model: hub id, folder, .gguf file, package:NAME, run:RUN, or the endpoint's model name", path=True, common=True
    )
    engine: str = key("transformers", "what runs it", choices=ENGINES, common=True)
    base_url: list[str] = key(
        [], "base URL of an OpenAI-compatible endpoint; repeat it to share the load", output=False, common=True
    )
    api_key_env: str | list[str] = key(
        "OPENAI_API_KEY",
        "environment variable that holds the key; in a recipe also a list, one for each base URL",
        output=False,
    )
    revision: str | None = key(None, "revision of the model: a hub revision, or your name for what an endpoint serves")
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
        [], "tags around reasoning in new answers, as <plan>...</plan>; default: the common ones; repeat it", output=False
    )


@dataclass(frozen=True)
class TeacherConfig(ModelConfig):
    """[teacher]: the model whose answers are learnt."""

    license: str | None = key(None, "the teacher's license, for the cards; default: a local model's own metadata", output=False)
    terms_url: str | None = key(None, "where the teacher's terms are, for the cards", output=False)
    training_allowed: bool | None = key(
        None, "whether the teacher's terms allow training on its answers; false: refused", output=False
    )
    despite_terms: str | None = key(
        None, "the teacher's name, to train on its answers although training_allowed is false", output=False
    )
    price: dict[str, Any] = key({}, "USD per million tokens: prompt, cached_prompt, completion", output=False)
    hourly_usd: float | None = key(
        None, "USD per hour of the machine that runs the teacher, where it is yours", low=0, output=False
    )


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
        "student: hub id, folder, shrink:N (N of the teacher's layers), or run:RUN (another run's model)",
        path=True,
        common=True,
    )
    price: dict[str, Any] = key(
        {}, "USD per million tokens where the student's endpoint is paid: prompt, cached_prompt, completion", output=False
    )
    hourly_usd: float | None = key(None, "USD per hour of the machine that runs the student", low=0, output=False)
    chat_template: str | None = key(
        None, "chat template in place of the student's own: a .jinja file, or a name in TRL's chat_templates", path=True
    )


@dataclass(frozen=True)
class JudgeConfig(ModelConfig):
    """[judge]: the model that scores answers."""

    model: str | None = key(
        None, "judge: hub id, folder, .gguf file, package:NAME, or the endpoint's model name", path=True, common=True
    )
    rubric: str = key("score", "the judge's rubric: a .toml file, or the name of one in prompts/judge/", path=True)
    max_tokens: int = key(512, "most new tokens of one judgement", low=1)
    price: dict[str, Any] = key({}, "USD per million tokens: prompt, cached_prompt, completion", output=False)
    budget: float | None = key(None, "most USD that judging may cost in this run; needs a price", low=0, output=False)
    concurrency: int = key(64, "most requests in flight at one endpoint", low=1, high=10000, output=False)


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


@dataclass(frozen=True)
class IntegrityConfig:
    """[filter.integrity]: what may not be wrong with a completion on its own."""

    finish_reasons: list[str] = key(["stop"], "keep completions that ended so; repeat it for several; [] is any")
    min_chars: int = key(1, "reject shorter completions", low=0)
    max_chars: int | None = key(None, "reject longer completions", low=1)
    markup: bool = key(True, "reject template tokens in the text, reasoning left in it, open code fences and broken characters")
    max_repetition: float = key(
        0.5, "reject when more than this share of a completion repeats what it said before; 1 is off", low=0, high=1
    )
    self_naming: bool = key(True, "reject completions that speak of themselves as an AI model, unprompted")
    constant_share: float = key(
        0.5,
        "reject a completion of some length that answers more than this share of its slice's prompts word for word; 1 is off",
        low=0,
        high=1,
    )
    refusals: str = key("annotate", "refusals: count them in the report, or drop them", choices=("annotate", "drop"))
    stock_phrases: str = key(
        "annotate", "openings that take the place of an answer: count them in the report, or drop", choices=("annotate", "drop")
    )
    script_share: float = key(
        0.5,
        "reject a completion in another writing system than its prompt's, unasked, when fewer than this share of the slice's "
        "prompts are answered so; 0 is off",
        low=0,
        high=1,
    )
    language_share: float = key(
        0.0,
        "the same for another language than its prompt's, of 97 languages; 0 is off, as language identification takes its time",
        low=0,
        high=1,
    )
    stock_share: float = key(
        0.005,
        "a stock phrase opens at least this share of one slice's completions, unprompted; 0 is off",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class NearDuplicatesConfig:
    """[filter.near_duplicates]: which rows almost repeat a better one."""

    scope: str = key(
        "pair",
        "compare prompt and completion together, one of them, completions of one prompt, or nothing",
        choices=("pair", "prompt", "response", "within-prompt", "off"),
    )
    similarity: float = key(0.8, "Jaccard similarity of word pairs from which rows are near-duplicates", low=0.3, high=1)
    numbers: bool = key(True, "rows whose numbers differ are no near-duplicates")
    guard: float = key(
        0.8,
        "stop when near-duplicates would take more than this share of a slice, or a quarter of it in one cluster; 1 is off",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class ContaminationConfig:
    """[filter.contamination]: which rows hold a test item. The run's own test set is always looked for."""

    against: list[str] = key([], "further test sets that must not be trained on: files or hf:OWNER/NAME; repeat it", path=True)
    action: str = key(
        "drop",
        "drop the rows that hold a test item, or count them in the report and train on them",
        choices=("drop", "annotate"),
    )
    completions: bool = key(True, "look for test items in completions too, not in prompts alone")
    masked: bool = key(True, "a row that is a test item with other numbers holds it")
    overlap: float = key(0.7, "share of a test item's 5-grams from which a row holds it", low=0.1, high=1)


@dataclass(frozen=True)
class ScoreConfig:
    """[filter.score]: how good a sample is."""

    by: str = key(
        "none",
        "how samples are scored: nearness to the reference, vote of the samples, nearness to each other, a check, "
        "numbers and names of the prompt, "
        "the teacher's log-probability, an LLM judge, a reward model",
        choices=("none", "reference", "vote", "consensus", "verify", "faithfulness", "logprob", "judge", "reward"),
    )
    metric: str = key("chrf", "by = reference: what nearness is", choices=("chrf", "bleu"))
    extract: str | None = key(
        None,
        "the answer in a completion: text, number, boxed, json:PATH or regex:PATTERN; default: number to verify one, "
        "to vote json: where a schema is set, else text",
    )
    reward_model: str | None = key(None, "by = reward: hub id or folder of a sequence classifier with one output", path=True)


@dataclass(frozen=True)
class VerifyConfig:
    """[filter.verify]: the check behind score.by = verify."""

    by: str = key("number", "the check against the reference: number, json, math, command or regex:PATTERN")
    tolerance: float = key(
        TOLERANCE,
        "by = number: numbers this close are equal, relative; whole numbers must be the same, up to the default",
        low=0,
        high=1,
    )
    command: list[str] = key(
        [],
        "by = command: program and arguments; the sample as a JSON line on stdin, exit code 0 is right, 1 wrong; "
        "repeat it for each part",
        path=True,
    )
    seconds: float = key(10.0, "most seconds of one check", low=0.01)
    mb: int = key(1024, "most memory of one check, in MiB", low=16)


@dataclass(frozen=True)
class SelectConfig:
    """[filter.select]: which of the scored samples stay."""

    keep: str = key("best", "what stays of the scored", choices=("best", "share", "threshold", "all"))
    best_n: int = key(1, "keep = best: how many stay", low=1)
    top_share: float = key(0.5, "keep = share: which share stays, the best first", low=0, high=1)
    min_score: float | None = key(
        None, "the lowest score that stays, whatever keep is; default: 1 with keep = threshold or score.by = verify, else none"
    )
    among: str = key("prompt", "choose among one prompt's samples, or among all", choices=("prompt", "all"))
    unscored: str = key(
        "drop", "samples that could not be scored: drop them, or keep them behind all others", choices=("drop", "keep")
    )


@dataclass(frozen=True)
class PersonalDataConfig:
    """[filter.personal_data]: what becomes of e-mail, phone, card, IBAN, keys and tokens."""

    action: str = key(
        "annotate",
        "count them in the report, mask them on both sides, or drop the rows",
        choices=("off", "annotate", "mask", "drop"),
    )
    phone_regions: list[str] = key(
        ["US", "GB", "DE", "FR", "ES", "IT", "NL", "BE", "AT", "CH", "IE", "PL", "PT", "SE", "AU", "IN", "BR"],
        "countries whose national phone numbers are known; those with a country code always are",
    )


@dataclass(frozen=True)
class FilterConfig:
    """[filter]: what is worth learning. The steps in the order in which they are applied, then what is of the whole stage."""

    integrity: IntegrityConfig = field(default_factory=IntegrityConfig)
    schema: bool = key(True, "reject completions that break the JSON schema or are not one of the choices of [generate]")
    duplicates: bool = key(True, "reject exact duplicates: same prompt and completion but for case, white space, Unicode form")
    near_duplicates: NearDuplicatesConfig = field(default_factory=NearDuplicatesConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    personal_data: PersonalDataConfig = field(default_factory=PersonalDataConfig)
    baselines: bool = key(False, "also write a random and a longest selection of the same size, to compare with")
    engine: str = key(
        "local", "where the samples are read: on this machine, or on a Ray cluster", choices=("local", "ray"), output=False
    )
    workers: int = key(0, "processes that read the samples; 0: one a core for large files", low=0, output=False)
    validation: float = key(0.05, "share of the prompts held back to watch the training loss", low=0, high=0.5)
    seed: int = key(0, "seed of the train/validation split", low=0)
    limit: int | None = key(None, "only the first N samples", low=1, common=True)


@dataclass(frozen=True)
class LoraConfig:
    """[train.lora]: low-rank adapters that are trained in place of all weights, and merged when the model is saved."""

    r: int | None = key(None, "train low-rank adapters of this rank instead of all weights; merged when saved", low=1)
    alpha: float | None = key(None, "scale of the adapters; default: 2 r", low=0)
    dropout: float = key(0.0, "dropout in the adapters", low=0, high=0.99)
    target_modules: list[str] = key([], "names of the modules that get adapters; default: all linear layers but the head")
    quantize: str | None = key(
        None, "load the frozen weights quantised (QLoRA); needs a CUDA GPU and bitsandbytes", choices=("4bit", "8bit")
    )


@dataclass(frozen=True)
class TrainConfig:
    """[train]: how the student learns. Everything TRL knows goes through [train.args]."""

    method: str = key(
        "sequence",
        "what is learnt: the teacher's text; also its distribution at each token; its distribution where the student writes; "
        "its answer over the student's own. sft is another word for sequence",
        choices=("sequence", "sft", "soft", "on_policy", "preference"),
        common=True,
    )
    alpha: float = key(0.5, "method = soft: weight of the text; the targets have the rest", low=0, high=1)
    temperature: float = key(
        1.0,
        "method = soft: temperature at which the distributions are compared: 1, or one that generate stored",
        low=0.1,
        high=10,
    )
    approximate: bool = key(
        False, "method = soft: compare the stored likeliest tokens alone, renormalised; works at every temperature"
    )
    features: float = key(0.0, "weight of the similarity of hidden states, for a student cut from its teacher", low=0)
    features_loss: str = key("cosine", "features: 1 - cosine, or mean squared difference", choices=("cosine", "mse"))
    attention: float = key(0.0, "weight of the similarity of attention, for a student cut from its teacher", low=0)
    attention_loss: str = key("kl", "attention: KL divergence, or squared distance", choices=("kl", "mse"))
    relations: float = key(
        0.0,
        "weight of the relations between queries, keys and values in the last layer, for a student cut from its teacher",
        low=0,
    )
    distances: float = key(0.0, "weight of the distances between a batch's rows, for a student cut from its teacher", low=0)
    lora: LoraConfig = field(default_factory=LoraConfig)
    reasoning: bool = key(False, "train on the teacher's reasoning too, as <think> before the answer")
    rationale: str = key(
        "off",
        "the teacher's reasoning: not trained, before the answer (as reasoning does), or as rows of a task of its own",
        choices=("off", "inline", "multitask"),
    )
    rationale_weight: float = key(1.0, "rationale = multitask: weight of these rows", low=0)
    reference_weight: float = key(0.0, "weight of rows whose answer is the prompt's reference; 0: no such rows", low=0)
    references: str = key(
        "extra", "reference_weight: rows beside the teacher's, or instead of them", choices=("extra", "replace")
    )
    teacher_weights: dict[str, Any] = key({}, "weights of teachers' rows, by the teacher's name in the samples")
    edited_weight: float = key(1.0, "weight of rows whose answer a person edited", low=0)
    layers: str = key("influence", "how shrink:N chooses layers: influence, even, or a list like 0,1,2,20")
    steps: str = key("", "cut shrink:8 in steps, each trained: 20,12,8")
    width: float = key(1.0, "the share of each feed-forward layer's neurons that the student keeps", low=0.01, high=1)
    vocabulary: str = key(
        "all", "the student's tokens: all, or those of the task's texts, any other text in more tokens", choices=("all", "task")
    )
    unfit: str = key(
        "error", "rows too long for the student or with control tokens in the answer: error, or drop", choices=("error", "drop")
    )
    seed: int = key(0, "seed of the data order and of dropout", low=0, high=2**31)
    limit: int | None = key(None, "only the first N rows", low=1, common=True)
    early_stopping: int | None = key(
        None, "stop after N validations without a better one, and take the weights of the best", low=1
    )
    best: str | None = key(
        None,
        "take the weights of the best validation: by its loss, or by the quality of what the student answers, which is "
        "[task] primary against the teacher's answers. Default: the last weights; with early_stopping, loss",
        choices=("loss", "quality"),
    )
    best_prompts: int = key(32, "best = quality: validation prompts that the student answers at each validation", low=1)
    generations: int = key(
        3,
        "validation prompts whose answers are in log.jsonl at each validation, beside the teacher's; 0: none",
        low=0,
        high=100,
        output=False,
    )
    hourly_usd: float | None = key(None, "USD per hour of the machine that trains", low=0, output=False)
    processes: int = key(1, "train in N processes on this machine, one a GPU; a batch is then N times as large", low=1, high=64)
    batch_tokens: int | None = key(
        None, "batches of rows of like length, up to N tokens with their padding, in place of N rows each", low=1
    )
    accelerate_config: str | None = key(
        None, "file of `accelerate config` by which the training is started: FSDP, DeepSpeed, several GPUs", path=True
    )
    args: dict[str, Any] = key({}, "verbatim to TRL's config class of the method: SFTConfig ...")

    @property
    def best_by(self) -> str | None:
        """What the best weights are chosen by: "loss" or "quality"; None: the last weights are taken."""
        return self.best or (None if self.early_stopping is None else "loss")

    @property
    def trains_reasoning(self) -> bool:
        """Whether the teacher's reasoning is trained before the answer."""
        return self.reasoning or self.rationale == "inline"


@dataclass(frozen=True)
class SafetyConfig:
    """[eval.safety]: what must not be lost or learnt beside the task. What costs requests is off by default."""

    refusals: bool = key(
        False, "send student, base and teacher 24 requests to refuse and 24 harmless ones that only sound harmful"
    )
    prompts: str | None = key(
        None,
        "your own set for refusals; the slice of a row is refuse (or unsafe, harmful) or answer (or safe, benign)",
        path=True,
    )
    columns: dict[str, Any] = key({}, 'columns of that set that go by other names: { prompt = "goal", slice = "label" }')
    expect: str | None = key(None, "what is wanted of rows of that set without a slice", choices=("refuse", "answer"))
    margin: float = key(
        15.0, "points by which the student may refuse or answer less often than base or teacher", low=0, high=100
    )
    max_tokens: int = key(64, "most new tokens of an answer to these prompts", low=1)
    canaries: str | None = key(
        None,
        "secrets that you planted in the training data: .jsonl with prompt (what comes before it) and reference",
        path=True,
    )
    forgetting: bool = key(False, "score 20 passages of general text by base, student and teacher, where they run here")


@dataclass(frozen=True)
class EvalConfig:
    """[eval]: how the proof is made."""

    temperature: float = key(0.0, "sampling temperature of all four models", low=0, high=5)
    max_tokens: int | None = key(None, "most new tokens in one answer; default: the same as generate", low=1)
    margin: float = key(
        5.0,
        "points by which the student may be worse than the teacher and still pass; below 1 a share: 0.05",
        low=0,
        high=100,
        common=True,
    )
    also: list[str] = key(
        [], "compare also a file of outputs (.jsonl: id or prompt, completion), run:RUN, or a model; repeat it", path=True
    )
    metric: str | None = key(
        None, "your own metric, FILE.py:FUNCTION: def FUNCTION(answer, wanted, prompt) to a share from 0 to 1", path=True
    )
    fail_under: list[str] = key(
        [], "METRIC=VALUE: exit 1 where the student is below, as kept=0.9 or decision=NON-INFERIOR; repeat it", output=False
    )
    pairwise: bool = key(False, "have the judge compare student and teacher, in both orders; [judge] names it")
    labels: str | None = key(
        None, "people's choices, which correct the judge: .jsonl with id and choice (student, teacher, tie)", path=True
    )
    target: float | None = key(
        None,
        "share of the answers the student keeps that must be good enough, as 0.9: finds the confidence to keep them from",
        low=0.01,
        high=0.999,
    )
    risk: float = key(0.05, "probability with which that promise may be broken", low=0.001, high=0.5)
    agreement: int = key(
        0,
        "further samples of the student whose agreement is its confidence; 0: its log-probability, which costs nothing",
        low=0,
    )
    good_enough: float | None = key(
        None, "score of the primary metric from which an answer is good enough; default: the teacher's less margin"
    )
    teacher_forced: bool = key(
        False, "have student and teacher, both in this process, read the teacher's answers: top-1 agreement and KL a token"
    )
    latency_requests: int = key(
        8,
        "test prompts on which each model's latency is measured, one at a time; 0: off. At a paid endpoint the answers' own "
        "times are taken, unless p95_limit is set",
        low=0,
        high=1000,
    )
    p95_limit: float | None = key(
        None,
        "seconds within which 95% of the answers must be there: finds the most requests at once that keep it, at each model",
        low=0.001,
    )
    utilisation: float = key(0.5, "share of the paid hours in which a machine of yours answers requests", low=0.001, high=1)
    fallback_share: float | None = key(
        None,
        "share of the requests that the teacher answers; default: what target's threshold sends there, else 0",
        low=0,
        high=1,
    )
    shadow_share: float = key(0.0, "share of the requests that the teacher answers too, to compare", low=0, high=1)
    regressions: int = key(
        20, "how many of the prompts that the student answers worse than base or teacher are explained", low=0, high=1000
    )
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    resamples: int = key(2000, "bootstrap resamples of each interval", low=100)
    seed: int = key(0, "seed of the bootstrap and of sampling", low=0)
    limit: int | None = key(None, "only the first N test prompts", low=1, common=True)
    concurrency: int = key(64, "most requests in flight", low=1, high=10000, output=False)


@dataclass(frozen=True)
class Recipe:
    """Every table, resolved."""

    task: TaskConfig = field(default_factory=TaskConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # with several teachers and no [teacher], the first of them
    teachers: list[OneOfTeachers] = field(default_factory=list)
    student: StudentConfig = field(default_factory=StudentConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


TABLES: dict[str, type[Any]] = {name: kind for name, kind in get_type_hints(Recipe).items() if name != "teachers"}


@dataclass(frozen=True)
class Setting:
    """One key of a table, or of a table in it: a field that is a dataclass is a table of its own."""

    names: tuple[str, ...]  # within its table: ("temperature",), ("near_duplicates", "similarity")
    field: "Field[Any]"
    kind: Any  # its type

    @property
    def default(self) -> Any:
        """Its default."""
        return self.field.default_factory() if self.field.default_factory is not MISSING else self.field.default


def settings_of(kind: Any, *above: str) -> Iterator[Setting]:
    """Every setting of a table, those of the tables in it included, in the order in which they are written above."""
    for name, (part, of) in parts_of(kind).items():
        if is_dataclass(of):
            yield from settings_of(of, *above, name)
        else:
            yield Setting((*above, name), part, of)


def settings(table: Any, *leave_out: str) -> dict[str, Any]:
    """The settings of one table that can change the output's bytes, by dotted name, for a stage's fingerprint."""
    names = [".".join(setting.names) for setting in settings_of(type(table)) if setting.field.metadata["output"]]
    return {name: attrgetter(name)(table) for name in names if name not in leave_out}


def flag(table: str, *names: str) -> str:
    """The flag of a key: `--temperature`, in a nested table `--near-duplicates-similarity`, of a model `--teacher-engine`.

    A model's name itself is `--teacher`.
    """
    if issubclass(TABLES[table], ModelConfig):
        names = (table,) if names == ("model",) else (table, *names)
    return "--" + "-".join(names).replace("_", "-")


def parts_of(kind: Any) -> dict[str, tuple["Field[Any]", Any]]:
    """Each field of a table and its type."""
    hints = get_type_hints(kind)
    return {part.name: (part, hints[part.name]) for part in fields(kind)}
