"""Every pair of ranked entries as a sheet, corrected together."""

from __future__ import annotations

from cab.scoring.quality import QualityBoard
from cab.scoring.ranks import ALPHA, holm, significant_pairs
from cab.sheets import columns
from cab.sheets.notes import SAME
from cab.sheets.sheet import Column, Line, Sheet
from cab.sheets.words import p_value, signed


def pairs_sheet(found: QualityBoard) -> Sheet | None:
    """Every pair of ranked entries, with p-values; None for fewer than two."""
    pairs = found.pairs
    if pairs is None or len(pairs.entries) < 2:
        return None
    differs = significant_pairs(pairs)
    places = [(i, j) for i in range(len(pairs.entries)) for j in range(i + 1, len(pairs.entries))]
    general = holm(pairs.p_general[tuple(zip(*places, strict=True))])
    here = holm(pairs.p_here[tuple(zip(*places, strict=True))])
    lines = []
    for n, (i, j) in enumerate(places):
        verdict = "different" if differs[i, j] else SAME
        if not differs[i, j] and here[n] < ALPHA:
            verdict = "different on these tasks"
        shown = (
            pairs.entries[i], pairs.entries[j], signed(pairs.difference[i, j]),
            p_value(here[n]), p_value(general[n]), verdict,
        )  # fmt: skip
        lines.append(Line(shown, {}))
    headings = (
        Column("better"), Column("worse"), columns.DIFFERENCE,
        Column("p, these tasks", right=True), columns.P, columns.VERDICT,
    )  # fmt: skip
    note = f"p corrected for {len(places)} pairs (Holm)"
    return Sheet("Differences of the index", headings, tuple(lines), {}, (note,))
