"""Why a row was rejected, and the settings that would have kept it. Rejects nothing itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqdistill.recipe.tables import flag


@dataclass(frozen=True)
class Rejection:
    """Why a row was rejected: a rule's name, its reason in words, and what would have kept the row."""

    rule: str
    reason: str
    would_keep: tuple[str, ...] = ()  # settings that together would have, each as `--set` takes it; empty where nothing would

    @property
    def way_out(self) -> str | None:
        """What to change where the rule takes too much, in words; None where no setting would help.

        Of a row that holds a test item not the setting that keeps it: the student would be tested on what it was trained on.
        """
        if setting("contamination.action", "annotate") in self.would_keep:
            like = "what is only like a test prompt is kept by [filter.contamination] masked = false or a higher overlap"
            return f"hold out other prompts or groups; {like}"
        return f"{in_words(self.would_keep)} would keep it" if self.would_keep else None


def setting(name: str, value: Any) -> str:
    """A key of [filter] and a value, as a recipe and `--set` write it: filter.integrity.min_chars = 3."""
    return f"filter.{name} = {json.dumps(value)}"


def in_words(would_keep: Sequence[str]) -> str:
    """Settings in words, each with the flag that sets it: a switch that must be off as `--no-schema`."""
    return " and ".join(f"{one} ({_flag(*one.split(' = ', 1))})" for one in would_keep)


def _flag(name: str, value: str) -> str:
    written = flag(*name.split("."))
    return f"--no-{written[2:]}" if value == "false" else written
