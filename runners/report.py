"""How a runner tells its caller what it has done."""

from __future__ import annotations

from typing import Protocol

from cab.artifact import Artifact
from cab.schema import Row


class Report(Protocol):
    """Called as the work goes on."""

    def __call__(
        self,
        *,
        done: float,
        loss: float | None = None,
        rows: list[Row] | None = None,
        artifacts: list[Artifact] | None = None,
    ) -> None:
        """Take note.

        Args:
            done: share of the cell, 0 to 1.
            loss: smoothed training loss.
            rows: kept even if the cell dies later.
            artifacts: kept likewise.
        """
