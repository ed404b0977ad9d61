"""A smaller student from a model's own layers: which layers to keep, and the folder that holds them.

Cutting and then fine-tuning on the teacher's outputs is Shleifer & Rush's recipe (https://arxiv.org/abs/2010.13002); the
measure of what a layer does is ShortGPT's block influence (https://arxiv.org/abs/2403.03853). Does not train.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines.loading import load, plain_weights
from seqdistill.errors import UsageError
from seqdistill.files import apply_umask, atomic_folder
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Message, file_sha256, read_json, write_json
from seqdistill.runs import Run
from seqdistill.stages.train.cutting import completed, cut, decoder_layers, watched
from seqdistill.stages.train.rendering import Template
from seqdistill.stages.train.saving import write_processor
from seqdistill.stages.train.task_texts import file_texts
from seqdistill.stages.train.vocabulary import cut_tokenizer, restrict, task_vocabulary, write_vocabulary
from seqdistill.stages.train.width import narrow
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import PLAIN, load_template, prompts_folder

INFLUENCE_PROMPTS = 16  # the ranking of layers is the same from 4 prompts as from 16
CHOICES = ("influence", "even")


def shrink(
    model: str,
    out: Path,
    layers: int | str | None,
    choice: str = "influence",
    prompts: Iterable[list[Message]] = (),
    progress: Progress | None = None,
    *,
    kept: Sequence[int] | None = None,
    width: float = 1.0,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[int]:
    """Writes a model with some of `model`'s decoder layers to the folder `out`; returns which, counted from 0.

    `layers` is how many, and `choice` how they are chosen: "influence", measured on `prompts`, "even", evenly spaced with
    both ends, or the list itself ("0,1,2,20"); a list may also be in `layers`, and then `choice` is ignored; None keeps all
    layers. A layer that others need, such as a hybrid model's attention, takes the place of the nearest that nobody needs.
    `kept` are the tokens that stay, see `task_vocabulary`; without it, all do. `width` is the share of each feed-forward
    layer's neurons that stays, see `narrow`. Everything else (chat template, generation settings, dtype) stays. shrink.json
    says what was kept and why. `out` appears whole or not at all. Raises UsageError for an unknown model, choice or layer, for
    more layers than the model has, for a model whose layers are not one list or not of one kind, for a tokenizer or a width
    that cannot be cut, and for an `out` that exists.
    """
    import torch

    progress = progress or Silent()
    if out.exists():
        raise UsageError(f"{out}: exists already", "name a new folder, or remove this one")
    source = ModelConfig(model=model, revision=revision, trust_remote_code=trust_remote_code)
    tokenizer = load("AutoTokenizer", source)
    whole = load("AutoModelForCausalLM", source, dtype="auto", **plain_weights(source)).eval()
    measured = list(islice(prompts, INFLUENCE_PROMPTS))
    path, stack = decoder_layers(whole)
    of, chosen = len(stack), LayerChoice("all", list(range(len(stack))))
    if layers is not None:
        chosen = choose_layers(str(layers), choice, whole, tokenizer, measured, progress)
        progress.note(f"{model}: keeping layers {','.join(map(str, chosen.layers))} of {of} ({chosen.by})")
    narrowed = None
    if width < 1:
        whole, narrowed = narrow(whole, width, tokenizer, measured, progress)
        progress.note(f"{model}: keeping {narrowed.count:,} of {narrowed.of:,} neurons a layer, by {narrowed.by}")
    smaller = whole if layers is None else cut(whole, path, chosen.layers)
    vocabulary = {"kept": len(kept or tokenizer), "of": len(tokenizer)}
    if kept is not None:
        progress.note(f"{model}: keeping {vocabulary['kept']:,} of {vocabulary['of']:,} tokens")
        restrict(smaller, kept)
    facts = {
        "source": model,
        "layers": chosen.layers,
        "of": of,
        **_earlier_cuts(model, chosen.layers),
        "choice": chosen.by,
        "vocabulary": vocabulary,
        **({"width": narrowed.facts} if narrowed else {}),
        "influence": chosen.influence and [round(score, 6) for score in chosen.influence],
        "parameters": smaller.num_parameters(),
    }
    with atomic_folder(out) as half:
        with torch.no_grad():
            smaller.save_pretrained(half)
        write_vocabulary(source, tokenizer, kept, half)
        write_processor(source, half)
        apply_umask(half)
        write_json(half / "shrink.json", {**facts, "sha256": file_sha256(half)})
    return chosen.layers


@dataclass(frozen=True)
class Cut:
    """Which layers of a larger model a model's own layers were."""

    layers: list[int]
    of: int | None  # how many layers the larger model has; None: not recorded


def _earlier_cuts(model: str, layers: Sequence[int]) -> dict[str, Any]:
    """Of a model that was cut itself, which layers the kept ones were in what it was cut from."""
    cuts = [{"layers": [past.layers[layer] for layer in layers], "of": past.of} for past in recorded_cuts(model)]
    return {"earlier": cuts} if cuts else {}


def recorded_cuts(name: str) -> list[Cut]:
    """The cuts that a folder or a run (`run:RUN`) recorded of its model, the last one first; empty for a model that is whole.

    A model that was cut twice has two: from the model in the middle, and from the first.
    """
    if name.startswith("run:"):
        run = Run(Path(name.removeprefix("run:")))
        layers, note = (run.manifest("train") or {}).get("student", {}).get("layers"), run.file("train", "base") / "shrink.json"
    else:
        layers, note = None, Path(name).expanduser() / "shrink.json"
    facts = read_json(note) if note.exists() else {}
    if name.startswith("run:") and facts.get("layers") != layers:  # cut in steps: base is cut from the step before
        return [] if layers is None else [Cut(layers, None)]
    return [Cut(one["layers"], one["of"]) for one in (facts, *facts.get("earlier", []))] if facts else []


def shrink_from_files(
    model: str,
    out: Path,
    layers: str | None,
    choice: str,
    prompts: Path | None,
    progress: Progress | None = None,
    *,
    vocabulary: str = "all",
    texts: Path | None = None,
    width: float = 1.0,
) -> dict[str, Any]:
    """`shrink` with prompts from a file; without one, influence and activity are measured on the demo task's.

    Returns what was written.

    With `vocabulary` "task" the tokens of the prompts and of `texts` stay, a file of samples or other rows with strings.
    """
    conversations: list[list[Message]] = []
    by_influence = layers is not None and choice == "influence" and "," not in layers
    if by_influence or prompts or width < 1:
        file = prompts or prompts_folder() / "notices" / "prompts.jsonl"
        template = PLAIN if prompts else load_template("notices")
        limit = INFLUENCE_PROMPTS if vocabulary == "all" else None
        conversations = [prompt.messages for prompt in load_prompts(str(file), template, limit)]
    kept = None
    if vocabulary == "task":
        if prompts is None and texts is None:
            raise UsageError("--vocabulary task: there are no texts to choose the tokens by", "pass --prompts, --texts or both")
        kept = tokens_of_files(ModelConfig(model=model), conversations if prompts else [], texts)
    elif vocabulary != "all" or texts is not None:
        what = "--texts without --vocabulary task" if vocabulary == "all" else f"--vocabulary {vocabulary!r}"
        raise UsageError(f"{what}: unknown", "--vocabulary is all or task")
    chosen = shrink(model, out, layers, choice, conversations, progress, kept=kept, width=width)
    return {"model": str(out), "source": model, "layers": chosen, **({"tokens": len(kept)} if kept else {})}


def tokens_of_files(source: ModelConfig, prompts: Iterable[list[Message]], texts: Path | None) -> list[int]:
    """The tokens that prompts, as a chat, and a file's texts need. Raises UsageError for a model whose tokens cannot be cut."""
    tokenizer = load("AutoTokenizer", source)
    found = file_texts(Template(tokenizer), prompts, texts)
    kept = task_vocabulary(source, tokenizer, found)
    cut_tokenizer(load("AutoConfig", source), tokenizer, kept, found)  # it checks that they are segmented as before
    return kept


# --- which layers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerChoice:
    """The layers that are kept, and how they were chosen."""

    by: str  # influence | even | list | all
    layers: list[int]
    influence: list[float] | None = None  # of every layer, where it was measured


def choose_layers(
    layers: str, choice: str, model: Any, tokenizer: Any, prompts: Sequence[list[Message]], progress: Progress
) -> LayerChoice:
    """The layers of `model` that `layers` and `choice` of `shrink` name. Raises UsageError as it does."""
    total = len(decoder_layers(model)[1])
    text = model.config.get_text_config(decoder=True)
    listed = listed_layers(layers, choice, total)
    if listed is not None:
        return LayerChoice("list", listed)
    if choice == "even":
        return LayerChoice(choice, completed(text, even_layers(int(layers), total)))
    scores = block_influence(model, tokenizer, prompts, progress)
    return LayerChoice(choice, completed(text, influential_layers(int(layers), scores), scores), scores)


def listed_layers(layers: str, choice: str, total: int) -> list[int] | None:
    """The layers where they are listed, of `total`; None where a number and a known choice are configured.

    Raises UsageError naming what is wrong.
    """
    hint = f"the model has layers 0 to {total - 1}: pass how many, with {' or '.join(CHOICES)}, or a list: 0,1,{total - 1}"
    one = choice if choice.isascii() and choice.isdigit() else None  # a list of one layer
    listed = next((text for text in (layers, choice) if "," in text), one)
    if listed is None:
        if not (layers.isascii() and layers.isdigit() and 1 <= int(layers) <= total):
            raise UsageError(f"layers {layers!r}: not a number from 1 to {total}", hint)
        if choice not in CHOICES:
            raise UsageError(f"choice of layers {choice!r}: not known", hint)
        return None
    parts = [part.strip() for part in listed.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
    if len(numbers) < len(parts) or numbers != sorted(set(numbers)) or numbers[-1] >= total:
        raise UsageError(f"layers {listed!r}: not rising layer numbers below {total}", hint)
    if layers.isdigit() and int(layers) != len(numbers):
        raise UsageError(f"layers {listed!r}: {len(numbers)} layers where {layers} are requested", hint)
    return numbers


def even_layers(count: int, total: int) -> list[int]:
    """`count` of `total` layers, evenly spaced, both ends among them; a single one is the first."""
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def influential_layers(count: int, scores: Sequence[float]) -> list[int]:
    """`count` layers in the model's order: the first third of them from the model's start, the rest of the highest scores.

    Of equals, the earlier ones. The start is kept whole because influence underrates it. Measured on 8 of SmolLM2-135M's 30
    layers, the demo's notices, one short training each (226 to 236 CPU seconds), loss on held-out answers: by influence
    alone [0,1,20,23,24,27,28,29] 1.293; this rule [0,1,2,20,23,24,28,29] 1.196; removing layer after layer and measuring
    again [0,1,16,18,19,20,23,29] 1.208; evenly spaced 2.651.
    """
    start = max(1, round(count / 3))
    rest = sorted(range(start, len(scores)), key=lambda layer: -scores[layer])
    return [*range(start), *sorted(rest[: count - start])]


def block_influence(
    model: Any, tokenizer: Any, prompts: Iterable[list[Message]], progress: Progress | None = None
) -> list[float]:
    """Each layer's 1 - cosine(its input, its output), a mean over all tokens of the first prompts, rendered as a chat.

    Raises UsageError without prompts or without a chat template.
    """
    import torch

    progress = progress or Silent()
    measured = list(islice(prompts, INFLUENCE_PROMPTS))
    if not measured:
        raise UsageError("layers are to be chosen by influence, but there are no prompts", "pass prompts, or choose even")
    if not tokenizer.chat_template:
        raise UsageError("layers are to be chosen by influence, but the model has no chat template", "choose even or a list")
    _, stack = decoder_layers(model)
    sums = [0.0] * len(stack)

    def watch(layer: int) -> Any:
        def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]  # (1, T, D)
            after = output[0] if isinstance(output, tuple) else output
            likeness = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
            sums[layer] += float((1 - likeness).sum())

        return stack[layer].register_forward_hook(hook, with_kwargs=True)

    hooks = [watch(layer) for layer in range(len(stack))]
    tokens = watched(model, tokenizer, measured, hooks, "measuring layer influence", progress)
    return [total / tokens for total in sums]
