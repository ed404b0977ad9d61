"""What is trained on, checked before the first step: every row rendered, measured, and seen to end where the student stops.

Owns the student's view of a row as tokens and the rule of which rows fit. Does not train.

The mistakes it exists for are silent ones: answers clipped at a default length, a template that renders the prompt
differently when an answer follows, an end of turn that is never trained, so that the student never stops.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.engines import split_reasoning
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Message, Sample

PROBE = [{"role": "user", "content": "Say yes."}]


@dataclass(frozen=True)
class Row:
    """One training example as tokens. The loss is on `tokens[start:]`, whose last token ends the turn."""

    id: str
    tokens: list[int]
    start: int

    @property
    def labels(self) -> list[int]:
        """What TRL takes: the tokens, with -100 where nothing is learnt."""
        return [-100] * self.start + self.tokens[self.start :]


@dataclass(frozen=True)
class Checked:
    """The rows that are trained on, and what was found on the way."""

    train: list[Row]
    validation: list[Row]
    max_length: int  # tokens; no row is longer
    end_of_turn: int  # the token id that every completion ends with
    unfit: dict[str, str]  # sample id -> reason, for rows left out
    without_reasoning: int  # rows trained on their answer alone although reasoning is asked for


def preflight(
    tokenizer: Any, train: Sequence[Sample], validation: Sequence[Sample], config: TrainConfig, limit: int, progress: Progress
) -> Checked:
    """Renders and checks every row; `limit` is the most tokens a row may have.

    Raises UsageError for a template that cannot be trained with, and for rows that do not fit unless [train] unfit says
    that they are dropped.
    """
    if not train:
        raise UsageError("there is no row to train on", "see filter/rejected.jsonl for what was rejected, and why")
    template = Template(tokenizer)
    unfit: dict[str, str] = {}
    progress.start("checking the rows", len(train) + len(validation), "rows")
    kept = [_fitting(template, samples, config.reasoning, limit, unfit, progress) for samples in (train, validation)]
    progress.end()
    if unfit and config.unfit == "error":
        raise UsageError(_summary(unfit, len(train) + len(validation)), _way_out(config))
    if not kept[0]:
        raise UsageError(_summary(unfit, len(train) + len(validation)), "no row is left to train on")
    with_reasoning = sum(sample.reasoning is not None for sample in [*train, *validation])
    if config.reasoning and not with_reasoning:
        raise UsageError(
            "[train] reasoning = true, but no row has reasoning", "leave reasoning out, or ask a teacher that reasons"
        )
    return Checked(
        train=kept[0],
        validation=kept[1],
        max_length=max(len(row.tokens) for rows in kept for row in rows),
        end_of_turn=template.end_of_turn,
        unfit=unfit,
        without_reasoning=len(train) + len(validation) - with_reasoning if config.reasoning else 0,
    )


def _fitting(
    template: "Template", samples: Iterable[Sample], reasoning: bool, limit: int, unfit: dict[str, str], progress: Progress
) -> list[Row]:
    """The rows that fit; the others go to `unfit` with their reason."""
    rows = []
    for sample in samples:
        row = template.render(sample, reasoning)
        if len(row.tokens) > limit:
            unfit[sample.id] = f"{len(row.tokens)} tokens, more than {limit}"
        elif not sample.text.strip():
            unfit[sample.id] = "the answer is empty"
        elif (found := template.control_tokens(row)) != template.expected:
            unfit[sample.id] = f"control tokens {found} where {template.expected} are expected: the text holds some of them"
        else:
            rows.append(row)
        progress.advance()
    return rows


def _summary(unfit: dict[str, str], total: int) -> str:
    first, reason = next(iter(unfit.items()))
    return f"{len(unfit)} of {total} rows cannot be trained on as they are; the first is {first!r}: {reason}"


def _way_out(config: TrainConfig) -> str:
    longer = "raise max_length in [train.args], or " if "max_length" in config.args else ""
    return f"{longer}leave them out with --unfit drop, or reject them in filter"


class Template:
    """A student's chat template, probed: which token ends a turn, and which control tokens a plain answer has."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises UsageError when the model has no chat template or the template does not end a turn with a token of its own."""
        if not tokenizer.chat_template:
            raise UsageError(
                "the student has no chat template, so it cannot be trained on chat messages",
                "use an instruct model, or put a chat_template.jinja into the student's folder",
            )
        self._tokenizer = tokenizer
        self._control = set(tokenizer.all_special_ids)
        tokens = self._without_blank_end(self._tokens([*PROBE, {"role": "assistant", "content": "yes"}]))
        self.end_of_turn = tokens[-1]
        if self.end_of_turn not in self._control:
            raise UsageError(
                f"the student's chat template ends an answer with {tokenizer.decode(tokens[-1:])!r}, not a special token: "
                "the student would never learn to stop",
                "use an instruct model, or end assistant messages in its template with the end-of-sequence token",
            )
        start = self._prefix(self._tokens(PROBE, add_generation_prompt=True), tokens, "a probe")
        self.expected = self.control_tokens(Row("a probe", tokens, start))

    def render(self, sample: Sample, reasoning: bool) -> Row:
        """One sample as tokens. Raises UsageError when the template renders the prompt or the reasoning otherwise."""
        messages = sample.completion
        if reasoning and sample.reasoning:
            thought = f"<think>\n{sample.reasoning.strip()}\n</think>\n\n{sample.text}"
            messages = [*messages[:-1], {"role": "assistant", "content": thought}]
        prompt = self._tokens(sample.prompt, add_generation_prompt=True)
        tokens = self._without_blank_end(self._tokens([*sample.prompt, *messages]))
        row = Row(sample.id, tokens, self._prefix(prompt, tokens, f"row {sample.id!r}"))
        if reasoning and sample.reasoning:
            self._check_reasoning(sample, row)
        return row

    def control_tokens(self, row: Row) -> list[str]:
        """The special tokens of a row's completion, in order."""
        return [self._tokenizer.decode([token]) for token in row.tokens[row.start :] if token in self._control]

    def _tokens(self, messages: list[Message], **options: Any) -> list[int]:
        return list(self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"])

    def _without_blank_end(self, tokens: list[int]) -> list[int]:
        """Without the line end that many templates write behind the end of a turn: no student gets there when it stops."""
        end = len(tokens)
        while end > 1 and not self._tokenizer.decode(tokens[end - 1 : end]).strip():
            end -= 1
        return tokens[:end]

    def _prefix(self, prompt: list[int], tokens: list[int], name: str) -> int:
        """The prompt's length, seen to be the beginning of the whole."""
        if tokens[: len(prompt)] == prompt and len(tokens) > len(prompt):
            return len(prompt)
        same = next((i for i, (a, b) in enumerate(zip(prompt, tokens, strict=False)) if a != b), min(len(prompt), len(tokens)))
        asked, trained = (self._tokenizer.decode(part[max(0, same - 3) : same + 12]) for part in (prompt, tokens))
        raise UsageError(
            f"{name}: the student's chat template renders the prompt differently when an answer follows: asked with "
            f"...{asked!r}, trained with ...{trained!r}",
            "the student would be trained on prompts it never sees; use a student whose template renders both alike",
        )

    def _check_reasoning(self, sample: Sample, row: Row) -> None:
        text = self._tokenizer.decode(row.tokens[row.start : -1])
        answer, thought = split_reasoning(text)
        if (answer.strip(), thought) != (sample.text.strip(), (sample.reasoning or "").strip()):
            raise UsageError(
                f"row {sample.id!r}: the student's chat template does not keep the reasoning: it is trained on {text[:200]!r}",
                "train without [train] reasoning, or use a student whose template keeps <think> in the last answer",
            )


def check_batches(dataset: Iterable[dict[str, Any]], collate: Any, rows: Sequence[Row], end_of_turn: int, packed: bool) -> None:
    """Compares the labels that the trainer will really see with the rows: same tokens trained, each turn ended.

    `collate` is the trainer's own collator. Raises SeqdistillError for the first difference; nothing has been trained then.
    """
    hint = "an option in [train.args] changes what is trained on (packing, max_length); take it out"
    trained = ends = 0
    for number, example in enumerate(dataset):
        labels = [label for label in collate([example])["labels"].flatten().tolist() if label != -100]
        trained, ends = trained + len(labels), ends + labels.count(end_of_turn)
        if not packed and labels != rows[number].tokens[rows[number].start :]:
            raise SeqdistillError(f"row {rows[number].id!r}: the trainer would not train exactly its completion", hint)
    wanted = sum(len(row.tokens) - row.start for row in rows)
    wanted_ends = sum(row.tokens[row.start :].count(end_of_turn) for row in rows)
    if (trained, ends) != (wanted, wanted_ends):
        raise SeqdistillError(
            f"the trainer would train {trained} tokens with {ends} ends of turn, want {wanted} with {wanted_ends}", hint
        )
