"""Leaderboards with known truth, for the calibration of intervals.

Entry e scores ``mean_e + effect_et + noise_ets`` on task t under seed s. On tasks of this kind its
index is ``mean_e``; on these tasks it is ``mean_e + mean_t effect_et``. Effects and noise are drawn
anew for every board, noise of softmax enters all entries under the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cab.scoring.task_scores import TaskScores

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(generator, shape):
    return generator.normal(size=shape)


def heavy(generator, shape):
    """Student's t with five degrees of freedom, of unit variance: an outlier now and then."""
    return generator.standard_t(5, size=shape) / np.sqrt(5 / 3)


@dataclass(frozen=True)
class Truth:
    """A kind of leaderboard."""

    tasks: int
    seeds: int
    means: tuple[float, ...] = (0.3, 0.1, 0.1, 0.0, -0.2)
    """True index of every entry; softmax, at zero, is added as the first one"""
    effect: float = 0.1
    """Standard deviation over tasks"""
    noise: float = 0.05
    """Standard deviation over seeds"""
    unequal: tuple[float, ...] = (1.0,)
    """Factors of the noise by task, repeated as often as there are tasks"""
    draw: Draw = normal
    fewer: tuple[int, ...] = ()
    """Seeds of every entry but softmax, repeated as often as there are entries; none given: all"""


@dataclass(frozen=True)
class Board:
    """One simulated leaderboard."""

    scores: TaskScores
    general: np.ndarray
    """True index of every entry on tasks of this kind"""
    here: np.ndarray
    """... and on these tasks"""


def boards(truth: Truth, count: int, seed: int) -> Iterator[Board]:
    """Simulated leaderboards, softmax first."""
    generator = np.random.default_rng(seed)
    means = np.array([0.0, *truth.means])
    names = ("softmax", *(f"z{number}" for number in range(len(truth.means))))
    tasks = tuple(f"task{number}" for number in range(truth.tasks))
    shape = (len(means), truth.tasks, truth.seeds)
    for _ in range(count):
        effects = truth.effect * truth.draw(generator, shape[:2])
        effects[0] = 0.0
        factors = np.resize(truth.unequal, truth.tasks)[None, :, None]
        noise = truth.noise * factors * truth.draw(generator, shape)
        values = means[:, None, None] + effects[:, :, None] + noise - noise[:1]
        if truth.fewer:
            own = np.resize(truth.fewer, len(means) - 1)
            values[1:][np.arange(truth.seeds) >= own[:, None, None].repeat(truth.tasks, 1)] = np.nan
        seeds = {task: tuple(range(truth.seeds)) for task in tasks}
        grids = {task: values[:, number] for number, task in enumerate(tasks)}
        scores = TaskScores(names, tasks, seeds, grids)
        yield Board(scores, means, means + effects.mean(axis=1))
