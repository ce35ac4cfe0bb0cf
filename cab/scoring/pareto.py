"""Pareto fronts of quality against a cost, with the probability that an entry is dominated.

An entry is dominated by another that is no worse on both axes and better on one. Both axes are
uncertain, so that being dominated is a probability: the share of draws in which it is so. An entry
leaves the front only where that is most of them.

Draws are of the intervals' own distribution. Of quality, jointly for all entries,

    index_e + sum_t z_t (x_et - index_e) / sqrt(T (T-1)) / sqrt(c / (T-1))
    z_t ~ N(0, 1),   c ~ chi²(T-1)

over the T tasks (a multiplier bootstrap): the margins are the intervals', and what entries have in
common on a task stays in common. Of a cost, its value times ``exp(error t)``, independently for
each entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from cab.controls import BASELINE
from cab.scoring.cost import Costs
from cab.scoring.intervals import LEVEL, Floats, Interval
from cab.scoring.quality import QualityBoard

DRAWS = 4000
MOST = 0.5
"""Share of draws from which on an entry counts as dominated"""


@dataclass(frozen=True)
class ParetoPoint:
    """One entry between its quality and one of its costs."""

    entry: str
    quality: Interval
    cost: Interval
    relative_cost: float
    """To softmax's; not a number where that is zero or unknown"""
    dominated: float
    """Probability that another entry is at least as good and at most as dear"""
    per_cost: float
    """Index gained for every doubling of cost over softmax's, see `quality_per_cost`"""

    @property
    def on_front(self) -> bool:
        """Whether it is not dominated in most draws."""
        return self.dominated < MOST


def front(board: QualityBoard, costs: Costs) -> list[ParetoPoint]:
    """All entries that have an index and a cost, from the cheapest on."""
    entries = sorted(
        (s.entry for s in board.standings if s.index.n and s.entry in costs.by_entry),
        key=lambda name: (costs.by_entry[name].value, -board.standing(name).index.value, name),
    )
    if not entries:
        return []
    quality = quality_draws(board, entries)
    cost = cost_draws([costs.by_entry[name] for name in entries])
    dominated = dominance(quality, cost)
    base = costs.by_entry.get(BASELINE)
    points = []
    for place, name in enumerate(entries):
        index, price = board.standing(name).index, costs.by_entry[name]
        ratio = price.value / base.value if base is not None and base.value > 0 else math.nan
        points.append(
            ParetoPoint(
                name,
                index,
                price,
                ratio,
                float(dominated[place]),
                quality_per_cost(index.value, ratio),
            )
        )
    return points


def quality_per_cost(index: float, ratio: float) -> float:
    """Index per doubling of cost: ``index / |log2(ratio)|`` where cost differs from softmax's.

    Above zero the entry is better than softmax, below zero worse; its size says how much index goes
    with every factor of two of cost that is spent (ratio above 1) or saved (below 1).
    """
    if not (ratio > 0 and math.isfinite(ratio)) or abs(math.log2(ratio)) < 1e-9:
        return math.nan
    return index / abs(math.log2(ratio))


def dominance(quality: Floats, cost: Floats) -> Floats:
    """Share of draws (entries, draws) in which another entry dominates each entry."""
    dominated = np.zeros(len(quality))
    for own in range(len(quality)):
        as_good, as_cheap = quality >= quality[own], cost <= cost[own]
        better = (quality > quality[own]) | (cost < cost[own])
        dominated[own] = (as_good & as_cheap & better).any(axis=0).mean()
    return dominated


def quality_draws(board: QualityBoard, entries: Sequence[str], draws: int = DRAWS) -> Floats:
    """Joint draws of the index, (entries, draws); without a spread, the index alone."""
    rows = [board.scores.entries.index(name) for name in entries]
    if len(board.scores.tasks) > 1:
        units = board.scores.means()[rows]
    else:
        units = board.scores.values[board.scores.tasks[0]][rows]
        units = units[:, ~np.isnan(units).any(axis=0)]  # seeds that all of them have
    # In an order that names do not decide, so that renaming a task changes nothing.
    units = units[:, np.lexsort(np.sort(units, axis=0))]
    count = units.shape[1]
    index = units.mean(axis=1, keepdims=True)
    if count < 2:
        return np.broadcast_to(index, (len(rows), draws)).copy()
    generator = np.random.default_rng(0)
    z = generator.standard_normal((count, draws))
    scale = np.sqrt(generator.chisquare(count - 1, draws) / (count - 1))
    return np.asarray(index + (units - index) @ z / np.sqrt(count * (count - 1)) / scale)


def cost_draws(costs: Sequence[Interval], draws: int = DRAWS) -> Floats:
    """Draws of every cost, (entries, draws); one without an interval stays at its value."""
    generator = np.random.default_rng(1)
    found = np.empty((len(costs), draws))
    for place, cost in enumerate(costs):
        noise = generator.standard_t(max(cost.n - 1, 1), draws)
        error = 0.0
        if cost.known and cost.high > cost.value > 0:
            error = math.log(cost.high / cost.value) / float(stdtrit(cost.n - 1, 0.5 + LEVEL / 2))
        found[place] = cost.value * np.exp(np.clip(error * noise, -50, 50))
    return found
