"""The report's matrix of all pairs: who beats whom, in general and on these tasks."""

from __future__ import annotations

from cab.report.svg import COLOURS, GREY, Drawing
from cab.scoring.pairwise import Pairwise, Relation
from cab.sheets.pairs import VERDICTS
from cab.sheets.words import count_range, p_value, signed

_SIDE = 16.0
_LEFT = 210.0
_TOP = 26.0

TINTS = {
    Relation.BETTER: (COLOURS[0], 0.75),
    Relation.BETTER_HERE: (COLOURS[0], 0.3),
    Relation.SAME: (GREY, 0.08),
    Relation.WORSE_HERE: (COLOURS[7], 0.3),
    Relation.WORSE: (COLOURS[7], 0.75),
    Relation.UNKNOWN: (GREY, 0.08),
    Relation.ITSELF: (GREY, 0.0),
}
"""Colour and opacity; as COLOURS in charts of the dashboard"""


def matrix_plot(found: Pairwise) -> str:
    """A box for each pair of entries, of the row's entry over the column's; empty for fewer than
    two.
    """
    size = len(found.entries)
    if size < 2:
        return ""
    drawing = Drawing(_LEFT + _SIDE * size + 10, _TOP + _SIDE * size + 8, "Who beats whom")
    for row, entry in enumerate(found.entries):
        y = _TOP + _SIDE * row
        name = entry if len(entry) <= 28 else f"{entry[:27]}…"
        drawing.text(_LEFT - 6, y + 12, f"{row + 1}  {name}", "end", 11)
        drawing.text(_LEFT + _SIDE * (row + 0.5), _TOP - 8, str(row + 1), "middle", 9)
        for column, other in enumerate(found.entries):
            relation = found.relation(row, column)
            if relation is Relation.ITSELF:
                continue
            colour, opacity = TINTS[relation]
            # The other half says the same of the other one; words are most of a page's size.
            tip = (
                ""
                if column < row
                else (
                    f"{entry} over {other}: {signed(found.difference[row, column])}, "
                    f"{VERDICTS[relation]}; p {p_value(found.p_here[row, column])} on these tasks, "
                    f"{p_value(found.p_general[row, column])} in general, corrected; "
                    f"{count_range(*found.seeds)} seeds"
                )
            )
            x = _LEFT + _SIDE * column
            drawing.box(x + 0.5, y + 0.5, _SIDE - 1, _SIDE - 1, colour, opacity, tip)
            drawing.text(x + _SIDE / 2, y + 12, relation.value, "middle", 10)
    return drawing.svg()
