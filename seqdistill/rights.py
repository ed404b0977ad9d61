"""What a teacher's owner allows: license, terms, and whether another model may be trained on its answers.

The recipe says it; for a local model that it says nothing of, the model's own metadata give the license. Not legal advice,
and nothing here reads terms.
"""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines.models import locate
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig, Recipe, TeacherConfig
from seqdistill.runs import Run

GGUF_LICENSE = "general.license"


@dataclass(frozen=True)
class Rights:
    """What is known of one teacher's terms."""

    license: str | None
    stated_by: str | None  # "recipe", "model": whose word the license is
    terms_url: str | None
    training_allowed: bool | None  # None: not known

    @property
    def is_unknown(self) -> bool:
        """Whether neither a license nor a permission is known."""
        return self.license is None and self.training_allowed is None


def rights_of(teacher: TeacherConfig) -> Rights:
    """The recipe's word, and for a local model without one the license in its own files. Never uses the network."""
    license_name, stated_by = teacher.license, "recipe"
    if license_name is None and teacher.engine != "openai" and teacher.model:
        license_name, stated_by = _license_in_files(teacher.model), "model"
    return Rights(license_name, stated_by if license_name else None, teacher.terms_url, teacher.training_allowed)


def teachers_in(recipe: Recipe) -> list[TeacherConfig]:
    """The teachers of a recipe that are named: [teacher], or each of [[teachers]]."""
    return [one for one in recipe.each_teacher if one.model]


def check_training_allowed(teachers: Iterable[TeacherConfig]) -> None:
    """Raises UsageError for a teacher on whose answers its terms forbid to train, unless the recipe overrides it by name."""
    for teacher in teachers:
        if teacher.training_allowed is False and teacher.despite_terms != teacher.model:
            terms = f" ({teacher.terms_url})" if teacher.terms_url else ""
            override = f"--teacher-despite-terms {shlex.quote(teacher.model or '')}"
            raise UsageError(
                f"[teacher] training_allowed = false: the terms of {teacher.model!r}{terms} forbid training on its answers",
                f"choose another teacher; or, with its owner's permission, {override}",
            )


def unknown_rights(teachers: Iterable[TeacherConfig]) -> str | None:
    """A note on the teachers of whom nothing is known; None where something is known of each."""
    unknown = [teacher.model or "" for teacher in teachers if rights_of(teacher).is_unknown]
    if not unknown:
        return None
    return (
        f"the license or terms of {', '.join(unknown)} are not known: read them before you train on its answers; "
        "[teacher] license, terms_url and training_allowed go into the cards"
    )


def stated_rights(recipe: Recipe) -> list[dict[str, Any]]:
    """What a recipe says of its teachers' terms, each with its name; also of one without a name, whose answers are recorded."""
    return [{"name": one.model, **asdict(rights_of(one))} for one in recipe.each_teacher]


def terms_settings(recipe: Recipe) -> dict[str, Any]:
    """The terms that are set beside a license, for the fingerprint of what writes a card; empty where none are."""
    if not recipe.teachers:
        terms = {"teacher.terms_url": recipe.teacher.terms_url, "teacher.training_allowed": recipe.teacher.training_allowed}
        return {name: value for name, value in terms.items() if value is not None}
    each = [[one.terms_url, one.training_allowed] for one in recipe.teachers]
    return {"teachers.terms": each} if any(one != [None, None] for one in each) else {}


def rights_in(run: Run) -> list[dict[str, Any]]:
    """What is recorded of the terms of a run's teachers: name, license, terms_url, training_allowed of each.

    It is what the recipe said when filter or generate last ran. Answers that were imported have the terms that the recipe
    states, since nothing else is known of the models that wrote them.
    """
    generate, filtered = run.manifest("generate") or {}, run.manifest("filter") or {}
    teacher = generate.get("teacher", {})
    each: list[dict[str, Any]] = teacher.get("each", [teacher])
    later: list[dict[str, Any]] = filtered.get("rights", [])
    if generate.get("imported"):
        config = generate.get("config", {}).get("teacher", {})  # when it was imported
        stated = [one if one["stated_by"] != "model" else {**one, "license": None} for one in later] or [config]
        name = {"name": teacher.get("name")} if len(stated) == 1 else {}
        return [{**one, **name} for one in stated]
    if [one["name"] for one in later] == [one.get("name") for one in each] and filtered["finished"] >= generate["finished"]:
        return later
    return each


def license_in(run: Run) -> str | None:
    """The license of a run's teachers as it is recorded, of several each once; None where it is not known."""
    return ", ".join(dict.fromkeys(str(one["license"]) for one in rights_in(run) if one.get("license"))) or None


def license_of_student(source: ModelConfig, teacher: TeacherConfig) -> str | None:
    """The license of the model whose weights a student starts from: the teacher's where it is cut from it; None if unknown."""
    return rights_of(teacher).license if source.model == teacher.model else _license_in_files(source.model or "")


def _license_in_files(name: str) -> str | None:
    if name.startswith("run:"):
        trained = Run(Path(name.removeprefix("run:"))).manifest("train") or {}
        stated: str | None = trained.get("student", {}).get("license")
        return stated
    path = locate(name)
    if path is None:
        path = _cached_card(name)
    elif path.suffix == ".gguf":
        return _license_in_gguf(path)
    else:
        path = path / "README.md"
    return _license_in_card(path) if path and path.is_file() else None


def _license_in_gguf(path: Path) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(GGUF_LICENSE)
    return str(field.contents()) if field else None


def _cached_card(name: str) -> Path | None:
    """The model card of a hub id that was downloaded earlier."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "README.md")
    return Path(found) if isinstance(found, str) else None


def _license_in_card(card: Path) -> str | None:
    import yaml
    from huggingface_hub import ModelCard

    content: dict[str, Any] = {}
    with suppress(ValueError, yaml.YAMLError, OSError):  # a card is anybody's text
        content = vars(ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data)
    found = content.get("license_name" if content.get("license") == "other" else "license")
    found = ", ".join(map(str, found)) if isinstance(found, list) else found
    return found if isinstance(found, str) and found.strip() else None
