"""Predictors in closed form that the scores are read against.

Each takes a batch of `sampling.sample` and gives the (B, M) values asked for, in float64; z-scores,
so 0 is a variable's mean in training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.forecasting.data import Series

NUGGET = 0.01
"""Variance that kriging takes for an observation's own, of 1 in all; chosen on the validation
split among 0.003, 0.01, 0.03 and 0.1."""


def last_observation(batch: Batch) -> Tensor:
    """The variable's latest observation up to the time asked for; before its first one that, and
    0 where it has none.
    """
    before, after = _neighbours(batch)
    return torch.where(before.found, before.value, after.value)


def linear_interpolation(batch: Batch) -> Tensor:
    """On the line between the variable's observations around the time asked for; beyond them the
    nearest one, and 0 where it has none.
    """
    before, after = _neighbours(batch)
    gap = (after.hour - before.hour).clamp(min=1)
    share = (batch["asked_hours"] - before.hour) / gap
    between = before.value + share * (after.value - before.value)
    outside = torch.where(before.found, before.value, after.value)
    return torch.where(before.found & after.found, between, outside)


class _Neighbour:
    """The variable's observation next to each time asked for, on one side; value 0 if none."""

    def __init__(self, batch: Batch, same: Tensor, side: int) -> None:
        # (B, M, N) hours between, where the observation lies on this side.
        distance = side * (batch["hours"][:, None] - batch["asked_hours"][..., None])
        nearest = distance.masked_fill(~same | (distance < 0), 1 << 30).min(-1)
        self.found = nearest.values < 1 << 30
        self.hour = batch["hours"].gather(1, nearest.indices).double()
        value = batch["values"].double().gather(1, nearest.indices)
        self.value = value.masked_fill(~self.found, 0.0)


def _neighbours(batch: Batch) -> tuple[_Neighbour, _Neighbour]:
    same = batch["asked_variables"][..., None] == batch["variables"][:, None]
    same &= batch["observed"][:, None]
    return _Neighbour(batch, same, -1), _Neighbour(batch, same, 1)


def covariances(series: Series, longest: int) -> Tensor:
    """(longest + 1, K, K) of a series: [l, u, v] is the mean of z_u(t + l) z_v(t), float64.

    Sums over fewer pairs at larger lags are divided by the same number T, which keeps every matrix
    that is put together from them positive semidefinite.
    """
    z = series.values.double()
    return torch.stack([z[lag:].T @ z[: len(z) - lag] / len(z) for lag in range(longest + 1)])


def kriging(batch: Batch, covariance: Tensor, nugget: float = NUGGET) -> Tensor:
    """Simple kriging: the best linear predictor from all observations of all variables.

    Best for a stationary series of these covariances and mean 0 (a Gaussian process with a kernel
    read off the training data); the year's course is not stationary.
    """
    variables, hours = batch["variables"], batch["hours"]
    among = _between(covariance, variables, hours, variables, hours)
    valid = batch["observed"]
    pair = valid[:, :, None] & valid[:, None]
    among = among.masked_fill(~pair, 0.0)
    among = among + torch.diag_embed(torch.where(valid, nugget, 1.0).double())
    weights = torch.linalg.solve(among, batch["values"].double()[..., None])
    across = _between(covariance, batch["asked_variables"], batch["asked_hours"], variables, hours)
    return (across.masked_fill(~valid[:, None], 0.0) @ weights)[..., 0]


def _between(covariance: Tensor, u: Tensor, s: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """(B, I, J) covariances of variables u (B, I) at hours s with v (B, J) at t."""
    lag = s[:, :, None] - t[:, None]
    first, second = u[:, :, None].expand_as(lag), v[:, None].expand_as(lag)
    forward, backward = covariance[lag.abs(), first, second], covariance[lag.abs(), second, first]
    return torch.where(lag >= 0, forward, backward)
