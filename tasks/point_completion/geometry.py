"""Neighbours and subsets of point clouds.

Shapes: B batch, N and M points, C channels. Coordinates are (B, N, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_TABLE = 1 << 25
"""Distances held at once; more are worked off in parts."""


def take(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) at (B, ...) numbers of tokens: (B, ..., C)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, flat).unflatten(1, index.shape[1:])


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """(B, count) numbers of points: the first one, then each time the one farthest from all before.

    A leading part of the result is the farthest point sample of that size.

    Raises:
        ValueError: there are fewer points than ``count``.
    """
    if points.shape[1] < count:
        raise ValueError(f"{count} farthest points of a cloud of {points.shape[1]}")
    chosen = [torch.zeros(len(points), dtype=torch.long, device=points.device)]
    distance = torch.full(points.shape[:2], torch.inf, device=points.device)
    for _ in range(count - 1):
        gap = (points - take(points, chosen[-1][:, None])).square().sum(-1)
        distance = torch.minimum(distance, gap)
        chosen.append(distance.argmax(1))
    return torch.stack(chosen, dim=1)


@torch.no_grad()
def nearest(points: Tensor, others: Tensor, count: int = 1) -> Tensor:
    """(B, N, count) numbers of the ``others`` (B, M, 3) that are closest to each point, unordered.

    Raises:
        ValueError: there are fewer others than ``count``.
    """
    batch, total = others.shape[:2]
    if total < count:
        raise ValueError(f"{count} neighbours in a cloud of {total}")
    length = others.square().sum(-1)[:, None]
    parts = []
    for part in points.split(max(1, _LARGEST_TABLE // (batch * total)), dim=1):
        # The square of the point itself is missing: it is the same for all others.
        distance = torch.baddbmm(length, part, others.transpose(1, 2), alpha=-2)
        if count == 1:
            parts.append(distance.argmin(-1, keepdim=True))
        else:
            parts.append(distance.topk(count, largest=False, sorted=False).indices)
    return torch.cat(parts, dim=1)
