"""A table that can be shown in several formats: what a reader sees, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from cab.scoring.intervals import Interval
from cab.scoring.origin import Origin
from cab.sheets.words import number

Value = str | int | float | bool | None
Item = TypeVar("Item")
_In = TypeVar("_In", contravariant=True)


@dataclass(frozen=True)
class Column:
    """One column as it is shown."""

    title: str
    right: bool = False
    """Whether it holds numbers"""
    keep: int = 0
    """A narrow terminal loses columns of a higher number first; 0 always stays"""
    key: str = ""
    """Name of what stands behind its words, for a reader that sorts, or has room for more"""
    page: str = ""
    """Its heading on the dashboard, which has room for a word; empty: the title"""
    help: str = ""
    """How to read it, for a pointer that rests on its heading"""
    more: bool | None = None
    """Whether more is better (True), or less (False); None: neither"""
    number: str = ""
    """Name of the number that the best line is found by; empty: the key"""

    @property
    def heading(self) -> str:
        """On the dashboard, where headings begin with a capital letter."""
        return self.page or self.title[:1].upper() + self.title[1:]

    def kept(self, keep: int) -> Column:
        """The same column, lost earlier or later in a narrow terminal."""
        return replace(self, keep=keep)


@dataclass(frozen=True)
class Line:
    """One entry: the words of its columns, and its numbers by name for machines."""

    shown: tuple[str, ...]
    data: dict[str, Value]
    strong: frozenset[int] = frozenset()
    """Places of the words that stand out, where there is bold type"""

    def of(self, places: Sequence[int]) -> Line:
        """With some of its words."""
        strong = frozenset(new for new, old in enumerate(places) if old in self.strong)
        return replace(self, shown=tuple(self.shown[n] for n in places), strong=strong)


@dataclass(frozen=True)
class Sheet:
    """A table with a title and what a reader must know beside it."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    about: dict[str, Value] = field(default_factory=dict)
    """What all lines share: pattern, scale, device"""
    notes: tuple[str, ...] = ()
    origin: Callable[[], Origin] | None = None
    """Says which code measured its numbers; asked for where it is shown, for it reads all rows"""
    summary: str = ""
    """A paragraph that stands right below it: what can be read from the whole table"""

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
                lines=tuple(line.of(places) for line in sheet.lines),
            )
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
    {"rank", "rank_low", "rank_high", "cost", "relative_cost", "dominated", "pays_from", "density"}
)
"""Numbers of which less is better"""


@dataclass(frozen=True)
class Field(Generic[_In]):
    """What a table says of each item: a column of words, numbers for machines, or both."""

    column: Column | None
    """None: for machines alone"""
    words: Callable[[_In], str] | None = None
    """What the column says of an item"""
    data: Callable[[_In], Mapping[str, Value]] | None = None
    """Numbers by name"""


def columns_of(fields: Sequence[Field[Item]]) -> tuple[Column, ...]:
    """The columns that readers see."""
    return tuple(one.column for one in fields if one.column)


def lines_of(fields: Sequence[Field[Item]], items: Iterable[Item]) -> tuple[Line, ...]:
    """A line an item."""
    found = []
    for item in items:
        data: dict[str, Value] = {}
        for one in fields:
            data |= one.data(item) if one.data else {}
        found.append(Line(tuple(f.words(item) for f in fields if f.column and f.words), data))
    return tuple(found)


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
