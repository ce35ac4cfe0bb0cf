"""Intervals: every number on a leaderboard has one.

All are Student's t intervals on the unit of replication, whose spread holds the spread of
whatever lies below it: tasks (with their seeds) for an index, seeds for a score, processes (with
their calls) for a cost. They are what a bootstrap over the same units tends to, and do not share
its weakness where units are few: percentiles over three seeds cover the truth three times in four,
these 19 times in 20 (docs/scoring.md has the measurements).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.95
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A point estimate with a confidence interval; ``n`` units of replication went in.

    With a single unit nothing is known of the spread: the bounds are not a number. With several
    the bounds of a cost are none where they would say nothing (`cost_interval`).
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def unsure(self) -> bool:
        """Whether replicates are too far apart for an interval."""
        return self.n > 1 and math.isfinite(self.value) and not self.known

    def overlaps(self, other: Interval) -> bool:
        """Whether the two cannot be told apart by their intervals (an unknown one never can)."""
        if not (self.known and other.known):
            return True
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Estimate:
    """A mean with its squared standard error and the degrees of freedom of that error."""

    value: float
    variance: float
    freedom: float
    n: int = 0
    """Units of replication, for display"""

    def interval(self, level: float = LEVEL) -> Interval:
        """``value ± t sqrt(variance)``."""
        if not (self.freedom > 0 and math.isfinite(self.variance)):
            return Interval(self.value, NAN, NAN, self.n)
        half = float(stdtrit(self.freedom, 0.5 + level / 2)) * math.sqrt(self.variance)
        return Interval(self.value, self.value - half, self.value + half, self.n)

    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the mean is zero; not a number where unknown."""
        return float(p_values(np.array(self.value), np.array(self.variance), self.freedom))


UNKNOWN = Interval(NAN, NAN, NAN, 0)


def p_values(value: Floats, variance: Floats, freedom: Floats | float) -> Floats:
    """Two-sided p-values of ``value / sqrt(variance)`` under Student's t, element by element.

    Without any spread a difference is certain and its absence too.
    """
    freedom = np.broadcast_to(np.asarray(freedom, dtype=float), value.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(value) / np.sqrt(variance)
        p = 2 * stdtr(np.where(freedom > 0, freedom, np.nan), -t)
    p = np.where((variance == 0) & (freedom > 0), np.where(value == 0, 1.0, 0.0), p)
    return np.asarray(p, dtype=float)


def mean_estimate(values: Sequence[float] | Floats) -> Estimate:
    """Of independent replicates."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n == 0:
        return Estimate(NAN, NAN, 0, 0)
    variance = float(x.var(ddof=1)) / n if n > 1 else NAN
    return Estimate(float(x.mean()), variance, n - 1, n)


def mean_interval(values: Sequence[float] | Floats, level: float = LEVEL) -> Interval:
    """Mean with Student's t interval; the values are independent replicates (training seeds)."""
    return mean_estimate(values).interval(level)


def combined(parts: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates, each counting alike, with Welch and Satterthwaite's freedom.

    Satterthwaite (1946): the variance of the mean of k estimates is ``A = sum a_i`` with
    ``a_i = variance_i / k²``, its degrees of freedom ``A² / sum(a_i² / freedom_i)``.
    """
    count = len(parts)
    if not count:
        return Estimate(NAN, NAN, 0, 0)
    value = sum(part.value for part in parts) / count
    n = min(part.n for part in parts)
    if any(not (p.freedom > 0 and math.isfinite(p.variance)) for p in parts):
        return Estimate(value, NAN, 0, n)
    shares = [part.variance / count**2 for part in parts]
    total = sum(shares)
    if total == 0:
        return Estimate(value, 0.0, min(part.freedom for part in parts), n)
    freedom = total**2 / sum(a**2 / p.freedom for a, p in zip(shares, parts, strict=True))
    return Estimate(value, total, freedom, n)


def estimate_here(groups: Sequence[Sequence[float] | Floats]) -> Estimate:
    """Mean over these tasks of the mean over seeds: what repeating the same tasks would change."""
    return combined([mean_estimate(group) for group in groups])


def estimate_general(groups: Sequence[Sequence[float] | Floats]) -> Estimate:
    """Mean over tasks of the mean over seeds: what other tasks of this kind would change, too.

    The spread between the tasks' means contains that between seeds, however many there are of each.
    With one task only its seeds are left to judge by.
    """
    if not groups:
        return Estimate(NAN, NAN, 0, 0)
    seeds = min(len(group) for group in groups)
    if len(groups) == 1:
        return mean_estimate(groups[0])
    means = mean_estimate([float(np.mean(np.asarray(group, dtype=float))) for group in groups])
    return Estimate(means.value, means.variance, means.freedom, seeds)


def process_interval(
    processes: Sequence[Sequence[float] | Floats], level: float = LEVEL
) -> Interval:
    """Median of the processes' medians, with an interval from the spread between processes.

    The process is the unit of replication for speed: the spread between processes is larger than
    the spread within one. Costs are positive and vary by factors, so the interval is symmetric in
    the logarithm; a median of n normal values varies more than their mean by `_MEDIAN`. One that is
    wider than `WIDEST` is not known: see `cost_interval`.
    """
    medians = [float(np.median(np.asarray(x, dtype=float))) for x in processes if len(x)]
    if not medians:
        return UNKNOWN
    value, n = float(np.median(medians)), len(medians)
    if n < 2:
        return Interval(value, NAN, NAN, n)
    if min(medians) <= 0:
        constant = min(medians) == max(medians)
        return Interval(value, value, value, n) if constant else Interval(value, NAN, NAN, n)
    error = math.sqrt(log_cost_variance(medians))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
    return cost_interval(value, half, n)


WIDEST = 10.0
"""Ratio of its ends beyond which an interval of a cost says nothing but that others kept the
machine busy: of three processes, a single one that was held up gives ends that are many powers of
ten apart"""


def cost_interval(value: float, half: float, n: int) -> Interval:
    """Of a cost, symmetric in the logarithm; without bounds where they would be too far apart.

    Args:
        value: above zero.
        half: half of its width, in the logarithm.
        n: processes.
    """
    if 2 * half > math.log(WIDEST):
        return Interval(value, NAN, NAN, n)
    return Interval(value, value * math.exp(-half), value * math.exp(half), n)


def log_cost_variance(medians: Sequence[float] | Floats) -> float:
    """Squared standard error of the logarithm of the median over processes."""
    n = len(medians)
    if min(medians) == max(medians):  # which logarithms would miss by a rounding error
        return 0.0
    factor = _MEDIAN.get(n, math.pi / 2)
    return factor * float(np.var(np.log(medians), ddof=1)) / n


_MEDIAN = {2: 1.0, 3: 1.3460, 4: 1.1925, 5: 1.4339, 6: 1.2882, 7: 1.4728, 8: 1.3453, 9: 1.4949}
"""n times the variance of the median of n standard normal values; pi/2 for many."""
