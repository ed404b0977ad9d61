"""Rubrics: what a judge is asked about an answer, and how its reply is read.

A rubric is a TOML file with `user`, optionally `system` (both Jinja2), and what the judge may answer: `scale = [1, 10]` for a
score, or `choices = ["first", "second", "tie"]`. What is judged is data: a value of the template, inside a boundary that its
text cannot contain. A reply that is not what was asked for is no score. Does not ask.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.records import Message, file_sha256, fingerprint
from seqdistill.tasks.templates import prompts_folder, render_text


@dataclass(frozen=True)
class Rubric:
    """A loaded rubric. `sha256` goes into the fingerprint of what it judges."""

    path: Path
    sha256: str
    texts: dict[str, str]  # user, system
    scale: tuple[int, int] | None  # lowest and highest score
    choices: tuple[str, ...]

    def messages(self, values: Mapping[str, Any], place: str) -> list[Message]:
        """The chat messages that ask about `values`. Raises UsageError naming the place for a variable they lack."""
        known = {**values, "boundary": f"----{fingerprint(values)[:12]}----"}
        rendered = {key: render_text(text, known, f"{place}: {self.path}: {key}") for key, text in self.texts.items()}
        return [{"role": role, "content": rendered[role]} for role in ("system", "user") if rendered.get(role)]

    def read(self, reply: str) -> int | str | None:
        """The score or choice in a judge's reply; None unless the whole reply is one JSON object with a valid one."""
        text = reply.strip()
        if text.startswith("```") and text.endswith("```") and "\n" in text:
            text = text[text.index("\n") : -3]
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return None
        answer: Any = given.get("choice" if self.scale is None else "score") if isinstance(given, dict) else None
        if self.scale is None:
            return answer if isinstance(answer, str) and answer in self.choices else None
        whole = isinstance(answer, int) and not isinstance(answer, bool)
        return int(answer) if whole and self.scale[0] <= answer <= self.scale[1] else None


def load_rubric(name: str) -> Rubric:
    """The rubric of a file, or of a name in prompts/judge/. Raises UsageError naming file and key."""
    known = {path.stem: path for path in sorted((prompts_folder() / "judge").glob("*.toml"))}
    path = known.get(name, Path(name))
    if path.suffix != ".toml" or not path.is_file():
        raise UsageError(f"rubric {name!r}: no such file", f"give a .toml file or one of: {', '.join(known)}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "a rubric has user, and scale or choices") from None
    texts: dict[str, str] = {key: raw.pop(key) for key in ("system", "user") if key in raw}
    scale, choices = raw.pop("scale", None), raw.pop("choices", None)
    if raw or "user" not in texts or not all(isinstance(text, str) for text in texts.values()):
        raise UsageError(f"{path}: want user, optionally system, and scale or choices", f"see {known['score']}")
    if (scale is None) == (choices is None):
        raise UsageError(f"{path}: want either scale or choices", "scale = [1, 10]")
    if scale is not None and not (_all(scale, int) and len(scale) == 2 and scale[0] < scale[1]):
        raise UsageError(f"{path}: scale = {scale!r}: want the lowest and the highest score", "scale = [1, 10]")
    if choices is not None and not (_all(choices, str) and len(set(choices)) == len(choices) > 1):
        raise UsageError(f"{path}: choices = {choices!r}: want several words", 'choices = ["first", "second", "tie"]')
    return Rubric(path, file_sha256(path), texts, scale and (scale[0], scale[1]), tuple(choices or ()))


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
