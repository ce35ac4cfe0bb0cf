"""The report's plots: standings with what is distinguishable, Pareto fronts, cost by length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cab.report.svg import COLOURS, GREY, Axis, Drawing, spread
from cab.scoring.correlation import Correlation
from cab.scoring.cost import CostAxis
from cab.scoring.intervals import Interval
from cab.scoring.pareto import ParetoPoint
from cab.scoring.quality import QualityBoard, Standing
from cab.scoring.ranks import significant_pairs
from cab.sheets.words import amount, amount_range, bounds, signed

_ROW = 24.0
_LABELS = 170.0
_TOP = 44.0


def colours(entries: Sequence[str], controls: set[str]) -> dict[str, str]:
    """A colour for every entry, the same in all plots; controls are grey."""
    others = [name for name in sorted(entries) if name not in controls]
    found = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(others)}
    return found | {name: GREY for name in entries if name in controls}


def standings_plot(board: QualityBoard, colour: Mapping[str, str]) -> str:
    """Indices with both intervals; bars at the right join entries that are not distinguishable.

    This is a critical-difference picture with the index in place of mean ranks: entries under one
    bar differ in no pair beyond 5 %, all pairs corrected together (Holm).
    """
    ranked = [s for s in board.standings if s.rank is not None]
    if not ranked or board.pairs is None:
        return ""
    bars = board.groups(significant_pairs(board.pairs))
    width = 640.0 + 12 * len(bars)
    drawing = Drawing(width, _TOP + _ROW * len(ranked) + 30, "Index and what is distinguishable")
    low, high = _range_of_indices(ranked)
    axis = Axis(low, high, _LABELS + 10, 620.0)
    bottom = _TOP + _ROW * len(ranked)
    for tick in axis.ticks():
        x = axis.place(tick)
        drawing.line(x, _TOP - 8, x, bottom, opacity=0.6 if tick == 0 else 0.15)
        drawing.text(x, bottom + 16, _short(tick), "middle", 11)
    drawing.text(axis.place(low), 14, "index: log-ratio to softmax, right is better", size=11)
    for n, s in enumerate(ranked):
        y = _TOP + _ROW * (n + 0.5)
        tint = colour.get(s.entry, GREY)
        label = f"{s.separation.mark}{s.rank}  {s.entry}"
        drawing.text(_LABELS, y + 4, _cut(label), "end")
        general = f"{s.entry}: {signed(s.index.value)}, 95 % interval {bounds(s.index)}"
        here = f"on these tasks {bounds(s.here)}"
        if s.index.known:
            x1, x2 = axis.place(s.index.low), axis.place(s.index.high)
            drawing.line(x1, y, x2, y, tint, 1.5, tip=general)
            for end, beyond in ((x1, s.index.low < low), (x2, s.index.high > high)):
                if beyond:
                    side = -1 if end == x1 else 1
                    drawing.path([(end - 5 * side, y - 4), (end, y), (end - 5 * side, y + 4)],
                                 tint, 1.5)  # fmt: skip
        if s.here.known:
            x1, x2 = axis.place(s.here.low), axis.place(s.here.high)
            drawing.line(x1, y, x2, y, tint, 5, opacity=0.45, tip=here)
        drawing.dot(axis.place(s.index.value), y, tint, tip=f"{general}; {here}")
    order = [s.entry for s in ranked]
    for n, group in enumerate(bars):
        x = 632.0 + 12 * n
        first, last = order.index(group[0]), order.index(group[-1])
        y1, y2 = _TOP + _ROW * (first + 0.2), _TOP + _ROW * (last + 0.8)
        drawing.line(x, y1, x, y2, width=3, tip=f"not distinguishable: {', '.join(group)}")
    if bars:
        drawing.text(width - 4, 14, "bars: not distinguishable", "end", 11)
    return drawing.svg()


def _range_of_indices(ranked: Sequence[Standing]) -> tuple[float, float]:
    """Of points and intervals on these tasks; what is wider ends in an arrow."""
    values = [0.0]
    for s in ranked:
        values.append(s.index.value)
        values += [v for v in (s.here.low, s.here.high) if math.isfinite(v)]
    low, high = min(values), max(values)
    reach = 0.35 * max(high - low, 0.02)
    return low - reach, high + reach


def pareto_plot(
    points: Sequence[ParetoPoint], axis: CostAxis, title: str, colour: Mapping[str, str]
) -> str:
    """Quality over cost; hollow points are dominated in most draws, the line joins the others."""
    priced = [p for p in points if p.cost.value > 0]
    if len(priced) < 2:
        return ""
    width, height = 560.0, 340.0
    drawing = Drawing(width, height, title)
    costs = [v for p in priced for v in (p.cost.low, p.cost.value, p.cost.high)
             if math.isfinite(v) and v > 0]  # fmt: skip
    binary = axis.unit == "B"
    x_axis = Axis(min(costs) / 1.3, max(costs) * 1.3, 60, width - 120, log=True, binary=binary)
    qualities = [p.quality.value for p in priced]
    reach = 0.15 * max(max(qualities) - min(qualities), 0.02)
    y_axis = Axis(min(qualities) - reach, max(qualities) + reach, height - 44, 34)
    for tick in x_axis.ticks():
        x = x_axis.place(tick)
        drawing.line(x, 30, x, height - 44, opacity=0.12)
        drawing.text(x, height - 28, amount(tick, axis.unit), "middle", 11)
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        drawing.line(60, y, width - 120, y, opacity=0.5 if tick == 0 else 0.12)
        drawing.text(54, y + 4, _short(tick), "end", 11)
    drawing.text((width - 60) / 2, height - 8, title, "middle", 12)
    drawing.text(8, 16, "index", size=11)
    best = sorted((p for p in priced if p.on_front), key=lambda p: p.cost.value)
    drawing.path(
        [(x_axis.place(p.cost.value), y_axis.place(p.quality.value)) for p in best], GREY, 1.0
    )
    heights = spread([y_axis.place(p.quality.value) for p in priced], 13, 30, height - 44)
    for p, label in zip(priced, heights, strict=True):
        x, y = x_axis.place(p.cost.value), y_axis.place(p.quality.value)
        tint = colour.get(p.entry, GREY)
        if p.cost.known and p.cost.low > 0:
            drawing.line(x_axis.place(p.cost.low), y, x_axis.place(p.cost.high), y, tint, 1.5)
        tip = (
            f"{p.entry}: index {signed(p.quality.value)}, {amount(p.cost.value, axis.unit)} "
            f"({amount_range(p.cost, axis.unit)}), dominated in {100 * p.dominated:.0f} % of draws"
        )
        drawing.dot(x, y, tint, hollow=not p.on_front, tip=tip)
        drawing.line(x + 5, y, width - 116, label, tint, 0.6, opacity=0.4)
        drawing.text(width - 112, label + 4, _cut(p.entry, 18), size=11, colour=tint)
    return drawing.svg()


def length_plot(
    series: Mapping[str, Mapping[int, Interval]],
    unit: str,
    title: str,
    colour: Mapping[str, str],
) -> str:
    """A cost by length, both logarithmic, with bands of the 95 % intervals."""
    drawn = {
        name: {length: i for length, i in points.items() if i.n and i.value > 0}
        for name, points in series.items()
    }
    drawn = {name: points for name, points in drawn.items() if points}
    lengths = sorted({length for points in drawn.values() for length in points})
    if len(lengths) < 2:
        return ""
    values = [v for points in drawn.values() for i in points.values()
              for v in (i.low, i.value, i.high) if math.isfinite(v) and v > 0]  # fmt: skip
    width, height = 560.0, 340.0
    drawing = Drawing(width, height, title)
    x_axis = Axis(lengths[0], lengths[-1], 70, width - 130, log=True)
    binary = unit == "B"
    y_axis = Axis(min(values) / 1.2, max(values) * 1.2, height - 44, 34, log=True, binary=binary)
    for length in lengths:
        x = x_axis.place(length)
        drawing.line(x, 30, x, height - 44, opacity=0.12)
        drawing.text(x, height - 28, f"{length:,}", "middle", 11)
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        drawing.line(70, y, width - 130, y, opacity=0.12)
        drawing.text(64, y + 4, f"{tick:g}x" if unit == "x" else amount(tick, unit), "end", 11)
    drawing.text((width - 60) / 2, height - 8, f"{title}, by length", "middle", 12)
    if unit == "x":
        drawing.line(70, y_axis.place(1.0), width - 130, y_axis.place(1.0), GREY, 1, "4 3")
    ends = [y_axis.place(points[max(points)].value) for points in drawn.values()]
    labels = spread(ends, 13, 34, height - 44)
    for (name, points), label in zip(drawn.items(), labels, strict=True):
        tint = colour.get(name, GREY)
        known = [(length, i) for length, i in points.items() if i.known and i.low > 0]
        if len(known) > 1:
            upper = [(x_axis.place(n), y_axis.place(i.high)) for n, i in known]
            lower = [(x_axis.place(n), y_axis.place(i.low)) for n, i in reversed(known)]
            drawing.area(upper + lower, tint)
        drawing.path([(x_axis.place(n), y_axis.place(i.value)) for n, i in points.items()], tint)
        last = max(points)
        drawing.line(x_axis.place(last), y_axis.place(points[last].value), width - 126, label,
                     tint, 0.6, opacity=0.5)  # fmt: skip
        drawing.text(width - 122, label + 4, _cut(name, 19), size=11, colour=tint)
    return drawing.svg()


def correlation_plot(names: Sequence[str], found: Sequence[Correlation]) -> str:
    """A triangle of correlations with n; those of fewer than five entries stay empty."""
    if len(names) < 2:
        return ""
    side, left = 50.0, 250.0
    width, height = left + side * (len(names) - 1) + 10, 34.0 + 36.0 * (len(names) - 1) + 8
    drawing = Drawing(width, height, "Rank correlations")
    by_pair = {frozenset((c.first, c.second)): c for c in found}
    for column in range(len(names) - 1):
        drawing.text(left + side * (column + 0.5), 20, str(column + 1), "middle", 11)
    for row, name in enumerate(names):
        y = 30 + 36.0 * (row - 1)
        # The first name has no row of its own: it stands beside its number.
        drawing.text(left - 8, y + 21 if row else 20, f"{row + 1}  {_cut(name, 32)}", "end", 11)
        for column, other in enumerate(names[:row]):
            c = by_pair[frozenset((name, other))]
            x = left + side * column
            tint, opacity = GREY, 0.08
            if not c.refused:
                tint = COLOURS[0] if c.rho.value > 0 else COLOURS[7]
                opacity = 0.12 + 0.5 * abs(c.rho.value)
            tip = (
                f"{name} and {other}: fewer than five entries in common, no statement"
                if c.refused
                else f"{name} and {other}: {c.rho.value:+.2f}, 95 % interval "
                f"{c.rho.low:+.2f} to {c.rho.high:+.2f}, n = {c.n}"
            )
            drawing.box(x + 1, y, side - 2, 34, tint, opacity, tip)
            words = "-" if c.refused else f"{c.rho.value:+.2f}"
            drawing.text(x + side / 2, y + 15, words, "middle", 11)
            drawing.text(x + side / 2, y + 28, f"n {c.n}", "middle", 9)
    return drawing.svg()


def _short(value: float) -> str:
    return f"{value:+.2f}".rstrip("0").rstrip(".") if abs(value) > 1e-9 else "0"


def _cut(words: str, most: int = 26) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
