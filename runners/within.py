"""As many cells as a time budget holds: of every task the first seed, then the next ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby

from cab.cell import Cell

NOMINAL_SECONDS = 30.0
"""Of a cell like none that is known"""

Run = Callable[[Sequence[Cell]], object]
Expect = Callable[[Cell], float | None]


def run_within(
    cells: Sequence[Cell],
    seconds: float,
    width: int,
    expected: Expect,
    run: Run,
    clock: Callable[[], float] = time.monotonic,
) -> list[Cell]:
    """Run cells while there is time for them; gives those that were left out.

    Seed by seed, the scores of a seed before its costs, so that what the budget cuts off are
    repetitions. A cell is begun where it is expected to end in time: by what such cells took
    before, and by how much longer or shorter those of this run took than was expected of them.

    Args:
        cells: to run.
        seconds: from now on.
        width: quality cells at a time; the others run alone.
        expected: seconds of a cell where they are known.
        run: runs some cells, all of a kind, to their end.
        clock: of seconds.
    """
    deadline = clock() + seconds
    waiting, pace, left = stages(cells), 1.0, []
    for stage in waiting:
        todo = list(stage)
        at_once = width if todo[0].kind == "quality" else 1
        while todo:
            fitting = _fitting(todo, (deadline - clock()) / pace, at_once, expected)
            if not fitting:
                break
            began, foreseen = clock(), _together(fitting, at_once, expected)
            run(fitting)
            pace = max(0.1, (clock() - began) / foreseen)
            todo = todo[len(fitting) :]
        left += todo
    return left


def stages(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells in the order in which they are worth their time."""
    ordered = sorted(cells, key=_stage)
    return [list(group) for _, group in groupby(ordered, key=_stage)]


def _stage(cell: Cell) -> tuple[int, bool]:
    return cell.seed, cell.kind != "quality"


def _fitting(cells: Sequence[Cell], seconds: float, width: int, expected: Expect) -> list[Cell]:
    """The most of the first cells that are expected to end in time."""
    for count in range(len(cells), 0, -1):
        if _together(cells[:count], width, expected) <= seconds:
            return list(cells[:count])
    return []


def _together(cells: Sequence[Cell], width: int, expected: Expect) -> float:
    """Seconds until the last of some cells has ended, each begun as soon as there is room."""
    ends = [0.0] * width
    for cell in cells:
        ends.sort()
        ends[0] += expected(cell) or NOMINAL_SECONDS
    return max(ends)
