"""Costs by length, read from result rows: what tables, fits and plots of ``cab bench`` share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cab.scoring.crossover import Crossover, cab_efficiency_length, crossover
from cab.scoring.growth import PowerLaw, power_law
from cab.scoring.intervals import Interval, process_interval

Samples = Mapping[int, list[list[float]]]
"""Length to the samples of each process"""


@dataclass(frozen=True)
class Curves:
    """Everything that was measured of one entry on one pattern in one phase."""

    attention: str
    pattern: str
    phase: str
    samples: Mapping[str, Samples]
    """By metric"""
    ended: Mapping[int, tuple[str, str]]
    """Length to status and message, where there is no latency and no memory"""
    noisy: int = 0
    """Timed points during which the machine was too busy with something else"""
    points: int = 0
    checked: frozenset[str] = field(default_factory=frozenset)
    """What timed calls were held to"""

    def lengths(self) -> list[int]:
        """All that were asked for."""
        found = {length for metric in self.samples.values() for length in metric}
        return sorted(found | set(self.ended))

    def interval(self, metric: str, length: int) -> Interval:
        """Median over processes."""
        return process_interval(self.samples.get(metric, {}).get(length, []))

    def medians(self, metric: str) -> dict[int, list[float]]:
        """Length to one number for each process."""
        found = self.samples.get(metric, {})
        return {n: [float(np.median(s)) for s in found[n]] for n in sorted(found)}

    def fit(self, metric: str) -> PowerLaw | None:
        """The line through the logarithms of a cost."""
        return power_law(self.medians(metric))

    def pays(self, metric: str, baseline: str) -> Crossover | None:
        """From which length the latency, or the traced memory, is below a baseline's."""
        suffix = baseline.replace("-", "_")
        if metric == "latency":
            name = "latency_ratio" if baseline == "softmax" else f"latency_ratio_{suffix}"
            ratios = {n: self.interval(name, n) for n in self.samples.get(name, {})}
        else:
            own, others = self.medians(metric), self.medians(f"{metric}_{suffix}")
            ratios = {}
            for n in sorted(own.keys() & others.keys()):
                # A count of bytes is the same in every process. What takes none is cheaper.
                value = max(own[n][0], 1.0) / max(others[n][0], 1.0)
                ratios[n] = Interval(value, value, value, 1)
        return crossover(ratios, baseline)

    def cab_length(self, metric: str, baseline: str) -> float | None:
        """CAB's efficiency length; None where fewer than four lengths have both costs."""
        own = self.medians(metric)
        others = self.medians(f"{metric}_{baseline.replace('-', '_')}")
        lengths = sorted(own.keys() & others.keys())
        if len(lengths) < 4:
            return None
        return cab_efficiency_length(
            lengths,
            [float(np.median(others[n])) for n in lengths],
            [float(np.median(own[n])) for n in lengths],
            skip=1 if metric == "latency" else 0,
        )


def of_a_repeat(found: Interval) -> Interval:
    """Where the same sweep, made again, puts its value: a repeat is as uncertain as the value, so
    the interval is wider by the root of two, in the logarithm as it was made.
    """
    if not found.known or found.low <= 0:
        return found
    wider = math.sqrt(2)
    low = found.value * (found.low / found.value) ** wider
    high = found.value * (found.high / found.value) ** wider
    return Interval(found.value, low, high, found.n)


def curves_of(rows: pd.DataFrame) -> list[Curves]:
    """Curves by pattern, attention and phase, in the order of the rows."""
    rows = rows[rows["phase"].notna()]
    found = []
    groups = rows.groupby(["pattern", "attention", "phase"], sort=False, observed=True)
    for place, group in groups:
        pattern, attention, phase = (str(part) for part in place)
        samples: dict[str, dict[int, list[list[float]]]] = {}
        ended: dict[int, tuple[str, str]] = {}
        columns = ("length_q", "status", "message", "metric", "samples")
        rows_of_group = zip(*(group[column] for column in columns), strict=True)
        for length_q, status, message, metric, values in rows_of_group:
            length = int(length_q)
            if status == "ok":
                own = [float(x) for x in values]
                samples.setdefault(str(metric), {}).setdefault(length, []).append(own)
            else:
                ended[length] = (str(status), str(message))
        timed = group[(group["metric"] == "latency") & (group["status"] == "ok")]
        facts = [json.loads(text) for text in timed["environment"]]
        found.append(
            Curves(
                attention,
                pattern,
                phase,
                samples,
                ended,
                noisy=sum(bool(f.get("noisy")) for f in facts),
                points=len(facts),
                checked=frozenset(str(f["checked_against"]) for f in facts),
            )
        )
    return found
