"""What is distinguishable: all pairs of entries, Holm's correction, intervals of ranks, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cab.scoring.intervals import LEVEL, NAN, Floats, p_values
from cab.scoring.task_scores import TaskScores, mean_of_known

ALPHA = 1 - LEVEL
Matrix = NDArray[np.bool_]


@dataclass(frozen=True)
class Differences:
    """Mean differences of all pairs, their squared standard errors and degrees of freedom; all
    ``[i, j]`` of i over j.
    """

    mean: Floats
    variance: Floats
    freedom: Floats

    def p_values(self) -> Floats:
        """Of no difference, two-sided, under Student's t."""
        return p_values(self.mean, self.variance, self.freedom)


@dataclass(frozen=True)
class Pairs:
    """Differences of index between entries that count on all tasks, ``[i, j]`` of i over j, under
    the seeds that both have.
    """

    entries: tuple[str, ...]
    difference: Floats
    p_general: Floats
    """Of no difference on tasks of this kind: paired t test over tasks"""
    p_here: Floats
    """Of no difference on these tasks: paired t tests over seeds, added up over tasks"""
    general: Differences
    """What ``p_general`` is of"""
    here: Differences
    """What ``p_here`` is of"""
    seeds: tuple[int, int]
    """Least and largest number of distinct seeds that two entries have in common on a task"""

    def index(self, entry: str) -> int:
        """Place of an entry in the matrices."""
        return self.entries.index(entry)

    def known(self, entry: str) -> bool:
        """Whether there is a test of the entry against any other, or no other."""
        own = self.index(entry)
        p = np.delete(self.p_general[own], own)
        return bool(np.isfinite(p).any()) if len(p) else bool(np.isfinite(self.p_general[own, own]))


def all_pairs(scores: Sequence[TaskScores], entries: Sequence[str]) -> Pairs:
    """Compare entries that count in all of some patterns, paired by task and by the seeds that both
    have.

    Every pattern counts alike, and within it every task. Where a pattern has one task, the spread
    over its seeds takes the place of that over tasks. With a single seed nothing is known of these
    tasks (p is not a number); the spread between several tasks holds that of their runs.
    """
    parts = [_pattern(part, entries) for part in scores if part.tasks]
    size = len(entries)
    if not (parts and size):
        empty = np.full((size, size), NAN)
        nothing = Differences(empty, empty, empty)
        return Pairs(tuple(entries), empty, empty, empty, nothing, nothing, (0, 0))
    general = _mean([general for general, _ in parts])
    here = _mean([here for _, here in parts])
    p_here, p_general = here.p_values(), general.p_values()
    return Pairs(
        tuple(entries), here.mean, p_general, p_here, general, here, _common(scores, entries)
    )


def _common(scores: Sequence[TaskScores], entries: Sequence[str]) -> tuple[int, int]:
    """Least and largest number of seeds that two of the entries share on a task.

    Seeds that count are the first ones, so two entries share as many as the one with fewer has.
    """
    found = []
    for part in scores:
        rows = [part.entries.index(entry) for entry in entries]
        for task in part.tasks:
            counts = np.sort((~np.isnan(part.values[task][rows])).sum(axis=1))
            found += [int(counts[0]), int(counts[-2:][0])]
    return min(found), max(found)


def _pattern(scores: TaskScores, entries: Sequence[str]) -> tuple[Differences, Differences]:
    """Differences in general and on these tasks."""
    rows = [scores.entries.index(entry) for entry in entries]
    tasks = [task_differences(scores.values[task][rows]) for task in scores.tasks]
    here = _mean(tasks)
    if len(tasks) == 1:
        return here, here
    by_task = np.stack([task.mean for task in tasks])
    variance = by_task.var(axis=0, ddof=1) / len(tasks)
    freedom = np.full(variance.shape, float(len(tasks) - 1))
    return Differences(here.mean, variance, freedom), here


def task_differences(grid: Floats) -> Differences:
    """Of scores (entries, seeds), paired by the seeds that both have."""
    difference = grid[:, None, :] - grid[None, :, :]
    seeds = (~np.isnan(difference)).sum(axis=2)
    mean = mean_of_known(difference)
    squares = mean_of_known((difference - mean[:, :, None]) ** 2)
    # The mean's squared error: squares are over n, the variance over n - 1.
    variance = np.where(seeds > 1, squares / np.maximum(seeds - 1, 1), NAN)
    return Differences(mean, variance, np.maximum(seeds - 1, 0).astype(float))


def _mean(parts: Sequence[Differences]) -> Differences:
    """Mean of independent differences, as `intervals.combined` for single numbers."""
    shares = np.stack([part.variance for part in parts]) / len(parts) ** 2
    freedoms = np.stack([part.freedom for part in parts])
    total = shares.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (shares**2 / freedoms).sum(axis=0)
    freedom = np.where(total == 0, freedoms.min(axis=0), freedom)
    return Differences(np.stack([p.mean for p in parts]).mean(axis=0), total, freedom)


def holm(p: Floats) -> Floats:
    """Holm's adjusted p-values (1979) of one family; what is not a number stays so.

    Sorted ``p_(1) <= ... <= p_(m)`` become ``max_(j <= i) min(1, (m - j + 1) p_(j))``: rejecting
    those below 5 % makes one or more wrong claims in at most 5 % of families.
    """
    p = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    adjusted = np.full(p.shape, NAN)
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def significant_pairs(pairs: Pairs) -> Matrix:
    """Which entries differ in general, all pairs being one family under Holm's correction."""
    size = len(pairs.entries)
    upper = np.triu_indices(size, k=1)
    adjusted = np.full((size, size), NAN)
    adjusted[upper] = holm(pairs.p_general[upper])
    both = np.fmin(adjusted, adjusted.T)
    return np.asarray(both < ALPHA)


def rank_interval(pairs: Pairs, entry: str, *, here: bool = False) -> tuple[int, int]:
    """Ranks that an entry may have: below all that are better beyond doubt, above all worse ones.

    Comparisons with the others are one family (Holm), so that the interval misses the true rank in
    at most 5 % of boards.
    """
    own = pairs.index(entry)
    others = np.arange(len(pairs.entries)) != own
    p = (pairs.p_here if here else pairs.p_general)[own]
    differs = np.zeros(len(p), dtype=bool)
    differs[others] = holm(p[others]) < ALPHA
    better = int((differs & (pairs.difference[own] < 0)).sum())
    worse = int((differs & (pairs.difference[own] > 0)).sum())
    return 1 + better, len(pairs.entries) - worse


def groups(order: Sequence[str], pairs: Pairs, differs: Matrix) -> list[tuple[str, ...]]:
    """Largest runs of entries, in order of the index, of which no two differ.

    These are the bars of a critical-difference picture; an entry that differs from both of its
    neighbours stands in no run.
    """
    found: list[tuple[int, int]] = []
    places = [pairs.index(entry) for entry in order]
    for first in range(len(places)):
        last = first
        while last + 1 < len(places) and not any(
            differs[places[k], places[last + 1]] for k in range(first, last + 1)
        ):
            last += 1
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return [tuple(order[first : last + 1]) for first, last in found]
