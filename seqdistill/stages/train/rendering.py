"""The student's view of a row: its chat template, probed, and a sample rendered by it as tokens.

Owns how a prompt and an answer become tokens, where the loss begins and which token ends the turn. Does not decide which rows
are trained on (preflight.py).

A row is the prompt as the student is prompted, then what the template writes for the answer. Rendering prompt and answer
together does not always begin with the prompt: a template may open a think block for the student and leave it out of finished
turns, and a tokenizer may merge line breaks across the seam. Then the answer's part is joined to the prompt as prompted.
"""

import copy
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seqdistill.engines.chat_templates import shipped_templates
from seqdistill.errors import UsageError
from seqdistill.records import Message, Sample

PROBE = [{"role": "user", "content": "Say yes."}]
ANSWER = "yes"
OPEN_THINK = re.compile(r"<think>\s*\Z")
CLOSES_THINK = re.compile(r"</think>|<channel\|>|</seed:think>|<\|END_THINKING\|>")
EMPTY_THINK = re.compile(r"(?:(?:<think>\s*)?</think>|<\|channel>thought\s*<channel\|>)\s*\Z")
THINK_TAGS = ("<think>", "</think>", "<|channel>", "<channel|>")
SWITCH = re.compile(r"(?<!\S)/(?:no_)?think(?!\S)")  # some templates act on it and leave it out


class Unfit(Exception):
    """Why one row cannot be trained on as it is; the text is the reason."""


@dataclass(frozen=True)
class Row:
    """One training example as tokens. The loss is on `tokens[start:]`, whose last token ends the turn."""

    id: str
    tokens: list[int]
    start: int
    answer: int  # where the answer itself begins, behind reasoning and what the template writes before it; else `start`

    @property
    def labels(self) -> list[int]:
        """What TRL takes: the tokens, with -100 where nothing is learnt."""
        return [-100] * self.start + self.tokens[self.start :]


class Template:
    """A student's chat template: which token ends a turn, and how a sample is rendered."""

    def __init__(self, tokenizer: Any, stops: Iterable[int] = (), *, of: str = "student") -> None:
        """`stops` are the ids in the generation config's eos_token_id, `of` is whose template it is, in errors.

        Raises UsageError for a model without a chat template, and for a template that drops the text, renders the prompt
        differently when an answer follows, or does not end a turn with a token of its own.
        """
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            own = "set [student] chat_template to a .jinja file" if of == "student" else "add chat_template.jinja to its folder"
            raise UsageError(
                f"the {of} has no chat template, so it cannot read chat messages", f"use an instruct model, or {own}"
            )
        added = {token for token, one in tokenizer.added_tokens_decoder.items() if one.special}
        self._stops = set(stops)
        self.control = set(tokenizer.all_special_ids) | added | self._stops
        self._behind = ""  # the text that the template writes behind an answer, which may contain a short one
        try:
            self.end_of_turn = self._probed()
        except Unfit as error:
            raise UsageError(
                f"the {of}'s chat template cannot be used for training: {error}",
                self._way_out if of == "student" else f"use another {of}",
            ) from None

    def _probed(self) -> int:
        """The token that ends a turn; notes what is written behind an answer. Raises Unfit for an unfit template."""
        row = self._rendered("a probe", PROBE, ANSWER, None)
        self._behind = self._behind_answer(self._continued(self.prompt_text(PROBE), PROBE, ANSWER, None)[1], ANSWER)
        return row.tokens[-1]

    def render(self, sample: Sample, reasoning: bool) -> Row:
        """One sample as tokens, with its reasoning before the answer where that is wanted and there. Raises Unfit."""
        thought = (sample.reasoning or "").strip() if reasoning else ""
        for text in (sample.text, thought):
            if found := [self.decode([token]) for token in self._encode(text) if token in self.control]:
                raise Unfit(f"the answer holds control tokens of the student's tokenizer: {' '.join(found)}")
        row = self._rendered(sample.id, sample.prompt, sample.text, thought or None)
        if row.tokens[-1] != self.end_of_turn:
            raise Unfit(f"ends with {self.decode(row.tokens[-1:])!r}, where other rows end with {self.end}")
        return row

    def texts(self, sample: Sample, reasoning: bool) -> list[str]:
        """The texts that a sample's row is segmented from. Raises Unfit."""
        thought = (sample.reasoning or "").strip() if reasoning else ""
        prompt = self.prompt_text(sample.prompt)
        return [prompt, *self._continued(prompt, sample.prompt, sample.text, thought or None)]

    def cut_answer(self, sample: Sample) -> list[int]:
        """The tokens of an answer that was cut: without what the template writes behind one. Raises Unfit."""
        said = self._continued(self.prompt_text(sample.prompt), sample.prompt, sample.text, None)[1]
        return self._encode(said.removesuffix(self._behind_answer(said, sample.text)))

    @property
    def end(self) -> str:
        """The end of turn as text."""
        return self.decode([self.end_of_turn])

    def decode(self, tokens: list[int]) -> str:
        """The tokens' text, special tokens included, nothing tidied."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def dated(self) -> bool:
        """Whether the template writes today's date into the prompt: another prompt every day."""
        return self.prompt_text(PROBE) != self._text(PROBE, add_generation_prompt=True, strftime_now=lambda _: "another day")

    def prompt_text(self, messages: list[Message]) -> str:
        """What the student is prompted with. Raises Unfit with the template's own words when it refuses the messages."""
        return self._text(messages, add_generation_prompt=True)

    def whole_text(self, messages: list[Message]) -> str:
        """A conversation up to its last message, as the template writes it. Raises Unfit like `prompt_text`."""
        return self._text(messages)

    def _rendered(self, name: str, messages: list[Message], answer: str, thought: str | None) -> Row:
        prompt_text = self.prompt_text(messages)
        whole, said = self._continued(prompt_text, messages, answer, thought)
        prompt, tokens = self._encode(prompt_text), self._encode(whole)
        if whole != prompt_text + said or tokens[: len(prompt)] != prompt:
            tokens = [*prompt, *self._encode(said)]
        tail = self._encode(self._behind_answer(said, answer))
        begins = self._answer_start(tokens, len(prompt), said, said.removesuffix(self._behind).rindex(answer.strip()))
        row = Row(name, self._ended(tokens, sum(token in self.control for token in tail)), len(prompt), begins)
        self._check_text(row, messages, answer, thought)
        return row

    def _answer_start(self, tokens: list[int], start: int, said: str, at: int) -> int:
        """The place in the tokens of what is at `at` in the text behind the prompt; `start` where no token begins there."""
        if at == 0:
            return start
        before, answer = self._encode(said[:at]), self._encode(said[at:])
        if answer and tokens[start:][-len(answer) :] == answer:  # white space before an answer is segmented with it in mind
            return len(tokens) - len(answer)
        return start + len(before) if tokens[start:][: len(before)] == before else start

    def _behind_answer(self, said: str, answer: str) -> str:
        """What follows the answer in the text of a turn."""
        return said[said.removesuffix(self._behind).rindex(answer.strip()) + len(answer.strip()) :]

    def _continued(self, prompt_text: str, messages: list[Message], answer: str, thought: str | None) -> tuple[str, str]:
        """(prompt and answer rendered together, the answer's part that follows the prompt as prompted)."""
        plain: dict[str, Any] = {"role": "assistant", "content": answer}
        forms = [plain]
        if thought is not None:  # the names that templates know reasoning by, then the markup that most of them leave alone
            forms = [
                {**plain, **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought)},
                {**plain, "content": f"<think>\n{thought}\n</think>\n\n{answer.lstrip()}"},
                plain,
            ]
        closed = thought is not None and EMPTY_THINK.search(prompt_text) is not None
        last, stripped = str(messages[-1]["content"]).strip(), answer.strip()
        for form in forms:
            whole = self._text([*messages, form])
            missing = None if thought is None or thought in whole else thought
            said = _continuation(prompt_text, whole, missing, last, whole.removesuffix(self._behind).rfind(stripped))
            at = -1 if said is None else said.removesuffix(self._behind).rfind(stripped)
            if said is None or at < 0 or closed:
                continue
            if thought is None or _is_open(said, said.rfind(thought, 0, at)):
                return whole, said
        raise Unfit(self._why_not(prompt_text, whole, answer, thought))

    def _why_not(self, prompt_text: str, whole: str, answer: str, thought: str | None) -> str:
        if answer.strip() not in whole:
            return f"the template drops the answer: it renders ...{whole[-60:]!r}"
        if thought is not None and EMPTY_THINK.search(prompt_text):
            return f"the template closes the think block before the answer, so no reasoning can follow ...{prompt_text[-30:]!r}"
        if thought is not None:
            return f"the template does not keep the reasoning: it renders ...{whole[-200:]!r}"
        same = next(
            (i for i, (a, b) in enumerate(zip(prompt_text, whole, strict=False)) if a != b), min(len(prompt_text), len(whole))
        )
        prompted, trained = (text[max(0, same - 20) : same + 40] for text in (prompt_text, whole))
        return (
            "the template renders the prompt differently when an answer follows: "
            f"prompted with ...{prompted!r}, trained with ...{trained!r}"
        )

    def _ended(self, tokens: list[int], tail: int) -> list[int]:
        """The row up to its end of turn; `tail` control tokens follow the answer.

        What comes after is not trained: no student gets there when it stops. Raises Unfit without an end.
        """
        places = [place for place, token in enumerate(tokens) if token in self.control][-tail:] if tail else []
        stop = next((place for place in places if tokens[place] in self._stops), None)
        if stop is None:
            stop = len(tokens) - 1
            while stop > 0 and not self.decode([tokens[stop]]).strip():
                stop -= 1
            if stop not in places:
                end = self.decode([tokens[stop]])
                raise Unfit(
                    f"the template ends an answer with {end!r}, not a special token: the student would never learn to stop"
                )
        return tokens[: stop + 1]

    def _check_text(self, row: Row, messages: list[Message], answer: str, thought: str | None) -> None:
        """Raises Unfit unless the system's and the user's texts and the answer are really in the tokens.

        Of the assistant's earlier turns a template may leave out the thoughts.
        """
        prompt = _bare(self.decode(row.tokens[: row.start]))
        said = _bare(self.decode([token for token in row.tokens[row.start :] if token not in self.control]))
        for message in messages:
            text = str(message["content"])
            if message["role"] != "assistant" and not any(_bare(form) in prompt for form in (text, SWITCH.sub("", text))):
                raise Unfit(
                    f"the student does not see the {message['role']}'s text {text[:40]!r}: it is prompted with "
                    f"...{self._end_of(row.tokens[: row.start])}"
                )
        place = said.find(_bare(thought)) if thought else 0
        if place < 0 or _bare(answer) not in said[place:]:
            raise Unfit(f"the student would not be trained on the answer, but on {self._end_of(row.tokens[row.start :])}")

    def _end_of(self, tokens: list[int]) -> str:
        return repr(self.decode(tokens)[-80:])

    @property
    def _way_out(self) -> str:
        """What to do about a template that cannot be used for training: TRL's training version of it, or an end to add."""
        known = {path.read_text(encoding="utf-8"): path for path in shipped_templates().values()}
        path = known.get(str(self._tokenizer.chat_template))
        training = path and path.with_name(f"{path.stem}_training.jinja")
        if training and training.exists() and self._trains_with(training.read_text(encoding="utf-8")):
            return f'try TRL\'s training version of it: [student] chat_template = "{training.stem}"; or another student'
        ids = [*sorted(self._stops), *([] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id])]
        for end in dict.fromkeys(self.decode([token]) for token in ids):
            added = f"{{% if not add_generation_prompt %}}{{{{ {end!r} }}}}{{% endif %}}"
            if self._trains_with(f"{self._tokenizer.chat_template}{added}"):
                return f"copy the template to a .jinja file, add {added} to its end, and set [student] chat_template to it"
        return (
            "set [student] chat_template to one that renders prompt and answer alike and ends the turn, or use another student"
        )

    def _trains_with(self, chat_template: str) -> bool:
        other = copy.copy(self)
        other._tokenizer = copy.copy(self._tokenizer)
        other._tokenizer.chat_template, other._behind = chat_template, ""
        try:
            other._probed()
        except Unfit:
            return False
        return True

    def _encode(self, text: str) -> list[int]:
        try:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        except (TypeError, UnicodeEncodeError):  # which one depends on the tokenizer
            raise Unfit("it holds half a character (a lone surrogate), which no tokenizer takes") from None

    def _text(self, messages: list[Any], **options: Any) -> str:
        from jinja2 import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **options))
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise Unfit(f"the template refuses the messages: {error}") from None


def _continuation(prompt_text: str, whole: str, missing: str | None, last: str, answer_at: int) -> str | None:
    """What follows the prompt as prompted; None where the two do not meet.

    `last` is the prompt's last text, and `answer_at` the answer's place in `whole`. Where the prompt leaves a think block
    open, the answer does not open it again, and closes it, after the reasoning in `missing`, where the finished turn does not.
    An empty block that the prompt closes itself may be left out of finished turns.
    """

    def behind(prompt: str) -> str | None:
        """What follows a prompt in `whole`, or what it ends with from the last text on: before it, turns may differ."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        tail = prompt[place:] if last and (place := prompt.rfind(last)) >= 0 else ""
        at = whole.rfind(tail, 0, answer_at) if tail and answer_at > 0 else -1
        return whole[at + len(tail) :] if at >= 0 else None

    opened = OPEN_THINK.search(prompt_text)
    if opened is None:
        said = behind(prompt_text) if missing is None else None
        if said is None and missing is None and (closed := EMPTY_THINK.search(prompt_text)):
            said = behind(prompt_text[: closed.start()])
            return None if said is None or said.lstrip().startswith(THINK_TAGS) else said
        return said
    said = whole.removeprefix(prompt_text) if whole.startswith(prompt_text) else behind(prompt_text[: opened.start()])
    if said is None:
        return None
    if said.lstrip().startswith("<think>"):
        if missing is not None:
            return None
        said = said.lstrip().removeprefix("<think>").removeprefix("\n")
    return said if "</think>" in said else f"{missing or ''}\n</think>\n\n{said.lstrip()}"


def _is_open(said: str, thought_at: int) -> bool:
    """Whether reasoning is there, and no think block was closed before it, as by a template that writes an empty one."""
    return thought_at >= 0 and CLOSES_THINK.search(said, 0, thought_at) is None


def _bare(text: str) -> str:
    """Text as compared: without white space, in Unicode's compatible form, as tokenizers may write it."""
    return "".join(unicodedata.normalize("NFKC", text).split())
