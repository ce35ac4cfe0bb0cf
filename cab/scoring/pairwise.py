"""Who beats whom: every two ranked entries compared, in general and on these tasks.

All pairs of a board are one family under Holm's correction (1979): of all claims that a matrix
makes, one or more are wrong in at most 5 % of boards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cab.scoring.intervals import NAN, Floats
from cab.scoring.ranks import ALPHA, Pairs, holm


class Relation(StrEnum):
    """What is known of one entry over another; its value is what a matrix shows."""

    BETTER = "+"
    """In general: on tasks of this kind"""
    BETTER_HERE = ">"
    """On these tasks; others may swap the two"""
    SAME = "."
    """Not distinguishable, even on these tasks"""
    WORSE_HERE = "<"
    WORSE = "-"
    UNKNOWN = "?"
    """Not distinguishable in general, and a single seed in common tells nothing of these tasks"""
    ITSELF = "\\"


@dataclass(frozen=True)
class Pairwise:
    """All pairs of some entries, ``[i, j]`` of i over j."""

    entries: tuple[str, ...]
    """From the best index down"""
    difference: Floats
    p_here: Floats
    """Corrected for all pairs; not a number on the diagonal"""
    p_general: Floats
    """Not a number with a single task"""
    seeds: tuple[int, int]
    """Least and largest number of distinct seeds behind a p, over tasks"""

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return len(self.entries) * (len(self.entries) - 1) // 2

    def relation(self, one: int, other: int) -> Relation:
        """What is known of two entries, by their places."""
        if one == other:
            return Relation.ITSELF
        better = self.difference[one, other] > 0
        if self.p_general[one, other] < ALPHA:
            return Relation.BETTER if better else Relation.WORSE
        if self.p_here[one, other] < ALPHA:
            return Relation.BETTER_HERE if better else Relation.WORSE_HERE
        if np.isnan(self.p_here[one, other]):
            return Relation.UNKNOWN
        return Relation.SAME

    def row(self, one: int) -> list[Relation]:
        """What is known of an entry over all, itself included, in their order."""
        return [self.relation(one, other) for other in range(len(self.entries))]


def pairwise(pairs: Pairs, tasks: int) -> Pairwise:
    """The pairs with their p-values corrected for all of them.

    Args:
        pairs: of a board.
        tasks: how many it has; one says nothing of others, whatever its seeds say.
    """
    here, general = _corrected(pairs.p_here), _corrected(pairs.p_general)
    if tasks == 1:
        general = np.full(general.shape, NAN)
    return Pairwise(pairs.entries, pairs.difference, here, general, pairs.seeds)


def _corrected(p: Floats) -> Floats:
    size = len(p)
    upper = np.triu_indices(size, k=1)
    found = np.full((size, size), NAN)
    found[upper] = holm(p[upper])
    return np.fmin(found, found.T)
