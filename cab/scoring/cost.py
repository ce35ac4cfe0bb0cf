"""What an entry costs, on any of several axes, at one length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cab.controls import BASELINE
from cab.cost_metrics import (
    DENSITY,
    ENERGY_PER_TOKEN,
    LATENCY,
    LATENCY_RATIO,
    PEAK_MEMORY,
    STATE_BYTES,
)
from cab.scoring.efficiency import paired_ratio
from cab.scoring.intervals import Interval, process_interval
from cab.scoring.results import Results
from cab.track import Track


@dataclass(frozen=True)
class CostAxis:
    """One kind of cost; less is better."""

    id: str
    title: str
    unit: str
    """s, B, J or 1"""
    metrics: tuple[str, ...]
    """Names of the rows that hold it"""
    phase: str = ""
    """Phase of those rows; empty: any"""

    @property
    def of_model(self) -> bool:
        """Whether it is a property of the trained model rather than of a timed call."""
        return not self.metrics


AXES = (
    CostAxis("latency", "latency, forward", "s", (LATENCY,), "forward"),
    CostAxis("train-latency", "latency, forward and backward", "s", (LATENCY,), "forward_backward"),
    CostAxis("decode-latency", "latency of a decoding step", "s", (LATENCY,), "decode"),
    CostAxis("memory", "peak memory, forward", "B", (PEAK_MEMORY,), "forward"),
    CostAxis(
        "train-memory",
        "peak memory, forward and backward",
        "B",
        (PEAK_MEMORY,),
        "forward_backward",
    ),
    CostAxis("parameters", "parameters that the mechanism adds", "1", ()),
    CostAxis("state", "state of a decoding step", "B", (STATE_BYTES,), "decode"),
    CostAxis("energy", "energy per token, forward", "J", (ENERGY_PER_TOKEN,), "forward"),
)


METRICS = frozenset({DENSITY, LATENCY_RATIO, *(name for axis in AXES for name in axis.metrics)})
"""All that axes and their crossings read"""


@dataclass(frozen=True)
class Costs:
    """Cost of the entries of a track on one axis."""

    axis: CostAxis
    length: int | None
    """Queries, in tokens; None where the axis does not depend on a length"""
    by_entry: Mapping[str, Interval]
    ended: Mapping[str, str]
    """Entries whose measurement ended without a number at this length, and how"""
    beside: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Latencies: what an entry was timed in turns with, and the ratio to it"""
    density: Mapping[str, Interval] = field(default_factory=dict)
    """Share of the visible pairs that an entry read in these calls, of those that say it"""


def axis(name: str) -> CostAxis | None:
    """The axis of an id, if there is one."""
    return next((a for a in AXES if a.id == name), None)


def costs(results: Results, track: Track, by: CostAxis) -> Costs:
    """Measure every entry at the longest length at which softmax has a number.

    Parameters are those of the models of the quality runs: the mean over tasks.
    """
    if by.of_model:
        return _parameters(results, track, by)
    rows = results.select(track, kind="efficiency")
    every = rows
    # A measurement that ended without a number may not say of which.
    rows = rows[rows["metric"].isin(by.metrics) | (rows["metric"].isin([""]))]
    if by.phase:
        rows = rows[rows["phase"] == by.phase]
    good = rows[rows["status"] == "ok"]
    lengths = good[good["entry"] == BASELINE]["length_q"]
    if lengths.empty:
        lengths = good["length_q"]
    if lengths.empty:
        return Costs(by, None, {}, {})
    length = int(lengths.max())
    here = rows[rows["length_q"] == length]
    found: dict[str, Interval] = {}
    ended: dict[str, str] = {}
    for entry, group in here.groupby("entry", observed=True):
        own = group[group["status"] == "ok"]
        if own.empty:
            ended[str(entry)] = str(group["status"].iloc[0])
        else:
            found[str(entry)] = process_interval([_samples(row) for _, row in own.iterrows()])
    beside: dict[str, tuple[str, float]] = {}
    if by.metrics == (LATENCY,):
        own = every[(every["length_q"] == length) & (every["phase"] == by.phase)]
        for entry, group in own.groupby("entry", observed=True):
            name, ratio = paired_ratio(group)
            if ratio.n:
                beside[str(entry)] = name, ratio.value
    read: dict[str, Interval] = {}
    own = every[(every["length_q"] == length) & (every["metric"] == DENSITY)]
    for entry, group in own[own["phase"] == by.phase].groupby("entry", observed=True):
        read[str(entry)] = process_interval([_samples(row) for _, row in group.iterrows()])
    return Costs(by, length, found, ended, beside, read)


def _samples(row: pd.Series) -> list[float]:
    samples = row["samples"]
    return [float(x) for x in samples] if len(samples) else [float(row["value"])]


def _parameters(results: Results, track: Track, by: CostAxis) -> Costs:
    rows = results.select(track, kind="quality")
    rows = rows[(rows["status"] == "ok") & rows["parameters_attention"].notna()]
    per_task = rows.groupby(["entry", "task"], observed=True)["parameters_attention"].mean()
    found = {}
    for entry, values in per_task.groupby(level=0, observed=True):
        mean = float(np.mean(values.to_numpy(dtype=float)))
        found[str(entry)] = Interval(mean, mean, mean, len(values))
    return Costs(by, None, found, {})
