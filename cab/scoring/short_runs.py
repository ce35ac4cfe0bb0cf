"""Do short runs tell? Whether entries rank at another multiple of a recipe's steps as they do at
the recipe's own.

Of every task and pattern whose entries were trained for both: Spearman's rank correlation of their
scores, and the mean of these. The interval is a bootstrap over both pairs (task, pattern) and
entries (Efron 1979), which are what the question is asked of: other tasks, other mechanisms. An
entry is resampled in all pairs at once, since it is the same mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cab.scoring.boards import headline_metrics, uninformative
from cab.scoring.correlation import LEAST, rank_correlation
from cab.scoring.intervals import LEVEL, NAN, UNKNOWN, Floats, Interval, p_values
from cab.scoring.quality import headline_rows, scores
from cab.scoring.ranks import ALPHA, holm
from cab.scoring.results import Readable, Results, load_scores
from cab.scoring.task_scores import task_scores
from cab.track import Setting

DRAWS = 4000
_KEY = ("pattern", "task")
_SAME = ("attention", "attention_hash", "task_hash", "data_hash")
"""What both runs of an entry must have alike"""


@dataclass(frozen=True)
class LengthPair:
    """Scores of the entries of one task and pattern, at both lengths of training."""

    pattern: str
    task: str
    entries: tuple[str, ...]
    usual: Floats
    """Scores (entries, seeds) at the recipe's own steps"""
    other: Floats
    """... at the multiple, under its own seeds"""

    @property
    def rho(self) -> float:
        """Spearman's, of the means over seeds; not a number below `LEAST` entries."""
        means = (dict(zip(self.entries, x.mean(axis=1), strict=True))
                 for x in (self.usual, self.other))  # fmt: skip
        return rank_correlation(*means).value

    def turned(self) -> tuple[int, int]:
        """Pairs of entries that differ at both lengths, and how many of these the other way round.
        Paired t tests over seeds, corrected for all pairs at each length (Holm).
        """
        signs = _certain(self.usual) * _certain(self.other)
        return int((signs != 0).sum()), int((signs < 0).sum())


@dataclass(frozen=True)
class ShortRuns:
    """A multiple of the recipes' steps beside the recipes' own, in one setting."""

    multiple: float
    pairs: tuple[LengthPair, ...]
    """Those with `LEAST` entries or more"""
    refused: tuple[tuple[str, str, int], ...]
    """Pattern, task and number of entries of those with fewer"""
    rho: Interval
    """Mean over pairs; ``n``: distinct entries"""
    decided: int
    """Pairs of entries on a task that differ at both lengths, beyond what seeds explain"""
    turned: int
    """... the other way round: ranks that really turn over"""


def short_runs(store: Readable, usual: Results, setting: Setting) -> list[ShortRuns]:
    """A comparison for every multiple that a store has rows of, from the smallest; none where it
    has no other than the recipes' own.

    Args:
        store: that the results were read from.
        usual: its results at the recipes' own steps.
        setting: scale and device.
    """
    found = []
    for multiple in usual.multiples:
        compared = compare_lengths(usual, load_scores(store, steps=multiple), setting, multiple)
        if compared is not None:
            found.append(compared)
    return found


def compare_lengths(
    usual: Results, other: Results, setting: Setting, multiple: float
) -> ShortRuns | None:
    """Results at a multiple of the steps beside those at the recipes' own; None where they have no
    task in common. Only what the same code was measured of counts.
    """
    pairs = []
    frames = [_rows(results, setting) for results in (usual, other)]
    common = set.intersection(*(set(map(tuple, f[[*_KEY]].to_numpy())) for f in frames))
    for pattern, task in sorted(common):
        tables = [f[(f["pattern"] == pattern) & (f["task"] == task)] for f in frames]
        pair = _pair(str(pattern), str(task), *tables)
        if pair is not None:
            pairs.append(pair)
    if not pairs:
        return None
    enough = tuple(pair for pair in pairs if len(pair.entries) >= LEAST)
    counts = [pair.turned() for pair in enough]
    return ShortRuns(
        multiple,
        enough,
        tuple((p.pattern, p.task, len(p.entries)) for p in pairs if len(p.entries) < LEAST),
        mean_correlation(enough),
        sum(decided for decided, _ in counts),
        sum(turned for _, turned in counts),
    )


def _rows(results: Results, setting: Setting) -> pd.DataFrame:
    """Headline scores of a setting, all patterns."""
    table = scores(results)
    table = table[(table["scale"] == setting.scale) & (table["device"] == setting.device)]
    return headline_rows(table, headline_metrics())


def _pair(pattern: str, task: str, usual: pd.DataFrame, other: pd.DataFrame) -> LengthPair | None:
    """Entries that are complete at both lengths, less controls that are no mechanisms; None where
    there are none.
    """
    same = [set(map(tuple, table[[*_SAME]].astype(object).to_numpy())) for table in (usual, other)]
    aside = uninformative()
    found = [task_scores(table) for table in (usual, other)]
    if not all(task in one.tasks for one in found):
        return None
    codes = same[0] & same[1]
    entries = [
        entry
        for entry, rows in usual.groupby("entry", observed=True)
        if entry in found[1].entries
        and not set(rows["attention"]) & aside
        and set(map(tuple, rows[[*_SAME]].astype(object).to_numpy())) <= codes
        and all(one.complete(str(entry), task) for one in found)
    ]
    if not entries:
        return None
    grids = [one.values[task][[one.entries.index(str(e)) for e in entries]] for one in found]
    return LengthPair(pattern, task, tuple(map(str, entries)), *grids)


def mean_correlation(pairs: Sequence[LengthPair], draws: int = DRAWS) -> Interval:
    """Mean over pairs of Spearman's rho, with percentiles of the bootstrap. Where all draws agree,
    which is where all ranks do, they say nothing of other entries: then the bounds are those of a
    single rho of so many entries (`cab.scoring.correlation`).
    """
    found = [pair.rho for pair in pairs]
    known = [pair for pair, rho in zip(pairs, found, strict=True) if np.isfinite(rho)]
    names = sorted({entry for pair in known for entry in pair.entries})
    if not known:
        return UNKNOWN
    value = float(np.mean([rho for rho in found if np.isfinite(rho)]))
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    ).astype(float)
    weights = generator.multinomial(len(known), np.full(len(known), 1 / len(known)), size=draws)
    by_pair = np.stack(
        [_weighted_rho(pair, drawn[:, [names.index(e) for e in pair.entries]]) for pair in known],
        axis=1,
    )
    counted = np.where(np.isfinite(by_pair), weights, 0)
    with np.errstate(invalid="ignore"):
        means = np.nansum(counted * np.nan_to_num(by_pair), axis=1) / counted.sum(axis=1)
    means = means[np.isfinite(means)]
    low, high = (float(np.quantile(means, q)) for q in (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
    if high - low < _EQUAL:
        own = {name: float(n) for n, name in enumerate(names)}
        beside = own if value > 0 else {name: -n for name, n in own.items()}
        alone = rank_correlation(own, beside)
        low, high = alone.low, alone.high
    return Interval(value, min(low, value), max(high, value), len(names))


_EQUAL = 1e-9


def _weighted_rho(pair: LengthPair, counts: Floats) -> Floats:
    """Spearman's rho of samples in which entries occur so often (draws, entries); not a number
    where a sample is constant on one side.
    """
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ranks = []
        for grid in (pair.usual, pair.other):
            x = grid.mean(axis=1)
            below, equal = (x[None, :] < x[:, None]), (x[None, :] == x[:, None])
            rank = counts @ below.T + (counts @ equal.T + 1) / 2
            ranks.append(rank - (counts * rank).sum(axis=1, keepdims=True) / total)
        one, other = ranks
        spread = (counts * one**2).sum(axis=1) * (counts * other**2).sum(axis=1)
        rho = (counts * one * other).sum(axis=1) / np.sqrt(spread)
    return np.where(spread > _EQUAL, rho, NAN)


def _certain(grid: Floats) -> Floats:
    """Of every two entries, [i < j], the sign of a difference that seeds do not explain; else 0."""
    upper = np.triu_indices(len(grid), k=1)
    seeds = grid.shape[1]
    difference = (grid[:, None, :] - grid[None, :, :])[upper]
    if seeds < 2:
        return np.zeros(len(difference))
    mean = difference.mean(axis=1)
    p = holm(p_values(mean, difference.var(axis=1, ddof=1) / seeds, float(seeds - 1)))
    return np.where(p < ALPHA, np.sign(mean), 0.0)
