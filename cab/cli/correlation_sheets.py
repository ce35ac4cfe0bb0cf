"""Rank correlations as sheets: between columns of a leaderboard, and between whole tracks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from cab.cli.sheet import Column, Line, Sheet, Value, interval_data
from cab.cli.standings import controls
from cab.scoring.correlation import Correlation, correlations, without
from cab.scoring.quality import QualityBoard
from cab.scoring.task_scores import BASELINE


def correlation_sheet(found: Sequence[Correlation], title: str = "Correlations") -> Sheet:
    """Pairs of columns; refused ones say why."""
    columns = (
        Column("one"), Column("other"), Column("Spearman", right=True),
        Column("95 % interval", right=True), Column("n", right=True),
    )  # fmt: skip
    lines = []
    for c in found:
        words = ("-", "refused: n < 5") if c.refused else (
            f"{c.rho.value:+.2f}", f"{c.rho.low:+.2f} .. {c.rho.high:+.2f}",
        )  # fmt: skip
        data: dict[str, Value] = {
            "one": c.first, "other": c.second, **interval_data("rho", c.rho), "n": c.n,
        }  # fmt: skip
        lines.append(Line((c.first, c.second, *words, str(c.n)), data))
    return Sheet(title, columns, tuple(lines))


def tracks_sheet(boards: Mapping[tuple[str, str], Mapping[str, QualityBoard]]) -> Sheet | None:
    """Whether one track ranks as another does; None where no two have a pattern in common.

    Args:
        boards: by scale and device, then by pattern.
    """
    found = []
    for one, other in itertools.combinations(boards, 2):
        for pattern in boards[one].keys() & boards[other].keys():
            columns = {
                f"{pattern}, {', '.join(track)}": {
                    s.entry: s.index.value for s in boards[track][pattern].standings if s.index.n
                }
                for track in (one, other)
            }
            if all(columns.values()):
                found += correlations(without(columns, controls() - {BASELINE}))
    if not found:
        return None
    title = "Rank correlations between tracks: does the small one predict the large one?"
    return correlation_sheet(sorted(found, key=lambda c: (c.first, c.second)), title)
