"""The planner: crosses candidates, patterns, tasks and seeds into cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cab.cell import Cell
from cab.controls import BASELINE, COSTS, QUALITY
from cab.errors import UsageError
from cab.patterns import Pattern
from cab.request import Lineup, Request, resolve_request
from runners.cells import CellFactory
from runners.hybrid_layers import placements


@dataclass(frozen=True)
class Plan:
    """Cells to have, and what was asked for but does not exist."""

    cells: list[Cell]
    candidates: list[str]
    patterns: list[Pattern]
    """Patterns that have cells"""
    notes: list[str]

    def without(self, attentions: set[str]) -> Plan:
        """The plan with some candidates left out."""
        return replace(
            self,
            cells=[cell for cell in self.cells if cell.attention not in attentions],
            candidates=[name for name in self.candidates if name not in attentions],
        )

    def without_patterns(self, pairs: set[tuple[str, str]]) -> Plan:
        """The plan with some candidates left out on some patterns, ``(attention, pattern)``, and
        with no pattern that has no candidate any more.
        """
        cells = [cell for cell in self.cells if (cell.attention, cell.pattern) not in pairs]
        served = {cell.pattern for cell in cells if cell.attention in self.candidates}
        return replace(
            self,
            cells=[cell for cell in cells if cell.pattern in served],
            patterns=[pattern for pattern in self.patterns if pattern.value in served],
        )


def make_plan(request: Request, machine: str) -> Plan:
    """All cells of a request, controls included, in the order in which they should run.

    Raises:
        UsageError and its kinds: as `cab.request.resolve_request`; or no task has the patterns, or
            the layers that a hybrid takes.
        DataError: ``data_dir`` lacks files of a task.
    """
    lineup = resolve_request(request)
    make = CellFactory(lineup.device, machine, lineup.hashes, lineup.baseline)
    notes = list(lineup.notes)
    cells: list[Cell] = []
    for pattern in lineup.patterns:
        # Candidates come first: they tend to take longest, and a long cell at the end would leave
        # the other workers idle.
        beside = [c for c in (*lineup.candidates, *lineup.controls) if c.grade(pattern) is not None]
        served = [task for task in lineup.tasks if task.serves(pattern)]
        notes += [
            f"task {task.id} has no {pattern} slots: left out"
            for task in lineup.tasks
            if task.named and task not in served
        ]
        if QUALITY in lineup.measures:
            placed = placements(lineup.candidates, served, pattern, lineup.scale, lineup.baseline)
            notes += placed.notes
            served = [task for task in served if placed.wanted(task)]
            # Seed by seed across attentions: what an interrupted run leaves can be compared.
            cells += [
                make.quality(candidate, pattern, task, lineup.scale, seed)
                for seed in range(lineup.seeds)
                for task in served
                for candidate in beside
                if placed.allow(candidate, task)
            ]
        measures = tuple(m for m in COSTS if m in lineup.measures)
        if measures:
            names = {BASELINE, *(candidate.id for candidate in lineup.candidates)}
            # Training costs nothing in a call: what differs in it alone is one.
            calls = {(c.id, *c.options.items()): c for c in beside if c.id in names and not c.parts}
            timed = calls.values()
            cells += [
                make.efficiency(candidate, pattern, lineup.scale, seed, measures)
                for seed in range(lineup.seeds)
                for candidate in timed
            ]
    notes += _cost_notes(lineup)
    lineup.hashes.save()
    _require_hybrids(lineup, cells)
    if QUALITY in lineup.measures and not any(cell.kind == QUALITY for cell in cells):
        listed = ", ".join(task.id for task in lineup.tasks)
        raise UsageError(
            f"no task of {listed} has slots of {', '.join(request.patterns)}; see `cab list tasks`"
        )
    reached = {cell.pattern for cell in cells}
    shown = [pattern for pattern in lineup.patterns if pattern.value in reached]
    return Plan(cells, [candidate.id for candidate in lineup.candidates], shown, notes)


def _cost_notes(lineup: Lineup) -> list[str]:
    """Why hybrids have no cells of cost: a slot of one is a slot of one of its parts."""
    if not set(COSTS) & set(lineup.measures):
        return []
    return [
        f"no costs of {candidate.id}: a layer of it costs what its part costs, which is measured "
        f"of {', '.join(dict.fromkeys(part.name for part in candidate.parts))}"
        for candidate in lineup.candidates
        if candidate.parts
    ]


def _require_hybrids(lineup: Lineup, cells: Sequence[Cell]) -> None:
    """Refuse hybrids of which nothing would be measured.

    Raises:
        UsageError: there is one; says why.
    """
    planned = {cell.attention for cell in cells}
    for candidate in lineup.candidates:
        if not candidate.parts or candidate.id in planned:
            continue
        if QUALITY not in lineup.measures:
            raise UsageError(_cost_notes(lineup)[0])
        if not any(task.serves(pattern) for task in lineup.tasks for pattern in lineup.patterns):
            return  # which says more than that the layers are too few
        tasks, slots = ", ".join(task.id for task in lineup.tasks), ", ".join(lineup.patterns)
        raise UsageError(
            f"no task of {tasks} has, at scale {lineup.scale}, a layer of {slots} slots for every "
            f"part of {candidate.id}"
        )
