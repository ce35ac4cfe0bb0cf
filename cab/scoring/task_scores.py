"""Scores by entry, task and seed: the numbers that every ranking starts from.

For a metric and a seed the log-ratio of the entry to softmax under the same seed, signed so that
more is better, and limited to a factor of `LIMIT`; the median over a task's headline metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cab.controls import BASELINE
from cab.scoring.codes import Codes, codes_of, group_codes
from cab.scoring.intervals import NAN, Estimate, Floats, estimate_general, estimate_here

LIMIT = math.log(100.0)
"""A metric counts as at most a hundred times better or worse than softmax's: one that explodes, or
an accuracy of zero, is bad without bound, and must not outweigh all other tasks."""


@dataclass(frozen=True)
class TaskScores:
    """Scores of the entries of one track.

    An entry counts on a task with the first of softmax's seeds, one or more of them, and every
    headline metric of each. A seed that was tried and came to nothing, or is lacking before another
    one, leaves it without a score there: were it ignored, losing a bad one would help. A ranking
    takes as many seeds on every task (`even`).
    """

    entries: tuple[str, ...]
    """In alphabetical order"""
    tasks: tuple[str, ...]
    """In alphabetical order"""
    seeds: Mapping[str, tuple[int, ...]]
    """Those of softmax, by task"""
    values: Mapping[str, Floats]
    """By task (entries, seeds); not a number where an entry lacks a seed or one of its metrics, and
    all along where it does not count"""
    seen: Mapping[str, Codes] = field(default_factory=dict)
    """By task (entries): how many of softmax's seeds each has, whether they count or not; none
    given, those that count"""

    def counts(self, entry: str, task: str) -> bool:
        """Whether the entry has a score on a task."""
        return bool(len(self.of(entry, task)))

    def complete(self, entry: str, task: str) -> bool:
        """Whether the entry has all seeds of a task."""
        return not np.isnan(self._row(entry, task)).any()

    def has(self, entry: str, task: str) -> int:
        """How many of softmax's seeds the entry has, whether they count or not."""
        if entry not in self.entries or task not in self.seen:
            return len(self.of(entry, task))
        return int(self.seen[task][self.entries.index(entry)])

    def missing(self, entry: str) -> tuple[str, ...]:
        """Tasks on which the entry does not count."""
        return tuple(task for task in self.tasks if not self.counts(entry, task))

    def seeds_of(self, entry: str) -> tuple[int, int]:
        """Least and largest number of seeds with which an entry counts, over tasks."""
        found = [len(self.of(entry, task)) for task in self.tasks]
        return min(found, default=0), max(found, default=0)

    def of(self, entry: str, task: str) -> Floats:
        """Scores by seed, those that are missing left out."""
        row = self._row(entry, task)
        return np.asarray(row[~np.isnan(row)], dtype=float)

    def groups(self, entry: str) -> list[Floats]:
        """Scores by task and seed of an entry that counts on all; nothing for another."""
        if not self.tasks or self.missing(entry):
            return []
        return [self.of(entry, task) for task in self.tasks]

    def general(self, entry: str) -> Estimate:
        """The index, judged by the spread over tasks."""
        return estimate_general(self.groups(entry))

    def here(self, entry: str) -> Estimate:
        """The index, judged by the spread over seeds on these tasks."""
        return estimate_here(self.groups(entry))

    def only(self, tasks: list[str]) -> TaskScores:
        """Some of the tasks."""
        kept = tuple(task for task in self.tasks if task in tasks)
        return TaskScores(
            self.entries,
            kept,
            {task: self.seeds[task] for task in kept},
            {task: self.values[task] for task in kept},
            {task: self.seen[task] for task in kept if task in self.seen},
        )

    def even(self) -> TaskScores:
        """An entry that lacks seeds on some task counts with as many of the first ones on every
        task as where it has fewest, so that no task's number of seeds can be chosen.
        """
        shorter = {entry: self._fewest(entry) for entry in self.entries}
        values = {}
        for task, grid in self.values.items():
            kept = np.array([shorter[entry] for entry in self.entries])
            places = np.arange(grid.shape[1])
            values[task] = np.where(places[None, :] < kept[:, None], grid, NAN)
        return replace(self, values=values)

    def _fewest(self, entry: str) -> float:
        """Of the seeds on tasks where the entry counts with fewer than softmax; else no limit."""
        counts = {task: len(self.of(entry, task)) for task in self.tasks}
        short = [n for task, n in counts.items() if 0 < n < len(self.seeds[task])]
        return min(short, default=math.inf)

    def means(self) -> Floats:
        """Scores (entries, tasks); not a number where an entry does not count."""
        columns = [mean_of_known(self.values[task]) for task in self.tasks]
        shape = (len(self.entries), len(self.tasks))
        return np.stack(columns, axis=1) if columns else np.full(shape, NAN)

    def _row(self, entry: str, task: str) -> Floats:
        if entry not in self.entries:  # it has rows, and no number in them
            return np.full(len(self.seeds[task]), NAN)
        return self.values[task][self.entries.index(entry)]


def mean_of_known(values: Floats) -> Floats:
    """Mean over the last dimension of what is a number; not a number where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=-1) / np.where(count, count, NAN))


@dataclass(frozen=True)
class _Words:
    """A column as numbers, with the words that they stand for."""

    codes: Codes
    names: tuple[str, ...]

    @classmethod
    def of(cls, column: pd.Series) -> _Words:
        if isinstance(column.dtype, pd.CategoricalDtype):
            return cls(codes_of(column), tuple(map(str, column.cat.categories)))
        codes, names = pd.factorize(column)
        return cls(codes.astype(np.int64), tuple(map(str, names)))

    def take(self, rows: NDArray[Any]) -> _Words:
        return _Words(self.codes[rows], self.names)

    def code(self, name: str) -> int:
        return self.names.index(name)

    def present(self) -> list[str]:
        """The words that occur, in alphabetical order."""
        return sorted(self.names[code] for code in np.unique(self.codes))


@dataclass(frozen=True)
class _Cells:
    """One number per entry, task, seed and, before medians are taken, metric."""

    entry: _Words
    task: _Words
    metric: _Words
    seed: Codes
    values: Floats
    higher: NDArray[np.bool_]

    def take(self, rows: NDArray[Any], values: Floats) -> _Cells:
        """Some of the cells, with other values."""
        return _Cells(
            self.entry.take(rows),
            self.task.take(rows),
            self.metric.take(rows),
            self.seed[rows],
            values,
            self.higher[rows],
        )

    def where_entry(self, name: str) -> NDArray[np.bool_]:
        return self.entry.codes == self.entry.code(name)


def task_scores(table: pd.DataFrame, failed: pd.DataFrame | None = None) -> TaskScores:
    """Scores of a table with columns ``entry, task, metric, seed, value, higher_is_better``.

    A metric that is zero or negative for softmax has no ratio to it and is left out for everybody.

    Args:
        table: of cells that came to numbers.
        failed: of cells that came to nothing, columns ``entry, task, seed``.
    """
    tried = _tried(table) | (set() if failed is None else _tried(failed))
    table = table[table["value"].notna() & table["seed"].notna()]
    cells = _Cells(
        _Words.of(table["entry"]),
        _Words.of(table["task"]),
        _Words.of(table["metric"]),
        table["seed"].to_numpy(dtype=np.int64),
        table["value"].to_numpy(dtype=float),
        table["higher_is_better"].to_numpy(dtype=bool),
    )
    entries = tuple(cells.entry.present())
    if BASELINE not in entries:
        return TaskScores(entries, (), {}, {})
    # What was measured more than once under one seed counts with its mean.
    place = group_codes([cells.entry.codes, cells.task.codes, cells.metric.codes, cells.seed])
    first = np.unique(place, return_index=True)[1]
    means = np.bincount(place, weights=cells.values) / np.bincount(place)
    cells = cells.take(first, means)
    ratios = _log_ratios(cells)
    kept = np.flatnonzero(~np.isnan(ratios))
    return _grids(*_medians(cells.take(kept, ratios[kept])), entries, tried)


_Tried = set[tuple[str, str, int]]


def _tried(table: pd.DataFrame) -> _Tried:
    """Entry, task and seed of everything that has a row."""
    found = table[["entry", "task", "seed"]].dropna().drop_duplicates()
    rows = found.astype({"seed": np.int64}).itertuples(index=False)
    return {(str(entry), str(task), int(seed)) for entry, task, seed in rows}


def _log_ratios(cells: _Cells) -> Floats:
    """Signed log-ratio of every value to softmax's at the same task, metric and seed."""
    place = group_codes([cells.task.codes, cells.metric.codes, cells.seed])
    reference = np.full(int(place.max()) + 1, NAN)
    own = cells.where_entry(BASELINE)
    reference[place[own]] = cells.values[own]
    base = reference[place]
    base = np.where(base > 0, base, NAN)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A loss of zero or less, like an accuracy of zero, lies beyond any factor.
        ratio = np.where(cells.values > 0, np.log(np.maximum(cells.values, 0) / base), -np.inf)
    signed = np.where(cells.higher, ratio, -ratio)
    return np.where(np.isnan(base), NAN, np.clip(signed, -LIMIT, LIMIT))


def _medians(cells: _Cells) -> tuple[_Cells, Codes]:
    """The median over metrics by entry, task and seed, and how many metrics went in."""
    place = group_codes([cells.entry.codes, cells.task.codes, cells.seed])
    order = np.lexsort((cells.values, place))
    starts = np.searchsorted(place[order], np.arange(int(place.max(initial=-1)) + 1))
    counts = np.diff(np.append(starts, len(order)))
    ranked = cells.values[order]
    medians = (ranked[starts + (counts - 1) // 2] + ranked[starts + counts // 2]) / 2
    return cells.take(order[starts], medians), counts


def _grids(cells: _Cells, counts: Codes, entries: tuple[str, ...], tried: _Tried) -> TaskScores:
    """Entries by seeds for every task that softmax has; cells that lack a metric stay empty."""
    row_of = np.full(len(cells.entry.names), -1)
    for row, name in enumerate(entries):
        row_of[cells.entry.code(name)] = row
    seeds: dict[str, tuple[int, ...]] = {}
    grids: dict[str, Floats] = {}
    seen: dict[str, Codes] = {}
    baseline = cells.where_entry(BASELINE)
    for task in cells.task.present():
        here = cells.task.codes == cells.task.code(task)
        own = np.flatnonzero(here & baseline)
        if not len(own):
            continue
        own = own[np.argsort(cells.seed[own])]
        column = np.searchsorted(cells.seed[own], cells.seed[here])
        column = np.minimum(column, len(own) - 1)
        whole = cells.seed[own][column] == cells.seed[here]
        whole &= counts[own][column] == counts[here]
        grid = np.full((len(entries), len(own)), NAN)
        rows = row_of[cells.entry.codes[here]]
        grid[rows[whole], column[whole]] = cells.values[here][whole]
        seeds[task] = tuple(int(seed) for seed in cells.seed[own])
        has = ~np.isnan(grid)
        seen[task] = has.sum(axis=1)
        lost = (
            np.array([[(e, task, seed) in tried for seed in seeds[task]] for e in entries]) & ~has
        )
        # Of a row with as many leading seeds as seeds, none lies behind a gap.
        leading = np.cumprod(has, axis=1).sum(axis=1)
        grid[lost.any(axis=1) | (leading < seen[task])] = NAN
        grids[task] = grid
    return TaskScores(entries, tuple(grids), seeds, grids, seen)
