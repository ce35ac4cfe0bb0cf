"""From which length every entry of a track pays, on one axis of cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cab.controls import BASELINE
from cab.cost_metrics import LATENCY, PEAK_MEMORY
from cab.scoring.cost import CostAxis
from cab.scoring.crossover import Crossover, crossover, ratio_of
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.intervals import Interval
from cab.scoring.results import Results
from cab.track import Track


def crossovers(
    results: Results, track: Track, axis: CostAxis, baseline: str = BASELINE
) -> dict[str, Crossover]:
    """By entry, for axes that are measured by length: latency and memory."""
    quantity = _QUANTITIES.get(axis.metrics[0]) if axis.metrics and axis.phase else None
    if quantity is None:
        return {}
    points = [p for p in cost_points(results, track) if p.phase == axis.phase]
    base = {p.length: quantity(p) for p in points if p.entry == baseline}
    found = {}
    for entry in sorted({p.entry for p in points} - {baseline}):
        ratios = {}
        for p in points:
            if p.entry != entry:
                continue
            # Latencies were timed in turns with the baseline: their own ratios are sharper, and
            # there where it has no cells of its own.
            in_turns = axis.metrics[0] == LATENCY and p.beside == baseline
            if in_turns and p.latency_ratio.n:
                ratios[p.length] = p.latency_ratio
            elif p.length in base:
                ratios[p.length] = ratio_of(quantity(p), base[p.length])
        crossing = crossover(ratios, baseline)
        if crossing is not None:
            found[entry] = crossing
    return found


_QUANTITIES: Mapping[str, Callable[[CostPoint], Interval]] = {
    LATENCY: lambda point: point.latency,
    PEAK_MEMORY: lambda point: point.memory,
}
