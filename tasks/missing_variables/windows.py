"""Windows of a series from which whole variables are missing.

As in GinAR (Yu et al. 2024) a missing variable is missing for the whole history, and every variable
is to be forecast. Of K variables round(s K) drawn uniformly are missing, at a share s of 25, 50, 75
or 90 %.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.forecasting.data import Series

SHARES = (25, 50, 75, 90)
"""Percent of the variables"""


def drop(counts: Tensor, variables: int, generator: torch.Generator) -> Tensor:
    """(B, K) bool, False at (B,) ``counts`` uniformly drawn variables."""
    rank = torch.rand(len(counts), variables, generator=generator).argsort(1).argsort(1)
    return rank >= counts[:, None]


def missing_count(percent: int, variables: int) -> int:
    """Variables missing at a share."""
    return round(percent * variables / 100)


def masked_windows(
    series: Series, starts: Tensor, present: Tensor, history: int, horizon: int
) -> Batch:
    """Windows that begin at (B,) ``starts``, of which only the variables ``present`` (B, K) show.

    Returns:
        ``history`` (B, K, T) z-scores, 0 where missing, ``present``, ``calendar`` (B, F) of the
        first hour to be forecast, ``target`` (B, K, O) of all variables.
    """
    window = series.windows(starts, history, horizon)
    shown = window["history"].transpose(1, 2)
    return {
        "history": shown.masked_fill(~present[..., None], 0.0),
        "present": present,
        "calendar": window["horizon_times"][:, 0],
        "target": window["target"].transpose(1, 2),
    }
