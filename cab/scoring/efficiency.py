"""Cost against softmax: ratios measured in one process, medians over processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cab.scoring.intervals import Interval, process_interval
from cab.scoring.results import Results


@dataclass(frozen=True)
class CostPoint:
    """Cost of one entry at one length and phase."""

    entry: str
    attention: str
    phase: str
    length: int
    latency: Interval
    """Seconds"""
    latency_ratio: Interval
    """To softmax, timed in turns with it"""
    memory: Interval
    """Peak bytes beyond the inputs"""
    status: str
    """ok, or how the measurement ended"""
    head_dim: int
    heads: int
    batch: int
    dtype: str


def cost_points(results: Results, pattern: str, scale: str, device: str) -> list[CostPoint]:
    """All measured points of a pattern, by entry, phase and length."""
    rows = results.select(kind="efficiency", pattern=pattern, scale=scale, device=device)
    rows = rows[rows["phase"].notna()]
    points = []
    for place, group in rows.groupby(["entry", "phase", "length_q"]):
        entry, phase, length = (str(part) for part in place)
        bad = group[group["status"] != "ok"]
        first = group.iloc[0]
        points.append(
            CostPoint(
                entry=entry,
                attention=str(first["attention"]),
                phase=phase,
                length=int(float(length)),
                latency=_interval(group, "latency"),
                latency_ratio=_interval(group, "latency_ratio"),
                memory=_interval(group, "peak_memory"),
                status="ok" if bad.empty else str(bad["status"].iloc[0]),
                head_dim=_whole(group["head_dim"]),
                heads=_whole(group["heads"]),
                batch=_whole(group["batch"]),
                dtype=str(group["dtype"].dropna().iloc[0]) if group["dtype"].notna().any() else "",
            )
        )
    return points


def _whole(column: pd.Series) -> int:
    """The first number that is recorded, 0 where none is: failures may have no geometry."""
    known = column.dropna()
    return int(known.iloc[0]) if len(known) else 0


def _interval(group: pd.DataFrame, metric: str) -> Interval:
    rows = group[(group["metric"] == metric) & (group["status"] == "ok")]
    return process_interval([np.asarray(samples, dtype=float) for samples in rows["samples"]])
