"""The live display of a run: what runs, how far, its loss, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from cab.cell import Cell
from cab.schema import Status
from cab.visible import visible
from runners.executors.events import Ended, Event, Progressed, Started

_NOMINAL_SECONDS = {"quality": 25.0, "efficiency": 25.0}
"""Per cell, until one of its like has ended."""


class RunDisplay:
    """A bar for the run and one for each running cell; one line per ended cell.

    On a terminal that is not interactive only the lines appear.
    """

    def __init__(self, console: Console, cells: Sequence[Cell], workers: int) -> None:
        self._cells = list(cells)
        self._workers = max(1, workers)
        self._began: dict[str, float] = {}
        self._share: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}
        self._ended: set[str] = set()
        self._bars: dict[str, TaskID] = {}
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = self._progress.add_task("all cells", total=len(self._cells) or 1, note="")

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def handle(self, event: Event) -> None:
        """Show what an executor tells."""
        if isinstance(event, Started):
            self.started(event.cell)
        elif isinstance(event, Progressed):
            self.progressed(event.cell, event.done, event.loss)
        elif isinstance(event, Ended):
            self.ended(event.cell, event.status, event.message, event.seconds)

    def started(self, cell: Cell) -> None:
        """A cell has begun."""
        self._began[cell.key] = time.monotonic()
        self._share[cell.key] = 0.0
        self._bars[cell.key] = self._progress.add_task(
            f"  {visible(cell.title)}", total=1.0, note=""
        )
        self._refresh()

    def progressed(self, cell: Cell, done: float, loss: float | None) -> None:
        """A cell has come some way."""
        self._share[cell.key] = done
        note = "" if loss is None else f"loss {loss:.3f}"
        self._progress.update(self._bars[cell.key], completed=done, note=note)
        self._refresh()

    def ended(self, cell: Cell, status: Status, message: str, seconds: float) -> None:
        """A cell has ended."""
        self._progress.remove_task(self._bars.pop(cell.key))
        self._share.pop(cell.key)
        self._ended.add(cell.key)
        self._seconds.setdefault(_kin(cell), []).append(seconds)
        good = status is Status.OK
        line = Text()
        line.append(f"{status.value:>5}", "green" if good else "red")
        line.append(f" {visible(cell.title)} ")
        line.append(f"({len(self._ended)}/{len(self._cells)}, {seconds:.0f} s)", "dim")
        line.append("" if good else f"\n      {visible(message)}")
        self._console.print(line, soft_wrap=True)
        self._refresh()

    def time_left(self) -> float:
        """Seconds that the cells not yet ended are expected to take."""
        left = {"quality": 0.0, "efficiency": 0.0}
        for cell in self._cells:
            if cell.key not in self._ended:
                expected = self._expected(cell) * (1 - self._share.get(cell.key, 0.0))
                left[cell.kind] += expected
        return left["quality"] / self._workers + left["efficiency"]

    def _expected(self, cell: Cell) -> float:
        known = self._seconds.get(_kin(cell)) or [
            s for kin, all_s in self._seconds.items() if kin.startswith(cell.kind) for s in all_s
        ]
        if known:
            return sum(known) / len(known)
        done = self._share.get(cell.key, 0.0)
        if done > 0.1:
            return (time.monotonic() - self._began[cell.key]) / done
        return _NOMINAL_SECONDS[cell.kind]

    def _refresh(self) -> None:
        done = len(self._ended) + sum(self._share.values())
        minutes, seconds = divmod(round(self.time_left()), 60)
        note = f"{len(self._ended)}/{len(self._cells)} cells, {minutes}:{seconds:02d} left"
        self._progress.update(self._total, completed=done, note=note)


def _kin(cell: Cell) -> str:
    """Cells that take about as long."""
    return f"{cell.kind}/{cell.task}/{cell.attention}"
