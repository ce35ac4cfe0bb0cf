"""Irregular sampling of a regular series: which values a model sees, and which it is asked for.

A window of H hours, followed by E more, is thinned to n observations, single values (variable,
hour). Each variable has a rate of its own in each window, r = exp(N(0, 0.75^2)), and the n of the
H K values are drawn without replacement with weights r (Efraimidis and Spirakis 2006), so some
variables are seen often, some once and some never. Asked for are values drawn uniformly from those
of the window that are not observed (interpolation), and from the E hours after it (extrapolation).

Tokens stand in the order of their hours, and at the same hour in that of the variables; what is
left over of an observation table follows at its end and is masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cab import Batch
from tasks.forecasting.data import Series

RATE_DEVIATION = 0.75
"""Standard deviation of a variable's log rate of observation"""


@dataclass(frozen=True)
class Sampling:
    """Sizes of a window."""

    hours: int
    """H, in which observations lie"""
    ahead: int
    """E, hours after it that are asked for"""
    counts: tuple[int, ...]
    """Numbers of observations n; a training window has any from the least to the most"""
    inside: int
    """Values asked for in the window"""
    after: int
    """Values asked for after it"""

    @property
    def most(self) -> int:
        """N, length of an observation table."""
        return max(self.counts)

    @property
    def asked(self) -> int:
        """M, values asked for."""
        return self.inside + self.after


def sample(
    series: Series, starts: Tensor, counts: Tensor, sampling: Sampling, generator: torch.Generator
) -> Batch:
    """Thin the windows that begin at (B,) ``starts`` to (B,) ``counts`` observations.

    Returns:
        ``values`` (B, N) z-scores, ``variables`` and ``hours`` (B, N) int64 where they stand,
        ``observed`` (B, N) bool, ``calendar`` (B, N, F); and of what is asked ``asked_variables``,
        ``asked_hours`` (B, M), ``asked_calendar`` (B, M, F) and ``target`` (B, M). Hours count
        from the window's begin. The last ``sampling.after`` queries lie after the window.
    """
    batch, kinds = len(starts), series.values.shape[1]
    hours, whole = sampling.hours, sampling.hours + sampling.ahead
    rows = starts[:, None] + torch.arange(whole)
    table, times = series.values[rows].flatten(1), series.times[rows]

    rate = RATE_DEVIATION * torch.randn(batch, 1, kinds, generator=generator)
    ranked = (
        _gumbel(batch, hours * kinds, generator) + rate.expand(-1, hours, -1).flatten(1)
    ).topk(sampling.most)
    observed = torch.arange(sampling.most) < counts[:, None]
    cells = ranked.indices.masked_fill(~observed, whole * kinds).sort().values
    seen = torch.zeros(batch, whole * kinds + 1, dtype=torch.bool).scatter_(1, cells, True)

    free = torch.rand(batch, hours * kinds, generator=generator)
    inside = free.masked_fill(seen[:, : hours * kinds], -1).topk(sampling.inside).indices
    after = torch.rand(batch, sampling.ahead * kinds, generator=generator)
    after = hours * kinds + after.topk(sampling.after).indices
    asked = torch.cat([inside, after], dim=1).sort().values

    cells = cells.masked_fill(~observed, 0)
    row = torch.arange(batch)[:, None]
    return {
        "values": table.gather(1, cells).masked_fill(~observed, 0.0),
        "variables": cells % kinds,
        "hours": cells // kinds,
        "observed": observed,
        "calendar": times[row, cells // kinds],
        "asked_variables": asked % kinds,
        "asked_hours": asked // kinds,
        "asked_calendar": times[row, asked // kinds],
        "target": table.gather(1, asked),
    }


def _gumbel(batch: int, count: int, generator: torch.Generator) -> Tensor:
    # The n largest of log w + Gumbel noise are a weighted draw without replacement.
    uniform = torch.rand(batch, count, generator=generator).clamp(min=1e-12)
    return -(-uniform.log()).log()
