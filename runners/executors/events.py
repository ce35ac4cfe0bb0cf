"""What an executor tells its caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status


@dataclass(frozen=True)
class Started:
    """A cell has begun."""

    cell: Cell


@dataclass(frozen=True)
class Progressed:
    """A cell has come some way."""

    cell: Cell
    done: float
    """Share of the cell, 0 to 1"""
    loss: float | None


@dataclass(frozen=True)
class Ended:
    """A cell has ended; ``rows`` is everything it measured, whatever the end."""

    cell: Cell
    status: Status
    message: str
    rows: list[Row] = field(repr=False)
    seconds: float
    artifacts: list[Artifact] = field(default_factory=list, repr=False)


Event = Started | Progressed | Ended


class Executor(Protocol):
    """Runs cells somewhere: worker processes here, a Ray cluster, Slurm jobs."""

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        timeout: float = 900.0,
        replicas: int = 1,
    ) -> None:
        """Choose how the machine is shared.

        Args:
            workers: quality cells at a time; None: what suits the device.
            threads: torch threads of a quality cell on a CPU; None: one.
            timeout: seconds after which a cell is ended as ``timeout``.
            replicas: processes that train one quality cell together, one per GPU.
        """

    def width(self, cells: Sequence[Cell]) -> int:
        """Quality cells that run at a time."""

    def run(self, cells: Sequence[Cell], on_event: Callable[[Event], None]) -> None:
        """Run every cell once and report; returns when all have ended.

        On an exception (`KeyboardInterrupt` above all) nothing keeps running.
        """
