"""A run: what the plan wants and the store lacks is executed, and stored cell by cell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from cab.cell import Cell
from cab.controls import DISTURBED
from cab.regularisers import ADVERSARIAL
from cab.result_sources import ResultSources
from cab.schema import TRIED_AGAIN, Row, Status
from cab.store import ResultStore
from cab.visible import visible
from runners.executors.events import Ended, Event, Executor
from runners.points import disturbed_points, merged, open_points
from runners.rows import ended, identity
from runners.stored import rows_of_cells


@dataclass
class RunResult:
    """How a run went."""

    reused: int
    ended: dict[str, Ended] = field(default_factory=dict)
    """By cell key"""

    def count(self, status: Status) -> int:
        """Cells that ended so in this run."""
        return sum(end.status is status for end in self.ended.values())


def reference_controls(
    cells: list[Cell], candidates: Collection[str], sources: ResultSources
) -> list[Cell]:
    """Cells of controls whose scores come from the reference results.

    A candidate is what the user asks about, so it is always measured, even where the reference
    results have it. Costs are always measured too: a machine of the same name is another machine.
    """
    # Beside candidates that are trained otherwise, the controls of the same name are controls.
    otherwise = {c.attention for c in cells if ADVERSARIAL in c.options}
    asked = [name for name in candidates if name not in otherwise]
    controls = [
        c
        for c in cells
        if c.kind == "quality" and c.attention not in asked and ADVERSARIAL not in c.options
    ]
    taken = sources.from_reference([cell.key for cell in controls])
    return [cell for cell in controls if cell.key in taken]


def missing_cells(
    cells: list[Cell], store: ResultStore, again: Collection[str] = TRIED_AGAIN
) -> list[Cell]:
    """Cells that the store has no final result of.

    Args:
        cells: of a plan.
        store: to look in.
        again: outcomes that are tried again, of a cell or of a part of one; `DISTURBED` among them
            for points that others disturbed.
    """
    finished = store.finished(again)
    if DISTURBED in again:
        costs = [cell.key for cell in cells if cell.kind == "efficiency"]
        rows = rows_of_cells(store, finished.intersection(costs))
        finished -= {key for key, own in rows.items() if disturbed_points(own)}
    return [cell for cell in cells if cell.key not in finished]


def run_cells(
    cells: list[Cell],
    store: ResultStore,
    executor: Executor,
    on_event: Callable[[Event], None],
    again: Collection[str] = TRIED_AGAIN,
) -> RunResult:
    """Run the missing cells; every one is in the store before the next event is handled. Of a cell
    that has been measured in part, the rest is measured.

    Args:
        cells: of a plan.
        store: gets the rows.
        executor: runs them.
        on_event: is told of it.
        again: outcomes that are tried again, as for `missing_cells`.

    Raises:
        StoreError: the store cannot be read or written.
    """
    todo = missing_cells(cells, store, again)
    result = RunResult(reused=len(cells) - len(todo))

    def handle(event: Event) -> None:
        if isinstance(event, Ended):
            result.ended[event.cell.key] = event
        on_event(event)

    costs = [cell.key for cell in todo if cell.kind == "efficiency"]
    rows = rows_of_cells(store, costs)
    narrowed = [
        replace(cell, only=open_points(cell, rows[cell.key], again)) if cell.key in rows else cell
        for cell in todo
    ]
    executor.run(narrowed, store_ends(store, handle, rows.keys()))
    return result


def store_ends(
    store: ResultStore, on_event: Callable[[Event], None], in_part: Collection[str]
) -> Callable[[Event], None]:
    """A handler of one run's events that stores what has ended before it passes it on.

    Args:
        store: gets the rows.
        on_event: is told of it.
        in_part: keys of cells of cost that have rows already: of each point the better one is kept.
    """
    run_id = uuid.uuid4().hex[:12]

    def handle(event: Event) -> None:
        if isinstance(event, Ended):
            if event.artifacts and event.status is not Status.INVALID:
                store.attach(event.cell.key, event.artifacts)
            rows = rows_of(event)
            if event.cell.key in in_part and event.status is not Status.INVALID:
                before = rows_of_cells(store, [event.cell.key])
                rows = merged(before.get(event.cell.key, []), rows)
            store.append([_attributed(row, event, store, run_id) for row in rows])
        on_event(event)

    return handle


def rows_of(end: Ended) -> list[Row]:
    """Everything a cell measured, and a row for its end where that was not ``ok``; of an invalid
    one its end alone.
    """
    if end.status is Status.OK and end.rows:
        return end.rows
    if end.status is Status.INVALID:
        return [ended(identity(end.cell), end.status, visible(end.message))]
    status = Status.ERROR if end.status is Status.OK else end.status
    message = visible(end.message) or "the cell ended without a row"
    return [*end.rows, ended(identity(end.cell), status, message)]


def _attributed(row: Row, end: Ended, store: ResultStore, run_id: str) -> Row:
    """The row with who measured it and whose number it is: the parent knows the cell that it
    started and the folder that it fills, and a worker runs the candidate's code.
    """
    known = {name: getattr(identity(end.cell), name) for name in _OF_CELL}
    return replace(row, run_id=run_id, label=store.label.value, **known)


_OF_CELL = (
    "cell", "kind", "attention", "grade", "attention_options", "attention_hash", "pattern", "task",
    "task_hash", "data_hash", "scale", "seed", "device", "suite_version",
)  # fmt: skip
