"""Shapes as streams of coordinates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AXES = 3
"""Coordinates of a point, in the order of the stream: height, then the two of the ground"""


def draw_streams(shapes: Tensor, points: int, levels: int, generator: torch.Generator) -> Tensor:
    """(B, points * AXES) levels of coordinates of some points of each shape.

    A shape is turned by a random number of quarter turns about the vertical, and ``points`` of its
    points are drawn. They come in the order of their height, then of the first and of the second
    ground coordinate, as the vertices of PolyGen (Nash et al. 2020).

    Args:
        shapes: (B, P, 3) in -0.5..0.5, as x, y (up), z.
        points: that are drawn of the P.
        levels: of equal width, that the range of a coordinate is divided into.
        generator: of the draws.
    """
    count = len(shapes)
    chosen = torch.rand(shapes.shape[:2], generator=generator).argsort(1)[:, :points]
    x, up, z = shapes.gather(1, chosen[..., None].expand(-1, -1, AXES)).unbind(-1)
    turn = torch.randint(4, (count, 1), generator=generator)
    cos, sin = torch.tensor([1, 0, -1, 0])[turn], torch.tensor([0, 1, 0, -1])[turn]
    turned = torch.stack([up, cos * x + sin * z, cos * z - sin * x], dim=-1)
    level = ((turned + 0.5) * levels).long().clamp(0, levels - 1)
    rank = (level[..., 0] * levels + level[..., 1]) * levels + level[..., 2]
    order = rank.argsort(1)[..., None].expand(-1, -1, AXES)
    return level.gather(1, order).flatten(1)


def as_points(streams: Tensor, levels: int) -> Tensor:
    """(B, N, 3) the centres of the levels of (B, N * AXES) streams, as x, y (up), z."""
    up, x, z = ((streams.unflatten(1, (-1, AXES)) + 0.5) / levels - 0.5).unbind(-1)
    return torch.stack([x, up, z], dim=-1)


def contexts(streams: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """What counting looks at, (B, L) each: the axis of a coordinate, and the coordinate of the
    previous point along it, ``levels`` where there is none.
    """
    axis = (torch.arange(streams.shape[1]) % AXES).expand_as(streams)
    return axis, F.pad(streams[:, :-AXES], (AXES, 0), value=levels)
