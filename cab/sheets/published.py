"""Leaderboards of published tables as sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cab.patterns import Pattern
from cab.scoring.compositional import CAB_CONSTANTS, CORRECTED_CONSTANTS
from cab.scoring.published import (
    ERRATA,
    EfficiencyLength,
    PublishedStanding,
    efficiency_lengths,
    load_published,
    marks,
    published_board,
)
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value
from cab.sheets.words import NOTHING, number, signed


def published_sheets(
    name: str, patterns: Sequence[Pattern], tasks: Sequence[str] = ()
) -> list[Sheet]:
    """CAB's leaderboard of every pattern, then its efficiency lengths.

    Args:
        name: of the table; with ``+errata``, corrected.
        patterns: those to show.
        tasks: those to show; none named: all, and the average over them.
    """
    rows = load_published(name)
    corrected = name.endswith(f"+{ERRATA}")
    constants = CORRECTED_CONSTANTS if corrected else CAB_CONSTANTS
    sheets = []
    for pattern in patterns:
        standings = published_board(rows, pattern.value, constants)
        here = rows[rows["pattern"] == pattern.value]
        notes = [f"erratum {mark}" for mark in marks(here)]
        if corrected and pattern is Pattern.NONCAUSAL_SELF:
            notes.insert(0, "erratum T1: mean of ROUGE-L 31.95889 in place of 31.96889")
        notes += [
            f"{s.attention} has no average: CAB has no number for {', '.join(s.missing)}"
            for s in standings
            if s.missing
        ]
        sheets.append(_board(name, pattern, standings, notes, tasks))
    if Pattern.NONCAUSAL_SELF in patterns and not tasks:
        sheets.append(_lengths(name, efficiency_lengths(rows)))
    return sheets


def _board(
    name: str,
    pattern: Pattern,
    standings: Sequence[PublishedStanding],
    notes: Sequence[str],
    chosen: Sequence[str],
) -> Sheet:
    tasks = sorted({task for s in standings for task in s.tasks if not chosen or task in chosen})
    headings = (
        columns.RANK,
        columns.ENTRY,
        columns.AVERAGE,
        Column("Δ vanilla", right=True),
        Column("as printed", right=True, keep=1),
        *(columns.of_task(task, keep=0) for task in tasks),
    )
    lines = []
    for s in standings:
        shown = (
            str(s.rank or ""),
            s.attention,
            *(signed(x) for x in (s.average, s.delta, s.printed)),
            *(signed(s.tasks.get(task, math.nan)) for task in tasks),
        )
        data: dict[str, Value] = {
            "rank": s.rank, "attention": s.attention, "average": number(s.average),
            "delta": number(s.delta), "printed": number(s.printed),
            **{task: number(s.tasks.get(task, math.nan)) for task in tasks},
        }  # fmt: skip
        lines.append(Line(shown, data))
    return Sheet(
        f"{pattern.value}, {name}: CAB's compositional index of CAB's published numbers",
        headings,
        tuple(lines),
        {"published": name, "pattern": pattern.value},
        (*notes, "one seed a cell, no intervals; not comparable with measured tables"),
    )


def _lengths(name: str, found: Sequence[EfficiencyLength]) -> Sheet:
    by_name: dict[str, dict[str, EfficiencyLength]] = {}
    for length in found:
        by_name.setdefault(length.attention, {})[length.quantity] = length
    headings = (
        columns.ENTRY,
        Column("time", right=True),
        Column("recomputed time", right=True),
        Column("memory", right=True),
        Column("recomputed memory", right=True),
    )
    lines = []
    for attention in sorted(by_name, key=lambda a: (by_name[a]["time"].printed, a)):
        time, memory = by_name[attention]["time"], by_name[attention]["memory"]
        numbers = (time.printed, time.recomputed, memory.printed, memory.recomputed)
        data: dict[str, Value] = {
            "attention": attention, "time": number(time.printed),
            "time_recomputed": number(time.recomputed), "memory": number(memory.printed),
            "memory_recomputed": number(memory.recomputed),
        }  # fmt: skip
        shown = (attention, *(f"{x:,.0f}" if math.isfinite(x) else NOTHING for x in numbers))
        lines.append(Line(shown, data))
    return Sheet(
        f"{name}: CAB's efficiency lengths (tokens from which it takes less than vanilla)",
        headings,
        tuple(lines),
        {"published": name, "pattern": Pattern.NONCAUSAL_SELF.value},
        (
            "recomputed where CAB prints the costs; five memory lengths lie below 256, the "
            "shortest length measured, and times of short lengths are of the launch "
            "(ERRATA.md, T13)",
        ),
    )
