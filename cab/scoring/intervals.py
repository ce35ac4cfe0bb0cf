"""Intervals: every number on a leaderboard has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.95
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A point estimate with a confidence interval; ``n`` units of replication went in.

    With a single unit nothing is known of the spread: the bounds are not a number.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def overlaps(self, other: Interval) -> bool:
        """Whether the two cannot be told apart by their intervals (an unknown one never can)."""
        if not (self.known and other.known):
            return True
        return self.low <= other.high and other.low <= self.high


def mean_interval(values: Sequence[float] | Floats, level: float = LEVEL) -> Interval:
    """Mean with Student's t interval; the values are independent replicates (training seeds)."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    mean = float(x.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stdtrit(n - 1, 0.5 + level / 2) * x.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def process_interval(
    processes: Sequence[Sequence[float] | Floats], level: float = LEVEL
) -> Interval:
    """Median of the processes' medians; bootstrap over processes, then over samples within.

    The process is the unit of replication for speed: the spread between processes is larger than
    the spread within one.
    """
    groups = [np.asarray(samples, dtype=float) for samples in processes if len(samples)]
    medians = [float(np.median(samples)) for samples in groups]
    if not medians:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    value = float(np.median(medians))
    if len(medians) < 2:
        return Interval(value, float("nan"), float("nan"), len(medians))
    generator = np.random.default_rng(0)
    draws = 1000
    # Resampled medians of every process, (processes, draws); a draw of processes picks among them.
    resampled = np.stack([_resampled_medians(x, draws, generator) for x in groups])
    chosen = generator.integers(len(groups), size=(len(groups), draws))
    sample = np.median(np.take_along_axis(resampled, chosen, axis=0), axis=0)
    low, high = np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, min(float(low), value), max(float(high), value), len(medians))


def _resampled_medians(samples: Floats, draws: int, generator: np.random.Generator) -> Floats:
    picked = samples[generator.integers(len(samples), size=(draws, len(samples)))]
    return np.asarray(np.median(picked, axis=1), dtype=float)


def hierarchical_interval(
    groups: Sequence[Sequence[float] | Floats], level: float = LEVEL, draws: int = DRAWS
) -> Interval:
    """Mean over groups (tasks) of the mean over members (seeds); bootstrap over both levels."""
    arrays = [np.asarray(group, dtype=float) for group in groups]
    if not arrays:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    value = float(np.mean([a.mean() for a in arrays]))
    seeds = min(len(a) for a in arrays)
    if seeds < 2:
        return Interval(value, float("nan"), float("nan"), seeds)
    generator = np.random.default_rng(0)
    # Resampled means of every task, drawn at once: (draws, tasks).
    means = np.stack(
        [a[generator.integers(len(a), size=(draws, len(a)))].mean(1) for a in arrays], axis=1
    )
    chosen = generator.integers(len(arrays), size=(draws, len(arrays)))
    sample = np.take_along_axis(means, chosen, axis=1).mean(1)
    low, high = np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, min(float(low), value), max(float(high), value), seeds)
