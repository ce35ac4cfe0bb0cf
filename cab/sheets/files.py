"""Sheets as text for files: CSV, JSON, Markdown, LaTeX or HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence

from cab.sheets.latex import to_latex
from cab.sheets.sheet import Sheet, Value, share_about

_ACTIVE = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How text begins that spreadsheets run"""


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
            cells = {"table": sheet.title, **sheet.about, **line.data}
            writer.writerow({name: inert(value) for name, value in cells.items()})
    return text.getvalue()


def inert(value: Value) -> Value:
    """A cell that no spreadsheet reads as a formula: such text gets a leading apostrophe."""
    if not isinstance(value, str) or not value.startswith(_ACTIVE):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def to_json(sheets: Sequence[Sheet]) -> str:
    """A list of tables: title, what its rows share, rows, notes."""
    tables: list[Mapping[str, object]] = [
        {
            "title": sheet.title,
            **sheet.about,
            "rows": [line.data for line in sheet.lines],
            **({"summary": sheet.summary} if sheet.summary else {}),
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
        told = [_markdown(sheet.summary), ""] if sheet.summary else []
        notes = [*told, *(f"* {_markdown(note)}" for note in sheet.notes)]
        parts.append("\n".join([f"### {_markdown(sheet.title)}", "", *lines, "", *notes]).rstrip())
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
        + (f"<p>{html.escape(sheet.summary)}</p>\n" if sheet.summary else "")
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def _side(right: bool) -> str:
    return ' style="text-align:right"' if right else ""


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text)


WRITERS: Mapping[str, Callable[[Sequence[Sheet]], str]] = {
    "csv": to_csv,
    "json": to_json,
    "markdown": to_markdown,
    "latex": to_latex,
    "html": to_html,
}
"""By the name of the format"""
