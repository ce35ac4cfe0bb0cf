"""A sweep beside an earlier one: which points have become slower, for who changes a kernel.

Points are equal where attention and options, pattern, phase, sizes, dtype and kind of device are.
The interval of the ratio is Welch's, from the spread between the processes of each sweep. What both
were timed in turns with is compared too: where that has changed as much, it is the machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cab.cost_metrics import LATENCY, of_baseline
from cab.errors import UsageError
from cab.scoring.crossover import ratio_of
from cab.scoring.curves import Curves, curves_of
from cab.scoring.intervals import Interval
from cab.scoring.results import load_results
from cab.scoring.versions import machine_name
from cab.sheets.phases import SHORT
from cab.sheets.sheet import Column, Line, Sheet
from cab.sheets.words import NOTHING, UNSURE, duration, significant
from cab.store import ResultStore

SLOWER, FASTER, SAME, UNKNOWN = "slower", "faster", "same", "noise unknown"


@dataclass(frozen=True)
class Change:
    """One point that both sweeps have a latency of."""

    curve: Curves
    length: int
    old: Interval
    """Seconds"""
    new: Interval
    ratio: Interval
    """New over old"""
    baseline: float
    """The same of what both were timed in turns with; not a number where there is no such thing"""

    def verdict(self, tolerance: float) -> str:
        """``slower`` where it is so beyond the noise and by more than a share."""
        if not self.ratio.known:
            return UNKNOWN
        if self.ratio.low > 1 and self.ratio.value > 1 + tolerance:
            return SLOWER
        if self.ratio.high < 1 and self.ratio.value < 1 / (1 + tolerance):
            return FASTER
        return SAME


@dataclass(frozen=True)
class Earlier:
    """The sweep to compare with, as it was before the new one began."""

    place: Path
    curves: Sequence[Curves]
    machines: frozenset[str]

    @classmethod
    def at(cls, place: Path) -> Earlier:
        """Read a file or a folder.

        Raises:
            UsageError: there is nothing, or no cost in it.
            StoreError: it is no Parquet.
        """
        if not place.exists():
            raise UsageError(f"--compare {place}: there is no such file or folder")
        store = ResultStore(place, merge=False) if place.is_dir() else _OneFile(place)
        rows = load_results(store).rows
        rows = rows[rows["kind"] == "efficiency"]
        curves = entry_curves(rows)
        if not any(LATENCY in curve.samples for curve in curves):
            raise UsageError(
                f"--compare {place}: it holds no latency; name the Parquet files of an earlier "
                "cab bench, or their folder"
            )
        return cls(place, curves, _machines(rows))

    def changes(self, curves: Sequence[Curves]) -> list[Change]:
        """Of every point that both have.

        Raises:
            UsageError: there is none.
        """
        old = {_key(curve): curve for curve in self.curves}
        found = []
        for curve in curves:
            other = old.get(_key(curve))
            if other is None:
                continue
            both = set(curve.medians(LATENCY)) & set(other.medians(LATENCY))
            found += [
                _change(curve, other, length)
                for length in sorted(both)
                if curve.keys.get(length) == other.keys.get(length)
            ]
        if not found:
            raise UsageError(
                f"--compare {self.place}: none of its points has the attention, pattern, phase and "
                "sizes of one that was measured now"
            )
        return found

    def elsewhere(self, rows: pd.DataFrame) -> str | None:
        """A line where the two were measured on different machines."""
        here = _machines(rows)
        if here == self.machines:
            return None
        then, now = (" and ".join(sorted(names)) for names in (self.machines, here))
        return f"measured on other machines: {then} then, {now} now"


class _OneFile(ResultStore):
    def __init__(self, file: Path) -> None:
        super().__init__(file.parent, merge=False)
        self._file = file

    def files(self) -> list[Path]:
        return [self._file]


def entry_curves(rows: pd.DataFrame) -> list[Curves]:
    """Curves by entry: with options that are not the defaults, an attention is another entry."""
    return curves_of(rows.assign(attention=rows["entry"]))


def _machines(rows: pd.DataFrame) -> frozenset[str]:
    pairs = rows[["device_name", "threads"]].dropna().drop_duplicates()
    return frozenset(machine_name(name, n) for name, n in pairs.itertuples(index=False))


def _key(curve: Curves) -> tuple[str, str, str, str, str]:
    return curve.attention, curve.pattern, curve.phase, curve.scale, curve.device


def _change(new: Curves, old: Curves, length: int) -> Change:
    before, after = old.interval(LATENCY, length), new.interval(LATENCY, length)
    beside = math.nan
    if new.baseline == old.baseline:
        metric = of_baseline(LATENCY, new.baseline)
        beside = ratio_of(new.interval(metric, length), old.interval(metric, length)).value
    return Change(new, length, before, after, ratio_of(after, before), beside)


def comparison_sheet(changes: Sequence[Change], tolerance: float, place: Path) -> Sheet:
    """A line for each point."""
    columns = (
        Column("length", right=True),
        Column("attention"),
        Column("phase"),
        Column("old", right=True),
        Column("new", right=True),
        Column("new / old (95 %)", right=True),
        Column("baseline's", right=True, keep=1),
        Column("verdict"),
        Column("sizes", keep=2),
    )
    lines = [
        Line(
            (
                str(change.length),
                change.curve.attention,
                SHORT[change.curve.phase],
                duration(change.old.value),
                duration(change.new.value),
                _ratio(change.ratio),
                f"{change.baseline:.2f}x" if math.isfinite(change.baseline) else NOTHING,
                change.verdict(tolerance),
                f"{change.curve.pattern}, {change.curve.scale}",
            ),
            {},
        )
        for change in changes
    ]
    notes = [
        f"slower: the interval lies above 1, and the ratio above {1 + tolerance:g} (--tolerance)",
        "baseline's: new over old of what both were timed in turns with; far from 1, the machine "
        "has changed",
    ]
    if any(change.verdict(tolerance) == UNKNOWN for change in changes):
        notes.append(
            f"{UNKNOWN}: one process, or processes that are too far apart; take --processes 3 or "
            "more on a quiet machine"
        )
    return Sheet(f"Against {place}", columns, tuple(lines), notes=tuple(notes))


def _ratio(ratio: Interval) -> str:
    if not ratio.known:
        return f"{significant(ratio.value)}x ({UNSURE})"
    return f"{significant(ratio.value)}x ({significant(ratio.low)}-{significant(ratio.high)})"
