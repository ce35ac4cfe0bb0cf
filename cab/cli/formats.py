"""Sheets as text for a terminal, CSV, JSON, Markdown, LaTeX or HTML."""

from __future__ import annotations

import csv
import html
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.markup import escape

from cab.cli.console import console, table
from cab.cli.sheet import Sheet, share_about
from cab.errors import UsageError


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
    sys.stdout.write(_WRITERS[format](sheets))


def check_format(format: str) -> None:
    """Raises UsageError for a format that is not known."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")


def print_sheet(sheet: Sheet) -> None:
    """As a table as wide as the terminal allows, notes below it."""
    fitted = sheet.fitted(console.width)
    titles = [column.title for column in fitted.columns]
    right = tuple(column.title for column in fitted.columns if column.right)
    console.print(f"[bold]{escape(fitted.title)}[/bold]", soft_wrap=True)
    shown = table(*titles, right=right)
    for column in shown.columns:
        column.no_wrap = True
    for line in fitted.lines:
        shown.add_row(*(escape(word) for word in line.shown))
    # A line that wraps is a nuisance, a number that is cut is another number.
    width = console.width
    console.width = max(width, fitted.width)
    console.print(shown, crop=False)
    console.width = width
    for note in sheet.notes:
        console.print(f"[dim]{escape(note)}[/dim]")


def to_csv(sheets: Sequence[Sheet]) -> str:
    """One table of all sheets; columns that a sheet lacks are empty."""
    shared = share_about(sheets)
    own = [name for sheet in sheets for line in sheet.lines for name in line.data]
    names = list(dict.fromkeys(["table", *shared, *own]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for sheet in sheets:
        for line in sheet.lines:
            writer.writerow({"table": sheet.title, **sheet.about, **line.data})
    return text.getvalue()


def to_json(sheets: Sequence[Sheet]) -> str:
    """A list of tables: title, what its rows share, rows, notes."""
    tables: list[Mapping[str, object]] = [
        {
            "title": sheet.title,
            **sheet.about,
            "rows": [line.data for line in sheet.lines],
            "notes": list(sheet.notes),
        }
        for sheet in sheets
    ]
    return json.dumps(tables, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(sheets: Sequence[Sheet]) -> str:
    """GitHub's tables."""
    parts = []
    for sheet in sheets:
        heads = [_markdown(column.title) for column in sheet.columns]
        rules = ["---:" if column.right else "---" for column in sheet.columns]
        rows = [[_markdown(word) for word in line.shown] for line in sheet.lines]
        lines = ["| " + " | ".join(cells) + " |" for cells in [heads, rules, *rows]]
        notes = [f"* {_markdown(note)}" for note in sheet.notes]
        parts.append("\n".join([f"### {_markdown(sheet.title)}", "", *lines, "", *notes]).rstrip())
    return "\n\n".join(parts) + "\n"


def to_latex(sheets: Sequence[Sheet]) -> str:
    """Tables for the booktabs package."""
    parts = []
    for sheet in sheets:
        align = "".join("r" if column.right else "l" for column in sheet.columns)
        heads = " & ".join(_latex(column.title) for column in sheet.columns)
        rows = [" & ".join(_latex(word) for word in line.shown) for line in sheet.lines]
        notes = [rf"\par\footnotesize {_latex(note)}" for note in sheet.notes]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_latex(sheet.title)}}}",
                    rf"\begin{{tabular}}{{{align}}}",
                    r"\toprule",
                    heads + r" \\",
                    r"\midrule",
                    *(row + r" \\" for row in rows),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *notes,
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def to_html(sheets: Sequence[Sheet]) -> str:
    """A page of plain tables."""
    body = "\n".join(html_table(sheet) for sheet in sheets)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        "<title>Comprehensive Attention Benchmark</title></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def html_table(sheet: Sheet, level: int = 2) -> str:
    """One table with its heading and notes."""
    heads = "".join(f"<th{_side(c.right)}>{html.escape(c.title)}</th>" for c in sheet.columns)
    rows = []
    for line in sheet.lines:
        cells = zip(line.shown, sheet.columns, strict=True)
        row = "".join(f"<td{_side(c.right)}>{html.escape(word)}</td>" for word, c in cells)
        rows.append(f"<tr>{row}</tr>")
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in sheet.notes)
    return (
        f"<h{level}>{html.escape(sheet.title)}</h{level}>\n"
        f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def _side(right: bool) -> str:
    return ' style="text-align:right"' if right else ""


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "±": r"$\pm$", "µ": r"$\mu$", "Δ": r"$\Delta$", "²": r"$^2$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


_WRITERS: Mapping[str, Callable[[Sequence[Sheet]], str]] = {
    "csv": to_csv,
    "json": to_json,
    "markdown": to_markdown,
    "latex": to_latex,
    "html": to_html,
}
FORMATS = ("table", *_WRITERS)
