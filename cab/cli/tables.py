"""Scores and costs as terminal tables, for ``cab run``; numbers as words."""

from __future__ import annotations

import math
from collections.abc import Collection

from rich.table import Table

from cab.cli.console import table
from cab.info import TaskInfo
from cab.registries import TASKS
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import QualityBoard, quality_board, scores
from cab.scoring.reference_lines import reference_lines
from cab.scoring.results import Results


def headline_metrics() -> dict[str, list[str]]:
    """Names of the headline metrics of every registered task."""
    return {info.id: [m.name for m in info.metrics if m.headline] for info in TASKS.infos()}


def board(
    results: Results, pattern: str, scale: str, device: str, tasks: Collection[str] = ()
) -> QualityBoard:
    """Standings by the registered tasks' headline metrics, over some tasks or (none named) all
    but probes.
    """
    probes = [info.id for info in TASKS.infos() if info.probe]
    return quality_board(results, pattern, scale, device, headline_metrics(), tasks, probes)


def score_table(
    results: Results, pattern: str, scale: str, device: str, entries: list[str]
) -> Table | None:
    """Test scores, a row per task and metric, a column per entry: mean ± half the interval."""
    rows = scores(results, pattern, scale, device)
    rows = rows[rows["entry"].isin(entries)]
    if rows.empty:
        return None
    shown = table("metric", *entries, right=tuple(entries))
    infos = {info.id: info for info in TASKS.infos()}
    for task in sorted(rows["task"].unique()):
        shown.add_row(f"[bold]{task}[/bold]")
        part = rows[rows["task"] == task]
        references = reference_lines(results, pattern, scale, device, str(task))
        for metric in _metric_order(infos.get(task), list(part["metric"].unique())):
            cells = part[part["metric"] == metric]
            higher = bool(cells["higher_is_better"].iloc[0])
            values = [
                mean_interval(cells[cells["entry"] == entry]["value"].to_numpy(float))
                for entry in entries
            ]
            best = _best(values, higher)
            marked = (
                f"[bold]{plus_minus(v)}[/bold]" if i == best else plus_minus(v)
                for i, v in enumerate(values)
            )
            shown.add_row(f"  {metric} {'↑' if higher else '↓'}", *marked)
            for line in references:
                if line.metric == metric:
                    shown.add_row(f"[dim]    {line.name}: {plus_minus(line.value)}[/dim]")
    return shown


def cost_table(
    results: Results, pattern: str, scale: str, device: str, entries: list[str]
) -> Table | None:
    """Latency, ratio to softmax and peak memory by length, for both phases."""
    points = [p for p in cost_points(results, pattern, scale, device) if p.entry in entries]
    if not points:
        return None
    first = points[0]
    columns = []
    for entry in entries:
        columns += [entry, "memory"] if entry == "softmax" else [entry, "ratio", "memory"]
    shown = table(
        "length",
        "phase",
        *columns,
        title=f"\nCost (batch {first.batch}, {first.heads} heads of {first.head_dim}, "
        f"{first.dtype}, {device})",
        right=("length", *columns),
    )
    by_place = {(p.entry, p.phase, p.length): p for p in points}
    for length in sorted({p.length for p in points}):
        label = str(length)
        for phase, name in (("forward", "fwd"), ("forward_backward", "fwd+bwd")):
            cells = []
            for entry in entries:
                point = by_place.get((entry, phase, length))
                cells.append(_time(point))
                cells += [] if entry == "softmax" else [_ratio(point)]
                cells.append(_memory(point))
            shown.add_row(label, name, *cells)
            label = ""
    return shown


def plus_minus(interval: Interval) -> str:
    """``0.712 ± 0.014``, or the bare mean where there is one replicate."""
    if not math.isfinite(interval.value):
        return "-"
    if not interval.known:
        return significant(interval.value)
    half = (interval.high - interval.low) / 2
    digits = 3 if half == 0 else min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{interval.value:.{digits}f} ± {half:.{digits}f}"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def duration(seconds: float) -> str:
    """Seconds in a unit that keeps the number between 1 and 1000."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1 or unit == "µs":
            return f"{significant(seconds * factor)} {unit}"
    raise AssertionError("unreachable")


def byte_size(count: float) -> str:
    """Bytes in a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{significant(count) if count else '0'} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def _time(point: CostPoint | None) -> str:
    if point is None:
        return "-"
    if point.latency.n:
        return duration(point.latency.value)
    return point.status if point.status != "ok" else "-"


def _ratio(point: CostPoint | None) -> str:
    if point is None or not point.latency_ratio.n:
        return "-"
    ratio = point.latency_ratio
    if not ratio.known:
        return f"{ratio.value:.2f}x"
    return f"{ratio.value:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"


def _memory(point: CostPoint | None) -> str:
    if point is None or not point.memory.n:
        return "-"
    return byte_size(point.memory.value)


def _metric_order(info: TaskInfo | None, present: list[str]) -> list[str]:
    if info is None:
        return sorted(present)
    return [metric.name for metric in info.metrics if metric.name in present]


def _best(values: list[Interval], higher: bool) -> int | None:
    """The entry that is better than every other beyond the intervals, if there is one."""
    finite = [i for i, v in enumerate(values) if math.isfinite(v.value)]
    if len(finite) < 2:
        return None
    best = (max if higher else min)(finite, key=lambda i: values[i].value)
    separated = all(not values[best].overlaps(values[i]) for i in finite if i != best)
    return best if separated else None
