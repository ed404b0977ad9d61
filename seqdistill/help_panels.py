"""Help pages: the commands by what they are for; the options of a command first, then the settings of each recipe table.

Does not know the options; each names its panel.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

ARGUMENTS, OPTIONS, COMMON, GENERAL = "Arguments", "Options", "Common settings", "General options"
LONGEST_NAME = 30  # a longer one has a line of its own
COMMANDS = {
    "Start here": ("doctor", "init", "run"),
    "Stages": ("generate", "import", "filter", "targets", "review", "train", "eval"),
    "Results": ("status", "show", "verify"),
    "Which student": ("sweep", "curve", "shrink"),
    "Deployment": ("serve", "export"),
}


class PanelCommand(TyperCommand):
    """A command whose options are listed by panel: its own, common settings, each table of the recipe, general ones."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments before the options, as people type them."""
        arguments = [one for one in self.get_params(ctx) if isinstance(one, TyperArgument)]
        return [*(str(one.metavar) if one.required else f"[{one.metavar}]" for one in arguments), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the panels; of an option its name and its help text, which names the default."""
        panels: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: [], COMMON: []}
        general: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            name, panel = parameter.name, getattr(parameter, "rich_help_panel", None)
            if name == "help":
                general.append(("-h, --help", "show this page"))
            elif isinstance(parameter, TyperArgument):
                panels[ARGUMENTS].append((str(parameter.metavar), str(parameter.help)))
            elif (record := parameter.get_help_record(ctx)) is not None:
                shown = (record[0].partition(" / ")[0], str(getattr(parameter, "help", "")))
                (general if panel == GENERAL else panels.setdefault(panel or OPTIONS, [])).append(shown)
        for panel, rows in {**panels, GENERAL: general}.items():
            if rows:
                with formatter.section(panel):
                    _write_rows(formatter, rows)

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        """Writes the examples, a command a line."""
        if self.epilog:
            with formatter.section("Examples"):
                _write_lines(formatter, self.epilog)


class PanelGroup(TyperGroup):
    """The program's own page: the commands by what they are for, then the options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands of each panel, then the options."""
        listed = [name for names in COMMANDS.values() for name in names]
        others = [name for name in self.list_commands(ctx) if name not in listed]
        for panel, names in {**COMMANDS, "Other commands": others}.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            if commands:
                with formatter.section(panel):
                    width = max(map(len, listed))
                    _write_rows(formatter, [(f"{name:<{width}}", one.get_short_help_str(78)) for name, one in commands])
        records = [one.get_help_record(ctx) for one in self.get_params(ctx)]
        with formatter.section(OPTIONS):
            _write_rows(formatter, [(name, text[0].lower() + text[1:].rstrip(".")) for name, text in filter(None, records)])

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        """Writes the first commands to try."""
        with formatter.section("Examples"):
            _write_lines(formatter, self.epilog or "")


def _write_rows(formatter: Any, rows: Sequence[tuple[str, str]]) -> None:
    """Names and texts in two columns. A flag within a text is not broken at its hyphens, which `write_dl` does."""
    indent = " " * formatter.current_indent
    column = min(max(len(name) for name, _ in rows), LONGEST_NAME) + 2
    for name, text in rows:
        lines = textwrap.wrap(text, max(formatter.width - len(indent) - column, 10), break_on_hyphens=False) or [""]
        if len(name) > LONGEST_NAME:
            formatter.write(f"{indent}{name}\n")
            name = ""
        for line in lines:
            formatter.write(f"{indent}{name:<{column}}{line}".rstrip() + "\n")
            name = ""


def _write_lines(formatter: Any, text: str) -> None:
    """Lines as they are: a command that is wrapped cannot be copied."""
    for line in text.splitlines():
        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
