"""At the end of a run: what others disturbed is measured again while the machine is quieter."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from cab.cell import Cell
from cab.store import ResultStore
from runners.efficiency.neighbours import NOISY_CORES, Neighbours
from runners.executors.events import Event, Executor
from runners.points import disturbed_points
from runners.session import store_ends
from runners.stored import rows_of_cells

TRIES = 2
"""How often a disturbed point is measured again"""
_LOOK_SECONDS = 0.5
_WAIT_SECONDS = 10.0
"""How long a quieter machine is waited for before each try"""


@dataclass(frozen=True)
class Again:
    """How many points were disturbed, before and after."""

    before: int
    after: int


def disturbed_cells(cells: Collection[Cell], store: ResultStore) -> list[Cell]:
    """Cells with stored points that others disturbed, narrowed down to these.

    Raises:
        StoreError: the store cannot be read.
    """
    costs = {cell.key: cell for cell in cells if cell.kind == "efficiency"}
    rows = rows_of_cells(store, costs.keys())
    found = [replace(costs[key], only=disturbed_points(own)) for key, own in rows.items()]
    return [cell for cell in found if cell.only]


def measure_again(
    cells: Sequence[Cell],
    store: ResultStore,
    executor: Executor,
    on_event: Callable[[Event], None],
    seconds: float,
    is_quiet: Callable[[float], bool] | None = None,
) -> Again:
    """Measure disturbed points again, and keep of each the better measurement.

    Args:
        cells: as `disturbed_cells` gives them.
        store: that has their rows.
        executor: runs them.
        on_event: is told of it.
        seconds: after which no cell is begun any more.
        is_quiet: waits for a quiet machine for so many seconds at most and says whether it is;
            None: `wait_for_quiet`. What a busy one would measure is not worth its time.

    Raises:
        StoreError: the store cannot be read or written.
    """
    wait = is_quiet or wait_for_quiet
    deadline = time.monotonic() + seconds
    before, left = _count(cells), list(cells)
    for _ in range(TRIES):
        for cell in left:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not wait(min(_WAIT_SECONDS, remaining)):
                return Again(before, _count(disturbed_cells(cells, store)))
            executor.run([cell], store_ends(store, on_event, [cell.key]))
        left = disturbed_cells(cells, store)
    return Again(before, _count(left))


def wait_for_quiet(seconds: float) -> bool:
    """Whether others leave the machine alone within so many seconds; a system that does not say
    what others do is taken to be quiet.
    """
    deadline = time.monotonic() + seconds
    while True:
        neighbours = Neighbours()
        time.sleep(_LOOK_SECONDS)
        busy = neighbours.cores()
        if busy is None or busy <= NOISY_CORES:
            return True
        if time.monotonic() >= deadline:
            return False


def _count(cells: Collection[Cell]) -> int:
    return sum(len(cell.only) for cell in cells)
