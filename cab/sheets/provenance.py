"""Where rows come from as a sheet: versions, commits, machines and labels, with their rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cab.sheets.sheet import Column, Line, Sheet

SOURCES = (
    ("suite version", "suite_version"),
    ("git commit", "git_commit"),
    ("device", "device_name"),
    ("threads", "threads"),
    ("backend", "backend"),
    ("label", "label"),
    ("schema version", "schema_version"),
)
"""What is counted, and the column of the rows that says it"""
SOURCE = Column("", page="Source")
VALUE = Column("value")
ROWS = Column("rows", right=True, key="rows")


def sources_sheet(rows: pd.DataFrame, notes: Sequence[str] = ()) -> Sheet:
    """A line for every value of every source, the most frequent first.

    Args:
        rows: measured ones.
        notes: what a reader must know of them.
    """
    lines = []
    for title, column in SOURCES:
        for word, number in rows[column].map(_words, na_action=None).value_counts().items():
            shown = (title, str(word), f"{number:,}")
            lines.append(Line(shown, {"source": title, "value": str(word), "rows": int(number)}))
    headings = (SOURCE, VALUE, ROWS)
    return Sheet("Where the rows come from", headings, tuple(lines), notes=tuple(notes))


def _words(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]  # takes any scalar
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)
