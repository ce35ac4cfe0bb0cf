"""Cells of ``cab bench``: the cost of chosen entries at chosen sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cab.cell import Cell
from cab.errors import UsageError
from cab.registries import ATTENTIONS
from runners.efficiency.calls import PHASES
from runners.efficiency.settings import EfficiencySettings, dtype_name
from runners.planner import Request, make_plan

BASELINES = ("softmax", "softmax-exact")
"""Timed in turns with every candidate, so that lengths from which it pays have a name to them."""
MEASURES = ("latency", "memory", "energy")


@dataclass(frozen=True)
class BenchPlan:
    """Cells, and what was asked for but cannot be had."""

    cells: list[Cell]
    candidates: list[str]
    notes: list[str]


def bench_plan(
    attentions: Sequence[str],
    patterns: Sequence[str],
    settings: EfficiencySettings,
    *,
    processes: int,
    device: str,
    machine: str,
    options: Mapping[str, str],
    preset: str = "",
) -> BenchPlan:
    """One cell for each candidate, pattern and process.

    Raises:
        UsageError and its kinds: as for ``cab run``; or nothing is left to measure.
    """
    request = Request(
        attentions=attentions,
        patterns=patterns,
        seeds=processes,
        device=device,
        measures=("latency", "memory"),
        options=options,
        preset=preset,
    )
    plan = make_plan(request, machine)
    notes = list(plan.notes)
    cells = []
    for cell in plan.cells:
        if cell.attention not in plan.candidates:
            continue
        phases = settings.phases
        if "decode" in phases and not _decodes(cell):
            phases = tuple(p for p in phases if p != "decode")
            if cell.seed == 0:
                notes.append(f"{cell.attention} does not decode on {cell.pattern}: left out")
        if phases:
            own = replace(settings, phases=phases).to_mapping()
            cells.append(replace(cell, settings=own, scale=label(settings), measures=MEASURES))
    if not cells:
        raise UsageError("nothing is left to measure: no candidate decodes on these patterns")
    return BenchPlan(cells, plan.candidates, notes)


def label(settings: EfficiencySettings) -> str:
    """The track of a geometry: results of different ones never share a table."""
    s = settings
    words = f"B{s.batch} H{s.heads} D{s.head_dim} {dtype_name(s.dtype)}"
    return words if s.source_length is None else f"{words} S{s.source_length}"


def phases_of(words: Sequence[str]) -> tuple[str, ...]:
    """Phases in their order.

    Raises:
        UsageError: there is no such phase.
    """
    asked = [phase for word in words for phase in word.replace("|", ",").split(",") if phase]
    for phase in asked:
        if phase not in PHASES:
            raise UsageError(f"unknown phase {phase!r}; choose from {', '.join(PHASES)}")
    return tuple(phase for phase in PHASES if phase in asked or not asked)


def _decodes(cell: Cell) -> bool:
    from cab.patterns import Pattern

    if not Pattern.parse(cell.pattern).causal:
        return False
    return ATTENTIONS.load(ATTENTIONS.resolve(cell.target)).decodes()
