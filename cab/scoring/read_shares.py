"""What share of the visible pairs the sparse entries of a track read in their trained models."""

from __future__ import annotations

from collections.abc import Collection

from cab.cost_metrics import DENSITY
from cab.scoring.results import Results
from cab.track import Track


def densities_of(
    results: Results, track: Track, tasks: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Mean over seeds by entry and task; an entry that does not say what it reads is not there.

    Args:
        results: current rows.
        track: to look at.
        tasks: that count; none named: all.
    """
    rows = results.select(track, kind="quality", phase="analysis", metric=DENSITY, status="ok")
    if tasks:
        rows = rows[rows["task"].isin(list(tasks))]
    found: dict[str, dict[str, float]] = {}
    means = rows.groupby(["entry", "task"], observed=True)["value"].mean().reset_index()
    for entry, task, value in means.itertuples(index=False):
        found.setdefault(str(entry), {})[str(task)] = float(value)
    return found


def mean_densities(results: Results, track: Track, tasks: Collection[str] = ()) -> dict[str, float]:
    """Mean over tasks, by entry; arguments as of `densities_of`."""
    found = densities_of(results, track, tasks)
    return {entry: sum(by_task.values()) / len(by_task) for entry, by_task in found.items()}
