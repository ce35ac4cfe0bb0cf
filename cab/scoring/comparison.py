"""Two entries side by side: differences by task, paired by seed, and their means."""

from __future__ import annotations

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
    """One entry over another on one track."""

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
