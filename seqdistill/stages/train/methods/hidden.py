"""Loss terms over a teacher's inside, for a student cut from it: hidden states, attention, Q-K-V relations, row distances.

Each term is a weight in [train] and a number for each trained token. The teacher runs in this process on the same tokens. Its
layers are compared with the student's that were made of them. Owns which layers are compared and how; the losses' sum is
`sequence`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.engines.loading import load, skeleton
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig, Recipe, TrainConfig
from seqdistill.stages.train.cutting import decoder_layers
from seqdistill.stages.train.methods import Step, TrainingSetup
from seqdistill.stages.train.reading import Read
from seqdistill.stages.train.shrink import Cut, recorded_cuts
from seqdistill.stages.train.student import Student
from seqdistill.stages.train.vocabulary import restrict_teacher
from seqdistill.tasks.templates import load_template

TERMS = ("features", "attention", "relations", "distances")
KEYS = frozenset((*TERMS, "features_loss", "attention_loss"))
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
ATTENTION = ("self_attn", "attn", "attention")  # what models call a layer's attention
FEWEST_ROWS = 3  # in a batch: a single distance over its own mean is always 1


@dataclass(frozen=True)
class Inside:
    """What a model computed for one batch, at the layers that are compared."""

    hidden: list[Any]  # by layer, (B, T, H): the layer's output; some models keep several streams of it
    attention: list[Any]  # by layer, (B, heads, T, T); empty where no term needs it
    projections: list[Any]  # of the last layer: queries, keys and values, (B, heads, T, d); empty where no term needs it


# --- the terms: a teacher's and a student's inside -> a number a trained token ------------------------------------------------


def features_loss(teacher: Any, student: Any, kind: str) -> Any:  # (N, H), (N, H) -> (N)
    """1 - cosine of the hidden states, or their mean squared difference (DistilBERT's and TinyBERT's)."""
    from torch.nn.functional import cosine_similarity

    if kind == "cosine":
        return 1 - cosine_similarity(student.float(), teacher.float(), dim=-1)
    return (student.float() - teacher.float()).square().mean(-1)


def attention_loss(teacher: Any, student: Any, kind: str) -> Any:  # (N, heads, T), (N, heads, T) -> (N)
    """KL of the teacher's attention from the student's, or their squared distance; a mean over heads.

    TinyBERT (https://arxiv.org/abs/1909.10351) compares attention before softmax, which models do not give.
    """
    import torch

    teacher, student = teacher.float(), student.float()
    if kind == "kl":
        return (torch.xlogy(teacher, teacher) - torch.xlogy(teacher, student.clamp(min=1e-12))).sum(-1).mean(-1)
    return (student - teacher).square().sum(-1).mean(-1)


def relations_loss(teacher: Any, student: Any, mask: Any) -> Any:  # 2 x (B, heads, T, d), (B, T) -> (B, T)
    """KL(teacher || student) of the relations softmax(A A' / sqrt d) between tokens, a mean over heads.

    MiniLMv2 (https://arxiv.org/abs/2012.15828) adds it up over queries, keys and values; padding has no relations.
    """

    def relations(vectors: Any) -> Any:  # (B, heads, T, T), as logarithms
        scores = vectors.float() @ vectors.float().transpose(-1, -2) / vectors.shape[-1] ** 0.5
        return scores.masked_fill(mask[:, None, None, :] == 0, -1e9).log_softmax(-1)

    theirs, own = relations(teacher), relations(student)
    return (theirs.exp() * (theirs - own)).sum(-1).mean(1)


def distances_loss(teacher: Any, student: Any) -> Any:  # (B, H), (B, H) -> scalar
    """Huber loss of the distances between rows, each over the mean distance (RKD, https://arxiv.org/abs/1904.05068)."""
    import torch
    from torch.nn.functional import smooth_l1_loss

    def distances(vectors: Any) -> Any:
        found = torch.pdist(vectors.float())
        return found / found.mean().clamp(min=1e-12)

    if len(student) < 2:
        return student.sum() * 0
    return smooth_l1_loss(distances(student), distances(teacher))


# --- the terms of one training -----------------------------------------------------------------------------------------------


def term_weights(config: TrainConfig) -> dict[str, float]:
    """The terms that [train] weighs, with their weights."""
    return {name: weight for name in TERMS if (weight := getattr(config, name))}


def reads_teacher(recipe: Recipe, student: Student) -> bool:
    """Whether the terms' teacher is another model than the student's own source, which `Student.identity` tells already."""
    return bool(term_weights(recipe.train)) and student.layers is None


def defaults(config: TrainConfig) -> dict[str, Any]:
    """TRL's arguments that the wanted terms need: a layer's output is compared once, not computed anew."""
    return {"gradient_checkpointing": False} if term_weights(config) else {}


def check(recipe: Recipe, student: Student) -> None:
    """Raises UsageError where a term is wanted and the student was not cut from a teacher whose files are here."""
    if not (terms := term_weights(recipe.train)):
        return
    first = next(iter(terms))
    if student.layers is None and not recorded_cuts(recipe.student.model or ""):
        raise UsageError(
            f"[train] {first} compares the student's layers with those of the teacher that they were cut from, and the student "
            f"{recipe.student.model!r} was not cut from its teacher",
            "use --student shrink:N, or a student that `seqdistill shrink` made; other students learn by method = 'soft'",
        )
    if student.layers is None and recipe.teacher.engine == "openai":
        raise UsageError(
            f"[train] {first} needs the teacher's layers, and {recipe.teacher.model!r} is an endpoint",
            "name the teacher's files, with engine = transformers",
        )


def recorded_cut(recipe: Recipe, teacher: Any) -> Cut | None:
    """The student's recorded cut from the teacher of this text config, or else its last cut; None of a whole model."""
    cuts = recorded_cuts(recipe.student.model or "")
    return next((cut for cut in cuts if cut.of in (None, teacher.num_hidden_layers)), cuts[0] if cuts else None)


def with_terms(setup: TrainingSetup, loss: Callable[[Step], Any]) -> Callable[[Step], Any]:
    """The loss and the terms that [train] gives a weight. Loads the teacher; `setup.model` is watched from here on."""
    if not (weights := term_weights(setup.recipe.train)):
        return loss
    config = setup.recipe.train
    teacher, layers = _teacher(setup)
    setup.beside.append(teacher)
    theirs, own = Watched(teacher, layers, weights), Watched(setup.model, range(len(layers)), weights)
    template = load_template(setup.recipe.task.template)
    if template.teacher != template.student:
        setup.checked.notes.append(
            f"{', '.join(weights)}: compared with the teacher as it reads the student's prompt, without its own view in the "
            f"task's template; soft and on_policy learn from what it computes after that"
        )

    def losses(step: Step) -> Any:  # -> (N)
        import torch

        with torch.no_grad():
            teacher.get_decoder()(**step.inputs, use_cache=False)
        found = term_losses(theirs.take(), own.take(), step, config)
        return loss(step) + sum(weight * found[name] for name, weight in weights.items())

    return losses


def term_losses(teacher: Inside, student: Inside, step: Step, config: TrainConfig) -> dict[str, Any]:  # name -> (N)
    """Each wanted term's number for each trained token."""
    trained, terms = step.trained, term_weights(config)
    shape = step.inputs["input_ids"].shape
    pairs = [(_one_a_token(t, shape), _one_a_token(s, shape)) for t, s in zip(teacher.hidden, student.hidden, strict=True)]
    found = {}
    if "features" in terms:
        each = [features_loss(t[:, :-1][trained], s[:, :-1][trained], config.features_loss) for t, s in pairs]
        found["features"] = sum(each) / len(each)
    if "attention" in terms:
        both = list(zip(teacher.attention, student.attention, strict=True))
        rows = [[part.transpose(1, 2)[:, :-1][trained] for part in pair] for pair in both]
        found["attention"] = sum(attention_loss(t, s, config.attention_loss) for t, s in rows) / len(rows)
    if "relations" in terms:
        mask = step.inputs["attention_mask"]
        each = [relations_loss(t, s, mask) for t, s in zip(teacher.projections, student.projections, strict=True)]
        found["relations"] = sum(each)[:, :-1][trained]
    if "distances" in terms:
        theirs, own = (_row_vectors(part, trained) for part in pairs[-1])
        found["distances"] = distances_loss(theirs, own).expand(len(step.labels))
    return found


def _one_a_token(hidden: Any, shape: Any) -> Any:  # -> (B, T, H)
    """A layer's output with one vector a token: of models that keep several streams of each, these side by side."""
    if hidden.shape[:2] != shape:  # Gemma 3n's streams come first, (S, B, T, H), DeepSeek V4's behind the tokens
        hidden = hidden.movedim(0, -2)
    return hidden.flatten(2)


def _row_vectors(hidden: Any, trained: Any) -> Any:  # (B, T, H), (B, T - 1) -> (B, H)
    """The mean of each row's hidden states over its trained tokens."""
    weights = trained.to(hidden.dtype)[..., None]
    return (hidden[:, :-1] * weights).sum(1) / weights.sum(1).clamp(min=1)


def check_arguments(arguments: Any, config: TrainConfig) -> None:
    """Raises UsageError for [train.args] that the wanted terms do not go with."""
    if not (weights := term_weights(config)):
        return
    first = next(iter(weights))
    for name in ("packing", "eval_packing", "padding_free", "gradient_checkpointing"):
        if getattr(arguments, name):
            raise UsageError(
                f"[train.args] {name} with [train] {first}", f"its layers are compared row by row: leave {name} out"
            )
    if config.batch_tokens is None:
        check_rows(config, arguments.per_device_train_batch_size)


def check_rows(config: TrainConfig, rows: int) -> None:
    """Raises UsageError where distances are wanted between the rows of batches that have at most `rows`."""
    if config.distances and rows < FEWEST_ROWS:
        name, size = (
            ("per_device_train_batch_size", rows) if config.batch_tokens is None else ("batch_tokens", config.batch_tokens)
        )
        raise UsageError(
            f"[train] distances with {name} = {size}: they are between the rows of a batch, which has {rows}",
            f"raise {name}: at least {FEWEST_ROWS} rows a batch",
        )


def _teacher(setup: TrainingSetup) -> tuple[Any, list[int]]:
    """The teacher, loaded beside the student, and which of its layers the student's are. Raises UsageError for another one."""
    of_teacher = setup.student.layers is not None and setup.student.origins is None
    source: ModelConfig = setup.student.source if of_teacher else setup.recipe.teacher
    device = setup.arguments.device
    teacher = load("AutoModelForCausalLM", source, dtype="float32" if device.type == "cpu" else "auto").to(device).eval()
    restrict_teacher(teacher, source, setup.before_cuts)
    teacher.requires_grad_(False)
    texts = [model.config.get_text_config(decoder=True) for model in (teacher, setup.model)]
    recorded = recorded_cut(setup.recipe, texts[0]) or Cut([], None)
    cut = Cut(setup.base.layers, None) if setup.base.layers else recorded
    _check_origin(source.model, cut, *texts)
    return teacher, cut.layers


def check_files(recipe: Recipe, student: Student, _read: Read) -> None:
    """Raises UsageError for a teacher that the student's layers are not of, or that does not show what a term needs."""
    if not (terms := term_weights(recipe.train)):
        return
    source: ModelConfig = recipe.teacher if student.layers is None else student.source
    if recorded_cuts(recipe.student.model or ""):
        texts = [load("AutoConfig", one).get_text_config(decoder=True) for one in (source, student.source)]
        _check_origin(source.model, recorded_cut(recipe, texts[0]) or Cut([], None), *texts)
    if {"attention", "relations"} & terms.keys():
        last = decoder_layers(skeleton(source))[1][-1]
        for term in ("attention", "relations"):
            if term in terms:
                _check_projections(_attention_of(last, term), term)


def _check_origin(name: str | None, cut: Cut, teacher: Any, student: Any) -> None:
    """Raises UsageError where layers of a teacher cannot be a student's, by the text configs of both."""
    total, count = teacher.num_hidden_layers, student.num_hidden_layers
    widths, layers = (teacher.hidden_size, student.hidden_size), cut.layers
    if len(layers) != count or max(layers) >= total or cut.of not in (None, total) or widths[0] != widths[1]:
        not_of = "" if cut.of in (None, total) else f", not {cut.of}"
        raise UsageError(
            f"the student's {count} layers of width {widths[1]} were cut from layers {','.join(map(str, layers))} of another "
            f"teacher than {name!r}, which has {total} layers of width {widths[0]}{not_of}",
            "name the teacher that the student was cut from",
        )


class Watched:
    """A model whose compared layers are seen as it runs."""

    def __init__(self, model: Any, layers: Sequence[int], terms: dict[str, float]) -> None:
        """Raises UsageError for a model that does not show what a term needs."""
        self._hidden: dict[int, Any] = {}
        self._attention: dict[int, Any] = {}
        self._projections: dict[str, Any] = {}
        self._width = 0  # of a head
        stack = decoder_layers(model)[1]
        if "attention" in terms:
            model.set_attn_implementation("eager")  # the others keep no attention
        for place, number in enumerate(layers):
            stack[number].register_forward_hook(self._keeping(self._hidden, place, None))
            if "attention" in terms:
                _attention_of(stack[number], "attention").register_forward_hook(self._keeping(self._attention, place, 1))
        if "relations" in terms:
            attention = _attention_of(stack[layers[-1]], "relations")
            _check_projections(attention, "relations")
            text = model.config.get_text_config(decoder=True)
            self._width = getattr(attention, "head_dim", None) or text.hidden_size // text.num_attention_heads
            for name in PROJECTIONS:
                getattr(attention, name).register_forward_hook(self._keeping(self._projections, name, None))

    @staticmethod
    def _keeping(kept: dict[Any, Any], name: Any, part: int | None) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            kept[name] = (output[0] if isinstance(output, tuple) else output) if part is None else output[part]

        return hook

    def take(self) -> Inside:
        """What the model's last call computed; it is held no longer."""
        inside = Inside(
            [self._hidden[place] for place in sorted(self._hidden)],
            [self._attention[place] for place in sorted(self._attention)],
            [self._heads(self._projections[name]) for name in PROJECTIONS if name in self._projections],
        )
        for kept in (self._hidden, self._attention, self._projections):
            kept.clear()
        return inside

    def _heads(self, vectors: Any) -> Any:  # (B, T, heads * d) -> (B, heads, T, d)
        return vectors.unflatten(-1, (-1, self._width)).transpose(1, 2)


def _check_projections(attention: Any, term: str) -> None:
    """Raises UsageError where relations are wanted of an attention whose queries, keys and values are not apart."""
    lacking = next((name for name in PROJECTIONS if not hasattr(attention, name)), None)
    if term == "relations" and lacking:
        raise UsageError(
            f"[train] relations: {type(attention).__name__} has no {lacking}: its queries, keys and values are not apart",
            "use features or attention with this model",
        )


def _attention_of(layer: Any, term: str) -> Any:
    """The attention in a decoder layer. Raises UsageError where there is none."""
    for name in ATTENTION:
        if hasattr(layer, name):
            return getattr(layer, name)
    raise UsageError(
        f"[train] {term}: {type(layer).__name__} has no {', '.join(ATTENTION[:-1])} or {ATTENTION[-1]}", "use features"
    )
