"""Costs as sheets: quality beside a cost, what is dominated, and from which length it pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from cab.cli.sheet import Column, Line, Sheet, Value, interval_data, number, signed
from cab.cli.standings import kept
from cab.cli.tables import byte_size, duration, significant
from cab.scoring.cost import CostAxis, Costs, costs
from cab.scoring.crossover import Crossover, crossover, ratio_of
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.intervals import Interval
from cab.scoring.pareto import ParetoPoint, front
from cab.scoring.quality import QualityBoard
from cab.scoring.results import Results
from cab.scoring.task_scores import BASELINE


def amount(value: float, unit: str) -> str:
    """A cost in a unit that keeps it short."""
    if not math.isfinite(value):
        return "-"
    if unit == "s":
        return duration(value) if value > 0 else "0 s"
    if unit == "B":
        return byte_size(value)
    if unit == "1":
        return f"{value:,.0f}"
    return f"{significant(value)} {unit}"


def amount_range(interval: Interval, unit: str) -> str:
    """Its interval, or a dash."""
    if not interval.known:
        return "-"
    return f"{amount(interval.low, unit)} .. {amount(interval.high, unit)}"


def cost_sheet(
    results: Results,
    board: QualityBoard,
    axis: CostAxis,
    pattern: str,
    scale: str,
    device: str,
    grade: str | None = None,
) -> Sheet | None:
    """Entries from the cheapest on, with quality where it is known; None where nothing is."""
    found = costs(results, pattern, scale, device, axis)
    if not found.by_entry:
        return None
    points = {point.entry: point for point in front(board, found)}
    pays = crossovers(results, pattern, scale, device, axis)
    origins = _origins(results, board)
    order = sorted(found.by_entry, key=lambda name: (found.by_entry[name].value, name))
    columns = (
        Column("attention"),
        Column("cost", right=True),
        Column("95 % interval", right=True, keep=3),
        Column("to softmax", right=True),
        *([Column("pays")] if pays else []),
        Column("index", right=True),
        Column("dominated", right=True),
        Column("index per doubling", right=True, keep=2),
        Column("front"),
    )
    lines = []
    for name in order:
        attention, its_grade = origins.get(name, (name, ""))
        if kept(attention, its_grade, grade):
            lines.append(_line(name, attention, found, points.get(name), pays))
    at = f" at length {found.length:,}" if found.length else ""
    notes = [f"{name}: {status}{at}" for name, status in sorted(found.ended.items())]
    if not points:
        notes.append("no quality results in this choice: the front needs both")
    notes.append(
        "dominated: probability that another entry is at least as good and at most as dear; front: "
        "not dominated in most draws. index per doubling: index over |log2| of the cost to "
        "softmax's."
    )
    if pays:
        notes.append(f"pays: length from which on it costs less than {BASELINE}")
    return Sheet(
        f"{pattern}, {axis.title}{at} ({scale}, {device})",
        columns,
        tuple(lines),
        {"pattern": pattern, "scale": scale, "device": device, "axis": axis.id,
         "length": found.length},
        tuple(notes),
    )  # fmt: skip


def _line(
    name: str,
    attention: str,
    found: Costs,
    point: ParetoPoint | None,
    pays: Mapping[str, Crossover],
) -> Line:
    cost, unit = found.by_entry[name], found.axis.unit
    base = found.by_entry.get(BASELINE)
    ratio = cost.value / base.value if base and base.value > 0 else math.nan
    crossing = pays.get(name)
    shown = [
        name,
        amount(cost.value, unit),
        amount_range(cost, unit),
        f"{ratio:.2f}x" if math.isfinite(ratio) else "-",
        *([crossing.words() if crossing else "-"] if pays else []),
        signed(point.quality.value) if point else "-",
        f"{100 * point.dominated:.0f} %" if point else "-",
        signed(point.per_cost) if point else "-",
        ("yes" if point.on_front else "") if point else "-",
    ]
    data: dict[str, Value] = {
        "entry": name,
        "attention": attention,
        **interval_data("cost", cost),
        "unit": unit,
        "relative_cost": number(ratio),
        "pays_from": number(crossing.length) if crossing else None,
        "pays_from_low": number(crossing.low) if crossing else None,
        "pays_from_high": number(crossing.high) if crossing else None,
        "reached": crossing.reached if crossing else None,
        "index": number(point.quality.value) if point else None,
        "dominated": point.dominated if point else None,
        "index_per_doubling": number(point.per_cost) if point else None,
        "front": point.on_front if point else None,
    }
    return Line(tuple(shown), data)


def crossovers(
    results: Results,
    pattern: str,
    scale: str,
    device: str,
    axis: CostAxis,
    baseline: str = BASELINE,
) -> dict[str, Crossover]:
    """By entry, for axes that are measured by length: latency and memory."""
    quantity = _QUANTITIES.get(axis.metrics[0]) if axis.metrics and axis.phase else None
    if quantity is None:
        return {}
    points = [p for p in cost_points(results, pattern, scale, device) if p.phase == axis.phase]
    base = {p.length: quantity(p) for p in points if p.entry == baseline}
    found = {}
    for entry in sorted({p.entry for p in points} - {baseline}):
        ratios = {}
        for p in points:
            if p.entry == entry and p.length in base:
                # Latencies were timed in turns with softmax: their own ratios are sharper.
                in_turns = axis.metrics[0] == "latency" and baseline == BASELINE
                paired = p.latency_ratio if in_turns else None
                ratios[p.length] = (
                    paired if paired and paired.n else ratio_of(quantity(p), base[p.length])
                )
        crossing = crossover(ratios, baseline)
        if crossing is not None:
            found[entry] = crossing
    return found


_QUANTITIES: Mapping[str, Callable[[CostPoint], Interval]] = {
    "latency": lambda point: point.latency,
    "peak_memory": lambda point: point.memory,
}


def _origins(results: Results, board: QualityBoard) -> dict[str, tuple[str, str]]:
    rows = results.rows[["entry", "attention", "grade"]].drop_duplicates("entry")
    found = {str(e): (str(a), str(g)) for e, a, g in rows.itertuples(index=False)}
    return found | {s.entry: (s.attention, s.grade) for s in board.standings}
