"""The terminal, shared by all commands."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)

_NEVER_WRAPPED = ("id", "attention", "task", "metric", "pattern", "phase")


def table(*columns: str, title: str | None = None, right: tuple[str, ...] = ()) -> Table:
    """A table in the house style; columns named in ``right`` hold numbers."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in right or column in _NEVER_WRAPPED,
        )
    return made
