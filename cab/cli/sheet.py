"""A table that can be shown in several formats: what a reader sees, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cab.scoring.intervals import Interval

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """One column as it is shown."""

    title: str
    right: bool = False
    """Whether it holds numbers"""
    keep: int = 0
    """A narrow terminal loses columns of a higher number first; 0 always stays"""


@dataclass(frozen=True)
class Line:
    """One entry: the words of its columns, and its numbers by name for machines."""

    shown: tuple[str, ...]
    data: dict[str, Value]


@dataclass(frozen=True)
class Sheet:
    """A table with a title and what a reader must know beside it."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    about: dict[str, Value] = field(default_factory=dict)
    """What all lines share: pattern, scale, device"""
    notes: tuple[str, ...] = ()

    def sort_keys(self) -> set[str]:
        """What it can be sorted by: titles, names of numbers, and rank, which is its own order."""
        titles = {column.title for column in self.columns} - {"#"}
        return titles | {name for line in self.lines for name in line.data} | {"rank"}

    def sorted_by(self, key: str) -> Sheet:
        """By one of its keys: words from A, measures of quality from the best, ranks and costs from
        the least; what is missing comes last.
        """
        if key == "rank":
            return self
        names = {name for line in self.lines for name in line.data}
        place = [column.title for column in self.columns].index(key) if key not in names else -1

        def order(line: Line) -> tuple[int, float, str]:
            value = line.data.get(key) if key in names else line.shown[place]
            if value is None or (isinstance(value, float) and math.isnan(value)):
                return 1, 0.0, ""
            if isinstance(value, str):
                return 0, 0.0, value
            return 0, float(value) if key in ASCENDING else -float(value), ""

        return replace(self, lines=tuple(sorted(self.lines, key=order)))

    def fitted(self, width: int) -> Sheet:
        """Without the columns that a terminal of this width has no room for."""
        sheet = self
        while sheet.width > width:
            worst = max(column.keep for column in sheet.columns)
            if worst == 0:
                break
            # Of a kind, all go: half of the tasks would read as if they were all.
            places = [n for n, column in enumerate(sheet.columns) if column.keep != worst]
            sheet = replace(
                sheet,
                columns=tuple(sheet.columns[n] for n in places),
                lines=tuple(replace(x, shown=tuple(x.shown[n] for n in places))
                            for x in sheet.lines),
            )  # fmt: skip
        return sheet

    @property
    def width(self) -> int:
        """Characters that its columns take side by side."""
        widths = [
            max([len(column.title), *(len(line.shown[n]) for line in self.lines)])
            for n, column in enumerate(self.columns)
        ]
        return sum(widths) + 2 * len(widths)


ASCENDING = frozenset(
    {"rank", "rank_low", "rank_high", "cost", "relative_cost", "dominated", "pays_from"}
)
"""Numbers of which less is better"""


def signed(value: float, digits: int = 3) -> str:
    """``+0.123``, or a dash for what is not a number."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else "-"


def bounds(interval: Interval) -> str:
    """``+0.010 .. +0.200``, or a dash where there is no interval."""
    if not interval.known:
        return "-"
    return f"{signed(interval.low)} .. {signed(interval.high)}"


def number(value: float) -> float | None:
    """For machines: None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def interval_data(name: str, interval: Interval) -> dict[str, Value]:
    """``name``, ``name_low`` and ``name_high``."""
    return {
        name: number(interval.value),
        f"{name}_low": number(interval.low),
        f"{name}_high": number(interval.high),
    }


def share_about(sheets: Sequence[Sheet]) -> list[str]:
    """Names of what lines share, of all sheets, each once."""
    return list(dict.fromkeys(name for sheet in sheets for name in sheet.about))
