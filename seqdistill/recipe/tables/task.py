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
        'columns of prompts, test and imported files with other names: { prompt = "question", reference = "answer" }; '
        'for import also { completion = "answer" }',
    )
    primary: str | None = key(
        None,
        "the metric that decides. It compares with the references where all prompts have one, else with the teacher's answers; "
        "NAME_reference and NAME_teacher name one. Default: accuracy for choices, field_f1 for a schema, else chrf",
        choices=PRIMARY,
        shown=tuple(name for name in PRIMARY if not name.endswith(("_teacher", "_reference"))),
    )
