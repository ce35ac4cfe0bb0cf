"""The terminal, shared by all commands.

A string is text and nothing else, wherever it is printed (`cab.terminal`). What has a style is a
`Text`, made by `styled`.
"""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cab.terminal import LAYOUT, Terminal
from cab.visible import visible

_NEVER_WRAPPED = ("id", "attention", "task", "metric", "pattern", "phase")


console = Terminal()


def styled(style: str, *parts: str | Text) -> Text:
    """Parts one after the other, in a style such as ``bold``, ``dim`` or ``red``."""
    made = Text(style=style)
    for part in parts:
        made.append(visible(part, LAYOUT) if isinstance(part, str) else part)
    return made


def bold(text: str) -> Text:
    """For names and headings."""
    return styled("bold", text)


def dim(text: str) -> Text:
    """For what is said beside."""
    return styled("dim", text)


def words(*parts: str | Text) -> Text:
    """Parts one after the other, each in its own style."""
    return styled("", *parts)


class Cells(Table):
    """A table whose cells are single lines: a line break in one is an escape."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As rich does."""
        shown = (visible(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


def table(*columns: str, title: str | None = None, right: tuple[str, ...] = ()) -> Table:
    """A table in the house style; columns named in ``right`` hold numbers."""
    made = Cells(
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
