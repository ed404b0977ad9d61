"""The table [task]."""

from dataclasses import dataclass
from typing import Any

from seqdistill.metrics import PRIMARY
from seqdistill.recipe.tables.setting import key


@dataclass(frozen=True)
class TaskConfig:
    """[task]: the prompts, and the metric that decides."""

    template: str | None = key(None, "task template: a .toml file, or the name of a folder in prompts/", path=True, common=True)
    prompts: str | None = key(
        None, "prompts: .jsonl, .json, .csv, .parquet, or hf:OWNER/NAME[/CONFIG][:SPLIT]", path=True, common=True
    )
    test: str | None = key(None, "held-out prompts for eval, in the same formats; never trained on", path=True, common=True)
    columns: dict[str, Any] = key(
        {},
        'columns of prompts, test and imported files that go by other names: { prompt = "question", reference = "answer" }; '
        'for import { completion = "answer" } too',
    )
    primary: str | None = key(
        None,
        "the metric that decides, against the references where all prompts have one; NAME_teacher and NAME_reference say "
        "which. Default: accuracy for choices, field_f1 for a schema, else chrf",
        choices=PRIMARY,
        shown=tuple(name for name in PRIMARY if not name.endswith(("_teacher", "_reference"))),
    )
