"""Points of an efficiency cell - a length and a phase - that are to be measured again, and which
of two measurements of one is kept.

A point is disturbed where others kept the machine busy while it was timed, or calls that should
take the same did not: its times say something about the neighbours. What is measured again is
stored with all that the cell had before, point by point the better of the two, so that the newest
run of a cell is always its best.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from cab.cell import Cell, Point
from cab.controls import DISTURBED
from cab.schema import Row, Status
from runners.efficiency.neighbours import NOISY_CORES, NOISY_SPREAD, relative_spread


def is_disturbed(row: Row) -> bool:
    """Whether a row was measured while others kept the machine busy."""
    return bool(_facts(row).get("noisy"))


def points_of(rows: Iterable[Row]) -> dict[Point, list[Row]]:
    """Rows by point; those of the machine and of a cell's end belong to none."""
    found: dict[Point, list[Row]] = {}
    for row in rows:
        if row.phase is not None and row.length_q is not None:
            found.setdefault((row.phase, row.length_q), []).append(row)
    return found


def open_points(cell: Cell, rows: Sequence[Row], again: Collection[str]) -> tuple[Point, ...]:
    """Points of an efficiency cell that are to be measured.

    Args:
        cell: of all points.
        rows: that it has.
        again: outcomes that are tried again, `DISTURBED` among them or not.

    Returns:
        those that have no rows or ended so; empty: all of them, or none in particular.
    """
    from runners.efficiency.settings import settings_of

    settings, found = settings_of(cell), points_of(rows)
    every = [(phase, length) for length in settings.lengths for phase in settings.phases]
    chosen = [point for point in every if _is_open(found.get(point, []), again)]
    return tuple(chosen) if len(chosen) < len(every) else ()


def disturbed_points(rows: Iterable[Row]) -> tuple[Point, ...]:
    """Points of which a row was disturbed."""
    found = points_of(rows)
    return tuple(point for point, own in found.items() if any(map(is_disturbed, own)))


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """One set of rows of two runs of an efficiency cell: point by point the better one.

    Args:
        old: stored rows. What is kept of them says of which run it is.
        new: measured now.
    """
    of_old, of_new = points_of(old), points_of(new)
    kept = [row for row in new if (row.phase, row.length_q) not in of_new]
    if not any(row.metric for row in kept):  # the rates of the machine, which belong to no point
        kept += [_carried(row) for row in old if row.phase is None and row.metric]
    for point in dict.fromkeys((*of_old, *of_new)):
        before, now = of_old.get(point, []), of_new.get(point, [])
        if now and (not before or badness(now) <= badness(before)):
            kept += now
        else:
            kept += [_carried(row) for row in before]
    return kept


def badness(rows: Sequence[Row]) -> tuple[int, float]:
    """Of a measurement of a point: ends without a number, then how disturbed its times are, 1 where
    it begins to be called so.
    """
    ended = sum(row.status != Status.OK.value for row in rows)
    timed = [row for row in rows if row.metric.startswith("latency") and row.unit == "s"]
    if not timed:
        return ended, 0.0 if not ended else math.inf
    spreads = [relative_spread(row.samples) or 0.0 for row in timed]
    busy = _facts(timed[0]).get("other_cores") or 0.0
    return ended, max(max(spreads) / NOISY_SPREAD, busy / NOISY_CORES)


def _is_open(rows: Sequence[Row], again: Collection[str]) -> bool:
    ended = any(row.status in again for row in rows)
    return not rows or ended or (DISTURBED in again and any(map(is_disturbed, rows)))


def _carried(row: Row) -> Row:
    """The row as one of another run, which says where it is from."""
    return row if row.source else replace(row, source=f"run {row.run_id}")


def _facts(row: Row) -> Mapping[str, float]:
    try:
        found = json.loads(row.environment or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
