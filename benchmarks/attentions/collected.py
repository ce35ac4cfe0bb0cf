"""What the suite has measured, and its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.table import Table

from benchmarks.attentions.entries import DIM, HEADS, OURS, PLAIN, Case
from benchmarks.memory import growth_exponent
from benchmarks.printing import median_and_quartiles, plain_table
from benchmarks.timing import paired, spread


@dataclass
class Speed:
    """Both forms at one length."""

    case: Case
    length: int
    seconds: dict[str, list[float]]
    """By form, round for round."""


@dataclass
class Growth:
    """Our form over the lengths."""

    case: Case
    seconds: dict[int, float]
    peaks: dict[int, int]


@dataclass
class Collected:
    """Everything of one session."""

    speeds: list[Speed] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)

    def tables(self) -> Iterator[Table]:
        """Every table that there is something for."""
        if self.speeds:
            yield self._speed_table()
        if self.growths:
            yield self._growth_table()

    def _speed_table(self) -> Table:
        table = plain_table(
            f"forward+backward, B=2, H={HEADS}, D={DIM}, float32; ratios by round [quartiles]",
            "attention", "L", "rounds", "ours ms", "straightforward / ours",
        )  # fmt: skip
        for speed in sorted(self.speeds, key=lambda s: (str(s.case), s.length)):
            ours = speed.seconds[OURS]
            ratio = spread(paired(speed.seconds[PLAIN], ours))
            table.add_row(
                str(speed.case), str(speed.length), str(len(ours)),
                f"{1e3 * spread(ours).median:.1f}", median_and_quartiles(ratio),
            )  # fmt: skip
        return table

    def _growth_table(self) -> Table:
        lengths = list(self.growths[0].seconds)
        table = plain_table(
            f"growth of forward+backward, B=1, H={HEADS}, D={DIM}, L={lengths[0]}..{lengths[-1]}",
            "attention", "exponent of time", "exponent of memory", "longest s", "longest MiB",
        )  # fmt: skip
        for growth in sorted(self.growths, key=lambda g: str(g.case)):
            table.add_row(
                str(growth.case), f"{growth_exponent(growth.seconds):.2f}",
                f"{growth_exponent(growth.peaks):.2f}", f"{growth.seconds[lengths[-1]]:.2f}",
                f"{growth.peaks[lengths[-1]] / 2**20:.0f}",
            )  # fmt: skip
        return table
