"""The table [filter] and the tables in it, one for each step."""

from dataclasses import dataclass, field

from seqdistill.metrics.metric import TOLERANCE
from seqdistill.recipe.tables.setting import key


@dataclass(frozen=True)
class IntegrityConfig:
    """[filter.integrity]: what may not be wrong with a completion on its own."""

    finish_reasons: list[str] = key(["stop"], "keep completions that ended by one of these; [] accepts all; repeatable")
    min_chars: int = key(1, "reject shorter completions", low=0)
    max_chars: int | None = key(None, "reject longer completions", low=1)
    markup: bool = key(True, "reject template tokens in the text, reasoning left in it, open code fences and broken characters")
    max_repetition: float = key(
        0.5, "reject when more than this share of a completion repeats earlier text of it; 1 is off", low=0, high=1
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
        "annotate", "stock phrases that open a completion: count them in the report, or drop them", choices=("annotate", "drop")
    )
    script_share: float = key(
        0.5,
        "reject a completion in another writing system than its prompt's where fewer than this share of the slice's prompts "
        "have such a completion; 0 is off",
        low=0,
        high=1,
    )
    language_share: float = key(
        0.0,
        "the same for languages, of which 97 are known; 0 is off, because identification is slow",
        low=0,
        high=1,
    )
    stock_share: float = key(
        0.005,
        "an opening is a stock phrase when at least this share of a slice's completions begin with it, unprompted; 0 is off",
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
    numbers: bool = key(True, "rows whose numbers differ are not near-duplicates")
    guard: float = key(
        0.8,
        "stop when prompts that near-duplicates would leave without a row have more than this share of a slice, or a quarter "
        "of it in one cluster; 1 is off",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class ContaminationConfig:
    """[filter.contamination]: which rows hold a test item. The run's own test set is always looked for."""

    against: list[str] = key([], "further test sets that must not be trained on: files or hf:OWNER/NAME; repeatable", path=True)
    action: str = key(
        "drop",
        "drop the rows that hold a test item, or count them in the report and train on them",
        choices=("drop", "annotate"),
    )
    completions: bool = key(True, "look for test items in completions too, not only in prompts")
    masked: bool = key(True, "a test item with other numbers counts as that item")
    overlap: float = key(0.7, "a row holds a test item when it has at least this share of the item's 5-grams", low=0.1, high=1)


@dataclass(frozen=True)
class ScoreConfig:
    """[filter.score]: how good a sample is."""

    by: str = key(
        "none",
        "how samples are scored: similarity to the reference, majority vote, similarity to each other, a verifier, numbers "
        "and names that the prompt has, the teacher's log-probability, an LLM judge, a reward model",
        choices=("none", "reference", "vote", "consensus", "verify", "faithfulness", "logprob", "judge", "reward"),
    )
    metric: str = key("chrf", "by = reference: metric of similarity", choices=("chrf", "bleu"))
    extract: str | None = key(
        None,
        "which part of a completion is the answer, in a vote and where a number, json or a regex is verified: text, number, "
        "boxed, json:PATH or regex:PATTERN; default: number where a number is verified, json: where a vote has a schema, "
        "else text",
    )
    reward_model: str | None = key(None, "by = reward: hub id or folder of a sequence classifier with one output", path=True)


@dataclass(frozen=True)
class VerifyConfig:
    """[filter.verify]: the check behind score.by = verify."""

    by: str = key("number", "the check against the reference: number, json, math, command or regex:PATTERN")
    tolerance: float = key(
        TOLERANCE,
        "by = number: relative tolerance; up to the default, whole numbers must match exactly",
        low=0,
        high=1,
    )
    command: list[str] = key(
        [],
        "by = command: program and arguments, one a flag; gets the sample as a JSON line on stdin; exit code 0 is right, 1 "
        "wrong",
        path=True,
    )
    seconds: float = key(10.0, "time limit of one check, in seconds", low=0.01)
    mb: int = key(1024, "memory limit of one check, in MiB", low=16)


@dataclass(frozen=True)
class SelectConfig:
    """[filter.select]: which of the scored samples stay."""

    keep: str = key("best", "which of the scored samples stay", choices=("best", "share", "threshold", "all"))
    best_n: int = key(1, "keep = best: how many samples stay", low=1)
    top_share: float = key(0.5, "keep = share: which share of them stays", low=0, high=1)
    min_score: float | None = key(
        None,
        "lowest score that stays, whatever keep is; default: 1 with score.by = verify and, with keep = threshold, for vote and "
        "faithfulness, else none",
    )
    among: str = key("prompt", "choose among the samples of one prompt, or among all", choices=("prompt", "all"))
    unscored: str = key("drop", "samples that could not be scored: drop them, or rank them last", choices=("drop", "keep"))


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
        "countries whose national phone numbers are recognised; numbers with a country code always are",
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
    baselines: bool = key(False, "also write a random selection and the longest answers, of the same size, to compare with")
    engine: str = key("local", "filter on this machine, or on a Ray cluster", choices=("local", "ray"), output=False)
    workers: int = key(0, "processes that filter; 0: one per core for large files", low=0, high=1024, output=False)
    validation: float = key(0.05, "share of the prompts held out to watch the training loss", low=0, high=0.5)
    seed: int = key(0, "seed of the train/validation split", low=0)
    limit: int | None = key(None, "only the first N samples", low=1, common=True)
