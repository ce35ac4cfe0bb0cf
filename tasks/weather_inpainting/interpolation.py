"""Interpolation along each variable, float64: what the scores are read against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cab import Batch
from tasks.problems.hidden import filled, taken


def linear_interpolation(batch: Batch, variables: int) -> Tensor:
    """(B, M, h) hidden blocks of a batch of `windows.draw` over so many ``variables``.

    On the line between the variable's visible hours around; at an end the nearest one, and 0, the
    mean in training, where the whole variable is hidden.
    """
    hours = batch["known"].shape[2]
    unknown = torch.full(batch["target"].shape, torch.nan, dtype=torch.float64)
    blocks = filled({**batch, "known": batch["known"].double()}, unknown)
    tables = courses(blocks, variables).numpy()
    place = np.arange(tables.shape[2])
    for table in tables:
        for course in table:
            seen = ~np.isnan(course)
            course[:] = np.interp(place, place[seen], course[seen]) if seen.any() else 0.0
    whole = torch.from_numpy(tables).unflatten(2, (-1, hours)).transpose(1, 2).flatten(1, 2)
    return taken(whole, batch["asked_places"])


def courses(blocks: Tensor, variables: int) -> Tensor:
    """(B, K, T) hour by hour, of all blocks (B, P, h) of a window in order."""
    return blocks.unflatten(1, (-1, variables)).transpose(1, 2).flatten(2)
