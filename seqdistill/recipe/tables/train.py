"""The table [train] and [train.lora]."""

from dataclasses import dataclass, field
from typing import Any

from seqdistill.recipe.tables.setting import key


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
        "learn the teacher's text (sequence, or its other name sft), also its distribution at each token (soft), its "
        "distribution on the student's text (on_policy), to prefer its answer to the student's (preference)",
        choices=("sequence", "sft", "soft", "on_policy", "preference"),
        common=True,
    )
    alpha: float = key(0.5, "method = soft: weight of the text; the soft targets have the rest", low=0, high=1)
    temperature: float = key(
        1.0,
        "method = soft: temperature of the distributions: 1, or another that generate stored",
        low=0.1,
        high=10,
    )
    approximate: bool = key(
        False, "method = soft: compare only the stored likeliest tokens, renormalised; works at every temperature"
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
        "the teacher's reasoning: not trained on, before the answer (as reasoning does), or in rows of their own",
        choices=("off", "inline", "multitask"),
    )
    rationale_weight: float = key(1.0, "rationale = multitask: weight of these rows", low=0)
    reference_weight: float = key(0.0, "weight of rows whose answer is the prompt's reference; 0: no such rows", low=0)
    references: str = key(
        "extra", "reference_weight: rows in addition to the teacher's, or instead of them", choices=("extra", "replace")
    )
    teacher_weights: dict[str, Any] = key({}, "weights of the rows of each teacher, by its name in the samples")
    edited_weight: float = key(1.0, "weight of rows whose answer a person edited", low=0)
    layers: str = key("influence", "how shrink:N chooses layers: influence, even, or a list like 0,1,2,20")
    steps: str = key("", "cut shrink:N in steps and train after each: 20,12,8")
    width: float = key(1.0, "share of the feed-forward neurons that the student keeps", low=0.01, high=1)
    vocabulary: str = key(
        "all",
        "the student's tokens: all, or those of the task's texts (other text takes more tokens)",
        choices=("all", "task"),
    )
    unfit: str = key(
        "error", "what to do with rows that are too long or have control tokens in the answer", choices=("error", "drop")
    )
    seed: int = key(0, "seed of the data order and of dropout", low=0, high=2**31)
    limit: int | None = key(None, "only the first N rows", low=1, common=True)
    early_stopping: int | None = key(None, "stop after N validations without improvement, and keep the best weights", low=1)
    best: str | None = key(
        None,
        "keep the weights of the best validation, by its loss or by the quality of the student's answers ([task] primary "
        "against the teacher's answers). Default: the last weights; with early_stopping, loss",
        choices=("loss", "quality"),
    )
    best_prompts: int = key(32, "best = quality: validation prompts to answer at each validation", low=1)
    generations: int = key(
        3,
        "validation prompts whose answers are logged at each validation, beside the teacher's; 0: none",
        low=0,
        high=100,
        output=False,
    )
    hourly_usd: float | None = key(None, "cost of the machine that trains, in USD per hour", low=0, output=False)
    processes: int = key(1, "train in N processes on this machine, one per GPU; multiplies the batch by N", low=1, high=64)
    batch_tokens: int | None = key(None, "batch rows of similar length, up to N tokens per batch with padding", low=1)
    accelerate_config: str | None = key(
        None, "file of `accelerate config` to start the training with: FSDP, DeepSpeed, several GPUs", path=True
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
