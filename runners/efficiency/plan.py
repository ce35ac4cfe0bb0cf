"""Cells of ``cab bench``: the cost of chosen entries at chosen sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from cab.candidate import Candidate, candidate_of
from cab.cell import Cell
from cab.controls import BASELINE, BENCH_MEASURES
from cab.errors import UsageError
from cab.kernel_names import COMPILED, of_kernel
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.request import Request, resolve_request
from runners.cells import CellFactory
from runners.efficiency.calls import PHASES
from runners.efficiency.settings import EfficiencySettings, dtype_name
from runners.planner import Plan


def bench_plan(
    request: Request,
    sweep: Sequence[EfficiencySettings],
    machine: str,
    baseline: str = BASELINE,
    compiled: bool = False,
) -> BenchPlan:
    """One cell for each candidate, pattern, process and geometry; the baseline is timed in its
    turns.

    Args:
        request: whose seeds are processes.
        sweep: sizes and budgets, one for each geometry.
        machine: processor and threads.
        baseline: an id, a kernel of torch's (`cab.kernel_names`), ``file.py:Class`` or
            ``module:Class``.
        compiled: whether each candidate is measured a second time, as `torch.compile` makes it.

    Raises:
        UsageError and its kinds: as `cab.request.resolve_request`, of the baseline too; or nothing
            is left to measure.
    """
    names = [of_kernel(name) for name in request.attentions]
    lineup = resolve_request(replace(request, attentions=names))
    beside = candidate_of(ATTENTIONS.resolve(of_kernel(baseline)), hashes=lineup.hashes)
    for candidate in (*lineup.candidates, beside):
        if candidate.parts:
            alone = ", ".join(dict.fromkeys(part.name for part in candidate.parts))
            raise UsageError(
                f"{candidate.id} is a different attention in each layer, and a cost is of one: "
                f"measure its parts, {alone}"
            )
    for pattern in lineup.patterns:
        beside.require(pattern)
    make = CellFactory(lineup.device, machine, lineup.hashes, beside)
    notes = list(lineup.notes)
    cells: list[Cell] = []
    for pattern, candidate in product(lineup.patterns, lineup.candidates):
        if candidate.grade(pattern) is None:
            continue
        variants = [v for v in (False, True) if compiled or not v]
        for settings, variant, seed in product(sweep, variants, range(lineup.seeds)):
            phases = _phases(candidate, pattern, settings.phases, variant)
            if not phases:
                continue
            cell = make.efficiency(candidate, pattern, lineup.scale, seed, BENCH_MEASURES)
            own = replace(
                settings,
                phases=phases,
                baselines=(_name_beside(beside, candidate),),
                compiled=variant,
            )
            name = f"{candidate.id}{COMPILED}" if variant else candidate.id
            cells.append(
                replace(cell, attention=name, settings=own.to_mapping(), scale=label(settings))
            )
        notes += _left_out(candidate, pattern, sweep[0].phases, compiled)
    lineup.hashes.save()
    if not cells:
        raise UsageError("nothing is left to measure: no candidate decodes on these patterns")
    cells.sort(key=lambda cell: cell.seed)  # so that an interrupted sweep has every candidate
    reached = {cell.pattern for cell in cells}
    shown = [pattern for pattern in lineup.patterns if pattern.value in reached]
    held = {
        pattern: replace(
            next(cell for cell in cells if cell.pattern == pattern.value),
            attention=beside.id,
            target=beside.target,
            options=beside.options,
            attention_hash=beside.hash("efficiency"),
        )
        for pattern in shown
    }
    plan = Plan(cells, list(dict.fromkeys(cell.attention for cell in cells)), shown, notes)
    return BenchPlan(plan, list(held.values()), beside)


@dataclass(frozen=True)
class BenchPlan:
    """What is to be measured, and beside what."""

    plan: Plan
    beside: Sequence[Cell]
    """The baseline as if it were a candidate, one for each pattern: for who holds it to the
    contract"""
    baseline: Candidate

    @property
    def cells(self) -> list[Cell]:
        """Of the plan."""
        return self.plan.cells


def _name_beside(baseline: Candidate, candidate: Candidate) -> str:
    """Two versions of a class may bear one name; numbers of both stand in one row."""
    same = baseline.id == candidate.id and baseline.target != candidate.target
    return f"{baseline.id}-baseline" if same else baseline.id


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


def _phases(
    candidate: Candidate, pattern: Pattern, asked: Sequence[str], compiled: bool
) -> tuple[str, ...]:
    """Those asked for, but decoding where the candidate does not decode, or is compiled: a step is
    a method of its own that `torch.compile` of the module leaves as it is.
    """
    decodes = not compiled and pattern.causal and "decode" in asked and candidate.load().decodes()
    return tuple(phase for phase in asked if phase != "decode" or decodes)


def _left_out(
    candidate: Candidate, pattern: Pattern, asked: Sequence[str], compiled: bool
) -> list[str]:
    if "decode" not in asked:
        return []
    if "decode" not in _phases(candidate, pattern, asked, compiled=False):
        return [f"{candidate.id} does not decode on {pattern}: left out"]
    return [f"{candidate.id}{COMPILED}: decoding is not compiled, left out"] if compiled else []
