"""Costs as sheets: quality beside a cost, what is dominated, and from which length it pays."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cab.controls import BASELINE
from cab.label import short_label
from cab.scoring.cost import CostAxis, Costs, costs
from cab.scoring.crossover import Crossover
from cab.scoring.intervals import UNKNOWN
from cab.scoring.pareto import ParetoPoint, front
from cab.scoring.paying import crossovers
from cab.scoring.quality import QualityBoard
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.choice import ALL, Shown
from cab.sheets.notes import machine_notes
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import (
    NOTHING,
    amount,
    amount_range,
    number,
    percent,
    share,
    signed,
    times,
    unsure_notes,
)
from cab.track import Track


def cost_sheet(
    results: Results,
    board: QualityBoard,
    axis: CostAxis,
    track: Track,
    shown: Shown = ALL,
) -> Sheet | None:
    """Entries from the cheapest on, with quality where it is known; None where nothing is."""
    found = costs(results, track, axis)
    if not found.by_entry:
        return None
    points = {point.entry: point for point in front(board, found)}
    pays = crossovers(results, track, axis)
    origins = _origins(results, board)
    order = sorted(found.by_entry, key=lambda name: (found.by_entry[name].value, name))
    of = results.select(track, kind="quality" if axis.of_model else "efficiency")
    labels = entry_labels(of)
    headings = (
        columns.ENTRY,
        columns.LABEL,
        columns.COST,
        columns.INTERVAL.kept(3),
        columns.TO_BASELINE,
        *([columns.PAYS] if pays else []),
        *([columns.DENSITY] if found.density else []),
        columns.INDEX,
        Column("dominated", right=True),
        Column("index per doubling", right=True, keep=2, more=True, number="index_per_doubling"),
        Column("front"),
    )
    lines = []
    for name in order:
        attention, its_grade = origins.get(name, (name, ""))
        label = labels.get(name, "")
        if shown.keeps(attention, its_grade, label):
            lines.append(_line(name, attention, label, found, points.get(name), pays))
    at = f" at length {found.length:,}" if found.length else ""
    notes = [f"{name}: {status}{at}" for name, status in sorted(found.ended.items())]
    if not axis.of_model:
        notes += machine_notes(results, track)
    others = [
        f"{name} {times(ratio)} of {other}"
        for name, (other, ratio) in sorted(found.beside.items())
        if other != BASELINE
    ]
    if others:
        notes.append(f"timed in turns: {', '.join(others)}")
    if not points:
        notes.append("no quality results in this choice: the front needs both")
    notes.append(
        "dominated: probability that another entry is at least as good and at most as dear; front: "
        "not dominated in most draws. index per doubling: index over |log2| of the cost to "
        "softmax's."
    )
    if pays:
        notes.append(pays_note("it", BASELINE))
    notes += unsure_notes(found.by_entry.values())
    return Sheet(
        track.titled(f"{track.pattern}, {axis.title}{at}"),
        headings,
        tuple(lines),
        {**track.about, "axis": axis.id, "length": found.length},
        tuple(notes),
    )


def _line(
    name: str,
    attention: str,
    label: str,
    found: Costs,
    point: ParetoPoint | None,
    pays: Mapping[str, Crossover],
) -> Line:
    cost, unit = found.by_entry[name], found.axis.unit
    base = found.by_entry.get(BASELINE)
    ratio = cost.value / base.value if base and base.value > 0 else math.nan
    beside, paired = found.beside.get(name, ("", math.nan))
    if not base and beside == BASELINE:  # as in a bench, where it has no cells of its own
        ratio = paired
    crossing = pays.get(name)
    density = found.density.get(name, UNKNOWN)
    shown = [
        name,
        short_label(label),
        amount(cost.value, unit),
        amount_range(cost, unit),
        times(ratio),
        *([crossing.words() if crossing else NOTHING] if pays else []),
        *([share(density.value)] if found.density else []),
        signed(point.quality.value) if point else NOTHING,
        percent(point.dominated) if point else NOTHING,
        signed(point.per_cost) if point else NOTHING,
        ("yes" if point.on_front else "") if point else NOTHING,
    ]
    data: dict[str, Value] = {
        "entry": name,
        "attention": attention,
        "label": label,
        **interval_data("cost", cost),
        "unit": unit,
        "relative_cost": number(ratio),
        **crossing_data(crossing),
        **(interval_data("density", density) if found.density else {}),
        "index": number(point.quality.value) if point else None,
        "dominated": point.dominated if point else None,
        "index_per_doubling": number(point.per_cost) if point else None,
        "front": point.on_front if point else None,
    }
    return Line(tuple(shown), data)


def pays_note(one: str, other: str) -> str:
    """What the column of lengths says."""
    return f"pays: length from which on {one} costs less than {other}"


def crossing_data(crossing: Crossover | None) -> dict[str, Value]:
    """From which length it pays, for machines."""
    return {
        "pays_from": number(crossing.length) if crossing else None,
        "pays_from_low": number(crossing.low) if crossing else None,
        "pays_from_high": number(crossing.high) if crossing else None,
        "reached": crossing.reached if crossing else None,
    }


def _origins(results: Results, board: QualityBoard) -> dict[str, tuple[str, str]]:
    rows = results.rows[["entry", "attention", "grade"]].drop_duplicates("entry")
    found = {str(e): (str(a), str(g)) for e, a, g in rows.itertuples(index=False)}
    return found | {s.entry: (s.attention, s.grade) for s in board.standings}
