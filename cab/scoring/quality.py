"""The headline index of quality, per pattern.

For a metric and a seed: the log-ratio of the entry to softmax under the same seed, signed so that
more is better. A task's score is the median over its headline metrics, the index the mean over
tasks; the interval is a hierarchical bootstrap over tasks and seeds. An index of 0.1 means that the
typical metric is better by a factor exp(0.1), about 10 %, than that of softmax.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cab.scoring.intervals import Floats, Interval, hierarchical_interval, mean_interval
from cab.scoring.results import Results

BASELINE = "softmax"
NO_ATTENTION = "none"
DISCRIMINATION = 4.0
"""softmax must beat none by this many seed standard deviations, or the task does not count"""


@dataclass(frozen=True)
class Discrimination:
    """Whether a task measures attention: the gap from none to softmax in units of seed spread."""

    task: str
    metric: str
    softmax: Interval
    none: Interval
    ratio: float
    """Gap over the larger of the two standard deviations; not a number below two seeds"""

    @property
    def verdict(self) -> bool | None:
        """True, False, or None where there are too few seeds to tell."""
        return None if np.isnan(self.ratio) else self.ratio >= DISCRIMINATION


@dataclass(frozen=True)
class Standing:
    """An entry's place on the leaderboard of one pattern."""

    entry: str
    attention: str
    grade: str
    index: Interval
    tasks: dict[str, float]
    """Score by task"""
    missing: tuple[str, ...]
    """Tasks without a result; with any, there is no index"""
    rank: int | None = None
    tied: bool = False
    """Not separated from the entry above by their intervals"""


@dataclass(frozen=True)
class QualityBoard:
    """Standings of one pattern, scale and device."""

    standings: list[Standing]
    tasks: list[str]
    left_out: list[Discrimination] = field(default_factory=list)
    """Tasks that do not measure attention here, with their numbers"""
    unjudged: list[str] = field(default_factory=list)
    """Tasks that count although there are too few seeds to tell whether they should"""


def scores(results: Results, pattern: str, scale: str, device: str) -> pd.DataFrame:
    """Test scores: one row per entry, task, metric and seed."""
    rows = results.select(kind="quality", pattern=pattern, scale=scale, device=device)
    rows = rows[(rows["status"] == "ok") & (rows["phase"] == "eval")]
    return rows[~rows["metric"].str.startswith("validation_")]


def quality_board(
    results: Results, pattern: str, scale: str, device: str, headline: dict[str, list[str]]
) -> QualityBoard:
    """Rank the entries of a pattern.

    Args:
        results: current rows.
        pattern: name of the pattern.
        scale: track.
        device: cpu or cuda.
        headline: names of the headline metrics by task id, the first one decides discrimination.
    """
    table = scores(results, pattern, scale, device)
    pairs = zip(table["task"], table["metric"], strict=True)
    table = table[np.array([m in headline.get(t, [m]) for t, m in pairs], dtype=bool)]
    left_out, unjudged, tasks = [], [], []
    for task in sorted(table["task"].unique()):
        first = headline.get(task) or sorted(table[table.task == task].metric.unique())
        found = discrimination(table, task, first[0])
        if found is None or found.verdict is None:
            unjudged.append(task)
        if found is not None and found.verdict is False:
            left_out.append(found)
        else:
            tasks.append(task)
    standings = [_standing(table, entry, tasks) for entry in sorted(table["entry"].unique())]
    return QualityBoard(_ranked(standings), tasks, left_out, unjudged)


def discrimination(table: pd.DataFrame, task: str, metric: str) -> Discrimination | None:
    """The gap between softmax and none on a task, or None where one of them has no score."""
    values = {}
    for entry in (BASELINE, NO_ATTENTION):
        rows = table[(table.task == task) & (table.metric == metric) & (table.entry == entry)]
        if rows.empty:
            return None
        values[entry] = rows["value"].to_numpy(dtype=float)
        higher = bool(rows["higher_is_better"].iloc[0])
    gap = values[BASELINE].mean() - values[NO_ATTENTION].mean()
    gap = gap if higher else -gap
    ratio = float("nan")
    if min(len(v) for v in values.values()) >= 2:
        spread = max(float(v.std(ddof=1)) for v in values.values())
        ratio = float(gap / spread) if spread > 0 else float(np.sign(gap) * np.inf)
    return Discrimination(
        task,
        metric,
        mean_interval(values[BASELINE]),
        mean_interval(values[NO_ATTENTION]),
        ratio,
    )


def log_ratios(table: pd.DataFrame, entry: str, task: str) -> Floats:
    """Per seed, the median over metrics of the signed log-ratio to softmax (seeds of both)."""
    part = table[table.task == task]
    pivot = part[part.entry.isin([entry, BASELINE])].pivot_table(
        index=["seed", "metric", "higher_is_better"], columns="entry", values="value"
    )
    if entry not in pivot or BASELINE not in pivot:
        return np.array([])
    pivot = pivot.dropna(subset=list({entry, BASELINE})).reset_index()
    pivot = pivot[(pivot[entry] > 0) & (pivot[BASELINE] > 0)]
    sign = np.where(pivot["higher_is_better"].to_numpy(dtype=bool), 1.0, -1.0)
    ratio = sign * np.log(pivot[entry].to_numpy(float) / pivot[BASELINE].to_numpy(float))
    medians = pd.Series(ratio).groupby(pivot["seed"].to_numpy()).median()
    return medians.to_numpy(dtype=float)


def _standing(table: pd.DataFrame, entry: str, tasks: list[str]) -> Standing:
    own = table[table.entry == entry]
    per_task = {task: log_ratios(table, entry, task) for task in tasks}
    missing = tuple(task for task, values in per_task.items() if not len(values))
    complete = bool(tasks) and not missing
    groups = list(per_task.values()) if complete else []
    return Standing(
        entry=entry,
        attention=str(own["attention"].iloc[0]),
        grade=str(own["grade"].iloc[0]),
        index=hierarchical_interval(groups),
        tasks={task: float(values.mean()) for task, values in per_task.items() if len(values)},
        missing=missing,
    )


def _ranked(standings: list[Standing]) -> list[Standing]:
    ranked = sorted((s for s in standings if s.index.n), key=lambda s: s.index.value, reverse=True)
    placed: list[Standing] = []
    for place, standing in enumerate(ranked, start=1):
        tied = bool(placed) and standing.index.overlaps(placed[-1].index)
        placed.append(replace(standing, rank=place, tied=tied))
    return placed + [s for s in standings if not s.index.n]
