"""From which length a mechanism pays: where its cost falls below that of a named baseline.

Two answers. The measured one makes no model: ratios of cost by length, and the crossing between
the last length that is dearer and the first from which on all are cheaper, interpolated in the
logarithms of both. CAB's fits a parabola to the baseline and a line to the mechanism, and solves
for the crossing, inside or outside of what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from cab.scoring.intervals import LEVEL, Floats, Interval, cost_interval

NOT_REACHED = math.inf


@dataclass(frozen=True)
class Crossover:
    """From which length on an entry costs less than its baseline.

    ``length``, ``low`` and ``high`` are infinite where that is not reached within what was measured
    and equal to the shortest measured length where it holds from there on.
    """

    baseline: str
    length: float
    low: float
    high: float
    shortest: int
    longest: int

    @property
    def reached(self) -> bool:
        """Whether the entry is cheaper at the longest length measured."""
        return math.isfinite(self.length)

    def words(self) -> str:
        """``from 1,200 (900 to 2,100)``, ``not up to 8,192`` or ``at all lengths from 256``."""
        if not self.reached:
            told = f"not up to {self.longest:,}"
            return (
                f"{told} (perhaps from {_round(self.low):,})" if math.isfinite(self.low) else told
            )
        if self.high <= self.shortest:
            return f"at all lengths from {self.shortest:,}"
        if math.isnan(self.low):
            return f"from {_round(self.length):,}"
        low = f"below {self.shortest:,}" if self.low <= self.shortest else f"{_round(self.low):,}"
        high = f"{_round(self.high):,}" if math.isfinite(self.high) else f"beyond {self.longest:,}"
        return f"from {_round(self.length):,} ({low} to {high})"


def _round(length: float) -> int:
    """Two digits: more would say more than interpolation knows."""
    digits = 10 ** max(0, math.floor(math.log10(length)) - 1)
    return int(round(length / digits) * digits)


def crossover(ratios: Mapping[int, Interval], baseline: str) -> Crossover | None:
    """The measured crossing of ratios of cost to the baseline's, by length.

    The interval is that of the crossing when all ratios lie at the upper, or all at the lower, end
    of their intervals; with a single process it is not known.
    """
    known = {length: r for length, r in sorted(ratios.items()) if r.n and r.value > 0}
    if not known:
        return None
    lengths = np.array(list(known), dtype=float)
    value = _crossing(lengths, np.array([r.value for r in known.values()]))
    low = high = math.nan
    if all(r.known for r in known.values()):
        low = _crossing(lengths, np.array([r.low for r in known.values()]))
        high = _crossing(lengths, np.array([r.high for r in known.values()]))
    return Crossover(baseline, value, low, high, int(lengths[0]), int(lengths[-1]))


def _crossing(lengths: Floats, ratios: Floats) -> float:
    cheaper = ratios < 1
    if not cheaper[-1]:
        return NOT_REACHED
    dearer = np.flatnonzero(~cheaper)
    if not len(dearer):
        return float(lengths[0])
    last = int(dearer[-1])
    x, y = np.log(lengths[last : last + 2]), np.log(ratios[last : last + 2])
    return float(np.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1])))


def ratio_of(entry: Interval, baseline: Interval) -> Interval:
    """Ratio of two costs that were not timed in turns, with Welch and Satterthwaite's interval."""
    unknown = Interval(math.nan, math.nan, math.nan, 0)
    if not (entry.n and baseline.n and entry.value > 0 and baseline.value > 0):
        return unknown
    value = entry.value / baseline.value
    n = min(entry.n, baseline.n)
    if not (entry.known and baseline.known and entry.low > 0 and baseline.low > 0):
        return Interval(value, math.nan, math.nan, n)
    errors = []
    for cost in (entry, baseline):
        half = math.log(cost.high / cost.value)
        errors.append((half / float(stdtrit(cost.n - 1, 0.5 + LEVEL / 2)), cost.n - 1))
    total = sum(error**2 for error, _ in errors)
    if total == 0:
        return Interval(value, value, value, n)
    freedom = total**2 / sum(error**4 / f for error, f in errors)
    return cost_interval(value, float(stdtrit(freedom, 0.5 + LEVEL / 2)) * math.sqrt(total), n)


def cab_efficiency_length(
    lengths: Sequence[float], baseline: Sequence[float], candidate: Sequence[float], skip: int = 0
) -> float:
    """CAB's efficiency length: where a line through the mechanism's costs meets a parabola through
    the baseline's (least squares).

    Args:
        lengths: tokens, ascending.
        baseline: its cost at every length.
        candidate: the mechanism's.
        skip: lengths at the beginning that the line does not use; CAB leaves out one for time.

    Returns:
        The larger root; infinite where the curves do not meet.
    """
    x = np.asarray(lengths, dtype=float)
    a, b, c = np.polyfit(x, np.asarray(baseline, dtype=float), 2)
    slope, offset = np.polyfit(x[skip:], np.asarray(candidate, dtype=float)[skip:], 1)
    roots = np.roots([a, b - slope, c - offset])
    real = [float(root.real) for root in roots if abs(root.imag) < 1e-9]
    return max(real, default=NOT_REACHED)
