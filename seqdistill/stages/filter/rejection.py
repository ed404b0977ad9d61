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


def setting(name: str, value: Any) -> str:
    """A key of [filter] and a value, as a recipe and `--set` write it: filter.integrity.min_chars = 3."""
    return f"filter.{name} = {json.dumps(value)}"


def in_words(would_keep: Sequence[str]) -> str:
    """Settings in words, each with its flag."""
    return " and ".join(f"{one} ({flag(*one.partition(' = ')[0].split('.'))})" for one in would_keep)
