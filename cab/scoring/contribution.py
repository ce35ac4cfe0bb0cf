"""What each task contributes to a ranking: its share of the index's spread, and how the ranking
changes without it.

The index is a mean over tasks, so its variance over entries is a sum over tasks of covariances with
it; a task on which entries lie far apart decides more than one on which they do not, though each
counts alike. A ranking is compared with the one without a task by Kendall's tau-b (1945).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cab.scoring.intervals import NAN, Floats

LEAST = 3
"""Entries below which no order is worth a word: two can only swap"""


@dataclass(frozen=True)
class Contribution:
    """Of one task to the ranking of some entries."""

    task: str
    share: float
    """Of the variance of the index over entries; shares add up to 1, and one below 0 belongs to a
    task that ranks against the others. Not a number where all indices are equal"""
    tau: float
    """Kendall's tau-b between the ranking and that without the task; not a number with one task"""
    swapped: int
    """Pairs of entries that stand the other way round without the task"""
    pairs: int
    moved: str
    """The entry whose rank changes most; empty: none does"""
    places: int
    """By how many ranks it moves, up (above 0) or down, when the task is left out"""


def contributions(
    means: Floats, tasks: Sequence[str], entries: Sequence[str]
) -> tuple[Contribution, ...]:
    """Of every task, in their order; none below `LEAST` entries.

    Args:
        means: scores (entries, tasks), none missing.
        tasks: names.
        entries: names.
    """
    if len(entries) < LEAST:
        return ()
    index = means.mean(axis=1)
    centred = index - index.mean()
    spread = float((centred**2).sum())
    found = []
    for place, task in enumerate(tasks):
        column = means[:, place]
        own = float(((column - column.mean()) * centred).sum()) / len(tasks)
        share = own / spread if spread > 0 else NAN
        found.append(_contribution(task, share, index, np.delete(means, place, axis=1), entries))
    return tuple(found)


def _contribution(
    task: str, share: float, index: Floats, others: Floats, entries: Sequence[str]
) -> Contribution:
    pairs = len(entries) * (len(entries) - 1) // 2
    if not others.shape[1]:
        return Contribution(task, share, NAN, 0, pairs, "", 0)
    without = others.mean(axis=1)
    upper = np.triu_indices(len(entries), k=1)
    agree = (_signs(index) * _signs(without))[upper]
    moves = _ranks(index) - _ranks(without)
    most = int(np.abs(moves).argmax())
    return Contribution(
        task,
        share,
        kendall(index, without),
        int((agree < 0).sum()),
        pairs,
        entries[most] if moves[most] else "",
        int(moves[most]),
    )


def kendall(one: Floats, other: Floats) -> float:
    """Kendall's tau-b: pairs in the same order less pairs in the other one, over the geometric mean
    of the pairs that are no ties on either side; not a number where one side is constant.
    """
    a, b = _signs(one), _signs(other)
    untied = float((a != 0).sum()), float((b != 0).sum())
    if not (untied[0] and untied[1]):
        return NAN
    return float((a * b).sum()) / float(np.sqrt(untied[0] * untied[1]))


def _signs(values: Floats) -> Floats:
    return np.sign(values[:, None] - values[None, :])


def _ranks(values: Floats) -> Floats:
    """From 1 for the largest; equal values share the best rank."""
    return np.asarray((values[None, :] > values[:, None]).sum(axis=1) + 1)
