"""Rank correlations as sheets: between columns of a leaderboard, and between whole tracks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from cab.scoring.boards import uninformative
from cab.scoring.correlation import LEAST, Correlation, correlations, without
from cab.scoring.quality import QualityBoard
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import NOTHING, bounds, signed
from cab.track import Setting


def correlation_sheet(found: Sequence[Correlation], title: str = "Correlations") -> Sheet:
    """Pairs of columns; refused ones say why."""
    shown = (
        Column("one"), Column("other"), Column("Spearman", right=True),
        columns.INTERVAL, Column("n", right=True),
    )  # fmt: skip
    lines = []
    for c in found:
        words = (signed(c.rho.value, 2), bounds(c.rho, 2))
        if c.refused:
            words = (NOTHING, f"refused: n < {LEAST}")
        data: dict[str, Value] = {
            "one": c.first, "other": c.second, **interval_data("rho", c.rho), "n": c.n,
        }  # fmt: skip
        lines.append(Line((c.first, c.second, *words, str(c.n)), data))
    return Sheet(title, shown, tuple(lines))


def tracks_sheet(boards: Mapping[Setting, Mapping[str, QualityBoard]]) -> Sheet | None:
    """Whether one track ranks as another does; None where no two have a pattern in common.

    Args:
        boards: by setting, then by pattern.
    """
    found = []
    for one, other in itertools.combinations(boards, 2):
        for pattern in boards[one].keys() & boards[other].keys():
            index = {
                f"{pattern}, {setting.title}": {
                    s.entry: s.index.value for s in boards[setting][pattern].standings if s.index.n
                }
                for setting in (one, other)
            }
            if all(index.values()):
                found += correlations(without(index, uninformative()))
    if not found:
        return None
    title = "Rank correlations between tracks: does the small one predict the large one?"
    return correlation_sheet(sorted(found, key=lambda c: (c.first, c.second)), title)
