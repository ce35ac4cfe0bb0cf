"""Sheets on the standard output, in the format that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cab.cli.console import bold, console, dim, table
from cab.errors import UsageError
from cab.sheets.files import WRITERS
from cab.sheets.sheet import Sheet

FORMATS = ("table", *WRITERS)


def show(sheets: Sequence[Sheet], format: str) -> None:
    """Print sheets to the standard output.

    Raises:
        UsageError: there is no such format.
    """
    check_format(format)
    if format == "table":
        for sheet in sheets:
            print_sheet(sheet)
            console.print()
        return
    text = WRITERS[format](sheets)
    # A page says that it is UTF-8, whatever the terminal takes.
    if format == "html" and not (sys.stdout.encoding or "utf-8").lower().startswith("utf"):
        text = text.encode("ascii", "xmlcharrefreplace").decode("ascii")
    sys.stdout.write(text)


def check_format(format: str) -> None:
    """Raises UsageError for a format that is not known."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")


def print_sheet(sheet: Sheet) -> None:
    """As a table as wide as the terminal allows, notes below it, what it has no room for first."""
    fitted = sheet.fitted(console.width)
    titles = [column.title for column in fitted.columns]
    right = tuple(column.title for column in fitted.columns if column.right)
    console.print(bold(fitted.title), soft_wrap=True)
    shown = table(*titles, right=right)
    for column in shown.columns:
        column.no_wrap = True
    for line in fitted.lines:
        shown.add_row(*(bold(w) if n in line.strong else w for n, w in enumerate(line.shown)))
    # A line that wraps is a nuisance, a number that is cut is another number.
    width = console.width
    console.width = max(width, fitted.width)
    console.print(shown, crop=False)
    console.width = width
    if sheet.summary:
        console.print(sheet.summary)
    for note in (*left_out_notes(sheet, fitted), *sheet.notes):
        console.print(dim(note))


def left_out_notes(sheet: Sheet, fitted: Sheet) -> list[str]:
    """Which columns a terminal has no room for, and the width that has."""
    kept = list(fitted.columns)
    gone = [column.title for column in sheet.columns if column not in kept]
    if not gone:
        return []
    return [f"no room for: {'; '.join(gone)} (COLUMNS={sheet.width} shows all)"]
