"""Costs by length, read from result rows: what tables, fits and plots of ``cab bench`` share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cab.admission import options_of
from cab.controls import BASELINE
from cab.cost_metrics import LATENCY, of_baseline, ratio_to
from cab.scoring.crossover import Crossover, cab_efficiency_length, crossover
from cab.scoring.growth import PowerLaw, power_law
from cab.scoring.intervals import Interval, cost_interval, process_interval
from cab.scoring.nominal import Geometry, compulsory_bytes, nominal_flops, per_second
from cab.scoring.origin import Origin, origin_of
from cab.track import Setting

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
    setting: Setting = field(default_factory=lambda: Setting("", ""))
    """Sizes of the calls and kind of device"""
    origin: Origin = field(default_factory=Origin)
    """Which code measured"""
    baseline: str = BASELINE
    """What it was timed in turns with"""
    geometry: Geometry | None = None
    """None where nothing recorded one"""
    keys: Mapping[int, int] = field(default_factory=dict)
    """Keys of a call by its length"""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a baseline was not timed, by its name"""

    @property
    def scale(self) -> str:
        """Sizes of the calls, as a track names them."""
        return self.setting.scale

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.setting.device

    def lengths(self) -> list[int]:
        """All that were asked for."""
        found = {length for metric in self.samples.values() for length in metric}
        return sorted(found | set(self.ended))

    def interval(self, metric: str, length: int) -> Interval:
        """Median over processes."""
        return process_interval(self.samples.get(metric, {}).get(length, []))

    def intervals(self, metric: str) -> list[Interval]:
        """Of every length."""
        return [self.interval(metric, length) for length in self.lengths()]

    def rate(self, metric: str, length: int) -> tuple[float, float]:
        """Nominal FLOP/s and compulsory B/s (`cab.scoring.nominal`) of the latency in ``metric``,
        its own or a baseline's; not a number where it is not known.
        """
        latency = self.interval(metric, length).value
        if self.geometry is None:
            return math.nan, math.nan
        keys = self.keys.get(length, length)
        return (
            per_second(
                nominal_flops(self.geometry, self.pattern, self.phase, length, keys), latency
            ),
            per_second(compulsory_bytes(self.geometry, self.phase, length, keys), latency),
        )

    def medians(self, metric: str) -> dict[int, list[float]]:
        """Length to one number for each process."""
        found = self.samples.get(metric, {})
        return {n: [float(np.median(s)) for s in found[n]] for n in sorted(found)}

    def fit(self, metric: str) -> PowerLaw | None:
        """The line through the logarithms of a cost."""
        return power_law(self.medians(metric))

    def pays(self, metric: str, baseline: str) -> Crossover | None:
        """From which length the latency, or the traced memory, is below a baseline's."""
        if metric == LATENCY:
            name = ratio_to(baseline)
            ratios = {n: self.interval(name, n) for n in self.samples.get(name, {})}
        else:
            own, others = self.medians(metric), self.medians(of_baseline(metric, baseline))
            ratios = {}
            for n in sorted(own.keys() & others.keys()):
                # A count of bytes is the same in every process. What takes none is cheaper.
                value = max(own[n][0], 1.0) / max(others[n][0], 1.0)
                ratios[n] = Interval(value, value, value, 1)
        return crossover(ratios, baseline)

    def cab_length(self, metric: str, baseline: str) -> float | None:
        """CAB's efficiency length; None where fewer than four lengths have both costs."""
        own = self.medians(metric)
        others = self.medians(of_baseline(metric, baseline))
        lengths = sorted(own.keys() & others.keys())
        if len(lengths) < 4:
            return None
        return cab_efficiency_length(
            lengths,
            [float(np.median(others[n])) for n in lengths],
            [float(np.median(own[n])) for n in lengths],
            skip=1 if metric == LATENCY else 0,
        )


def of_a_repeat(found: Interval) -> Interval:
    """Where the same sweep, made again, puts its value: a repeat is as uncertain as the value, so
    the interval is wider by the root of two, in the logarithm as it was made.
    """
    if not found.known or found.low <= 0:
        return found
    return cost_interval(found.value, math.sqrt(2) * math.log(found.high / found.value), found.n)


def curves_of(rows: pd.DataFrame) -> list[Curves]:
    """Curves by pattern, geometry, attention and phase, in the order of the rows."""
    rows = rows[rows["phase"].notna()]
    found = []
    groups = rows.groupby(["pattern", "scale", "attention", "phase"], sort=False, observed=True)
    for place, group in groups:
        pattern, scale, attention, phase = (str(part) for part in place)
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
        timed = group[(group["metric"] == LATENCY) & (group["status"] == "ok")]
        facts = [options_of(text) or {} for text in timed["environment"]]
        known = group[["length_q", "length_k"]].dropna().astype(int)
        found.append(
            Curves(
                attention,
                pattern,
                phase,
                samples,
                ended,
                noisy=sum(bool(f.get("noisy")) for f in facts),
                points=len(facts),
                checked=frozenset(str(f.get("checked_against", "nothing known")) for f in facts),
                setting=Setting(scale, str(group["device"].iloc[0])),
                origin=origin_of(group),
                baseline=baseline_of(group),
                geometry=_geometry(group),
                keys=dict(known.itertuples(index=False, name=None)),
                left_out={
                    str(name): str(why)
                    for f in facts
                    for name, why in f.get("baselines_left_out", {}).items()
                },
            )
        )
    return found


def baseline_of(rows: pd.DataFrame) -> str:
    """What the newest of some rows were timed in turns with; rows from before there was a choice
    say nothing.
    """
    for text in reversed(rows["environment"].dropna().astype(object).unique().tolist()):
        name = (options_of(text) or {}).get("baseline")
        if name:
            return str(name)
    return BASELINE


def _geometry(rows: pd.DataFrame) -> Geometry | None:
    known = rows[["batch", "heads", "head_dim", "dtype"]].dropna()
    if known.empty:
        return None
    batch, heads, head_dim, dtype = known.iloc[0]
    return Geometry(int(batch), int(heads), int(head_dim), str(dtype))
