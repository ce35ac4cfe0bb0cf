"""Correlations of ranks between patterns, tasks and scales, with n and an interval.

Spearman's rho over the entries that two columns share; the interval is Fisher's z with the
standard error of Bonett and Wright (2000) for rho, ``sqrt((1 + rho²/2) / (n - 3))``. Below five
entries there is no statement: CAB's published -1.0 rests on two (ERRATA.md, T11).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from cab.scoring.intervals import LEVEL, NAN, Floats, Interval

LEAST = 5
"""Entries that a correlation needs"""


@dataclass(frozen=True)
class Correlation:
    """Of two columns; refused, with bounds that are not a number, where too few entries share them
    or one of them is constant.
    """

    first: str
    second: str
    rho: Interval

    @property
    def n(self) -> int:
        """Entries that both columns have."""
        return self.rho.n

    @property
    def refused(self) -> bool:
        """Whether there is no statement."""
        return not math.isfinite(self.rho.value)


def rank_correlation(first: Mapping[str, float], second: Mapping[str, float]) -> Interval:
    """Spearman's rho of values by entry, with its interval; not a number below `LEAST` entries."""
    shared = sorted(
        name
        for name in first.keys() & second.keys()
        if math.isfinite(first[name]) and math.isfinite(second[name])
    )
    n = len(shared)
    refused = Interval(NAN, NAN, NAN, n)
    if n < LEAST:
        return refused
    x, y = (_ranks(np.array([column[name] for name in shared])) for column in (first, second))
    if x.std() == 0 or y.std() == 0:
        return refused
    rho = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    half = float(ndtri(0.5 + LEVEL / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    # At |rho| = 1 Fisher's z is infinite; the smallest step away from it stands in.
    step = 6 / (n * (n**2 - 1))
    z = math.atanh(max(-1 + step, min(1 - step, rho)))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Interval(rho, min(low, rho), max(high, rho), n)


def correlations(columns: Mapping[str, Mapping[str, float]]) -> list[Correlation]:
    """Of every two columns (patterns, tasks) of values by entry."""
    return [
        Correlation(a, b, rank_correlation(columns[a], columns[b]))
        for a, b in itertools.combinations(columns, 2)
    ]


def without(
    columns: Mapping[str, Mapping[str, float]], entries: Collection[str]
) -> dict[str, dict[str, float]]:
    """Columns less some entries: controls such as ``none`` would make any two columns agree."""
    return {
        name: {entry: value for entry, value in column.items() if entry not in entries}
        for name, column in columns.items()
    }


def _ranks(values: Floats) -> Floats:
    """From 1, equal values sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=float)
