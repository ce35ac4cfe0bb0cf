"""The values that a task's scores are read against, from the rows that its cells recorded.

A reference depends on the problems of a seed and not on the attention, so every entry's cell of a
seed records the same number; they count once.
"""

from __future__ import annotations

from dataclasses import dataclass

from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.results import Results
from cab.track import Track

MARK = "@"
"""Between a metric and a reference in a row's metric: ``mse@oracle``"""


@dataclass(frozen=True)
class ReferenceLine:
    """One reference of one task on one track."""

    task: str
    metric: str
    name: str
    value: Interval
    """Over the seeds"""


def reference_lines(results: Results, track: Track, task: str) -> list[ReferenceLine]:
    """References of a task, by metric and from the best down."""
    rows = results.select(track, kind="quality", task=task, phase="reference")
    found = []
    for metric, own in rows.groupby("metric", observed=True):
        of, _, name = str(metric).partition(MARK)
        by_seed = own.drop_duplicates("seed")["value"].to_numpy(float)
        higher = bool(own["higher_is_better"].iloc[0])
        found.append((higher, ReferenceLine(task, of, name, mean_interval(by_seed))))
    found.sort(key=lambda f: (f[1].metric, -f[1].value.value if f[0] else f[1].value.value))
    return [line for _, line in found]
