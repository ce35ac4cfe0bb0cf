r"""Sheets as LaTeX: a floating table each, for the booktabs package and nothing else.

The caption names the track and the code that measured; a label stands below it, and what a reader
must know stands behind the float, where it can be moved or cut. The best of a column is bold where
it is known which way is better: that says which number is the best, not that it differs from the
next one. Tables that are wider than a page are broken into several below each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cab.sheets.columns import MARKS
from cab.sheets.latex_cells import cells
from cab.sheets.naming import distinct, slug
from cab.sheets.sheet import Column, Line, Sheet
from cab.sheets.words import NOTHING
from cab.tex import escaped, prose

_WIDTH = 78
"""Characters that fit side by side in a column of LaTeX's article class, small"""
_INTERVAL = re.compile(r" [±(]")
"""What the interval of a number begins with, in the cell of the number"""
_SIGNS = re.compile("[-+±]")
_GAP = 2
"""Characters between columns"""
_BOLD = "bold: the best number of a column, which need not be distinguishable from the next"


def to_latex(sheets: Sequence[Sheet]) -> str:
    """Tables for the booktabs package."""
    labels = distinct(f"tab:cab-{slug(sheet.title)}" for sheet in sheets)
    tables = [_table(sheet, label) for sheet, label in zip(sheets, labels, strict=True)]
    return "\n\n".join([r"% \usepackage{booktabs}", *tables]) + "\n"


@dataclass(frozen=True)
class _Panel:
    """Columns that stand side by side."""

    columns: tuple[Column, ...]
    lines: tuple[tuple[str, ...], ...]
    bold: tuple[tuple[bool, ...], ...]

    @property
    def widths(self) -> list[float]:
        """Characters that each column takes."""
        return [
            max(_heading_width(column, body), _cells_width(self.words(n)))
            for n, (column, body) in enumerate(zip(self.columns, self._bodies(), strict=True))
        ]

    def words(self, n: int) -> list[str]:
        """The cells of a column from the top."""
        return [line[n] for line in self.lines]

    def _bodies(self) -> list[int]:
        return [max([1, *map(len, self.words(n))]) for n in range(len(self.columns))]

    def of(self, places: Sequence[int]) -> _Panel:
        """Some of the columns."""
        return _Panel(
            tuple(self.columns[n] for n in places),
            tuple(tuple(line[n] for n in places) for line in self.lines),
            tuple(tuple(line[n] for n in places) for line in self.bold),
        )

    def tabular(self) -> str:
        align = "".join("r" if column.right else "l" for column in self.columns)
        heads = [
            _heading(column, body)
            for column, body in zip(self.columns, self._bodies(), strict=True)
        ]
        shown = []
        for n, column in enumerate(self.columns):
            words = self.words(n)
            shown.append(
                cells(words, [line[n] for line in self.bold])
                if column.right
                else ["--" if word == NOTHING else prose(word) for word in words]
            )
        rows = [" & ".join(row) + r" \\" for row in zip(*shown, strict=True)]
        return "\n".join(
            [
                rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
                r"\toprule",
                " & ".join(heads) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )


def _table(sheet: Sheet, label: str) -> str:
    constant = _constant(sheet)
    whole = _Panel(sheet.columns, tuple(line.shown for line in sheet.lines), _best(sheet)).of(
        [n for n in range(len(sheet.columns)) if n not in constant]
    )
    panels = "\n\n\\medskip\n".join(panel.tabular() for panel in _panels(whole))
    notes = [f"{sheet.columns[n].title}: {word} throughout" for n, word in constant.items()]
    notes += [_BOLD] if any(map(any, whole.bold)) else []
    verdict = sheet.about.get("verdict")
    said = [words for words in (verdict, sheet.summary) if words]
    notes = [*map(str, said), *_with_legend(whole.columns, sheet), *notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{prose(caption(sheet))}}}",
            rf"\label{{{label}}}\par\smallskip",
            panels,
            r"\end{table}",
            *([_notes(notes, label)] if notes else []),
        ]
    )


def caption(sheet: Sheet) -> str:
    """What it shows, its track, and the versions and commits that measured it."""
    scale, device, pattern = (sheet.about.get(name) for name in ("scale", "device", "pattern"))
    words = sheet.title.removesuffix(f" ({scale}, {device})")
    if words == pattern:
        words = f"Attention mechanisms on {pattern}"
    track = [f"{name} {sheet.about[name]}" for name in ("pattern", "scale", "device")
             if sheet.about.get(name)]  # fmt: skip
    sentences = [words, ", ".join(track), f"measured with {sheet.origin().words()}"
                 if sheet.origin else ""]  # fmt: skip
    first, *others = (sentence for sentence in sentences if sentence)
    # A title may begin with an id, which is written as it is.
    return " ".join([f"{first}.", *(f"{other[0].upper()}{other[1:]}." for other in others)])


def _with_legend(columns: Sequence[Column], sheet: Sheet) -> list[str]:
    """The notes of a sheet, before them what its columns say of themselves and no note does."""
    known = "\n".join(sheet.notes)
    places = {column.title: n for n, column in enumerate(sheet.columns)}
    marked = any(line.shown[places["#"]][:1] in ("=", "~") for line in sheet.lines
                 if "#" in places)  # fmt: skip
    legend = [
        f"{column.title}: {column.help}" if any(map(str.isalpha, column.title)) else column.help
        for column in columns
        if column.help and column.help not in known and (column.help != MARKS or marked)
    ]
    return [*dict.fromkeys(legend), *sheet.notes]


def _notes(notes: Sequence[str], label: str) -> str:
    paragraphs = [prose(note).rstrip(".") + "." for note in notes]
    return "\n".join(
        [
            rf"\begingroup\footnotesize\raggedright Notes on Table~\ref{{{label}}}:\par",
            *(rf"{words}\par" for words in paragraphs),
            r"\smallskip\endgroup",
        ]
    )


def _constant(sheet: Sheet) -> dict[int, str]:
    """Columns that may go and hold one word in all lines, by their place."""
    found = {}
    for n, column in enumerate(sheet.columns):
        words = {line.shown[n] for line in sheet.lines}
        if column.keep and not column.right and len(sheet.lines) > 1 and len(words) == 1:
            (word,) = words
            if word:
                found[n] = word
    return found


def _best(sheet: Sheet) -> tuple[tuple[bool, ...], ...]:
    """Cells of the best number of their column, and of those that read the same."""
    bold = [[False] * len(sheet.columns) for _ in sheet.lines]
    for n, column in enumerate(sheet.columns):
        found = [_number(line, column) for line in sheet.lines]
        known = [value for value in found if value is not None]
        if column.more is None or len(known) < 2:
            continue
        best = (max if column.more else min)(known)
        shown = [_INTERVAL.split(line.shown[n])[0] for line in sheet.lines]
        words = {word for word, value in zip(shown, found, strict=True) if value == best}
        chosen = [word in words for word in shown]
        # Where all are alike there is no best.
        if sum(chosen) < len(known):
            for row, strong in zip(bold, chosen, strict=True):
                row[n] = strong
    return tuple(tuple(row) for row in bold)


def _number(line: Line, column: Column) -> float | None:
    value = line.data.get(column.number or column.key)
    return float(value) if isinstance(value, int | float) else None


def _panels(whole: _Panel) -> list[_Panel]:
    """The columns in groups that fit on a page; each later one begins with the names again."""
    widths = whole.widths
    name = next((n for n, column in enumerate(whole.columns) if not column.right), 0)

    def fits(places: Sequence[int]) -> bool:
        return sum(widths[n] + _GAP for n in places) - _GAP <= _WIDTH

    groups = groupby(range(len(whole.columns)), key=lambda n: whole.columns[n].keep)
    panels: list[list[int]] = [[]]
    for _, group in groups:
        places = list(group)
        # What is of a kind - the scores by task - stays together where that is possible.
        kind = len(places) > 1 and whole.columns[places[0]].keep > 0
        if kind and not fits(panels[-1] + places) and fits([name, *places]):
            panels.append([name])
        for n in places:
            if not fits([*panels[-1], n]) and panels[-1] not in ([], [name]):
                panels.append([name])
            panels[-1].append(n)
    return [whole.of(places) for places in panels]


def _lines_of_heading(column: Column, body: int) -> list[str]:
    """A heading in lines that are no wider than the cells, as far as its words allow; words break
    behind their hyphens.
    """
    pieces = column.title.replace("-", "-\n").replace(" ", " \n").split("\n")
    most = max([body, *(len(piece.strip()) for piece in pieces)])
    lines = [""]
    for piece in pieces:
        if len((lines[-1] + piece).rstrip()) > most:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def _cells_width(words: Sequence[str]) -> float:
    """Signs are half as wide again as digits and letters."""
    return max([1.0, *(len(w) + 0.5 * len(_SIGNS.findall(w)) for w in words)])


def _heading_width(column: Column, body: int) -> int:
    return max(map(len, _lines_of_heading(column, body)))


def _heading(column: Column, body: int) -> str:
    lines = [escaped(line) for line in _lines_of_heading(column, body)]
    if len(lines) == 1:
        return lines[0]
    side = "r" if column.right else "l"
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"
