"""Rubrics: the prompt to a judge about an answer, and how its reply is read.

A rubric is a TOML file with `user`, optionally `system` (both Jinja2), and what the judge may answer: `scale = [1, 10]` for a
score, or `choices = ["first", "second", "tie"]`. What is judged is data: a value of the template, inside a boundary that its
text cannot contain. A reply without a valid score or choice counts as none. Requests nothing.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message, file_sha256, fingerprint
from seqdistill.tasks.templates import check_text, prompts_folder, render_text

MOST_OBJECTS = 200  # opening braces of a reply that are looked at, the last ones

_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_WRITTEN = re.compile(r"(?P<score>-?\d{1,6}(?:\.0*)?)(?:\s?/\s?(?P<of>\d{1,6}))?")


@dataclass(frozen=True)
class Rubric:
    """A loaded rubric. `sha256` goes into the fingerprint of what it judges."""

    path: Path
    sha256: str
    texts: dict[str, str]  # user, system
    scale: tuple[int, int] | None  # lowest and highest score
    choices: tuple[str, ...]

    def messages(self, values: Mapping[str, Any], place: str) -> list[Message]:
        """The chat messages to the judge about `values`. Raises UsageError naming the place for a variable they lack."""
        known = {**values, "boundary": f"----{fingerprint(values)[:12]}----"}
        rendered = {key: render_text(text, known, f"{place}: {self.path}: {key}") for key, text in self.texts.items()}
        return [{"role": role, "content": rendered[role]} for role in ("system", "user") if rendered.get(role)]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply, for engines that can hold a model to one."""
        low, high = self.scale or (0, 0)
        if self.scale:
            return self._schema({"type": "integer", "minimum": low, "maximum": high})
        return self._schema({"type": "string", "enum": list(self.choices)})

    @property
    def older_schema(self) -> dict[str, Any] | None:
        """The schema in journals from before 2026-11-27, whose choices are not paid for again; None for a scale."""
        return None if self.scale else self._schema({"enum": list(self.choices)})

    def _schema(self, answer: dict[str, Any]) -> dict[str, Any]:
        names = ["reason"] if any('"reason"' in text for text in self.texts.values()) else []
        properties: dict[str, Any] = {name: {"type": "string"} for name in names} | {self._key: answer}
        return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}

    @property
    def _key(self) -> str:
        return "choice" if self.scale is None else "score"

    def read(self, reply: str) -> int | str | None:
        """The score or choice in the last JSON object of a judge's reply that has one; None where it is not a valid one.

        A whole number may be written 8, 8.0, "8" or, on this scale, "8/10".
        """
        if self.scale is None:
            return choice_in(reply, self.choices)
        answer = _last_value(reply, self._key)
        low, high = self.scale
        if isinstance(answer, str):
            written = _WRITTEN.fullmatch(answer.strip())
            answer = float(written["score"]) if written and written["of"] in (None, str(high)) else None
        whole = isinstance(answer, (int, float)) and not isinstance(answer, bool) and answer == answer // 1
        return int(answer) if whole and low <= answer <= high else None


def choice_in(reply: str, choices: Sequence[str]) -> str | None:
    """The choice in the last JSON object of a judge's reply that has one; None where it is not one of these."""
    answer = _last_value(reply, "choice")
    found = answer.strip() if isinstance(answer, str) else None
    return next((choice for choice in choices if found is not None and choice.lower() == found.lower()), None)


def _last_value(reply: str, key: str) -> Any:
    """The value of this key in the last JSON object of a text that has it; None for none.

    Of nested objects the outermost that has it counts: the score of a whole, and not of one of its criteria.
    """
    found, after = None, 0
    for start in [brace.start() for brace in re.finditer("{", reply)][-MOST_OBJECTS:]:
        if start < after:
            continue  # within the last one
        try:
            value, end = _DECODER.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        if key in value:
            found, after = value[key], end
    return found


def load_rubric(name: str) -> Rubric:
    """The rubric of a file, or of a name in prompts/judge/. Raises UsageError naming file and key."""
    known = {path.stem: path for path in sorted((prompts_folder() / "judge").glob("*.toml"))}
    path = known.get(name, Path(name))
    if path.suffix != ".toml" or not path.is_file():
        raise UsageError(f"rubric {name!r}: no such file", f"pass a .toml file or one of: {', '.join(known)}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "a rubric has user, and scale or choices") from None
    texts: dict[str, str] = {key: raw.pop(key) for key in ("system", "user") if key in raw}
    scale, choices = raw.pop("scale", None), raw.pop("choices", None)
    if raw or "user" not in texts or not all(isinstance(text, str) for text in texts.values()):
        raise UsageError(f"{path}: expected user, optionally system, and scale or choices", f"see {known['score']}")
    if (scale is None) == (choices is None):
        raise UsageError(f"{path}: expected either scale or choices", "scale = [1, 10]")
    if scale is not None and not (_is_list_of(scale, int) and len(scale) == 2 and scale[0] < scale[1]):
        raise UsageError(f"{path}: scale = {scale!r}: expected the lowest and the highest score", "scale = [1, 10]")
    if choices is not None and not (_is_list_of(choices, str) and len(set(choices)) == len(choices) > 1):
        raise UsageError(f"{path}: choices = {choices!r}: expected several words", 'choices = ["first", "second", "tie"]')
    for key, text in texts.items():
        check_text(text, f"{path}: {key}")
    return Rubric(path, file_sha256(path), texts, scale and (scale[0], scale[1]), tuple(choices or ()))


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
