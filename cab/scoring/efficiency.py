"""Cost against softmax: ratios measured in one process, medians over processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cab.admission import options_of
from cab.controls import BASELINE
from cab.cost_metrics import DENSITY, LATENCY, PEAK_MEMORY, ratio_baseline, ratio_to
from cab.scoring.intervals import UNKNOWN, Interval, process_interval
from cab.scoring.results import Results
from cab.track import Track


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
    """To what it was timed in turns with: softmax, where it was among them"""
    memory: Interval
    """Peak bytes beyond the inputs"""
    status: str
    """ok, or how the measurement ended"""
    head_dim: int
    heads: int
    batch: int
    dtype: str
    beside: str = BASELINE
    """What ``latency_ratio`` is taken to"""
    density: Interval = UNKNOWN
    """Share of the visible pairs that a sparse entry read"""
    disturbed: int = 0
    """Processes that were timed while others kept the machine busy, of rows that say it"""


def cost_points(results: Results, track: Track) -> list[CostPoint]:
    """All measured points of a track, by entry, phase and length."""
    rows = results.select(track, kind="efficiency")
    rows = rows[rows["phase"].notna()]
    points = []
    for place, group in rows.groupby(["entry", "phase", "length_q"]):
        entry, phase, length = (str(part) for part in place)
        bad = group[group["status"] != "ok"]
        first = group.iloc[0]
        beside, ratio = paired_ratio(group)
        points.append(
            CostPoint(
                entry=entry,
                attention=str(first["attention"]),
                phase=phase,
                length=int(float(length)),
                latency=_interval(group, LATENCY),
                latency_ratio=ratio,
                beside=beside,
                memory=_interval(group, PEAK_MEMORY),
                density=_interval(group, DENSITY),
                disturbed=_disturbed(group),
                status="ok" if bad.empty else str(bad["status"].iloc[0]),
                head_dim=_whole(group["head_dim"]),
                heads=_whole(group["heads"]),
                batch=_whole(group["batch"]),
                dtype=str(group["dtype"].dropna().iloc[0]) if group["dtype"].notna().any() else "",
            )
        )
    return points


def paired_ratio(rows: pd.DataFrame) -> tuple[str, Interval]:
    """What an entry was timed in turns with, and the ratio to it: softmax, else the first other."""
    found = {name: m for m in sorted(rows["metric"].unique()) if (name := ratio_baseline(str(m)))}
    name = next(iter(found), BASELINE) if BASELINE not in found else BASELINE
    return name, _interval(rows, ratio_to(name))


def _whole(column: pd.Series) -> int:
    """The first number that is recorded, 0 where none is: failures may have no geometry."""
    known = column.dropna()
    return int(known.iloc[0]) if len(known) else 0


def _disturbed(rows: pd.DataFrame) -> int:
    if "environment" not in rows:
        return 0
    # Few texts are parsed: most rows of a process share theirs, and most name no such thing.
    said = rows[["cell", "environment"]].dropna().drop_duplicates()
    said = said[said["environment"].astype(str).str.contains('"noisy"', regex=False)]
    return len(
        {
            cell
            for cell, text in said.itertuples(index=False)
            if (options_of(str(text)) or {}).get("noisy")
        }
    )


def _interval(group: pd.DataFrame, metric: str) -> Interval:
    rows = group[(group["metric"] == metric) & (group["status"] == "ok")]
    return process_interval([np.asarray(samples, dtype=float) for samples in rows["samples"]])
