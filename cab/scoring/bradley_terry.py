"""Bradley and Terry's model of pairwise wins: a rating that needs no complete table.

    P(i beats j on a task) = 1 / (1 + exp(s_j - s_i)),   s_softmax = 0

A task is a game between every two entries; one whose interval over seeds contains zero is a draw,
half a win for each. Every pair also plays one drawn game more, which keeps the strength of an entry
that wins everything finite. Fitted by maximum likelihood (Newton's method), not by Elo's updates,
which depend on the order of the games.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from cab.controls import BASELINE
from cab.scoring.intervals import NAN, Estimate, Floats, Interval
from cab.scoring.ranks import ALPHA, task_differences
from cab.scoring.task_scores import TaskScores


@dataclass(frozen=True)
class Rating:
    """Strength of an entry, and the chance that it beats softmax on a task."""

    strength: Interval
    chance: Interval
    games: int
    """Tasks that it has in full"""


def ratings(scores: TaskScores) -> Mapping[str, Rating]:
    """Rate every entry.

    The strength counts a task that the entry lacks as lost to all that have it, so that leaving one
    out never helps; the upper end of its interval is that of the strength on the tasks that it
    has. Intervals are of the jackknife over tasks, with Student's t.
    """
    entries, count = scores.entries, len(scores.tasks)
    if not count:
        return {}
    played = np.stack([_games(scores, task) for task in scores.tasks])
    has = np.stack([(~np.isnan(scores.values[task])).any(axis=1) for task in scores.tasks])
    lost = np.where(np.isnan(played), _walkovers(has), played)
    strict, lenient = _jackknife(scores, lost), _jackknife(scores, played)
    found = {}
    for row, entry in enumerate(entries):
        bounds, upper = strict[row].interval(), lenient[row].interval()
        complete = bool(has[:, row].all())
        high = bounds.high if complete else float(np.fmax(bounds.high, upper.high))
        strength = Interval(bounds.value, bounds.low, high, count)
        chance = Interval(_chance(strength.value), _chance(strength.low), _chance(high), count)
        found[entry] = Rating(strength, chance, int(has[:, row].sum()))
    return found


def _chance(strength: float) -> float:
    return NAN if math.isnan(strength) else float(expit(strength))


def _games(scores: TaskScores, task: str) -> Floats:
    """Wins of i over j on a task: 1, 1/2 or 0; not a number where one of them does not count. One
    common seed separates nothing.
    """
    found = task_differences(scores.values[task])
    won = np.where(found.p_values() < ALPHA, np.where(found.mean > 0, 1.0, 0.0), 0.5)
    return np.where(np.isnan(found.mean), NAN, won)


def _walkovers(has: np.ndarray) -> Floats:
    """Games of entries that lack the task: lost to those that have it, drawn among themselves."""
    one, other = has[:, :, None], has[:, None, :]
    return np.where(one & ~other, 1.0, np.where(~one & other, 0.0, 0.5))


def _jackknife(scores: TaskScores, played: Floats) -> list[Estimate]:
    """Strengths with the variance that leaving out each task in turn shows."""
    count = len(played)
    anchor = scores.entries.index(BASELINE)
    whole = _fit(played, anchor)
    if count < 2:
        return [Estimate(float(s), NAN, 0, count) for s in whole]
    without = np.stack([_fit(np.delete(played, task, axis=0), anchor) for task in range(count)])
    variance = (count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    pairs = zip(whole, variance, strict=True)
    return [Estimate(float(s), float(v), count - 1, count) for s, v in pairs]


_STEPS = 100
_CONVERGED = 1e-10


def _fit(played: Floats, anchor: int) -> Floats:
    """Strengths of maximum likelihood, the anchor's being zero."""
    size = played.shape[1]
    games = (~np.isnan(played)).sum(axis=0) + 1.0
    wins = np.nansum(played, axis=0) + 0.5
    np.fill_diagonal(games, 0.0)
    np.fill_diagonal(wins, 0.0)
    free = np.arange(size) != anchor
    strengths = np.zeros(size)
    for _ in range(_STEPS):
        chance = expit(strengths[:, None] - strengths[None, :])
        slope = (wins - games * chance).sum(axis=1)
        curvature = games * chance * (1 - chance)
        hessian = np.diag(curvature.sum(axis=1)) - curvature
        step = np.zeros(size)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], slope[free])
        # Newton's step may overshoot far from the maximum.
        strengths = strengths + np.clip(step, -2.0, 2.0)
        if np.abs(step).max(initial=0.0) < _CONVERGED:
            break
    return strengths
