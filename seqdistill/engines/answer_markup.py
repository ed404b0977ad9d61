"""What a chat template writes around an assistant's answer, and an answer read without it.

Between the generation prompt and the answer some templates write more: a channel's name (gpt-oss), an empty think block
(Qwen3). A model writes it too, as it was trained on such turns. What it is, the template itself says: it renders a
conversation whose answer is a known word. Tags that no template names are left to `split_reasoning`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.partial_answers import shown_part
from seqdistill.reasoning import split_reasoning, tag_pairs

ANSWER, THOUGHT = "ANSWERWORD", "THOUGHTWORD"  # in no template
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_CLOSING = re.compile(r"<(\w+)>")
_OPEN = re.compile(r"<think>\s*\Z")
QUESTION = [{"role": "user", "content": "QUESTIONWORD"}]


@dataclass(frozen=True)
class AnswerMarkup:
    """What surrounds an assistant's answer in the rendered text, from the generation prompt on."""

    prompt: str = ""  # a whole prompt, which ends with the generation prompt
    before: str = ""  # before an answer without reasoning
    opens: str | None = None  # before the reasoning; None: the template writes none, "": the generation prompt opened it
    closes: str = ""  # between reasoning and answer
    after: str = ""  # behind the answer
    special: frozenset[int] = frozenset()  # the tokenizer's special tokens, by id
    tags: tuple[str, ...] = ()  # of reasoning that the template does not name, as `split_reasoning` takes them
    opened: str = ""  # what the generation prompt opened and the template leaves out of a turn with an answer

    @property
    def lead(self) -> str:
        """What a model writes between the generation prompt and an answer that it does not think about."""
        return self.before or (self.closes if self.opens == "" else _CLOSING.sub(r"</\1>", self.opened))

    def read(self, text: str) -> tuple[str, str | None]:
        """(answer, reasoning) of what a model wrote up to its stop token; reasoning is "" where it is there but empty."""
        written = text.lstrip()
        opens, closes, before = (self.opens or "").strip(), self.closes.strip(), self.before.strip()
        if self.opens is not None and written.startswith(opens):
            thought, closed, answer = written.removeprefix(opens).partition(closes)
            if closed:
                return answer.lstrip(), thought.strip()
            if not before or not written.startswith(before):
                thought, reached, answer = thought.rpartition(before) if before else ("", "", "")
                return (answer, thought.strip()) if reached else ("", written.removeprefix(opens).strip())
        if before and written.startswith(before):
            answer = written.removeprefix(before)
            return answer.removeprefix(self.before[len(self.before.rstrip()) :]), None
        return text, None


def answer_markup(tokenizer: Any, options: Mapping[str, Any], tags: Sequence[str] = ()) -> AnswerMarkup:
    """The markup of a tokenizer's chat template, rendered with these options; empty for a template that does not show it.

    Raises UsageError for `tags` that are no pairs.
    """
    tag_pairs(tuple(tags))
    special = _special(tokenizer)
    prompt = _render(tokenizer, QUESTION, options, add_generation_prompt=True)
    turn = _render(tokenizer, [*QUESTION, {"role": "assistant", "content": ANSWER}], options)
    if prompt is None or turn is None or turn.count(ANSWER) != 1:
        return AnswerMarkup(special=special, tags=tuple(tags))
    answer, after = turn.split(ANSWER)
    block = _OPEN.search(prompt)
    if answer == prompt and block:  # a finished turn that leaves the block open too: what a model writes closes it
        before, opened = "", block.group()
    elif answer.startswith(prompt):
        before, opened = answer.removeprefix(prompt), ""
    else:
        same = next((at for at, (a, b) in enumerate(zip(prompt, answer, strict=False)) if a != b), len(answer))
        before, opened = "", prompt[min(same, block.start()) if block else same :]
    for name in REASONING_KEYS:
        message = {"role": "assistant", "content": ANSWER, name: THOUGHT}
        thinking = _render(tokenizer, [*QUESTION, message], options) or ""
        if thinking.startswith(prompt) and thinking.count(THOUGHT) == thinking.count(ANSWER) == 1:
            opens, _, rest = thinking.removeprefix(prompt).partition(THOUGHT)
            if ANSWER in rest and rest.split(ANSWER)[0].strip():
                return AnswerMarkup(prompt, before, opens, rest.split(ANSWER)[0], after, special, tuple(tags))
    return AnswerMarkup(prompt, before, None, "", after, special, tuple(tags), opened)


def read_answer(
    tokenizer: Any, markup: AnswerMarkup, tokens: Sequence[int], *, formed: bool = False
) -> tuple[str, str | None, str]:
    """(answer, reasoning, raw text) of the tokens that a model wrote, its stop token left out.

    `formed`: the answer was held to a form from its first token on, so there is nothing around it.
    """
    raw = tokenizer.decode(tokens, skip_special_tokens=False)
    if formed:
        return tokenizer.decode(tokens, skip_special_tokens=True), None, raw
    if getattr(tokenizer, "response_template", None) and (parsed := _parsed(tokenizer, markup.prompt, raw)):
        return *parsed, raw
    answer, thought = markup.read(raw)
    if thought is None and answer == raw:
        answer, thought = split_reasoning(markup.opened + raw, tags=markup.tags)  # tags may be special tokens
        if thought is None and answer == raw:
            return tokenizer.decode(tokens, skip_special_tokens=True), None, raw
    for token in markup.special.intersection(tokens):
        (name,) = tokenizer.convert_ids_to_tokens([token])
        answer, thought = answer.replace(name, ""), thought and thought.replace(name, "")
    return _without_end(answer, markup.after), thought or None, raw


def answer_so_far(tokenizer: Any, markup: AnswerMarkup, tokens: Sequence[int], *, formed: bool = False) -> str:
    """The answer in the tokens that a model has written so far; empty while they may still become what is around it."""
    answer, _, raw = read_answer(tokenizer, markup, tokens, formed=formed)
    if formed:
        return answer
    written = raw.lstrip()
    around = [tag for text in (markup.opens, markup.before) if (tag := (text or "").strip())]
    if any(tag.startswith(written) and tag != written for tag in around):
        return ""
    return answer if shown_part(markup.opened + raw, markup.tags) else ""


def turn_end(tokenizer: Any, markup: AnswerMarkup) -> int | None:
    """The special token that the template writes right behind an answer: where the model ends its turn."""
    if not markup.after.strip():
        return None
    first = tokenizer.encode(markup.after.lstrip(), add_special_tokens=False)[:1]
    return first[0] if first and first[0] in markup.special else None


def _special(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {token for token, entry in added.items() if entry.special}


def _without_end(answer: str, after: str) -> str:
    """An answer less the white space that the template writes after it."""
    space = after[: len(after) - len(after.lstrip())] if after.strip() else ""
    return answer.removesuffix(space) if space else answer


def _render(tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any], **how: Any) -> str | None:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **how, **options))
    except (TemplateError, ValueError, TypeError, KeyError, NotImplementedError):  # wants other conversations than these
        return None


def _parsed(tokenizer: Any, prompt: str, raw: str) -> tuple[str, str | None] | None:
    """(answer, reasoning) by the parser that the model's authors declare; None where it finds no answer and no reasoning."""
    try:
        message = tokenizer.parse_response(raw, prefix=prompt)
    except (ValueError, KeyError, TypeError, AttributeError):  # not what it expects: cut off, or no turn at all
        return None
    content, thought = message.get("content"), next((message[name] for name in REASONING_KEYS if message.get(name)), None)
    if not isinstance(content, str) and not isinstance(thought, str):
        return None
    return content if isinstance(content, str) else "", thought.strip() if isinstance(thought, str) else None
