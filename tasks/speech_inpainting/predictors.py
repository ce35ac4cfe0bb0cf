"""Predictors in closed form that the scores are read against, float64.

Each takes a batch of `tasks.problems.hidden.hide` over frames and gives the (B, M, bands) hidden
ones, standardised, so 0 is a band's mean in training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.problems.hidden import taken

NUGGET = 0.01
"""Variance that kriging takes for a frame's own, of 1 in all"""


def visible_mean(batch: Batch) -> Tensor:
    """The mean of the visible frames, band by band."""
    mean = batch["known"].double().mean(1, keepdim=True)
    return mean.expand(-1, batch["asked_places"].shape[1], -1)


def linear_interpolation(batch: Batch) -> Tensor:
    """On the line between the visible frames before and behind; at an end the nearest one."""
    known, places, asked = batch["known"].double(), batch["known_places"], batch["asked_places"]
    behind = torch.searchsorted(places, asked)
    before = (behind - 1).clamp(min=0)
    behind = behind.clamp(max=places.shape[1] - 1)
    first, last = places.gather(1, before), places.gather(1, behind)
    share = (asked - first) / (last - first).clamp(min=1)
    share = share.clamp(0, 1).double()[..., None]
    return (1 - share) * taken(known, before) + share * taken(known, behind)


def covariances(windows: Tensor) -> Tensor:
    """(bands, T) mean products of frames of (N, T, bands) windows that lie 0, 1, ... apart.

    Sums over fewer pairs at larger lags are divided by the same number, which keeps every matrix
    that is put together from them positive semidefinite.
    """
    z = windows.double()
    length = z.shape[1]
    products = [(z[:, lag:] * z[:, : length - lag]).sum((0, 1)) for lag in range(length)]
    return torch.stack(products, dim=1) / (len(z) * length)


def kriging(batch: Batch, covariance: Tensor, nugget: float = NUGGET) -> Tensor:
    """The best linear predictor of a band from the same band's visible frames, for a stationary
    series of these `covariances`.
    """
    places, asked = batch["known_places"], batch["asked_places"]
    among = _between(covariance, places, places)
    among = among + nugget * torch.eye(places.shape[1], dtype=torch.float64)
    values = batch["known"].double().transpose(1, 2)[..., None]
    weights = torch.linalg.solve(among, values)
    return (_between(covariance, asked, places) @ weights)[..., 0].transpose(1, 2)


def _between(covariance: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(B, bands, I, J) covariances of frames at places (B, I) with those at (B, J)."""
    lag = (one[:, :, None] - other[:, None]).abs()
    return covariance[:, lag].transpose(0, 1)
