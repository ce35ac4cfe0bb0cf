"""What a board can tell: how well its tasks separate entries, what each of them decides, which
ranks the data separate, who beats whom, and what difference it could have seen.

Everything here is of the entries that have an index, which are the ranked ones; a task's signal is
of all that have the task in full. Where it is about mechanisms - signal, contributions, what could
be seen - ``none`` and ``softmax-exact`` are left out: the first would make any task look sharp, the
second is softmax again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cab.scoring.adjacent import Adjacent, adjacent
from cab.scoring.boards import uninformative
from cab.scoring.contribution import Contribution, contributions
from cab.scoring.detectable import Detectable, detectable
from cab.scoring.pairwise import Pairwise, pairwise
from cab.scoring.quality import QualityBoard
from cab.scoring.signal import SignalToNoise, signal_to_noise


@dataclass(frozen=True)
class Resolution:
    """Of the board of one track."""

    tasks: tuple[str, ...]
    seeds: tuple[int, int]
    """Least and largest number of distinct seeds that a task has"""
    mechanisms: tuple[str, ...]
    """Ranked entries that are no controls but softmax, from the best down"""
    unranked: tuple[str, ...]
    """Entries that lack a result, of which nothing is said here"""
    signals: Mapping[str, SignalToNoise]
    """By task, of all mechanisms that have it in full, ranked or not"""
    contributions: tuple[Contribution, ...]
    """A task each; none where there are too few mechanisms"""
    adjacent: Adjacent
    pairwise: Pairwise
    detectable: Detectable

    @property
    def entries(self) -> tuple[str, ...]:
        """All ranked entries, from the best down."""
        return self.pairwise.entries

    def contribution(self, task: str) -> Contribution | None:
        """Of one task; None where nothing is known."""
        return next((c for c in self.contributions if c.task == task), None)


def resolution(board: QualityBoard) -> Resolution | None:
    """What a board can tell; None where it ranks fewer than two entries."""
    pairs, scores = board.pairs, board.scores
    if pairs is None or len(pairs.entries) < 2:
        return None
    aside = uninformative()
    ranked = [s for s in board.standings if s.rank is not None]
    mechanisms = tuple(s.entry for s in ranked if s.attention not in aside)
    rows = [scores.entries.index(entry) for entry in mechanisms]
    return Resolution(
        tasks=scores.tasks,
        seeds=pairs.seeds,
        mechanisms=mechanisms,
        unranked=tuple(s.entry for s in board.standings if s.rank is None),
        signals={task: _signal(board, task, aside) for task in scores.tasks},
        contributions=contributions(scores.means()[rows], scores.tasks, mechanisms),
        adjacent=adjacent(pairs, len(scores.tasks)),
        pairwise=pairwise(pairs, len(scores.tasks)),
        detectable=detectable(pairs, len(scores.tasks), mechanisms),
    )


def _signal(board: QualityBoard, task: str, aside: Collection[str]) -> SignalToNoise:
    scores = board.scores
    rows = [
        scores.entries.index(s.entry)
        for s in board.standings
        if s.attention not in aside and scores.complete(s.entry, task)
    ]
    return signal_to_noise(scores.values[task][rows])
