"""The planner: crosses candidates, patterns, tasks and seeds into cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cab.cell import Cell
from cab.controls import BASELINE, COSTS, QUALITY
from cab.errors import UsageError
from cab.patterns import Pattern
from cab.request import Request, resolve_request
from runners.cells import CellFactory


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
        UsageError and its kinds: as `cab.request.resolve_request`; or no task has the patterns.
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
            # Seed by seed across attentions: what an interrupted run leaves can be compared.
            cells += [
                make.quality(candidate, pattern, task, lineup.scale, seed)
                for seed in range(lineup.seeds)
                for task in served
                for candidate in beside
            ]
        measures = tuple(m for m in COSTS if m in lineup.measures)
        if measures:
            names = {BASELINE, *(candidate.id for candidate in lineup.candidates)}
            # Training costs nothing in a call: what differs in it alone is one.
            timed = {(c.id, *c.options.items()): c for c in beside if c.id in names}.values()
            cells += [
                make.efficiency(candidate, pattern, lineup.scale, seed, measures)
                for seed in range(lineup.seeds)
                for candidate in timed
            ]
    lineup.hashes.save()
    if QUALITY in lineup.measures and not any(cell.kind == QUALITY for cell in cells):
        listed = ", ".join(task.id for task in lineup.tasks)
        raise UsageError(
            f"no task of {listed} has slots of {', '.join(request.patterns)}; see `cab list tasks`"
        )
    reached = {cell.pattern for cell in cells}
    shown = [pattern for pattern in lineup.patterns if pattern.value in reached]
    return Plan(cells, [candidate.id for candidate in lineup.candidates], shown, notes)
