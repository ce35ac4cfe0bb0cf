"""The headline index of quality, per pattern.

For a metric and a seed: the log-ratio of the entry to softmax under the same seed, signed so that
more is better. A task's score is the median over its headline metrics, the index the mean over
tasks. An index of 0.1 means that the typical metric is better by a factor exp(0.1), about 10 %,
than that of softmax. docs/scoring.md derives the intervals and works an example by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import pandas as pd

from cab.controls import BASELINE, NO_ATTENTION
from cab.scoring.bradley_terry import Rating, ratings
from cab.scoring.intervals import UNKNOWN, Interval, mean_interval
from cab.scoring.ranks import ALPHA, Matrix, Pairs, all_pairs, groups, rank_interval
from cab.scoring.results import Results, entry_labels
from cab.scoring.task_scores import TaskScores, task_scores
from cab.track import Track

DISCRIMINATION = 4.0
"""softmax must beat none by this many seed standard deviations, or the task does not count"""


class Separation(StrEnum):
    """What is known of the difference between an entry and the one above it."""

    NONE = "none"
    """Not distinguishable, even on these tasks: another set of seeds may swap them."""
    HERE = "here"
    """Different on these tasks; other tasks of this kind may swap them."""
    GENERAL = "general"
    """Different, by more than the spread over tasks and seeds explains."""

    @property
    def mark(self) -> str:
        """What stands before the rank: ``=``, ``~`` or nothing."""
        return {"none": "=", "here": "~"}.get(self.value, "")


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


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """An entry's place in a ranking by an index."""

    entry: str
    attention: str
    index: Interval
    """Over tasks and seeds: what tasks of this kind would give"""
    here: Interval
    """Over seeds: what these tasks would give again"""
    missing: tuple[str, ...]
    """What it has no result of that counts; with any, there is no index"""
    rank: int | None = None
    ranks: tuple[int, int] | None = None
    """95 % interval of the rank"""
    separation: Separation = Separation.GENERAL
    """From the entry above"""
    rating: Rating | None = None
    """Bradley-Terry strength, which entries with missing results have too"""
    seeds: tuple[int, int] = (0, 0)
    """Least and largest number of seeds with which it counts, over tasks"""
    label: str = ""
    """Who measured it; several, with a comma, where its scores are not all of one"""

    @property
    def tied(self) -> bool:
        """Whether it is not distinguishable from the entry above."""
        return self.separation is Separation.NONE


@dataclass(frozen=True, kw_only=True)
class Standing(Ranked):
    """An entry's place on the leaderboard of one track; what may be missing is tasks."""

    grade: str
    tasks: dict[str, float]
    """Score by task"""


@dataclass(frozen=True)
class QualityBoard:
    """Standings of one track."""

    standings: list[Standing]
    tasks: list[str]
    left_out: list[Discrimination] = field(default_factory=list)
    """Tasks that do not measure attention here, with their numbers"""
    unjudged: list[str] = field(default_factory=list)
    """Tasks that count although there are too few seeds to tell whether they should"""
    probes: list[str] = field(default_factory=list)
    """Measured probes, which do not count beside other tasks"""
    scores: TaskScores = field(default_factory=lambda: TaskScores((), (), {}, {}))
    """What the standings are made of, tasks that are left out not among it"""
    pairs: Pairs | None = None
    """Comparisons of all entries that have an index"""
    retired: list[str] = field(default_factory=list)
    """Measured tasks that are known to tell nothing on this pattern, and do not count"""
    aside: frozenset[str] = frozenset()
    """Tasks that do not count unless they are named, measured or not"""

    def standing(self, entry: str) -> Standing:
        """Of one entry.

        Raises:
            KeyError: it has no score here.
        """
        for standing in self.standings:
            if standing.entry == entry:
                return standing
        raise KeyError(entry)

    def partial(self, entry: str) -> dict[str, tuple[int, int]]:
        """Tasks on which an entry does not count though it has seeds: how many of how many."""
        found = {}
        for task in self.scores.missing(entry):
            has = self.scores.has(entry, task)
            if has:
                found[task] = (has, len(self.scores.seeds[task]))
        return found

    def groups(self, differs: Matrix) -> list[tuple[str, ...]]:
        """Runs of ranked entries of which no two differ."""
        if self.pairs is None:
            return []
        order = [s.entry for s in self.standings if s.rank is not None]
        return groups(order, self.pairs, differs)


def scores(results: Results, track: Track | None = None, phase: str = "eval") -> pd.DataFrame:
    """Test scores: one row per entry, task, metric and seed; or analyses of the trained models."""
    rows = results.select(track, kind="quality")
    rows = rows[(rows["status"] == "ok") & (rows["phase"] == phase)]
    metrics = rows["metric"].unique()
    tests = [metric for metric in metrics if not str(metric).startswith("validation_")]
    found = rows[rows["metric"].isin(tests)]
    # An infinite score is no number to rank by, like one that is missing.
    finite = np.isfinite(found["value"])
    return found if finite.all() else found.assign(value=found["value"].where(finite))


def quality_board(
    results: Results,
    track: Track,
    headline: Mapping[str, list[str]],
    tasks: Collection[str] = (),
    probes: Collection[str] = (),
    retired: Collection[str] = (),
) -> QualityBoard:
    """Rank the entries of a track.

    Args:
        results: current rows.
        track: what may share a table.
        headline: names of the headline metrics by task id, the first one decides discrimination.
        tasks: those to rank by; none named: all but probes and retired ones, or these where nothing
            else was measured.
        probes: tasks that isolate one ability on a problem with a known ceiling. Ratios of errors
            are so large there that a mean with other tasks would be about them alone.
        retired: tasks that are known not to tell attention from none on this pattern.
    """
    table = headline_rows(scores(results, track), headline)
    aside: list[list[str]] = [[], []]
    if tasks:
        table = table[table["task"].isin(list(tasks))]
    else:
        for place, group in enumerate((retired, probes)):
            if not table["task"].isin(list(group)).all():
                aside[place] = sorted(set(table["task"].astype(str)) & set(group))
                table = table[~table["task"].isin(aside[place])]
    left_out, unjudged, kept = [], [], []
    for task in sorted(str(name) for name in table["task"].unique()):
        part = table[table["task"] == task]
        first = headline.get(task) or sorted(str(name) for name in part["metric"].unique())
        found = discrimination(part, task, first[0])
        if found is None or found.verdict is None:
            unjudged.append(task)
        if found is not None and found.verdict is False:
            left_out.append(found)
        else:
            kept.append(task)
    scored = task_scores(table, _failed(results, track))
    ranked_by = scored.only(kept).even()
    origins = table[["entry", "attention", "grade"]].drop_duplicates("entry")
    found_ratings = ratings(ranked_by)
    labels = entry_labels(table)
    standings = [
        replace(
            _standing(ranked_by, kept, str(entry), str(attention), str(grade), found_ratings),
            label=labels.get(str(entry), ""),
        )
        for entry, attention, grade in origins.itertuples(index=False)
    ]
    ranked, pairs = _ranked(standings, ranked_by)
    gone, probed = aside
    unasked = frozenset() if tasks else frozenset([*retired, *probes]).difference(kept)
    return QualityBoard(ranked, kept, left_out, unjudged, probed, ranked_by, pairs, gone, unasked)


def _failed(results: Results, track: Track) -> pd.DataFrame:
    """Rows of cells that came to no score."""
    rows = results.select(track, kind="quality")
    return rows[rows["status"] != "ok"]


def headline_rows(table: pd.DataFrame, headline: Mapping[str, list[str]]) -> pd.DataFrame:
    """Rows of headline metrics; of a task that is not registered here, all of its metrics."""
    present = table[["task", "metric"]].drop_duplicates()
    extra = [
        (task, metric)
        for task, metric in present.itertuples(index=False)
        if metric not in headline.get(str(task), [metric])
    ]
    kept = np.ones(len(table), dtype=bool)
    for task, metric in extra:
        kept &= ~((table["task"] == task) & (table["metric"] == metric)).to_numpy()
    return table[kept]


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


def _standing(
    scored: TaskScores,
    tasks: list[str],
    entry: str,
    attention: str,
    grade: str,
    rated: Mapping[str, Rating],
) -> Standing:
    # A task without softmax scores nobody.
    missing = tuple(t for t in tasks if t not in scored.tasks or not scored.counts(entry, t))
    whole = bool(tasks) and not missing
    by_task = {task: scored.of(entry, task) for task in scored.tasks}
    return Standing(
        entry=entry,
        attention=attention,
        grade=grade,
        index=scored.general(entry).interval() if whole else UNKNOWN,
        here=scored.here(entry).interval() if whole else UNKNOWN,
        tasks={task: float(values.mean()) for task, values in by_task.items() if len(values)},
        missing=missing,
        seeds=scored.seeds_of(entry),
        rating=rated.get(entry),
    )


def _ranked(standings: list[Standing], scored: TaskScores) -> tuple[list[Standing], Pairs | None]:
    """Entries with an index from the best down, then the others, which have no rank: those that
    lack least first.
    """
    whole = sorted((s for s in standings if s.index.n), key=lambda s: (-s.index.value, s.entry))
    rest = sorted((s for s in standings if not s.index.n), key=lambda s: (len(s.missing), s.entry))
    if not whole:
        return rest, None
    pairs = all_pairs([scored], [s.entry for s in whole])
    placed: list[Standing] = []
    for place, standing in enumerate(whole, start=1):
        above = placed[-1].entry if placed else None
        placed.append(
            replace(
                standing,
                rank=place,
                ranks=rank_interval(pairs, standing.entry) if pairs.known(standing.entry) else None,
                separation=Separation.GENERAL
                if above is None
                else separation(pairs, standing.entry, above),
            )
        )
    return placed + rest, pairs


def separation(pairs: Pairs, one: str, other: str) -> Separation:
    """What is known of the difference between two entries."""
    place = pairs.index(one), pairs.index(other)
    if pairs.p_general[place] < ALPHA:
        return Separation.GENERAL
    return Separation.HERE if pairs.p_here[place] < ALPHA else Separation.NONE
