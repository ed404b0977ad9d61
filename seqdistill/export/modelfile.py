"""Ollama's Modelfile of a student: its chat template in Ollama's language, its stops, its system message.

Ollama reads a chat template in a .gguf only where it is nearly one of those that it knows, and otherwise sends the bare prompt:
so the template is written out, and only where it gives the very text of the tokenizer's. Knows no model.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from seqdistill.files import write_text
from seqdistill.records import Message

Rendered = Callable[[list[Message]], str]  # a conversation with the beginning of its next answer; raises ValueError

SYSTEM, PROMPT, ANSWER, NEXT = "«system»", "«prompt»", "«answer»", "«next»"


@dataclass(frozen=True)
class Turn:
    """One turn of a chat template as texts: what surrounds system message, prompt and answer."""

    before_system: str | None  # None: it knows no system message
    after_system: str
    before_prompt: str
    before_answer: str
    after_answer: str
    system: str | None = None  # the system message of a conversation that has none
    in_prompt: bool = False  # whether the system message follows `before_prompt`
    for_one_answer: bool = False  # what it makes of a conversation's later turns is not the tokenizer's text

    @property
    def parts(self) -> tuple[str, ...]:
        """Its texts."""
        return (self.before_system or "", self.after_system, self.before_prompt, self.before_answer, self.after_answer)

    @property
    def text(self) -> str:
        """In Ollama's language, Go's text/template; it is executed for each turn."""
        system = ""
        if self.before_system is not None:
            system = "{{ if .System }}" + self.before_system + "{{ .System }}" + self.after_system + "{{ end }}"
        before = self.before_prompt + system if self.in_prompt else system + self.before_prompt
        return before + "{{ .Prompt }}" + self.before_answer + "{{ .Response }}" + self.after_answer

    def of(self, messages: Sequence[Message]) -> str:
        """What Ollama makes of a conversation that ends with a prompt; `messages` alternate behind a system message."""
        said = ""
        system = self.system if messages[0]["role"] != "system" else messages[0]["content"]
        for message in messages[messages[0]["role"] == "system" :]:
            if message["role"] == "assistant":
                said += message["content"] + self.after_answer
                continue
            head = "" if not system or self.before_system is None else self.before_system + system + self.after_system
            said += self.before_prompt + head if self.in_prompt else head + self.before_prompt
            said, system = said + message["content"] + self.before_answer, None
        return said


def write_modelfile(
    path: Path,
    file: Path,
    stops: Sequence[str],
    system: str | None,
    max_tokens: int,
    context: int,
    rendered: Rendered | None = None,
) -> Turn | None:
    """Writes the Modelfile, https://docs.ollama.com/modelfile, and returns its template. `context` in tokens.

    What Ollama would do by itself is written out: it cuts a prompt beyond its own context, and penalises repetition.
    A text that no Modelfile can hold (three quotation marks at the end of a line) is left out.
    """
    template = None if rendered is None else template_of(rendered)
    if template is not None and system is None:
        system = template.system
    written = None if template is None else _quoted(template.text, '"""')
    lines = [f"FROM ./{file.name}", *([f"TEMPLATE {written}"] if written is not None else [])]
    for command, mark, text in [("SYSTEM", '"""', system), *(("PARAMETER stop", '"', stop) for stop in stops)]:
        quoted = None if text is None else _quoted(text, mark)
        lines += [f"{command} {quoted}"] if quoted is not None else []
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f"PARAMETER num_predict {max_tokens}", f"PARAMETER num_ctx {context}"]
    write_text(path, "\n".join(lines) + "\n")
    return template if written is not None else None


def template_of(rendered: Rendered) -> Turn | None:
    """The turn of a chat template, which is right for whole conversations or, `for_one_answer`, for their first prompt alone.

    None for one that cannot be written so, or whose text Ollama would read as its own.
    """
    prompt: Message = {"role": "user", "content": PROMPT}
    system: Message = {"role": "system", "content": SYSTEM}
    turns: list[Message] = [prompt, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": NEXT}]
    try:
        first, before_answer = _around(rendered([prompt]), PROMPT)
    except ValueError:
        return None
    before_system, after_system, after_answer = None, "", None
    with suppress(ValueError):  # it knows no system message
        before_system, after_system, _ = _around(rendered([system, prompt]), SYSTEM, PROMPT)
    with suppress(ValueError):  # it knows no earlier turns
        *_, after_answer, _ = _around(rendered(turns), PROMPT, ANSWER, NEXT)
    for answer_end, conversations in ((after_answer, [[prompt], turns]), (None, [[prompt]])):
        found = _turn(before_system, after_system, first, before_answer, answer_end)
        if found is None or any("{{" in part or "}}" in part for part in found.parts):
            continue
        system_first = [[system, *one] for one in conversations] if before_system is not None else []
        with suppress(ValueError):
            if all(rendered(one) == found.of(one) for one in map(_in_other_words, [*conversations, *system_first])):
                return found
    return None


def _in_other_words(messages: list[Message]) -> list[Message]:
    return [{**message, "content": f"Some {message['content'][1:-1]} words."} for message in messages]


def _around(text: str, *names: str) -> list[str]:
    """The texts between these names, in this order. Raises ValueError for a text that lacks one of them."""
    parts = []
    for name in names:
        before, found, text = text.partition(name)
        if not found:
            raise ValueError(f"no {name}")
        parts.append(before)
    return [*parts, text]


def _turn(
    before_system: str | None, after_system: str, first: str, before_answer: str, after_answer: str | None
) -> Turn | None:
    """The turn from the texts around system message, first prompt and answer; the last is None where it is not known."""
    default, next_turn, in_prompt = None, after_answer or "", before_system == first
    if before_system is None or in_prompt:
        before_prompt = first
    elif after_system.endswith(first):
        before_prompt, after_system = first, after_system.removesuffix(first)
    elif first.startswith(before_system) and first.endswith(after_system):  # a system message of its own where there is none
        default = first[len(before_system) : len(first) - len(after_system)]
        before_prompt = _beginning_alike(_common_end(after_system, next_turn), before_system)
        after_system = after_system[: len(after_system) - len(before_prompt)]
    else:
        return None
    if after_answer is not None and not after_answer.endswith(before_prompt):
        return None
    return Turn(
        "" if in_prompt else before_system,
        after_system,
        before_prompt,
        before_answer,
        next_turn[: max(0, len(next_turn) - len(before_prompt))],
        default,
        in_prompt=in_prompt,
        for_one_answer=after_answer is None,
    )


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    return one[len(one) - length :]


def _beginning_alike(text: str, other: str) -> str:
    """The end of a text that begins as another does for as long as possible: prompts begin much as system messages do."""
    ends = [text[at:] for at in range(len(text))] or [""]
    return max(ends, key=lambda end: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(end, other, strict=False))))


def _quoted(text: str, mark: str) -> str | None:
    """The text as a Modelfile holds it, which knows no escapes; None where it cannot."""
    for one in (mark, '"', '"""'):
        lines = f"{one}{text}{one}".split("\n")
        ends_early = any(_unquoted("\n".join(lines[:number])) is not None for number in range(1, len(lines)))
        if not ends_early and _unquoted("\n".join(lines)) == text:
            return "\n".join(lines)
    return None


def _unquoted(value: str) -> str | None:
    """What Ollama's parser reads; None where the value does not end yet."""
    value = value.strip()
    for mark in ('"""', '"'):
        if value.startswith(mark):
            whole = len(value) >= 2 * len(mark) and value.endswith(mark)
            return value[len(mark) : -len(mark)] if whole else None
    return value
