"""What a run remembers of its recipe: a copy of the file, and the flags of the tables that stages share.

Does not know stages.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.recipe.reading import Layer, check_tables, merge, read_recipe, resolve, with_paths
from seqdistill.recipe.tables import GenerateConfig, Recipe
from seqdistill.records import atomic_write

SHARED_TABLES = ("task", "teacher", "student", "judge")


@contextlib.contextmanager
def resolved_recipe(run: Path, recipe_file: Path | None, flags: Layer) -> Iterator[Recipe]:
    """The recipe of a run: flags over what the run remembers over its copy of the recipe file.

    A recipe file is copied verbatim into the run; its paths stay relative to where it came from. What was given by flag
    for the tables that stages share is remembered, so that `eval` knows the teacher that `generate` was told; a recipe file
    given again puts its own tables in the place of those. When the block ends with a UsageError, nothing of it is kept.
    """
    kept, notes = run / "recipe.toml", run / "run.json"
    memory = _memory(notes)
    folder = recipe_file.parent if recipe_file else run / memory.get("recipe_folder", ".")
    source = recipe_file or (kept if kept.exists() else None)
    from_file = with_paths(read_recipe(source), folder) if source else {}
    given = with_paths(flags, Path.cwd())
    replaced = from_file if recipe_file else {}
    remembered = {table: keys for table, keys in memory.get("remembered", {}).items() if table not in replaced}
    recipe = resolve(merge(from_file, remembered, given))

    new: dict[Path, str] = {}
    if recipe_file and not (kept.exists() and kept.samefile(recipe_file)):
        new[kept] = recipe_file.read_text(encoding="utf-8")
        memory["recipe_folder"] = os.path.relpath(folder.absolute(), run.absolute())
    shared = {table: content for table, content in given.items() if table in SHARED_TABLES and content}
    memory["remembered"] = merge(remembered, shared)
    if memory["remembered"] or "recipe_folder" in memory:
        new[notes] = json.dumps(memory, indent=2) + "\n"
    before = {path: path.read_text(encoding="utf-8") if path.exists() else None for path in new}
    _put(new, before)
    try:
        yield recipe
    except UsageError:
        _put(before, new)
        raise


def asked_with(recipe: Recipe, generated: Mapping[str, Any] | None) -> GenerateConfig:
    """The recipe's [generate], and where it leaves the form, width and length of answers open, what generate recorded.

    `generated` is generate's manifest. So a stage behind generate knows what was given to generate alone, by flag.
    """
    own, default = recipe.generate, GenerateConfig()
    recorded = (generated or {}).get("config", {}).get("generate", {})
    names = {"beams", "max_tokens"} | (set() if own.schema or own.choices else {"schema", "choices"})
    left_open = {name for name in names & recorded.keys() if getattr(own, name) == getattr(default, name)}
    return replace(own, **{name: recorded[name] for name in left_open})


def _put(wanted: Mapping[Path, str | None], now: Mapping[Path, str | None]) -> None:
    """Makes each file have the wanted text, or be gone."""
    for path, text in wanted.items():
        if text is None:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a run directory that held nothing else
                path.parent.rmdir()
        elif text != now[path]:
            with atomic_write(path) as file:
                file.write(text)


def _memory(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        memory = {str(key): loaded[key] for key in ("recipe_folder", "remembered") if key in loaded}
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise UsageError(f"{path}: damaged: {error}", "remove the file and give -c and your flags again") from None
    if not isinstance(remembered := memory.get("remembered", {}), dict):
        raise UsageError(f"{path}: damaged: 'remembered' is no table", "remove the file and give -c and your flags again")
    check_tables(remembered, str(path))
    return memory
