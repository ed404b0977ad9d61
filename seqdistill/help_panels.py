"""Help pages in panels: the flags that most people need first, then those of each table of the recipe.

Does not know the flags; each says where it belongs.
"""

from typing import Any

from typer.core import TyperArgument, TyperCommand

ARGUMENTS, COMMON, OTHER = "Arguments", "Common options", "Other options"


class PanelCommand(TyperCommand):
    """A command whose options are listed under their `rich_help_panel`, those without one at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the panels in the order in which their options come, the common ones first."""
        panels: dict[str, list[tuple[str, str]]] = {COMMON: []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                other = ARGUMENTS if isinstance(parameter, TyperArgument) else OTHER
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or other, []).append(record)
        for panel in sorted(panels, key=lambda name: (name != ARGUMENTS, name == OTHER)):
            if panels[panel]:
                with formatter.section(panel):
                    formatter.write_dl(panels[panel])
