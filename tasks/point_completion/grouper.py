"""From points to point proxies: tokens that know their surroundings (Yu et al. 2021, section 3.2).

A light DGCNN (Wang et al. 2019): edge convolutions over nearest neighbours, with farthest point
sampling between them. PoinTr's has four: 2048 points, 512, 512 and 128.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.point_completion.geometry import farthest_points, nearest, take

_INPUT_CHANNELS = 8
_NORM_GROUPS = 4
_SLOPE = 0.2


@dataclass(frozen=True)
class Stage:
    """One edge convolution."""

    channels: int
    """Of its result"""
    points: int = 0
    """Left by farthest point sampling before it; 0: all"""


PUBLISHED_STAGES = (Stage(32), Stage(64, points=512), Stage(64), Stage(128, points=128))
PUBLISHED_NEIGHBOURS = 16


class EdgeConvolution(nn.Module):
    """The largest of what the edges to the nearest points hold: max_j f(x_j - x_i, x_i)."""

    def __init__(self, channels: int, result: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.edge = nn.Linear(2 * channels, result, bias=False)
        self.norm = nn.GroupNorm(_NORM_GROUPS, result)

    def forward(self, centres: Tensor, x: Tensor, points: Tensor, features: Tensor) -> Tensor:
        """Convolve.

        Args:
            centres: (B, M, 3). x: (B, M, C), their features.
            points: (B, N, 3), in which the neighbours are looked for. features: (B, N, C).

        Returns:
            (B, M, result)
        """
        found = take(features, nearest(centres, points, self.neighbours))
        own = x[:, :, None].expand_as(found)
        edges = self.edge(torch.cat([found - own, own], dim=-1))
        edges = self.norm(edges.movedim(-1, 1)).movedim(1, -1)
        return F.leaky_relu(edges, _SLOPE).amax(2)


class Grouper(nn.Module):
    """Point proxies of a cloud."""

    def __init__(self, stages: tuple[Stage, ...], neighbours: int) -> None:
        super().__init__()
        self.stages = stages
        self.input = nn.Linear(3, _INPUT_CHANNELS)
        widths = [_INPUT_CHANNELS, *(stage.channels for stage in stages)]
        self.convolutions = nn.ModuleList(
            EdgeConvolution(before, after, neighbours)
            for before, after in itertools.pairwise(widths)
        )

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, 3) to the centres (B, T, 3) and their features (B, T, C)."""
        x = self.input(points)
        for stage, convolution in zip(self.stages, self.convolutions, strict=True):
            centres, own = points, x
            if stage.points:
                index = farthest_points(points, stage.points)
                centres, own = take(points, index), take(x, index)
            x = convolution(centres, own, points, x)
            points = centres
        return points, x
