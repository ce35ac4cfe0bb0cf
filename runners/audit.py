"""Auditing stored results: cells drawn at random are measured again in full and compared."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cab.cell import Cell
from cab.errors import CabError
from cab.schema import Row
from cab.scoring.intervals import mean_interval
from cab.store import ResultStore
from runners.executors.events import Ended, Event, Executor
from runners.stored import StoredCell, Today, quality_cells

EQUAL, WITHIN, DIFFERS = "equal", "within its seeds", "differs"


@dataclass(frozen=True)
class Finding:
    """One metric of one cell, as it is stored and as it came out again."""

    cell: StoredCell
    metric: str
    stored: float
    again: float
    verdict: str


@dataclass
class Audit:
    """What was measured again."""

    findings: list[Finding] = field(default_factory=list)
    failed: list[Ended] = field(default_factory=list)
    """Cells that did not end well this time"""

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.failed and all(f.verdict != DIFFERS for f in self.findings)


def drawn_cells(
    store: ResultStore, device: str, count: int, seed: int
) -> list[tuple[StoredCell, Cell]]:
    """Stored cells of today's code, drawn at random.

    Raises:
        CabError: the store has none.
    """
    today_of = Today(device)
    found = []
    for stored in quality_cells(store):
        if stored.first.device != device:
            continue
        try:
            today = today_of.cell(stored)
        except CabError:
            continue
        if today.key == stored.key:
            found.append((stored, today))
    today_of.save()
    if not found:
        raise CabError(
            f"{store.root} has no quality cell of today's code on {device}; `cab results carry` "
            "brings older ones up to date where their behaviour is the same"
        )
    order = random.Random(seed)
    return order.sample(found, min(count, len(found)))


def audit(
    chosen: Sequence[tuple[StoredCell, Cell]],
    everything: Sequence[StoredCell],
    executor: Executor,
    on_event: Callable[[Event], None],
) -> Audit:
    """Measure cells again; nothing is stored.

    Args:
        chosen: stored cells with today's.
        everything: all stored cells, for the spread over seeds.
        executor: one that measures.
        on_event: hears of every cell.
    """
    result = Audit()
    stored = {today.key: cell for cell, today in chosen}

    def handle(event: Event) -> None:
        if isinstance(event, Ended):
            old = stored[event.cell.key]
            if event.status.value != "ok":
                result.failed.append(event)
            else:
                result.findings += _compare(old, event.rows, everything)
        on_event(event)

    executor.run([today for _, today in chosen], handle)
    return result


def _compare(
    old: StoredCell, rows: Sequence[Row], everything: Sequence[StoredCell]
) -> list[Finding]:
    again = _scores(rows)
    found = []
    for metric, value in _scores(old.rows).items():
        new = again.get(metric, math.nan)
        if new == value:
            verdict = EQUAL
        else:
            seeds = [
                _scores(cell.rows).get(metric, math.nan)
                for cell in everything
                if _but_seed(cell) == _but_seed(old)
            ]
            interval = mean_interval(np.array(seeds, dtype=float))
            inside = interval.known and interval.low <= new <= interval.high
            verdict = WITHIN if inside else DIFFERS
        found.append(Finding(old, metric, value, new, verdict))
    return found


def _scores(rows: Sequence[Row]) -> dict[str, float]:
    return {row.metric: row.value for row in rows if row.phase == "eval" and row.value is not None}


def _but_seed(cell: StoredCell) -> tuple[object, ...]:
    row = cell.first
    return (row.attention, row.attention_options, row.pattern, row.task, row.scale, row.device,
            row.attention_hash, row.task_hash)  # fmt: skip
