"""One setting: the record that a key of a table is, and how the keys of a table are read. Knows no table."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, get_type_hints


def key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    shown: tuple[str, ...] = (),  # those of the choices that help lists; default: all
    low: float | None = None,
    high: float | None = None,
    path: bool = False,
    output: bool = True,
    common: bool = False,
) -> Any:
    """One setting: its default, its help text, what it may be, whether it can change the output's bytes or is needed often."""
    metadata = {"help": text, "choices": choices, "shown": shown or choices, "low": low, "high": high, "path": path}
    metadata |= {"output": output, "common": common}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One key of a table, or of a table in it: a field that is a dataclass is a table of its own."""

    names: tuple[str, ...]  # within its table: ("temperature",), ("near_duplicates", "similarity")
    field: "Field[Any]"
    kind: Any  # its type

    @property
    def default(self) -> Any:
        """Its default."""
        return self.field.default_factory() if self.field.default_factory is not MISSING else self.field.default


def settings_of(kind: Any, *above: str) -> Iterator[Setting]:
    """Every setting of a table, those of the tables in it included, in the order in which they are written."""
    for name, (part, of) in parts_of(kind).items():
        if is_dataclass(of):
            yield from settings_of(of, *above, name)
        else:
            yield Setting((*above, name), part, of)


def settings(table: Any, *leave_out: str) -> dict[str, Any]:
    """The settings of one table that can change the output's bytes, by dotted name, for a stage's fingerprint."""
    names = [".".join(setting.names) for setting in settings_of(type(table)) if setting.field.metadata["output"]]
    return {name: attrgetter(name)(table) for name in names if name not in leave_out}


def parts_of(kind: Any) -> dict[str, tuple["Field[Any]", Any]]:
    """Each field of a table and its type."""
    hints = get_type_hints(kind)
    return {part.name: (part, hints[part.name]) for part in fields(kind)}
