"""What an executor tells its caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status
from runners.executors.options import ExecutorOption, OptionValue


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

    OPTIONS: ClassVar[tuple[ExecutorOption, ...]]
    """What `from_options` takes"""

    @classmethod
    def from_options(cls, options: Mapping[str, OptionValue]) -> Executor:
        """An executor with options on top of its defaults.

        Raises:
            UsageError: it has no such option, or a value does not fit.
        """

    def width(self, cells: Sequence[Cell]) -> int:
        """Quality cells that run at a time."""

    def run(self, cells: Sequence[Cell], on_event: Callable[[Event], None]) -> None:
        """Run every cell once and report; returns when all have ended.

        On an exception (`KeyboardInterrupt` above all) nothing keeps running.
        """
