"""The smallest difference that a design could have seen.

With so many seeds and tasks, and scores that vary as these do, a difference of index must be so
large that the t test which compares two entries finds it in `POWER` of boards (Cohen 1988). What is
not found and is smaller than that may well be there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, nctdtrinc, stdtrit

from cab.scoring.intervals import NAN, Floats
from cab.scoring.ranks import ALPHA, Differences, Pairs

POWER = 0.8


@dataclass(frozen=True)
class Detectable:
    """Differences of index that comparisons of two entries find in `POWER` of boards."""

    here: float
    """On these tasks; the median over pairs, not a number where nothing is known"""
    general: float
    """On tasks of this kind; not a number with a single task"""
    here_of_all: float
    """The same for a comparison that is one of all pairs of the board (Bonferroni, which is the
    first step of Holm's correction)"""
    general_of_all: float
    pairs_here: int
    """How many pairs the medians are over; of a single seed in common nothing is known here"""
    pairs_general: int


def detectable(pairs: Pairs, tasks: int, among: Collection[str]) -> Detectable:
    """Of the pairs of some entries.

    Args:
        pairs: all pairs of a board.
        tasks: how many the board has.
        among: entries whose pairs are looked at.
    """
    places = [n for n, entry in enumerate(pairs.entries) if entry in among]
    rows, columns = np.triu_indices(len(places), k=1)
    chosen = np.array(places, dtype=int)[rows], np.array(places, dtype=int)[columns]
    whole = len(pairs.entries) * (len(pairs.entries) - 1) // 2

    def typical(differences: Differences, p: Floats, alpha: float) -> float:
        known = np.isfinite(p[chosen])
        variance, freedom = differences.variance[chosen], differences.freedom[chosen]
        return _median(smallest(variance[known], freedom[known], alpha))

    def here(alpha: float) -> float:
        return typical(pairs.here, pairs.p_here, alpha)

    def general(alpha: float) -> float:
        return typical(pairs.general, pairs.p_general, alpha) if tasks > 1 else NAN

    family = ALPHA / max(1, whole)
    told = np.isfinite(pairs.p_here[chosen]), np.isfinite(pairs.p_general[chosen])
    return Detectable(here(ALPHA), general(ALPHA), here(family), general(family),
                      int(told[0].sum()), int(told[1].sum()))  # fmt: skip


def smallest(variance: Floats, freedom: Floats, alpha: float, power: float = POWER) -> Floats:
    """Differences that a two-sided t test finds with a power, element by element.

    With ν degrees of freedom and t the test's critical value, the non-centrality δ at which a
    non-central t stays below t with probability ``1 - power``, times the standard error. The
    variance is an estimate, and one of few degrees of freedom is mostly too small: it is divided by
    the median of χ²(ν)/ν, so that half of the results are too large and half too small.

    Args:
        variance: squared standard errors of differences, as estimated.
        freedom: their degrees of freedom.
        alpha: level of the test.
        power: how often the difference is to be found.
    """
    variance, freedom = np.asarray(variance, dtype=float), np.asarray(freedom, dtype=float)
    usual = variance / (chdtri(freedom, 0.5) / freedom)
    critical = stdtrit(freedom, 1 - alpha / 2)
    return np.asarray(nctdtrinc(freedom, 1 - power, critical) * np.sqrt(usual), dtype=float)


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else NAN
