"""What can be set: one frozen dataclass a table, with the only defaults and the only bounds. `reading` reads and checks.

A key has one name everywhere: field here, key in the recipe, flag on the command line, word in the docs.
Order: flag > environment (SEQDISTILL_*) > recipe passed with -c > what the run remembers > its copy of the recipe > default.
The first two arrive as `flags`. Here are the whole recipe and its flags; each table has a file.
"""

from dataclasses import dataclass, field
from typing import Any, get_type_hints

from seqdistill.recipe.tables.evaluate import EvalConfig, SafetyConfig
from seqdistill.recipe.tables.filter import (
    ContaminationConfig,
    FilterConfig,
    IntegrityConfig,
    NearDuplicatesConfig,
    PersonalDataConfig,
    ScoreConfig,
    SelectConfig,
    VerifyConfig,
)
from seqdistill.recipe.tables.generate import GenerateConfig
from seqdistill.recipe.tables.models import ENGINES, JudgeConfig, ModelConfig, OneOfTeachers, StudentConfig, TeacherConfig
from seqdistill.recipe.tables.setting import Setting, parts_of, settings, settings_of
from seqdistill.recipe.tables.task import TaskConfig
from seqdistill.recipe.tables.train import LoraConfig, TrainConfig

__all__ = [
    "ENGINES",
    "TABLES",
    "ContaminationConfig",
    "EvalConfig",
    "FilterConfig",
    "GenerateConfig",
    "IntegrityConfig",
    "JudgeConfig",
    "LoraConfig",
    "ModelConfig",
    "NearDuplicatesConfig",
    "OneOfTeachers",
    "PersonalDataConfig",
    "Recipe",
    "SafetyConfig",
    "ScoreConfig",
    "SelectConfig",
    "Setting",
    "StudentConfig",
    "TaskConfig",
    "TeacherConfig",
    "TrainConfig",
    "VerifyConfig",
    "flag",
    "parts_of",
    "settings",
    "settings_of",
]


@dataclass(frozen=True)
class Recipe:
    """Every table, resolved."""

    task: TaskConfig = field(default_factory=TaskConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # with several teachers and no [teacher], the first of them
    teachers: list[OneOfTeachers] = field(default_factory=list)
    student: StudentConfig = field(default_factory=StudentConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def each_teacher(self) -> list[TeacherConfig]:
        """[teacher], or each of [[teachers]]; one without a model is not configured."""
        return [*self.teachers] or [self.teacher]


TABLES: dict[str, type[Any]] = {name: kind for name, kind in get_type_hints(Recipe).items() if name != "teachers"}


def flag(table: str, *names: str) -> str:
    """The flag of a key: `--temperature`, in a nested table `--near-duplicates-similarity`, of a model `--teacher-engine`.

    A model's name itself is `--teacher`.
    """
    if issubclass(TABLES[table], ModelConfig):
        names = (table,) if names == ("model",) else (table, *names)
    return "--" + "-".join(names).replace("_", "-")
