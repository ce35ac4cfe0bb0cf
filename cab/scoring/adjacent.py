"""Which adjacent ranks the data separate.

A ranking orders whatever it is given; it says something where neighbours differ by more than
chance. The marks before ranks say so of each neighbour by itself, and of k neighbours some would
seem to differ by chance: the counts corrected for all of them (Holm 1979) stand beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cab.scoring.intervals import NAN, Floats
from cab.scoring.ranks import ALPHA, Pairs, holm


@dataclass(frozen=True)
class Adjacent:
    """Neighbours in a ranking, counted by what is known of their difference."""

    ranks: int
    """Neighbours: one less than there are ranked entries"""
    general: int
    """Different on tasks of this kind, each by itself"""
    here: int
    """Different on these tasks, those in general among them"""
    general_corrected: int
    """The same with all neighbours as one family"""
    here_corrected: int
    known: bool
    """Whether there are seeds enough to tell"""

    @property
    def share(self) -> float:
        """Of neighbours, how many these tasks separate; not a number where there are none."""
        return self.here / self.ranks if self.ranks and self.known else float("nan")


def adjacent(pairs: Pairs, tasks: int) -> Adjacent:
    """Of pairs whose entries are in the order of their ranks.

    Args:
        pairs: of a board.
        tasks: how many it has; one says nothing of others, whatever its seeds say.
    """
    count = max(0, len(pairs.entries) - 1)
    general = np.diagonal(pairs.p_general, offset=1)
    here = np.diagonal(pairs.p_here, offset=1)
    if tasks == 1:
        general = np.full(general.shape, NAN)
    known = bool(count and (np.isfinite(here) | np.isfinite(general)).all())
    return Adjacent(
        count,
        _below(general),
        _either(general, here),
        _below(holm(general)),
        _either(holm(general), holm(here)),
        known,
    )


def _below(p: Floats) -> int:
    return int((p < ALPHA).sum())


def _either(general: Floats, here: Floats) -> int:
    return int(((general < ALPHA) | (here < ALPHA)).sum())
