"""What a run remembers of its recipe: a copy of the file, and the flags of the tables that stages share.

Does not know stages.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from seqdistill.errors import Busy, UsageError
from seqdistill.files import write_text
from seqdistill.recipe.reading import Layer, check_secrets, check_tables, merge, read_recipe, relative_path, resolve, with_paths
from seqdistill.recipe.tables import GenerateConfig, Recipe, flag
from seqdistill.records import file_sha256, is_sealed, json_if_whole, json_text, read_json, seal

TEMPLATE = "recipe.template.toml"  # the run's copy of the task template, where the recipe names a file
KNOWN = ("recipe_folder", "recipe", "template", "template_sha256", "remembered")  # what run.json holds beside its hashes
SHARED_TABLES = ("task", "teacher", "student", "judge")


@contextlib.contextmanager
def resolved_recipe(
    run: Path, recipe_file: Path | None, flags: Layer, note: Callable[[str], None] = lambda _: None, *, keep: bool = True
) -> Iterator[Recipe]:
    """The recipe of a run: flags over what the run remembers over its copy of the recipe file.

    A recipe file is copied verbatim into the run; its paths stay relative to where it came from, and where nothing is there,
    as in a run that was moved, to the run. The task template is copied too. Flags of the tables that stages share are
    remembered, and so is the run's budget: `eval` knows the teacher and the cap that `generate` was started with. A recipe file
    passed again replaces them, table by table. `note` receives what is in effect without being passed, and that a recipe file
    changed since it was copied. Nothing is kept without `keep`, nor when the block ends with a UsageError or Busy before it has
    finished a stage.
    """
    kept, notes = run / "recipe.toml", run / "run.json"
    memory = _memory(notes)
    if recipe_file and recipe_file.exists() and kept.exists() and kept.samefile(recipe_file):
        recipe_file = None  # the run's own copy: its paths are relative to where it came from
    folder = _folder_of(recipe_file) if recipe_file else run / memory.get("recipe_folder", ".")
    source = recipe_file or (kept if kept.exists() else None)
    from_file = read_recipe(source) if source else {}
    check_secrets(flags, "on the command line or in the environment")
    remembered = _still_remembered(memory, from_file if recipe_file else {})
    known = merge(from_file, remembered, flags)
    from_file, overrides = with_paths(from_file, folder, known, run), with_paths(flags, Path.cwd(), known)
    recipe = resolve(merge(from_file, remembered, overrides))
    name = known.get("task", {}).get("template")
    template = _template_text(recipe.task.template)
    if template is None and name is not None and memory.get("template") == name and (run / TEMPLATE).is_file():
        template = _verbatim(run / TEMPLATE)
        recipe = replace(recipe, task=replace(recipe.task, template=str((run / TEMPLATE).absolute())))
    origin = run / memory["recipe"] if "recipe" in memory and not recipe_file else None
    for unseen in _unseen(remembered, overrides, origin, kept):
        note(unseen)
    if not keep:
        yield recipe
        return

    new: dict[Path, str | None] = {}
    if recipe_file:
        new[kept] = _verbatim(recipe_file)
        memory["recipe_folder"] = relative_path(folder, run)
        memory["recipe"] = relative_path(recipe_file, run)
    memory["remembered"] = _with_prices_of(recipe, merge(remembered, _to_remember(overrides)))
    if template is not None:
        memory |= {"template": name, "template_sha256": hashlib.sha256(template.encode()).hexdigest()}
        new[run / TEMPLATE] = template
    elif memory.pop("template", None):
        del memory["template_sha256"]
        new[run / TEMPLATE] = None
    if memory["remembered"] or "recipe_folder" in memory:
        text = new.get(kept)
        copied = text.encode() if text is not None else kept.read_bytes() if kept.exists() else None
        new[notes] = _sealed(memory, copied)
    before = {path: _verbatim(path) if path.exists() else None for path in new}
    finished = _manifests(run)
    _put(new, before)
    try:
        yield recipe
    except (UsageError, Busy):
        if _manifests(run) <= finished:
            _put(before, new)
        raise


def _manifests(run: Path) -> set[tuple[Path, int]]:
    """The manifests of a run's stages, and when each was written."""
    return {(path, path.stat().st_mtime_ns) for path in run.glob("*/manifest.json")}


def _folder_of(recipe: Path) -> Path:
    """The folder that a recipe's paths are relative to: of another run's copy, the one where the recipe came from."""
    notes = recipe.parent / "run.json"
    folder: Path = recipe.parent / _memory(notes).get("recipe_folder", ".") if recipe.name == "recipe.toml" else recipe.parent
    return folder if folder.is_dir() else recipe.parent  # of a run that was moved with its files


def _template_text(name: str | None) -> str | None:
    """The text of a task template that is named by the path of its file or folder; None for any other."""
    for path in (Path(name), Path(name) / "task.toml") if name else ():
        with contextlib.suppress(UnicodeDecodeError):  # reported where it is loaded
            if path.is_file():
                return _verbatim(path)
    return None


def _verbatim(path: Path) -> str:
    """A file's text with its line ends as they are: its hash is that of the file."""
    return path.read_bytes().decode("utf-8")


def _to_remember(overrides: Layer) -> Layer:
    """Of the flags, those that later commands on the run must know."""
    shared = {table: content for table, content in overrides.items() if table in SHARED_TABLES and content}
    if (budget := overrides.get("generate", {}).get("budget")) is not None:
        shared["generate"] = {"budget": budget}
    return shared


def _with_prices_of(recipe: Recipe, remembered: Layer) -> Layer:
    """What is to be remembered, without the price of a model that another one was named in place of."""
    left: dict[str, Any] = {}
    for table, content in remembered.items():
        price = {name: usd for name, usd in content.get("price", {}).items() if name in getattr(recipe, table).price}
        left[table] = {name: value for name, value in content.items() if name != "price"} | ({"price": price} if price else {})
    return left


def _still_remembered(memory: Mapping[str, Any], replacing: Layer) -> Layer:
    """What is remembered, less the tables of a recipe that is passed anew; a budget goes only for another budget."""
    remembered: Layer = memory.get("remembered", {})
    return {
        table: content
        for table, content in remembered.items()
        if table not in replacing or (table == "generate" and "budget" not in replacing[table])
    }


def _unseen(remembered: Layer, overrides: Layer, origin: Path | None, kept: Path) -> Iterator[str]:
    """Notes on settings in effect that this command line does not contain."""
    flags = [
        f"{flag(table, name)} {value}"
        for table, content in remembered.items()
        for name, value in content.items()
        if name not in overrides.get(table, {}) and isinstance(value, (str, int, float))
    ]
    if flags:
        yield f"from an earlier command on this run: {' '.join(flags)}"
    if origin is not None and kept.exists() and origin.is_file() and origin.read_bytes() != kept.read_bytes():
        yield f"{relative_path(origin, Path.cwd())} has changed since this run copied it; pass it with -c to use it"


def inherit(run: Path, member: Path, recipe: Recipe) -> None:
    """Makes a run directory within a run know the run's recipe, and what `recipe` has otherwise as its remembered flags."""
    with resolved_recipe(run, None, {}, keep=False) as own:
        changed = with_paths(_different(asdict(own), asdict(recipe)), Path.cwd(), asdict(recipe))
    memory = _memory(run / "run.json")
    new: dict[Path, str] = {}
    if (source := run / "recipe.toml").exists():
        new[member / "recipe.toml"] = _verbatim(source)
        for name in ("recipe_folder", "recipe"):
            if name in memory or name == "recipe_folder":
                memory[name] = relative_path(run / memory.get(name, "."), member)
    if (template := run / TEMPLATE).exists():
        new[member / TEMPLATE] = _verbatim(template)
    memory["remembered"] = merge(memory.get("remembered", {}), changed)
    new[member / "run.json"] = _sealed(memory, source.read_bytes() if source.exists() else None)
    _put(new, {path: _verbatim(path) if path.exists() else None for path in new})


def _sealed(memory: Mapping[str, Any], recipe: bytes | None) -> str:
    """The text of run.json, with the hash of the recipe beside it and its own: what is changed by hand shows."""
    ordered = {key: memory[key] for key in KNOWN if key in memory}  # as it is read: written again it is the same text
    known = {**ordered, **({} if recipe is None else {"recipe_sha256": hashlib.sha256(recipe).hexdigest()})}
    return json_text({**known, "seal": seal(known)})


def changed_by_hand(run: Path) -> list[Path]:
    """Of run.json and the files that it knows, those that are not as the last command on the run left them."""
    kept, notes = run / "recipe.toml", run / "run.json"
    if not notes.exists():
        return []
    memory = json_if_whole(notes)
    if memory is None or not is_sealed(notes, memory):
        return [notes]
    wanted = {kept: memory.get("recipe_sha256"), run / TEMPLATE: memory.get("template_sha256")}
    return [path for path, sha256 in wanted.items() if sha256 and (not path.exists() or file_sha256(path) != sha256)]


def _different(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `other` that `own` has otherwise; of tables in them, those of the tables."""
    found: dict[str, Any] = {}
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(own.get(name), Mapping):
            if part := _different(own[name], value):
                found[name] = part
        elif own.get(name) != value:
            found[name] = value
    return found


def generated_with(recipe: Recipe, generated: Mapping[str, Any] | None) -> GenerateConfig:
    """The recipe's [generate], and where it leaves the form, width and length of answers open, what generate recorded.

    `generated` is generate's manifest. So later stages know the command-line overrides of generate.
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
            write_text(path, text)


def _memory(path: Path) -> dict[str, Any]:
    try:
        loaded = read_json(path, hint := "remove the file and pass -c and your flags again")
    except FileNotFoundError:
        return {}
    memory = {key: loaded[key] for key in KNOWN if key in loaded}
    if not isinstance(remembered := memory.get("remembered", {}), dict):
        raise UsageError(f"{path}: damaged: 'remembered' is not a table", hint)
    check_tables(remembered, str(path))
    return memory
