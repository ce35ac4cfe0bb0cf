"""What is known of a shape, and the places at which its distance is asked for.

Known are points drawn from the shape's surface. Half of the queries lie near the surface, at other
points of it moved by Gaussian noise, the others anywhere in the cube around the shape, in random
order. Asked for is the distance to the nearest of all stored points.

Shapes: B shapes, P stored points, L known points, M queries. The longest side of a shape is 1, and
it has its middle at the origin.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cab import Batch
from tasks.point_completion.geometry import take
from tasks.point_completion.views import turns

NOISE = 0.05
"""Standard deviation of what moves a query off the surface, per coordinate"""


def draw(shapes: Tensor, known: int, queries: int, generator: torch.Generator) -> Batch:
    """Turn (B, P, 3) shapes about the vertical at random, and ask for distances.

    Returns:
        ``known`` (B, L, 3) points of the surface, ``asked`` (B, M, 3) places, ``near`` (B, M) bool,
        True where the place was drawn near the surface, ``target`` (B, M) distances.
    """
    batch, points = shapes.shape[:2]
    near = queries // 2
    turned = shapes @ turns(2 * math.pi * torch.rand(batch, generator=generator))
    chosen = torch.rand(batch, points, generator=generator).topk(known + near).indices
    surface, around = take(turned, chosen).split([known, near], dim=1)
    moved = around + NOISE * torch.randn(around.shape, generator=generator)
    anywhere = torch.rand(batch, queries - near, 3, generator=generator) - 0.5
    order = torch.rand(batch, queries, generator=generator).argsort(1)
    asked = take(torch.cat([moved, anywhere], dim=1), order)
    return {
        "known": surface.contiguous(),
        "asked": asked,
        "near": order < near,
        "target": distances(asked, turned),
    }


def distances(places: Tensor, points: Tensor) -> Tensor:
    """(B, M) distances of (B, M, 3) places to the nearest of (B, P, 3) points."""
    return torch.cdist(places, points).amin(2)
