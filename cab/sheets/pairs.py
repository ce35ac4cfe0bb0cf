"""Every pair of ranked entries as a sheet, corrected together."""

from __future__ import annotations

from cab.scoring.pairwise import Relation, pairwise
from cab.scoring.quality import QualityBoard
from cab.sheets import columns
from cab.sheets.notes import SAME
from cab.sheets.sheet import Column, Line, Sheet, Value
from cab.sheets.words import count_range, number, p_value, signed

VERDICTS = {
    Relation.BETTER: "different",
    Relation.WORSE: "different",
    Relation.BETTER_HERE: "different on these tasks",
    Relation.WORSE_HERE: "different on these tasks",
    Relation.SAME: SAME,
    Relation.UNKNOWN: "not known (one seed)",
}
"""Of two entries, in words"""


def pairs_sheet(found: QualityBoard) -> Sheet | None:
    """Every pair of ranked entries, with p-values; None for fewer than two."""
    if found.pairs is None or len(found.pairs.entries) < 2:
        return None
    whole = pairwise(found.pairs, len(found.scores.tasks))
    seeds = count_range(*whole.seeds)
    lines = []
    for i, one in enumerate(whole.entries):
        for j in range(i + 1, len(whole.entries)):
            other, verdict = whole.entries[j], VERDICTS[whole.relation(i, j)]
            difference, here = whole.difference[i, j], whole.p_here[i, j]
            general = whole.p_general[i, j]
            shown = (
                one, other, signed(difference), p_value(here), p_value(general), seeds, verdict,
            )  # fmt: skip
            data: dict[str, Value] = {
                "one": one, "other": other, "difference": number(difference),
                "p_these_tasks": number(here), "p": number(general), "seeds": seeds,
                "verdict": verdict,
            }  # fmt: skip
            lines.append(Line(shown, data))
    headings = (
        Column("better"), Column("worse"), columns.DIFFERENCE,
        Column("p, these tasks", right=True), columns.P, columns.SEEDS, columns.VERDICT,
    )  # fmt: skip
    note = f"p corrected for {whole.count} pairs (Holm); {columns.SEEDS_BEHIND}"
    return Sheet("Differences of the index", headings, tuple(lines), {}, (note,))
