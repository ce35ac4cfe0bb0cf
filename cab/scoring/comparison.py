"""Two entries side by side: differences by task, costs, crossover, and a verdict in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cab.scoring.intervals import (
    Estimate,
    Interval,
    estimate_general,
    estimate_here,
    mean_estimate,
)
from cab.scoring.quality import QualityBoard
from cab.scoring.ranks import ALPHA, holm
from cab.scoring.task_scores import TaskScores


@dataclass(frozen=True)
class TaskDifference:
    """Score of one entry over the other on a task, paired by seed."""

    task: str
    difference: Interval
    p: float
    """Of no difference, paired t test over seeds"""
    adjusted: float
    """Holm's, over the tasks of the comparison"""

    @property
    def distinguishable(self) -> bool:
        """Whether the entries differ on this task."""
        return self.adjusted < ALPHA


@dataclass(frozen=True)
class Comparison:
    """One entry over another on one pattern, scale and device."""

    one: str
    other: str
    tasks: tuple[TaskDifference, ...]
    """Those on which both have seeds in common"""
    lacking: Mapping[str, str]
    """Tasks without a difference, and which of the two lacks it"""
    general: Estimate
    """Mean difference, judged by the spread over tasks"""
    here: Estimate
    """... by the spread over seeds on these tasks"""

    def verdict(self) -> str:
        """What is known, in a sentence."""
        if not self.tasks:
            return f"{self.one} and {self.other} share no task here, so nothing can be said."
        on = "on the one task" if len(self.tasks) == 1 else f"on these {len(self.tasks)} tasks"
        here, general = self.here.interval(), self.general.interval()
        if not here.known:
            return (
                f"{on.capitalize()} {self.one} is {_words(here.value, self.other)}; a single seed "
                "does not tell whether that is more than noise."
            )
        if _p(self.here) >= ALPHA:
            return (
                f"{self.one} and {self.other} are not distinguishable {on}: the difference is "
                f"{here.value:+.3f}, 95 % interval {_range(here)} over seeds."
            )
        sentence = (
            f"{on.capitalize()} {self.one} is {_words(here.value, self.other)} "
            f"({here.value:+.3f}, 95 % interval {_range(here)} over seeds)"
        )
        if len(self.tasks) == 1:
            return sentence + "; one task says nothing of others."
        if _p(self.general) < ALPHA:
            return sentence + (
                f", and the tasks agree well enough to expect it of others of this kind "
                f"(95 % interval {_range(general)} over tasks)."
            )
        return sentence + (
            f"; whether that holds on other tasks of this kind is not known "
            f"(95 % interval {_range(general)} over tasks)."
        )


def _p(estimate: Estimate) -> float:
    p = estimate.p_value()
    return 1.0 if math.isnan(p) else p


def _words(difference: float, other: str) -> str:
    """``better than softmax by a factor of 1.12`` for a difference of log-ratios of 0.113."""
    which = "better" if difference >= 0 else "worse"
    return f"{which} than {other} by a factor of {math.exp(abs(difference)):.2f}"


def _range(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"


def comparison(board: QualityBoard, one: str, other: str) -> Comparison:
    """Compare two entries on the tasks of a board, over the seeds that they share."""
    scores = board.scores
    differences: dict[str, np.ndarray] = {}
    lacking: dict[str, str] = {}
    for task in scores.tasks:
        values = _paired(scores, one, other, task)
        if len(values):
            differences[task] = values
        else:
            names = [name for name in (one, other) if not _has(scores, name, task)]
            lacking[task] = " and ".join(names) or "a seed in common"
    estimates = {task: mean_estimate(values) for task, values in differences.items()}
    p = np.array([estimate.p_value() for estimate in estimates.values()])
    adjusted = holm(p)
    tasks = tuple(
        TaskDifference(task, estimate.interval(), float(p[n]), float(adjusted[n]))
        for n, (task, estimate) in enumerate(estimates.items())
    )
    groups = list(differences.values())
    general, here = estimate_general(groups), estimate_here(groups)
    return Comparison(one, other, tasks, lacking, general, here)


def _has(scores: TaskScores, entry: str, task: str) -> bool:
    return entry in scores.entries and scores.has(entry, task) > 0


def _paired(scores: TaskScores, one: str, other: str, task: str) -> np.ndarray:
    if not (_has(scores, one, task) and _has(scores, other, task)):
        return np.array([])
    rows = scores.values[task]
    difference = rows[scores.entries.index(one)] - rows[scores.entries.index(other)]
    return np.asarray(difference[~np.isnan(difference)], dtype=float)
