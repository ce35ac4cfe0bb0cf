"""Signal to noise of a task: how far entries lie apart on it, over what seeds alone do to a score.

After Signal and Noise (Heineman et al. 2025, arXiv 2508.13144): a task with a higher ratio decides
more reliably between models. The paper's signal is the largest difference between two models, which
grows with their number, and its noise the spread over the last checkpoints of one run; here the
signal is the standard deviation between entries and the noise that between seeds, as components of
variance (Fisher 1925). What a seed does to all entries alike takes no part, since entries are
compared under one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import fdtri

from cab.scoring.intervals import LEVEL, NAN, UNKNOWN, Floats, Interval


@dataclass(frozen=True)
class SignalToNoise:
    """Of one task."""

    signal: float
    """Standard deviation between entries, less what the noise of their means adds; 0 where they
    lie no further apart than noise explains"""
    noise: float
    """Standard deviation of a score between seeds, less what a seed does to all entries"""
    ratio: Interval
    """Signal over noise, with the interval of the F distribution; ``n``: entries"""
    seeds: int


def signal_to_noise(grid: Floats) -> SignalToNoise:
    """Of scores (entries, seeds), none of them missing.

    With e entries, s seeds, MB the mean square between entries and MR the residual one after
    entries and seeds, ``noise² = MR`` and ``signal² = max(0, (MB - MR) / s)``. Below two entries
    or seeds nothing is known (not a number).
    """
    entries, seeds = grid.shape
    if entries < 2 or seeds < 2:
        return SignalToNoise(NAN, NAN, UNKNOWN, seeds)
    means = grid.mean(axis=1)
    residuals = grid - means[:, None] - grid.mean(axis=0)[None, :] + grid.mean()
    freedom = (entries - 1) * (seeds - 1)
    residual = float((residuals**2).sum()) / freedom
    between = seeds * float(means.var(ddof=1))
    signal = math.sqrt(max(0.0, (between - residual) / seeds))
    noise = math.sqrt(residual)
    if residual == 0:
        ratio = math.inf if between > 0 else NAN
        return SignalToNoise(signal, noise, Interval(ratio, NAN, NAN, entries), seeds)
    found = between / residual
    low, high = (
        _ratio(found / float(fdtri(entries - 1, freedom, p)), seeds)
        for p in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2)
    )
    return SignalToNoise(signal, noise, Interval(_ratio(found, seeds), low, high, entries), seeds)


def _ratio(mean_squares: float, seeds: int) -> float:
    return math.sqrt(max(0.0, (mean_squares - 1) / seeds))
