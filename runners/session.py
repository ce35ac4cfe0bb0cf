"""A run: what the plan wants and the store lacks is executed, and stored cell by cell."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cab.cell import Cell
from cab.schema import Row, Status
from cab.store import ResultStore
from runners.executors.events import Ended, Event, Executor
from runners.rows import ended, identity


@dataclass
class RunResult:
    """How a run went."""

    reused: int
    ended: dict[str, Ended] = field(default_factory=dict)
    """By cell key"""

    def count(self, status: Status) -> int:
        """Cells that ended so in this run."""
        return sum(end.status is status for end in self.ended.values())


def missing_cells(cells: list[Cell], store: ResultStore) -> list[Cell]:
    """Cells that the store has no final result of."""
    finished = store.finished()
    return [cell for cell in cells if cell.key not in finished]


def run_cells(
    cells: list[Cell], store: ResultStore, executor: Executor, on_event: Callable[[Event], None]
) -> RunResult:
    """Run the missing cells; every one is in the store before the next event is handled.

    Raises:
        StoreError: the store cannot be read or written.
    """
    todo = missing_cells(cells, store)
    result = RunResult(reused=len(cells) - len(todo))
    run_id = uuid.uuid4().hex[:12]

    def handle(event: Event) -> None:
        if isinstance(event, Ended):
            if event.artifacts:
                store.attach(event.cell.key, event.artifacts)
            store.append([replace(row, run_id=run_id) for row in rows_of(event)])
            result.ended[event.cell.key] = event
        on_event(event)

    executor.run(todo, handle)
    return result


def rows_of(end: Ended) -> list[Row]:
    """Everything a cell measured, and a row for its end where that was not ``ok``."""
    if end.status is Status.OK and end.rows:
        return end.rows
    status = Status.ERROR if end.status is Status.OK else end.status
    message = end.message or "the cell ended without a row"
    return [*end.rows, ended(identity(end.cell), status, message)]
